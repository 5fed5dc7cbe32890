//! How much memory the process takes, against what there is.

use std::fs;

/// Looks at the process's memory, as `/proc` and the control group tell.
#[derive(Debug)]
pub(super) struct Memory {
    high_bytes: Option<u64>,
}

impl Memory {
    /// With a bound; 0 stands for four fifths of what there is.
    pub(super) fn new(high_bytes: u64) -> Self {
        let known = (high_bytes > 0).then_some(high_bytes);
        Self { high_bytes: known.or_else(|| available().map(|bytes| bytes / 5 * 4)) }
    }

    /// Whether the process takes more than it should.
    pub(super) fn is_short(&self) -> bool {
        let resident = figure("/proc/self/status", "VmRSS:");
        self.high_bytes.zip(resident).is_some_and(|(high, resident)| resident > high)
    }
}

/// What the machine has, or the control group may take.
fn available() -> Option<u64> {
    let machine = figure("/proc/meminfo", "MemTotal:");
    let group = fs::read_to_string("/sys/fs/cgroup/memory.max");
    let group = group.ok().and_then(|max| max.trim().parse().ok());
    machine.into_iter().chain(group).min()
}

/// A figure of a file of `/proc` that is given in kibibytes, in bytes.
fn figure(file: &str, name: &str) -> Option<u64> {
    let text = fs::read_to_string(file).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    let kib: u64 = line.trim().trim_end_matches("kB").trim().parse().ok()?;
    Some(kib << 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_short_above_the_bound_only() {
        assert!(Memory::new(1).is_short());
        assert!(!Memory::new(u64::MAX).is_short());
        assert!(Memory::new(0).high_bytes > Some(0));
    }
}
