//! How much of the machine there is, and how much of it is in use.

mod cpu;
mod disk;
mod linux;
mod memory;
mod network;
mod sim;

use std::time::Duration;

pub use linux::Linux;
pub(crate) use sim::Simulated;

use crate::units::{Bytes, LoadAverage, Percent};
use crate::{Fault, Missing, Readings};

/// The machine's resources.
pub trait Machine: Send {
    /// Reads what is in use. `now` is the time since the caller started.
    fn read(&mut self, now: Duration) -> Readings<Usage>;

    /// What this machine does not tell.
    fn missing(&self) -> Vec<Missing>;
}

/// What is in use; a field is empty where its file is missing or faulty.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Usage {
    /// Share of all processors' time since the previous reading, time stolen
    /// by a hypervisor included. Empty at the first reading, and at one so
    /// soon after another that no tick has passed.
    pub cpu_percent: Option<Percent>,
    /// Processors that are online.
    pub cores: Option<u32>,
    /// Tasks that run or wait, on average.
    pub load: Option<Load>,
    /// Main memory. Available is what programs may take without swapping.
    pub memory: Option<Capacity>,
    /// The data folder's file system. Available is what the agent, which is
    /// not root, may still write.
    pub disk: Option<Capacity>,
    /// Traffic over all interfaces but the loopback.
    pub network: Option<Traffic>,
    /// Time since the kernel booted.
    pub uptime: Option<Duration>,
}

/// Mean numbers of tasks that run or wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Load {
    /// Over one minute.
    pub load1: LoadAverage,
    /// Over five minutes.
    pub load5: LoadAverage,
    /// Over fifteen minutes.
    pub load15: LoadAverage,
}

/// A whole and what is left of it; never more than the whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capacity {
    total: Bytes,
    available: Bytes,
}

impl Capacity {
    /// Fails with [`Fault::Contradiction`] where more is left than there is.
    pub fn new(total: Bytes, available: Bytes) -> Result<Capacity, Fault> {
        if available <= total {
            Ok(Capacity { total, available })
        } else {
            let (total_bytes, available_bytes) = (total.get(), available.get());
            Err(Fault::Contradiction { total_bytes, available_bytes })
        }
    }

    /// The whole.
    pub fn total(self) -> Bytes {
        self.total
    }

    /// What is left.
    pub fn available(self) -> Bytes {
        self.available
    }

    /// What is taken: the whole without what is left.
    pub fn used(self) -> Bytes {
        Bytes::new(self.total.get() - self.available.get())
    }
}

/// Bytes since each interface came up. Goes back when an interface does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Received.
    pub received: Bytes,
    /// Sent.
    pub sent: Bytes,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_is_left_than_there_is() {
        let (less, more) = (Bytes::new(1), Bytes::new(2));
        assert_eq!(
            Capacity::new(less, more),
            Err(Fault::Contradiction { total_bytes: 1, available_bytes: 2 })
        );
        assert_eq!(Capacity::new(more, less).map(Capacity::used), Ok(Bytes::new(1)));
    }
}
