//! Who writes in the tree.

use protocol::history::{Admission, Entry, Role, TreeKind, admit, stranger};
use protocol::session::{Now, error};
use protocol::{EntryId, PublicKey, SyncError};

use super::Replica;

impl Replica {
    /// Judges an entry that came over a link.
    pub(super) fn admit(
        &self,
        entry: &Entry,
        id: EntryId,
        now: Now,
    ) -> Result<Admission, SyncError> {
        let admitted = match self.role_of(&entry.log.author) {
            Some(role) => admit(&self.tree, entry, id, role, now.wall_ms),
            None => Err(stranger(&self.tree, entry)),
        };
        admitted.map_err(|refusal| error(refusal.code(), "admit entry", refusal.to_string()))
    }

    /// As what an author takes part in the tree, if as anything.
    pub(super) fn role_of(&self, author: &PublicKey) -> Option<Role> {
        if self.brains.contains(author) {
            return Some(Role::Brain);
        }
        match self.tree.genesis().kind {
            TreeKind::Device => {
                let is_own = *author == self.identity.keypair.public();
                is_own.then_some(Role::Owner(self.identity.device))
            }
            // What one that left had written before counts.
            TreeKind::Group | TreeKind::Site => {
                self.tree.member(author).map(|member| Role::Member(member.device))
            }
        }
    }

    /// Whether this device may write in the tree now.
    pub fn may_write(&self) -> bool {
        let own = self.tree.member(&self.identity.keypair.public());
        let is_own = self.tree.genesis().kind == TreeKind::Device;
        is_own || own.is_some_and(|member| member.is_current)
    }
}
