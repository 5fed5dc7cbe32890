//! Constraints refuse where a value is written, and hold what arrives.

use protocol::FleetId;
use protocol::clock::{ClockQuality, Hlc};
use protocol::constraint::{Broken, CONSTRAINTS_PREFIX, Constraints};
use protocol::history::{Author, Draft, Genesis, LogId, Provenance, Tree, TreeKind};
use protocol::keys::Keypair;
use protocol::state::{Path, StateDelta, StateSource, Value};

const NOW_MS: u64 = 1_700_000_000_000;

fn path(text: &str) -> Path {
    Path::new(text).expect("a path")
}

struct Side {
    author: Author,
    tree: Tree,
}

impl Side {
    fn new(key: u8) -> Self {
        let log = LogId { author: Keypair::from_seed(&[key; 32]).public(), epoch: 1 };
        let genesis = Genesis { kind: TreeKind::Device, fleet: FleetId([1; 16]), name: "t".into() };
        Self { author: Author::new(log, Hlc::default()), tree: Tree::new(genesis) }
    }

    fn set(&mut self, leaf: &str, value: impl Into<Value>, lease_until_ms: Option<u64>) {
        let changes = vec![(path(leaf), Some(value.into()))];
        let provenance = Provenance::new(StateSource::Operator, "user:ada", "test");
        let draft = Draft { changes, provenance, lease_until_ms };
        let entry = self.author.write(&self.tree, draft, NOW_MS, ClockQuality::Synchronised);
        let entry = entry.expect("a change");
        self.tree.apply(&entry, entry.id());
    }

    /// What a change would break.
    fn breaks(&self, leaf: &str, value: impl Into<Value>) -> Option<Broken> {
        let mut delta = StateDelta::default();
        delta.modified.insert(path(leaf), value.into());
        self.tree.broken_by(&delta, NOW_MS)
    }

    fn held(&self) -> Vec<(String, String)> {
        let held = self.tree.held(NOW_MS).into_iter();
        held.map(|(path, name)| (path.to_string(), name)).collect()
    }
}

fn constrained() -> Side {
    let mut side = Side::new(1);
    let rules = r#"{"constraints": [
        {"name": "speed", "range": {"paths": "desired/fan/*", "min": 0, "max": 5}},
        {"name": "mode", "one_of": {"paths": "desired/mode", "values": ["auto", "off"]}},
        {"name": "no heat without air", "never": "desired/heater = on and not desired/fan/speed > 1"}
    ]}"#;
    Constraints::parse(rules).expect("constraints");
    side.set(&format!("{CONSTRAINTS_PREFIX}/1"), rules, None);
    side
}

#[test]
fn a_range_an_enumeration_and_a_rule_across_leaves_are_named_where_they_break() {
    let mut side = constrained();
    let name = |broken: Option<Broken>| broken.map(|broken| broken.name);
    assert_eq!(name(side.breaks("desired/fan/speed", 5)), None);
    assert_eq!(name(side.breaks("desired/fan/speed", 6)), Some("speed".into()));
    assert_eq!(name(side.breaks("desired/fan/speed", "fast")), Some("speed".into()));
    assert_eq!(name(side.breaks("override/fan/speed", 6)), Some("speed".into()));
    assert_eq!(name(side.breaks("reported/fan/speed", 6)), None, "a fact");
    assert_eq!(name(side.breaks("desired/mode", "off")), None);
    assert_eq!(name(side.breaks("desired/mode", "loud")), Some("mode".into()));
    assert_eq!(name(side.breaks("desired/heater", "on")), Some("no heat without air".into()));
    side.set("desired/fan/speed", 2, None);
    assert_eq!(name(side.breaks("desired/heater", "on")), None);
    side.set("desired/heater", "on", None);
    let broken = side.breaks("desired/fan/speed", 1).expect("broken");
    assert_eq!(
        broken.to_string(),
        "constraint \"no heat without air\" does not allow desired/fan/speed to be 1"
    );
    assert_eq!(name(side.breaks("override/fan/speed", 0)), Some("no heat without air".into()));
}

#[test]
fn what_arrives_by_merge_is_held_and_stays_until_it_is_right() {
    let mut side = constrained();
    // Written where nobody checked, such as by a brain that did not know of the constraint.
    side.set("desired/fan/speed", 9, None);
    side.set("desired/heater", "on", None);
    assert_eq!(side.held(), [("desired/fan/speed".into(), "speed".into())]);
    assert_eq!(
        side.breaks("desired/mode", "auto"),
        None,
        "what is broken already stops nobody else"
    );
    side.set("desired/fan/speed", 1, None);
    let rule = "no heat without air".to_owned();
    assert_eq!(
        side.held(),
        [("desired/fan/speed".into(), rule.clone()), ("desired/heater".into(), rule)]
    );
    // An override that holds counts in place of what is desired.
    side.set("override/fan/speed", 3, Some(NOW_MS + 1));
    assert_eq!(side.held(), []);
    assert_eq!(side.tree.held(NOW_MS + 2).len(), 2, "its lease is over");
}

#[test]
fn the_highest_version_holds_and_a_new_one_may_lift_it() {
    let mut side = constrained();
    side.set("desired/fan/speed", 9, None);
    side.set(&format!("{CONSTRAINTS_PREFIX}/2"), r#"{"constraints": []}"#, None);
    assert_eq!((side.held(), side.tree.constraints().0), (vec![], 2));
    assert_eq!(side.breaks("desired/mode", "loud"), None);
    let restored = Tree::restore(
        side.tree.genesis().clone(),
        side.tree.logs().to_vec(),
        side.tree.leaves().clone(),
    );
    assert_eq!(restored, side.tree, "read again from the leaves");
}

#[test]
fn what_are_no_constraints_is_refused_and_says_why() {
    let why = |rule: &str| {
        let text = format!(r#"{{"constraints": [{rule}]}}"#);
        Constraints::parse(&text).expect_err(rule).to_string()
    };
    assert!(why(r#"{"name": "a", "never": "desired/x ="}"#).contains("expected a value"));
    assert!(why(r#"{"name": "a", "never": "online"}"#).contains("leaves only"));
    assert!(why(r#"{"name": "a", "range": {"paths": "a*"}}"#).contains("segment"));
    assert!(why(r#"{"name": " ", "never": "has a/b"}"#).contains("no name"));
    let twice = r#"{"name": "a", "never": "has a/b"}"#;
    assert!(why(&format!("{twice}, {twice}")).contains("of its own"));
    assert!(why(&vec![twice; 65].join(",")).contains("65 constraints"));
}
