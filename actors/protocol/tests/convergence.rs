//! Replicas that hold the same entries are the same, whatever the order in which they came, and
//! are what the definition of a tree says they are.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use protocol::clock::{ClockQuality, Hlc};
use protocol::codec;
use protocol::conflict::{POLICY_PREFIX, Safest, Strategy as ConflictRule};
use protocol::history::{
    Admission, Author, Checkpoint, Cut, Draft, Entry, Genesis, LogId, MergeError, Provenance,
    Refold, Refusal, Role, Tree, TreeKind, admit,
};
use protocol::keys::Keypair;
use protocol::state::{Path, Scalar, State, StateSource, Value};
use protocol::wire::Batch;
use protocol::{DeviceId, EntryId, FleetId, PublicKey};

const BASE_MS: u64 = 1_700_000_000_000;
const DEVICE: DeviceId = DeviceId([0xD1; 16]);
/// A device, two epochs of one brain, and another brain.
const AUTHORS: [(u8, u64, Role); 4] = [
    (1, 10, Role::Owner(DEVICE)),
    (2, 20, Role::Brain),
    (2, 21, Role::Brain),
    (3, 30, Role::Brain),
];

type Entries = Vec<(EntryId, Entry)>;

#[derive(Debug, Clone)]
enum Step {
    /// The author sets or removes leaves; its wall clock shows so much more than the base.
    Write { author: usize, changes: Vec<(usize, Option<i64>)>, clock_ms: u64 },
    /// The author takes a part of what another replica holds, as that replica met it.
    Learn { author: usize, from: usize, part: f64 },
    /// The author, where it is a brain, sets the next version of the policy.
    SetPolicy { author: usize, strategies: [usize; 3] },
}

/// Where each author's changes come from.
const SOURCES: [StateSource; 4] =
    [StateSource::Hardware, StateSource::Operator, StateSource::Brain, StateSource::Operator];
/// How policies write their strategies.
const STRATEGIES: [&str; 8] = [
    r#""last_writer""#,
    r#""hardware_truth""#,
    r#"{"source_priority": ["brain", "operator"]}"#,
    r#"{"safest_value": "lowest"}"#,
    r#"{"safest_value": "highest"}"#,
    r#"{"safest_value": {"first": [2, 0]}}"#,
    r#""set_union""#,
    r#""manual""#,
];

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let changes =
        proptest::collection::vec((0usize..3, proptest::option::weighted(0.7, 0i64..4)), 1..3);
    let write = (0usize..4, changes, 0u64..5).prop_map(|(author, changes, clock_s)| {
        // Coarse clocks, so that timestamps of different authors are often equal.
        Step::Write { author, changes, clock_ms: clock_s * 10_000 }
    });
    let learn = (0usize..4, 0usize..4, 0.0..=1.0).prop_map(|(author, from, part)| Step::Learn {
        author,
        from,
        part,
    });
    let strategies = proptest::array::uniform3(0..STRATEGIES.len());
    let set_policy = (0usize..4, strategies)
        .prop_map(|(author, strategies)| Step::SetPolicy { author, strategies });
    proptest::collection::vec(prop_oneof![12 => write, 6 => learn, 1 => set_policy], 1..60)
}

fn genesis(kind: TreeKind) -> Genesis {
    Genesis { kind, fleet: FleetId([1; 16]), name: "tree".into() }
}

fn log(author: usize) -> LogId {
    LogId { author: PublicKey([AUTHORS[author].0; 32]), epoch: AUTHORS[author].1 }
}

fn role_of(log: LogId) -> Role {
    let (_, _, role) = AUTHORS[(0..4).find(|n| self::log(*n) == log).expect("one of the authors")];
    role
}

fn path(kind: TreeKind, author: usize, number: usize) -> Path {
    let prefix = match (kind, AUTHORS[author].2) {
        (TreeKind::Device, Role::Brain) => "desired",
        (TreeKind::Device, _) => "reported",
        _ => "shared",
    };
    Path::new(&format!("{prefix}/{number}")).expect("valid")
}

