//! Carries out, between two sockets, what the two lanes of a connection say.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::time::{sleep, timeout};

use super::lane::{Lane, Step};
use super::plan::Direction;
use super::{Event, Shared};

/// How much is read at once.
const READ_BYTES: usize = 8 << 10;
/// How long a frame waits for others to overtake it.
const HOLD: Duration = Duration::from_millis(200);

/// The connection is over for both ends.
struct Cut;

/// One direction: its lane, and what the two directions know of each other.
struct Way<'a> {
    shared: &'a Shared,
    lane: Lane,
    /// Whether nothing is passed on any more: this direction, and the other.
    silent: &'a AtomicBool,
    other_silent: &'a AtomicBool,
}

pub(super) async fn serve(shared: Arc<Shared>, connection: u64, mut device: TcpStream) {
    shared.note(&Event::Opened { connection });
    if let Ok(mut brain) = TcpStream::connect(shared.settings.brain).await {
        // Pieces are to arrive as pieces; a socket that refuses is gone, and reading will tell.
        let _ = device.set_nodelay(true).and_then(|()| brain.set_nodelay(true));
        let (from_device, to_device) = device.split();
        let (from_brain, to_brain) = brain.split();
        let (up_silent, down_silent) = (AtomicBool::new(false), AtomicBool::new(false));
        let lane = |direction| {
            let settings = &shared.settings;
            let rates = settings.rates.clone();
            Lane::new(settings.level, settings.seed, rates, connection, direction)
        };
        let up = Way {
            shared: &shared,
            lane: lane(Direction::ToBrain),
            silent: &up_silent,
            other_silent: &down_silent,
        };
        let down = Way {
            shared: &shared,
            lane: lane(Direction::ToDevice),
            silent: &down_silent,
            other_silent: &up_silent,
        };
        // Both to their ends; or until one cuts the connection, when both sockets are dropped.
        let _ =
            tokio::try_join!(up.carry(from_device, to_brain), down.carry(from_brain, to_device));
    } else {
        let (direction, why) = (Direction::ToBrain, "the brain does not answer");
        shared.note(&Event::GaveUp { connection, direction, why });
    }
    shared.note(&Event::Closed { connection });
}

impl Way<'_> {
    async fn carry(mut self, mut from: ReadHalf<'_>, mut to: WriteHalf<'_>) -> Result<(), Cut> {
        let mut buffer = [0; READ_BYTES];
        loop {
            let read = match self.lane.holds() {
                true => timeout(HOLD, from.read(&mut buffer)).await,
                false => Ok(from.read(&mut buffer).await),
            };
            let steps = match read {
                Err(_) => self.lane.release(),
                Ok(Ok(read @ 1..)) if !self.is_silent() => {
                    self.lane.feed(&buffer[..read], self.shared.harms())
                }
                // Read on: a sender that is not read from would notice.
                Ok(Ok(1..)) => continue,
                Ok(Ok(0)) if !self.is_silent() => {
                    let last = self.lane.release();
                    self.perform(last, &mut to).await?;
                    return to.shutdown().await.map_err(|_| Cut);
                }
                Ok(Err(_)) if !self.is_silent() => return Err(Cut),
                // The other end is not told.
                Ok(Ok(0) | Err(_)) => return Ok(()),
            };
            self.perform(steps, &mut to).await?;
        }
    }

    async fn perform(&self, steps: Vec<Step>, to: &mut WriteHalf<'_>) -> Result<(), Cut> {
        for step in steps {
            if self.is_silent() {
                return Ok(());
            }
            match step {
                Step::Send(bytes) => match to.write_all(&bytes).await {
                    // Whoever is not told of this direction's end is not told by the other's.
                    Err(_) if self.other_silent.load(Ordering::Relaxed) => return Ok(()),
                    written => written.map_err(|_| Cut)?,
                },
                Step::Pause(time) => sleep(time).await,
                Step::FallSilent { both } => {
                    self.silent.store(true, Ordering::Relaxed);
                    self.other_silent.fetch_or(both, Ordering::Relaxed);
                }
                Step::Cut => return Err(Cut),
                Step::Note(event) => self.shared.note(&event),
            }
        }
        Ok(())
    }

    fn is_silent(&self) -> bool {
        self.silent.load(Ordering::Relaxed)
    }
}
