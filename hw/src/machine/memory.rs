//! Main memory, from `/proc/meminfo` (Documentation/filesystems/proc.rst).

use super::Capacity;
use crate::Fault;
use crate::units::Bytes;

/// `MemTotal` and `MemAvailable`. A kernel before 3.14 has no second one, and
/// free memory would be a poor guess at it.
pub(super) fn meminfo(text: &str) -> Result<Capacity, Fault> {
    let total = field(text, "MemTotal")?;
    let available = field(text, "MemAvailable")?;
    Capacity::new(total, available)
}

fn field(text: &str, field: &'static str) -> Result<Bytes, Fault> {
    let line = text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    let raw = line.ok_or(Fault::FieldAbsent { field })?;
    let kibibytes = raw.trim().strip_suffix("kB").and_then(|raw| raw.trim().parse::<u64>().ok());
    let bytes = kibibytes.and_then(|kibibytes| kibibytes.checked_mul(1024));
    bytes.map(Bytes::new).ok_or_else(|| Fault::malformed("a number of kB", raw))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kibibytes_become_bytes() {
        let text = "MemTotal:        8000 kB\nMemFree: 1 kB\nMemAvailable:    3000 kB\n";
        let memory = meminfo(text).expect("a kernel's text");
        assert_eq!(memory.total(), Bytes::new(8000 * 1024));
        assert_eq!(memory.available(), Bytes::new(3000 * 1024));
    }

    #[test]
    fn missing_fields_units_and_huge_numbers_are_faults() {
        assert_eq!(meminfo("MemTotal: 5 kB"), Err(Fault::FieldAbsent { field: "MemAvailable" }));
        for total in ["5 MB", "5", "-5 kB", "18446744073709551615 kB", " kB", ""] {
            let text = format!("MemTotal: {total}\nMemAvailable: 1 kB\n");
            assert!(matches!(meminfo(&text), Err(Fault::Malformed { .. })), "{total}");
        }
        let text = "MemTotal: 1 kB\nMemAvailable: 2 kB\n";
        assert!(matches!(meminfo(text), Err(Fault::Contradiction { .. })));
    }
}
