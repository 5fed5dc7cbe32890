//! One step of the world: what is due happens, and what follows is sent and noted.

use super::{Complaint, World, faults};
use crate::brain::{BrainEvent, SimBrain};
use crate::device::DeviceEvent;
use crate::network::{Arrival, Side};

impl World {
    pub(super) fn next_due_ms(&self) -> Option<u64> {
        let devices = self.places.iter().flat_map(|place| {
            let device = &place.device;
            [device.next_due_ms(), device.call_due_ms()].into_iter().flatten()
        });
        let brain = match &self.brain {
            Some(brain) => brain.next_due_ms(),
            None => Some(self.brain_starts_ms),
        };
        let others = [self.network.next_at_ms(), brain, self.sync_due_ms];
        devices.chain(others.into_iter().flatten()).min()
    }

    pub(super) fn step(&mut self) {
        let now_ms = self.now_ms();
        if self.brain.is_none() && self.brain_starts_ms <= now_ms {
            self.start_brain();
        }
        while let Some(arrival) = self.network.take(now_ms) {
            self.arrived(arrival);
            self.drain();
        }
        for n in 0..self.places.len() {
            let device = &mut self.places[n].device;
            if device.next_due_ms().is_some_and(|due_ms| due_ms <= now_ms) {
                device.tick();
            }
            if device.call_due_ms().is_some_and(|due_ms| due_ms <= now_ms) {
                self.call(n);
            }
            self.drain();
        }
        if let Some(brain) = &mut self.brain
            && brain.next_due_ms().is_some_and(|due_ms| due_ms <= now_ms)
        {
            brain.tick();
        }
        if self.sync_due_ms.is_some_and(|due_ms| due_ms <= now_ms) {
            self.sync_due_ms = None;
            if let Some(brain) = &mut self.brain {
                brain.sync();
            }
        }
        self.drain();
        if self.store.is_broken() {
            self.restart_after_failed_fsync();
        }
    }

    fn arrived(&mut self, arrival: Arrival) {
        match arrival {
            Arrival::Frame { link, to: Side::Caller, frame } => {
                if let Some(n) = self.links.get(&link) {
                    self.places[*n].device.frame(link, &frame);
                }
            }
            Arrival::Frame { link, to: Side::Answerer, frame } => {
                if let Some(brain) = &mut self.brain {
                    brain.frame(link, &frame);
                }
            }
            Arrival::Broken { link, to: Side::Caller } => {
                if let Some(n) = self.links.get(&link) {
                    self.places[*n].device.broken(link);
                }
            }
            Arrival::Broken { link, to: Side::Answerer } => {
                if let Some(brain) = &mut self.brain {
                    brain.broken(link);
                }
            }
        }
    }

    fn call(&mut self, n: usize) {
        let place = &mut self.places[n];
        match &mut self.brain {
            Some(brain) if place.reachable => {
                let link = self.network.open(self.config.link.clone());
                self.links.insert(link, n);
                self.fired.count("connections");
                brain.connected(link);
                place.device.connected(link);
            }
            _ => place.device.call_failed(),
        }
    }

    pub(super) fn start_brain(&mut self) {
        self.epochs += 1;
        let random = self.random.fork(&format!("brain {}", self.epochs));
        let (store, clock) = (self.store.clone(), self.brain_clock.clone());
        let limits = self.config.limits;
        let (epoch, groups) = (self.epochs, self.config.groups);
        self.brain = Some(SimBrain::new(store, clock, random, limits, epoch, groups));
    }

    /// Carries out and notes what devices and brain have done.
    pub(super) fn drain(&mut self) {
        let now_ms = self.now_ms();
        for place in &mut self.places {
            let device = place.device.id();
            for event in place.device.take_events() {
                match event {
                    DeviceEvent::Send(link, frame) => {
                        self.network.send(now_ms, link, Side::Caller, frame);
                    }
                    DeviceEvent::HangUp(link) => self.network.close(now_ms, link, Side::Caller),
                    DeviceEvent::Acked { whose, log, stored, sealed } => {
                        self.unsealed_max = self.unsealed_max.max(stored.saturating_sub(sealed));
                        let id = |seq| place.device.entry_id(whose, &log, seq);
                        self.oracle.acked(whose, log, stored, id);
                    }
                    DeviceEvent::Refused(code) => {
                        self.fired.count(faults::refused_by_brain(code));
                    }
                    DeviceEvent::RefusedBrain(code) => {
                        self.fired.count(faults::refused_by_device(code));
                    }
                    DeviceEvent::SessionEnded(_) => self.fired.count("sessions_ended_by_device"),
                    DeviceEvent::Reissued(entries) => {
                        self.fired.add("entries_reissued", entries);
                        self.fired.count("logs_cut");
                    }
                    DeviceEvent::Checkpoint { anew } => {
                        self.fired.count("checkpoints_merged");
                        if anew {
                            self.fired.count("begun_anew_from_checkpoint");
                        }
                    }
                    DeviceEvent::OwnLogBehind => self.fired.count("own_log_behind"),
                    DeviceEvent::CutTaken => self.fired.count("cuts_taken"),
                    DeviceEvent::ComesAnew(whose) => {
                        self.oracle.comes_anew(device, whose);
                        self.fired.count("shared_trees_anew");
                    }
                    DeviceEvent::Left => self.fired.count("shared_trees_left"),
                    DeviceEvent::Differs(whose) => {
                        let what = "leaves while their logs are the same";
                        self.oracle.complain(Complaint::Differ { whose, device, what });
                    }
                }
            }
        }
        let Some(brain) = &mut self.brain else { return };
        for event in brain.take_events() {
            match event {
                BrainEvent::Send(link, frame) => {
                    self.network.send(now_ms, link, Side::Answerer, frame);
                }
                BrainEvent::HangUp(link) => self.network.close(now_ms, link, Side::Answerer),
                BrainEvent::Written(whose, id) => self.oracle.written(whose, id),
                BrainEvent::WriteFailed(_) => self.fired.count("operator_writes_failed"),
                BrainEvent::Refused(_) => {}
                BrainEvent::SessionEnded(code) => {
                    self.fired.count(faults::ended_by_brain(code));
                }
                BrainEvent::DeviceAcked { link, whose, log, stored } => {
                    if let Some(n) = self.links.get(&link) {
                        let device = self.places[*n].device.id();
                        self.oracle.device_acked(device, whose, log, stored);
                    }
                }
            }
        }
        if brain.must_sync() && self.sync_due_ms.is_none() {
            self.sync_due_ms = Some(now_ms + self.random.within(&self.config.fsync_ms));
        }
    }
}
