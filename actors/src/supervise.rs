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
//! | `address` | bounded queues that survive restarts |
//! | `guard` | what is done around every handler |
//! | `shell` | supervisors as actors, and the handles to them |
//! | `tree` | everybody, for everybody to see |
//! | `crash` | what is known about a bad end |

mod address;
mod context;
mod core;
mod crash;
mod guard;
mod millis;
mod node;
mod shell;
mod spec;
mod tasks;
mod tell;
mod tree;

pub use self::{
    address::{Address, AskError, CastError, Refusal, Reply, Traffic},
    context::{Context, Timer},
    core::{Action, Decision, Event, Exhaustion, Exit, Incarnation, SupervisorCore},
    crash::{Crash, CrashSink, Fault},
    node::{Node, NodeError},
    shell::{Child, DynamicSupervisor, Env, Root, RootError, StartChildError, Supervisor},
    spec::{
        AutoShutdown, Backoff, Budget, ChildId, ChildPolicy, ChildSpec, Exhausted, Intensity,
        Quarantine, Restart, SetPolicy, Shutdown, Strategy,
    },
    tree::{Handling, NodeInfo, Status, TreePath, TreeView},
};
