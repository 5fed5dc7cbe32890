//! Nodes that fail come back, with whom their strategy names.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::Duration,
};

use actors::supervise::{
    Address, AutoShutdown, Backoff, Budget, Child, ChildPolicy, Context, Decision, Env, Exhaustion,
    Fault, Intensity, Node, NodeError, NodeInfo, Restart, Root, RootError, SetPolicy, Status,
    Strategy, Supervisor,
};

use tokio::time::sleep;

use crate::actors::{
    Diary, Journal, Msg, Puppet, SOON, Strings, eventually, hardy, life, sum, until,
};

async fn alone(policy: ChildPolicy) -> (Root, Address<Msg>, Diary) {
    let diary = Diary::default();
    let (child, address) = Child::node::<Puppet>("a", policy, Strings::new("a", &diary));
    let supervisor = Supervisor::new(SetPolicy::default()).child(child);
    let root = Root::start("root", supervisor, Env::default()).await;
    (root.unwrap(), address, diary)
}

/// Three puppets `a`, `b` and `c` under one supervisor.
async fn three(strategy: Strategy) -> (Root, [Address<Msg>; 3], Diary) {
    let diary = Diary::default();
    let mut supervisor = Supervisor::new(SetPolicy::with(strategy));
    let addresses = ["a", "b", "c"].map(|name| {
        let (child, address) = Child::node::<Puppet>(name, hardy(), Strings::new(name, &diary));
        supervisor = std::mem::take(&mut supervisor).child(child);
        address
    });
    let root = Root::start("root", supervisor, Env::default()).await.unwrap();
    for address in &addresses {
        sum(address).await;
    }
    (root, addresses, diary)
}

fn without_loads(diary: &Diary) -> Vec<String> {
    let lines = diary.take().into_iter();
    lines.filter(|line| !line.starts_with("loaded")).collect()
}

#[tokio::test]
async fn a_panicking_node_comes_back_and_what_waits_survives() {
    let (root, address, diary) = alone(hardy()).await;
    let first = life(&address).await;
    address.try_cast(Msg::Sleep(Duration::from_millis(50))).unwrap();
    address.try_cast(Msg::Add(1)).unwrap();
    address.try_cast(Msg::Panic).unwrap();
    address.try_cast(Msg::Add(20)).unwrap();
    address.try_cast(Msg::Add(22)).unwrap();
    assert_eq!(sum(&address).await, 42);
    assert!(life(&address).await > first);
    assert_eq!(diary.lines(), ["start a", "loaded a", "start a", "loaded a"]);
    let info = until(root.tree(), "root/a", |info| info.depth == 0).await;
    assert_eq!((info.traffic.handled, info.traffic.lost), (7, 1));
    assert_eq!(info.restarts, 1);
    root.stop().await;
}

#[tokio::test]
async fn a_crash_is_told_with_its_message_and_location() {
    let diary = Diary::default();
    let journal = Arc::new(Journal::default());
    let (child, address) = Child::node::<Puppet>("a", hardy(), Strings::new("a", &diary));
    let env = Env { crashes: journal.clone(), ..Env::default() };
    let supervisor = Supervisor::new(SetPolicy::default()).child(child);
    let root = Root::start("root", supervisor, env).await.unwrap();
    address.try_cast(Msg::Panic).unwrap();
    address.try_cast(Msg::Fail).unwrap();
    address.try_cast(Msg::TaskFails).unwrap();
    eventually(|| journal.0.lock().unwrap().len() == 3).await;
    let crashes = journal.0.lock().unwrap().clone();
    let labels: Vec<_> = crashes.iter().map(|(crash, _)| crash.label).collect();
    assert_eq!(labels, [Some("panic"), Some("fail"), Some("reader")]);
    let Fault::Panic { message, location } = &crashes[0].0.fault else {
        panic!("{:?}", crashes[0]);
    };
    assert_eq!(message, "a panic in a");
    assert!(location.as_ref().unwrap().contains("actors.rs"));
    assert_eq!(crashes[1].0.fault, Fault::Error { message: "an error".into() });
    assert_eq!(crashes[2].0.path.as_str(), "root/a");
    assert_eq!(crashes[2].1, Decision::Restart { after: Duration::ZERO });
    root.stop().await;
}

#[tokio::test]
async fn one_for_one_leaves_the_others_alone() {
    let (root, [a, b, c], diary) = three(Strategy::OneForOne).await;
    diary.take();
    a.try_cast(Msg::Add(1)).unwrap();
    c.try_cast(Msg::Add(1)).unwrap();
    b.try_cast(Msg::Panic).unwrap();
    assert_eq!(sum(&b).await, 0);
    assert_eq!((sum(&a).await, sum(&c).await), (1, 1));
    assert_eq!(without_loads(&diary), ["start b"]);
    root.stop().await;
}

