//! From the first byte to the first frame: TLS, and the upgrade to WebSocket.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;

use actors::ports::LinkReceiver;
use actors::trace::Spans;
use protocol::ErrorCode;
use protocol::compress::Compression;
use protocol::session::Session;
use protocol::session::handshake::{Answerer, Answering, EXPORTER_BYTES, EXPORTER_LABEL};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_tungstenite::tungstenite::Bytes;
use tokio_tungstenite::{WebSocketStream, accept_hdr_async_with_config};

use super::unanswered::Unanswered;
use super::{Connection, EVENTS_MAX};
use crate::link::connections::Taken;
use crate::link::listener::Transport;
use crate::link::metered::{Allowance, Metered};
use crate::link::upgrade::{self, Admitted};
use crate::link::{Ingress, UNAUTHENTICATED_BYTES_MAX, UNAUTHENTICATED_TIME_MAX};

/// A connection that speaks WebSocket, over whichever transport, and where its news comes.
pub(super) enum Opened {
    Tls(Box<Connection<TlsStream<Metered<TcpStream>>>>, LinkReceiver),
    #[cfg(feature = "plain-text")]
    PlainText(Box<Connection<Metered<TcpStream>>>, LinkReceiver),
}

/// Opens a connection, within the time and the bytes that a stranger has; none where that fails.
pub(super) async fn open(ingress: Arc<Ingress>, taken: Taken) -> Option<Opened> {
    let Taken { transport, stream, peer, handshake } = taken;
    let stranger = Stranger {
        ingress,
        peer,
        handshake,
        deadline: Instant::now() + UNAUTHENTICATED_TIME_MAX,
        allowance: Allowance::new(UNAUTHENTICATED_BYTES_MAX),
    };
    let stream = Metered::new(stream, stranger.allowance.clone());
    match transport {
        Transport::Tls(acceptor) => {
            let (stream, exporter) = stranger.in_time(secure(acceptor, stream)).await?;
            let (connection, events) = stranger.upgrade(stream, exporter).await?;
            Some(Opened::Tls(connection, events))
        }
        #[cfg(feature = "plain-text")]
        Transport::PlainText => {
            let exporter = crate::link::PLAIN_TEXT_EXPORTER;
            let (connection, events) = stranger.upgrade(stream, exporter).await?;
            Some(Opened::PlainText(connection, events))
        }
    }
}

async fn secure(
    acceptor: TlsAcceptor,
    stream: Metered<TcpStream>,
) -> Result<(TlsStream<Metered<TcpStream>>, [u8; EXPORTER_BYTES]), String> {
    let stream = acceptor.accept(stream).await.map_err(|error| format!("TLS: {error}"))?;
    let (_, connection) = stream.get_ref();
    let exporter = connection
        .export_keying_material([0; EXPORTER_BYTES], EXPORTER_LABEL, None)
        .map_err(|error| format!("TLS exporter: {error}"))?;
    Ok((stream, exporter))
}

async fn upgrade<S: AsyncRead + AsyncWrite + Unpin>(
    ingress: &Ingress,
    stream: S,
) -> Result<(WebSocketStream<S>, Admitted), String> {
    let mut admitted = None;
    #[expect(clippy::result_large_err, reason = "the type is the library's")]
    let check = |request: &_, response| {
        admitted = Some(upgrade::check(request, &ingress.store)?);
        Ok(response)
    };
    let config = Some(upgrade::web_socket_config());
    let socket = accept_hdr_async_with_config(stream, check, config)
        .await
        .map_err(|error| format!("WebSocket: {error}"))?;
    let admitted = admitted.ok_or("WebSocket: the upgrade was not checked")?;
    Ok((socket, admitted))
}

/// A peer that has not said yet who it is.
struct Stranger {
    ingress: Arc<Ingress>,
    peer: SocketAddr,
    handshake: OwnedSemaphorePermit,
    deadline: Instant,
    allowance: Allowance,
}

impl Stranger {
    /// What a step of the opening gives, unless it fails or the time is up.
    async fn in_time<T>(&self, step: impl Future<Output = Result<T, String>>) -> Option<T> {
        match tokio::time::timeout_at(self.deadline, step).await {
            Ok(Ok(done)) => Some(done),
            Ok(Err(refused)) => {
                tracing::debug!(peer = %self.peer, refused, "connection refused before the handshake");
                self.ingress.metrics.connection_refused(ErrorCode::Unauthenticated);
                None
            }
            Err(_) => {
                self.ingress.metrics.connection_refused(ErrorCode::TimedOut);
                None
            }
        }
    }

    async fn upgrade<S>(
        self,
        stream: S,
        exporter: [u8; EXPORTER_BYTES],
    ) -> Option<(Box<Connection<S>>, LinkReceiver)>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let (socket, admitted) = self.in_time(upgrade(&self.ingress, stream)).await?;
        let Self { ingress, peer, handshake, deadline, allowance } = self;
        let answerer = Answerer {
            fleet: ingress.identity.fleet,
            root: ingress.identity.root,
            who: Answering::Brain(ingress.identity.brain),
            brains: [ingress.identity.keypair.public()].into(),
            keypair: ingress.identity.keypair.clone(),
            certificate: ingress.identity.certificate.clone(),
            compressions: Compression::Zstd.bit() | Compression::Gzip.bit(),
            challenge: crate::random_bytes(),
            exporter,
            limits: ingress.limits(),
        };
        let (events_in, events) = mpsc::channel(EVENTS_MAX);
        let connection = Connection {
            session: Session::answerer(answerer),
            exit: ingress.drain.enter(),
            ingress,
            socket,
            peer,
            admitted,
            allowance,
            handshake: Some((handshake, deadline)),
            twin: None,
            device: None,
            stay: None,
            active: None,
            number: 0,
            events_in: Some(events_in),
            held: None,
            traces: Vec::new(),
            acknowledging: Spans::default(),
            waiting: VecDeque::new(),
            granted: None,
            ledger: Arc::default(),
            frame: Bytes::new(),
            unanswered: Unanswered::default(),
            groups: BTreeMap::new(),
            groups_due: None,
            groups_noted: false,
        };
        Some((Box::new(connection), events))
    }
}
