//! The actor of one connected device, and that of one group.
//!
//! It owns the [`Twin`]: the brain's replica of the device's tree, or of the one that the members of
//! a group share. The tasks that hold the devices' connections, and the API, send it messages; it
//! answers over the connections' channels. A device has one connection, a group one for each member.
//! When it crashes or a commit fails, it is started again and loads the twin from the store. The
//! connection's channel closes once the last of its commits is settled; the connection attaches
//! again and tells what was not answered. One that is idle leaves memory and takes no notice.

mod attach;
mod commits;
mod fencing;
mod ingest;
mod letters;
mod links;
mod members;
mod message;
mod precondition;
mod prune;
mod repair;
mod twin;
mod writes;

use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use protocol::error::Cause;
use protocol::history::LogId;
use protocol::trace::{EntryTrace, TraceContext};
use protocol::{ErrorCode, ErrorSource, Layer, SyncError};
use tracing::Span;

use crate::account::Reason;
use crate::ports::{CommitError, LinkEvent, ReadError};
use crate::supervise::{Condemned, Context, Digest, Node, NodeError};
use crate::trace::Spans;
use crate::traced_span;

pub use fencing::{Fencing, Verdict};
pub use links::{Link, Links};
pub use message::{
    Attached, Clock, Commits, DeviceArgs, DeviceMsg, DeviceStatus, PolicyOf, Precondition, TreeOf,
    WriteOutcome,
};
pub use twin::{
    BrainAuthor, CutAnswer, Ingested, OwnEntries, Reissued, SaveError, Twin, Unprunable, Written,
};

use ingest::Came;
use links::News;
use writes::save_error;

/// How long the brain's own entries may stay unsigned: long enough to cover a burst with one
/// signature, short enough that a device has them sealed within a second.
const SEAL_AFTER: Duration = Duration::from_millis(200);
/// How long a device whose commit failed for want of disk space waits before it comes back.
const DISK_FULL_RETRY_MS: u32 = 5_000;
/// How long a device that refused an entry waits before it comes back.
const REFUSED_RETRY_MS: u32 = 5_000;

/// The actor of a device.
pub type DeviceActor = TreeActor<OfDevice>;
/// The actor of a group.
pub type GroupActor = TreeActor<OfGroup>;

/// Whose actor it is, as people see it.
pub trait Whose: Send + Sync + 'static {
    /// See [`Node::KIND`].
    const KIND: &'static str;
}

/// A device's.
pub struct OfDevice;
/// A group's.
pub struct OfGroup;

impl Whose for OfDevice {
    const KIND: &'static str = "device";
}

impl Whose for OfGroup {
    const KIND: &'static str = "group";
}

/// The actor of a tree.
pub struct TreeActor<W> {
    args: Arc<DeviceArgs>,
    twin: Option<Twin>,
    links: Links,
    fencing: Fencing,
    seal_pending: bool,
    whose: PhantomData<fn() -> W>,
}

impl<W: Whose> Node for TreeActor<W> {
    const KIND: &'static str = W::KIND;
    type Msg = DeviceMsg;
    type Args = DeviceArgs;

    fn start(args: &Arc<DeviceArgs>, ctx: &Context<DeviceMsg>) -> Result<Self, NodeError> {
        ctx.cast_self(DeviceMsg::Load);
        Ok(Self {
            args: args.clone(),
            twin: None,
            links: Links::default(),
            fencing: Fencing::default(),
            seal_pending: false,
            whose: PhantomData,
        })
    }

