//! Spans of sampled entries, and how they go on across actors and processes.
//!
//! A span is opened only where something sampled is at hand, with the target [`TARGET`]: whoever
//! exports takes these and no others, so that what is not sampled costs nothing. Spans cross
//! mailboxes, threads and links as a [`TraceContext`]; without an exporter there is none.

use opentelemetry::trace::{SpanContext, SpanId, TraceContextExt, TraceFlags, TraceId, TraceState};
use protocol::trace::{EntryTrace, TraceContext};
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt;

/// The target of the spans that are exported.
pub const TARGET: &str = "fleet::trace";

/// Says which of the things that begin here are traced.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sampler {
    /// The share of all 64-bit numbers below this is the share that is sampled.
    below: u64,
}

impl Sampler {
    /// Samples nothing.
    pub const NEVER: Self = Self { below: 0 };

    /// Samples this share of all things: 0 is none, 1 is all.
    pub fn new(ratio: f64) -> Self {
        // The conversion saturates.
        Self { below: (ratio * u64::MAX as f64) as u64 }
    }

    /// Whether what drew this random number is sampled.
    pub fn samples(self, random: u64) -> bool {
        self.below == u64::MAX || random < self.below
    }
}

/// Makes a span that has not begun the child of one elsewhere.
pub fn go_on(span: &Span, parent: TraceContext) {
    let parent = opentelemetry::Context::new().with_remote_span_context(span_context(parent));
    // An error means that nobody exports, or that the span is disabled.
    let _ = span.set_parent(parent);
}

/// Links a span to one of another trace.
pub fn link(span: &Span, to: TraceContext) {
    span.add_link(span_context(to));
}

/// What others need to go on from a span; none where it is not exported.
pub fn context_of(span: &Span) -> Option<TraceContext> {
    if span.is_disabled() {
        return None;
    }
    let context = span.context();
    let span_context = context.span().span_context().clone();
    let sampled = span_context.is_valid() && span_context.is_sampled();
    sampled.then(|| TraceContext {
        trace_id: span_context.trace_id().to_bytes(),
        span_id: span_context.span_id().to_bytes(),
        flags: span_context.trace_flags().to_u8(),
    })
}

/// The spans of sampled entries at one stage of their way; mostly there are none.
#[derive(Debug, Default)]
pub struct Spans(Vec<Span>);

impl Spans {
    /// Opens the first stage in this process.
    pub fn open(traces: &[EntryTrace], stage: impl Fn(&EntryTrace) -> Span) -> Self {
        Self(traces.iter().filter(|trace| trace.context.is_sampled()).map(stage).collect())
    }

    /// Opens the next stage: a child of each span that somebody exports.
    pub fn then(&self, stage: impl Fn(TraceContext) -> Span) -> Self {
        Self(self.0.iter().filter_map(context_of).map(stage).collect())
    }
}

impl FromIterator<Span> for Spans {
    fn from_iter<I: IntoIterator<Item = Span>>(spans: I) -> Self {
        Self(spans.into_iter().collect())
    }
}

fn span_context(context: TraceContext) -> SpanContext {
    SpanContext::new(
        TraceId::from_bytes(context.trace_id),
        SpanId::from_bytes(context.span_id),
        TraceFlags::new(context.flags),
        true,
        TraceState::default(),
    )
}

/// Opens a span for something sampled, as the child of `$parent`.
#[macro_export]
macro_rules! traced_span {
    ($parent:expr, $name:literal $(, $($fields:tt)*)?) => {{
        let span = ::tracing::info_span!(
            target: "fleet::trace", parent: None, $name $(, $($fields)*)?
        );
        $crate::trace::go_on(&span, $parent);
        span
    }};
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sampler_takes_its_share() {
        let numbers = (0..1_000u64).map(|n| n * (u64::MAX / 1_000));
        let share = |ratio| numbers.clone().filter(|n| Sampler::new(ratio).samples(*n)).count();
        assert_eq!((share(0.0), share(0.01), share(0.5), share(1.0)), (0, 11, 501, 1_000));
        assert!(Sampler::new(1.0).samples(u64::MAX) && !Sampler::NEVER.samples(0));
    }

    #[test]
    fn without_an_exporter_there_is_no_context() {
        let span = tracing::info_span!(target: TARGET, "test");
        assert_eq!(context_of(&span), None);
    }
}
