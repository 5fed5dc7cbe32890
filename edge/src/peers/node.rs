//! Who the peers are, and who is let in.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use actors::supervise::{Address, Context, DynamicSupervisor, Node, NodeError, StartChildError};
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use protocol::session::with_causes;
use protocol::{DeviceId, PublicKey};
use tokio::sync::{oneshot, watch};
use tokio::time::{sleep, timeout};

use super::link::{self, Surroundings};
use super::quic::{Meeting, Met, meet};
use super::{Book, PeerLink, PeerSettings, PeersBoard};
use crate::clock::Clock;
use crate::enrolment::Enrolment;
use crate::identity::Identity;
use crate::shares::Shares;
use crate::track;

/// How often a device without a fleet looks whether it has one.
const ENROLMENT_POLL: Duration = Duration::from_secs(1);
/// A socket that does not open is tried again after so long: the network may come later.
const OPEN_AGAIN: Duration = Duration::from_secs(30);
/// So many may prove their keys at a time; others wait in the socket.
const MEETING_MAX: usize = 16;
/// How long a link may take to be told.
const PATIENCE: Duration = Duration::from_secs(1);
/// How long the goodbyes may take.
const STOP_PATIENCE: Duration = Duration::from_secs(4);

/// What the node is built from.
#[derive(Debug, Clone)]
pub struct Args {
    /// This device.
    pub identity: Identity,
    /// Where its enrolment and the addresses of peers lie.
    pub data_dir: PathBuf,
    /// How it meets them.
    pub settings: PeerSettings,
    /// The time.
    pub clock: Clock,
    /// The keeper of the device's own tree.
    pub track: Address<track::Msg>,
    /// The trees that this device shares: their members are its peers.
    pub shares: Shares,
    /// Where to tell how it goes.
    pub board: PeersBoard,
    /// The compressions to offer, as bits.
    pub compressions: u8,
    /// The links.
    pub links: DynamicSupervisor<PeerLink>,
}

/// What the node is told.
pub enum Msg {
    /// Meet peers.
    Run,
}

/// The node.
pub struct Peers {
    args: Arc<Args>,
    stop: watch::Sender<bool>,
    done: Option<oneshot::Receiver<()>>,
}

impl Node for Peers {
    const KIND: &'static str = "peers";
    type Msg = Msg;
    type Args = Args;

    fn start(args: &Arc<Args>, ctx: &Context<Msg>) -> Result<Self, NodeError> {
        ctx.cast_self(Msg::Run);
        Ok(Self { args: args.clone(), stop: watch::Sender::new(false), done: None })
    }

    async fn handle(&mut self, ctx: &Context<Msg>, msg: Msg) -> Result<(), NodeError> {
        match msg {
            Msg::Run => {
                let (tell, done) = oneshot::channel();
                self.done = Some(done);
                let (args, stop) = (self.args.clone(), self.stop.subscribe());
                ctx.spawn("meet", async move {
                    run(args, stop).await?;
                    // Nobody waits for it unless the agent stops.
                    let _ = tell.send(());
                    Ok(())
                });
                Ok(())
            }
        }
    }

    async fn stopping(&mut self, _: &Context<Msg>) {
        self.stop.send_replace(true);
        if let Some(done) = self.done.take() {
            let _ = timeout(STOP_PATIENCE, done).await;
        }
    }

    fn label(msg: &Msg) -> &'static str {
        match msg {
            Msg::Run => "run",
        }
    }
}

async fn run(args: Arc<Args>, mut stop: watch::Receiver<bool>) -> Result<(), NodeError> {
    let Some(enrolment) = enrolment(&args, &mut stop).await? else { return Ok(()) };
    // Links of an earlier life hold another socket.
    for id in args.links.ids() {
        args.links.stop_child(id.as_str()).await;
    }
    let Some(meeting) = open(&args, &mut stop).await else { return Ok(()) };
    tracing::info!(addresses = ?meeting.addresses(), "devices of shared trees may call");
    args.board.listens_at(meeting.addresses());
    let around = Arc::new(Surroundings {
        identity: args.identity.clone(),
        enrolment,
        meeting: meeting.clone(),
        clock: args.clock.clone(),
        track: args.track.clone(),
        shares: args.shares.clone(),
        board: args.board.clone(),
        compressions: args.compressions,
    });
    let mut members = args.shares.watch_members();
    let mut book = args.board.watch_book();
    let mut arriving = FuturesUnordered::new();
    let mut peers = BTreeMap::new();
    members.mark_changed();
    loop {
        tokio::select! {
            _ = stop.changed() => break,
            Ok(()) = members.changed() => peers = update(&args, &around, &peers).await?,
            Ok(()) = book.changed() => peers = update(&args, &around, &peers).await?,
            incoming = meeting.next(), if arriving.len() < MEETING_MAX => match incoming {
                Some(incoming) => arriving.push(meet(incoming)),
                None => break,
            },
            Some(met) = arriving.next() => match met {
                Ok(met) => admit(&args, &around, &peers, met).await,
                Err(error) => tracing::debug!(%error, "somebody did not prove a key"),
            },
        }
    }
    args.board.listens_at(Vec::new());
    for id in args.links.ids() {
        args.links.stop_child(id.as_str()).await;
    }
    meeting.close().await;
    Ok(())
}

