//! The operations that every message passes through, ready to be measured.
//!
//! A [`Case`](case::Case) is one operation with its input prepared. `benches/time.rs` measures
//! the time of each with divan; `benches/instructions.rs` counts its instructions under valgrind,
//! which gives the same number on a busy machine. The inputs are those of the corpora and the
//! same for ever.

#![forbid(unsafe_code)]

pub mod case;
pub mod cases;
