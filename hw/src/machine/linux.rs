//! The machine as procfs shows it.

use std::path::PathBuf;
use std::time::Duration;

use super::{Machine, Usage, cpu, disk, memory, network};
use crate::reading::Faults;
use crate::{Fault, Missing, Readings, Root, files};

/// procfs, and the file system of the data folder.
pub struct Linux {
    root: Root,
    previous: Option<cpu::Times>,
}

impl Linux {
    /// Touches no file.
    pub fn new(root: &Root) -> Linux {
        Linux { root: root.clone(), previous: None }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.proc.join(name)
    }

    fn table<T>(
        &self,
        sensor: &str,
        name: &str,
        parse: impl FnOnce(&str) -> Result<T, Fault>,
        faults: &mut Faults,
    ) -> Option<T> {
        let path = self.path(name);
        let outcome = files::table(&path).and_then(|text| text.as_deref().map(parse).transpose());
        faults.note(sensor, &path, outcome).flatten()
    }
}

impl Machine for Linux {
    fn read(&mut self, _now: Duration) -> Readings<Usage> {
        let mut faults = Faults::default();
        let stat = self.table("cpu", "stat", cpu::stat, &mut faults);
        let times = stat.map(|stat| stat.times);
        let cpu_percent = times.zip(self.previous).and_then(|(now, before)| now.busy_since(before));
        self.previous = times.or(self.previous);
        let room = disk::room(&self.root.data);
        let usage = Usage {
            cpu_percent,
            cores: stat.map(|stat| stat.cores),
            load: self.table("load", "loadavg", cpu::load, &mut faults),
            memory: self.table("memory", "meminfo", memory::meminfo, &mut faults),
            disk: faults.note("disk", &self.root.data, room).flatten(),
            network: self.table("network", "net/dev", network::traffic, &mut faults),
            uptime: self.table("uptime", "uptime", cpu::uptime, &mut faults),
        };
        faults.beside(usage)
    }

    fn missing(&self) -> Vec<Missing> {
        let places = [
            ("processor time", self.path("stat")),
            ("load average", self.path("loadavg")),
            ("memory", self.path("meminfo")),
            ("network traffic", self.path("net/dev")),
            ("uptime", self.path("uptime")),
            ("data folder", self.root.data.clone()),
        ];
        let absent = places.into_iter().filter(|(_, path)| !path.exists());
        absent.map(|(what, looked_at)| Missing { what, looked_at }).collect()
    }
}
