//! The link to one peer: calls it or waits for its call, and talks for as long as that lasts.

use std::sync::Arc;
use std::time::Duration;

use actors::supervise::{Address, Context, Node, NodeError};
use protocol::PublicKey;
use protocol::session::handshake::{Answerer, Answering, Caller, Intent};
use protocol::session::{Limits, Session, with_causes};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};

use super::quic::{Meeting, Met};
use super::{CalledBy, Contact, PeersBoard};
use crate::clock::Clock;
use crate::enrolment::Enrolment;
use crate::identity::Identity;
use crate::shares::Shares;
use crate::talk::{Around, End, Frames, Outlook, Partner, Peer, converse};
use crate::track;

/// So long the one that is to be called waits before it calls all the same.
const GIVE_WAY: Duration = Duration::from_secs(20);
/// Two calls within this time have crossed each other.
const GLARE: Duration = Duration::from_secs(5);
/// The longest pause between two calls that fail.
const PAUSE_MAX: Duration = Duration::from_secs(64);
/// So many connections may wait to be talked over.
const WAITING_MAX: usize = 2;

/// What a link is built from.
#[derive(Debug, Clone)]
pub struct Args {
    pub(super) key: PublicKey,
    pub(super) around: Arc<Surroundings>,
}

/// What all links share.
#[derive(Debug)]
pub(super) struct Surroundings {
    pub(super) identity: Identity,
    pub(super) enrolment: Enrolment,
    pub(super) meeting: Meeting,
    pub(super) clock: Clock,
    pub(super) track: Address<track::Msg>,
    pub(super) shares: Shares,
    pub(super) board: PeersBoard,
    pub(super) compressions: u8,
}

/// What a link is told.
pub enum Msg {
    /// Keep a session up.
    Run,
    /// The peer has called.
    #[expect(private_interfaces, reason = "only this module makes them")]
    Came(Box<Met>),
}

/// A link's node.
pub struct PeerLink {
    args: Arc<Args>,
    stop: watch::Sender<bool>,
    came: Option<mpsc::Sender<Box<Met>>>,
}

impl Node for PeerLink {
    const KIND: &'static str = "peer_link";
    type Msg = Msg;
    type Args = Args;

    fn start(args: &Arc<Args>, ctx: &Context<Msg>) -> Result<Self, NodeError> {
        ctx.cast_self(Msg::Run);
        Ok(Self { args: args.clone(), stop: watch::Sender::new(false), came: None })
    }

    async fn handle(&mut self, ctx: &Context<Msg>, msg: Msg) -> Result<(), NodeError> {
        match msg {
            Msg::Run => {
                let (tell, came) = mpsc::channel(WAITING_MAX);
                self.came = Some(tell);
                let keeping = Keeping {
                    contact: self.args.around.board.contact(self.args.key),
                    args: self.args.clone(),
                    stop: self.stop.subscribe(),
                    came,
                };
                ctx.spawn("link", keeping.run());
            }
            Msg::Came(met) => {
                // A peer that calls again and again is not waited for.
                if let Some(Err(full)) = self.came.as_ref().map(|came| came.try_send(met)) {
                    full.into_inner().turn_away();
                }
            }
        }
        Ok(())
    }

    async fn stopping(&mut self, _: &Context<Msg>) {
        self.stop.send_replace(true);
    }

    fn label(msg: &Msg) -> &'static str {
        match msg {
            Msg::Run => "run",
            Msg::Came(_) => "came",
        }
    }
}

/// The task that keeps a session up.
struct Keeping {
    args: Arc<Args>,
    contact: Contact,
    stop: watch::Receiver<bool>,
    came: mpsc::Receiver<Box<Met>>,
}

/// What happens while nobody talks.
enum Next {
    Stop,
    Came(Box<Met>),
    Call,
}

/// How a conversation went.
enum Talked {
    /// The connection ended.
    Ended {
        /// Whether the two understood each other.
        welcomed: bool,
    },
    /// The peer opened another one.
    Replaced(Box<Met>),
}

impl Keeping {
    async fn run(mut self) -> Result<(), NodeError> {
        let mut wanted = self.args.around.board.watch_wanted();
        let mut failed = 0;
        let mut call_due = Instant::now() + self.patience(failed)?;
        loop {
            let next = tokio::select! {
                biased;
                _ = self.stop.changed() => Next::Stop,
                Some(met) = self.came.recv() => Next::Came(met),
                Ok(()) = wanted.changed() => Next::Call,
                () = sleep_until(call_due) => Next::Call,
            };
            let (called_by, met) = match next {
                Next::Stop => return Ok(()),
                Next::Came(met) => (CalledBy::Them, Ok(*met)),
                Next::Call => {
                    let around = &self.args.around;
                    let given = self.contact.given();
                    (CalledBy::Us, around.meeting.call(self.args.key, &given).await)
                }
            };
            let welcomed = match met {
                Ok(met) => self.talk_on(met, called_by).await?,
                Err(error) => {
                    self.failed(&with_causes(&error));
                    false
                }
            };
            failed = if welcomed { 0 } else { failed + 1 };
            call_due = Instant::now() + self.patience(failed)?;
        }
    }

    /// Whether it is this side that calls, of the two.
    fn is_to_call(&self) -> bool {
        self.args.around.identity.keypair.public() < self.args.key
    }

