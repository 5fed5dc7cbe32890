//! One conversation: the protocol's session between a transport and the keepers of trees.
//!
//! With a brain it is about the device's own tree and about those that it shares; with another
//! device, about what both share.

#[cfg(test)]
mod conformance;
mod frames;
mod partner;
mod shared;
mod steps;
mod topic;

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use actors::supervise::{Address, AskError};
use bytes::Bytes;
use protocol::session::{Ended, Input, Session, error};
use protocol::trace::EntryTrace;
use protocol::{ErrorCode, FleetId, PublicKey, TreeId};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};

use crate::clock::Clock;
use crate::shares::Shares;
use crate::track;
use topic::Topic;

pub(crate) use frames::{Broken, Frames};
use partner::PartnerNews;
#[cfg(feature = "peers")]
pub(crate) use partner::Peer;
pub(crate) use partner::{Brain, Partner};

/// From the first frame to the welcome.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(15);
/// The transport is not read while so many frames wait to be written.
const OUTBOX_FRAMES_MAX: usize = 64;
/// How long the last frames may take.
const GOODBYE: Duration = Duration::from_secs(2);
/// How often trees that are left are shared again between devices.
const SWEEP: Duration = Duration::from_secs(60);

/// What a conversation needs beside the connection.
pub(crate) struct Around<'a> {
    /// The keeper of the device's own tree, which says what the device is in.
    pub(crate) own_track: &'a Address<track::Msg>,
    pub(crate) shares: &'a Shares,
    /// The fleet that the device belongs to.
    pub(crate) fleet: FleetId,
    pub(crate) clock: &'a Clock,
    pub(crate) own_key: PublicKey,
    /// Turns true when the agent stops.
    pub(crate) stop: watch::Receiver<bool>,
}

/// How a conversation went.
#[derive(Debug)]
pub(crate) struct Outlook {
    /// How long the session lasted, if it was established.
    pub(crate) lasted: Option<Duration>,
    /// Why it ended.
    pub(crate) end: End,
}

impl Outlook {
    /// What the brain said, where it has retired the device.
    pub(crate) fn retired(&self) -> Option<String> {
        match &self.end {
            End::Closed(Ended { error, by_peer: true, .. }) => {
                (error.code == ErrorCode::Retired).then(|| error.to_string())
            }
            _ => None,
        }
    }
}

/// Why a conversation ended.
#[derive(Debug)]
pub(crate) enum End {
    /// The agent stops.
    Stopped,
    /// Another brain is to be called.
    ServerChanged,
    /// One side said so.
    Closed(Ended),
    /// The connection broke.
    Broken(Option<Broken>),
    /// The keeper of the tree did not answer.
    TrackGone(AskError),
}

/// Talks until the connection ends.
pub(crate) async fn converse(
    frames: Frames,
    session: Session,
    partner: Partner<'_>,
    around: Around<'_>,
) -> Outlook {
    let mut talk = Talk {
        frames,
        session,
        outbox: VecDeque::new(),
        unwritten: false,
        started: Instant::now(),
        welcomed: None,
        traces: Vec::new(),
        shared: BTreeMap::new(),
        sweep_due: None,
        members: 0,
        partner,
        around,
    };
    let end = talk.run().await;
    if talk.welcomed.is_some() {
        talk.partner.session_over(talk.around.clock.wall_ms());
    }
    // What a broken connection does not take is of no use to it.
    let _ = timeout(GOODBYE, talk.frames.sink.close(&mut talk.outbox)).await;
    Outlook { lasted: talk.welcomed.map(|since| since.elapsed()), end }
}

struct Talk<'a> {
    frames: Frames,
    session: Session,
    outbox: VecDeque<Bytes>,
    /// Something was put into the outbox and is not known to have reached the transport.
    unwritten: bool,
    started: Instant,
    welcomed: Option<Instant>,
    /// The trees that both sides share.
    shared: BTreeMap<TreeId, Topic>,
    /// When it is looked again which those are.
    sweep_due: Option<Instant>,
    /// As often as the members of trees had changed when that was looked at.
    members: u64,
    /// Of the entries that come next.
    traces: Vec<EntryTrace>,
    partner: Partner<'a>,
    around: Around<'a>,
}

