//! `brain verify`.

use std::io::IsTerminal;

use anyhow::bail;
use brain::identity::Identity;
use brain::store::{StoreConfig, Verified, folder_in, verify};
use serde_json::json;

use super::DataDir;
use super::output::{self, Output};

#[derive(Debug, clap::Args)]
pub(super) struct VerifyArgs {
    #[command(flatten)]
    data: DataDir,
    /// How to print what was found
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

pub(super) fn run(args: &VerifyArgs) -> anyhow::Result<()> {
    let identity = Identity::load(&args.data.data_dir)?;
    let config = StoreConfig::new(folder_in(&args.data.data_dir));
    let shown = std::io::stderr().is_terminal();
    let progress = |done: u64, of: u64| {
        if shown {
            eprint!("\r{done} of {of} trees");
        }
    };
    let verified = verify(&config, identity.fleet, progress)?;
    if shown {
        eprintln!();
    }
    match args.output {
        Output::Json => println!("{}", json!(verified)),
        Output::Table => print(&verified),
    }
    match verified.damages {
        0 => Ok(()),
        damages => bail!(
            "{damages} damages were found; restore the data folder from a backup, or look at the \
             records that are named"
        ),
    }
}

fn print(verified: &Verified) {
    let Verified { records, trees, entries, signatures, snapshots, tombstones, damage, .. } =
        verified;
    let all: u64 = records.values().sum();
    println!("{all} records match their checksums");
    println!("{trees} trees are what their {entries} entries come to, with {snapshots} snapshots");
    println!("{signatures} signatures hold");
    println!("{tombstones} tombstones stand for devices and groups that are gone");
    if !damage.is_empty() {
        let rows = damage
            .iter()
            .map(|damage| [damage.family.to_owned(), damage.record.clone(), damage.what.clone()]);
        println!("{}", output::table(["kind", "record", "damage"], rows));
    }
}