#[tokio::test]
async fn one_for_all_stops_in_reverse_and_starts_in_order() {
    let (root, [a, b, c], diary) = three(Strategy::OneForAll).await;
    diary.take();
    b.try_cast(Msg::Panic).unwrap();
    assert_eq!(sum(&b).await, 0);
    assert_eq!((sum(&a).await, sum(&c).await), (0, 0));
    assert_eq!(
        without_loads(&diary),
        ["stopping c", "stopping a", "start a", "start b", "start c"]
    );
    root.stop().await;
}

#[tokio::test]
async fn rest_for_one_restarts_the_younger_ones() {
    let (root, [a, b, c], diary) = three(Strategy::RestForOne).await;
    diary.take();
    a.try_cast(Msg::Add(1)).unwrap();
    b.try_cast(Msg::Fail).unwrap();
    assert_eq!(sum(&b).await, 0);
    assert_eq!((sum(&a).await, sum(&c).await), (1, 0));
    assert_eq!(without_loads(&diary), ["stopping c", "start b", "start c"]);
    root.stop().await;
}

#[tokio::test]
async fn a_bad_start_is_a_failure_like_any_other() {
    let diary = Diary::default();
    let strings = Strings::new("a", &diary);
    strings.bad_starts.store(3, SeqCst);
    let (child, address) = Child::node::<Puppet>("a", hardy(), strings);
    let supervisor = Supervisor::new(SetPolicy::default()).child(child);
    let root = Root::start("root", supervisor, Env::default()).await.unwrap();
    assert_eq!(sum(&address).await, 0);
    let info = root.tree().get("root/a").unwrap();
    assert_eq!((info.restarts, info.status), (3, Status::Running));
    root.stop().await;
}

#[tokio::test]
async fn killed_nodes_come_back_though_transient() {
    let policy = ChildPolicy { restart: Restart::Transient, ..hardy() };
    let (root, address, _) = alone(policy).await;
    let first = life(&address).await;
    address.try_cast(Msg::Sleep(SOON)).unwrap();
    until(root.tree(), "root/a", |info| info.handling.is_some()).await;
    assert!(root.tree().kill("root/a"));
    assert!(life(&address).await > first);
    let crash = root.tree().get("root/a").unwrap().last_crash.unwrap();
    assert_eq!((crash.fault, crash.label), (Fault::Killed, Some("sleep")));
    root.stop().await;
}

#[tokio::test]
async fn a_transient_node_that_ends_in_order_stays_down() {
    let policy = ChildPolicy { restart: Restart::Transient, ..hardy() };
    let (root, address, diary) = alone(policy).await;
    address.try_cast(Msg::Finish).unwrap();
    until(root.tree(), "root/a", |info| info.status == Status::Stopped).await;
    assert!(address.is_down());
    assert!(address.try_cast(Msg::Add(1)).is_err());
    assert_eq!(diary.lines(), ["start a", "loaded a", "stopping a"]);
    root.stop().await;
}

#[tokio::test]
async fn the_end_of_a_significant_node_ends_the_set() {
    let diary = Diary::default();
    let policy = ChildPolicy { restart: Restart::Transient, significant: true, ..hardy() };
    let (a, _) = Child::node::<Puppet>("a", hardy(), Strings::new("a", &diary));
    let (b, address) = Child::node::<Puppet>("b", policy, Strings::new("b", &diary));
    let inner = Supervisor::new(SetPolicy {
        auto_shutdown: AutoShutdown::AnySignificant,
        ..SetPolicy::default()
    });
    let temporary = ChildPolicy { restart: Restart::Temporary, ..hardy() };
    let inner = Child::supervisor("inner", temporary, inner.child(a).child(b));
    let outer = Supervisor::new(SetPolicy::default()).child(inner);
    let root = Root::start("root", outer, Env::default()).await.unwrap();
    address.try_cast(Msg::Finish).unwrap();
    eventually(|| diary.lines().contains(&"stopping a".to_owned())).await;
    eventually(|| root.tree().get("root/inner").is_none()).await;
    root.stop().await;
}

#[tokio::test]
async fn a_stuck_node_is_killed_and_comes_back() {
    let policy = ChildPolicy { stuck_after: Some(Duration::from_millis(40)), ..hardy() };
    let (root, address, _) = alone(policy).await;
    address.try_cast(Msg::Sleep(SOON)).unwrap();
    address.try_cast(Msg::Add(7)).unwrap();
    assert_eq!(sum(&address).await, 7);
    let crash = root.tree().get("root/a").unwrap().last_crash.unwrap();
    assert_eq!((crash.fault, crash.label), (Fault::Stuck, Some("sleep")));
    root.stop().await;
}

