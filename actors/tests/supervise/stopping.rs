//! Trees stop in order, in time, and without leaving anything behind.

use std::{sync::Arc, time::Duration};

use actors::supervise::{
    Child, ChildPolicy, DynamicSupervisor, Env, Root, SetPolicy, Shutdown, Strategy, Supervisor,
};
use tokio::{runtime::Handle, time::Instant};

use crate::actors::{Diary, Msg, Puppet, Strings, eventually, hardy, sum, until};

fn puppet(name: &'static str, diary: &Diary) -> Child {
    Child::node::<Puppet>(name, hardy(), Strings::new(name, diary)).0
}

fn goodbyes(diary: &Diary) -> Vec<String> {
    let lines = diary.lines().into_iter();
    lines.filter(|line| line.starts_with("stopping")).collect()
}

#[tokio::test]
async fn everybody_says_goodbye_in_reverse_order() {
    let diary = Diary::default();
    let inner = Supervisor::new(SetPolicy::with(Strategy::OneForAll))
        .child(puppet("b", &diary))
        .child(puppet("c", &diary));
    let outer = Supervisor::new(SetPolicy::with(Strategy::RestForOne))
        .child(puppet("a", &diary))
        .child(Child::supervisor("inner", ChildPolicy::supervisor(), inner))
        .child(puppet("d", &diary));
    let root = Root::start("root", outer, Env::default()).await.unwrap();
    let starts = diary.lines();
    assert_eq!(starts.iter().filter(|line| line.starts_with("start")).count(), 4);
    root.stop().await;
    assert_eq!(goodbyes(&diary), ["stopping d", "stopping c", "stopping b", "stopping a"]);
}

#[tokio::test]
async fn who_takes_too_long_is_killed() {
    let diary = Diary::default();
    let slow = Arc::new(Strings {
        name: "slow",
        diary: diary.clone(),
        goodbye: Duration::from_secs(60),
        ..Strings::default()
    });
    let policy = ChildPolicy { shutdown: Shutdown::After(Duration::from_millis(50)), ..hardy() };
    let supervisor = Supervisor::new(SetPolicy::default())
        .child(puppet("a", &diary))
        .child(Child::node::<Puppet>("slow", policy, slow).0);
    let root = Root::start("root", supervisor, Env::default()).await.unwrap();
    let begun = Instant::now();
    root.stop().await;
    assert!(begun.elapsed() < Duration::from_secs(5));
    assert_eq!(goodbyes(&diary), ["stopping a"]);
}

#[tokio::test]
async fn a_brutal_shutdown_does_not_wait_for_a_goodbye() {
    let diary = Diary::default();
    let policy = ChildPolicy { shutdown: Shutdown::Brutal, ..hardy() };
    let (child, address) = Child::node::<Puppet>("a", policy, Strings::new("a", &diary));
    let supervisor = Supervisor::new(SetPolicy::default()).child(child);
    let root = Root::start("root", supervisor, Env::default()).await.unwrap();
    sum(&address).await;
    root.stop().await;
    assert_eq!(goodbyes(&diary), [""; 0]);
}

#[tokio::test]
async fn a_stop_does_not_wait_for_the_backlog() {
    let diary = Diary::default();
    let (child, address) = Child::node::<Puppet>("a", hardy(), Strings::new("a", &diary));
    let supervisor = Supervisor::new(SetPolicy::default()).child(child);
    let root = Root::start("root", supervisor, Env::default()).await.unwrap();
    for _ in 0..7 {
        address.try_cast(Msg::Sleep(Duration::from_millis(200))).unwrap();
    }
    until(root.tree(), "root/a", |info| info.handling.is_some()).await;
    let begun = Instant::now();
    root.stop().await;
    assert!(begun.elapsed() < Duration::from_millis(1000));
    assert_eq!(goodbyes(&diary), ["stopping a"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_task_is_left_behind() {
    let before = Handle::current().metrics().num_alive_tasks();
    let diary = Diary::default();
    let set = DynamicSupervisor::<Puppet>::new(SetPolicy::dynamic(), hardy(), 100);
    let supervisor = Supervisor::new(SetPolicy::default())
        .child(puppet("a", &diary))
        .child(Child::dynamic("set", ChildPolicy::supervisor(), &set));
    let root = Root::start("root", supervisor, Env::default()).await.unwrap();
    for number in 0..50 {
        let address = set.start_child(number.to_string(), Strings::new("x", &diary)).unwrap();
        address.try_cast(Msg::AddLater(Duration::from_secs(600), 1)).unwrap();
        if number % 5 == 0 {
            address.try_cast(Msg::Panic).unwrap();
        }
        sum(&address).await;
    }
    let tree = root.tree().clone();
    root.stop().await;
    assert_eq!(tree.len(), 3);
    assert!(set.is_empty());
    eventually(|| Handle::current().metrics().num_alive_tasks() <= before).await;
}

#[tokio::test]
async fn a_dropped_root_stops_in_the_background() {
    let diary = Diary::default();
    let supervisor = Supervisor::new(SetPolicy::default()).child(puppet("a", &diary));
    drop(Root::start("root", supervisor, Env::default()).await.unwrap());
    eventually(|| !goodbyes(&diary).is_empty()).await;
}
