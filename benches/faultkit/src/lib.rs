//! Dying at a named place, and nowhere else.
//!
//! A binary marks each of its persist steps with a failpoint of the crate `fail`, and lists them.
//! In a lab build, [`arm_from_environment`] makes the process die at the visit that the
//! environment asks for: by SIGKILL to itself, so that nothing is cleaned up, flushed or said.
//! [`source::complaints`] holds list and sources against each other. In all other builds the
//! failpoints are nothing, and this crate is not there.

#![forbid(unsafe_code)]

mod arm;
pub mod source;

pub use arm::{ANY, ArmError, VISITS_VARIABLE, WHERE_VARIABLE, arm_from_environment};

/// A failpoint: its name, and what has happened before it and not after it.
pub type Point = (&'static str, &'static str);
