//! Whoever is not who they say, or says it over another connection, is refused.

use protocol::keys::{Certificate, Chain, Subject, Validity};
use protocol::session::handshake::{Answerer, Answering, Caller, Intent};
use protocol::session::{Input, Session};
use protocol::wire::{self, Auth, Hello, Message, Purpose};
use protocol::{BrainId, DeviceId, ErrorCode, FleetId};

use super::store::{DEVICE, FLEET, Store, brain_key, device_key, key, root_key};
use super::world::{
    BRAIN, Link, Side, answerer, brain_chain, caller, device_chain, reveals, token,
};

/// A link of these two sides, run until both are silent.
fn meet(caller: Caller, answerer: Answerer) -> Link {
    let mut link = Link::between(caller, Store::device(), answerer, Store::brain());
    link.run();
    link
}

/// How the answerer ends a link with this caller.
fn refused(change: impl FnOnce(&mut Caller)) -> Option<(ErrorCode, bool)> {
    let mut config = caller(&Store::device(), 1);
    change(&mut config);
    let link = meet(config, answerer(1));
    assert!(!link.answerer.session.is_established() && !link.caller.session.is_established());
    link.answerer.ended_as()
}

/// How the caller ends a link with this answerer.
fn distrusted(change: impl FnOnce(&mut Answerer)) -> Option<(ErrorCode, bool)> {
    let mut config = answerer(1);
    change(&mut config);
    let link = meet(caller(&Store::device(), 1), config);
    assert!(!link.answerer.session.is_established() && !link.caller.session.is_established());
    link.caller.ended_as()
}

fn intent(certificate: Chain) -> Intent {
    Intent::Link { certificate, replica: Store::device().replica() }
}

fn issued(subject: Subject, to: u8) -> Chain {
    let public = key(to).public();
    let leaf = Certificate::issue(&brain_key(), FLEET, subject, public, Validity::ALWAYS);
    Chain { leaf, issuer: Some(brain_chain().leaf) }
}

#[test]
fn a_replayed_transcript_proves_nothing() {
    let mut original = Link::connect(Store::device(), Store::brain(), 1);
    let mut recorded = Vec::new();
    while !original.answerer.session.is_established() {
        recorded.extend(original.caller.outbox.iter().cloned());
        assert!(original.step(true));
    }
    recorded.dedup();
    assert_eq!(recorded.len(), 2, "a hello and a proof");
    let other_brain = Subject::Brain(BrainId([0xB2; 16]));
    let leaf =
        Certificate::issue(&root_key(), FLEET, other_brain, key(8).public(), Validity::ALWAYS);
    let cases = [
        ("a new challenge", Answerer { challenge: [7; 32], ..answerer(1) }),
        ("another connection", Answerer { exporter: [7; 32], ..answerer(1) }),
        (
            "another brain",
            Answerer {
                who: Answering::Brain(BrainId([0xB2; 16])),
                keypair: key(8),
                certificate: Chain { leaf, issuer: None },
                ..answerer(1)
            },
        ),
    ];
    for (name, config) in cases {
        let mut side = Side::new(Session::answerer(config), Store::brain());
        for frame in &recorded {
            side.feed(Input::Frame(frame), 0);
        }
        assert_eq!(side.ended_as(), Some((ErrorCode::BadSignature, false)), "{name}");
    }
    let mut same = Side::new(Session::answerer(answerer(1)), Store::brain());
    for frame in &recorded {
        same.feed(Input::Frame(frame), 0);
    }
    assert!(same.session.is_established(), "the very connection it was made for");
}

#[test]
fn a_replayed_brain_proves_nothing() {
    let mut original = Link::connect(Store::device(), Store::brain(), 1);
    assert!(original.step(true));
    let recorded: Vec<_> = original.answerer.outbox.iter().cloned().collect();
    assert_eq!(recorded.len(), 2, "a reply and a proof");
    let config = Caller { challenge: [7; 32], ..caller(&Store::device(), 1) };
    let mut side = Side::new(Session::caller(config), Store::device());
    side.feed(Input::Connected, 0);
    for frame in &recorded {
        side.feed(Input::Frame(frame), 0);
    }
    assert_eq!(side.ended_as(), Some((ErrorCode::BadSignature, false)));
}

