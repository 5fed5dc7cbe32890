//! The supervision kit, and the actors of brain and edge.
//!
//! [`supervise`] is the kit: supervisors with declared policies, addresses that outlive restarts,
//! and a guard around every handler. The other modules are actors on it. They decide nothing:
//! each hands its messages to a plain core and carries out what that says, over the [`ports`]
//! that shells implement. [`trace`] carries spans across them.

#![forbid(unsafe_code)]

pub mod account;
pub mod conflict;
pub mod device;
pub mod ports;
pub mod supervise;
pub mod trace;
