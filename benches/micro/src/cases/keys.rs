//! Signatures, certificates, and the handshake of both sides.

use std::hint::black_box;

use protocol::clock::ClockQuality;
use protocol::compress::Compression;
use protocol::history::{Genesis, TreeKind};
use protocol::keys::{Certificate, Chain, Keypair, Subject, Validity, verify};
use protocol::session::handshake::{Answerer, Answering, Caller, Intent};
use protocol::session::{Input, Limits, Now, Output, Replica, Session};
use protocol::{BrainId, DeviceId, FleetId};

use crate::case::{Case, Run};

const GROUP: &str = "keys and handshake";
const FLEET: FleetId = FleetId([0xF1; 16]);
const DEVICE: DeviceId = DeviceId([0xD1; 16]);
const BRAIN: BrainId = BrainId([0xB1; 16]);

pub(super) const CASES: &[Case] = &[
    Case { group: GROUP, name: "sign a head", items: 1, prepare: sign },
    Case { group: GROUP, name: "verify a head", items: 1, prepare: verify_one },
    Case { group: GROUP, name: "verify a device's chain", items: 1, prepare: verify_chain },
    Case { group: GROUP, name: "handshake, both sides", items: 1, prepare: handshake },
];

fn key(n: u8) -> Keypair {
    Keypair::from_seed(&[n; 32])
}

/// As long as the canonical bytes of a head.
const HEAD: [u8; 130] = [7; 130];

fn sign() -> Run {
    let keypair = key(3);
    Box::new(move || {
        black_box(keypair.sign(black_box(&HEAD)));
    })
}

fn verify_one() -> Run {
    let (public, signature) = (key(3).public(), key(3).sign(&HEAD));
    Box::new(move || {
        assert!(verify(public, black_box(&HEAD), &signature).is_ok(), "it was signed");
    })
}

fn brain_certificate() -> Certificate {
    let subject = Subject::Brain(BRAIN);
    Certificate::issue(&key(1), FLEET, subject, key(2).public(), Validity::ALWAYS)
}

fn device_chain() -> Chain {
    let subject = Subject::Device(DEVICE, None);
    let leaf = Certificate::issue(&key(2), FLEET, subject, key(3).public(), Validity::ALWAYS);
    Chain { leaf, issuer: Some(brain_certificate()) }
}

fn verify_chain() -> Run {
    let (chain, root) = (device_chain(), key(1).public());
    Box::new(move || {
        assert!(black_box(&chain).verify(FLEET, root, Some(1)).is_ok(), "it was issued");
    })
}

fn handshake() -> Run {
    let (root, device, brain) = (key(1).public(), key(3), key(2));
    let (chain, certificate) = (device_chain(), brain_certificate());
    let genesis = Genesis { kind: TreeKind::Device, fleet: FLEET, name: DEVICE.to_string() };
    let tree = genesis.tree_id();
    let replica = move |author| Replica {
        tree,
        logs: Vec::new(),
        floor: protocol::history::VersionVector::default(),
        ends: Vec::new(),
        author,
    };
    Box::new(move || {
        let compressions = Compression::Zstd.bit();
        let mut caller = Session::caller(Caller {
            fleet: FLEET,
            root,
            device: DEVICE,
            keypair: device.clone(),
            intent: Intent::Link { certificate: chain.clone(), replica: replica(device.public()) },
            compressions,
            challenge: [1; 32],
            exporter: [3; 32],
        });
        let mut answerer = Session::answerer(Answerer {
            fleet: FLEET,
            root,
            who: Answering::Brain(BRAIN),
            brains: [].into(),
            keypair: brain.clone(),
            certificate: Chain { leaf: certificate.clone(), issuer: None },
            compressions,
            challenge: [2; 32],
            exporter: [3; 32],
            limits: Limits::default(),
        });
        shake_hands(&mut caller, &mut answerer, &replica(brain.public()));
        assert!(caller.is_established() && answerer.is_established(), "both are honest");
    })
}

fn shake_hands(caller: &mut Session, answerer: &mut Session, replica: &Replica) {
    let now = Now { wall_ms: 1_700_000_000_000, mono_ms: 1, quality: ClockQuality::Synchronised };
    let mut to_answerer = caller.handle(Input::Connected, now);
    while !to_answerer.is_empty() {
        let mut to_caller = Vec::new();
        for output in to_answerer.drain(..) {
            if let Output::Send(frame) = output {
                to_caller.extend(answerer.handle(Input::Frame(&frame), now));
            }
        }
        for output in to_caller {
            match output {
                Output::Send(frame) => {
                    to_answerer.extend(caller.handle(Input::Frame(&frame), now));
                }
                Output::Authorise(_) => {
                    let granted = Input::Authorised { connection: 1, replica: replica.clone() };
                    for output in answerer.handle(granted, now) {
                        if let Output::Send(frame) = output {
                            to_answerer.extend(caller.handle(Input::Frame(&frame), now));
                        }
                    }
                }
                _ => {}
            }
        }
        if caller.is_established() {
            break;
        }
    }
}
