//! One device and its twin, without a connection between them.

use actors::device::{BrainAuthor, Twin};
use actors::ports::{LoadedTree, TreeCommit, TreeNumber, TreeRecord};
use anyhow::Context;
use brain::identity::Identity;
use brain::store::DeviceRecord;
use protocol::DeviceId;
use protocol::clock::{ClockQuality, Hlc};
use protocol::history::{
    Author, Draft, Genesis, Head, LogId, Provenance, SignedHead, Tree, TreeKind,
};
use protocol::keys::{Certificate, Chain, Keypair, Subject, Validity};
use protocol::session::Now;
use protocol::state::StateSource;
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use crate::load::signal::Signal;

/// The most entries that a device leaves without a signature.
const UNSIGNED_MAX: u64 = 256;

/// A device that writes, with the twin that takes what it writes.
pub(super) struct Diary {
    pub(super) device: DeviceId,
    key: Keypair,
    tree: Tree,
    author: Author,
    signal: Signal,
    twin: Twin,
    signed: u64,
}

impl Diary {
    /// The device whose tree has this number in an empty store.
    pub(super) fn new(identity: &Identity, number: TreeNumber, seed: u64) -> anyhow::Result<Self> {
        let mut random = SmallRng::seed_from_u64(seed ^ number.rotate_left(32));
        let (device, key) = (DeviceId(random.random()), Keypair::from_seed(&random.random()));
        let name = device.to_string();
        let genesis = Genesis { kind: TreeKind::Device, fleet: identity.fleet, name };
        let keypair = identity.keypair.clone();
        let brain = BrainAuthor { brains: [keypair.public()].into(), keypair, epoch: 1 };
        // Asking the store for each tree would wait for its commits each time.
        let loaded = LoadedTree {
            number,
            generation: 1,
            record: TreeRecord::new(genesis.clone()),
            leaves: Default::default(),
            base: None,
        };
        let log = LogId { author: key.public(), epoch: random.random() };
        Ok(Self {
            device,
            twin: Twin::new(device, vec![key.public()], brain, loaded),
            tree: Tree::new(genesis),
            author: Author::new(log, Hlc::default()),
            signal: Signal::new(random.random(), None)?,
            signed: 0,
            key,
        })
    }

    /// The commit of so many updates that came together, made and taken at `at_ms`.
    pub(super) fn write(&mut self, updates: u64, at_ms: u64) -> anyhow::Result<TreeCommit> {
        let now = Now { wall_ms: at_ms, mono_ms: at_ms, quality: ClockQuality::Synchronised };
        let mut entries = Vec::with_capacity(updates as usize);
        for _ in 0..updates {
            let (path, value) = self.signal.next();
            let draft = Draft {
                changes: vec![(path, Some(value))],
                provenance: Provenance::new(StateSource::Hardware, "sensor:bench", "changed"),
                lease_until_ms: None,
            };
            let entry = self.author.write(&self.tree, draft, now.wall_ms, now.quality);
            let entry = entry.context("no sensor repeats its value")?;
            let id = entry.id();
            self.tree.apply(&entry, id);
            entries.push((id, entry));
        }
        let ingested = self.twin.ingest(entries, now);
        if let Some((seq, refusal)) = ingested.refused {
            anyhow::bail!("entry {seq} is refused: {refusal}");
        }
        let commit = ingested.commit.context("new entries make a commit")?;
        match self.twin.version() - self.signed >= UNSIGNED_MAX {
            true => Ok(self.sign(commit)),
            false => Ok(commit),
        }
    }

    /// A commit of everything up to here, with the device's signature.
    pub(super) fn sign(&mut self, commit: TreeCommit) -> TreeCommit {
        let Some(log) = self.tree.log(&self.author.log()) else { return commit };
        let head = Head { tree: self.tree.id(), log: log.log, seq: log.seq, id: log.head };
        self.signed = head.seq;
        match self.twin.take_signed_head(SignedHead::sign(&self.key, head)) {
            Some((sealed, _)) => commit.and_then(sealed),
            None => commit,
        }
    }

    /// The device's record, as enrolment makes it.
    pub(super) fn record(&self, identity: &Identity, enrolled_ms: u64) -> DeviceRecord {
        let leaf = Certificate::issue(
            &identity.keypair,
            identity.fleet,
            Subject::Device(self.device, None),
            self.key.public(),
            Validity { from_ms: 0, until_ms: enrolled_ms + 1_000_000_000 },
        );
        DeviceRecord {
            device: self.device,
            name: self.device.to_string(),
            key: self.key.public(),
            certificate: Chain { leaf, issuer: Some(identity.certificate.leaf.clone()) },
            api_key_id: 1,
            // Nobody calls with it.
            api_key_sha256: self.key.seed(),
            enrolled_ms,
            enrolled_by: 1,
        }
    }
}
