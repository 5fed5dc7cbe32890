//! The canonical encoding is injective: a reader written from its rules alone gets the same
//! entry back, so no two entries share bytes.

use proptest::collection::{btree_map, btree_set, vec};
use proptest::prelude::*;
use protocol::canonical::Writer;
use protocol::clock::{ClockQuality, Hlc};
use protocol::history::{Entry, EntryKind, LogId, Provenance, VersionVector};
use protocol::state::{Finite, Path, Scalar, StateDelta, StateSource, Value};
use protocol::{EntryId, PublicKey, TreeId};

/// Reads what `canonical::Writer` wrote, by the rules in that module's documentation.
struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn raw<const N: usize>(&mut self) -> [u8; N] {
        let (head, rest) = self.0.split_first_chunk().expect("enough bytes");
        self.0 = rest;
        *head
    }

    fn u8(&mut self) -> u8 {
        u8::from_be_bytes(self.raw())
    }

    fn u32(&mut self) -> u32 {
        u32::from_be_bytes(self.raw())
    }

    fn u64(&mut self) -> u64 {
        u64::from_be_bytes(self.raw())
    }

    fn bytes(&mut self) -> Vec<u8> {
        let len = self.u32() as usize;
        let (head, rest) = self.0.split_at(len);
        self.0 = rest;
        head.to_vec()
    }

    fn text(&mut self) -> String {
        String::from_utf8(self.bytes()).expect("UTF-8")
    }

    fn path(&mut self) -> Path {
        Path::new(&self.text()).expect("valid")
    }

    fn items<T, C: FromIterator<T>>(&mut self, item: impl Fn(&mut Self) -> T) -> C {
        (0..self.u32()).map(|_| item(self)).collect()
    }

    fn log(&mut self) -> LogId {
        LogId { author: PublicKey(self.raw()), epoch: self.u64() }
    }

    fn scalar(&mut self, tag: u8) -> Scalar {
        match tag {
            1 => Scalar::Bool(self.u8() == 1),
            2 => Scalar::Int(self.u64() as i64),
            3 => Scalar::Float(Finite::new(f64::from_bits(self.u64())).expect("finite")),
            4 => Scalar::Text(self.text()),
            5 => Scalar::Bytes(self.bytes()),
            other => panic!("{other} is no scalar's tag"),
        }
    }

    fn value(&mut self) -> Value {
        match self.u8() {
            6 => Value::List(self.items(|reader| {
                let tag = reader.u8();
                reader.scalar(tag)
            })),
            tag => Value::Scalar(self.scalar(tag)),
        }
    }

    fn leaf(&mut self) -> (Path, Value) {
        (self.path(), self.value())
    }

    fn entry(&mut self) -> Entry {
        assert_eq!(self.text(), "fleet-entry-v1");
        Entry {
            tree: TreeId(self.raw()),
            log: self.log(),
            seq: self.u64(),
            prev: EntryId(self.raw()),
            seen: self.items(|reader| (reader.log(), reader.u64())),
            hlc: Hlc { wall_ms: self.u64(), counter: self.u32() },
            clock: QUALITIES[self.u8() as usize],
            provenance: Provenance {
                source: StateSource::ALL[self.u8() as usize],
                principal: self.text(),
                reason: self.text(),
            },
            policy: self.u32(),
            kind: EntryKind(u16::from_be_bytes(self.raw())),
            schema: u16::from_be_bytes(self.raw()),
            lease_until_ms: match self.u8() {
                0 => None,
                _ => Some(self.u64()),
            },
            delta: StateDelta {
                added: self.items(Self::leaf),
                modified: self.items(Self::leaf),
                removed: self.items(Self::path),
            },
            extra: self.bytes(),
        }
    }
}

const QUALITIES: [ClockQuality; 3] =
    [ClockQuality::Synchronised, ClockQuality::Unsynchronised, ClockQuality::Rtc];

fn scalars() -> impl Strategy<Value = Scalar> {
    prop_oneof![
        any::<bool>().prop_map(Scalar::Bool),
        any::<i64>().prop_map(Scalar::Int),
        finite().prop_map(Scalar::Float),
        ".{0,8}".prop_map(Scalar::Text),
        vec(any::<u8>(), 0..8).prop_map(Scalar::Bytes),
    ]
}

