//! What a store must never be given, and never hold.

use protocol::history::LogId;
use protocol::state::Version;
use protocol::{EntryId, TreeId};

/// Something that contradicts the rules of histories.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// Versions are not consecutive.
    #[error("tree {tree:?}: version {found} came where {expected} was next")]
    Version {
        /// The tree.
        tree: TreeId,
        /// The next version.
        expected: Version,
        /// The version that came.
        found: Version,
    },
    /// Time went back from one commit to the next.
    #[error("tree {tree:?}: version {version} is dated before the one before it")]
    Dated {
        /// The tree.
        tree: TreeId,
        /// The version.
        version: Version,
    },
    /// A log has a gap or a repetition.
    #[error("tree {tree:?}: entry {found} of {log:?} came where {expected} was next")]
    Sequence {
        /// The tree.
        tree: TreeId,
        /// The log.
        log: LogId,
        /// The next number.
        expected: u64,
        /// The number that came.
        found: u64,
    },
    /// An entry does not name the one before it.
    #[error("tree {tree:?}: entry {seq} of {log:?} does not follow the one before it")]
    Chain {
        /// The tree.
        tree: TreeId,
        /// The log.
        log: LogId,
        /// The entry's number.
        seq: u64,
    },
    /// An entry was committed twice.
    #[error("tree {tree:?}: entry {id:?} was applied twice")]
    Twice {
        /// The tree.
        tree: TreeId,
        /// The entry.
        id: EntryId,
    },
    /// A segment names a log by a number that is another's.
    #[error("tree {tree:?}: log number {number} is not {log:?}")]
    LogNumber {
        /// The tree.
        tree: TreeId,
        /// The number.
        number: u32,
        /// The log of the entries.
        log: LogId,
    },
    /// A segment does not unpack.
    #[error("tree {tree:?}: segment {version} does not unpack: {detail}")]
    Segment {
        /// The tree.
        tree: TreeId,
        /// Its first version.
        version: Version,
        /// What is wrong with it.
        detail: String,
    },
    /// The row says other than the history.
    #[error("tree {tree:?}: row and history disagree about {what}")]
    Row {
        /// The tree.
        tree: TreeId,
        /// About what.
        what: &'static str,
    },
    /// The leaves are not what the history folds to.
    #[error("tree {tree:?}: the leaves are not what {entries} entries fold to")]
    Fold {
        /// The tree.
        tree: TreeId,
        /// How many entries it has.
        entries: usize,
    },
}
