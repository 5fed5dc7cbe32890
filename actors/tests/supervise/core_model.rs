//! The core against a second, plainer reading of OTP's rules.
//!
//! The model does a whole restart at once, as OTP's supervisors do, and keeps
//! every list in full. The core is driven through its events; whatever it asks
//! for is done at once. Both must start and stop the same children in the same
//! order, and end in the same way.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use actors::supervise::{
    Action, AutoShutdown, Backoff, Budget, ChildId, ChildPolicy, ChildSpec, Event, Exit,
    Incarnation, Intensity, Restart, SetPolicy, Strategy as Set, SupervisorCore,
};
use proptest::{collection::vec, prelude::*};

/// What is done to a supervisor from outside.
#[derive(Clone, Debug)]
enum Op {
    Exit(usize, bool),
    FailStarts(usize, u8),
    Add(Kind),
    Remove(usize),
    Pass(u64),
    Stop,
}

#[derive(Clone, Copy, Debug)]
struct Kind {
    restart: Restart,
    significant: bool,
}

#[derive(Clone, Copy, Debug)]
struct Rules {
    strategy: Set,
    auto_shutdown: AutoShutdown,
    budget: Intensity,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Stopped,
    Escalated,
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Outcome {
    trace: Vec<String>,
    up: Vec<usize>,
    end: Option<End>,
}

/// OTP's supervisor, as its documentation tells it.
struct Model {
    rules: Rules,
    children: Vec<ModelChild>,
    bad_starts: BTreeMap<usize, u8>,
    restarts: Vec<Duration>,
    /// Restarts to be tried again; OTP sends itself a message for each.
    again: VecDeque<usize>,
    now: Duration,
    outcome: Outcome,
}

#[derive(Clone, Copy)]
struct ModelChild {
    name: usize,
    kind: Kind,
    up: bool,
    /// Its turn to be started is yet to come.
    wanted: bool,
}

impl Model {
    fn ended(&self) -> bool {
        self.outcome.end.is_some()
    }

    fn place(&self, name: usize) -> Option<usize> {
        self.children.iter().position(|child| child.name == name)
    }

    fn try_start(&mut self, at: usize) -> bool {
        let child = &mut self.children[at];
        self.outcome.trace.push(format!("start {}", child.name));
        let bad = self.bad_starts.entry(child.name).or_default();
        child.up = *bad == 0;
        child.wanted = false;
        *bad = bad.saturating_sub(1);
        child.up
    }

    /// Starts in order everybody whose turn it is, until one fails.
    fn start_wanted(&mut self) {
        for at in 0..self.children.len() {
            if self.children[at].wanted && !self.try_start(at) {
                self.again.push_back(self.children[at].name);
                return;
            }
        }
    }

    fn want_from(&mut self, at: usize) {
        for child in &mut self.children[at..] {
            child.wanted = true;
        }
    }

    fn stop_from(&mut self, from: usize) {
        for at in (from..self.children.len()).rev() {
            if self.children[at].up {
                self.outcome.trace.push(format!("stop {}", self.children[at].name));
                self.children[at].up = false;
                if self.children[at].kind.restart == Restart::Temporary {
                    self.children.remove(at);
                }
            }
        }
    }

    fn start_all(&mut self) {
        if self.rules.strategy == Set::OneForOne {
            for at in 0..self.children.len() {
                if !self.try_start(at) {
                    self.again.push_back(self.children[at].name);
                }
            }
        } else {
            self.want_from(0);
            self.start_wanted();
        }
        self.settle();
    }

    fn settle(&mut self) {
        while let Some(name) = self.again.pop_front() {
            if self.ended() {
                return;
            }
            self.down(name, true);
            if self.again.is_empty() && !self.ended() {
                self.start_wanted();
            }
        }
    }

    fn end(&mut self, end: End) {
        self.stop_from(0);
        self.outcome.end = Some(end);
    }

    /// A child is down, by its own doing.
    fn down(&mut self, name: usize, abnormal: bool) {
        let Some(at) = self.place(name) else { return };
        self.children[at].up = false;
        let kind = self.children[at].kind;
        let restart = match kind.restart {
            Restart::Permanent => true,
            Restart::Transient => abnormal,
            Restart::Temporary => false,
        };
        if restart {
            self.restart(at);
            return;
        }
        if kind.restart == Restart::Temporary {
            self.children.remove(at);
        }
        let others = self.children.iter().any(|child| {
            let pending = self.again.contains(&child.name);
            child.kind.significant && (child.up || child.wanted || pending)
        });
        let end = match self.rules.auto_shutdown {
            AutoShutdown::Never => false,
            AutoShutdown::AnySignificant => kind.significant,
            AutoShutdown::AllSignificant => kind.significant && !others,
        };
        if end {
            self.end(End::Stopped);
        }
    }

