//! Messages that kill their node, tasks that are nodes, and who may take its time.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use actors::supervise::{
    Address, Backoff, Budget, Child, ChildPolicy, Condemned, Context, Digest, Env, Fault,
    Intensity, Node, NodeError, Reply, Root, SetPolicy, Status, Supervisor,
};

use crate::actors::{Journal, SOON, eventually, until};

#[derive(Default)]
struct Seen {
    condemned: Mutex<Vec<(u8, Condemned)>>,
}

struct Eater {
    seen: Arc<Seen>,
    eaten: Vec<u8>,
}

enum Msg {
    /// Poison panics, a stone is never swallowed, all else is eaten.
    Eat(u8),
    Eaten(Reply<Vec<u8>>),
    /// Waits for somebody else.
    WaitFor(Duration),
    Spawn(&'static str, Ending),
}

#[derive(Clone, Copy)]
enum Ending {
    Returns,
    Fails,
    Panics,
    Never,
}

const POISON: u8 = 13;
const STONE: u8 = 14;

impl Node for Eater {
    const KIND: &'static str = "eater";
    type Msg = Msg;
    type Args = Seen;

    fn start(seen: &Arc<Seen>, _: &Context<Msg>) -> Result<Self, NodeError> {
        Ok(Self { seen: Arc::clone(seen), eaten: Vec::new() })
    }

    async fn handle(&mut self, ctx: &Context<Msg>, msg: Msg) -> Result<(), NodeError> {
        match msg {
            Msg::Eat(POISON) => panic!("poison"),
            Msg::Eat(STONE) => std::future::pending().await,
            Msg::Eat(food) => self.eaten.push(food),
            Msg::Eaten(reply) => reply.send(self.eaten.clone()),
            Msg::WaitFor(time) => ctx.waiting(tokio::time::sleep(time)).await,
            Msg::Spawn(id, ending) => ctx.spawn_node(id, "task", async move {
                match ending {
                    Ending::Returns => Ok(()),
                    Ending::Fails => Err("the task failed".into()),
                    Ending::Panics => panic!("the task panicked"),
                    Ending::Never => std::future::pending().await,
                }
            }),
        }
        Ok(())
    }

    async fn condemned(
        &mut self,
        _: &Context<Msg>,
        msg: Msg,
        why: Condemned,
    ) -> Result<(), NodeError> {
        if let Msg::Eat(food) = msg {
            self.seen.condemned.lock().unwrap().push((food, why));
        }
        Ok(())
    }

    fn label(msg: &Msg) -> &'static str {
        match msg {
            Msg::Eat(_) => "eat",
            Msg::Eaten(_) => "eaten",
            Msg::WaitFor(_) => "wait_for",
            Msg::Spawn(..) => "spawn",
        }
    }

    fn digest(msg: &Msg) -> Option<Digest> {
        match msg {
            Msg::Eat(food) => Some(Digest([*food; 8])),
            _ => None,
        }
    }
}

struct Rig {
    root: Root,
    eater: Address<Msg>,
    seen: Arc<Seen>,
    journal: Arc<Journal>,
}

impl Rig {
    async fn new() -> Self {
        let policy = ChildPolicy {
            backoff: Backoff::NONE,
            intensity: Intensity { restarts: 100, within: Duration::from_secs(60) },
            stuck_after: Some(Duration::from_millis(100)),
            ..ChildPolicy::default()
        };
        let seen = Arc::new(Seen::default());
        let (child, eater) = Child::node::<Eater>("eater", policy, Arc::clone(&seen));
        let journal = Arc::new(Journal::default());
        let env = Env { crashes: journal.clone(), ..Env::default() };
        let budget = Budget::Restarts(policy.intensity);
        let set = SetPolicy { budget, ..SetPolicy::default() };
        let root = Root::start("test", Supervisor::new(set).child(child), env).await.unwrap();
        Self { root, eater, seen, journal }
    }

    async fn eat(&self, food: u8) {
        self.eater.cast(Msg::Eat(food), SOON).await.unwrap();
    }

    async fn eaten(&self) -> Vec<u8> {
        self.eater.ask(Msg::Eaten, SOON).await.unwrap()
    }

