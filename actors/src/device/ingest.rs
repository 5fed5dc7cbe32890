//! Entries that the device sends.

use protocol::EntryId;
use protocol::history::{Entry, LogId, Refusal};
use protocol::session::Now;
use protocol::wire::LogPosition;

use super::commits::settling;
use super::links::News;
use super::{DeviceMsg, TreeActor, Whose, error};
use crate::account::{InFlight, Outcome, Reason};
use crate::ports::{Evidence, LinkEvent};
use crate::supervise::{Context, NodeError};
use crate::trace::Spans;

/// Entries that came over the link.
pub(super) struct Came {
    pub(super) connection: u64,
    pub(super) log: LogId,
    pub(super) entries: Vec<(EntryId, Entry)>,
    pub(super) bytes: u32,
    pub(super) in_flight: InFlight,
}

impl<W: Whose> TreeActor<W> {
    /// Judges entries, and has those that are new made durable.
    pub(super) async fn ingest(
        &mut self,
        ctx: &Context<DeviceMsg>,
        came: Came,
        spans: &Spans,
        now: Now,
    ) -> Result<(), NodeError> {
        let Came { connection, log, entries, bytes, in_flight } = came;
        #[cfg(feature = "chaos")]
        super::letters::fail_at(&["reported/chaos/poison", "reported/chaos/deadly"], &entries);
        let came = entries.len() as u32;
        if self.is_behind_refused(connection, log, &entries) {
            let outcome = Outcome::refused(came, Reason::BehindRefused);
            let position = LogPosition::of(self.twin_mut().tree(), log);
            let news = News::of(connection, vec![LinkEvent::stored(position, bytes)]);
            self.nothing_new(ctx, news, spans, in_flight, outcome);
            return Ok(());
        }
        let mut result = self.twin_mut().ingest(entries, now);
        let mut unread = came - (result.new + result.known.len()) as u32;
        let contradicted = match result.known.is_empty() {
            true => None,
            false => Box::pin(self.contradicted(ctx, &log, &result.known)).await?,
        };
        if let Some(seq) = contradicted {
            result.refused = Some((seq, Refusal::Equivocation { log, seq }));
        } else if result.refused.is_some() {
            unread -= 1;
        }
        let refusal = result.refused.as_ref().map(|(_, refusal)| refusal.code());
        let outcome = Outcome::judged(came, result.new as u32, refusal, unread);
        let mut news = News::of(connection, vec![LinkEvent::stored(result.position, bytes)]);
        if let Some((seq, refusal)) = &result.refused {
            let bytes = std::mem::take(&mut result.refused_bytes);
            news.push(self.refuse(connection, log, *seq, refusal, bytes, now));
        }
        match result.commit {
            Some(commit) => {
                self.commit(ctx, commit, news, spans, Some(settling(in_flight, outcome)));
            }
            None => self.nothing_new(ctx, news, spans, in_flight, outcome),
        }
        Ok(())
    }

    /// Tells of entries of which none is to be stored, once what is here is on disk.
    fn nothing_new(
        &mut self,
        ctx: &Context<DeviceMsg>,
        news: News,
        spans: &Spans,
        in_flight: InFlight,
        outcome: Outcome,
    ) {
        if self.args.commits.any() {
            let commit = self.twin_mut().settle();
            self.commit(ctx, commit, news, spans, Some(settling(in_flight, outcome)));
        } else {
            in_flight.settle(&outcome);
            news.deliver(&self.links.ears());
        }
    }

    /// Whether entries follow one that was not taken: the device has yet to deal with that.
    fn is_behind_refused(
        &mut self,
        connection: u64,
        log: LogId,
        entries: &[(EntryId, Entry)],
    ) -> bool {
        let first = entries.first().map_or(0, |(_, entry)| entry.seq);
        let Some(link) = self.links.get_mut(connection) else { return false };
        match link.refused {
            Some((of, seq)) if of == log && first > seq => true,
            Some((of, _)) if of == log => {
                link.refused = None;
                false
            }
            _ => false,
        }
    }

    fn refuse(
        &mut self,
        connection: u64,
        log: LogId,
        seq: u64,
        refusal: &Refusal,
        bytes: Vec<u8>,
        now: Now,
    ) -> LinkEvent {
        let (code, fatal) = (refusal.code(), refusal.is_fatal());
        let error = error(code, "ingest", refusal.to_string());
        tracing::warn!(tree = %self.args.of, %code, seq, "entry refused");
        let link = self.links.get_mut(connection);
        let device = link.map(|link| {
            link.refused = Some((log, seq));
            link.device
        });
        if let Some(device) = device.filter(|_| fatal) {
            self.args.store.keep_evidence(Evidence {
                device,
                at_ms: now.wall_ms,
                error: error.clone(),
                bytes,
            });
        }
        LinkEvent::Refused { log, seq, error, consumed_bytes: 0, fatal }
    }
}
