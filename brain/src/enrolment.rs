//! The actor that lets devices join.
//!
//! One at a time, so that a token for one device is not used by two.

use std::sync::Arc;

use actors::device::Clock;
use actors::ports::ReadError;
use actors::supervise::{Context, Node, NodeError, Reply};
use data_encoding::HEXLOWER;
use protocol::keys::{Certificate, Chain, Subject, Validity};
use protocol::session::PeerDevice;
use protocol::wire::{Enrolled, TokenProof};
use protocol::{DeviceId, ErrorCode, ErrorSource, Layer, SyncError};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::identity::Identity;
use crate::store::{AuditDraft, DeviceRecord, EnrolmentRecord, RegistryChange, Store, Tombstone};

/// How long a device's certificate holds: longer than hardware lasts. Keys are withdrawn by
/// revocation, since a device without a good clock cannot judge expiry.
const DEVICE_VALID_MS: u64 = 20 * 365 * 24 * 60 * 60 * 1_000;
/// The longest name of a device, in bytes.
const NAME_BYTES_MAX: usize = 128;
/// What API keys begin with, so that people and secret scanners know them.
const API_KEY_PREFIX: &str = "fb_";

/// What the actor starts from.
pub struct EnrolmentArgs {
    /// Who signs.
    pub identity: Identity,
    /// Where devices and tokens are kept.
    pub store: Store,
    /// The time.
    pub clock: Arc<dyn Clock>,
}

/// What the actor is told.
pub enum EnrolmentMsg {
    /// A device that proved its key shows a token.
    Enrol {
        /// The device.
        peer: PeerDevice,
        /// The token.
        proof: TokenProof,
        /// What it is given, or why not.
        reply: Reply<Result<Enrolled, SyncError>>,
    },
}

/// The actor.
pub struct Enrolment {
    args: Arc<EnrolmentArgs>,
}

impl Node for Enrolment {
    const KIND: &'static str = "enrolment";
    type Msg = EnrolmentMsg;
    type Args = EnrolmentArgs;

    fn start(args: &Arc<EnrolmentArgs>, _: &Context<EnrolmentMsg>) -> Result<Self, NodeError> {
        Ok(Self { args: args.clone() })
    }

    async fn handle(
        &mut self,
        _: &Context<EnrolmentMsg>,
        msg: EnrolmentMsg,
    ) -> Result<(), NodeError> {
        let EnrolmentMsg::Enrol { peer, proof, reply } = msg;
        let args = self.args.clone();
        let answer = tokio::task::spawn_blocking(move || enrol(&args, &peer, &proof)).await?;
        reply.send(answer);
        Ok(())
    }

    fn label(_: &EnrolmentMsg) -> &'static str {
        "enrol"
    }
}

fn enrol(
    args: &EnrolmentArgs,
    peer: &PeerDevice,
    proof: &TokenProof,
) -> Result<Enrolled, SyncError> {
    let now_ms = args.clock.now().wall_ms;
    let read_error = |error: ReadError| error.to_sync_error();
    let known = args.store.device(peer.device).map_err(read_error)?;
    // A device that never got its answer, because one of the two lost power, comes again.
    let again = known
        .as_ref()
        .is_some_and(|known| known.key == peer.key && known.enrolled_by == proof.number);
    let token = check_token(&args.store, proof, now_ms, again)?;
    if known.as_ref().is_some_and(|known| known.key != peer.key) {
        let text = format!("device id {} belongs to another key already", peer.device);
        return Err(refuse(ErrorCode::Forbidden, text));
    }
    // Whoever shows a good token may know.
    if let Some(tombstone) = args.store.tombstone_of(peer.device).map_err(read_error)? {
        let why = tombstone.to_sync_error().message;
        let text = format!("{why}; it joins again under another id");
        return Err(refuse(ErrorCode::Retired, text));
    }
    let name = clean_name(&proof.name, peer.device);
    let identity = &args.identity;
    let validity = Validity { from_ms: 0, until_ms: now_ms + DEVICE_VALID_MS };
    let certificate = Chain {
        leaf: Certificate::issue(
            &identity.keypair,
            identity.fleet,
            Subject::Device(peer.device, None),
            peer.key,
            validity,
        ),
        issuer: Some(identity.certificate.leaf.clone()),
    };
    let secret = crate::random_bytes();
    let record = DeviceRecord {
        device: peer.device,
        name,
        key: peer.key,
        certificate: certificate.clone(),
        api_key_id: known.map_or(1, |known| known.api_key_id + 1),
        api_key_sha256: Sha256::digest(secret).into(),
        enrolled_ms: now_ms,
        enrolled_by: token.number,
    };
    let api_key = format!("{API_KEY_PREFIX}{}_{}", peer.device, HEXLOWER.encode(&secret));
    let uses_left = if again { token.uses_left } else { token.uses_left - 1 };
    let token = EnrolmentRecord { uses_left, ..token };
    fail::fail_point!("enrolment.before_commit");
    args.store
        .change_registry(vec![
            RegistryChange::Device(Box::new(record)),
            RegistryChange::Enrolment(token),
            RegistryChange::Done(Box::new(AuditDraft {
                at_ms: now_ms,
                principal: format!("device:{}", peer.device),
                operation: "enrol".into(),
                target: format!("enrolment token {}", proof.number),
                outcome: 200,
                reason: "shown the token".into(),
                entry: None,
            })),
        ])
        .map_err(|error| error.to_sync_error())?;
    fail::fail_point!("enrolment.stored");
    tracing::info!(device = %peer.device, token = proof.number, "device enrolled");
    Ok(Enrolled { certificate, api_key, now_ms })
}