/// Takes an entry in if it is new; the rest is for the caller to judge.
fn take(tree: &mut Tree, id: EntryId, entry: &Entry) -> Result<Admission, Refusal> {
    let admission = admit(tree, entry, id, role_of(entry.log), BASE_MS)?;
    if admission == Admission::New {
        tree.apply(entry, id);
    }
    Ok(admission)
}

/// A number, or for one leaf a list.
fn value(number: usize, value: i64) -> Value {
    match number {
        2 => Value::List([value, value / 2].map(Scalar::Int).to_vec()),
        _ => Value::from(value),
    }
}

/// A policy with a strategy for each leaf.
fn policy(tree: &Tree, strategies: [usize; 3]) -> (Path, Option<Value>) {
    let rules = (0..3).zip(strategies).map(|(number, strategy)| {
        let strategy = STRATEGIES[strategy];
        format!(r#"{{"paths": "*/{number}", "strategy": {strategy}}}"#)
    });
    let text = format!(r#"{{"rules": [{}]}}"#, rules.collect::<Vec<_>>().join(","));
    let path = format!("{POLICY_PREFIX}/{}", tree.policy() + 1);
    (Path::new(&path).expect("valid"), Some(Value::from(text.as_str())))
}

/// All entries that the authors write when they act out the steps, in an order of their making.
fn history(kind: TreeKind, authors: usize, steps: &[Step]) -> Entries {
    let mut writers: Vec<_> = (0..authors).map(|n| Author::new(log(n), Hlc::default())).collect();
    let mut trees = vec![Tree::new(genesis(kind)); authors];
    let mut held = vec![Entries::new(); authors];
    let mut all = Entries::new();
    for step in steps {
        match step {
            Step::SetPolicy { author, .. } if AUTHORS[author % authors].2 != Role::Brain => {}
            Step::Write { author, .. } | Step::SetPolicy { author, .. } => {
                let author = author % authors;
                let (changes, clock_ms) = match step {
                    Step::SetPolicy { strategies, .. } => {
                        (vec![policy(&trees[author], *strategies)], 0)
                    }
                    Step::Write { changes, clock_ms, .. } => {
                        let change = |(number, new): &(usize, Option<i64>)| {
                            (path(kind, author, *number), new.map(|new| value(*number, new)))
                        };
                        (changes.iter().map(change).collect(), *clock_ms)
                    }
                    Step::Learn { .. } => unreachable!("it writes nothing"),
                };
                let draft = Draft {
                    changes,
                    provenance: Provenance::new(SOURCES[author], "user:ada", "test"),
                    lease_until_ms: None,
                };
                let now_ms = BASE_MS - 100_000 + clock_ms;
                let quality = ClockQuality::Synchronised;
                let Some(entry) = writers[author].write(&trees[author], draft, now_ms, quality)
                else {
                    continue;
                };
                let id = entry.id();
                assert_eq!(take(&mut trees[author], id, &entry), Ok(Admission::New));
                // Its author knew of all that its replica held, so nothing stays beside it.
                let leaves = trees[author].leaves();
                assert!(entry.delta.changes().all(|(path, _)| leaves[path].candidates.len() == 1));
                held[author].push((id, entry.clone()));
                all.push((id, entry));
            }
            Step::Learn { author, from, part } => {
                let (author, from) = (author % authors, from % authors);
                let count = (held[from].len() as f64 * part) as usize;
                let known = held[from][..count].to_vec();
                for (id, entry) in known {
                    if take(&mut trees[author], id, &entry) == Ok(Admission::New) {
                        held[author].push((id, entry));
                    }
                }
            }
        }
    }
    all
}

/// Numbers that follow from a seed.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % bound
    }
}

/// What the wire makes of a run of entries.
fn over_the_wire(run: &[(EntryId, Entry)]) -> Entries {
    let entries: Vec<_> = run.iter().map(|(_, entry)| entry.clone()).collect();
    let bytes = codec::encode(&Batch::pack(&entries).expect("consecutive"));
    let unpacked = codec::decode::<Batch>(&bytes).expect("own bytes").unpack().expect("own batch");
    assert_eq!(unpacked, run, "ids and entries survive the wire");
    unpacked
}

