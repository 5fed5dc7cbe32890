//! The keys of backups: the public half encrypts, the private half stays with people.

use std::path::Path;
use std::str::FromStr;

use age::secrecy::ExposeSecret;
use age::x25519;

use super::BackupError;
use crate::files::{self, Readers};

/// The key that opens backups.
pub struct BackupKey(x25519::Identity);

impl BackupKey {
    /// A new key.
    pub fn generate() -> Self {
        Self(x25519::Identity::generate())
    }

    /// Reads what [`write`](Self::write) wrote, or `age-keygen`.
    pub fn read(path: &Path) -> Result<Self, BackupError> {
        let text = std::fs::read_to_string(path).map_err(BackupError::file(path))?;
        let key = text.lines().map(str::trim).find(|line| line.starts_with("AGE-SECRET-KEY-"));
        let key = key.and_then(|key| x25519::Identity::from_str(key).ok());
        key.map(Self).ok_or_else(|| BackupError::BadKey { path: path.to_owned() })
    }

    /// Writes the key to a file that is its owner's only.
    pub fn write(&self, path: &Path) -> Result<(), BackupError> {
        let (public, key) = (self.public(), self.0.to_string());
        let text = format!(
            "# opens the backups of a fleet brain: keep it away from the brain\n\
             # public key: {public}\n{}\n",
            key.expose_secret()
        );
        files::replace(path, text.as_bytes(), Readers::Owner).map_err(BackupError::file(path))
    }

    /// The public half.
    pub fn public(&self) -> String {
        self.0.to_public().to_string()
    }

    pub(super) fn identity(&self) -> &dyn age::Identity {
        &self.0
    }
}

/// The public keys that a backup is encrypted to, at least one.
pub struct Recipients(Vec<x25519::Recipient>);

impl Recipients {
    /// Reads public keys.
    pub fn parse(texts: &[String]) -> Result<Self, BackupError> {
        let parse = |text: &String| {
            let bad = |_| BackupError::BadRecipient { text: text.clone() };
            x25519::Recipient::from_str(text.trim()).map_err(bad)
        };
        let recipients: Vec<_> = texts.iter().map(parse).collect::<Result<_, _>>()?;
        if recipients.is_empty() { Err(BackupError::NoRecipients) } else { Ok(Self(recipients)) }
    }

    pub(super) fn encryptor(&self) -> Result<age::Encryptor, BackupError> {
        let recipients = self.0.iter().map(|recipient| recipient as &dyn age::Recipient);
        age::Encryptor::with_recipients(recipients).map_err(|_| BackupError::NoRecipients)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_read_from_its_file_and_a_wrong_file_is_named() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let path = folder.path().join("backup.key");
        let key = BackupKey::generate();
        key.write(&path).expect("writes");
        assert_eq!(BackupKey::read(&path).expect("reads").public(), key.public());
        assert!(Recipients::parse(&[key.public()]).is_ok());
        std::fs::write(&path, "something else").expect("writes");
        assert!(matches!(BackupKey::read(&path), Err(BackupError::BadKey { .. })));
        assert!(matches!(Recipients::parse(&[]), Err(BackupError::NoRecipients)));
        let bad = Recipients::parse(&["age1nonsense".to_owned()]);
        assert!(matches!(bad, Err(BackupError::BadRecipient { .. })));
    }
}