    fn restart(&mut self, at: usize) {
        let budget = self.rules.budget;
        self.restarts.push(self.now);
        let recent = |time: &&Duration| **time + budget.within >= self.now;
        if self.restarts.iter().filter(recent).count() > budget.restarts as usize {
            self.end(End::Escalated);
            return;
        }
        match self.rules.strategy {
            Set::OneForAll => {
                self.stop_from(0);
                self.want_from(0);
                self.start_wanted();
            }
            Set::RestForOne => {
                self.stop_from(at);
                self.want_from(at);
                self.start_wanted();
            }
            _ => {
                if !self.try_start(at) {
                    self.again.push_back(self.children[at].name);
                }
            }
        }
    }

    fn apply(&mut self, op: &Op, next_name: usize) {
        match *op {
            Op::Exit(name, abnormal) => {
                if self.place(name).is_some_and(|at| self.children[at].up) {
                    self.down(name, abnormal);
                }
            }
            Op::FailStarts(name, count) => drop(self.bad_starts.insert(name, count)),
            Op::Add(kind) => {
                self.children.push(ModelChild { name: next_name, kind, up: false, wanted: false });
                let at = self.children.len() - 1;
                if !self.try_start(at) {
                    self.again.push_back(next_name);
                }
            }
            Op::Remove(name) => {
                if let Some(at) = self.place(name) {
                    if self.children[at].up {
                        self.outcome.trace.push(format!("stop {name}"));
                    }
                    self.children.remove(at);
                }
            }
            Op::Pass(millis) => self.now += Duration::from_millis(millis),
            Op::Stop => self.end(End::Stopped),
        }
        self.settle();
    }

    fn outcome(mut self) -> Outcome {
        let up = self.children.iter().filter(|child| child.up);
        self.outcome.up = up.map(|child| child.name).collect();
        self.outcome
    }
}

/// The core, with somebody who does at once what it asks for.
struct Driven {
    core: SupervisorCore,
    up: BTreeMap<usize, Incarnation>,
    bad_starts: BTreeMap<usize, u8>,
    now: Duration,
    outcome: Outcome,
}

fn spec(name: usize, kind: Kind) -> ChildSpec {
    let policy = ChildPolicy {
        restart: kind.restart,
        significant: kind.significant,
        backoff: Backoff::NONE,
        intensity: Intensity { restarts: u32::MAX, within: Duration::ZERO },
        ..ChildPolicy::default()
    };
    ChildSpec::new(name.to_string(), policy)
}

fn name_of(id: &ChildId) -> usize {
    id.as_str().parse().unwrap()
}

impl Driven {
    fn feed(&mut self, event: Event) {
        let mut events = VecDeque::from([event]);
        while let Some(event) = events.pop_front() {
            for action in self.core.on(event, self.now) {
                events.extend(self.perform(action));
            }
        }
    }

    fn perform(&mut self, action: Action) -> Option<Event> {
        match action {
            Action::StartChild { id, incarnation } => {
                let name = name_of(&id);
                self.outcome.trace.push(format!("start {name}"));
                let bad = self.bad_starts.entry(name).or_default();
                if *bad == 0 {
                    self.up.insert(name, incarnation);
                    return Some(Event::ChildStarted { id, incarnation });
                }
                *bad -= 1;
                let exit = Exit::FailedStart { message: "bad".into() };
                Some(Event::ChildExited { id, incarnation, exit })
            }
            Action::StopChild { id, incarnation, .. } => {
                self.outcome.trace.push(format!("stop {id}"));
                assert_eq!(self.up.remove(&name_of(&id)), Some(incarnation));
                Some(Event::ChildExited { id, incarnation, exit: Exit::Shutdown })
            }
            Action::Stopped => {
                self.outcome.end = Some(End::Stopped);
                None
            }
            Action::Escalate { .. } => {
                self.outcome.end = Some(End::Escalated);
                None
            }
            Action::Retire { .. } | Action::Forget { .. } | Action::Decide { .. } => None,
            Action::ScheduleRestart { .. } | Action::Quarantine { .. } => {
                panic!("nothing waits here: {action:?}")
            }
        }
    }

