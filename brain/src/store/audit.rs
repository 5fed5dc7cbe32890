//! Who changed what, and when: a list that only grows, each row sealed by a hash over the one before.
//!
//! Whoever alters or removes a row has to make all later ones anew: a copy of the latest hash, kept
//! elsewhere, shows it.

use actors::ports::ReadError;
use protocol::EntryId;
use protocol::canonical::Writer;
use rocksdb::{Direction, WriteBatch};
use serde::{Deserialize, Serialize};

use super::Store;
use super::rocks::{AUDIT, Rocks};

/// The longest text of a row; what is longer is cut.
const TEXT_BYTES_MAX: usize = 512;

/// An operation, before it has its place in the list.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditDraft {
    /// When it was done, in milliseconds since the Unix epoch.
    pub at_ms: u64,
    /// Who did it.
    pub principal: String,
    /// What was done: a request's method and the pattern of its route, or another name.
    pub operation: String,
    /// What it was done to.
    pub target: String,
    /// What came of it: a status of HTTP.
    pub outcome: u16,
    /// Why, as far as that was said.
    pub reason: String,
    /// The entry that it wrote.
    pub entry: Option<EntryId>,
}

/// A row of the list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditRow {
    /// Its number, from 1 without gaps.
    pub number: u64,
    /// The operation.
    #[serde(flatten)]
    pub done: AuditDraft,
    /// The hash of the row before; zeros before the first.
    #[serde(with = "hex")]
    pub before: [u8; 32],
    /// The hash of this row.
    #[serde(with = "hex")]
    pub hash: [u8; 32],
}

/// What a check of the list came to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct AuditChecked {
    /// How many rows there are.
    pub rows: u64,
    /// The hash of the last one, in hexadecimal; worth keeping elsewhere.
    pub last_hash: String,
    /// The first row that is not what was written, or is missing.
    pub broken_at: Option<u64>,
}

impl AuditRow {
    /// The row that follows another.
    fn after(before: Option<&Self>, mut done: AuditDraft) -> Self {
        for text in [&mut done.principal, &mut done.operation, &mut done.target, &mut done.reason] {
            shorten(text);
        }
        let number = before.map_or(1, |before| before.number + 1);
        let before = before.map_or([0; 32], |before| before.hash);
        let mut row = Self { number, done, before, hash: [0; 32] };
        row.hash = row.hashed();
        row
    }

    /// What its hash has to be.
    pub fn hashed(&self) -> [u8; 32] {
        let AuditDraft { at_ms, principal, operation, target, outcome, reason, entry } = &self.done;
        let mut writer = Writer::new("fleet-audit-v1");
        writer.raw(&self.before).u64(self.number).u64(*at_ms).text(principal).text(operation);
        writer.text(target).u16(*outcome).text(reason);
        match entry {
            Some(entry) => writer.u8(1).raw(&entry.0),
            None => writer.u8(0),
        };
        writer.hash()
    }
}

