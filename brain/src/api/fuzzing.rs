//! The door of the fuzz targets to what requests become, from extractor to validation.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::Query;
use axum::http::Uri;
use axum::response::{IntoResponse, Response};
use protocol::DeviceId;
use protocol::history::{Change, Provenance};
use protocol::state::{State, VersionedState};
use serde::de::DeserializeOwned;

use super::auth::{LogIn, Principal};
use super::devices::{HistoryQuery, ListQuery, StateQuery, parse_id, which_version};
use super::writes::{WriteQuery, parse_desired, parse_leaves, provenance};
use super::{Problem, TokenRequest};
use crate::store::WhichVersion;

/// A route that reads something of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Route {
    /// `GET /api/v1/devices`
    List,
    /// `GET /api/v1/devices/{id}/state`
    State,
    /// `GET /api/v1/devices/{id}/history`
    History,
    /// `PUT /api/v1/devices/{id}/desired`
    SetDesired,
    /// `PATCH /api/v1/devices/{id}/desired`
    PatchDesired,
    /// `PUT /api/v1/devices/{id}/states`
    SaveState,
    /// `POST /api/v1/enrolment-tokens`
    CreateToken,
    /// `POST /api/v1/login`
    LogIn,
}

/// What a handler goes on with.
#[derive(Debug)]
pub enum Call {
    /// A page of a listing.
    Page,
    /// A state.
    Read(WhichVersion),
    /// New content of `desired/`.
    SetDesired(State, Provenance),
    /// Changes of `desired/`.
    PatchDesired(Vec<Change>, Provenance),
    /// A state to save.
    SaveState(VersionedState, Provenance),
    /// A token to make.
    CreateToken(TokenRequest),
    /// A code to redeem.
    LogIn,
}

impl Route {
    /// Every route.
    pub const ALL: [Self; 8] = [
        Self::List,
        Self::State,
        Self::History,
        Self::SetDesired,
        Self::PatchDesired,
        Self::SaveState,
        Self::CreateToken,
        Self::LogIn,
    ];

    /// Reads a request as the route's handler does.
    #[expect(clippy::result_large_err, reason = "the type is the library's")]
    pub fn read(self, uri: &Uri, body: &[u8]) -> Result<Call, Response> {
        let refused = |problem: Problem| problem.into_response();
        let principal = || Principal("user:fuzz".to_owned());
        Ok(match self {
            Self::List => {
                query::<ListQuery>(uri)?;
                Call::Page
            }
            Self::History => {
                device(uri)?;
                query::<HistoryQuery>(uri)?;
                Call::Page
            }
            Self::State => {
                device(uri)?;
                Call::Read(which_version(query::<StateQuery>(uri)?).map_err(refused)?)
            }
            Self::SetDesired => {
                device(uri)?;
                let reason = query::<WriteQuery>(uri)?;
                let desired = parse_desired(json::<BTreeMap<_, _>>(body)?).map_err(refused)?;
                Call::SetDesired(desired, provenance(principal(), reason))
            }
            Self::PatchDesired => {
                device(uri)?;
                let reason = query::<WriteQuery>(uri)?;
                let changes = parse_leaves(json::<BTreeMap<_, _>>(body)?).map_err(refused)?;
                Call::PatchDesired(changes, provenance(principal(), reason))
            }
            Self::SaveState => {
                device(uri)?;
                let reason = query::<WriteQuery>(uri)?;
                Call::SaveState(json(body)?, provenance(principal(), reason))
            }
            Self::CreateToken => {
                let request: TokenRequest = json(body)?;
                request.check().map_err(refused)?;
                Call::CreateToken(request)
            }
            Self::LogIn => {
                json::<LogIn>(body)?;
                Call::LogIn
            }
        })
    }
}

#[expect(clippy::result_large_err, reason = "the type is the library's")]
fn device(uri: &Uri) -> Result<DeviceId, Response> {
    let id = uri.path().split('/').nth(4).unwrap_or_default();
    parse_id(id).map_err(IntoResponse::into_response)
}

#[expect(clippy::result_large_err, reason = "the type is the library's")]
fn query<T: DeserializeOwned>(uri: &Uri) -> Result<T, Response> {
    Query::try_from_uri(uri).map(|Query(query)| query).map_err(IntoResponse::into_response)
}

#[expect(clippy::result_large_err, reason = "the type is the library's")]
fn json<T: DeserializeOwned>(body: &[u8]) -> Result<T, Response> {
    Json::from_bytes(body).map(|Json(body)| body).map_err(IntoResponse::into_response)
}
