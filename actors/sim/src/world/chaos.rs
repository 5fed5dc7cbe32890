//! Faults drawn at random.

use std::ops::Range;

use protocol::clock::ClockQuality;

use super::World;
use crate::clock::TEN_YEARS_MS;
use crate::fleet::Whose;
use crate::random::Random;

/// How long it is from one event to the next.
const GAP_MS: Range<u64> = 5..250;
/// More events at once than one transport window, so that some are under way when it breaks.
const BURST_MAX: u64 = 8;
/// How long what was set by hand holds: some of it ends within the storm.
const LEASE_MS: Range<u64> = 1_000..60_000;
/// How conflicts may be decided.
const STRATEGIES: [&str; 5] = [
    r#""last_writer""#,
    r#""hardware_truth""#,
    r#"{"safest_value": "lowest"}"#,
    r#"{"source_priority": ["operator", "hardware"]}"#,
    r#""manual""#,
];
/// How many leaves each side has: few, so that they are written again and again.
const LEAVES: u64 = 6;

impl World {
    /// Lets writes and faults rain for `ms`, as `random` has it.
    pub fn storm(&mut self, ms: u64, random: &mut Random) {
        for n in 0..self.devices() {
            // A device that does not trust its clock follows the brain's.
            if random.chance(300) {
                self.device(n).clock().set_quality(ClockQuality::Unsynchronised);
            }
        }
        for group in 1..=self.config.groups {
            for n in 0..self.devices() {
                if random.chance(700) {
                    self.set_member(n, group, true);
                }
            }
        }
        let until_ms = self.now_ms() + ms;
        while self.now_ms() < until_ms {
            self.run_for(random.within(&GAP_MS));
            let n = random.below(self.devices() as u64) as usize;
            match random.below(100) {
                0..3 => {
                    let leaf = format!("leaf{}", random.below(LEAVES));
                    let lease_ms = random.chance(700).then(|| random.within(&LEASE_MS));
                    if self.set_by_hand(n, &leaf, lease_ms) {
                        self.fired.count("set_by_hand");
                    }
                }
                3 => {
                    let strategy = STRATEGIES[random.below(STRATEGIES.len() as u64) as usize];
                    let whose = self.any_tree(n, random);
                    if self.set_policy(whose, strategy) {
                        self.fired.count("policies_set");
                    }
                }
                4..48 => {
                    let whose = self.any_tree(n, random);
                    for _ in 0..=random.below(BURST_MAX) {
                        let leaf = format!("leaf{}", random.below(LEAVES));
                        match whose {
                            Whose::Device(_) => self.write(n, &leaf),
                            Whose::Group(group) => self.write_shared(n, group, &leaf),
                        };
                    }
                }
                48..66 => {
                    let leaf = format!("leaf{}", random.below(LEAVES));
                    match self.any_tree(n, random) {
                        Whose::Device(_) => self.write_desired(n, &leaf),
                        Whose::Group(group) => self.write_to_group(group, &leaf),
                    };
                }
                _ => self.one_fault(n, random),
            }
        }
    }

    /// A device's tree, or one of a group.
    fn any_tree(&self, n: usize, random: &mut Random) -> Whose {
        match random.below(1 + u64::from(self.config.groups)) {
            0 => Whose::Device(self.places[n].device.id()),
            group => Whose::Group(group as u8),
        }
    }

    fn one_fault(&mut self, n: usize, random: &mut Random) {
        match random.below(39) {
            0..4 => self.cut(n),
            4..7 => self.make_half_open(n),
            7..10 => self.part(n),
            10..15 => self.rejoin(n),
            15..18 => {
                let kept = random.below(self.store.queued() as u64 + 1) as usize;
                self.crash_brain(kept, random.below(3_000), random.chance(300));
            }
            18..21 => self.crash_device(n, random.chance(500)),
            21..24 => {
                let far = random.chance(700);
                let ms = if far { TEN_YEARS_MS } else { 90_000 };
                self.jump_device_clock(n, if random.chance(600) { ms } else { -ms });
            }
            24..27 => self.set_device_clock_right(n),
            27 => {
                // What was taken from an author while this clock was ahead with his, other members
                // of a group refuse for as long as it is ahead of theirs.
                let may_be_ahead = self.config.groups == 0 && !self.oracle.any_restored();
                let ahead = random.chance(150) && may_be_ahead;
                self.jump_brain_clock(if ahead { TEN_YEARS_MS } else { -TEN_YEARS_MS });
            }
            28 => self.brain_clock().set_right(),
            29 => self.store.set_full(true),
            30 => self.store.set_full(false),
            31 => match random.below(3) {
                0 => self.store.fail_next_sync(),
                _ => self.store.fail_loads(1 + random.below(3) as u32),
            },
            32 => self.back_up_device(n),
            33..37 => {
                let whose = self.any_tree(n, random);
                self.prune_of(whose);
            }
            37 => {
                if let Whose::Group(group) = self.any_tree(n, random)
                    && self.set_member(n, group, random.chance(600))
                {
                    self.fired.count("members_changed");
                }
            }
            _ => {
                // A device that lost what a brain ahead of time had taken refuses it from then on.
                if random.chance(200) && !self.oracle.is_brain_ahead_at_times() {
                    self.restore_device(n, random.chance(500));
                }
            }
        }
    }
}