#[test]
fn a_relayed_handshake_is_refused_by_both_sides() {
    // A relay ends both connections and passes every frame on: only the exporters differ.
    let link = meet(caller(&Store::device(), 1), Answerer { exporter: [7; 32], ..answerer(1) });
    assert_eq!(link.caller.ended_as(), Some((ErrorCode::BadSignature, false)));

    // A relay that can make the caller's side believe (it holds the brain's exporter, not key).
    let mut link = Link::connect(Store::device(), Store::brain(), 1);
    let config = Answerer { exporter: [7; 32], ..answerer(1) };
    link.answerer = Side::new(Session::answerer(config), Store::brain());
    let hello = link.caller.outbox.pop_front().expect("a hello");
    link.answerer.feed(Input::Frame(&hello), 0);
    let mut believed = Side::new(Session::answerer(answerer(1)), Store::brain());
    believed.feed(Input::Frame(&hello), 0);
    for frame in believed.outbox {
        link.caller.feed(Input::Frame(&frame), 0);
    }
    let proof = link.caller.outbox.pop_front().expect("a proof for the other connection");
    link.answerer.feed(Input::Frame(&proof), 0);
    assert_eq!(link.answerer.ended_as(), Some((ErrorCode::BadSignature, false)));
}

#[test]
fn a_device_with_the_wrong_papers_is_refused_by_name() {
    use ErrorCode::{BadCertificate, BadSignature, WrongFleet, WrongRole};
    let device = Subject::Device(DEVICE, None);
    let other = Subject::Device(DeviceId([9; 16]), None);
    let forged = Certificate::issue(&key(9), FLEET, device, key(3).public(), Validity::ALWAYS);
    let ours = |code| Some((code, false));

    assert_eq!(refused(|c| c.keypair = key(9)), ours(BadCertificate), "not the certified key");
    assert_eq!(refused(|c| c.fleet = FleetId([9; 16])), ours(WrongFleet));
    assert_eq!(refused(|c| c.intent = intent(issued(other, 3))), ours(WrongRole));
    assert_eq!(refused(|c| c.device = DeviceId([9; 16])), ours(WrongRole));
    let as_brain = |c: &mut Caller| {
        c.keypair = brain_key();
        c.intent = intent(brain_chain());
    };
    assert_eq!(refused(as_brain), ours(WrongRole), "a brain's certificate");
    let unknown_root = Chain { leaf: forged, issuer: None };
    assert_eq!(refused(|c| c.intent = intent(unknown_root)), ours(BadCertificate));
    let mut tampered = device_chain();
    tampered.leaf.validity.until_ms -= 1;
    assert_eq!(refused(|c| c.intent = intent(tampered)), ours(BadCertificate));

    // Right papers, wrong hand: the certificate and key of the device, signed by another key.
    let mut link = Link::connect(Store::device(), Store::brain(), 1);
    assert!(link.step(true) && link.step(true) && link.step(true));
    link.caller.outbox.clear();
    let auth = Auth { challenge_response: key(9).sign(b"anything"), token: None };
    link.forge_to_answerer(&Message::Auth(auth));
    assert_eq!(link.answerer.ended_as(), ours(BadSignature));
}

#[test]
fn an_expired_certificate_is_refused_by_a_known_clock() {
    let subject = Subject::Device(DEVICE, None);
    let past = Validity { from_ms: 0, until_ms: 1_000 };
    let leaf = Certificate::issue(&brain_key(), FLEET, subject, device_key().public(), past);
    let expired = Chain { leaf, issuer: Some(brain_chain().leaf) };
    let ended = refused(|c| c.intent = intent(expired));
    assert_eq!(ended, Some((ErrorCode::BadCertificate, false)));
}

#[test]
fn a_brain_with_the_wrong_papers_is_refused_by_name() {
    use ErrorCode::{BadCertificate, BadSignature, WrongRole};
    let ours = |code| Some((code, false));
    let self_made = Certificate::issue(
        &key(9),
        FLEET,
        Subject::Brain(BRAIN),
        key(9).public(),
        Validity::ALWAYS,
    );
    let fake = |a: &mut Answerer| {
        a.keypair = key(9);
        a.certificate = Chain { leaf: self_made, issuer: None };
    };
    assert_eq!(distrusted(fake), ours(BadCertificate), "certified by itself");
    assert_eq!(distrusted(|a| a.keypair = key(9)), ours(WrongRole), "another key");
    assert_eq!(
        distrusted(|a| a.who = Answering::Brain(BrainId([9; 16]))),
        ours(WrongRole),
        "another brain"
    );
    let as_device = |a: &mut Answerer| {
        a.keypair = device_key();
        a.certificate = device_chain();
    };
    assert_eq!(distrusted(as_device), ours(WrongRole), "a device's certificate");
    assert_eq!(distrusted(|a| a.exporter = [9; 32]), ours(BadSignature), "another connection");
}

