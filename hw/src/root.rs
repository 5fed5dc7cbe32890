//! Where the kernel's file systems are mounted.

use std::path::{Path, PathBuf};

/// The folders that readers look under; tests bring their own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Root {
    /// The sysfs mount, `/sys`.
    pub sys: PathBuf,
    /// The procfs mount, `/proc`.
    pub proc: PathBuf,
    /// The host's configuration, `/etc`.
    pub etc: PathBuf,
    /// A folder on the file system whose free space is reported.
    pub data: PathBuf,
}

impl Root {
    /// The running system; free space is that of `/` unless
    /// [`Root::with_data`] names a folder.
    pub fn real() -> Root {
        Root::under("/")
    }

    /// A copy of a system, or a fixture, below `dir`.
    pub fn under(dir: impl AsRef<Path>) -> Root {
        let dir = dir.as_ref();
        Root {
            sys: dir.join("sys"),
            proc: dir.join("proc"),
            etc: dir.join("etc"),
            data: dir.to_path_buf(),
        }
    }

    /// The same root, reporting the free space of `data`'s file system.
    pub fn with_data(self, data: impl Into<PathBuf>) -> Root {
        Root { data: data.into(), ..self }
    }

    pub(crate) fn class(&self, name: &str) -> PathBuf {
        self.sys.join("class").join(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn real_root_is_the_running_system() {
        let root = Root::real().with_data("/var/lib/edge");
        assert_eq!(root.sys, Path::new("/sys"));
        assert_eq!(root.proc, Path::new("/proc"));
        assert_eq!(root.etc, Path::new("/etc"));
        assert_eq!(root.data, Path::new("/var/lib/edge"));
        assert_eq!(root.class("hwmon"), Path::new("/sys/class/hwmon"));
    }
}
