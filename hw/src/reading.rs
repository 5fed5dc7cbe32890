//! What comes out of a reader: values, and beside them what went wrong.

use std::path::{Path, PathBuf};

use rustix::io::Errno;

use crate::units::OutOfRange;

/// The outcome of one pass over a capability's sensors.
///
/// A sensor is in `values`, or in `faults`, or in both when only a side value
/// of it (a threshold, say) could not be read.
#[derive(Clone, Debug, PartialEq)]
pub struct Readings<T> {
    /// What the working sensors gave.
    pub values: T,
    /// One entry for each file that gave no value.
    pub faults: Vec<ReadError>,
}

/// A file that should have given a value and did not.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("reading {sensor} from {} failed", path.display())]
pub struct ReadError {
    /// The sensor, under the name its values carry.
    pub sensor: String,
    /// The file.
    pub path: PathBuf,
    /// What is wrong with it.
    #[source]
    pub fault: Fault,
}

/// What is wrong with a sensor's file.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Fault {
    /// The process may not read the file (EACCES, EPERM).
    #[error("not permitted")]
    Denied,
    /// The driver has no value at the moment (ENODATA, EAGAIN): the channel is
    /// switched off or not yet measured.
    #[error("driver has no data")]
    NoData,
    /// The kernel gave another error; EIO and ETIMEDOUT mean the bus failed.
    #[error("kernel refused")]
    Io {
        /// The kernel's answer.
        #[source]
        errno: Errno,
    },
    /// The driver says that the sensor itself is broken, such as an open diode.
    #[error("driver reports a broken sensor")]
    Broken,
    /// The file holds more than any file of its kind does.
    #[error("longer than {limit_bytes} bytes")]
    TooLong {
        /// The most that is read.
        limit_bytes: u64,
    },
    /// The file is not UTF-8.
    #[error("not text")]
    NotText,
    /// The text is not of the form that the kernel documents.
    #[error("{raw:?} is not {expected}")]
    Malformed {
        /// What was looked for.
        expected: &'static str,
        /// The text, cut to its first characters.
        raw: String,
    },
    /// A field that the kernel documents is not in the file.
    #[error("field {field} is absent")]
    FieldAbsent {
        /// The field's name.
        field: &'static str,
    },
    /// A number that no board measures.
    #[error("not a possible measurement")]
    OutOfRange {
        /// The number and its range.
        #[from]
        source: OutOfRange,
    },
    /// More is available than there is.
    #[error("{available_bytes} bytes available of {total_bytes}")]
    Contradiction {
        /// The whole.
        total_bytes: u64,
        /// The part.
        available_bytes: u64,
    },
}

impl Fault {
    /// Whether reading again later may succeed with nothing changed on the
    /// board; a file of the wrong form stays so until its driver changes.
    pub fn transient(&self) -> bool {
        match self {
            Fault::NoData | Fault::Io { .. } | Fault::Broken => true,
            Fault::Denied
            | Fault::TooLong { .. }
            | Fault::NotText
            | Fault::Malformed { .. }
            | Fault::FieldAbsent { .. }
            | Fault::OutOfRange { .. }
            | Fault::Contradiction { .. } => false,
        }
    }

    /// What kind of fault it is, without what changes from one read to the next.
    pub fn kind(&self) -> &'static str {
        match self {
            Fault::Denied => "not permitted",
            Fault::NoData => "driver has no data",
            Fault::Io { .. } => "kernel gave an error",
            Fault::Broken => "driver reports a broken sensor",
            Fault::TooLong { .. } => "longer than any file of its kind",
            Fault::NotText => "not text",
            Fault::Malformed { .. } => "not of the documented form",
            Fault::FieldAbsent { .. } => "a field is absent",
            Fault::OutOfRange { .. } => "not a possible measurement",
            Fault::Contradiction { .. } => "more is available than there is",
        }
    }

    pub(crate) fn malformed(expected: &'static str, raw: &str) -> Fault {
        /// Enough to recognise the text, and little enough for a log line.
        const RAW_CHARS_MAX: usize = 48;
        Fault::Malformed { expected, raw: raw.chars().take(RAW_CHARS_MAX).collect() }
    }
}

impl From<Errno> for Fault {
    fn from(errno: Errno) -> Fault {
        match errno {
            Errno::ACCESS | Errno::PERM => Fault::Denied,
            Errno::NODATA | Errno::AGAIN => Fault::NoData,
            errno => Fault::Io { errno },
        }
    }
}

/// Something this crate can read and this board does not have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Missing {
    /// What it is, in words for people.
    pub what: &'static str,
    /// The file or folder where it would be.
    pub looked_at: PathBuf,
}

/// Collects faults on the way, so that readers go on with the next sensor.
#[derive(Default)]
pub(crate) struct Faults(Vec<ReadError>);

impl Faults {
    /// The value, or a note of the fault and nothing.
    pub(crate) fn note<T>(
        &mut self,
        sensor: &str,
        path: &Path,
        outcome: Result<T, Fault>,
    ) -> Option<T> {
        match outcome {
            Ok(value) => Some(value),
            Err(fault) => {
                let (sensor, path) = (sensor.to_owned(), path.to_path_buf());
                self.0.push(ReadError { sensor, path, fault });
                None
            }
        }
    }

    pub(crate) fn beside<T>(self, values: T) -> Readings<T> {
        Readings { values, faults: self.0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernel_errors_keep_their_meaning() {
        let table = [
            (Errno::ACCESS, Fault::Denied, false),
            (Errno::PERM, Fault::Denied, false),
            (Errno::NODATA, Fault::NoData, true),
            (Errno::AGAIN, Fault::NoData, true),
            (Errno::IO, Fault::Io { errno: Errno::IO }, true),
            (Errno::TIMEDOUT, Fault::Io { errno: Errno::TIMEDOUT }, true),
        ];
        for (errno, fault, transient) in table {
            assert_eq!(Fault::from(errno), fault);
            assert_eq!(fault.transient(), transient, "{fault}");
        }
    }

    #[test]
    fn long_text_is_cut_in_the_fault() {
        let fault = Fault::malformed("a number", &"é".repeat(5000));
        assert!(fault.to_string().chars().count() < 100);
    }
}
