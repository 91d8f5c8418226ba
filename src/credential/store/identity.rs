//! The user's own key: an age identity of ours, in a file or in the desktop's keyring, or an ssh key that he has anyway.

use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::str::FromStr as _;

use age::secrecy::ExposeSecret as _;
use zeroize::Zeroizing;

use super::{Store, StoreError, create, keyring};
use crate::credential::secret::Secret;

/// The largest identity file that is read, in bytes.
pub(super) const IDENTITY_LIMIT: usize = 64 << 10;

/// Where the user's identity is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum IdentityPlace {
    /// In a file.
    File {
        /// The file.
        path: PathBuf,
        /// Whether it is made on first use when it is missing. Not so for a path that the user gave: a misspelt one must
        /// not become a new key.
        make: bool,
    },
    /// In the keyring of the desktop, where it is made on first use.
    Keyring {
        /// The file that it would be in otherwise. While that is there, no other is made.
        file: PathBuf,
    },
}

impl IdentityPlace {
    /// A file of the launcher's own, which it makes on first use.
    pub fn made(path: PathBuf) -> Self {
        Self::File { path, make: true }
    }

    /// A file of the user's, which has to be there.
    pub fn given(path: PathBuf) -> Self {
        Self::File { path, make: false }
    }

    /// The place in words, for messages.
    pub fn path(&self) -> PathBuf {
        match self {
            Self::File { path, .. } => path.clone(),
            Self::Keyring { .. } => PathBuf::from("(the keyring)"),
        }
    }
}

impl Store {
    /// The user's identities.
    pub(super) fn identities(&self) -> Result<Vec<Box<dyn age::Identity>>, StoreError> {
        match self.keys()? {
            Keys::Ssh(identity) => Ok(vec![identity]),
            Keys::Age(identities) => {
                Ok(identities.into_iter().map(|identity| Box::new(identity) as Box<dyn age::Identity>).collect())
            }
        }
    }

    /// The user's public keys, as they stand in a recipients file. An identity that is missing is made first, where
    /// that is wanted.
    pub(super) fn public_keys(&self) -> Result<Vec<String>, StoreError> {
        if self.is_to_be_made()? {
            let identity = age::x25519::Identity::generate();
            let secret = identity.to_string();
            let text = Zeroizing::new(format!("# public key: {}\n{}\n", identity.to_public(), secret.expose_secret()));
            match &self.identity {
                // When another process was faster, its identity is the user's.
                IdentityPlace::File { path, .. } => create(path, text.as_bytes()).map(drop),
                IdentityPlace::Keyring { .. } => keyring::write(text.as_bytes()),
            }
            .map_err(|source| self.failed(source))?;
        }
        self.own_keys()
    }

    /// The user's public keys, when there is an identity.
    pub(super) fn own_keys(&self) -> Result<Vec<String>, StoreError> {
        match self.keys()? {
            Keys::Ssh(identity) => match age::ssh::Recipient::try_from(*identity) {
                Ok(recipient) => Ok(vec![recipient.to_string()]),
                Err(_) => Err(self.wrong("it holds an ssh key that age cannot encrypt to")),
            },
            Keys::Age(identities) => Ok(identities.iter().map(|identity| identity.to_public().to_string()).collect()),
        }
    }

    /// Whether there is no identity yet, and one may be made.
    fn is_to_be_made(&self) -> Result<bool, StoreError> {
        match &self.identity {
            IdentityPlace::File { path, make } => Ok(*make && !path.exists()),
            IdentityPlace::Keyring { file } => {
                let missing = keyring::read().map_err(|source| self.failed(source))?.is_none();
                // Values may be encrypted to the one in the file, so another one would only hide it.
                if missing && file.exists() {
                    return Err(StoreError::IdentityElsewhere { path: file.clone() });
                }
                Ok(missing)
            }
        }
    }

    fn text(&self) -> Result<Secret, StoreError> {
        let path = match &self.identity {
            IdentityPlace::File { path, .. } => path,
            IdentityPlace::Keyring { file } => {
                let found = keyring::read().map_err(|source| self.failed(source))?;
                return found.ok_or_else(|| match file.exists() {
                    true => StoreError::IdentityElsewhere { path: file.clone() },
                    false => StoreError::IdentityLost { path: self.identity.path() },
                });
            }
        };
        let file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(StoreError::IdentityLost { path: path.clone() });
            }
            Err(error) => return Err(self.failed(error)),
        };
        // As ssh has it: a key that others can read is not a key.
        let mode = file.metadata().map_err(|source| self.failed(source))?.mode() & 0o7777;
        if mode & 0o077 != 0 {
            return Err(StoreError::IdentityReadable { path: path.clone(), mode });
        }
        Secret::read(file, IDENTITY_LIMIT).map_err(|source| self.failed(source))
    }

    fn keys(&self) -> Result<Keys, StoreError> {
        let text = self.text()?;
        if text.expose().starts_with(b"-----BEGIN") {
            let identity =
                age::ssh::Identity::from_buffer(text.expose(), None).map_err(|source| self.failed(source))?;
            return match identity {
                age::ssh::Identity::Unencrypted(_) => Ok(Keys::Ssh(Box::new(identity))),
                age::ssh::Identity::Encrypted(_) => Err(StoreError::IdentityLocked { path: self.identity.path() }),
                age::ssh::Identity::Unsupported(_) => {
                    Err(self.wrong("it holds an ssh key of a kind that age cannot use"))
                }
            };
        }
        let text = std::str::from_utf8(text.expose()).map_err(|_| self.wrong("it is not text"))?;
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
        let identities: Result<Vec<_>, _> = lines.map(age::x25519::Identity::from_str).collect();
        match identities {
            Ok(identities) if !identities.is_empty() => Ok(Keys::Age(identities)),
            // The parser's own words are not kept: they could quote the line.
            _ => Err(self.wrong("it holds no age identity (AGE-SECRET-KEY-…) and no ssh key")),
        }
    }

    fn failed(&self, source: io::Error) -> StoreError {
        StoreError::Identity { path: self.identity.path(), source }
    }

    fn wrong(&self, what: &'static str) -> StoreError {
        self.failed(io::Error::new(io::ErrorKind::InvalidData, what))
    }
}

/// What an identity file holds.
enum Keys {
    Age(Vec<age::x25519::Identity>),
    Ssh(Box<age::ssh::Identity>),
}
