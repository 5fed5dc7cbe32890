//! Fixtures that tests and benches share.
//!
//! [`brain::Brain`] is a real brain process in a folder of its own, to be killed and started
//! again. [`device::LightDevice`] is a device that speaks the real protocol over real TLS and
//! WebSocket but keeps its log in memory: thousands fit into a process, and what it was told is
//! an oracle outside of the brain. [`link::RawLink`] sends whatever frames it is given.
//! [`power::Disk`] is a disk whose power can be cut under any process.

#![forbid(unsafe_code)]

pub mod brain;
pub mod device;
pub mod link;
pub mod power;
