//! Nodes that leave memory until somebody needs them.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
    time::Duration,
};

use actors::supervise::{
    Address, Child, ChildPolicy, Context, DynamicSupervisor, Env, Node, NodeError, Reply, Restart,
    Root, SetPolicy, Status, Supervisor,
};

use crate::actors::SOON;

/// Remembers a number in what it leaves behind.
struct Sleeper {
    number: u64,
    goodbyes: Arc<AtomicU64>,
}

enum Msg {
    Remember(u64),
    Recall(Reply<u64>),
    Rest,
    /// Rests although more waits in the queue.
    Handed(u64),
    Panic,
}

impl Node for Sleeper {
    const KIND: &'static str = "sleeper";
    type Msg = Msg;
    type Args = Arc<AtomicU64>;

    fn start(goodbyes: &Arc<Arc<AtomicU64>>, _: &Context<Msg>) -> Result<Self, NodeError> {
        Ok(Self { number: 0, goodbyes: Arc::clone(goodbyes) })
    }

    async fn handle(&mut self, ctx: &Context<Msg>, msg: Msg) -> Result<(), NodeError> {
        match msg {
            Msg::Remember(number) | Msg::Handed(number) => self.number = number,
            Msg::Recall(reply) => reply.send(self.number),
            Msg::Rest => ctx.rest(Some(Msg::Handed(self.number))),
            Msg::Panic => panic!("a bad dream"),
        }
        Ok(())
    }

    async fn stopping(&mut self, _: &Context<Msg>) {
        self.goodbyes.fetch_add(1, SeqCst);
    }

    fn label(msg: &Msg) -> &'static str {
        match msg {
            Msg::Remember(_) => "remember",
            Msg::Recall(_) => "recall",
            Msg::Rest => "rest",
            Msg::Handed(_) => "handed",
            Msg::Panic => "panic",
        }
    }
}

struct Rig {
    root: Root,
    set: DynamicSupervisor<Sleeper>,
    sleeper: Address<Msg>,
    goodbyes: Arc<AtomicU64>,
}

impl Rig {
    async fn new() -> Self {
        let policy = ChildPolicy { restart: Restart::Transient, ..ChildPolicy::default() };
        let set = DynamicSupervisor::<Sleeper>::new(SetPolicy::dynamic(), policy, 10);
        let tree = Supervisor::new(SetPolicy::default());
        let tree = tree.child(Child::dynamic("set", ChildPolicy::supervisor(), &set));
        let root = Root::start("test", tree, Env::default()).await.unwrap();
        let goodbyes = Arc::new(AtomicU64::new(0));
        let sleeper = set.start_child("a", Arc::new(Arc::clone(&goodbyes))).unwrap();
        Self { root, set, sleeper, goodbyes }
    }

    async fn recall(&self) -> u64 {
        self.sleeper.ask(Msg::Recall, SOON).await.unwrap()
    }

    fn status(&self) -> Option<Status> {
        self.root.tree().get("test/set/a").map(|node| node.status)
    }

    async fn until(&self, status: Option<Status>) {
        let reached = async {
            while self.status() != status {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        let reached = tokio::time::timeout(SOON, reached).await;
        assert!(reached.is_ok(), "{:?} and never {status:?}", self.status());
    }
}

#[tokio::test]
async fn a_node_that_rests_stays_in_the_tree_and_comes_back_with_what_it_kept() {
    let rig = Rig::new().await;
    rig.sleeper.try_cast(Msg::Remember(7)).unwrap();
    for _ in 0..20 {
        rig.sleeper.try_cast(Msg::Rest).unwrap();
        rig.until(Some(Status::Passive)).await;
        assert!(rig.sleeper.is_passive() && !rig.sleeper.is_down());
        assert_eq!(rig.recall().await, 7);
        assert_eq!(rig.status(), Some(Status::Running));
    }
    let node = rig.root.tree().get("test/set/a").unwrap();
    assert_eq!((node.restarts, node.last_crash.is_none()), (0, true), "to wake is no restart");
    assert_eq!(rig.goodbyes.load(SeqCst), 0, "whoever will be back says no goodbye");
    rig.root.stop().await;
}

#[tokio::test]
async fn messages_that_come_while_it_goes_bring_it_back() {
    let rig = Rig::new().await;
    for round in 1..200 {
        rig.sleeper.cast(Msg::Remember(round), SOON).await.unwrap();
        rig.sleeper.cast(Msg::Rest, SOON).await.unwrap();
        // Before, while and after it goes.
        for _ in 0..round % 4 {
            tokio::task::yield_now().await;
        }
        assert_eq!(rig.recall().await, round);
    }
    assert_eq!(rig.root.tree().get("test/set/a").unwrap().traffic.lost, 0);
    rig.root.stop().await;
}

#[tokio::test]
async fn what_it_kept_is_dropped_with_a_life_that_fails() {
    let rig = Rig::new().await;
    rig.sleeper.try_cast(Msg::Remember(7)).unwrap();
    rig.sleeper.try_cast(Msg::Rest).unwrap();
    rig.until(Some(Status::Passive)).await;
    rig.sleeper.try_cast(Msg::Panic).unwrap();
    assert_eq!(rig.recall().await, 0);
    rig.root.stop().await;
}

#[tokio::test]
async fn a_passive_node_can_be_dismissed_and_one_that_is_up_stays() {
    let rig = Rig::new().await;
    assert_eq!(rig.recall().await, 0);
    rig.set.dismiss_child("a");
    assert_eq!(rig.recall().await, 0);
    rig.sleeper.try_cast(Msg::Rest).unwrap();
    rig.until(Some(Status::Passive)).await;
    rig.set.dismiss_child("a");
    rig.until(None).await;
    assert!(rig.sleeper.is_down());
    assert_eq!((rig.set.len(), rig.root.tree().dead()[0].node.path.as_str()), (0, "test/set/a"));
    rig.root.stop().await;
}

#[tokio::test]
async fn a_passive_node_can_be_restarted_and_the_tree_can_stop() {
    let rig = Rig::new().await;
    rig.sleeper.try_cast(Msg::Rest).unwrap();
    rig.until(Some(Status::Passive)).await;
    assert!(!rig.root.tree().kill("test/set/a"), "there is nothing to kill");
    assert!(rig.root.tree().restart("test/set/a"));
    rig.until(Some(Status::Running)).await;
    rig.sleeper.try_cast(Msg::Rest).unwrap();
    rig.until(Some(Status::Passive)).await;
    rig.root.stop().await;
    assert!(rig.sleeper.is_down());
}

#[tokio::test]
async fn the_idle_are_listed_with_how_long_they_have_been() {
    let rig = Rig::new().await;
    rig.recall().await;
    tokio::time::sleep(Duration::from_millis(30)).await;
    let idle = rig.root.tree().idle("sleeper");
    assert_eq!((idle.len(), idle[0].id.as_str(), idle[0].passive), (1, "a", false));
    assert!(idle[0].idle >= Duration::from_millis(25), "{idle:?}");
    rig.recall().await;
    assert!(rig.root.tree().idle("sleeper")[0].idle < idle[0].idle);
    rig.sleeper.try_cast(Msg::Rest).unwrap();
    rig.until(Some(Status::Passive)).await;
    assert!(rig.root.tree().idle("sleeper")[0].passive);
    rig.root.stop().await;
}
