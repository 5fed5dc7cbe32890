//! A brain's data folder that is filled before its brain runs.

use std::fs;
use std::path::PathBuf;

use anyhow::Context;
use brain::identity::Identity;
use brain::store::{Store, StoreConfig};

use crate::brain::Brain;
use crate::load::database::{self, bytes_in};
use crate::load::{Settings, Workspace};

/// A history is kept whole, however long it is: a brain would let go of its beginning.
const SETTINGS: &str = "[history]\nkeep_hours = 100000\nbytes_max = 1000000000000\n";

/// A folder with a fleet in it.
pub(super) struct Home {
    binary: PathBuf,
    folder: PathBuf,
    pub(super) identity: Identity,
}

impl Home {
    /// Makes a fleet without devices in a new folder.
    pub(super) fn make(settings: &Settings, workspace: &Workspace) -> anyhow::Result<Self> {
        let folder = workspace.next("histories");
        fs::create_dir_all(&folder)?;
        let identity = brain::serve::init(&folder)?;
        fs::write(folder.join("brain.toml"), SETTINGS)?;
        Ok(Self { binary: settings.brain().to_owned(), folder, identity })
    }

    /// Opens its store in this process. No brain may run.
    pub(super) fn store(&self) -> anyhow::Result<Store> {
        let config = StoreConfig { disk_reserve_bytes: 0, ..StoreConfig::new(self.database()) };
        Ok(Store::open(config, self.identity.fleet, false)?)
    }

    /// Closes a store, and has its database come to rest.
    pub(super) fn close(&self, store: Store) -> anyhow::Result<()> {
        store.shut_down();
        drop(store);
        database::settle(&database::open(&self.database())?)
    }

    /// Its brain, which does not run yet.
    pub(super) fn brain(&self) -> anyhow::Result<Brain> {
        let settings = self.folder.join("brain.toml");
        let settings = settings.to_str().context("a path in UTF-8")?;
        Ok(Brain::at(&self.binary, &self.folder, &[("FLEET_BRAIN_CONFIG", settings)]))
    }

    /// The folder of its database.
    pub(super) fn database(&self) -> PathBuf {
        brain::store::folder_in(&self.folder)
    }

    /// The bytes of its database's files.
    pub(super) fn data_bytes(&self) -> anyhow::Result<u64> {
        bytes_in(&self.database())
    }

    /// Removes the folder: others need the room.
    pub(super) fn remove(self) -> anyhow::Result<()> {
        Ok(fs::remove_dir_all(&self.folder)?)
    }
}