/// The token, if it admits a device; `again`, if it has admitted this one already.
fn check_token(
    store: &Store,
    proof: &TokenProof,
    now_ms: u64,
    again: bool,
) -> Result<EnrolmentRecord, SyncError> {
    let token = store.enrolment(proof.number).map_err(|error| error.to_sync_error())?;
    let digest: [u8; 32] = Sha256::digest(proof.secret).into();
    // One answer for every way of being wrong: it tells a guesser nothing.
    let fits = |token: &EnrolmentRecord| bool::from(token.secret_sha256.ct_eq(&digest));
    match token.filter(fits) {
        None => Err(refuse(ErrorCode::BadToken, "the enrolment token is not valid")),
        Some(token) if token.expires_ms <= now_ms => {
            Err(refuse(ErrorCode::BadToken, "the enrolment token has expired: ask for a new one"))
        }
        Some(token) if token.uses_left == 0 && !again => {
            Err(refuse(ErrorCode::BadToken, "the enrolment token is used up: ask for a new one"))
        }
        Some(token) => Ok(token),
    }
}

/// Who has an API key.
#[derive(Debug)]
pub enum KeyHolder {
    /// A device of the fleet.
    Device(DeviceId),
    /// One that was retired.
    Retired(Box<Tombstone>),
}

/// Whose API key this is.
pub fn check_api_key(store: &Store, text: &str) -> Option<KeyHolder> {
    let (device, secret) = text.strip_prefix(API_KEY_PREFIX)?.split_once('_')?;
    let device = device.parse().ok()?;
    let secret = HEXLOWER.decode(secret.as_bytes()).ok()?;
    let digest: [u8; 32] = Sha256::digest(&secret).into();
    let fits = |known: &[u8; 32]| bool::from(known.ct_eq(&digest));
    if let Some(record) = store.device(device).ok()? {
        return fits(&record.api_key_sha256).then_some(KeyHolder::Device(device));
    }
    let tombstone = store.tombstone_of(device).ok()??;
    let fits = tombstone.device.as_ref().is_some_and(|former| fits(&former.api_key_sha256));
    fits.then(|| KeyHolder::Retired(Box::new(tombstone)))
}

fn clean_name(name: &str, device: DeviceId) -> String {
    let cleaned: String = name.chars().filter(|c| !c.is_control()).collect();
    let mut end = cleaned.len().min(NAME_BYTES_MAX);
    while !cleaned.is_char_boundary(end) {
        end -= 1;
    }
    match cleaned[..end].trim() {
        "" => device.short(),
        name => name.to_owned(),
    }
}

fn refuse(code: ErrorCode, text: impl Into<String>) -> SyncError {
    SyncError::new(code, ErrorSource::new(Layer::Brain, "enrolment", "enrol"), text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_cut_at_a_letter_and_never_empty() {
        let device = DeviceId([0xAB; 16]);
        assert_eq!(clean_name(" pump\n1 ", device), "pump1");
        assert_eq!(clean_name("\t", device), "abababab");
        assert!(clean_name(&"ä".repeat(100), device).len() <= NAME_BYTES_MAX);
    }
}
