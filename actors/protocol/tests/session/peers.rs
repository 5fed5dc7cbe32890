//! Two devices: they prove themselves without a brain, and take nobody's word for a third one's.

use protocol::ErrorCode;
use protocol::history::{Cut, Entry, LogId, SignedHead};
use protocol::keys::Keypair;
use protocol::session::handshake::{Answerer, Answering, Intent};
use protocol::session::{Input, Output};
use protocol::wire::{Batch, LogPosition, Message};

use super::group::Group;
use super::store::{brain_key, device_key, key, root_key};
use super::world::{
    BRAIN, Link, answerer, brain_chain, device_chain, other_device, peer_answerer, peer_caller,
};

/// Peers that both share a group, the caller with what is given.
fn sharing(group: &Group) -> Link {
    let mut link = Link::of_peers();
    link.caller.feed(group.share(&device_key()), link.now_ms);
    link.run();
    let (_, other, _) = other_device();
    let nothing = Group::new(&group.tree.genesis().name);
    link.answerer.feed(nothing.share(&other), link.now_ms);
    link.run();
    link
}

fn log_of(author: &Keypair) -> LogId {
    LogId { author: author.public(), epoch: 1 }
}

/// Answers what the caller's session asked of the group's logs, with what their authors signed.
fn answer(link: &mut Link, group: &Group) {
    for event in std::mem::take(&mut link.caller.events) {
        let Output::OfShared { output, .. } = event else { continue };
        let Output::Fetch { log, after, .. } = *output else { continue };
        let of_log = group.entries.iter().filter(|entry| entry.log == log && entry.seq > after);
        let signed = group.tree.log(&log).and_then(|known| known.signed);
        if let Some(signed) = signed {
            link.caller.feed(group.of(Input::Vouched(signed)), link.now_ms);
        }
        let entries: Vec<Entry> = of_log.cloned().collect();
        link.caller.feed(group.of(Input::Fetched { log, entries }), link.now_ms);
    }
    link.run();
}

/// What the answerer's session gave out of the group: entries by log and number, and heads.
fn came(link: &mut Link) -> (Vec<(LogId, u64)>, Vec<SignedHead>) {
    let (mut entries, mut heads) = (Vec::new(), Vec::new());
    for event in std::mem::take(&mut link.answerer.events) {
        let Output::OfShared { output, .. } = event else { continue };
        match *output {
            Output::Ingest { log, entries: of_log, .. } => {
                entries.extend(of_log.iter().map(|(_, entry)| (log, entry.seq)));
            }
            Output::TakeSignedHead(signed) => heads.push(signed),
            _ => {}
        }
    }
    (entries, heads)
}

fn refuses(link: &Link, code: ErrorCode) {
    assert_eq!(link.answerer.ended_as(), Some((code, false)));
}

#[test]
fn two_devices_prove_themselves_to_each_other_without_a_brain() {
    let link = Link::of_peers();
    assert!(link.delivered.len() >= 5, "{:?}", link.delivered);
    assert_eq!((link.caller.ended_as(), link.answerer.ended_as()), (None, None));
}

#[test]
fn whoever_answers_is_the_device_that_was_called_or_nobody() {
    let ended = |answerer: Answerer| {
        let mut link = Link::between_peers(peer_caller(1), answerer);
        link.run();
        link.caller.ended_as()
    };
    let refused = |code| Some((code, false));
    let itself =
        Answerer { keypair: device_key(), certificate: device_chain(), ..peer_answerer(1) };
    assert_eq!(ended(itself), refused(ErrorCode::WrongRole), "another device");
    let stolen = Answerer { keypair: key(9), ..peer_answerer(1) };
    assert_eq!(ended(stolen), refused(ErrorCode::WrongRole), "another key");
    let elsewhere = Answerer { exporter: [9; 32], ..peer_answerer(1) };
    assert_eq!(ended(elsewhere), refused(ErrorCode::BadSignature), "another connection");
    let brain = Answerer { keypair: brain_key(), certificate: brain_chain(), ..peer_answerer(1) };
    assert_eq!(ended(brain), refused(ErrorCode::WrongRole), "a brain's certificate");
}

