//! The keeper of the device's tree: the only one who changes it.
//!
//! Whatever changes the tree comes here as a message, is applied to the [`Replica`], waits for
//! the commit that makes it durable together with what else came meanwhile, and only then is
//! answered and shown on the [`Board`](crate::status::Board). If the commit fails, the replica is
//! loaded anew from the spool, which is the truth.

mod queue;
mod refusal;
mod replica;

use std::sync::Arc;
use std::time::Duration;

use actors::supervise::{Address, AskError, Context, Node, NodeError, Reply};
use protocol::clock::ClockQuality;
use protocol::history::{Change, Cut, Draft, Entry, LogId, Provenance, SignedHead};
use protocol::state::{State, Value};
use protocol::wire::{LogPosition, Refuse};
use protocol::{EntryId, FleetId, PublicKey, TreeId};

pub use refusal::{End, Resolution, resolve};
pub use replica::{Ingested, Limits, Measured, PROVISIONAL_FLEET, Replica, genesis};

use crate::clock::Clock;
use crate::identity::Identity;
use crate::spool::{self, Commit, SpoolError, Store};
use crate::status::Board;

/// A disk that does not answer for this long is not going to.
const SPOOL_PATIENCE: Duration = Duration::from_secs(60);

/// How long to wait for the keeper, who answers after the disk does.
pub const PATIENCE: Duration = Duration::from_secs(90);

/// What the keeper is built from.
#[derive(Debug, Clone)]
pub struct Args {
    /// This device.
    pub identity: Identity,
    /// The fleet, if the device is enrolled.
    pub fleet: Option<FleetId>,
    /// The key of the brain that certified the device.
    pub issuer: Option<PublicKey>,
    /// The spool.
    pub spool: Address<spool::Msg>,
    /// The spool's store, to hear of damage.
    pub store: Store,
    /// Where to show what changed.
    pub board: Board,
    /// The time.
    pub clock: Clock,
    /// How much may wait and is kept.
    pub limits: Limits,
    /// For how long what comes is gathered into one commit.
    pub commit_delay: Duration,
}

/// What the keeper is told and asked.
pub enum Msg {
    /// Read the spool.
    Load,
    /// Commit what was gathered.
    Flush,
    /// Write what a draft changes; answers with where the log then stands.
    Write(Draft, Reply<Result<Option<LogPosition>, WriteError>>),
    /// Judge and keep entries of the peer.
    Ingest(LogId, Vec<(EntryId, Entry)>, Reply<Result<Ingested, WriteError>>),
    /// Keep a signed head of the peer.
    TakeSignedHead(SignedHead, Reply<LogPosition>),
    /// Keep a cut of the peer.
    TakeCut(Cut),
    /// The brain has made entries durable, up to a number and up to another under a seal.
    Acked(LogId, u64, u64),
    /// The brain does not take an entry.
    Refused(Box<Refuse>, Reply<Result<Outcome, WriteError>>),
    /// The brain has more of a log of this device than the device.
    OwnLogBehind(LogId),
    /// A brain proved that it is one.
    MetBrain(PublicKey),
    /// The device belongs to a fleet now, by the word of this brain.
    Enrolled(FleetId, Option<PublicKey>, Reply<Result<(), WriteError>>),
    /// The brain's clock is ahead of this one by so many milliseconds.
    ClockError(i64),
    /// Sign the own log's head.
    Seal(Reply<Option<SignedHead>>),
    /// What a session starts from.
    View(Reply<View>),
    /// Read a log's entries above a number, about so many bytes.
    Fetch(LogId, u64, usize, Reply<Vec<Entry>>),
    /// What the device is to do, and the values it has reported.
    Effective(Reply<Effective>),
    /// Every leaf with its value, and the root.
    State(Reply<(State, [u8; 32])>),
}

