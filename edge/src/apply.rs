//! Making the device what it is desired to be.
//!
//! Each leaf of `desired/`, or a live override of it, has an applier by its path:
//!
//! | path | what it does |
//! |---|---|
//! | `sense/<group>/<setting>` | a setting of [`SenseSettings`] |
//! | `log/level` | what is logged |
//! | `edge/server_url` | which brain to call |
//! | `hooks/<name>` | runs the program of that name |
//!
//! What was applied is reported under `reported/applied/`, what failed under
//! `reported/apply_errors/`, and how that came about under `reported/apply_causes/`. What was applied is looked at again and again: where it does not hold any
//! more, because somebody changed it by hand, it is applied anew, and `reported/drift/` says when.

mod hook;
mod plan;
mod report;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use actors::supervise::{Address, Context, Node, NodeError, Timer};
use protocol::history::{Change, Draft, Provenance};
use protocol::session::with_causes;
use protocol::state::{StateSource, Value};
use telemetry::{LevelError, LogLevel};
use tokio::sync::watch;
use url::Url;

pub use hook::HookError;
pub use plan::{Step, applied_before, outcome, plan, stale_reports};
use plan::{drifts, held_back, lifted, never_holds, plan_again};
pub use report::Failure;

use crate::clock::Clock;
use crate::enrolment::{ServerError, parse_server};
use crate::sense::{SenseSettings, SettingError};
use crate::status::Board;
use crate::track::{self, Effective};

/// An override ends by the clock, and clocks jump.
const LOOK_AGAIN_MAX: Duration = Duration::from_secs(60);
const HOOKS: &str = "hooks/";
/// So many times running a leaf is applied again that does not hold; after that it is left alone.
const DRIFTS_MAX: u32 = 5;

/// What applying is built from.
#[derive(Debug, Clone)]
pub struct Args {
    /// The keeper of the tree.
    pub track: Address<track::Msg>,
    /// Tells when desired state changed.
    pub board: Board,
    /// The time.
    pub clock: Clock,
    /// The settings by configuration: what holds where nothing is desired.
    pub configured: SenseSettings,
    /// Where settings go.
    pub settings: watch::Sender<SenseSettings>,
    /// Where a wanted brain's address goes.
    pub wanted_server: watch::Sender<Option<Url>>,
    /// The log's level, if this agent owns the log.
    pub log_level: Option<LogLevel>,
    /// The folder with hooks, if there is one.
    pub hooks_dir: Option<PathBuf>,
    /// How often it is looked whether what was applied still holds.
    pub verify_every: Duration,
}

/// What applying is told.
pub enum Msg {
    /// Compare what is desired with what was done.
    Look,
    /// Look whether what was done still holds.
    Verify,
}