/// The socket, as soon as it opens; none if the agent stops first. Where others cannot be looked for,
/// as on a network without multicast, there are still the addresses that people gave.
async fn open(args: &Args, stop: &mut watch::Receiver<bool>) -> Option<Meeting> {
    let keypair = &args.identity.keypair;
    loop {
        let error = match Meeting::open(keypair, &args.settings).await {
            Ok(meeting) => return Some(meeting),
            Err(error) => error,
        };
        if args.settings.discovery {
            tracing::warn!(%error, "others are not looked for on the local network");
            let blind = PeerSettings { discovery: false, ..args.settings.clone() };
            if let Ok(meeting) = Meeting::open(keypair, &blind).await {
                return Some(meeting);
            }
        }
        tracing::error!(%error, "other devices are not met for now");
        tokio::select! {
            () = sleep(OPEN_AGAIN) => {}
            _ = stop.changed() => return None,
        }
    }
}

/// The enrolment, as soon as there is one; none if the agent stops first.
async fn enrolment(
    args: &Args,
    stop: &mut watch::Receiver<bool>,
) -> Result<Option<Enrolment>, NodeError> {
    loop {
        let dir = args.data_dir.clone();
        if let Some(enrolment) =
            tokio::task::spawn_blocking(move || Enrolment::load(&dir)).await??
        {
            return Ok(Some(enrolment));
        }
        tokio::select! {
            () = sleep(ENROLMENT_POLL) => {}
            _ = stop.changed() => return Ok(None),
        }
    }
}

type Known = BTreeMap<PublicKey, (DeviceId, Vec<String>)>;

/// Takes over who the peers are now: those that are new get a link, those that are gone lose it.
async fn update(
    args: &Args,
    around: &Arc<Surroundings>,
    before: &Known,
) -> Result<Known, NodeError> {
    let dir = args.data_dir.clone();
    // A file that a person has spoilt keeps no device from its work.
    let book =
        tokio::task::spawn_blocking(move || Book::load(&dir)).await?.unwrap_or_else(|error| {
            tracing::error!(error = with_causes(&error), "addresses of peers are not used");
            Book::default()
        });
    let now = args.shares.peers_of(&args.identity.keypair.public());
    args.board.set(&now, &book, args.clock.wall_ms());
    let gone: BTreeSet<_> = before.keys().filter(|key| !now.contains_key(key)).collect();
    for key in gone {
        tracing::info!(peer = %key, "a device shares nothing with this one any more");
        args.links.stop_child(&key.to_string()).await;
    }
    for key in now.keys() {
        if let Err(error) = link_to(args, around, *key) {
            tracing::warn!(peer = %key, error = with_causes(&error), "a peer is not met");
        }
    }
    Ok(now)
}

fn link_to(
    args: &Args,
    around: &Arc<Surroundings>,
    key: PublicKey,
) -> Result<Address<link::Msg>, StartChildError> {
    let new = || Arc::new(link::Args { key, around: around.clone() });
    args.links.ensure_child(key.to_string(), new)
}

/// Lets a peer in; whoever is none hears nothing.
async fn admit(args: &Args, around: &Arc<Surroundings>, peers: &Known, met: Met) {
    if !peers.contains_key(&met.key) {
        tracing::warn!(key = %met.key, "a stranger called");
        return met.turn_away();
    }
    // There is no room for it, which was said before.
    let Ok(link) = link_to(args, around, met.key) else { return met.turn_away() };
    // Whoever does not take it is restarting: the peer calls again.
    let _ = link.cast(link::Msg::Came(Box::new(met)), PATIENCE).await;
}
