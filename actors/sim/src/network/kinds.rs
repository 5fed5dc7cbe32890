//! What links are, and what comes over them.

use std::ops::Range;

/// The number of a link. No two links of a network ever have the same.
pub type LinkId = u64;

/// An end of a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Side {
    /// Who opened it.
    Caller,
    /// Who was called.
    Answerer,
}

impl Side {
    /// The other end.
    pub fn other(self) -> Self {
        match self {
            Self::Caller => Self::Answerer,
            Self::Answerer => Self::Caller,
        }
    }
}

/// How a link treats its frames.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LinkKind {
    /// In order and complete, until it breaks.
    Stream {
        /// How long a frame takes, in milliseconds.
        latency_ms: Range<u64>,
        /// How many frames in a thousand are lost, each of which breaks the link.
        loss_permille: u32,
    },
    /// Anything goes.
    Hostile(Hostility),
}

/// What a hostile link does, of a thousand frames each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hostility {
    /// How long a frame takes, in milliseconds.
    pub latency_ms: Range<u64>,
    /// So many never arrive.
    pub drop_permille: u32,
    /// So many arrive twice.
    pub duplicate_permille: u32,
    /// So many are overtaken by later ones.
    pub reorder_permille: u32,
    /// So many arrive without their end.
    pub truncate_permille: u32,
    /// So many arrive as two frames.
    pub split_permille: u32,
}

impl LinkKind {
    /// A stream over a good network.
    pub fn stream() -> Self {
        Self::Stream { latency_ms: 5..40, loss_permille: 0 }
    }
}

/// What arrives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Arrival {
    /// A frame.
    Frame {
        /// The link.
        link: LinkId,
        /// The end where it arrives.
        to: Side,
        /// Its bytes.
        frame: Vec<u8>,
    },
    /// The news that the link is gone.
    Broken {
        /// The link.
        link: LinkId,
        /// The end that learns it.
        to: Side,
    },
}
