//! The user's own key: an age identity of ours, or an ssh key that he has anyway.

use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::str::FromStr as _;

use age::secrecy::ExposeSecret as _;
use zeroize::Zeroizing;

use super::{Store, StoreError, create};
use crate::credential::secret::Secret;

/// The largest identity file that is read, in bytes.
const LIMIT: usize = 64 << 10;

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
        if self.make_identity && !self.identity.exists() {
            let identity = age::x25519::Identity::generate();
            let secret = identity.to_string();
            let text = Zeroizing::new(format!("# public key: {}\n{}\n", identity.to_public(), secret.expose_secret()));
            // When another process was faster, its identity is the user's.
            create(&self.identity, text.as_bytes()).map_err(|source| self.failed(source))?;
        }
        match self.keys()? {
            Keys::Ssh(identity) => match age::ssh::Recipient::try_from(*identity) {
                Ok(recipient) => Ok(vec![recipient.to_string()]),
                Err(_) => Err(self.wrong("it holds an ssh key that age cannot encrypt to")),
            },
            Keys::Age(identities) => Ok(identities.iter().map(|identity| identity.to_public().to_string()).collect()),
        }
    }

    fn keys(&self) -> Result<Keys, StoreError> {
        let file = match File::open(&self.identity) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(StoreError::IdentityLost { path: self.identity.clone() });
            }
            Err(error) => return Err(self.failed(error)),
        };
        // As ssh has it: a key that others can read is not a key.
        let mode = file.metadata().map_err(|source| self.failed(source))?.mode() & 0o7777;
        if mode & 0o077 != 0 {
            return Err(StoreError::IdentityReadable { path: self.identity.clone(), mode });
        }
        let text = Secret::read(file, LIMIT).map_err(|source| self.failed(source))?;
        if text.expose().starts_with(b"-----BEGIN") {
            let identity =
                age::ssh::Identity::from_buffer(text.expose(), None).map_err(|source| self.failed(source))?;
            return match identity {
                age::ssh::Identity::Unencrypted(_) => Ok(Keys::Ssh(Box::new(identity))),
                age::ssh::Identity::Encrypted(_) => Err(StoreError::IdentityLocked { path: self.identity.clone() }),
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
        StoreError::Identity { path: self.identity.clone(), source }
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