#[test]
fn each_side_takes_only_the_calls_that_are_for_it() {
    let mut link = Link::between_peers(peer_caller(1), answerer(1));
    link.run();
    refuses(&link, ErrorCode::WrongRole);
    let store = super::store::Store::device();
    let caller = super::world::caller(&store, 1);
    let mut link = Link::between_peers(caller, peer_answerer(1));
    link.run();
    refuses(&link, ErrorCode::WrongRole);
    assert_eq!(answerer(1).who, Answering::Brain(BRAIN));
}

#[test]
fn a_peer_whose_certificate_is_of_another_fleet_is_turned_away() {
    let caller = protocol::session::handshake::Caller { root: key(9).public(), ..peer_caller(1) };
    let mut link = Link::between_peers(caller, peer_answerer(1));
    link.run();
    assert_eq!(link.caller.ended_as(), Some((ErrorCode::BadCertificate, false)));
    let Intent::Peer { certificate, .. } = peer_caller(1).intent else { panic!("a peer") };
    assert!(certificate.verify(super::store::FLEET, root_key().public(), None).is_ok());
}

#[test]
fn what_a_device_wrote_itself_needs_no_signature_on_its_own_link() {
    let mut group = Group::new("north");
    group.write(&device_key(), 1);
    group.write(&device_key(), 2);
    let mut link = sharing(&group);
    answer(&mut link, &group);
    let own = log_of(&device_key());
    assert_eq!(came(&mut link).0, [(own, 1), (own, 2)]);
}

#[test]
fn what_a_device_passes_on_comes_behind_its_authors_signature() {
    let (third, mut group) = (key(9), Group::new("north"));
    group.write(&third, 1);
    group.write(&third, 2);
    let signed = group.sign(&third);
    let mut link = sharing(&group);
    answer(&mut link, &group);
    let (entries, heads) = came(&mut link);
    assert_eq!(entries, [(log_of(&third), 1), (log_of(&third), 2)]);
    assert_eq!(heads, [signed], "for whoever comes next");
    assert_eq!(link.answerer.ended_as(), None);
}

#[test]
fn a_log_that_ended_is_passed_on_up_to_its_end() {
    let (third, mut group) = (key(9), Group::new("north"));
    let position = group.write(&third, 1);
    let cut = Cut::revoke(&brain_key(), group.id(), position.log, 1, position.id);
    group.tree.take_cut(cut.clone());
    let mut link = sharing(&group);
    link.caller.feed(group.of(Input::CutMade(cut)), link.now_ms);
    answer(&mut link, &group);
    assert_eq!(came(&mut link).0, [(log_of(&third), 1)]);
}

#[test]
fn an_end_by_the_word_of_a_stranger_vouches_for_nothing() {
    let (third, mut group) = (key(9), Group::new("north"));
    let position = group.write(&third, 1);
    let mut link = sharing(&Group::new("north"));
    let cut = Cut::revoke(&key(8), group.id(), position.log, 1, position.id);
    link.forge_to_answerer(&Message::Cut(cut));
    link.forge_to_answerer(&Message::Entries(Batch::pack(&group.entries).expect("one log")));
    refuses(&link, ErrorCode::BadSignature);
    assert_eq!(came(&mut link).0, []);
}

#[test]
fn what_is_passed_on_unsigned_or_forged_ends_the_link() {
    let (third, mut group) = (key(9), Group::new("north"));
    group.write(&third, 1);
    let unsigned = group.entries.clone();
    let mut link = sharing(&Group::new("north"));
    link.forge_to_answerer(&Message::Entries(Batch::pack(&unsigned).expect("one log")));
    refuses(&link, ErrorCode::BadSignature);
    assert_eq!(came(&mut link).0, [], "unsigned");

    // A true signature under another history of the same length.
    let mut forged = Group::new("north");
    forged.write(&third, 66);
    let signed = group.sign(&third);
    let mut link = sharing(&Group::new("north"));
    link.forge_to_answerer(&Message::SignedHead(signed));
    link.forge_to_answerer(&Message::Entries(Batch::pack(&forged.entries).expect("one log")));
    refuses(&link, ErrorCode::BadSignature);
    assert_eq!(came(&mut link).0, [], "forged");
}