    /// What failed, in order.
    fn faults(&self) -> Vec<String> {
        let crashes = self.journal.0.lock().unwrap();
        crashes.iter().map(|(crash, _)| crash.to_string()).collect()
    }

    fn has(&self, path: &str) -> bool {
        self.root.tree().get(path).is_some()
    }
}

#[tokio::test]
async fn a_message_that_killed_its_node_three_times_is_not_handled_again_until_it_is_pardoned() {
    let rig = Rig::new().await;
    for _ in 0..5 {
        rig.eat(POISON).await;
        rig.eat(1).await;
    }
    assert_eq!(rig.eaten().await, [1, 1, 1], "two lives ate what came before the third death");
    let condemned = rig.seen.condemned.lock().unwrap().clone();
    assert_eq!(condemned.len(), 2);
    let (food, why) = &condemned[0];
    assert_eq!((*food, why.digest), (POISON, Digest([POISON; 8])));
    let crash = why.crash.as_ref().expect("it is the last crash");
    assert!(matches!(&crash.fault, Fault::Panic { message, .. } if message == "poison"));
    assert_eq!(rig.faults().len(), 3);
    assert!(rig.root.tree().pardon("test/eater", Digest([POISON; 8])));
    rig.eat(POISON).await;
    assert_eq!(rig.eaten().await, [0; 0]);
    assert_eq!(rig.faults().len(), 4);
    rig.root.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_message_that_gets_its_node_stuck_is_condemned_too_and_a_kill_blames_nobody() {
    let rig = Rig::new().await;
    for killed in [true, true, true, false, false, false] {
        rig.eat(STONE).await;
        until(rig.root.tree(), "test/eater", |node| node.handling.is_some()).await;
        if killed {
            assert!(rig.root.tree().kill("test/eater"));
        }
        assert_eq!(rig.eaten().await, [0; 0]);
    }
    assert_eq!(rig.seen.condemned.lock().unwrap().len(), 0);
    rig.eat(STONE).await;
    rig.eat(2).await;
    assert_eq!(rig.eaten().await, [2]);
    assert_eq!(rig.seen.condemned.lock().unwrap().len(), 1);
    rig.root.stop().await;
}

#[tokio::test(start_paused = true)]
async fn whoever_waits_for_others_is_not_stuck() {
    let rig = Rig::new().await;
    rig.eat(1).await;
    rig.eater.try_cast(Msg::WaitFor(Duration::from_secs(10))).unwrap();
    assert_eq!(rig.eater.ask(Msg::Eaten, Duration::from_secs(60)).await.unwrap(), [1]);
    assert_eq!(rig.faults().len(), 0);
    rig.root.stop().await;
}

#[tokio::test]
async fn a_task_is_a_node_whose_end_is_told() {
    let rig = Rig::new().await;
    for (id, ending) in [
        ("returns", Ending::Returns),
        ("fails", Ending::Fails),
        ("panics", Ending::Panics),
        ("lasts", Ending::Never),
        ("lasts", Ending::Never),
    ] {
        rig.eater.cast(Msg::Spawn(id, ending), SOON).await.unwrap();
    }
    eventually(|| rig.faults().len() == 2).await;
    let faults = rig.faults();
    assert!(faults.contains(&"test/eater/fails: the task failed".to_owned()), "{faults:?}");
    assert!(faults.contains(&"test/eater/panics: panicked: the task panicked".to_owned()));
    let lasting = rig.root.tree().get("test/eater/lasts").expect("it is there");
    assert_eq!((lasting.kind, lasting.status), ("task", Status::Running));
    assert!(rig.has("test/eater/lasts+"), "a taken path gets a plus");
    assert!(rig.root.tree().kill("test/eater/lasts"));
    eventually(|| !rig.has("test/eater/lasts")).await;
    assert!(rig.faults().contains(&"test/eater/lasts: killed".to_owned()));
    // The others end with their owner, and that is its end and not theirs.
    assert!(rig.root.tree().kill("test/eater"));
    eventually(|| !rig.has("test/eater/lasts+") && rig.faults().len() == 4).await;
    rig.root.stop().await;
}
