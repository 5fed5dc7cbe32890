//! Calling the brain again and again.

use std::sync::Arc;
use std::time::Duration;

use actors::supervise::{AskError, NodeError};
use protocol::ErrorCode;
use protocol::history::VersionVector;
use protocol::session::handshake::{Caller, Intent};
use protocol::session::{Replica, Session, with_causes};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinError;
use tokio::time::{Instant, sleep};
use url::Url;

use super::dial::{self, DialError, LINK_PATH};
use super::{Args, Backoff, Next, Schedule, ServerChoice, enrol};
use crate::config::Secret;
use crate::enrolment::{Enrolment, EnrolmentError};
use crate::retired::{Retired, RetiredError};
use crate::talk::{Around, Brain, End, Frames, Outlook, Partner, converse};
use crate::tls::{self, TlsError};
use crate::track;

/// How often a device without a fleet looks whether `edge enroll` has given it one.
const ENROLMENT_POLL: Duration = Duration::from_secs(2);

/// How long a device that was retired waits before it calls again. Somebody may have gone back to a
/// backup from before.
const RETIRED_AGAIN_AFTER: Duration = Duration::from_secs(60 * 60);

/// Why a call did not come about.
#[derive(Debug, thiserror::Error)]
enum CallError {
    #[error(transparent)]
    Dial(#[from] DialError),
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error(transparent)]
    Randomness(#[from] getrandom::Error),
    #[error(transparent)]
    Track(#[from] AskError),
}

impl CallError {
    /// What the brain said, where it has retired the device.
    fn retired(&self) -> Option<String> {
        match self {
            Self::Dial(error) => error.is_retired().then(|| error.to_string()),
            Self::Tls(_) | Self::Randomness(_) | Self::Track(_) => None,
        }
    }
}

/// How a call ended.
struct Ended {
    /// What one side said, if it did.
    code: Option<ErrorCode>,
    /// How long the session lasted, if it was established.
    lasted: Option<Duration>,
    /// How long the brain asks to wait.
    retry_after_ms: Option<u32>,
    /// The same for people.
    text: String,
}

/// The task that keeps a session up.
pub(super) struct Calling {
    pub(super) args: Arc<Args>,
    pub(super) stop: watch::Receiver<bool>,
}

impl Calling {
    /// Calls until the agent stops.
    pub(super) async fn run(mut self) -> Result<(), NodeError> {
        let Some(mut enrolment) = self.enrolment().await? else { return Ok(()) };
        self.enrolled(&enrolment).await?;
        let mut wanted = self.args.wanted_server.clone();
        let mut choice = ServerChoice::new(enrolment.server.clone());
        let mut schedule = Schedule::default();
        while !*self.stop.borrow() {
            let desired = wanted.borrow_and_update().clone();
            choice.want(desired.or_else(|| self.args.server.clone()));
            let server = choice.next().clone();
            self.args.board.update(|status| status.server = Some(server.to_string()));
            let call = self.call(&server, &mut choice, &mut enrolment, wanted.clone()).await;
            let retired = call.as_ref().map_or_else(CallError::retired, Outlook::retired);
            let Ended { code, lasted, retry_after_ms, text } = match call {
                Ok(Outlook { end: End::Stopped, .. }) => return Ok(()),
                Ok(Outlook { end: End::ServerChanged, .. }) => continue,
                Ok(Outlook { end: End::TrackGone(error), .. }) => return Err(error.into()),
                Err(CallError::Track(error)) => return Err(error.into()),
                Ok(outlook) => self.ended(outlook),
                Err(error) => self.failed(&error),
            };
            if lasted.is_none()
                && let Some(given_up) = choice.failed()
            {
                tracing::warn!(server = %given_up, "new address is given up for the former");
            }
            let retry_after = retry_after_ms.map(|ms| Duration::from_millis(ms.into()));
            let lasted = lasted.unwrap_or_default();
            let Next { mut wait, alert } = schedule.next(code, lasted, retry_after, random()?);
            if let Some(said) = retired {
                self.note_retired(said).await;
                wait = RETIRED_AGAIN_AFTER.mul_f64(1.0 + random()? / 10.0);
            } else if alert {
                tracing::error!(reason = text, "the link needs somebody: it does not mend itself");
                self.args.board.update(|status| status.alert = Some(text));
            }
            tracing::debug!(wait_ms = wait.as_millis() as u64, "waiting before the next call");
            tokio::select! {
                () = sleep(wait) => {}
                _ = self.stop.changed() => {}
                Ok(()) = wanted.changed() => wanted.mark_changed(),
            }
        }
        Ok(())
    }

    /// The enrolment, as soon as there is one; none if the agent stops first.
    async fn enrolment(&mut self) -> Result<Option<Enrolment>, NodeError> {
        let mut backoff = Backoff::default();
        let mut next_request = Instant::now();
        loop {
            if let Some(enrolment) = self.stored().await? {
                return Ok(Some(enrolment));
            }
            if let Some(request) =
                self.args.request.as_ref().filter(|_| next_request <= Instant::now())
            {
                match enrol(&self.args.identity, request, &self.args.clock).await {
                    Ok(enrolment) => {
                        let (dir, copy) = (self.args.data_dir.clone(), enrolment.clone());
                        tokio::task::spawn_blocking(move || copy.store(&dir)).await??;
                        tracing::info!(fleet = %enrolment.fleet, name = enrolment.name, "enrolled");
                        return Ok(Some(enrolment));
                    }
                    Err(error) => {
                        let text = with_causes(&error);
                        tracing::warn!(error = text, "enrolment failed");
                        self.args.board.update(|status| status.last_error = Some(text));
                        let again = error.is_retired().then_some(RETIRED_AGAIN_AFTER);
                        let wait = backoff.next(Duration::ZERO, again, random()?);
                        next_request = Instant::now() + wait;
                    }
                }
            }
            tokio::select! {
                () = sleep(ENROLMENT_POLL) => {}
                _ = self.stop.changed() => return Ok(None),
            }
        }
    }

    async fn stored(&self) -> Result<Option<Enrolment>, NodeError> {
        let dir = self.args.data_dir.clone();
        let loaded: Result<_, EnrolmentError> =
            tokio::task::spawn_blocking(move || Enrolment::load(&dir)).await?;
        Ok(loaded?)
    }

    async fn enrolled(&self, enrolment: &Enrolment) -> Result<(), NodeError> {
        let (fleet, issuer) = (enrolment.fleet, enrolment.issuer().map(|(_, key)| key));
        let tell = |reply| track::Msg::Enrolled(fleet, issuer, reply);
        self.args.track.ask(tell, track::PATIENCE).await??;
        let dir = self.args.data_dir.clone();
        let retired = match tokio::task::spawn_blocking(move || Retired::load(&dir)).await? {
            Ok(retired) => retired.map(|retired| retired.said),
            Err(error) => {
                // The brain says it again.
                tracing::warn!(%error, "whether the device is retired is not known");
                None
            }
        };
        self.args.board.update(|status| {
            status.retired = retired;
            status.enrolled = true;
            status.fleet = Some(enrolment.fleet);
            status.name = Some(enrolment.name.clone());
        });
        Ok(())
    }

    async fn call(
        &self,
        server: &Url,
        choice: &mut ServerChoice,
        enrolment: &mut Enrolment,
        wanted: watch::Receiver<Option<Url>>,
    ) -> Result<Outlook, CallError> {
        let Args { identity, clock, board, track, .. } = &*self.args;
        let ca_pem = self.args.ca_pem.as_deref().unwrap_or(&enrolment.ca_pem);
        let tls = tls::trusting(ca_pem, clock.clone())?;
        let api_key = self.args.api_key.as_ref().map_or(&*enrolment.api_key, Secret::expose);
        let connection = dial::dial(server, LINK_PATH, Some(api_key), tls).await?;
        let view = track.ask(track::Msg::View, track::PATIENCE).await?;
        let mut challenge = [0; 32];
        getrandom::fill(&mut challenge)?;
        let author = identity.keypair.public();
        let session = Session::caller(Caller {
            fleet: enrolment.fleet,
            root: enrolment.root,
            device: identity.device,
            keypair: identity.keypair.clone(),
            intent: Intent::Link {
                certificate: enrolment.certificate.clone(),
                replica: Replica {
                    tree: view.tree,
                    logs: view.positions,
                    floor: VersionVector::default(),
                    ends: Vec::new(),
                    author,
                },
            },
            compressions: self.args.compressions,
            challenge,
            exporter: connection.exporter,
        });
        let (tell, welcomed) = oneshot::channel();
        let partner = Partner::Brain(Brain::new(track, board, wanted, tell));
        let around = Around {
            own_track: track,
            shares: &self.args.shares,
            fleet: enrolment.fleet,
            clock,
            own_key: author,
            stop: self.stop.clone(),
        };
        let keep = async {
            if welcomed.await.is_err() {
                return;
            }
            self.note_not_retired().await;
            let Some(kept) = choice.succeeded() else { return };
            tracing::info!(server = %kept, "new address is kept");
            enrolment.server = kept.clone();
            let (dir, copy) = (self.args.data_dir.clone(), enrolment.clone());
            match tokio::task::spawn_blocking(move || copy.store(&dir)).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::error!(%error, "new address is not stored"),
                Err(error) => tracing::error!(%error, "new address is not stored"),
            }
        };
        let frames = Frames::over_web_socket(connection.socket);
        let (outlook, ()) = tokio::join!(converse(frames, session, partner, around), keep);
        Ok(outlook)
    }

    /// Shows that the brain has retired this device, and keeps that.
    async fn note_retired(&self, said: String) {
        if self.args.board.status().retired.is_some() {
            return;
        }
        tracing::error!(
            said,
            "device is retired: it calls once an hour; `edge enroll` makes it another"
        );
        self.args.board.update(|status| status.retired = Some(said.clone()));
        let retired = Retired { told_ms: self.args.clock.wall_ms(), said };
        let dir = self.args.data_dir.clone();
        self.keep_in_mind(tokio::task::spawn_blocking(move || retired.store(&dir)).await);
    }

    /// The brain has welcomed it: whatever was said before holds no longer.
    async fn note_not_retired(&self) {
        if self.args.board.status().retired.is_none() {
            return;
        }
        tracing::info!("device is retired no longer");
        self.args.board.update(|status| status.retired = None);
        let dir = self.args.data_dir.clone();
        self.keep_in_mind(tokio::task::spawn_blocking(move || Retired::lift(&dir)).await);
    }

    fn keep_in_mind(&self, kept: Result<Result<(), RetiredError>, JoinError>) {
        let failed = match kept {
            Ok(Ok(())) => return,
            Ok(Err(error)) => with_causes(&error),
            Err(error) => with_causes(&error),
        };
        tracing::error!(error = failed, "whether the device is retired is not stored");
    }

    fn ended(&self, outlook: Outlook) -> Ended {
        let (text, code, retry_after_ms) = match &outlook.end {
            End::Closed(ended) => {
                (ended.error.to_string(), Some(ended.error.code), ended.retry_after_ms)
            }
            End::Broken(Some(error)) => (with_causes(error), None, None),
            End::Broken(None) => ("brain ended the connection".to_owned(), None, None),
            End::Stopped | End::ServerChanged | End::TrackGone(_) => (String::new(), None, None),
        };
        if outlook.lasted.is_none() {
            self.args.board.metrics().session_failed();
        }
        let lasted_ms = outlook.lasted.map(|lasted| lasted.as_millis() as u64);
        tracing::warn!(lasted_ms, reason = text, "offline");
        self.args.board.update(|status| status.last_error = Some(text.clone()));
        Ended { code, lasted: outlook.lasted, retry_after_ms, text }
    }

    fn failed(&self, error: &CallError) -> Ended {
        self.args.board.metrics().session_failed();
        let text = with_causes(error);
        tracing::warn!(error = text, "call failed");
        self.args.board.update(|status| status.last_error = Some(text.clone()));
        let retry_after_ms = match error {
            CallError::Dial(error) => error.retry_after_ms(),
            CallError::Tls(_) | CallError::Randomness(_) | CallError::Track(_) => None,
        };
        Ended { code: None, lasted: None, retry_after_ms, text }
    }
}

/// A number from 0 to 1.
fn random() -> Result<f64, getrandom::Error> {
    Ok(f64::from(getrandom::u32()?) / f64::from(u32::MAX))
}
