//! The top of a tree, held by `main`.

use std::{
    fmt,
    hash::{BuildHasher, RandomState},
    io,
    sync::Arc,
    time::Duration,
};

use ractor::{Actor, ActorRef};
use tokio::sync::watch;

use super::{Commission, Ended, Report, Shell, ShellMsg, Supervisor, child::not_spawned};
use crate::supervise::{
    core::{Exhaustion, Incarnation},
    crash::{Crash, CrashSink, Verdict},
    guard::install_hook,
    spec::ChildId,
    tell::tell,
    tree::{Live, NodeCell, TreePath, TreeView},
    watchdog,
};

/// What all supervisors of a tree share.
#[derive(Clone)]
pub struct Env {
    /// Where the tree is seen.
    pub tree: TreeView,
    /// Who is told of crashes.
    pub crashes: Arc<dyn CrashSink>,
    /// Who is told how long handlers take.
    pub timings: Arc<dyn Timings>,
    /// For the jitter; the same seed gives the same waits.
    pub seed: u64,
    /// A killed node that is not gone after this long is blocking its thread.
    /// It is given up: another life may begin, and what is left of the old one
    /// reaches neither the mailbox nor the supervisor any more.
    pub kill_grace: Duration,
}

/// Is told of every message that was handled. It is called by the actors, and must not block.
pub trait Timings: Send + Sync + 'static {
    /// A node of that kind has handled a message of that label.
    fn handled(&self, kind: &'static str, label: &'static str, took: Duration);
}

/// Keeps nothing.
impl Timings for () {
    fn handled(&self, _kind: &'static str, _label: &'static str, _took: Duration) {}
}

impl Default for Env {
    fn default() -> Self {
        Self {
            tree: TreeView::new(),
            crashes: Arc::new(()),
            timings: Arc::new(()),
            seed: RandomState::new().hash_one("jitter"),
            kill_grace: Duration::from_secs(5),
        }
    }
}

impl Env {
    /// Takes note of a crash.
    pub(in crate::supervise) fn record(&self, crash: &Crash, verdict: Verdict) {
        tracing::warn!(
            path = %crash.path,
            kind = crash.kind,
            label = crash.label,
            fault = %crash.fault,
            decision = ?verdict.decision,
            "node crashed"
        );
        self.crashes.crashed(crash, verdict);
    }

    /// A seed of its own for each supervisor (FNV-1a, stable between runs).
    pub(super) fn seed_for(&self, path: &TreePath) -> u64 {
        path.as_str()
            .bytes()
            .fold(self.seed, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
    }
}

impl fmt::Debug for Env {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Env").finish_non_exhaustive()
    }
}

/// Why there is no tree, or none any more.
#[derive(Debug, thiserror::Error)]
pub enum RootError {
    /// The root supervisor gave up.
    #[error("the root supervisor gave up")]
    Escalated(#[source] Exhaustion),
    /// The root supervisor did not start or died, which no rule provides for.
    #[error("the root supervisor died: {reason}")]
    Died {
        /// What is known of it.
        reason: String,
    },
}

/// A running tree.
///
/// Await [`escalated`](Root::escalated) beside the signals that end the
/// process, and [`stop`](Root::stop) it at the end. Dropped, it stops in the
/// background.
pub struct Root {
    actor: ActorRef<ShellMsg>,
    blueprint: Supervisor,
    report: watch::Receiver<Report>,
    tree: TreeView,
}

impl Root {
    /// Starts a tree and comes back when everybody has been started once.
    pub async fn start(name: &str, supervisor: Supervisor, env: Env) -> Result<Self, RootError> {
        install_hook();
        let path = TreePath::root(name);
        let tree = env.tree.clone();
        let cell = tree.register(&path, || {
            NodeCell::new(path.clone(), ChildId::from(name), "supervisor", None, tree.changed())
        });
        let life = Incarnation(1);
        cell.begin(life, tree.now());
        let (report, watched) = watch::channel(Report::default());
        let commission = Commission {
            env: Arc::new(env),
            cell: Arc::clone(&cell),
            blueprint: supervisor.clone(),
            first: life,
            report,
        };
        let (actor, _) =
            Shell::spawn(None, Shell, commission).await.map_err(|error| {
                match watched.borrow().ended.clone() {
                    Some(Ended::Escalated(reason)) => RootError::Escalated(reason),
                    Some(Ended::Stopped) | None => {
                        RootError::Died { reason: not_spawned(error).summary().to_string() }
                    }
                }
            })?;
        let live = Live::Actor { actor: actor.get_cell(), life: None };
        cell.live(live, None);
        Ok(Self { actor, blueprint: supervisor, report: watched, tree })
    }

    /// The live tree.
    pub fn tree(&self) -> &TreeView {
        &self.tree
    }

    /// Stops everybody in the reverse order of starting, each within the time
    /// its policy gives, and comes back when all are gone.
    pub async fn stop(self) {
        let _ = tell(&self.actor, ShellMsg::Stop { for_good: true });
        // Without a timeout this cannot fail.
        let _ = self.actor.wait(None).await;
        self.blueprint.close();
    }

    /// Has a thread watch that the root still handles messages, by asking it once a `pulse`, or
    /// more rarely where `patience` is short.
    ///
    /// The question also wakes a thread of the runtime to look after sockets and timers, which
    /// otherwise may stand still while a handler blocks another one: for no longer than a pulse.
    ///
    /// `alive` is called each time it has shown that it does, several times within `patience`,
    /// until the tree ends. Once it has not for so long, `stalled` is called, and nothing more:
    /// it should end the process without waiting for anybody. Both run on that thread.
    pub fn watch(
        &self,
        patience: Duration,
        pulse: Duration,
        alive: impl FnMut() + Send + 'static,
        stalled: impl FnOnce() + Send + 'static,
    ) -> io::Result<()> {
        watchdog::watch(self.actor.clone(), patience, pulse, alive, stalled)
    }

    /// Comes back with the reason when the root gives up; after an orderly end
    /// never.
    ///
    /// The process should then end with an error, for whoever started it to
    /// start it again.
    pub async fn escalated(&self) -> RootError {
        let mut report = self.report.clone();
        let ended = report.wait_for(|report| report.ended.is_some()).await;
        let ended = ended.map(|report| report.ended.clone());
        match ended {
            Ok(Some(Ended::Escalated(reason))) => RootError::Escalated(reason),
            Ok(Some(Ended::Stopped) | None) => std::future::pending().await,
            Err(_) => RootError::Died { reason: "it was killed or panicked".to_owned() },
        }
    }
}

impl Drop for Root {
    fn drop(&mut self) {
        let _ = tell(&self.actor, ShellMsg::Stop { for_good: true });
    }
}

impl fmt::Debug for Root {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Root").finish_non_exhaustive()
    }
}
