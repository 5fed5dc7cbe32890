//! Mailboxes are bounded, and nothing is lost without being counted.

use std::time::Duration;

use actors::supervise::{
    Address, AskError, Budget, CastError, Child, ChildPolicy, Env, Node, Refusal, Root, SetPolicy,
    Supervisor,
};

use crate::actors::{Diary, Msg, Puppet, SOON, Strings, hardy, sum, until};

const SHORT: Duration = Duration::from_millis(30);

async fn alone(policy: ChildPolicy) -> (Root, Address<Msg>) {
    let (child, address) = Child::node::<Puppet>("a", policy, Strings::new("a", &Diary::default()));
    let policy = SetPolicy { budget: Budget::Restarts(hardy().intensity), ..SetPolicy::default() };
    let supervisor = Supervisor::new(policy).child(child);
    let root = Root::start("root", supervisor, Env::default()).await;
    (root.unwrap(), address)
}

/// Keeps the node busy and its mailbox full.
async fn fill(root: &Root, address: &Address<Msg>, busy: Duration) {
    address.try_cast(Msg::Sleep(busy)).unwrap();
    until(root.tree(), "root/a", |info| {
        info.handling.is_some_and(|handling| handling.label == "sleep")
    })
    .await;
    for _ in 1..Puppet::CAPACITY {
        address.try_cast(Msg::Add(1)).unwrap();
    }
}

#[tokio::test]
async fn a_full_mailbox_gives_the_message_back() {
    let (root, address) = alone(hardy()).await;
    fill(&root, &address, SOON).await;
    assert_eq!((address.depth(), address.capacity()), (8, 8));
    let Err(CastError::Full(Msg::Add(7))) = address.try_cast(Msg::Add(7)) else {
        panic!("it was taken");
    };
    let refused = address.cast(Msg::Add(7), SHORT).await.unwrap_err();
    assert_eq!(refused.refusal(), Refusal::Full);
    assert_eq!(address.ask(Msg::Sum, SHORT).await, Err(AskError::Full));
    assert_eq!(root.tree().get("root/a").unwrap().traffic.refused, 3);
    // Else the stop would wait for the sleeper.
    root.tree().kill("root/a");
    root.stop().await;
}

#[tokio::test]
async fn a_waiting_sender_gets_in_when_there_is_room() {
    let (root, address) = alone(hardy()).await;
    fill(&root, &address, SHORT).await;
    address.cast(Msg::Add(10), SOON).await.unwrap();
    assert_eq!(sum(&address).await, 17);
    root.stop().await;
}

#[tokio::test]
async fn an_ask_ends_at_its_deadline_and_is_then_skipped() {
    let (root, address) = alone(hardy()).await;
    let busy = 3 * SHORT;
    address.try_cast(Msg::Sleep(busy)).unwrap();
    assert_eq!(address.ask(Msg::Sum, SHORT).await, Err(AskError::Timeout));
    assert_eq!(sum(&address).await, 0);
    let info = until(root.tree(), "root/a", |info| info.depth == 0).await;
    assert_eq!((info.traffic.expired, info.traffic.handled), (1, 2));
    root.stop().await;
}

#[tokio::test]
async fn a_dropped_reply_is_told_at_once() {
    let (root, address) = alone(hardy()).await;
    assert_eq!(address.ask(Msg::Forget, SOON).await, Err(AskError::Dropped));
    root.stop().await;
}

#[tokio::test]
async fn what_is_taken_is_handled_expired_lost_or_queued() {
    let (root, address) = alone(hardy()).await;
    let mut taken = 0;
    for round in 0..200 {
        let message = match round % 10 {
            3 => Msg::Panic,
            7 => Msg::Fail,
            _ => Msg::Add(1),
        };
        taken += u64::from(address.cast(message, SOON).await.is_ok());
    }
    let info = until(root.tree(), "root/a", |info| info.depth == 0).await;
    assert_eq!(taken, 200);
    assert_eq!((info.traffic.handled, info.traffic.lost), (160, 40));
    // Each life loads once.
    assert_eq!(info.traffic.own, 41);
    root.stop().await;
}

