//! The watchdog: a runtime that does not move is noticed, one that does is left alone.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering::SeqCst},
    },
    time::Duration,
};

use actors::supervise::{Env, Root, SetPolicy, Supervisor};
use tokio::time::sleep;

const PATIENCE: Duration = Duration::from_millis(400);

struct Seen {
    alive: Arc<AtomicU32>,
    stalled: Arc<AtomicBool>,
}

async fn watched() -> (Root, Seen) {
    watched_every(PATIENCE).await
}

async fn watched_every(pulse: Duration) -> (Root, Seen) {
    let supervisor = Supervisor::new(SetPolicy::default());
    let root = Root::start("root", supervisor, Env::default()).await.unwrap();
    let seen = Seen { alive: Arc::default(), stalled: Arc::default() };
    let (alive, stalled) = (Arc::clone(&seen.alive), Arc::clone(&seen.stalled));
    let alive = move || {
        alive.fetch_add(1, SeqCst);
    };
    root.watch(PATIENCE, pulse, alive, move || stalled.store(true, SeqCst)).unwrap();
    (root, seen)
}

#[tokio::test]
async fn a_root_that_moves_is_left_alone() {
    let (root, seen) = watched().await;
    sleep(PATIENCE * 3).await;
    assert!(seen.alive.load(SeqCst) > 3, "the service manager hears of it in time");
    root.stop().await;
    let before = seen.alive.load(SeqCst);
    sleep(PATIENCE * 2).await;
    assert!(seen.alive.load(SeqCst) <= before + 1 && !seen.stalled.load(SeqCst));
}

#[tokio::test]
#[expect(clippy::disallowed_methods, reason = "blocking the runtime is the fault")]
async fn a_runtime_that_is_blocked_is_noticed_by_the_thread_outside() {
    let (_root, seen) = watched().await;
    sleep(PATIENCE / 4).await;
    std::thread::sleep(PATIENCE / 2);
    assert!(!seen.stalled.load(SeqCst), "it may still come back");
    sleep(PATIENCE / 2).await;
    assert!(!seen.stalled.load(SeqCst));
    std::thread::sleep(PATIENCE * 3);
    assert!(seen.stalled.load(SeqCst));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[expect(clippy::disallowed_methods, reason = "blocking the runtime is the fault")]
async fn a_thread_that_is_blocked_stops_timers_for_no_longer_than_a_pulse() {
    let (pulse, blocked) = (Duration::from_millis(5), Duration::from_millis(300));
    let (_root, _seen) = watched_every(pulse).await;
    for _ in 0..5 {
        // Whoever wakes this is the thread that waits for the timers.
        let blocking = tokio::spawn(async move {
            sleep(Duration::from_millis(20)).await;
            std::thread::sleep(blocked);
        });
        let waiting = tokio::spawn(async {
            let began = tokio::time::Instant::now();
            sleep(Duration::from_millis(60)).await;
            began.elapsed()
        });
        let waited = waiting.await.unwrap();
        assert!(waited < blocked / 2, "a timer of 60 ms took {waited:?}");
        blocking.await.unwrap();
    }
}
