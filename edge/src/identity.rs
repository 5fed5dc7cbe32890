//! Which device this is: its key, its id, and the machine they belong to.
//!
//! The key is made at the first start and never leaves the data folder. The id follows from the
//! key unless one is given, so two agents on one host are two devices. Both are bound to the
//! machine: a data folder that wakes up on another machine is a copied image, and a copy must not
//! speak for the original. Its identity is set aside and a new one is made.

use std::path::{Path, PathBuf};

use hw::MachineIdentity;
use protocol::canonical::Writer;
use protocol::keys::Keypair;
use protocol::{DeviceId, PublicKey};
use serde::{Deserialize, Serialize};

use crate::disk::{self, DiskError};
use crate::retired;

const KEY_FILE: &str = "identity.key";
const IDENTITY_FILE: &str = "identity.json";
/// What goes with an identity that is set aside, in this order.
const FILES_OF_AN_IDENTITY: [&str; 8] = [
    KEY_FILE,
    "enrolment.json",
    "shared",
    "spool.db-wal",
    "spool.db-shm",
    "spool.db",
    retired::FILE,
    IDENTITY_FILE,
];

/// This device.
#[derive(Debug, Clone)]
pub struct Identity {
    /// Its id.
    pub device: DeviceId,
    /// Its key.
    pub keypair: Keypair,
}

/// What was found at the start.
#[derive(Debug)]
pub struct Opened {
    /// This device.
    pub identity: Identity,
    /// Where the identity of the machine that this folder was copied from now lies.
    pub copied_from: Option<PathBuf>,
    /// An id that was asked for and not taken: the folder has one already, or it is that of the
    /// machine that the folder was copied from.
    pub id_not_taken: Option<DeviceId>,
}

/// What ties an identity to a machine: hashes, since the machine's id is not for others to see.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Binding {
    /// Hash of the installation's id.
    pub machine: Option<String>,
    /// Hash of the board's serial number.
    pub board: Option<String>,
}

/// Why there is no identity.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// A file cannot be read or written.
    #[error("identity is not accessible")]
    Disk(#[from] DiskError),
    /// The key's file has another length.
    #[error("{} has {found} bytes instead of 32; restore it, or remove the data folder to enrol as a new device", path.display())]
    KeyLength {
        /// The file.
        path: PathBuf,
        /// Its length.
        found: usize,
    },
    /// The identity's file does not parse.
    #[error("{} is not an identity", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: serde_json::Error,
    },
    /// The system gives no random bytes.
    #[error("no randomness for a key")]
    Randomness(#[from] getrandom::Error),
}

#[derive(Serialize, Deserialize)]
struct Stored {
    device_id: DeviceId,
    public_key: PublicKey,
    binding: Binding,
}

impl Binding {
    /// The binding to a machine.
    pub fn of(machine: &MachineIdentity) -> Self {
        let hash = |context: &str, text: &Option<String>| {
            text.as_ref().map(|text| {
                let mut writer = Writer::new(context);
                writer.text(text);
                data_encoding::HEXLOWER.encode(&writer.hash()[..16])
            })
        };
        Self {
            machine: hash("fleet-binding-machine-v1", &machine.machine_id),
            board: hash("fleet-binding-board-v1", &machine.board_serial),
        }
    }

    /// Whether the two name different machines. What either does not know proves nothing: a
    /// board's serial number may need rights that an earlier start had.
    pub fn contradicts(&self, other: &Self) -> bool {
        let differ = |a: &Option<String>, b: &Option<String>| match (a, b) {
            (Some(a), Some(b)) => a != b,
            _ => false,
        };
        differ(&self.machine, &other.machine) || differ(&self.board, &other.board)
    }

    /// What both know together.
    fn completed_by(self, other: Self) -> Self {
        Self { machine: self.machine.or(other.machine), board: self.board.or(other.board) }
    }
}

/// The id that follows from a key.
pub fn derive_device_id(key: PublicKey) -> DeviceId {
    let mut writer = Writer::new("fleet-device-id-v1");
    writer.raw(&key.0);
    let [id @ .., _, _, _, _, _, _, _, _, _, _, _, _, _, _, _, _] = writer.hash();
    DeviceId(id)
}