impl Talk<'_> {
    async fn run(&mut self) -> End {
        let mut moves = self.around.shares.watch_moves();
        let mut end = self.begin().await;
        loop {
            match end {
                Ok(None) => {}
                Ok(Some(ended)) => return End::Closed(ended),
                Err(error) => return End::TrackGone(error),
            }
            if *self.around.stop.borrow() {
                return self.close(ErrorCode::GoingAway, "agent stops", End::Stopped).await;
            }
            let due = self.next_due();
            let readable = self.outbox.len() < OUTBOX_FRAMES_MAX;
            let is_established = self.session.is_established();
            end = tokio::select! {
                biased;
                written = self.frames.sink.drain(&mut self.outbox), if self.unwritten => {
                    match written {
                        Ok(()) => {
                            self.unwritten = false;
                            Ok(None)
                        }
                        Err(error) => return End::Broken(Some(error)),
                    }
                }
                changed = self.around.stop.changed() => match changed {
                    Ok(()) => Ok(None),
                    Err(_) => return End::Stopped,
                },
                news = self.partner.news(is_established) => match news {
                    PartnerNews::OwnTreeMoved => self.moved().await,
                    PartnerNews::CalledElsewhere => {
                        let (code, end) = (ErrorCode::GoingAway, End::ServerChanged);
                        return self.close(code, "device calls another brain", end).await;
                    }
                },
                () = sleep_until(due) => self.tick().await,
                Ok(()) = moves.changed() => self.shared_moved().await,
                frame = self.frames.stream.next(), if readable => match frame {
                    Some(Ok(frame)) => {
                        self.partner.frame_received(&frame);
                        self.frame(&frame).await
                    }
                    None => return End::Broken(None),
                    Some(Err(error)) => return End::Broken(Some(error)),
                },
            };
        }
    }

    /// Says the first word, where that is this side's.
    async fn begin(&mut self) -> Step {
        match self.partner.is_called() {
            true => self.feed(Input::Connected).await,
            false => Ok(None),
        }
    }

    /// When something has to be done that no event brings about.
    fn next_due(&self) -> Instant {
        let tick = match self.session.next_tick_ms() {
            Some(tick_ms) => {
                let ahead_ms = tick_ms.saturating_sub(self.around.clock.mono_ms());
                Instant::now() + Duration::from_millis(ahead_ms)
            }
            None => self.started + HANDSHAKE_TIMEOUT,
        };
        let topics = self.partner.own().into_iter().chain(self.shared.values());
        let seals = topics.filter_map(|topic| topic.seal_due);
        seals.chain(self.sweep_due).fold(tick, Instant::min)
    }

    async fn tick(&mut self) -> Step {
        if !self.session.is_established() && self.started.elapsed() >= HANDSHAKE_TIMEOUT {
            let error = error(ErrorCode::TimedOut, "wait for the welcome", "peer says nothing");
            return self.feed(Input::Close { error, retry_after_ms: None }).await;
        }
        if self.sweep_due.is_some_and(|due| due <= Instant::now())
            && let Some(ended) = self.share_what_both_have().await?
        {
            return Ok(Some(ended));
        }
        for of in self.topics() {
            let topic = self.topic(of);
            if topic.is_some_and(|topic| topic.seal_due.is_some_and(|due| Instant::now() >= due))
                && let Some(ended) = self.seal(of).await?
            {
                return Ok(Some(ended));
            }
        }
        self.feed(Input::Tick).await
    }

    /// Signs what was sent and ends the session.
    async fn close(&mut self, code: ErrorCode, why: &str, end: End) -> End {
        if self.session.is_established() {
            for of in self.topics() {
                if let Err(error) = self.seal(of).await {
                    return End::TrackGone(error);
                }
            }
        }
        let error = error(code, "close", why);
        match self.feed(Input::Close { error, retry_after_ms: None }).await {
            Ok(_) => end,
            Err(error) => End::TrackGone(error),
        }
    }
}

/// How the session ended, if it did.
type Step = Result<Option<Ended>, AskError>;