/// Delivers all entries to a fresh replica in a random order that respects causes, in random
/// batches, some of them twice, and tries some before their time.
fn deliver(kind: TreeKind, all: &Entries, seed: u64) -> Tree {
    let mut random = Random(seed);
    let mut tree = Tree::new(genesis(kind));
    let mut logs: BTreeMap<LogId, Entries> = BTreeMap::new();
    for (id, entry) in all {
        logs.entry(entry.log).or_default().push((*id, entry.clone()));
    }
    let logs: Vec<_> = logs.into_values().collect();
    let mut done = vec![0; logs.len()];
    while done.iter().zip(&logs).any(|(done, log)| *done < log.len()) {
        let n = random.below(logs.len());
        let (from, log) = (done[n], &logs[n]);
        if from > 0 && random.below(4) == 0 {
            let again = random.below(from);
            for (id, entry) in over_the_wire(&log[again..from]) {
                assert_eq!(take(&mut tree, id, &entry), Ok(Admission::Known));
            }
        }
        if from == log.len() {
            continue;
        }
        refuse_early(&tree, log, from + random.below(log.len() - from));
        let until = from + 1 + random.below(log.len() - from);
        for (id, entry) in over_the_wire(&log[from..until]) {
            match take(&mut tree, id, &entry) {
                Ok(admission) => assert_eq!(admission, Admission::New),
                Err(Refusal::MissingCause { .. }) => break,
                Err(other) => panic!("{other}"),
            }
            done[n] += 1;
        }
    }
    tree
}

/// An entry before its time is refused by the right name and changes nothing.
fn refuse_early(tree: &Tree, log: &Entries, n: usize) {
    let (id, entry) = &log[n];
    let next = tree.log(&entry.log).map_or(1, |known| known.seq + 1);
    let causes_here = entry.seen.iter().all(|(log, seq)| tree.vector().contains(log, seq));
    let mut after = tree.clone();
    let result = take(&mut after, *id, entry);
    if entry.seq > next {
        assert!(matches!(result, Err(Refusal::SequenceGap { .. })), "{result:?}");
        assert_eq!(after, *tree);
    } else if !causes_here {
        assert!(matches!(result, Err(Refusal::MissingCause { .. })), "{result:?}");
        assert_eq!(after, *tree);
    }
}

/// The candidates of each leaf, by the definition: an entry's value stays unless another entry
/// of the same path knew of it, however indirectly.
fn by_definition(all: &Entries) -> BTreeMap<Path, BTreeSet<(LogId, u64, Option<Value>)>> {
    type Dot = (LogId, u64);
    let mut contexts: BTreeMap<Dot, BTreeSet<Dot>> = BTreeMap::new();
    for (_, entry) in all {
        let mut context = BTreeSet::new();
        let before = (entry.seq > 1).then(|| (entry.log, entry.seq - 1));
        let seen = entry.seen.iter().flat_map(|(log, seq)| (1..=seq).map(|n| (*log, n)));
        for dot in seen.chain(before) {
            context.extend(contexts[&dot].iter().copied());
            context.insert(dot);
        }
        contexts.insert((entry.log, entry.seq), context);
    }
    let mut leaves: BTreeMap<Path, BTreeSet<_>> = BTreeMap::new();
    for (_, entry) in all {
        for (path, value) in entry.delta.changes() {
            let replaced = all.iter().any(|(_, other)| {
                other.delta.changes().any(|(touched, _)| touched == path)
                    && contexts[&(other.log, other.seq)].contains(&(entry.log, entry.seq))
            });
            if !replaced {
                leaves.entry(path.clone()).or_default().insert((
                    entry.log,
                    entry.seq,
                    value.cloned(),
                ));
            }
        }
    }
    leaves
}

fn candidates(tree: &Tree) -> BTreeMap<Path, BTreeSet<(LogId, u64, Option<Value>)>> {
    let leaf = |leaf: &protocol::history::Leaf| {
        let of = |c: &protocol::history::Candidate| {
            (tree.logs()[c.log as usize].log, c.seq, c.value.clone())
        };
        leaf.candidates.iter().map(of).collect()
    };
    tree.leaves().iter().map(|(path, of)| (path.clone(), leaf(of))).collect()
}

