//! Fixtures that tests and benches share.
//!
//! [`brain::Brain`] is a real brain process in a folder of its own, to be killed and started
//! again. [`device::LightDevice`] is a device that speaks the real protocol over real TLS and
//! WebSocket but keeps its log in memory: thousands fit into a process, and what it was told is
//! an oracle outside of the brain. [`link::RawLink`] sends whatever frames it is given.
//! [`proxy::Proxy`] stands between devices and a brain and harms what passes, as its seed has it.
//! With the feature `load` comes the bench behind the binary of that name.
//! [`power::Disk`] is a disk whose power can be cut under any process.

#![forbid(unsafe_code)]

pub mod brain;
pub mod device;
pub mod link;
#[cfg(feature = "load")]
pub mod load;
pub mod power;
pub mod proxy;
