//! The door: which entries a replica takes.

use super::{
    ENTRY_BYTES_MAX, Entry, Forbidden, LEAVES_MAX, LOGS_MAX, LogId, LogState, Role, TEXT_BYTES_MAX,
    TREE_BYTES_MAX, Tree, TreeKind,
};
use crate::clock::{ClockAhead, Hlc, check_not_ahead};
use crate::constraint::Broken;
use crate::state::{Path, VALUE_BYTES_MAX, Value, ValueError};
use crate::{DeviceId, EntryId, ErrorCode, TreeId};

/// So many leaves and logs of a shared tree are for brains alone.
const KEPT_FOR_BRAINS: usize = 1_000;
/// And so many bytes of the leaves of any tree.
const BYTES_FOR_BRAINS: usize = 256 << 10;
/// The most logs of one member of a shared tree. It begins one when its disk is lost.
const LOGS_OF_MEMBER_MAX: usize = 64;

/// What to do with an entry that is in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    /// It is new: [`Tree::apply`] it.
    New,
    /// It is here already. Below the log's head that rests on its number alone; whoever keeps
    /// the history compares ids.
    Known,
}

/// Why an entry is not taken. The tree stays as it was.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Of another tree.
    #[error("entry is of tree {found:?}, not of {expected:?}")]
    UnknownTree {
        /// The tree of the replica.
        expected: TreeId,
        /// The tree that the entry names.
        found: TreeId,
    },
    /// Entries between the head and this one are missing.
    #[error("entry {found} of the log came where {expected} is next")]
    SequenceGap {
        /// The log.
        log: LogId,
        /// The number of the next entry.
        expected: u64,
        /// The number that came.
        found: u64,
    },
    /// The log has another entry of this number, or another one before it.
    #[error("entry {seq} contradicts what its author wrote before")]
    Equivocation {
        /// The log.
        log: LogId,
        /// The number.
        seq: u64,
    },
    /// It refers to entries that are not here.
    #[error("entry {seq} has causes that are not here yet")]
    MissingCause {
        /// The log.
        log: LogId,
        /// The number.
        seq: u64,
    },
    /// The log ended below it.
    #[error("the log was cut at {last_seq}, below entry {seq}")]
    LogCut {
        /// The log.
        log: LogId,
        /// The number.
        seq: u64,
        /// The log's last number.
        last_seq: u64,
    },
    /// Its timestamp is too far in the future.
    #[error("entry {seq}: {ahead}")]
    ClockAhead {
        /// The log.
        log: LogId,
        /// The number.
        seq: u64,
        /// By how much.
        ahead: ClockAhead,
    },
    /// Its timestamp is not above the one before it.
    #[error("entry {seq} is dated {found:?}, not after {last:?}")]
    TimestampNotAfter {
        /// The number.
        seq: u64,
        /// The timestamp of the entry before.
        last: Hlc,
        /// The timestamp that came.
        found: Hlc,
    },
    /// Its author may not write what it writes.
    #[error(transparent)]
    Forbidden(#[from] Forbidden),
    /// It takes more room than an entry may.
    #[error("{what} takes {found}, the limit is {limit}")]
    TooLarge {
        /// What is too large.
        what: &'static str,
        /// How large it is.
        found: usize,
        /// How large it may be.
        limit: usize,
    },
    /// A path is named twice in its delta.
    #[error("entry {seq} names a path twice")]
    OverlappingDelta {
        /// The number.
        seq: u64,
    },
    /// It would break a constraint of the tree.
    #[error(transparent)]
    Constraint(#[from] Broken),
    /// The tree cannot grow further.
    #[error("the tree has {limit} {what} already")]
    TreeFull {
        /// Leaves, logs or bytes.
        what: &'static str,
        /// How many it may have.
        limit: usize,
    },
}

impl Refusal {
    /// The code on the wire.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::UnknownTree { .. } => ErrorCode::UnknownTree,
            Self::SequenceGap { .. } => ErrorCode::SequenceGap,
            Self::Equivocation { .. } => ErrorCode::Equivocation,
            Self::MissingCause { .. } => ErrorCode::MissingCause,
            Self::LogCut { .. } => ErrorCode::LogCut,
            Self::ClockAhead { .. } => ErrorCode::ClockAhead,
            Self::TimestampNotAfter { .. } | Self::OverlappingDelta { .. } => ErrorCode::Malformed,
            Self::Forbidden(_) => ErrorCode::Forbidden,
            Self::TooLarge { .. } => ErrorCode::TooLarge,
            Self::Constraint(_) => ErrorCode::ConstraintViolated,
            Self::TreeFull { .. } => ErrorCode::TreeFull,
        }
    }
}

impl Refusal {
    /// Whether the peer is wrong, and not merely early or late: then its connection ends.
    pub fn is_fatal(&self) -> bool {
        match self {
            Self::SequenceGap { .. }
            | Self::MissingCause { .. }
            | Self::LogCut { .. }
            | Self::Constraint(_)
            | Self::ClockAhead { .. } => false,
            Self::UnknownTree { .. }
            | Self::Equivocation { .. }
            | Self::TimestampNotAfter { .. }
            | Self::Forbidden(_)
            | Self::TooLarge { .. }
            | Self::OverlappingDelta { .. }
            | Self::TreeFull { .. } => true,
        }
    }
}

