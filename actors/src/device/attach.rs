//! How connections find their twin.

use protocol::history::LogState;
use protocol::session::Now;
use protocol::{ErrorCode, SyncError};

use super::commits::pass_on;
use super::{
    Attached, DeviceMsg, Link, Links, TreeActor, TreeOf, Verdict, Whose, error, not_stored,
};
use crate::ports::LinkEvent;
use crate::supervise::{Context, Reply};

impl<W: Whose> TreeActor<W> {
    pub(super) fn attach(
        &mut self,
        ctx: &Context<DeviceMsg>,
        link: Link,
        reply: Reply<Result<Attached, SyncError>>,
        now: Now,
    ) {
        let (connection, device) = (link.connection, link.device);
        let admitted = match self.args.of {
            TreeOf::Device { .. } => self.take_over_from_older(&link, now),
            TreeOf::Group { .. } => self.check_member(device),
        };
        if let Err(refused) = admitted {
            return reply.send(Err(refused));
        }
        self.links.add(link);
        // What a new connection is told must be on disk: it counts as acknowledged.
        let is_shared = matches!(self.args.of, TreeOf::Group { .. });
        let twin = self.twin_mut();
        let root = is_shared.then(|| twin.tree().root());
        let attached = Attached { replica: twin.replica(), root };
        if !self.args.commits.any() {
            self.answer_attached(connection, attached, reply);
        } else {
            let commit = self.twin_mut().settle();
            let address = ctx.address().clone();
            self.queue(
                ctx,
                commit,
                Box::new(move |result| match result {
                    Ok(()) => {
                        pass_on(&address, DeviceMsg::Settled { connection, attached, reply });
                    }
                    Err(failed) => reply.send(Err(not_stored(&failed, "attach"))),
                }),
            );
        }
    }

    /// A device has one connection: the newest, unless two machines take turns.
    fn take_over_from_older(&mut self, link: &Link, now: Now) -> Result<(), SyncError> {
        match self.fencing.on_attach(self.links.newest(), link.connection, now.mono_ms) {
            Verdict::Attach => {
                let text = "a newer connection of this device took over";
                let error = error(ErrorCode::Fenced, "attach", text);
                self.links.tell(&LinkEvent::Close { error, retry_after_ms: None });
                self.links = Links::default();
                Ok(())
            }
            Verdict::Stale => {
                let text = "a newer connection of this device is already here";
                Err(error(ErrorCode::Fenced, "attach", text))
            }
            Verdict::Cloned { retry_after_ms } => {
                let text = "two machines use this device's identity; enrol one of them anew";
                let error = error(ErrorCode::ClonedIdentity, "attach", text);
                let peer = &link.peer;
                tracing::warn!(device = %self.args.of, peer, "cloned identity, quarantined");
                let retry_after_ms = Some(retry_after_ms);
                self.links.tell(&LinkEvent::Close { error: error.clone(), retry_after_ms });
                self.links = Links::default();
                Err(error)
            }
        }
    }

    pub(super) fn answer_attached(
        &mut self,
        connection: u64,
        attached: Attached,
        reply: Reply<Result<Attached, SyncError>>,
    ) {
        reply.send(Ok(attached));
        let is_shared = matches!(self.args.of, TreeOf::Group { .. });
        let said = |log: &LogState| {
            // Members hear of every log's end, a device of those that the brain made when it did.
            let cut = log.cut.as_ref().filter(|_| is_shared).cloned();
            // The session drops those seals that the device has already.
            let (cut, sealed) = (cut.map(LinkEvent::CutMade), log.signed.map(LinkEvent::Sealed));
            cut.into_iter().chain(sealed)
        };
        let said: Vec<_> = self.twin_mut().tree().logs().iter().flat_map(said).collect();
        said.into_iter().for_each(|event| self.links.send(connection, event));
    }
}