    /// How long to wait for the peer, or before the next call, after so many that failed.
    fn patience(&self, failed: u32) -> Result<Duration, NodeError> {
        let least = if self.is_to_call() { Duration::ZERO } else { GIVE_WAY };
        let pause = Duration::from_secs(1 << failed.min(6)).min(PAUSE_MAX);
        let jitter = f64::from(getrandom::u32()?) / f64::from(u32::MAX);
        Ok(least + pause.mul_f64(0.5 + jitter / 2.0))
    }

    /// Talks over a connection and those that take its place. Returns whether the two understood
    /// each other over the last.
    async fn talk_on(&mut self, met: Met, called_by: CalledBy) -> Result<bool, NodeError> {
        let mut talked = self.talk(met, called_by).await?;
        loop {
            match talked {
                Talked::Ended { welcomed } => return Ok(welcomed),
                Talked::Replaced(met) => talked = self.talk(*met, CalledBy::Them).await?,
            }
        }
    }

    /// Talks until the connection ends, or the peer opens another one.
    async fn talk(&mut self, met: Met, called_by: CalledBy) -> Result<Talked, NodeError> {
        let opened = match met.open().await {
            Ok(opened) => opened,
            Err(error) => {
                self.failed(&with_causes(&error));
                return Ok(Talked::Ended { welcomed: false });
            }
        };
        self.contact.update(|status| {
            status.called_by = Some(called_by);
            status.address = opened.address.clone().or(status.address.take());
            status.round_trip_ms = opened.round_trip.map(|time| time.as_secs_f64() * 1_000.0);
        });
        let session = self.session(called_by, opened.exporter).await?;
        let (args, contact, stop) = (self.args.clone(), self.contact.clone(), self.stop.clone());
        let talk = converse_over(&args, &contact, opened.frames, session, called_by, &stop);
        let mut talk = std::pin::pin!(talk);
        let began = Instant::now();
        let outlook = loop {
            tokio::select! {
                outlook = &mut talk => break outlook,
                Some(met) = self.came.recv() => {
                    // Both have called at once: the call of the one that is to call stands.
                    let is_ours = called_by == CalledBy::Us && self.is_to_call();
                    if is_ours && began.elapsed() < GLARE {
                        met.turn_away();
                        continue;
                    }
                    // The former connection may be dead without this side having noticed.
                    self.contact.disconnected(self.args.around.clock.wall_ms());
                    return Ok(Talked::Replaced(met));
                }
            }
        };
        opened.connection.close(0u32.into(), b"");
        let text = match outlook.end {
            End::TrackGone(error) => return Err(error.into()),
            End::Closed(ended) => ended.error.to_string(),
            End::Broken(Some(error)) => with_causes(&error),
            End::Broken(None) => "peer ended the connection".to_owned(),
            End::Stopped | End::ServerChanged => String::new(),
        };
        if outlook.lasted.is_some() {
            tracing::info!(peer = %self.args.key, reason = text, "peer is gone");
            self.contact.update(|status| status.last_error = Some(text));
        } else {
            self.failed(&text);
        }
        Ok(Talked::Ended { welcomed: outlook.lasted.is_some() })
    }

    async fn session(
        &self,
        called_by: CalledBy,
        exporter: [u8; protocol::session::handshake::EXPORTER_BYTES],
    ) -> Result<Session, NodeError> {
        let Surroundings { identity, enrolment, track, compressions, .. } = &*self.args.around;
        let view = track.ask(track::Msg::View, track::PATIENCE).await?;
        let brains: Arc<[PublicKey]> = view.brains.into();
        let mut challenge = [0; 32];
        getrandom::fill(&mut challenge)?;
        let (fleet, root) = (enrolment.fleet, enrolment.root);
        let (keypair, certificate) = (identity.keypair.clone(), enrolment.certificate.clone());
        let compressions = *compressions;
        Ok(match called_by {
            CalledBy::Us => Session::caller(Caller {
                fleet,
                root,
                device: identity.device,
                keypair,
                intent: Intent::Peer { certificate, key: self.args.key, brains },
                compressions,
                challenge,
                exporter,
            }),
            CalledBy::Them => Session::answerer(Answerer {
                fleet,
                root,
                who: Answering::Device(identity.device),
                brains,
                keypair,
                certificate,
                compressions,
                challenge,
                exporter,
                limits: Limits::default(),
            }),
        })
    }

    fn failed(&self, why: &str) {
        tracing::debug!(peer = %self.args.key, why, "peer is not reached");
        self.contact.update(|status| {
            status.failed_calls = status.failed_calls.saturating_add(1);
            status.last_error = Some(why.to_owned());
        });
    }
}

async fn converse_over(
    args: &Args,
    contact: &Contact,
    frames: Frames,
    session: Session,
    called_by: CalledBy,
    stop: &watch::Receiver<bool>,
) -> Outlook {
    let Surroundings { identity, enrolment, clock, track, shares, .. } = &*args.around;
    let is_called = called_by == CalledBy::Us;
    let partner = Partner::Peer(Peer::new(args.key, is_called, contact.clone()));
    let around = Around {
        own_track: track,
        shares,
        fleet: enrolment.fleet,
        clock,
        own_key: identity.keypair.public(),
        stop: stop.clone(),
    };
    converse(frames, session, partner, around).await
}
