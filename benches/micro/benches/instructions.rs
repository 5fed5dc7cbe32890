//! How many instructions each case takes: `cargo bench -p micro --bench instructions`.
//!
//! The program runs itself under valgrind, once with a few runs of a case and once with more; the
//! difference is that of the runs alone, without the start of the process and the input. The
//! count does not depend on what else the machine does, and hardly on the machine.

use std::process::{Command, ExitCode, Stdio};
use std::{env, fmt};

use comfy_table::{CellAlignment, Table, TableStyle, presets};
use micro::case::Case;
use micro::cases;

const USAGE: &str = "usage: instructions [--output table|markdown|json] [FILTER]
Counts the instructions of the cases whose group or name contains FILTER; needs valgrind.";
/// Lazily made tables and the first growth of buffers belong to the runs before.
const RUNS_BEFORE: u32 = 3;
const RUNS: u32 = 10;

/// What a case took.
struct Count {
    case: Case,
    per_run: u64,
}

/// Why nothing was counted.
#[derive(Debug)]
enum Failure {
    Usage,
    NoValgrind(std::io::Error),
    Failed { case: &'static str, said: String },
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Usage => f.write_str(USAGE),
            Self::NoValgrind(error) => {
                write!(f, "valgrind does not run ({error}); install the package valgrind")
            }
            Self::Failed { case, said } => write!(f, "{case:?} failed under valgrind:\n{said}"),
        }
    }
}

fn main() -> ExitCode {
    let arguments: Vec<_> = env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let words: Vec<_> = arguments.iter().map(String::as_str).collect();
    let result = match words.as_slice() {
        ["--run", name, times] => return run(name, times.parse().unwrap_or(0)),
        ["--help" | "-h"] => {
            println!("{USAGE}");
            return ExitCode::SUCCESS;
        }
        ["--output", output] => report(output, ""),
        ["--output", output, filter] => report(output, filter),
        [] => report("table", ""),
        [filter] if !filter.starts_with('-') => report("table", filter),
        _ => Err(Failure::Usage),
    };
    match result {
        Ok(text) => {
            println!("{text}");
            ExitCode::SUCCESS
        }
        Err(failure) => {
            eprintln!("instructions: {failure}");
            ExitCode::from(if matches!(failure, Failure::Usage) { 2 } else { 1 })
        }
    }
}

/// The process under valgrind: does one case so many times.
fn run(name: &str, times: u32) -> ExitCode {
    let Some(case) = cases::all().find(|case| case.name == name) else {
        return ExitCode::from(2);
    };
    let mut run = (case.prepare)();
    for _ in 0..times {
        run();
    }
    ExitCode::SUCCESS
}

fn report(output: &str, filter: &str) -> Result<String, Failure> {
    let style = match output {
        "table" => Some(presets::NOTHING),
        "markdown" => Some(presets::ASCII_MARKDOWN),
        "json" => None,
        _ => return Err(Failure::Usage),
    };
    let wanted = |case: &Case| case.group.contains(filter) || case.name.contains(filter);
    let mut counts = Vec::new();
    for case in cases::all().filter(wanted) {
        eprintln!("instructions: {}", case.name);
        let (few, many) = (count(case, RUNS_BEFORE)?, count(case, RUNS_BEFORE + RUNS)?);
        counts.push(Count { case, per_run: many.saturating_sub(few) / u64::from(RUNS) });
    }
    Ok(match style {
        Some(style) => table(&counts, style),
        None => json(&counts),
    })
}

/// All instructions of a process that does the case `times` times.
fn count(case: Case, times: u32) -> Result<u64, Failure> {
    let this = env::current_exe().map_err(Failure::NoValgrind)?;
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(this)
        .args(["--run", case.name, &times.to_string()])
        .stdout(Stdio::null())
        .output()
        .map_err(Failure::NoValgrind)?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let collected = said.lines().find_map(|line| line.split_once("Collected : "));
    let collected = collected.and_then(|(_, count)| count.trim().parse().ok());
    match collected {
        Some(count) if output.status.success() => Ok(count),
        _ => Err(Failure::Failed { case: case.name, said }),
    }
}

fn table(counts: &[Count], style: TableStyle) -> String {
    let mut table = Table::new();
    table.load_style(style);
    table.set_header(["group", "case", "instructions", "items", "for each"]);
    for Count { case, per_run } in counts {
        let each = per_run / case.items;
        table.add_row([
            case.group.to_owned(),
            case.name.to_owned(),
            per_run.to_string(),
            case.items.to_string(),
            each.to_string(),
        ]);
    }
    for column in table.column_iter_mut().skip(2) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table.trim_fmt()
}

fn json(counts: &[Count]) -> String {
    let row = |Count { case, per_run }: &Count| {
        serde_json::json!({
            "group": case.group,
            "case": case.name,
            "instructions": per_run,
            "items": case.items,
        })
    };
    serde_json::Value::from(counts.iter().map(row).collect::<Vec<_>>()).to_string()
}
