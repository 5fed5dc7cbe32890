//! The supervisor as an actor: carries out what the core says.
//!
//! The shell owns nothing that decides. It turns ractor's supervision events
//! into the core's events, and the core's actions into starts, stops and
//! timers. It never waits for a child: a stop is asked for, and a task of its
//! own kills the child when the time is over; that it is gone is an event like
//! any other.

mod child;
mod dynamic;
mod root;
mod slot;
mod supervisor;

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use ractor::{Actor, ActorCell, ActorId, ActorProcessingErr, ActorRef, SupervisionEvent};
use tokio::{
    sync::{oneshot, watch},
    time::sleep,
};

pub use child::Child;
pub use dynamic::{DynamicSupervisor, StartChildError};
pub use root::{Env, Root, RootError};
pub use supervisor::Supervisor;

use self::{
    child::{ChildFactory, Launch, Running},
    slot::{Slot, fault_of},
};
use super::{
    context::NORMAL,
    core::{Action, Decision, Event, Exhaustion, Exit, Incarnation, SupervisorCore},
    crash::Fault,
    spec::{ChildId, ChildSpec, Shutdown, Strategy},
    tasks::Tasks,
    tell::tell,
    tree::{NodeCell, Status},
};

/// Given as the reason to ractor when a supervisor stops somebody.
const SHUTDOWN: &str = "shutdown";

/// Children that may get stuck are looked at this many times within their limit.
const LOOKS: u32 = 4;

/// What a supervisor is told, apart from the ends of its children.
pub(crate) enum ShellMsg {
    /// A timer of the core has run down.
    Due(ChildId),
    /// The child was killed, but is still there.
    Abandon(ChildId, Incarnation),
    /// A child joins.
    Add(ChildSpec, Arc<dyn ChildFactory>),
    /// A child is to leave; the other side learns when it has.
    Remove(ChildId, oneshot::Sender<()>),
    /// Somebody lets a child out of its quarantine.
    Release(ChildId),
    /// Time to look for stuck children.
    Look,
    /// Stop with all children; those who stop for good need no address any more.
    Stop { for_good: bool },
}

/// The ractor actor of a supervisor.
pub(crate) struct Shell;

/// What a supervisor is made from.
pub(crate) struct Commission {
    pub(crate) env: Arc<Env>,
    pub(crate) cell: Arc<NodeCell>,
    pub(crate) blueprint: Supervisor,
    pub(crate) first: Incarnation,
    /// Where it reports how it ended, and the incarnation to go on with.
    pub(crate) report: watch::Sender<Report>,
}

/// What outlives a supervisor.
#[derive(Clone, Debug, Default)]
pub(crate) struct Report {
    pub(crate) next: Incarnation,
    pub(crate) ended: Option<Ended>,
}

/// How a supervisor ended.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum Ended {
    #[error("stopped")]
    Stopped,
    #[error(transparent)]
    Escalated(Exhaustion),
}

/// A running supervisor.
pub(crate) struct Charge {
    myself: ActorRef<ShellMsg>,
    env: Arc<Env>,
    cell: Arc<NodeCell>,
    core: SupervisorCore,
    dynamic: bool,
    slots: HashMap<ChildId, Slot>,
    actors: HashMap<ActorId, (ChildId, Incarnation)>,
    report: watch::Sender<Report>,
    stopping: Option<Stopping>,
    look_every: Option<Duration>,
    tasks: Tasks,
}

#[derive(Clone, Copy)]
struct Stopping {
    for_good: bool,
}

impl Actor for Shell {
    type Msg = ShellMsg;
    type State = Charge;
    type Arguments = Commission;

    async fn pre_start(
        &self,
        myself: ActorRef<ShellMsg>,
        commission: Commission,
    ) -> Result<Charge, ActorProcessingErr> {
        let mut charge = Charge::new(myself, commission);
        charge.drive(Event::Start).await?;
        Ok(charge)
    }

    async fn handle(
        &self,
        _: ActorRef<ShellMsg>,
        message: ShellMsg,
        charge: &mut Charge,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            ShellMsg::Due(id) => charge.drive(Event::RestartDue { id }).await,
            ShellMsg::Abandon(id, life) => charge.abandon(id, life).await,
            ShellMsg::Add(spec, factory) => {
                charge.furnish(&spec, factory);
                charge.drive(Event::AddChild { spec }).await
            }
            ShellMsg::Remove(id, gone) => {
                if let Some(slot) = charge.slots.get_mut(&id) {
                    slot.leavers.push(gone);
                }
                charge.drive(Event::RemoveChild { id }).await
            }
            ShellMsg::Release(id) => charge.drive(Event::ReleaseQuarantine { id }).await,
            ShellMsg::Look => {
                charge.look();
                Ok(())
            }
            ShellMsg::Stop { for_good } => {
                charge.stopping = Some(Stopping { for_good });
                charge.drive(Event::Stop).await
            }
        }
    }

    async fn handle_supervisor_evt(
        &self,
        _: ActorRef<ShellMsg>,
        event: SupervisionEvent,
        charge: &mut Charge,
    ) -> Result<(), ActorProcessingErr> {
        let (actor, exit, fault) = match event {
            SupervisionEvent::ActorFailed(actor, error) => {
                let fault = fault_of(error);
                let message = fault.summary();
                (actor, Exit::Crash { message }, Some(fault))
            }
            SupervisionEvent::ActorTerminated(actor, _, reason) => match reason.as_deref() {
                Some("killed") => (actor, Exit::Killed, Some(Fault::Killed.into())),
                Some("actor_task_cancelled") => {
                    (actor, Exit::Cancelled, Some(Fault::Cancelled.into()))
                }
                Some(NORMAL) => (actor, Exit::Normal, None),
                _ => (actor, Exit::Shutdown, None),
            },
            _ => return Ok(()),
        };
        charge.exited(&actor, exit, fault).await
    }
}

