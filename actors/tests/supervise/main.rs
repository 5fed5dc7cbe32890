//! The supervision kit as its users see it.

#![allow(clippy::unwrap_used)]

mod actors;
mod condemned;
mod core_budgets;
mod core_model;
mod core_random;
mod dynamic;
mod mailbox;
mod passive;
mod restart;
mod stopping;
mod tree;
mod watchdog;
