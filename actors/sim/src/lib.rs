//! The deterministic test kit.
//!
//! A distributed system is tested by what goes wrong, and what goes wrong has to go wrong again
//! when a seed is played again. So everything here runs in one thread, in virtual time, from one
//! seed:
//!
//! | module | what it holds |
//! |---|---|
//! | [`clock`] | wall clocks that jump and monotonic ones that do not |
//! | [`random`] | a generator whose numbers are written down |
//! | [`network`] | links with latency, loss and worse |
//! | [`store`] | a tree store that forgets what was not synced, and judges what it is given |
//! | [`contract`] | the rules of every tree store, for real ones too |
//! | [`device`], [`brain`] | an edge and a brain around the real tree, twin and session |
//! | [`world`] | one brain and many devices, faults, and whether promises were kept |
//!
//! The parts are usable on their own: `clock` and `store` serve tests of the real actors, and
//! `contract` those of the real database.

#![forbid(unsafe_code)]

pub mod brain;
pub mod clock;
pub mod contract;
pub mod device;
pub mod fired;
pub mod fleet;
pub mod network;
pub mod random;
pub mod store;
pub mod world;