impl Charge {
    fn new(myself: ActorRef<ShellMsg>, commission: Commission) -> Self {
        let Commission { env, cell, blueprint, first, report } = commission;
        let specs = blueprint.children.iter().map(|child| child.spec.clone());
        let seed = env.seed_for(cell.path());
        let mut charge = Self {
            myself,
            core: SupervisorCore::new(blueprint.policy, specs, first, seed),
            dynamic: blueprint.policy.strategy == Strategy::Dynamic,
            env,
            cell,
            slots: HashMap::new(),
            actors: HashMap::new(),
            report,
            stopping: None,
            look_every: None,
            tasks: Tasks::default(),
        };
        for child in blueprint.children {
            charge.furnish(&child.spec, child.factory);
        }
        charge
    }

    /// Makes room for a child; the first of a name counts, as in the core.
    fn furnish(&mut self, spec: &ChildSpec, factory: Arc<dyn ChildFactory>) {
        if self.slots.contains_key(&spec.id) {
            return;
        }
        let slot = Slot::new(&self.env.tree, self.cell.path(), spec, factory);
        self.slots.insert(spec.id.clone(), slot);
        if let Some(limit) = spec.policy.stuck_after {
            let every = (limit / LOOKS).max(Duration::from_millis(1));
            if self.look_every.is_none_or(|now| every < now) {
                self.look_every = Some(every);
                self.look_later();
            }
        }
    }

    /// Tells the core, and does what it says until it has nothing more to say.
    async fn drive(&mut self, event: Event) -> Result<(), ActorProcessingErr> {
        let mut events = VecDeque::from([event]);
        while let Some(event) = events.pop_front() {
            let actions = self.core.on(event, self.env.tree.now());
            let next = self.core.next_incarnation();
            self.report.send_if_modified(|report| {
                report.next = next;
                false
            });
            for action in actions {
                if let Some(event) = self.perform(action).await? {
                    events.push_back(event);
                }
            }
        }
        Ok(())
    }

    async fn perform(&mut self, action: Action) -> Result<Option<Event>, ActorProcessingErr> {
        match action {
            Action::StartChild { id, incarnation } => return Ok(self.start(id, incarnation).await),
            Action::StopChild { id, incarnation, shutdown } => self.stop(id, incarnation, shutdown),
            Action::ScheduleRestart { id, after } => self.due_in(id, after),
            Action::Quarantine { id, reason, until } => {
                tracing::error!(path = %self.cell.path().child(&id), %reason, "node is quarantined");
                if let Some(slot) = self.slots.get(&id) {
                    slot.cell.quarantined(until);
                }
                self.due_in(id, until.saturating_sub(self.env.tree.now()));
            }
            Action::Decide { id, incarnation, decision } => self.record(&id, incarnation, decision),
            Action::Retire { id } => {
                if let Some(slot) = self.slots.get(&id) {
                    slot.cell.set_status(Status::Stopped);
                    slot.factory.close();
                }
            }
            Action::Forget { id } => {
                if let Some(slot) = self.slots.remove(&id) {
                    slot.forget(&self.env.tree);
                }
            }
            Action::Stopped => {
                self.end(Ended::Stopped);
                self.myself.stop(Some(SHUTDOWN.to_owned()));
            }
            Action::Escalate { reason } => {
                tracing::error!(path = %self.cell.path(), %reason, "supervisor gives up");
                let ended = Ended::Escalated(reason);
                self.end(ended.clone());
                return Err(Box::new(ended));
            }
        }
        Ok(None)
    }

    async fn start(&mut self, id: ChildId, incarnation: Incarnation) -> Option<Event> {
        let slot = self.slots.get_mut(&id)?;
        let now = self.env.tree.now();
        slot.cell.begin(incarnation, now);
        let launch = Launch {
            env: Arc::clone(&self.env),
            cell: Arc::clone(&slot.cell),
            incarnation,
            supervisor: self.myself.get_cell(),
        };
        match slot.factory.start(launch).await {
            Ok(running) => {
                let live = running.live();
                self.actors.insert(live.actor.get_id(), (id.clone(), incarnation));
                slot.cell.live(live, Some(self.myself.clone()));
                slot.running = Some(running);
                Some(Event::ChildStarted { id, incarnation })
            }
            Err(fault) => {
                let message = fault.summary();
                slot.note(incarnation, fault, now);
                slot.cell.over(Status::Restarting);
                Some(Event::ChildExited { id, incarnation, exit: Exit::FailedStart { message } })
            }
        }
    }

