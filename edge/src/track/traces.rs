//! Sampled entries on their way to the brain.

use std::collections::BTreeMap;

use actors::trace::context_of;
use actors::traced_span;
use protocol::history::LogId;
use protocol::trace::{EntryTrace, TRACES_MAX, TraceContext};
use tracing::Span;

/// From the commit of a sampled entry to its acknowledgement. Kept in memory only, and no more
/// than a frame carries: what is forgotten is delivered untraced.
#[derive(Debug, Default)]
pub(super) struct Traces(BTreeMap<(LogId, u64), Stage>);

#[derive(Debug)]
enum Stage {
    Committed(TraceContext),
    /// Ends with the acknowledgement.
    Sent(Span),
}

impl Traces {
    /// An entry was written.
    pub(super) fn written(&mut self, log: LogId, seq: u64, context: TraceContext) {
        if self.0.len() == TRACES_MAX {
            self.0.pop_first();
        }
        self.0.insert((log, seq), Stage::Committed(context));
    }

    /// Entries `first` to `last` are about to be sent, perhaps not for the first time.
    pub(super) fn sending(&mut self, log: LogId, first: u64, last: u64) -> Vec<EntryTrace> {
        let mut traces = Vec::new();
        for ((_, seq), stage) in self.0.range_mut((log, first)..=(log, last)) {
            if let Stage::Committed(parent) = stage {
                let kind = "producer";
                let span =
                    traced_span!(*parent, "entry.deliver", otel.kind = kind, entry.seq = *seq);
                *stage = Stage::Sent(span);
            }
            if let Stage::Sent(span) = stage
                && let Some(context) = context_of(span)
            {
                traces.push(EntryTrace { seq: *seq, context });
            }
        }
        traces
    }

    /// The brain has made entries up to `stored` durable.
    pub(super) fn acknowledged(&mut self, log: LogId, stored: u64) {
        if !self.0.is_empty() {
            self.0.retain(|(of, seq), _| *of != log || *seq > stored);
        }
    }
}

#[cfg(test)]
mod tests {
    use protocol::PublicKey;

    use super::*;

    #[test]
    fn what_waits_is_bounded_and_ends_with_the_acknowledgement() {
        let log = LogId { author: PublicKey([1; 32]), epoch: 1 };
        let context = TraceContext { trace_id: [1; 16], span_id: [2; 8], flags: 1 };
        let mut traces = Traces::default();
        for seq in 1..=2 * TRACES_MAX as u64 {
            traces.written(log, seq, context);
        }
        assert_eq!(traces.0.len(), TRACES_MAX);
        assert_eq!(traces.sending(log, 1, u64::MAX), [], "nobody exports in this test");
        traces.acknowledged(log, 2 * TRACES_MAX as u64 - 1);
        assert_eq!(traces.0.len(), 1);
    }
}
