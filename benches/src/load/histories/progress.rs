//! How far something long is, for whoever waits in front of a terminal.

use std::io::{IsTerminal, Write, stderr};
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// How often a terminal is told.
const SHOWN_EVERY: Duration = Duration::from_millis(200);
/// How often a file is told, which keeps every line.
const NOTED_EVERY: Duration = Duration::from_secs(10);
/// How wide the bar is.
const WIDTH: u64 = 30;

/// A bar on standard error. Threads share it.
pub(super) struct Progress {
    what: String,
    total: u64,
    state: Mutex<State>,
}

struct State {
    done: u64,
    began: Instant,
    shown: Instant,
}

impl Progress {
    /// A bar for so many things.
    pub(super) fn of(what: impl Into<String>, total: u64) -> Self {
        let now = Instant::now();
        let state = Mutex::new(State { done: 0, began: now, shown: now });
        Self { what: what.into(), total: total.max(1), state }
    }

    /// Says that so many more are done.
    pub(super) fn add(&self, more: u64) {
        let Ok(mut state) = self.state.lock() else { return };
        state.done += more;
        let is_terminal = stderr().is_terminal();
        let every = if is_terminal { SHOWN_EVERY } else { NOTED_EVERY };
        let is_last = state.done >= self.total;
        if state.shown.elapsed() < every && !is_last {
            return;
        }
        state.shown = Instant::now();
        let line = self.line(&state);
        let (begin, end) = if is_terminal { ("\r", "") } else { ("", "\n") };
        let end = if is_last { "\n" } else { end };
        // A closed standard error is no reason to stop measuring.
        let _ = write!(stderr(), "{begin}load: {line}{end}");
    }

    fn line(&self, state: &State) -> String {
        let (what, total, done) = (&self.what, self.total, state.done.min(self.total));
        let filled = (WIDTH * done / total) as usize;
        let bar: String = (0..WIDTH as usize).map(|n| if n < filled { '#' } else { '.' }).collect();
        let (share, seconds) = (100 * done / total, state.began.elapsed().as_secs());
        format!("{what} [{bar}] {share:3} % of {total}, {seconds} s")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_is_as_full_as_what_is_done() {
        let progress = Progress::of("trees", 40);
        let now = Instant::now();
        let line = |done| progress.line(&State { done, began: now, shown: now });
        assert_eq!(line(0), format!("trees [{}]   0 % of 40, 0 s", ".".repeat(30)));
        assert_eq!(
            line(20),
            format!("trees [{}{}]  50 % of 40, 0 s", "#".repeat(15), ".".repeat(15))
        );
        assert_eq!(line(41), format!("trees [{}] 100 % of 40, 0 s", "#".repeat(30)));
    }
}
