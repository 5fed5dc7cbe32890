//! The kernel's files as they are, as they go wrong, and as they go away.

use std::error::Error;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use hw::power::{PowerSource, RailLevel, SupplyKind, SupplyStatus};
use hw::thermal::{Cooler, Effort, Temperature};
use hw::units::{Bytes, Celsius, Rpm};
use hw::{Board, Fault, MachineIdentity, Missing, ReadError, Readings};

use crate::fixture::Fixture;

const NOW: Duration = Duration::from_secs(1);
const ADC: &str = "sys/class/hwmon/hwmon1/temp1_input";

fn temperature<'a>(readings: &'a Readings<Vec<Temperature>>, sensor: &str) -> &'a Temperature {
    let found = readings.values.iter().find(|value| value.sensor == sensor);
    found.unwrap_or_else(|| panic!("no sensor {sensor} in {readings:?}"))
}

fn degrees(value: f64) -> Option<Celsius> {
    Celsius::new(value).ok()
}

fn only(faults: Vec<ReadError>) -> ReadError {
    let [fault] = <[ReadError; 1]>::try_from(faults).expect("exactly one fault");
    fault
}

/// Breaks the converter's thermometer and expects all others to go on.
fn adc_fault(fixture: &Fixture) -> Fault {
    let mut board = fixture.board();
    let readings = board.thermal.read(NOW);
    let names: Vec<&str> = readings.values.iter().map(|value| value.sensor.as_str()).collect();
    assert_eq!(names, ["cpu", "gpu", "nvme_composite", "nvme_sensor_1", "nvme_composite_2"]);
    let fault = only(readings.faults);
    assert_eq!(fault.sensor, "rp1_adc_temp1");
    assert_eq!(fault.path, fixture.path(ADC));
    assert!(fault.source().is_some());
    fault.fault
}

#[test]
fn zones_and_chips_are_read_with_their_limits() {
    let fixture = Fixture::raspberry_pi();
    let readings = fixture.board().thermal.read(NOW);
    assert_eq!(readings.faults, []);
    assert_eq!(readings.values.len(), 6, "the repetition of zone 0 is left out");
    let cpu = temperature(&readings, "cpu");
    assert_eq!(cpu.celsius.get(), 48.312);
    assert_eq!((cpu.warning, cpu.critical), (degrees(80.0), degrees(110.0)));
    let nvme = temperature(&readings, "nvme_composite");
    assert_eq!((nvme.warning, nvme.critical), (degrees(82.85), degrees(84.85)));
    assert_eq!(temperature(&readings, "nvme_sensor_1").warning, None, "65261 °C means none");
}

#[test]
fn fans_and_steps_are_read() {
    let cooling = Fixture::raspberry_pi().board().thermal.cooling(NOW);
    let rpm = Rpm::new(2970).expect("a fan's speed");
    assert_eq!(
        cooling.values,
        [
            Cooler { device: "pwmfan_fan1".into(), effort: Effort::Speed(rpm) },
            Cooler { device: "pwm_fan".into(), effort: Effort::Step { step: 1, steps: 4 } },
        ]
    );
}

#[test]
fn supplies_and_rails_are_read() {
    let readings = Fixture::raspberry_pi().board().power.read(NOW);
    assert_eq!(readings.faults, []);
    let power = readings.values;
    assert_eq!((power.source, power.undervoltage), (PowerSource::Usb, Some(false)));
    let battery = power.supplies.iter().find(|supply| supply.name == "battery");
    let battery = battery.expect("a battery");
    assert_eq!(battery.kind, SupplyKind::Battery);
    assert_eq!(battery.status, Some(SupplyStatus::Discharging));
    assert_eq!(battery.capacity.map(f64::from), Some(87.0));
    assert_eq!(battery.voltage.map(f64::from), Some(8.012));
    assert_eq!(battery.current.map(f64::from), Some(-0.45));
    assert_eq!(battery.power.map(f64::from), Some(3.6054));
    let rails: Vec<(&str, f64, &str)> = power
        .rails
        .iter()
        .map(|rail| (rail.name.as_str(), rail.level.get(), rail.level.unit()))
        .collect();
    assert_eq!(
        rails,
        [
            ("rp1_adc_in1", 1.48, "volts"),
            ("rp1_adc_in2", 2.54, "volts"),
            ("ina219_in1", 5.104, "volts"),
            ("ina219_curr1", 0.713, "amperes"),
            ("ina219_power1", 3.64, "watts"),
        ],
        "the battery's repetition is left out"
    );
    assert!(matches!(power.rails[3].level, RailLevel::Current(_)));
}

#[test]
fn brown_out_and_unplugging_are_seen() {
    let fixture = Fixture::raspberry_pi();
    let mut board = fixture.board();
    board.power.read(NOW);
    fixture.write("sys/class/hwmon/hwmon3/in0_lcrit_alarm", b"1\n");
    fixture.write("sys/class/power_supply/rpi-usb/online", b"0\n");
    let power = board.power.read(NOW).values;
    assert_eq!((power.source, power.undervoltage), (PowerSource::Battery, Some(true)));
}

