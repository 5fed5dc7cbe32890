//! The calling side.

use super::{
    Caller, Intent, Progress, ROLE_BRAIN, ROLE_EDGE, ROLE_PEER, Transcript, trusted_ms, versions,
};
use crate::ErrorCode;
use crate::compress::Compression;
use crate::history::LogId;
use crate::keys::{Subject, verify};
use crate::session::link::{Link, Terms};
use crate::session::{Failure, Input, Limits, Now, Output, offset_ms, with_causes};
use crate::wire::{self, Auth, Capabilities, Hello, HelloReply, LogPosition, Message, Purpose};

/// The calling side's handshake.
#[derive(Debug)]
pub(in crate::session) struct Call {
    config: Caller,
    transcript: Transcript,
    step: Step,
}

#[derive(Debug)]
enum Step {
    NotConnected,
    AwaitReply,
    AwaitAuth(Box<HelloReply>),
    AwaitVerdict(Box<HelloReply>),
}

impl Call {
    pub(super) fn new(config: Caller) -> Self {
        Self { config, transcript: Transcript::default(), step: Step::NotConnected }
    }

    pub(super) fn handle(
        &mut self,
        input: Input<'_>,
        now: Now,
        outputs: &mut Vec<Output>,
    ) -> Result<Progress, Failure> {
        match input {
            Input::Connected => self.hello(outputs),
            Input::Frame(frame) => return self.frame(frame, now, outputs),
            // The shell may go on writing: the heads that this side will send must say so.
            Input::Stored { log, position, .. } => self.note(log, position),
            _ => {}
        }
        Ok(Progress::Pending)
    }

    fn note(&mut self, log: LogId, position: LogPosition) {
        let Intent::Link { replica, .. } = &mut self.config.intent else { return };
        match replica.logs.iter_mut().find(|known| known.log == log) {
            Some(known) => *known = position,
            None => replica.logs.push(position),
        }
    }

    fn hello(&mut self, outputs: &mut Vec<Output>) {
        let Caller { fleet, device, keypair, intent, compressions, challenge, .. } = &self.config;
        let (purpose, certificate) = match intent {
            Intent::Link { certificate, .. } => (Purpose::Link, Some(certificate.clone())),
            Intent::Peer { certificate, .. } => (Purpose::Peer, Some(certificate.clone())),
            Intent::Enrol { .. } => (Purpose::Enrol, None),
        };
        let hello = Hello {
            versions: versions(),
            capabilities: Capabilities::default(),
            compressions: *compressions,
            purpose,
            fleet: *fleet,
            device_id: *device,
            public_key: keypair.public(),
            certificate,
            challenge: *challenge,
        };
        self.transcript.send(&Message::Hello(hello), outputs);
        self.step = Step::AwaitReply;
    }

