//! Trees that the brain shares with the device. They come and go on a link that stays.

use std::collections::BTreeMap;

use protocol::TreeId;
use protocol::history::{Cut, CutCause, Genesis, LogId, VersionVector};
use protocol::session::{Input, Replica};
use protocol::wire::LogPosition;

use super::{DeviceEvent, Holding, SimDevice};
use crate::fleet::{self, Whose};

impl SimDevice {
    /// The brain shares a tree: it is opened here as well.
    pub(super) fn offered(&mut self, genesis: Genesis, logs: &[LogPosition], root: [u8; 32]) {
        let Some(whose) = Whose::of(&genesis) else { return };
        let tree = genesis.tree_id();
        let own = LogId { author: self.keypair.public(), epoch: self.random.next_u64() };
        self.shared.entry(tree).or_insert_with(|| Holding::new(whose, own));
        self.compare(tree, logs, root);
        let Some(holding) = self.shared.get(&tree) else { return };
        let replica = Box::new(Replica {
            tree,
            logs: holding.disk.positions(),
            floor: VersionVector::default(),
            ends: Vec::new(),
            author: own.author,
        });
        let root = holding.disk.tree().root();
        if let Some(link) = &mut self.link {
            link.open(tree);
        }
        self.feed(None, Input::Share { genesis, replica, root });
        self.introduce(Some(tree));
    }

    /// The same logs come to the same leaves, unless something was lost on the way.
    fn compare(&mut self, tree: TreeId, logs: &[LogPosition], root: [u8; 32]) {
        let of = Some(tree);
        self.sync(of);
        let Some(holding) = self.shared.get_mut(&tree) else { return };
        let stand = |position: LogPosition| (position.log, (position.seq, position.id));
        let here = holding.disk.positions().into_iter().filter(|position| position.seq > 0);
        let here: BTreeMap<_, _> = here.map(stand).collect();
        let there: BTreeMap<_, _> = logs.iter().copied().map(stand).collect();
        let is_same = here == there && !here.is_empty();
        let differs = is_same && holding.disk.tree().root() != root;
        if differs && !holding.disk.is_incomplete() {
            self.events.push(DeviceEvent::Differs(holding.whose));
        }
        if (differs && !holding.waits()) || holding.may_come_anew() {
            holding.begin_anew();
            self.events.push(DeviceEvent::ComesAnew(holding.whose));
            self.sync(of);
        }
    }

    /// Takes a cut. Where leaves of a shared tree lose values by it, the tree comes anew with the
    /// next offer, once nothing of this device waits.
    pub(super) fn take_cut(&mut self, of: Option<TreeId>, cut: Cut) {
        let stranger = |cause: &CutCause| matches!(cause, CutCause::Revoked { authority, .. } if *authority != fleet::brain_public());
        let Some(holding) = self.holding_mut(of).filter(|_| !stranger(&cut.cause)) else { return };
        let log = cut.log;
        let is_current = log == holding.disk.log();
        let touched = holding.disk.take_cut(cut);
        if of.is_some() && touched > 0 {
            holding.disk.set_incomplete();
        }
        if is_current {
            self.open_epoch(of);
        }
        self.sync(of);
        // What is above the end goes to nobody, and nothing waits for it.
        self.stored(of, log, 0);
        self.events.push(DeviceEvent::CutTaken);
        let comes_anew = self.holding(of).is_some_and(Holding::may_come_anew);
        if let Some(tree) = of.filter(|_| comes_anew) {
            self.leave_tree(tree);
        }
    }

    /// Speaks of a shared tree no longer; the brain offers it again after a while.
    pub(super) fn leave_tree(&mut self, tree: TreeId) {
        if let Some(link) = &mut self.link {
            link.shut(tree);
        }
        self.events.push(DeviceEvent::Left);
        self.feed(None, Input::Leave(tree));
    }
}
