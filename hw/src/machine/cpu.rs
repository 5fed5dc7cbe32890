//! Processor time, load and uptime.
//!
//! Formats: Documentation/filesystems/proc.rst of the kernel; proc_stat(5),
//! proc_loadavg(5) and proc_uptime(5).

use std::time::Duration;

use super::Load;
use crate::Fault;
use crate::units::{LoadAverage, OutOfRange, Percent};

/// `/proc/stat`, as far as it is of use here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stat {
    pub(super) times: Times,
    pub(super) cores: u32,
}

/// Ticks of all processors since boot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Times {
    busy: u128,
    idle: u128,
}

impl Times {
    /// The share of ticks that were busy; nothing where no tick has passed.
    ///
    /// The kernel does not promise that the time spent waiting for disks only
    /// grows, so idle time may seem to go back a little: that counts as none.
    pub(super) fn busy_since(self, previous: Times) -> Option<Percent> {
        let busy = self.busy.saturating_sub(previous.busy);
        let idle = self.idle.saturating_sub(previous.idle);
        let all = busy + idle;
        (all > 0).then(|| Percent::clamped(busy as f64 * 100.0 / all as f64))
    }
}

pub(super) fn stat(text: &str) -> Result<Stat, Fault> {
    let mut times = None;
    let mut cores = 0;
    for line in text.lines() {
        let Some((name, ticks)) = line.split_once(char::is_whitespace) else {
            continue;
        };
        match name.strip_prefix("cpu") {
            Some("") => times = Some(self::times(ticks)?),
            Some(_) => cores += 1,
            None => {}
        }
    }
    let times = times.ok_or(Fault::FieldAbsent { field: "cpu" })?;
    Ok(Stat { times, cores })
}

pub(super) fn load(text: &str) -> Result<Load, Fault> {
    let mut fields = text.split_ascii_whitespace();
    let mut next = |field| -> Result<LoadAverage, Fault> {
        let raw = fields.next().ok_or(Fault::FieldAbsent { field })?;
        let load: f64 = raw.parse().map_err(|_| Fault::malformed("a load average", raw))?;
        Ok(LoadAverage::new(load)?)
    };
    Ok(Load { load1: next("load1")?, load5: next("load5")?, load15: next("load15")? })
}

pub(super) fn uptime(text: &str) -> Result<Duration, Fault> {
    /// A thousand years.
    const SECONDS_MAX: f64 = 1000.0 * 365.25 * 86_400.0;
    let raw = text.split_ascii_whitespace().next();
    let raw = raw.ok_or(Fault::FieldAbsent { field: "uptime" })?;
    let seconds: f64 = raw.parse().map_err(|_| Fault::malformed("seconds", raw))?;
    if (0.0..=SECONDS_MAX).contains(&seconds) {
        Ok(Duration::from_secs_f64(seconds))
    } else {
        Err(OutOfRange { unit: "seconds", value: seconds, least: 0.0, most: SECONDS_MAX }.into())
    }
}

/// `user nice system idle iowait irq softirq steal guest guest_nice`; the
/// guests' time is in `user` and `nice` already. Kernels without the later
/// fields leave them out.
fn times(ticks: &str) -> Result<Times, Fault> {
    const NAMES: [&str; 4] = ["user", "nice", "system", "idle"];
    let mut fields = ticks.split_ascii_whitespace().take(8);
    let parse = |raw: &str| -> Result<u128, Fault> {
        let ticks: u64 = raw.parse().map_err(|_| Fault::malformed("a count of ticks", raw))?;
        Ok(ticks.into())
    };
    let mut first = [0; NAMES.len()];
    for (value, field) in first.iter_mut().zip(NAMES) {
        *value = parse(fields.next().ok_or(Fault::FieldAbsent { field })?)?;
    }
    let [user, nice, system, idle] = first;
    let io_wait = fields.next().map(parse).transpose()?.unwrap_or(0);
    let rest = fields.map(parse).sum::<Result<u128, Fault>>()?;
    Ok(Times { busy: user + nice + system + rest, idle: idle + io_wait })
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAT: &str = "cpu  100 10 40 800 30 5 10 5 7 0\ncpu0 50 5 20 400 15 2 5 2 0 0\n\
        cpu1 50 5 20 400 15 3 5 3 0 0\nintr 1 2 3\nctxt 9\n";

    #[test]
    fn busy_time_is_all_but_idle_and_waiting() {
        let stat = stat(STAT).expect("a kernel's text");
        assert_eq!(stat.cores, 2);
        assert_eq!(stat.times, Times { busy: 170, idle: 830 });
    }

    #[test]
    fn usage_is_the_busy_share_of_the_ticks_between() {
        let before = Times { busy: 170, idle: 830 };
        let percent = |busy, idle| Times { busy, idle }.busy_since(before).map(Percent::get);
        assert_eq!(percent(195, 905), Some(25.0));
        assert_eq!(percent(170, 830), None);
        assert_eq!(percent(180, 829), Some(100.0), "waiting time that goes back counts as none");
        assert_eq!(percent(0, 0), None);
    }

    #[test]
    fn short_and_foreign_text_is_a_fault() {
        assert_eq!(stat("intr 5\n"), Err(Fault::FieldAbsent { field: "cpu" }));
        assert_eq!(stat("cpu  1 2\n"), Err(Fault::FieldAbsent { field: "system" }));
        assert!(stat("cpu  1 2 x 4\n").is_err());
        assert!(stat("cpu  1 2 -3 4\n").is_err());
        assert!(load("nan 0.1 0.1").is_err());
        assert!(load("0.1 inf 0.1").is_err());
        assert_eq!(load("0.1 0.2"), Err(Fault::FieldAbsent { field: "load15" }));
        assert!(uptime("-1 0").is_err());
        assert!(uptime("1e300 0").is_err());
        assert!(uptime("").is_err());
    }

    #[test]
    fn load_and_uptime_are_read() {
        let load = load("2.19 1.14 0.47 3/102 8749\n").expect("a kernel's text");
        assert_eq!((load.load1.get(), load.load5.get(), load.load15.get()), (2.19, 1.14, 0.47));
        assert_eq!(uptime("633.62 809.95\n"), Ok(Duration::from_millis(633_620)));
    }
}
