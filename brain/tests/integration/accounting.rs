//! Every entry that the brain reads off a link is accounted for, whatever happens.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use benches::brain::Brain;
use benches::device::LightDevice;
use brain::api::EntryAccount;
use protocol::compress::Compression;
use protocol::history::{Author, Draft, Entry, Provenance};
use protocol::state::{Path, StateSource};
use protocol::wire::{self, Batch, Message, VERSION_MAX};
use telemetry::TEXT_CONTENT_TYPE;

use crate::disk_full::{SmallDisk, free_bytes};
use crate::harness::{BRAIN, count, device};
use crate::hostile::established;

const DEVICES: usize = 8;
const SOON: Duration = Duration::from_secs(20);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn received_is_stored_duplicate_refused_and_in_flight_under_faults() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let Some(disk) = SmallDisk::mount(folder.path()) else {
        println!("skipped: this process may not mount a file system");
        return;
    };
    let reserve = [("FLEET_BRAIN_DISK_RESERVE_BYTES", "8388608")];
    let brain = Brain::start_at(BRAIN, folder.path(), &reserve).expect("the brain starts");
    let mut devices = Vec::new();
    for _ in 0..DEVICES {
        devices.push(device(&brain).await);
    }

    // Connections that are cut with entries on their way.
    for round in 0..3 {
        for device in &mut devices {
            device.connect().await.expect("connects");
            write(device, 40 * round, 40).await;
            device.disconnect();
        }
    }
    catch_up(&mut devices).await;

    // Entries that are refused, with others behind them, and entries that are known.
    let honest = &devices[0];
    let ahead = forged(honest, 2, |entry| entry.hlc.wall_ms += 120_000);
    send(honest, &ahead).await;
    let foreign = forged(honest, 1, |entry| {
        let path = Path::new("desired/forged").expect("valid");
        entry.delta.added = [(path, count(1))].into();
    });
    send(honest, &foreign).await;
    let known = honest.entries(&honest.log())[..5].to_vec();
    send(honest, &known).await;

    // Commits that fail, and twins that restart over them.
    let filler = disk.0.join("filler");
    let room = free_bytes(&disk.0) - (4 << 20);
    std::fs::write(&filler, vec![1; room as usize]).expect("fills the disk");
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    for device in &mut devices {
        device.connect().await.expect("connects");
        for burst in 0..5 {
            write(device, 1_000 + 10 * burst, 10).await;
        }
    }
    for device in &mut devices {
        let refused = device.run_until(|device| !device.is_connected(), SOON).await;
        refused.expect("the brain ends the connection");
    }
    std::fs::remove_file(&filler).expect("makes room");
    let until = Instant::now() + SOON;
    while brain.readiness().expect("answers").0 != 200 {
        assert!(Instant::now() < until, "the brain notices the room");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    catch_up(&mut devices).await;

    let accounts = quiet(&brain, &devices).await;
    let mut total = EntryAccount::default();
    for (device, account) in devices.iter().zip(&accounts) {
        println!("{}: {account}", device.membership.device);
        assert_eq!(account.in_flight, 0, "{account}");
        let refused: u64 = account.refused.values().sum();
        assert_eq!(account.received, account.stored + account.duplicate + refused, "{account}");
        // What the device knows from elsewhere: each of its entries was made durable once.
        assert_eq!(account.stored, device.stored(), "{account}");
        total.received += account.received;
        total.stored += account.stored;
        total.duplicate += account.duplicate;
        for (reason, entries) in &account.refused {
            *total.refused.entry(reason.clone()).or_default() += entries;
        }
    }
    println!("total: {total}");
    for reason in ["CLOCK_AHEAD", "BEHIND_REFUSED", "FORBIDDEN", "DISK_FULL"] {
        assert!(total.refused.contains_key(reason), "{reason} in {total}");
    }
    assert_eq!(total.duplicate, known.len() as u64);
    let scraped = scrape(&brain);
    let sum =
        |name: &str| scraped.get(name).map_or(0, |series| series.values().sum::<f64>() as u64);
    assert_eq!(sum("fleet_entry_received_total"), total.received);
    assert_eq!(sum("fleet_entry_stored_total"), total.stored);
    assert_eq!(sum("fleet_entry_duplicate_total"), total.duplicate);
    assert_eq!(sum("fleet_entry_refused_total"), total.refused.values().sum::<u64>());
    assert_eq!(sum("fleet_entry_in_flight"), 0);
    assert_eq!(sum("fleet_store_entries_total"), total.stored, "nobody else wrote");
    for (reason, entries) in &total.refused {
        let series = &scraped["fleet_entry_refused_total"];
        assert_eq!(series.get(reason).copied(), Some(*entries as f64), "{reason}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn metrics_are_prometheus_text_of_the_declared_type() {
    let brain = crate::harness::brain();
    let mut device = device(&brain).await;
    device.connect().await.expect("connects");
    write(&mut device, 0, 3).await;
    device.run_until(|device| device.stored() == 3, SOON).await.expect("stored");
    // The device is told of its entries before they are counted.
    let told = Instant::now();
    while scrape(&brain)["fleet_entry_stored_total"].values().sum::<f64>() < 3.0 {
        assert!(told.elapsed() < SOON, "entries that are stored are counted");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let (content_type, text) = brain.scrape().expect("scrapes");
    assert_eq!(content_type, TEXT_CONTENT_TYPE);
    guide_names_everything(&text);
    let scraped = scrape(&brain);
    let one = |name: &str| scraped.get(name).and_then(|series| series.values().next().copied());
    assert_eq!(one("fleet_entry_stored_total"), Some(3.0));
    assert_eq!(one("fleet_link_active"), Some(1.0));
    assert_eq!(one("fleet_store_state"), Some(0.0), "neither full nor failed");
    assert!(one("process_memory_usage_bytes").is_some_and(|bytes| bytes > 1e6));
    assert!(one("fleet_entry_acknowledgement_duration_seconds").is_some_and(|count| count >= 1.0));
    assert!(one("fleet_store_sync_duration_seconds").is_some_and(|count| count >= 1.0));
    assert!(one("http_server_request_duration_seconds").is_some_and(|count| count >= 1.0));
}

/// Every figure stands in the guide with its type.
fn guide_names_everything(text: &str) {
    let guide = "../ops/guides/metrics.md";
    let guide = std::fs::read_to_string(guide).expect("the guide");
    for line in text.lines().filter_map(|line| line.strip_prefix("# TYPE ")) {
        let (name, kind) = line.split_once(' ').expect("a name and a type");
        let row = format!("| `{name}` | {kind} |");
        assert!(name == "target_info" || guide.contains(&row), "no row with {row}");
    }
}

/// The figures by name and by what tells series apart; of a histogram, how many were measured.
fn scrape(brain: &Brain) -> BTreeMap<String, BTreeMap<String, f64>> {
    let (_, text) = brain.scrape().expect("scrapes");
    let lines = text.lines().map(|line| Ok(line.to_owned()));
    let parsed = prometheus_parse::Scrape::parse(lines).expect("Prometheus text");
    let mut figures = BTreeMap::<String, BTreeMap<String, f64>>::new();
    for sample in parsed.samples {
        let mut labels: Vec<_> = sample.labels.values().cloned().collect();
        labels.sort();
        let value = match sample.value {
            prometheus_parse::Value::Counter(value)
            | prometheus_parse::Value::Gauge(value)
            | prometheus_parse::Value::Untyped(value) => value,
            prometheus_parse::Value::Histogram(buckets) => {
                buckets.last().map_or(0.0, |all| all.count)
            }
            prometheus_parse::Value::Summary(_) => continue,
        };
        figures.entry(sample.metric).or_default().insert(labels.join(","), value);
    }
    figures
}

async fn write(device: &mut LightDevice, from: u64, entries: u64) {
    for n in from..from + entries {
        device.write("reported/count", count(n + 1)).expect("valid");
    }
    device.offer().await.expect("offers");
}

async fn catch_up(devices: &mut [LightDevice]) {
    for device in devices.iter_mut() {
        if !device.is_connected() {
            device.connect().await.expect("connects");
        }
        let all = |device: &LightDevice| device.stored() == device.written();
        device.run_until(all, SOON).await.expect("the rest arrives");
        assert_eq!(device.stored(), device.written());
        device.disconnect();
    }
}

/// Entries that would follow the device's own, but for what is wrong with them.
fn forged(device: &LightDevice, entries: usize, wrong: impl Fn(&mut Entry)) -> Vec<Entry> {
    let mut tree = device.tree.clone();
    let last = tree.log(&device.log()).expect("its log").hlc;
    let mut author = Author::new(device.log(), last);
    let mut forged = Vec::new();
    for n in 0..entries {
        let path = Path::new("reported/forged").expect("valid");
        let provenance = Provenance::new(StateSource::Hardware, "sensor:forged", "forged");
        let changes = vec![(path, Some(count(n as u64)))];
        let draft = Draft { changes, provenance, lease_until_ms: None };
        let quality = protocol::clock::ClockQuality::Synchronised;
        let mut entry = author.write(&tree, draft, last.wall_ms, quality).expect("a change");
        wrong(&mut entry);
        tree.apply(&entry, entry.id());
        forged.push(entry);
    }
    forged
}

/// Sends entries on a connection of their own, and waits until the brain answers.
async fn send(device: &LightDevice, entries: &[Entry]) {
    let mut link = established(device).await;
    let batch = Batch::pack(entries).expect("packs");
    let frame = wire::encode(&Message::Entries(batch), VERSION_MAX, Compression::None);
    link.send(frame).await.expect("sends");
    while let Ok(Some(frame)) = link.receive().await {
        if let Ok(Message::Ack(_) | Message::Refuse(_)) = wire::decode(&frame) {
            return;
        }
    }
    panic!("the brain does not answer");
}

/// What became of each device's entries, once nothing is under way any more.
async fn quiet(brain: &Brain, devices: &[LightDevice]) -> Vec<EntryAccount> {
    let until = Instant::now() + SOON;
    loop {
        let account = |device: &LightDevice| {
            let path = format!("/api/v1/devices/{}", device.membership.device);
            let detail = brain.get(&path).expect("a device");
            serde_json::from_value::<EntryAccount>(detail["entries"].clone()).expect("an account")
        };
        let accounts: Vec<_> = devices.iter().map(account).collect();
        if accounts.iter().all(|account| account.in_flight == 0) {
            // The totals are looked at anew after a moment.
            tokio::time::sleep(Duration::from_millis(300)).await;
            return accounts;
        }
        assert!(Instant::now() < until, "{accounts:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
