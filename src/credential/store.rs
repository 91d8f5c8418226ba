//! The embedded store: one age file for each value, so that a team can keep it in the repository and merge it.
//!
//! Project and name are inside the ciphertext: a file that is copied to another project does not open there.

use std::fs::{self, File};
use std::io::{self, Read, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::str::FromStr as _;

use age::secrecy::ExposeSecret as _;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize as _, Zeroizing};

use super::secret::Secret;
use crate::project::{CredentialName, ProjectName};

/// The largest file that is read, in bytes.
const LIMIT: u64 = 1 << 20;

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
    /// A recipient that is neither an age nor an ssh key.
    #[error("understand line {line} of {path}")]
    Recipient {
        /// The file.
        path: PathBuf,
        /// The line's number, from 1.
        line: usize,
    },
    /// None of the identities opens the file.
    #[error("open {path} with your age identity")]
    NotARecipient {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: Box<age::DecryptError>,
    },
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
    /// The user's age identity; made on first use.
    pub identity: PathBuf,
    /// The user's name, for the recipients' file and the envelope.
    pub owner: String,
}

/// A value with its history.
#[derive(Debug)]
pub struct Stored {
    /// The value.
    pub value: Secret,
    /// When it was set.
    pub set_at: Timestamp,
    /// Who set it.
    pub owner: String,
}

