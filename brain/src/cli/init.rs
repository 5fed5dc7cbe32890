//! `brain init`.

use serde_json::json;

use super::DataDir;
use super::output::Output;

#[derive(Debug, clap::Args)]
pub(super) struct InitArgs {
    #[command(flatten)]
    data: DataDir,
    /// How to print what was made
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

pub(super) fn run(args: &InitArgs) -> anyhow::Result<()> {
    let folder = &args.data.data_dir;
    brain::create_folder(folder)
        .map_err(|error| anyhow::anyhow!("{} cannot be made: {error}", folder.display()))?;
    let identity = brain::serve::init(folder)?;
    let token_file = folder.join(brain::serve::ADMIN_TOKEN_FILE);
    match args.output {
        Output::Json => println!(
            "{}",
            json!({ "fleet": identity.fleet, "brain": identity.brain, "root": identity.root,
                    "data_dir": folder, "token_file": token_file })
        ),
        Output::Table => {
            println!("fleet {} is made in {}", identity.fleet, folder.display());
            println!("the first API token is in {}", token_file.display());
            println!(
                "the root key is keys/root.key: copy it to a safe place, the brain runs without it"
            );
            println!("next: brain serve --data-dir {}", folder.display());
        }
    }
    Ok(())
}
