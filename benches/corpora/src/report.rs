//! The table.

use clap::ValueEnum;
use comfy_table::{CellAlignment, Table, presets};

use crate::measure::Row;

/// How a table is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people.
    Table,
    /// For documents.
    Markdown,
    /// For programs.
    Json,
}

const HEADER: [&str; 12] = [
    "corpus",
    "form",
    "codec",
    "batch",
    "records",
    "plain B",
    "packed B",
    "ratio",
    "MB/s in",
    "MB/s out",
    "µs/record",
    "target",
];

/// The rows as text.
pub fn render(rows: &[Row], output: Output) -> Result<String, serde_json::Error> {
    let style = match output {
        Output::Json => return serde_json::to_string_pretty(rows),
        Output::Table => presets::NOTHING,
        Output::Markdown => presets::ASCII_MARKDOWN,
    };
    let mut table = Table::new();
    table.load_style(style).set_header(HEADER);
    for row in rows {
        table.add_row([
            row.corpus.name().to_owned(),
            row.form.name().to_owned(),
            row.method.name(),
            row.batch_records.to_string(),
            row.records.to_string(),
            row.plain_bytes.to_string(),
            row.packed_bytes.to_string(),
            format!("{:.2}", row.ratio),
            format!("{:.0}", row.compress_mb_per_s),
            format!("{:.0}", row.decompress_mb_per_s),
            format!("{:.2}", row.compress_us_per_record + row.decompress_us_per_record),
            verdict(row),
        ]);
    }
    for column in table.column_iter_mut().skip(3).take(8) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    Ok(table.trim_fmt())
}

fn verdict(row: &Row) -> String {
    match (row.target, row.hit) {
        (Some(target), Some(hit)) => {
            let verdict = if hit { "met" } else { "missed" };
            format!("{}:1 {verdict}", target.ratio)
        }
        _ => String::new(),
    }
}
