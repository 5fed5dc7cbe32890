//! Edges that run by themselves, in sites: those of one share a group and talk to each other, also
//! without the brain.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::bail;
use brain::api::{DeviceList, WriteAnswer};
use serde_json::json;
use tokio::process::Command;
use ureq::http::Method;

use super::super::client::Client;

/// How long edges may take to join.
const JOIN_TIME: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(500);

/// What an edge is called.
pub(super) fn name_of(number: u32) -> String {
    format!("edge-{number}")
}

/// Where an edge lies.
pub(super) fn folder_of(data: &Path, number: u32) -> PathBuf {
    data.join("edges").join(name_of(number))
}

/// The site that an edge is of: they are dealt out in turn.
fn site_of(number: u32, sites: u32) -> String {
    format!("site-{}", (number - 1) % sites + 1)
}

/// How an edge is run.
pub(super) fn command(binary: &Path, folder: &Path, log: &str) -> Command {
    let mut command = Command::new(binary);
    command.args(["run", "--log-level", log]).arg("--data-dir").arg(folder);
    // Those of one machine need no network to find each other.
    command.env("FLEET_EDGE_PEERS__LISTEN", "127.0.0.1:0");
    command
}

/// Puts the edges of each site into a group of that name, once they have joined. Blocks.
pub(super) fn gather(client: &Client, edges: u32, sites: u32) -> anyhow::Result<()> {
    let began = Instant::now();
    let ids = loop {
        let listed: DeviceList = client.get("/api/v1/devices?limit=1000")?;
        let named = listed.devices.into_iter().map(|device| (device.name, device.id));
        let ids: BTreeMap<_, _> = named.collect();
        if (1..=edges).all(|number| ids.contains_key(&name_of(number))) {
            break ids;
        }
        if began.elapsed() > JOIN_TIME {
            bail!("not all of the {edges} edges joined within {} s", JOIN_TIME.as_secs());
        }
        wait();
    };
    for number in 1..=edges.min(sites) {
        let site = site_of(number, sites);
        let about = json!({ "description": format!("the edges of {site}") });
        let target = format!("/api/v1/groups/{site}?reason=brain+dev");
        let _: WriteAnswer = client.call(Method::PUT, &target, Some(about))?;
    }
    for number in 1..=edges {
        let (site, id) = (site_of(number, sites), ids[&name_of(number)]);
        let target = format!("/api/v1/groups/{site}/members/{id}?reason=brain+dev");
        let _: WriteAnswer = client.call(Method::PUT, &target, None)?;
        let target = format!("/api/v1/devices/{id}/tags?reason=brain+dev");
        let _: WriteAnswer = client.call(Method::PATCH, &target, Some(json!({ "site": site })))?;
    }
    Ok(())
}

#[expect(clippy::disallowed_methods, reason = "where blocking is allowed")]
fn wait() {
    std::thread::sleep(POLL);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edges_are_dealt_out_to_sites_in_turn() {
        let sites: Vec<_> = (1..=5).map(|number| site_of(number, 2)).collect();
        assert_eq!(sites, ["site-1", "site-2", "site-1", "site-2", "site-1"]);
    }
}
