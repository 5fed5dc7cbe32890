//! What holds for every board, on the kernel's files and in simulation.

use std::collections::BTreeSet;
use std::time::Duration;

use hw::power::PowerSource;
use hw::sim::{Conditions, Mains};
use hw::thermal::Effort;
use hw::units::Celsius;
use hw::{Board, Thermal};

use crate::fixture::Fixture;

/// Runs a claim over all implementations.
fn on_every_board(claim: impl Fn(&str, Board)) {
    claim("here", Board::linux(&hw::Root::real()));
    on_every_healthy_board(claim);
}

/// Runs a claim over the boards that are known to be well, which the machine
/// that runs the tests need not be.
fn on_every_healthy_board(claim: impl Fn(&str, Board)) {
    let (pi, bare) = (Fixture::raspberry_pi(), Fixture::empty());
    claim("raspberry pi", pi.board());
    claim("bare", bare.board());
    for seed in 0..5 {
        claim(&format!("simulated {seed}"), Board::simulated(seed));
    }
    let conditions = Conditions { ambient: Celsius::MOST, mains: Mains::Absent };
    claim("simulated furnace", Board::simulated_under(1, conditions));
}

fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

fn well_formed(names: &[String]) -> bool {
    let unique: BTreeSet<&String> = names.iter().collect();
    let clean = |name: &String| {
        !name.is_empty() && name.chars().all(|c| matches!(c, 'a'..='z' | '0'..='9' | '_'))
    };
    unique.len() == names.len() && names.iter().all(clean)
}

fn names(board: &mut Board, now: Duration) -> [Vec<String>; 4] {
    let power = board.power.read(now).values;
    [
        board.thermal.read(now).values.into_iter().map(|value| value.sensor).collect(),
        board.thermal.cooling(now).values.into_iter().map(|value| value.device).collect(),
        power.supplies.into_iter().map(|supply| supply.name).collect(),
        power.rails.into_iter().map(|rail| rail.name).collect(),
    ]
}

#[test]
fn names_are_clean_unique_and_stable() {
    on_every_board(|which, mut board| {
        let first = names(&mut board, seconds(1));
        assert!(first.iter().all(|names| well_formed(names)), "{which}: {first:?}");
        assert_eq!(names(&mut board, seconds(60)), first, "{which}");
    });
}

#[test]
fn values_lie_in_their_ranges() {
    on_every_healthy_board(|which, mut board| {
        for minute in 0..200 {
            let now = seconds(minute * 60);
            for value in board.thermal.read(now).values {
                assert!(Celsius::new(value.celsius.get()).is_ok(), "{which}: {value:?}");
                if let (Some(warning), Some(critical)) = (value.warning, value.critical) {
                    assert!(warning <= critical, "{which}: {value:?}");
                }
            }
            for cooler in board.thermal.cooling(now).values {
                if let Effort::Step { step, steps } = cooler.effort {
                    assert!(step <= steps, "{which}: {cooler:?}");
                }
            }
            let power = board.power.read(now).values;
            assert!(power.rails.iter().all(|rail| rail.level.get().is_finite()), "{which}");
            assert_eq!(power.source, PowerSource::among(&power.supplies), "{which}");
            let usage = board.machine.read(now).values;
            for capacity in usage.memory.into_iter().chain(usage.disk) {
                let parts = capacity.used().get() + capacity.available().get();
                assert_eq!(parts, capacity.total().get(), "{which}");
            }
            assert!(usage.cores != Some(0), "{which}");
        }
    });
}

#[test]
fn processor_share_needs_two_readings() {
    on_every_board(|which, mut board| {
        assert_eq!(board.machine.read(seconds(5)).values.cpu_percent, None, "{which}");
    });
    for seed in 0..5 {
        let mut board = Board::simulated(seed);
        board.machine.read(seconds(5));
        assert!(board.machine.read(seconds(10)).values.cpu_percent.is_some());
        let same_moment = board.machine.read(seconds(10)).values;
        assert_eq!(same_moment.cpu_percent, None);
    }
}

