//! The watchdog: notices from outside of the runtime that nothing moves any more.

use std::{
    io,
    sync::mpsc::{RecvTimeoutError, SyncSender, sync_channel},
    thread,
    time::{Duration, Instant},
};

use ractor::ActorRef;

use super::{shell::ShellMsg, tell::tell};

/// So many times within its patience the watchdog looks.
const LOOKS: u32 = 8;

/// Asks a supervisor on a thread of its own, again and again, whether it still handles messages.
///
/// Code that blocks all threads of the runtime cannot be killed and stops every supervisor; only
/// the end of the process helps then.
///
/// Code that blocks one of them can stop all sockets and timers as well: where that thread was the
/// one that waited for them, the others sleep until somebody wakes them. Every question does.
pub(super) fn watch(
    supervisor: ActorRef<ShellMsg>,
    patience: Duration,
    pulse: Duration,
    mut alive: impl FnMut() + Send + 'static,
    stalled: impl FnOnce() + Send + 'static,
) -> io::Result<()> {
    let slice = (patience / LOOKS).max(Duration::from_millis(1));
    let pulse = pulse.clamp(Duration::from_millis(1), slice);
    let watch = move || {
        let mut told = None::<Instant>;
        loop {
            let (answer, answered) = sync_channel(1);
            if tell(&supervisor, ShellMsg::Ping(answer)).is_err() {
                // It has ended, which is told elsewhere.
                return;
            }
            let mut looks = 0;
            loop {
                let began = Instant::now();
                match answered.recv_timeout(slice) {
                    Ok(()) => break,
                    Err(RecvTimeoutError::Disconnected) => return,
                    Err(RecvTimeoutError::Timeout) => {}
                }
                // A machine that slept, or a process that was stopped, lets this thread wait as
                // well: that is nobody's stall.
                if began.elapsed() < slice * 2 {
                    looks += 1;
                }
                if looks == LOOKS {
                    return stalled();
                }
            }
            if told.is_none_or(|told| told.elapsed() >= slice) {
                told = Some(Instant::now());
                alive();
            }
            pause(pulse);
        }
    };
    thread::Builder::new().name("watchdog".into()).spawn(watch).map(drop)
}

#[expect(clippy::disallowed_methods, reason = "a thread of its own, outside of the runtime")]
fn pause(time: Duration) {
    thread::sleep(time);
}

/// How the root answers.
pub(super) fn answer(ping: &SyncSender<()>) {
    // The watchdog may have given up waiting.
    let _ = ping.try_send(());
}
