//! The core under events in any order: what must hold whatever happens when.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use actors::supervise::{
    Action, Backoff, Budget, ChildId, ChildPolicy, ChildSpec, Decision, Event, Exhausted, Exit,
    Incarnation, Intensity, Restart, SetPolicy, Strategy as Set, SupervisorCore,
};
use proptest::{collection::vec, prelude::*};

const fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// One step of a schedule; the number picks among what is possible.
#[derive(Clone, Copy, Debug)]
enum Step {
    FinishStart(u8),
    FailStart(u8),
    FinishStop(u8),
    Crash(u8),
    End(u8),
    Rest(u8),
    Wake(u8),
    Replay(u8),
    Add(u8),
    Remove(u8),
    Release(u8),
    Restart(u8),
    Pass(u8),
    Stop,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Life {
    Starting,
    Up,
    Stopping,
}

/// A world in which everything asked for takes its time.
struct World {
    core: SupervisorCore,
    grouped: bool,
    /// All are stopped at once.
    together: bool,
    now: Duration,
    lives: BTreeMap<ChildId, (Incarnation, Life)>,
    /// In the order they were added.
    members: Vec<ChildSpec>,
    leaving: BTreeSet<ChildId>,
    /// Somebody wanted them restarted.
    renewed: BTreeSet<ChildId>,
    /// They left memory of their own accord.
    passive: BTreeSet<ChildId>,
    timers: Vec<(Duration, ChildId)>,
    past: Vec<Event>,
    latest: Incarnation,
    budget: Intensity,
    restarts: Vec<Duration>,
    stop_sent: bool,
    giving_up: bool,
    ended: bool,
}

impl World {
    fn new(strategy: Set, exhausted: Exhausted, restarts: u32, kinds: &[Restart]) -> Self {
        let budget = Intensity { restarts, within: millis(100) };
        let policy = SetPolicy {
            strategy,
            exhausted,
            budget: Budget::Restarts(budget),
            ..SetPolicy::default()
        };
        let kinds = kinds.iter().enumerate();
        let members: Vec<ChildSpec> = kinds.map(|(at, kind)| spec(at, *kind)).collect();
        Self {
            core: SupervisorCore::new(policy, members.clone(), Incarnation(1), 42),
            grouped: matches!(strategy, Set::OneForAll | Set::RestForOne),
            together: strategy == Set::Dynamic,
            now: Duration::ZERO,
            lives: BTreeMap::new(),
            members,
            leaving: BTreeSet::new(),
            renewed: BTreeSet::new(),
            passive: BTreeSet::new(),
            timers: Vec::new(),
            past: Vec::new(),
            latest: Incarnation(0),
            budget,
            restarts: Vec::new(),
            stop_sent: false,
            giving_up: false,
            ended: false,
        }
    }

    fn feed(&mut self, event: Event) {
        let actions = self.core.on(event.clone(), self.now);
        assert!(!self.ended || actions.is_empty(), "{actions:?} after the end");
        self.past.push(event);
        for action in actions {
            self.check(action);
        }
    }

