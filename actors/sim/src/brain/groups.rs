//! The trees of groups, on the connections of their members.
//!
//! A group's twin has many connections. One that fails leaves the tree on all of them, and it is
//! offered again after a while.

use actors::ports::LinkEvent;
use protocol::history::{LogId, Member, Provenance, member_change};
use protocol::session::{Input, Now, Replica};
use protocol::{DeviceId, SyncError, TreeId};

use super::seat::Answer;
use super::{SimBrain, denied};
use crate::fleet::{self, Whose};
use crate::network::LinkId;

/// How long it is until a group is tried again that could not be attached to, or that the device
/// left.
const TRY_AGAIN_MS: u64 = 5_000;
/// How long it is until a device is offered a group again that was left because of it.
pub(super) const OFFER_AGAIN_MS: u64 = 30_000;

/// A link that takes part in a group, once what it is told is durable.
pub(super) struct Share {
    link: LinkId,
    group: Whose,
    replica: Replica,
    root: [u8; 32],
}

impl SimBrain {
    /// Lets a device write in a group's tree, or ends that: then its logs end where they are.
    pub fn set_member(
        &mut self,
        group: u8,
        device: DeviceId,
        is_current: bool,
        provenance: Provenance,
    ) {
        let now = self.now();
        if let Err(error) = self.set_member_now(group, device, is_current, provenance, now) {
            self.write_failed(error.code);
        }
        self.complete();
    }

    fn set_member_now(
        &mut self,
        group: u8,
        device: DeviceId,
        is_current: bool,
        provenance: Provenance,
        now: Now,
    ) -> Result<(), SyncError> {
        let whose = Whose::Group(group);
        self.ensure_twin(whose)?;
        let Some(twin) = self.seats.get_mut(&whose).and_then(|seat| seat.twin.as_mut()) else {
            return Ok(());
        };
        let key = fleet::device_key(device.0[15]).public();
        let written = twin.write(vec![member_change(device, key, is_current)], provenance, now);
        let written = written.map_err(|refusal| denied(refusal.code(), &refusal.to_string()))?;
        let Some(written) = written else { return Ok(()) };
        let (mut commit, mut news) = (written.commit, vec![LinkEvent::stored(written.position, 0)]);
        if !is_current {
            let (ended, cuts) = twin.end_logs_of(key);
            commit = commit.and_then(ended);
            news.extend(cuts.into_iter().map(LinkEvent::CutMade));
        }
        let answer = Answer::Member { id: written.id, device };
        self.commit(whose, commit, None, news, Some(answer));
        self.seal_soon(whose, now);
        Ok(())
    }

    /// Ends a log whose author has lost what it had not signed of it.
    pub(super) fn end_lost(&mut self, whose: Whose, log: LogId) {
        let twin = self.seats.get_mut(&whose).and_then(|seat| seat.twin.as_mut());
        if let Some((commit, cut)) = twin.and_then(|twin| twin.end_lost(log)) {
            self.commit(whose, commit, None, vec![LinkEvent::CutMade(cut)], None);
        }
    }

    /// Takes up the groups that the device at the end of a link is in, and drops those that it has
    /// left.
    pub(super) fn look_at_groups(&mut self, link: LinkId) {
        let Some(connection) = self.connections.get_mut(&link) else { return };
        connection.groups_due_ms = None;
        let Some(device) = connection.device else { return };
        let held: Vec<_> = connection.groups.iter().map(|(tree, group)| (*tree, *group)).collect();
        for group in (1..=self.groups).map(Whose::Group) {
            let tree = group.tree();
            let is_in = self.store.with_tree(tree, |kept| {
                let replica = kept.map(|kept| kept.replica());
                replica.is_some_and(|replica| is_member(replica.members(), device))
            });
            match (is_in, held.contains(&(tree, group))) {
                (true, false) => {
                    if self.attach_to_group(link, device, group).is_err() {
                        self.look_at_groups_in(link, TRY_AGAIN_MS);
                    }
                }
                (false, true) => self.leave(link, tree),
                (true, true) | (false, false) => {}
            }
        }
    }

