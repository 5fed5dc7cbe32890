//! Whether the agent does its work.

use serde::{Deserialize, Serialize};

/// Whether the agent keeps what it is given, and if not, which part does not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Readiness {
    /// Whether it does.
    pub ready: bool,
    /// `ok`, or why the spool takes nothing.
    pub spool: String,
    /// `ok`, or why nothing more may wait for the brain.
    pub queue: String,
    /// `online`, or `offline`: a device without a network does its work, and catches up later.
    pub link: String,
}

/// Judges the agent. Being offline is no fault: entries wait in the spool until the brain is
/// there. The agent is not ready when it would have to turn entries away.
pub fn readiness(spool_fails: bool, queue_is_full: bool, online: bool) -> Readiness {
    let part = |fails, why: &str| if fails { why } else { "ok" }.to_owned();
    Readiness {
        ready: !spool_fails && !queue_is_full,
        spool: part(spool_fails, "the last commit failed: look at the disk and the log"),
        queue: part(queue_is_full, "full: new entries are turned away until the brain takes some"),
        link: if online { "online" } else { "offline" }.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_without_a_network_is_ready_and_one_that_loses_entries_is_not() {
        assert!(readiness(false, false, true).ready);
        assert!(readiness(false, false, false).ready);
        let spool = readiness(true, false, true);
        assert!(!spool.ready && spool.spool.contains("disk"), "{spool:?}");
        let queue = readiness(false, true, false);
        assert!(!queue.ready && queue.queue.contains("full"), "{queue:?}");
    }
}