    fn check(&mut self, action: Action) {
        match action {
            Action::StartChild { id, incarnation } => {
                assert!(!self.stop_sent && !self.giving_up, "start of {id} at the end");
                assert!(incarnation > self.latest, "{incarnation} is not new");
                self.latest = incarnation;
                self.passive.remove(&id);
                assert!(self.elders_are_up(&id), "{id} is started before its elders");
                let before = self.lives.insert(id, (incarnation, Life::Starting));
                assert_eq!(before, None, "two lives at once");
            }
            Action::StopChild { id, incarnation, .. } => {
                assert!(
                    self.together
                        || self.leaving.contains(&id)
                        || !self.grouped && self.renewed.contains(&id)
                        || self.youngers_are_gone(&id),
                    "{id} is stopped before its youngers"
                );
                let life = self.lives.get_mut(&id).expect("it is alive");
                assert_eq!(*life, (incarnation, Life::Up));
                life.1 = Life::Stopping;
            }
            Action::ScheduleRestart { id, after } => {
                assert!(after <= millis(40));
                self.timers.push((self.now + after, id));
            }
            Action::Quarantine { id, until, .. } => {
                assert!(!self.grouped);
                self.timers.push((until, id));
            }
            Action::Decide { decision, .. } => match decision {
                Decision::Restart { .. } => {
                    self.restarts.push(self.now);
                    let from = self.now.saturating_sub(self.budget.within);
                    let recent = self.restarts.iter().filter(|time| **time >= from);
                    assert!(recent.count() <= self.budget.restarts as usize);
                }
                Decision::Escalate => self.giving_up = true,
                _ => {}
            },
            Action::Forget { id } => {
                assert!(!self.lives.contains_key(&id), "{id} is forgotten alive");
                self.members.retain(|spec| spec.id != id);
                self.leaving.remove(&id);
            }
            Action::Retire { id } => assert!(!self.lives.contains_key(&id)),
            Action::Escalate { .. } | Action::Stopped => {
                assert!(self.lives.is_empty(), "{:?} left behind", self.lives);
                self.ended = true;
            }
        }
    }

    fn elders_are_up(&self, id: &ChildId) -> bool {
        let elders = self.members.iter().take_while(|spec| spec.id != *id);
        !self.grouped
            || elders.into_iter().all(|elder| match self.lives.get(&elder.id) {
                Some((_, Life::Up | Life::Stopping)) => true,
                Some((_, Life::Starting)) => false,
                // Down: only one that ended on its own.
                None => {
                    elder.policy.restart != Restart::Permanent || self.passive.contains(&elder.id)
                }
            })
    }

    fn youngers_are_gone(&self, id: &ChildId) -> bool {
        let mut youngers = self.members.iter().rev().take_while(|spec| spec.id != *id);
        youngers.all(|younger| !self.lives.contains_key(&younger.id))
    }

    fn pick(&self, wanted: Life, number: u8) -> Option<(ChildId, Incarnation)> {
        let lives = self.lives.iter().filter(|(_, (_, life))| *life == wanted);
        let lives: Vec<_> = lives.map(|(id, (incarnation, _))| (id, incarnation)).collect();
        let (id, incarnation) = lives.get(usize::from(number) % lives.len().max(1))?;
        Some(((*id).clone(), **incarnation))
    }

    fn exit(&mut self, wanted: Life, number: u8, exit: Exit) {
        if let Some((id, incarnation)) = self.pick(wanted, number) {
            self.lives.remove(&id);
            self.feed(Event::ChildExited { id, incarnation, exit });
        }
    }

    fn finish_start(&mut self, number: u8) {
        if let Some((id, incarnation)) = self.pick(Life::Starting, number) {
            self.lives.insert(id.clone(), (incarnation, Life::Up));
            self.feed(Event::ChildStarted { id, incarnation });
        }
    }

