//! `edge enroll`.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use edge::clock::{Clock, Signs};
use edge::config::Config;
use edge::enrolment::{Enrolment, Request};
use edge::identity::Identity;
use edge::local_api::ask_status;
use edge::retired::Retired;
use edge::sense::BoardSource;
use edge::{identity, uplink};
use serde_json::{Value, json};

use super::{Output, UsageError, block_on, print_table};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The brain's address, wss://HOST:PORT.
    #[arg(long, value_name = "URL")]
    server: Option<String>,
    /// The enrolment token, as `brain enroll-token create` printed it.
    #[arg(long, value_name = "TOKEN", conflicts_with = "token_file")]
    token: Option<String>,
    /// A file with the token, so that it does not appear in the list of processes.
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// What people are to call the device [default: the host's name].
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Give up the device's present place in a fleet, if it has one.
    #[arg(long)]
    force: bool,
}

impl Arguments {
    pub(super) fn flags(&self) -> Vec<(&'static str, Value)> {
        self.server.iter().map(|server| ("server_url", json!(server))).collect()
    }

    fn token(&self) -> anyhow::Result<String> {
        match (&self.token, &self.token_file) {
            (Some(token), _) => Ok(token.clone()),
            (None, Some(file)) => std::fs::read_to_string(file)
                .with_context(|| format!("cannot read the token from {}", file.display())),
            (None, None) => Err(UsageError("give the token with --token or --token-file").into()),
        }
    }
}

pub(super) fn run(config: &Config, arguments: &Arguments, output: Output) -> anyhow::Result<()> {
    let Some(server) = &config.server_url else {
        return Err(UsageError("give the brain's address with --server wss://HOST:PORT").into());
    };
    let data_dir = &config.data_dir;
    let board = BoardSource::Linux(hw::Root::real().with_data(data_dir));
    let machine = board.machine_identity();
    let host = machine.hostname.clone().unwrap_or_else(|| "device".to_owned());
    let name = arguments.name.as_deref().unwrap_or(&host);
    let request = Request::new(server, &arguments.token()?, name)?;
    let signs = Signs { trusted: config.clock.trusted, ..Signs::default() };
    let clock = Clock::new(signs, 0);
    let asked = config.device_id()?;
    let opened = identity::open(data_dir, asked, &machine, clock.wall_ms())?;
    let mut identity = opened.identity;
    let begin_anew = |former: &Identity| -> anyhow::Result<Identity> {
        check_no_agent(data_dir)?;
        let now_ms = clock.wall_ms();
        let (anew, aside) = identity::begin_anew(data_dir, former.device, asked, &machine, now_ms)?;
        eprintln!(
            "edge: device {} was retired; this is device {} from now on, and what was the former's is \
             in {}",
            former.device,
            anew.device,
            aside.display()
        );
        Ok(anew)
    };
    if Retired::load(data_dir)?.is_some() {
        identity = begin_anew(&identity)?;
    } else if let Some(enrolment) = Enrolment::load(data_dir)?.filter(|_| !arguments.force) {
        bail!(
            "this device belongs to fleet {} already; use --force to give that up, also where the \
             fleet has retired it, or another --data-dir",
            enrolment.fleet
        );
    }
    let enrol = |identity: &Identity| {
        block_on(1, 2, async { Ok(uplink::enrol(identity, &request, &clock).await) })
    };
    let enrolment = match enrol(&identity)? {
        // The agent may never have been told.
        Err(error) if error.is_retired() => {
            identity = begin_anew(&identity)?;
            enrol(&identity)??
        }
        enrolled => enrolled?,
    };
    enrolment.store(data_dir)?;
    let rows = [
        ("device_id", identity.device.to_string()),
        ("fleet", enrolment.fleet.to_string()),
        ("name", enrolment.name.clone()),
        ("server", enrolment.server.to_string()),
    ];
    match output {
        Output::Json => println!("{}", serde_json::Value::from_iter(rows)),
        Output::Table => print_table(&rows),
    }
    Ok(())
}

/// Files that an agent has open cannot be set aside.
fn check_no_agent(data_dir: &Path) -> anyhow::Result<()> {
    if block_on(1, 1, async { Ok(ask_status(data_dir).await.is_ok()) })? {
        bail!(
            "the agent of {} runs as the device that was retired: stop it (`systemctl stop \
             fleet-edge`), run this again, and start it",
            data_dir.display()
        );
    }
    Ok(())
}
