//! What the fuzz targets share: a small fleet, readers of scripts and of canonical bytes, a bound
//! on memory, and seeds.

pub mod canonical;
pub mod fleet;
pub mod memory;
pub mod script;
pub mod seeds;

use std::fmt::Debug;

/// Unwraps what must hold, with the failure in the report.
///
/// # Panics
/// On an error: that is the finding.
pub fn must<T, E: Debug>(result: Result<T, E>, claim: &str) -> T {
    result.unwrap_or_else(|error| panic!("{claim}: {error:?}"))
}
