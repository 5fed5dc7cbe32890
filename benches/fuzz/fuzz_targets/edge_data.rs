//! What an agent reads: rows of its spool, settings that somebody desires, its own files, and the
//! answer of another agent's local API.

#![no_main]

use std::collections::BTreeMap;

use edge::apply::{outcome, plan};
use edge::enrolment::{Enrolment, parse_server};
use edge::sense::{PERIOD_MS_MAX, PERIOD_MS_MIN, SenseSettings};
use edge::spool::{AuthorState, Commit, EntryRecord, LogRecord, MemorySpool, Spool};
use edge::status::Status;
use fuzz::fleet::{self, genesis};
use fuzz::script::{Script, ScriptWriter};
use fuzz::{memory, must, seeds};
use libfuzzer_sys::fuzz_target;
use protocol::codec;
use protocol::history::Entry;
use protocol::state::PATH_BYTES_MAX;
use serde_json::Value as Json;

const HELD_BYTES_MAX: usize = 16 << 20;

fuzz_target!(init: seeds::write(seeds), |input: &[u8]| {
    let Some((how, rest)) = input.split_first() else { return };
    memory::bounded(HELD_BYTES_MAX, || match how % 6 {
        0 => row(rest),
        1 => records(rest),
        2 => settings(Script::new(rest)),
        3 => desired(Script::new(rest)),
        4 => files(rest),
        _ => server(&String::from_utf8_lossy(rest)),
    });
});

/// A row of the spool gives the entry that it holds, or an error.
fn row(bytes: &[u8]) {
    let mut spool = MemorySpool::default();
    let row = EntryRecord { log: 0, seq: 1, bytes: bytes.to_vec() };
    let commit = Commit { begin: Some(genesis()), entries: vec![row], ..Commit::default() };
    if spool.commit(&commit).is_err() {
        return;
    }
    let Ok(entries) = spool.range(0, 0, usize::MAX) else { return };
    for entry in entries {
        let again = must(EntryRecord::new(0, &entry), "an entry is a row");
        let mut spool = MemorySpool::default();
        let seq = again.seq;
        let commit = Commit { begin: Some(genesis()), entries: vec![again], ..Commit::default() };
        must(spool.commit(&commit), "a row is kept");
        let read = must(spool.range(0, seq.saturating_sub(1), usize::MAX), "a row reads back");
        assert_eq!(read, [entry]);
    }
}

fn records(bytes: &[u8]) {
    if let Ok(log) = codec::decode::<LogRecord>(bytes) {
        assert_eq!(must(codec::decode::<LogRecord>(&codec::encode(&log)), "it decodes"), log);
    }
    if let Ok(author) = codec::decode::<AuthorState>(bytes) {
        let again: AuthorState = must(codec::decode(&codec::encode(&author)), "it decodes");
        assert_eq!(again, author);
    }
}

/// One setting changes alone, and within its range, or not at all.
fn settings(mut script: Script<'_>) {
    let mut settings = SenseSettings::default();
    while !script.is_over() {
        let name = match script.below(4) {
            0 => "thermal/period_ms".to_owned(),
            1 => "machine/dead_band_load".to_owned(),
            2 => "power/dead_band_volts".to_owned(),
            _ => script.text(),
        };
        let value = match script.below(2) {
            0 => fleet::value(&mut script).to_json(),
            _ => serde_json::from_slice(script.bytes()).unwrap_or(Json::Null),
        };
        match settings.with(&name, &value) {
            Ok(changed) => {
                must(changed.check(), "a setting that is taken is sound");
                for period in
                    [changed.thermal.period_ms, changed.power.period_ms, changed.machine.period_ms]
                {
                    assert!((PERIOD_MS_MIN..=PERIOD_MS_MAX).contains(&period));
                }
                let found = changed.value_of(&name).and_then(|json| json.as_f64());
                assert_eq!(found, value.as_f64(), "{name} is what was asked for");
                settings = changed;
            }
            Err(error) => drop(error.to_string()),
        }
    }
}

