//! What a replica shows: one value a leaf, whatever its candidates.

use std::borrow::Cow;
use std::collections::BTreeMap;

use super::{Leaf, Member, Tree};
use crate::conflict::{
    Conflict, ConflictPolicy, Contender, Decision, POLICY_PREFIX, decide, policy_version,
};
use crate::constraint::{Broken, Constraints, constraints_version};
use crate::history::{MEMBERS_PREFIX, member_of};
use crate::state::{Path, State, StateDelta, StateSource, Value};

impl Tree {
    /// What a leaf shows, and why; none where there is no such leaf.
    pub fn decision(&self, path: &Path) -> Option<Decision<'_>> {
        self.decide(path, self.leaves.get(path)?)
    }

    /// The value that a leaf shows.
    pub fn value(&self, path: &Path) -> Option<Cow<'_, Value>> {
        self.decision(path)?.value
    }

    /// Every leaf that shows a value.
    pub fn state(&self) -> State {
        let values = self.leaves.iter().filter_map(|(path, leaf)| {
            let value = self.decide(path, leaf)?.value?;
            Some((path.clone(), value.into_owned()))
        });
        values.collect()
    }

    /// The highest version of the conflict policy that is here; 0 where there is none.
    pub fn policy(&self) -> u32 {
        self.policies.last_key_value().map_or(0, |(version, _)| *version)
    }

    /// The conflict policy of a version; 0 is the built-in one.
    pub fn conflict_policy(&self, version: u32) -> Option<&ConflictPolicy> {
        match version {
            0 => Some(ConflictPolicy::built_in()),
            version => self.policies.get(&version),
        }
    }

    /// The constraints that hold, with their version; 0 where there are none.
    pub fn constraints(&self) -> (u32, Option<&Constraints>) {
        match self.constraints.last_key_value() {
            Some((version, constraints)) => (*version, Some(constraints)),
            None => (0, None),
        }
    }

    /// The first constraint that a change would break.
    pub fn broken_by(&self, delta: &StateDelta, now_ms: u64) -> Option<Broken> {
        self.constraints().1?.broken_by(self, delta, now_ms)
    }

    /// The leaves that break a constraint as they are, each with the constraint's name.
    pub fn held(&self, now_ms: u64) -> BTreeMap<Path, String> {
        self.constraints().1.map_or_else(BTreeMap::new, |rules| rules.held(self, now_ms))
    }

    /// The conflict of a leaf as it would be recorded now, where its candidates disagree.
    pub fn conflict(&self, path: &Path, now_ms: u64) -> Option<Conflict> {
        let leaf = self.leaves.get(path).filter(|leaf| leaf.is_conflict())?;
        let contenders: Vec<_> = self.contenders(leaf).collect();
        let (policy, _) = self.policy_of(path, leaf);
        let severity = policy.rule(path).and_then(|rule| rule.severity);
        let strategy = policy.strategy(path);
        Some(Conflict::between(self.id, path, &contenders, strategy, severity, now_ms))
    }

    /// The leaf of `desired/` that a leaf is about: itself, or the one that asks for what this one
    /// reports; none where nothing is desired of it.
    pub fn desired_of(&self, path: &Path) -> Option<Path> {
        if path.below("desired").is_some() {
            return Some(path.clone());
        }
        let below = path.below("reported")?;
        let desired = Path::new(&format!("desired/{below}")).ok()?;
        self.leaves.contains_key(&desired).then_some(desired)
    }

    /// The conflict between a leaf of `desired/` and what the hardware reports of the same thing,
    /// where they differ. What is set by hand for a device to do has no counterpart: a device
    /// reports that as applied.
    pub fn physical_conflict(&self, path: &Path, now_ms: u64) -> Option<Conflict> {
        let reported = self.measured(path)?;
        let desired = self.decision(path)?;
        let (wanted, measured) = (desired.value.as_ref()?, reported.value.as_ref()?);
        let differs = wanted != measured;
        differs.then(|| Conflict::physical(self.id, path, &desired.by, &reported.by, now_ms))
    }

    /// What the hardware reports of what a leaf of `desired/` asks for.
    pub fn measured(&self, path: &Path) -> Option<Decision<'_>> {
        let below = path.below("desired")?;
        let reported = self.decision(&Path::new(&format!("reported/{below}")).ok()?)?;
        (reported.by.candidate.source == StateSource::Hardware).then_some(reported)
    }

    /// What the device is to do about each leaf of `desired/`: the value of a live override,
    /// else the desired one. Paths are relative to `desired/`.
    pub fn effective(&self, now_ms: u64) -> BTreeMap<String, Value> {
        let mut effective = BTreeMap::new();
        for (prefix, is_override) in [("desired", false), ("override", true)] {
            for (path, leaf) in &self.leaves {
                let Some(below) = path.below(prefix) else { continue };
                let Some(shown) = self.decide(path, leaf) else { continue };
                let lease = shown.by.candidate.lease_until_ms;
                let ended = lease.is_some_and(|until| until <= now_ms);
                if let (Some(value), false) = (shown.value, is_override && ended) {
                    effective.insert(below.to_owned(), value.into_owned());
                }
            }
        }
        effective
    }

    /// The candidates of a leaf, each with its log.
    pub fn sides(&self, path: &Path) -> impl Iterator<Item = Contender<'_>> {
        self.leaves.get(path).into_iter().flat_map(|leaf| self.contenders(leaf))
    }

    fn contenders<'a>(&self, leaf: &'a Leaf) -> impl Iterator<Item = Contender<'a>> {
        leaf.candidates.iter().map(|candidate| {
            let log = self.logs[candidate.log as usize].log;
            Contender { log, candidate }
        })
    }

    fn decide<'a>(&'a self, path: &Path, leaf: &'a Leaf) -> Option<Decision<'a>> {
        if let [candidate] = leaf.candidates.as_slice() {
            let by = Contender { log: self.logs[candidate.log as usize].log, candidate };
            let value = candidate.value.as_ref().map(Cow::Borrowed);
            return Some(Decision {
                value,
                by,
                strategy: None,
                policy: candidate.policy,
                is_pending: false,
            });
        }
        let (policy, is_pending) = self.policy_of(path, leaf);
        let decision = decide(self.contenders(leaf), policy.strategy(path))?;
        let named = leaf.candidates.iter().map(|candidate| candidate.policy).max();
        Some(Decision { policy: named.unwrap_or(0), is_pending, ..decision })
    }

    /// The policy that decides about a leaf: of the highest version that its candidates name.
    /// The built-in one stands in, and the second is true, where that is not here.
    fn policy_of(&self, path: &Path, leaf: &Leaf) -> (&ConflictPolicy, bool) {
        // What decides about policies cannot follow from them.
        if path.below(POLICY_PREFIX).is_some() {
            return (ConflictPolicy::built_in(), false);
        }
        let named = leaf.candidates.iter().map(|candidate| candidate.policy).max();
        match self.conflict_policy(named.unwrap_or(0)) {
            Some(policy) => (policy, false),
            None => (ConflictPolicy::built_in(), true),
        }
    }

    /// The leaves that the tree's own rules follow from.
    pub(super) fn leaves_about_the_tree(&self) -> impl Iterator<Item = &Path> {
        let is_one = |path: &&Path| match path.first_segment() {
            "policy" => policy_version(path).is_some() || constraints_version(path).is_some(),
            MEMBERS_PREFIX => member_of(path).is_some(),
            _ => false,
        };
        self.leaves.keys().filter(is_one)
    }

    /// Reads again what those of the leaves say that the tree's own rules follow from.
    pub(super) fn read_leaves(&mut self, paths: &[Path]) {
        for path in paths {
            if let Some(version) = policy_version(path) {
                let value = self.value(path);
                let text = value.as_deref().and_then(Value::as_str);
                match text.and_then(|text| ConflictPolicy::parse(text).ok()) {
                    Some(policy) => self.policies.insert(version, policy),
                    None => self.policies.remove(&version),
                };
            } else if let Some(version) = constraints_version(path) {
                let value = self.value(path);
                let text = value.as_deref().and_then(Value::as_str);
                match text.and_then(|text| Constraints::parse(text).ok()) {
                    Some(constraints) => self.constraints.insert(version, constraints),
                    None => self.constraints.remove(&version),
                };
            } else if let Some((device, key)) = member_of(path) {
                match self.value(path).as_deref().and_then(Value::as_bool) {
                    Some(is_current) => self.members.insert(key, Member { device, is_current }),
                    None => self.members.remove(&key),
                };
            }
        }
    }
}
