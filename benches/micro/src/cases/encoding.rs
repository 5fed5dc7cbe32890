//! Canonical bytes and ids of entries.

use std::hint::black_box;

use corpora::corpus::device_states::DeviceStates;
use protocol::history::Entry;
use protocol::state::{Path, Value};

use crate::case::{Case, Run};

const GROUP: &str = "canonical encoding and id";

pub(super) const CASES: &[Case] = &[
    Case { group: GROUP, name: "canonical bytes, 1 leaf", items: 1, prepare: canonical::<1> },
    Case { group: GROUP, name: "canonical bytes, 20 leaves", items: 1, prepare: canonical::<20> },
    Case { group: GROUP, name: "id, 1 leaf", items: 1, prepare: id::<1> },
    Case { group: GROUP, name: "id, 20 leaves", items: 1, prepare: id::<20> },
];

fn canonical<const LEAVES: usize>() -> Run {
    let entry = entry(LEAVES);
    Box::new(move || drop(black_box(black_box(&entry).canonical())))
}

fn id<const LEAVES: usize>() -> Run {
    let entry = entry(LEAVES);
    Box::new(move || {
        black_box(black_box(&entry).id());
    })
}

fn entry(leaves: usize) -> Entry {
    let mut entry = DeviceStates::new(1).next().expect("it has no end");
    entry.delta.added = (0..leaves)
        .map(|n| {
            let path = Path::new(&format!("reported/thermal/zone{n}_celsius")).expect("sound");
            (path, Value::float(51.25).expect("finite"))
        })
        .collect();
    entry
}
