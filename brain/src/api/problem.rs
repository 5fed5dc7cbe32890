//! Errors as `application/problem+json` (RFC 9457).

mod guidance;
mod request;

use actors::ports::{CommitError, ReadError};
use axum::Json;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use protocol::error::Cause;
use protocol::{ErrorAnalysis, ErrorCode, ErrorSource, Layer, SyncError};
use serde::Serialize;

use crate::backup::BackupError;
use crate::devices::TwinError;
use guidance::guidance;

pub(super) use request::in_request;

/// An answer that says what went wrong.
#[derive(Debug)]
pub struct Problem {
    status: StatusCode,
    error: SyncError,
}

#[derive(Serialize)]
struct Body<'a> {
    r#type: &'static str,
    title: &'a str,
    status: u16,
    detail: &'a str,
    error: &'a SyncError,
    /// From the request inwards to where it arose and what was found below.
    causes: Vec<Cause>,
    #[serde(flatten)]
    analysis: ErrorAnalysis,
    guidance: &'static str,
}

impl Problem {
    /// A request that names no valid operation: what was looked at when that was noticed, and why.
    pub fn bad_request(operation: &str, text: impl Into<String>) -> Self {
        let origin = ErrorSource::new(Layer::Api, "request", operation);
        SyncError::new(ErrorCode::BadRequest, origin, text).into()
    }

    /// Whether it is of this kind.
    pub(super) fn is(&self, code: ErrorCode) -> bool {
        self.error.code == code
    }

    /// A credential that is missing or wrong.
    pub fn unauthenticated(text: &str) -> Self {
        let origin = ErrorSource::new(Layer::Api, "auth", "check token");
        SyncError::new(ErrorCode::Unauthenticated, origin, text).into()
    }

    /// A bug, or a worker that is gone.
    pub fn internal(operation: &str, text: &str) -> Self {
        let origin = ErrorSource::new(Layer::Api, "request", operation);
        SyncError::new(ErrorCode::Internal, origin, text).into()
    }
}

impl From<SyncError> for Problem {
    fn from(error: SyncError) -> Self {
        Self { status: status_of(error.code), error }
    }
}

impl From<ReadError> for Problem {
    fn from(error: ReadError) -> Self {
        let text = "what the request needs cannot be read";
        let reading = Cause::new(Layer::Brain, "reader", "read for request", text);
        error.to_sync_error().within(reading).into()
    }
}

impl From<CommitError> for Problem {
    fn from(error: CommitError) -> Self {
        let text = "the change is not stored";
        let changing = Cause::new(Layer::Brain, "registry", "change", text);
        error.to_sync_error().within(changing).into()
    }
}

impl From<TwinError> for Problem {
    fn from(error: TwinError) -> Self {
        error.to_sync_error().into()
    }
}

impl From<BackupError> for Problem {
    fn from(error: BackupError) -> Self {
        // Where it lies is for those who run the brain.
        tracing::warn!(error = protocol::session::with_causes(&error), "a backup is not made");
        error.to_sync_error().into()
    }
}

impl From<tokio::task::JoinError> for Problem {
    fn from(error: tokio::task::JoinError) -> Self {
        tracing::error!(%error, "the work for a request ended early");
        Self::internal("work", "the work for the request ended early")
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let body = Body {
            r#type: "about:blank",
            title: self.error.code.as_str(),
            status: self.status.as_u16(),
            detail: &self.error.message,
            error: &self.error,
            causes: self.error.causes(),
            analysis: self.error.code.analysis(),
            guidance: guidance(self.error.code),
        };
        let mut response = (self.status, Json(body)).into_response();
        let problem = header::HeaderValue::from_static("application/problem+json");
        response.headers_mut().insert(header::CONTENT_TYPE, problem);
        if self.error.recoverable {
            let seconds = header::HeaderValue::from_static("5");
            response.headers_mut().insert(header::RETRY_AFTER, seconds);
        }
        if self.status == StatusCode::UNAUTHORIZED {
            let bearer = header::HeaderValue::from_static("Bearer");
            response.headers_mut().insert(header::WWW_AUTHENTICATE, bearer);
        }
        response.extensions_mut().insert(Told(self.error));
        response
    }
}

/// The error that an answer tells of, for whoever knows more about the request.
#[derive(Debug, Clone)]
struct Told(SyncError);

/// The answer where no route is.
pub(super) async fn no_route() -> Problem {
    let origin = ErrorSource::new(Layer::Api, "router", "route");
    SyncError::new(ErrorCode::NotFound, origin, "there is nothing here; see /api/v1/docs").into()
}

fn status_of(code: ErrorCode) -> StatusCode {
    use ErrorCode as E;
    match code {
        E::Malformed | E::BadRequest | E::BadPath | E::BadValue | E::UnexpectedFrame => {
            StatusCode::BAD_REQUEST
        }
        E::VersionUnsupported | E::CodecUnknown | E::Truncated | E::NotUtf8 => {
            StatusCode::BAD_REQUEST
        }
        E::Unauthenticated | E::BadSignature | E::BadCertificate | E::BadToken => {
            StatusCode::UNAUTHORIZED
        }
        E::Forbidden | E::WrongFleet | E::WrongRole | E::Fenced | E::ClonedIdentity => {
            StatusCode::FORBIDDEN
        }
        E::NotFound | E::UnknownTree => StatusCode::NOT_FOUND,
        E::HistoryPruned | E::Retired => StatusCode::GONE,
        E::TooLarge | E::DecompressionBomb => StatusCode::PAYLOAD_TOO_LARGE,
        E::VersionStale | E::VersionFuture | E::VersionForked | E::Equivocation | E::LogCut => {
            StatusCode::CONFLICT
        }
        E::SequenceGap | E::MissingCause | E::ClockAhead | E::TreeFull => StatusCode::CONFLICT,
        E::DiskFull => StatusCode::INSUFFICIENT_STORAGE,
        E::TimedOut => StatusCode::GATEWAY_TIMEOUT,
        E::StoreFailed | E::Overloaded | E::GoingAway | E::Quarantined => {
            StatusCode::SERVICE_UNAVAILABLE
        }
        E::DeadLettered | E::ConstraintViolated => StatusCode::UNPROCESSABLE_ENTITY,
        E::PreconditionFailed => StatusCode::PRECONDITION_FAILED,
        E::Corrupt | E::FormatNewer | E::Internal => StatusCode::INTERNAL_SERVER_ERROR,
    }
}