/// Reads the identity of `data_dir`, or makes one.
///
/// `asked` is the id to take at the first start. `now_ms` names the folder of an identity that
/// is set aside.
pub fn open(
    data_dir: &Path,
    asked: Option<DeviceId>,
    machine: &MachineIdentity,
    now_ms: u64,
) -> Result<Opened, IdentityError> {
    disk::create_private_dir(data_dir)?;
    let binding = Binding::of(machine);
    let (mut copied_from, mut original) = (None, None);
    if let Some(stored) = read_stored(data_dir)? {
        if stored.binding.contradicts(&binding) {
            copied_from = Some(set_aside(data_dir, &format!("copied-{now_ms}"))?);
            original = Some(stored.device_id);
        } else {
            let completed = stored.binding.clone().completed_by(binding.clone());
            if completed != stored.binding {
                write_stored(data_dir, &Stored { binding: completed, ..stored })?;
            }
        }
    }
    let keypair = read_or_make_key(data_dir)?;
    let public_key = keypair.public();
    // A key without its identity was made just before a power cut, or put there by hand.
    let device = match read_stored(data_dir)?.filter(|stored| stored.public_key == public_key) {
        Some(stored) => stored.device_id,
        None => {
            // A copied image still carries the configuration of its original.
            let asked = asked.filter(|asked| Some(*asked) != original);
            let device_id = asked.unwrap_or_else(|| derive_device_id(public_key));
            write_stored(data_dir, &Stored { device_id, public_key, binding })?;
            device_id
        }
    };
    let id_not_taken = asked.filter(|asked| *asked != device);
    Ok(Opened { identity: Identity { device, keypair }, copied_from, id_not_taken })
}

/// Sets an identity aside that was retired, with all that goes with it, and makes another one; says
/// where the former now lies. Only while no agent runs.
///
/// `asked` is the id to take, unless it is that of the former.
pub fn begin_anew(
    data_dir: &Path,
    former: DeviceId,
    asked: Option<DeviceId>,
    machine: &MachineIdentity,
    now_ms: u64,
) -> Result<(Identity, PathBuf), IdentityError> {
    let aside = set_aside(data_dir, &format!("retired-{now_ms}"))?;
    let asked = asked.filter(|asked| *asked != former);
    let Opened { identity, .. } = open(data_dir, asked, machine, now_ms)?;
    Ok((identity, aside))
}

fn read_stored(data_dir: &Path) -> Result<Option<Stored>, IdentityError> {
    let path = data_dir.join(IDENTITY_FILE);
    let Some(content) = disk::read_optional(&path)? else { return Ok(None) };
    serde_json::from_slice(&content)
        .map(Some)
        .map_err(|source| IdentityError::Malformed { path, source })
}

fn write_stored(data_dir: &Path, stored: &Stored) -> Result<(), IdentityError> {
    let path = data_dir.join(IDENTITY_FILE);
    let content = serde_json::to_vec_pretty(stored)
        .map_err(|source| IdentityError::Malformed { path: path.clone(), source })?;
    disk::write_private(&path, &content)?;
    fail::fail_point!("identity.made");
    Ok(())
}

fn read_or_make_key(data_dir: &Path) -> Result<Keypair, IdentityError> {
    let path = data_dir.join(KEY_FILE);
    if let Some(content) = disk::read_optional(&path)? {
        let found = content.len();
        let seed = <[u8; 32]>::try_from(content);
        return match seed {
            Ok(seed) => Ok(Keypair::from_seed(&seed)),
            Err(_) => Err(IdentityError::KeyLength { path, found }),
        };
    }
    let mut seed = [0; 32];
    getrandom::fill(&mut seed)?;
    disk::write_private(&path, &seed)?;
    fail::fail_point!("identity.key_made");
    Ok(Keypair::from_seed(&seed))
}

