//! What became of the entries that came over a link: none is unaccounted for.
//!
//! ```text
//! received = stored + duplicate + refused (by reason) + in flight
//! ```
//!
//! [`Account`] is the sum, [`Ledger`] shares it, and [`InFlight`] goes with entries on their way:
//! whoever drops it without saying what became of them has lost them, and that is counted too.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use protocol::ErrorCode;

use crate::ports::CommitError;

/// Why an entry was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// It was refused, or its commit failed, with this code.
    Code(ErrorCode),
    /// It came in a batch behind one that was refused, and was not looked at.
    BehindRefused,
    /// An earlier commit of the tree failed, and this one built on it.
    Superseded,
    /// The twin ended before the entry was durable. The device sends it again.
    LostToRestart,
}

impl Reason {
    /// The name in metrics and answers.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Code(code) => code.as_str(),
            Self::BehindRefused => "BEHIND_REFUSED",
            Self::Superseded => "SUPERSEDED",
            Self::LostToRestart => "LOST_TO_RESTART",
        }
    }
}

impl From<&CommitError> for Reason {
    fn from(error: &CommitError) -> Self {
        match error {
            CommitError::DiskFull { .. } => Self::Code(ErrorCode::DiskFull),
            CommitError::Failed { .. } => Self::Code(ErrorCode::StoreFailed),
            CommitError::Superseded => Self::Superseded,
            CommitError::Retired => Self::Code(ErrorCode::Retired),
        }
    }
}

/// What became of the entries of one batch.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Outcome {
    /// New, and durable once the commit is.
    pub stored: u32,
    /// Known before.
    pub duplicate: u32,
    /// Not taken.
    pub refused: Vec<(Reason, u32)>,
}

impl Outcome {
    /// The outcome of a batch of `entries`, of which `new` are to be stored; with a refusal, one
    /// was refused, and `unread` behind it were not looked at.
    pub fn judged(entries: u32, new: u32, refusal: Option<ErrorCode>, unread: u32) -> Self {
        let mut refused = Vec::new();
        if let Some(code) = refusal {
            refused.push((Reason::Code(code), 1));
        }
        if unread > 0 {
            refused.push((Reason::BehindRefused, unread));
        }
        let refused_all = refused.iter().map(|(_, entries)| entries).sum::<u32>();
        Self { stored: new, duplicate: entries.saturating_sub(new + refused_all), refused }
    }

    /// None of a batch was taken.
    pub fn refused(entries: u32, reason: Reason) -> Self {
        Self { refused: vec![(reason, entries)], ..Self::default() }
    }

    /// The same, after the commit of what was new in it failed.
    pub fn not_committed(mut self, reason: Reason) -> Self {
        self.refused.push((reason, std::mem::take(&mut self.stored)));
        self
    }

    /// How many entries it says something about.
    pub fn entries(&self) -> u32 {
        self.stored + self.duplicate + self.refused.iter().map(|(_, entries)| entries).sum::<u32>()
    }
}

/// How many entries came, and what became of them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Account {
    /// Came over a link.
    pub received: u64,
    /// Durable.
    pub stored: u64,
    /// Known before.
    pub duplicate: u64,
    /// Not taken, by reason.
    pub refused: BTreeMap<Reason, u64>,
    /// Being judged, or on their way to disk.
    pub in_flight: u64,
}

impl Account {
    /// Entries came.
    pub fn take(&mut self, entries: u32) {
        self.received += u64::from(entries);
        self.in_flight += u64::from(entries);
    }

    /// It is known what became of entries that came before.
    pub fn settle(&mut self, outcome: &Outcome) {
        debug_assert!(self.in_flight >= u64::from(outcome.entries()), "settled twice");
        self.in_flight -= u64::from(outcome.entries()).min(self.in_flight);
        self.stored += u64::from(outcome.stored);
        self.duplicate += u64::from(outcome.duplicate);
        for (reason, entries) in outcome.refused.iter().filter(|(_, entries)| *entries > 0) {
            *self.refused.entry(*reason).or_default() += u64::from(*entries);
        }
    }

    /// All that were not taken, whatever the reason.
    pub fn refused_all(&self) -> u64 {
        self.refused.values().sum()
    }

    /// Whether every entry that came is accounted for.
    pub fn balances(&self) -> bool {
        self.received == self.stored + self.duplicate + self.refused_all() + self.in_flight
    }

    /// Adds another account.
    pub fn add(&mut self, other: &Self) {
        self.received += other.received;
        self.stored += other.stored;
        self.duplicate += other.duplicate;
        self.in_flight += other.in_flight;
        for (reason, entries) in &other.refused {
            *self.refused.entry(*reason).or_default() += entries;
        }
    }
}

/// The account of one device's links, shared by those who see its entries.
#[derive(Debug, Default)]
pub struct Ledger(Mutex<Account>);

impl Ledger {
    /// Entries came; what is given back goes with them.
    pub fn take(self: &Arc<Self>, entries: u32) -> InFlight {
        self.change(|account| account.take(entries));
        InFlight { ledger: Some(self.clone()), entries }
    }

    /// The account now.
    pub fn account(&self) -> Account {
        self.change(|account| account.clone())
    }

