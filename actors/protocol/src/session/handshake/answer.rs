//! The answering side. It does nothing costly before the caller has proved its key.

use super::{Answerer, Progress, ROLE_EDGE, Transcript, trusted_ms, versions};
use crate::ErrorCode;
use crate::compress::Compression;
use crate::keys::{Subject, verify};
use crate::session::link::{Link, Terms};
use crate::session::{Failure, Input, Now, Output, PeerDevice, Replica, send, with_causes};
use crate::wire::{self, Auth, Capabilities, Hello, HelloReply, Message, Purpose, Welcome};

/// The answering side's handshake.
#[derive(Debug)]
pub(in crate::session) struct Answer {
    config: Answerer,
    transcript: Transcript,
    step: Step,
}

#[derive(Debug)]
enum Step {
    AwaitHello,
    AwaitAuth(Agreed),
    AwaitDecision(Agreed),
    Done,
}

#[derive(Debug)]
struct Agreed {
    hello: Box<Hello>,
    version: u8,
    compression: Compression,
}

impl Answer {
    pub(super) fn new(config: Answerer) -> Self {
        Self { config, transcript: Transcript::default(), step: Step::AwaitHello }
    }

    pub(super) fn handle(
        &mut self,
        input: Input<'_>,
        now: Now,
        outputs: &mut Vec<Output>,
    ) -> Result<Progress, Failure> {
        let step = std::mem::replace(&mut self.step, Step::Done);
        match (step, input) {
            (step, Input::Frame(frame)) => {
                let message = match wire::decode(frame)? {
                    Message::Close(close) => return Err(Failure::Peer(close)),
                    message => message,
                };
                self.step = match (step, message) {
                    (Step::AwaitHello, Message::Hello(hello)) => {
                        self.transcript.add(frame);
                        Step::AwaitAuth(self.reply(hello, now, outputs)?)
                    }
                    (Step::AwaitAuth(agreed), Message::Auth(auth)) => {
                        self.check_proof(&agreed.hello, auth, outputs)?;
                        Step::AwaitDecision(agreed)
                    }
                    (_, message) => {
                        return Err(Failure::unexpected(&message, "in this step of the handshake"));
                    }
                };
            }
            (Step::AwaitDecision(agreed), Input::Authorised { connection, replica })
                if agreed.hello.purpose == Purpose::Link =>
            {
                return Ok(self.welcome(&agreed, connection, Some(replica), now, outputs));
            }
            (Step::AwaitDecision(agreed), Input::Admitted { connection })
                if agreed.hello.purpose == Purpose::Peer =>
            {
                return Ok(self.welcome(&agreed, connection, None, now, outputs));
            }
            (Step::AwaitDecision(_), Input::EnrolmentGranted(enrolled)) => {
                outputs.push(send(&Message::Enrolled(*enrolled)));
            }
            (Step::AwaitDecision(_), Input::Denied(error)) => return Err(Failure::Ours(error)),
            (step, _) => self.step = step,
        }
        Ok(Progress::Pending)
    }

    fn welcome(
        &self,
        agreed: &Agreed,
        connection: u64,
        replica: Option<Replica>,
        now: Now,
        outputs: &mut Vec<Output>,
    ) -> Progress {
        let limits = self.config.limits;
        outputs.push(send(&Message::Welcome(Welcome {
            connection,
            now_ms: now.wall_ms,
            heartbeat_ms: limits.heartbeat_ms,
            credit_bytes: limits.credit_bytes,
        })));
        let terms = Terms {
            version: agreed.version,
            compression: agreed.compression,
            heartbeat_ms: limits.heartbeat_ms,
            pings: false,
            // Both sides start from the same default; only the answerer can say more.
            credit_to_send: crate::session::Limits::default().credit_bytes,
            credit_given: limits.credit_bytes,
            peer: agreed.hello.public_key,
            is_brain: replica.is_some(),
            peer_is_brain: false,
        };
        let brains = self.config.brains.clone();
        Progress::Established(Box::new(Link::start(terms, brains, replica, now, outputs)))
    }

