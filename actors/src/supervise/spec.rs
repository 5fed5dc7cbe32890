//! What a supervisor is told about its children and about itself.
//!
//! Everything here is plain data that can be read from a configuration file:
//! durations are written in milliseconds, with the unit in the field's name.

use std::{borrow::Borrow, fmt, sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};

use super::millis;

/// Names a child among its siblings.
///
/// It becomes one segment of the child's [`TreePath`](super::TreePath), so it
/// should not contain a slash.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub struct ChildId(Arc<str>);

impl ChildId {
    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<&str> for ChildId {
    fn from(id: &str) -> Self {
        Self(id.into())
    }
}

impl From<String> for ChildId {
    fn from(id: String) -> Self {
        Self(id.into())
    }
}

impl From<Arc<str>> for ChildId {
    fn from(id: Arc<str>) -> Self {
        Self(id)
    }
}

impl From<ChildId> for String {
    fn from(id: ChildId) -> Self {
        id.as_str().to_owned()
    }
}

impl Borrow<str> for ChildId {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ChildId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for ChildId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", &*self.0)
    }
}

/// One child of a supervisor: its name and the rules it lives by.
#[derive(Clone, Debug, PartialEq)]
pub struct ChildSpec {
    /// The child's name, unique among its siblings.
    pub id: ChildId,
    /// The rules it lives by.
    pub policy: ChildPolicy,
}

impl ChildSpec {
    /// A child with the given name and rules.
    pub fn new(id: impl Into<ChildId>, policy: ChildPolicy) -> Self {
        Self { id: id.into(), policy }
    }
}

/// The rules a child lives by; in a dynamic set all children share them.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ChildPolicy {
    /// When an ended child is started again.
    pub restart: Restart,
    /// How it is asked to stop.
    pub shutdown: Shutdown,
    /// Whether its own end may end the whole set, see [`AutoShutdown`].
    ///
    /// Has no meaning for a permanent child, which never ends for good.
    pub significant: bool,
    /// How long to wait before a restart.
    pub backoff: Backoff,
    /// The child's own budget of restarts.
    pub intensity: Intensity,
    /// A handler that runs longer than this is stuck: the child is killed and
    /// restarted. Left out, nothing is ever stuck.
    ///
    /// Only code that awaits can be killed.
    #[serde(rename = "stuck_after_ms", with = "millis::option")]
    pub stuck_after: Option<Duration>,
}

impl Default for ChildPolicy {
    fn default() -> Self {
        Self {
            restart: Restart::Permanent,
            shutdown: Shutdown::After(Duration::from_secs(5)),
            significant: false,
            backoff: Backoff::default(),
            intensity: Intensity::default(),
            stuck_after: None,
        }
    }
}

impl ChildPolicy {
    /// The default rules for a child that is itself a supervisor.
    ///
    /// It is given all the time its own children were promised.
    pub fn supervisor() -> Self {
        Self { shutdown: Shutdown::Infinity, ..Self::default() }
    }
}

/// The rules that hold at one place in the tree.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Rules {
    /// The place; `*` stands for each child of a set whose children come and go.
    pub path: String,
    /// How its supervisor treats it; none for the root.
    pub child: Option<ChildPolicy>,
    /// What it does with all its children together, where it is a supervisor.
    pub set: Option<SetPolicy>,
}

/// When an ended child is started again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Restart {
    /// Always.
    #[default]
    Permanent,
    /// Only when it did not end normally.
    Transient,
    /// Never.
    Temporary,
}

/// How a child is asked to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Shutdown {
    /// Killed at its next await, without a word.
    #[serde(rename = "brutal")]
    Brutal,
    /// Asked, and killed when this long has passed.
    #[serde(rename = "after_ms", with = "millis")]
    After(Duration),
    /// Asked, and waited for without end.
    #[serde(rename = "infinity")]
    Infinity,
}

/// How long to wait before something that failed is tried again.
///
/// The first `immediate` tries in a row come at once. The n-th wait after that is
/// `min * factor^(n-1)`, at most `max`, shortened by a random share of up to
/// `jitter`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Backoff {
    /// How many tries in a row come without a wait.
    pub immediate: u32,
    /// The first wait.
    #[serde(rename = "min_ms", with = "millis")]
    pub min: Duration,
    /// The longest wait.
    #[serde(rename = "max_ms", with = "millis")]
    pub max: Duration,
    /// By how much each wait exceeds the one before.
    pub factor: f64,
    /// The share of a wait, from 0 to 1, that chance may take away.
    pub jitter: f64,
    /// Who ran this long without failing starts from `min` again.
    #[serde(rename = "reset_ms", with = "millis")]
    pub reset: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self {
            immediate: 0,
            min: Duration::from_millis(50),
            max: Duration::from_secs(30),
            factor: 2.0,
            jitter: 0.2,
            reset: Duration::from_secs(60),
        }
    }
}

impl Backoff {
    /// Restarts at once, as OTP does.
    pub const NONE: Self = Self {
        immediate: 0,
        min: Duration::ZERO,
        max: Duration::ZERO,
        factor: 1.0,
        jitter: 0.0,
        reset: Duration::ZERO,
    };
}

