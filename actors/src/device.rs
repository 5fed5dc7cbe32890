//! The actor of one connected device.
//!
//! It owns the device's [`Twin`]: the brain's replica of its tree. The task that holds the
//! device's connection, and the API, send it messages; it answers over the connection's channel.
//! When it crashes or a commit fails, it is started again and loads the twin from the store. The
//! connection's channel closes once the last of its commits is settled; the connection attaches
//! again and tells what was not answered. One that is idle leaves memory and takes no notice.

mod fencing;
mod ingest;
mod letters;
mod message;
mod repair;
mod twin;
mod writes;

use std::sync::Arc;
use std::time::Duration;

use protocol::history::{Genesis, LogId, TreeKind};
use protocol::session::{Now, Replica};
use protocol::trace::{EntryTrace, TraceContext};
use protocol::{ErrorCode, ErrorSource, Layer, SyncError};
use tracing::Span;

use self::writes::save_error;
use crate::account::{InFlight, Outcome, Reason};
use crate::ports::{CommitDone, CommitError, ConflictChange, LinkEvent, LinkSender, TreeCommit};
use crate::supervise::{Address, Condemned, Context, Digest, Node, NodeError, Reply};
use crate::trace::Spans;
use crate::traced_span;

pub use fencing::{Fencing, Verdict};
pub use message::{Clock, Commits, DeviceArgs, DeviceMsg, DeviceStatus, Link, WriteOutcome};
pub use twin::{BrainAuthor, CutAnswer, Ingested, OwnEntries, Reissued, SaveError, Twin, Written};

use ingest::Came;

/// How long the brain's own entries may stay unsigned: long enough to cover a burst with one
/// signature, short enough that a device has them sealed within a second.
const SEAL_AFTER: Duration = Duration::from_millis(200);
/// How long a device whose commit failed for want of disk space waits before it comes back.
const DISK_FULL_RETRY_MS: u32 = 5_000;
/// How long a device that refused an entry waits before it comes back.
const REFUSED_RETRY_MS: u32 = 5_000;

/// The actor.
pub struct DeviceActor {
    args: Arc<DeviceArgs>,
    twin: Option<Twin>,
    link: Option<Link>,
    fencing: Fencing,
    /// The last entry that was not taken: what follows it in its log is not looked at.
    refused: Option<(LogId, u64)>,
    seal_pending: bool,
}

impl Node for DeviceActor {
    const KIND: &'static str = "device";
    type Msg = DeviceMsg;
    type Args = DeviceArgs;

    fn start(args: &Arc<DeviceArgs>, ctx: &Context<DeviceMsg>) -> Result<Self, NodeError> {
        ctx.cast_self(DeviceMsg::Load);
        Ok(Self {
            args: args.clone(),
            twin: None,
            link: None,
            fencing: Fencing::default(),
            refused: None,
            seal_pending: false,
        })
    }

