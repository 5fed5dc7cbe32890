//! The brain against real devices, real disks and real kills.

mod accounting;
mod acknowledged;
mod api;
mod audit;
mod backup;
mod browser;
mod cli;
mod conflict_actor;
mod conflicts;
mod constraints;
mod dev;
mod disk_full;
mod edge_process;
mod fsync_fails;
mod groups;
mod harness;
mod hostile;
mod kill;
#[cfg(feature = "lab")]
mod lab;
mod main_job;
mod oracle;
mod page;
mod queries;
mod reload;
mod retention;
mod seals;
mod stopping;
mod store;
mod storm;
mod survival;
mod traces;
mod tree;
mod twins;
mod verify;
mod wire;