    fn reply(
        &mut self,
        hello: Hello,
        now: Now,
        outputs: &mut Vec<Output>,
    ) -> Result<Agreed, Failure> {
        let ours = versions();
        let version = ours.max.min(hello.versions.max);
        if version < ours.min || version < hello.versions.min {
            let text = format!(
                "caller speaks protocol versions {} to {}, this side {} to {}",
                hello.versions.min, hello.versions.max, ours.min, ours.max
            );
            return Err(Failure::new(ErrorCode::VersionUnsupported, "agree on a version", text));
        }
        if hello.fleet != self.config.fleet {
            let text = format!("caller is of fleet {:?}", hello.fleet);
            return Err(Failure::new(ErrorCode::WrongFleet, "check caller", text));
        }
        self.check_certificate(&hello, now)?;
        let compression = Compression::negotiate(self.config.compressions, hello.compressions);
        let reply = HelloReply {
            version,
            capabilities: Capabilities(0),
            compression,
            answerer: self.config.who.id(),
            public_key: self.config.keypair.public(),
            certificate: self.config.certificate.clone(),
            challenge: self.config.challenge,
        };
        self.transcript.send(&Message::HelloReply(reply), outputs);
        let role = self.config.who.role();
        let signed = self.transcript.to_sign(role, &self.config.exporter);
        let challenge_response = self.config.keypair.sign(&signed);
        self.transcript.send(&Message::Auth(Auth { challenge_response, token: None }), outputs);
        Ok(Agreed { hello: Box::new(hello), version, compression })
    }

    fn check_certificate(&self, hello: &Hello, now: Now) -> Result<(), Failure> {
        let chain = match (hello.purpose, &hello.certificate) {
            (purpose, _) if !self.config.who.takes(purpose) => {
                let text = format!("this side takes no calls for {purpose:?}");
                return Err(Failure::new(ErrorCode::WrongRole, "check caller", text));
            }
            (Purpose::Enrol, None) => return Ok(()),
            (Purpose::Link | Purpose::Peer, Some(chain)) => chain,
            (Purpose::Enrol, Some(_)) | (Purpose::Link | Purpose::Peer, None) => {
                let text = "a link needs a certificate, an enrolment has none yet";
                return Err(Failure::new(ErrorCode::BadCertificate, "check caller", text));
            }
        };
        let subject = chain.verify(self.config.fleet, self.config.root, trusted_ms(now)).map_err(
            |error| Failure::new(ErrorCode::BadCertificate, "check caller", with_causes(&error)),
        )?;
        match subject {
            Subject::Device(device, _) if *device == hello.device_id => {}
            _ => {
                let text = "the certificate shown is not that of the device that calls";
                return Err(Failure::new(ErrorCode::WrongRole, "check caller", text));
            }
        }
        if chain.leaf.key != hello.public_key {
            let text = "the certificate shown names another key";
            return Err(Failure::new(ErrorCode::BadCertificate, "check caller", text));
        }
        Ok(())
    }

    fn check_proof(
        &self,
        hello: &Hello,
        auth: Auth,
        outputs: &mut Vec<Output>,
    ) -> Result<(), Failure> {
        let signed = self.transcript.to_sign(ROLE_EDGE, &self.config.exporter);
        verify(hello.public_key, &signed, &auth.challenge_response).map_err(|error| {
            Failure::new(ErrorCode::BadSignature, "verify caller", error.to_string())
        })?;
        let peer = PeerDevice {
            device: hello.device_id,
            key: hello.public_key,
            certificate: hello.certificate.clone(),
        };
        outputs.push(match (hello.purpose, auth.token) {
            (Purpose::Link | Purpose::Peer, None) => Output::Authorise(peer),
            (Purpose::Enrol, Some(token)) => Output::Enrol(peer, token),
            _ => {
                let text = "an enrolment needs a token, a link has none";
                return Err(Failure::new(ErrorCode::BadToken, "verify caller", text));
            }
        });
        Ok(())
    }
}
