//! `edge emergency`.

use edge::config::Config;
use edge::local_api::order;
use edge::presence::ModeRequest;

use super::{Output, block_on};

#[derive(Debug, clap::Subcommand)]
pub(super) enum EmergencyCommand {
    /// Declares one: the device is in mode `emergency` until it is ended.
    Declare {
        /// Why, for those who see it in the fleet.
        #[arg(long)]
        reason: String,
    },
    /// Ends it.
    End,
}

pub(super) fn run(
    config: &Config,
    command: &EmergencyCommand,
    output: Output,
) -> anyhow::Result<()> {
    let emergency = match command {
        EmergencyCommand::Declare { reason } => Some(reason.clone()),
        EmergencyCommand::End => None,
    };
    let request = ModeRequest { emergency };
    let taken: ModeRequest =
        block_on(1, 1, async { Ok(order(&config.data_dir, "/mode", &request).await?) })?;
    match (output, taken.emergency) {
        (Output::Json, emergency) => {
            println!("{}", serde_json::to_string(&ModeRequest { emergency })?);
        }
        (Output::Table, Some(why)) => println!("emergency: {why}"),
        (Output::Table, None) => println!("no emergency"),
    }
    Ok(())
}
