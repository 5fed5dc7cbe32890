//! The proxy with real sockets.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use super::*;

const SOON: Duration = Duration::from_secs(10);

/// A server that sends back what it gets, and says how many connections have ended.
async fn echo() -> (SocketAddr, Arc<AtomicU64>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("listens");
    let address = listener.local_addr().expect("an address");
    let ended = Arc::new(AtomicU64::new(0));
    let counted = ended.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let ended = counted.clone();
            tokio::spawn(async move {
                let (mut read, mut write) = stream.into_split();
                let _ = tokio::io::copy(&mut read, &mut write).await;
                ended.fetch_add(1, Ordering::Relaxed);
            });
        }
    });
    (address, ended)
}

/// A proxy in front of `brain`, and what it tells its log.
async fn proxy(brain: SocketAddr, seed: u64, rates: Rates) -> (Proxy, Arc<Mutex<Vec<Event>>>) {
    let events = Arc::<Mutex<Vec<Event>>>::default();
    let kept = events.clone();
    let log: Log = Arc::new(move |event| kept.lock().expect("no panic").push(event.clone()));
    let settings = Settings {
        listen: SocketAddr::from(([127, 0, 0, 1], 0)),
        brain,
        seed,
        level: Level::Bytes,
        rates,
        faults_for: None,
        log: Some(log),
    };
    (Proxy::start(settings).await.expect("starts"), events)
}

/// Sends over three connections, one after the other, and gives back what came back.
async fn exchange(address: SocketAddr) -> Vec<Vec<u8>> {
    let mut came = Vec::new();
    for _ in 0..3 {
        let mut stream = TcpStream::connect(address).await.expect("connects");
        let (mut read, mut write) = stream.split();
        let sending = async {
            for _ in 0..50 {
                // The proxy may have cut the connection.
                let _ = write.write_all(&[b'x'; 700]).await;
            }
            let _ = write.shutdown().await;
        };
        let mut back = Vec::new();
        let all = async { tokio::join!(sending, read.read_to_end(&mut back)) };
        timeout(SOON, all).await.expect("the connection ends").1.ok();
        came.push(back);
    }
    came
}

#[tokio::test]
async fn a_run_repeats_from_its_seed() {
    let (brain, _) = echo().await;
    let rates = || Rates { split_permille: 200, corrupt_permille: 100, ..Rates::default() };
    let mut runs = Vec::new();
    for seed in [1, 1, 2] {
        let (proxy, events) = proxy(brain, seed, rates()).await;
        let came = exchange(proxy.address).await;
        let mut events = events.lock().expect("no panic").clone();
        // The two directions go on side by side; each for itself is in order.
        events.sort_by_key(|event| match event {
            Event::Harmed { connection, direction, n, .. } => (*connection, *direction as u8, *n),
            Event::Opened { connection } | Event::Closed { connection } => (*connection, 9, 0),
            Event::GaveUp { connection, .. } => (*connection, 10, 0),
        });
        let harmed = events.iter().filter(|event| matches!(event, Event::Harmed { .. })).count();
        let fired = proxy.fired();
        assert_eq!(fired.iter().map(|(_, count)| count).sum::<u64>(), harmed as u64);
        assert!(fired.of("split") > 20 && fired.of("corrupted") > 10, "{fired}");
        runs.push((came, events));
    }
    assert_eq!(runs[0], runs[1]);
    assert_ne!(runs[0], runs[2]);
}

#[tokio::test]
async fn a_cut_ends_the_connection_for_both() {
    let (brain, ended) = echo().await;
    let (proxy, _) = proxy(brain, 1, Rates { truncate_permille: 300, ..Rates::default() }).await;
    let came = exchange(proxy.address).await;
    assert!(came.iter().all(|came| came.len() < 35_000));
    assert_eq!((proxy.connections(), proxy.fired().of("truncated")), (3, 3));
    let all = async {
        while ended.load(Ordering::Relaxed) < 3 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(SOON, all).await.expect("the other end hears of it");
}

#[tokio::test]
async fn on_a_half_open_connection_nothing_comes_and_no_end_is_told() {
    let (brain, ended) = echo().await;
    let (proxy, _) = proxy(brain, 1, Rates { half_open_permille: 1_000, ..Rates::default() }).await;
    let mut stream = TcpStream::connect(proxy.address).await.expect("connects");
    // More than all buffers on the way hold: it is read, and goes nowhere.
    timeout(SOON, stream.write_all(&vec![b'x'; 16 << 20])).await.expect("is read").expect("sends");
    let waited = timeout(Duration::from_millis(200), stream.read_u8()).await;
    assert!(waited.is_err(), "{waited:?}");
    drop(stream);
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(ended.load(Ordering::Relaxed), 0);
    assert_eq!(proxy.fired().of("half_open"), 1);
}

#[tokio::test]
async fn a_healed_proxy_passes_everything() {
    let (brain, _) = echo().await;
    let (proxy, _) = proxy(brain, 1, Rates { corrupt_permille: 1_000, ..Rates::default() }).await;
    assert!(exchange(proxy.address).await.iter().flatten().any(|byte| *byte != b'x'));
    proxy.set_harmful(false);
    let whole = vec![vec![b'x'; 35_000]; 3];
    assert_eq!(exchange(proxy.address).await, whole);
}

#[tokio::test]
async fn a_brain_that_is_away_looks_like_one() {
    let nobody = TcpListener::bind("127.0.0.1:0").await.expect("listens");
    let brain = nobody.local_addr().expect("an address");
    drop(nobody);
    let (proxy, _) = proxy(brain, 1, Rates::default()).await;
    let came = exchange(proxy.address).await;
    assert!(came.iter().all(Vec::is_empty));
    assert_eq!(proxy.fired().of("gave_up"), 3);
}
