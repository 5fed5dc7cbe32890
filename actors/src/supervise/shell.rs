//! The supervisor as an actor: carries out what the core says.
//!
//! The shell owns nothing that decides. It turns ractor's supervision events
//! into the core's events, and the core's actions into starts, stops and
//! timers. It never waits for a child: a stop is asked for, and a task of its
//! own kills the child when the time is over; that it is gone is an event like
//! any other.

mod charge;
mod child;
mod dynamic;
mod ending;
mod root;
mod slot;
mod supervisor;
mod suspects;

use std::sync::{Arc, mpsc::SyncSender};

use ractor::{Actor, ActorProcessingErr, ActorRef, SupervisionEvent};
use tokio::sync::{oneshot, watch};

pub use child::Child;
pub use dynamic::{DynamicSupervisor, StartChildError};
pub use root::{Env, Root, RootError, Timings};
pub use supervisor::Supervisor;

use self::{
    charge::{Charge, Stopping},
    child::ChildFactory,
    slot::fault_of,
};
use super::{
    context::{NORMAL, PASSIVE},
    core::{Event, Exhaustion, Exit, Incarnation},
    crash::{Digest, Fault},
    guard::catch,
    spec::{ChildId, ChildSpec},
    tree::NodeCell,
    watchdog,
};

/// Given as the reason to ractor when a supervisor stops somebody.
const SHUTDOWN: &str = "shutdown";

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
    /// A child that is passive and has nothing to do is to leave.
    Dismiss(ChildId),
    /// A passive child is needed.
    Wake(ChildId),
    /// Somebody lets a child out of its quarantine.
    Release(ChildId),
    /// Somebody wants a message handled again that killed a child.
    Pardon(ChildId, Digest),
    /// Somebody wants a child restarted.
    Restart(ChildId),
    /// The watchdog wants to know whether it still handles messages.
    Ping(SyncSender<()>),
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
            ShellMsg::Abandon(id, life) => charge.abandon(&id, life).await,
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
            ShellMsg::Dismiss(id) => {
                let passive =
                    charge.slots.get(&id).is_some_and(|slot| slot.factory.close_passive());
                match passive {
                    true => charge.drive(Event::RemoveChild { id }).await,
                    false => Ok(()),
                }
            }
            ShellMsg::Wake(id) => charge.drive(Event::WakeChild { id }).await,
            ShellMsg::Release(id) => charge.drive(Event::ReleaseQuarantine { id }).await,
            ShellMsg::Pardon(id, digest) => {
                if let Some(slot) = charge.slots.get_mut(&id) {
                    slot.pardon(digest);
                }
                Ok(())
            }
            ShellMsg::Restart(id) => charge.drive(Event::RestartChild { id }).await,
            ShellMsg::Ping(ping) => {
                watchdog::answer(&ping);
                Ok(())
            }
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
            SupervisionEvent::ActorTerminated(actor, state, reason) => {
                // What a killed node holds has to be free before its next life
                // begins; how it is given up is foreign code.
                let _ = catch(|| drop(state));
                match reason.as_deref() {
                    Some("killed") => (actor, Exit::Killed, Some(Fault::Killed.into())),
                    Some("actor_task_cancelled") => {
                        (actor, Exit::Cancelled, Some(Fault::Cancelled.into()))
                    }
                    Some(NORMAL) => (actor, Exit::Normal, None),
                    Some(PASSIVE) => (actor, Exit::Passive, None),
                    _ => (actor, Exit::Shutdown, None),
                }
            }
            _ => return Ok(()),
        };
        charge.exited(&actor, exit, fault).await
    }
}
