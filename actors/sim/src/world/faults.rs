//! What can be made to go wrong, one thing at a time.

use protocol::ErrorCode;

use super::World;
use crate::clock::SimClock;
use crate::fleet::Whose;
use crate::network::{LinkKind, Side};

/// How long the service manager waits with a brain that ended itself.
const RESTART_MS: u64 = 1_000;

impl World {
    /// Breaks a device's link. Both ends hear of it.
    pub fn cut(&mut self, n: usize) {
        if let Some(link) = self.places[n].device.link() {
            self.network.cut(self.now_ms(), link);
        }
    }

    /// Makes a device's link half-open. Nobody hears of it.
    pub fn make_half_open(&mut self, n: usize) {
        if let Some(link) = self.places[n].device.link() {
            self.network.make_half_open(link);
        }
    }

    /// Takes a device's network away: its link is half-open, and no call gets through.
    pub fn part(&mut self, n: usize) {
        if std::mem::replace(&mut self.places[n].reachable, false) {
            self.fired.count("partitions");
            self.make_half_open(n);
        }
    }

    /// Gives a device its network back.
    pub fn rejoin(&mut self, n: usize) {
        self.places[n].reachable = true;
    }

    /// Ends the brain without warning; it starts again after `down_ms`. Of what was not durable,
    /// the first `kept` commits are found on disk all the same. If its machine went with it, links
    /// are half-open, else they break.
    ///
    /// What was acknowledged must be on disk then; if not, [`check`](Self::check) says so.
    pub fn crash_brain(&mut self, kept: usize, down_ms: u64, with_machine: bool) {
        if self.brain.take().is_none() {
            return;
        }
        self.fired.count("brain_crashes");
        self.sync_due_ms = None;
        self.store.crash(kept);
        self.brain_starts_ms = self.now_ms() + down_ms;
        for link in self.links.keys().copied().collect::<Vec<_>>() {
            if with_machine {
                self.network.make_half_open(link);
            } else {
                self.network.close(self.now_ms(), link, Side::Answerer);
            }
        }
        self.oracle.check_promises(&self.store);
    }

    pub(super) fn restart_after_failed_fsync(&mut self) {
        let kept = self.random.below(4) as usize;
        self.crash_brain(kept, RESTART_MS, false);
    }

    /// Cuts a device's power: what was not durable is lost, its link is half-open or breaks.
    pub fn crash_device(&mut self, n: usize, half_open: bool) {
        self.drop_link(n, half_open);
        let lost = self.places[n].device.crash();
        self.fired.count("device_crashes");
        self.fired.add("entries_lost_in_device_crash", lost);
        self.oracle.check_device(&self.places[n]);
    }

    /// Copies a device's disk.
    pub fn back_up_device(&mut self, n: usize) {
        self.places[n].device.back_up();
    }

    /// Puts the copy of a device's disk back. If the device does not notice, it must hear from the
    /// brain before it may write again.
    pub fn restore_device(&mut self, n: usize, noticed: bool) {
        self.drop_link(n, false);
        let place = &mut self.places[n];
        let lost = place.device.restore_backup(noticed);
        self.oracle.restored(place.device.id());
        self.fired.count("devices_restored");
        self.fired.add("entries_lost_in_restore", lost);
    }

    /// Has the brain drop the beginning of a device's history, or make a snapshot to begin with.
    pub fn prune(&mut self, n: usize) {
        self.prune_of(Whose::Device(self.places[n].device.id()));
    }

    /// Has the brain drop the beginning of a tree's history, or make a snapshot to begin with.
    pub fn prune_of(&mut self, whose: Whose) {
        let random = &mut self.random;
        let Some(brain) = &mut self.brain else { return };
        if brain.prune(whose, |count| random.below(count as u64) as usize) {
            self.fired.count("histories_pruned");
        }
        self.drain();
    }

    /// Moves a device's clock.
    pub fn jump_device_clock(&mut self, n: usize, ms: i64) {
        self.fired.count(if ms < 0 { "device_clocks_back" } else { "device_clocks_ahead" });
        self.places[n].device.clock().jump(ms);
    }

    /// Moves the brain's clock.
    pub fn jump_brain_clock(&mut self, ms: i64) {
        self.fired.count(if ms < 0 { "brain_clock_back" } else { "brain_clock_ahead" });
        if ms > 0 {
            self.oracle.brain_was_ahead();
        }
        self.brain_clock.jump(ms);
    }

    /// The brain's clock.
    pub fn brain_clock(&self) -> &SimClock {
        &self.brain_clock
    }

    /// Sets a device's clock right, as its time server does.
    pub fn set_device_clock_right(&mut self, n: usize) {
        self.places[n].device.set_clock_right();
    }

    /// Takes all faults away: networks, clocks and disks are sound, and all links are new ones.
    pub fn heal(&mut self) {
        self.config.link = LinkKind::stream();
        self.brain_clock.set_right();
        self.store.set_full(false);
        self.store.fail_loads(0);
        for n in 0..self.places.len() {
            self.rejoin(n);
            self.set_device_clock_right(n);
            self.drop_link(n, false);
        }
    }

    fn drop_link(&mut self, n: usize, half_open: bool) {
        let now_ms = self.now_ms();
        let device = &mut self.places[n].device;
        if let Some(link) = device.link() {
            if half_open {
                self.network.make_half_open(link);
            }
            self.network.close(now_ms, link, Side::Caller);
            device.broken(link);
        }
    }
}

pub(super) fn refused_by_brain(code: ErrorCode) -> &'static str {
    match code {
        ErrorCode::ClockAhead => "clock_ahead_at_brain",
        ErrorCode::SequenceGap => "gap_at_brain",
        ErrorCode::LogCut => "log_cut_at_brain",
        _ => "other_refusal_at_brain",
    }
}

pub(super) fn refused_by_device(code: ErrorCode) -> &'static str {
    match code {
        ErrorCode::ClockAhead => "clock_ahead_at_device",
        ErrorCode::SequenceGap | ErrorCode::MissingCause => "gap_at_device",
        _ => "other_refusal_at_device",
    }
}

pub(super) fn ended_by_brain(code: ErrorCode) -> &'static str {
    match code {
        ErrorCode::DiskFull => "sessions_ended_disk_full",
        ErrorCode::Fenced => "sessions_fenced",
        ErrorCode::ClonedIdentity => "sessions_quarantined",
        ErrorCode::TimedOut => "sessions_timed_out_at_brain",
        ErrorCode::StoreFailed => "sessions_ended_store_failed",
        ErrorCode::GoingAway => "sessions_ended_by_restart",
        _ => "sessions_ended_by_brain",
    }
}