#[tokio::test]
async fn a_killed_message_is_counted_and_its_room_is_free() {
    let (root, address) = alone(hardy()).await;
    fill(&root, &address, SOON).await;
    assert!(root.tree().kill("root/a"));
    assert_eq!(sum(&address).await, 7);
    let info = until(root.tree(), "root/a", |info| info.depth == 0).await;
    assert_eq!((info.traffic.lost, info.traffic.handled), (1, 8));
    root.stop().await;
}

#[tokio::test]
async fn messages_wait_at_an_address_before_anybody_answers() {
    let address = Address::new(Puppet::CAPACITY);
    address.try_cast(Msg::Add(3)).unwrap();
    let strings = Strings::new("a", &Diary::default());
    let child = Child::node_at::<Puppet>("a", hardy(), &address, strings);
    let supervisor = Supervisor::new(SetPolicy::default()).child(child);
    let root = Root::start("root", supervisor, Env::default()).await.unwrap();
    assert_eq!(sum(&address).await, 3);
    root.stop().await;
}

#[tokio::test]
async fn after_the_end_everything_is_refused() {
    let (root, address) = alone(hardy()).await;
    fill(&root, &address, SHORT).await;
    let asked = tokio::spawn({
        let address = address.clone();
        async move { address.ask(Msg::Sum, SOON).await }
    });
    tokio::task::yield_now().await;
    root.stop().await;
    assert!(matches!(asked.await.unwrap(), Err(AskError::Down | AskError::Dropped)));
    assert!(address.is_down());
    assert!(matches!(address.try_cast(Msg::Add(1)), Err(CastError::Down(_))));
    assert_eq!(address.ask(Msg::Sum, SOON).await, Err(AskError::Down));
    assert_eq!(address.depth(), 0);
}

#[tokio::test]
async fn of_messages_with_one_key_the_latest_is_handled_in_the_place_of_the_first() {
    let (root, address) = alone(hardy()).await;
    address.try_cast(Msg::Sleep(SHORT)).unwrap();
    until(root.tree(), "root/a", |info| info.handling.is_some()).await;
    for number in 1..=100 {
        address.conflate(1, Msg::Add(number)).unwrap();
    }
    address.conflate(2, Msg::Add(1_000)).unwrap();
    assert_eq!(address.depth(), 3, "one for each key, and the one in flight");
    assert_eq!(sum(&address).await, 1_100);
    let info = until(root.tree(), "root/a", |info| info.depth == 0).await;
    assert_eq!((info.traffic.conflated, info.traffic.handled), (99, 4));
    // One that is handled already is not replaced.
    address.conflate(1, Msg::Add(1)).unwrap();
    assert_eq!(sum(&address).await, 1_101);
    fill(&root, &address, SOON).await;
    assert!(matches!(address.conflate(3, Msg::Add(7)), Err(CastError::Full(Msg::Add(7)))));
    root.tree().kill("root/a");
    root.stop().await;
    assert!(matches!(address.conflate(1, Msg::Add(7)), Err(CastError::Down(Msg::Add(7)))));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stalled_node_does_not_hold_up_whoever_sends_or_looks() {
    let (root, address) = alone(hardy()).await;
    address.try_cast(Msg::Block(Duration::from_secs(1))).unwrap();
    until(root.tree(), "root/a", |info| info.handling.is_some()).await;
    let mut took: Vec<_> = (0..200)
        .map(|number| {
            let began = std::time::Instant::now();
            // The first are taken, the others are given back.
            let _ = address.try_cast(Msg::Add(number));
            let _ = address.conflate(1, Msg::Add(number));
            assert_eq!(root.tree().snapshot().len(), 2);
            began.elapsed()
        })
        .collect();
    took.sort_unstable();
    // The machine may take a while of its own now and then.
    assert!(took[190] < Duration::from_millis(1), "{:?} to {:?}", took[190], took[199]);
    root.stop().await;
}