/// The state by the definition: each leaf's candidates are judged by the rule of the highest
/// version that any of them names.
fn state_by_definition(all: &Entries) -> State {
    let entry_of = |log: LogId, seq| {
        let entry = all.iter().find(|(_, entry)| entry.log == log && entry.seq == seq);
        &entry.expect("written").1
    };
    let leaves = by_definition(all);
    let sides = |leaf: &BTreeSet<(LogId, u64, Option<Value>)>| {
        let side = |(log, seq, value): &(LogId, u64, Option<Value>)| {
            let entry = entry_of(*log, *seq);
            ((entry.hlc, *log, *seq), entry.provenance.source, entry.policy, value.clone())
        };
        let mut sides: Vec<_> = leaf.iter().map(side).collect();
        sides.sort_by_key(|(time, ..)| *time);
        sides
    };
    let last_writer = ConflictRule::LastWriter;
    let strategy = |path: &Path, version: u32| {
        let policy = Path::new(&format!("{POLICY_PREFIX}/{version}")).expect("valid");
        let Some((.., Some(text))) = leaves.get(&policy).and_then(|leaf| sides(leaf).pop()) else {
            let is_reported = path.first_segment() == "reported";
            return if is_reported { ConflictRule::HardwareTruth } else { last_writer.clone() };
        };
        let policy: serde_json::Value =
            serde_json::from_str(text.as_str().expect("a text")).expect("JSON");
        let number: usize = path.segments().last().expect("one").parse().expect("a number");
        serde_json::from_value(policy["rules"][number]["strategy"].clone()).expect("a strategy")
    };
    let shown = |path: &Path, leaf| {
        let sides = sides(leaf);
        let version = sides.iter().map(|(.., policy, _)| *policy).max().expect("a side");
        let strategy = match path.first_segment() {
            "policy" => last_writer.clone(),
            _ => strategy(path, version),
        };
        let values = sides.into_iter().map(|(_, source, _, value)| (source, value)).collect();
        by_rule(values, &strategy)
    };
    leaves.iter().filter_map(|(path, leaf)| Some((path.clone(), shown(path, leaf)?))).collect()
}

/// What a strategy says of sides that are in the order of their time, spelt out.
fn by_rule(sides: Vec<(StateSource, Option<Value>)>, strategy: &ConflictRule) -> Option<Value> {
    let values: Vec<_> = sides.iter().map(|(_, value)| value.clone()).collect();
    let latest = values.last().expect("a side").clone();
    if values.iter().all(|value| *value == latest) {
        return latest;
    }
    let from = |wanted: StateSource| sides.iter().rev().find(|(source, _)| *source == wanted);
    let numbers = || {
        let numbers = values.iter().flatten().filter(|value| value.as_f64().is_some());
        let mut numbers: Vec<_> = numbers.cloned().collect();
        numbers.sort();
        numbers
    };
    let some = || values.iter().rev().flatten().next().cloned();
    match strategy {
        ConflictRule::LastWriter => latest,
        ConflictRule::Manual => values[0].clone(),
        ConflictRule::HardwareTruth => {
            from(StateSource::Hardware).map_or(latest, |(_, value)| value.clone())
        }
        ConflictRule::SourcePriority(sources) => {
            let first = sources.iter().find_map(|source| from(*source));
            first.map_or(latest, |(_, value)| value.clone())
        }
        ConflictRule::SafestValue(Safest::Lowest) => numbers().first().cloned().or_else(some),
        ConflictRule::SafestValue(Safest::Highest) => numbers().last().cloned().or_else(some),
        ConflictRule::SafestValue(Safest::First(listed)) => {
            let known = listed.iter().find(|listed| values.contains(&Some((*listed).clone())));
            known.cloned().or_else(some)
        }
        ConflictRule::SetUnion => {
            let mut items = Vec::new();
            for value in values.iter().flatten() {
                let Value::List(list) = value else { return latest };
                items.extend(list.clone());
            }
            items.sort();
            items.dedup();
            Some(Value::List(items))
        }
    }
}

/// Some of the entries, and all that came before them: what a replica may hold.
fn some_of(all: &Entries, kind: TreeKind, seed: u64) -> Tree {
    let mut random = Random(seed);
    let mut tree = Tree::new(genesis(kind));
    for (id, entry) in all {
        if random.below(4) > 0 {
            // One whose causes were left out is left out as well.
            let _ = take(&mut tree, *id, entry);
        }
    }
    tree
}