#[test]
fn machine_usage_is_read() {
    let fixture = Fixture::raspberry_pi();
    let mut board = fixture.board();
    let readings = board.machine.read(NOW);
    assert_eq!(readings.faults, []);
    let usage = readings.values;
    assert_eq!(usage.cores, Some(2));
    assert_eq!(usage.load.map(|load| load.load5.get()), Some(1.14));
    assert_eq!(usage.memory.map(|memory| memory.total()), Some(Bytes::new(8_245_304 << 10)));
    assert_eq!(usage.network.map(|traffic| traffic.sent), Some(Bytes::new(598_613)));
    assert_eq!(usage.uptime, Some(Duration::from_millis(633_620)));
    assert!(usage.disk.is_some());
    // 100 ticks more, 25 of them idle.
    fixture.write("proc/stat", b"cpu  1938 38444 4480 81020 319 0 46 70 0 0\ncpu0 1 1 1 1\n");
    let usage = board.machine.read(NOW).values;
    assert_eq!(usage.cpu_percent.map(f64::from), Some(75.0));
}

#[test]
fn identity_is_read_from_device_tree_or_dmi() {
    let fixture = Fixture::raspberry_pi();
    let identity = MachineIdentity::read(&fixture.root()).values;
    assert_eq!(identity.machine_id.as_deref(), Some("3d1219c7c4c5404aaa1f6d2a48adfda4"));
    assert_eq!(identity.board_serial.as_deref(), Some("10000000abcdef01"));
    assert_eq!(identity.model.as_deref(), Some("Raspberry Pi 5 Model B Rev 1.0"));
    assert_eq!(identity.hostname.as_deref(), Some("greenhouse-3"));
    assert_eq!(identity.architecture, "aarch64");
    assert_eq!(identity.kernel_release.as_deref(), Some("6.12.34+rpt-rpi-2712"));

    fixture.remove("proc/device-tree");
    fixture.write("sys/class/dmi/id/product_serial", b"To be filled by O.E.M.\n");
    fixture.write("sys/class/dmi/id/product_name", b"UP Squared\n");
    fixture.write("etc/machine-id", b"not an id\n");
    let readings = MachineIdentity::read(&fixture.root());
    assert_eq!(readings.values.board_serial, None);
    assert_eq!(readings.values.model.as_deref(), Some("UP Squared"));
    assert_eq!(readings.values.machine_id, None);
    assert_eq!(only(readings.faults).sensor, "machine_id");
}

#[test]
fn malformed_reading_is_a_fault_of_its_sensor_only() {
    let fixture = Fixture::raspberry_pi();
    for text in ["", "\n", "hot\n", "48.3\n", "99999999999999999999\n", "0x30\n", "NaN\n"] {
        fixture.write(ADC, text.as_bytes());
        assert!(matches!(adc_fault(&fixture), Fault::Malformed { .. }), "{text}");
    }
    fixture.write(ADC, b"-300000\n");
    assert!(matches!(adc_fault(&fixture), Fault::OutOfRange { .. }));
    fixture.write(ADC, b"\xff\xfe\n");
    assert_eq!(adc_fault(&fixture), Fault::NotText);
    fixture.write(ADC, &[b'1'; 100_000]);
    assert!(matches!(adc_fault(&fixture), Fault::TooLong { .. }));
}

#[test]
fn broken_diode_is_a_fault_whatever_its_number() {
    let fixture = Fixture::raspberry_pi();
    fixture.write("sys/class/hwmon/hwmon1/temp1_fault", b"1\n");
    let readings = fixture.board().thermal.read(NOW);
    assert_eq!(readings.values.len(), 5);
    assert_eq!(only(readings.faults).fault, Fault::Broken);
}

#[test]
fn bus_error_is_a_fault_of_its_sensor_only() {
    let fixture = Fixture::raspberry_pi();
    fixture.remove(ADC);
    // Nothing is mapped at address 0, so the kernel answers EIO.
    fixture.link(ADC, Path::new("/proc/self/mem"));
    let fault = adc_fault(&fixture);
    assert!(matches!(fault, Fault::Io { .. }) && fault.transient(), "{fault:?}");
}

#[test]
fn denied_file_is_a_fault_of_its_sensor_only() {
    let fixture = Fixture::raspberry_pi();
    let denied = fs::Permissions::from_mode(0o000);
    fs::set_permissions(fixture.path(ADC), denied).expect("own file");
    if fs::read(fixture.path(ADC)).is_ok() {
        // For root, permissions do not hold, but sysfs denies reading what can
        // only be written.
        fixture.remove(ADC);
        fixture.link(ADC, Path::new("/sys/bus/cpu/drivers_probe"));
    }
    assert_eq!(adc_fault(&fixture), Fault::Denied);
}

