//! Sets whose members come and go: one bad member is nobody else's trouble.

use std::{sync::Arc, time::Duration};

use actors::supervise::{
    Address, Budget, Child, ChildPolicy, Context, DynamicSupervisor, Env, Exhaustion, Intensity,
    Node, NodeError, Quarantine, Restart, Root, RootError, SetPolicy, StartChildError, Status,
    Supervisor,
};
use tokio::time::Instant;

use crate::actors::{Diary, Msg, Puppet, SOON, Strings, eventually, hardy, sum, until};

/// Two restarts, then a quarantine.
fn frail() -> ChildPolicy {
    ChildPolicy { intensity: Intensity { restarts: 2, within: SOON }, ..hardy() }
}

fn policy(distinct: u32) -> SetPolicy {
    SetPolicy {
        budget: Budget::Distinct { children: distinct, within: SOON },
        quarantine: Quarantine { min: Duration::from_millis(100), ..Quarantine::default() },
        ..SetPolicy::dynamic()
    }
}

/// With quarantines that do not end within a test.
fn long() -> SetPolicy {
    SetPolicy { quarantine: Quarantine::default(), ..policy(3) }
}

async fn running(set: &DynamicSupervisor<Puppet>) -> Root {
    // The root gives up at once: what it sees is what gets through the set.
    let none = Budget::Restarts(Intensity { restarts: 0, within: SOON });
    let root = Supervisor::new(SetPolicy { budget: none, ..SetPolicy::default() })
        .child(Child::dynamic("set", ChildPolicy::supervisor(), set));
    Root::start("root", root, Env::default()).await.unwrap()
}