    /// Asks a child to stop, and sees to it that it does.
    fn stop(&mut self, id: ChildId, incarnation: Incarnation, shutdown: Shutdown) {
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
        let live = running.live();
        let (myself, grace) = (self.myself.clone(), self.env.kill_grace);
        self.tasks.spawn(async move {
            if let Some(patience) = patience
                && live.actor.wait(Some(patience)).await.is_ok()
            {
                return;
            }
            live.kill();
            if live.actor.wait(Some(grace)).await.is_err() {
                tell(&myself, ShellMsg::Abandon(id, incarnation));
            }
        });
    }

    async fn exited(
        &mut self,
        actor: &ActorCell,
        mut exit: Exit,
        fault: Option<slot::Cause>,
    ) -> Result<(), ActorProcessingErr> {
        let Some((id, incarnation)) = self.actors.remove(&actor.get_id()) else {
            return Ok(());
        };
        let for_good = self.for_good();
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
            slot.factory.over(incarnation);
            if for_good {
                slot.factory.close();
            }
            slot.cell.over(if self.stopping.is_some() {
                Status::Stopped
            } else {
                Status::Restarting
            });
        }
        self.drive(Event::ChildExited { id, incarnation, exit }).await
    }

    /// The child blocks its thread: it is left to itself.
    async fn abandon(&mut self, id: ChildId, life: Incarnation) -> Result<(), ActorProcessingErr> {
        let still = |(known, of): &(ChildId, Incarnation)| *known == id && *of == life;
        let slot = self.slots.get_mut(&id);
        let Some(live) = slot.and_then(|slot| slot.running.as_ref().map(Running::live)) else {
            return Ok(());
        };
        if !self.actors.get(&live.actor.get_id()).is_some_and(still) {
            return Ok(());
        }
        tracing::error!(path = %self.cell.path().child(&id), "node blocks its thread and is abandoned");
        live.actor.unlink(self.myself.get_cell());
        if let Some(slot) = self.slots.get_mut(&id) {
            slot.condemned = true;
        }
        self.exited(&live.actor, Exit::Killed, Some(Fault::Stuck.into())).await
    }

    /// Kills the children that have been at one message for too long.
    fn look(&mut self) {
        let now = self.env.tree.now();
        for (id, slot) in &mut self.slots {
            let (Some(limit), Some(running)) = (slot.stuck_after, &slot.running) else {
                continue;
            };
            let Some((label, since)) = slot.cell.activity().current() else {
                continue;
            };
            if slot.condemned || now.saturating_sub(since) < limit {
                continue;
            }
            tracing::error!(path = %slot.cell.path(), label, "node is stuck");
            slot.condemned = true;
            let live = running.live();
            let (id, myself) = (id.clone(), self.myself.clone());
            let (life, grace) = (slot.life(), self.env.kill_grace);
            self.tasks.spawn(async move {
                live.kill();
                if live.actor.wait(Some(grace)).await.is_err() {
                    tell(&myself, ShellMsg::Abandon(id, life));
                }
            });
        }
        self.look_later();
    }

    fn look_later(&self) {
        if let Some(every) = self.look_every {
            self.send_after(every, ShellMsg::Look);
        }
    }

    fn due_in(&self, id: ChildId, after: Duration) {
        self.send_after(after, ShellMsg::Due(id));
    }

    fn send_after(&self, after: Duration, message: ShellMsg) {
        let myself = self.myself.clone();
        self.tasks.spawn(async move {
            sleep(after).await;
            tell(&myself, message);
        });
    }

    fn record(&mut self, id: &ChildId, incarnation: Incarnation, decision: Decision) {
        let Some(crash) = self.slots.get_mut(id).and_then(|slot| slot.crash.take()) else {
            return;
        };
        debug_assert_eq!(crash.incarnation, incarnation);
        tracing::warn!(
            path = %crash.path,
            kind = crash.kind,
            label = crash.label,
            fault = %crash.fault,
            ?decision,
            "node crashed"
        );
        self.env.crashes.crashed(&crash, decision);
    }

    fn for_good(&self) -> bool {
        self.stopping.is_some_and(|stopping| stopping.for_good)
    }

    fn end(&self, ended: Ended) {
        self.cell.set_status(Status::Stopped);
        self.report.send_modify(|report| report.ended = Some(ended));
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        for (_, slot) in self.slots.drain() {
            if self.dynamic {
                // A successor knows nothing of these.
                slot.forget(&self.env.tree);
            } else {
                slot.cell.over(Status::Stopped);
            }
        }
    }
}
