//! The bytes that must never change, checked in under `tests/golden/` as `name = hex` lines.
//!
//! `GOLDEN=write cargo test -p protocol --test golden` writes the files anew; that is right only
//! for a format that has never left this repository.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use data_encoding::HEXLOWER;
use protocol::clock::{ClockQuality, Hlc};
use protocol::codec;
use protocol::compress::Compression;
use protocol::history::{
    Candidate, Checkpoint, Cut, CutCause, Entry, EntryKind, Genesis, Head, Leaf, LogId, LogState,
    Provenance, SignedHead, Tree, TreeKind, VersionVector,
};
use protocol::keys::{Certificate, Chain, EnrolmentToken, Keypair, Subject, Validity};
use protocol::state::{Path, Scalar, StateDelta, StateSource, Value};
use protocol::trace::EntryTrace;
use protocol::wire::{self, Batch, Message, VERSION_MAX};
use protocol::{
    BrainId, DeviceId, EntryId, ErrorCode, ErrorSource, FleetId, Layer, Signature, SiteId,
    SyncError, TreeId,
};

const FLEET: FleetId = FleetId([0xF1; 16]);
const DEVICE: DeviceId = DeviceId([0xD1; 16]);
const BRAIN: BrainId = BrainId([0xB1; 16]);

type Vectors = Vec<(String, Vec<u8>)>;

/// The checked-in vectors of a file; in write mode they are `current`, and written first.
fn checked_in(file: &str, current: &Vectors) -> BTreeMap<String, Vec<u8>> {
    let path = PathBuf::from("tests/golden").join(file);
    if std::env::var("GOLDEN").is_ok_and(|mode| mode == "write") {
        let lines =
            current.iter().map(|(name, bytes)| format!("{name} = {}\n", HEXLOWER.encode(bytes)));
        fs::write(&path, lines.collect::<String>()).expect("the golden folder is writable");
    }
    let text = fs::read_to_string(&path).expect("the golden file is checked in");
    let line = |line: &str| {
        let (name, hex) = line.split_once(" = ").expect("`name = hex`");
        (name.to_owned(), HEXLOWER.decode(hex.as_bytes()).expect("hexadecimal"))
    };
    text.lines().map(line).collect()
}

/// Compares every vector with its checked-in line, and the other way round.
fn check<N: ToString>(file: &str, current: Vec<(N, Vec<u8>)>) -> BTreeMap<String, Vec<u8>> {
    let current: Vectors =
        current.into_iter().map(|(name, bytes)| (name.to_string(), bytes)).collect();
    let golden = checked_in(file, &current);
    for (name, bytes) in &current {
        let expected = golden.get(name).unwrap_or_else(|| panic!("{name} is not in {file}"));
        assert_eq!(HEXLOWER.encode(bytes), HEXLOWER.encode(expected), "{name} of {file} changed");
    }
    assert_eq!(golden.len(), current.len(), "{file} has vectors that nothing makes");
    golden
}

fn key(n: u8) -> Keypair {
    Keypair::from_seed(&[n; 32])
}

fn path(text: &str) -> Path {
    Path::new(text).expect("valid")
}

fn group() -> Genesis {
    Genesis { kind: TreeKind::Group, fleet: FLEET, name: "north".into() }
}

fn genesis() -> Genesis {
    Genesis { kind: TreeKind::Device, fleet: FLEET, name: DEVICE.to_string() }
}

fn device_log() -> LogId {
    LogId { author: key(3).public(), epoch: 0x0102_0304_0506_0708 }
}

fn brain_log() -> LogId {
    LogId { author: key(2).public(), epoch: 42 }
}

fn entry(seq: u64, prev: EntryId) -> Entry {
    Entry {
        tree: genesis().tree_id(),
        log: device_log(),
        seq,
        prev,
        seen: VersionVector::default(),
        hlc: Hlc { wall_ms: 1_700_000_000_000 + seq, counter: 3 },
        clock: ClockQuality::Synchronised,
        provenance: Provenance::new(StateSource::Hardware, "sensor:cpu_thermal", "dead band"),
        policy: 0,
        kind: EntryKind::STATE,
        schema: 1,
        lease_until_ms: None,
        delta: StateDelta::default(),
        extra: Vec::new(),
    }
}

