//! Letting all connections go when the brain stops.
//!
//! They are closed in waves rather than at once, and each device is told when to come back, at a
//! moment of its own: the brain that starts next is not stormed.

use std::future::pending;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

/// So many connections are closed in a second, but for the longest time.
const CLOSED_PER_SECOND: f64 = 5_000.0;
/// The closing takes no longer than this.
const WAVES_TIME_MAX: Duration = Duration::from_secs(3);
/// No device is told to come back sooner.
const BACK_AFTER_MIN: Duration = Duration::from_secs(1);
/// The last device is told to come back at this time.
const BACK_AFTER_MAX: Duration = Duration::from_secs(60);

/// When one of many connections closes, and when its device is to come back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Farewell {
    /// How long it still stays.
    pub close_after: Duration,
    /// How long its device is to wait then.
    pub retry_after: Duration,
}

impl Farewell {
    /// That of one of so many connections, of which `per_second` are taken in a second when they
    /// come back. `random` are two numbers from 0 to 1.
    pub fn of(connections: usize, per_second: u32, random: [f64; 2]) -> Self {
        let [close, back] = random.map(|random| random.clamp(0.0, 1.0));
        let count = connections as f64;
        let waves = (count / CLOSED_PER_SECOND).min(WAVES_TIME_MAX.as_secs_f64());
        // Half as fast as they are taken: others want in as well.
        let spread = 2.0 * count / f64::from(per_second.max(1));
        let most = (BACK_AFTER_MAX - BACK_AFTER_MIN).as_secs_f64();
        let later = Duration::from_secs_f64(spread.clamp(1.0, most) * back);
        Self {
            close_after: Duration::from_secs_f64(waves * close),
            retry_after: BACK_AFTER_MIN + later,
        }
    }
}

/// Tells all connections to go.
#[derive(Debug)]
pub struct Drain {
    /// Each connection is a receiver.
    begun: watch::Sender<Option<Begun>>,
    /// Shut for those who come now.
    shut: watch::Sender<bool>,
}

/// What each connection goes by.
#[derive(Debug, Clone, Copy)]
struct Begun {
    /// How many there were.
    connections: usize,
    /// How many are taken in a second when they come back.
    per_second: u32,
}

impl Default for Drain {
    fn default() -> Self {
        Self { begun: watch::Sender::new(None), shut: watch::Sender::new(false) }
    }
}

impl Drain {
    /// What a connection holds as long as it is there.
    pub fn enter(&self) -> Exit {
        Exit { begun: self.begun.subscribe(), farewell: None }
    }

    /// Tells all connections to go, and comes back when none is left. So many are taken in a
    /// second when they come back.
    pub async fn run(&self, per_second: u32) {
        self.shut.send_replace(true);
        let connections = self.begun.receiver_count();
        self.begun.send_replace(Some(Begun { connections, per_second }));
        self.begun.closed().await;
    }

    /// Comes back when connections are let go.
    pub async fn begins(&self) {
        // The sender is here, so it is not gone.
        let _ = self.shut.subscribe().wait_for(|shut| *shut).await;
    }

    /// How many connections there are.
    pub fn connections(&self) -> usize {
        self.begun.receiver_count()
    }
}

/// A connection's place among those that are to go.
#[derive(Debug)]
pub struct Exit {
    begun: watch::Receiver<Option<Begun>>,
    farewell: Option<(Instant, Duration)>,
}

impl Exit {
    /// Comes back when it is this connection's turn, with the time after which its device is to
    /// come back. Nothing is lost where the wait is dropped.
    pub async fn turn(&mut self) -> Duration {
        let (at, retry_after) = match self.farewell {
            Some(farewell) => farewell,
            None => {
                let begun = self.begun.wait_for(Option::is_some).await;
                let Some(begun) = begun.ok().and_then(|begun| *begun) else {
                    return pending().await;
                };
                let farewell = Farewell::of(begun.connections, begun.per_second, shares());
                let at = Instant::now() + farewell.close_after;
                *self.farewell.insert((at, farewell.retry_after))
            }
        };
        sleep_until(at).await;
        retry_after
    }
}

/// Two random numbers from 0 to 1.
fn shares() -> [f64; 2] {
    let bytes = crate::random_bytes();
    let share = |at: usize| f64::from(u16::from_be_bytes([bytes[at], bytes[at + 1]])) / 65_535.0;
    [share(0), share(2)]
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn secs(secs: u64) -> Duration {
        Duration::from_secs(secs)
    }

    #[test]
    fn few_leave_at_once_and_come_back_within_two_seconds() {
        for random in [[0.0, 0.0], [0.5, 0.5], [1.0, 1.0]] {
            let farewell = Farewell::of(3, 500, random);
            assert!(farewell.close_after < Duration::from_millis(1), "{farewell:?}");
            assert!((secs(1)..=secs(2)).contains(&farewell.retry_after), "{farewell:?}");
        }
    }

    #[test]
    fn many_leave_in_waves_and_come_back_no_faster_than_they_are_taken() {
        let last = Farewell::of(10_000, 500, [1.0, 1.0]);
        assert_eq!(last, Farewell { close_after: secs(2), retry_after: secs(41) });
        let more = Farewell::of(1_000_000, 500, [1.0, 1.0]);
        assert_eq!(more, Farewell { close_after: secs(3), retry_after: secs(60) });
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_is_there_is_told_and_waited_for() {
        let drain = Drain::default();
        let mut exits: Vec<_> = (0..3).map(|_| drain.enter()).collect();
        // A wait that is dropped before and after it began loses nothing.
        let dropped = tokio::time::timeout(secs(1), exits[0].turn()).await;
        assert!(dropped.is_err() && drain.connections() == 3);
        let leave = async {
            for mut exit in exits {
                assert!(exit.turn().await >= secs(1));
            }
        };
        tokio::join!(drain.run(500), drain.begins(), leave);
        assert_eq!(drain.connections(), 0);
    }
}
