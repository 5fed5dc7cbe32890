//! The brain dies at every failpoint, and is started again.

use std::collections::BTreeSet;
use std::fs;
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use benches::brain::Brain;
use benches::device::{LightDevice, Membership, random};
use brain::failpoints::POINTS;
use protocol::keys::EnrolmentToken;
use sim::random::Random;

use super::{BRAIN_LAB, died, init};
use crate::harness::{count, device, way};
use crate::oracle::{Complaint, complaint, from_environment, load, renew, seed};

const DEVICES: usize = 3;
/// A failpoint that is not met within this is not met at all.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long devices write before a stop.
const WRITING: Duration = Duration::from_millis(200);

/// What a brain is doing when it meets a failpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Work {
    /// It makes a fleet: see [`init`](super::init).
    Init,
    /// It starts.
    Start,
    /// It serves devices that write, devices that join and people who make tokens.
    Serve,
    /// It was told to stop.
    Stop,
}

/// Where a failpoint is met, and at which visit at most the brain dies there.
fn work(point: &str) -> (Work, u64) {
    match point {
        "file.removed" | "file.folder_made" => (Work::Init, 0),
        "file.leftover_removed" | "store.before_open" | "store.opened" | "mark.checked" => {
            (Work::Start, 1)
        }
        "store.before_stop" | "store.stopped" => (Work::Stop, 1),
        "store.identity_made" => (Work::Init, 0),
        "store.burial_batched" => (Work::Serve, 2),
        "store.registry_batched" | "store.evidence_batched" | "store.evidence_pruned" => {
            (Work::Serve, 2)
        }
        _ => match point.split_once('.').map_or(point, |(part, _)| part) {
            "identity" | "init" => (Work::Init, 0),
            "tls" if point.starts_with("tls.authority") => (Work::Init, 0),
            "tls" => (Work::Start, 1),
            "file" | "mark" => (Work::Serve, 4),
            "store" => (Work::Serve, 60),
            "enrolment" | "api" => (Work::Serve, 3),
            "removal" => (Work::Serve, 2),
            _ => panic!("say where {point} is met"),
        },
    }
}

/// A brain, and what it has promised.
struct World {
    brain: Brain,
    devices: Vec<LightDevice>,
    /// A device whose entries are refused, so that there is evidence.
    rogue: LightDevice,
    /// The numbers of enrolment tokens that were handed out.
    tokens: BTreeSet<u64>,
    /// Devices that were told that they have joined, and that nobody has retired.
    joined: BTreeSet<String>,
    /// Devices that are retired, as whoever asked for it was told.
    retired: BTreeSet<String>,
    /// A device that had no answer when the brain died: its token and seed.
    joining: Option<(String, [u8; 32])>,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_survives_deaths_at_every_failpoint() {
    // `FLEET_ROUNDS` asks for more rounds over all of them.
    let rounds = from_environment("FLEET_ROUNDS").unwrap_or(1);
    let seed = seed();
    let mut random = Random::new(seed);
    let mut world = World::new().await;
    let of_init: BTreeSet<_> = init::visits().into_iter().collect();
    let (mut deaths, mut of_former_devices) = (0, 0);
    for _ in 0..rounds {
        for (point, _) in POINTS {
            let (work, visit_max) = work(point);
            if work == Work::Init {
                assert!(of_init.contains(*point), "{point} is not met by an init");
                continue;
            }
            let place = format!("{point}={}", 1 + random.below(visit_max));
            world.die(&place, point, work).await;
            deaths += 1;
            let complaints = world.come_back().await;
            assert_eq!(complaints, [], "{place}, seed {seed}");
            of_former_devices += renew(&world.brain, &mut world.devices).await;
        }
    }
    let acknowledged =
        world.devices.iter().map(LightDevice::stored).sum::<u64>() + of_former_devices;
    println!(
        "failpoints: {}, deaths: {deaths} in {rounds} rounds, seed: {seed}, acknowledged entries: \
         {acknowledged}, devices joined: {}, tokens: {}, lost: 0",
        POINTS.len(),
        world.joined.len(),
        world.tokens.len()
    );
}

/// A device that has joined, and that nobody counts on.
async fn device_of(brain: &Brain) -> anyhow::Result<LightDevice> {
    let token = brain.enrolment_token(1)?;
    let membership = Membership::enrol(&way(brain), &token, random()).await?;
    Ok(LightDevice::new(membership, way(brain)))
}

impl World {
    async fn new() -> Self {
        let brain = Brain::start(BRAIN_LAB).expect("the brain starts");
        let mut devices = Vec::new();
        for _ in 0..DEVICES {
            devices.push(device(&brain).await);
        }
        let mut rogue = device(&brain).await;
        rogue.write("desired/not_its_own", count(1)).expect("a valid path");
        let (tokens, joined, retired) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
        Self { brain, devices, rogue, tokens, joined, retired, joining: None }
    }

    /// Has the brain die at a place.
    async fn die(&mut self, place: &str, point: &str, work: Work) {
        self.brain.kill().expect("kills");
        if point == "file.leftover_removed" {
            let leftover = self.brain.data().join("store/acknowledged.new");
            fs::write(leftover, "12").expect("writes");
        }
        if point.starts_with("tls.server") {
            // For other names there must be another certificate.
            fs::remove_file(self.brain.data().join("keys/tls.names")).expect("removes");
        }
        self.brain.set("FAILPOINTS", place);
        let started = self.brain.restart();
        self.brain.unset("FAILPOINTS");
        let status = match (work, started) {
            (_, Err(_)) => self.brain.wait().expect("has ended"),
            (Work::Start, Ok(())) => panic!("{place} was not met by a start"),
            (_, Ok(())) => self.serve(place, point, work).await,
        };
        assert!(died(status), "{place}: {status}");
    }

