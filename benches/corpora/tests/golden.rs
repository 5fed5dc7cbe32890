//! The corpora that must never change: figures measured on them are compared across releases.

use corpora::corpus::Kind;
use corpora::corpus::device_states::DeviceStates;
use data_encoding::HEXLOWER;

fn hash(records: &[Vec<u8>]) -> String {
    HEXLOWER.encode(&blake3::hash(&records.concat()).as_bytes()[..16])
}

#[test]
fn the_first_thousand_records_of_seed_1_keep_their_bytes() {
    let golden = [
        (Kind::Metrics, "b3eda7ade353009ca980df73c903adc0"),
        (Kind::Logs, "35ca819fa026fa117c050baa5cf4dbef"),
        (Kind::Json, "09bf03a1c7c0a1583ef9be590a8abbf7"),
        (Kind::DeviceStates, "f082e0c4afdc1942a2b6eafffa57859b"),
    ];
    let found = golden.map(|(kind, _)| (kind, hash(&kind.json_lines(1, 1_000))));
    assert_eq!(found, golden.map(|(kind, hash)| (kind, hash.to_owned())));
}

#[test]
fn the_entries_of_seed_1_keep_their_ids() {
    let last = DeviceStates::new(1).nth(999).expect("it has no end");
    assert_eq!(last.seq, 1_000);
    assert_eq!(
        last.id().to_string(),
        "ab8748d402455fa647a5a450f33b787f14998557b09a1d4811ed5d361feaedda"
    );
}

#[test]
fn another_seed_is_another_corpus_and_the_same_seed_the_same() {
    for kind in Kind::ALL {
        assert_eq!(kind.json_lines(7, 50), kind.json_lines(7, 50));
        assert_ne!(kind.json_lines(7, 50), kind.json_lines(8, 50), "{}", kind.name());
        let (short, long) = (kind.json_lines(7, 10), kind.json_lines(7, 50));
        assert_eq!(short, long[..10], "a shorter corpus is the beginning of a longer one");
    }
}