fn finite() -> impl Strategy<Value = Finite> {
    any::<f64>().prop_filter_map("finite", |number| Finite::new(number).ok())
}

fn values() -> impl Strategy<Value = Value> {
    prop_oneof![
        3 => scalars().prop_map(Value::Scalar),
        1 => vec(scalars(), 0..4).prop_map(Value::List),
    ]
}

fn paths() -> impl Strategy<Value = Path> {
    "[a-c]{1,2}(/[a-zä]{1,3}){0,3}".prop_map(|text| Path::new(&text).expect("valid"))
}

fn deltas() -> impl Strategy<Value = StateDelta> {
    let leaves = || btree_map(paths(), values(), 0..4);
    (leaves(), leaves(), btree_set(paths(), 0..3))
        .prop_map(|(added, modified, removed)| StateDelta { added, modified, removed })
}

fn logs() -> impl Strategy<Value = LogId> {
    (any::<[u8; 32]>(), any::<u64>())
        .prop_map(|(author, epoch)| LogId { author: PublicKey(author), epoch })
}

prop_compose! {
    fn entries()(
        (tree, log, seq, prev) in (any::<[u8; 32]>(), logs(), any::<u64>(), any::<[u8; 32]>()),
        seen in vec((logs(), 1u64..), 0..4),
        (wall_ms, counter, clock) in (any::<u64>(), any::<u32>(), 0usize..3),
        (source, principal, reason) in (0usize..5, ".{0,6}", ".{0,6}"),
        (policy, kind, schema) in (any::<u32>(), any::<u16>(), any::<u16>()),
        lease_until_ms in any::<Option<u64>>(),
        delta in deltas(),
        extra in vec(any::<u8>(), 0..8),
    ) -> Entry {
        Entry {
            tree: TreeId(tree),
            log,
            seq,
            prev: EntryId(prev),
            seen: seen.into_iter().collect::<VersionVector>(),
            hlc: Hlc { wall_ms, counter },
            clock: QUALITIES[clock],
            provenance: Provenance { source: StateSource::ALL[source], principal, reason },
            policy,
            kind: EntryKind(kind),
            schema,
            lease_until_ms,
            delta,
            extra,
        }
    }
}

fn canonical(value: &Value) -> Vec<u8> {
    let mut writer = Writer::new("value");
    value.write_canonical(&mut writer);
    writer.finish()
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn canonical_bytes_read_back_as_the_entry(entry in entries()) {
        let bytes = entry.canonical();
        let mut reader = Reader(&bytes);
        prop_assert_eq!(&reader.entry(), &entry);
        prop_assert!(reader.0.is_empty(), "nothing follows the entry");
        prop_assert_eq!(entry.id().0, *blake3::hash(&bytes).as_bytes());
    }

    #[test]
    fn entries_share_bytes_only_when_equal(a in entries(), b in entries(), same in any::<bool>()) {
        let b = if same { a.clone() } else { b };
        prop_assert_eq!(a == b, a.canonical() == b.canonical());
        prop_assert_eq!(a == b, a.id() == b.id());
    }

    #[test]
    fn values_share_bytes_exactly_when_equal(a in values(), b in values()) {
        prop_assert_eq!(a == b, canonical(&a) == canonical(&b));
    }

    #[test]
    fn a_number_has_one_encoding(number in -1e9f64..1e9) {
        let recomputed = Value::float(number * 2.0 / 2.0).expect("finite");
        let value = Value::float(number).expect("finite");
        prop_assert_eq!(canonical(&value), canonical(&recomputed));
    }

    #[test]
    fn values_survive_the_codec_with_equal_bytes(value in values()) {
        let decoded: Value = protocol::codec::decode(&protocol::codec::encode(&value)).expect("own");
        prop_assert_eq!(canonical(&decoded), canonical(&value));
    }
}

#[test]
fn an_integer_and_the_same_float_differ() {
    assert_ne!(canonical(&Value::from(1)), canonical(&Value::float(1.0).expect("finite")));
    assert_ne!(
        canonical(&Value::from("a")),
        canonical(&Value::List(vec![Scalar::Text("a".into())]))
    );
    let (minus, plus) = (Value::float(-0.0), Value::float(0.0));
    assert_eq!(canonical(&minus.expect("finite")), canonical(&plus.expect("finite")));
}
