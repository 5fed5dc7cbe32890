//! Which of several candidates counts, by path.

use std::sync::LazyLock;

use serde::{Deserialize, Serialize};

use super::PathPattern;
use crate::state::{Path, StateSource, VALUE_BYTES_MAX, Value};

/// Where the versions of the policy are kept in a tree: `policy/conflicts/1`.
pub const POLICY_PREFIX: &str = "policy/conflicts";
/// The most rules that a policy may have.
pub const RULES_MAX: usize = 64;

/// How a conflict is decided.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Strategy {
    /// The latest by timestamp, then by log and number.
    LastWriter,
    /// What comes from the first of these sources; the latest, where that leaves several.
    SourcePriority(Vec<StateSource>),
    /// What hardware reports; the latest, where that leaves several or none.
    HardwareTruth,
    /// The safest value; the latest, where that leaves several.
    SafestValue(Safest),
    /// All items of the lists, each once and in order. The latest, where not all are lists.
    SetUnion,
    /// A person decides. Until then the earliest stays in force: nothing new takes effect without
    /// a decision.
    Manual,
}

/// Which value is the safest. A leaf that is removed is the least safe, and so are values that the
/// order does not know.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Safest {
    /// The lowest number.
    Lowest,
    /// The highest number.
    Highest,
    /// The first of these.
    First(Vec<Value>),
}

/// How much a conflict matters.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// It is worth knowing.
    #[default]
    Info,
    /// Somebody should look.
    Warning,
    /// Somebody must look.
    Critical,
}

/// How conflicts of some leaves are decided.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// Which leaves.
    pub paths: PathPattern,
    /// How.
    pub strategy: Strategy,
    /// How much such a conflict matters, where that is not as its kind has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub severity: Option<Severity>,
}

/// How conflicts are decided: the first rule whose pattern fits a leaf, else by the last writer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConflictPolicy {
    /// The rules, the first that fits first.
    pub rules: Vec<Rule>,
}

/// A text that is no policy.
#[derive(Debug, thiserror::Error)]
pub enum PolicyError {
    /// It is not JSON of that shape.
    #[error("the policy cannot be read: {0}")]
    Json(#[from] serde_json::Error),
    /// It has too many rules.
    #[error("the policy has {found} rules, the limit is {RULES_MAX}")]
    TooManyRules {
        /// How many.
        found: usize,
    },
    /// It is too long for a leaf.
    #[error("the policy takes {bytes} bytes, the limit is {VALUE_BYTES_MAX}")]
    TooLong {
        /// How long.
        bytes: usize,
    },
}

impl ConflictPolicy {
    /// What holds where no policy was set: hardware is right about what is reported, and
    /// everywhere else the last writer.
    pub fn built_in() -> &'static Self {
        static BUILT_IN: LazyLock<ConflictPolicy> = LazyLock::new(|| {
            let paths = PathPattern::new("reported/**").expect("a pattern");
            let rule = Rule { paths, strategy: Strategy::HardwareTruth, severity: None };
            ConflictPolicy { rules: vec![rule] }
        });
        &BUILT_IN
    }

    /// Reads a policy from JSON.
    pub fn parse(text: &str) -> Result<Self, PolicyError> {
        if text.len() > VALUE_BYTES_MAX {
            return Err(PolicyError::TooLong { bytes: text.len() });
        }
        let policy: Self = serde_json::from_str(text)?;
        match policy.rules.len() {
            found if found > RULES_MAX => Err(PolicyError::TooManyRules { found }),
            _ => Ok(policy),
        }
    }

    /// The rule that is for a leaf.
    pub fn rule(&self, path: &Path) -> Option<&Rule> {
        self.rules.iter().find(|rule| rule.paths.matches(path))
    }

    /// The strategy that is for a leaf.
    pub fn strategy(&self, path: &Path) -> &Strategy {
        self.rule(path).map_or(&Strategy::LastWriter, |rule| &rule.strategy)
    }
}

impl Strategy {
    /// The name in answers, the same as in policies.
    pub fn name(&self) -> &'static str {
        match self {
            Self::LastWriter => "last_writer",
            Self::SourcePriority(_) => "source_priority",
            Self::HardwareTruth => "hardware_truth",
            Self::SafestValue(_) => "safest_value",
            Self::SetUnion => "set_union",
            Self::Manual => "manual",
        }
    }
}

/// The version of the policy that a leaf is, where it is one.
pub fn policy_version(path: &Path) -> Option<u32> {
    version_below(path, POLICY_PREFIX)
}

/// The version that a leaf is of what is kept below a prefix.
pub(crate) fn version_below(path: &Path, prefix: &str) -> Option<u32> {
    let version = path.below(prefix)?;
    // One way of writing a number, so that a version has one leaf.
    let number: u32 = version.parse().ok()?;
    (number > 0 && number.to_string() == version).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> Path {
        Path::new(text).expect("a path")
    }

    #[test]
    fn the_first_rule_that_fits_counts() {
        let policy = ConflictPolicy::parse(
            r#"{"rules": [
                {"paths": "shared/limits/*", "strategy": {"safest_value": "lowest"}},
                {"paths": "shared/mode", "strategy": {"safest_value": {"first": ["off", "slow"]}},
                 "severity": "critical"},
                {"paths": "shared/**", "strategy": "manual"},
                {"paths": "shared/limits/cpu", "strategy": "set_union"}
            ]}"#,
        )
        .expect("a policy");
        let strategy = |text| policy.strategy(&path(text)).clone();
        assert_eq!(strategy("shared/limits/cpu"), Strategy::SafestValue(Safest::Lowest));
        assert_eq!(strategy("shared/other"), Strategy::Manual);
        assert_eq!(strategy("desired/other"), Strategy::LastWriter);
        let listed = vec![Value::from("off"), Value::from("slow")];
        assert_eq!(strategy("shared/mode"), Strategy::SafestValue(Safest::First(listed)));
        let severity = policy.rule(&path("shared/mode")).and_then(|rule| rule.severity);
        assert_eq!(severity, Some(Severity::Critical));
        let text = serde_json::to_string(&policy).expect("JSON");
        assert_eq!(ConflictPolicy::parse(&text).expect("reads back"), policy);
    }

    #[test]
    fn what_is_no_policy_is_refused_and_says_why() {
        let why = |text: &str| ConflictPolicy::parse(text).expect_err("no policy").to_string();
        assert!(why(r#"{"rules": [{"paths": "a", "strategy": "magic"}]}"#).contains("magic"));
        assert!(why(r#"{"rules": [{"paths": "a*", "strategy": "manual"}]}"#).contains("segment"));
        assert!(why(r#"{"rules": [], "extra": 1}"#).contains("extra"));
        let rule = r#"{"paths": "a", "strategy": "manual"}"#;
        let many = format!(r#"{{"rules": [{}]}}"#, vec![rule; RULES_MAX + 1].join(","));
        assert!(why(&many).contains("65 rules"));
        assert!(why(&" ".repeat(VALUE_BYTES_MAX + 1)).contains("limit"));
    }

    #[test]
    fn a_version_is_written_in_one_way_only() {
        assert_eq!(policy_version(&path("policy/conflicts/12")), Some(12));
        for other in ["policy/conflicts/0", "policy/conflicts/012", "policy/conflicts/+1"] {
            assert_eq!(policy_version(&path(other)), None, "{other}");
        }
        assert_eq!(policy_version(&path("policy/conflicts/1/x")), None);
        assert_eq!(policy_version(&path("desired/conflicts/1")), None);
    }
}
