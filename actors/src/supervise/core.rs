//! The supervisor as a value: events in, actions out.
//!
//! The core knows no clock, no task and no actor. Whoever drives it passes the
//! time with every event, carries out the [`Action`]s in the order given, and
//! reports back what came of them. The rules are those that OTP documents for
//! its supervisors, with these differences, all of them on purpose:
//!
//! - There is a wait before a restart ([`Backoff`](super::Backoff)), and a child
//!   has a budget of its own beside the set's.
//! - A child that does not come up at first is treated like one that failed
//!   later, instead of taking the supervisor down.
//! - A child that spent its budget can be put in quarantine.
//! - While a group is being stopped for a restart, the failure of an older
//!   sibling widens the restart instead of queueing behind it.

mod child;
mod delay;
mod event;
mod exit;
mod group;
mod window;

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

pub use event::{Action, Decision, Event, Exhaustion, Exit, Incarnation};

use self::{
    child::{Child, State},
    delay::Chance,
    window::{DistinctWindow, Window},
};
use super::spec::{ChildId, ChildSpec, SetPolicy};

/// The state machine of one supervisor.
///
/// Feed it [`Event::Start`] first. After [`Action::Stopped`] or
/// [`Action::Escalate`] it is at its end and ignores everything.
#[derive(Clone, Debug)]
pub struct SupervisorCore {
    policy: SetPolicy,
    /// By age: the order of starting, and backwards that of stopping.
    children: BTreeMap<u64, Child>,
    ages: HashMap<ChildId, u64>,
    next_age: u64,
    next_incarnation: u64,
    restarts: Window,
    failing: DistinctWindow,
    chance: Chance,
    phase: Phase,
    /// A group restart is under way: everyone of this age and younger has to be
    /// gone before anyone is started.
    stop_from: Option<u64>,
}

#[derive(Clone, Debug)]
enum Phase {
    Idle,
    Running,
    Ending(End),
    Ended,
}

#[derive(Clone, Debug)]
enum End {
    Stopped,
    Escalated(Exhaustion),
}

impl SupervisorCore {
    /// A supervisor of the given children, the eldest first.
    ///
    /// Of two children with one id the first counts. `seed` is for the jitter;
    /// lives are numbered from `first` on.
    pub fn new(
        policy: SetPolicy,
        children: impl IntoIterator<Item = ChildSpec>,
        first: Incarnation,
        seed: u64,
    ) -> Self {
        let mut core = Self {
            policy,
            children: BTreeMap::new(),
            ages: HashMap::new(),
            next_age: 0,
            next_incarnation: first.0,
            restarts: Window::default(),
            failing: DistinctWindow::default(),
            chance: Chance::new(seed),
            phase: Phase::Idle,
            stop_from: None,
        };
        for spec in children {
            core.insert(spec);
        }
        core
    }

    /// Takes note of an event and says what to do, in order.
    ///
    /// `now` never goes back. Events of a life that is over are ignored.
    pub fn on(&mut self, event: Event, now: Duration) -> Vec<Action> {
        let mut out = Vec::new();
        if matches!(self.phase, Phase::Ended) {
            return out;
        }
        match event {
            Event::Start => self.start(&mut out),
            Event::ChildStarted { id, incarnation } => {
                self.child_started(&id, incarnation, now, &mut out);
            }
            Event::ChildExited { id, incarnation, exit } => {
                self.child_exited(&id, incarnation, &exit, now, &mut out)
            }
            Event::RestartDue { id } => self.bring_back(&id, Some(now), &mut out),
            Event::ReleaseQuarantine { id } => self.bring_back(&id, None, &mut out),
            Event::RestartChild { id } => self.renew(&id, &mut out),
            Event::AddChild { spec } => self.add(spec, &mut out),
            Event::RemoveChild { id } => self.remove(&id, &mut out),
            Event::WakeChild { id } => self.wake(&id, &mut out),
            Event::Stop => self.end(End::Stopped, &mut out),
        }
        out
    }

    /// The number that the next life will get; a successor starts from here.
    pub fn next_incarnation(&self) -> Incarnation {
        Incarnation(self.next_incarnation)
    }

    /// How many children there are, up or down.
    pub fn len(&self) -> usize {
        self.children.len()
    }

    /// Whether there are no children.
    pub fn is_empty(&self) -> bool {
        self.children.is_empty()
    }

    fn start(&mut self, out: &mut Vec<Action>) {
        if !matches!(self.phase, Phase::Idle) {
            return;
        }
        self.phase = Phase::Running;
        if self.grouped() {
            return self.advance_group(out);
        }
        let ages: Vec<u64> = self.children.keys().copied().collect();
        for age in ages {
            self.start_child(age, out);
        }
    }

    fn child_started(
        &mut self,
        id: &ChildId,
        life: Incarnation,
        now: Duration,
        out: &mut Vec<Action>,
    ) {
        let Some((age, child)) = self.find_live(id, life) else {
            return;
        };
        if !matches!(child.state, State::Starting { .. }) {
            return;
        }
        child.state = State::Running { incarnation: life, since: now };
        if child.leaving {
            self.stop_child(age, out);
        }
        self.advance(Some(age), out);
    }