/// A log in which each entry shows one more feature of the format.
fn entries() -> Vec<(&'static str, Entry)> {
    let all_values = [
        ("reported/bool", Value::from(true)),
        ("reported/bytes", Value::Scalar(Scalar::Bytes(vec![0, 0xFF, 0x80]))),
        ("reported/float", Value::float(51.25).expect("finite")),
        ("reported/int", Value::from(i64::MIN)),
        ("reported/list", Value::List(vec![Scalar::Int(1), Scalar::Text("zwei".into())])),
        ("reported/minus_zero", Value::float(-0.0).expect("finite")),
        ("reported/no_items", Value::List(Vec::new())),
        ("reported/text", Value::from("größe")),
    ];
    type Feature<'a> = &'a dyn Fn(&mut Entry);
    let features: [(&str, Feature<'_>); 6] = [
        ("first", &|entry| {
            entry.delta.added.insert(path("reported/thermal/cpu_celsius"), Value::from(51));
        }),
        ("with_seen", &|entry| {
            entry.seen.advance(brain_log(), 300);
            entry.delta.modified.insert(path("reported/thermal/cpu_celsius"), Value::from(52));
        }),
        ("with_removed", &|entry| {
            entry.clock = ClockQuality::Unsynchronised;
            entry.delta.removed.insert(path("reported/thermal/cpu_celsius"));
        }),
        ("with_lease", &|entry| {
            entry.clock = ClockQuality::Rtc;
            entry.provenance = Provenance::new(StateSource::Operator, "user:ada", "on site");
            entry.lease_until_ms = Some(1_700_000_600_000);
            entry.policy = 7;
            entry.delta.added.insert(path("override/fan/duty"), Value::from(100));
        }),
        ("every_value", &|entry| {
            let values = all_values.clone();
            entry.delta.added = values.map(|(name, value)| (path(name), value)).into();
        }),
        ("unknown_kind", &|entry| {
            entry.kind = EntryKind(999);
            entry.schema = 5;
            entry.extra = b"from a later release".to_vec();
        }),
    ];
    let mut prev = Entry::NO_PREV;
    let mut log = Vec::new();
    for ((name, feature), seq) in features.into_iter().zip(1..) {
        let mut entry = entry(seq, prev);
        feature(&mut entry);
        prev = entry.id();
        log.push((name, entry));
    }
    log
}

fn entry_trace() -> EntryTrace {
    let parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    EntryTrace { seq: 6, context: parent.parse().expect("the specification's example") }
}

fn batch() -> Batch {
    let entries: Vec<_> = entries().into_iter().map(|(_, entry)| entry).collect();
    Batch::pack(&entries).expect("consecutive")
}

fn device_chain() -> Chain {
    let (brain, device) = (Subject::Brain(BRAIN), Subject::Device(DEVICE, Some(SiteId([5; 16]))));
    let validity = Validity { from_ms: 1, until_ms: 2_000_000_000_000 };
    Chain {
        leaf: Certificate::issue(&key(2), FLEET, device, key(3).public(), validity),
        issuer: Some(Certificate::issue(&key(1), FLEET, brain, key(2).public(), Validity::ALWAYS)),
    }
}

fn signed_head(id: u8) -> SignedHead {
    let head = Head { tree: genesis().tree_id(), log: device_log(), seq: 6, id: EntryId([id; 32]) };
    SignedHead::sign(&key(3), head)
}

fn cut(cause: CutCause) -> Cut {
    let (tree, log) = (genesis().tree_id(), device_log());
    Cut { tree, log, last_seq: 5, last_id: EntryId([5; 32]), cause }
}

fn cuts() -> [(&'static str, Cut); 3] {
    let sealed = Cut::seal(&key(3), genesis().tree_id(), device_log(), 5, EntryId([5; 32]));
    // The authority's signature is over the same layout as the author's, with cause 2.
    let mut canonical = protocol::canonical::Writer::new("fleet-cut-v1");
    canonical.raw(&sealed.tree.0).raw(&sealed.log.author.0).u64(sealed.log.epoch);
    canonical.u64(5).raw(&[5; 32]).u8(2);
    let signature = key(1).sign(&canonical.finish());
    let revoked = CutCause::Revoked { authority: key(1).public(), signature };
    let heads = Box::new([signed_head(1), signed_head(2)]);
    [
        ("cut_sealed", sealed),
        ("cut_revoked", cut(revoked)),
        ("cut_equivocation", cut(CutCause::Equivocation { heads })),
    ]
}

fn token() -> EnrolmentToken {
    EnrolmentToken {
        fleet: FLEET,
        root: key(1).public(),
        tls_ca_sha256: [0xCA; 32],
        number: 77,
        secret: [0x5E; 32],
    }
}

fn error() -> SyncError {
    let origin = ErrorSource::new(Layer::Protocol, "session", "take entries");
    SyncError::new(ErrorCode::ClockAhead, origin, "entry 6 is 61000 ms ahead")
}

fn small_tree() -> Tree {
    let mut tree = Tree::new(genesis());
    for (_, entry) in entries() {
        tree.apply(&entry, entry.id());
    }
    tree
}

fn log_state() -> LogState {
    let context = VersionVector::from_iter([(brain_log(), 300)]);
    let [(_, sealed), ..] = cuts();
    LogState {
        log: device_log(),
        seq: 6,
        head: EntryId([1; 32]),
        hlc: Hlc { wall_ms: 9, counter: 1 },
        context,
        signed: Some(signed_head(1)),
        cut: Some(sealed),
    }
}

fn leaf() -> Leaf {
    let candidate = |log, value| Candidate {
        log,
        seq: 9,
        value,
        hlc: Hlc { wall_ms: 1_700_000_000_009, counter: 0 },
        lease_until_ms: (log == 1).then_some(1_700_000_600_000),
        policy: 7,
        source: StateSource::Operator,
    };
    Leaf { candidates: vec![candidate(0, Some(Value::from("on"))), candidate(1, None)] }
}

/// The first of two parts, with a checkpoint in it that has all that one can have.
fn checkpoint_part() -> wire::CheckpointPart {
    let mut other = log_state();
    (other.log, other.signed, other.cut) = (brain_log(), None, None);
    other.seq = 300;
    let leaves = [(path("desired/fan/mode"), leaf())].into();
    let tree = genesis().tree_id();
    let checkpoint = Checkpoint::sign(&key(2), tree, vec![other, log_state()], leaves);
    wire::CheckpointPart { tree, part: 0, parts: 2, bytes: codec::encode(&checkpoint) }
}

fn messages() -> Vec<(&'static str, Message)> {
    let (tree, log) = (genesis().tree_id(), device_log());
    let challenge_response = Signature([0x51; 64]);
    let secret = [0x5E; 32];
    let token = wire::TokenProof { number: 77, secret, name: "crane 4".into() };
    let hello = wire::Hello {
        versions: wire::VersionRange { min: 1, max: 1 },
        capabilities: wire::Capabilities(0),
        compressions: 0b110,
        purpose: wire::Purpose::Link,
        fleet: FLEET,
        device_id: DEVICE,
        public_key: key(3).public(),
        certificate: Some(device_chain()),
        challenge: [0xC1; 32],
    };
    let brain = Subject::Brain(BRAIN);
    let leaf = Certificate::issue(&key(1), FLEET, brain, key(2).public(), Validity::ALWAYS);
    let reply = wire::HelloReply {
        version: 1,
        capabilities: wire::Capabilities(0),
        compression: Compression::Zstd,
        answerer: BRAIN.0,
        public_key: key(2).public(),
        certificate: Chain { leaf, issuer: None },
        challenge: [0xC2; 32],
    };
    let enrolled = wire::Enrolled {
        certificate: device_chain(),
        api_key: "fbk_secret".into(),
        now_ms: 1_700_000_000_000,
    };
    let welcome = wire::Welcome {
        connection: 12,
        now_ms: 1_700_000_000_000,
        heartbeat_ms: 15_000,
        credit_bytes: 256 << 10,
    };
    let position = wire::LogPosition { log, seq: 6, id: EntryId([1; 32]), sealed: 5 };
    let ack = wire::Ack { tree, log, stored: 6, sealed: 5, credit_bytes: 1_000 };
    let now_ms = 1_700_000_000_000;
    let refuse = wire::Refuse { tree, log, seq: 6, error: error(), now_ms, credit_bytes: 70_000 };
    let mut messages = vec![
        ("hello", Message::Hello(hello)),
        ("hello_reply", Message::HelloReply(reply)),
        ("auth_link", Message::Auth(wire::Auth { challenge_response, token: None })),
        ("auth_enrol", Message::Auth(wire::Auth { challenge_response, token: Some(token) })),
        ("welcome", Message::Welcome(welcome)),
        ("enrolled", Message::Enrolled(enrolled)),
        ("heads", Message::Heads(wire::Heads { tree, logs: vec![position] })),
        ("entries", Message::Entries(batch())),
        ("signed_head", Message::SignedHead(signed_head(1))),
        ("ack", Message::Ack(ack)),
        ("refuse", Message::Refuse(refuse)),
        ("ping", Message::Ping(wire::Ping { sent_ms: 7_000 })),
        ("pong", Message::Pong(wire::Pong { sent_ms: 7_000, now_ms })),
        ("traces", Message::Traces(wire::Traces { tree, log, entries: vec![entry_trace()] })),
        (
            "share",
            Message::Share(wire::Share { genesis: group(), logs: vec![position], root: [7; 32] }),
        ),
        ("leave", Message::Leave(wire::Leave { tree: group().tree_id() })),
        ("checkpoint", Message::Checkpoint(checkpoint_part())),
        ("close", Message::Close(wire::Close { error: error(), retry_after_ms: Some(2_500) })),
    ];
    messages.extend(cuts().map(|(name, cut)| (name, Message::Cut(cut))));
    messages
}

#[test]
fn entries_keep_their_bytes_and_ids() {
    let mut vectors = Vectors::new();
    for (name, entry) in entries() {
        assert_eq!(
            entry.id().0,
            *blake3::hash(&entry.canonical()).as_bytes(),
            "the id is the hash of the bytes"
        );
        vectors.push((name.to_owned(), entry.canonical()));
        vectors.push((format!("{name}_id"), entry.id().0.to_vec()));
    }
    check("entries.txt", vectors);
}

#[test]
fn trees_keep_their_ids_and_roots() {
    let id = |kind| Genesis { kind, ..genesis() }.tree_id().0.to_vec();
    let vectors = vec![
        ("device_tree_id", id(TreeKind::Device)),
        ("group_tree_id", id(TreeKind::Group)),
        ("site_tree_id", id(TreeKind::Site)),
        ("empty_root", Tree::new(genesis()).root().to_vec()),
        ("small_root", small_tree().root().to_vec()),
    ];
    check("trees.txt", vectors);
}

#[test]
fn records_keep_their_bytes_and_decode_to_what_they_were() {
    let mut vectors = vec![
        ("certificate_chain", codec::encode(&device_chain())),
        ("signed_head", codec::encode(&signed_head(1))),
        ("enrolment_token", token().to_text().into_bytes()),
        ("sync_error", codec::encode(&error())),
        ("log_state", codec::encode(&log_state())),
        ("leaf", codec::encode(&leaf())),
        ("batch", codec::encode(&batch())),
    ];
    vectors.extend(cuts().map(|(name, cut)| (name, codec::encode(&cut))));
    let golden = check("records.txt", vectors);

    let chain: Chain = codec::decode(&golden["certificate_chain"]).expect("decodes");
    assert_eq!(chain, device_chain());
    assert!(chain.verify(FLEET, key(1).public(), Some(5)).is_ok(), "the signatures still hold");
    let head: SignedHead = codec::decode(&golden["signed_head"]).expect("decodes");
    assert_eq!((head, head.verify()), (signed_head(1), Ok(())));
    let text = std::str::from_utf8(&golden["enrolment_token"]).expect("text");
    assert_eq!(text.parse(), Ok(token()));
    assert_eq!(codec::decode(&golden["sync_error"]), Ok(error()));
    assert_eq!(codec::decode(&golden["log_state"]), Ok(log_state()));
    assert_eq!(codec::decode(&golden["leaf"]), Ok(leaf()));
    for (name, cut) in cuts() {
        assert_eq!(codec::decode(&golden[name]), Ok(cut.clone()));
        assert_eq!(cut.verify(|key| key == self::key(1).public()), Ok(()), "{name}");
    }
    let unpacked = codec::decode::<Batch>(&golden["batch"]).expect("decodes").unpack();
    let expected = entries().into_iter().map(|(_, entry)| (entry.id(), entry));
    assert_eq!(unpacked, Ok(expected.collect()));
}

#[test]
fn frames_keep_their_bytes_and_decode_to_what_they_were() {
    let frame = |message: &Message| wire::encode(message, VERSION_MAX, Compression::None);
    let vectors: Vec<_> =
        messages().iter().map(|(name, message)| (*name, frame(message))).collect();
    let golden = check("frames.txt", vectors);
    for (name, message) in messages() {
        assert_eq!(wire::decode(&golden[name]), Ok(message), "{name}");
    }
}

#[test]
fn compressed_frames_of_other_compressors_decode() {
    let frame = |wanted| wire::encode(&Message::Entries(batch()), VERSION_MAX, wanted);
    let vectors = vec![
        ("gzip".to_owned(), frame(Compression::Gzip)),
        ("zstd".to_owned(), frame(Compression::Zstd)),
    ];
    // Not compared: another release of a compressor may find other bytes for the same content.
    let golden = checked_in("compressed.txt", &vectors);
    for (name, flags) in [("gzip", 1), ("zstd", 2)] {
        assert_eq!(golden[name][3], flags, "{name} is compressed");
        assert_eq!(wire::decode(&golden[name]), Ok(Message::Entries(batch())), "{name}");
    }
}

#[test]
fn a_tree_id_names_kind_fleet_and_name() {
    let ids = [
        genesis().tree_id(),
        Genesis { kind: TreeKind::Site, ..genesis() }.tree_id(),
        Genesis { fleet: FleetId([0; 16]), ..genesis() }.tree_id(),
        Genesis { name: String::new(), ..genesis() }.tree_id(),
    ];
    let distinct: std::collections::BTreeSet<TreeId> = ids.into();
    assert_eq!(distinct.len(), ids.len());
}
