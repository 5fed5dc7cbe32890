//! What the core is told and what it answers.

use std::{fmt, sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};

use crate::supervise::spec::{ChildId, ChildSpec, Shutdown};

/// Numbers the lives of children; no two lives under one supervisor share one.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Incarnation(pub u64);

impl fmt::Display for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What happened.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// The supervisor itself came up.
    Start,
    /// A [`Action::StartChild`] was carried out.
    ChildStarted {
        /// The child.
        id: ChildId,
        /// The life that began.
        incarnation: Incarnation,
    },
    /// A child is gone, asked or not, or could not be started.
    ChildExited {
        /// The child.
        id: ChildId,
        /// The life that ended.
        incarnation: Incarnation,
        /// How it ended.
        exit: Exit,
    },
    /// The time of an [`Action::ScheduleRestart`] or [`Action::Quarantine`] has
    /// come. One that comes too early is ignored, so timers need not be
    /// cancelled.
    RestartDue {
        /// The child.
        id: ChildId,
    },
    /// A child joins, as the youngest.
    AddChild {
        /// The child.
        spec: ChildSpec,
    },
    /// A child is to leave.
    RemoveChild {
        /// The child.
        id: ChildId,
    },
    /// Somebody lets a child out of its quarantine.
    ReleaseQuarantine {
        /// The child.
        id: ChildId,
    },
    /// Somebody wants a child stopped in good order and started again, with the siblings that
    /// the strategy names. It counts against no budget.
    RestartChild {
        /// The child.
        id: ChildId,
    },
    /// Somebody needs a child that went passive.
    WakeChild {
        /// The child.
        id: ChildId,
    },
    /// The supervisor is to stop, with all its children.
    Stop,
}

/// How a life ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Exit {
    /// It had nothing left to do.
    Normal,
    /// It was asked to stop, or stopped itself in good order.
    Shutdown,
    /// It left memory until somebody needs it.
    Passive,
    /// A handler panicked or returned an error.
    Crash {
        /// What the panic or the error said.
        message: Arc<str>,
    },
    /// Somebody killed it.
    Killed,
    /// The executor dropped its task.
    Cancelled,
    /// It made no progress and was killed for it.
    Stuck,
    /// It did not come up.
    FailedStart {
        /// What the panic or the error said.
        message: Arc<str>,
    },
}

impl Exit {
    /// Whether a transient child is restarted after it.
    pub fn abnormal(&self) -> bool {
        match self {
            Self::Normal | Self::Shutdown | Self::Passive => false,
            Self::Crash { .. }
            | Self::Killed
            | Self::Cancelled
            | Self::Stuck
            | Self::FailedStart { .. } => true,
        }
    }
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Normal => f.write_str("ended"),
            Self::Shutdown => f.write_str("stopped"),
            Self::Passive => f.write_str("went passive"),
            Self::Crash { message } => write!(f, "crashed: {message}"),
            Self::Killed => f.write_str("killed"),
            Self::Cancelled => f.write_str("cancelled"),
            Self::Stuck => f.write_str("stuck"),
            Self::FailedStart { message } => write!(f, "did not start: {message}"),
        }
    }
}

/// What the shell has to do, in the order given.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Start it; answer with [`Event::ChildStarted`], or with
    /// [`Event::ChildExited`] and [`Exit::FailedStart`].
    StartChild {
        /// The child.
        id: ChildId,
        /// The life that is to begin.
        incarnation: Incarnation,
    },
    /// Stop it without waiting; [`Event::ChildExited`] follows when it is gone.
    StopChild {
        /// The child.
        id: ChildId,
        /// The life that is to end.
        incarnation: Incarnation,
        /// How to ask.
        shutdown: Shutdown,
    },
    /// Send [`Event::RestartDue`] after this long.
    ScheduleRestart {
        /// The child.
        id: ChildId,
        /// How long to wait.
        after: Duration,
    },
    /// The child stays down; send [`Event::RestartDue`] at `until`.
    Quarantine {
        /// The child.
        id: ChildId,
        /// Which budget was spent.
        reason: Exhaustion,
        /// When it ends, on the clock that `now` is read from.
        until: Duration,
    },
    /// The child has ended for good but keeps its place: a restart of the group
    /// brings it back.
    Retire {
        /// The child.
        id: ChildId,
    },
    /// The child has ended for good; drop what is kept for it.
    Forget {
        /// The child.
        id: ChildId,
    },
    /// What was decided about an abnormal exit: for the journal.
    Decide {
        /// The child.
        id: ChildId,
        /// The life that ended.
        incarnation: Incarnation,
        /// The decision.
        decision: Decision,
        /// How often the child failed within the window of its budget, this time included.
        failures: u32,
    },
    /// All children are gone and the supervisor gives up. The last action.
    Escalate {
        /// Which budget was spent.
        reason: Exhaustion,
    },
    /// All children are gone and the supervisor ends in good order. The last
    /// action.
    Stopped,
}

/// What a supervisor does about a life that ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "decision")]
pub enum Decision {
    /// Starts the child again, with the siblings that its strategy names.
    Restart {
        /// The wait before that.
        after: Duration,
    },
    /// Leaves it down for a while.
    Quarantine {
        /// For how long.
        lasting: Duration,
    },
    /// Gives up.
    Escalate,
    /// Lets it go: its restart policy asks for nothing.
    LetGo,
    /// Nothing: the child was being stopped anyway.
    Stopping,
}

/// Which budget was spent, and on what.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Exhaustion {
    /// A child spent its own.
    #[error("{id} failed more than {restarts} times within {within:?}, the last time it {last}")]
    Child {
        /// The child.
        id: ChildId,
        /// The restarts it was allowed.
        restarts: u32,
        /// Within which time.
        within: Duration,
        /// Its last exit.
        last: Exit,
    },
    /// All children together spent the set's.
    #[error("more than {restarts} restarts within {within:?}, the last because {id} {last}")]
    Set {
        /// The child that failed last.
        id: ChildId,
        /// The restarts the set was allowed.
        restarts: u32,
        /// Within which time.
        within: Duration,
        /// The last exit.
        last: Exit,
    },
    /// Too many different children failed.
    #[error("more than {children} children failed within {within:?}, the last was {id}: {last}")]
    Distinct {
        /// The child that failed last.
        id: ChildId,
        /// How many were allowed to.
        children: u32,
        /// Within which time.
        within: Duration,
        /// The last exit.
        last: Exit,
    },
}