    fn apply(&mut self, op: &Op, next_name: usize) {
        match *op {
            Op::Exit(name, abnormal) => {
                if let Some(incarnation) = self.up.remove(&name) {
                    let exit = if abnormal { Exit::Killed } else { Exit::Normal };
                    let id = ChildId::from(name.to_string());
                    self.feed(Event::ChildExited { id, incarnation, exit });
                }
            }
            Op::FailStarts(name, count) => drop(self.bad_starts.insert(name, count)),
            Op::Add(kind) => self.feed(Event::AddChild { spec: spec(next_name, kind) }),
            Op::Remove(name) => self.feed(Event::RemoveChild { id: name.to_string().into() }),
            Op::Pass(millis) => self.now += Duration::from_millis(millis),
            Op::Stop => self.feed(Event::Stop),
        }
    }

    fn outcome(mut self) -> Outcome {
        self.outcome.up = self.up.into_keys().collect();
        self.outcome
    }
}

fn kinds() -> impl Strategy<Value = Kind> {
    let restart = prop_oneof![
        3 => Just(Restart::Permanent),
        2 => Just(Restart::Transient),
        1 => Just(Restart::Temporary),
    ];
    // OTP refuses permanent significant children.
    (restart, any::<bool>()).prop_map(|(restart, significant)| Kind {
        restart,
        significant: significant && restart != Restart::Permanent,
    })
}

fn rules() -> impl Strategy<Value = Rules> {
    let strategy = prop_oneof![Just(Set::OneForOne), Just(Set::OneForAll), Just(Set::RestForOne),];
    let auto_shutdown = prop_oneof![
        4 => Just(AutoShutdown::Never),
        1 => Just(AutoShutdown::AnySignificant),
        1 => Just(AutoShutdown::AllSignificant),
    ];
    (strategy, auto_shutdown, 0..8u32, 1..50u64).prop_map(
        |(strategy, auto_shutdown, restarts, within)| Rules {
            strategy,
            auto_shutdown,
            budget: Intensity { restarts, within: Duration::from_millis(within) },
        },
    )
}

fn ops() -> impl Strategy<Value = Op> {
    let name = 0..8usize;
    prop_oneof![
        8 => (name.clone(), any::<bool>()).prop_map(|(name, abnormal)| Op::Exit(name, abnormal)),
        2 => (name.clone(), 0..3u8).prop_map(|(name, count)| Op::FailStarts(name, count)),
        1 => kinds().prop_map(Op::Add),
        1 => name.prop_map(Op::Remove),
        6 => (0..20u64).prop_map(Op::Pass),
        1 => Just(Op::Stop),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(8_000))]

    #[test]
    fn the_core_does_what_otp_would_do(
        rules in rules(),
        children in vec(kinds(), 0..6),
        bad_starts in vec(0..2u8, 6),
        ops in vec(ops(), 0..40),
    ) {
        let bad_starts: BTreeMap<usize, u8> = bad_starts.into_iter().enumerate().collect();
        let named = || children.iter().copied().enumerate();
        let mut model = Model {
            rules,
            children: named()
                .map(|(name, kind)| ModelChild { name, kind, up: false, wanted: false })
                .collect(),
            bad_starts: bad_starts.clone(),
            restarts: Vec::new(),
            again: VecDeque::new(),
            now: Duration::ZERO,
            outcome: Outcome::default(),
        };
        let policy = SetPolicy {
            strategy: rules.strategy,
            auto_shutdown: rules.auto_shutdown,
            budget: Budget::Restarts(rules.budget),
            ..SetPolicy::default()
        };
        let specs = named().map(|(name, kind)| spec(name, kind));
        let mut driven = Driven {
            core: SupervisorCore::new(policy, specs, Incarnation(1), 0),
            up: BTreeMap::new(),
            bad_starts,
            now: Duration::ZERO,
            outcome: Outcome::default(),
        };
        model.start_all();
        driven.feed(Event::Start);
        let mut next_name = children.len();
        for op in &ops {
            if model.ended() {
                break;
            }
            model.apply(op, next_name);
            driven.apply(op, next_name);
            next_name += usize::from(matches!(op, Op::Add(_)));
        }
        prop_assert_eq!(driven.outcome(), model.outcome());
    }
}
