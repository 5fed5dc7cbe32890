//! What became of the entries of each device since the start.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use actors::account::{Account, Ledger};
use protocol::DeviceId;

/// The accounts of all devices that have connected since the start. Cheap to clone.
///
/// The lock is taken when a device connects and when somebody looks; entries are counted in the
/// device's own ledger.
#[derive(Debug, Clone, Default)]
pub struct Accounts {
    by_device: Arc<RwLock<BTreeMap<DeviceId, Arc<Ledger>>>>,
}

impl Accounts {
    /// The ledger of a device, through all its links.
    pub fn of(&self, device: DeviceId) -> Arc<Ledger> {
        let mut ledgers = self.by_device.write().unwrap_or_else(PoisonError::into_inner);
        ledgers.entry(device).or_default().clone()
    }

    /// What became of a device's entries; none where it has not connected.
    pub fn account(&self, device: DeviceId) -> Option<Account> {
        let ledgers = self.by_device.read().unwrap_or_else(PoisonError::into_inner);
        ledgers.get(&device).map(|ledger| ledger.account())
    }

    /// What became of the entries of all devices. It balances, as each device's account does at
    /// the moment when it is added.
    pub fn total(&self) -> Account {
        let mut total = Account::default();
        let ledgers = self.by_device.read().unwrap_or_else(PoisonError::into_inner);
        ledgers.values().for_each(|ledger| total.add(&ledger.account()));
        total
    }
}
