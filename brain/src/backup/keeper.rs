//! Backups on schedule.

use std::sync::Arc;
use std::time::Duration;

use actors::device::Clock;
use actors::supervise::{Context, Node, NodeError};

use super::{BackupFile, Backups};

/// How often it is looked whether one is due.
const LOOK_EVERY: Duration = Duration::from_secs(60);
/// How soon after the start that is done first.
const LOOK_FIRST: Duration = Duration::from_secs(5);
/// How long it is until one is tried again that failed.
const TRY_AGAIN_AFTER: Duration = Duration::from_secs(600);
const HOUR_MS: u64 = 3_600_000;

/// What the actor starts from.
pub struct BackupArgs {
    /// Who makes them.
    pub backups: Backups,
    /// The time.
    pub clock: Arc<dyn Clock>,
}

/// The actor.
pub struct BackupKeeper {
    args: Arc<BackupArgs>,
}

/// What it is told.
pub enum BackupMsg {
    /// Look whether one is due.
    LookDue,
}

impl Node for BackupKeeper {
    const KIND: &'static str = "backup";
    type Msg = BackupMsg;
    type Args = BackupArgs;

    fn start(args: &Arc<BackupArgs>, ctx: &Context<BackupMsg>) -> Result<Self, NodeError> {
        ctx.cast_after(LOOK_FIRST, BackupMsg::LookDue);
        Ok(Self { args: args.clone() })
    }

    async fn handle(&mut self, ctx: &Context<BackupMsg>, msg: BackupMsg) -> Result<(), NodeError> {
        let BackupMsg::LookDue = msg;
        let backups = self.args.backups.clone();
        let now_ms = self.args.clock.now().wall_ms;
        let made = tokio::task::spawn_blocking(move || make_if_due(&backups, now_ms));
        let next = match ctx.waiting(made).await? {
            Ok(()) => LOOK_EVERY,
            Err(error) => {
                let error = protocol::session::with_causes(&error);
                tracing::error!(error, "a backup on schedule was not made");
                self.args.backups.note_failed(Some(error));
                TRY_AGAIN_AFTER
            }
        };
        ctx.cast_after(next, BackupMsg::LookDue);
        Ok(())
    }

    fn label(_: &BackupMsg) -> &'static str {
        "look_due"
    }
}

fn make_if_due(backups: &Backups, now_ms: u64) -> Result<(), super::BackupError> {
    let settings = backups.settings();
    if settings.recipients.is_empty() || settings.every_hours == 0 {
        return Ok(());
    }
    // One that is dated ahead says nothing: the clock was wrong then.
    let is_past = |file: &BackupFile| file.scheduled && file.created <= now_ms;
    let last = backups.list()?.into_iter().find(is_past).map(|file| file.created);
    if is_due(last, settings.every_hours, now_ms) {
        backups.make(true, now_ms)?;
        backups.note_failed(None);
    }
    Ok(())
}

fn is_due(last_ms: Option<u64>, every_hours: u32, now_ms: u64) -> bool {
    let every_ms = u64::from(every_hours) * HOUR_MS;
    last_ms.is_none_or(|last| now_ms.saturating_sub(last) >= every_ms)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_is_due_when_there_is_none_or_the_last_is_too_old() {
        assert!(is_due(None, 24, 5));
        assert!(!is_due(Some(0), 24, 24 * HOUR_MS - 1));
        assert!(is_due(Some(0), 24, 24 * HOUR_MS));
    }
}
