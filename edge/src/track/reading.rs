//! What links read of logs.

use actors::supervise::NodeError;
use protocol::history::{Entry, LogId, SignedHead};

use super::Fetched;
use super::keeper::{SPOOL_PATIENCE, Track};
use crate::spool;

impl Track {
    pub(super) async fn range(
        &mut self,
        number: u32,
        after: u64,
        bytes_max: usize,
    ) -> Result<Vec<Entry>, NodeError> {
        let ask = |reply| spool::Msg::Range(number, after, bytes_max, reply);
        Ok(self.args.spool.ask(ask, SPOOL_PATIENCE).await??)
    }

    pub(super) async fn fetch(
        &mut self,
        log: LogId,
        after: u64,
        bytes_max: usize,
    ) -> Result<Fetched, NodeError> {
        let Some(number) = self.replica()?.log_number(&log) else { return Ok(Fetched::default()) };
        let entries = self.range(number, after, bytes_max).await?;
        let Some((first, last)) = entries.first().zip(entries.last()) else {
            return Ok(Fetched::default());
        };
        let (first, last) = (first.seq, last.seq);
        let traces = self.traces.sending(log, first, last);
        let is_own = log.author == self.args.identity.keypair.public();
        let seal = match self.args.shared {
            Some(_) if !is_own => self.seal_within(number, after, last).await?,
            _ => None,
        };
        Ok(Fetched { entries, traces, seal })
    }

    /// The highest signed head of a log within what was read of it.
    async fn seal_within(
        &mut self,
        number: u32,
        after: u64,
        up_to: u64,
    ) -> Result<Option<SignedHead>, NodeError> {
        let state = self.replica()?.tree().logs().get(number as usize);
        let latest = state.and_then(|state| state.signed);
        if let Some(latest) = latest.filter(|signed| signed.head.seq <= up_to) {
            return Ok(Some(latest).filter(|signed| signed.head.seq > after));
        }
        let ask = |reply| spool::Msg::Seal(number, after, up_to, reply);
        Ok(self.args.spool.ask(ask, SPOOL_PATIENCE).await??)
    }
}
