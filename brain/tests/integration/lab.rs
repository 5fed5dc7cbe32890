//! Deaths at named places, power cuts, and faults that were planted: what only a lab build can
//! show. `cargo test -p brain --features lab --test integration lab::`

mod chaos;
mod failpoints;
mod init;
mod power;
mod proxy;

use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

/// The binary that can be told to die.
const BRAIN_LAB: &str = env!("CARGO_BIN_EXE_brain-lab");

/// Whether a process died as one does at a failpoint.
fn died(status: ExitStatus) -> bool {
    status.signal() == Some(9)
}
