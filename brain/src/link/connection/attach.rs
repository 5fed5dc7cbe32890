//! Finding the actor that a connection belongs to, and finding it again.

use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use actors::device::{Attached, Clock, DeviceMsg};
use actors::ports::{LinkReceiver, LinkSender};
use actors::supervise::Address;
use protocol::session::{Input, Output, PeerDevice, Replica, error};
use protocol::wire::{self, Message, TokenProof};
use protocol::{DeviceId, ErrorCode, RecoveryAction, SyncError, TreeId};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};

use super::groups::GROUP_TIME_MAX;
use super::unanswered::Open;
use super::{Admitted, Connection, EVENTS_MAX, End, TWIN_TIME_MAX, UNAUTHENTICATED_TIME_MAX};
use crate::link::{Present, upgrade};

/// How long a connection waits before it asks a twin that fails to take it again, longer each time.
const TRY_AGAIN_AFTER: Duration = Duration::from_millis(20);
/// How soon a connection notices that the twin that it waits for is quarantined.
const QUARANTINE_SEEN_WITHIN: Duration = Duration::from_millis(250);

/// How long the device of a quarantined twin stays away, at least and at most.
const AWAY_MIN: Duration = Duration::from_secs(1);
const AWAY_MAX: Duration = Duration::from_secs(60);

/// Numbers connections; later starts of the brain go on above earlier ones by the clock.
static CONNECTIONS: AtomicU64 = AtomicU64::new(0);

/// Why a connection cannot stay.
pub(super) struct Away {
    pub(super) error: SyncError,
    /// How long the device is to stay away.
    pub(super) retry_after_ms: Option<u32>,
}

