//! Differences of states, and folding entries to a tree.

use std::hint::black_box;

use corpora::corpus::device_states::DeviceStates;
use protocol::history::{Entry, Genesis, Role, Tree, admit};
use protocol::state::{Path, State, Value, apply, diff};
use protocol::{DeviceId, EntryId};

use crate::case::{Case, Run};

const STATE: &str = "state";
const FOLD: &str = "fold";

pub(super) const CASES: &[Case] = &[
    Case { group: STATE, name: "diff, 1 of 100 leaves", items: 1, prepare: diff_of::<100, 1> },
    Case {
        group: STATE,
        name: "diff, 100 of 1,000 leaves",
        items: 1,
        prepare: diff_of::<1_000, 100>,
    },
    Case { group: STATE, name: "apply, 1 of 100 leaves", items: 1, prepare: apply_of::<100, 1> },
    Case {
        group: STATE,
        name: "apply, 100 of 1,000 leaves",
        items: 1,
        prepare: apply_of::<1_000, 100>,
    },
    Case { group: FOLD, name: "apply 1,000 entries", items: 1_000, prepare: fold },
    Case {
        group: FOLD,
        name: "admit and apply 1,000 entries",
        items: 1_000,
        prepare: admit_and_fold,
    },
    Case { group: FOLD, name: "root of 11 leaves", items: 1, prepare: root },
];

fn state(leaves: usize) -> State {
    let leaf = |n: usize| {
        let path = Path::new(&format!("reported/group{}/sensor{n}", n % 10)).expect("sound");
        (path, Value::from(n as i64))
    };
    (0..leaves).map(leaf).collect()
}

/// A state and one in which some leaves differ.
fn pair<const LEAVES: usize, const CHANGED: usize>() -> (State, State) {
    let before = state(LEAVES);
    let mut after = before.clone();
    for value in after.values_mut().step_by(LEAVES / CHANGED) {
        *value = Value::from(-1);
    }
    (before, after)
}

fn diff_of<const LEAVES: usize, const CHANGED: usize>() -> Run {
    let (before, after) = pair::<LEAVES, CHANGED>();
    Box::new(move || drop(black_box(diff(black_box(&before), black_box(&after)))))
}

/// There and back in turn, so that no run has to copy the state.
fn apply_of<const LEAVES: usize, const CHANGED: usize>() -> Run {
    let (before, after) = pair::<LEAVES, CHANGED>();
    let deltas = [diff(&before, &after), diff(&after, &before)];
    let (mut state, mut turn) = (Some(before), 0);
    Box::new(move || {
        state = state.take().map(|state| black_box(apply(state, black_box(&deltas[turn % 2]))));
        turn += 1;
    })
}

fn entries() -> (Genesis, DeviceId, Vec<(EntryId, Entry)>) {
    let mut states = DeviceStates::new(1);
    let entries = states.by_ref().take(1_000).map(|entry| (entry.id(), entry)).collect();
    let genesis = states.tree().genesis().clone();
    let device = genesis.name.parse().expect("a device's tree has its name");
    (genesis, device, entries)
}

fn fold() -> Run {
    let (genesis, _, entries) = entries();
    Box::new(move || {
        let mut tree = Tree::new(genesis.clone());
        for (id, entry) in &entries {
            tree.apply(entry, *id);
        }
        black_box(tree);
    })
}

fn admit_and_fold() -> Run {
    let (genesis, device, entries) = entries();
    let now_ms = entries.last().map_or(0, |(_, entry)| entry.hlc.wall_ms);
    Box::new(move || {
        let mut tree = Tree::new(genesis.clone());
        for (id, entry) in &entries {
            let admission = admit(&tree, entry, *id, Role::Owner(device), now_ms);
            assert!(admission.is_ok(), "the corpus is sound: {admission:?}");
            tree.apply(entry, *id);
        }
        black_box(tree);
    })
}

fn root() -> Run {
    let (genesis, _, entries) = entries();
    let mut tree = Tree::new(genesis);
    for (id, entry) in &entries {
        tree.apply(entry, *id);
    }
    assert_eq!(tree.leaves().len(), 11, "every sensor of the corpus has reported");
    Box::new(move || {
        black_box(black_box(&tree).root());
    })
}
