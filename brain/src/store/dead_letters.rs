//! Messages that killed their actors, kept for people to look at and try again.

use actors::ports::{DeadLetter, ReadError};
use rocksdb::WriteBatch;

use super::rocks::{DEAD_LETTERS, Rocks};
use super::{RegistryChange, Store};

/// So many are kept; what is there is read through whenever one more comes.
const DEAD_LETTERS_MAX: usize = 1_000;

/// Adds a letter to a batch; the oldest goes when there are too many.
pub(super) fn add(rocks: &Rocks, batch: &mut WriteBatch, letter: &DeadLetter) {
    let key = key(letter.digest, &letter.tree.name);
    let kept = rocks.scan_all::<DeadLetter>(DEAD_LETTERS).filter_map(Result::ok);
    let mut others: Vec<_> = kept
        .filter(|(other, _)| **other != key[..])
        .map(|(other, kept)| (kept.at_ms, other))
        .collect();
    others.sort();
    let too_many = (others.len() + 1).saturating_sub(DEAD_LETTERS_MAX);
    others.drain(..too_many).for_each(|(_, oldest)| rocks.delete(batch, DEAD_LETTERS, &oldest));
    rocks.put(batch, DEAD_LETTERS, &key, letter);
}

/// Where a letter is kept.
pub(super) fn key(digest: [u8; 8], tree: &str) -> Vec<u8> {
    // No group has the name of a device.
    [&digest[..], tree.as_bytes()].concat()
}

impl Store {
    /// The dead letters, the latest first. Blocks.
    pub fn dead_letters(&self) -> Result<Vec<DeadLetter>, ReadError> {
        let letters = self.rocks.scan_all::<DeadLetter>(DEAD_LETTERS);
        let mut letters =
            letters.map(|row| row.map(|(_, letter)| letter)).collect::<Result<Vec<_>, _>>()?;
        letters.sort_by_key(|letter| (std::cmp::Reverse(letter.at_ms), letter.digest));
        Ok(letters)
    }

    /// The dead letter with this digest for the tree of this name. Blocks.
    pub fn dead_letter(
        &self,
        digest: [u8; 8],
        tree: &str,
    ) -> Result<Option<DeadLetter>, ReadError> {
        self.rocks.get(DEAD_LETTERS, &key(digest, tree))
    }
}

impl RegistryChange {
    /// Forgets a dead letter.
    pub fn discard(letter: &DeadLetter) -> Self {
        Self::DeadLetterGone(letter.digest, letter.tree.name.clone())
    }
}