#[test]
fn pipe_in_place_of_a_sensor_does_not_hold_the_reader() {
    let fixture = Fixture::raspberry_pi();
    fixture.remove(ADC);
    let path = fixture.path(ADC);
    let mode = rustix::fs::Mode::from_raw_mode(0o600);
    rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, mode, 0)
        .expect("a pipe");
    assert!(matches!(adc_fault(&fixture), Fault::Malformed { .. }));
}

#[test]
fn broken_limit_leaves_the_temperature() {
    let fixture = Fixture::raspberry_pi();
    fixture.write("sys/class/hwmon/hwmon4/temp1_crit", b"?\n");
    let readings = fixture.board().thermal.read(NOW);
    let nvme = temperature(&readings, "nvme_composite");
    assert_eq!((nvme.warning, nvme.critical), (degrees(82.85), None));
    assert_eq!(only(readings.faults).sensor, "nvme_composite");
}

#[test]
fn sensor_keeps_its_name_while_its_label_cannot_be_read() {
    let fixture = Fixture::raspberry_pi();
    let mut board = fixture.board();
    let before = board.thermal.read(NOW).values;
    for path in ["sys/class/hwmon/hwmon4/temp1_label", "sys/class/thermal/thermal_zone1/type"] {
        fixture.write(path, b"\xff");
    }
    let after = board.thermal.read(NOW);
    assert_eq!(after.values, before);
    assert_eq!(after.faults.len(), 2);
}

#[test]
fn broken_supply_attribute_leaves_the_others() {
    let fixture = Fixture::raspberry_pi();
    fixture.write("sys/class/power_supply/battery/capacity", b"101\n");
    let readings = fixture.board().power.read(NOW);
    let battery = &readings.values.supplies[0];
    assert_eq!((battery.capacity, battery.voltage.map(f64::from)), (None, Some(8.012)));
    let fault = only(readings.faults);
    assert_eq!(fault.sensor, "battery");
    assert!(matches!(fault.fault, Fault::OutOfRange { .. }));
}

#[test]
fn broken_proc_file_leaves_the_others() {
    let fixture = Fixture::raspberry_pi();
    fixture.write("proc/meminfo", b"MemTotal: lots\n");
    let readings = fixture.board().machine.read(NOW);
    assert_eq!(readings.values.memory, None);
    assert!(readings.values.load.is_some() && readings.values.network.is_some());
    assert_eq!(only(readings.faults).sensor, "memory");
}

#[test]
fn missing_zone_is_named_not_failed() {
    let fixture = Fixture::raspberry_pi();
    fixture.remove("sys/class/thermal");
    let mut board = fixture.board();
    assert_eq!(board.thermal.read(NOW).faults, []);
    let missing = board.thermal.missing();
    let looked_at = fixture.path("sys/class/thermal");
    assert!(missing.contains(&Missing { what: "thermal zone", looked_at }), "{missing:?}");
}

#[test]
fn bare_board_names_everything_it_lacks() {
    let fixture = Fixture::empty();
    let root = fixture.root().with_data(fixture.path("data"));
    let board = Board::linux(&root);
    let words = |missing: Vec<Missing>| -> Vec<&str> {
        missing.iter().map(|missing| missing.what).collect()
    };
    assert_eq!(
        words(board.thermal.missing()),
        ["thermal zone", "hwmon temperature", "hwmon fan", "cooling device"]
    );
    assert_eq!(
        words(board.power.missing()),
        ["power supply", "voltage, current or power rail", "under-voltage alarm"]
    );
    assert_eq!(
        words(board.machine.missing()),
        ["processor time", "load average", "memory", "network traffic", "uptime", "data folder"]
    );
    assert_eq!(MachineIdentity::read(&root).faults, []);
}

#[test]
fn sensor_that_went_is_named_until_it_returns() {
    let fixture = Fixture::raspberry_pi();
    let mut board = fixture.board();
    board.thermal.read(NOW);
    assert_eq!(board.thermal.missing(), []);
    fixture.remove("sys/class/hwmon/hwmon4");
    assert_eq!(board.thermal.read(NOW).faults, []);
    let gone: Vec<Missing> = board.thermal.missing();
    assert_eq!(gone.len(), 2, "{gone:?}");
    fixture.write("sys/class/hwmon/hwmon9/name", b"nvme\n");
    fixture.write("sys/class/hwmon/hwmon9/temp1_label", b"Composite\n");
    fixture.write("sys/class/hwmon/hwmon9/temp1_input", b"39000\n");
    let readings = board.thermal.read(NOW);
    assert_eq!(temperature(&readings, "nvme_composite").celsius.get(), 39.0);
    assert_eq!(board.thermal.missing().len(), 1, "the second sensor is still away");
}
