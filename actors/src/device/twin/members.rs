//! Who writes in a tree, and which groups a device is in.

use std::collections::BTreeSet;

use protocol::PublicKey;
use protocol::history::{Change, Cut, GROUPS_PREFIX, LogId, LogState, Role};
use protocol::state::{Path, Value};

use super::Twin;
use crate::ports::TreeCommit;

impl Twin {
    /// The changes that make `tags/groups/` name exactly these groups: by its own tree a device
    /// hears of them also when it is out of them.
    pub fn groups_are(&self, groups: &[String]) -> Vec<Change> {
        let path = |name: &String| Path::new(&format!("{GROUPS_PREFIX}/{name}")).ok();
        let wanted: BTreeSet<Path> = groups.iter().filter_map(path).collect();
        let is_noted =
            |path: &&Path| path.below(GROUPS_PREFIX).is_some() && self.tree.value(path).is_some();
        let noted: BTreeSet<Path> = self.tree.leaves().keys().filter(is_noted).cloned().collect();
        let left = noted.difference(&wanted).map(|path| (path.clone(), None));
        let joined = wanted.difference(&noted).map(|path| (path.clone(), Some(Value::from(true))));
        left.chain(joined).collect()
    }

    /// Ends every log of a key where it stands, by the brain's authority.
    pub fn end_logs_of(&mut self, key: PublicKey) -> (TreeCommit, Vec<Cut>) {
        let of_key = |log: &&LogState| log.log.author == key && log.cut.is_none();
        let ends = self.tree.logs().iter().filter(of_key).map(|known| {
            Cut::revoke(&self.brain.keypair, self.tree.id(), known.log, known.seq, known.head)
        });
        let cuts: Vec<_> = ends.collect();
        for cut in &cuts {
            self.tree.take_cut(cut.clone());
        }
        (self.commit_row(), cuts)
    }

    /// Ends a log of a shared tree where it stands, if entries of it are unsigned and their author
    /// has lost them: nobody passes those on before, and what was written having seen them waits.
    pub fn end_lost(&mut self, log: LogId) -> Option<(TreeCommit, Cut)> {
        let known = self.tree.log(&log).filter(|known| known.seq > known.sealed())?;
        if self.owner.is_some() || self.brain.brains.contains(&log.author) || known.cut.is_some() {
            return None;
        }
        let cut = Cut::revoke(&self.brain.keypair, self.tree.id(), log, known.seq, known.head);
        self.tree.take_cut(cut.clone());
        Some((self.commit_row(), cut))
    }

    /// As what the author of a log takes part in the tree, if as anything.
    pub(super) fn role(&self, log: &LogId) -> Option<Role> {
        if self.brain.brains.contains(&log.author) {
            return Some(Role::Brain);
        }
        match &self.owner {
            Some((device, keys)) => keys.contains(&log.author).then_some(Role::Owner(*device)),
            None => {
                let member = self.tree.member(&log.author)?;
                // What one that left has written since counts nowhere.
                let may = member.is_current || self.tree.log(log).is_some();
                may.then_some(Role::Member(member.device))
            }
        }
    }
}
