//! Small files of the kernel, read whole and within bounds.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use crate::reading::Fault;

/// A sysfs attribute is one page, 4 KiB on most boards and 64 KiB on some
/// (Documentation/filesystems/sysfs.rst).
const ATTRIBUTE_BYTES_MAX: u64 = 64 << 10;

/// `/proc/stat` and `/proc/net/dev` grow with cores, interrupts and interfaces.
const TABLE_BYTES_MAX: u64 = 4 << 20;

/// A sysfs attribute without its line end; nothing where there is no file.
pub(crate) fn attribute(path: &Path) -> Result<Option<String>, Fault> {
    let text = text(path, ATTRIBUTE_BYTES_MAX)?;
    Ok(text.map(|text| text.trim().to_owned()))
}

/// A decimal attribute; nothing where there is no file.
pub(crate) fn integer(path: &Path) -> Result<Option<i64>, Fault> {
    attribute(path)?.map(|text| parse_integer(&text)).transpose()
}

/// An attribute that is 0 or 1; nothing where there is no file.
pub(crate) fn flag(path: &Path) -> Result<Option<bool>, Fault> {
    match attribute(path)?.as_deref() {
        None => Ok(None),
        Some("0") => Ok(Some(false)),
        Some("1") => Ok(Some(true)),
        Some(raw) => Err(Fault::malformed("0 or 1", raw)),
    }
}

/// A table of procfs; nothing where there is no file.
pub(crate) fn table(path: &Path) -> Result<Option<String>, Fault> {
    text(path, TABLE_BYTES_MAX)
}

/// The names in a folder, numbers in numeric order; none where there is no
/// folder. Names that are not UTF-8 are none that the kernel gives.
pub(crate) fn names(dir: &Path) -> Result<Vec<String>, Fault> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(fault(&error)),
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.map_err(|error| fault(&error))?;
        names.extend(entry.file_name().to_str().map(str::to_owned));
    }
    names.sort_by_cached_key(|name| (name.len(), name.clone()));
    Ok(names)
}

/// The number in a name such as `thermal_zone12` or `temp3_input`.
pub(crate) fn index(name: &str, prefix: &str, suffix: &str) -> Option<u32> {
    let digits = name.strip_prefix(prefix)?.strip_suffix(suffix)?;
    digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok())?
}

pub(crate) fn file_name(path: &Path) -> &str {
    path.file_name().and_then(OsStr::to_str).unwrap_or_default()
}

pub(crate) fn parse_integer(text: &str) -> Result<i64, Fault> {
    text.parse().map_err(|_| Fault::malformed("a whole number", text))
}

fn text(path: &Path, limit_bytes: u64) -> Result<Option<String>, Fault> {
    // Without NONBLOCK, a pipe at this place would hold the reader for ever.
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let file = match rustix::fs::open(path, flags, Mode::empty()) {
        Ok(descriptor) => File::from(descriptor),
        Err(Errno::NOENT) => return Ok(None),
        Err(errno) => return Err(errno.into()),
    };
    let mut bytes = Vec::new();
    file.take(limit_bytes + 1).read_to_end(&mut bytes).map_err(|error| fault(&error))?;
    if bytes.len() as u64 > limit_bytes {
        return Err(Fault::TooLong { limit_bytes });
    }
    String::from_utf8(bytes).map(Some).map_err(|_| Fault::NotText)
}

fn fault(error: &io::Error) -> Fault {
    Errno::from_io_error(error).unwrap_or(Errno::IO).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_numbers_index_a_channel() {
        assert_eq!(index("temp12_input", "temp", "_input"), Some(12));
        assert_eq!(index("temp_input", "temp", "_input"), None);
        assert_eq!(index("temp+1_input", "temp", "_input"), None);
        assert_eq!(index("temp99999999999_input", "temp", "_input"), None);
        assert_eq!(index("in0_input", "temp", "_input"), None);
    }

    #[test]
    fn folders_are_listed_in_numeric_order() {
        let dir = tempfile::tempdir().expect("a folder for the test");
        for name in ["hwmon10", "hwmon2", "hwmon0"] {
            fs::create_dir(dir.path().join(name)).expect("a folder in it");
        }
        assert_eq!(names(dir.path()), Ok(vec!["hwmon0".into(), "hwmon2".into(), "hwmon10".into()]));
        assert_eq!(names(&dir.path().join("absent")), Ok(vec![]));
    }

    #[test]
    fn a_file_without_end_is_cut_off() {
        let endless = Path::new("/dev/zero");
        assert_eq!(attribute(endless), Err(Fault::TooLong { limit_bytes: ATTRIBUTE_BYTES_MAX }));
    }
}
