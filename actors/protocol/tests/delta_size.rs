//! What crosses the wire is what changed.

use protocol::clock::{ClockQuality, Hlc};
use protocol::codec;
use protocol::compress::Compression;
use protocol::history::{Author, Change, Draft, Entry, Genesis, LogId, Provenance, Tree, TreeKind};
use protocol::state::{Path, StateSource, Value};
use protocol::wire::{self, Batch, Message, VERSION_MAX};
use protocol::{FleetId, PublicKey};

struct Writer {
    tree: Tree,
    author: Author,
    now_ms: u64,
}

impl Writer {
    fn new() -> Self {
        let log = LogId { author: PublicKey([3; 32]), epoch: 0xA5A5_5A5A_1234_5678 };
        let genesis =
            Genesis { kind: TreeKind::Device, fleet: FleetId([1; 16]), name: "tree".into() };
        let author = Author::new(log, Hlc::default());
        Self { tree: Tree::new(genesis), author, now_ms: 1_700_000_000_000 }
    }

    fn write(&mut self, changes: Vec<Change>) -> Entry {
        // Sensors report at a rhythm that is never exact.
        self.now_ms += 1_000 + self.now_ms % 7;
        let provenance = Provenance::new(StateSource::Hardware, "sensor:cpu_thermal", "dead band");
        let draft = Draft { changes, provenance, lease_until_ms: None };
        let quality = ClockQuality::Synchronised;
        let entry = self.author.write(&self.tree, draft, self.now_ms, quality).expect("a change");
        self.tree.apply(&entry, entry.id());
        entry
    }
}

fn leaf(text: &str, value: Value) -> Change {
    (Path::new(text).expect("valid"), Some(value))
}

fn frame_bytes(entries: &[Entry], compression: Compression) -> usize {
    let batch = Batch::pack(entries).expect("consecutive");
    wire::encode(&Message::Entries(batch), VERSION_MAX, compression).len()
}

#[test]
fn one_key_of_a_10_kb_state_costs_less_than_a_tenth_of_it() {
    let mut writer = Writer::new();
    let state: Vec<_> = (0..200)
        .map(|n| leaf(&format!("reported/part{n:03}/note"), Value::from(format!("{n:030}"))))
        .collect();
    writer.write(state);
    let state_bytes = codec::encode(&writer.tree.state()).len();
    assert!(state_bytes >= 10_000, "{state_bytes} bytes of state");

    let change = writer.write(vec![leaf("reported/part007/note", Value::from("changed"))]);
    for compression in [Compression::None, Compression::Gzip, Compression::Zstd] {
        let sent = frame_bytes(std::slice::from_ref(&change), compression);
        println!("{sent} bytes sent, {compression:?}, for one key of {state_bytes} bytes of state");
        assert!(sent * 10 < state_bytes, "{sent} of {state_bytes} bytes");
    }
}

#[test]
fn a_one_leaf_update_in_a_batch_of_40_takes_40_bytes_at_most() {
    let mut writer = Writer::new();
    let update = |n: i64| {
        let celsius = Value::float(50.0 + (n * 37 % 100) as f64 / 8.0).expect("finite");
        vec![leaf("reported/thermal/cpu_celsius", celsius)]
    };
    let entries: Vec<_> = (0..40).map(|n| writer.write(update(n))).collect();
    for compression in [Compression::None, Compression::Gzip, Compression::Zstd] {
        let bytes = frame_bytes(&entries, compression);
        let each = bytes as f64 / 40.0;
        println!("{each:.1} bytes an update of {bytes} in all, {compression:?}");
        assert!(each <= 40.0, "{each} bytes an update");
    }
}

#[test]
fn entries_of_many_kinds_of_leaves_stay_small_in_a_batch() {
    let mut writer = Writer::new();
    let update = |n: i64| vec![leaf(&format!("reported/gpio/line{:02}", n % 16), Value::from(n))];
    let entries: Vec<_> = (0..400).map(|n| writer.write(update(n))).collect();
    let each = frame_bytes(&entries, Compression::None) as f64 / 400.0;
    println!("{each:.1} bytes an update, uncompressed, over 16 leaves");
    assert!(each <= 25.0, "{each} bytes an update");
}
