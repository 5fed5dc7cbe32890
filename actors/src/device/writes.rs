//! What people and programs have the twin write.

use protocol::conflict::Resolution;
use protocol::history::{Change, Provenance};
use protocol::session::Now;
use protocol::state::{StateDelta, Version};
use protocol::trace::{EntryTrace, TraceContext};
use protocol::{ConflictId, ErrorCode, SyncError};
use tracing::Span;

use super::links::News;
use super::twin::{SaveError, Written};
use super::{DeviceMsg, TreeActor, Whose, WriteOutcome, error, not_stored};
use crate::ports::{CommitError, LinkEvent};
use crate::supervise::{Context, Reply};
use crate::trace::{self, Spans};
use crate::traced_span;

impl<W: Whose> TreeActor<W> {
    pub(super) fn write(
        &mut self,
        ctx: &Context<DeviceMsg>,
        changes: Vec<Change>,
        provenance: Provenance,
        trace: Option<TraceContext>,
        reply: Reply<Result<WriteOutcome, SyncError>>,
        now: Now,
    ) {
        let span = trace.map(|trace| self.write_span(trace));
        let paths: Vec<_> = changes.iter().map(|(path, _)| path.clone()).collect();
        let written = match self.twin_mut().write(changes, provenance, now) {
            Ok(Some(written)) => written,
            Ok(None) => {
                let version = self.twin_mut().version();
                let delta = StateDelta::default();
                // It has come as far as what set the same before.
                let at = self.twin_mut().last_written(&paths);
                return reply.send(Ok(WriteOutcome { version, entry: None, at, delta }));
            }
            Err(refusal) => {
                return reply.send(Err(error(refusal.code(), "write", refusal.to_string())));
            }
        };
        let Written { commit, id, version, delta, position } = written;
        let at = Some((position.log, position.seq));
        let outcome = WriteOutcome { version, entry: Some(id), at, delta };
        let answer = Box::new(move |result: Result<(), CommitError>| {
            reply.send(result.map(|()| outcome).map_err(|error| not_stored(&error, "write")));
        });
        let mut news = Vec::new();
        let (log, seq) = (position.log, position.seq);
        if let Some(context) = span.as_ref().and_then(trace::context_of) {
            news.push(LinkEvent::Traced { log, trace: EntryTrace { seq, context } });
        }
        news.push(LinkEvent::stored(position, 0));
        self.commit(ctx, commit, News::all(news), &span.into_iter().collect(), Some(answer));
        self.seal_soon(ctx);
    }

    pub(super) fn resolve(
        &mut self,
        ctx: &Context<DeviceMsg>,
        id: ConflictId,
        reply: Reply<Result<Option<Resolution>, SyncError>>,
        now: Now,
    ) {
        let Some((commit, resolution)) = self.twin_mut().resolve(id, now) else {
            return reply.send(Ok(None));
        };
        let answer = move |result: Result<(), CommitError>| {
            reply.send(
                result.map(|()| Some(resolution)).map_err(|error| not_stored(&error, "resolve")),
            );
        };
        // Whoever asks is who would be told.
        self.queue(ctx, commit, Box::new(answer));
    }

    pub(super) fn snapshot(
        &mut self,
        ctx: &Context<DeviceMsg>,
        reply: Reply<Result<Version, SyncError>>,
    ) {
        let version = self.twin_mut().version();
        if version == 0 {
            let text = "the device has no state yet";
            return reply.send(Err(error(ErrorCode::NotFound, "snapshot", text)));
        }
        let commit = self.twin_mut().snapshot();
        let answer = Box::new(move |result: Result<(), CommitError>| {
            reply.send(result.map(|()| version).map_err(|error| not_stored(&error, "snapshot")));
        });
        self.commit(ctx, commit, News::default(), &Spans::default(), Some(answer));
    }

    fn write_span(&self, parent: TraceContext) -> Span {
        traced_span!(parent, "device.write", device.id = %self.args.of)
    }
}

/// The error of a state that cannot be saved.
pub(super) fn save_error(source: &SaveError) -> SyncError {
    let code = match source {
        SaveError::Forked { .. } => ErrorCode::VersionForked,
        SaveError::Past { .. } => ErrorCode::VersionStale,
        SaveError::Future { .. } => ErrorCode::VersionFuture,
        SaveError::Forbidden { .. } => ErrorCode::Forbidden,
    };
    error(code, "save state", source.to_string())
}
