//! Why a message was not taken or a question not answered.

use std::fmt;

/// Why a message was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// As many messages wait as may.
    #[error("the mailbox is full")]
    Full,
    /// The node has ended for good.
    #[error("the node is down")]
    Down,
}

/// A message that was not taken, given back.
#[derive(Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CastError<M> {
    /// As many messages wait as may.
    #[error("the mailbox is full")]
    Full(M),
    /// The node has ended for good.
    #[error("the node is down")]
    Down(M),
}

impl<M> CastError<M> {
    /// Why, without the message: an error that `?` takes whatever the message.
    pub fn refusal(&self) -> Refusal {
        match self {
            Self::Full(_) => Refusal::Full,
            Self::Down(_) => Refusal::Down,
        }
    }

    /// The message.
    pub fn into_message(self) -> M {
        match self {
            Self::Full(message) | Self::Down(message) => message,
        }
    }
}

impl<M> fmt::Debug for CastError<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.refusal().fmt(f)
    }
}

/// Why a question got no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AskError {
    /// It was taken, but not answered in time.
    #[error("no answer in time")]
    Timeout,
    /// The node has ended for good.
    #[error("the node is down")]
    Down,
    /// There was no room for it in time.
    #[error("the mailbox stayed full")]
    Full,
    /// It was taken and then lost: the node crashed on it, dropped it, or ended.
    #[error("dropped without an answer")]
    Dropped,
}
