//! Bearer tokens, and the one-time code that gives a first one.

use std::sync::{Mutex, PoisonError};

use actors::device::Clock;
use axum::Json;
use axum::extract::{Request, State};
use axum::http::header;
use axum::middleware::Next;
use axum::response::Response;
use data_encoding::{BASE32_NOPAD, HEXLOWER};
use protocol::{ErrorCode, ErrorSource, Layer, SyncError};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use utoipa::ToSchema;

use super::{Api, Problem};
use crate::store::{ApiToken, RegistryChange};

/// What API tokens begin with, so that people and secret scanners know them.
const TOKEN_PREFIX: &str = "fbt_";
/// How long a login code holds.
const CODE_VALID_MS: u64 = 15 * 60 * 1_000;
/// How often a login code may be guessed at.
const CODE_TRIES: u32 = 10;
/// How long a token holds that a login code was exchanged for.
const LOGIN_TOKEN_VALID_MS: u64 = 12 * 60 * 60 * 1_000;

/// Who makes a request.
#[derive(Debug, Clone)]
pub(super) struct Principal(pub(super) String);

/// A code that is exchanged for a token, once.
#[derive(Debug, Default)]
pub struct LoginCode(Mutex<Option<Issued>>);

#[derive(Debug)]
struct Issued {
    sha256: [u8; 32],
    expires_ms: u64,
    tries_left: u32,
}

impl LoginCode {
    /// Makes a code, in place of an earlier one.
    pub fn issue(&self, now_ms: u64) -> String {
        let random = crate::random_bytes();
        let code = BASE32_NOPAD.encode(&random[..10]);
        let issued = Issued {
            sha256: Sha256::digest(&code).into(),
            expires_ms: now_ms + CODE_VALID_MS,
            tries_left: CODE_TRIES,
        };
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(issued);
        code
    }

    fn redeem(&self, code: &str, now_ms: u64) -> bool {
        let mut slot = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(issued) = slot.as_mut() else { return false };
        let digest: [u8; 32] = Sha256::digest(code.trim().to_ascii_uppercase()).into();
        let right = now_ms < issued.expires_ms && bool::from(issued.sha256.ct_eq(&digest));
        issued.tries_left -= 1;
        if right || issued.tries_left == 0 {
            *slot = None;
        }
        right
    }
}

/// Makes an API token: the text to give out, and the record to keep.
pub fn new_api_token(principal: &str, now_ms: u64, valid_ms: Option<u64>) -> (String, ApiToken) {
    let text = format!("{TOKEN_PREFIX}{}", HEXLOWER.encode(&crate::random_bytes()));
    let record = ApiToken {
        sha256: Sha256::digest(&text).into(),
        principal: principal.to_owned(),
        created_ms: now_ms,
        expires_ms: valid_ms.map(|valid| now_ms + valid),
    };
    (text, record)
}

/// Lets a request pass that shows a token, and notes whose it is.
pub(super) async fn require_token(
    State(api): State<Api>,
    mut request: Request,
    next: Next,
) -> Result<Response, Problem> {
    let shown = request.headers().get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let Some(token) = shown.and_then(|shown| shown.strip_prefix("Bearer ")) else {
        return Err(Problem::unauthenticated("this needs a bearer token"));
    };
    let digest = Sha256::digest(token.trim()).into();
    let now_ms = api.clock.now().wall_ms;
    let known = api.store.api_token(&digest)?;
    let valid = known.filter(|token| token.expires_ms.is_none_or(|until| now_ms < until));
    let Some(token) = valid else {
        return Err(Problem::unauthenticated("the bearer token is unknown or has expired"));
    };
    request.extensions_mut().insert(Principal(token.principal));
    Ok(next.run(request).await)
}

/// A one-time code.
#[derive(Debug, Deserialize, ToSchema)]
pub(super) struct LogIn {
    /// As `brain dev` printed it.
    code: String,
}

/// A bearer token.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct LoggedIn {
    /// To send as `Authorization: Bearer TOKEN`.
    token: String,
    /// Until when, in milliseconds since the Unix epoch.
    expires_ms: u64,
}

/// Exchange a one-time code for a bearer token.
#[utoipa::path(post, path = "/api/v1/login", request_body = LogIn, responses(
    (status = 200, body = LoggedIn), (status = 401, description = "Wrong, used or expired code")))]
pub(super) async fn log_in(
    State(api): State<Api>,
    Json(LogIn { code }): Json<LogIn>,
) -> Result<Json<LoggedIn>, Problem> {
    let now_ms = api.clock.now().wall_ms;
    if !api.login.redeem(&code, now_ms) {
        let origin = ErrorSource::new(Layer::Api, "auth", "log in");
        let text = "the code is wrong, was used, or has expired";
        return Err(SyncError::new(ErrorCode::Unauthenticated, origin, text).into());
    }
    let (token, record) = new_api_token("user:admin", now_ms, Some(LOGIN_TOKEN_VALID_MS));
    let store = api.store.clone();
    let change = vec![RegistryChange::ApiToken(record)];
    tokio::task::spawn_blocking(move || store.change_registry(change)).await??;
    Ok(Json(LoggedIn { token, expires_ms: now_ms + LOGIN_TOKEN_VALID_MS }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_works_once_and_not_for_ever() {
        let login = LoginCode::default();
        assert!(!login.redeem("", 0));
        let code = login.issue(0);
        assert!(!login.redeem("WRONG", 1));
        assert!(login.redeem(&code.to_lowercase(), 1));
        assert!(!login.redeem(&code, 1));
        let late = login.issue(0);
        assert!(!login.redeem(&late, CODE_VALID_MS));
    }

    #[test]
    fn guessing_ends_a_code() {
        let login = LoginCode::default();
        let code = login.issue(0);
        for _ in 0..CODE_TRIES {
            assert!(!login.redeem("GUESS", 1));
        }
        assert!(!login.redeem(&code, 1));
    }
}