impl From<SyncError> for Away {
    fn from(error: SyncError) -> Self {
        Self { error, retry_after_ms: None }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<S> {
    pub(super) async fn authorise(&mut self, peer: PeerDevice) -> Vec<Output> {
        match self.attach(&peer).await {
            Ok(replica) => {
                self.allowance.lift();
                if let Some((_, deadline)) = self.handshake.take() {
                    let began = deadline - UNAUTHENTICATED_TIME_MAX;
                    self.active = Some(self.ingress.metrics.link_opened(began.elapsed()));
                }
                self.device = Some(peer.device);
                self.ledger = self.ingress.accounts.of(peer.device);
                let since_ms = self.ingress.clock.now().wall_ms;
                let present = Present { connection: self.number, peer: self.peer, since_ms };
                self.stay = Some(self.ingress.presence.enter(peer.device, present));
                tracing::info!(device = %peer.device, peer = %self.peer, connection = self.number, "device connected");
                self.look_at_groups_in(Duration::ZERO);
                let connection = self.number;
                self.feed(Input::Authorised { connection, replica })
            }
            Err(Away { error, retry_after_ms: None }) => self.feed(Input::Denied(error)),
            Err(Away { error, retry_after_ms }) => {
                self.feed(Input::Close { error, retry_after_ms })
            }
        }
    }

    async fn attach(&mut self, peer: &PeerDevice) -> Result<Replica, Away> {
        let denied = |code, text: &str| error(code, "authorise", text);
        if self.admitted != Admitted::Link(peer.device) {
            let text = "the API key is not that of the device that calls";
            return Err(denied(ErrorCode::Unauthenticated, text).into());
        }
        let store = &self.ingress.store;
        let record = store.device(peer.device).map_err(|e| e.to_sync_error())?;
        if record.is_none()
            && let Some(tombstone) =
                store.tombstone_of(peer.device).map_err(|e| e.to_sync_error())?
        {
            // Since it showed its API key.
            return Err(tombstone.to_sync_error().into());
        }
        let record = record.filter(|record| record.key == peer.key).ok_or_else(|| {
            denied(ErrorCode::Unauthenticated, "this key does not speak for the device")
        })?;
        let now_ms = self.ingress.clock.now().wall_ms;
        let later = |last: u64| Some(now_ms.max(last + 1));
        let before = CONNECTIONS.fetch_update(Ordering::Relaxed, Ordering::Relaxed, later);
        self.number = now_ms.max(before.unwrap_or_default() + 1);
        let twin = self.ingress.devices.twin_of(&record).map_err(|e| e.to_sync_error())?;
        let link = self.events_in.take().ok_or_else(|| {
            denied(ErrorCode::UnexpectedFrame, "the connection is attached already")
        })?;
        let Attached { replica, .. } = self.ask_to_attach(&twin, peer.device, None, link).await?;
        self.twin = Some(twin);
        Ok(replica)
    }

    /// Attaches to the next life of a twin that is gone, and tells it what the one before left
    /// unanswered.
    pub(super) async fn attach_again(&mut self) -> Result<(LinkReceiver, Vec<Output>), Away> {
        let gone = || error(ErrorCode::GoingAway, "serve", "the device's actor is gone");
        let device = self.device.ok_or_else(gone)?;
        let (mut tries, began) = (0, Instant::now());
        let (events, replica) = loop {
            tries += 1;
            match self.attach_to_next(device).await {
                Ok(attached) => break attached,
                // It failed once more, or the supervisor above it did.
                Err(Away { error, retry_after_ms: None })
                    if matches!(error.recovery_action(), RecoveryAction::Retry { attempts_max } if tries < attempts_max)
                        && began.elapsed() < TWIN_TIME_MAX =>
                {
                    sleep(TRY_AGAIN_AFTER * tries).await;
                }
                Err(away) => return Err(away),
            }
        };
        tracing::info!(%device, connection = self.number, "connection is attached to its actor again");
        let mut outputs = Vec::new();
        for position in replica.logs {
            let log = position.log;
            outputs.extend(self.feed(Input::Stored { log, position, consumed_bytes: 0 }));
        }
        outputs.extend(self.feed(Input::Pruned(replica.floor)));
        self.tell_again(None).await.map_err(|end| {
            let error = end.map_or_else(gone, |ended| ended.error);
            Away { error, retry_after_ms: None }
        })?;
        Ok((events, outputs))
    }

    async fn attach_to_next(&mut self, device: DeviceId) -> Result<(LinkReceiver, Replica), Away> {
        let twin = self.ingress.devices.twin(device).map_err(|e| e.to_sync_error())?;
        let (link, events) = mpsc::channel(EVENTS_MAX);
        let Attached { replica, .. } = self.ask_to_attach(&twin, device, None, link).await?;
        self.twin = Some(twin);
        Ok((events, replica))
    }

    /// Tells a twin what it was told before and has not answered. The eldest entries come one
    /// by one: if it fails at one of them, that one is known.
    pub(super) async fn tell_again(&mut self, of: Option<TreeId>) -> Result<(), End> {
        let Some(unanswered) = self.unanswered_of(of) else { return Ok(()) };
        let (frames, open) = (unanswered.frames(), unanswered.open());
        let mut one_by_one = true;
        for frame in frames {
            // It was decoded before.
            let Ok(Message::Entries(batch)) = wire::decode(&frame) else { continue };
            let log = batch.log;
            let Ok(entries) = batch.unpack() else { continue };
            let bytes = frame.len() as u32;
            let parts: Vec<Vec<_>> = match std::mem::take(&mut one_by_one) {
                true => entries.into_iter().map(|entry| vec![entry]).collect(),
                false => vec![entries],
            };
            let last = parts.len().saturating_sub(1);
            for (at, entries) in parts.into_iter().enumerate() {
                let in_flight = self.ledger.take(entries.len() as u32);
                let bytes = if at == last { bytes } else { 0 };
                let (connection, traces) = (self.number, Vec::new());
                let again =
                    DeviceMsg::EntriesCame { connection, log, entries, bytes, in_flight, traces };
                self.tell(of, again).await?;
            }
        }
        for open in open {
            self.tell(of, open.into_msg(self.number)).await?;
        }
        Ok(())
    }

    /// Asks the twin of a device, or of a group of it, to take this connection; stops asking when
    /// it is quarantined meanwhile.
    pub(super) async fn ask_to_attach(
        &self,
        twin: &Address<DeviceMsg>,
        device: DeviceId,
        group: Option<&str>,
        link: LinkSender,
    ) -> Result<Attached, Away> {
        let (connection, peer) = (self.number, self.peer.to_string());
        let attach = |reply| DeviceMsg::Attach { connection, device, peer, link, reply };
        let time_max = if group.is_some() { GROUP_TIME_MAX } else { TWIN_TIME_MAX };
        let mut asked = pin!(twin.ask(attach, time_max));
        let devices = &self.ingress.devices;
        loop {
            let quarantined = match group {
                Some(name) => devices.group_quarantined_for(name),
                None => devices.quarantined_for(device),
            };
            if let Some(left) = quarantined {
                let text = "the actor of the tree failed too often and is left alone for a while";
                // It may be let out sooner.
                let left = left.clamp(AWAY_MIN, AWAY_MAX);
                return Err(Away {
                    error: error(ErrorCode::Quarantined, "attach", text),
                    retry_after_ms: u32::try_from(left.as_millis()).ok(),
                });
            }
            let Ok(answer) = timeout(QUARANTINE_SEEN_WITHIN, &mut asked).await else { continue };
            let answer = answer.map_err(|failed| {
                error(ErrorCode::Overloaded, "attach", format!("the actor of the tree: {failed}"))
            })?;
            return Ok(answer?);
        }
    }

    pub(super) async fn enrol(&mut self, peer: PeerDevice, proof: TokenProof) -> Vec<Output> {
        if self.admitted != Admitted::Enrol {
            let text = format!("enrolment takes place at {}", upgrade::ENROL_PATH);
            return self.feed(Input::Denied(error(ErrorCode::WrongRole, "enrol", text)));
        }
        let ask = |reply| crate::enrolment::EnrolmentMsg::Enrol { peer, proof, reply };
        match self.ingress.enrolment.ask(ask, TWIN_TIME_MAX).await {
            Ok(Ok(enrolled)) => {
                let mut outputs = self.feed(Input::EnrolmentGranted(Box::new(enrolled)));
                outputs.extend(self.close(ErrorCode::GoingAway, "enrolled; connect as a device"));
                outputs
            }
            Ok(Err(denied)) => self.feed(Input::Denied(denied)),
            Err(failed) => {
                let text = format!("enrolment is not possible now: {failed}");
                self.feed(Input::Denied(error(ErrorCode::Overloaded, "enrol", text)))
            }
        }
    }
}

impl Open {
    /// As the twin is told it by connection `connection`.
    pub(super) fn into_msg(self, connection: u64) -> DeviceMsg {
        match self {
            Self::SignedHead(signed) => DeviceMsg::SignedHeadCame(signed),
            Self::Cut(cut) => DeviceMsg::CutCame(cut),
            Self::LogLost(log) => DeviceMsg::LogLost(log),
            Self::Refused(refuse) => DeviceMsg::PeerRefused { connection, refuse },
            Self::Fetch { log, after, bytes_max } => {
                DeviceMsg::Fetch { connection, log, after, bytes_max }
            }
            Self::FetchCheckpoint => DeviceMsg::FetchCheckpoint { connection },
        }
    }
}
