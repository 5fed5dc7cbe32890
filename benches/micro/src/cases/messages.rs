//! Casts and calls: the kit's addresses beside bare ractor and bare tokio.
//!
//! A run sends a batch from a task on the runtime and ends when the last message is handled, so
//! that a message's cost has both its sides.

use std::sync::Arc;
use std::time::Duration;

use actors::supervise::{
    Address, Child, ChildPolicy, Context, Env, Node, NodeError, Reply, Root, SetPolicy, Supervisor,
};
use ractor::{Actor, ActorProcessingErr, ActorRef};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::{mpsc, oneshot};

use crate::case::{Case, Run};

const GROUP: &str = "cast and call";
/// Messages in a run: enough for the run's own beginning and end not to count.
const CASTS: u64 = 10_000;
const CALLS: u64 = 1_000;
/// How much a bounded mailbox holds, here as in the actors of the brain.
const NARROW: usize = 256;
const PATIENCE: Duration = Duration::from_secs(60);

pub(super) const CASES: &[Case] = &[
    Case {
        group: GROUP,
        name: "cast: ractor",
        items: CASTS,
        prepare: || compared("cast: ractor", 1),
    },
    Case {
        group: GROUP,
        name: "cast: address",
        items: CASTS,
        prepare: || compared("cast: address", 1),
    },
    Case {
        group: GROUP,
        name: "cast: address, sender waits",
        items: CASTS,
        prepare: || compared("cast: address, sender waits", 1),
    },
    Case { group: GROUP, name: "cast: mpsc", items: CASTS, prepare: || compared("cast: mpsc", 1) },
    Case {
        group: GROUP,
        name: "cast: mpsc, sender waits",
        items: CASTS,
        prepare: || compared("cast: mpsc, sender waits", 1),
    },
    Case {
        group: GROUP,
        name: "call: ractor",
        items: CALLS,
        prepare: || compared("call: ractor", 1),
    },
    Case {
        group: GROUP,
        name: "call: address",
        items: CALLS,
        prepare: || compared("call: address", 1),
    },
    Case {
        group: GROUP,
        name: "call: mpsc and oneshot",
        items: CALLS,
        prepare: || compared("call: mpsc and oneshot", 1),
    },
];

/// The case of this name, on so many worker threads.
///
/// # Panics
/// If there is no such case.
pub fn compared(name: &str, threads: usize) -> Run {
    let runtime = runtime(threads);
    match name {
        "cast: ractor" => over(runtime, bare(), |actor| async move {
            for number in 0..CASTS {
                send(&actor, Msg::Add(number));
            }
            bare_sum(&actor).await;
        }),
        "call: ractor" => over(runtime, bare(), |actor| async move {
            for _ in 0..CALLS {
                bare_sum(&actor).await;
            }
        }),
        "cast: address" => over(runtime, guarded::<Wide>(), |node| async move {
            for number in 0..CASTS {
                assert!(node.address.try_cast(Msg::Add(number)).is_ok(), "there is room");
            }
            node.sum().await;
        }),
        "cast: address, sender waits" => over(runtime, guarded::<Narrow>(), |node| async move {
            for number in 0..CASTS {
                let sent = node.address.cast(Msg::Add(number), PATIENCE).await;
                assert!(sent.is_ok(), "there will be room");
            }
            node.sum().await;
        }),
        "call: address" => over(runtime, guarded::<Narrow>(), |node| async move {
            for _ in 0..CALLS {
                node.sum().await;
            }
        }),
        "cast: mpsc" => over(runtime, plain(CASTS as usize + 1), |sender| async move {
            for number in 0..CASTS {
                assert!(sender.try_send(Msg::Add(number)).is_ok(), "there is room");
            }
            plain_sum(&sender).await;
        }),
        "cast: mpsc, sender waits" => over(runtime, plain(NARROW), |sender| async move {
            for number in 0..CASTS {
                assert!(sender.send(Msg::Add(number)).await.is_ok(), "it is up");
            }
            plain_sum(&sender).await;
        }),
        "call: mpsc and oneshot" => over(runtime, plain(NARROW), |sender| async move {
            for _ in 0..CALLS {
                plain_sum(&sender).await;
            }
        }),
        _ => panic!("there is no case {name}"),
    }
}

fn runtime(threads: usize) -> Runtime {
    let runtime = match threads {
        1 => Builder::new_current_thread().enable_all().build(),
        _ => Builder::new_multi_thread().worker_threads(threads).enable_all().build(),
    };
    runtime.expect("the system has threads")
}

