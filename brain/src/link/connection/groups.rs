//! The trees of a device's groups, on the device's connection.
//!
//! Each has an actor, which many connections are attached to. One that fails is attached to again,
//! as the device's own is; while it cannot be reached, the device goes on without it.

use std::collections::{BTreeMap, BTreeSet};
use std::future::poll_fn;
use std::task::Poll;
use std::time::Duration;

use actors::device::DeviceMsg;
use actors::ports::{LinkEvent, LinkReceiver};
use actors::supervise::Address;
use protocol::history::Provenance;
use protocol::session::{Input, Output, Replica, SHARED_TREES_MAX};
use protocol::state::StateSource;
use protocol::{DeviceId, TreeId};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::attach::Away;
use super::unanswered::Unanswered;
use super::{Connection, TWIN_TIME_MAX};

/// How much news of a group may wait for a connection. One that has no room attaches anew.
const GROUP_EVENTS_MAX: usize = 1_024;
/// How long it is until a group that could not be attached to is tried again.
const TRY_AGAIN_AFTER: Duration = Duration::from_secs(5);
/// How long it is until a device that left a group is offered it again.
const OFFER_AGAIN_AFTER: Duration = Duration::from_secs(30);

/// A connection's end of a group.
pub(super) struct GroupLink {
    name: String,
    pub(super) twin: Address<DeviceMsg>,
    events: LinkReceiver,
    pub(super) unanswered: Unanswered,
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
        self.note_groups(&names).await;
        let names: BTreeSet<_> = names.into_iter().take(SHARED_TREES_MAX).collect();
        let mut outputs = Vec::new();
        let gone = self.groups.iter().filter(|(_, group)| !names.contains(&group.name));
        let gone: Vec<_> = gone.map(|(tree, _)| *tree).collect();
        for tree in gone {
            outputs.extend(self.leave(tree).await);
        }
        for name in names {
            if self.groups.values().any(|group| group.name == name) {
                continue;
            }
            match self.attach_to_group(device, &name).await {
                Ok((group, replica)) => {
                    let genesis = self.ingress.devices.group_genesis(&name);
                    tracing::info!(%device, group = name, connection = self.number, "group is shared");
                    self.groups.insert(replica.tree, group);
                    let replica = Box::new(replica);
                    outputs.extend(self.feed(Input::Share { genesis, replica }));
                }
                Err(Away { error, .. }) => {
                    tracing::warn!(%device, group = name, %error, "group is not shared for now");
                    self.groups_due = Some(Instant::now() + TRY_AGAIN_AFTER);
                }
            }
        }
        outputs
    }

    /// Has the device's tree say which groups it is in, once a connection: whoever changed them may
    /// not have come so far.
    async fn note_groups(&mut self, groups: &[String]) {
        let Some(twin) =
            self.twin.as_ref().filter(|_| !std::mem::replace(&mut self.groups_noted, true))
        else {
            return;
        };
        let groups = groups.to_vec();
        let provenance = Provenance::new(StateSource::Brain, "brain", "joined or left groups");
        let note = |reply| DeviceMsg::GroupsAre { groups, provenance, reply };
        if let Err(error) = twin.ask(note, TWIN_TIME_MAX).await {
            tracing::debug!(%error, "the groups of a device are not noted");
        }
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
                // One that takes nothing now fails once more, and its channel closes again.
                if self.tell_again(Some(tree)).await.is_err() {
                    tracing::warn!(%device, group = name, "the actor of a group takes nothing");
                }
                outputs
            }
            Err(Away { error, .. }) => {
                tracing::warn!(%device, group = name, %error, "group is not shared for now");
                self.groups_due = Some(Instant::now() + TRY_AGAIN_AFTER);
                self.leave(tree).await
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
        let replica = self.ask_to_attach(&twin, device, Some(name), link).await?;
        let unanswered = Unanswered::default();
        Ok((GroupLink { name: name.to_owned(), twin, events, unanswered }, replica))
    }

    /// The device speaks of a group no longer, for want of space perhaps: it is offered again.
    pub(super) async fn left_by_device(&mut self, tree: TreeId) {
        self.drop_group(tree).await;
        self.groups_due = Some(Instant::now() + OFFER_AGAIN_AFTER);
    }

    /// Speaks of a group no longer.
    async fn leave(&mut self, tree: TreeId) -> Vec<Output> {
        self.drop_group(tree).await;
        self.feed(Input::Leave(tree))
    }

    async fn drop_group(&mut self, tree: TreeId) {
        if let Some(group) = self.groups.remove(&tree) {
            // Nobody answers these any more.
            let bytes: usize = group.unanswered.frames().iter().map(|frame| frame.len()).sum();
            self.release(u32::try_from(bytes).unwrap_or(u32::MAX));
            group.detach(self.number).await;
        }
    }
}

impl GroupLink {
    /// Lets the actor forget a connection. One that is down has none to forget.
    pub(super) async fn detach(self, connection: u64) {
        if !self.twin.is_passive() {
            let _ = self.twin.cast(DeviceMsg::Detached { connection }, TWIN_TIME_MAX).await;
        }
    }
}