    fn attach_to_group(
        &mut self,
        link: LinkId,
        device: DeviceId,
        group: Whose,
    ) -> Result<(), SyncError> {
        self.ensure_twin(group)?;
        self.next_connection += 1;
        let number = self.next_connection;
        let Some(seat) = self.seats.get_mut(&group) else { return Ok(()) };
        let Some(twin) = &seat.twin else { return Ok(()) };
        if !is_member(twin.tree().members(), device) {
            return Err(denied(protocol::ErrorCode::Forbidden, "the device is no member"));
        }
        seat.links.retain(|_, known| *known != link);
        seat.links.insert(number, link);
        let share = Share { link, group, replica: twin.replica(), root: twin.tree().root() };
        match (seat.in_flight > 0).then(|| twin.settle()) {
            None => self.attached_to_group(share),
            Some(commit) => {
                self.commit(group, commit, None, Vec::new(), Some(Answer::Share(share)));
            }
        }
        Ok(())
    }

    /// Says to a device that a group's tree is shared, and how its logs stand.
    pub(super) fn attached_to_group(&mut self, share: Share) {
        let Share { link, group, replica, root } = share;
        let tree = replica.tree;
        let Some(seat) = self.seats.get(&group) else { return };
        let Some(connection) = self.connections.get_mut(&link) else { return };
        if !seat.links.values().any(|known| *known == link) {
            return;
        }
        connection.groups.insert(tree, group);
        let logs = seat.twin.as_ref().map_or(&[][..], |twin| twin.tree().logs()).to_vec();
        let (genesis, replica) = (group.genesis(), Box::new(replica));
        self.feed(link, None, Input::Share { genesis, replica, root });
        let said = logs.into_iter().flat_map(|log| {
            let (cut, sealed) =
                (log.cut.map(LinkEvent::CutMade), log.signed.map(LinkEvent::Sealed));
            cut.into_iter().chain(sealed)
        });
        self.deliver(link, Some(tree), said.collect());
    }

    /// Looks at the groups of a link's device again after a time, or sooner where that is due.
    pub(super) fn look_at_groups_in(&mut self, link: LinkId, after_ms: u64) {
        let due_ms = self.now().mono_ms + after_ms;
        if let Some(connection) = self.connections.get_mut(&link) {
            let known = connection.groups_due_ms;
            connection.groups_due_ms = Some(known.map_or(due_ms, |known| known.min(due_ms)));
        }
    }

    /// The device speaks of a group no longer: it is offered again.
    pub(super) fn left_by_device(&mut self, link: LinkId, tree: TreeId) {
        self.drop_group(link, tree);
        self.look_at_groups_in(link, TRY_AGAIN_MS);
    }

    /// Speaks of a group no longer, for some time.
    pub(super) fn leave_for(&mut self, link: LinkId, of: Option<TreeId>, after_ms: u64) {
        if let Some(tree) = of {
            self.look_at_groups_in(link, after_ms);
            self.leave(link, tree);
        }
    }

    /// The twin of a group failed: its tree is left on every link, for some time.
    pub(super) fn group_failed(&mut self, group: Whose, links: Vec<LinkId>) {
        for link in links {
            self.leave_for(link, Some(group.tree()), TRY_AGAIN_MS);
        }
    }

    fn leave(&mut self, link: LinkId, tree: TreeId) {
        self.drop_group(link, tree);
        self.feed(link, None, Input::Leave(tree));
    }

    fn drop_group(&mut self, link: LinkId, tree: TreeId) {
        let connection = self.connections.get_mut(&link);
        let group = connection.and_then(|connection| connection.groups.remove(&tree));
        if let Some(seat) = group.and_then(|group| self.seats.get_mut(&group)) {
            seat.links.retain(|_, known| *known != link);
        }
    }
}

/// Whether a device may write as one of `members`.
fn is_member<'a>(
    mut members: impl Iterator<Item = (&'a protocol::PublicKey, &'a Member)>,
    device: DeviceId,
) -> bool {
    members.any(|(_, member)| member.device == device && member.is_current)
}
