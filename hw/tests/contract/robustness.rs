//! No content of a kernel file makes a reader panic or leave its ranges.

use std::time::Duration;

use hw::MachineIdentity;
use proptest::prelude::*;

use crate::fixture::Fixture;

/// Bytes as a broken driver, a strange kernel or an attacker might give them.
fn content() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        prop::collection::vec(any::<u8>(), 0..200),
        "[ -~\n]{0,80}".prop_map(String::into_bytes),
        any::<i64>().prop_map(|number| format!("{number}\n").into_bytes()),
        any::<f64>().prop_map(|number| format!("{number} {number} {number}\n").into_bytes()),
        "(cpu|cpu0|MemTotal:|MemAvailable:|eth0:|a\nb\nc:)( -?[0-9]{0,20}){0,12}( kB)?\n{0,2}"
            .prop_map(String::into_bytes),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn no_content_makes_a_reader_panic(
        contents in prop::collection::vec(
            (prop::sample::select(Fixture::files().collect::<Vec<_>>()), content()), 1..8),
    ) {
        let fixture = Fixture::raspberry_pi();
        let mut board = fixture.board();
        for (path, content) in contents {
            fixture.write(path, &content);
            let now = Duration::ZERO;
            for value in board.thermal.read(now).values {
                prop_assert!(value.celsius.get().is_finite());
            }
            board.thermal.cooling(now);
            board.power.read(now);
            let usage = board.machine.read(now).values;
            if let Some(percent) = usage.cpu_percent {
                prop_assert!((0.0..=100.0).contains(&percent.get()));
            }
            MachineIdentity::read(&fixture.root());
            board.thermal.missing();
            board.power.missing();
            board.machine.missing();
        }
    }
}