/// A run that does `round` with what `begin` makes, both on the runtime.
fn over<T, B, R>(runtime: Runtime, begin: B, round: fn(T) -> R) -> Run
where
    T: Clone + Send + 'static,
    B: Future<Output = T>,
    R: Future<Output = ()> + Send + 'static,
{
    let shared = runtime.block_on(begin);
    Box::new(move || {
        let shared = shared.clone();
        // On a worker, so that the sender is not a thread of its own.
        runtime.block_on(async { tokio::spawn(round(shared)).await }).expect("no round fails");
    })
}

/// Adds up what it is sent; asked for the sum, it tells that all before is handled.
enum Msg<R> {
    Add(u64),
    Sum(R),
}

type Plain = Msg<oneshot::Sender<u64>>;

struct Bare;

impl Actor for Bare {
    type Msg = Plain;
    type State = u64;
    type Arguments = ();

    async fn pre_start(&self, _: ActorRef<Plain>, (): ()) -> Result<u64, ActorProcessingErr> {
        Ok(0)
    }

    async fn handle(
        &self,
        _: ActorRef<Plain>,
        message: Plain,
        sum: &mut u64,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            Msg::Add(number) => *sum = sum.wrapping_add(number),
            Msg::Sum(reply) => drop(reply.send(*sum)),
        }
        Ok(())
    }
}

async fn bare() -> ActorRef<Plain> {
    Bare::spawn(None, Bare, ()).await.expect("it starts").0
}

#[expect(clippy::disallowed_methods, reason = "this is what is compared with")]
fn send(actor: &ActorRef<Plain>, message: Plain) {
    assert!(actor.send_message(message).is_ok(), "it is up");
}

async fn bare_sum(actor: &ActorRef<Plain>) {
    let (reply, sum) = oneshot::channel();
    send(actor, Msg::Sum(reply));
    assert!(sum.await.is_ok(), "it answers");
}

async fn plain(capacity: usize) -> mpsc::Sender<Plain> {
    let (sender, mut receiver) = mpsc::channel(capacity);
    tokio::spawn(async move {
        let mut sum = 0u64;
        while let Some(message) = receiver.recv().await {
            match message {
                Msg::Add(number) => sum = sum.wrapping_add(number),
                Msg::Sum(reply) => drop::<Result<(), u64>>(oneshot::Sender::send(reply, sum)),
            }
        }
    });
    sender
}

async fn plain_sum(sender: &mpsc::Sender<Plain>) {
    let (reply, sum) = oneshot::channel();
    assert!(sender.send(Msg::Sum(reply)).await.is_ok(), "it is up");
    assert!(sum.await.is_ok(), "it answers");
}

/// How much a mailbox holds.
trait Room: Send + Sync + 'static {
    const CAPACITY: usize;
}

struct Wide;
struct Narrow;

impl Room for Wide {
    const CAPACITY: usize = CASTS as usize + 1;
}

impl Room for Narrow {
    const CAPACITY: usize = NARROW;
}

struct Guarded<R> {
    sum: u64,
    room: std::marker::PhantomData<R>,
}

impl<R: Room> Node for Guarded<R> {
    const KIND: &'static str = "adder";
    const CAPACITY: usize = R::CAPACITY;
    type Msg = Msg<Reply<u64>>;
    type Args = ();

    fn start(_: &Arc<()>, _: &Context<Self::Msg>) -> Result<Self, NodeError> {
        Ok(Self { sum: 0, room: std::marker::PhantomData })
    }

    async fn handle(&mut self, _: &Context<Self::Msg>, msg: Self::Msg) -> Result<(), NodeError> {
        match msg {
            Msg::Add(number) => self.sum = self.sum.wrapping_add(number),
            Msg::Sum(reply) => reply.send(self.sum),
        }
        Ok(())
    }

    fn label(msg: &Self::Msg) -> &'static str {
        match msg {
            Msg::Add(_) => "add",
            Msg::Sum(_) => "sum",
        }
    }
}

/// A supervised adder; the root keeps it alive.
#[derive(Clone)]
struct Supervised {
    address: Address<Msg<Reply<u64>>>,
    _root: Arc<Root>,
}

impl Supervised {
    async fn sum(&self) {
        assert!(self.address.ask(Msg::Sum, PATIENCE).await.is_ok(), "it answers");
    }
}

async fn guarded<R: Room>() -> Supervised {
    let (child, address) = Child::node::<Guarded<R>>("adder", ChildPolicy::default(), Arc::new(()));
    let supervisor = Supervisor::new(SetPolicy::default()).child(child);
    let root = Root::start("root", supervisor, Env::default()).await.expect("it starts");
    Supervised { address, _root: Arc::new(root) }
}
