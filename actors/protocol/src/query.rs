//! Queries: which devices are meant.
//!
//! ```text
//! tags/site = north and reported/thermal/cpu_celsius > 70
//! group = crossings and not online
//! tags/role in (relay, gateway) or name ^= "crane-"
//! has override/fan or age(reported/heartbeat) > 10m
//! ```
//!
//! A test names a leaf of the device's tree by its path, or a field: `id`, `name`, `online`, `group`,
//! `version`. `=`, `!=`, `<`, `<=`, `>`, `>=` compare, `^=` asks how a text begins, `in` for one of several
//! values, `has` whether there is such a leaf, `age(path)` how long ago it was set, in `ms`, `s`, `m`,
//! `h` or `d`. A leaf that holds a list passes a test where one of its items does. A test about a leaf that is
//! not there fails, also `!=`; `not` turns that round. `not` binds tighter than `and`, `and` tighter than
//! `or`. Numbers compare with numbers, texts with texts and only by `=`, `!=` and `^=`.

mod evaluate;
mod parse;
mod token;

use std::fmt;
use std::str::FromStr;

use crate::state::{Path, Scalar};

pub use evaluate::Facts;

/// The longest text of a query, in bytes.
pub const QUERY_BYTES_MAX: usize = 4 << 10;
/// How deep a query may be nested.
pub const QUERY_DEPTH_MAX: usize = 32;

/// Which devices are meant.
#[derive(Debug, Clone, PartialEq)]
pub struct Query {
    text: String,
    condition: Condition,
}

/// A condition on a device.
#[derive(Debug, Clone, PartialEq)]
enum Condition {
    And(Vec<Condition>),
    Or(Vec<Condition>),
    Not(Box<Condition>),
    Test(Operand, Comparison, Vec<Literal>),
    Has(Path),
    Age(Path, Comparison, u64),
}

/// What a query looks at beside the values of leaves.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Looks {
    /// What people call devices.
    pub at_name: bool,
    /// Whether they are connected.
    pub at_presence: bool,
    /// When leaves were set.
    pub at_age: bool,
}

impl Condition {
    fn leaves<'a>(&'a self, leaves: &mut Vec<&'a Path>) {
        match self {
            Self::And(parts) | Self::Or(parts) => {
                parts.iter().for_each(|part| part.leaves(leaves));
            }
            Self::Not(part) => part.leaves(leaves),
            Self::Test(Operand::Leaf(path), ..) | Self::Has(path) | Self::Age(path, ..) => {
                leaves.push(path);
            }
            Self::Test(..) => {}
        }
    }

    fn note(&self, looks: &mut Looks) {
        match self {
            Self::And(parts) | Self::Or(parts) => parts.iter().for_each(|part| part.note(looks)),
            Self::Not(part) => part.note(looks),
            Self::Test(Operand::Name, ..) => looks.at_name = true,
            Self::Test(Operand::Online, ..) => looks.at_presence = true,
            Self::Age(..) => looks.at_age = true,
            Self::Test(..) | Self::Has(_) => {}
        }
    }
}

/// A value as it was written.
#[derive(Debug, Clone, PartialEq)]
struct Literal {
    /// What texts are compared with.
    text: String,
    /// What everything else is compared with.
    scalar: Scalar,
}

/// What is looked at.
#[derive(Debug, Clone, PartialEq)]
enum Operand {
    Leaf(Path),
    Id,
    Name,
    Online,
    Group,
    Version,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Comparison {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    BeginsWith,
}

/// Why a text is no query.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} at character {at}")]
pub struct QueryError {
    /// Which character, counted from 1.
    pub at: usize,
    /// What is wrong there.
    pub what: String,
}

impl Query {
    /// Every device.
    pub fn everything() -> Self {
        Self { text: String::new(), condition: Condition::And(Vec::new()) }
    }

    /// Reads a query. An empty one means every device.
    pub fn parse(text: &str) -> Result<Self, QueryError> {
        if text.len() > QUERY_BYTES_MAX {
            let what = format!("a query of more than {QUERY_BYTES_MAX} bytes ends too late");
            return Err(QueryError { at: QUERY_BYTES_MAX, what });
        }
        if text.trim().is_empty() {
            return Ok(Self::everything());
        }
        Ok(Self { text: text.to_owned(), condition: parse::parse(text)? })
    }

    /// What has to be known of a device beside its leaves.
    pub fn looks_at(&self) -> Looks {
        let mut looks = Looks::default();
        self.condition.note(&mut looks);
        looks
    }

    /// The leaves that it asks for.
    pub fn leaves(&self) -> Vec<&Path> {
        let mut leaves = Vec::new();
        self.condition.leaves(&mut leaves);
        leaves
    }

    /// Whether a device is meant, at a time in milliseconds since the Unix epoch.
    pub fn matches(&self, facts: &impl Facts, now_ms: u64) -> bool {
        evaluate::holds(&self.condition, facts, now_ms)
    }
}

impl fmt::Display for Query {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl FromStr for Query {
    type Err = QueryError;

    fn from_str(text: &str) -> Result<Self, QueryError> {
        Self::parse(text)
    }
}
