//! What is done with several children in order: restarting a group, and ending.

use super::{Action, End, Phase, SupervisorCore, child::State};
use crate::supervise::spec::Strategy;

impl SupervisorCore {
    /// Whether the children of this set are restarted together.
    pub(super) fn grouped(&self) -> bool {
        match self.policy.strategy {
            Strategy::OneForAll | Strategy::RestForOne => true,
            Strategy::OneForOne | Strategy::Dynamic => false,
        }
    }

    /// The failed child takes its group down; a restart under way is widened.
    pub(super) fn begin_group_restart(&mut self, failed: u64) {
        // Who is to be stopped anyway does not fail, so this can only widen it.
        let from = match self.policy.strategy {
            Strategy::OneForAll => 0,
            Strategy::RestForOne | Strategy::OneForOne | Strategy::Dynamic => failed,
        };
        self.stop_from = Some(from);
        for child in self.children.range_mut(from..).map(|(_, child)| child) {
            if matches!(child.state, State::Finished | State::Passive) {
                child.state = State::Down;
            }
        }
    }

    /// Goes on with whatever is done in order. `started` has just come up.
    pub(super) fn advance(&mut self, started: Option<u64>, out: &mut Vec<Action>) {
        match self.phase {
            Phase::Running if self.grouped() => self.advance_group(out),
            Phase::Ending(_) => self.advance_end(started, out),
            Phase::Idle | Phase::Running | Phase::Ended => {}
        }
    }

    /// Stops the youngest who has to go, or else starts the eldest who is down.
    pub(super) fn advance_group(&mut self, out: &mut Vec<Action>) {
        if !matches!(self.phase, Phase::Running) {
            return;
        }
        if let Some(from) = self.stop_from {
            let youngest = self
                .children
                .range(from..)
                .rev()
                .find(|(_, child)| child.live().is_some())
                .map(|(age, child)| (*age, child.state));
            match youngest {
                Some((age, State::Running { .. })) => return self.stop_child(age, out),
                Some(_) => return,
                None => self.stop_from = None,
            }
        }
        // The whole group waits with the one that backs off, else its elders
        // would be up without it for as long.
        let backs_off = |state| matches!(state, State::Waiting { .. });
        if self.children.values().any(|child| backs_off(child.state)) {
            return;
        }
        for (age, child) in &self.children {
            match child.state {
                State::Down => {
                    let age = *age;
                    return self.start_child(age, out);
                }
                State::Starting { .. } => return,
                State::Running { .. }
                | State::Stopping { .. }
                | State::Waiting { .. }
                | State::Quarantined { .. }
                | State::Passive
                | State::Finished => {}
            }
        }
    }

    /// Ends the supervisor; the first cause counts.
    pub(super) fn end(&mut self, end: End, out: &mut Vec<Action>) {
        if matches!(self.phase, Phase::Ending(_) | Phase::Ended) {
            return;
        }
        self.phase = Phase::Ending(end);
        self.stop_from = None;
        let ages: Vec<u64> = self.children.keys().copied().collect();
        for age in ages.into_iter().rev() {
            let Some(child) = self.children.get_mut(&age) else {
                continue;
            };
            let running = matches!(child.state, State::Running { .. });
            match (self.policy.strategy, child.live()) {
                (Strategy::Dynamic, Some(_)) if running => self.stop_child(age, out),
                (Strategy::Dynamic, None) => self.forget(age, out),
                (_, Some(_)) => {}
                (_, None) => child.state = State::Finished,
            }
        }
        self.advance_end(None, out);
    }

    /// Stops the youngest, or says that everyone is gone.
    fn advance_end(&mut self, started: Option<u64>, out: &mut Vec<Action>) {
        let all_gone = if self.policy.strategy == Strategy::Dynamic {
            if let Some(age) = started {
                self.stop_child(age, out);
            }
            // Who is gone is forgotten, so nobody has to be counted.
            self.children.is_empty()
        } else {
            let youngest = self
                .children
                .iter()
                .rev()
                .find(|(_, child)| child.live().is_some())
                .map(|(age, child)| (*age, child.state));
            if let Some((age, State::Running { .. })) = youngest {
                self.stop_child(age, out);
            }
            youngest.is_none()
        };
        if !all_gone {
            return;
        }
        if let Phase::Ending(end) = std::mem::replace(&mut self.phase, Phase::Ended) {
            out.push(match end {
                End::Stopped => Action::Stopped,
                End::Escalated(reason) => Action::Escalate { reason },
            });
        }
    }
}
