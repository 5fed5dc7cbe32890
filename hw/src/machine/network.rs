//! Traffic, from `/proc/net/dev` (Documentation/filesystems/proc.rst).

use super::Traffic;
use crate::Fault;
use crate::units::Bytes;

/// Two lines name the columns.
const HEADER_LINES: usize = 2;
/// Among an interface's numbers.
const RECEIVED_COLUMN: usize = 0;
/// Among an interface's numbers.
const SENT_COLUMN: usize = 8;

/// The sum over all interfaces but the loopback. What goes through a bridge or
/// a tunnel counts there and at the interface below.
pub(super) fn traffic(text: &str) -> Result<Traffic, Fault> {
    let (mut received, mut sent) = (0_u64, 0_u64);
    for line in text.lines().skip(HEADER_LINES).filter(|line| !line.trim().is_empty()) {
        // Alias interfaces have a colon in their name; the numbers have none.
        let (name, numbers) =
            line.rsplit_once(':').ok_or_else(|| Fault::malformed("an interface", line))?;
        if name.trim() == "lo" {
            continue;
        }
        received = received.wrapping_add(column(numbers, RECEIVED_COLUMN, "receive bytes")?);
        sent = sent.wrapping_add(column(numbers, SENT_COLUMN, "transmit bytes")?);
    }
    Ok(Traffic { received: Bytes::new(received), sent: Bytes::new(sent) })
}

fn column(numbers: &str, column: usize, field: &'static str) -> Result<u64, Fault> {
    let raw = numbers.split_ascii_whitespace().nth(column).ok_or(Fault::FieldAbsent { field })?;
    raw.parse().map_err(|_| Fault::malformed("a count of bytes", raw))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: &str = "Inter-|   Receive    |  Transmit\n face |bytes packets |bytes packets\n";

    #[test]
    fn loopback_is_left_out() {
        let text = format!(
            "{HEADER}    lo: 3193 29 0 0 0 0 0 0 3193 29 0 0 0 0 0 0\n\
             eth0:1000 8 0 0 0 0 0 0 200 5 0 0 0 0 0 0\n\
             wlan0: 10 8 0 0 0 0 0 0 2 5 0 0 0 0 0 0\n"
        );
        let traffic = traffic(&text).expect("a kernel's text");
        assert_eq!(traffic, Traffic { received: Bytes::new(1010), sent: Bytes::new(202) });
    }

    #[test]
    fn no_interface_is_no_traffic() {
        assert_eq!(traffic(HEADER), Ok(Traffic::default()));
    }

    #[test]
    fn broken_lines_are_faults() {
        for line in ["eth0 5", "eth0: 5 5", "eth0: x 0 0 0 0 0 0 0 0", "eth0:"] {
            assert!(traffic(&format!("{HEADER}{line}\n")).is_err(), "{line}");
        }
    }
}
