//! Who writes in a group's tree.

use protocol::history::{Change, LogId, MEMBERS_MAX, Member, Provenance, member_change};
use protocol::session::Now;
use protocol::state::StateDelta;
use protocol::{DeviceId, ErrorCode, PublicKey, SyncError};

use super::links::News;
use super::twin::Written;
use super::{DeviceMsg, TreeActor, Whose, WriteOutcome, error, not_stored};
use crate::ports::{CommitError, LinkEvent};
use crate::supervise::{Context, Reply};
use crate::trace::Spans;

impl<W: Whose> TreeActor<W> {
    /// Lets a device with a key write, or ends that: then its logs end where they are.
    pub(super) fn set_member(
        &mut self,
        ctx: &Context<DeviceMsg>,
        (device, key, is_current): (DeviceId, PublicKey, bool),
        provenance: Provenance,
        reply: Reply<Result<WriteOutcome, SyncError>>,
        now: Now,
    ) {
        let written =
            match self.member_entry(member_change(device, key, is_current), key, provenance, now) {
                Ok(Some(written)) => written,
                Ok(None) => {
                    let (version, delta) = (self.twin_mut().version(), StateDelta::default());
                    return reply.send(Ok(WriteOutcome { version, entry: None, at: None, delta }));
                }
                Err(refused) => return reply.send(Err(refused)),
            };
        let Written { mut commit, id, version, delta, position } = written;
        let mut news = vec![LinkEvent::stored(position, 0)];
        if !is_current {
            let (ended, cuts) = self.twin_mut().end_logs_of(key);
            commit = commit.and_then(ended);
            news.extend(cuts.into_iter().map(LinkEvent::CutMade));
        }
        let at = None;
        let outcome = WriteOutcome { version, entry: Some(id), at, delta };
        let answer = Box::new(move |result: Result<(), CommitError>| {
            reply.send(
                result.map(|()| outcome).map_err(|error| not_stored(&error, "change members")),
            );
        });
        self.commit(ctx, commit, News::all(news), &Spans::default(), Some(answer));
        let is_member = |(_, member): (_, &Member)| member.device == device && member.is_current;
        if !self.twin_mut().tree().members().any(is_member) {
            // The connection finds nobody to attach to; the device's own tree tells it why.
            self.links.remove_device(device);
        }
        self.seal_soon(ctx);
    }

    /// Ends a log whose author has lost what it had not signed of it: others are given that by this
    /// brain's word.
    pub(super) fn end_lost(&mut self, ctx: &Context<DeviceMsg>, log: LogId) {
        let Some((commit, cut)) = self.twin_mut().end_lost(log) else { return };
        tracing::warn!(group = %self.args.of, last_seq = cut.last_seq, "a member lost its log, which ends");
        let news = News::all(vec![LinkEvent::CutMade(cut)]);
        self.commit(ctx, commit, news, &Spans::default(), None);
    }

    fn member_entry(
        &mut self,
        change: Change,
        key: PublicKey,
        provenance: Provenance,
        now: Now,
    ) -> Result<Option<Written>, SyncError> {
        let tree = self.twin_mut().tree();
        if tree.member(&key).is_none() && tree.members().count() >= MEMBERS_MAX {
            let text = format!("a group has room for {MEMBERS_MAX} members, former ones included");
            return Err(error(ErrorCode::TreeFull, "set member", text));
        }
        let written = self.twin_mut().write(vec![change], provenance, now);
        written.map_err(|refusal| error(refusal.code(), "set member", refusal.to_string()))
    }

    /// Only members hold a connection to a group's tree.
    pub(super) fn check_member(&mut self, device: DeviceId) -> Result<(), SyncError> {
        let is_member = |(_, member): (_, &Member)| member.device == device && member.is_current;
        if self.twin_mut().tree().members().any(is_member) {
            return Ok(());
        }
        let text = format!("device {device} is no member of {}", self.args.of);
        Err(error(ErrorCode::Forbidden, "attach", text))
    }
}
