//! The layers of a backup's file: tar in zstd in age.

use std::fs::File;
use std::io::{BufReader, BufWriter, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Component, Path, PathBuf};

use age::stream::{StreamReader, StreamWriter};

use super::{BackupError, BackupKey, FORMAT, Manifest, Recipients};

/// The first entry.
const MANIFEST: &str = "manifest.json";
/// The longest that is read.
const MANIFEST_BYTES_MAX: u64 = 64 << 10;
/// Fast, and half the size of what RocksDB has not compacted yet.
const ZSTD_LEVEL: i32 = 3;

type Sealed = zstd::stream::write::Encoder<'static, StreamWriter<BufWriter<File>>>;
type Opened = zstd::stream::read::Decoder<'static, BufReader<StreamReader<BufReader<File>>>>;

/// Writes a backup's file.
pub(super) struct Writer {
    path: PathBuf,
    tar: tar::Builder<Sealed>,
}

impl Writer {
    /// Begins a file, which must not be there.
    pub(super) fn create(
        path: &Path,
        recipients: &Recipients,
        manifest: &Manifest,
    ) -> Result<Self, BackupError> {
        let error = || BackupError::file(path);
        let encryptor = recipients.encryptor()?;
        let mut options = File::options();
        let file = options.write(true).create_new(true).mode(0o600).open(path).map_err(error())?;
        let sealed = encryptor.wrap_output(BufWriter::new(file)).map_err(error())?;
        let packed = zstd::stream::write::Encoder::new(sealed, ZSTD_LEVEL).map_err(error())?;
        let mut this = Self { path: path.to_owned(), tar: tar::Builder::new(packed) };
        let json = serde_json::to_vec_pretty(manifest).map_err(|source| BackupError::Damaged {
            path: path.to_owned(),
            detail: source.to_string(),
        })?;
        this.entry(Path::new(MANIFEST), json.len() as u64, json.as_slice())?;
        Ok(this)
    }

    /// Adds a file of so many bytes that does not change.
    pub(super) fn add(&mut self, name: &Path, file: &Path, bytes: u64) -> Result<(), BackupError> {
        let open = File::open(file).map_err(BackupError::file(file))?;
        self.entry(name, bytes, open)
    }

    /// Adds a file that has been read.
    pub(super) fn add_bytes(&mut self, name: &Path, content: &[u8]) -> Result<(), BackupError> {
        self.entry(name, content.len() as u64, content)
    }

    /// Makes it durable.
    pub(super) fn finish(self) -> Result<(), BackupError> {
        let Self { path, tar } = self;
        let finish = || {
            let sealed = tar.into_inner()?.finish()?;
            let file = sealed.finish()?.into_inner().map_err(|error| error.into_error())?;
            file.sync_all()
        };
        finish().map_err(BackupError::file(path))
    }

    fn entry(&mut self, name: &Path, bytes: u64, content: impl Read) -> Result<(), BackupError> {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes);
        header.set_mode(0o600);
        header.set_cksum();
        self.tar.append_data(&mut header, name, content).map_err(BackupError::file(&self.path))
    }
}

/// Reads a backup's file.
pub(super) struct Reader {
    path: PathBuf,
    tar: tar::Archive<Opened>,
}

impl Reader {
    pub(super) fn open(path: &Path, key: &BackupKey) -> Result<Self, BackupError> {
        let file = File::open(path).map_err(BackupError::file(path))?;
        let encrypted = |source| BackupError::Encrypted { path: path.to_owned(), source };
        let sealed = age::Decryptor::new_buffered(BufReader::new(file)).map_err(encrypted)?;
        let packed = sealed.decrypt(std::iter::once(key.identity())).map_err(encrypted)?;
        let plain = zstd::stream::read::Decoder::new(packed).map_err(BackupError::file(path))?;
        Ok(Self { path: path.to_owned(), tar: tar::Archive::new(plain) })
    }

    /// Unpacks everything into a folder that is there and empty. `progress` is told how many bytes
    /// are done, of how many.
    pub(super) fn unpack(
        mut self,
        folder: &Path,
        mut progress: impl FnMut(u64, u64),
    ) -> Result<Manifest, BackupError> {
        let path = self.path.clone();
        let damaged = |detail: String| BackupError::Damaged { path: path.clone(), detail };
        let broken = |source: std::io::Error| damaged(source.to_string());
        let mut entries = self.tar.entries().map_err(broken)?;
        let first = entries.next().ok_or_else(|| damaged("it is empty".into()))?;
        let mut first = first.map_err(broken)?;
        if first.path().map_err(broken)?.as_ref() != Path::new(MANIFEST) {
            return Err(damaged("it does not begin with a manifest".into()));
        }
        let mut json = Vec::new();
        first.by_ref().take(MANIFEST_BYTES_MAX).read_to_end(&mut json).map_err(broken)?;
        let manifest: Manifest =
            serde_json::from_slice(&json).map_err(|error| damaged(error.to_string()))?;
        if manifest.format != FORMAT {
            let (found, known) = (manifest.format, FORMAT);
            return Err(damaged(format!("it has format {found}; this release reads {known}")));
        }
        let mut done = 0;
        for entry in entries {
            let mut entry = entry.map_err(broken)?;
            let name = entry.path().map_err(broken)?.into_owned();
            let is_plain = entry.header().entry_type().is_file()
                && name.components().all(|part| matches!(part, Component::Normal(_)));
            if !is_plain {
                return Err(damaged(format!("{} is no file of a backup", name.display())));
            }
            let target = folder.join(&name);
            if let Some(above) = target.parent() {
                std::fs::create_dir_all(above).map_err(BackupError::file(above))?;
            }
            write_file(&target, &mut entry).map_err(BackupError::file(&target))?;
            done += entry.header().size().map_err(broken)?;
            progress(done, manifest.bytes);
        }
        if done != manifest.bytes {
            let (found, wanted) = (done, manifest.bytes);
            return Err(damaged(format!("it holds {found} bytes of files, not {wanted}")));
        }
        Ok(manifest)
    }
}

/// All files are their owner's only: there are keys among them.
fn write_file(path: &Path, content: &mut impl Read) -> std::io::Result<()> {
    let mut options = File::options();
    let mut file = options.write(true).create_new(true).mode(0o600).open(path)?;
    std::io::copy(content, &mut file)?;
    file.sync_all()
}
