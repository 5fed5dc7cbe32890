//! A tree of kernel files, as a Raspberry Pi 5 with a battery board shows them.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use hw::{Board, Root};
use tempfile::TempDir;

pub(crate) struct Fixture {
    dir: TempDir,
}

/// File and content; the kernel ends most of them with a line end.
const FILES: &[(&str, &str)] = &[
    ("sys/devices/thermal_zone0/type", "cpu-thermal\n"),
    ("sys/devices/thermal_zone0/temp", "48312\n"),
    ("sys/devices/thermal_zone0/trip_point_0_type", "critical\n"),
    ("sys/devices/thermal_zone0/trip_point_0_temp", "110000\n"),
    ("sys/devices/thermal_zone0/trip_point_1_type", "active\n"),
    ("sys/devices/thermal_zone0/trip_point_1_temp", "50000\n"),
    ("sys/devices/thermal_zone0/trip_point_2_type", "passive\n"),
    ("sys/devices/thermal_zone0/trip_point_2_temp", "85000\n"),
    ("sys/devices/thermal_zone0/trip_point_3_type", "passive\n"),
    ("sys/devices/thermal_zone0/trip_point_3_temp", "80000\n"),
    ("sys/class/thermal/thermal_zone1/type", "gpu-thermal\n"),
    ("sys/class/thermal/thermal_zone1/temp", "47000\n"),
    ("sys/class/thermal/cooling_device0/type", "pwm-fan\n"),
    ("sys/class/thermal/cooling_device0/cur_state", "1\n"),
    ("sys/class/thermal/cooling_device0/max_state", "4\n"),
    // The thermal core's repetition of zone 0.
    ("sys/class/hwmon/hwmon0/name", "cpu_thermal\n"),
    ("sys/class/hwmon/hwmon0/temp1_input", "48312\n"),
    ("sys/class/hwmon/hwmon1/name", "rp1_adc\n"),
    ("sys/class/hwmon/hwmon1/temp1_input", "52400\n"),
    ("sys/class/hwmon/hwmon1/in1_input", "1480\n"),
    ("sys/class/hwmon/hwmon1/in2_input", "2540\n"),
    ("sys/class/hwmon/hwmon2/name", "pwmfan\n"),
    ("sys/class/hwmon/hwmon2/fan1_input", "2970\n"),
    ("sys/class/hwmon/hwmon3/name", "rpi_volt\n"),
    ("sys/class/hwmon/hwmon3/in0_lcrit_alarm", "0\n"),
    ("sys/class/hwmon/hwmon4/name", "nvme\n"),
    ("sys/class/hwmon/hwmon4/temp1_label", "Composite\n"),
    ("sys/class/hwmon/hwmon4/temp1_input", "38850\n"),
    ("sys/class/hwmon/hwmon4/temp1_max", "82850\n"),
    ("sys/class/hwmon/hwmon4/temp1_crit", "84850\n"),
    ("sys/class/hwmon/hwmon4/temp2_label", "Sensor 1\n"),
    ("sys/class/hwmon/hwmon4/temp2_input", "41850\n"),
    ("sys/class/hwmon/hwmon4/temp2_max", "65261850\n"),
    ("sys/class/hwmon/hwmon5/name", "nvme\n"),
    ("sys/class/hwmon/hwmon5/temp1_label", "Composite\n"),
    ("sys/class/hwmon/hwmon5/temp1_input", "36850\n"),
    ("sys/class/hwmon/hwmon6/name", "ina219\n"),
    ("sys/class/hwmon/hwmon6/in1_input", "5104\n"),
    ("sys/class/hwmon/hwmon6/curr1_input", "713\n"),
    ("sys/class/hwmon/hwmon6/power1_input", "3640000\n"),
    // The battery's repetition.
    ("sys/class/hwmon/hwmon7/name", "battery\n"),
    ("sys/class/hwmon/hwmon7/in0_input", "8012\n"),
    ("sys/devices/power_supply/battery/present", "1\n"),
    ("sys/class/power_supply/battery/type", "Battery\n"),
    ("sys/class/power_supply/battery/present", "1\n"),
    ("sys/class/power_supply/battery/status", "Discharging\n"),
    ("sys/class/power_supply/battery/capacity", "87\n"),
    ("sys/class/power_supply/battery/voltage_now", "8012000\n"),
    ("sys/class/power_supply/battery/current_now", "-450000\n"),
    ("sys/class/power_supply/battery/power_now", "3605400\n"),
    ("sys/class/power_supply/rpi-usb/type", "USB_PD\n"),
    ("sys/class/power_supply/rpi-usb/online", "1\n"),
    (
        "proc/stat",
        "cpu  1863 38444 4480 80995 319 0 46 70 0 0\n\
         cpu0 660 19062 1977 41308 52 0 8 36 0 0\n\
         cpu1 1202 19382 2502 39687 266 0 37 34 0 0\nintr 5 0 1\nctxt 12\nbtime 1763705800\n",
    ),
    ("proc/loadavg", "2.19 1.14 0.47 3/102 8749\n"),
    ("proc/meminfo", "MemTotal: 8245304 kB\nMemFree: 6380052 kB\nMemAvailable: 7686580 kB\n"),
    ("proc/uptime", "633.62 809.95\n"),
    (
        "proc/net/dev",
        "Inter-|   Receive                |  Transmit\n face |bytes packets errs|bytes\n    \
         lo: 3193 29 0 0 0 0 0 0 3193 29 0 0 0 0 0 0\n  \
         eth0: 270876978 8699 0 0 0 0 0 0 598613 5330 0 0 0 0 0 0\n",
    ),
    ("proc/device-tree/serial-number", "10000000abcdef01\0"),
    ("proc/device-tree/model", "Raspberry Pi 5 Model B Rev 1.0\0"),
    ("proc/sys/kernel/hostname", "greenhouse-3\n"),
    ("proc/sys/kernel/osrelease", "6.12.34+rpt-rpi-2712\n"),
    ("proc/sys/kernel/arch", "aarch64\n"),
    ("etc/machine-id", "3d1219c7c4c5404aaa1f6d2a48adfda4\n"),
];

