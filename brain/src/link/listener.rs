//! The actor that takes connections.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use actors::device::Clock;
use actors::supervise::{Address, Context, Node, NodeError};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;

use super::admission::Pace;
use super::connections::Taken;
use super::{ConnectionsMsg, Ingress};
use crate::tls::{Certificates, TlsError};

/// How long a connection waits for whoever holds them.
const HANDED_OVER_WITHIN: Duration = Duration::from_secs(5);
/// How long to wait when the system refuses a connection, for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What the actor starts from.
pub struct ListenerArgs {
    /// The bound socket: it outlives restarts, so that no connection is lost to one.
    pub socket: std::net::TcpListener,
    /// The server certificate.
    pub certificates: Arc<Certificates>,
    /// How many may shake hands at once.
    pub handshakes_max: u32,
    /// What every connection needs.
    pub ingress: Arc<Ingress>,
    /// Who holds the connections.
    pub connections: Address<ConnectionsMsg>,
    /// Whether devices are taken without TLS.
    #[cfg(feature = "plain-text")]
    pub plain_text: bool,
}

/// What secures the connections of a listener.
#[derive(Clone)]
pub(super) enum Transport {
    /// TLS 1.3.
    Tls(TlsAcceptor),
    /// Nothing.
    #[cfg(feature = "plain-text")]
    PlainText,
}

/// What the actor is told.
pub enum ListenerMsg {
    /// Take connections.
    Listen,
}

/// The actor.
pub struct DeviceListener {
    args: Arc<ListenerArgs>,
}

impl Node for DeviceListener {
    const KIND: &'static str = "device_listener";
    type Msg = ListenerMsg;
    type Args = ListenerArgs;

    fn start(args: &Arc<ListenerArgs>, ctx: &Context<ListenerMsg>) -> Result<Self, NodeError> {
        ctx.cast_self(ListenerMsg::Listen);
        Ok(Self { args: args.clone() })
    }

    async fn handle(
        &mut self,
        ctx: &Context<ListenerMsg>,
        msg: ListenerMsg,
    ) -> Result<(), NodeError> {
        let ListenerMsg::Listen = msg;
        let socket = TcpListener::from_std(self.args.socket.try_clone()?)?;
        let transport = self.args.transport()?;
        ctx.spawn("accept", accept(self.args.clone(), socket, transport));
        Ok(())
    }

    fn label(_: &ListenerMsg) -> &'static str {
        "listen"
    }
}

impl ListenerArgs {
    fn transport(&self) -> Result<Transport, TlsError> {
        #[cfg(feature = "plain-text")]
        if self.plain_text {
            return Ok(Transport::PlainText);
        }
        Ok(Transport::Tls(TlsAcceptor::from(self.certificates.server_config()?)))
    }
}

async fn accept(
    args: Arc<ListenerArgs>,
    socket: TcpListener,
    transport: Transport,
) -> Result<(), NodeError> {
    let ingress = &args.ingress;
    let handshakes = Arc::new(Semaphore::new(args.handshakes_max as usize));
    let rate = || ingress.settings.get().connections_per_second;
    let mut pace = Pace::new(rate(), rate(), ingress.clock.now().mono_ms);
    loop {
        pace.set(rate());
        // What is not taken waits in the system's queue, which is bounded as well.
        let permit = handshakes.clone().acquire_owned().await?;
        while let Err(wait_ms) = pace.take(ingress.clock.now().mono_ms) {
            tokio::time::sleep(Duration::from_millis(wait_ms)).await;
        }
        let accepted = tokio::select! {
            accepted = socket.accept() => accepted,
            () = ingress.drain.begins() => return std::future::pending().await,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "a connection could not be taken");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        ingress.metrics.connection_accepted();
        set_options(&stream, peer);
        let taken = Taken { transport: transport.clone(), stream, peer, handshake: permit };
        let took = ConnectionsMsg::Took(Box::new(taken));
        if args.connections.cast(took, HANDED_OVER_WITHIN).await.is_err() {
            tracing::warn!(%peer, "a connection is dropped: nobody holds connections now");
        }
    }
}

fn set_options(stream: &TcpStream, peer: SocketAddr) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, %peer, "TCP_NODELAY was refused");
    }
}
