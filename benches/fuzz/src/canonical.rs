//! A reader of canonical entries, written from the encoding's description alone.
//!
//! The product only writes canonical bytes. That they can be read back, by a reader that knows no
//! more than the rules, is what makes an entry's id stand for one entry.

use std::collections::{BTreeMap, BTreeSet};

use protocol::clock::{ClockQuality, Hlc};
use protocol::codec;
use protocol::history::{Entry, EntryKind, LogId, Provenance, VersionVector};
use protocol::state::{Path, Scalar, State, StateDelta, StateSource, Value};
use protocol::{EntryId, PublicKey, TreeId};

/// Reads the entry that `bytes` are the canonical form of; none where they are not.
pub fn read_entry(bytes: &[u8]) -> Option<Entry> {
    let mut reader = Reader(bytes);
    if reader.text()? != "fleet-entry-v1" {
        return None;
    }
    let tree = TreeId(reader.array()?);
    let log = reader.log()?;
    let (seq, prev) = (reader.u64()?, EntryId(reader.array()?));
    let mut seen = BTreeMap::new();
    reader.ascending(|reader| {
        let (log, seq) = (reader.log()?, reader.u64()?);
        seen.insert(log, seq);
        Some(log)
    })?;
    // The codec's form of a vector is that of the map in it, which may say 0 of a log.
    let seen: VersionVector = codec::decode(&codec::encode(&seen)).ok()?;
    let hlc = Hlc { wall_ms: reader.u64()?, counter: reader.u32()? };
    let clock = match reader.u8()? {
        0 => ClockQuality::Synchronised,
        1 => ClockQuality::Unsynchronised,
        2 => ClockQuality::Rtc,
        _ => return None,
    };
    let number = reader.u8()?;
    let source = StateSource::ALL.into_iter().find(|source| source.number() == number)?;
    let provenance = Provenance { source, principal: reader.text()?, reason: reader.text()? };
    let (policy, kind, schema) = (reader.u32()?, EntryKind(reader.u16()?), reader.u16()?);
    let lease_until_ms = match reader.u8()? {
        0 => None,
        1 => Some(reader.u64()?),
        _ => return None,
    };
    let delta = StateDelta {
        added: reader.leaves()?,
        modified: reader.leaves()?,
        removed: {
            let mut removed = BTreeSet::new();
            reader.ascending(|reader| {
                let path = reader.path()?;
                removed.insert(path.clone());
                Some(path)
            })?;
            removed
        },
    };
    let extra = reader.bytes()?.to_vec();
    let entry = Entry {
        tree,
        log,
        seq,
        prev,
        seen,
        hlc,
        clock,
        provenance,
        policy,
        kind,
        schema,
        lease_until_ms,
        delta,
        extra,
    };
    reader.0.is_empty().then_some(entry)
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    fn u8(&mut self) -> Option<u8> {
        self.array().map(|[byte]| byte)
    }

    fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_be_bytes)
    }

    fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_be_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_be_bytes)
    }

    fn bytes(&mut self) -> Option<&'a [u8]> {
        let length = self.u32()?;
        self.take(length as usize)
    }

    fn text(&mut self) -> Option<String> {
        std::str::from_utf8(self.bytes()?).ok().map(str::to_owned)
    }

    fn log(&mut self) -> Option<LogId> {
        Some(LogId { author: PublicKey(self.array()?), epoch: self.u64()? })
    }

    fn path(&mut self) -> Option<Path> {
        Path::new(&self.text()?).ok()
    }

    /// Reads a map or set, whose keys ascend strictly.
    fn ascending<K: Ord>(&mut self, mut item: impl FnMut(&mut Self) -> Option<K>) -> Option<()> {
        let mut last = None;
        for _ in 0..self.u32()? {
            let key = item(self)?;
            if last.as_ref().is_some_and(|last| *last >= key) {
                return None;
            }
            last = Some(key);
        }
        Some(())
    }

    fn leaves(&mut self) -> Option<State> {
        let mut leaves = State::new();
        self.ascending(|reader| {
            let (path, value) = (reader.path()?, reader.value()?);
            leaves.insert(path.clone(), value);
            Some(path)
        })?;
        Some(leaves)
    }

    fn value(&mut self) -> Option<Value> {
        match self.u8()? {
            6 => {
                let mut items = Vec::new();
                for _ in 0..self.u32()? {
                    let tag = self.u8()?;
                    items.push(self.scalar(tag)?);
                }
                Some(Value::List(items))
            }
            tag => self.scalar(tag).map(Value::Scalar),
        }
    }

    fn scalar(&mut self, tag: u8) -> Option<Scalar> {
        Some(match tag {
            1 => match self.u8()? {
                0 => Scalar::Bool(false),
                1 => Scalar::Bool(true),
                _ => return None,
            },
            2 => Scalar::Int(self.u64()? as i64),
            3 => {
                let bits = self.u64()?;
                let finite = protocol::state::Finite::new(f64::from_bits(bits)).ok()?;
                // -0 has one form only.
                (finite.get().to_bits() == bits).then_some(Scalar::Float(finite))?
            }
            4 => Scalar::Text(self.text()?),
            5 => Scalar::Bytes(self.bytes()?.to_vec()),
            _ => return None,
        })
    }
}