    async fn handle(&mut self, ctx: &Context<DeviceMsg>, msg: DeviceMsg) -> Result<(), NodeError> {
        let now = self.args.clock.now();
        self.links.drop_broken();
        match msg {
            // What is rare is in a box: every actor keeps room for its longest handler.
            DeviceMsg::Load => Box::pin(self.load(ctx)).await?,
            DeviceMsg::Attach { connection, device, peer, link, reply } => {
                let link = Link::new(connection, device, peer, now.wall_ms, link);
                self.attach(ctx, link, reply, now);
            }
            DeviceMsg::Settled { connection, attached, reply } => {
                self.answer_attached(connection, attached, reply);
            }
            DeviceMsg::Detached { connection } => self.links.remove(connection),
            DeviceMsg::EntriesCame { connection, log, entries, bytes, in_flight, traces } => {
                if self.links.has(connection) {
                    let spans = Spans::open(&traces, |trace| self.ingest_span(trace));
                    let came = Came { connection, log, entries, bytes, in_flight };
                    self.ingest(ctx, came, &spans, now).await?;
                } else if !self.links.is_empty() {
                    in_flight.refuse(Reason::Code(ErrorCode::Fenced));
                }
            }
            DeviceMsg::SignedHeadCame(signed) => {
                Box::pin(self.take_signed_head(ctx, signed)).await?;
            }
            DeviceMsg::CutCame(cut) => {
                self.links.log_goes_on(&cut.log);
                Box::pin(self.take_cut(ctx, cut, now)).await?;
            }
            DeviceMsg::LogLost(log) => self.end_lost(ctx, log),
            DeviceMsg::PeerRefused { connection, refuse } => {
                if self.links.has(connection) {
                    Box::pin(self.refused_by_peer(ctx, connection, refuse, now)).await?;
                }
            }
            DeviceMsg::Fetch { connection, log, after, bytes_max } => {
                if self.links.has(connection) {
                    Box::pin(self.fetch(ctx, connection, log, after, bytes_max)).await?;
                }
            }
            DeviceMsg::PeerHas { connection, logs } => {
                if let Some(link) = self.links.get_mut(connection) {
                    logs.into_iter().for_each(|(log, seq)| link.delivered.advance(log, seq));
                }
            }
            DeviceMsg::IsDelivered { log, seq, reply } => reply.send(self.is_delivered(&log, seq)),
            DeviceMsg::FetchCheckpoint { connection } => {
                if self.links.has(connection) {
                    Box::pin(self.fetch_checkpoint(ctx, connection)).await?;
                }
            }
            DeviceMsg::Prune { version, kept, reply } => {
                Box::pin(self.prune(ctx, version, kept, reply, now)).await?;
            }
            DeviceMsg::Write { changes, provenance, only_if, trace, reply } => {
                let Some(reply) = self.if_met(&only_if, reply, now) else { return Ok(()) };
                self.write(ctx, changes, provenance, trace, reply, now);
            }
            DeviceMsg::SetMember { device, key, is_current, provenance, reply } => {
                self.set_member(ctx, (device, key, is_current), provenance, reply, now);
            }
            DeviceMsg::GroupsAre { groups, tell, provenance, reply } => {
                let changes = self.twin_mut().groups_are(&groups);
                if tell || !changes.is_empty() {
                    self.links.tell(&LinkEvent::GroupsChanged);
                }
                self.write(ctx, changes, provenance, None, reply, now);
            }
            DeviceMsg::Resolve { id, reply } => self.resolve(ctx, id, reply, now),
            DeviceMsg::SetPolicy { of, policy, provenance, trace, reply } => {
                let changes = vec![self.twin_mut().next_policy(of, policy)];
                self.write(ctx, changes, provenance, trace, reply, now);
            }
            DeviceMsg::SetState { desired, provenance, only_if, trace, reply } => {
                let Some(reply) = self.if_met(&only_if, reply, now) else { return Ok(()) };
                let changes = self.twin_mut().replace_desired(&desired);
                self.write(ctx, changes, provenance, trace, reply, now);
            }
            DeviceMsg::SaveState { state, provenance, trace, reply } => {
                match self.twin_mut().save(state.version, &state.state) {
                    Ok(changes) => self.write(ctx, changes, provenance, trace, reply, now),
                    Err(error) => reply.send(Err(save_error(&error))),
                }
            }
            DeviceMsg::Snapshot { reply } => self.snapshot(ctx, reply),
            DeviceMsg::Status { reply } => reply.send(self.status()),
            // Whoever retired it has it stopped.
            DeviceMsg::CommitFailed(CommitError::Retired) => {}
            DeviceMsg::CommitFailed(error) => return Err(error.into()),
            DeviceMsg::Retired { error, reply } => {
                self.links.tell(&LinkEvent::Close { error, retry_after_ms: None });
                self.links = Links::default();
                reply.send(());
            }
            DeviceMsg::SealDue => self.seal(ctx),
            DeviceMsg::Rest => self.rest(ctx),
            DeviceMsg::Resume(links) => self.links = links,
            DeviceMsg::Replay { letter, reply } => self.replay(ctx, letter, reply, now),
        }
        Ok(())
    }

