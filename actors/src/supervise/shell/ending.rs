//! How children come to their end, and how it is found that they have.

use std::time::Duration;

use ractor::{ActorCell, ActorProcessingErr, ActorRef};
use tokio::{task::AbortHandle, time::sleep};

use super::{ShellMsg, charge::Charge, slot::Cause};
use crate::supervise::{
    core::{Event, Exit, Incarnation},
    crash::Fault,
    spec::{ChildId, Shutdown},
    tell::tell,
    tree::{Live, Status},
};

/// Children that may get stuck are looked at this many times within their limit.
const LOOKS: u32 = 4;

impl Charge {
    /// Asks a child to stop, and sees to it that it does.
    pub(super) fn stop(&mut self, id: ChildId, incarnation: Incarnation, shutdown: Shutdown) {
        let Some(slot) = self.slots.get(&id) else {
            return;
        };
        let Some(running) = &slot.running else {
            return;
        };
        slot.cell.set_status(Status::Stopping);
        let patience = match shutdown {
            Shutdown::Brutal => None,
            Shutdown::After(patience) => Some(patience),
            Shutdown::Infinity => {
                running.ask_to_stop(self.for_good());
                return;
            }
        };
        if patience.is_some() {
            running.ask_to_stop(self.for_good());
        }
        let (actor, live) = (running.actor(), running.live());
        let (myself, grace) = (self.myself.clone(), self.env.kill_grace);
        self.tasks.spawn(async move {
            let patient = match patience {
                Some(patience) => actor.wait(Some(patience)).await.is_ok(),
                None => false,
            };
            if !patient {
                kill(&actor, &live, grace, &myself, ShellMsg::Abandon(id, incarnation)).await;
            }
        });
    }

    /// Ractor says that a child is gone.
    pub(super) async fn exited(
        &mut self,
        actor: &ActorCell,
        mut exit: Exit,
        fault: Option<Cause>,
    ) -> Result<(), ActorProcessingErr> {
        let Some((id, incarnation)) = self.actors.remove(&actor.get_id()) else {
            return Ok(());
        };
        let now = self.env.tree.now();
        if let Some(slot) = self.slots.get_mut(&id) {
            slot.crash = None;
            if std::mem::take(&mut slot.condemned) && exit == Exit::Killed {
                exit = Exit::Stuck;
                slot.note(incarnation, Fault::Stuck.into(), now);
            } else if let Some(fault) = fault {
                slot.note(incarnation, fault, now);
            }
            slot.running = None;
            if exit == Exit::Passive {
                let (myself, id) = (self.myself.clone(), id.clone());
                let rouse = move || drop(tell(&myself, ShellMsg::Wake(id)));
                slot.factory.rest(incarnation, Box::new(rouse));
            } else {
                slot.factory.over(incarnation);
            }
            match self.stopping {
                Some(stopping) => {
                    slot.cell.over(Status::Stopped);
                    if stopping.for_good {
                        slot.factory.close();
                    }
                }
                None if exit == Exit::Passive => slot.cell.over(Status::Passive),
                None => slot.cell.over(Status::Restarting),
            }
        }
        self.drive(Event::ChildExited { id, incarnation, exit }).await
    }

    /// A child was killed and is still there, so it blocks its thread: it is
    /// left to itself.
    pub(super) async fn abandon(
        &mut self,
        id: &ChildId,
        life: Incarnation,
    ) -> Result<(), ActorProcessingErr> {
        let slot = self.slots.get_mut(id).filter(|slot| slot.life == life);
        let Some((slot, running)) = slot.and_then(|slot| slot.running.take().map(|of| (slot, of)))
        else {
            return Ok(());
        };
        tracing::error!(path = %slot.cell.path(), "node blocks its thread and is abandoned");
        slot.condemned = true;
        let actor = running.actor();
        actor.unlink(self.myself.get_cell());
        self.exited(&actor, Exit::Killed, None).await
    }

    /// Kills the children that have been at one message for too long.
    pub(super) fn look(&mut self) {
        let now = self.env.tree.now();
        for (id, slot) in &mut self.slots {
            let (Some(limit), Some(running)) = (slot.stuck_after, &slot.running) else {
                continue;
            };
            let Some((label, since)) = slot.cell.activity().current() else {
                continue;
            };
            let excused = slot.cell.activity().is_excused();
            if slot.condemned || excused || now.saturating_sub(since) < limit {
                continue;
            }
            tracing::error!(path = %slot.cell.path(), label, "node is stuck");
            slot.condemned = true;
            let (actor, live, grace) = (running.actor(), running.live(), self.env.kill_grace);
            let (myself, abandon) = (self.myself.clone(), ShellMsg::Abandon(id.clone(), slot.life));
            self.tasks.spawn(async move { kill(&actor, &live, grace, &myself, abandon).await });
        }
        if let Some(every) = self.look_every {
            self.send_after(every, ShellMsg::Look);
        }
    }

    /// Has children looked at often enough for this limit.
    pub(super) fn look_after(&mut self, limit: Duration) {
        let every = (limit / LOOKS).max(Duration::from_millis(1));
        let before = self.look_every;
        self.look_every = Some(before.map_or(every, |before| before.min(every)));
        if before.is_none() {
            self.send_after(every, ShellMsg::Look);
        }
    }

    /// Tells the core after a while that a child is due.
    pub(super) fn due_in(&mut self, id: &ChildId, after: Duration) {
        let timer = self.send_after(after, ShellMsg::Due(id.clone()));
        if let Some(slot) = self.slots.get_mut(id) {
            slot.set_timer(timer);
        }
    }

    fn send_after(&self, after: Duration, message: ShellMsg) -> AbortHandle {
        let myself = self.myself.clone();
        self.tasks.spawn(async move {
            sleep(after).await;
            let _ = tell(&myself, message);
        })
    }

    fn for_good(&self) -> bool {
        self.stopping.is_some_and(|stopping| stopping.for_good)
    }
}

/// Kills a child, and says so when that does not help.
async fn kill(
    actor: &ActorCell,
    live: &Live,
    grace: Duration,
    myself: &ActorRef<ShellMsg>,
    abandon: ShellMsg,
) {
    live.kill();
    if actor.wait(Some(grace)).await.is_err() {
        let _ = tell(myself, abandon);
    }
}
