//! Who is there: both sides prove their keys over this very connection.
//!
//! ```text
//! caller   -> Hello        versions, purpose, device, key, certificate, 32 random bytes
//! answerer -> HelloReply   version, id, key, certificate, 32 random bytes
//! answerer -> Auth         signature over ("fleet-auth-v1", "brain" or "peer", transcript, exporter)
//! caller   -> Auth         signature over ("fleet-auth-v1", "edge", transcript, exporter)
//! answerer -> Welcome, or Enrolled and the end
//! ```
//!
//! The transcript is every frame before the signature, header and all; the exporter is TLS 1.3
//! keying material that only the two ends of one connection share. A recorded handshake thus
//! proves nothing on another connection or to another brain, and nothing can be relayed. The
//! enrolment token goes to a brain only after the brain has proved itself.
//!
//! Two devices prove themselves to each other in the same way, without a brain: the fleet's root
//! is behind both certificates.

mod answer;
mod call;

use std::sync::Arc;

use super::link::Link;
use super::{Failure, Input, Limits, Now, Output};
use crate::canonical::Writer;
use crate::compress::Compression;
use crate::keys::{Chain, Keypair};
use crate::wire::{Message, Purpose, TokenProof, VERSION_MAX, VERSION_MIN, VersionRange};
use crate::{BrainId, DeviceId, FleetId, PublicKey};

/// The longest frame before a peer has proved itself.
pub const HANDSHAKE_FRAME_BYTES_MAX: usize = 4 << 10;
/// The length of the exporter's keying material.
pub const EXPORTER_BYTES: usize = 32;
/// The label under which TLS derives it.
pub const EXPORTER_LABEL: &[u8] = b"EXPORTER-fleet-auth-v1";

/// What the calling side brings.
#[derive(Debug)]
pub struct Caller {
    /// The fleet.
    pub fleet: FleetId,
    /// The fleet's root key.
    pub root: PublicKey,
    /// The device that calls.
    pub device: DeviceId,
    /// Its key.
    pub keypair: Keypair,
    /// Why it calls.
    pub intent: Intent,
    /// The compressions that it reads, as bits.
    pub compressions: u8,
    /// 32 random bytes.
    pub challenge: [u8; 32],
    /// Keying material of this connection.
    pub exporter: [u8; EXPORTER_BYTES],
}

/// Why a device calls.
#[derive(Debug)]
pub enum Intent {
    /// To exchange entries of its tree, under this certificate.
    Link {
        /// Of the device's key.
        certificate: Chain,
        /// Its tree.
        replica: super::Replica,
    },
    /// To exchange entries of what it shares with another device.
    Peer {
        /// Of the caller's key.
        certificate: Chain,
        /// The key of the device that it means to reach.
        key: PublicKey,
        /// The keys of the brains that it knows.
        brains: Arc<[PublicKey]>,
    },
    /// To join the fleet.
    Enrol {
        /// The right to.
        token: TokenProof,
    },
}

/// What the answering side brings.
#[derive(Debug)]
pub struct Answerer {
    /// The fleet.
    pub fleet: FleetId,
    /// The fleet's root key.
    pub root: PublicKey,
    /// Who answers.
    pub who: Answering,
    /// The keys of the brains that are known on this side: their word ends a log.
    pub brains: Arc<[PublicKey]>,
    /// Its key.
    pub keypair: Keypair,
    /// Its key's certificate.
    pub certificate: Chain,
    /// The compressions that it reads, as bits.
    pub compressions: u8,
    /// 32 random bytes.
    pub challenge: [u8; 32],
    /// Keying material of this connection.
    pub exporter: [u8; EXPORTER_BYTES],
    /// The rules of the link.
    pub limits: Limits,
}

/// Who answers a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answering {
    /// A brain, to devices.
    Brain(BrainId),
    /// A device, to its peers.
    Device(DeviceId),
}

impl Answering {
    fn id(self) -> [u8; 16] {
        match self {
            Self::Brain(BrainId(id)) | Self::Device(DeviceId(id)) => id,
        }
    }

    /// As what it signs.
    fn role(self) -> &'static str {
        match self {
            Self::Brain(_) => ROLE_BRAIN,
            Self::Device(_) => ROLE_PEER,
        }
    }

    fn takes(self, purpose: Purpose) -> bool {
        match self {
            Self::Brain(_) => matches!(purpose, Purpose::Link | Purpose::Enrol),
            Self::Device(_) => purpose == Purpose::Peer,
        }
    }
}

/// Whether the handshake goes on.
pub(super) enum Progress {
    Pending,
    Established(Box<Link>),
}

/// A handshake in progress.
#[derive(Debug)]
pub(super) enum Handshake {
    Call(call::Call),
    Answer(answer::Answer),
}

impl Handshake {
    pub(super) fn caller(config: Caller) -> Self {
        Self::Call(call::Call::new(config))
    }

    pub(super) fn answerer(config: Answerer) -> Self {
        Self::Answer(answer::Answer::new(config))
    }

    pub(super) fn handle(
        &mut self,
        input: Input<'_>,
        now: Now,
        outputs: &mut Vec<Output>,
    ) -> Result<Progress, Failure> {
        if let Input::Frame(frame) = &input
            && frame.len() > HANDSHAKE_FRAME_BYTES_MAX
        {
            let bytes = frame.len();
            let text = format!(
                "frame of {bytes} bytes is over the handshake's limit of {HANDSHAKE_FRAME_BYTES_MAX}"
            );
            return Err(Failure::new(crate::ErrorCode::TooLarge, "take frame", text));
        }
        match self {
            Self::Call(call) => call.handle(input, now, outputs),
            Self::Answer(answer) => answer.handle(input, now, outputs),
        }
    }
}

/// Everything said so far.
#[derive(Debug, Clone, Default)]
struct Transcript(blake3::Hasher);

impl Transcript {
    fn add(&mut self, frame: &[u8]) {
        // The length keeps two frames from trading bytes.
        self.0.update(&(frame.len() as u64).to_be_bytes());
        self.0.update(frame);
    }

    /// The bytes that a side signs.
    fn to_sign(&self, role: &str, exporter: &[u8; EXPORTER_BYTES]) -> Vec<u8> {
        let mut writer = Writer::new("fleet-auth-v1");
        writer.text(role).raw(self.0.finalize().as_bytes()).raw(exporter);
        writer.finish()
    }

    /// Encodes, notes and sends a message.
    fn send(&mut self, message: &Message, outputs: &mut Vec<Output>) {
        let frame = crate::wire::encode(message, VERSION_MIN, Compression::None);
        self.add(&frame);
        outputs.push(Output::Send(frame));
    }
}

const ROLE_BRAIN: &str = "brain";
const ROLE_PEER: &str = "peer";
const ROLE_EDGE: &str = "edge";

fn versions() -> VersionRange {
    VersionRange { min: VERSION_MIN, max: VERSION_MAX }
}

/// A wall clock may judge expiry only when it is known to be right.
fn trusted_ms(now: Now) -> Option<u64> {
    (now.quality == crate::clock::ClockQuality::Synchronised).then_some(now.wall_ms)
}
