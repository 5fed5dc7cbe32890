//! The brain with what benches and fault tests need and no product may have.
//!
//! Beside the plain-text listener that its command line offers, the environment may tell it to
//! die at a failpoint (`FAILPOINTS`, see the crate `faultkit`) and to have a planted fault
//! (`FLEET_PLANTED_FAULT`), each where the feature for it is compiled in.

#![forbid(unsafe_code)]

mod cli;

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    match set_up() {
        Ok(()) => cli::run(),
        Err(error) => {
            eprintln!("brain-lab: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn set_up() -> anyhow::Result<()> {
    #[cfg(feature = "failpoints")]
    faultkit::arm_from_environment(brain::failpoints::POINTS)?;
    #[cfg(feature = "planted-faults")]
    brain::planted::plant_from_environment()?;
    Ok(())
}