/// A budget of restarts within a sliding window.
///
/// `restarts` of them within `within` are fine; one more exhausts the budget.
/// One that lies exactly `within` back still counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Intensity {
    /// How many restarts are fine.
    pub restarts: u32,
    /// How far back they are counted.
    #[serde(rename = "within_ms", with = "millis")]
    pub within: Duration,
}

impl Default for Intensity {
    fn default() -> Self {
        Self { restarts: 5, within: Duration::from_secs(60) }
    }
}

/// What a supervisor does with all its children together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SetPolicy {
    /// Who is restarted with a failed child.
    pub strategy: Strategy,
    /// Whether the end of significant children ends the set.
    pub auto_shutdown: AutoShutdown,
    /// What follows when one child has spent its own budget.
    ///
    /// Under [`Strategy::OneForAll`] and [`Strategy::RestForOne`] the children
    /// need each other, so there it is always [`Exhausted::Escalate`].
    pub exhausted: Exhausted,
    /// The set's own budget; when it is spent, the supervisor gives up.
    pub budget: Budget,
    /// How long quarantines last.
    pub quarantine: Quarantine,
}

impl SetPolicy {
    /// The policy for a set whose members come and go, such as devices: one
    /// bad member is quarantined, and only many different ones give up the set.
    pub fn dynamic() -> Self {
        Self {
            strategy: Strategy::Dynamic,
            exhausted: Exhausted::Quarantine,
            budget: Budget::Distinct { children: 64, within: Duration::from_secs(10) },
            ..Self::default()
        }
    }

    /// The policy for so many sets of such members side by side: one that gives up is restarted
    /// or quarantined by itself, and whatever the members do, nobody above hears of it.
    pub fn shards(count: u32) -> Self {
        Self {
            strategy: Strategy::OneForOne,
            exhausted: Exhausted::Quarantine,
            // No more can fail than there are.
            budget: Budget::Distinct { children: count, within: Duration::from_secs(60) },
            ..Self::default()
        }
    }

    /// The default policy with another strategy.
    pub fn with(strategy: Strategy) -> Self {
        Self { strategy, ..Self::default() }
    }
}

/// Who is restarted with a failed child.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Strategy {
    /// Nobody else.
    #[default]
    OneForOne,
    /// All its siblings.
    OneForAll,
    /// The siblings that were started after it.
    RestForOne,
    /// Nobody else; children come and go, are stopped all at once, and are
    /// forgotten when they have ended for good.
    Dynamic,
}

/// Whether the end of significant children ends the set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AutoShutdown {
    /// It does not.
    #[default]
    Never,
    /// The first one to end does.
    AnySignificant,
    /// The last one to end does.
    AllSignificant,
}

/// What follows when a child has spent its own budget.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Exhausted {
    /// The supervisor gives up and lets its own supervisor decide.
    #[default]
    Escalate,
    /// Only this child is left down for a while.
    Quarantine,
}

/// When a supervisor gives up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Budget {
    /// When there were too many restarts, whoever was restarted (OTP's rule).
    Restarts(Intensity),
    /// When more than `children` different children failed within `within`.
    Distinct {
        /// How many of them may fail.
        children: u32,
        /// How far back they are counted.
        #[serde(rename = "within_ms", with = "millis")]
        within: Duration,
    },
}

impl Default for Budget {
    fn default() -> Self {
        Self::Restarts(Intensity { restarts: 10, within: Duration::from_secs(60) })
    }
}

/// How long quarantines last: each one in a row twice as long.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Quarantine {
    /// The first one.
    #[serde(rename = "min_ms", with = "millis")]
    pub min: Duration,
    /// The longest one.
    #[serde(rename = "max_ms", with = "millis")]
    pub max: Duration,
    /// Who ran this long without failing starts from `min` again.
    #[serde(rename = "reset_ms", with = "millis")]
    pub reset: Duration,
}

impl Default for Quarantine {
    fn default() -> Self {
        Self {
            min: Duration::from_secs(30),
            max: Duration::from_secs(3600),
            reset: Duration::from_secs(600),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_table_is_the_default() {
        let policy: ChildPolicy = serde_json::from_str("{}").unwrap();
        assert_eq!(policy, ChildPolicy::default());
        let set: SetPolicy = serde_json::from_str("{}").unwrap();
        assert_eq!(set, SetPolicy::default());
    }

    #[test]
    fn durations_are_written_in_milliseconds() {
        let text = r#"{"restart":"transient","shutdown":{"after_ms":250},
            "backoff":{"min_ms":10,"factor":3.0},"stuck_after_ms":1000}"#;
        let policy: ChildPolicy = serde_json::from_str(text).unwrap();
        assert_eq!(policy.restart, Restart::Transient);
        assert_eq!(policy.shutdown, Shutdown::After(Duration::from_millis(250)));
        assert_eq!(policy.backoff.min, Duration::from_millis(10));
        assert_eq!(policy.backoff.max, Backoff::default().max);
        assert_eq!(policy.stuck_after, Some(Duration::from_secs(1)));
    }

    #[test]
    fn what_is_written_is_read_back() {
        let set = SetPolicy::dynamic();
        let text = serde_json::to_string(&set).unwrap();
        assert_eq!(serde_json::from_str::<SetPolicy>(&text).unwrap(), set);
    }

    #[test]
    fn an_unknown_field_is_refused() {
        assert!(serde_json::from_str::<ChildPolicy>(r#"{"restarts":3}"#).is_err());
    }
}
