use protocol::clock::ClockQuality;
use protocol::history::Provenance;
use protocol::keys::Keypair;
use protocol::state::{StateSource, Value};

use super::*;

const LIMITS: Limits =
    Limits { queue_bytes_max: 10_000, retain_bytes: 1_000, entry_bytes_max: 1_000_000 };

fn now(wall_ms: u64) -> Now {
    Now { wall_ms, mono_ms: 0, quality: ClockQuality::Synchronised }
}

fn replica() -> Replica {
    let keypair = Keypair::from_seed(&[1; 32]);
    let identity = Identity { device: DeviceId([2; 16]), keypair };
    let genesis = genesis(FleetId([3; 16]), identity.device);
    Replica::begin(identity, genesis, 7, LIMITS)
}

fn write(replica: &mut Replica, number: i64) -> Result<Option<LogPosition>, WriteError> {
    let path = Path::new("reported/n").expect("a path");
    let provenance = Provenance::new(StateSource::Edge, "test", "test");
    let changes = vec![(path, Some(Value::from(number)))];
    replica.write(Draft { changes, provenance, lease_until_ms: None }, now(1_000))
}

fn entries(commit: &Commit) -> Vec<Entry> {
    let mut spool = crate::spool::MemorySpool::new();
    crate::spool::Spool::commit(&mut spool, commit).expect("committed");
    crate::spool::Spool::range(&mut spool, 0, 0, usize::MAX).expect("read")
}

#[test]
fn what_waits_is_bounded_and_freed_by_acknowledgements() {
    let mut replica = replica();
    let written = (1..).take_while(|n| write(&mut replica, *n).is_ok()).count() as u64;
    assert!(matches!(write(&mut replica, -1), Err(WriteError::QueueFull { .. })));
    assert_eq!(replica.queue_depth(), written);
    replica.acknowledged(replica.own_log(), written, 0);
    assert_eq!((replica.queue_depth(), replica.queue_bytes()), (0, 0));
    assert!(write(&mut replica, -1).is_ok());
}

#[test]
fn only_what_the_brain_has_under_a_seal_is_pruned() {
    let mut replica = replica();
    for n in 1..=30 {
        write(&mut replica, n).expect("written");
    }
    assert_eq!(replica.to_prune(), None, "all of it waits");
    replica.acknowledged(replica.own_log(), 30, 10);
    let (up_to, bytes) = replica.to_prune().expect("too much is kept");
    assert_eq!(up_to, [(0, 10)]);
    replica.pruned(bytes);
    assert_eq!(replica.to_prune(), None);
}

#[test]
fn a_log_that_ends_goes_on_in_another_with_the_same_leaves() {
    let mut replica = replica();
    for n in 1..=4 {
        write(&mut replica, n).expect("written");
    }
    let old = replica.own_log();
    let all = entries(&replica.take_staged());
    let lost = &all[2..];
    let last_id = lost[0].prev;
    let before = replica.state();
    let cut = replica.end_log(old, 2, last_id, lost, 8, now(500)).expect("ended");
    assert_eq!(cut.verify(|_| false), Ok(()));
    assert_eq!(replica.state(), before);
    assert_eq!(replica.position(old).seq, 2);
    assert_eq!(replica.position(replica.own_log()).seq, 2);
    assert_eq!(replica.own_log().epoch, 8);
    assert_eq!(replica.queue_depth(), 4);
    let staged = replica.take_staged();
    assert_eq!(staged.truncate, [(0, 2)]);
    assert_eq!(staged.author.map(|author| author.epoch), Some(8));
}

#[test]
fn a_fleet_that_is_joined_gets_everything_again() {
    let mut replica = replica();
    for n in 1..=3 {
        write(&mut replica, n).expect("written");
    }
    let written = entries(&replica.take_staged());
    let fleet = FleetId([9; 16]);
    replica.join(fleet, 8, &written, now(2_000)).expect("joined");
    assert_eq!(replica.tree().genesis().fleet, fleet);
    assert_eq!((replica.own_log().epoch, replica.queue_depth()), (8, 3));
    let staged = replica.take_staged();
    assert!(staged.begin.is_some());
    assert_eq!(entries(&staged).len(), 3);
}

#[test]
fn a_stranger_writes_nothing() {
    let (mut ours, mut theirs) = (replica(), replica());
    let stranger = Keypair::from_seed(&[5; 32]);
    theirs.identity.keypair = stranger;
    theirs.open_epoch(9);
    write(&mut theirs, 1).expect("written");
    let entry = entries(&theirs.take_staged()).remove(0);
    let ingested = ours.ingest(entry.log, vec![(entry.id(), entry)], Via::Brain, now(2_000));
    let (seq, error) = ingested.expect("judged").refused.expect("refused");
    assert_eq!((seq, error.code), (1, ErrorCode::Forbidden));
    assert!(!ours.tree().leaves().contains_key(&Path::new("reported/n").expect("a path")));
}
