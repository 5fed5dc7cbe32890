//! W3C trace context, which travels beside sampled entries and never inside them.
//!
//! <https://www.w3.org/TR/trace-context/>, level 1.

use std::fmt;
use std::str::FromStr;

use data_encoding::HEXLOWER;
use serde::{Deserialize, Serialize};

/// The most contexts that one frame carries; the entries of others are sent untraced.
pub const TRACES_MAX: usize = 64;

/// Names a span that goes on somewhere else.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct TraceContext {
    /// The trace; not all zero.
    pub trace_id: [u8; 16],
    /// The span in it; not all zero.
    pub span_id: [u8; 8],
    /// Bit 0: the trace is sampled.
    pub flags: u8,
}

/// The trace context of one entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct EntryTrace {
    /// The entry's number in its log.
    pub seq: u64,
    /// The span that it left.
    pub context: TraceContext,
}

/// A `traceparent` that is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a traceparent: expected 00-<32 hex digits>-<16 hex digits>-<2 hex digits>")]
pub struct TraceParentError;

impl TraceContext {
    /// Whether spans of this trace are recorded.
    pub fn is_sampled(&self) -> bool {
        self.flags & 1 == 1
    }

    /// Whether both ids name something.
    pub fn is_valid(&self) -> bool {
        self.trace_id != [0; 16] && self.span_id != [0; 8]
    }
}

/// Written as the header `traceparent`.
impl fmt::Display for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (trace, span) = (HEXLOWER.encode(&self.trace_id), HEXLOWER.encode(&self.span_id));
        write!(f, "00-{trace}-{span}-{:02x}", self.flags)
    }
}

impl FromStr for TraceContext {
    type Err = TraceParentError;

    /// Reads the header `traceparent`. Of later versions the part that version 00 has is read.
    fn from_str(text: &str) -> Result<Self, TraceParentError> {
        let mut parts = text.split('-');
        let mut part = || parts.next().ok_or(TraceParentError);
        let [version] = bytes(part()?)?;
        let context = Self {
            trace_id: bytes(part()?)?,
            span_id: bytes(part()?)?,
            flags: bytes::<1>(part()?)?[0],
        };
        let too_long = version == 0 && parts.next().is_some();
        let valid = version != 0xff && !too_long && context.is_valid();
        valid.then_some(context).ok_or(TraceParentError)
    }
}

fn bytes<const N: usize>(text: &str) -> Result<[u8; N], TraceParentError> {
    let bytes = HEXLOWER.decode(text.as_bytes()).map_err(|_| TraceParentError)?;
    bytes.try_into().map_err(|_| TraceParentError)
}

#[cfg(test)]
mod tests {
    use super::*;

    // The example of the specification.
    const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn a_traceparent_reads_and_writes() {
        let context: TraceContext = PARENT.parse().expect("valid");
        assert!(context.is_sampled());
        assert_eq!(context.span_id, [0, 0xf0, 0x67, 0xaa, 0x0b, 0xa9, 0x02, 0xb7]);
        assert_eq!(context.to_string(), PARENT);
    }

    #[test]
    fn a_later_version_may_say_more() {
        let later = PARENT.replacen("00", "01", 1) + "-more";
        assert_eq!(later.parse::<TraceContext>().map(|c| c.to_string()), Ok(PARENT.into()));
    }

    #[test]
    fn what_is_no_traceparent_is_refused() {
        let zero_trace = "00-00000000000000000000000000000000-00f067aa0ba902b7-01";
        let zero_span = "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01";
        let upper = PARENT.to_uppercase();
        let (long, forbidden) = (format!("{PARENT}-x"), PARENT.replacen("00", "ff", 1));
        for text in ["", "00", zero_trace, zero_span, &upper, &long, &forbidden, &PARENT[..54]] {
            assert_eq!(text.parse::<TraceContext>(), Err(TraceParentError), "{text}");
        }
    }
}