/// What a brain says a replica has come to, as it crosses the wire.
fn checkpoint(tree: &Tree) -> Checkpoint {
    let brain = Keypair::from_seed(&[7; 32]);
    let (logs, leaves) = (tree.logs().to_vec(), tree.leaves().clone());
    let signed = Checkpoint::sign(&brain, tree.id(), logs, leaves);
    let came: Checkpoint = codec::decode(&codec::encode(&signed)).expect("own bytes");
    assert_eq!(came.verify(|key| key == brain.public()), Ok(()));
    came
}

fn kinds() -> impl Strategy<Value = TreeKind> {
    // In a device's tree only brains meet on a leaf; in a site's tree everybody does.
    prop_oneof![Just(TreeKind::Device), Just(TreeKind::Site)]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(256) })]

    #[test]
    fn the_order_of_delivery_leaves_no_trace(
        kind in kinds(), authors in 2usize..=4, steps in steps(), seeds in any::<[u64; 3]>(),
    ) {
        let all = history(kind, authors, &steps);
        let [a, b, c] = seeds.map(|seed| deliver(kind, &all, seed));
        for other in [&b, &c] {
            prop_assert_eq!(a.root(), other.root());
            prop_assert_eq!(a.state(), other.state());
            prop_assert_eq!(a.vector(), other.vector());
            prop_assert_eq!(candidates(&a), candidates(other));
        }
    }

    #[test]
    fn a_replica_is_what_the_definition_says(
        kind in kinds(), authors in 2usize..=4, steps in steps(), seed in any::<u64>(),
    ) {
        let all = history(kind, authors, &steps);
        let tree = deliver(kind, &all, seed);
        prop_assert_eq!(candidates(&tree), by_definition(&all));
        prop_assert_eq!(tree.state(), state_by_definition(&all));
        let conflicts = tree.leaves().values().filter(|leaf| leaf.is_conflict()).count();
        let defined = by_definition(&all);
        let distinct = |leaf: &BTreeSet<(LogId, u64, Option<Value>)>| {
            leaf.iter().map(|(_, _, value)| value).collect::<BTreeSet<_>>().len()
        };
        prop_assert_eq!(conflicts, defined.values().filter(|leaf| distinct(leaf) > 1).count());
    }

    #[test]
    fn a_restored_replica_is_the_same_and_goes_on(
        kind in kinds(), steps in steps(), seed in any::<u64>(), part in 0.0..=1.0,
    ) {
        let all = history(kind, 4, &steps);
        let split = (all.len() as f64 * part) as usize;
        let mut whole = Tree::new(genesis(kind));
        for (id, entry) in &all[..split] {
            prop_assert_eq!(take(&mut whole, *id, entry), Ok(Admission::New));
        }
        let leaves = codec::decode(&codec::encode(whole.leaves())).expect("own bytes");
        let logs = codec::decode(&codec::encode(&whole.logs().to_vec())).expect("own bytes");
        let mut restored = Tree::restore(genesis(kind), logs, leaves);
        prop_assert_eq!(&restored, &whole);
        for (id, entry) in &all[split..] {
            prop_assert_eq!(take(&mut restored, *id, entry), Ok(Admission::New));
        }
        prop_assert_eq!(restored.root(), deliver(kind, &all, seed).root());
    }

    #[test]
    fn a_new_value_always_changes_the_root(
        kind in kinds(), steps in steps(), seed in any::<u64>(),
    ) {
        let all = history(kind, 3, &steps);
        if let Some((last, before)) = all.split_last() {
            let (less, more) = (deliver(kind, &before.to_vec(), seed), deliver(kind, &all, seed));
            let sets_a_value = last.1.delta.changes().any(|(_, value)| value.is_some());
            prop_assert!(!sets_a_value || less.root() != more.root());
        }
    }
    #[test]
    fn after_a_cut_below_its_head_a_replica_is_as_if_the_rest_had_never_come(
        kind in kinds(), authors in 2usize..=4, steps in steps(), seed in any::<u64>(),
        cut_author in 0usize..4, part in 0.0..=1.0,
    ) {
        let all = history(kind, authors, &steps);
        let ended = log(cut_author % authors);
        let own: Vec<_> = all.iter().filter(|(_, entry)| entry.log == ended).collect();
        let last_seq = (own.len() as f64 * part) as u64;
        let last_id = own[..last_seq as usize].last().map_or(Entry::NO_PREV, |(id, _)| *id);
        let mut folded = deliver(kind, &all, seed);
        // Who signed it is for others to judge.
        let cut = Cut::seal(&Keypair::from_seed(&[7; 32]), folded.id(), ended, last_seq, last_id);
        let mut never = Tree::new(genesis(kind));
        never.take_cut(cut.clone());
        for (id, entry) in &all {
            let is_cut_off = entry.log == ended && entry.seq > last_seq;
            prop_assert_eq!(take(&mut never, *id, entry).is_err(), is_cut_off);
        }
        let mut refold = Refold::of(folded.take_cut(cut));
        for author in (0..authors).rev() {
            let entries = all.iter().filter(|(_, entry)| entry.log == log(author));
            entries.for_each(|(_, entry)| refold.take(&folded, entry));
        }
        let leaves = refold.finish(&folded);
        folded.put_refolded(leaves);
        prop_assert_eq!(candidates(&folded), candidates(&never));
        prop_assert_eq!(folded.root(), never.root());
        prop_assert_eq!(folded.state(), never.state());
        let mut beyond = never.vector();
        beyond.advance(ended, folded.vector().get(&ended));
        prop_assert_eq!(folded.vector(), beyond);
    }

    #[test]
    fn merging_a_checkpoint_is_taking_the_entries_it_stands_for(
        kind in kinds(), authors in 2usize..=4, steps in steps(), seeds in any::<[u64; 2]>(),
    ) {
        let all = history(kind, authors, &steps);
        let [here, there] = seeds.map(|seed| some_of(&all, kind, seed));
        let mut both = here.clone();
        for (id, entry) in &all {
            if there.vector().contains(&entry.log, entry.seq) {
                take(&mut both, *id, entry).expect("what is there has its causes there");
            }
        }
        let mut merged = here.clone();
        let touched = merged.merge(&checkpoint(&there)).expect("two of one history");
        prop_assert_eq!(candidates(&merged), candidates(&both));
        prop_assert_eq!(merged.root(), both.root());
        prop_assert_eq!(merged.state(), both.state());
        prop_assert_eq!(merged.vector(), both.vector());
        prop_assert_eq!(merged.bytes(), both.bytes());
        let (before, after) = (candidates(&here), candidates(&merged));
        let paths = before.keys().chain(after.keys());
        let changed: BTreeSet<_> = paths.filter(|path| before.get(path) != after.get(path)).collect();
        prop_assert_eq!(touched.iter().collect::<BTreeSet<_>>(), changed);
        // It goes on like any other, and a second time changes nothing.
        prop_assert_eq!(merged.merge(&checkpoint(&there)), Ok(Vec::new()));
        for (id, entry) in &all {
            take(&mut merged, *id, entry).expect("in order");
        }
        let whole = deliver(kind, &all, seeds[0]);
        prop_assert_eq!(merged.root(), whole.root());
        prop_assert_eq!(merged.state(), whole.state());
    }

    #[test]
    fn leaves_are_folded_again_from_a_checkpoint_on(
        kind in kinds(), authors in 2usize..=4, steps in steps(), seed in any::<u64>(),
        cut_author in 0usize..4, part in 0.0..=1.0,
    ) {
        let all = history(kind, authors, &steps);
        let pruned = (all.len() as f64 * part) as usize;
        let mut base = Tree::new(genesis(kind));
        for (id, entry) in &all[..pruned] {
            prop_assert_eq!(take(&mut base, *id, entry), Ok(Admission::New));
        }
        // No cut reaches below what is pruned.
        let ended = log(cut_author % authors);
        let own: Vec<_> = all.iter().filter(|(_, entry)| entry.log == ended).collect();
        let floor = base.vector().get(&ended);
        let last_seq = floor + (own.len() as u64 - floor) / 2;
        let last_id = own[..last_seq as usize].last().map_or(Entry::NO_PREV, |(id, _)| *id);
        let mut folded = deliver(kind, &all, seed);
        let cut = Cut::seal(&Keypair::from_seed(&[7; 32]), folded.id(), ended, last_seq, last_id);
        let mut whole = folded.clone();
        let mut from_base = Refold::of(folded.take_cut(cut.clone()));
        let mut from_begin = Refold::of(whole.take_cut(cut));
        from_base.start_from(&folded, base.logs(), base.leaves());
        for author in (0..authors).rev() {
            for (_, entry) in all.iter().filter(|(_, entry)| entry.log == log(author)) {
                from_begin.take(&whole, entry);
                if !base.vector().contains(&entry.log, entry.seq) {
                    from_base.take(&folded, entry);
                }
            }
        }
        let leaves = from_base.finish(&folded);
        folded.put_refolded(leaves);
        let leaves = from_begin.finish(&whole);
        whole.put_refolded(leaves);
        prop_assert_eq!(candidates(&folded), candidates(&whole));
        prop_assert_eq!(folded.root(), whole.root());
    }
}

