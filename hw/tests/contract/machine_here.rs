//! The machine that runs the tests.

use std::time::{Duration, Instant};

use hw::{Board, MachineIdentity, Root};

#[test]
fn this_machine_reads_sane_values() {
    let mut board = Board::linux(&Root::real());
    let first = board.machine.read(Duration::ZERO);
    assert_eq!(first.faults, []);
    let started = Instant::now();
    while started.elapsed() < Duration::from_millis(100) {
        std::hint::spin_loop();
    }
    let usage = board.machine.read(Duration::from_millis(100)).values;
    assert!(usage.cpu_percent.is_some_and(|percent| percent.get() > 0.0), "{usage:?}");
    assert!(usage.cores.is_some_and(|cores| cores >= 1));
    assert!(usage.memory.is_some_and(|memory| memory.available() < memory.total()));
    assert!(usage.disk.is_some_and(|disk| disk.total().get() > 1 << 20));
    assert!(first.values.uptime.is_some() && usage.uptime >= first.values.uptime);
    assert!(usage.load.is_some() && usage.network.is_some());
    assert_eq!(board.machine.missing(), []);
}

#[test]
fn this_machine_knows_its_kernel() {
    let identity = MachineIdentity::read(&Root::real()).values;
    assert_eq!(identity.architecture, std::env::consts::ARCH);
    assert!(identity.kernel_release.is_some() && identity.hostname.is_some());
}