/// What is encrypted.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Envelope {
    version: u32,
    project: ProjectName,
    name: CredentialName,
    set_at: Timestamp,
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
        let path = self.path(project, name);
        let failed = |source| StoreError::Io { path: path.clone(), source };
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(StoreError::Absent(name.clone())),
            Err(error) => return Err(failed(error)),
        };
        let identity = self.identity(false)?;
        let closed = |source| StoreError::NotARecipient { path: path.clone(), source: Box::new(source) };
        let decryptor = age::Decryptor::new(file.take(LIMIT)).map_err(closed)?;
        let reader = decryptor.decrypt(identity.iter().map(|identity| identity.as_ref() as _)).map_err(closed)?;
        let mut plain = Zeroizing::new(Vec::with_capacity(LIMIT as usize));
        reader.take(LIMIT).read_to_end(&mut plain).map_err(failed)?;
        let misplaced = || StoreError::Misplaced { path: path.clone() };
        let envelope: Envelope = serde_json::from_slice(&plain).map_err(|_| misplaced())?;
        if envelope.version != 1 || envelope.project != *project || envelope.name != *name {
            return Err(misplaced());
        }
        let value = STANDARD.decode(envelope.value.as_bytes()).map_err(|_| misplaced())?;
        Ok(Stored { value: Secret::new(value), set_at: envelope.set_at, owner: envelope.owner.clone() })
    }

    /// Sets a value. Its file is replaced at once, never half.
    ///
    /// # Errors
    /// When identity, recipients or file cannot be used.
    pub fn write(&self, project: &ProjectName, name: &CredentialName, value: &Secret) -> Result<(), StoreError> {
        let path = self.path(project, name);
        let failed = |source| StoreError::Io { path: path.clone(), source };
        let folder = self.folder.join(project.as_str());
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder).map_err(failed)?;
        let recipients = self.recipients()?;
        let envelope = Envelope {
            version: 1,
            project: project.clone(),
            name: name.clone(),
            set_at: Timestamp::now(),
            owner: self.owner.clone(),
            value: STANDARD.encode(value.expose()),
        };
        // A buffer that grows leaves copies behind, so it is large enough from the start.
        let mut plain = Zeroizing::new(Vec::with_capacity(envelope.value.len() + 1024));
        serde_json::to_writer(&mut *plain, &envelope).map_err(|error| failed(error.into()))?;
        let unencrypted = || StoreError::Encrypt { path: path.clone() };
        let encryptor = age::Encryptor::with_recipients(recipients.iter().map(|recipient| recipient.as_ref() as _))
            .map_err(|_| unencrypted())?;
        let mut file = tempfile::NamedTempFile::new_in(&folder).map_err(failed)?;
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

    /// The user's identities. An age identity is made when there is none and `make` says so.
    fn identity(&self, make: bool) -> Result<Vec<Box<dyn age::Identity>>, StoreError> {
        let failed = |source| StoreError::Identity { path: self.identity.clone(), source };
        let text = match read_private(&self.identity) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound && make => return self.make_identity(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(StoreError::IdentityLost { path: self.identity.clone() });
            }
            Err(error) => return Err(failed(error)),
        };
        if text.starts_with(b"-----BEGIN") {
            let name = self.identity.display().to_string();
            let identity = age::ssh::Identity::from_buffer(text.as_slice(), Some(name)).map_err(failed)?;
            return Ok(vec![Box::new(identity)]);
        }
        let wrong = || failed(io::Error::new(io::ErrorKind::InvalidData, "it holds no age identity"));
        let text = std::str::from_utf8(&text).map_err(|_| wrong())?;
        let keys = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
        let identities: Result<Vec<Box<dyn age::Identity>>, StoreError> = keys
            .map(|line| match age::x25519::Identity::from_str(line) {
                Ok(identity) => Ok(Box::new(identity) as Box<dyn age::Identity>),
                Err(_) => Err(wrong()),
            })
            .collect();
        match identities? {
            none if none.is_empty() => Err(wrong()),
            identities => Ok(identities),
        }
    }

    fn make_identity(&self) -> Result<Vec<Box<dyn age::Identity>>, StoreError> {
        let failed = |source| StoreError::Identity { path: self.identity.clone(), source };
        let identity = age::x25519::Identity::generate();
        if let Some(folder) = self.identity.parent() {
            fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(failed)?;
        }
        let mut file = File::options().create_new(true).write(true).mode(0o600).open(&self.identity).map_err(failed)?;
        let text = Zeroizing::new(format!(
            "# public key: {}\n{}\n",
            identity.to_public(),
            identity.to_string().expose_secret()
        ));
        file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(failed)?;
        Ok(vec![Box::new(identity)])
    }

    /// The user's own recipient.
    fn own_recipient(&self) -> Result<String, StoreError> {
        self.identity(true)?;
        let failed = |source| StoreError::Identity { path: self.identity.clone(), source };
        let text = read_private(&self.identity).map_err(failed)?;
        if text.starts_with(b"-----BEGIN") {
            let public = self.identity.with_extension("pub");
            return fs::read_to_string(&public)
                .map(|line| line.trim().to_owned())
                .map_err(|source| StoreError::Identity { path: public, source });
        }
        let text = std::str::from_utf8(&text)
            .map_err(|_| failed(io::Error::new(io::ErrorKind::InvalidData, "it is not text")))?;
        let key = text.lines().find_map(|line| age::x25519::Identity::from_str(line.trim()).ok());
        key.map(|identity| identity.to_public().to_string())
            .ok_or_else(|| failed(io::Error::new(io::ErrorKind::InvalidData, "it holds no age identity")))
    }

    /// Everybody who can open new values; the file is begun with the user himself.
    fn recipients(&self) -> Result<Vec<Box<dyn age::Recipient>>, StoreError> {
        let path = &self.recipients;
        let failed = |source| StoreError::Io { path: path.clone(), source };
        if !path.exists() {
            let own = self.own_recipient()?;
            if let Some(folder) = path.parent() {
                fs::create_dir_all(folder).map_err(failed)?;
            }
            let text = format!(
                "# one recipient a line (an age or ssh public key), below the name of its owner\n# {}\n{own}\n",
                self.owner
            );
            fs::write(path, text).map_err(failed)?;
        }
        let mut text = String::new();
        File::open(path).map_err(failed)?.take(LIMIT).read_to_string(&mut text).map_err(failed)?;
        let mut recipients: Vec<Box<dyn age::Recipient>> = Vec::new();
        for (index, line) in text.lines().map(str::trim).enumerate() {
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            if let Ok(recipient) = age::x25519::Recipient::from_str(line) {
                recipients.push(Box::new(recipient));
            } else if let Ok(recipient) = age::ssh::Recipient::from_str(line) {
                recipients.push(Box::new(recipient));
            } else {
                return Err(StoreError::Recipient { path: path.clone(), line: index + 1 });
            }
        }
        Ok(recipients)
    }
}

fn read_private(path: &Path) -> io::Result<Zeroizing<Vec<u8>>> {
    let mut text = Zeroizing::new(Vec::with_capacity(64 << 10));
    File::open(path)?.take(64 << 10).read_to_end(&mut text)?;
    Ok(text)
}
