//! Consecutive entries of one log, with what repeats written once.
//!
//! The batch names its tree and log and the entry before the first; numbers and ids follow.
//! Timestamps are differences, `seen` is a difference already, paths and texts are numbers of a
//! table. A one-leaf update takes some 20 bytes. The same form serves the wire and the stores.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use crate::clock::{ClockQuality, Hlc};
use crate::history::{Entry, EntryKind, LogId, Provenance, TEXT_BYTES_MAX, VersionVector};
use crate::state::{Path, PathError, StateDelta, Value};
use crate::{EntryId, ErrorCode, TreeId};

/// The most entries in a batch.
pub const BATCH_ENTRIES_MAX: usize = 1_024;
/// How many bytes of entries a sender packs into one batch: it fits a frame uncompressed.
pub const BATCH_PLAIN_BYTES: usize = 48 << 10;

/// Consecutive entries of one log.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Batch {
    /// The tree.
    pub tree: TreeId,
    /// The log.
    pub log: LogId,
    /// The number of the first entry.
    pub first_seq: u64,
    /// The id of the entry before the first.
    pub prev: EntryId,
    /// Checked when the batch is unpacked, so that a bad one is told apart from a bad frame.
    paths: Vec<String>,
    provenances: Vec<Provenance>,
    entries: Vec<Packed>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Packed {
    seen: VersionVector,
    /// Timestamps of a log only grow, so the difference is never negative.
    wall_ms_delta: u64,
    counter: u32,
    clock: ClockQuality,
    provenance: u32,
    policy: u32,
    kind: u16,
    schema: u16,
    lease_until_ms: Option<u64>,
    added: Vec<(u32, Value)>,
    modified: Vec<(u32, Value)>,
    removed: Vec<u32>,
    extra: Vec<u8>,
}

/// Entries that do not form a batch.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PackError {
    /// None at all.
    #[error("a batch needs an entry")]
    Empty,
    /// Not one after the other in one log.
    #[error("entry {seq} does not follow the one before it")]
    NotConsecutive {
        /// The first that does not follow.
        seq: u64,
    },
    /// More than [`BATCH_ENTRIES_MAX`].
    #[error("{found} entries are too many for a batch of {BATCH_ENTRIES_MAX}")]
    TooMany {
        /// How many.
        found: usize,
    },
}

/// A batch whose parts contradict each other.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BatchError {
    /// Too many entries, or none.
    #[error("batch has {found} entries; 1 to {BATCH_ENTRIES_MAX} are allowed")]
    Count {
        /// How many.
        found: usize,
    },
    /// A number that is in no table.
    #[error("batch refers to {what} {number}, which it does not list")]
    UnknownReference {
        /// A path or a provenance.
        what: &'static str,
        /// The number.
        number: u32,
    },
    /// A number or time beyond 64 bits.
    #[error("batch counts beyond 64 bits")]
    Overflow,
    /// A principal or a reason over [`TEXT_BYTES_MAX`], which every entry would repeat.
    #[error("batch has a text of {bytes} bytes, the limit is {TEXT_BYTES_MAX}")]
    TextTooLong {
        /// How long it is.
        bytes: usize,
    },
    /// A path that is too long, too deep or not well formed.
    #[error(transparent)]
    BadPath(#[from] PathError),
    /// One entry names a path twice.
    #[error("entry {seq} names a path twice")]
    PathTwice {
        /// The entry.
        seq: u64,
    },
}

impl BatchError {
    /// The code on the wire.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::TextTooLong { .. } => ErrorCode::TooLarge,
            Self::BadPath(_) => ErrorCode::BadPath,
            Self::Count { .. }
            | Self::UnknownReference { .. }
            | Self::Overflow
            | Self::PathTwice { .. } => ErrorCode::Malformed,
        }
    }
}

impl Batch {
    /// Packs entries that follow each other in one log.
    pub fn pack(entries: &[Entry]) -> Result<Self, PackError> {
        let first = entries.first().ok_or(PackError::Empty)?;
        if entries.len() > BATCH_ENTRIES_MAX {
            return Err(PackError::TooMany { found: entries.len() });
        }
        let mut tables = Tables::default();
        let mut packed = Vec::with_capacity(entries.len());
        let mut last = Hlc::default();
        for (entry, seq) in entries.iter().zip(first.seq..) {
            let follows = entry.seq == seq && entry.log == first.log && entry.tree == first.tree;
            let Some(wall_ms_delta) =
                entry.hlc.wall_ms.checked_sub(last.wall_ms).filter(|_| follows)
            else {
                return Err(PackError::NotConsecutive { seq: entry.seq });
            };
            last = entry.hlc;
            packed.push(tables.pack(entry, wall_ms_delta));
        }
        Ok(Self {
            tree: first.tree,
            log: first.log,
            first_seq: first.seq,
            prev: first.prev,
            paths: tables.paths.iter().map(|path| path.as_str().to_owned()).collect(),
            provenances: tables.provenances,
            entries: packed,
        })
    }