#[tokio::test]
async fn messages_wait_while_a_node_backs_off() {
    let wait = Duration::from_millis(500);
    let policy = ChildPolicy {
        backoff: Backoff { min: wait, jitter: 0.0, ..Backoff::default() },
        ..hardy()
    };
    let (root, address, _) = alone(policy).await;
    address.try_cast(Msg::Panic).unwrap();
    until(root.tree(), "root/a", |info| info.status == Status::Restarting).await;
    for number in 1..=7 {
        address.try_cast(Msg::Add(number)).unwrap();
    }
    assert_eq!(sum(&address).await, 28);
    root.stop().await;
}

#[tokio::test]
async fn timers_and_own_messages_do_not_reach_another_life() {
    let (root, address, _) = alone(hardy()).await;
    address.try_cast(Msg::AddLater(Duration::from_millis(20), 1)).unwrap();
    address.try_cast(Msg::Panic).unwrap();
    address.try_cast(Msg::AddLater(Duration::from_millis(1), 10)).unwrap();
    sleep(Duration::from_millis(60)).await;
    assert_eq!(sum(&address).await, 10);
    root.stop().await;
}

#[tokio::test]
async fn who_spends_the_budget_takes_the_root_down() {
    let diary = Diary::default();
    let (a, _) = Child::node::<Puppet>("a", hardy(), Strings::new("a", &diary));
    let (b, address) = Child::node::<Puppet>("b", hardy(), Strings::new("b", &diary));
    let policy = SetPolicy {
        budget: Budget::Restarts(Intensity { restarts: 2, within: SOON }),
        ..SetPolicy::default()
    };
    let inner = Supervisor::new(policy).child(a).child(b);
    let inner = Child::supervisor("inner", ChildPolicy::supervisor(), inner);
    let none = Budget::Restarts(Intensity { restarts: 0, within: SOON });
    let outer = Supervisor::new(SetPolicy { budget: none, ..SetPolicy::default() }).child(inner);
    let root = Root::start("root", outer, Env::default()).await.unwrap();
    for _ in 0..3 {
        address.cast(Msg::Panic, SOON).await.unwrap();
    }
    let RootError::Escalated(Exhaustion::Set { id, .. }) = root.escalated().await else {
        panic!("it was another budget");
    };
    assert_eq!(id.as_str(), "inner");
    assert_eq!(diary.lines().last().unwrap(), "stopping a");
    root.stop().await;
}

