//! A connection to a brain that says what it is told to.

mod stream;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use futures_util::{SinkExt, StreamExt};
use protocol::session::handshake::{EXPORTER_BYTES, EXPORTER_LABEL};
use rustls::crypto::ring::default_provider;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::net::TcpSocket;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{Bytes, Error, Message};
use tokio_tungstenite::{WebSocketStream, client_async_with_config};

pub use stream::WireBytes;
use stream::{Counted, Stream};

/// What a lab brain without TLS takes for the keying material of a connection.
const PLAIN_TEXT_EXPORTER: [u8; EXPORTER_BYTES] = *b"plain text on loopback, to bench";
const TIME_MAX: Duration = Duration::from_secs(30);

/// The settings of a TLS client that trusts one authority.
pub fn tls_config(authority: &[u8]) -> anyhow::Result<Arc<ClientConfig>> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(authority)?)?;
    let config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config))
}

/// Where a link goes, and over what.
#[derive(Clone)]
pub struct Target {
    /// The brain's device listener.
    pub brain: SocketAddr,
    /// The loopback address to call from, where ports of one run out.
    pub source: Option<SocketAddr>,
    /// Trust in the brain's authority. Without it there is no TLS, which only a lab brain takes.
    pub tls: Option<Arc<ClientConfig>>,
    /// Counts what goes over the wire.
    pub bytes: Arc<WireBytes>,
}

/// An open WebSocket.
pub struct RawLink {
    socket: WebSocketStream<Stream>,
    /// Keying material of this connection.
    pub exporter: [u8; EXPORTER_BYTES],
}

impl RawLink {
    /// Connects to `path` of the device listener at `brain`, from `source` if that is given.
    /// Without `tls` it speaks plain text, which only a lab brain takes.
    pub async fn open(
        brain: SocketAddr,
        source: Option<SocketAddr>,
        tls: impl Into<Option<Arc<ClientConfig>>>,
        path: &str,
        api_key: Option<&str>,
    ) -> anyhow::Result<Self> {
        let target = Target { brain, source, tls: tls.into(), bytes: Arc::default() };
        Self::open_to(&target, path, api_key).await
    }

    /// Connects to `path` of a target.
    pub async fn open_to(
        target: &Target,
        path: &str,
        api_key: Option<&str>,
    ) -> anyhow::Result<Self> {
        let opening = Self::connect(target, path, api_key);
        timeout(TIME_MAX, opening).await.context("connecting took too long")?
    }

    async fn connect(target: &Target, path: &str, api_key: Option<&str>) -> anyhow::Result<Self> {
        let Target { brain, source, tls, bytes } = target;
        let socket = TcpSocket::new_v4()?;
        if let Some(source) = source {
            socket.set_reuseaddr(true)?;
            socket.bind(*source)?;
        }
        let tcp = socket.connect(*brain).await?;
        tcp.set_nodelay(true)?;
        let stream = Counted::new(tcp, bytes.clone());
        let (stream, scheme, exporter) = match tls {
            Some(tls) => {
                let name = ServerName::try_from("localhost")?;
                let stream = TlsConnector::from(tls.clone()).connect(name, stream).await?;
                let (_, connection) = stream.get_ref();
                let exporter =
                    connection.export_keying_material([0; EXPORTER_BYTES], EXPORTER_LABEL, None)?;
                (Stream::Tls(Box::new(stream)), "wss", exporter)
            }
            None => (Stream::Plain(stream), "ws", PLAIN_TEXT_EXPORTER),
        };
        let mut request = format!("{scheme}://{brain}{path}").into_client_request()?;
        if let Some(key) = api_key {
            request.headers_mut().insert("x-api-key", key.parse()?);
        }
        let config = WebSocketConfig::default().read_buffer_size(4 << 10).write_buffer_size(0);
        let (socket, _) = client_async_with_config(request, stream, Some(config)).await?;
        Ok(Self { socket, exporter })
    }

    /// Sends a frame.
    pub async fn send(&mut self, frame: Vec<u8>) -> anyhow::Result<()> {
        Ok(self.socket.send(Message::Binary(Bytes::from(frame))).await?)
    }

    /// Sends any message of WebSocket.
    pub async fn send_message(&mut self, message: Message) -> anyhow::Result<()> {
        Ok(self.socket.send(message).await?)
    }

    /// The next frame; none when the brain has closed the connection.
    pub async fn receive(&mut self) -> anyhow::Result<Option<Bytes>> {
        timeout(TIME_MAX, self.next()).await.context("nothing came")?
    }

    /// The same, however long it takes.
    pub async fn next(&mut self) -> anyhow::Result<Option<Bytes>> {
        loop {
            match self.socket.next().await {
                Some(Ok(Message::Binary(frame))) => return Ok(Some(frame)),
                Some(Ok(Message::Close(_)))
                | Some(Err(Error::ConnectionClosed | Error::AlreadyClosed))
                | None => return Ok(None),
                Some(Ok(_)) => {}
                // A peer that was killed resets the connection.
                Some(Err(Error::Io(_) | Error::Protocol(_))) => return Ok(None),
                Some(Err(error)) => bail!(error),
            }
        }
    }

    /// Drops the connection at once, as a device does that loses its power; the port is free
    /// again without the minute that TCP otherwise holds it for.
    pub fn abort(self) {
        // A socket that is gone already needs no more.
        let _ = self.socket.get_ref().tcp().set_zero_linger();
    }
}