/// Why a leaf was not applied.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// Nobody knows what to do about it.
    #[error("no applier")]
    NoApplier,
    /// The value is not text.
    #[error("text is needed")]
    NotText,
    /// A setting that cannot be.
    #[error(transparent)]
    Setting(#[from] SettingError),
    /// A log level that is none.
    #[error(transparent)]
    Level(#[from] LevelError),
    /// An address that is no brain's.
    #[error(transparent)]
    Server(#[from] ServerError),
    /// A hook that failed.
    #[error(transparent)]
    Hook(#[from] HookError),
}

/// The applying node.
pub struct Apply {
    args: Arc<Args>,
    /// What was acted on last; none before the first look.
    done: Option<BTreeMap<String, Value>>,
    /// What of that could not be applied.
    failed: BTreeSet<String>,
    /// What of that does not hold any more, and is to be done again.
    redo: BTreeSet<String>,
    /// How many times running a leaf did not hold.
    drifts: BTreeMap<String, u32>,
    timer: Option<Timer>,
}

impl Node for Apply {
    const KIND: &'static str = "apply";
    type Msg = Msg;
    type Args = Args;

    fn start(args: &Arc<Args>, ctx: &Context<Msg>) -> Result<Self, NodeError> {
        let (mut revision, address) = (args.board.watch_revision(), ctx.address().clone());
        revision.mark_changed();
        ctx.spawn("follow_desired", async move {
            while revision.changed().await.is_ok() {
                // A full mailbox holds one of these already.
                let _ = address.try_cast(Msg::Look);
            }
            Ok(())
        });
        ctx.cast_after(args.verify_every, Msg::Verify);
        Ok(Self {
            args: args.clone(),
            done: None,
            failed: BTreeSet::new(),
            redo: BTreeSet::new(),
            drifts: BTreeMap::new(),
            timer: None,
        })
    }

    async fn handle(&mut self, ctx: &Context<Msg>, msg: Msg) -> Result<(), NodeError> {
        match msg {
            Msg::Look => {
                if let Some(timer) = self.timer.take() {
                    timer.cancel();
                }
                let ask = self.args.track.ask(track::Msg::Effective, track::PATIENCE);
                let Ok(effective) = ask.await else {
                    // The keeper is restarting.
                    self.timer = Some(ctx.cast_after(Duration::from_secs(1), Msg::Look));
                    return Ok(());
                };
                if let Some(end_ms) = effective.next_end_ms {
                    let ahead_ms = end_ms.saturating_sub(self.args.clock.wall_ms());
                    let wait = Duration::from_millis(ahead_ms + 1).min(LOOK_AGAIN_MAX);
                    self.timer = Some(ctx.cast_after(wait, Msg::Look));
                }
                self.look(effective).await;
                Ok(())
            }
            Msg::Verify => {
                ctx.cast_after(self.args.verify_every, Msg::Verify);
                let drifted = self.drifted().await;
                if !drifted.is_empty() {
                    let (again, given_up): (Vec<_>, Vec<_>) =
                        drifted.into_iter().partition(|path| self.drifts[path] <= DRIFTS_MAX);
                    let mut changes = drifts(&again, self.args.clock.wall_ms());
                    changes.extend(given_up.iter().flat_map(|path| never_holds(path)));
                    self.report(changes).await;
                    self.failed.extend(given_up);
                    self.redo.extend(again);
                    ctx.cast_self(Msg::Look);
                }
                Ok(())
            }
        }
    }

    fn label(msg: &Msg) -> &'static str {
        match msg {
            Msg::Look => "look",
            Msg::Verify => "verify",
        }
    }
}

impl Apply {
    async fn look(&mut self, effective: Effective) {
        let Effective { desired, held, state, .. } = effective;
        let (mut done, mut changes) = match self.done.take() {
            Some(done) => (done, Vec::new()),
            // Settings live in memory and are applied anew; what a hook did outlives the agent.
            None => (applied_before(&state, HOOKS), stale_reports(&state, &desired)),
        };
        changes.extend(lifted(&state, &held));
        let again = std::mem::take(&mut self.redo);
        for step in plan_again(&done, &desired, &again) {
            if let Some(constraint) = held.get(&step.path) {
                tracing::warn!(path = step.path, constraint, "not applied: a constraint holds it");
                changes.extend(held_back(&step, constraint));
                continue;
            }
            let result = self.apply(&step).await.map_err(|error| Failure::of(&error, &step.path));
            match &result {
                Ok(()) => tracing::info!(path = step.path, "applied"),
                Err(failure) => {
                    tracing::warn!(path = step.path, error = failure.text, "not applied")
                }
            }
            if !again.contains(&step.path) {
                // Another value may hold.
                self.drifts.remove(&step.path);
            }
            match result.is_err() {
                true => self.failed.insert(step.path.clone()),
                false => self.failed.remove(&step.path),
            };
            changes.extend(outcome(&step, result));
            match step.value {
                Some(value) => done.insert(step.path, value),
                None => done.remove(&step.path),
            };
        }
        self.done = Some(done);
        self.report(changes).await;
    }

    /// The leaves that were applied and do not hold any more.
    async fn drifted(&mut self) -> Vec<String> {
        let mut drifted = Vec::new();
        let done = self.done.clone().unwrap_or_default();
        for (path, value) in done.iter().filter(|(path, _)| !self.failed.contains(*path)) {
            match self.holds(path, value).await {
                Ok(true) => drop(self.drifts.remove(path)),
                Ok(false) => {
                    tracing::warn!(path, "what was applied does not hold any more");
                    *self.drifts.entry(path.clone()).or_default() += 1;
                    drifted.push(path.clone());
                }
                Err(error) => {
                    let error = with_causes(&error);
                    tracing::warn!(path, error, "it cannot be told whether it holds");
                }
            }
        }
        drifted
    }

    /// Whether what was applied of a leaf still holds; what nobody can check does.
    async fn holds(&self, path: &str, value: &Value) -> Result<bool, ApplyError> {
        if let Some(setting) = path.strip_prefix("sense/") {
            let settings = self.args.settings.borrow().clone();
            return Ok(settings.with(setting, &value.to_json())? == settings);
        }
        if let Some(name) = path.strip_prefix(HOOKS) {
            let holds = hook::holds(self.args.hooks_dir.as_deref(), name, value).await?;
            return Ok(holds.unwrap_or(true));
        }
        Ok(true)
    }

    async fn report(&self, changes: Vec<Change>) {
        if changes.is_empty() {
            return;
        }
        let provenance = Provenance::new(StateSource::Edge, "agent", "applied desired state");
        let draft = Draft { changes, provenance, lease_until_ms: None };
        if let Err(error) = track::write(&self.args.track, draft, None).await {
            tracing::warn!(error = with_causes(&error), "what was applied is not reported");
        }
    }

    async fn apply(&self, step: &Step) -> Result<(), ApplyError> {
        let Step { path, value } = step;
        let value = value.as_ref();
        if let Some(setting) = path.strip_prefix("sense/") {
            return self.set(setting, value);
        }
        if let Some(name) = path.strip_prefix(HOOKS) {
            return Ok(hook::run(self.args.hooks_dir.as_deref(), name, value).await?);
        }
        match path.as_str() {
            "log/level" => {
                let level = self.args.log_level.as_ref().ok_or(ApplyError::NoApplier)?;
                Ok(level.set(text(value)?)?)
            }
            "edge/server_url" => {
                let server = text(value)?.map(parse_server).transpose()?;
                self.args.wanted_server.send_if_modified(|wanted| {
                    let news = *wanted != server;
                    *wanted = server;
                    news
                });
                Ok(())
            }
            // What goes away without an applier was never applied.
            _ if value.is_none() => Ok(()),
            _ => Err(ApplyError::NoApplier),
        }
    }

    fn set(&self, setting: &str, value: Option<&Value>) -> Result<(), ApplyError> {
        let json = match value {
            Some(value) => value.to_json(),
            None => match self.args.configured.value_of(setting) {
                Some(json) => json,
                None => return Ok(()),
            },
        };
        let changed = self.args.settings.borrow().with(setting, &json)?;
        self.args.settings.send_replace(changed);
        Ok(())
    }
}

fn text(value: Option<&Value>) -> Result<Option<&str>, ApplyError> {
    value.map(|value| value.as_str().ok_or(ApplyError::NotText)).transpose()
}