/// Cuts what is longer than a text may be.
pub(super) fn shorten(text: &mut String) {
    let mut end = text.len().min(TEXT_BYTES_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.truncate(end);
}

/// The end of the list, as the writer knows it.
pub(super) struct Audit {
    last: Option<AuditRow>,
}

impl Audit {
    pub(super) fn load(rocks: &Rocks) -> Result<Self, ReadError> {
        let mut rows = rocks.scan::<Stored>(AUDIT, &[0xFF; 9], Direction::Reverse);
        Ok(Self { last: rows.next().transpose()?.map(|(_, stored)| stored.into()) })
    }

    /// Adds an operation to a batch.
    pub(super) fn add(&mut self, rocks: &Rocks, batch: &mut WriteBatch, done: AuditDraft) {
        let row = AuditRow::after(self.last.as_ref(), done);
        rocks.put(batch, AUDIT, &row.number.to_be_bytes(), &Stored::from(row.clone()));
        self.last = Some(row);
    }
}

/// A row as it is stored: the codec knows no flattening.
#[derive(Serialize, Deserialize)]
struct Stored {
    number: u64,
    done: AuditDraft,
    before: [u8; 32],
    hash: [u8; 32],
}

impl From<AuditRow> for Stored {
    fn from(AuditRow { number, done, before, hash }: AuditRow) -> Self {
        Self { number, done, before, hash }
    }
}

impl From<Stored> for AuditRow {
    fn from(Stored { number, done, before, hash }: Stored) -> Self {
        Self { number, done, before, hash }
    }
}

/// Goes through the list from its beginning.
pub(super) fn check(rocks: &Rocks) -> Result<AuditChecked, ReadError> {
    let (mut rows, mut last, mut broken_at) = (0, [0; 32], None);
    for row in rocks.scan_all::<Stored>(AUDIT) {
        let (_, stored) = row?;
        let row = AuditRow::from(stored);
        let follows = row.number == rows + 1 && row.before == last && row.hash == row.hashed();
        if !follows && broken_at.is_none() {
            broken_at = Some(rows + 1);
        }
        (rows, last) = (row.number, row.hash);
    }
    Ok(AuditChecked { rows, last_hash: data_encoding::HEXLOWER.encode(&last), broken_at })
}

impl Store {
    /// The last rows of the audit list up to a number, newest first, at most so many. Blocks.
    pub fn audit(&self, until: u64, limit: usize) -> Result<Vec<AuditRow>, ReadError> {
        let from = until.to_be_bytes();
        let rows = self.rocks.scan::<Stored>(AUDIT, &from, Direction::Reverse);
        rows.take(limit).map(|row| row.map(|(_, stored)| stored.into())).collect()
    }

    /// Checks the audit list from its first row on. Blocks.
    pub fn check_audit(&self) -> Result<AuditChecked, ReadError> {
        check(&self.rocks)
    }
}

mod hex {
    use data_encoding::HEXLOWER;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(hash: &[u8; 32], to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&HEXLOWER.encode(hash))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<[u8; 32], D::Error> {
        let text = String::deserialize(from)?;
        let bytes = HEXLOWER.decode(text.as_bytes()).ok().and_then(|bytes| bytes.try_into().ok());
        bytes.ok_or_else(|| serde::de::Error::custom("no hash"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn draft(reason: &str) -> AuditDraft {
        AuditDraft { principal: "user:ada".into(), reason: reason.into(), ..AuditDraft::default() }
    }

    #[test]
    fn a_row_that_was_altered_has_another_hash() {
        let first = AuditRow::after(None, draft("a"));
        let second = AuditRow::after(Some(&first), draft("b"));
        assert_eq!((second.number, second.before), (2, first.hash));
        let mut altered = first.clone();
        altered.done.principal = "user:eve".into();
        assert_ne!(altered.hashed(), first.hash);
        assert_eq!(second.hashed(), second.hash);
    }

    #[test]
    fn a_row_that_was_altered_or_removed_is_found_whatever_its_checksum_says() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let config = crate::store::StoreConfig::new(folder.path());
        let rocks = Rocks::open(&config, protocol::FleetId([1; 16])).expect("opens");
        let mut audit = Audit::load(&rocks).expect("reads");
        let mut batch = WriteBatch::default();
        ["a", "b", "c"].iter().for_each(|reason| audit.add(&rocks, &mut batch, draft(reason)));
        rocks.write(batch).expect("writes");
        let broken_at = || check(&rocks).expect("reads").broken_at;
        assert_eq!((broken_at(), check(&rocks).expect("reads").rows), (None, 3));
        let key = 2u64.to_be_bytes();
        let mut stored: Stored = rocks.get(AUDIT, &key).expect("reads").expect("a row");
        stored.done.principal = "user:eve".into();
        let mut batch = WriteBatch::default();
        rocks.put(&mut batch, AUDIT, &key, &stored);
        rocks.write(batch).expect("writes");
        assert_eq!(broken_at(), Some(2));
        let mut batch = WriteBatch::default();
        rocks.delete(&mut batch, AUDIT, &key);
        rocks.write(batch).expect("writes");
        assert_eq!(broken_at(), Some(2));
    }

    #[test]
    fn what_is_too_long_is_cut_at_a_letter() {
        let row = AuditRow::after(None, draft(&"ä".repeat(TEXT_BYTES_MAX)));
        assert_eq!(row.done.reason.len(), TEXT_BYTES_MAX);
    }
}
