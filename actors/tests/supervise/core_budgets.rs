//! The two budgets of a dynamic set, against counting everything anew.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use actors::supervise::{
    Action, Backoff, Budget, ChildId, ChildPolicy, ChildSpec, Decision, Event, Exit, Incarnation,
    Intensity, Quarantine, SetPolicy, SupervisorCore,
};
use proptest::{collection::vec, prelude::*};

const fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

const QUARANTINE: Quarantine = Quarantine { min: millis(40), max: millis(200), reset: millis(100) };

/// Remembers every failure for ever.
#[derive(Default)]
struct History {
    failures: Vec<(Duration, usize)>,
    quarantines: BTreeMap<usize, (Option<Duration>, u32)>,
}

impl History {
    fn expected(
        &mut self,
        who: usize,
        since: Duration,
        now: Duration,
        own: Intensity,
        distinct: (u32, Duration),
    ) -> Decision {
        self.failures.push((now, who));
        let recent = |within: Duration| {
            let failures = self.failures.iter().copied();
            failures.filter(move |(time, _)| *time + within >= now)
        };
        let others: BTreeSet<usize> = recent(distinct.1).map(|(_, who)| who).collect();
        let (last, mut count) = self.quarantines.get(&who).copied().unwrap_or_default();
        let mine = recent(own.within).filter(|(time, of)| *of == who && Some(*time) > last);
        let mine = mine.count();
        if now - since >= QUARANTINE.reset {
            count = 0;
        }
        if others.len() > distinct.0 as usize {
            return Decision::Escalate;
        }
        if mine <= own.restarts as usize {
            self.quarantines.insert(who, (last, count));
            return Decision::Restart { after: Duration::ZERO };
        }
        self.quarantines.insert(who, (Some(now), count + 1));
        let lasting = (QUARANTINE.min * 2u32.pow(count)).min(QUARANTINE.max);
        Decision::Quarantine { lasting }
    }
}

fn decisions(actions: &[Action]) -> Vec<Decision> {
    let decision = |action: &Action| match action {
        Action::Decide { decision, .. } => Some(*decision),
        _ => None,
    };
    actions.iter().filter_map(decision).collect()
}

fn id(who: usize) -> ChildId {
    who.to_string().into()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4_000))]

    #[test]
    fn a_bad_child_is_put_away_and_many_bad_ones_escalate(
        restarts in 0..4u32,
        within in 1..60u64,
        distinct in 1..6u32,
        distinct_within in 1..60u64,
        failures in vec((0..6usize, 1..30u64), 0..60),
    ) {
        let own = Intensity { restarts, within: millis(within) };
        let child = ChildPolicy {
            backoff: Backoff::NONE,
            intensity: own,
            ..ChildPolicy::default()
        };
        let policy = SetPolicy {
            budget: Budget::Distinct { children: distinct, within: millis(distinct_within) },
            quarantine: QUARANTINE,
            ..SetPolicy::dynamic()
        };
        let specs = (0..6).map(|who| ChildSpec::new(id(who), child));
        let mut core = SupervisorCore::new(policy, specs, Incarnation(1), 0);
        let mut history = History::default();
        let mut up = BTreeMap::new();
        let mut due = BTreeMap::new();
        let mut now = Duration::from_secs(1);
        let mut actions = core.on(Event::Start, now);
        for (who, pass) in failures {
            while let Some(action) = actions.pop() {
                if let Action::StartChild { id, incarnation } = action {
                    up.insert(id.as_str().parse::<usize>().unwrap(), (incarnation, now));
                    actions.extend(core.on(Event::ChildStarted { id, incarnation }, now));
                }
            }
            now += millis(pass);
            due.retain(|who, until| {
                let ready = *until <= now;
                // One that comes too early must not let it out.
                let started = core.on(Event::RestartDue { id: id(*who) }, now);
                assert_eq!(ready, !started.is_empty());
                actions.extend(started);
                !ready
            });
            let Some((incarnation, since)) = up.remove(&who) else { continue };
            let exit = Exit::Crash { message: "bad".into() };
            let decided = core.on(Event::ChildExited { id: id(who), incarnation, exit }, now);
            let expected =
                history.expected(who, since, now, own, (distinct, millis(distinct_within)));
            prop_assert_eq!(decisions(&decided), vec![expected]);
            match expected {
                Decision::Quarantine { lasting } => drop(due.insert(who, now + lasting)),
                Decision::Escalate => return Ok(()),
                _ => {}
            }
            actions.extend(decided);
        }
    }
}

#[test]
fn a_quarantined_child_can_be_released_early() {
    let child = ChildPolicy {
        intensity: Intensity { restarts: 0, within: millis(10) },
        ..ChildPolicy::default()
    };
    let specs = [ChildSpec::new("a", child)];
    let mut core = SupervisorCore::new(SetPolicy::dynamic(), specs, Incarnation(1), 0);
    core.on(Event::Start, millis(0));
    let exit =
        Event::ChildExited { id: "a".into(), incarnation: Incarnation(1), exit: Exit::Stuck };
    let actions = core.on(exit, millis(1));
    assert!(matches!(&actions[1], Action::Quarantine { until, .. } if *until > millis(1)));
    assert!(core.on(Event::RestartDue { id: "a".into() }, millis(2)).is_empty());
    let actions = core.on(Event::ReleaseQuarantine { id: "a".into() }, millis(3));
    let incarnation = Incarnation(2);
    assert_eq!(actions, [Action::StartChild { id: "a".into(), incarnation }]);
}
