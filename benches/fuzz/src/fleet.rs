//! A small fleet: a root, a brain, a device, and what each brings to a connection.

use std::sync::LazyLock;

use protocol::clock::{ClockQuality, Hlc};
use protocol::compress::Compression;
use protocol::history::{Entry, EntryKind, Genesis, LogId, Provenance, TreeKind, VersionVector};
use protocol::keys::{Certificate, Chain, Keypair, Subject, Validity};
use protocol::session::handshake::{Answerer, Answering, Caller, Intent};
use protocol::session::{Limits, Now, Replica};
use protocol::state::{Path, Scalar, StateDelta, StateSource, Value};
use protocol::wire::{Enrolled, TokenProof};
use protocol::{BrainId, DeviceId, EntryId, FleetId};

use crate::script::Script;

/// The fleet.
pub const FLEET: FleetId = FleetId([0xF1; 16]);
/// The device.
pub const DEVICE: DeviceId = DeviceId([0xD1; 16]);
/// The brain.
pub const BRAIN: BrainId = BrainId([0xB1; 16]);
/// When everything begins, in milliseconds since the Unix epoch.
pub const BASE_MS: u64 = 1_700_000_000_000;

/// Made once: a key or a signature costs more than all else that most inputs do.
static KEYS: LazyLock<[Keypair; 6]> =
    LazyLock::new(|| [0, 1, 2, 3, 4, 5].map(|n| Keypair::from_seed(&[n; 32])));

/// The keys: 1 is the root's, 2 the brain's, 3 the device's, 4 and 5 are strangers'.
pub fn key(n: u8) -> Keypair {
    KEYS[usize::from(n)].clone()
}

/// The device's tree.
pub fn genesis() -> Genesis {
    Genesis { kind: TreeKind::Device, fleet: FLEET, name: DEVICE.to_string() }
}

/// The device's log.
pub fn device_log() -> LogId {
    LogId { author: key(3).public(), epoch: 1 }
}

static BRAIN_CERTIFICATE: LazyLock<Certificate> = LazyLock::new(|| {
    let subject = Subject::Brain(BRAIN);
    Certificate::issue(&key(1), FLEET, subject, key(2).public(), Validity::ALWAYS)
});

static DEVICE_CERTIFICATE: LazyLock<Certificate> = LazyLock::new(|| {
    let subject = Subject::Device(DEVICE, None);
    Certificate::issue(&key(2), FLEET, subject, key(3).public(), Validity::ALWAYS)
});

/// The certificate of the brain.
pub fn brain_chain() -> Chain {
    Chain { leaf: BRAIN_CERTIFICATE.clone(), issuer: None }
}

/// The certificate of the device.
pub fn device_chain() -> Chain {
    Chain { leaf: DEVICE_CERTIFICATE.clone(), issuer: Some(BRAIN_CERTIFICATE.clone()) }
}

/// What a device brings to a connection.
pub fn caller(enrols: bool, exporter: u8) -> Caller {
    let replica = Replica {
        tree: genesis().tree_id(),
        logs: Vec::new(),
        floor: protocol::history::VersionVector::default(),
        ends: Vec::new(),
        author: key(3).public(),
    };
    let token = TokenProof { number: 77, secret: [0x5E; 32], name: "crane 4".into() };
    Caller {
        fleet: FLEET,
        root: key(1).public(),
        device: DEVICE,
        keypair: key(3),
        intent: if enrols {
            Intent::Enrol { token }
        } else {
            Intent::Link { certificate: device_chain(), replica }
        },
        compressions: Compression::Zstd.bit() | Compression::Gzip.bit(),
        challenge: [7; 32],
        exporter: [exporter; 32],
    }
}

/// What a brain brings to a connection.
pub fn answerer(exporter: u8) -> Answerer {
    Answerer {
        fleet: FLEET,
        root: key(1).public(),
        who: Answering::Brain(BRAIN),
        brains: [].into(),
        keypair: key(2),
        certificate: brain_chain(),
        compressions: Compression::Zstd.bit() | Compression::Gzip.bit(),
        challenge: [8; 32],
        exporter: [exporter; 32],
        limits: Limits::default(),
    }
}

/// What a brain gives to a device that enrols.
pub fn enrolled() -> Enrolled {
    Enrolled { certificate: device_chain(), api_key: "fbk_secret".into(), now_ms: BASE_MS }
}

/// The time `ms` after the beginning.
pub fn at(ms: u64) -> Now {
    Now { wall_ms: BASE_MS + ms, mono_ms: 1_000 + ms, quality: ClockQuality::Synchronised }
}

/// An entry of any content, at the place in a log that is given.
///
/// Most of what a script says of paths and values is sound, since what is not goes no further
/// than the first check.
pub fn entry(script: &mut Script<'_>, log: LogId, seq: u64, prev: EntryId) -> Entry {
    let mut delta = StateDelta::default();
    for _ in 0..script.below(6) {
        let kind = script.below(3);
        let Some(path) = path(script) else { continue };
        match kind {
            0 => drop(delta.added.insert(path, value(script))),
            1 => drop(delta.modified.insert(path, value(script))),
            _ => drop(delta.removed.insert(path)),
        }
    }
    let mut seen = VersionVector::default();
    for _ in 0..script.below(3) {
        let author = key(1 + script.below(4) as u8).public();
        seen.advance(LogId { author, epoch: script.number() }, script.number());
    }
    let sources = StateSource::ALL;
    let provenance =
        Provenance::new(sources[script.below(sources.len())], &script.text(), &script.text());
    Entry {
        tree: genesis().tree_id(),
        log,
        seq,
        prev,
        seen,
        hlc: Hlc {
            wall_ms: BASE_MS + u64::from(script.short()),
            counter: script.below(256) as u32,
        },
        clock: [ClockQuality::Synchronised, ClockQuality::Unsynchronised, ClockQuality::Rtc]
            [script.below(3)],
        provenance,
        policy: script.below(256) as u32,
        kind: if script.below(8) == 7 { EntryKind(script.short()) } else { EntryKind::STATE },
        schema: 1,
        lease_until_ms: (script.below(4) == 3).then(|| script.number()),
        delta,
        extra: if script.below(8) == 7 { script.bytes().to_vec() } else { Vec::new() },
    }
}

/// A path, often one whose segment says that the device or the brain may write it.
pub fn path(script: &mut Script<'_>) -> Option<Path> {
    let first = ["reported", "override", "claims", "desired", "tags", "shared"];
    match script.below(8) {
        7 => Path::new(&script.text()).ok(),
        n => {
            let first = first[n % first.len()];
            Path::new(&format!("{first}/{}", ["a", "b/c", "d", "b"][script.below(4)])).ok()
        }
    }
}

/// A value of any type.
pub fn value(script: &mut Script<'_>) -> Value {
    let scalar = |script: &mut Script<'_>| match script.below(5) {
        0 => Scalar::Bool(script.byte() & 1 == 1),
        1 => Scalar::Int(script.number() as i64),
        2 => match protocol::state::Finite::new(f64::from_bits(script.number())) {
            Ok(finite) => Scalar::Float(finite),
            Err(_) => Scalar::Int(0),
        },
        3 => Scalar::Text(script.text()),
        _ => Scalar::Bytes(script.bytes().to_vec()),
    };
    if script.below(4) == 3 {
        let items = (0..script.below(8)).map(|_| scalar(script)).collect();
        return Value::List(items);
    }
    Value::Scalar(scalar(script))
}