    /// Starts a child that waits, if its time has come; without a time, at once.
    fn bring_back(&mut self, id: &ChildId, now: Option<Duration>, out: &mut Vec<Action>) {
        let age = self.ages.get(id.as_str()).copied();
        let Some((age, child)) = age.and_then(|age| Some((age, self.children.get_mut(&age)?)))
        else {
            return;
        };
        let ready = match child.state {
            State::Waiting { due } => now.is_some_and(|now| now >= due),
            State::Quarantined { due } => now.is_none_or(|now| now >= due),
            _ => false,
        };
        if !ready || !matches!(self.phase, Phase::Running) {
            return;
        }
        self.take_up(age, out);
    }

    /// Starts a child that went passive, because somebody needs it.
    fn wake(&mut self, id: &ChildId, out: &mut Vec<Action>) {
        let age = self.ages.get(id.as_str()).copied();
        let passive =
            |age: &u64| self.children.get(age).is_some_and(|child| child.state == State::Passive);
        if let Some(age) = age.filter(passive)
            && matches!(self.phase, Phase::Running)
        {
            self.take_up(age, out);
        }
    }

    /// Starts a child that is down, when its turn comes.
    fn take_up(&mut self, age: u64, out: &mut Vec<Action>) {
        if let Some(child) = self.children.get_mut(&age) {
            child.state = State::Down;
        }
        if self.grouped() {
            self.advance_group(out);
        } else {
            self.start_child(age, out);
        }
    }

    /// Restarts a child because somebody wants that. One that is about to start or to stop is
    /// left to it.
    fn renew(&mut self, id: &ChildId, out: &mut Vec<Action>) {
        let grouped = self.grouped();
        let age = self.ages.get(id.as_str()).copied();
        let Some((age, child)) = age.and_then(|age| Some((age, self.children.get_mut(&age)?)))
        else {
            return;
        };
        if !matches!(self.phase, Phase::Running) || child.leaving {
            return;
        }
        match child.state {
            State::Running { .. } if grouped => {
                self.begin_group_restart(age);
                self.advance_group(out);
            }
            State::Running { .. } => {
                child.renewing = true;
                self.stop_child(age, out);
            }
            State::Waiting { .. }
            | State::Quarantined { .. }
            | State::Passive
            | State::Finished => self.take_up(age, out),
            State::Down | State::Starting { .. } | State::Stopping { .. } => {}
        }
    }

    fn add(&mut self, spec: ChildSpec, out: &mut Vec<Action>) {
        if matches!(self.phase, Phase::Ending(_)) {
            out.push(Action::Forget { id: spec.id });
            return;
        }
        let Some(age) = self.insert(spec) else {
            return;
        };
        if matches!(self.phase, Phase::Idle) {
            return;
        }
        if self.grouped() {
            self.advance_group(out);
        } else {
            self.start_child(age, out);
        }
    }

    fn remove(&mut self, id: &ChildId, out: &mut Vec<Action>) {
        let Some(age) = self.ages.get(id.as_str()).copied() else {
            return;
        };
        let Some(child) = self.children.get_mut(&age) else {
            return;
        };
        child.leaving = true;
        match child.state {
            State::Running { .. } => self.stop_child(age, out),
            State::Starting { .. } | State::Stopping { .. } => {}
            State::Down
            | State::Waiting { .. }
            | State::Quarantined { .. }
            | State::Passive
            | State::Finished => {
                self.forget(age, out);
                self.advance(None, out);
            }
        }
    }

    fn insert(&mut self, spec: ChildSpec) -> Option<u64> {
        if self.ages.contains_key(spec.id.as_str()) {
            return None;
        }
        let age = self.next_age;
        self.next_age += 1;
        self.ages.insert(spec.id.clone(), age);
        self.children.insert(age, Child::new(spec));
        Some(age)
    }

    fn forget(&mut self, age: u64, out: &mut Vec<Action>) {
        if let Some(child) = self.children.remove(&age) {
            self.ages.remove(child.spec.id.as_str());
            out.push(Action::Forget { id: child.spec.id });
        }
    }

    fn start_child(&mut self, age: u64, out: &mut Vec<Action>) {
        let Some(child) = self.children.get_mut(&age) else {
            return;
        };
        let incarnation = Incarnation(self.next_incarnation);
        self.next_incarnation += 1;
        child.state = State::Starting { incarnation };
        out.push(Action::StartChild { id: child.spec.id.clone(), incarnation });
    }

    fn stop_child(&mut self, age: u64, out: &mut Vec<Action>) {
        let Some(child) = self.children.get_mut(&age) else {
            return;
        };
        if let State::Running { incarnation, .. } = child.state {
            child.state = State::Stopping { incarnation };
            out.push(Action::StopChild {
                id: child.spec.id.clone(),
                incarnation,
                shutdown: child.spec.policy.shutdown,
            });
        }
    }

    /// The child, if this is the life it is living.
    fn find_live(&mut self, id: &ChildId, life: Incarnation) -> Option<(u64, &mut Child)> {
        let age = self.ages.get(id.as_str()).copied()?;
        let child = self.children.get_mut(&age)?;
        (child.live() == Some(life)).then_some((age, child))
    }
}