    async fn condemned(
        &mut self,
        ctx: &Context<DeviceMsg>,
        msg: DeviceMsg,
        why: Condemned,
    ) -> Result<(), NodeError> {
        let now = self.args.clock.now();
        self.put_aside(ctx, msg, &why, now);
        Ok(())
    }

    async fn stopping(&mut self, _ctx: &Context<DeviceMsg>) {
        let error = error(ErrorCode::GoingAway, "stop", "the brain is stopping");
        self.links.tell(&LinkEvent::Close { error, retry_after_ms: None });
    }

    fn label(msg: &DeviceMsg) -> &'static str {
        match msg {
            DeviceMsg::Load => "load",
            DeviceMsg::Attach { .. } => "attach",
            DeviceMsg::Settled { .. } => "settled",
            DeviceMsg::Detached { .. } => "detached",
            DeviceMsg::EntriesCame { .. } => "entries_came",
            DeviceMsg::SignedHeadCame(_) => "signed_head_came",
            DeviceMsg::CutCame(_) => "cut_came",
            DeviceMsg::LogLost(_) => "log_lost",
            DeviceMsg::PeerRefused { .. } => "peer_refused",
            DeviceMsg::Fetch { .. } => "fetch",
            DeviceMsg::PeerHas { .. } => "peer_has",
            DeviceMsg::IsDelivered { .. } => "is_delivered",
            DeviceMsg::FetchCheckpoint { .. } => "fetch_checkpoint",
            DeviceMsg::Prune { .. } => "prune",
            DeviceMsg::Write { .. } => "write",
            DeviceMsg::SetState { .. } => "set_state",
            DeviceMsg::SetPolicy { .. } => "set_policy",
            DeviceMsg::SetMember { .. } => "set_member",
            DeviceMsg::GroupsAre { .. } => "groups_are",
            DeviceMsg::Resolve { .. } => "resolve",
            DeviceMsg::SaveState { .. } => "save_state",
            DeviceMsg::Snapshot { .. } => "snapshot",
            DeviceMsg::Status { .. } => "status",
            DeviceMsg::CommitFailed(_) => "commit_failed",
            DeviceMsg::Retired { .. } => "retired",
            DeviceMsg::SealDue => "seal_due",
            DeviceMsg::Rest => "rest",
            DeviceMsg::Resume(_) => "resume",
            DeviceMsg::Replay { .. } => "replay",
        }
    }

    fn is_use(msg: &DeviceMsg) -> bool {
        let looks = [
            matches!(msg, DeviceMsg::Status { .. } | DeviceMsg::IsDelivered { .. }),
            matches!(msg, DeviceMsg::PeerHas { .. } | DeviceMsg::Prune { .. } | DeviceMsg::Rest),
        ];
        !looks.contains(&true)
    }

    fn digest(msg: &DeviceMsg) -> Option<Digest> {
        letters::digest(msg)
    }

    fn senders(msg: &DeviceMsg) -> Vec<TraceContext> {
        match msg {
            DeviceMsg::EntriesCame { traces, .. } => {
                let sampled = traces.iter().map(|trace| trace.context);
                sampled.filter(TraceContext::is_sampled).collect()
            }
            DeviceMsg::Write { trace, .. }
            | DeviceMsg::SetState { trace, .. }
            | DeviceMsg::SetPolicy { trace, .. }
            | DeviceMsg::SaveState { trace, .. } => trace.iter().copied().collect(),
            _ => Vec::new(),
        }
    }
}

