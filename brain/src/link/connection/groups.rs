//! The trees of a device's groups, on the device's connection.
//!
//! Each has an actor, which many connections are attached to. One that fails is attached to again,
//! as the device's own is; while it cannot be reached, the device goes on without it.

use std::collections::{BTreeMap, BTreeSet};
use std::future::poll_fn;
use std::task::Poll;
use std::time::Duration;

use actors::device::{Attached, DeviceMsg};
use actors::ports::{LinkEvent, LinkReceiver};
use actors::supervise::Address;
use protocol::history::{LOGS_MAX, Provenance};
use protocol::session::{Input, Output, Replica, SHARED_TREES_MAX, error};
use protocol::state::StateSource;
use protocol::{DeviceId, ErrorCode, SyncError, TreeId};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::attach::Away;
use super::unanswered::Unanswered;
use super::{Connection, TWIN_TIME_MAX};
use crate::store::Store;

/// How much news of a group may wait for a connection. One that has no room attaches anew.
const GROUP_EVENTS_MAX: usize = 4 * LOGS_MAX;
/// How long it is until a group is tried again that could not be attached to, or that the device
/// left.
const TRY_AGAIN_AFTER: Duration = Duration::from_secs(5);
/// How long it is until a device is offered a group again that was left because of it.
pub(super) const OFFER_AGAIN_AFTER: Duration = Duration::from_secs(30);
/// How long a group's actor may take to answer: the device waits for nobody but its own.
pub(super) const GROUP_TIME_MAX: Duration = Duration::from_secs(5);
/// So often the groups of a device are noted again because they changed meanwhile.
const NOTES_MAX: u32 = 5;

/// A connection's end of a group.
pub(super) struct GroupLink {
    name: String,
    pub(super) twin: Address<DeviceMsg>,
    events: LinkReceiver,
    pub(super) unanswered: Unanswered,
    /// The root of the tree's leaves as it was attached to.
    root: [u8; 32],
}

