//! The actor that serves the API.

use std::sync::Arc;
use std::time::Duration;

use actors::supervise::{Context, Node, NodeError};
use axum::Router;
use axum::serve::Listener;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::tls::Certificates;

/// How long a TLS handshake may take.
const HANDSHAKE_TIME_MAX: Duration = Duration::from_secs(10);
/// How many connections may wait between their handshake and their first request.
const READY_MAX: usize = 64;
/// How many connections may shake hands at once.
const HANDSHAKES_MAX: usize = 64;

/// What the actor starts from.
pub struct ApiArgs {
    /// The bound socket: it outlives restarts.
    pub socket: std::net::TcpListener,
    /// The server certificate, where the API speaks TLS.
    pub certificates: Option<Arc<Certificates>>,
    /// What it serves. Made once: describing every route takes longer than a restart may.
    pub routes: Router,
}

/// What the actor is told.
pub enum ApiMsg {
    /// Serve.
    Serve,
}

/// The actor.
pub struct ApiServer {
    args: Arc<ApiArgs>,
}

impl Node for ApiServer {
    const KIND: &'static str = "api";
    type Msg = ApiMsg;
    type Args = ApiArgs;

    fn start(args: &Arc<ApiArgs>, ctx: &Context<ApiMsg>) -> Result<Self, NodeError> {
        ctx.cast_self(ApiMsg::Serve);
        Ok(Self { args: args.clone() })
    }

    async fn handle(&mut self, ctx: &Context<ApiMsg>, msg: ApiMsg) -> Result<(), NodeError> {
        let ApiMsg::Serve = msg;
        let socket = TcpListener::from_std(self.args.socket.try_clone()?)?;
        let routes = self.args.routes.clone();
        match &self.args.certificates {
            None => {
                ctx.spawn("serve", async move { Ok(axum::serve(socket, routes).await?) });
            }
            Some(certificates) => {
                let acceptor = TlsAcceptor::from(certificates.server_config()?);
                let (ready_in, ready) = mpsc::channel(READY_MAX);
                let address = socket.local_addr()?;
                ctx.spawn("accept", shake_hands(socket, acceptor, ready_in));
                let listener = TlsListener { ready, address };
                ctx.spawn("serve", async move { Ok(axum::serve(listener, routes).await?) });
            }
        }
        Ok(())
    }

    fn label(_: &ApiMsg) -> &'static str {
        "serve"
    }
}

/// Connections whose handshake is done: one that dawdles keeps nobody waiting.
struct TlsListener {
    ready: mpsc::Receiver<(TlsStream<TcpStream>, std::net::SocketAddr)>,
    address: std::net::SocketAddr,
}

impl Listener for TlsListener {
    type Io = TlsStream<TcpStream>;
    type Addr = std::net::SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        match self.ready.recv().await {
            Some(ready) => ready,
            // The accepting task has ended, and with it this actor's incarnation.
            None => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> std::io::Result<Self::Addr> {
        Ok(self.address)
    }
}

async fn shake_hands(
    socket: TcpListener,
    acceptor: TlsAcceptor,
    ready: mpsc::Sender<(TlsStream<TcpStream>, std::net::SocketAddr)>,
) -> Result<(), NodeError> {
    let places = Arc::new(tokio::sync::Semaphore::new(HANDSHAKES_MAX));
    loop {
        let place = places.clone().acquire_owned().await?;
        let (stream, peer) = match socket.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "a connection could not be taken");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let (acceptor, ready) = (acceptor.clone(), ready.clone());
        tokio::spawn(async move {
            let shaken = tokio::time::timeout(HANDSHAKE_TIME_MAX, acceptor.accept(stream)).await;
            drop(place);
            if let Ok(Ok(stream)) = shaken {
                // A closed channel means that the actor is restarting.
                let _ = ready.send((stream, peer)).await;
            }
        });
    }
}
