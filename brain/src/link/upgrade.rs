//! From HTTP to WebSocket: which paths there are, and who may take them.

use protocol::DeviceId;
use protocol::wire::FRAME_BYTES_MAX;
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request};
use tokio_tungstenite::tungstenite::http::StatusCode;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;

use crate::enrolment::{KeyHolder, check_api_key};
use crate::store::Store;

/// Where enrolled devices connect.
pub(super) const LINK_PATH: &str = "/v1/link";
/// Where devices enrol.
pub(super) const ENROL_PATH: &str = "/v1/enrol";
/// The header of the API key.
const API_KEY_HEADER: &str = "x-api-key";

/// What every connection holds to read into. Most frames fit; a long one takes some more calls.
const READ_BUFFER_BYTES: usize = 1 << 10;

/// What an upgraded connection may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Admitted {
    /// Speak as this device.
    Link(DeviceId),
    /// Enrol.
    Enrol,
}

/// Decides about an upgrade request.
#[expect(clippy::result_large_err, reason = "the type is the library's")]
pub(super) fn check(request: &Request, store: &Store) -> Result<Admitted, ErrorResponse> {
    match request.uri().path() {
        ENROL_PATH => Ok(Admitted::Enrol),
        LINK_PATH => {
            let key = request.headers().get(API_KEY_HEADER).and_then(|key| key.to_str().ok());
            let unknown = || refuse(StatusCode::UNAUTHORIZED, "X-API-Key is missing or wrong");
            match key.and_then(|key| check_api_key(store, key)).ok_or_else(unknown)? {
                KeyHolder::Device(device) => Ok(Admitted::Link(device)),
                KeyHolder::Retired(tombstone) => {
                    Err(refuse(StatusCode::GONE, &tombstone.to_sync_error().to_string()))
                }
            }
        }
        _ => Err(refuse(StatusCode::NOT_FOUND, "connect to /v1/link or /v1/enrol")),
    }
}

/// The limits of a WebSocket. The defaults are made for browsers: 64 MiB messages, and 128 KiB
/// of buffer for each connection.
pub(super) fn web_socket_config() -> WebSocketConfig {
    WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER_BYTES)
        .write_buffer_size(0)
        .max_write_buffer_size(4 * FRAME_BYTES_MAX)
        .max_message_size(Some(FRAME_BYTES_MAX))
        .max_frame_size(Some(FRAME_BYTES_MAX))
}

fn refuse(status: StatusCode, text: &str) -> ErrorResponse {
    let mut response = ErrorResponse::new(Some(text.to_owned()));
    *response.status_mut() = status;
    response
}
