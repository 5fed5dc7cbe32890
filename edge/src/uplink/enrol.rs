//! Joining a fleet.

use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use protocol::compress::Compression;
use protocol::keys::Subject;
use protocol::session::handshake::{Caller, Intent};
use protocol::session::{Input, Output, Session};
use protocol::wire::{Enrolled, TokenProof};
use protocol::{DeviceId, SyncError};
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::{self, Message};

use super::dial::{self, DialError, ENROL_PATH};
use crate::clock::Clock;
use crate::enrolment::{Enrolment, Request};
use crate::identity::Identity;
use crate::tls;

/// A brain that decides about a token takes longer than a network does.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(20);

/// Why the device did not join.
#[derive(Debug, thiserror::Error)]
pub enum EnrolError {
    /// There is no connection.
    #[error(transparent)]
    Dial(#[from] DialError),
    /// The brain, or this device, ended the conversation.
    #[error("enrolment failed: {error}{}", advice(error))]
    Refused {
        /// Why.
        error: SyncError,
    },
    /// The connection broke.
    #[error("connection broke during enrolment; try again")]
    Broken(#[source] Box<tungstenite::Error>),
    /// The brain said nothing, or ended the connection without a word.
    #[error("brain did not finish the enrolment; try again")]
    NoAnswer,
    /// The certificate names another device.
    #[error("brain certified {certified} instead of this device, {device}")]
    OtherDevice {
        /// Whom it certified.
        certified: String,
        /// This device.
        device: DeviceId,
    },
    /// The system gives no random bytes.
    #[error("no randomness for a handshake")]
    Randomness(#[from] getrandom::Error),
}

impl EnrolError {
    /// Whether the brain has retired the device: it joins as another one only.
    pub fn is_retired(&self) -> bool {
        matches!(self, Self::Refused { error } if error.code == protocol::ErrorCode::Retired)
    }
}

/// Presents the token of `request` and returns what the brain gives for it.
pub async fn enrol(
    identity: &Identity,
    request: &Request,
    clock: &Clock,
) -> Result<Enrolment, EnrolError> {
    let (config, pinned) = tls::pinning(request.token.tls_ca_sha256, clock.clone());
    let mut connection = dial::dial(&request.server, ENROL_PATH, None, config).await?;
    let mut challenge = [0; 32];
    getrandom::fill(&mut challenge)?;
    let mut session = Session::caller(Caller {
        fleet: request.token.fleet,
        root: request.token.root,
        device: identity.device,
        keypair: identity.keypair.clone(),
        intent: Intent::Enrol {
            token: TokenProof {
                number: request.token.number,
                secret: request.token.secret,
                name: request.name.clone(),
            },
        },
        compressions: Compression::None.bit(),
        challenge,
        exporter: connection.exporter,
    });
    let conversation = converse(&mut session, &mut connection.socket, clock);
    let enrolled = match timeout(ANSWER_TIMEOUT, conversation).await {
        Ok(enrolled) => enrolled?,
        Err(_) => return Err(EnrolError::NoAnswer),
    };
    match &enrolled.certificate.leaf.subject {
        Subject::Device(device, _) if *device == identity.device => {}
        other => {
            let (certified, device) = (format!("{other:?}"), identity.device);
            return Err(EnrolError::OtherDevice { certified, device });
        }
    }
    Ok(Enrolment {
        fleet: request.token.fleet,
        root: request.token.root,
        certificate: enrolled.certificate,
        api_key: enrolled.api_key,
        server: request.server.clone(),
        ca_pem: pinned.pem().ok_or(EnrolError::NoAnswer)?,
        name: request.name.clone(),
    })
}

async fn converse<S>(
    session: &mut Session,
    socket: &mut S,
    clock: &Clock,
) -> Result<Enrolled, EnrolError>
where
    S: StreamExt<Item = Result<Message, tungstenite::Error>>
        + SinkExt<Message, Error = tungstenite::Error>
        + Unpin,
{
    let broken = |error| EnrolError::Broken(Box::new(error));
    let mut outputs = session.handle(Input::Connected, clock.now());
    loop {
        for output in outputs {
            match output {
                Output::Send(frame) => {
                    socket.send(Message::Binary(frame.into())).await.map_err(broken)?;
                }
                Output::Enrolled(enrolled) => {
                    // The answer is complete; how the connection ends changes nothing.
                    let _ = socket.close().await;
                    return Ok(*enrolled);
                }
                Output::Closed(ended) => return Err(EnrolError::Refused { error: ended.error }),
                _ => {}
            }
        }
        outputs = match socket.next().await {
            Some(Ok(Message::Binary(frame))) => session.handle(Input::Frame(&frame), clock.now()),
            Some(Ok(Message::Close(_))) | None => return Err(EnrolError::NoAnswer),
            Some(Ok(_)) => Vec::new(),
            Some(Err(error)) => return Err(broken(error)),
        };
    }
}

fn advice(error: &SyncError) -> &'static str {
    match error.code {
        protocol::ErrorCode::BadToken => {
            "; ask for a new token with `brain enroll-token create` and run `edge enroll` again"
        }
        protocol::ErrorCode::Retired => "; `edge enroll` makes it another device",
        protocol::ErrorCode::WrongFleet | protocol::ErrorCode::BadCertificate => {
            "; the token belongs to another fleet than this server"
        }
        protocol::ErrorCode::VersionUnsupported => "; install a matching release",
        _ => "",
    }
}
