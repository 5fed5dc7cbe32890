//! Texts that people and programs hand in: enrolment tokens, ids, paths, JSON values.
//!
//! Whatever is taken prints as something that is taken for the same.

#![no_main]

use std::fmt::{Debug, Display};
use std::str::FromStr;

use fuzz::{must, seeds};
use libfuzzer_sys::fuzz_target;
use protocol::codec;
use protocol::keys::{Chain, EnrolmentToken};
use protocol::state::{PATH_BYTES_MAX, PATH_DEPTH_MAX, Path, StateSource, VALUE_BYTES_MAX, Value};
use protocol::{BrainId, DeviceId, EntryId, FleetId, PublicKey, Signature, SyncError, TreeId};

fuzz_target!(init: seeds::write(seeds), |input: &[u8]| {
    let Some((how, rest)) = input.split_first() else { return };
    match how % 4 {
        0 => texts(&String::from_utf8_lossy(rest)),
        1 => json(rest),
        2 => certificate(rest),
        _ => path(&String::from_utf8_lossy(rest)),
    }
});

fn texts(text: &str) {
    if let Ok(token) = text.parse::<EnrolmentToken>() {
        assert_eq!(token.to_text().parse(), Ok(token.clone()));
        let secret = data_encoding::BASE64URL_NOPAD.encode(&token.secret);
        assert!(!format!("{token:?}").contains(&secret), "a secret never prints");
    }
    prints_back::<FleetId>(text);
    prints_back::<DeviceId>(text);
    prints_back::<BrainId>(text);
    prints_back::<TreeId>(text);
    prints_back::<EntryId>(text);
    prints_back::<PublicKey>(text);
    prints_back::<Signature>(text);
    prints_back::<StateSource>(text);
}

fn prints_back<T: FromStr + Display + Debug + PartialEq>(text: &str)
where
    T::Err: Debug + Display,
{
    match text.parse::<T>() {
        Ok(value) => assert_eq!(must(value.to_string().parse::<T>(), "it prints back"), value),
        Err(error) => drop(error.to_string()),
    }
}

fn path(text: &str) {
    let Ok(path) = Path::new(text) else { return };
    assert_eq!(path.as_str(), text);
    assert!(text.len() <= PATH_BYTES_MAX && path.segments().count() <= PATH_DEPTH_MAX);
    assert!(path.segments().all(|segment| !matches!(segment, "" | "." | "..")));
    assert_eq!(must(codec::decode::<Path>(&codec::encode(&path)), "a path decodes"), path);
    if let Some(below) = path.below(path.first_segment()) {
        assert_eq!(format!("{}/{below}", path.first_segment()), text);
    }
}

fn json(bytes: &[u8]) {
    if let Ok(value) = serde_json::from_slice::<Value>(bytes) {
        assert!(value.size_bytes() <= VALUE_BYTES_MAX);
        let text = must(serde_json::to_vec(&value), "a value is JSON");
        assert_eq!(must(serde_json::from_slice::<Value>(&text), "a value reads back"), value);
        assert_eq!(must(codec::decode::<Value>(&codec::encode(&value)), "a value decodes"), value);
    }
    if let Ok(error) = serde_json::from_slice::<SyncError>(bytes) {
        let text = must(serde_json::to_vec(&error), "an error is JSON");
        assert_eq!(must(serde_json::from_slice::<SyncError>(&text), "an error reads back"), error);
    }
}

/// No one proves a subject who does not hold the keys above it.
fn certificate(bytes: &[u8]) {
    let Ok(chain) = codec::decode::<Chain>(bytes) else { return };
    let root = fuzz::fleet::key(1).public();
    let fleet = fuzz::fleet::FLEET;
    if chain.verify(fleet, root, None).is_ok() {
        let golden = seeds::records().into_iter().find(|(name, _)| name == "certificate_chain");
        let golden: Chain = must(codec::decode(&golden.expect("a golden chain").1), "it decodes");
        // The fuzzer has seen this one signed chain, its issuer's, and no key.
        let leaf = &chain.leaf;
        assert!(*leaf == golden.leaf || Some(leaf) == golden.issuer.as_ref(), "{chain:?}");
    }
}

fn seeds() -> Vec<seeds::Seed> {
    let with = |how: u8, bytes: &[u8]| [&[how], bytes].concat();
    let mut all = Vec::new();
    for (name, bytes) in seeds::records() {
        match name.as_str() {
            "enrolment_token" => all.push((name, with(0, &bytes))),
            "certificate_chain" => all.push((name, with(2, &bytes))),
            _ => {}
        }
    }
    let id = "00112233445566778899aabbccddeeff";
    let texts = [id.to_owned(), id.repeat(2), id.repeat(4), "hardware".to_owned()];
    for (n, text) in texts.iter().enumerate() {
        all.push((format!("text_{n}"), with(0, text.as_bytes())));
    }
    let numbers = ["0.30000000000000004", "1.7976931348623157e308", "5e-324"];
    for (n, number) in numbers.iter().enumerate() {
        all.push((format!("number_{n}"), with(1, number.as_bytes())));
    }
    let values =
        ["-1.5e300", "[1,true,\"x\",{\"$bytes\":\"AP8=\"}]", "{\"$bytes\":\"AP8=\"}", "-0.0"];
    for (n, value) in values.iter().enumerate() {
        all.push((format!("value_{n}"), with(1, value.as_bytes())));
    }
    let error = br#"{"code":"MALFORMED","message":"m","source":{"layer":"edge","component":"c","operation":"o"},"recoverable":false}"#;
    all.push(("error".to_owned(), with(1, error)));
    all.push(("path".to_owned(), with(3, "reported/thermal/cpu_celsius".as_bytes())));
    all
}
