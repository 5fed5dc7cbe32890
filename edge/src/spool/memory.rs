//! A spool without a disk: it promises nothing over a power cut.

use std::collections::{BTreeMap, BTreeSet};

use protocol::PublicKey;
use protocol::history::{Entry, Genesis, Leaf, SignedHead};
use protocol::state::Path;

use super::record::decode_entry;
use super::{AuthorState, Commit, Loaded, LogRecord, Spool, SpoolError};

/// A spool in memory.
#[derive(Debug, Default)]
pub struct MemorySpool {
    genesis: Option<Genesis>,
    logs: BTreeMap<u32, LogRecord>,
    leaves: BTreeMap<Path, Leaf>,
    entries: BTreeMap<(u32, u64), Vec<u8>>,
    seals: BTreeMap<(u32, u64), SignedHead>,
    author: AuthorState,
    brains: BTreeSet<PublicKey>,
    incomplete: bool,
}

impl MemorySpool {
    /// An empty spool.
    pub fn new() -> Self {
        Self::default()
    }

    fn of_log(&self, log: u32, after: u64) -> impl Iterator<Item = (u64, &Vec<u8>)> {
        let from = (log, after.saturating_add(1));
        self.entries.range(from..=(log, u64::MAX)).map(|((_, seq), bytes)| (*seq, bytes))
    }
}

impl Spool for MemorySpool {
    fn load(&mut self) -> Result<Option<Loaded>, SpoolError> {
        let Some(genesis) = self.genesis.clone() else { return Ok(None) };
        Ok(Some(Loaded {
            genesis,
            logs: self.logs.values().cloned().collect(),
            leaves: self.leaves.clone(),
            author: self.author,
            brains: self.brains.clone(),
            incomplete: self.incomplete,
        }))
    }

    fn commit(&mut self, commit: &Commit) -> Result<(), SpoolError> {
        let unknown = commit.entries.iter().map(|entry| entry.log).find(|number| {
            let kept = commit.begin.is_none() && self.logs.contains_key(number);
            !kept && !commit.logs.contains_key(number)
        });
        if let Some(number) = unknown {
            return Err(SpoolError::UnknownLog { number });
        }
        if let Some(genesis) = &commit.begin {
            self.genesis = Some(genesis.clone());
            self.logs.clear();
            self.leaves.clear();
            self.entries.clear();
            self.seals.clear();
        }
        for (log, above) in &commit.truncate {
            self.entries.retain(|(of, seq), _| of != log || seq <= above);
            self.seals.retain(|(of, seq), _| of != log || seq <= above);
        }
        for entry in &commit.entries {
            self.entries.insert((entry.log, entry.seq), entry.bytes.clone());
        }
        for (log, signed) in &commit.seals {
            self.seals.insert((*log, signed.head.seq), *signed);
        }
        self.logs.extend(commit.logs.iter().map(|(number, log)| (*number, log.clone())));
        for (path, leaf) in &commit.leaves {
            match leaf {
                Some(leaf) => self.leaves.insert(path.clone(), leaf.clone()),
                None => self.leaves.remove(path),
            };
        }
        self.author = commit.author.unwrap_or(self.author);
        if let Some(brains) = &commit.brains {
            self.brains = brains.clone();
        }
        self.incomplete = commit.incomplete.unwrap_or(self.incomplete);
        Ok(())
    }

    fn range(&mut self, log: u32, after: u64, bytes_max: usize) -> Result<Vec<Entry>, SpoolError> {
        let (mut entries, mut bytes_taken) = (Vec::new(), 0);
        for ((seq, bytes), expected) in self.of_log(log, after).zip(after + 1..) {
            bytes_taken += bytes.len();
            if seq != expected || (bytes_taken > bytes_max && !entries.is_empty()) {
                break;
            }
            entries.push(decode_entry(bytes)?);
        }
        Ok(entries)
    }

    fn seal(&mut self, log: u32, after: u64, up_to: u64) -> Result<Option<SignedHead>, SpoolError> {
        if up_to <= after {
            return Ok(None);
        }
        let found = self.seals.range((log, after + 1)..=(log, up_to)).next_back();
        Ok(found.map(|(_, signed)| *signed))
    }

    fn sizes(&mut self, log: u32, after: u64) -> Result<Vec<(u64, u32)>, SpoolError> {
        Ok(self.of_log(log, after).map(|(seq, bytes)| (seq, bytes.len() as u32)).collect())
    }

    fn entry_bytes(&mut self) -> Result<u64, SpoolError> {
        Ok(self.entries.values().map(|bytes| bytes.len() as u64).sum())
    }

    fn prune(&mut self, up_to: &[(u32, u64)], bytes: u64) -> Result<u64, SpoolError> {
        let mut freed = 0;
        for (log, last) in up_to {
            while freed < bytes {
                let Some((seq, len)) =
                    self.of_log(*log, 0).next().map(|(seq, bytes)| (seq, bytes.len() as u64))
                else {
                    break;
                };
                if seq > *last {
                    break;
                }
                self.entries.remove(&(*log, seq));
                self.seals.remove(&(*log, seq));
                freed += len;
            }
        }
        Ok(freed)
    }
}