/// Decides about an entry whose id is `id` and whose author acts as `role`.
pub fn admit(
    tree: &Tree,
    entry: &Entry,
    id: EntryId,
    role: Role,
    now_ms: u64,
) -> Result<Admission, Refusal> {
    let Entry { log, seq, .. } = *entry;
    if entry.tree != tree.id() {
        return Err(Refusal::UnknownTree { expected: tree.id(), found: entry.tree });
    }
    let known = tree.log(&log);
    if let Some(cut) = known.and_then(|known| known.cut.as_ref())
        && seq > cut.last_seq
    {
        return Err(Refusal::LogCut { log, seq, last_seq: cut.last_seq });
    }
    let (last_seq, head) = known.map_or((0, Entry::NO_PREV), |known| (known.seq, known.head));
    #[cfg(feature = "planted-faults")]
    if seq <= last_seq && crate::planted::is(crate::planted::Fault::DedupOff) {
        return Ok(Admission::New);
    }
    if seq <= last_seq {
        let contradicts = seq == 0 || (seq == last_seq && id != head);
        return if contradicts {
            Err(Refusal::Equivocation { log, seq })
        } else {
            Ok(Admission::Known)
        };
    }
    if seq > last_seq + 1 {
        return Err(Refusal::SequenceGap { log, expected: last_seq + 1, found: seq });
    }
    if entry.prev != head {
        return Err(Refusal::Equivocation { log, seq });
    }
    check_shape(entry)?;
    role.check(tree.genesis().kind, &entry.delta)?;
    if !causes_are_here(tree, entry) {
        return Err(Refusal::MissingCause { log, seq });
    }
    check_not_ahead(entry.hlc, now_ms).map_err(|ahead| Refusal::ClockAhead { log, seq, ahead })?;
    if let Some(known) = known.filter(|known| known.seq > 0 && entry.hlc <= known.hlc) {
        return Err(Refusal::TimestampNotAfter { seq, last: known.hlc, found: entry.hlc });
    }
    check_room(tree, entry, role)?;
    Ok(Admission::New)
}

/// Why an entry is not taken whose author has no role. In a shared tree, what gives it one may have
/// yet to come.
pub fn stranger(tree: &Tree, entry: &Entry) -> Refusal {
    let Entry { log, seq, .. } = *entry;
    let kind = tree.genesis().kind;
    if kind != TreeKind::Device && !causes_are_here(tree, entry) {
        return Refusal::MissingCause { log, seq };
    }
    let device = DeviceId(*log.author.0.first_chunk().expect("a key has 32 bytes"));
    let first = entry.delta.changes().next().map(|(path, _)| path.clone());
    let path = first.unwrap_or_else(|| Path::new("unknown").expect("a valid path"));
    Forbidden { role: Role::Member(device), kind, path }.into()
}

/// The most logs that a tree may have for an author in `role` to begin one more.
pub fn logs_max(role: Role) -> usize {
    match role {
        // No member can keep a brain from writing, nor the others for ever.
        Role::Member(_) => LOGS_MAX - KEPT_FOR_BRAINS,
        Role::Brain | Role::Owner(_) => LOGS_MAX,
    }
}

fn causes_are_here(tree: &Tree, entry: &Entry) -> bool {
    entry.seen.iter().all(|(other, seen)| {
        *other != entry.log && tree.log(other).is_some_and(|known| known.seq >= known.counted(seen))
    })
}

fn check_shape(entry: &Entry) -> Result<(), Refusal> {
    let too_large = |what, found, limit| Err(Refusal::TooLarge { what, found, limit });
    for (what, text) in
        [("principal", &entry.provenance.principal), ("reason", &entry.provenance.reason)]
    {
        if text.len() > TEXT_BYTES_MAX {
            return too_large(what, text.len(), TEXT_BYTES_MAX);
        }
    }
    let bytes = entry.canonical().len();
    if bytes > ENTRY_BYTES_MAX {
        return too_large("entry", bytes, ENTRY_BYTES_MAX);
    }
    for (_, value) in entry.delta.changes() {
        if let Some(Err(ValueError::TooLarge { bytes })) = value.map(Value::check) {
            return too_large("value", bytes, VALUE_BYTES_MAX);
        }
    }
    if !entry.delta.is_disjoint() {
        return Err(Refusal::OverlappingDelta { seq: entry.seq });
    }
    Ok(())
}

fn check_room(tree: &Tree, entry: &Entry, role: Role) -> Result<(), Refusal> {
    let leaves_max = match role {
        Role::Member(_) => LEAVES_MAX - KEPT_FOR_BRAINS,
        Role::Brain | Role::Owner(_) => LEAVES_MAX,
    };
    let new = entry.delta.changes().filter(|(path, _)| !tree.leaves().contains_key(*path)).count();
    if new > 0 && tree.leaves().len() + new > leaves_max {
        return Err(Refusal::TreeFull { what: "leaves", limit: leaves_max });
    }
    let bytes_max = match role {
        Role::Brain => TREE_BYTES_MAX,
        Role::Member(_) | Role::Owner(_) => TREE_BYTES_MAX - BYTES_FOR_BRAINS,
    };
    // No entry makes the leaves grow by more than the difference.
    let is_near = tree.bytes() > TREE_BYTES_MAX - 2 * BYTES_FOR_BRAINS;
    if is_near && tree.bytes() + tree.growth(entry) > bytes_max && tree.growth(entry) > 0 {
        return Err(Refusal::TreeFull { what: "bytes", limit: bytes_max });
    }
    if tree.log(&entry.log).is_some() {
        return Ok(());
    }
    if tree.logs().len() >= logs_max(role) {
        return Err(Refusal::TreeFull { what: "logs", limit: logs_max(role) });
    }
    let is_own = |known: &&LogState| known.log.author == entry.log.author && known.cut.is_none();
    let own = tree.logs().iter().filter(is_own).count();
    if matches!(role, Role::Member(_)) && own >= LOGS_OF_MEMBER_MAX {
        return Err(Refusal::TreeFull { what: "logs of one member", limit: LOGS_OF_MEMBER_MAX });
    }
    Ok(())
}
