//! `brain init` dies at every one of its persist steps, and is run again.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use benches::brain::Brain;
use sim::random::Random;

use super::{BRAIN_LAB, died};
use crate::oracle::seed;

/// One in so many folders is served as well, chosen by the seed.
const SERVED: u64 = 8;

/// The failpoints that an init visits, in order.
pub(super) fn visits() -> Vec<String> {
    let folder = tempfile::tempdir().expect("temporary folder");
    let visits = folder.path().join("visits");
    let output =
        init(&folder.path().join("brain"), ("FAILPOINT_VISITS", &visits.to_string_lossy()));
    assert!(output.status.success());
    fs::read_to_string(&visits).expect("visits").lines().map(str::to_owned).collect()
}

fn init(folder: &Path, (name, value): (&str, &str)) -> Output {
    let mut command = Command::new(BRAIN_LAB);
    command.args(["init", "--data-dir"]).arg(folder).env(name, value);
    command.output().expect("runs")
}

#[test]
fn an_init_that_dies_at_any_step_is_finished_by_the_next() {
    let visits = visits();
    let seed = seed();
    let mut random = Random::new(seed);
    for (n, point) in visits.iter().enumerate() {
        let place = format!("{point}, visit {} of {} in all", n + 1, visits.len());
        let temporary = tempfile::tempdir().expect("temporary folder");
        let folder = temporary.path().join("brain");
        let output = init(&folder, ("FAILPOINTS", &format!("*={}", n + 1)));
        assert!(died(output.status), "{place}: {output:?}");
        let whole = fs::read(folder.join("fleet.json")).ok();
        let output = init(&folder, ("FAILPOINTS", ""));
        let said = String::from_utf8_lossy(&output.stderr);
        let was_finished = said.contains("already; nothing was changed");
        assert!(output.status.success() || was_finished, "{place}: {said}");
        let fleet = fs::read(folder.join("fleet.json")).expect("a fleet");
        assert!(whole.is_none_or(|whole| whole == fleet), "{place}: a whole identity is kept");
        let token = fs::read_to_string(folder.join("admin.token")).expect("a first token");
        assert!(token.len() > 32 && token.ends_with('\n'), "{place}: {token:?}");
        assert!(!folder.join("init.unfinished").exists(), "{place}");
        if random.below(SERVED) == 0 {
            serve(&folder, &place);
        }
    }
    let points = visits.iter().collect::<BTreeSet<_>>().len();
    println!("init died {} times at {points} failpoints, seed {seed}", visits.len());
}

/// What init made is a brain that knows its first user.
fn serve(folder: &Path, place: &str) {
    let mut brain = Brain::at(BRAIN_LAB, folder, &[]);
    brain.restart().unwrap_or_else(|error| panic!("{place}: {error:#}"));
    brain.get("/api/v1/devices").unwrap_or_else(|error| panic!("{place}: {error:#}"));
}
