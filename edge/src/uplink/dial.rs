//! Opening a connection: TCP, TLS 1.3, WebSocket.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use protocol::session::handshake::{EXPORTER_BYTES, EXPORTER_LABEL};
use protocol::wire::FRAME_BYTES_MAX;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite;
use tungstenite::client::IntoClientRequest;
use tungstenite::http::{HeaderValue, StatusCode, header::RETRY_AFTER};
use tungstenite::protocol::WebSocketConfig;
use url::Url;

/// From the first packet to the upgraded connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const READ_BUFFER_BYTES: usize = 4 << 10;
const WRITE_BUFFER_BYTES: usize = 4 << 10;
/// Two frames may wait behind a socket that takes nothing.
const WRITE_BUFFER_BYTES_MAX: usize = WRITE_BUFFER_BYTES + 2 * (FRAME_BYTES_MAX + 16);

/// Where devices connect.
pub(super) const LINK_PATH: &str = "/v1/link";
/// Where devices enrol.
pub(super) const ENROL_PATH: &str = "/v1/enrol";

/// A connection over which nothing was said yet.
pub(super) struct Connection {
    pub(super) socket: WebSocketStream<TlsStream<TcpStream>>,
    /// Keying material that only the two ends share.
    pub(super) exporter: [u8; EXPORTER_BYTES],
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// The host does not answer.
    #[error("cannot connect to {server}; check the address, the network and that the brain runs")]
    Connect {
        /// Whom it tried to reach.
        server: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The host's certificate is not trusted, or it does not speak TLS 1.3.
    #[error("{server} is not a brain that this device trusts")]
    Tls {
        /// Whom it tried to reach.
        server: String,
        /// What TLS said.
        #[source]
        source: io::Error,
    },
    /// The brain refused the connection.
    #[error("{server} answered {status}; {}", advice(*status))]
    Status {
        /// Whom it reached.
        server: String,
        /// The HTTP status.
        status: u16,
        /// How long it asks to wait, in milliseconds.
        retry_after_ms: Option<u32>,
    },
    /// The host does not speak WebSocket as expected.
    #[error("{server} does not answer as a brain does")]
    WebSocket {
        /// Whom it reached.
        server: String,
        /// What is wrong.
        #[source]
        source: Box<tungstenite::Error>,
    },
    /// It took too long.
    #[error("{server} did not answer within {} s", CONNECT_TIMEOUT.as_secs())]
    TimedOut {
        /// Whom it tried to reach.
        server: String,
    },
    /// The address or the API key cannot be used.
    #[error("address or API key cannot be used in a request")]
    Unusable,
}

impl DialError {
    /// How long the brain asks to wait before the next call, in milliseconds.
    pub fn retry_after_ms(&self) -> Option<u32> {
        match self {
            Self::Status { retry_after_ms, .. } => *retry_after_ms,
            _ => None,
        }
    }

    /// Whether the brain has retired the device.
    pub fn is_retired(&self) -> bool {
        matches!(self, Self::Status { status, .. } if *status == StatusCode::GONE.as_u16())
    }
}

/// Opens a connection to `path` of `server`.
pub(super) async fn dial(
    server: &Url,
    path: &str,
    api_key: Option<&str>,
    tls: Arc<ClientConfig>,
) -> Result<Connection, DialError> {
    match timeout(CONNECT_TIMEOUT, connect(server, path, api_key, tls)).await {
        Ok(result) => result,
        Err(_) => Err(DialError::TimedOut { server: server.to_string() }),
    }
}

async fn connect(
    server: &Url,
    path: &str,
    api_key: Option<&str>,
    tls: Arc<ClientConfig>,
) -> Result<Connection, DialError> {
    let name = server.to_string();
    let host = server.host_str().ok_or(DialError::Unusable)?.trim_matches(['[', ']']);
    let port = server.port_or_known_default().ok_or(DialError::Unusable)?;
    let connect = |source| DialError::Connect { server: name.clone(), source };
    let tcp = TcpStream::connect((host, port)).await.map_err(connect)?;
    tcp.set_nodelay(true).map_err(connect)?;
    let server_name = ServerName::try_from(host.to_owned()).map_err(|_| DialError::Unusable)?;
    let refused = |source| DialError::Tls { server: name.clone(), source };
    let stream = TlsConnector::from(tls).connect(server_name, tcp).await.map_err(refused)?;
    let (_, session) = stream.get_ref();
    let exporter = session
        .export_keying_material([0; EXPORTER_BYTES], EXPORTER_LABEL, None)
        .map_err(|error| refused(io::Error::other(error)))?;
    let request = request(server, path, api_key)?;
    let upgraded =
        tokio_tungstenite::client_async_with_config(request, stream, Some(limits())).await;
    match upgraded {
        Ok((socket, _)) => Ok(Connection { socket, exporter }),
        Err(tungstenite::Error::Http(response)) => Err(DialError::Status {
            server: name,
            status: response.status().as_u16(),
            retry_after_ms: response
                .headers()
                .get(RETRY_AFTER)
                .and_then(|value| value.to_str().ok()?.parse::<u32>().ok())
                .map(|seconds| seconds.saturating_mul(1_000)),
        }),
        Err(source) => Err(DialError::WebSocket { server: name, source: Box::new(source) }),
    }
}

fn request(
    server: &Url,
    path: &str,
    api_key: Option<&str>,
) -> Result<tungstenite::handshake::client::Request, DialError> {
    let mut url = server.clone();
    url.set_path(&format!("{}{path}", server.path().trim_end_matches('/')));
    let mut request = url.as_str().into_client_request().map_err(|_| DialError::Unusable)?;
    if let Some(key) = api_key {
        let mut value = HeaderValue::from_str(key).map_err(|_| DialError::Unusable)?;
        value.set_sensitive(true);
        request.headers_mut().insert("x-api-key", value);
    }
    Ok(request)
}

fn limits() -> WebSocketConfig {
    WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER_BYTES)
        .write_buffer_size(WRITE_BUFFER_BYTES)
        .max_write_buffer_size(WRITE_BUFFER_BYTES_MAX)
        .max_message_size(Some(FRAME_BYTES_MAX))
        .max_frame_size(Some(FRAME_BYTES_MAX))
}

fn advice(status: u16) -> &'static str {
    match StatusCode::from_u16(status) {
        Ok(StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) => {
            "the API key is not accepted: enrol the device again"
        }
        Ok(StatusCode::GONE) => "the device was retired: `edge enroll` makes it another device",
        Ok(StatusCode::NOT_FOUND) => "that is not a brain's device listener: check host and port",
        Ok(StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE) => {
            "it is busy, try again later"
        }
        _ => "look into the brain's log",
    }
}
