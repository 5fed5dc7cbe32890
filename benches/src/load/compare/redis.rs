//! Redis: state in a hash, history in a stream, both in one transaction.

use redis::aio::MultiplexedConnection;

use super::lanes::{Lane, Lanes, PRINCIPAL, REASON, Update};
use super::server::Server;
use crate::load::{Settings, Shape, Workspace};

/// A place on a device's connection.
pub(super) struct RedisLane {
    connection: MultiplexedConnection,
    state: String,
    history: String,
}

/// Starts the server and connects the devices.
pub(super) fn start(
    settings: &Settings,
    workspace: &Workspace,
    shape: Shape,
) -> anyhow::Result<Lanes<RedisLane>> {
    let server = Server::start("redis", workspace.next("redis"))?;
    Lanes::connect(server, settings, shape, async |server, device| {
        let client = redis::Client::open(format!("redis://{}", server.address))?;
        let connection = client.get_multiplexed_async_connection().await?;
        let lane = || RedisLane {
            connection: connection.clone(),
            state: format!("state:{device}"),
            history: format!("history:{device}"),
        };
        Ok((0..shape.in_flight).map(|_| lane()).collect())
    })
}

impl Lane for RedisLane {
    async fn write(&mut self, update: Update) -> anyhow::Result<()> {
        let Update { version, leaf, value, at_ms, .. } = update;
        let mut transaction = redis::pipe();
        transaction.atomic();
        transaction.cmd("HSET").arg(&self.state).arg(leaf.as_str()).arg(&value).ignore();
        let history = transaction.cmd("XADD").arg(&self.history).arg("*");
        history.arg("version").arg(version).arg("leaf").arg(leaf.as_str());
        history.arg("value").arg(&value).arg("at_ms").arg(at_ms);
        history.arg("principal").arg(PRINCIPAL).arg("reason").arg(REASON).ignore();
        Ok(transaction.query_async(&mut self.connection).await?)
    }
}