/// What is to be done about any desired state, and what is reported of it.
fn desired(mut script: Script<'_>) {
    let mut some = || {
        let mut leaves = BTreeMap::new();
        for _ in 0..script.below(6) {
            if let Some(path) = fleet::path(&mut script)
                && let Some(below) = path.below(path.first_segment())
            {
                leaves.insert(below.to_owned(), fleet::value(&mut script));
            }
        }
        leaves
    };
    let (mut done, wanted) = (some(), some());
    for step in plan(&done, &wanted) {
        for (path, _) in outcome(&step, Ok(())).into_iter().chain(outcome(&step, Err("no".into())))
        {
            assert!(path.as_str().len() <= PATH_BYTES_MAX && path.below("reported").is_some());
        }
        match step.value {
            Some(value) => drop(done.insert(step.path, value)),
            None => drop(done.remove(&step.path)),
        }
    }
    assert_eq!(done, wanted, "the plan leads to what is wanted");
}

fn files(bytes: &[u8]) {
    if let Ok(enrolment) = serde_json::from_slice::<Enrolment>(bytes) {
        let _ = (enrolment.issuer(), format!("{enrolment:?}"));
        let text = must(serde_json::to_vec(&enrolment), "an enrolment is JSON");
        assert_eq!(must(serde_json::from_slice::<Enrolment>(&text), "it reads back"), enrolment);
    }
    if let Ok(status) = serde_json::from_slice::<Status>(bytes) {
        let text = must(serde_json::to_vec(&status), "a status is JSON");
        assert_eq!(must(serde_json::from_slice::<Status>(&text), "it reads back"), status);
    }
}

/// No address without TLS or a host is a brain's.
fn server(text: &str) {
    let Ok(url) = parse_server(text) else { return };
    assert!(url.scheme() == "wss" && url.host_str().is_some_and(|host| !host.is_empty()));
    assert_eq!(parse_server(url.as_str()), Ok(url));
}

fn seeds() -> Vec<seeds::Seed> {
    let with = |how: u8, bytes: &[u8]| [&[how], bytes].concat();
    let mut all = Vec::new();
    for (name, bytes) in seeds::records() {
        match name.as_str() {
            "batch" => all.push((format!("row_{name}"), with(0, &bytes))),
            "log_state" => all.push((name, with(1, &bytes))),
            _ => {}
        }
    }
    let mut script = Script::new(&[1, 0, 0, 0, 1, 2, 1, 2]);
    let entry = fleet::entry(&mut script, fleet::device_log(), 1, Entry::NO_PREV);
    all.push(("row".to_owned(), with(0, &must(EntryRecord::new(0, &entry), "a row").bytes)));
    let setting = ScriptWriter::default().byte(0).byte(1).bytes(b"250").byte(3);
    let setting = setting.bytes(b"power/period_ms").byte(1).bytes(b"1e3").finish();
    all.push(("settings".to_owned(), with(2, &setting)));
    all.push(("desired".to_owned(), with(3, &[2, 0, 1, 1, 1, 7, 1, 2, 3, 0, 2, 0, 1, 0, 1, 9])));
    let enrolment = Enrolment {
        fleet: fleet::FLEET,
        root: fleet::key(1).public(),
        certificate: fleet::device_chain(),
        api_key: "fbk_secret".into(),
        server: must(parse_server("wss://brain:8443"), "an address"),
        ca_pem: "pem".into(),
        name: "crane 4".into(),
    };
    all.push(("enrolment".to_owned(), with(4, &must(serde_json::to_vec(&enrolment), "JSON"))));
    let status = edge::status::Board::new(fleet::DEVICE, 1).status();
    all.push(("status".to_owned(), with(4, &must(serde_json::to_vec(&status), "JSON"))));
    for (n, server) in
        ["wss://brain:8443/a?b", "https://[::1]:1/", "wss://u:p@h"].iter().enumerate()
    {
        all.push((format!("server_{n}"), with(5, server.as_bytes())));
    }
    all
}
