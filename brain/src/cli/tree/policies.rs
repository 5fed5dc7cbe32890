//! The rules that are in force.

use actors::supervise::{
    Backoff, Budget, ChildPolicy, Exhausted, Intensity, Restart, Rules, SetPolicy, Shutdown,
    Strategy,
};

use crate::cli::output;

/// A table of rules, a place a row.
pub(super) fn table(rules: &[Rules]) -> impl std::fmt::Display {
    let heading = ["path", "restart", "stop", "waits", "own budget", "stuck", "its children"];
    output::table(heading, rules.iter().map(row))
}

fn row(rules: &Rules) -> [String; 7] {
    let dash = || "-".to_owned();
    let of = |text: fn(&ChildPolicy) -> String| rules.child.as_ref().map_or_else(dash, text);
    [
        rules.path.clone(),
        of(|child| restart(child.restart).to_owned()),
        of(|child| shutdown(child.shutdown)),
        of(|child| waits(&child.backoff)),
        of(|child| intensity(child.intensity)),
        of(|child| child.stuck_after.map_or_else(|| "never".to_owned(), time)),
        rules.set.as_ref().map_or_else(dash, set),
    ]
}

fn restart(restart: Restart) -> &'static str {
    match restart {
        Restart::Permanent => "always",
        Restart::Transient => "after faults",
        Restart::Temporary => "never",
    }
}

fn shutdown(shutdown: Shutdown) -> String {
    match shutdown {
        Shutdown::Brutal => "killed".to_owned(),
        Shutdown::After(patience) => format!("within {}", time(patience)),
        Shutdown::Infinity => "waited for".to_owned(),
    }
}

fn waits(backoff: &Backoff) -> String {
    let Backoff { immediate, min, max, factor, .. } = *backoff;
    let waits = format!("{} × {factor} to {}", time(min), time(max));
    if immediate == 0 { waits } else { format!("{immediate} at once, {waits}") }
}

fn intensity(intensity: Intensity) -> String {
    format!("{} in {}", intensity.restarts, time(intensity.within))
}

fn set(set: &SetPolicy) -> String {
    let who = match set.strategy {
        Strategy::OneForOne => "one for one",
        Strategy::OneForAll => "one for all",
        Strategy::RestForOne => "rest for one",
        Strategy::Dynamic => "come and go",
    };
    let then = match set.exhausted {
        Exhausted::Escalate => "else gives up",
        Exhausted::Quarantine => "else quarantine",
    };
    let all = match set.budget {
        Budget::Restarts(all) => format!("all together {}", intensity(all)),
        Budget::Distinct { children, within } => {
            format!("{children} different ones in {}", time(within))
        }
    };
    format!("{who}, {then}; {all}")
}

fn time(time: std::time::Duration) -> String {
    output::duration(u64::try_from(time.as_millis()).unwrap_or(u64::MAX))
}
