//! CPU time, memory and disk writes of a process, from `/proc`.

use std::fs;
use std::ops::Sub;
use std::time::Duration;

use anyhow::Context;
use serde::Serialize;

/// What a process has used since it began.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(in crate::load) struct Usage {
    /// CPU time of all its threads, user and system.
    pub(in crate::load) cpu: Duration,
    /// Bytes that it caused to be written to disk.
    pub(in crate::load) written_bytes: u64,
}

impl Sub for Usage {
    type Output = Self;

    fn sub(self, before: Self) -> Self {
        Self {
            cpu: self.cpu.saturating_sub(before.cpu),
            written_bytes: self.written_bytes.saturating_sub(before.written_bytes),
        }
    }
}

/// The memory of a process, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub(in crate::load) struct Memory {
    /// Resident, pages of files included.
    #[serde(rename = "rss_bytes")]
    pub(in crate::load) resident: u64,
    /// Resident, with shared pages divided among those who share them.
    #[serde(rename = "pss_bytes")]
    pub(in crate::load) proportional: u64,
    /// Resident and backed by no file: heap and stacks.
    #[serde(rename = "anonymous_bytes")]
    pub(in crate::load) anonymous: u64,
}

/// What a process has used.
pub(in crate::load) fn usage(pid: u32) -> anyhow::Result<Usage> {
    let stat = read(pid, "stat")?;
    let cpu = cpu(&stat).with_context(|| format!("cannot read the CPU time in {stat:?}"))?;
    let io = read(pid, "io")?;
    let written_bytes = field(&io, "write_bytes:").context("no write_bytes in /proc/PID/io")?;
    Ok(Usage { cpu, written_bytes })
}

/// What a process and those that it started have used together, the ended ones left out.
pub(in crate::load) fn usage_of_tree(pid: u32) -> anyhow::Result<Usage> {
    let mut total = usage(pid)?;
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))?;
    for child in children.split_whitespace() {
        // A child may end between the two reads.
        if let Ok(used) = usage_of_tree(child.parse()?) {
            total.cpu += used.cpu;
            total.written_bytes += used.written_bytes;
        }
    }
    Ok(total)
}

/// The memory of a process.
pub(in crate::load) fn memory(pid: u32) -> anyhow::Result<Memory> {
    let rollup = read(pid, "smaps_rollup")?;
    let kibibytes = |name| {
        let value = field(&rollup, name).with_context(|| format!("no {name} in smaps_rollup"));
        value.map(|kibibytes| kibibytes * 1_024)
    };
    Ok(Memory {
        resident: kibibytes("Rss:")?,
        proportional: kibibytes("Pss:")?,
        anonymous: kibibytes("Anonymous:")?,
    })
}

fn read(pid: u32, name: &str) -> anyhow::Result<String> {
    let path = format!("/proc/{pid}/{name}");
    fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))
}

fn cpu(stat: &str) -> Option<Duration> {
    // The name in parentheses may hold anything, spaces too.
    let fields: Vec<_> = stat.rsplit_once(") ")?.1.split(' ').collect();
    let ticks = fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?;
    let per_second = rustix::param::clock_ticks_per_second();
    Some(Duration::from_secs_f64(ticks as f64 / per_second as f64))
}

fn field(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_spaces_and_parentheses_does_not_shift_the_fields() {
        let stat = "7 (a) b (c) S 1 1 1 0 -1 0 0 0 0 0 150 50 9 9 20 0 1 0 1";
        let expected = 200.0 / rustix::param::clock_ticks_per_second() as f64;
        assert_eq!(cpu(stat), Some(Duration::from_secs_f64(expected)));
    }

    #[test]
    fn this_process_uses_what_it_uses() {
        let pid = std::process::id();
        let before = usage(pid).expect("readable");
        let began = std::time::Instant::now();
        let mut sum = 0u64;
        while began.elapsed() < Duration::from_millis(200) {
            sum = std::hint::black_box(sum.wrapping_mul(31) + 1);
        }
        let used = usage(pid).expect("readable") - before;
        assert!(used.cpu >= Duration::from_millis(20), "{used:?}");
        assert!(memory(pid).expect("readable").resident > 100 << 10);
    }
}