    /// How many entries it holds.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether it holds none; such a batch does not unpack.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// About how many bytes it takes, encoded and not compressed.
    pub fn size_bytes(&self) -> usize {
        let paths = self.paths.iter().map(|path| path.len() + 1);
        let texts = self.provenances.iter().map(|p| p.principal.len() + p.reason.len() + 3);
        let value = |(_, value): &(u32, Value)| 3 + value.size_bytes();
        let entries = self.entries.iter().map(|entry| {
            let values = entry.added.iter().chain(&entry.modified).map(value).sum::<usize>();
            16 + 40 * entry.seen.len() + values + 2 * entry.removed.len() + entry.extra.len()
        });
        140 + paths.chain(texts).chain(entries).sum::<usize>()
    }

    /// The number of its last entry.
    pub fn last_seq(&self) -> u64 {
        self.first_seq.saturating_add(self.entries.len() as u64).saturating_sub(1)
    }

    /// The entries with their ids, which follow from the chain.
    pub fn unpack(self) -> Result<Vec<(EntryId, Entry)>, BatchError> {
        let found = self.entries.len();
        if found == 0 || found > BATCH_ENTRIES_MAX {
            return Err(BatchError::Count { found });
        }
        let texts = self.provenances.iter().flat_map(|p| [p.principal.len(), p.reason.len()]);
        if let Some(bytes) = texts.max().filter(|bytes| *bytes > TEXT_BYTES_MAX) {
            return Err(BatchError::TextTooLong { bytes });
        }
        let mut unpacked = Vec::with_capacity(found);
        let (mut prev, mut wall_ms, mut seq) = (self.prev, 0u64, self.first_seq);
        let paths = self.paths.iter().map(|text| Path::new(text)).collect::<Result<Vec<_>, _>>()?;
        let look_up = Lookup { paths: &paths, provenances: &self.provenances };
        for packed in self.entries {
            wall_ms = wall_ms.checked_add(packed.wall_ms_delta).ok_or(BatchError::Overflow)?;
            let entry = Entry {
                tree: self.tree,
                log: self.log,
                seq,
                prev,
                hlc: Hlc { wall_ms, counter: packed.counter },
                provenance: look_up.provenance(packed.provenance)?,
                delta: look_up.delta(&packed, seq)?,
                seen: packed.seen,
                clock: packed.clock,
                policy: packed.policy,
                kind: EntryKind(packed.kind),
                schema: packed.schema,
                lease_until_ms: packed.lease_until_ms,
                extra: packed.extra,
            };
            prev = entry.id();
            unpacked.push((prev, entry));
            seq = seq.checked_add(1).ok_or(BatchError::Overflow)?;
        }
        Ok(unpacked)
    }
}

/// The tables of a batch in the making.
#[derive(Default)]
struct Tables {
    paths: Vec<Path>,
    path_numbers: HashMap<Path, u32>,
    provenances: Vec<Provenance>,
    provenance_numbers: HashMap<Provenance, u32>,
}

impl Tables {
    fn pack(&mut self, entry: &Entry, wall_ms_delta: u64) -> Packed {
        let StateDelta { added, modified, removed } = &entry.delta;
        Packed {
            seen: entry.seen.clone(),
            wall_ms_delta,
            counter: entry.hlc.counter,
            clock: entry.clock,
            provenance: number(
                &mut self.provenances,
                &mut self.provenance_numbers,
                &entry.provenance,
            ),
            policy: entry.policy,
            kind: entry.kind.0,
            schema: entry.schema,
            lease_until_ms: entry.lease_until_ms,
            added: added.iter().map(|(path, v)| (self.path(path), v.clone())).collect(),
            modified: modified.iter().map(|(path, v)| (self.path(path), v.clone())).collect(),
            removed: removed.iter().map(|path| self.path(path)).collect(),
            extra: entry.extra.clone(),
        }
    }

    fn path(&mut self, path: &Path) -> u32 {
        number(&mut self.paths, &mut self.path_numbers, path)
    }
}

fn number<T: Clone + Eq + std::hash::Hash>(
    table: &mut Vec<T>,
    numbers: &mut HashMap<T, u32>,
    item: &T,
) -> u32 {
    if let Some(number) = numbers.get(item) {
        return *number;
    }
    let number = table.len() as u32;
    table.push(item.clone());
    numbers.insert(item.clone(), number);
    number
}

/// The tables of a batch being read.
struct Lookup<'a> {
    paths: &'a [Path],
    provenances: &'a [Provenance],
}