/// The next news of a group; none where its actor is gone.
pub(super) async fn next(
    groups: &mut BTreeMap<TreeId, GroupLink>,
) -> (TreeId, Option<Box<LinkEvent>>) {
    poll_fn(|cx| {
        for (tree, group) in groups.iter_mut() {
            if let Poll::Ready(event) = group.events.poll_recv(cx) {
                return Poll::Ready((*tree, event));
            }
        }
        Poll::Pending
    })
    .await
}

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<S> {
    /// Takes up the groups that the device has joined, and drops those that it has left.
    pub(super) async fn look_at_groups(&mut self) -> Vec<Output> {
        self.groups_due = None;
        let Some(device) = self.device else { return Vec::new() };
        let names = match self.ingress.store.groups_of(device) {
            Ok(names) => names,
            Err(error) => {
                tracing::error!(%device, %error, "the groups of a device cannot be read");
                return Vec::new();
            }
        };
        if names.len() > SHARED_TREES_MAX {
            tracing::warn!(%device, groups = names.len(), "only the first {SHARED_TREES_MAX} are served");
        }
        self.note_groups(device).await;
        let names: BTreeSet<_> = names.into_iter().take(SHARED_TREES_MAX).collect();
        let mut outputs = Vec::new();
        let gone = self.groups.iter().filter(|(_, group)| !names.contains(&group.name));
        let gone: Vec<_> = gone.map(|(tree, _)| *tree).collect();
        for tree in gone {
            outputs.extend(self.leave(tree));
        }
        for name in names {
            if self.groups.values().any(|group| group.name == name) {
                continue;
            }
            match self.attach_to_group(device, &name).await {
                Ok((group, replica)) => {
                    let genesis = self.ingress.devices.group_genesis(&name);
                    tracing::info!(%device, group = name, connection = self.number, "group is shared");
                    let (root, replica) = (group.root, Box::new(replica));
                    self.groups.insert(replica.tree, group);
                    outputs.extend(self.feed(Input::Share { genesis, replica, root }));
                }
                Err(Away { error, .. }) => {
                    tracing::warn!(%device, group = name, %error, "group is not shared for now");
                    self.look_at_groups_in(TRY_AGAIN_AFTER);
                    if error.code == ErrorCode::Overloaded {
                        // The device's own tree does not wait for one after the other.
                        break;
                    }
                }
            }
        }
        outputs
    }

    /// Has the device's tree say which groups it is in, once a connection: whoever changed them may
    /// not have come so far.
    async fn note_groups(&mut self, device: DeviceId) {
        if std::mem::replace(&mut self.groups_noted, true) {
            return;
        }
        let provenance = Provenance::new(StateSource::Brain, "brain", "joined or left groups");
        let Some(twin) = &self.twin else { return };
        if let Err(error) = note_groups(&self.ingress.store, twin, device, false, provenance).await
        {
            tracing::warn!(%device, error = error.message, "the groups of a device are not noted");
        }
    }

    /// Looks at the groups again after a time, or sooner where that is due already.
    pub(super) fn look_at_groups_in(&mut self, time: Duration) {
        let due = Instant::now() + time;
        self.groups_due = Some(self.groups_due.map_or(due, |known| known.min(due)));
    }

    /// Attaches to the next life of a group's actor, and tells it what the one before left
    /// unanswered.
    pub(super) async fn attach_to_group_again(&mut self, tree: TreeId) -> Vec<Output> {
        let (Some(device), Some(group)) = (self.device, self.groups.get(&tree)) else {
            return Vec::new();
        };
        let name = group.name.clone();
        match self.attach_to_group(device, &name).await {
            Ok((again, replica)) => {
                if let Some(group) = self.groups.get_mut(&tree) {
                    (group.twin, group.events) = (again.twin, again.events);
                }
                let mut outputs = Vec::new();
                for position in replica.logs {
                    let (log, consumed_bytes) = (position.log, 0);
                    let stored = Input::Stored { log, position, consumed_bytes };
                    outputs.extend(self.feed_of(Some(tree), stored));
                }
                outputs.extend(self.feed_of(Some(tree), Input::Pruned(replica.floor)));
                // One that takes nothing now fails once more, and its channel closes again.
                if self.tell_again(Some(tree)).await.is_err() {
                    tracing::warn!(%device, group = name, "the actor of a group takes nothing");
                }
                outputs
            }
            Err(Away { error, .. }) => {
                tracing::warn!(%device, group = name, %error, "group is not shared for now");
                self.look_at_groups_in(TRY_AGAIN_AFTER);
                self.leave(tree)
            }
        }
    }

    async fn attach_to_group(
        &self,
        device: DeviceId,
        name: &str,
    ) -> Result<(GroupLink, Replica), Away> {
        let twin = self.ingress.devices.group(name).map_err(|error| error.to_sync_error())?;
        let (link, events) = mpsc::channel(GROUP_EVENTS_MAX);
        let attached = self.ask_to_attach(&twin, device, Some(name), link).await?;
        let Attached { replica, root } = attached;
        let root = root.unwrap_or_default();
        let unanswered = Unanswered::default();
        Ok((GroupLink { name: name.to_owned(), twin, events, unanswered, root }, replica))
    }

    /// The device speaks of a group no longer, for want of space perhaps: it is offered again.
    pub(super) fn left_by_device(&mut self, tree: TreeId) {
        self.drop_group(tree);
        self.look_at_groups_in(TRY_AGAIN_AFTER);
    }

    /// Speaks of a group no longer, for some time.
    pub(super) fn leave_for(&mut self, tree: Option<TreeId>, time: Duration) -> Vec<Output> {
        let Some(tree) = tree else { return Vec::new() };
        self.look_at_groups_in(time);
        self.leave(tree)
    }

    fn leave(&mut self, tree: TreeId) -> Vec<Output> {
        self.drop_group(tree);
        self.feed(Input::Leave(tree))
    }

    fn drop_group(&mut self, tree: TreeId) {
        if let Some(group) = self.groups.remove(&tree) {
            // Nobody answers these any more.
            let bytes: usize = group.unanswered.frames().iter().map(|frame| frame.len()).sum();
            self.release(u32::try_from(bytes).unwrap_or(u32::MAX));
            group.detach(self.number);
        }
    }
}

/// Has a device's tree say which groups it is in, as the store has it once that is written; `tell`
/// the connection also where that is no news.
pub(crate) async fn note_groups(
    store: &Store,
    twin: &Address<DeviceMsg>,
    device: DeviceId,
    tell: bool,
    provenance: Provenance,
) -> Result<(), SyncError> {
    let groups_of = || store.groups_of(device).map_err(|error| error.to_sync_error());
    let mut groups = groups_of()?;
    for _ in 0..NOTES_MAX {
        let (noted, by) = (groups.clone(), provenance.clone());
        let note = |reply| DeviceMsg::GroupsAre { groups: noted, tell, provenance: by, reply };
        let answer = twin.ask(note, TWIN_TIME_MAX).await;
        answer
            .map_err(|failed| error(ErrorCode::Overloaded, "note groups", failed.to_string()))??;
        // Two who change them at once would each write what they had read before.
        let again = groups_of()?;
        if again == groups {
            break;
        }
        groups = again;
    }
    Ok(())
}

impl GroupLink {
    /// Lets the actor forget a connection. One that is down has none to forget.
    pub(super) fn detach(self, connection: u64) {
        if !self.twin.is_passive() {
            // One that has no time for it sees that the channel is closed.
            let _ = self.twin.try_cast(DeviceMsg::Detached { connection });
        }
    }
}
