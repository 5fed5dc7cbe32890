//! Two sessions, their stores and a virtual clock in one thread.

mod faults;
mod flow;
mod group;
mod handshake;
mod impostors;
mod peers;
mod pruned;
mod resume;
mod shared;
mod store;
mod traces;
mod world;
