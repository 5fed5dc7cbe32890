//! How much memory the process takes, against what there is.

use std::fs;
use std::path::Path;
use std::sync::OnceLock;

/// Whether the process takes more than this; 0 stands for four fifths of what there is.
pub(super) fn is_short(high_bytes: u64) -> bool {
    static AVAILABLE: OnceLock<Option<u64>> = OnceLock::new();
    let high = match high_bytes {
        0 => AVAILABLE.get_or_init(available).map(|bytes| bytes / 5 * 4),
        bytes => Some(bytes),
    };
    let resident = figure("/proc/self/status", "VmRSS:");
    high.zip(resident).is_some_and(|(high, resident)| resident > high)
}

/// What the machine has, or the control group may take.
fn available() -> Option<u64> {
    let machine = figure("/proc/meminfo", "MemTotal:");
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    // A group may take no more than those that it is in.
    let own = groups.lines().find_map(|line| line.strip_prefix("0::/")).unwrap_or_default();
    let bounds = Path::new(own).ancestors().filter_map(|group| {
        let max = Path::new("/sys/fs/cgroup").join(group).join("memory.max");
        fs::read_to_string(max).ok()?.trim().parse().ok()
    });
    machine.into_iter().chain(bounds).min()
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
        assert!(is_short(1));
        assert!(!is_short(u64::MAX));
        assert!(available() > Some(0));
    }
}