#[test]
fn a_fake_brain_never_sees_the_token() {
    let leaf = Certificate::issue(
        &key(9),
        FLEET,
        Subject::Brain(BRAIN),
        key(9).public(),
        Validity::ALWAYS,
    );
    let fakes = [
        // Certified by a root of its own; and with the true papers but without the key.
        Answerer { keypair: key(9), certificate: Chain { leaf, issuer: None }, ..answerer(1) },
        Answerer { keypair: key(9), ..answerer(1) },
        Answerer { exporter: [9; 32], ..answerer(1) },
    ];
    for fake in fakes {
        let mut config = caller(&Store::device(), 1);
        config.intent = Intent::Enrol { token: token() };
        let mut device = Side::new(Session::caller(config), Store::device());
        let mut brain = Side::new(Session::answerer(fake), Store::brain());
        device.feed(Input::Connected, 0);
        brain.feed(Input::Frame(&device.outbox[0]), 0);
        for frame in brain.outbox.drain(..) {
            device.feed(Input::Frame(&frame), 0);
        }
        assert!(device.ended.is_some(), "the device gives up");
        assert!(!reveals(&device, &token().secret), "and has not shown its token");
    }
}

#[test]
fn a_link_has_no_token_and_an_enrolment_no_certificate() {
    let mut link = Link::connect(Store::device(), Store::brain(), 1);
    let hello = link.caller.outbox.pop_front().expect("a hello");
    let Ok(Message::Hello(hello)) = wire::decode(&hello) else { panic!("a hello") };
    for purpose in [Purpose::Link, Purpose::Enrol] {
        let certificate = hello.certificate.clone().filter(|_| purpose == Purpose::Enrol);
        let hello = Hello { purpose, certificate, ..hello.clone() };
        link.answerer = Side::new(Session::answerer(answerer(1)), Store::brain());
        link.forge_to_answerer(&Message::Hello(hello));
        assert_eq!(link.answerer.ended_as(), Some((ErrorCode::BadCertificate, false)));
    }
}

/// Everything right but the key, by name.
fn impostors() -> Vec<(&'static str, Link)> {
    let device = |change: &dyn Fn(&mut Caller)| {
        let mut config = caller(&Store::device(), 1);
        change(&mut config);
        meet(config, answerer(1))
    };
    let brain = |change: &dyn Fn(&mut Answerer)| {
        let mut config = answerer(1);
        change(&mut config);
        meet(caller(&Store::device(), 1), config)
    };
    let certificate_changed = device(&|config| {
        let mut tampered = device_chain();
        tampered.leaf.validity.until_ms -= 1;
        config.intent = intent(tampered);
    });
    let brain_certified_by_nobody = brain(&|config| {
        config.certificate.leaf.signature = device_key().sign(b"anything");
    });
    let relayed = brain(&|config| config.exporter = [7; 32]);
    let wrong_hand = {
        let mut link = Link::connect(Store::device(), Store::brain(), 1);
        assert!(link.step(true) && link.step(true) && link.step(true));
        link.caller.outbox.clear();
        let auth = Auth { challenge_response: key(9).sign(b"anything"), token: None };
        link.forge_to_answerer(&Message::Auth(auth));
        link
    };
    vec![
        ("a device with a changed certificate", certificate_changed),
        ("a brain that the root did not sign", brain_certified_by_nobody),
        ("a relay between device and brain", relayed),
        ("a device without its key", wrong_hand),
    ]
}

/// The names of the impostors with whom somebody went on to speak.
fn believed() -> Vec<&'static str> {
    let established = |link: &Link| {
        link.caller.session.is_established() || link.answerer.session.is_established()
    };
    let believed = impostors().into_iter().filter(|(_, link)| established(link));
    believed.map(|(name, _)| name).collect()
}

#[test]
fn nobody_is_believed_who_lacks_the_key() {
    assert_eq!(believed(), Vec::<&str>::new());
}

#[cfg(feature = "planted-faults")]
#[test]
fn handshakes_that_check_no_signature_are_noticed() {
    use protocol::planted::{Fault, plant};

    let _planted = plant(Fault::SignaturesUnchecked);
    // Broken: both sides prove their keys, under certificates, over this very connection.
    let all = impostors().into_iter().map(|(name, _)| name);
    assert_eq!(believed(), all.collect::<Vec<_>>());
}
