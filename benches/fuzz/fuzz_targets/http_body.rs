//! Requests of the API: query, path and body, through the handlers' own extractors and checks,
//! and on into the twin.
//!
//! A request is refused with a 4xx, or what it asks for keeps every limit and can be written,
//! stored and read back.

#![no_main]

use std::collections::BTreeMap;

use actors::device::{BrainAuthor, Twin};
use actors::ports::{LoadedTree, Segment, TreeRecord};
use axum::http::Uri;
use brain::api::fuzzing::{Call, Route};
use fuzz::fleet::{self, DEVICE, genesis, key};
use fuzz::script::{Script, ScriptWriter};
use fuzz::{memory, must, seeds};
use libfuzzer_sys::fuzz_target;
use protocol::codec;
use protocol::history::{Change, ENTRY_BYTES_MAX, Provenance};
use protocol::state::{PATH_BYTES_MAX, VALUE_BYTES_MAX, VersionedState};

/// A body of 1 MiB is the most that the API takes; libFuzzer stays far below.
const HELD_BYTES_MAX: usize = 32 << 20;

fuzz_target!(init: seeds::write(seeds), |input: &[u8]| {
    memory::bounded(HELD_BYTES_MAX, || run(Script::new(input)));
});

fn run(mut script: Script<'_>) {
    let route = Route::ALL[script.below(Route::ALL.len())];
    let Ok(uri) = Uri::try_from(script.bytes()) else { return };
    let mut twin = twin();
    // A second request meets what the first one left.
    for body in [script.bytes(), script.rest()] {
        match route.read(&uri, body) {
            Ok(call) => carry_out(&mut twin, call),
            Err(response) => assert!(
                response.status().is_client_error(),
                "{route:?} of {uri} answers {}",
                response.status()
            ),
        }
    }
}

fn twin() -> Twin {
    let brain = BrainAuthor { keypair: key(2), epoch: 9, brains: [key(2).public()].into() };
    let (record, leaves) = (TreeRecord::new(genesis()), BTreeMap::new());
    let loaded = LoadedTree { number: 1, generation: 1, record, leaves, base: None };
    Twin::new(DEVICE, vec![key(3).public()], brain, loaded)
}

fn carry_out(twin: &mut Twin, call: Call) {
    match call {
        Call::SetDesired(desired, provenance) => {
            let changes = twin.replace_desired(&desired);
            write(twin, changes, provenance);
        }
        Call::PatchDesired(changes, provenance) => {
            assert!(changes.iter().all(|(path, _)| path.below("desired").is_some()));
            write(twin, changes, provenance);
        }
        Call::SaveState(state, provenance) => {
            let text = must(serde_json::to_vec(&state), "a state is JSON");
            let again: VersionedState = must(serde_json::from_slice(&text), "a state reads back");
            assert_eq!(again, state);
            if let Ok(changes) = twin.save(state.version, &state.state)
                && write(twin, changes, provenance)
            {
                // Asking for the same again finds it done.
                assert_eq!(twin.save(twin.version(), &state.state), Ok(Vec::new()));
            }
        }
        Call::CreateToken(request) => {
            assert!(request.uses > 0 && request.valid_seconds > 0 && request.label.len() <= 256);
        }
        Call::Page | Call::Read(_) | Call::LogIn => {}
    }
}

/// Writes changes; says whether the twin took them.
fn write(twin: &mut Twin, changes: Vec<Change>, provenance: Provenance) -> bool {
    for (path, value) in &changes {
        assert!(path.as_str().len() <= PATH_BYTES_MAX);
        assert!(value.as_ref().is_none_or(|value| value.size_bytes() <= VALUE_BYTES_MAX));
    }
    let before = twin.tree().state();
    let written = match twin.write(changes, provenance, fleet::at(0)) {
        Ok(Some(written)) => written,
        Ok(None) => return true,
        Err(refusal) => {
            let _ = (refusal.code(), refusal.to_string());
            assert_eq!(twin.tree().state(), before, "a refusal changes nothing");
            return false;
        }
    };
    let after = protocol::state::apply(before, &written.delta);
    assert_eq!(twin.tree().state(), after, "the answer tells what changed");
    for segment in &written.commit.segments {
        let stored: Segment = must(codec::decode(&codec::encode(segment)), "a segment decodes");
        let unpacked = must(stored.batch.unpack(), "a stored batch unpacks");
        assert!(unpacked.iter().any(|(id, entry)| {
            *id == written.id && entry.canonical().len() <= ENTRY_BYTES_MAX
        }));
    }
    true
}

fn seeds() -> Vec<seeds::Seed> {
    let device = format!("/api/v1/devices/{DEVICE}");
    let state = br#"{"version":1,"state":{"desired/fan/duty":1,"desired/a":0.1,"tags/rack":"b2"},"timestamp":1700000000000,"source":"operator","metadata":{"root":"00"}}"#;
    let requests: [(&str, u8, String, &[u8]); 9] = [
        ("list", 0, format!("/api/v1/devices?limit=10&after={DEVICE}"), b""),
        ("state_at", 1, format!("{device}/state?at=2026-01-02T03:04:05Z"), b""),
        ("state_version", 1, format!("{device}/state?version=7"), b""),
        ("history", 2, format!("{device}/history?limit=3&before=9"), b""),
        (
            "set",
            3,
            format!("{device}/desired?reason=because"),
            br#"{"fan/duty":1,"log/level":"debug","list":[1,2.5,true]}"#,
        ),
        ("patch", 4, format!("{device}/desired"), br#"{"fan/duty":null,"b":{"$bytes":"AP8="}}"#),
        ("save", 5, format!("{device}/states"), state),
        (
            "token",
            6,
            "/api/v1/enrolment-tokens".into(),
            br#"{"uses":3,"valid_seconds":60,"label":"rack"}"#,
        ),
        ("login", 7, "/api/v1/login".into(), br#"{"code":"ABCDEFGH"}"#),
    ];
    let seed = |(name, route, uri, body): (&str, u8, String, &[u8])| {
        let script = ScriptWriter::default().byte(route).bytes(uri.as_bytes()).bytes(body);
        let mut input = script.finish();
        input.extend_from_slice(body);
        (name.to_owned(), input)
    };
    requests.into_iter().map(seed).collect()
}
