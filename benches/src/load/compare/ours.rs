//! The brain, measured beside others.

use std::path::PathBuf;
use std::time::Duration;

use super::peer::{Peer, Round};
use super::rows::{Model, PerUpdate};
use crate::load::ack;
use crate::load::fleet::Fleet;
use crate::load::order::Until;
use crate::load::{Settings, Shape, Workspace, pause};

/// How many updates each device writes one by one, so that a row of history has one update.
const PRIMING_UPDATES: u64 = 20;

/// Within this time devices have signed their last heads, and the brain has written them.
const SIGNING_TIME: Duration = Duration::from_millis(1_500);

/// A fleet that writes only during its rounds.
pub(super) struct Ours {
    fleet: Fleet,
    shape: Shape,
}

impl Ours {
    pub(super) fn start(
        settings: &Settings,
        workspace: &Workspace,
        shape: Shape,
        tls: bool,
    ) -> anyhow::Result<Self> {
        let mut fleet = Fleet::start(&settings.fleet(workspace, shape.devices, tls))?;
        fleet.connect()?;
        fleet.write(PRIMING_UPDATES)?;
        fleet.wait(Until::Stored)?;
        Ok(Self { fleet, shape })
    }

    /// A round, with the rows of a single update before it, and how many rows an update took in
    /// it.
    pub(super) fn round_with_rows(
        &mut self,
        settings: &Settings,
    ) -> anyhow::Result<(Round, Model, PerUpdate)> {
        let database = self.fleet.database();
        pause(SIGNING_TIME);
        let single = Model::read(&database, None)?;
        let before = self.fleet.sample()?.store;
        let round = self.round(settings)?;
        pause(SIGNING_TIME);
        let counts = self.fleet.sample()?.store - before;
        let after = Model::read(&database, Some(&single))?;
        let per_update = after.per_update(&single, counts);
        Ok((round, single, per_update))
    }

    /// The folder of its database.
    pub(super) fn database(&self) -> PathBuf {
        self.fleet.database()
    }
}

impl Peer for Ours {
    fn round(&mut self, settings: &Settings) -> anyhow::Result<Round> {
        ack::begin(&mut self.fleet, settings, self.shape)?;
        let round = ack::round(&mut self.fleet, settings.round_time());
        ack::end(&mut self.fleet)?;
        let round = round?;
        Ok(Round {
            updates_per_second: round.updates_per_second,
            latency: round.latency,
            server_cpu_us: round.brain_cpu_us,
            client_cpu_us: Some(round.client_cpu_us),
            disk_bytes: round.disk_bytes,
        })
    }
}
