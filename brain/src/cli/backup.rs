//! `brain backup`.

use std::io::{IsTerminal, Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use brain::api::BackupList;
use brain::backup::{self, BackupFile, BackupKey, Restored};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;
use ureq::http::Method;

use super::DataDir;
use super::client::{Client, ClientArgs};
use super::output::{self, Output};

const PATH: &str = "/api/v1/backups";
/// A backup takes as long as the brain's disk does.
const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);

#[derive(Debug, clap::Subcommand)]
pub(super) enum BackupCommand {
    /// Make a key that opens backups, and print its public half for the settings
    Key {
        /// The file to write it to: keep it away from the brain
        file: PathBuf,
        /// How to print the public half
        #[arg(long, value_enum, default_value_t)]
        output: Output,
    },
    /// Have the running brain make a backup, keys included
    Create {
        #[command(flatten)]
        client: ClientArgs,
        /// Fetch it to this file
        #[arg(long)]
        to: Option<PathBuf>,
        /// How to print what was made
        #[arg(long, value_enum, default_value_t)]
        output: Output,
    },
    /// List the backups that lie at the brain
    List {
        #[command(flatten)]
        client: ClientArgs,
        /// How to print them
        #[arg(long, value_enum, default_value_t)]
        output: Output,
    },
    /// Fetch a backup from the brain
    Fetch {
        #[command(flatten)]
        client: ClientArgs,
        /// Its name
        name: String,
        /// The file to write it to; its name, in this folder, if none is given
        #[arg(long)]
        to: Option<PathBuf>,
    },
    /// Restore a backup into a scratch folder, check every record, chain and signature, remove it again
    Verify {
        /// The backup
        file: PathBuf,
        /// The file of the key that opens it
        #[arg(long)]
        key: PathBuf,
        /// How to print what was found
        #[arg(long, value_enum, default_value_t)]
        output: Output,
    },
    /// Make a data folder of a backup, checked as by `verify`
    Restore {
        /// The backup
        file: PathBuf,
        /// The file of the key that opens it
        #[arg(long)]
        key: PathBuf,
        #[command(flatten)]
        data: DataDir,
        /// How to print what was restored
        #[arg(long, value_enum, default_value_t)]
        output: Output,
    },
}

pub(super) fn run(command: BackupCommand) -> anyhow::Result<()> {
    match command {
        BackupCommand::Key { file, output } => make_key(&file, output),
        BackupCommand::Create { client, to, output } => {
            create(&Client::new(&client)?.patient(LONGEST)?, to.as_deref(), output)
        }
        BackupCommand::List { client, output } => list(&Client::new(&client)?, output),
        BackupCommand::Fetch { client, name, to } => {
            let to = to.unwrap_or_else(|| PathBuf::from(&name));
            fetch(&Client::new(&client)?, &name, &to)
        }
        BackupCommand::Verify { file, key, output } => {
            let key = BackupKey::read(&key)?;
            let restored = with_progress(|progress| backup::verify(&file, &key, progress))?;
            match output {
                Output::Json => println!("{}", json!(restored)),
                Output::Table => {
                    print(&restored);
                    println!("{} is whole", file.display());
                }
            }
            Ok(())
        }
        BackupCommand::Restore { file, key, data, output } => {
            let (key, folder) = (BackupKey::read(&key)?, data.data_dir);
            let restored =
                with_progress(|progress| backup::restore(&file, &key, &folder, progress))?;
            match output {
                Output::Json => println!("{}", json!(restored)),
                Output::Table => {
                    print(&restored);
                    println!("restored to {}", folder.display());
                    println!("next: brain serve --data-dir {}", folder.display());
                }
            }
            eprintln!(
                "what came after {} is not in it: enrolments, tokens, audit rows after number {}, and \
                 what was desired of devices that never heard of it. Devices enrolled since then must \
                 enrol again.",
                output::time(restored.manifest.created),
                restored.manifest.last_audit,
            );
            Ok(())
        }
    }
}

