//! What the shim wrote down.

use std::path::Path;
use std::{fs, io};

/// What one record is about, as `struct record` in `shim.c` has it.
const HEADER_BYTES: usize = 72;
const MAGIC: u32 = 0x5257_4f50;

/// A file or folder, by its inode's number.
pub(super) type Inode = u64;

/// Something that a process did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Event {
    /// Where its record begins: a sync covers what begins before the end that it names.
    pub(super) at: u64,
    /// What it did.
    pub(super) act: Act,
}

/// What a process did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Act {
    /// Changed a file's content or size.
    Content(Inode, Change),
    /// Put a name into a folder.
    Enter { folder: Inode, name: String, inode: Inode, is_folder: bool },
    /// Gave an entry another name, perhaps in another folder and over another file.
    Rename { from: (Inode, String), to: (Inode, String), inode: Inode },
    /// Took a name out of a folder.
    Leave { folder: Inode, name: String },
    /// Made durable what had been done to a file or folder before this place of the journal.
    Sync { inode: Inode, before: u64 },
    /// Asked for writes without making them durable.
    WeakSync,
    /// Did what cannot be journaled.
    Unknown { inode: Inode },
}

/// A change of a file's content, with what undoes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Change {
    /// What was changed.
    pub(super) kind: ChangeKind,
    /// The size before.
    pub(super) size_before: u64,
    /// What was overwritten or cut off, from where the change begins.
    pub(super) old: Vec<u8>,
}

impl Change {
    /// Whether it changes anything: space is set aside for files without their knowing.
    pub(super) fn has_effect(&self) -> bool {
        match self.kind {
            ChangeKind::Write { length, .. } => length > 0,
            ChangeKind::Resize { size } => size != self.size_before,
        }
    }
}

/// What was changed of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ChangeKind {
    /// So many bytes from here on.
    Write { offset: u64, length: u64 },
    /// The size, to this.
    Resize { size: u64 },
}

/// The events of a journal. What a death cut off at its end has not happened.
pub(super) fn read(path: &Path) -> io::Result<Vec<Event>> {
    match fs::read(path) {
        Ok(bytes) => parse(&bytes),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

fn parse(bytes: &[u8]) -> io::Result<Vec<Event>> {
    let mut events = Vec::new();
    let mut at = 0;
    while let Some((event, length)) = parse_one(&bytes[at..], at as u64)? {
        events.push(event);
        at += length;
    }
    Ok(events)
}

fn parse_one(bytes: &[u8], at: u64) -> io::Result<Option<(Event, usize)>> {
    let Some(header) = bytes.get(..HEADER_BYTES) else { return Ok(None) };
    let short = |from: usize| {
        u32::from_le_bytes(header[from..from + 4].try_into().expect("four bytes of a header"))
    };
    let long = |from: usize| {
        u64::from_le_bytes(header[from..from + 8].try_into().expect("eight bytes of a header"))
    };
    let wrong = |what: &str| io::Error::new(io::ErrorKind::InvalidData, format!("{what} at {at}"));
    if short(0) != MAGIC {
        return Err(wrong("no record"));
    }
    let (content, text) = (short(64) as usize, short(68) as usize);
    let length = HEADER_BYTES + content + text;
    let Some(record) = bytes.get(..length) else { return Ok(None) };
    let old = record[HEADER_BYTES..HEADER_BYTES + content].to_vec();
    let names = std::str::from_utf8(&record[HEADER_BYTES + content..]);
    let names = names.map_err(|_| wrong("a name that is not UTF-8"))?;
    let (inode, folder, folder_2) = (long(8), long(16), long(24));
    let (offset, changed, size_before) = (long(40), long(48), long(56));
    let content = |kind| Act::Content(inode, Change { kind, size_before, old });
    let name = || names.to_owned();
    let act = match u8::try_from(short(4)).unwrap_or(0) {
        b'W' => content(ChangeKind::Write { offset, length: changed }),
        b'T' | b'A' => content(ChangeKind::Resize { size: changed }),
        b'C' | b'L' => Act::Enter { folder, name: name(), inode, is_folder: false },
        b'D' => Act::Enter { folder, name: name(), inode, is_folder: true },
        b'R' => {
            let (new, old) = names.split_once('\0').ok_or_else(|| wrong("a rename of one name"))?;
            let (from, to) = ((folder_2, old.to_owned()), (folder, new.to_owned()));
            Act::Rename { from, to, inode }
        }
        b'U' => Act::Leave { folder, name: name() },
        b'S' => Act::Sync { inode, before: offset },
        b'Y' => Act::WeakSync,
        b'?' => Act::Unknown { inode },
        _ => return Err(wrong("a record of no known kind")),
    };
    Ok(Some((Event { at, act }, length)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_that_a_death_cut_off_has_not_happened() {
        let mut record = vec![0; HEADER_BYTES];
        record[..4].copy_from_slice(&MAGIC.to_le_bytes());
        record[4] = b'U';
        record[16] = 9;
        record[68] = 4;
        record.extend_from_slice(b"name");
        let whole = record.len() as u64;
        let mut bytes = record.clone();
        bytes.extend_from_slice(&record[..record.len() - 1]);
        let act = Act::Leave { folder: 9, name: "name".to_owned() };
        assert_eq!(parse(&bytes).expect("parses"), [Event { at: 0, act }]);
        bytes.push(b'e');
        assert_eq!(parse(&bytes).expect("parses")[1].at, whole);
        bytes[0] ^= 1;
        assert!(parse(&bytes).is_err());
    }
}
