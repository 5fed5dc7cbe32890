//! A fleet's keys and certificates, the same in every simulation.

use std::fmt;
use std::sync::LazyLock;

use protocol::history::{Genesis, TreeKind};
use protocol::keys::{Certificate, Chain, Keypair, Subject, Validity};
use protocol::session::handshake::EXPORTER_BYTES;
use protocol::{BrainId, DeviceId, FleetId, PublicKey, TreeId};

use crate::network::LinkId;

/// The fleet.
pub const FLEET: FleetId = FleetId([0xF1; 16]);
/// Its only brain.
pub const BRAIN: BrainId = BrainId([0xB1; 16]);

/// What the names of groups begin with.
const GROUP_PREFIX: &str = "group-";

/// Derived once: it is asked for with every entry.
static BRAIN_PUBLIC: LazyLock<PublicKey> = LazyLock::new(|| brain_key().public());

/// Whose a tree is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Whose {
    /// A device's.
    Device(DeviceId),
    /// A group's, by its number.
    Group(u8),
}

impl Whose {
    /// The beginning of the tree.
    pub fn genesis(self) -> Genesis {
        let (kind, name) = match self {
            Self::Device(device) => (TreeKind::Device, device.to_string()),
            Self::Group(number) => (TreeKind::Group, format!("{GROUP_PREFIX}{number}")),
        };
        Genesis { kind, fleet: FLEET, name }
    }

    /// The tree's id.
    pub fn tree(self) -> TreeId {
        self.genesis().tree_id()
    }

    /// Whose the tree is that begins so; none where it is nobody's in this fleet.
    pub fn of(genesis: &Genesis) -> Option<Self> {
        let number = || genesis.name.strip_prefix(GROUP_PREFIX)?.parse().ok();
        let whose = match genesis.kind {
            TreeKind::Device => genesis.name.parse().ok().map(Self::Device),
            TreeKind::Group | TreeKind::Site => number().map(Self::Group),
        };
        whose.filter(|whose| whose.genesis() == *genesis)
    }
}

impl fmt::Display for Whose {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Device(device) => write!(f, "device {device}"),
            Self::Group(number) => write!(f, "group {number}"),
        }
    }
}

/// The fleet's root key.
pub fn root_key() -> Keypair {
    Keypair::from_seed(&[1; 32])
}

/// The brain's key.
pub fn brain_key() -> Keypair {
    Keypair::from_seed(&[2; 32])
}

/// What everybody knows of it.
pub fn brain_public() -> PublicKey {
    *BRAIN_PUBLIC
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
    Whose::Device(device).genesis()
}

/// What TLS would give both ends of a link and nobody else.
pub fn exporter(link: LinkId) -> [u8; EXPORTER_BYTES] {
    let mut bytes = [0x55; EXPORTER_BYTES];
    bytes[..8].copy_from_slice(&link.to_be_bytes());
    bytes
}
