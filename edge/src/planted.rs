//! Faults that no product may have, planted to see whether the tests notice.

use std::sync::atomic::{AtomicBool, Ordering};

/// The environment variable that names the fault.
pub const VARIABLE: &str = "FLEET_PLANTED_FAULT";
/// Commits are said to be durable without an `fsync`.
pub const FSYNC_SKIPPED: &str = "fsync-skipped";

static SKIPS_FSYNC: AtomicBool = AtomicBool::new(false);

/// A fault of no known name.
#[derive(Debug, thiserror::Error)]
#[error("no fault is called {name:?}; there is {FSYNC_SKIPPED}")]
pub struct UnknownFault {
    name: String,
}

/// Plants the fault that the environment names, if it names one.
///
/// # Errors
/// If no fault has that name.
pub fn plant_from_environment() -> Result<(), UnknownFault> {
    match std::env::var(VARIABLE) {
        Ok(name) if name == FSYNC_SKIPPED => {
            SKIPS_FSYNC.store(true, Ordering::Relaxed);
            Ok(())
        }
        Ok(name) if !name.is_empty() => Err(UnknownFault { name }),
        _ => Ok(()),
    }
}

/// Whether commits are to be said durable without an `fsync`.
pub(crate) fn fsync_is_skipped() -> bool {
    SKIPS_FSYNC.load(Ordering::Relaxed)
}