#[tokio::test]
async fn a_supervisor_that_gave_up_is_restarted_and_its_addresses_work() {
    let diary = Diary::default();
    let frail = ChildPolicy { intensity: Intensity { restarts: 0, within: SOON }, ..hardy() };
    let (a, address) = Child::node::<Puppet>("a", frail, Strings::new("a", &diary));
    let inner = Supervisor::new(SetPolicy::default()).child(a);
    let outer =
        Supervisor::new(SetPolicy::default()).child(Child::supervisor("inner", hardy(), inner));
    let root = Root::start("root", outer, Env::default()).await.unwrap();
    let first = life(&address).await;
    address.try_cast(Msg::Panic).unwrap();
    address.try_cast(Msg::Add(5)).unwrap();
    assert_eq!(sum(&address).await, 5);
    assert!(life(&address).await > first);
    let inner = root.tree().get("root/inner").unwrap();
    assert!(matches!(inner.last_crash.unwrap().fault, Fault::GaveUp { .. }));
    root.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn who_blocks_its_thread_is_replaced_and_does_no_harm_later() {
    let policy = ChildPolicy { stuck_after: Some(Duration::from_millis(40)), ..hardy() };
    let strings = Strings::new("a", &Diary::default());
    let (child, address) = Child::node::<Puppet>("a", policy, strings);
    let env = Env { kill_grace: Duration::from_millis(40), ..Env::default() };
    let supervisor = Supervisor::new(SetPolicy::default()).child(child);
    let root = Root::start("root", supervisor, env).await.unwrap();
    // It is abandoned long before this, if tokio lets us: what it keeps on the
    // blocked thread, no other thread can take.
    let blocked = Duration::from_millis(1000);
    address.try_cast(Msg::Block(blocked)).unwrap();
    address.try_cast(Msg::Add(7)).unwrap();
    assert_eq!(sum(&address).await, 7);
    sleep(blocked).await;
    assert_eq!(sum(&address).await, 7);
    let info = until(root.tree(), "root/a", |info| info.depth == 0).await;
    // Each message once, and by whoever came to it.
    assert_eq!((info.traffic.handled, info.traffic.lost), (4, 0));
    assert!(info.restarts <= 1);
    root.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_life_gives_up_what_it_holds_before_the_next_begins() {
    let holding = Arc::new(AtomicBool::new(false));
    let (child, address) = Child::node::<Holder>("a", hardy(), Arc::clone(&holding));
    let set = SetPolicy { budget: Budget::Restarts(hardy().intensity), ..SetPolicy::default() };
    let supervisor = Supervisor::new(set).child(child);
    let root = Root::start("root", supervisor, Env::default()).await.unwrap();
    for round in 0..200 {
        until(root.tree(), "root/a", |info| info.restarts == round).await;
        address.cast(round, SOON).await.unwrap();
        if round % 4 == 3 {
            until(root.tree(), "root/a", |info| info.handling.is_some()).await;
            assert!(root.tree().kill("root/a"));
        }
    }
    until(root.tree(), "root/a", |info| info.restarts == 200).await;
    root.stop().await;
    assert!(!holding.load(SeqCst));
}

/// Holds something of which there is one, and fails in all ways.
struct Holder(Arc<AtomicBool>);

impl Drop for Holder {
    fn drop(&mut self) {
        self.0.store(false, SeqCst);
        // No more than a nuisance.
        panic!("and cannot let go of it quietly");
    }
}

impl Node for Holder {
    const KIND: &'static str = "holder";
    type Msg = u64;
    type Args = AtomicBool;

    fn start(args: &Arc<AtomicBool>, _: &Context<u64>) -> Result<Self, NodeError> {
        if args.swap(true, SeqCst) {
            return Err("it is still held".into());
        }
        Ok(Self(Arc::clone(args)))
    }

    async fn handle(&mut self, ctx: &Context<u64>, how: u64) -> Result<(), NodeError> {
        match how % 4 {
            0 => panic!("it fails"),
            1 => return Err("it fails".into()),
            2 => ctx.stop("it has had enough"),
            _ => sleep(SOON).await,
        }
        Ok(())
    }

    fn label(_: &u64) -> &'static str {
        "fail"
    }
}

#[tokio::test]
async fn a_handler_that_says_it_gets_on_is_not_stuck() {
    let policy = ChildPolicy { stuck_after: Some(Duration::from_millis(300)), ..hardy() };
    let (root, address, _) = alone(policy).await;
    address.try_cast(Msg::Trudge(Duration::from_millis(20), 30)).unwrap();
    address.try_cast(Msg::Add(1)).unwrap();
    assert_eq!(sum(&address).await, 1);
    assert_eq!(root.tree().get("root/a").unwrap().restarts, 0);
    root.stop().await;
}

#[tokio::test]
async fn the_death_of_the_root_is_told() {
    let (root, _, _) = alone(hardy()).await;
    assert!(root.tree().kill("root"));
    assert!(matches!(root.escalated().await, RootError::Died { .. }));
    root.stop().await;
}

#[tokio::test]
async fn a_restart_by_hand_is_in_good_order_and_costs_no_budget() {
    let (root, [a, b, c], diary) = three(Strategy::OneForOne).await;
    diary.take();
    let mut changes = root.tree().changes();
    for _ in 0..50 {
        let before = life(&b).await;
        assert!(root.tree().restart("root/b"));
        let is_back = |info: &NodeInfo| info.incarnation > before && info.status == Status::Running;
        until(root.tree(), "root/b", is_back).await;
    }
    let lines = without_loads(&diary);
    assert_eq!((lines.len(), &*lines[0], &*lines[1]), (100, "stopping b", "start b"));
    assert_eq!((life(&a).await.0, life(&c).await.0), (1, 3));
    assert!(root.tree().get("root/b").unwrap().last_crash.is_none());
    let mut seen = Vec::new();
    for _ in 0..4 {
        let change = changes.recv().await.unwrap();
        assert_eq!(change.path.as_str(), "root/b");
        seen.extend(change.status);
    }
    use Status::{Restarting, Running, Starting, Stopping};
    assert_eq!(seen, [Stopping, Restarting, Starting, Running]);
    assert!(!root.tree().restart("root"), "nobody is there to start it again");
    assert!(!root.tree().restart("root/nobody"));
    root.stop().await;
}

#[tokio::test]
async fn a_restart_by_hand_takes_the_younger_ones_along_where_the_strategy_says_so() {
    let (root, [a, b, c], diary) = three(Strategy::RestForOne).await;
    diary.take();
    let (first, before) = (life(&a).await, life(&c).await);
    assert!(root.tree().restart("root/b"));
    let is_back = |info: &NodeInfo| info.incarnation > before && info.status == Status::Running;
    until(root.tree(), "root/c", is_back).await;
    assert_eq!(without_loads(&diary), ["stopping c", "stopping b", "start b", "start c"]);
    assert_eq!((life(&a).await, sum(&b).await), (first, 0));
    root.stop().await;
}