fn strings() -> Arc<Strings> {
    Strings::new("x", &Diary::default())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_poison_child_is_put_away_and_its_siblings_miss_nothing() {
    let set = DynamicSupervisor::<Puppet>::new(long(), frail(), 100);
    let root = running(&set).await;
    let names = (0..20).map(|number| number.to_string());
    let good: Vec<Address<Msg>> =
        names.map(|name| set.start_child(name, strings()).unwrap()).collect();
    let poison = set.start_child("poison", strings()).unwrap();
    let poisoned = tokio::spawn(async move {
        for _ in 0..3 {
            poison.cast(Msg::Panic, SOON).await.unwrap();
        }
        poison
    });
    for _ in 0..200 {
        for address in &good {
            address.cast(Msg::Add(1), SOON).await.unwrap();
        }
    }
    let poison = poisoned.await.unwrap();
    for address in &good {
        assert_eq!(sum(address).await, 200);
    }
    let path = "root/set/poison";
    let info = until(root.tree(), path, |info| info.status == Status::Quarantined).await;
    assert_eq!(info.restarts, 2);
    assert!(info.quarantined_for.is_some());
    // What is sent meanwhile waits for its release.
    poison.try_cast(Msg::Add(9)).unwrap();
    assert!(root.tree().release(path));
    assert_eq!(sum(&poison).await, 9);
    root.stop().await;
}

#[tokio::test]
async fn a_quarantine_ends_by_itself() {
    let set = DynamicSupervisor::<Puppet>::new(policy(3), frail(), 100);
    let root = running(&set).await;
    let address = set.start_child("a", strings()).unwrap();
    for _ in 0..3 {
        address.cast(Msg::Fail, SOON).await.unwrap();
    }
    let begun = Instant::now();
    until(root.tree(), "root/set/a", |info| info.restarts == 3).await;
    assert_eq!(sum(&address).await, 0);
    assert!(begun.elapsed() > Duration::from_millis(50));
    root.stop().await;
}

#[tokio::test]
async fn many_different_failing_children_escalate() {
    let set = DynamicSupervisor::<Puppet>::new(policy(3), frail(), 100);
    let root = running(&set).await;
    for name in ["a", "b", "c", "d"] {
        let address = set.start_child(name, strings()).unwrap();
        address.cast(Msg::Panic, SOON).await.unwrap();
    }
    let RootError::Escalated(Exhaustion::Set { id, last, .. }) = root.escalated().await else {
        panic!("it was another budget");
    };
    assert_eq!(id.as_str(), "set");
    assert!(last.to_string().contains("more than 3 children failed"), "{last}");
    root.stop().await;
}

#[tokio::test]
async fn a_restarted_set_begins_empty_and_its_former_addresses_are_down() {
    let set = DynamicSupervisor::<Puppet>::new(policy(0), frail(), 100);
    let outer = Supervisor::new(SetPolicy::default()).child(Child::dynamic("set", hardy(), &set));
    let root = Root::start("root", outer, Env::default()).await.unwrap();
    let former = set.start_child("a", strings()).unwrap();
    former.try_cast(Msg::Panic).unwrap();
    until(root.tree(), "root/set", |info| info.restarts == 1).await;
    eventually(|| former.is_down() && set.find("a").is_none()).await;
    let address = loop {
        match set.start_child("a", strings()) {
            Ok(address) => break address,
            Err(StartChildError::Down) => tokio::task::yield_now().await,
            Err(other) => panic!("{other}"),
        }
    };
    assert!(!address.same(&former));
    assert_eq!(sum(&address).await, 0);
    root.stop().await;
}

#[tokio::test]
async fn a_name_is_taken_once_and_free_again_after_its_stop() {
    let set = DynamicSupervisor::<Puppet>::new(policy(3), frail(), 2);
    assert_eq!(set.start_child("a", strings()).unwrap_err(), StartChildError::Down);
    let root = running(&set).await;
    let a = set.start_child("a", strings()).unwrap();
    let again = set.start_child("a", strings()).unwrap_err();
    assert_eq!(again, StartChildError::Exists { id: "a".into() });
    assert!(set.ensure_child("a", strings).unwrap().same(&a));
    set.start_child("b", strings()).unwrap();
    let full = set.start_child("c", strings()).unwrap_err();
    assert_eq!(full, StartChildError::Full { limit: 2 });
    assert!(set.stop_child("a").await);
    assert!(a.is_down());
    assert!(!set.stop_child("a").await);
    assert!(set.start_child("a", strings()).is_ok());
    assert_eq!(set.len(), 2);
    root.stop().await;
}

#[tokio::test]
async fn a_child_that_ends_is_forgotten() {
    let transient = ChildPolicy { restart: Restart::Transient, ..frail() };
    let set = DynamicSupervisor::<Puppet>::new(policy(3), transient, 10);
    let root = running(&set).await;
    let address = set.start_child("a", strings()).unwrap();
    address.try_cast(Msg::Finish).unwrap();
    eventually(|| set.is_empty() && root.tree().get("root/set/a").is_none()).await;
    assert!(address.is_down());
    root.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_slow_stop_does_not_delay_the_restart_of_another() {
    let set = DynamicSupervisor::<Puppet>::new(policy(3), frail(), 10);
    let root = running(&set).await;
    let slow = Arc::new(Strings { goodbye: Duration::from_millis(1500), ..Strings::default() });
    sum(&set.start_child("slow", slow).unwrap()).await;
    let other = set.start_child("other", strings()).unwrap();
    let stopping = tokio::spawn({
        let set = set.clone();
        async move { set.stop_child("slow").await }
    });
    until(root.tree(), "root/set/slow", |info| info.status == Status::Stopping).await;
    let begun = Instant::now();
    other.try_cast(Msg::Panic).unwrap();
    assert_eq!(sum(&other).await, 0);
    assert!(begun.elapsed() < Duration::from_millis(1000));
    assert!(stopping.await.unwrap());
    root.stop().await;
}

/// As small as an actor gets.
struct Tiny;

impl Node for Tiny {
    const KIND: &'static str = "tiny";
    type Msg = ();
    type Args = ();

    fn start(_: &Arc<()>, _: &Context<()>) -> Result<Self, NodeError> {
        Ok(Self)
    }

    async fn handle(&mut self, _: &Context<()>, (): ()) -> Result<(), NodeError> {
        Ok(())
    }

    fn label((): &()) -> &'static str {
        "tick"
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_children_start_and_stop_within_seconds() {
    const MANY: usize = 10_000;
    let set = DynamicSupervisor::<Tiny>::new(SetPolicy::dynamic(), hardy(), MANY);
    let supervisor = Supervisor::new(SetPolicy::default()).child(Child::dynamic(
        "set",
        ChildPolicy::supervisor(),
        &set,
    ));
    let root = Root::start("root", supervisor, Env::default()).await.unwrap();
    let begun = Instant::now();
    let args = Arc::new(());
    let addresses: Vec<Address<()>> = (0..MANY)
        .map(|number| set.start_child(number.to_string(), Arc::clone(&args)).unwrap())
        .collect();
    for address in &addresses {
        address.try_cast(()).unwrap();
    }
    eventually(|| addresses.iter().all(|address| address.depth() == 0)).await;
    let started = begun.elapsed();
    assert_eq!(root.tree().len(), MANY + 2);
    root.stop().await;
    let stopped = begun.elapsed() - started;
    println!("{MANY} children: started in {started:?}, stopped in {stopped:?}");
    assert!(set.is_empty());
    assert!(begun.elapsed() < Duration::from_secs(20));
}

#[tokio::test]
async fn whatever_the_members_of_a_shard_do_nobody_above_hears_of_it() {
    let [bad, good] =
        [2, 2].map(|distinct| DynamicSupervisor::<Puppet>::new(policy(distinct), frail(), 100));
    let shard = ChildPolicy {
        intensity: Intensity { restarts: 2, within: SOON },
        ..ChildPolicy::supervisor()
    };
    let shards = Supervisor::new(SetPolicy::shards(2))
        .child(Child::dynamic("bad", shard, &bad))
        .child(Child::dynamic("good", shard, &good));
    let none = Budget::Restarts(Intensity { restarts: 0, within: SOON });
    let supervisor = Supervisor::new(SetPolicy { budget: none, ..SetPolicy::default() })
        .child(Child::supervisor("devices", ChildPolicy::supervisor(), shards));
    let rules = supervisor.rules("root");
    let places: Vec<&str> = rules.iter().map(|rules| &*rules.path).collect();
    let below =
        ["root/devices/bad", "root/devices/bad/*", "root/devices/good", "root/devices/good/*"];
    assert_eq!(places, [&["root", "root/devices"][..], &below[..]].concat());
    assert_eq!(rules[3].child, Some(frail()));
    let root = Root::start("root", supervisor, Env::default()).await.unwrap();
    let well = good.start_child("well", strings()).unwrap();
    well.try_cast(Msg::Add(1)).unwrap();
    let is_away =
        || root.tree().get("root/devices/bad").is_some_and(|i| i.status == Status::Quarantined);
    for number in 0..10_000 {
        if is_away() {
            break;
        }
        if let Ok(address) = bad.start_child(number.to_string(), strings()) {
            let _ = address.try_cast(Msg::Panic);
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert!(is_away(), "a shard that gives up again and again is put away");
    assert_eq!(sum(&well).await, 1, "the other one has noticed nothing");
    for above in ["root", "root/devices"] {
        assert_eq!(root.tree().get(above).unwrap().restarts, 0);
    }
    root.stop().await;
}