/// Why a change was not written.
#[derive(Debug, Clone, thiserror::Error)]
pub enum WriteError {
    /// Too much waits for the brain.
    #[error("queue is full: {limit_bytes} bytes wait for the brain")]
    QueueFull {
        /// How many bytes may wait.
        limit_bytes: u64,
    },
    /// The tree does not take it.
    #[error("change is not admissible")]
    Refused(#[source] protocol::history::Refusal),
    /// It could not be made durable. It may be tried again.
    #[error("change is not durable")]
    Spool(#[source] Arc<SpoolError>),
    /// The keeper is not there.
    #[error("agent does not answer")]
    Unavailable(#[from] AskError),
}

impl From<SpoolError> for WriteError {
    fn from(error: SpoolError) -> Self {
        Self::Spool(Arc::new(error))
    }
}

/// What followed from a refusal.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// The log ended, and what the brain did not take stands in another one now.
    Reissued {
        /// The end of the log.
        cut: Cut,
        /// Where the log that is written now stands.
        position: LogPosition,
    },
    /// Try again on another connection.
    Reconnect,
    /// There was nothing left of what was refused.
    Nothing,
}

/// What a session starts from.
#[derive(Debug, Clone, PartialEq)]
pub struct View {
    /// The tree.
    pub tree: TreeId,
    /// Whether it is no fleet's.
    pub provisional: bool,
    /// Where its logs stand.
    pub positions: Vec<LogPosition>,
    /// The ends of this device's logs.
    pub cuts: Vec<Cut>,
    /// The signed heads of this device's logs.
    pub seals: Vec<SignedHead>,
}

/// What the device is to do, and what it did about it.
#[derive(Debug, Clone, PartialEq)]
pub struct Effective {
    /// The values to apply, by their paths below `desired/`.
    pub desired: std::collections::BTreeMap<String, Value>,
    /// Every leaf with its value.
    pub state: State,
    /// When the next override ends, in milliseconds since the Unix epoch.
    pub next_end_ms: Option<u64>,
}

/// Who hears of the commit.
type Waiting = Box<dyn FnOnce(Result<(), WriteError>) + Send>;

/// The keeper.
pub struct Track {
    args: Arc<Args>,
    replica: Option<Replica>,
    waiting: Vec<Waiting>,
    flush_due: bool,
}

/// A message came before the spool was read, which the order of messages excludes.
#[derive(Debug, thiserror::Error)]
#[error("tree is not loaded")]
struct NotLoaded;

impl Node for Track {
    const KIND: &'static str = "track";
    const CAPACITY: usize = 1_024;
    type Msg = Msg;
    type Args = Args;

    fn start(args: &Arc<Args>, ctx: &Context<Msg>) -> Result<Self, NodeError> {
        ctx.cast_self(Msg::Load);
        Ok(Self { args: args.clone(), replica: None, waiting: Vec::new(), flush_due: false })
    }

    async fn handle(&mut self, ctx: &Context<Msg>, msg: Msg) -> Result<(), NodeError> {
        if let Msg::Load = msg {
            return self.start_up().await;
        }
        let now = self.args.clock.now();
        match msg {
            Msg::Load => {}
            Msg::Flush => {
                self.flush_due = false;
                self.flush().await?;
            }
            Msg::Write(draft, reply) => match self.replica()?.write(draft, now) {
                Ok(None) => reply.send(Ok(None)),
                Ok(Some(position)) => {
                    self.args.board.update(|status| status.entries_written += 1);
                    self.after_commit(ctx, move |committed| {
                        reply.send(committed.map(|()| Some(position)));
                    });
                }
                Err(error) => {
                    if let WriteError::QueueFull { .. } = error {
                        self.args.board.update(|status| status.queue_full += 1);
                    }
                    reply.send(Err(error));
                }
            },
            Msg::Ingest(log, entries, reply) => {
                let ingested = self.replica()?.ingest(log, entries, now)?;
                self.after_commit(ctx, move |committed| {
                    reply.send(committed.map(|()| ingested));
                });
            }
            Msg::TakeSignedHead(signed, reply) => {
                let position = self.replica()?.take_signed_head(signed);
                reply.send(position);
            }
            Msg::TakeCut(cut) => self.take_cut(ctx, cut)?,
            Msg::Acked(log, stored, sealed) => {
                self.replica()?.acknowledged(log, stored, sealed);
                self.show_queue()?;
            }
            Msg::Refused(refuse, reply) => {
                let outcome = self.refused(&refuse).await?;
                reply.send(outcome);
            }
            Msg::OwnLogBehind(log) => {
                let replica = self.replica()?;
                if replica.own_log() == log {
                    tracing::warn!("brain knows more of this log; going on in a new epoch");
                    replica.open_epoch(random_epoch()?);
                    self.after_commit(ctx, |_| {});
                }
            }
            Msg::MetBrain(key) => {
                self.replica()?.add_brain(key);
                self.after_commit(ctx, |_| {});
            }
            Msg::Enrolled(fleet, issuer, reply) => {
                let joined = self.join(fleet, issuer).await?;
                reply.send(joined);
            }
            Msg::ClockError(error_ms) => self.clock_error(ctx, error_ms)?,
            Msg::Seal(reply) => {
                self.flush().await?;
                let signed = self.replica()?.seal();
                reply.send(signed);
            }
            Msg::View(reply) => {
                self.flush().await?;
                let replica = self.replica()?;
                reply.send(View {
                    tree: replica.tree().id(),
                    provisional: replica.is_provisional(),
                    positions: replica.positions(),
                    cuts: replica.own_cuts(),
                    seals: replica.own_seals(),
                });
            }
            Msg::Fetch(log, after, bytes_max, reply) => {
                let entries = match self.replica()?.log_number(&log) {
                    Some(number) => self.range(number, after, bytes_max).await?,
                    None => Vec::new(),
                };
                reply.send(entries);
            }
            Msg::Effective(reply) => {
                self.flush().await?;
                let tree = self.replica()?.tree();
                let ends = tree.leaves().values().flat_map(|leaf| &leaf.candidates);
                let ends = ends.filter_map(|candidate| candidate.lease_until_ms);
                let next_end_ms = ends.filter(|end| *end > now.wall_ms).min();
                let desired = tree.effective(now.wall_ms);
                reply.send(Effective { desired, state: tree.state(), next_end_ms });
            }
            Msg::State(reply) => {
                self.flush().await?;
                let tree = self.replica()?.tree();
                reply.send((tree.state(), tree.root()));
            }
        }
        Ok(())
    }

    async fn stopping(&mut self, _: &Context<Msg>) {
        let floor_ms = self.args.clock.wall_ms();
        if let Some(replica) = &mut self.replica {
            replica.set_clean(true, floor_ms);
            if let Err(error) = self.flush().await {
                tracing::error!(%error, "last commit failed");
            }
        }
    }

    fn label(msg: &Msg) -> &'static str {
        match msg {
            Msg::Load => "load",
            Msg::Flush => "flush",
            Msg::Write(..) => "write",
            Msg::Ingest(..) => "ingest",
            Msg::TakeSignedHead(..) => "take_signed_head",
            Msg::TakeCut(..) => "take_cut",
            Msg::Acked(..) => "acked",
            Msg::Refused(..) => "refused",
            Msg::OwnLogBehind(..) => "own_log_behind",
            Msg::MetBrain(..) => "met_brain",
            Msg::Enrolled(..) => "enrolled",
            Msg::ClockError(..) => "clock_error",
            Msg::Seal(..) => "seal",
            Msg::View(..) => "view",
            Msg::Fetch(..) => "fetch",
            Msg::Effective(..) => "effective",
            Msg::State(..) => "state",
        }
    }
}

impl Track {
    fn replica(&mut self) -> Result<&mut Replica, NotLoaded> {
        self.replica.as_mut().ok_or(NotLoaded)
    }