    fn step(&mut self, step: Step) {
        let any = |number: u8| ChildId::from((number % 8).to_string());
        match step {
            Step::FinishStart(number) => self.finish_start(number),
            Step::FailStart(number) => {
                let message = "bad".into();
                self.exit(Life::Starting, number, Exit::FailedStart { message });
            }
            Step::FinishStop(number) => self.exit(Life::Stopping, number, Exit::Shutdown),
            Step::Crash(number) => self.exit(Life::Up, number, Exit::Killed),
            Step::End(number) => self.exit(Life::Up, number, Exit::Normal),
            Step::Rest(number) => {
                if let Some((id, _)) = self.pick(Life::Up, number) {
                    self.passive.insert(id);
                }
                self.exit(Life::Up, number, Exit::Passive);
            }
            Step::Wake(number) => self.feed(Event::WakeChild { id: any(number) }),
            Step::Replay(number) => {
                let past = self.past.get(usize::from(number) % self.past.len().max(1));
                if let Some(event) = past.filter(|event| self.is_over(event)).cloned() {
                    let again = self.core.on(event, self.now);
                    assert_eq!(again, [], "an old life is not heard");
                }
            }
            Step::Add(number) if !self.stop_sent && !self.giving_up && !self.ended => {
                let spec = spec(usize::from(number % 8), Restart::Permanent);
                if self.members.iter().all(|member| member.id != spec.id) {
                    self.members.push(spec.clone());
                    self.feed(Event::AddChild { spec });
                }
            }
            Step::Add(_) => {}
            Step::Remove(number) => {
                if self.members.iter().any(|spec| spec.id == any(number)) {
                    self.leaving.insert(any(number));
                }
                self.feed(Event::RemoveChild { id: any(number) });
            }
            Step::Release(number) => self.feed(Event::ReleaseQuarantine { id: any(number) }),
            Step::Restart(number) => {
                self.renewed.insert(any(number));
                self.feed(Event::RestartChild { id: any(number) });
            }
            Step::Pass(number) => self.pass(millis(u64::from(number))),
            Step::Stop => {
                self.stop_sent = true;
                self.feed(Event::Stop);
            }
        }
    }

    fn is_over(&self, event: &Event) -> bool {
        match event {
            Event::ChildStarted { id, incarnation } => {
                self.lives.get(id) != Some(&(*incarnation, Life::Starting))
            }
            Event::ChildExited { id, incarnation, .. } => {
                self.lives.get(id).is_none_or(|(life, _)| life != incarnation)
            }
            _ => false,
        }
    }

    fn pass(&mut self, by: Duration) {
        self.now += by;
        let now = self.now;
        let due: Vec<ChildId> =
            self.timers.extract_if(.., |(due, _)| *due <= now).map(|(_, id)| id).collect();
        for id in due {
            self.feed(Event::RestartDue { id });
        }
    }

    /// Lets everything come to its end without further trouble.
    fn calm(&mut self) {
        for _ in 0..200 {
            self.finish_start(0);
            self.exit(Life::Stopping, 0, Exit::Shutdown);
            if let Some(id) = self.passive.first().cloned() {
                self.passive.remove(&id);
                self.feed(Event::WakeChild { id });
            }
            self.pass(Duration::from_secs(600));
        }
    }
}

fn spec(name: usize, restart: Restart) -> ChildSpec {
    let policy = ChildPolicy {
        restart,
        backoff: Backoff { min: millis(10), max: millis(40), ..Backoff::default() },
        intensity: Intensity { restarts: 3, within: millis(100) },
        ..ChildPolicy::default()
    };
    ChildSpec::new(name.to_string(), policy)
}

fn steps() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => any::<u8>().prop_map(Step::FinishStart),
        1 => any::<u8>().prop_map(Step::FailStart),
        6 => any::<u8>().prop_map(Step::FinishStop),
        4 => any::<u8>().prop_map(Step::Crash),
        1 => any::<u8>().prop_map(Step::End),
        1 => any::<u8>().prop_map(Step::Rest),
        1 => any::<u8>().prop_map(Step::Wake),
        2 => any::<u8>().prop_map(Step::Replay),
        1 => any::<u8>().prop_map(Step::Add),
        1 => any::<u8>().prop_map(Step::Remove),
        1 => any::<u8>().prop_map(Step::Release),
        1 => any::<u8>().prop_map(Step::Restart),
        6 => (0..40u8).prop_map(Step::Pass),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4_000))]

    #[test]
    fn whatever_happens_when_the_rules_hold(
        strategy in prop_oneof![
            Just(Set::OneForOne), Just(Set::OneForAll), Just(Set::RestForOne), Just(Set::Dynamic),
        ],
        quarantines in any::<bool>(),
        restarts in 0..8u32,
        kinds in vec(prop_oneof![
            4 => Just(Restart::Permanent),
            1 => Just(Restart::Transient),
            1 => Just(Restart::Temporary),
        ], 0..6),
        steps in vec(steps(), 0..80),
        stop in any::<bool>(),
    ) {
        let exhausted = if quarantines { Exhausted::Quarantine } else { Exhausted::Escalate };
        let mut world = World::new(strategy, exhausted, restarts, &kinds);
        world.feed(Event::Start);
        for step in steps {
            world.step(step);
        }
        if stop {
            world.step(Step::Stop);
        }
        world.calm();
        prop_assert!(world.ended || !(world.stop_sent || world.giving_up));
        if !world.ended {
            prop_assert!(world.leaving.is_empty(), "{:?} never left", world.leaving);
            for spec in &world.members {
                let up = matches!(world.lives.get(&spec.id), Some((_, Life::Up)));
                prop_assert!(up || spec.policy.restart != Restart::Permanent, "{} is down", spec.id);
            }
        }
    }
}

