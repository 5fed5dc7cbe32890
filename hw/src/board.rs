//! The board as one value: its capabilities behind their traits.

use crate::Root;
use crate::machine::{self, Machine};
use crate::power::{self, Power};
use crate::sim::{Conditions, World};
use crate::thermal::{self, Thermal};

/// Everything this crate can read on one board.
///
/// The parts are independent of each other and `Send`: each may live in a
/// thread of its own.
pub struct Board {
    /// Temperatures and what cools them.
    pub thermal: Box<dyn Thermal>,
    /// Supplies, rails and the source the board lives on.
    pub power: Box<dyn Power>,
    /// Processor, memory, disk and network.
    pub machine: Box<dyn Machine>,
}

impl Board {
    /// The board whose kernel shows its files under `root`.
    ///
    /// Touches no file: what is absent is told by the parts' `missing()`.
    pub fn linux(root: &Root) -> Board {
        Board {
            thermal: Box::new(thermal::Linux::new(root)),
            power: Box::new(power::Linux::new(root)),
            machine: Box::new(machine::Linux::new(root)),
        }
    }

    /// A board that exists only as a physical model, in ordinary conditions.
    ///
    /// What it reads is a function of `seed` and `now` alone, so two boards
    /// with one seed agree at every instant.
    pub fn simulated(seed: u64) -> Board {
        Board::simulated_under(seed, Conditions::default())
    }

    /// As [`Board::simulated`], in a chosen climate and with chosen mains.
    pub fn simulated_under(seed: u64, conditions: Conditions) -> Board {
        // Each part carries its own copy of the world. The model is a function
        // of seed and time, so the copies agree without a lock between them.
        let world = World::new(seed, conditions);
        Board {
            thermal: Box::new(thermal::Simulated::new(world.clone())),
            power: Box::new(power::Simulated::new(world.clone())),
            machine: Box::new(machine::Simulated::new(world)),
        }
    }
}
