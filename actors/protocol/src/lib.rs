//! The pure core that brain and edge share.
//!
//! Device state is a *tree*: a versioned document whose leaves are addressed by
//! [`Path`](state::Path). Every change is an [`Entry`](history::Entry) in the hash-linked
//! *log* of its author; a tree is whatever its logs fold to
//! ([`Tree`](history::Tree)). Two replicas that hold the same entries hold the same leaves
//! and the same [`root`](history::Tree::root), whatever the order in which the entries came.
//! Replicas meet in a [`Session`](session::Session), which says what each of them lacks.
//!
//! Nothing here opens a socket or a file, reads a clock or draws a random number: time and
//! randomness are arguments, and effects are values that a caller carries out. That is what
//! lets the same code run in the server, in the agent and in a simulation.

#![forbid(unsafe_code)]

pub mod canonical;
pub mod clock;
pub mod codec;
pub mod compress;
pub mod conflict;
pub mod constraint;
pub mod error;
pub mod history;
pub mod id;
pub mod keys;
#[cfg(feature = "planted-faults")]
pub mod planted;
pub mod query;
pub mod session;
pub mod state;
pub mod trace;
pub mod wire;

pub use error::{
    ErrorAnalysis, ErrorClass, ErrorCode, ErrorSource, Impact, Layer, RecoveryAction,
    RecoveryOption, Scope, SyncError,
};
pub use id::{
    BrainId, ConflictId, DeviceId, EntryId, FleetId, PublicKey, Signature, SiteId, TreeId,
};