    /// Calls back after the commit of what is staged now, or at once where that is nothing.
    fn after_commit(
        &mut self,
        ctx: &Context<Msg>,
        call: impl FnOnce(Result<(), WriteError>) + Send + 'static,
    ) {
        if !self.replica.as_ref().is_some_and(Replica::must_commit) {
            return call(Ok(()));
        }
        self.waiting.push(Box::new(call));
        if !std::mem::replace(&mut self.flush_due, true) {
            ctx.cast_after(self.args.commit_delay, Msg::Flush);
        }
    }

    /// Commits what is staged, and tells whoever waits for it.
    async fn flush(&mut self) -> Result<(), NodeError> {
        let replica = self.replica()?;
        if !replica.must_commit() {
            return Ok(());
        }
        let commit = Box::new(replica.take_staged());
        let desired_changed = changes_desired(&commit);
        let asked = self.args.spool.ask(|reply| spool::Msg::Commit(commit, reply), SPOOL_PATIENCE);
        // Without an answer nobody knows what became of the commit: a new life reads the spool.
        let error = match asked.await? {
            Ok(()) => {
                for call in self.waiting.drain(..) {
                    call(Ok(()));
                }
                self.show(desired_changed)?;
                return self.prune().await;
            }
            Err(error) => error,
        };
        tracing::error!(error = %error, "commit failed");
        self.args.board.update(|status| status.last_error = Some(error.to_string()));
        for call in self.waiting.drain(..) {
            call(Err(WriteError::Spool(error.clone())));
        }
        match *error {
            SpoolError::DiskFull => self.load().await,
            _ => Err(Box::new(error)),
        }
    }

