//! A group's tree, for links that share one.

use protocol::TreeId;
use protocol::clock::{ClockQuality, Hlc};
use protocol::history::{
    Author, Draft, Entry, Genesis, Head, LogId, Provenance, SignedHead, Tree, TreeKind,
    VersionVector,
};
use protocol::keys::Keypair;
use protocol::session::{Input, Replica};
use protocol::state::{Path, StateSource, Value};
use protocol::wire::LogPosition;

use super::store::FLEET;

/// The replica of a group's tree, with the entries of its logs.
pub(crate) struct Group {
    pub(crate) tree: Tree,
    pub(crate) entries: Vec<Entry>,
}

impl Group {
    pub(crate) fn new(name: &str) -> Self {
        let genesis = Genesis { kind: TreeKind::Group, fleet: FLEET, name: name.into() };
        Self { tree: Tree::new(genesis), entries: Vec::new() }
    }

    pub(crate) fn id(&self) -> TreeId {
        self.tree.id()
    }

    /// Writes a leaf as somebody, whatever they may.
    pub(crate) fn write(&mut self, author: &Keypair, value: i64) -> LogPosition {
        let log = LogId { author: author.public(), epoch: 1 };
        let last = self.tree.log(&log).map_or(Hlc::default(), |known| known.hlc);
        let changes = vec![(Path::new("shared/a").expect("a path"), Some(Value::from(value)))];
        let provenance = Provenance::new(StateSource::Edge, "user:ada", "test");
        let draft = Draft { changes, provenance, lease_until_ms: None };
        let mut author = Author::new(log, last);
        let now_ms = 1_700_000_000_000 + value as u64;
        let entry = author.write(&self.tree, draft, now_ms, ClockQuality::Synchronised);
        let entry = entry.expect("a new value");
        self.tree.apply(&entry, entry.id());
        self.entries.push(entry);
        LogPosition::of(&self.tree, log)
    }

    pub(crate) fn sign(&mut self, author: &Keypair) -> SignedHead {
        let LogPosition { log, seq, id, .. } =
            LogPosition::of(&self.tree, LogId { author: author.public(), epoch: 1 });
        let signed = SignedHead::sign(author, Head { tree: self.id(), log, seq, id });
        self.tree.take_signed_head(signed);
        signed
    }

    pub(crate) fn share<'a>(&self, author: &Keypair) -> Input<'a> {
        let logs = self.tree.heads().map(|head| LogPosition::of(&self.tree, head.log)).collect();
        let floor = VersionVector::default();
        let replica =
            Replica { tree: self.id(), logs, floor, ends: Vec::new(), author: author.public() };
        let (genesis, root) = (self.tree.genesis().clone(), self.tree.root());
        Input::Share { genesis, replica: Box::new(replica), root }
    }

    pub(crate) fn of<'a>(&self, input: Input<'a>) -> Input<'a> {
        Input::OfShared { tree: self.id(), input: Box::new(input) }
    }
}
