//! The fleet brain: the server.
//!
//! [`serve`] puts it together: a [`store`] over RocksDB, a twin per device (the actors of the
//! crate `actors`, found through [`devices`]), the device listener in [`link`], and the [`api`]
//! with its page. All of it hangs in one supervision tree.

#![forbid(unsafe_code)]

pub mod api;
pub mod backup;
pub mod clock;
pub mod config;
pub mod conflicts;
pub mod consistency;
pub mod devices;
pub mod enrolment;
pub mod errors;
#[cfg(any(test, feature = "failpoints"))]
pub mod failpoints;
mod files;
pub mod identity;
pub mod link;
pub mod members;
pub mod metrics;
#[cfg(feature = "planted-faults")]
pub mod planted;
pub mod removal;
pub mod residency;
pub mod retention;
pub mod retirement;
pub mod selection;
pub mod serve;
pub mod store;
pub mod tls;
pub mod why;

pub use files::{Readers, create_folder, replace};

/// 32 bytes from the system's random generator.
///
/// # Panics
/// If the system has none, in which case no key could be made either.
pub fn random_bytes() -> [u8; 32] {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).expect("the system has a random generator");
    bytes
}

/// A random number for a new epoch.
pub fn random_epoch() -> u64 {
    u64::from_be_bytes(*random_bytes().first_chunk().expect("8 of 32 bytes"))
}