impl<W: Whose> TreeActor<W> {
    async fn load(&mut self, ctx: &Context<DeviceMsg>) -> Result<(), NodeError> {
        let DeviceArgs { fleet, of, commits, store, .. } = &*self.args;
        let genesis = of.genesis(*fleet);
        let known = commits.settled();
        let at_hand = known.and_then(|number| store.load_from_memory(number, &genesis));
        let loaded = match at_hand {
            Some(loaded) => loaded,
            None => {
                let store = store.clone();
                let loading = tokio::task::spawn_blocking(move || store.load(&genesis));
                ctx.waiting(loading).await??
            }
        };
        commits.loaded(loaded.number);
        let DeviceArgs { of, brain, epochs, .. } = &*self.args;
        let brain = brain.clone().in_open_log(&loaded.record.logs, epochs);
        self.twin = Some(match of {
            TreeOf::Device { device, keys } => Twin::new(*device, keys.clone(), brain, loaded),
            TreeOf::Group { .. } => Twin::of_group(brain, loaded),
        });
        Ok(())
    }

    fn seal_soon(&mut self, ctx: &Context<DeviceMsg>) {
        if !self.seal_pending {
            self.seal_pending = true;
            ctx.cast_after(SEAL_AFTER, DeviceMsg::SealDue);
        }
    }

    async fn fetch(
        &mut self,
        ctx: &Context<DeviceMsg>,
        connection: u64,
        log: LogId,
        after: u64,
        bytes_max: usize,
    ) -> Result<(), NodeError> {
        let read = self.read(ctx, &log, after, bytes_max).await?;
        // The store keeps what lies above a cut; it is nobody's business any more.
        let last = self.twin_mut().tree().log(&log).map_or(0, |known| known.seq);
        let entries =
            read.into_iter().map(|(_, entry)| entry).filter(|entry| entry.seq <= last).collect();
        self.links.send(connection, LinkEvent::Fetched { log, entries });
        Ok(())
    }

    fn seal(&mut self, ctx: &Context<DeviceMsg>) {
        self.seal_pending = false;
        let Some((commit, signed, _)) = self.twin_mut().seal() else { return };
        let news = News::all(vec![LinkEvent::Sealed(signed)]);
        self.commit(ctx, commit, news, &Spans::default(), None);
    }

    /// Whether the device has said that it has an entry, or has written knowing it.
    fn is_delivered(&mut self, log: &LogId, seq: u64) -> bool {
        let of_device = matches!(self.args.of, TreeOf::Device { .. });
        self.links.delivered(log, seq) || (of_device && self.twin_mut().has_seen(log, seq))
    }

    fn status(&self) -> DeviceStatus {
        let link = self.links.any();
        let now = self.args.clock.now();
        DeviceStatus {
            connected_since_ms: link.map(|link| link.since_ms),
            connection: link.map(|link| link.connection),
            peer: link.map(|link| link.peer.clone()),
            quarantined_until_ms: self
                .fencing
                .quarantined_for_ms(now.mono_ms)
                .map(|left| now.wall_ms + left),
        }
    }

    /// Leaves memory, unless something is under way. The connection does not notice: it is handed
    /// to the next life.
    fn rest(&mut self, ctx: &Context<DeviceMsg>) {
        let now = self.args.clock.now();
        let busy = self.seal_pending
            || self.fencing.quarantined_for_ms(now.mono_ms).is_some()
            || self.args.commits.any();
        if !busy {
            let links = std::mem::take(&mut self.links).without_closed();
            ctx.rest((!links.is_empty()).then_some(DeviceMsg::Resume(links)));
        }
    }

    fn ingest_span(&self, trace: &EntryTrace) -> Span {
        let device = &self.args.of;
        let kind = "consumer";
        traced_span!(trace.context, "device.ingest", otel.kind = kind, device.id = %device, entry.seq = trace.seq)
    }

    fn twin_mut(&mut self) -> &mut Twin {
        self.twin.as_mut().expect("loading is the first message of every incarnation")
    }
}

/// The error of a change whose commit failed.
fn not_stored(failed: &CommitError, operation: &str) -> SyncError {
    let text = "the change is not stored";
    failed.to_sync_error().within(Cause::new(Layer::Brain, "device", operation, text))
}

/// The error of a history that could not be read.
fn not_read(failed: &ReadError, operation: &str) -> SyncError {
    let text = "the history cannot be read";
    failed.to_sync_error().within(Cause::new(Layer::Brain, "device", operation, text))
}

fn error(code: ErrorCode, operation: &str, message: impl Into<String>) -> SyncError {
    SyncError::new(code, ErrorSource::new(Layer::Brain, "device", operation), message)
}