#[test]
fn a_timer_that_comes_too_early_restarts_nobody() {
    let mut core =
        SupervisorCore::new(SetPolicy::default(), [spec(0, Restart::Permanent)], Incarnation(1), 0);
    core.on(Event::Start, millis(0));
    let id = ChildId::from("0");
    let actions = core.on(
        Event::ChildExited { id: id.clone(), incarnation: Incarnation(1), exit: Exit::Killed },
        millis(5),
    );
    let Some(Action::ScheduleRestart { after, .. }) = actions.last() else {
        panic!("{actions:?}");
    };
    let due = millis(5) + *after;
    let event = || Event::RestartDue { id: id.clone() };
    assert_eq!(core.on(event(), due - Duration::from_nanos(1)), []);
    assert_eq!(core.on(event(), due).len(), 1);
    assert_eq!(core.on(event(), due), []);
}

#[test]
fn what_goes_wrong_while_stopping_is_told_unless_it_was_the_kill() {
    for (exit, told) in [(Exit::Killed, false), (Exit::Stuck, true), (Exit::Shutdown, false)] {
        let child = [spec(0, Restart::Permanent)];
        let mut core = SupervisorCore::new(SetPolicy::default(), child, Incarnation(1), 0);
        let (id, incarnation) = (ChildId::from("0"), Incarnation(1));
        core.on(Event::Start, millis(0));
        core.on(Event::ChildStarted { id: id.clone(), incarnation }, millis(0));
        core.on(Event::Stop, millis(1));
        let exited = Event::ChildExited { id: id.clone(), incarnation, exit };
        let actions = core.on(exited, millis(2));
        let decision =
            Action::Decide { id, incarnation, decision: Decision::Stopping, failures: 0 };
        assert_eq!(actions.contains(&decision), told);
        assert_eq!(actions.last(), Some(&Action::Stopped));
    }
}

#[test]
fn who_went_passive_is_down_at_no_cost_until_somebody_needs_it() {
    let policy = SetPolicy { strategy: Set::Dynamic, ..SetPolicy::dynamic() };
    let mut core = SupervisorCore::new(policy, [spec(0, Restart::Transient)], Incarnation(1), 0);
    let id = ChildId::from("0");
    core.on(Event::Start, millis(0));
    for life in 1..50 {
        let incarnation = Incarnation(life);
        core.on(Event::ChildStarted { id: id.clone(), incarnation }, millis(0));
        let wake = || Event::WakeChild { id: id.clone() };
        assert_eq!(core.on(wake(), millis(0)), [], "nobody wakes whoever is up");
        let rested = Event::ChildExited { id: id.clone(), incarnation, exit: Exit::Passive };
        assert_eq!(core.on(rested, millis(1)), []);
        let started = Action::StartChild { id: id.clone(), incarnation: Incarnation(life + 1) };
        assert_eq!(core.on(wake(), millis(1)), [started]);
    }
}
