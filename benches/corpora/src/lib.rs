//! Data as fleets of single-board computers send it, made from a seed, and how well it compresses.
//!
//! A corpus is a sequence of records. The same kind, seed and count give the same records for
//! ever: a generator draws whole numbers from [`rng::SplitMix64`] and uses no function whose
//! result depends on a library or a platform. A test holds each corpus to a hash.
//!
//! Ratios depend on what a record is before compression, so every corpus says in which
//! [`Form`](form::Form) it was measured.

#![forbid(unsafe_code)]

pub mod corpus;
pub mod form;
pub mod measure;
pub mod report;
pub mod rng;
