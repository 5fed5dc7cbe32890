//! `edge peer` and `edge sync`.

use std::net::SocketAddr;

use edge::config::Config;
use edge::local_api::{ask, order};
use edge::peers::{CalledBy, Known, PeerStatus, Request};
use protocol::DeviceId;

use super::{Output, block_on, print_list, time};

#[derive(Debug, clap::Subcommand)]
pub(super) enum PeerCommand {
    /// Lists the devices that share a group with this one, and how it goes with them.
    List,
    /// Notes an address of a device that is not found on the local network.
    ///
    /// A device has several addresses where several are added; they are tried together. Which
    /// devices are let in does not depend on it: the groups' members are.
    Add {
        /// The device.
        device: DeviceId,
        /// HOST:PORT over UDP, as `edge peer list` shows it there.
        address: SocketAddr,
    },
    /// Forgets the addresses that were added for a device.
    Remove {
        /// The device.
        device: DeviceId,
    },
}

#[derive(Debug, clap::Subcommand)]
pub(super) enum SyncCommand {
    /// Calls all devices that share a group with this one and are not connected, now.
    Now,
}

pub(super) fn run(config: &Config, command: &PeerCommand, output: Output) -> anyhow::Result<()> {
    let data_dir = &config.data_dir;
    let known: Known = match *command {
        PeerCommand::List => block_on(1, 1, async { Ok(ask(data_dir, "/peers").await?) })?,
        PeerCommand::Add { device, address } => {
            let request = Request::Add { device, address };
            block_on(1, 1, async { Ok(order(data_dir, "/peers", &request).await?) })?
        }
        PeerCommand::Remove { device } => {
            let request = Request::Remove { device };
            block_on(1, 1, async { Ok(order(data_dir, "/peers", &request).await?) })?
        }
    };
    print(&known, output)
}

pub(super) fn sync(config: &Config, command: &SyncCommand, output: Output) -> anyhow::Result<()> {
    match command {
        SyncCommand::Now => {
            let data_dir = &config.data_dir;
            let known = block_on(1, 1, async { Ok(order(data_dir, "/sync", &()).await?) })?;
            print(&known, output)
        }
    }
}

fn print(known: &Known, output: Output) -> anyhow::Result<()> {
    match output {
        Output::Json => println!("{}", serde_json::to_string(known)?),
        Output::Table => {
            if known.listening.is_empty() {
                println!("this device meets no others now; see `peers.enabled`");
            } else {
                let addresses: Vec<_> = known.listening.iter().map(ToString::to_string).collect();
                println!("reached at {} over UDP", addresses.join(", "));
            }
            if known.peers.is_empty() {
                println!("no other device shares a group with this one");
                return Ok(());
            }
            let heading = ["device", "groups", "link", "address", "in", "out", "last sync"];
            print_list(heading, known.peers.iter().map(row));
        }
    }
    Ok(())
}

fn row(peer: &PeerStatus) -> [String; 7] {
    let link = match (peer.connected, peer.called_by) {
        (true, Some(CalledBy::Us)) => "connected, called by us".to_owned(),
        (true, _) => "connected, called by them".to_owned(),
        (false, _) => match &peer.last_error {
            Some(error) => format!("away: {error}"),
            None => "away".to_owned(),
        },
    };
    let crossed = |entries: u64, bytes: u64| format!("{entries} entries, {bytes} B");
    [
        peer.device.to_string(),
        peer.groups.join(", "),
        link,
        peer.address.clone().unwrap_or_else(|| "-".to_owned()),
        crossed(peer.entries_in, peer.bytes_in),
        crossed(peer.entries_out, peer.bytes_out),
        peer.last_sync_ms.map_or_else(|| "-".to_owned(), time),
    ]
}
