//! Records of the brain's database, as a damaged disk or a wrong key may present them.
//!
//! A record is opened as it came, and once more under a checksum made to fit: the decoders behind
//! the checksum must stand on their own. What opens seals to the same bytes' meaning again, and
//! under another key it does not open.

#![no_main]

use std::fmt::Debug;

use actors::ports::{Evidence, ReadError, Segment, Snapshot, TreeRecord};
use brain::store::fuzzing::{open, path_of, seal, version_of};
use brain::store::{ApiToken, DeviceRecord, EnrolmentRecord, FormerDevice, Tombstone};
use fuzz::fleet::{self, DEVICE, genesis, key};
use fuzz::{memory, must, seeds};
use libfuzzer_sys::fuzz_target;
use protocol::history::{Leaf, LogState, Tree};
use protocol::state::StateSource;
use protocol::wire::Batch;
use protocol::{ErrorCode, codec, session};
use serde::Serialize;
use serde::de::DeserializeOwned;

const HELD_BYTES_MAX: usize = 32 << 20;
const KEY: &[u8] = b"\0\0\0\0\0\0\0\x01reported/a";

fuzz_target!(init: seeds::write(seeds), |input: &[u8]| {
    let Some((kind, record)) = input.split_first() else { return };
    memory::bounded(HELD_BYTES_MAX, || match kind % 11 {
        0 => check::<TreeRecord>(record),
        1 => check::<Segment>(record),
        2 => check::<Leaf>(record),
        3 => check::<Snapshot>(record),
        4 => check::<Evidence>(record),
        5 => check::<DeviceRecord>(record),
        6 => check::<EnrolmentRecord>(record),
        7 => check::<ApiToken>(record),
        8 => check::<LogState>(record),
        9 => check::<Tombstone>(record),
        _ => keys(record),
    });
});

fn check<T: Serialize + DeserializeOwned + PartialEq + Debug>(record: &[u8]) {
    if let Ok(value) = open::<T>(KEY, record) {
        sealed(&value);
    }
    // The body alone, under a checksum that fits: nothing but the decoder is left to refuse it.
    match codec::decode::<T>(record) {
        Ok(value) => sealed(&value),
        Err(error) => drop((error.code(), error.to_string())),
    }
}

fn sealed<T: Serialize + DeserializeOwned + PartialEq + Debug>(value: &T) {
    let record = seal(KEY, value);
    assert_eq!(must(open::<T>(KEY, &record), "an own record opens"), *value);
    assert!(open::<T>(b"another key", &record).is_err(), "a record belongs to its key");
    let mut damaged = record.clone();
    let at = damaged.len() / 2;
    damaged[at] ^= 0x10;
    let refused = open::<T>(KEY, &damaged);
    assert!(matches!(refused, Err(ReadError::Corrupt { .. })), "damage is noticed");
}

fn keys(key: &[u8]) {
    if let Some(path) = path_of(1, key) {
        assert!(key.ends_with(path.as_str().as_bytes()) && key.len() == 8 + path.as_str().len());
    }
    if let Some(version) = version_of(1, key) {
        assert_eq!(key, [1u64.to_be_bytes(), version.to_be_bytes()].concat());
    }
}

fn seeds() -> Vec<seeds::Seed> {
    let golden = |wanted: &str| {
        let found = seeds::records().into_iter().find(|(name, _)| name == wanted);
        found.expect("a golden record").1
    };
    let log: LogState = must(codec::decode(&golden("log_state")), "golden");
    let leaf: Leaf = must(codec::decode(&golden("leaf")), "golden");
    let batch: Batch = must(codec::decode(&golden("batch")), "golden");
    let source = StateSource::Hardware;
    let record = TreeRecord { version: 6, logs: vec![log.clone()], ..TreeRecord::new(genesis()) };
    let segment = Segment { first_version: 1, log: 0, at_ms: fleet::BASE_MS, batch };
    let path = protocol::state::Path::new("reported/a").expect("valid");
    let leaves = std::collections::BTreeMap::from([(path, leaf.clone())]);
    let logs = vec![log.clone()];
    let written_bytes = 9;
    let snapshot =
        Snapshot { version: 6, at_ms: 1, on_demand: true, source, written_bytes, logs, leaves };
    let error = session::error(ErrorCode::ClockAhead, "ingest", "ahead");
    let bytes = Tree::new(genesis()).root().to_vec();
    let evidence = Evidence { device: DEVICE, at_ms: 1, error, bytes };
    let device = DeviceRecord {
        device: DEVICE,
        name: "crane 4".into(),
        key: key(3).public(),
        certificate: fleet::device_chain(),
        api_key_id: 1,
        api_key_sha256: [7; 32],
        enrolled_ms: fleet::BASE_MS,
        enrolled_by: 77,
    };
    let enrolment = EnrolmentRecord {
        number: 77,
        secret_sha256: [8; 32],
        uses_left: 1,
        expires_ms: fleet::BASE_MS,
        created_ms: fleet::BASE_MS,
        label: "rack".into(),
    };
    let token = ApiToken {
        sha256: [9; 32],
        principal: "user:ada".into(),
        created_ms: fleet::BASE_MS,
        expires_ms: Some(fleet::BASE_MS),
    };
    let tombstone = Tombstone {
        genesis: genesis(),
        tree: Some(1),
        version: 6,
        root: Some([6; 32]),
        at_ms: fleet::BASE_MS,
        principal: "user:ada".into(),
        reason: "scrapped".into(),
        device: Some(FormerDevice {
            device: DEVICE,
            name: "crane 4".into(),
            key: key(3).public(),
            api_key_sha256: [7; 32],
            enrolled_ms: fleet::BASE_MS,
        }),
    };
    fn both<T: Serialize>(kind: u8, value: &T) -> [seeds::Seed; 2] {
        let with = |bytes: Vec<u8>| [&[kind], bytes.as_slice()].concat();
        [
            (format!("sealed_{kind}"), with(seal(KEY, value))),
            (format!("body_{kind}"), with(codec::encode(value))),
        ]
    }
    let mut all: Vec<seeds::Seed> = [
        both(0, &record),
        both(1, &segment),
        both(2, &leaf),
        both(3, &snapshot),
        both(4, &evidence),
        both(5, &device),
        both(6, &enrolment),
        both(7, &token),
        both(8, &log),
        both(9, &tombstone),
    ]
    .into_iter()
    .flatten()
    .collect();
    all.push(("key".to_owned(), [&[10], KEY].concat()));
    all
}
