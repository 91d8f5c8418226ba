//! The embedded store: one age file for each value, so that a team can keep it in the repository and merge it.
//!
//! Project and name are inside the ciphertext: a file that is copied to another project does not open there. The store
//! says nothing of who may have a value; that is the manifest's and [`crate::credential::issue`]'s.

use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize as _, Zeroizing};

use super::VALUE_LIMIT;
use super::secret::Secret;
use crate::project::{CredentialName, ProjectName};

mod identity;
mod keyring;
mod recipients;
mod rekey;

pub use identity::IdentityPlace;
pub use recipients::Recipients;
pub use rekey::Rekeyed;

/// The largest file that is read, in bytes: an envelope of the largest value, for some hundred recipients.
const LIMIT: usize = 256 << 10;
/// The version of the envelope that is written.
const VERSION: u32 = 1;

/// Why the store could not be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// There is no value of that name.
    #[error("find the value of `{0}`")]
    Absent(CredentialName),
    /// Reading or writing failed.
    #[error("use {path}")]
    Io {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The identity cannot be read.
    #[error("read the age identity {path}")]
    Identity {
        /// The file.
        path: PathBuf,
        /// The cause, without key material.
        #[source]
        source: io::Error,
    },
    /// There is no identity, but values exist that were encrypted to one.
    #[error("open the store without the age identity {path}")]
    IdentityLost {
        /// Where it is looked for.
        path: PathBuf,
    },
    /// The identity is to be in the keyring, and is in the file where it was before.
    #[error("find the age identity in the keyring; it is in {path}")]
    IdentityElsewhere {
        /// The file.
        path: PathBuf,
    },
    /// Group or others may read the identity.
    #[error("use the age identity {path}, which others can read (mode {mode:04o})")]
    IdentityReadable {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The ssh key has a passphrase, which nobody is there to type when a credential is rotated.
    #[error("use the ssh key {path}, which has a passphrase")]
    IdentityLocked {
        /// The file.
        path: PathBuf,
    },
    /// A recipient that is neither an age nor an ssh key.
    #[error("understand line {line} of {path}")]
    Recipient {
        /// The file.
        path: PathBuf,
        /// The line's number, from 1.
        line: usize,
    },
    /// The user could not open what would be written.
    #[error("write a value that you could not read: your key {public} is not in {path}")]
    NotListed {
        /// The file with the recipients.
        path: PathBuf,
        /// The user's public key.
        public: String,
    },
    /// Somebody has that key already.
    #[error("add a key to {path} that is there already, for `{owner}`")]
    Listed {
        /// The file with the recipients.
        path: PathBuf,
        /// Whose it is.
        owner: String,
    },
    /// Nobody of that name, or no such key.
    #[error("find `{who}` in {path}")]
    NoRecipient {
        /// The file with the recipients.
        path: PathBuf,
        /// Who was looked for.
        who: String,
    },
    /// The user would take out himself.
    #[error("take your own key out of {path}, without which you could write no value any more")]
    OwnKey {
        /// The file with the recipients.
        path: PathBuf,
    },
    /// What was given is no public key; it may be a private one, so it is not repeated.
    #[error("take what was given for an age or ssh public key")]
    NotAKey,
    /// None of the identities opens the file.
    #[error("open {path}, which is encrypted to other keys than yours")]
    NotARecipient {
        /// The file.
        path: PathBuf,
    },
    /// The file is not an age file, or was changed.
    #[error("open {path}, which is damaged")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The value is too large for the store.
    #[error("store a value of {0} bytes, at most {VALUE_LIMIT} are allowed")]
    TooLarge(usize),
    /// The ciphertext could not be made.
    #[error("encrypt {path}")]
    Encrypt {
        /// The file.
        path: PathBuf,
    },
    /// The plaintext is not an envelope, or one of another project or name.
    #[error("accept {path}, which was not written for this project and name")]
    Misplaced {
        /// The file.
        path: PathBuf,
    },
}

/// Where values are, and who can open them.
#[derive(Debug, Clone)]
pub struct Store {
    /// The folder with a folder for each project.
    pub folder: PathBuf,
    /// The file with the recipients; made with the user's own on first use.
    pub recipients: PathBuf,
    /// The user's age identity or ssh key.
    pub identity: IdentityPlace,
    /// The user's name, for the recipients' file and the envelope.
    pub owner: String,
}

/// A value with its history.
#[derive(Debug)]
pub struct Stored {
    /// The value.
    pub value: Secret,
    /// When a value of this name was first set.
    pub created_at: Timestamp,
    /// When this value was set.
    pub rotated_at: Timestamp,
    /// Who set it.
    pub owner: String,
}

/// What setting a value did.
#[derive(Debug, PartialEq, Eq)]
pub struct Written {
    /// Whose keys open the value: names from the recipients file, untrusted text.
    pub readers: Vec<String>,
    /// Whether the recipients file was begun, with nobody but the user in it.
    pub began: bool,
}

/// What is encrypted.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Envelope {
    version: u32,
    project: ProjectName,
    name: CredentialName,
    created_at: Timestamp,
    rotated_at: Timestamp,
    owner: String,
    value: String,
}

impl Drop for Envelope {
    fn drop(&mut self) {
        self.value.zeroize();
    }
}

impl Store {
    fn path(&self, project: &ProjectName, name: &CredentialName) -> PathBuf {
        self.folder.join(project.as_str()).join(format!("{name}.age"))
    }

