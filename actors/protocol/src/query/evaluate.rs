//! Whether a condition holds.

use std::borrow::Cow;
use std::cmp::Ordering;

use super::{Comparison, Condition, Literal, Operand};
use crate::DeviceId;
use crate::history::GROUPS_PREFIX;
use crate::state::{Path, Scalar, Value};

/// What is known of a device.
pub trait Facts {
    /// Its id.
    fn id(&self) -> DeviceId;
    /// What people call it.
    fn name(&self) -> &str;
    /// Whether it is connected.
    fn is_online(&self) -> bool;
    /// The version of its tree.
    fn version(&self) -> u64;
    /// What a leaf of its tree shows.
    fn value(&self, path: &Path) -> Option<Cow<'_, Value>>;
    /// When what a leaf shows was set, by its author's clock, in milliseconds since the Unix epoch.
    fn set_ms(&self, path: &Path) -> Option<u64>;
}

pub(super) fn holds(condition: &Condition, facts: &impl Facts, now_ms: u64) -> bool {
    match condition {
        Condition::And(parts) => parts.iter().all(|part| holds(part, facts, now_ms)),
        Condition::Or(parts) => parts.iter().any(|part| holds(part, facts, now_ms)),
        Condition::Not(part) => !holds(part, facts, now_ms),
        Condition::Has(path) => facts.value(path).is_some(),
        Condition::Age(path, comparison, span_ms) => facts
            .set_ms(path)
            .is_some_and(|set_ms| fits(*comparison, now_ms.saturating_sub(set_ms).cmp(span_ms))),
        Condition::Test(operand, comparison, wanted) => {
            wanted.iter().any(|wanted| passes(operand, *comparison, wanted, facts))
        }
    }
}

fn passes(operand: &Operand, comparison: Comparison, wanted: &Literal, facts: &impl Facts) -> bool {
    let test = |found: Scalar| compare(&found, comparison, wanted);
    match operand {
        Operand::Id => test(Scalar::Text(facts.id().to_string())),
        Operand::Name => test(Scalar::Text(facts.name().to_owned())),
        Operand::Online => test(Scalar::Bool(facts.is_online())),
        Operand::Version => test(Scalar::Int(i64::try_from(facts.version()).unwrap_or(i64::MAX))),
        Operand::Group => {
            let path = Path::new(&format!("{GROUPS_PREFIX}/{}", wanted.text));
            let is_in = path.is_ok_and(|path| facts.value(&path).is_some());
            match comparison {
                Comparison::Equal => is_in,
                Comparison::NotEqual => !is_in,
                _ => false,
            }
        }
        Operand::Leaf(path) => match facts.value(path).as_deref() {
            None => false,
            Some(Value::Scalar(found)) => compare(found, comparison, wanted),
            Some(Value::List(items)) => items.iter().any(|item| compare(item, comparison, wanted)),
        },
    }
}

fn compare(found: &Scalar, comparison: Comparison, wanted: &Literal) -> bool {
    match (found, &wanted.scalar) {
        (Scalar::Text(found), _) => match comparison {
            Comparison::BeginsWith => found.starts_with(&wanted.text),
            Comparison::Equal => *found == wanted.text,
            Comparison::NotEqual => *found != wanted.text,
            _ => false,
        },
        (Scalar::Bool(found), Scalar::Bool(wanted)) => match comparison {
            Comparison::Equal => found == wanted,
            Comparison::NotEqual => found != wanted,
            _ => false,
        },
        // Exact also where a float is not.
        (Scalar::Int(found), Scalar::Int(wanted)) => fits(comparison, found.cmp(wanted)),
        (found, wanted) => match (number(found), number(wanted)) {
            (Some(found), Some(wanted)) => {
                found.partial_cmp(&wanted).is_some_and(|order| fits(comparison, order))
            }
            _ => comparison == Comparison::NotEqual,
        },
    }
}

fn number(scalar: &Scalar) -> Option<f64> {
    match scalar {
        Scalar::Int(number) => Some(*number as f64),
        Scalar::Float(number) => Some(number.get()),
        Scalar::Bool(_) | Scalar::Text(_) | Scalar::Bytes(_) => None,
    }
}

fn fits(comparison: Comparison, order: Ordering) -> bool {
    match comparison {
        Comparison::Equal => order.is_eq(),
        Comparison::NotEqual => order.is_ne(),
        Comparison::Less => order.is_lt(),
        Comparison::LessOrEqual => order.is_le(),
        Comparison::Greater => order.is_gt(),
        Comparison::GreaterOrEqual => order.is_ge(),
        Comparison::BeginsWith => false,
    }
}
