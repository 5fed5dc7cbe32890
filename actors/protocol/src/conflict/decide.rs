//! Which candidate counts.

use std::borrow::Cow;
use std::cmp::{Ordering, Reverse};
use std::collections::BTreeSet;

use super::{Safest, Strategy};
use crate::clock::Hlc;
use crate::history::{Candidate, LogId};
use crate::state::{StateSource, Value};

/// A candidate with the log that it is from.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Contender<'a> {
    /// The log.
    pub log: LogId,
    /// The candidate.
    pub candidate: &'a Candidate,
}

/// What a leaf shows, and why.
#[derive(Debug, Clone, PartialEq)]
pub struct Decision<'a> {
    /// The value; none where it is that the leaf is gone.
    pub value: Option<Cow<'a, Value>>,
    /// Whose entry counts; of a union, the latest.
    pub by: Contender<'a>,
    /// How that was decided; none where the candidates agree.
    pub strategy: Option<&'a Strategy>,
    /// The version of the policy that said so; 0 is the built-in one.
    pub policy: u32,
    /// Whether the policy that should decide is not here: the built-in one did.
    pub is_pending: bool,
}

impl Decision<'_> {
    /// Whether a person has yet to decide.
    pub fn waits_for_a_person(&self) -> bool {
        matches!(self.strategy, Some(Strategy::Manual))
    }
}

impl<'a> Contender<'a> {
    /// What decides where nothing else does. No two candidates of a leaf are equal in it.
    fn time(&self) -> (Hlc, LogId, u64) {
        (self.candidate.hlc, self.log, self.candidate.seq)
    }

    fn value(&self) -> Option<&'a Value> {
        self.candidate.value.as_ref()
    }
}

/// Decides between the candidates of a leaf, in whatever order; none where there are none.
pub fn decide<'a>(
    contenders: impl IntoIterator<Item = Contender<'a>>,
    strategy: &'a Strategy,
) -> Option<Decision<'a>> {
    let contenders: Vec<_> = contenders.into_iter().collect();
    let latest = *contenders.iter().max_by_key(|contender| contender.time())?;
    let agree = contenders.iter().all(|contender| contender.value() == latest.value());
    let decision = |by: Contender<'a>, value: Option<Cow<'a, Value>>| {
        Some(Decision {
            value,
            by,
            strategy: (!agree).then_some(strategy),
            policy: 0,
            is_pending: false,
        })
    };
    if !agree
        && *strategy == Strategy::SetUnion
        && let Some(union) = union(&contenders)
    {
        return decision(latest, Some(Cow::Owned(union)));
    }
    let by = match strategy {
        _ if agree => latest,
        Strategy::LastWriter | Strategy::SetUnion => latest,
        Strategy::Manual => *contenders.iter().min_by_key(|contender| contender.time())?,
        Strategy::HardwareTruth => best(&contenders, |c| rank(&[StateSource::Hardware], c))?,
        Strategy::SourcePriority(sources) => best(&contenders, |c| rank(sources, c))?,
        Strategy::SafestValue(safest) => {
            let order = |a: &Contender<'_>, b: &Contender<'_>| danger(safest, a.value(), b.value());
            let least = |a: &&Contender<'_>, b: &&Contender<'_>| {
                order(a, b).then_with(|| b.time().cmp(&a.time()))
            };
            *contenders.iter().min_by(least)?
        }
    };
    decision(by, by.value().map(Cow::Borrowed))
}

/// The one of the lowest rank; the latest of several.
fn best<'a>(
    contenders: &[Contender<'a>],
    rank: impl Fn(&Contender<'a>) -> usize,
) -> Option<Contender<'a>> {
    contenders.iter().min_by_key(|c| (rank(c), Reverse(c.time()))).copied()
}

/// The place of a candidate's source in the list; those that are not there come last.
fn rank(sources: &[StateSource], contender: &Contender<'_>) -> usize {
    let source = contender.candidate.source;
    sources.iter().position(|listed| *listed == source).unwrap_or(sources.len())
}

/// Less is safer.
fn danger(safest: &Safest, a: Option<&Value>, b: Option<&Value>) -> Ordering {
    let numbers = || (a.and_then(Value::as_f64), b.and_then(Value::as_f64));
    let known = |ordering: fn(f64, f64) -> Ordering| match numbers() {
        (Some(a), Some(b)) => ordering(a, b),
        (a, b) => b.is_some().cmp(&a.is_some()),
    };
    let of_order = match safest {
        Safest::Lowest => known(|a, b| a.total_cmp(&b)),
        Safest::Highest => known(|a, b| b.total_cmp(&a)),
        Safest::First(listed) => {
            let place = |value: Option<&Value>| {
                value.and_then(|value| listed.iter().position(|listed| listed == value))
            };
            let place = |value| place(value).unwrap_or(listed.len());
            place(a).cmp(&place(b))
        }
    };
    // A value that the order does not know is still safer than none.
    of_order.then_with(|| a.is_none().cmp(&b.is_none()))
}

/// All items of all lists; none where there is something else than lists. A removal takes nothing
/// out that somebody put in without knowing of it.
fn union(contenders: &[Contender<'_>]) -> Option<Value> {
    let mut items = BTreeSet::new();
    for value in contenders.iter().filter_map(Contender::value) {
        let Value::List(list) = value else { return None };
        items.extend(list.iter().cloned());
    }
    let union = Value::List(items.into_iter().collect());
    // Each list fits a leaf; together they may not.
    union.check().is_ok().then_some(union)
}
