//! The supervision kit: actors that are restarted by rules, on ractor.
//!
//! Start reading at [`Node`], the trait of our actors, and [`Child`] and
//! [`Supervisor`], which make a tree of them for [`Root`] to run. What is
//! decided when somebody fails is decided by the [`SupervisorCore`], a plain
//! state machine; everything else here carries values in and out of it.
//!
//! | module | what it holds |
//! |---|---|
//! | `spec` | the rules, as configuration |
//! | `core` | the decisions, without clock, task or actor |
//! | `node`, `context` | what an actor is, and what it can do |
//! | `task_node` | tasks that are seen and accounted for like actors |
//! | `address` | bounded queues that survive restarts |
//! | `guard` | what is done around every handler |
//! | `shell` | supervisors as actors, and the handles to them |
//! | `tree` | everybody, for everybody to see |
//! | `crash` | what is known about a bad end |
//! | `journal` | bad ends on disk, with what was decided about them |
//!
//! ```
//! use std::{sync::Arc, time::Duration};
//!
//! use actors::supervise::{
//!     Child, ChildPolicy, Context, DynamicSupervisor, Env, Node, NodeError, Reply, Root, SetPolicy,
//!     Strategy, Supervisor,
//! };
//!
//! struct Counter(u64);
//!
//! enum Msg {
//!     Add(u64),
//!     Total(Reply<u64>),
//! }
//!
//! impl Node for Counter {
//!     const KIND: &'static str = "counter";
//!     type Msg = Msg;
//!     type Args = u64;
//!
//!     fn start(args: &Arc<u64>, _: &Context<Msg>) -> Result<Self, NodeError> {
//!         Ok(Self(**args))
//!     }
//!
//!     async fn handle(&mut self, _: &Context<Msg>, msg: Msg) -> Result<(), NodeError> {
//!         match msg {
//!             Msg::Add(number) => self.0 += number,
//!             Msg::Total(reply) => reply.send(self.0),
//!         }
//!         Ok(())
//!     }
//!
//!     fn label(msg: &Msg) -> &'static str {
//!         match msg {
//!             Msg::Add(_) => "add",
//!             Msg::Total(_) => "total",
//!         }
//!     }
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), NodeError> {
//! let policy = ChildPolicy::default();
//! let (ground, total) = Child::node::<Counter>("ground", policy, Arc::new(0));
//! let devices = DynamicSupervisor::<Counter>::new(SetPolicy::dynamic(), policy, 100_000);
//! let tree = Supervisor::new(SetPolicy::with(Strategy::RestForOne))
//!     .child(ground)
//!     .child(Child::dynamic("devices", ChildPolicy::supervisor(), &devices));
//! let root = Root::start("brain", tree, Env::default()).await?;
//!
//! total.try_cast(Msg::Add(1)).map_err(|refused| refused.refusal())?;
//! let device = devices.start_child("7", Arc::new(41))?;
//! device.cast(Msg::Add(1), Duration::from_secs(1)).await.map_err(|refused| refused.refusal())?;
//! assert_eq!(device.ask(Msg::Total, Duration::from_secs(1)).await?, 42);
//! for node in root.tree().snapshot() {
//!     println!("{} {:?}, {} queued", node.path, node.status, node.depth);
//! }
//! tokio::select! {
//!     gave_up = root.escalated() => return Err(gave_up.into()),
//!     () = tokio::time::sleep(Duration::from_millis(10)) => root.stop().await,
//! }
//! # Ok(())
//! # }
//! ```

mod address;
#[cfg(feature = "chaos")]
mod chaos;
mod context;
mod core;
mod crash;
mod guard;
mod journal;
mod millis;
mod node;
mod shell;
mod spec;
mod task_node;
mod tasks;
mod tell;
mod tree;
mod watchdog;

#[cfg(feature = "chaos")]
pub use self::chaos::Chaos;
pub use self::{
    address::{Address, AskError, CastError, Refusal, Reply, Traffic},
    context::{Context, Timer},
    core::{Action, Decision, Event, Exhaustion, Exit, Incarnation, SupervisorCore},
    crash::{Crash, CrashSink, Digest, Fault, TraceId, Verdict},
    journal::{CrashJournal, CrashQuery, CrashRecord, JournalError, JournalLimits},
    node::{Condemned, Node, NodeError},
    shell::{Child, DynamicSupervisor, Env, Root, RootError, StartChildError, Supervisor, Timings},
    spec::{
        AutoShutdown, Backoff, Budget, ChildId, ChildPolicy, ChildSpec, Exhausted, Intensity,
        Quarantine, Restart, Rules, SetPolicy, Shutdown, Strategy,
    },
    tree::{Census, Change, Dead, Handling, Idle, NodeInfo, Status, TreePath, TreeView},
};