/// As sysfs does, classes point to devices.
const LINKS: &[(&str, &str)] = &[
    ("sys/class/thermal/thermal_zone0", "../../devices/thermal_zone0"),
    ("sys/class/hwmon/hwmon0/device", "../../thermal/thermal_zone0"),
    ("sys/class/hwmon/hwmon7/device", "../../../devices/power_supply/battery"),
];

impl Fixture {
    pub(crate) fn raspberry_pi() -> Fixture {
        let fixture = Fixture::empty();
        for (path, content) in FILES {
            fixture.write(path, content.as_bytes());
        }
        for (path, target) in LINKS {
            fixture.link(path, Path::new(target));
        }
        fixture
    }

    pub(crate) fn empty() -> Fixture {
        Fixture { dir: tempfile::tempdir().expect("a folder for the test") }
    }

    /// Every file of the Raspberry Pi that a reader may look at.
    pub(crate) fn files() -> impl Iterator<Item = &'static str> {
        FILES.iter().map(|(path, _)| *path)
    }

    pub(crate) fn root(&self) -> Root {
        Root::under(self.dir.path())
    }

    pub(crate) fn board(&self) -> Board {
        Board::linux(&self.root())
    }

    pub(crate) fn path(&self, path: &str) -> PathBuf {
        self.dir.path().join(path)
    }

    pub(crate) fn write(&self, path: &str, content: &[u8]) {
        let path = self.path(path);
        make_parent(&path);
        fs::write(path, content).expect("a file of the fixture");
    }

    pub(crate) fn link(&self, path: &str, target: &Path) {
        let path = self.path(path);
        make_parent(&path);
        symlink(target, path).expect("a link of the fixture");
    }

    pub(crate) fn remove(&self, path: &str) {
        let path = self.path(path);
        let removed = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
        removed.expect("something to remove from the fixture");
    }
}

fn make_parent(path: &Path) {
    let parent = path.parent().expect("a path below the fixture's root");
    fs::create_dir_all(parent).expect("a folder of the fixture");
}