    async fn start_up(&mut self) -> Result<(), NodeError> {
        self.load().await?;
        if let Some(fleet) = self.args.fleet.filter(|_| self.is_provisional()) {
            self.join(fleet, self.args.issuer).await??;
        }
        if let Some(damage) = self.args.store.take_damage() {
            let now = self.args.clock.now();
            let changes = [
                ("reported/spool/damaged_at_ms", Value::from(now.wall_ms as i64)),
                ("reported/spool/damage", Value::from(damage.what)),
            ];
            let written = self.replica()?.write(report("agent", "spool damaged", changes), now);
            written.map_err(Box::new)?;
        }
        let issuer = self.args.issuer;
        let replica = self.replica()?;
        if let Some(issuer) = issuer {
            replica.add_brain(issuer);
        }
        replica.set_clean(false, 0);
        self.flush().await
    }

    fn is_provisional(&self) -> bool {
        self.replica.as_ref().is_some_and(Replica::is_provisional)
    }

    /// Makes the replica what the spool says, or begins one.
    async fn load(&mut self) -> Result<(), NodeError> {
        let Args { identity, limits, spool, .. } = &*self.args;
        let key = identity.keypair.public();
        let answer = spool.ask(|reply| spool::Msg::Load(key, reply), SPOOL_PATIENCE).await??;
        self.replica = Some(match answer {
            Some((loaded, measured)) => {
                if !loaded.author.clean {
                    tracing::info!("agent was not stopped in good order; spool is intact");
                }
                Replica::load(identity.clone(), loaded, measured, *limits)
            }
            None => {
                let fleet = self.args.fleet.unwrap_or(PROVISIONAL_FLEET);
                Replica::begin(identity.clone(), fleet, random_epoch()?, *limits)
            }
        });
        self.show(true)?;
        Ok(())
    }

    async fn join(
        &mut self,
        fleet: FleetId,
        issuer: Option<PublicKey>,
    ) -> Result<Result<(), WriteError>, NodeError> {
        self.flush().await?;
        if !self.is_provisional() {
            return Ok(Ok(()));
        }
        let mut written = Vec::new();
        for (number, after) in self.replica()?.unacknowledged() {
            written.extend(self.range(number, after, usize::MAX).await?);
        }
        written.sort_by_key(|entry| entry.hlc);
        let now = self.args.clock.now();
        let epoch = random_epoch()?;
        let replica = self.replica()?;
        let joined = replica.join(fleet, epoch, &written, now);
        if let Some(issuer) = issuer {
            replica.add_brain(issuer);
        }
        if joined.is_err() {
            self.load().await?;
            return Ok(joined);
        }
        tracing::info!(fleet = %fleet, entries = written.len(), "tree belongs to a fleet now");
        self.flush().await?;
        Ok(Ok(()))
    }

    async fn refused(&mut self, refuse: &Refuse) -> Result<Result<Outcome, WriteError>, NodeError> {
        self.flush().await?;
        let Refuse { log, seq, error, .. } = refuse;
        tracing::warn!(seq, code = %error.code, message = %error.message, "brain refused an entry");
        self.args.board.update(|status| status.last_error = Some(error.to_string()));
        let Resolution::Reissue { end, drop_refused, correct_clock } = resolve(error.code) else {
            return Ok(Ok(Outcome::Reconnect));
        };
        let own = log.author == self.args.identity.keypair.public();
        let Some(number) = self.replica()?.log_number(log).filter(|_| own) else {
            return Ok(Ok(Outcome::Reconnect));
        };
        let below = seq.saturating_sub(1);
        let last_seq = match end {
            End::BelowRefused => below,
            End::AtAcknowledged => below.min(self.replica()?.acknowledged_of(*log)),
        };
        let mut lost = self.range(number, last_seq, usize::MAX).await?;
        let Some(last_id) = lost.first().map(|entry| entry.prev) else {
            return Ok(Ok(Outcome::Nothing));
        };
        if drop_refused {
            let before = lost.len();
            lost.retain(|entry| entry.seq != *seq);
            let dropped = (before - lost.len()) as u64;
            self.args.board.update(|status| status.entries_dropped += dropped);
        }
        if correct_clock {
            let error_ms = refuse.now_ms as i64 - self.args.clock.wall_ms() as i64;
            let offset_ms = self.args.clock.correct(error_ms);
            tracing::warn!(offset_ms, "clock was ahead and is corrected");
            self.replica()?.set_clock_offset(offset_ms);
        }
        let (now, epoch) = (self.args.clock.now(), random_epoch()?);
        let replica = self.replica()?;
        let cut = match replica.end_log(*log, last_seq, last_id, &lost, epoch, now) {
            Ok(cut) => cut,
            Err(error) => {
                self.load().await?;
                return Ok(Err(error));
            }
        };
        self.flush().await?;
        let replica = self.replica()?;
        let position = replica.position(replica.own_log());
        tracing::info!(entries = lost.len(), "entries are written again in a new epoch");
        Ok(Ok(Outcome::Reissued { cut, position }))
    }

