//! The guard around every handler.
//!
//! A guard is the ractor actor that a [`Node`] lives in. It catches panics with
//! their location, notes which message is in flight and since when, counts and
//! times the handlers, and gives each message a root span: with ractor's own
//! span propagation, log lines would name the sender.

mod panics;

use std::{marker::PhantomData, pin::pin, sync::Arc};

use protocol::trace::TraceContext;
use ractor::{Actor, ActorProcessingErr, ActorRef};
use tokio::time::Instant;
use tracing::{Instrument, Span};

pub(super) use panics::{catch, caught, install_hook};

use super::{
    address::{Address, Envelope, Fate, Wake},
    context::{Context, Life},
    core::Incarnation,
    crash::{Crash, Digest, Fault, TraceId},
    node::{Condemned, Node, NodeError},
    shell::Env,
    tell::tell,
    tree::{Labels, NodeCell},
};
use crate::trace;

/// How many messages are handled before ractor is let in.
///
/// Stopping does not wait for it: that is looked at before every message. It
/// only spreads what ractor costs, and beyond some tens there is nothing left
/// to gain.
const BATCH: usize = 32;

/// The ractor actor around a node.
pub(super) struct Guard<N>(PhantomData<fn() -> N>);

impl<N> Guard<N> {
    pub(super) fn new() -> Self {
        Self(PhantomData)
    }
}

/// What one life of a node is made from.
pub(super) struct Birth<N: Node> {
    pub(super) args: Arc<N::Args>,
    pub(super) address: Address<N::Msg>,
    pub(super) incarnation: Incarnation,
    pub(super) cell: Arc<NodeCell>,
    pub(super) life: Arc<Life>,
    pub(super) env: Arc<Env>,
}

/// One life of a node.
pub(super) struct Guarded<N: Node> {
    /// None once it has said goodbye.
    node: Option<N>,
    ctx: Context<N::Msg>,
    cell: Arc<NodeCell>,
    labels: Labels,
    in_flight: InFlight,
    born: Instant,
    env: Arc<Env>,
}

/// What is noted of a message before a handler takes it.
#[derive(Clone, Copy, Default)]
struct InFlight {
    digest: Option<Digest>,
    trace_id: Option<TraceId>,
}

impl<N: Node> Actor for Guard<N> {
    type Msg = Wake;
    type State = Guarded<N>;
    type Arguments = Birth<N>;

    async fn pre_start(
        &self,
        myself: ActorRef<Wake>,
        birth: Birth<N>,
    ) -> Result<Guarded<N>, ActorProcessingErr> {
        let life = birth.incarnation;
        let address = birth.address.clone();
        address.mailbox().attach(life, myself.clone());
        let guarded = Guarded::begin(birth, myself).map_err(|crash| {
            address.mailbox().detach(life);
            told(crash)
        })?;
        address.mailbox().ready(life);
        Ok(guarded)
    }

    async fn handle(
        &self,
        myself: ActorRef<Wake>,
        _: Wake,
        guarded: &mut Guarded<N>,
    ) -> Result<(), ActorProcessingErr> {
        for _ in 0..BATCH {
            match guarded.step().await {
                Ok(true) => {}
                Ok(false) => return Ok(()),
                Err(crash) => {
                    if let Some(node) = guarded.node.take() {
                        // It has crashed already.
                        let _ = guarded.give_up(node);
                    }
                    return Err(told(crash));
                }
            }
        }
        // It counts as awake all the while, so the token is its own to renew.
        let _ = tell(&myself, Wake);
        Ok(())
    }

    async fn post_stop(
        &self,
        _: ActorRef<Wake>,
        guarded: &mut Guarded<N>,
    ) -> Result<(), ActorProcessingErr> {
        guarded.say_goodbye().await.map_err(told)
    }
}

impl<N: Node> Guarded<N> {
    fn begin(birth: Birth<N>, actor: ActorRef<Wake>) -> Result<Self, Box<Crash>> {
        let Birth { args, address, incarnation, cell, life, env } = birth;
        let ctx =
            Context::new(address, Arc::clone(&cell), Arc::clone(&env), incarnation, actor, life);
        let born = Instant::now();
        let started = span::<N>("start", &cell).in_scope(|| {
            catch(|| {
                #[cfg(feature = "chaos")]
                if cell.starts_badly() {
                    return Err("chaos: a bad start to order".into());
                }
                N::start(&args, &ctx)
            })
        });
        let mut guarded = Self {
            node: None,
            ctx,
            cell,
            labels: Labels::default(),
            in_flight: InFlight::default(),
            born,
            env,
        };
        guarded.node = Some(guarded.check("start", started)?);
        Ok(guarded)
    }

