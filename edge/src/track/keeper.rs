//! The keeper's node: takes messages, commits, and answers.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use actors::supervise::{Context, Node, NodeError};
use protocol::history::{MEMBERS_PREFIX, Tree};
use protocol::state::{Path, Value};

use super::traces::Traces;
use super::{
    Args, Effective, Msg, PROVISIONAL_FLEET, Replica, Shown, View, WriteError, correction, genesis,
    report,
};
use crate::metrics;
use crate::overrides;
use crate::spool::{self, Commit, SpoolError};

/// A disk that does not answer for this long is not going to.
pub(super) const SPOOL_PATIENCE: Duration = Duration::from_secs(60);

/// Who hears of the commit.
type Waiting = Box<dyn FnOnce(Result<(), WriteError>) + Send>;

/// The keeper.
pub struct Track {
    pub(super) args: Arc<Args>,
    pub(super) replica: Option<Replica>,
    waiting: Vec<Waiting>,
    pub(super) traces: Traces,
    flush_due: bool,
}

/// A message came before the spool was read, which the order of messages excludes.
#[derive(Debug, thiserror::Error)]
#[error("tree is not loaded")]
pub(super) struct NotLoaded;

impl Node for Track {
    const KIND: &'static str = "track";
    const CAPACITY: usize = 1_024;
    type Msg = Msg;
    type Args = Args;

    fn start(args: &Arc<Args>, ctx: &Context<Msg>) -> Result<Self, NodeError> {
        ctx.cast_self(Msg::Load);
        Ok(Self {
            args: args.clone(),
            replica: None,
            waiting: Vec::new(),
            traces: Traces::default(),
            flush_due: false,
        })
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
            Msg::Write(draft, trace, reply) => match self.replica()?.write(draft, now) {
                Ok(None) => reply.send(Ok(None)),
                Ok(Some(position)) => {
                    if let Some(trace) = trace {
                        self.traces.written(position.log, position.seq, trace);
                    }
                    self.args.board.update(|status| status.entries_written += 1);
                    self.after_commit(ctx, move |committed| {
                        reply.send(committed.map(|()| Some(position)));
                    });
                }
                Err(error) => {
                    if let WriteError::QueueFull { .. } = error {
                        self.args.board.update(|status| status.queue_full += 1);
                    }
                    self.show_queue()?;
                    reply.send(Err(error));
                }
            },
            Msg::Ingest(log, entries, via, reply) => {
                match self.replica()?.ingest(log, entries, via, now) {
                    Ok(ingested) => self.after_commit(ctx, move |committed| {
                        reply.send(committed.map(|()| ingested));
                    }),
                    Err(WriteError::Spool(error)) => return Err(Box::new(error)),
                    Err(error) => reply.send(Err(error)),
                }
            }
            Msg::TakeSignedHead(signed, reply) => {
                let position = self.replica()?.take_signed_head(signed);
                reply.send(position);
                self.announce()?;
            }
            Msg::TakeCut(cut, reply) => {
                let taken = self.take_cut(ctx, cut).await?;
                reply.send(taken);
            }
            Msg::TakeCheckpoint(checkpoint, reply) => {
                let merged = Box::pin(self.take_checkpoint(&checkpoint)).await?;
                reply.send(merged);
            }
            Msg::Compare(logs, root, reply) => {
                let compared = self.compare(&logs, root).await?;
                reply.send(compared);
            }
            Msg::Acked(log, stored, sealed) => {
                self.replica()?.acknowledged(log, stored, sealed);
                self.traces.acknowledged(log, stored);
                self.show_queue()?;
            }
            Msg::IsWhole(reply) => {
                let whole = self.whole()?;
                reply.send(whole);
            }
            Msg::PeerHeads(positions, reply) => {
                let outcomes = self.peer_heads(&positions).await?;
                reply.send(outcomes);
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
                self.announce()?;
            }
            Msg::View(reply) => {
                self.flush().await?;
                let is_shared = self.args.shared.is_some();
                let replica = self.replica()?;
                reply.send(View {
                    tree: replica.tree().id(),
                    provisional: replica.is_provisional(),
                    // Nobody asks for that of the device's own.
                    root: if is_shared { replica.tree().root() } else { [0; 32] },
                    positions: replica.positions(),
                    cuts: replica.own_cuts(),
                    seals: replica.own_seals(),
                    brains: replica.brains().iter().copied().collect(),
                });
            }
            Msg::Fetch(log, after, bytes_max, reply) => {
                let fetched = self.fetch(log, after, bytes_max).await?;
                reply.send(fetched);
            }
            Msg::News(revision, reply) => {
                self.flush().await?;
                reply.send(self.replica()?.news(revision));
            }
            Msg::Effective(reply) => {
                self.flush().await?;
                let tree = self.replica()?.tree();
                let ends = tree.leaves().values().flat_map(|leaf| &leaf.candidates);
                let ends = ends.filter_map(|candidate| candidate.lease_until_ms);
                let next_end_ms = ends.filter(|end| *end > now.wall_ms).min();
                let desired = tree.effective(now.wall_ms);
                let held = held_below_desired(tree, now.wall_ms);
                reply.send(Effective { desired, held, state: tree.state(), next_end_ms });
            }
            Msg::Overrides(reply) => {
                self.flush().await?;
                reply.send(overrides::list(self.replica()?.tree(), now.wall_ms));
            }
            Msg::State(reply) => {
                self.flush().await?;
                let replica = self.replica()?;
                let (tree, may_write) = (replica.tree(), replica.may_write());
                reply.send(Shown { state: tree.state(), root: tree.root(), may_write });
            }
        }
        Ok(())
    }

    async fn stopping(&mut self, _: &Context<Msg>) {
        let floor_ms = self.args.clock.wall_ms();
        if let Some(replica) = &mut self.replica {
            fail::fail_point!("track.before_clean_mark");
            replica.set_clean(true, floor_ms);
            if let Err(error) = self.flush().await {
                tracing::error!(%error, "last commit failed");
            }
            fail::fail_point!("track.clean_mark_made");
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
            Msg::TakeCheckpoint(..) => "take_checkpoint",
            Msg::Compare(..) => "compare",
            Msg::Acked(..) => "acked",
            Msg::IsWhole(..) => "is_whole",
            Msg::PeerHeads(..) => "peer_heads",
            Msg::Refused(..) => "refused",
            Msg::OwnLogBehind(..) => "own_log_behind",
            Msg::MetBrain(..) => "met_brain",
            Msg::Enrolled(..) => "enrolled",
            Msg::ClockError(..) => "clock_error",
            Msg::Seal(..) => "seal",
            Msg::View(..) => "view",
            Msg::Fetch(..) => "fetch",
            Msg::News(..) => "news",
            Msg::Effective(..) => "effective",
            Msg::Overrides(..) => "overrides",
            Msg::State(..) => "state",
        }
    }
}

