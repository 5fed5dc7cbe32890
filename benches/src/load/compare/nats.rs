//! NATS JetStream: a message for each update; its subject's last is the state.

use async_nats::jetstream::stream::{Config, StorageType};
use async_nats::jetstream::{self, Context};

use super::lanes::{Lane, Lanes, PRINCIPAL, REASON, Update};
use super::server::Server;
use crate::load::{Settings, Shape, Workspace};

/// A place on a device's connection.
pub(super) struct NatsLane {
    stream: Context,
}

/// Starts the server, makes its stream and connects the devices.
pub(super) fn start(
    settings: &Settings,
    workspace: &Workspace,
    shape: Shape,
) -> anyhow::Result<Lanes<NatsLane>> {
    let server = Server::start("nats", workspace.next("nats"))?;
    Lanes::connect(server, settings, shape, async |server, device| {
        let client = async_nats::connect(server.address.to_string()).await?;
        let stream = jetstream::new(client);
        if device == 0 {
            let config = Config {
                name: "FLEET".to_owned(),
                subjects: vec!["fleet.>".to_owned()],
                storage: StorageType::File,
                ..Config::default()
            };
            stream.create_stream(config).await?;
        }
        Ok((0..shape.in_flight).map(|_| NatsLane { stream: stream.clone() }).collect())
    })
}

impl Lane for NatsLane {
    async fn write(&mut self, update: Update) -> anyhow::Result<()> {
        let Update { device, version, leaf, value, at_ms } = update;
        let subject = format!("fleet.{device}.{}", leaf.as_str().replace('/', "."));
        let message = format!(
            r#"{{"version":{version},"value":{value},"at_ms":{at_ms},"principal":"{PRINCIPAL}","reason":"{REASON}"}}"#
        );
        self.stream.publish(subject, message.into()).await?.await?;
        Ok(())
    }
}