    fn frame(
        &mut self,
        frame: &[u8],
        now: Now,
        outputs: &mut Vec<Output>,
    ) -> Result<Progress, Failure> {
        let message = match wire::decode(frame)? {
            Message::Close(close) => return Err(Failure::Peer(close)),
            message => message,
        };
        match (std::mem::replace(&mut self.step, Step::NotConnected), message) {
            (Step::AwaitReply, Message::HelloReply(reply)) => {
                self.check_reply(&reply, now)?;
                self.transcript.add(frame);
                self.step = Step::AwaitAuth(Box::new(reply));
                Ok(Progress::Pending)
            }
            (Step::AwaitAuth(reply), Message::Auth(auth)) => {
                let signed = self.transcript.to_sign(self.role_called(), &self.config.exporter);
                verify(reply.public_key, &signed, &auth.challenge_response).map_err(|error| {
                    Failure::new(ErrorCode::BadSignature, "verify answerer", error.to_string())
                })?;
                self.transcript.add(frame);
                self.prove(outputs);
                self.step = Step::AwaitVerdict(reply);
                Ok(Progress::Pending)
            }
            (Step::AwaitVerdict(reply), Message::Welcome(welcome)) => {
                let (replica, brains) = match &self.config.intent {
                    Intent::Link { replica, .. } => (Some(replica.clone()), [].into()),
                    Intent::Peer { brains, .. } => (None, brains.clone()),
                    Intent::Enrol { .. } => {
                        let message = Message::Welcome(welcome);
                        return Err(Failure::unexpected(&message, "when enrolling"));
                    }
                };
                let offset_ms = offset_ms(welcome.now_ms, now.wall_ms);
                outputs.push(Output::Welcomed { connection: welcome.connection, offset_ms });
                let defaults = Limits::default();
                let terms = Terms {
                    version: reply.version,
                    compression: reply.compression,
                    // A heartbeat of zero would make this side spin.
                    heartbeat_ms: welcome.heartbeat_ms.max(100),
                    pings: true,
                    credit_to_send: welcome.credit_bytes,
                    credit_given: defaults.credit_bytes,
                    peer: reply.public_key,
                    is_brain: false,
                    peer_is_brain: replica.is_some(),
                };
                let link = Link::start(terms, brains, replica, now, outputs);
                Ok(Progress::Established(Box::new(link)))
            }
            (Step::AwaitVerdict(_), Message::Enrolled(enrolled)) => {
                let certificate = &enrolled.certificate;
                let device = self.config.device;
                let ours = certificate.leaf.key == self.config.keypair.public()
                    && matches!(certificate.leaf.subject, Subject::Device(named, _) if named == device)
                    && certificate.verify(self.config.fleet, self.config.root, None).is_ok();
                if !ours {
                    let text = "the certificate given does not name this device and its key";
                    return Err(Failure::new(ErrorCode::BadCertificate, "enrol", text));
                }
                outputs.push(Output::Enrolled(Box::new(enrolled)));
                Ok(Progress::Pending)
            }
            (_, message) => Err(Failure::unexpected(&message, "in this step of the handshake")),
        }
    }

    fn check_reply(&self, reply: &HelloReply, now: Now) -> Result<(), Failure> {
        let ours = versions();
        if !(ours.min..=ours.max).contains(&reply.version) {
            let text = format!(
                "the answerer chose protocol version {}; this side speaks {} to {}",
                reply.version, ours.min, ours.max
            );
            return Err(Failure::new(ErrorCode::VersionUnsupported, "agree on a version", text));
        }
        let subject = reply
            .certificate
            .verify(self.config.fleet, self.config.root, trusted_ms(now))
            .map_err(|error| {
                Failure::new(ErrorCode::BadCertificate, "verify answerer", with_causes(&error))
            })?;
        let is_expected = match (&self.config.intent, subject) {
            (Intent::Link { .. } | Intent::Enrol { .. }, Subject::Brain(brain)) => {
                brain.0 == reply.answerer
            }
            (Intent::Peer { key, .. }, Subject::Device(device, _)) => {
                device.0 == reply.answerer && *key == reply.public_key
            }
            _ => false,
        };
        if !is_expected || reply.certificate.leaf.key != reply.public_key {
            let text = "the certificate shown is not that of whom this side calls";
            return Err(Failure::new(ErrorCode::WrongRole, "verify answerer", text));
        }
        let readable = reply.compression == Compression::None
            || self.config.compressions & reply.compression.bit() != 0;
        if !readable {
            let text = "the answerer chose a compression that was not offered";
            return Err(Failure::new(ErrorCode::CodecUnknown, "agree on a compression", text));
        }
        Ok(())
    }

    /// As what the other side signs.
    fn role_called(&self) -> &'static str {
        match self.config.intent {
            Intent::Link { .. } | Intent::Enrol { .. } => ROLE_BRAIN,
            Intent::Peer { .. } => ROLE_PEER,
        }
    }

    fn prove(&mut self, outputs: &mut Vec<Output>) {
        let signed = self.transcript.to_sign(ROLE_EDGE, &self.config.exporter);
        let token = match &self.config.intent {
            Intent::Enrol { token } => Some(token.clone()),
            Intent::Link { .. } | Intent::Peer { .. } => None,
        };
        let challenge_response = self.config.keypair.sign(&signed);
        self.transcript.send(&Message::Auth(Auth { challenge_response, token }), outputs);
    }
}