impl Track {
    pub(super) fn replica(&mut self) -> Result<&mut Replica, NotLoaded> {
        self.replica.as_mut().ok_or(NotLoaded)
    }

    /// Calls back after the commit of what is staged now, or at once where that is nothing.
    pub(super) fn after_commit(
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
    pub(super) async fn flush(&mut self) -> Result<(), NodeError> {
        let replica = self.replica()?;
        if !replica.must_commit() {
            return Ok(());
        }
        let commit = Box::new(replica.take_staged());
        let desired_changed = changes_desired(&commit);
        let members_changed = commit.begin.is_some()
            || commit.leaves.keys().any(|path| path.first_segment() == MEMBERS_PREFIX);
        let began = Instant::now();
        let asked = self.args.spool.ask(|reply| spool::Msg::Commit(commit, reply), SPOOL_PATIENCE);
        // Without an answer nobody knows what became of the commit: a new life reads the spool.
        let answer = asked.await;
        self.args.board.metrics().spool_committed(began.elapsed(), matches!(answer, Ok(Ok(()))));
        let error = match answer? {
            Ok(()) => {
                // Whoever has an answer finds it in the status as well.
                self.show(desired_changed)?;
                if members_changed {
                    self.show_members()?;
                }
                for call in self.waiting.drain(..) {
                    call(Ok(()));
                }
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
        if let (Some(fleet), None) = (self.args.fleet, &self.args.shared) {
            self.join(fleet, self.args.issuer).await??;
        }
        // Of a shared tree, the others have the rest.
        if let (Some(damage), None) = (self.args.store.take_damage(), &self.args.shared) {
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
        fail::fail_point!("track.before_first_commit");
        self.flush().await?;
        fail::fail_point!("track.started");
        Ok(())
    }

    pub(super) fn is_provisional(&self) -> bool {
        self.replica.as_ref().is_some_and(Replica::is_provisional)
    }

    /// Makes the replica what the spool says, or begins one.
    pub(super) async fn load(&mut self) -> Result<(), NodeError> {
        let Args { identity, limits, spool, shared, .. } = &*self.args;
        let key = identity.keypair.public();
        let answer = spool.ask(|reply| spool::Msg::Load(key, reply), SPOOL_PATIENCE).await??;
        let known = match self.replica.take() {
            Some(replica) => replica.account().clone(),
            None => self.args.board.metrics().account(),
        };
        let mut replica = match answer {
            Some((loaded, measured)) => {
                if !loaded.author.clean {
                    tracing::info!("agent was not stopped in good order; spool is intact");
                }
                match shared.clone().filter(|shared| *shared != loaded.genesis) {
                    // Of another fleet, which the device has left.
                    Some(shared) => {
                        Replica::begin(identity.clone(), shared, random_epoch()?, *limits)
                    }
                    None => Replica::load(identity.clone(), loaded, measured, *limits),
                }
            }
            None => {
                let fleet = self.args.fleet.unwrap_or(PROVISIONAL_FLEET);
                let own = || genesis(fleet, identity.device);
                let genesis = self.args.shared.clone().unwrap_or_else(own);
                Replica::begin(identity.clone(), genesis, random_epoch()?, *limits)
            }
        };
        replica.go_on_with(known);
        replica.count_changes_after(self.args.board.log_revision());
        self.replica = Some(replica);
        self.show(true)?;
        self.show_members()?;
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

    async fn prune(&mut self) -> Result<(), NodeError> {
        let Some((up_to, bytes)) = self.replica()?.to_prune() else { return Ok(()) };
        let ask = |reply| spool::Msg::Prune(up_to, bytes, reply);
        let freed = self.args.spool.ask(ask, SPOOL_PATIENCE).await??;
        self.replica()?.pruned(freed);
        Ok(())
    }

    pub(super) fn show_queue(&mut self) -> Result<(), NotLoaded> {
        let replica = self.replica()?;
        let (depth, bytes) = (replica.queue_depth(), replica.queue_bytes());
        let leaves = replica.tree().leaves().len() as u64;
        self.args.board.update(|status| {
            status.queue_depth = depth;
            status.queue_bytes = bytes;
            status.leaves = leaves;
        });
        let replica = self.replica()?;
        let queue = metrics::Queue {
            account: replica.account().clone(),
            bytes,
            oldest_s: replica.queue_oldest_s(),
            is_full: replica.queue_is_full(),
        };
        self.args.board.metrics().queue_is(queue);
        Ok(())
    }

    fn show_members(&mut self) -> Result<(), NotLoaded> {
        let members = self.replica()?.tree().members();
        let current = members.filter(|(_, member)| member.is_current);
        let members = current.map(|(key, member)| (*key, member.device)).collect();
        self.args.board.set_members(members);
        Ok(())
    }

    /// Tells links that logs of the tree may have changed.
    fn announce(&mut self) -> Result<(), NotLoaded> {
        let revision = self.replica()?.revision();
        self.args.board.set_log_revision(revision);
        Ok(())
    }

    fn show(&mut self, desired_changed: bool) -> Result<(), NotLoaded> {
        self.show_queue()?;
        let replica = self.replica()?;
        let position = replica.position(replica.own_log());
        self.args.board.set_position(position);
        self.announce()?;
        if desired_changed {
            self.args.board.bump_revision();
        }
        Ok(())
    }
}

/// What a constraint does not allow of what is to be applied, by path below `desired/`.
fn held_below_desired(tree: &Tree, now_ms: u64) -> BTreeMap<String, String> {
    let held = tree.held(now_ms).into_iter();
    let below = |path: &Path| path.below("desired").or(path.below("override")).map(str::to_owned);
    held.filter_map(|(path, name)| Some((below(&path)?, name))).collect()
}

fn changes_desired(commit: &Commit) -> bool {
    let about = |first| matches!(first, "desired" | "override" | "policy");
    commit.begin.is_some() || commit.leaves.keys().any(|path| about(path.first_segment()))
}

pub(super) fn random_epoch() -> Result<u64, getrandom::Error> {
    getrandom::u64()
}
