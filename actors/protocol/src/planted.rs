//! Faults that tests plant on purpose: checks that do not notice them are worth nothing.
//!
//! Compiled in only with the feature `planted-faults`, which nothing turns on but the command
//! line of a test run. A fault holds in the thread that planted it, for as long as its guard
//! lives.

use std::cell::Cell;
use std::marker::PhantomData;

/// What no longer holds while it is planted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Fault {
    /// An entry that is here already is taken as new.
    DedupOff = 1,
    /// A timestamp counts, and moves clocks, however far ahead it is.
    ClockBoundOff = 2,
    /// Every signature holds: of heads, cuts, certificates and handshakes.
    SignaturesUnchecked = 4,
}

thread_local! {
    static PLANTED: Cell<u8> = const { Cell::new(0) };
}

/// Digs its fault out again when it is dropped.
#[must_use = "the fault is gone when the guard is"]
#[derive(Debug)]
pub struct Planted {
    before: u8,
    /// The fault is this thread's, and so is its guard.
    thread: PhantomData<*const ()>,
}

/// Plants a fault in this thread.
pub fn plant(fault: Fault) -> Planted {
    let before = PLANTED.get();
    PLANTED.set(before | fault as u8);
    Planted { before, thread: PhantomData }
}

/// Whether a fault is planted in this thread.
pub(crate) fn is(fault: Fault) -> bool {
    PLANTED.get() & fault as u8 != 0
}

impl Drop for Planted {
    fn drop(&mut self) {
        PLANTED.set(self.before);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_lasts_as_long_as_its_guard_and_in_its_thread() {
        assert!(!is(Fault::DedupOff));
        let dedup = plant(Fault::DedupOff);
        let clock = plant(Fault::ClockBoundOff);
        assert!(is(Fault::DedupOff) && is(Fault::ClockBoundOff));
        assert!(!is(Fault::SignaturesUnchecked));
        let elsewhere = std::thread::spawn(|| is(Fault::DedupOff)).join();
        assert!(!elsewhere.expect("no panic"));
        drop(clock);
        assert!(is(Fault::DedupOff) && !is(Fault::ClockBoundOff));
        drop(dedup);
        assert!(!is(Fault::DedupOff));
    }
}
