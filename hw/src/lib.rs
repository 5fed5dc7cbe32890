//! What is wired to the board, read as typed values.
//!
//! The kernel shows sensors as small text files. This crate turns that text
//! into numbers with units, or into a typed fault, and nothing in between: a
//! value that leaves this crate lies inside its physical range.
//!
//! Three things can be wrong with a sensor, and they are kept apart:
//!
//! * it is **missing**: an ordinary fact about a board, told by `missing()`;
//! * it is **faulty** right now: a [`ReadError`] beside the values of the
//!   sensors that work, so that one broken sensor never hides the others;
//! * it reports something **alarming**: a value like any other. Judging values
//!   is not this crate's business.
//!
//! Each capability is a trait with two implementations, one over the kernel's
//! files and one over a physical model, held to one contract test suite. The
//! kernel's files are found under a [`Root`], so that tests bring their own.
//! Nothing here reads a clock: callers pass `now`, the time since they started.
//!
//! Reads block, and a sensor behind a slow bus may take tens of milliseconds:
//! call from a thread that may wait.

#![forbid(unsafe_code)]

mod board;
mod files;
mod hwmon;
pub mod identity;
pub mod machine;
mod names;
pub mod power;
mod reading;
mod root;
pub mod sim;
pub mod thermal;
pub mod units;

pub use board::Board;
pub use identity::MachineIdentity;
pub use machine::Machine;
pub use power::Power;
pub use reading::{Fault, Missing, ReadError, Readings};
pub use root::Root;
pub use thermal::Thermal;
