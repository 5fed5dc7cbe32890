//! A replica in memory: the tree, the entries of its logs, and an author of its own.

use std::collections::BTreeMap;

use protocol::clock::{ClockQuality, Hlc};
use protocol::history::{
    Admission, Author, Checkpoint, Cut, Draft, Entry, Genesis, Head, LogId, Provenance, Role,
    SignedHead, Tree, TreeKind, VersionVector, admit,
};
use protocol::keys::Keypair;
use protocol::session::Replica;
use protocol::state::{Path, StateSource, Value};
use protocol::wire::LogPosition;
use protocol::{DeviceId, EntryId, ErrorCode, FleetId, SyncError};

pub(crate) const FLEET: FleetId = FleetId([0xF1; 16]);
pub(crate) const DEVICE: DeviceId = DeviceId([0xD1; 16]);

pub(crate) fn key(n: u8) -> Keypair {
    Keypair::from_seed(&[n; 32])
}

pub(crate) fn root_key() -> Keypair {
    key(1)
}

pub(crate) fn brain_key() -> Keypair {
    key(2)
}

pub(crate) fn device_key() -> Keypair {
    key(3)
}

#[derive(Clone)]
pub(crate) struct Store {
    pub(crate) tree: Tree,
    /// The entries that are kept.
    pub(crate) logs: BTreeMap<LogId, Vec<Entry>>,
    /// What the tree had come to when the others were dropped.
    pub(crate) base: Option<Tree>,
    /// How many entries came that were here already.
    pub(crate) duplicates: usize,
    keypair: Keypair,
    author: Author,
    /// What the author writes below.
    prefix: &'static str,
}

impl Store {
    fn new(keypair: Keypair, prefix: &'static str) -> Self {
        let genesis = Genesis { kind: TreeKind::Device, fleet: FLEET, name: DEVICE.to_string() };
        let log = LogId { author: keypair.public(), epoch: 1 };
        Self {
            tree: Tree::new(genesis),
            logs: BTreeMap::new(),
            base: None,
            duplicates: 0,
            keypair,
            author: Author::new(log, Hlc::default()),
            prefix,
        }
    }

    pub(crate) fn device() -> Self {
        Self::new(device_key(), "reported")
    }

    pub(crate) fn brain() -> Self {
        Self::new(brain_key(), "desired")
    }

    pub(crate) fn log(&self) -> LogId {
        self.author.log()
    }

    /// Goes on writing in another log.
    pub(crate) fn open_epoch(&mut self, epoch: u64) {
        let log = LogId { author: self.keypair.public(), epoch };
        self.author = Author::new(log, Hlc::default());
    }

    pub(crate) fn replica(&self) -> Replica {
        let logs = self.tree.heads().map(|head| self.position(head.log)).collect();
        Replica {
            tree: self.tree.id(),
            logs,
            floor: self.floor(),
            ends: Vec::new(),
            author: self.keypair.public(),
        }
    }

    pub(crate) fn floor(&self) -> VersionVector {
        self.base.as_ref().map_or_else(VersionVector::default, Tree::vector)
    }

    /// Keeps no entry any longer, but a checkpoint.
    pub(crate) fn prune(&mut self) {
        self.base = Some(self.tree.clone());
        self.logs.values_mut().for_each(Vec::clear);
    }

    pub(crate) fn checkpoint(&self) -> Checkpoint {
        let base = self.base.as_ref().expect("pruned");
        let (logs, leaves) = (base.logs().to_vec(), base.leaves().clone());
        Checkpoint::sign(&self.keypair, base.id(), logs, leaves)
    }

    pub(crate) fn position(&self, log: LogId) -> LogPosition {
        LogPosition::of(&self.tree, log)
    }

    /// Writes a leaf; each value is new.
    pub(crate) fn write(&mut self, name: &str, value: impl Into<Value>, now_ms: u64) -> Entry {
        let path = Path::new(&format!("{}/{name}", self.prefix)).expect("valid");
        let draft = Draft {
            changes: vec![(path, Some(value.into()))],
            provenance: Provenance::new(StateSource::Edge, "user:ada", "test"),
            lease_until_ms: None,
        };
        let quality = ClockQuality::Synchronised;
        let entry = self.author.write(&self.tree, draft, now_ms, quality).expect("a new value");
        self.keep(entry.id(), entry.clone());
        entry
    }

