//! The span of a request that changes something.

use std::convert::Infallible;

use actors::trace;
use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use protocol::trace::TraceContext;
use tracing::Span;

/// Open until the request is answered. It goes on from the request's `traceparent`, whose decision
/// not to sample is respected; without one, every request that changes something is sampled.
pub(super) struct ApiSpan(Span);

impl ApiSpan {
    /// What the actors go on from; none where nobody exports.
    pub(super) fn context(&self) -> Option<TraceContext> {
        trace::context_of(&self.0)
    }
}

impl<S: Sync> FromRequestParts<S> for ApiSpan {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        let header = parts.headers.get("traceparent").and_then(|value| value.to_str().ok());
        // The specification has a bad header ignored.
        let caller: Option<TraceContext> = header.and_then(|text| text.parse().ok());
        if caller.is_some_and(|caller| !caller.is_sampled()) {
            return Ok(Self(Span::none()));
        }
        let span = tracing::info_span!(
            target: "fleet::trace",
            parent: None,
            "api.write",
            otel.kind = "server",
            http.request.method = %parts.method,
            url.path = parts.uri.path(),
        );
        if let Some(caller) = caller {
            trace::go_on(&span, caller);
        }
        Ok(Self(span))
    }
}
