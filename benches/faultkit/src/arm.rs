//! Making a process die at a failpoint.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::process::{Signal, getpid, kill_process};

use crate::Point;

/// The environment variable that says where to die: `NAME`, or `NAME=VISIT` to die at a later
/// visit than the first; `*=VISIT` counts the visits of all failpoints together.
pub const WHERE_VARIABLE: &str = "FAILPOINTS";
/// The environment variable that names a file to which the name of every visited failpoint is
/// appended, one a line.
pub const VISITS_VARIABLE: &str = "FAILPOINT_VISITS";
/// Stands for all failpoints.
pub const ANY: &str = "*";

/// Why no failpoint is armed.
#[derive(Debug, thiserror::Error)]
pub enum ArmError {
    /// No such failpoint.
    #[error("there is no failpoint {name:?}")]
    Unknown {
        /// The name that was asked for.
        name: String,
    },
    /// Not the number of a visit.
    #[error("{text:?} is not NAME or NAME=VISIT with a visit of 1 or more")]
    NoVisit {
        /// What was asked for.
        text: String,
    },
    /// The `fail` crate does not take the action.
    #[error("the failpoint {name} cannot be set: {detail}")]
    Refused {
        /// The failpoint.
        name: &'static str,
        /// What it said.
        detail: String,
    },
    /// The file of visits cannot be opened.
    #[error("{path} cannot be written")]
    Visits {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
}

/// Where to die.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Death {
    point: String,
    visit: u64,
}

/// Sets the failpoints as [`WHERE_VARIABLE`] and [`VISITS_VARIABLE`] say; does nothing without
/// them.
///
/// # Errors
/// If they name no failpoint of `points` or no visit, or the file cannot be opened.
pub fn arm_from_environment(points: &'static [Point]) -> Result<(), ArmError> {
    let death = match std::env::var(WHERE_VARIABLE) {
        Ok(text) if !text.is_empty() => Some(Death::parse(&text, points)?),
        _ => None,
    };
    let visits = match std::env::var_os(VISITS_VARIABLE).map(PathBuf::from) {
        Some(path) => {
            let file = OpenOptions::new().create(true).append(true).open(&path);
            Some(Arc::new(file.map_err(|source| ArmError::Visits { path, source })?))
        }
        None => None,
    };
    if death.is_none() && visits.is_none() {
        return Ok(());
    }
    let visited = Arc::new(AtomicU64::new(0));
    for (name, _) in points {
        let dies = death.clone().filter(|death| death.point == *name || death.point == ANY);
        let (visited, visits) = (visited.clone(), visits.clone());
        let visit = move || {
            if let Some(mut file) = visits.as_deref() {
                note(&mut file, name);
            }
            if let Some(death) = &dies
                && visited.fetch_add(1, Ordering::SeqCst) + 1 == death.visit
            {
                die();
            }
        };
        let set = fail::cfg_callback(*name, visit);
        set.map_err(|detail| ArmError::Refused { name, detail })?;
    }
    Ok(())
}

impl Death {
    fn parse(text: &str, points: &[Point]) -> Result<Self, ArmError> {
        let (point, visit) = text.split_once('=').unwrap_or((text, "1"));
        if point != ANY && !points.iter().any(|(name, _)| *name == point) {
            return Err(ArmError::Unknown { name: point.to_owned() });
        }
        match visit.parse() {
            Ok(visit) if visit > 0 => Ok(Self { point: point.to_owned(), visit }),
            _ => Err(ArmError::NoVisit { text: text.to_owned() }),
        }
    }
}

fn note(file: &mut &File, name: &str) {
    // One write, so that lines of several threads do not mix. Without the note a test that counts
    // visits fails, which is as good as an error here.
    let _ = file.write_all(format!("{name}\n").as_bytes());
}

fn die() -> ! {
    // No process is refused a signal to itself; if it were, abort runs no destructors either.
    let _ = kill_process(getpid(), Signal::KILL);
    std::process::abort()
}

#[cfg(test)]
mod tests {
    use super::*;

    const POINTS: &[Point] = &[("a.b", "one"), ("c", "two")];

    #[test]
    fn a_place_is_a_known_name_and_a_visit() {
        let parse = |text| Death::parse(text, POINTS);
        let death = |point: &str, visit| Death { point: point.to_owned(), visit };
        assert_eq!(parse("a.b").expect("known"), death("a.b", 1));
        assert_eq!(parse("c=7").expect("known"), death("c", 7));
        assert_eq!(parse("*=2").expect("any"), death(ANY, 2));
        assert!(matches!(parse("d"), Err(ArmError::Unknown { name }) if name == "d"));
        assert!(matches!(parse("c=0"), Err(ArmError::NoVisit { .. })));
        assert!(matches!(parse("c=x"), Err(ArmError::NoVisit { .. })));
    }
}
