//! Tables for people, JSON for programs.

use comfy_table::{ContentArrangement, Table, presets};
use jiff::Timestamp;
use serde_json::Value;

/// How to print.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub(super) enum Output {
    /// For people
    #[default]
    Table,
    /// For programs
    Json,
}

/// A table with a heading.
pub(super) fn table<const N: usize>(
    heading: [&str; N],
    rows: impl IntoIterator<Item = [String; N]>,
) -> Table {
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Dynamic)
        .set_header(heading.map(str::to_uppercase));
    table.add_rows(rows);
    table
}

/// A moment, in RFC 3339, to the second.
pub(super) fn time(ms: u64) -> String {
    let moment = i64::try_from(ms).ok().and_then(|ms| Timestamp::from_millisecond(ms).ok());
    match moment {
        Some(moment) if ms > 0 => format!("{moment:.0}"),
        _ => "-".to_owned(),
    }
}

/// A leaf's value, short.
pub(super) fn value(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}