    /// Reads a value.
    ///
    /// # Errors
    /// When there is none, it cannot be opened, or it was written for another project or name.
    pub fn read(&self, project: &ProjectName, name: &CredentialName) -> Result<Stored, StoreError> {
        let envelope = self.open(project, name)?;
        let path = self.path(project, name);
        let value = STANDARD.decode(envelope.value.as_bytes()).map_err(|_| StoreError::Misplaced { path })?;
        Ok(Stored {
            value: Secret::new(value),
            created_at: envelope.created_at,
            rotated_at: envelope.rotated_at,
            owner: envelope.owner.clone(),
        })
    }

    fn open(&self, project: &ProjectName, name: &CredentialName) -> Result<Envelope, StoreError> {
        let path = self.path(project, name);
        let failed = |source| StoreError::Io { path: path.clone(), source };
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(StoreError::Absent(name.clone())),
            Err(error) => return Err(failed(error)),
        };
        let identities = self.identities()?;
        let closed = |error| match error {
            age::DecryptError::NoMatchingKeys => StoreError::NotARecipient { path: path.clone() },
            age::DecryptError::Io(source) => StoreError::Damaged { path: path.clone(), source },
            other => StoreError::Damaged { path: path.clone(), source: io::Error::other(other) },
        };
        let decryptor = age::Decryptor::new(file.take(LIMIT as u64)).map_err(closed)?;
        let reader = decryptor.decrypt(identities.iter().map(|identity| identity.as_ref() as _)).map_err(closed)?;
        let plain = Secret::read(reader, LIMIT).map_err(|source| StoreError::Damaged { path: path.clone(), source })?;
        let misplaced = || StoreError::Misplaced { path: path.clone() };
        let envelope: Envelope = serde_json::from_slice(plain.expose()).map_err(|_| misplaced())?;
        if envelope.version != VERSION || envelope.project != *project || envelope.name != *name {
            return Err(misplaced());
        }
        Ok(envelope)
    }

    /// Sets a value. Its file is replaced at once, never half.
    ///
    /// # Errors
    /// When identity, recipients or file cannot be used, or the user himself could not open the value.
    pub fn write(&self, project: &ProjectName, name: &CredentialName, value: &Secret) -> Result<Written, StoreError> {
        if value.len() > VALUE_LIMIT {
            return Err(StoreError::TooLarge(value.len()));
        }
        let _lock = self.lock(project)?;
        let (recipients, began) = self.begun()?;
        let now = Timestamp::now();
        let envelope = Envelope {
            version: VERSION,
            project: project.clone(),
            name: name.clone(),
            created_at: self.read(project, name).map_or(now, |before| before.created_at),
            rotated_at: now,
            owner: self.owner.clone(),
            value: STANDARD.encode(value.expose()),
        };
        self.put(project, name, &envelope, &recipients)?;
        Ok(Written { readers: recipients.owners(), began })
    }

    /// Makes the project's folder, and holds the lock of all values and of their recipients until it is dropped.
    fn lock(&self, project: &ProjectName) -> Result<File, StoreError> {
        let folder = self.folder.join(project.as_str());
        let failed = |source| StoreError::Io { path: folder.clone(), source };
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder).map_err(failed)?;
        self.lock_all()
    }

    fn lock_all(&self) -> Result<File, StoreError> {
        let failed = |source| StoreError::Io { path: self.folder.clone(), source };
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.folder).map_err(failed)?;
        // The folder itself is the lock, so that no lock file lies in the user's repository.
        let lock = File::open(&self.folder).map_err(failed)?;
        lock.lock().map_err(failed)?;
        Ok(lock)
    }

    /// Encrypts an envelope and puts it in the place of what was there. The folder is there, and locked.
    fn put(
        &self,
        project: &ProjectName,
        name: &CredentialName,
        envelope: &Envelope,
        recipients: &Recipients,
    ) -> Result<(), StoreError> {
        let path = self.path(project, name);
        let failed = |source| StoreError::Io { path: path.clone(), source };
        // A buffer that grows leaves copies behind, so it is large enough from the start.
        let mut plain = Zeroizing::new(Vec::with_capacity(LIMIT));
        serde_json::to_writer(&mut *plain, envelope).map_err(|error| failed(error.into()))?;
        let encryptor = age::Encryptor::with_recipients(recipients.keys())
            .map_err(|_| StoreError::Encrypt { path: path.clone() })?;
        let mut file = tempfile::NamedTempFile::new_in(self.folder.join(project.as_str())).map_err(failed)?;
        let mut output = encryptor.wrap_output(&mut file).map_err(failed)?;
        output.write_all(&plain).map_err(failed)?;
        output.finish().map_err(failed)?;
        file.as_file().sync_all().map_err(failed)?;
        file.persist(&path).map_err(|error| failed(error.error))?;
        Ok(())
    }

    /// Removes a value. Says whether there was one.
    ///
    /// # Errors
    /// When the file cannot be removed.
    pub fn remove(&self, project: &ProjectName, name: &CredentialName) -> Result<bool, StoreError> {
        let path = self.path(project, name);
        if !path.exists() {
            return Ok(false);
        }
        // Whoever encrypts it anew at this moment would bring it back.
        let _lock = self.lock(project)?;
        match fs::remove_file(&path) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(source) => Err(StoreError::Io { path, source }),
        }
    }

    /// Whether there is a value; says nothing of whether it opens.
    pub fn has(&self, project: &ProjectName, name: &CredentialName) -> bool {
        self.path(project, name).exists()
    }
}

/// Writes a file that must not be there yet, at once and with mode 0600. Says whether it was not there.
pub(super) fn create(path: &Path, text: &[u8]) -> io::Result<bool> {
    let folder = path.parent().ok_or(io::ErrorKind::InvalidFilename)?;
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    file.write_all(text)?;
    file.as_file().sync_all()?;
    match file.persist_noclobber(path) {
        Ok(_) => Ok(true),
        Err(error) if error.error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(error.error),
    }
}

#[cfg(test)]
mod tests;
