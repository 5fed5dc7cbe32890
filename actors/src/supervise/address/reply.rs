//! The way back for an answer.

use std::{fmt, time::Duration};

use tokio::{sync::oneshot, time::Instant};

/// Takes one answer to the one who asked.
///
/// Dropped unused, the asker learns it at once.
pub struct Reply<R> {
    sender: oneshot::Sender<R>,
    deadline: Instant,
}

impl<R> Reply<R> {
    pub(super) fn new(sender: oneshot::Sender<R>, deadline: Instant) -> Self {
        Self { sender, deadline }
    }

    /// Answers. Whether the asker still listens makes no difference here.
    pub fn send(self, answer: R) {
        let _ = self.sender.send(answer);
    }

    /// Whether nobody waits for the answer any more.
    pub fn abandoned(&self) -> bool {
        self.sender.is_closed()
    }

    /// How long the asker will still wait: the deadline for what has to be
    /// asked in turn.
    pub fn remaining(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now())
    }
}

impl<R> fmt::Debug for Reply<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reply").finish_non_exhaustive()
    }
}
