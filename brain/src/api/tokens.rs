//! Enrolment tokens.

use actors::device::Clock;
use axum::Json;
use axum::extract::State;
use protocol::keys::EnrolmentToken;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use utoipa::ToSchema;

use super::{Api, Problem};
use crate::store::{EnrolmentRecord, RegistryChange};

/// The longest that a token may hold.
const VALID_SECONDS_MAX: u64 = 365 * 24 * 60 * 60;
/// The longest label, in bytes: it is a name for people, and every listing repeats it.
const LABEL_BYTES_MAX: usize = 256;

/// What an enrolment token is to be good for.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct TokenRequest {
    /// How many devices may join with it.
    pub uses: u32,
    /// How long it holds, in seconds.
    pub valid_seconds: u64,
    /// What people call it.
    pub label: String,
}

impl Default for TokenRequest {
    fn default() -> Self {
        Self { uses: 1, valid_seconds: 24 * 60 * 60, label: String::new() }
    }
}

impl TokenRequest {
    pub(super) fn check(&self) -> Result<(), Problem> {
        if self.uses == 0 || !(1..=VALID_SECONDS_MAX).contains(&self.valid_seconds) {
            let text = format!("uses is at least 1, valid_seconds 1 to {VALID_SECONDS_MAX}");
            return Err(Problem::bad_request("check token", text));
        }
        let bytes = self.label.len();
        if bytes > LABEL_BYTES_MAX {
            let text = format!("label has {bytes} bytes; {LABEL_BYTES_MAX} are allowed");
            return Err(Problem::bad_request("check token", text));
        }
        Ok(())
    }
}

/// A new enrolment token.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct NewToken {
    /// Its number.
    pub number: u64,
    /// The token, shown this once.
    pub token: String,
    /// Until when it holds, in milliseconds since the Unix epoch.
    pub expires_ms: u64,
}

/// An enrolment token without its secret.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct TokenInfo {
    number: u64,
    uses_left: u32,
    expires_ms: u64,
    created_ms: u64,
    label: String,
}

/// Make an enrolment token.
#[utoipa::path(post, path = "/api/v1/enrolment-tokens", security(("bearer" = [])),
    request_body = TokenRequest, responses((status = 200, body = NewToken)))]
pub(super) async fn create(
    State(api): State<Api>,
    Json(request): Json<TokenRequest>,
) -> Result<Json<NewToken>, Problem> {
    request.check()?;
    let now_ms = api.clock.now().wall_ms;
    let secret = crate::random_bytes();
    let random = crate::random_bytes();
    let record = EnrolmentRecord {
        // 52 bits: JSON readers that keep numbers as doubles keep it whole.
        number: u64::from_be_bytes(*random.first_chunk().expect("8 of 32 bytes")) >> 12,
        secret_sha256: Sha256::digest(secret).into(),
        uses_left: request.uses,
        expires_ms: now_ms + request.valid_seconds * 1_000,
        created_ms: now_ms,
        label: request.label,
    };
    let token = EnrolmentToken {
        fleet: api.identity.fleet,
        root: api.identity.root,
        tls_ca_sha256: api.tls_ca_sha256,
        number: record.number,
        secret,
    };
    let (number, expires_ms) = (record.number, record.expires_ms);
    let store = api.store.clone();
    let change = vec![RegistryChange::Enrolment(record)];
    tokio::task::spawn_blocking(move || store.change_registry(change)).await??;
    fail::fail_point!("api.enrolment_token_stored");
    Ok(Json(NewToken { number, token: token.to_text(), expires_ms }))
}

/// List the enrolment tokens, without their secrets.
#[utoipa::path(get, path = "/api/v1/enrolment-tokens", security(("bearer" = [])),
    responses((status = 200, body = Vec<TokenInfo>)))]
pub(super) async fn list(State(api): State<Api>) -> Result<Json<Vec<TokenInfo>>, Problem> {
    let store = api.store.clone();
    let tokens = tokio::task::spawn_blocking(move || store.enrolments()).await??;
    let info = |token: EnrolmentRecord| TokenInfo {
        number: token.number,
        uses_left: token.uses_left,
        expires_ms: token.expires_ms,
        created_ms: token.created_ms,
        label: token.label,
    };
    Ok(Json(tokens.into_iter().map(info).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_that_nobody_could_use_or_list_is_refused() {
        let request = TokenRequest::default;
        assert!(request().check().is_ok());
        assert!(TokenRequest { uses: 0, ..request() }.check().is_err());
        assert!(TokenRequest { valid_seconds: 0, ..request() }.check().is_err());
        let too_long = VALID_SECONDS_MAX + 1;
        assert!(TokenRequest { valid_seconds: too_long, ..request() }.check().is_err());
        let label = "x".repeat(LABEL_BYTES_MAX);
        assert!(TokenRequest { label: label.clone(), ..request() }.check().is_ok());
        assert!(TokenRequest { label: label + "x", ..request() }.check().is_err());
    }
}
