//! The agent with what fault tests need and no product may have.
//!
//! The environment may tell it to die at a failpoint (`FAILPOINTS`, see the crate `faultkit`) and
//! to have a planted fault (`FLEET_PLANTED_FAULT`).

#![forbid(unsafe_code)]

mod cli;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    let arguments = cli::Arguments::parse();
    match set_up().and_then(|()| cli::run(arguments)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn set_up() -> anyhow::Result<()> {
    faultkit::arm_from_environment(edge::failpoints::POINTS)?;
    edge::planted::plant_from_environment()?;
    Ok(())
}