/// A replica with two entries of one brain.
fn two_entries() -> (Tree, Entries) {
    let change = |value| vec![(0usize, Some(value))];
    let write = |value| Step::Write { author: 1, changes: change(value), clock_ms: 0 };
    let all = history(TreeKind::Site, 2, &[write(1), write(2)]);
    (deliver(TreeKind::Site, &all, 1), all)
}

#[test]
fn a_checkpoint_that_was_altered_or_is_nobodys_does_not_count() {
    let (tree, _) = two_entries();
    let brain = Keypair::from_seed(&[7; 32]).public();
    let good = checkpoint(&tree);
    assert!(good.verify(|_| false).is_err());
    let verify = |alter: &dyn Fn(&mut Checkpoint)| {
        let mut altered = good.clone();
        alter(&mut altered);
        altered.verify(|key| key == brain)
    };
    assert_eq!(verify(&|_| {}), Ok(()));
    assert!(verify(&|altered| altered.logs[0].seq += 1).is_err());
    assert!(verify(&|altered| altered.logs[0].head = EntryId([9; 32])).is_err());
    assert!(verify(&|altered| altered.leaves.clear()).is_err());
    let alter_leaf = |alter: fn(&mut protocol::history::Candidate)| {
        verify(&|altered| {
            let leaf = altered.leaves.values_mut().next().expect("a leaf");
            alter(&mut leaf.candidates[0]);
        })
    };
    assert!(alter_leaf(|candidate| candidate.value = None).is_err());
    assert!(alter_leaf(|candidate| candidate.seq = 99).is_err());
    assert!(alter_leaf(|candidate| candidate.log = 7).is_err());
    assert!(alter_leaf(|candidate| candidate.lease_until_ms = Some(1)).is_err());
    assert!(alter_leaf(|candidate| candidate.hlc.wall_ms += 1).is_err());
}

#[test]
fn what_does_not_fit_together_is_not_merged() {
    let (tree, all) = two_entries();
    let ended = all[0].1.log;
    let good = checkpoint(&tree);
    // The other has a log end below what this one holds, and the other way round.
    let cut = Cut::revoke(&Keypair::from_seed(&[7; 32]), tree.id(), ended, 1, all[0].0);
    let mut shorter = tree.clone();
    shorter.take_cut(cut);
    let before = tree.clone();
    for (mut ours, theirs) in [(tree.clone(), checkpoint(&shorter)), (shorter, good.clone())] {
        let kept = ours.clone();
        assert_eq!(ours.merge(&theirs), Err(MergeError::CutBelow(ended)));
        assert_eq!(ours, kept);
    }
    let mut forked = good.clone();
    forked.logs[0].head = EntryId([9; 32]);
    assert_eq!(tree.clone().merge(&forked), Err(MergeError::Forked(ended)));
    let mut foreign = good;
    foreign.tree = protocol::TreeId([9; 32]);
    assert!(matches!(tree.clone().merge(&foreign), Err(MergeError::UnknownTree(_))));
    assert_eq!(tree, before);
}
