//! Keyed fingerprints, by which one value in two projects is found without storing any value.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};

use hmac::{Hmac, Mac as _};
use sha2::Sha256;
use zeroize::Zeroizing;

use super::secret::Secret;
use crate::project::{CredentialName, ProjectName};

/// The largest registry that is read, in bytes.
const LIMIT: u64 = 16 << 20;

/// Why the fingerprints could not be used.
#[derive(Debug, thiserror::Error)]
pub enum FingerprintError {
    /// Reading or writing failed.
    #[error("use {path}")]
    Io {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The registry is damaged.
    #[error("understand {path}")]
    Format {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: serde_json::Error,
    },
}

/// HMAC-SHA-256 of a value under this machine's key, cut to 16 hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fingerprint(String);

impl fmt::Display for Fingerprint {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// A fingerprint, and who else has the value.
#[derive(Debug)]
pub struct Claimed {
    /// The fingerprint.
    pub fingerprint: Fingerprint,
    /// Other projects with the same value.
    pub others: BTreeSet<String>,
}

type Registry = BTreeMap<String, BTreeSet<String>>;

/// Fingerprints a value and records that the project has it.
///
/// # Errors
/// When the machine's key or the registry cannot be used.
pub fn claim(
    state: &Path,
    project: &ProjectName,
    name: &CredentialName,
    value: &Secret,
) -> Result<Claimed, FingerprintError> {
    let path = state.join("fingerprints.json");
    let failed = |source| FingerprintError::Io { path: path.clone(), source };
    fs::create_dir_all(state).map_err(failed)?;
    let lock = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(state.join("fingerprints.lock"))
        .map_err(failed)?;
    lock.lock().map_err(failed)?;
    let key = key(state).map_err(failed)?;
    let fingerprint = fingerprint(&key, value);
    let mut registry = read(&path)?;
    // A value that the project had before under this name is its own no more.
    let ours = format!("{project}/{name}");
    for (other, owners) in &mut registry {
        if *other != fingerprint.0 {
            owners.remove(&ours);
        }
    }
    registry.retain(|_, owners| !owners.is_empty());
    let owners = registry.entry(fingerprint.0.clone()).or_default();
    let projects = owners.iter().filter_map(|owner| owner.split_once('/').map(|(project, _)| project));
    let others: BTreeSet<String> = projects.filter(|other| *other != project.as_str()).map(str::to_owned).collect();
    if others.is_empty() {
        owners.insert(ours);
    }
    registry.retain(|_, owners| !owners.is_empty());
    let json = serde_json::to_vec_pretty(&registry)
        .map_err(|source| FingerprintError::Format { path: path.clone(), source })?;
    let mut file = tempfile::NamedTempFile::new_in(state).map_err(failed)?;
    file.write_all(&json).and_then(|()| file.as_file().sync_all()).map_err(failed)?;
    file.persist(&path).map_err(|error| failed(error.error))?;
    Ok(Claimed { fingerprint, others })
}

fn read(path: &Path) -> Result<Registry, FingerprintError> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Registry::new()),
        Err(source) => return Err(FingerprintError::Io { path: path.to_path_buf(), source }),
    };
    let mut text = Vec::new();
    file.take(LIMIT)
        .read_to_end(&mut text)
        .map_err(|source| FingerprintError::Io { path: path.to_path_buf(), source })?;
    serde_json::from_slice(&text).map_err(|source| FingerprintError::Format { path: path.to_path_buf(), source })
}

/// The key, made on first use with mode 0600 under the registry's lock.
fn key(state: &Path) -> io::Result<Zeroizing<[u8; 64]>> {
    let path = state.join("fingerprint.key");
    match fs::read(&path) {
        Ok(key) => {
            let key = Zeroizing::new(key);
            let wrong = || io::Error::new(io::ErrorKind::InvalidData, "the key does not have 64 bytes");
            return <[u8; 64]>::try_from(key.as_slice()).map(Zeroizing::new).map_err(|_| wrong());
        }
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Err(_) => {}
    }
    let mut key = Zeroizing::new([0; 64]);
    getrandom::fill(key.as_mut()).map_err(io::Error::other)?;
    let mut file = tempfile::NamedTempFile::new_in(state)?;
    file.write_all(key.as_ref())?;
    file.as_file().sync_all()?;
    file.persist(&path).map_err(|error| error.error)?;
    Ok(key)
}

fn fingerprint(key: &[u8; 64], value: &Secret) -> Fingerprint {
    let mut mac = Hmac::<Sha256>::new(key.into());
    mac.update(value.expose());
    Fingerprint(hex::encode(&mac.finalize().into_bytes()[..8]))
}
