//! Actors to try the kit on.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
    time::Duration,
};

use actors::supervise::{
    Address, Backoff, ChildPolicy, Context, Crash, CrashSink, Decision, Incarnation, Intensity,
    Node, NodeError, NodeInfo, Reply, Shutdown, TreeView, Verdict,
};
use tokio::time::{Instant, sleep};

/// Long enough for a busy machine, short enough to fail in.
pub(crate) const SOON: Duration = Duration::from_secs(10);

/// What happened, in order.
#[derive(Clone, Default)]
pub(crate) struct Diary(Arc<Mutex<Vec<String>>>);

impl Diary {
    pub(crate) fn note(&self, line: impl Into<String>) {
        self.0.lock().unwrap().push(line.into());
    }

    pub(crate) fn lines(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }

    pub(crate) fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

/// A node that does what it is told, however bad.
pub(crate) struct Puppet {
    name: &'static str,
    diary: Diary,
    goodbye: Duration,
    sum: u64,
}

#[derive(Default)]
pub(crate) struct Strings {
    pub(crate) name: &'static str,
    pub(crate) diary: Diary,
    /// How many more starts are to fail.
    pub(crate) bad_starts: AtomicU64,
    /// How long a goodbye takes.
    pub(crate) goodbye: Duration,
}

impl Strings {
    pub(crate) fn new(name: &'static str, diary: &Diary) -> Arc<Self> {
        Arc::new(Self { name, diary: diary.clone(), ..Self::default() })
    }
}

pub(crate) enum Msg {
    Loaded,
    Add(u64),
    Sum(Reply<u64>),
    Life(Reply<Incarnation>),
    Forget(Reply<()>),
    Panic,
    Fail,
    Sleep(Duration),
    /// As often as said, with a sign of life each time.
    Trudge(Duration, u32),
    Block(Duration),
    AddLater(Duration, u64),
    TaskFails,
    Finish,
}

impl Node for Puppet {
    const KIND: &'static str = "puppet";
    const CAPACITY: usize = 8;
    type Msg = Msg;
    type Args = Strings;

    fn start(args: &Arc<Strings>, ctx: &Context<Msg>) -> Result<Self, NodeError> {
        let bad = args.bad_starts.fetch_update(SeqCst, SeqCst, |left| left.checked_sub(1));
        if bad.is_ok() {
            return Err("a bad start".into());
        }
        args.diary.note(format!("start {}", args.name));
        ctx.cast_self(Msg::Loaded);
        Ok(Self { name: args.name, diary: args.diary.clone(), goodbye: args.goodbye, sum: 0 })
    }

    async fn handle(&mut self, ctx: &Context<Msg>, msg: Msg) -> Result<(), NodeError> {
        match msg {
            Msg::Loaded => self.diary.note(format!("loaded {}", self.name)),
            Msg::Add(number) => self.sum += number,
            Msg::Sum(reply) => reply.send(self.sum),
            Msg::Life(reply) => reply.send(ctx.incarnation()),
            Msg::Forget(reply) => drop(reply),
            Msg::Panic => panic!("a panic in {}", self.name),
            Msg::Fail => return Err("an error".into()),
            Msg::Sleep(duration) => sleep(duration).await,
            Msg::Trudge(duration, times) => {
                for _ in 0..times {
                    sleep(duration).await;
                    ctx.progress();
                }
            }
            #[expect(clippy::disallowed_methods, reason = "it is there to block")]
            Msg::Block(duration) => std::thread::sleep(duration),
            Msg::AddLater(after, number) => drop(ctx.cast_after(after, Msg::Add(number))),
            Msg::TaskFails => drop(ctx.spawn("reader", async { Err("the line is cut".into()) })),
            Msg::Finish => ctx.stop("nothing left to do"),
        }
        Ok(())
    }

    async fn stopping(&mut self, ctx: &Context<Msg>) {
        let _ = ctx;
        sleep(self.goodbye).await;
        self.diary.note(format!("stopping {}", self.name));
    }

    fn label(msg: &Msg) -> &'static str {
        match msg {
            Msg::Loaded => "loaded",
            Msg::Add(_) => "add",
            Msg::Sum(_) => "sum",
            Msg::Life(_) => "life",
            Msg::Forget(_) => "forget",
            Msg::Panic => "panic",
            Msg::Fail => "fail",
            Msg::Sleep(_) => "sleep",
            Msg::Trudge(..) => "trudge",
            Msg::Block(_) => "block",
            Msg::AddLater(..) => "add_later",
            Msg::TaskFails => "task_fails",
            Msg::Finish => "finish",
        }
    }
}

/// Rules without waits, for a child that may fail often.
pub(crate) fn hardy() -> ChildPolicy {
    ChildPolicy {
        shutdown: Shutdown::After(SOON),
        backoff: Backoff::NONE,
        intensity: Intensity { restarts: 1000, within: Duration::from_secs(60) },
        ..ChildPolicy::default()
    }
}

pub(crate) async fn sum(address: &Address<Msg>) -> u64 {
    address.ask(Msg::Sum, SOON).await.unwrap()
}

pub(crate) async fn life(address: &Address<Msg>) -> Incarnation {
    address.ask(Msg::Life, SOON).await.unwrap()
}

/// Waits until a node looks as wanted.
pub(crate) async fn until(
    tree: &TreeView,
    path: &str,
    wanted: impl Fn(&NodeInfo) -> bool,
) -> NodeInfo {
    let started = Instant::now();
    loop {
        if let Some(info) = tree.get(path)
            && wanted(&info)
        {
            return info;
        }
        assert!(started.elapsed() < SOON, "{path}: {:?}", tree.get(path));
        sleep(Duration::from_millis(2)).await;
    }
}

/// Waits until something holds.
pub(crate) async fn eventually(wanted: impl Fn() -> bool) {
    let started = Instant::now();
    while !wanted() {
        assert!(started.elapsed() < SOON, "it never came");
        sleep(Duration::from_millis(2)).await;
    }
}

/// Remembers all crashes.
#[derive(Default)]
pub(crate) struct Journal(pub(crate) Mutex<Vec<(Crash, Decision)>>);

impl CrashSink for Journal {
    fn crashed(&self, crash: &Crash, Verdict { decision, .. }: Verdict) {
        self.0.lock().unwrap().push((crash.clone(), decision));
    }
}