#[test]
fn healthy_boards_have_no_faults() {
    on_every_healthy_board(|which, mut board| {
        assert_eq!(board.thermal.read(seconds(1)).faults, [], "{which}");
        assert_eq!(board.thermal.cooling(seconds(1)).faults, [], "{which}");
        assert_eq!(board.power.read(seconds(1)).faults, [], "{which}");
        assert_eq!(board.machine.read(seconds(1)).faults, [], "{which}");
    });
}

#[test]
fn what_is_missing_has_no_values() {
    on_every_healthy_board(|which, mut board| {
        let now = seconds(1);
        let thermal = board.thermal.read(now).values;
        let named = |what| board.thermal.missing().iter().any(|missing| missing.what == what);
        let no_thermometer = named("thermal zone") && named("hwmon temperature");
        assert_eq!(no_thermometer, thermal.is_empty(), "{which}");
        let power = board.power.read(now).values;
        let named = |what| board.power.missing().iter().any(|missing| missing.what == what);
        assert_eq!(named("power supply"), power.supplies.is_empty(), "{which}");
        assert_eq!(named("under-voltage alarm"), power.undervoltage.is_none(), "{which}");
        let usage = board.machine.read(now).values;
        let named = |what| board.machine.missing().iter().any(|missing| missing.what == what);
        assert_eq!(named("memory"), usage.memory.is_none(), "{which}");
        assert_eq!(named("data folder"), usage.disk.is_none(), "{which}");
    });
}

#[test]
fn boards_of_one_seed_agree_whenever_they_are_read() {
    let (mut often, mut once) = (Board::simulated(11), Board::simulated(11));
    for second in 0..5000 {
        often.thermal.read(seconds(second));
    }
    let now = seconds(5000);
    assert_eq!(often.thermal.read(now), once.thermal.read(now));
    assert_eq!(often.power.read(now), once.power.read(now));
    assert_eq!(often.machine.read(now), once.machine.read(now));
    assert_ne!(often.thermal.read(now), Board::simulated(12).thermal.read(now));
}

#[test]
fn simulated_parts_live_in_one_world() {
    let mut board = Board::simulated(5);
    let mut hottest_load = (0.0, 0.0);
    let mut coldest_load = (1000.0, 0.0);
    for minute in 0..2880 {
        let now = seconds(minute * 60);
        let watts = board.power.read(now).values.rails[2].level.get();
        let celsius = cpu_celsius(board.thermal.as_mut(), now);
        if celsius > hottest_load.0 {
            hottest_load = (celsius, watts);
        }
        if minute > 30 && celsius < coldest_load.0 {
            coldest_load = (celsius, watts);
        }
        let usage = board.machine.read(now).values;
        assert_eq!(usage.uptime, Some(now));
    }
    assert!(hottest_load.1 > coldest_load.1, "{hottest_load:?} {coldest_load:?}");
}

#[test]
fn time_going_on_changes_the_simulated_board() {
    let mut board = Board::simulated(3);
    let first = cpu_celsius(board.thermal.as_mut(), seconds(1));
    let next = cpu_celsius(board.thermal.as_mut(), seconds(2));
    let later = cpu_celsius(board.thermal.as_mut(), seconds(600));
    assert_ne!(first, next);
    assert!((first - next).abs() < 1.0, "a second moves {first} °C to {next} °C");
    assert!(later > first + 5.0, "ten minutes warm {first} °C to {later} °C");
    let one = board.machine.read(seconds(600)).values.network.expect("simulated traffic");
    let other = board.machine.read(seconds(660)).values.network.expect("simulated traffic");
    assert!(other.received > one.received && other.sent > one.sent);
}

fn cpu_celsius(thermal: &mut dyn Thermal, now: Duration) -> f64 {
    let values = thermal.read(now).values;
    let cpu = values.iter().find(|value| value.sensor == "cpu");
    cpu.expect("a simulated processor").celsius.get()
}