impl Lookup<'_> {
    fn provenance(&self, number: u32) -> Result<Provenance, BatchError> {
        let unknown = BatchError::UnknownReference { what: "provenance", number };
        self.provenances.get(number as usize).cloned().ok_or(unknown)
    }

    fn path(&self, number: u32) -> Result<Path, BatchError> {
        let unknown = BatchError::UnknownReference { what: "path", number };
        self.paths.get(number as usize).cloned().ok_or(unknown)
    }

    fn delta(&self, packed: &Packed, seq: u64) -> Result<StateDelta, BatchError> {
        let mut delta = StateDelta::default();
        for (leaves, packed) in
            [(&mut delta.added, &packed.added), (&mut delta.modified, &packed.modified)]
        {
            for (number, value) in packed {
                if leaves.insert(self.path(*number)?, value.clone()).is_some() {
                    return Err(BatchError::PathTwice { seq });
                }
            }
        }
        for number in &packed.removed {
            if !delta.removed.insert(self.path(*number)?) {
                return Err(BatchError::PathTwice { seq });
            }
        }
        Ok(delta)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::PublicKey;
    use crate::state::StateSource;

    fn entries(count: u64) -> Vec<Entry> {
        let mut prev = Entry::NO_PREV;
        let mut entry = |seq: u64| {
            let mut delta = StateDelta::default();
            delta.added.insert(Path::new("reported/n").expect("valid"), Value::from(seq as i64));
            let entry = Entry {
                tree: TreeId([1; 32]),
                log: LogId { author: PublicKey([2; 32]), epoch: 3 },
                seq,
                prev,
                seen: VersionVector::default(),
                hlc: Hlc { wall_ms: 100 + seq, counter: 0 },
                clock: ClockQuality::Synchronised,
                provenance: Provenance::new(StateSource::Edge, "user:ada", "test"),
                policy: 0,
                kind: EntryKind::STATE,
                schema: 1,
                lease_until_ms: None,
                delta,
                extra: Vec::new(),
            };
            prev = entry.id();
            entry
        };
        (1..=count).map(&mut entry).collect()
    }

    fn pack(count: u64) -> Batch {
        Batch::pack(&entries(count)).expect("consecutive")
    }

    #[test]
    fn what_is_packed_unpacks() {
        let full = entries(BATCH_ENTRIES_MAX as u64);
        let batch = Batch::pack(&full).expect("consecutive");
        assert_eq!((batch.len(), batch.last_seq()), (BATCH_ENTRIES_MAX, BATCH_ENTRIES_MAX as u64));
        let unpacked = batch.unpack().expect("own batch");
        assert!(unpacked.into_iter().eq(full.into_iter().map(|entry| (entry.id(), entry))));
    }

    #[test]
    fn what_would_not_unpack_is_not_packed() {
        let found = BATCH_ENTRIES_MAX + 1;
        assert_eq!(Batch::pack(&entries(found as u64)), Err(PackError::TooMany { found }));
        assert_eq!(Batch::pack(&[]), Err(PackError::Empty));
        let mut gap = entries(3);
        gap.remove(1);
        assert_eq!(Batch::pack(&gap), Err(PackError::NotConsecutive { seq: 3 }));
        let mut backwards = entries(2);
        backwards[1].hlc.wall_ms = 1;
        assert_eq!(Batch::pack(&backwards), Err(PackError::NotConsecutive { seq: 2 }));
    }

    #[test]
    fn each_contradiction_of_a_batch_has_its_own_error() {
        type Break = fn(&mut Batch);
        let cases: [(BatchError, Break); 8] = [
            (BatchError::Count { found: 0 }, |b| b.entries.clear()),
            (BatchError::UnknownReference { what: "path", number: 7 }, |b| {
                b.entries[1].removed.push(7);
            }),
            (BatchError::UnknownReference { what: "provenance", number: 7 }, |b| {
                b.entries[1].provenance = 7;
            }),
            (BatchError::Overflow, |b| b.entries[1].wall_ms_delta = u64::MAX),
            (BatchError::Overflow, |b| b.first_seq = u64::MAX),
            (BatchError::PathTwice { seq: 2 }, |b| b.entries[1].removed = vec![0, 0]),
            (BatchError::PathTwice { seq: 2 }, |b| {
                let twice = b.entries[1].added[0].clone();
                b.entries[1].added.push(twice);
            }),
            (BatchError::TextTooLong { bytes: TEXT_BYTES_MAX + 1 }, |b| {
                b.provenances[0].reason = "r".repeat(TEXT_BYTES_MAX + 1);
            }),
        ];
        for (error, break_it) in cases {
            let mut batch = pack(2);
            break_it(&mut batch);
            assert_eq!(batch.unpack(), Err(error));
        }
    }

    #[test]
    fn paths_and_texts_are_written_once() {
        let (one, many) = (crate::codec::encode(&pack(1)), crate::codec::encode(&pack(100)));
        assert!(many.len() - one.len() < 99 * 20, "{} bytes for 99 more", many.len() - one.len());
    }
}
