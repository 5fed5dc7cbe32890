//! Errors as `application/problem+json` (RFC 9457).

use axum::Json;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use protocol::{ErrorAnalysis, ErrorCode, ErrorSource, Layer, SyncError};
use serde::Serialize;

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
    #[serde(flatten)]
    analysis: ErrorAnalysis,
    guidance: &'static str,
}

impl Problem {
    /// A request that names no valid operation.
    pub fn bad_request(text: impl Into<String>) -> Self {
        let origin = ErrorSource::new(Layer::Api, "request", "parse");
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

    /// A bug or a worker that is gone.
    pub fn internal(text: impl Into<String>) -> Self {
        let origin = ErrorSource::new(Layer::Api, "request", "handle");
        SyncError::new(ErrorCode::Internal, origin, text).into()
    }
}

impl From<SyncError> for Problem {
    fn from(error: SyncError) -> Self {
        Self { status: status_of(error.code), error }
    }
}

impl From<actors::ports::ReadError> for Problem {
    fn from(error: actors::ports::ReadError) -> Self {
        error.to_sync_error().into()
    }
}

impl From<crate::devices::TwinError> for Problem {
    fn from(error: crate::devices::TwinError) -> Self {
        error.to_sync_error().into()
    }
}

impl From<tokio::task::JoinError> for Problem {
    fn from(error: tokio::task::JoinError) -> Self {
        Self::internal(format!("a reading task ended: {error}"))
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
        response
    }
}

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

/// What a person can do about it.
fn guidance(code: ErrorCode) -> &'static str {
    use ErrorCode as E;
    match code {
        E::Unauthenticated => {
            "send `Authorization: Bearer TOKEN`; `brain init` wrote one to admin.token"
        }
        E::NotFound => "check the id with `brain device list`",
        E::DiskFull => "free disk space; writes are taken again by themselves",
        E::VersionStale | E::VersionFuture | E::VersionForked | E::PreconditionFailed => {
            "read the current version and try again"
        }
        E::Forbidden => {
            "desired/ and tags/ are written here; a device writes the rest of its tree itself"
        }
        E::ConstraintViolated => {
            "see what holds with `brain constraint show`, and change that first"
        }
        E::HistoryPruned => {
            "how much is kept follows from the settings below `history`; ask for a later version"
        }
        E::Retired => {
            "a device enrols again, as another device; a group is made under another name"
        }
        E::Corrupt => "stop the brain and restore the data folder from a backup",
        E::Overloaded | E::TimedOut | E::StoreFailed | E::GoingAway => "try again in a few seconds",
        E::Quarantined => {
            "see why with `brain quarantine list`; `brain quarantine release PATH` ends it at once"
        }
        E::DeadLettered => {
            "it is kept: `brain quarantine list` shows it, `brain quarantine replay ID` tries again"
        }
        _ => "see /api/v1/docs",
    }
}