/// The identity's own file goes last: while it is there, an interrupted move is taken up again.
fn set_aside(data_dir: &Path, name: &str) -> Result<PathBuf, IdentityError> {
    let aside = data_dir.join(name);
    disk::create_private_dir(&aside)?;
    fail::fail_point!("identity.aside_made");
    for name in FILES_OF_AN_IDENTITY {
        disk::rename_if_there(&data_dir.join(name), &aside.join(name))?;
    }
    fail::fail_point!("identity.aside_moved");
    Ok(aside)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn open_on(machine: u64, dir: &Path, asked: Option<DeviceId>) -> Opened {
        open(dir, asked, &MachineIdentity::simulated(machine), 77).expect("an identity")
    }

    #[test]
    fn two_folders_on_one_host_are_two_devices_and_stay_so() {
        let dirs = [0, 1].map(|_| tempfile::tempdir().expect("a folder"));
        let first = dirs.each_ref().map(|dir| open_on(1, dir.path(), None).identity);
        let again = dirs.each_ref().map(|dir| open_on(1, dir.path(), None).identity);
        assert_ne!(first[0].device, first[1].device);
        for (first, again) in first.iter().zip(&again) {
            assert_eq!(first.device, again.device);
            assert_eq!(first.keypair.public(), again.keypair.public());
        }
    }

    #[test]
    fn the_key_is_its_owners_alone() {
        let dir = tempfile::tempdir().expect("a folder");
        open_on(1, dir.path(), None);
        let mode = fs::metadata(dir.path().join(KEY_FILE)).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_given_id_is_taken_at_the_first_start_only() {
        let dir = tempfile::tempdir().expect("a folder");
        let (asked, other) = (DeviceId([7; 16]), DeviceId([8; 16]));
        assert_eq!(open_on(1, dir.path(), Some(asked)).identity.device, asked);
        let later = open_on(1, dir.path(), Some(other));
        assert_eq!((later.identity.device, later.id_not_taken), (asked, Some(other)));
    }

    #[test]
    fn a_copied_image_becomes_another_device() {
        let dir = tempfile::tempdir().expect("a folder");
        let asked = Some(DeviceId([7; 16]));
        let original = open_on(1, dir.path(), asked).identity;
        fs::write(dir.path().join("enrolment.json"), b"{}").expect("enrolled");
        let copy = open_on(2, dir.path(), asked);
        assert_ne!(copy.identity.device, original.device);
        assert_ne!(copy.identity.keypair.public(), original.keypair.public());
        let aside = copy.copied_from.expect("noticed");
        assert!(aside.join(KEY_FILE).exists() && aside.join("enrolment.json").exists());
        assert!(!dir.path().join("enrolment.json").exists());
        assert!(open_on(2, dir.path(), None).copied_from.is_none());
    }

    #[test]
    fn a_retired_identity_is_set_aside_and_its_id_is_not_taken_again() {
        let dir = tempfile::tempdir().expect("a folder");
        let asked = Some(DeviceId([7; 16]));
        let former = open_on(1, dir.path(), asked).identity;
        for name in ["enrolment.json", "spool.db", retired::FILE] {
            fs::write(dir.path().join(name), b"{}").expect("written");
        }
        let machine = MachineIdentity::simulated(1);
        let (anew, aside) =
            begin_anew(dir.path(), former.device, asked, &machine, 78).expect("another identity");
        assert_ne!(anew.device, former.device);
        assert_ne!(anew.keypair.public(), former.keypair.public());
        for name in ["enrolment.json", "spool.db", retired::FILE] {
            assert!(aside.join(name).exists() && !dir.path().join(name).exists(), "{name}");
        }
        assert_eq!(open_on(1, dir.path(), asked).identity.device, anew.device);
    }

    #[test]
    fn an_interrupted_move_is_taken_up_again() {
        let dir = tempfile::tempdir().expect("a folder");
        let original = open_on(1, dir.path(), None).identity;
        fs::write(dir.path().join("enrolment.json"), b"{}").expect("enrolled");
        // The power went when only the key had been moved.
        fs::remove_file(dir.path().join(KEY_FILE)).expect("moved");
        let copy = open_on(2, dir.path(), None);
        assert_ne!(copy.identity.device, original.device);
        assert!(!dir.path().join("enrolment.json").exists());
    }

    #[test]
    fn what_is_unknown_proves_no_copy() {
        let full = Binding::of(&MachineIdentity::simulated(1));
        let partly = Binding { board: None, ..full.clone() };
        assert!(!full.contradicts(&partly) && !partly.contradicts(&full));
        assert!(full.contradicts(&Binding::of(&MachineIdentity::simulated(2))));
    }

    #[test]
    fn a_torn_key_is_named() {
        let dir = tempfile::tempdir().expect("a folder");
        fs::write(dir.path().join(KEY_FILE), b"short").expect("torn");
        let error = open(dir.path(), None, &MachineIdentity::simulated(1), 0).expect_err("torn");
        assert!(matches!(error, IdentityError::KeyLength { found: 5, .. }));
    }
}