    fn keep(&mut self, id: EntryId, entry: Entry) {
        self.tree.apply(&entry, id);
        self.logs.entry(entry.log).or_default().push(entry);
    }

    /// Signs the head of the own log.
    pub(crate) fn seal(&mut self) -> SignedHead {
        let LogPosition { log, seq, id, .. } = self.position(self.log());
        let signed = SignedHead::sign(&self.keypair, Head { tree: self.tree.id(), log, seq, id });
        self.tree.take_signed_head(signed);
        signed
    }

    pub(crate) fn fetch(&self, log: LogId, after: u64, bytes_max: usize) -> Vec<Entry> {
        let entries = self.logs.get(&log).map_or(&[][..], |entries| &entries[..]);
        let entries = &entries[entries.partition_point(|entry| entry.seq <= after)..];
        let mut bytes = 0;
        let fits = entries.iter().take_while(|entry| {
            let first = bytes == 0;
            bytes += protocol::codec::encode(&entry.delta).len();
            first || bytes <= bytes_max
        });
        fits.cloned().collect()
    }

    /// Takes entries of a peer in; stops at the first that is refused.
    pub(crate) fn ingest(
        &mut self,
        entries: Vec<(EntryId, Entry)>,
        now_ms: u64,
    ) -> Result<(), (u64, SyncError, bool)> {
        for (id, entry) in entries {
            let role = match entry.log.author {
                author if author == device_key().public() => Role::Owner(DEVICE),
                author if author == brain_key().public() => Role::Brain,
                _ => {
                    let text = "nobody else writes here";
                    let error = protocol::session::error(ErrorCode::Forbidden, "ingest", text);
                    return Err((entry.seq, error, false));
                }
            };
            match admit(&self.tree, &entry, id, role, now_ms) {
                Ok(Admission::New) => self.keep(id, entry),
                Ok(Admission::Known) => self.duplicates += 1,
                Err(refusal) => {
                    let code = refusal.code();
                    let error = protocol::session::error(code, "ingest", refusal.to_string());
                    return Err((entry.seq, error, code == ErrorCode::UnknownTree));
                }
            }
        }
        Ok(())
    }

    pub(crate) fn take_cut(&mut self, cut: Cut) {
        if let Some(entries) = self.logs.get_mut(&cut.log) {
            entries.truncate(cut.last_seq as usize);
        }
        self.tree.take_cut(cut);
    }

    /// Ends the own log at `last_seq` and writes what lay above it in the log of `epoch`.
    pub(crate) fn reissue_above(&mut self, last_seq: u64, epoch: u64, now_ms: u64) -> Cut {
        let log = self.log();
        let lost = self.logs[&log][last_seq as usize..].to_vec();
        let last_id = match last_seq {
            0 => Entry::NO_PREV,
            seq => self.logs[&log][seq as usize - 1].id(),
        };
        let cut = Cut::seal(&self.keypair, self.tree.id(), log, last_seq, last_id);
        self.take_cut(cut.clone());
        self.open_epoch(epoch);
        for old in lost {
            let entry = self.author.reissue(&self.tree, &old, now_ms, ClockQuality::Synchronised);
            self.keep(entry.id(), entry);
        }
        cut
    }
}

/// Both replicas hold the same, each log without gap or repetition, and all of it sealed.
pub(crate) fn assert_same(a: &Store, b: &Store) {
    assert_eq!(a.tree.vector(), b.tree.vector());
    assert_eq!(a.tree.root(), b.tree.root());
    assert_eq!(a.tree.state(), b.tree.state());
    assert_eq!(a.tree.sealed(), b.tree.sealed(), "what is sealed here is sealed there");
    assert_eq!(a.logs, b.logs, "the same entries in the same order");
    for entries in a.logs.values() {
        assert!(entries.iter().map(|entry| entry.seq).eq(1..=entries.len() as u64));
    }
}