    fn take_cut(&mut self, ctx: &Context<Msg>, cut: Cut) -> Result<(), NodeError> {
        let own = cut.log == self.replica()?.own_log();
        let touched = self.replica()?.take_cut(cut);
        if !touched.is_empty() {
            tracing::warn!(leaves = touched.len(), "a cut took the values of leaves");
        }
        if own {
            let epoch = random_epoch()?;
            self.replica()?.open_epoch(epoch);
        }
        self.after_commit(ctx, |_| {});
        Ok(())
    }

    fn clock_error(&mut self, ctx: &Context<Msg>, error_ms: i64) -> Result<(), NodeError> {
        let clock = &self.args.clock;
        let by = correction(clock.quality(), clock.offset_ms(), error_ms);
        if by != 0 {
            let offset_ms = clock.correct(by);
            tracing::info!(offset_ms, "clock follows the brain's");
            self.replica()?.set_clock_offset(offset_ms);
            self.after_commit(ctx, |_| {});
        }
        Ok(())
    }

    async fn range(
        &self,
        number: u32,
        after: u64,
        bytes_max: usize,
    ) -> Result<Vec<Entry>, NodeError> {
        let ask = |reply| spool::Msg::Range(number, after, bytes_max, reply);
        Ok(self.args.spool.ask(ask, SPOOL_PATIENCE).await??)
    }

    async fn prune(&mut self) -> Result<(), NodeError> {
        let Some((up_to, bytes)) = self.replica()?.to_prune() else { return Ok(()) };
        let ask = |reply| spool::Msg::Prune(up_to, bytes, reply);
        let freed = self.args.spool.ask(ask, SPOOL_PATIENCE).await??;
        self.replica()?.pruned(freed);
        Ok(())
    }

    fn show_queue(&mut self) -> Result<(), NotLoaded> {
        let replica = self.replica()?;
        let (depth, bytes) = (replica.queue_depth(), replica.queue_bytes());
        let leaves = replica.tree().leaves().len() as u64;
        self.args.board.update(|status| {
            status.queue_depth = depth;
            status.queue_bytes = bytes;
            status.leaves = leaves;
        });
        Ok(())
    }

    fn show(&mut self, desired_changed: bool) -> Result<(), NotLoaded> {
        self.show_queue()?;
        let replica = self.replica()?;
        let position = replica.position(replica.own_log());
        self.args.board.set_position(position);
        if desired_changed {
            self.args.board.bump_revision();
        }
        Ok(())
    }
}

/// Has `draft` written, and waits until that is durable.
pub async fn write(
    track: &Address<Msg>,
    draft: Draft,
) -> Result<Option<LogPosition>, WriteError> {
    track.ask(|reply| Msg::Write(draft, reply), PATIENCE).await?
}

/// A draft of what the agent itself has to report.
pub fn report<'a>(
    principal: &str,
    reason: &str,
    changes: impl IntoIterator<Item = (&'a str, Value)>,
) -> Draft {
    let changes: Vec<Change> = changes
        .into_iter()
        .filter_map(|(path, value)| Some((protocol::state::Path::new(path).ok()?, Some(value))))
        .collect();
    let source = protocol::state::StateSource::Edge;
    Draft { changes, provenance: Provenance::new(source, principal, reason), lease_until_ms: None }
}

/// By how much to move a clock of this quality that is `error_ms` behind the brain's.
///
/// A synchronised clock is believed, unless it was corrected before.
pub fn correction(quality: ClockQuality, offset_ms: i64, error_ms: i64) -> i64 {
    /// What a round trip over a slow network may make of two equal clocks.
    const NOISE_MS: u64 = 1_000;
    let believed = quality == ClockQuality::Synchronised && offset_ms == 0;
    if believed || error_ms.unsigned_abs() < NOISE_MS { 0 } else { error_ms }
}

fn changes_desired(commit: &Commit) -> bool {
    let about = |first| matches!(first, "desired" | "override");
    commit.begin.is_some() || commit.leaves.keys().any(|path| about(path.first_segment()))
}

fn random_epoch() -> Result<u64, getrandom::Error> {
    getrandom::u64()
}
