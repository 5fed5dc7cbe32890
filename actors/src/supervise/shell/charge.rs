//! A supervisor at work.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use ractor::{ActorId, ActorProcessingErr, ActorRef};
use tokio::sync::watch;

use super::{
    Commission, Ended, Report, SHUTDOWN, ShellMsg,
    child::{ChildFactory, Launch},
    root::Env,
    slot::Slot,
};
use crate::supervise::{
    core::{Action, Event, Exit, Incarnation, SupervisorCore},
    crash::Verdict,
    spec::{ChildId, ChildSpec, Strategy},
    tasks::Tasks,
    tree::{NodeCell, Status},
};

/// A supervisor at work: the core, and what it takes to do what it says.
pub(crate) struct Charge {
    pub(super) myself: ActorRef<ShellMsg>,
    pub(super) env: Arc<Env>,
    pub(super) cell: Arc<NodeCell>,
    pub(super) slots: HashMap<ChildId, Slot>,
    /// Whose lives ractor's events are about.
    pub(super) actors: HashMap<ActorId, (ChildId, Incarnation)>,
    pub(super) stopping: Option<Stopping>,
    pub(super) look_every: Option<Duration>,
    pub(super) tasks: Tasks,
    core: SupervisorCore,
    dynamic: bool,
    report: watch::Sender<Report>,
}

/// It was told to stop.
#[derive(Clone, Copy)]
pub(super) struct Stopping {
    /// Nobody of the tree will come back.
    pub(super) for_good: bool,
}

impl Charge {
    pub(super) fn new(myself: ActorRef<ShellMsg>, commission: Commission) -> Self {
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
    pub(super) fn furnish(&mut self, spec: &ChildSpec, factory: Arc<dyn ChildFactory>) {
        if self.slots.contains_key(&spec.id) {
            return;
        }
        let slot = Slot::new(&self.env.tree, self.cell.path(), spec, factory);
        self.slots.insert(spec.id.clone(), slot);
        if let Some(limit) = spec.policy.stuck_after {
            self.look_after(limit);
        }
    }

    /// Tells the core, and does what it says until it has nothing more to say.
    pub(super) async fn drive(&mut self, event: Event) -> Result<(), ActorProcessingErr> {
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
            Action::ScheduleRestart { id, after } => self.due_in(&id, after),
            Action::Quarantine { id, reason, until } => {
                tracing::error!(path = %self.cell.path().child(&id), %reason, "node is quarantined");
                if let Some(slot) = self.slots.get(&id) {
                    slot.cell.quarantined(until);
                }
                self.due_in(&id, until.saturating_sub(self.env.tree.now()));
            }
            Action::Decide { id, incarnation, decision, failures } => {
                self.record(&id, incarnation, Verdict { decision, failures });
            }
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
        slot.begin(incarnation, now);
        let launch = Launch {
            env: Arc::clone(&self.env),
            cell: Arc::clone(&slot.cell),
            incarnation,
            supervisor: self.myself.get_cell(),
        };
        match slot.factory.start(launch).await {
            Ok(running) => {
                self.actors.insert(running.actor().get_id(), (id.clone(), incarnation));
                slot.cell.live(running.live(), Some(self.myself.clone()));
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

    fn record(&mut self, id: &ChildId, incarnation: Incarnation, verdict: Verdict) {
        let Some(crash) = self.slots.get_mut(id).and_then(|slot| slot.crash.take()) else {
            return;
        };
        debug_assert_eq!(crash.incarnation, incarnation);
        self.env.record(&crash, verdict);
    }

    /// All children are gone, and so will be this supervisor.
    fn end(&mut self, ended: Ended) {
        self.clear_out();
        self.cell.set_status(Status::Stopped);
        self.report.send_modify(|report| report.ended = Some(ended));
    }

    /// Gives up the slots. This has to be done before ractor says that the
    /// supervisor is gone: its successor uses the same paths.
    fn clear_out(&mut self) {
        for (_, slot) in self.slots.drain() {
            if self.dynamic {
                // A successor knows nothing of these.
                slot.forget(&self.env.tree);
            } else {
                slot.vacate();
            }
        }
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.clear_out();
    }
}
