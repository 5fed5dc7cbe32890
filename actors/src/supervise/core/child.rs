//! What the core knows about one child.

use std::time::Duration;

use super::{
    delay::{self, Chance},
    event::{Exhaustion, Exit, Incarnation},
    window::Window,
};
use crate::supervise::spec::{ChildSpec, Quarantine, Restart};

/// One child and its record.
#[derive(Clone, Debug)]
pub(super) struct Child {
    pub(super) spec: ChildSpec,
    pub(super) state: State,
    /// It leaves the set as soon as it is gone.
    pub(super) leaving: bool,
    /// It is started again as soon as it is gone.
    pub(super) renewing: bool,
    restarts: Window,
    /// Restarts in a row, each before the child had run for long.
    streak: u32,
    /// Quarantines in a row.
    quarantines: u32,
}

/// Where a child is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// Gone, and to be started when its turn comes.
    Down,
    /// Asked for.
    Starting { incarnation: Incarnation },
    /// Up.
    Running { incarnation: Incarnation, since: Duration },
    /// Asked to stop.
    Stopping { incarnation: Incarnation },
    /// Gone, and to be started when the wait is over.
    Waiting { due: Duration },
    /// Gone, and left alone until then.
    Quarantined { due: Duration },
    /// Gone until somebody needs it.
    Passive,
    /// Gone for good, unless its whole group is restarted.
    Finished,
}

impl Child {
    pub(super) fn new(spec: ChildSpec) -> Self {
        Self {
            spec,
            state: State::Down,
            leaving: false,
            renewing: false,
            restarts: Window::default(),
            streak: 0,
            quarantines: 0,
        }
    }

    /// The life that still has to end before the child is gone.
    pub(super) fn live(&self) -> Option<Incarnation> {
        match self.state {
            State::Starting { incarnation }
            | State::Running { incarnation, .. }
            | State::Stopping { incarnation } => Some(incarnation),
            State::Down
            | State::Waiting { .. }
            | State::Quarantined { .. }
            | State::Passive
            | State::Finished => None,
        }
    }

    pub(super) fn restarts_after(&self, exit: &Exit) -> bool {
        match self.spec.policy.restart {
            Restart::Permanent => true,
            Restart::Transient => exit.abnormal(),
            Restart::Temporary => false,
        }
    }

    /// Counts a failure against the child's own budget, and says how many those are.
    pub(super) fn fail(
        &mut self,
        exit: &Exit,
        quarantine: &Quarantine,
        now: Duration,
    ) -> (u32, Result<(), Exhaustion>) {
        if let State::Running { since, .. } = self.state {
            let uptime = now.saturating_sub(since);
            if uptime >= self.spec.policy.backoff.reset {
                self.streak = 0;
            }
            if uptime >= quarantine.reset {
                self.quarantines = 0;
            }
        }
        let budget = self.spec.policy.intensity;
        let failures = self.restarts.push(now, budget.within);
        if failures <= budget.restarts {
            return (failures, Ok(()));
        }
        let exhausted = Exhaustion::Child {
            id: self.spec.id.clone(),
            restarts: budget.restarts,
            within: budget.within,
            last: exit.clone(),
        };
        (failures, Err(exhausted))
    }

    /// The wait before its next restart.
    pub(super) fn back_off(&mut self, now: Duration, chance: &mut Chance) -> Duration {
        self.streak = self.streak.saturating_add(1);
        let wait = delay::backoff(&self.spec.policy.backoff, self.streak, chance);
        self.state = if wait.is_zero() { State::Down } else { State::Waiting { due: now + wait } };
        wait
    }

    /// Puts it away with a clean record, and says for how long.
    pub(super) fn quarantine(&mut self, rule: &Quarantine, now: Duration) -> Duration {
        self.quarantines = self.quarantines.saturating_add(1);
        self.streak = 0;
        self.restarts.clear();
        let lasting = delay::quarantine(rule, self.quarantines);
        self.state = State::Quarantined { due: now + lasting };
        lasting
    }
}
