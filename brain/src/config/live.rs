//! Settings that change while the brain runs.

use std::collections::BTreeMap;
use std::sync::Arc;

use arc_swap::{ArcSwap, Guard};
use serde_json::Value;

use super::Config;

/// Settings, and tables of them, that take effect at once. All others are read at the start.
const LIVE: [&str; 9] = [
    "log",
    "names",
    "connections_per_second",
    "heartbeat_ms",
    "credit_bytes",
    "consistency_trees_per_second",
    "history",
    "backup",
    "residency",
];

/// The settings in force. Clones share them.
#[derive(Debug, Clone)]
pub struct Live(Arc<ArcSwap<Config>>);

/// One setting that changed.
#[derive(Debug, Clone, PartialEq)]
pub struct Change {
    /// Its name, with the tables that it is in: `residency.idle_after_ms`.
    pub setting: String,
    /// What it was.
    pub before: Value,
    /// What it is.
    pub after: Value,
}

/// New settings that cannot be taken while the brain runs.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("nothing was changed: {} can only change with a restart", settings.join(", "))]
pub struct NeedsRestart {
    /// Those that would change.
    pub settings: Vec<String>,
}

impl Live {
    /// These settings, for now.
    pub fn new(config: Config) -> Self {
        Self(Arc::new(ArcSwap::from_pointee(config)))
    }

    /// The settings in force.
    pub fn get(&self) -> Guard<Arc<Config>> {
        self.0.load()
    }

    /// What would change with `new` settings; an error where some of that needs a restart.
    pub fn changes(&self, new: &Config) -> Result<Vec<Change>, NeedsRestart> {
        let changes = differences(&leaves(&self.get()), &leaves(new));
        let fixed = |change: &&Change| {
            let first = change.setting.split('.').next().unwrap_or_default();
            !LIVE.contains(&first)
        };
        let settings: Vec<_> = changes.iter().filter(fixed).map(|c| c.setting.clone()).collect();
        if settings.is_empty() { Ok(changes) } else { Err(NeedsRestart { settings }) }
    }

    /// Takes new settings, all at once.
    pub fn set(&self, new: Config) {
        self.0.store(Arc::new(new));
    }
}

fn leaves(config: &Config) -> BTreeMap<String, Value> {
    let mut found = BTreeMap::new();
    // Every setting can be written as JSON: that is tested by printing them.
    let value = serde_json::to_value(config).unwrap_or_default();
    gather(String::new(), value, &mut found);
    found
}

fn gather(name: String, value: Value, into: &mut BTreeMap<String, Value>) {
    match value {
        Value::Object(table) => {
            for (key, value) in table {
                let name = if name.is_empty() { key } else { format!("{name}.{key}") };
                gather(name, value, into);
            }
        }
        leaf => drop(into.insert(name, leaf)),
    }
}

fn differences(before: &BTreeMap<String, Value>, after: &BTreeMap<String, Value>) -> Vec<Change> {
    let names: std::collections::BTreeSet<_> = before.keys().chain(after.keys()).collect();
    let of = |values: &BTreeMap<String, Value>, name: &String| {
        values.get(name).cloned().unwrap_or(Value::Null)
    };
    let change = |name: &String| {
        let (before, after) = (of(before, name), of(after, name));
        (before != after).then(|| Change { setting: name.clone(), before, after })
    };
    names.into_iter().filter_map(change).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_changes_is_named_with_both_values() {
        let live = Live::new(Config::default());
        let mut new = Config { log: "debug".into(), ..Config::default() };
        new.residency.idle_after_ms = 5;
        let changes = live.changes(&new).expect("all of it can change");
        let change =
            |setting: &str, before, after| Change { setting: setting.into(), before, after };
        assert_eq!(
            changes,
            [
                change("log", json!("info"), json!("debug")),
                change("residency.idle_after_ms", json!(60_000), json!(5)),
            ]
        );
        live.set(new.clone());
        assert_eq!(live.changes(&new), Ok(Vec::new()));
    }

    #[test]
    fn one_setting_that_needs_a_restart_holds_back_all() {
        let live = Live::new(Config::default());
        let mut new = Config { log: "debug".into(), api_tls: true, ..Config::default() };
        new.supervision.device.intensity.restarts = 9;
        let refused = live.changes(&new).expect_err("two of them need a restart");
        assert_eq!(refused.settings, ["api_tls", "supervision.device.intensity.restarts"]);
        assert_eq!(live.get().log, "info");
    }
}
