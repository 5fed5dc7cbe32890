//! What a run found, for people and for programs.

use clap::ValueEnum;
use comfy_table::presets::{ASCII_MARKDOWN, UTF8_FULL_CONDENSED};
use comfy_table::{CellAlignment, ContentArrangement, Table, TableStyle};
use serde::Serialize;
use serde_json::{Value, json};

use super::measure::{Latency, Machine, Spread};

/// How a report is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    /// For a terminal
    Table,
    /// For a page
    Markdown,
    /// For programs
    Json,
}

/// All that a run found.
#[derive(Debug)]
pub(super) struct Report {
    pub(super) command: String,
    pub(super) machine: Machine,
    pub(super) sections: Vec<Section>,
}

/// What one scenario found.
#[derive(Debug)]
pub(super) struct Section {
    pub(super) scenario: &'static str,
    /// What was done, in a line.
    pub(super) about: String,
    pub(super) columns: Vec<&'static str>,
    pub(super) rows: Vec<Vec<String>>,
    /// What a reader of the table has to know.
    pub(super) notes: Vec<String>,
    /// The figures behind the table.
    pub(super) results: Value,
}

impl Section {
    /// A section with rows and figures of the same things.
    pub(super) fn new<T: Serialize>(
        scenario: &'static str,
        about: String,
        columns: &[&'static str],
        rows: Vec<Vec<String>>,
        results: &T,
    ) -> anyhow::Result<Self> {
        let (columns, results) = (columns.to_vec(), serde_json::to_value(results)?);
        Ok(Self { scenario, about, columns, rows, notes: Vec::new(), results })
    }

    /// The section with notes below its table.
    pub(super) fn with_notes(mut self, notes: impl IntoIterator<Item = String>) -> Self {
        self.notes.extend(notes);
        self
    }
}

impl Report {
    /// The report as text.
    pub(super) fn to_text(&self, format: Format) -> String {
        match format {
            Format::Json => format!("{:#}", self.to_json()),
            Format::Table => self.render("", "== ", "", UTF8_FULL_CONDENSED),
            Format::Markdown => self.render("- ", "### ", "\n", ASCII_MARKDOWN),
        }
    }

    /// The report as JSON.
    pub(super) fn to_json(&self) -> Value {
        let sections = self.sections.iter().map(|section| {
            json!({
                "scenario": section.scenario,
                "about": section.about,
                "notes": section.notes,
                "results": section.results,
            })
        });
        json!({
            "command": self.command,
            "machine": self.machine,
            "scenarios": sections.collect::<Vec<_>>(),
        })
    }

    fn render(&self, bullet: &str, heading: &str, gap: &str, style: TableStyle) -> String {
        let mut out = format!("{bullet}command: {}\n", self.command);
        for line in self.machine.lines() {
            out += &format!("{bullet}{line}\n");
        }
        for section in &self.sections {
            out += &format!("\n{heading}{}\n{gap}{}\n{gap}", section.scenario, section.about);
            let mut table = Table::new();
            table.load_style(style).set_content_arrangement(ContentArrangement::Disabled);
            table.set_header(&section.columns);
            for row in &section.rows {
                table.add_row(row);
            }
            for column in table.column_iter_mut().skip(1) {
                column.set_cell_alignment(CellAlignment::Right);
            }
            out += &format!("{table}\n");
            if !section.notes.is_empty() {
                out += gap;
            }
            for note in &section.notes {
                out += &format!("{bullet}{note}\n");
            }
        }
        out
    }
}

/// A figure with about three digits.
pub(super) fn figure(value: f64) -> String {
    match value.abs() {
        small if small < 0.0005 => "0".to_owned(),
        small if small < 1.0 => format!("{value:.3}"),
        medium if medium < 10.0 => format!("{value:.2}"),
        medium if medium < 100.0 => format!("{value:.1}"),
        _ => grouped(value.round() as i64),
    }
}

/// A figure over rounds: the median, with the lowest and highest.
pub(super) fn spread(spread: &Spread) -> String {
    let Spread { median, min, max } = *spread;
    format!("{} ({} – {})", figure(median), figure(min), figure(max))
}

/// Three percentiles in milliseconds.
pub(super) fn latency(latency: &Latency) -> [String; 3] {
    [latency.p50_us, latency.p99_us, latency.p999_us].map(|us| figure(us as f64 / 1e3))
}

/// Bytes in the unit that suits them.
pub(super) fn bytes(bytes: f64) -> String {
    match bytes.abs() {
        small if small < 1024.0 => format!("{} B", figure(bytes)),
        medium if medium < 1_048_576.0 => format!("{} KiB", figure(bytes / 1024.0)),
        _ => format!("{} MiB", figure(bytes / 1_048_576.0)),
    }
}

fn grouped(number: i64) -> String {
    let digits = number.unsigned_abs().to_string();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    if number < 0 { format!("-{text}") } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_keep_three_digits() {
        let cases = [
            (0.0, "0"),
            (0.0421, "0.042"),
            (1.234, "1.23"),
            (45.67, "45.7"),
            (999.6, "1,000"),
            (1_234_567.0, "1,234,567"),
            (-1_234.0, "-1,234"),
        ];
        for (value, text) in cases {
            assert_eq!(figure(value), text);
        }
    }

    #[test]
    fn bytes_come_in_their_unit() {
        assert_eq!(bytes(512.0), "512 B");
        assert_eq!(bytes(16.0 * 1024.0), "16.0 KiB");
        assert_eq!(bytes(3.5 * 1_048_576.0), "3.50 MiB");
    }
}
