//! What follows when a child is gone.

use std::time::Duration;

use super::{
    Action, Decision, End, Exhaustion, Exit, Incarnation, Phase, SupervisorCore, child::State,
};
use crate::supervise::spec::{
    AutoShutdown, Budget, ChildId, Exhausted, Intensity, Restart, Strategy,
};

impl SupervisorCore {
    /// A life is over: the one point from which everything is decided.
    pub(super) fn child_exited(
        &mut self,
        id: &ChildId,
        life: Incarnation,
        exit: &Exit,
        now: Duration,
        out: &mut Vec<Action>,
    ) {
        let running = matches!(self.phase, Phase::Running);
        let stop_from = self.stop_from;
        let Some((age, child)) = self.find_live(id, life) else {
            return;
        };
        // A member of a group that is being stopped is gone a little early.
        let expected = !running
            || child.leaving
            || child.renewing
            || stop_from.is_some_and(|from| age >= from);
        if expected {
            let renewed = std::mem::take(&mut child.renewing) && running && !child.leaving;
            let temporary = child.spec.policy.restart == Restart::Temporary;
            let gone = child.leaving || temporary && !renewed;
            child.state = if running { State::Down } else { State::Finished };
            // That it had to be killed is what its shutdown policy says.
            if exit.abnormal() && *exit != Exit::Killed {
                out.push(decided(id, life, Decision::Stopping, 0));
            }
            if gone || !running && self.policy.strategy == Strategy::Dynamic {
                self.forget(age, out);
            } else if renewed && !self.grouped() {
                self.start_child(age, out);
            }
        } else if *exit == Exit::Passive {
            child.state = State::Passive;
        } else if child.restarts_after(exit) {
            self.fail(age, life, exit, now, out);
        } else {
            if exit.abnormal() {
                out.push(decided(id, life, Decision::LetGo, 0));
            }
            self.finish(age, out);
        }
        self.advance(None, out);
    }

    /// Restarts it, unless a budget is spent.
    fn fail(
        &mut self,
        age: u64,
        life: Incarnation,
        exit: &Exit,
        now: Duration,
        out: &mut Vec<Action>,
    ) {
        let Some(child) = self.children.get_mut(&age) else {
            return;
        };
        let id = child.spec.id.clone();
        let (failures, own) = child.fail(exit, &self.policy.quarantine, now);
        let set = self.spend(age, &id, exit, now);
        let put_away = self.policy.exhausted == Exhausted::Quarantine && !self.grouped();
        let Some(child) = self.children.get_mut(&age) else {
            return;
        };
        match (set, own) {
            (Ok(()), Ok(())) => {
                let after = child.back_off(now, &mut self.chance);
                out.push(decided(&id, life, Decision::Restart { after }, failures));
                self.restart(age, after, out);
            }
            (Ok(()), Err(reason)) if put_away => {
                let lasting = child.quarantine(&self.policy.quarantine, now);
                out.push(decided(&id, life, Decision::Quarantine { lasting }, failures));
                out.push(Action::Quarantine { id, reason, until: now + lasting });
            }
            (Err(reason), _) | (Ok(()), Err(reason)) => {
                child.state = State::Finished;
                out.push(decided(&id, life, Decision::Escalate, failures));
                self.end(End::Escalated(reason), out);
            }
        }
    }

    /// Counts a failure against the set's budget.
    fn spend(
        &mut self,
        age: u64,
        id: &ChildId,
        exit: &Exit,
        now: Duration,
    ) -> Result<(), Exhaustion> {
        let (id, last) = (id.clone(), exit.clone());
        match self.policy.budget {
            Budget::Restarts(Intensity { restarts, within }) => {
                if self.restarts.push(now, within) <= restarts {
                    return Ok(());
                }
                Err(Exhaustion::Set { id, restarts, within, last })
            }
            Budget::Distinct { children, within } => {
                if self.failing.push(age, now, within) <= children {
                    return Ok(());
                }
                Err(Exhaustion::Distinct { id, children, within, last })
            }
        }
    }

    fn restart(&mut self, age: u64, after: Duration, out: &mut Vec<Action>) {
        if !after.is_zero()
            && let Some(child) = self.children.get(&age)
        {
            out.push(Action::ScheduleRestart { id: child.spec.id.clone(), after });
        }
        if self.grouped() {
            self.begin_group_restart(age);
        } else if after.is_zero() {
            self.start_child(age, out);
        }
    }

    /// A child has ended and its policy wants it no more.
    fn finish(&mut self, age: u64, out: &mut Vec<Action>) {
        let Some(child) = self.children.get_mut(&age) else {
            return;
        };
        child.state = State::Finished;
        let significant = child.spec.policy.significant;
        if child.spec.policy.restart == Restart::Temporary
            || self.policy.strategy == Strategy::Dynamic
        {
            self.forget(age, out);
        } else {
            out.push(Action::Retire { id: child.spec.id.clone() });
        }
        let ends = significant
            && match self.policy.auto_shutdown {
                AutoShutdown::Never => false,
                AutoShutdown::AnySignificant => true,
                AutoShutdown::AllSignificant => !self
                    .children
                    .values()
                    .any(|child| child.spec.policy.significant && child.state != State::Finished),
            };
        if ends {
            self.end(End::Stopped, out);
        }
    }
}

fn decided(id: &ChildId, incarnation: Incarnation, decision: Decision, failures: u32) -> Action {
    Action::Decide { id: id.clone(), incarnation, decision, failures }
}
