//! The guide names every instrument, with its meaning, and no other.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// What names of instruments begin with.
const PREFIXES: [&str; 4] = ["fleet.", "http.", "otel.", "process."];

#[test]
fn the_guide_names_every_instrument_and_no_other() {
    let root = Path::new("../..");
    let guide = fs::read_to_string(root.join("ops/guides/metrics.md")).expect("the guide");
    let mut sources = String::new();
    for place in
        ["actors/telemetry/src", "brain/src/metrics.rs", "brain/src/metrics", "edge/src/metrics"]
    {
        read(&root.join(place), &mut sources);
    }
    // One line as another: rustfmt breaks where it likes.
    let sources = sources.split_whitespace().collect::<Vec<_>>().join(" ");
    let rows: BTreeMap<&str, &str> = guide
        .lines()
        .filter_map(|line| {
            let mut cells = line.strip_prefix("| `")?.split(" | ");
            let name = cells.next()?.trim_end_matches('`');
            let meaning = cells.last()?.trim_end_matches(" |");
            PREFIXES.iter().any(|prefix| name.starts_with(prefix)).then_some((name, meaning))
        })
        .collect();
    let mut made = 0;
    for (name, rest) in quoted(&sources) {
        if !PREFIXES.iter().any(|prefix| name.starts_with(prefix)) {
            continue;
        }
        // Attributes have such names as well; an instrument's is followed by what it means.
        let near: String = rest.chars().take(400).collect();
        let Some(meaning) = rows.get(name) else {
            assert!(is_attribute(name), "{name} is not in the guide");
            continue;
        };
        assert!(near.contains(&format!("\"{meaning}\"")), "{name} means something else: {near}");
        made += 1;
    }
    assert_eq!(made, rows.len(), "the guide names instruments that nobody makes");
}

fn is_attribute(name: &str) -> bool {
    ["http.request.method", "http.response.status_code", "http.route"].contains(&name)
}

fn read(place: &Path, into: &mut String) {
    if place.is_file() {
        let text = fs::read_to_string(place).expect("a source");
        // What tests say is nothing that anybody is shown.
        into.push_str(text.split("#[cfg(test)]").next().unwrap_or_default());
        return;
    }
    let mut files: Vec<PathBuf> =
        fs::read_dir(place).expect("a folder").map(|file| file.expect("a file").path()).collect();
    files.sort();
    files.iter().for_each(|file| read(file, into));
}

/// Every string without spaces in it, with what follows.
fn quoted(text: &str) -> impl Iterator<Item = (&str, &str)> {
    text.match_indices('"').filter_map(|(at, _)| {
        let rest = &text[at + 1..];
        let end = rest.find('"')?;
        let name = &rest[..end];
        (!name.is_empty() && !name.contains(' ')).then_some((name, &rest[end + 1..]))
    })
}
