//! How trees change: entries in hash-linked logs, folded to leaves.
//!
//! A *log* belongs to one author key and one *epoch*; its entries are numbered without gaps and
//! each names the hash of the one before. An entry also says which entries of other logs its
//! author had seen. That causal context, not the clock, decides what an entry replaces: it
//! removes the candidates that it has seen from the leaves it names and adds its own. Candidates
//! that did not see each other stay side by side as a conflict, with a winner that is a pure
//! function of the set.

mod author;
mod checkpoint;
mod entry;
mod head;
mod ingest;
mod leaf;
mod member;
mod refold;
mod rights;
mod tree;
mod vector;

pub use author::{Author, Change, Draft};
pub use checkpoint::{CHECKPOINT_BYTES_MAX, Checkpoint, CheckpointError};
pub use entry::{
    ENTRY_BYTES_MAX, Entry, EntryKind, Genesis, LogId, Provenance, SHARED_NAME_BYTES_MAX,
    TEXT_BYTES_MAX, TreeKind,
};
pub use head::{Cut, CutCause, CutError, Head, SignedHead};
pub use ingest::{Admission, Refusal, admit, logs_max, stranger};
pub use leaf::{Candidate, Leaf};
pub use member::{GROUPS_PREFIX, MEMBERS_MAX, MEMBERS_PREFIX, Member, member_change, member_of};
pub use refold::Refold;
pub use rights::{Forbidden, Role};
pub use tree::{LEAVES_MAX, LOGS_MAX, LogState, MergeError, TREE_BYTES_MAX, Tree};
pub use vector::VersionVector;