fn make_key(file: &Path, output: Output) -> anyhow::Result<()> {
    if file.exists() {
        bail!("{} is there already; nothing was changed", file.display());
    }
    let key = BackupKey::generate();
    key.write(file)?;
    match output {
        Output::Json => println!("{}", json!({ "public_key": key.public(), "file": file })),
        Output::Table => {
            println!("{}", key.public());
            eprintln!("the key is in {}: keep it away from the brain", file.display());
            eprintln!("the brain's settings, for a backup every day:");
            eprintln!("  [backup]\n  recipients = [\"{}\"]", key.public());
        }
    }
    Ok(())
}

fn create(client: &Client, to: Option<&Path>, output: Output) -> anyhow::Result<()> {
    let waiting = spinner("the brain makes a backup");
    let made: anyhow::Result<BackupFile> = client.call(Method::POST, PATH, None);
    waiting.finish_and_clear();
    let made = made?;
    if let Some(to) = to {
        fetch(client, &made.name, to)?;
    }
    match output {
        Output::Json => println!("{}", json!(made)),
        Output::Table => println!("{}  {} bytes", made.name, made.bytes),
    }
    Ok(())
}

fn list(client: &Client, output: Output) -> anyhow::Result<()> {
    let listed: BackupList = client.get(PATH)?;
    match output {
        Output::Json => println!("{}", json!(listed)),
        Output::Table => {
            let rows = listed.backups.iter().map(|backup| {
                let why = if backup.scheduled { "schedule" } else { "asked for" };
                let made = output::time(backup.created);
                [backup.name.clone(), made, backup.bytes.to_string(), why.to_owned()]
            });
            println!("{}", output::table(["name", "made", "bytes", "because"], rows));
            match (listed.every_hours, &listed.failed) {
                (_, Some(failed)) => eprintln!("the last one on schedule failed: {failed}"),
                (0, None) => eprintln!("none are made on schedule: see `brain backup key --help`"),
                (hours, None) => eprintln!("one is made every {hours} h, in {}", listed.folder),
            }
        }
    }
    Ok(())
}

fn fetch(client: &Client, name: &str, to: &Path) -> anyhow::Result<()> {
    let waiting = spinner("fetching the backup");
    let mut content = client.stream(&format!("{PATH}/{name}"))?;
    let mut file = std::fs::File::create_new(to)
        .with_context(|| format!("{} cannot be made", to.display()))?;
    let copied = (|| {
        let mut chunk = vec![0; 256 << 10];
        loop {
            match content.read(&mut chunk)? {
                0 => return file.sync_all(),
                read => file.write_all(&chunk[..read])?,
            }
            waiting.tick();
        }
    })();
    waiting.finish_and_clear();
    if copied.is_err() {
        // Half a backup is none.
        std::fs::remove_file(to)?;
    }
    copied.with_context(|| format!("{name} could not be fetched"))?;
    eprintln!("fetched to {}", to.display());
    Ok(())
}

fn spinner(message: &'static str) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new_spinner().with_message(message);
    bar.enable_steady_tick(Duration::from_millis(100));
    bar
}

fn with_progress<T, E>(
    work: impl FnOnce(&mut dyn FnMut(u64, u64)) -> Result<T, E>,
) -> Result<T, E> {
    let bar = match std::io::stderr().is_terminal() {
        true => ProgressBar::new(0),
        false => ProgressBar::hidden(),
    };
    if let Ok(style) = ProgressStyle::with_template("{bar:40} {bytes} of {total_bytes}") {
        bar.set_style(style);
    }
    let done = work(&mut |done, of| {
        bar.set_length(of);
        bar.set_position(done);
    });
    bar.finish_and_clear();
    done
}

fn print(restored: &Restored) {
    let Restored { manifest, verified } = restored;
    println!("fleet {}, {} devices", manifest.fleet, manifest.devices);
    println!("made {} by release {}", output::time(manifest.created), manifest.release);
    let records: u64 = verified.records.values().sum();
    println!("{records} records match their checksums");
    println!("{} trees are what their {} entries come to", verified.trees, verified.entries);
    println!("{} signatures hold", verified.signatures);
}
