//! What the process itself takes, as the system's `/proc` tells.

use std::fs;
use std::time::Instant;

use opentelemetry::KeyValue;
use opentelemetry::metrics::Meter;

/// The unit of times in `/proc/self/stat`, the same on every Linux machine.
const TICKS_PER_SECOND: f64 = 100.0;

/// Makes the instruments of the process.
pub fn observe(meter: &Meter) {
    let started = Instant::now();
    meter
        .f64_observable_counter("process.cpu.time")
        .with_unit("s")
        .with_description("Processor time taken")
        .with_callback(|observer| {
            let Some((user, system)) = cpu_seconds() else { return };
            observer.observe(user, &[KeyValue::new("cpu.mode", "user")]);
            observer.observe(system, &[KeyValue::new("cpu.mode", "system")]);
        })
        .build();
    meter
        .i64_observable_up_down_counter("process.memory.usage")
        .with_unit("By")
        .with_description("Memory in use: the resident set")
        .with_callback(|observer| {
            let kib = status_figure("VmRSS:");
            kib.into_iter().for_each(|kib| observer.observe((kib << 10) as i64, &[]));
        })
        .build();
    meter
        .i64_observable_up_down_counter("process.thread.count")
        .with_unit("{thread}")
        .with_description("Threads")
        .with_callback(|observer| {
            let threads = status_figure("Threads:");
            threads.into_iter().for_each(|count| observer.observe(count as i64, &[]));
        })
        .build();
    meter
        .i64_observable_up_down_counter("process.unix.file_descriptor.count")
        .with_unit("{file_descriptor}")
        .with_description("Open file descriptors")
        .with_callback(|observer| {
            let Ok(open) = fs::read_dir("/proc/self/fd") else { return };
            // One of them is that of the folder just opened.
            observer.observe(open.count() as i64 - 1, &[]);
        })
        .build();
    meter
        .u64_observable_counter("process.disk.io")
        .with_unit("By")
        .with_description("Bytes that the process had the disk read and write")
        .with_callback(|observer| {
            let Ok(io) = fs::read_to_string("/proc/self/io") else { return };
            for (name, direction) in [("read_bytes:", "read"), ("write_bytes:", "write")] {
                let bytes = figure(&io, name);
                let direction = [KeyValue::new("disk.io.direction", direction)];
                bytes.into_iter().for_each(|bytes| observer.observe(bytes, &direction));
            }
        })
        .build();
    meter
        .f64_observable_gauge("process.uptime")
        .with_unit("s")
        .with_description("How long the process has run")
        .with_callback(move |observer| observer.observe(started.elapsed().as_secs_f64(), &[]))
        .build();
}

/// Processor time in user mode and in the system, in seconds.
fn cpu_seconds() -> Option<(f64, f64)> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    // The name in parentheses may hold anything; the 12th and 13th field after it are meant.
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace().skip(11);
    let mut seconds = || Some(fields.next()?.parse::<f64>().ok()? / TICKS_PER_SECOND);
    Some((seconds()?, seconds()?))
}

fn status_figure(name: &str) -> Option<u64> {
    figure(&fs::read_to_string("/proc/self/status").ok()?, name)
}

fn figure(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_ascii_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Meters;

    #[test]
    fn the_process_finds_itself() {
        let meters = Meters::scraped_only();
        observe(&meters.meter("process"));
        let text = meters.scrape();
        for name in [
            "process_cpu_time_seconds_total{cpu_mode=\"user\"}",
            "process_memory_usage_bytes",
            "process_thread_count",
            "process_unix_file_descriptor_count",
            "process_disk_io_bytes_total{disk_io_direction=\"write\"}",
            "process_uptime_seconds",
        ] {
            assert!(text.lines().any(|line| line.starts_with(name)), "{name} in\n{text}");
        }
        assert!(status_figure("VmRSS:").is_some_and(|kib| kib > 100));
    }
}
