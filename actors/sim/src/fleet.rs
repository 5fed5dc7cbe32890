//! A fleet's keys and certificates, the same in every simulation.

use protocol::history::{Genesis, TreeKind};
use protocol::keys::{Certificate, Chain, Keypair, Subject, Validity};
use protocol::session::handshake::EXPORTER_BYTES;
use protocol::{BrainId, DeviceId, FleetId, PublicKey};

use crate::network::LinkId;

/// The fleet.
pub const FLEET: FleetId = FleetId([0xF1; 16]);
/// Its only brain.
pub const BRAIN: BrainId = BrainId([0xB1; 16]);

/// The fleet's root key.
pub fn root_key() -> Keypair {
    Keypair::from_seed(&[1; 32])
}

/// The brain's key.
pub fn brain_key() -> Keypair {
    Keypair::from_seed(&[2; 32])
}

/// The brain's certificate.
pub fn brain_chain() -> Chain {
    let (subject, key) = (Subject::Brain(BRAIN), brain_key().public());
    let leaf = Certificate::issue(&root_key(), FLEET, subject, key, Validity::ALWAYS);
    Chain { leaf, issuer: None }
}

/// The id of device number `n`.
pub fn device_id(n: u8) -> DeviceId {
    let mut id = [0xD0; 16];
    id[15] = n;
    DeviceId(id)
}

/// The key of device number `n`.
pub fn device_key(n: u8) -> Keypair {
    let mut seed = [3; 32];
    seed[31] = n;
    Keypair::from_seed(&seed)
}

/// The certificate of a device's key.
pub fn device_chain(device: DeviceId, key: PublicKey) -> Chain {
    let subject = Subject::Device(device, None);
    let leaf = Certificate::issue(&brain_key(), FLEET, subject, key, Validity::ALWAYS);
    Chain { leaf, issuer: Some(brain_chain().leaf) }
}

/// The beginning of a device's tree.
pub fn genesis(device: DeviceId) -> Genesis {
    Genesis { kind: TreeKind::Device, fleet: FLEET, name: device.to_string() }
}

/// What TLS would give both ends of a link and nobody else.
pub fn exporter(link: LinkId) -> [u8; EXPORTER_BYTES] {
    let mut bytes = [0x55; EXPORTER_BYTES];
    bytes[..8].copy_from_slice(&link.to_be_bytes());
    bytes
}
