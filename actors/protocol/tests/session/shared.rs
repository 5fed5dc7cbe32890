//! Trees beside the device's own: shared, left, and passed on no sooner than they are signed.

use protocol::ErrorCode;
use protocol::history::{Genesis, LogId, TreeKind};
use protocol::keys::Keypair;
use protocol::session::{Input, Output, SHARED_TREES_MAX};
use protocol::wire::{LogPosition, Message, MessageKind, Share};

use super::group::Group;
use super::store::{FLEET, brain_key, device_key, key};
use super::world::Link;

/// A link whose both sides hold a group: the brain with what is given, the device nothing.
fn shared(group: &Group) -> Link {
    let mut link = Link::established();
    link.answerer.feed(group.share(&brain_key()), link.now_ms);
    link.run();
    let offered = link.caller.events.iter().any(
        |event| matches!(event, Output::Offered { genesis, .. } if genesis == group.tree.genesis()),
    );
    assert!(offered, "{:?}", link.caller.events);
    let nothing = Group::new(&group.tree.genesis().name);
    link.caller.feed(nothing.share(&device_key()), link.now_ms);
    link.run();
    link
}

/// The reads of the group that the brain's session asked for: log and number.
fn fetches(link: &mut Link) -> Vec<(LogId, u64)> {
    let asked = std::mem::take(&mut link.answerer.events).into_iter().filter_map(|event| {
        let Output::OfShared { output, .. } = event else { return None };
        match *output {
            Output::Fetch { log, after, .. } => Some((log, after)),
            _ => None,
        }
    });
    asked.collect()
}

fn log_of(author: &Keypair) -> LogId {
    LogId { author: author.public(), epoch: 1 }
}

#[test]
fn what_a_third_party_wrote_is_passed_on_once_it_is_signed() {
    let (third, mut group) = (key(9), Group::new("north"));
    let position = group.write(&third, 1);
    let mut link = shared(&group);
    assert_eq!(fetches(&mut link), [], "unsigned");
    let signed = group.sign(&third);
    let stored = LogPosition { sealed: 1, ..position };
    let (log, consumed_bytes) = (stored.log, 0);
    link.answerer
        .feed(group.of(Input::Stored { log, position: stored, consumed_bytes }), link.now_ms);
    link.answerer.feed(group.of(Input::Sealed(signed)), link.now_ms);
    assert_eq!(fetches(&mut link), [(log_of(&third), 0)]);
    let entries = group.entries.clone();
    link.answerer.feed(group.of(Input::Fetched { log, entries }), link.now_ms);
    link.run();
    let came = std::mem::take(&mut link.caller.events);
    let came: Vec<_> = came
        .iter()
        .filter_map(|event| match event {
            Output::OfShared { tree, output } if *tree == group.id() => Some(&**output),
            _ => None,
        })
        .collect();
    assert!(
        matches!(came[..], [Output::Ingest { .. }, Output::TakeSignedHead(taken)] if *taken == signed),
        "{came:?}"
    );
}

#[test]
fn what_the_brain_wrote_having_seen_something_unsigned_waits_for_the_signature() {
    let (third, mut group) = (key(9), Group::new("north"));
    group.write(&third, 1);
    group.write(&brain_key(), 2);
    let mut link = shared(&group);
    let brains = log_of(&brain_key());
    assert_eq!(fetches(&mut link), [(brains, 0)]);
    let entry = group.entries[1].clone();
    link.answerer.feed(group.of(Input::Fetched { log: brains, entries: vec![entry] }), link.now_ms);
    link.run();
    let sent = link.delivered.iter().filter(|(_, kind)| *kind == MessageKind::Entries).count();
    assert_eq!((sent, link.answerer.ended_as()), (0, None));
    group.sign(&third);
    let position = LogPosition::of(&group.tree, log_of(&third));
    let (log, consumed_bytes) = (position.log, 0);
    link.answerer.feed(group.of(Input::Stored { log, position, consumed_bytes }), link.now_ms);
    assert_eq!(fetches(&mut link), [(log, 0)], "the cause first");
    let entries = vec![group.entries[0].clone()];
    link.answerer.feed(group.of(Input::Fetched { log, entries }), link.now_ms);
    assert_eq!(fetches(&mut link), [(brains, 0)], "and then what names it");
}

#[test]
fn a_tree_that_was_left_is_spoken_of_no_more_and_may_be_shared_again() {
    let mut group = Group::new("north");
    group.write(&brain_key(), 1);
    let mut link = shared(&group);
    link.answerer.feed(Input::Leave(group.id()), link.now_ms);
    // Said before it heard of that.
    let position = LogPosition::of(&group.tree, log_of(&device_key()));
    let (log, consumed_bytes) = (position.log, 7);
    link.caller.feed(group.of(Input::Stored { log, position, consumed_bytes }), link.now_ms);
    link.run();
    assert_eq!(link.answerer.ended_as(), None);
    assert!(link.caller.events.contains(&Output::Left(group.id())), "{:?}", link.caller.events);
    link.answerer.feed(group.share(&brain_key()), link.now_ms);
    link.run();
    let offers = link.caller.events.iter().filter(|e| matches!(e, Output::Offered { .. })).count();
    assert_eq!(offers, 2);
}

#[test]
fn a_side_shares_so_many_trees_and_only_such_as_can_be_shared() {
    let mut link = Link::established();
    for n in 0..SHARED_TREES_MAX {
        let genesis = Group::new(&format!("g{n}")).tree.genesis().clone();
        link.forge_to_answerer(&Message::Share(Share { genesis, logs: Vec::new(), root: [0; 32] }));
    }
    assert_eq!(link.answerer.ended_as(), None);
    let genesis = Group::new("more").tree.genesis().clone();
    link.forge_to_answerer(&Message::Share(Share { genesis, logs: Vec::new(), root: [0; 32] }));
    assert_eq!(link.answerer.ended_as(), Some((ErrorCode::TooLarge, false)));
    for (kind, name) in
        [(TreeKind::Device, "north"), (TreeKind::Group, "../etc"), (TreeKind::Group, "")]
    {
        let mut link = Link::established();
        let genesis = Genesis { kind, fleet: FLEET, name: name.into() };
        link.forge_to_answerer(&Message::Share(Share { genesis, logs: Vec::new(), root: [0; 32] }));
        assert_eq!(link.answerer.ended_as(), Some((ErrorCode::Malformed, false)), "{name:?}");
    }
}