    fn change<T>(&self, change: impl FnOnce(&mut Account) -> T) -> T {
        // Nothing in between can panic and leave it half changed.
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Entries on their way. Dropped, they count as lost to a restart.
#[derive(Debug, Default)]
pub struct InFlight {
    ledger: Option<Arc<Ledger>>,
    entries: u32,
}

impl InFlight {
    /// It is known what became of them.
    pub fn settle(mut self, outcome: &Outcome) {
        debug_assert!(self.ledger.is_none() || outcome.entries() == self.entries, "{outcome:?}");
        if let Some(ledger) = self.ledger.take() {
            ledger.change(|account| account.settle(outcome));
        }
    }

    /// None of them was taken.
    pub fn refuse(self, reason: Reason) {
        let entries = self.entries;
        self.settle(&Outcome::refused(entries, reason));
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        if let Some(ledger) = self.ledger.take() {
            let outcome = Outcome::refused(self.entries, Reason::LostToRestart);
            ledger.change(|account| account.settle(&outcome));
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::ports::StoreFault;

    /// What happens to a link's entries.
    #[derive(Debug, Clone)]
    enum Event {
        Came { entries: u32, new: u32, refused: bool },
        Settled { which: usize, fails: Option<CommitError> },
        Fenced { which: usize },
        Crashed,
    }

    fn event() -> impl Strategy<Value = Event> {
        let failed = || CommitError::Failed { fault: StoreFault::Disk, detail: "x".into() };
        let full = CommitError::DiskFull { available_bytes: 1, reserve_bytes: 2 };
        let fails = prop_oneof![
            4 => Just(None),
            1 => Just(Some(full)),
            1 => Just(Some(CommitError::Superseded)),
            1 => Just(Some(failed())),
        ];
        prop_oneof![
            4 => (1..50u32, 0..50u32, any::<bool>())
                .prop_map(|(entries, new, refused)| Event::Came { entries, new, refused }),
            4 => (any::<usize>(), fails).prop_map(|(which, fails)| Event::Settled { which, fails }),
            1 => any::<usize>().prop_map(|which| Event::Fenced { which }),
            1 => Just(Event::Crashed),
        ]
    }

    proptest! {
        #[test]
        fn every_entry_is_accounted_for_once(events in prop::collection::vec(event(), 0..200)) {
            let ledger = Arc::new(Ledger::default());
            let mut under_way: Vec<(InFlight, Outcome)> = Vec::new();
            // Counted apart from the account: what each event says about each entry.
            let (mut came, mut stored, mut turned_away) = (0u64, 0u64, 0u64);
            for event in events {
                match event {
                    Event::Came { entries, new, refused } => {
                        let unread = if refused { (entries - 1) / 2 } else { 0 };
                        let new = new.min(entries - unread - u32::from(refused));
                        let code = refused.then_some(ErrorCode::ClockAhead);
                        let outcome = Outcome::judged(entries, new, code, unread);
                        prop_assert_eq!(outcome.entries(), entries);
                        came += u64::from(entries);
                        under_way.push((ledger.take(entries), outcome));
                    }
                    Event::Settled { which, fails } if !under_way.is_empty() => {
                        let (entries, outcome) = under_way.remove(which % under_way.len());
                        turned_away += outcome.refused.iter().map(|(_, n)| u64::from(*n)).sum::<u64>();
                        let new = u64::from(outcome.stored);
                        let outcome = match fails {
                            None => { stored += new; outcome }
                            Some(error) => {
                                turned_away += new;
                                outcome.not_committed(Reason::from(&error))
                            }
                        };
                        entries.settle(&outcome);
                    }
                    Event::Fenced { which } if !under_way.is_empty() => {
                        let (entries, _) = under_way.remove(which % under_way.len());
                        turned_away += u64::from(entries.entries);
                        entries.refuse(Reason::Code(ErrorCode::Fenced));
                    }
                    Event::Crashed => {
                        turned_away += under_way.iter().map(|(e, _)| u64::from(e.entries)).sum::<u64>();
                        under_way.clear();
                    }
                    Event::Settled { .. } | Event::Fenced { .. } => {}
                }
                let account = ledger.account();
                prop_assert!(account.balances(), "{account:?}");
                prop_assert_eq!(account.received, came);
                prop_assert_eq!(account.stored, stored);
                prop_assert_eq!(account.refused_all(), turned_away);
                let left = under_way.iter().map(|(e, _)| u64::from(e.entries)).sum::<u64>();
                prop_assert_eq!(account.in_flight, left);
            }
            drop(under_way);
            let account = ledger.account();
            prop_assert_eq!(account.in_flight, 0);
            prop_assert!(account.balances());
        }
    }

    #[test]
    fn what_nobody_speaks_for_is_lost_to_a_restart() {
        let ledger = Arc::new(Ledger::default());
        drop(ledger.take(3));
        assert_eq!(ledger.account().refused, BTreeMap::from([(Reason::LostToRestart, 3)]));
    }

    #[test]
    fn accounts_of_links_add_up() {
        let (one, other) = (Arc::new(Ledger::default()), Arc::new(Ledger::default()));
        one.take(3).settle(&Outcome { stored: 2, duplicate: 1, ..Outcome::default() });
        let under_way = other.take(5);
        let mut sum = one.account();
        sum.add(&other.account());
        assert_eq!((sum.received, sum.stored, sum.in_flight), (8, 2, 5));
        assert!(sum.balances());
        under_way.refuse(Reason::Superseded);
    }
}
