//! What a cast costs, beside a bare ractor cast.
//!
//! Run with `cargo run --release -p actors --example cast_throughput`. Every
//! figure is the best of several rounds, in nanoseconds per message, from the
//! first send to the end of the last handler.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use actors::supervise::{
    Address, Child, ChildPolicy, Context, Env, Node, NodeError, Reply, Root, SetPolicy, Supervisor,
};
use ractor::{Actor, ActorProcessingErr, ActorRef};
use tokio::sync::oneshot;

const MESSAGES: u64 = 1_000_000;
const ROUNDS: u32 = 7;
const PATIENCE: Duration = Duration::from_secs(60);

/// Adds up what it is sent; asked for the sum, it tells that all is handled.
enum Msg<R> {
    Add(u64),
    Sum(R),
}

struct Bare;

impl Actor for Bare {
    type Msg = Msg<oneshot::Sender<u64>>;
    type State = u64;
    type Arguments = ();

    async fn pre_start(&self, _: ActorRef<Self::Msg>, (): ()) -> Result<u64, ActorProcessingErr> {
        Ok(0)
    }

    async fn handle(
        &self,
        _: ActorRef<Self::Msg>,
        message: Self::Msg,
        sum: &mut u64,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            Msg::Add(number) => *sum += number,
            Msg::Sum(reply) => drop(reply.send(*sum)),
        }
        Ok(())
    }
}

struct Guarded {
    sum: u64,
}

impl Node for Guarded {
    const KIND: &'static str = "adder";
    const CAPACITY: usize = MESSAGES as usize + 1;
    type Msg = Msg<Reply<u64>>;
    type Args = ();

    fn start(_: &Arc<()>, _: &Context<Self::Msg>) -> Result<Self, NodeError> {
        Ok(Self { sum: 0 })
    }

    async fn handle(&mut self, _: &Context<Self::Msg>, msg: Self::Msg) -> Result<(), NodeError> {
        match msg {
            Msg::Add(number) => self.sum += number,
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

#[expect(clippy::disallowed_methods, reason = "this is what is compared with")]
async fn bare(actor: &ActorRef<Msg<oneshot::Sender<u64>>>) {
    for number in 0..MESSAGES {
        assert!(actor.send_message(Msg::Add(number)).is_ok(), "it is up");
    }
    let (reply, sum) = oneshot::channel();
    assert!(actor.send_message(Msg::Sum(reply)).is_ok(), "it is up");
    assert!(sum.await.is_ok(), "it answers");
}

async fn guarded(address: &Address<Msg<Reply<u64>>>) {
    for number in 0..MESSAGES {
        assert!(address.try_cast(Msg::Add(number)).is_ok(), "there is room");
    }
    assert!(address.ask(Msg::Sum, PATIENCE).await.is_ok(), "it answers");
}

async fn guarded_bounded(address: &Address<Msg<Reply<u64>>>) {
    for number in 0..MESSAGES {
        let sent = address.cast(Msg::Add(number), PATIENCE).await;
        assert!(sent.is_ok(), "there will be room");
    }
    assert!(address.ask(Msg::Sum, PATIENCE).await.is_ok(), "it answers");
}

async fn best<F: Future<Output = ()>>(name: &str, mut round: impl FnMut() -> F) {
    let mut best = Duration::MAX;
    for _ in 0..ROUNDS {
        let begun = Instant::now();
        round().await;
        best = best.min(begun.elapsed());
    }
    println!("{name:<40} {:>6} ns", best.as_nanos() / u128::from(MESSAGES));
}

async fn compare() {
    let (actor, _) = Bare::spawn(None, Bare, ()).await.expect("it starts");
    let (wide, everything) = Child::node::<Guarded>("wide", ChildPolicy::default(), Arc::new(()));
    let narrow = Address::new(256);
    let supervisor =
        Supervisor::new(SetPolicy::default()).child(wide).child(Child::node_at::<Guarded>(
            "narrow",
            ChildPolicy::default(),
            &narrow,
            Arc::new(()),
        ));
    let root = Root::start("root", supervisor, Env::default()).await.expect("it starts");
    best("bare ractor", || bare(&actor)).await;
    best("address, room for everything", || guarded(&everything)).await;
    best("address, 256 at a time, sender waits", || guarded_bounded(&narrow)).await;
    root.stop().await;
    actor.stop(None);
}

fn main() {
    for threads in [1, 2] {
        println!("{threads} worker threads");
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(threads)
            .enable_all()
            .build()
            .expect("a runtime");
        // On a worker, so that the sender is not a thread of its own.
        runtime.block_on(async { tokio::spawn(compare()).await }).expect("no round fails");
    }
}