#[test]
fn a_brain_takes_no_devices_word_for_another_either() {
    let (third, mut group) = (key(9), Group::new("north"));
    group.write(&third, 1);
    let mut link = Link::established();
    link.caller.feed(Group::new("north").share(&device_key()), link.now_ms);
    link.run();
    link.answerer.feed(Group::new("north").share(&brain_key()), link.now_ms);
    link.run();
    link.forge_to_answerer(&Message::Entries(Batch::pack(&group.entries).expect("one log")));
    refuses(&link, ErrorCode::BadSignature);
}

#[test]
fn two_authors_that_heard_of_each_other_are_put_in_order() {
    let (a, b, mut group) = (key(9), key(10), Group::new("north"));
    for n in 0..6 {
        group.write(&a, 2 * n);
        group.write(&b, 2 * n + 1);
    }
    group.sign(&a);
    group.sign(&b);
    let mut link = sharing(&group);
    answer(&mut link, &group);
    answer(&mut link, &group);
    let (entries, heads) = came(&mut link);
    let expected = group.entries.iter().map(|entry| (entry.log, entry.seq)).collect::<Vec<_>>();
    assert_eq!(entries, expected, "each after its causes");
    assert_eq!(heads.len(), 2);
}

#[test]
fn what_has_a_cause_that_nobody_signed_stays_where_it_is() {
    let (a, b, mut group) = (key(9), key(10), Group::new("north"));
    group.write(&a, 1);
    group.write(&b, 2);
    group.sign(&b);
    let mut link = sharing(&group);
    answer(&mut link, &group);
    answer(&mut link, &group);
    assert_eq!(came(&mut link).0, []);
    assert_eq!(link.answerer.ended_as(), None);
    group.sign(&a);
    let position = LogPosition::of(&group.tree, log_of(&a));
    let (log, consumed_bytes) = (position.log, 0);
    link.caller.feed(group.of(Input::Stored { log, position, consumed_bytes }), link.now_ms);
    answer(&mut link, &group);
    answer(&mut link, &group);
    assert_eq!(came(&mut link).0, [(log_of(&a), 1), (log_of(&b), 1)]);
}

#[test]
fn a_signature_waits_with_entries_that_came_before_their_causes() {
    let (third, mut group) = (key(9), Group::new("north"));
    group.write(&third, 1);
    group.write(&device_key(), 2);
    let (third_signed, own_signed) = (group.sign(&third), group.sign(&device_key()));
    let of = |author: &Keypair| {
        let log = log_of(author);
        let entries: Vec<_> =
            group.entries.iter().filter(|entry| entry.log == log).cloned().collect();
        Message::Entries(Batch::pack(&entries).expect("one log"))
    };
    let mut link = sharing(&Group::new("north"));
    link.forge_to_answerer(&of(&device_key()));
    link.forge_to_answerer(&Message::SignedHead(own_signed));
    assert_eq!(came(&mut link), (vec![], vec![]), "its cause is not here");
    link.forge_to_answerer(&Message::SignedHead(third_signed));
    link.forge_to_answerer(&of(&third));
    let expected = vec![(log_of(&third), 1), (log_of(&device_key()), 1)];
    assert_eq!(came(&mut link), (expected, vec![third_signed, own_signed]));
}

#[test]
fn what_lies_above_an_end_is_no_cause_to_wait_for() {
    let (third, mut group) = (key(9), Group::new("north"));
    group.write(&third, 1);
    group.write(&device_key(), 2);
    let own = log_of(&device_key());
    let entries = vec![group.entries[1].clone()];
    let mut link = sharing(&Group::new("north"));
    link.forge_to_answerer(&Message::Entries(Batch::pack(&entries).expect("one log")));
    assert_eq!(came(&mut link).0, [], "its cause is not here");
    let cut = Cut::seal(&third, group.id(), log_of(&third), 0, Entry::NO_PREV);
    link.answerer.feed(group.of(Input::CutMade(cut)), link.now_ms);
    assert_eq!(came(&mut link).0, [(own, 1)]);
}