    /// Handles one message; false if there is none to handle now.
    async fn step(&mut self) -> Result<bool, Box<Crash>> {
        if self.ctx.life().is_interrupted() {
            return match self.ctx.life().take_fault() {
                Some((task, fault)) => Err(self.crash(task, fault)),
                None => Ok(false),
            };
        }
        #[cfg(feature = "chaos")]
        self.strike().await?;
        let Some(node) = &mut self.node else {
            return Ok(false);
        };
        let mailbox = self.ctx.address().mailbox();
        let Some(envelope) = mailbox.take(self.ctx.incarnation()) else {
            return Ok(false);
        };
        let Envelope { message, deadline, own, .. } = envelope;
        let now = Instant::now();
        if deadline.is_some_and(|deadline| deadline <= now) {
            mailbox.settle(own, Fate::Expired);
            return Ok(true);
        }
        let label = N::label(&message);
        let idle = own || !N::is_use(&message);
        let senders = N::senders(&message);
        let trace_id = senders.first().map(|sender| TraceId(sender.trace_id));
        let digest = N::digest(&message);
        self.in_flight = InFlight { digest, trace_id };
        self.ctx.life().in_flight(digest);
        let condemned = digest.is_some_and(|digest| self.cell.is_condemned(digest));
        let _traced = traced::<N>(label, &senders, &self.cell);
        let since = now.saturating_duration_since(self.env.tree.epoch());
        let mut flight = Flight { address: self.ctx.address(), own, fate: Fate::Lost };
        let activity = self.cell.activity();
        activity.begin(self.labels.index(label, &self.cell), since, idle);
        let span = span::<N>(label, &self.cell);
        let handled = match digest.filter(|_| condemned) {
            None => caught(pin!(node.handle(&self.ctx, message).instrument(span))).await,
            Some(digest) => {
                let crash = self.cell.last_crash().filter(|crash| crash.digest == Some(digest));
                let condemned = Condemned { digest, crash };
                // Rare, and every actor would keep room for it.
                let refused = node.condemned(&self.ctx, message, condemned).instrument(span);
                caught(Box::pin(refused).as_mut()).await
            }
        };
        let took = now.elapsed();
        activity.end(took);
        self.env.timings.handled(N::KIND, label, took);
        if let Ok(Ok(())) = handled {
            flight.fate = Fate::Handled;
        }
        drop(flight);
        self.check(label, handled)?;
        self.in_flight = InFlight::default();
        Ok(true)
    }

    /// Does the fault that was ordered, if any.
    #[cfg(feature = "chaos")]
    async fn strike(&mut self) -> Result<(), Box<Crash>> {
        let Some(chaos) = self.cell.ordered() else { return Ok(()) };
        let activity = self.cell.activity();
        activity.begin(self.labels.index("chaos", &self.cell), self.env.tree.now(), false);
        let struck = caught(pin!(chaos.strike())).await;
        activity.end(std::time::Duration::ZERO);
        self.check("chaos", struck)
    }

    async fn say_goodbye(&mut self) -> Result<(), Box<Crash>> {
        let Some(mut node) = self.node.take() else {
            return Ok(());
        };
        let said = if self.ctx.life().is_resting() {
            Ok(())
        } else {
            let goodbye = node.stopping(&self.ctx).instrument(span::<N>("stopping", &self.cell));
            caught(Box::pin(goodbye).as_mut()).await
        };
        let given_up = self.give_up(node);
        self.check("stopping", said.and(given_up).map(Ok))
    }

    /// Gives up the node and all it has begun. This has to be done before
    /// ractor says that it is gone: the next life may need what this one holds.
    fn give_up(&self, node: N) -> Result<(), Fault> {
        self.ctx.close();
        catch(|| drop(node))
    }

    fn check<T>(
        &self,
        label: &'static str,
        result: Result<Result<T, NodeError>, Fault>,
    ) -> Result<T, Box<Crash>> {
        match result {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(error)) => Err(self.crash(label, Fault::of(&*error))),
            Err(fault) => Err(self.crash(label, fault)),
        }
    }

    fn crash(&self, label: &'static str, fault: Fault) -> Box<Crash> {
        Box::new(Crash {
            path: self.ctx.path().clone(),
            kind: N::KIND,
            incarnation: self.ctx.incarnation(),
            label: Some(label),
            digest: self.in_flight.digest,
            trace_id: self.in_flight.trace_id,
            fault,
            uptime: self.born.elapsed(),
        })
    }
}

/// A message in flight: its credit comes back, and its loss is counted, also
/// when the node is killed and the handler is dropped half way.
struct Flight<'a, M: Send + 'static> {
    address: &'a Address<M>,
    own: bool,
    fate: Fate,
}

impl<M: Send + 'static> Drop for Flight<'_, M> {
    fn drop(&mut self) {
        self.address.mailbox().settle(self.own, self.fate);
    }
}

/// The crash as the error that the supervisor gets. `?` would box the box, and
/// the supervisor would not find what it looks for.
fn told(crash: Box<Crash>) -> ActorProcessingErr {
    crash
}

/// The exported span of a sampled message's handler: a root of its own, so that no chain of
/// messages grows without end.
fn traced<N: Node>(label: &'static str, senders: &[TraceContext], cell: &NodeCell) -> Option<Span> {
    if senders.is_empty() {
        return None;
    }
    let span = tracing::info_span!(
        target: "fleet::trace",
        parent: None,
        "actor.message",
        otel.kind = "consumer",
        actor.kind = N::KIND,
        actor.path = %cell.path(),
        message = label,
    );
    senders.iter().for_each(|sender| trace::link(&span, *sender));
    Some(span)
}

fn span<N: Node>(label: &'static str, cell: &NodeCell) -> tracing::Span {
    // Formatting it for the log costs more than a cast: only for whoever looks closely.
    tracing::debug_span!(
        target: "actors::message",
        parent: None,
        "message",
        kind = N::KIND,
        label,
        path = %cell.path(),
    )
}