    async fn handle(&mut self, ctx: &Context<DeviceMsg>, msg: DeviceMsg) -> Result<(), NodeError> {
        let now = self.args.clock.now();
        match msg {
            // What is rare is in a box: every actor keeps room for its longest handler.
            DeviceMsg::Load => Box::pin(self.load(ctx)).await?,
            DeviceMsg::Attach { connection, peer, link, reply } => {
                self.attach(ctx, connection, peer, link, reply, now);
            }
            DeviceMsg::Settled { replica, reply } => self.answer_attached(replica, reply),
            DeviceMsg::Detached { connection } => {
                self.link.take_if(|link| link.connection == connection);
            }
            DeviceMsg::EntriesCame { connection, log, entries, bytes, in_flight, traces } => {
                if self.is_current(connection) {
                    let spans = Spans::open(&traces, |trace| self.ingest_span(trace));
                    let came = Came { log, entries, bytes, in_flight };
                    self.ingest(ctx, came, &spans, now).await?;
                } else if self.link.is_some() {
                    in_flight.refuse(Reason::Code(ErrorCode::Fenced));
                }
            }
            DeviceMsg::SignedHeadCame(signed) => {
                Box::pin(self.take_signed_head(ctx, signed)).await?;
            }
            DeviceMsg::CutCame(cut) => {
                self.refused.take_if(|(log, _)| *log == cut.log);
                Box::pin(self.take_cut(ctx, cut, now)).await?;
            }
            DeviceMsg::PeerRefused { connection, refuse } => {
                if self.is_current(connection) {
                    Box::pin(self.refused_by_peer(ctx, refuse, now)).await?;
                }
            }
            DeviceMsg::Fetch { connection, log, after, bytes_max } => {
                if self.is_current(connection) {
                    Box::pin(self.fetch(ctx, log, after, bytes_max)).await?;
                }
            }
            DeviceMsg::Write { changes, provenance, if_version, trace, reply } => {
                let Some(reply) = self.if_at(if_version, reply) else { return Ok(()) };
                self.write(ctx, changes, provenance, trace, reply, now);
            }
            DeviceMsg::Resolve { id, reply } => self.resolve(ctx, id, reply, now),
            DeviceMsg::SetPolicy { policy, provenance, trace, reply } => {
                let changes = vec![self.twin_mut().next_policy(policy)];
                self.write(ctx, changes, provenance, trace, reply, now);
            }
            DeviceMsg::SetState { desired, provenance, if_version, trace, reply } => {
                let Some(reply) = self.if_at(if_version, reply) else { return Ok(()) };
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
            DeviceMsg::CommitFailed(error) => return Err(error.into()),
            DeviceMsg::SealDue => self.seal(ctx),
            DeviceMsg::Rest => self.rest(ctx),
            DeviceMsg::Resume(link) => self.link = Some(link),
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
        self.send(LinkEvent::Close {
            error: error(ErrorCode::GoingAway, "stop", "the brain is stopping"),
            retry_after_ms: None,
        });
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
            DeviceMsg::PeerRefused { .. } => "peer_refused",
            DeviceMsg::Fetch { .. } => "fetch",
            DeviceMsg::Write { .. } => "write",
            DeviceMsg::SetState { .. } => "set_state",
            DeviceMsg::SetPolicy { .. } => "set_policy",
            DeviceMsg::Resolve { .. } => "resolve",
            DeviceMsg::SaveState { .. } => "save_state",
            DeviceMsg::Snapshot { .. } => "snapshot",
            DeviceMsg::Status { .. } => "status",
            DeviceMsg::CommitFailed(_) => "commit_failed",
            DeviceMsg::SealDue => "seal_due",
            DeviceMsg::Rest => "rest",
            DeviceMsg::Resume(_) => "resume",
            DeviceMsg::Replay { .. } => "replay",
        }
    }

    fn is_use(msg: &DeviceMsg) -> bool {
        !matches!(msg, DeviceMsg::Status { .. } | DeviceMsg::Rest)
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

impl DeviceActor {
    async fn load(&mut self, ctx: &Context<DeviceMsg>) -> Result<(), NodeError> {
        let DeviceArgs { fleet, device, commits, store, .. } = &*self.args;
        let genesis = Genesis { kind: TreeKind::Device, fleet: *fleet, name: device.to_string() };
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
        let DeviceArgs { device, device_keys, brain, epochs, .. } = &*self.args;
        let brain = brain.clone().in_open_log(&loaded.record.logs, epochs);
        self.twin = Some(Twin::new(*device, device_keys.clone(), brain, loaded));
        Ok(())
    }

    fn attach(
        &mut self,
        ctx: &Context<DeviceMsg>,
        connection: u64,
        peer: String,
        events: LinkSender,
        reply: Reply<Result<Replica, SyncError>>,
        now: Now,
    ) {
        let current = self.link.as_ref().filter(|link| !link.events.is_closed());
        let current = current.map(|link| link.connection);
        match self.fencing.on_attach(current, connection, now.mono_ms) {
            Verdict::Attach => {}
            Verdict::Stale => {
                let text = "a newer connection of this device is already here";
                return reply.send(Err(error(ErrorCode::Fenced, "attach", text)));
            }
            Verdict::Cloned { retry_after_ms } => {
                let text = "two machines use this device's identity; enrol one of them anew";
                let error = error(ErrorCode::ClonedIdentity, "attach", text);
                tracing::warn!(device = %self.args.device, peer, "cloned identity, quarantined");
                let retry_after_ms = Some(retry_after_ms);
                self.send(LinkEvent::Close { error: error.clone(), retry_after_ms });
                self.link = None;
                return reply.send(Err(error));
            }
        }
        let text = "a newer connection of this device took over";
        let fenced = error(ErrorCode::Fenced, "attach", text);
        self.send(LinkEvent::Close { error: fenced, retry_after_ms: None });
        self.link = Some(Link { connection, peer, since_ms: now.wall_ms, events });
        self.refused = None;
        // What a new connection is told must be on disk: it counts as acknowledged.
        let replica = self.twin_mut().replica();
        if !self.args.commits.any() {
            self.answer_attached(replica, reply);
        } else {
            let commit = self.twin_mut().settle();
            let address = ctx.address().clone();
            self.queue(
                ctx,
                commit,
                Box::new(move |result| match result {
                    Ok(()) => pass_on(&address, DeviceMsg::Settled { replica, reply }),
                    Err(error) => reply.send(Err(error.to_sync_error())),
                }),
            );
        }
    }

    fn answer_attached(&mut self, replica: Replica, reply: Reply<Result<Replica, SyncError>>) {
        reply.send(Ok(replica));
        let signed: Vec<_> =
            self.twin_mut().tree().logs().iter().filter_map(|log| log.signed).collect();
        // The session drops those that the device has already.
        signed.into_iter().for_each(|signed| self.send(LinkEvent::Sealed(signed)));
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
        log: LogId,
        after: u64,
        bytes_max: usize,
    ) -> Result<(), NodeError> {
        let read = self.read(ctx, &log, after, bytes_max).await?;
        // The store keeps what lies above a cut; it is nobody's business any more.
        let last = self.twin_mut().tree().log(&log).map_or(0, |known| known.seq);
        let entries =
            read.into_iter().map(|(_, entry)| entry).filter(|entry| entry.seq <= last).collect();
        self.send(LinkEvent::Fetched { log, entries });
        Ok(())
    }

    fn seal(&mut self, ctx: &Context<DeviceMsg>) {
        self.seal_pending = false;
        let Some((commit, signed, _)) = self.twin_mut().seal() else { return };
        self.commit(ctx, commit, vec![LinkEvent::Sealed(signed)], &Spans::default(), None);
    }

    fn status(&self) -> DeviceStatus {
        let link = self.link.as_ref().filter(|link| !link.events.is_closed());
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
            let link = self.link.take().filter(|link| !link.events.is_closed());
            ctx.rest(link.map(DeviceMsg::Resume));
        }
    }

    /// Queues a commit; when it is durable, the connection hears `news` and `answer` is called.
    fn commit(
        &mut self,
        ctx: &Context<DeviceMsg>,
        commit: TreeCommit,
        mut news: Vec<LinkEvent>,
        spans: &Spans,
        answer: Option<CommitDone>,
    ) {
        let events = self.link.as_ref().map(|link| link.events.clone());
        let changed: Vec<_> = commit.conflicts.iter().map(ConflictChange::news).collect();
        let desk = (!changed.is_empty()).then(|| self.args.conflicts.clone());
        let mut committing = spans.then(|parent| traced_span!(parent, "store.commit"));
        self.queue(
            ctx,
            commit,
            Box::new(move |result| {
                let acknowledge = |parent| traced_span!(parent, "link.acknowledge");
                let spans = std::mem::take(&mut committing).then(acknowledge);
                if let (Ok(()), Some(events)) = (&result, events) {
                    let acknowledged = news.iter_mut().find_map(|event| match event {
                        LinkEvent::Stored { consumed_bytes: 1.., acknowledging, .. } => {
                            Some(acknowledging)
                        }
                        _ => None,
                    });
                    if let Some(acknowledging) = acknowledged {
                        *acknowledging = spans;
                    }
                    news.into_iter().for_each(|event| deliver(&events, event));
                }
                if let (Ok(()), Some(desk)) = (&result, desk) {
                    changed.into_iter().for_each(|news| news.tell(&*desk));
                }
                if let Some(answer) = answer {
                    answer(result);
                }
            }),
        );
    }

    fn queue(&mut self, ctx: &Context<DeviceMsg>, commit: TreeCommit, done: CommitDone) {
        if ctx.is_killed() {
            // Given up while it blocked its thread: another life may have loaded the tree.
            return done(Err(CommitError::Superseded));
        }
        self.args.commits.begin();
        let args = self.args.clone();
        let address = ctx.address().clone();
        let events = self.link.as_ref().map(|link| link.events.clone());
        self.args.store.commit(
            commit,
            Box::new(move |result| {
                args.commits.end(result.is_ok());
                if let Err(error) = &result {
                    if let Some(events) = events {
                        let retry_after_ms = Some(DISK_FULL_RETRY_MS);
                        deliver(
                            &events,
                            LinkEvent::Close { error: error.to_sync_error(), retry_after_ms },
                        );
                    }
                    pass_on(&address, DeviceMsg::CommitFailed(error.clone()));
                }
                done(result);
            }),
        );
    }

    fn ingest_span(&self, trace: &EntryTrace) -> Span {
        let device = &self.args.device;
        let kind = "consumer";
        traced_span!(trace.context, "device.ingest", otel.kind = kind, device.id = %device, entry.seq = trace.seq)
    }

    fn is_current(&self, connection: u64) -> bool {
        self.link.as_ref().is_some_and(|link| link.connection == connection)
    }

    fn send(&self, event: LinkEvent) {
        if let Some(link) = &self.link {
            deliver(&link.events, event);
        }
    }

    fn twin_mut(&mut self) -> &mut Twin {
        self.twin.as_mut().expect("loading is the first message of every incarnation")
    }
}

/// Passes news to a connection. One that does not keep up with acknowledgements of its own
/// entries, which its credit bounds, has ended or is about to.
fn deliver(events: &LinkSender, event: LinkEvent) {
    if let Err(error) = events.try_send(Box::new(event)) {
        tracing::debug!(%error, "news for a connection that is gone");
    }
}

/// Casts from the store's thread. A twin with a full mailbox or none hears of it when it loads.
fn pass_on(address: &Address<DeviceMsg>, msg: DeviceMsg) {
    if let Err(error) = address.try_cast(msg) {
        tracing::debug!(?error, "a twin was not told of its commit");
    }
}

/// Says what became of entries, once their commit has.
fn settling(in_flight: InFlight, outcome: Outcome) -> CommitDone {
    Box::new(move |committed| match committed {
        Ok(()) => in_flight.settle(&outcome),
        Err(error) => in_flight.settle(&outcome.not_committed(Reason::from(&error))),
    })
}

fn error(code: ErrorCode, operation: &str, message: impl Into<String>) -> SyncError {
    SyncError::new(code, ErrorSource::new(Layer::Brain, "device", operation), message)
}