    /// Keeps the brain busy until it dies.
    async fn serve(&mut self, place: &str, point: &str, work: Work) -> ExitStatus {
        let loads: Vec<_> =
            self.devices.drain(..).map(|device| tokio::spawn(load(device))).collect();
        let began = Instant::now();
        let status = loop {
            if let Some(status) = self.brain.ended().expect("runs or has ended") {
                break status;
            }
            if work == Work::Stop && began.elapsed() > WRITING {
                break self.brain.stop().expect("ends");
            }
            assert!(began.elapsed() < PATIENCE, "{place} was not met");
            // What the brain cannot answer any more is judged when it is back.
            let _ = match point.split_once('.').map_or(point, |(part, _)| part) {
                "enrolment" | "api" => self.have_a_device_join().await,
                "removal" => self.have_a_device_retired().await,
                _ if point == "store.burial_batched" => self.have_a_device_retired().await,
                _ if point.starts_with("store.registry") => self.have_a_device_join().await,
                _ if point.starts_with("store.evidence") => self.have_an_entry_refused().await,
                _ => {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                    Ok(())
                }
            };
        };
        for load in loads {
            self.devices.push(load.await.expect("the load does not panic"));
        }
        status
    }

    async fn have_a_device_join(&mut self) -> anyhow::Result<()> {
        let token = self.brain.enrolment_token(1)?;
        self.tokens.insert(token.parse::<EnrolmentToken>()?.number);
        let seed = random();
        self.joining = Some((token.clone(), seed));
        self.join(&token, seed).await
    }

    async fn join(&mut self, token: &str, seed: [u8; 32]) -> anyhow::Result<()> {
        let membership = Membership::enrol(&way(&self.brain), token, seed).await?;
        self.joined.insert(membership.device.to_string());
        self.joining = None;
        Ok(())
    }

    /// One that has written, and has a conflict with an earlier life of its own.
    async fn have_a_device_retired(&mut self) -> anyhow::Result<()> {
        let mut first = device_of(&self.brain).await?;
        let mut second = LightDevice::new(first.membership.clone(), first.way.clone());
        for (life, n) in [(&mut first, 1), (&mut second, 2)] {
            life.write("reported/limit", count(n))?;
            life.connect().await?;
            life.offer().await?;
            life.run_until(|device| device.stored() == 1, Duration::from_secs(5)).await?;
            life.disconnect();
        }
        let id = first.membership.device.to_string();
        let target = format!("/api/v1/devices/{id}?reason=test");
        if self.brain.call("DELETE", &target, None)?.0 == 200 {
            self.retired.insert(id);
        }
        Ok(())
    }

    async fn have_an_entry_refused(&mut self) -> anyhow::Result<()> {
        self.rogue.connect().await?;
        self.rogue.offer().await?;
        let gone = |rogue: &LightDevice| !rogue.is_connected();
        self.rogue.run_until(gone, Duration::from_secs(2)).await
    }

    /// Starts the brain again, and says what it has lost.
    async fn come_back(&mut self) -> Vec<Complaint> {
        if let Err(error) = self.brain.restart() {
            return vec![Complaint::NotServed { said: format!("{error:#}") }];
        }
        let devices = self.devices.iter();
        let mut complaints: Vec<_> =
            devices.filter_map(|device| complaint(&self.brain, device)).collect();
        match self.listed() {
            Err(error) => complaints.push(Complaint::NotServed { said: format!("{error:#}") }),
            Ok(listed) => {
                let tokens = self.tokens.iter().map(|number| format!("token {number}"));
                let promised = tokens.chain(self.joined.iter().map(|id| format!("device {id}")));
                let gone = promised.filter(|what| !listed.contains(what));
                complaints.extend(gone.map(|what| Complaint::Forgotten { what }));
                let back =
                    self.retired.iter().filter(|id| listed.contains(&format!("device {id}")));
                complaints.extend(back.map(|id| Complaint::Forgotten {
                    what: format!("that device {id} is retired"),
                }));
            }
        }
        if let Some((token, seed)) = self.joining.take()
            && let Err(error) = self.join(&token, seed).await
        {
            let what = format!("the right of a device to join, which had no answer: {error:#}");
            complaints.push(Complaint::Forgotten { what });
        }
        complaints
    }

    fn listed(&self) -> anyhow::Result<BTreeSet<String>> {
        let tokens = self.brain.get("/api/v1/enrolment-tokens")?;
        let tokens = tokens.as_array().into_iter().flatten();
        let mut listed: BTreeSet<_> =
            tokens.map(|token| format!("token {}", token["number"])).collect();
        let mut after = String::new();
        loop {
            let page = self.brain.get(&format!("/api/v1/devices?limit=1000{after}"))?;
            let devices = page["devices"].as_array().into_iter().flatten();
            let ids = devices.filter_map(|device| device["id"].as_str());
            listed.extend(ids.map(|id| format!("device {id}")));
            match page["next"].as_str() {
                Some(next) => after = format!("&after={next}"),
                None => return Ok(listed),
            }
        }
    }
}
