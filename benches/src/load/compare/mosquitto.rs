//! mosquitto: a retained message of quality of service 1 for each update.

use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::rc::Rc;
use std::time::Duration;

use anyhow::Context;
use rumqttc::{AsyncClient, Event, EventLoop, MqttOptions, Outgoing, Packet, QoS};
use tokio::sync::oneshot;

use super::lanes::{Lane, Lanes, PRINCIPAL, REASON, Update};
use super::server::Server;
use crate::load::{Settings, Shape, Workspace};

/// How long a connection may be silent: between two rounds, nobody writes.
const KEEP_ALIVE: Duration = Duration::from_secs(3_600);

/// A place on a device's connection.
pub(super) struct MosquittoLane {
    client: AsyncClient,
    waiting: Rc<RefCell<Waiting>>,
}

/// Who waits for acknowledgements.
#[derive(Default)]
struct Waiting {
    /// For those that have no number yet, in the order in which they were published.
    unsent: VecDeque<oneshot::Sender<()>>,
    sent: HashMap<u16, oneshot::Sender<()>>,
}

/// Starts the server and connects the devices.
pub(super) fn start(
    settings: &Settings,
    workspace: &Workspace,
    shape: Shape,
) -> anyhow::Result<Lanes<MosquittoLane>> {
    let server = Server::start("mosquitto", workspace.next("mosquitto"))?;
    Lanes::connect(server, settings, shape, async |server, device| {
        let (host, port) = (server.address.ip().to_string(), server.address.port());
        let mut options = MqttOptions::new(format!("device-{device}"), host, port);
        options.set_keep_alive(KEEP_ALIVE).set_inflight(100);
        let (client, events) = AsyncClient::new(options, 2 * shape.in_flight);
        let waiting = Rc::new(RefCell::new(Waiting::default()));
        tokio::task::spawn_local(serve(events, waiting.clone()));
        let lane = || MosquittoLane { client: client.clone(), waiting: waiting.clone() };
        Ok((0..shape.in_flight).map(|_| lane()).collect())
    })
}

/// Moves the connection on, until it ends; whoever waits then is told by a dropped sender.
async fn serve(mut events: EventLoop, waiting: Rc<RefCell<Waiting>>) {
    while let Ok(event) = events.poll().await {
        let mut waiting = waiting.borrow_mut();
        match event {
            Event::Outgoing(Outgoing::Publish(number)) => {
                if let Some(lane) = waiting.unsent.pop_front() {
                    waiting.sent.insert(number, lane);
                }
            }
            Event::Incoming(Packet::PubAck(ack)) => {
                if let Some(lane) = waiting.sent.remove(&ack.pkid) {
                    // A lane that no longer waits needs no answer.
                    let _ = lane.send(());
                }
            }
            _ => {}
        }
    }
    *waiting.borrow_mut() = Waiting::default();
}

impl Lane for MosquittoLane {
    async fn write(&mut self, update: Update) -> anyhow::Result<()> {
        let Update { device, version, leaf, value, at_ms } = update;
        let topic = format!("fleet/{device}/{}", leaf.as_str());
        let message = format!(
            r#"{{"version":{version},"value":{value},"at_ms":{at_ms},"principal":"{PRINCIPAL}","reason":"{REASON}"}}"#
        );
        let (acked, wait) = oneshot::channel();
        self.waiting.borrow_mut().unsent.push_back(acked);
        self.client.try_publish(topic, QoS::AtLeastOnce, true, message)?;
        wait.await.context("the connection to mosquitto ended")
    }
}
