//! The actor that holds all connections: each is a node below it.

use std::net::SocketAddr;
use std::sync::Arc;

use actors::supervise::{Context, Node, NodeError};
use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;

use super::listener::Transport;
use super::{Ingress, connection};

/// What the actor is told.
pub enum ConnectionsMsg {
    /// A connection was taken.
    Took(Box<Taken>),
    /// They are to go.
    Drain,
}

/// A connection that nobody has looked at yet.
pub struct Taken {
    pub(super) transport: Transport,
    pub(super) stream: TcpStream,
    pub(super) peer: SocketAddr,
    /// Its place among those that shake hands.
    pub(super) handshake: OwnedSemaphorePermit,
}

/// The actor. It outlives the listener, so that a restart of that ends no connection.
pub struct Connections {
    ingress: Arc<Ingress>,
}

impl Node for Connections {
    const KIND: &'static str = "connections";
    /// As many as may shake hands, or more: the listener takes no others.
    const CAPACITY: usize = 4_096;
    type Msg = ConnectionsMsg;
    type Args = Ingress;

    fn start(ingress: &Arc<Ingress>, ctx: &Context<ConnectionsMsg>) -> Result<Self, NodeError> {
        let (drain, address) = (ingress.drain.clone(), ctx.address().clone());
        ctx.spawn("drain", async move {
            drain.begins().await;
            // Only for people to see; one that is full is not idle.
            let _ = address.try_cast(ConnectionsMsg::Drain);
            Ok(())
        });
        Ok(Self { ingress: ingress.clone() })
    }

    async fn handle(
        &mut self,
        ctx: &Context<ConnectionsMsg>,
        msg: ConnectionsMsg,
    ) -> Result<(), NodeError> {
        match msg {
            ConnectionsMsg::Took(taken) => {
                let (ingress, peer) = (self.ingress.clone(), taken.peer);
                ctx.spawn_node(&peer.to_string(), "connection", connection::serve(ingress, *taken));
            }
            ConnectionsMsg::Drain => ctx.drain(),
        }
        Ok(())
    }

    fn label(msg: &ConnectionsMsg) -> &'static str {
        match msg {
            ConnectionsMsg::Took(_) => "took",
            ConnectionsMsg::Drain => "drain",
        }
    }
}
