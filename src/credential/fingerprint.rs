//! Keyed fingerprints, by which one value in two projects is found without storing any value.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
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

/// Makes fingerprints of values that no project claims, and knows which projects do.
pub struct Fingerprinter {
    key: Zeroizing<[u8; 64]>,
    registry: Registry,
}

impl fmt::Debug for Fingerprinter {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Fingerprinter").finish_non_exhaustive()
    }
}

impl Fingerprinter {
    /// With this machine's key and registry.
    ///
    /// # Errors
    /// When they cannot be used.
    pub fn open(state: &Path) -> Result<Self, FingerprintError> {
        let path = state.join("fingerprints.json");
        let _lock = lock(state)?;
        let key = key(state).map_err(|source| FingerprintError::Io { path: state.join("fingerprint.key"), source })?;
        Ok(Self { key, registry: read(&path)? })
    }

    /// The value's fingerprint, and the `PROJECT/CREDENTIAL` that have it.
    pub fn look_up(&self, value: &Secret) -> (Fingerprint, BTreeSet<String>) {
        let fingerprint = fingerprint(&self.key, value);
        let holders = self.registry.get(&fingerprint.0).cloned().unwrap_or_default();
        (fingerprint, holders)
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

/// The fingerprint of a value, without claiming it.
///
/// # Errors
/// When the machine's key cannot be read.
pub fn of(state: &Path, value: &Secret) -> io::Result<Fingerprint> {
    Ok(fingerprint(&*key(state)?, value))
}

/// Fingerprints a value and records that the project has it, unless another one does.
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
    let _lock = lock(state)?;
    let key = key(state).map_err(|source| FingerprintError::Io { path: state.join("fingerprint.key"), source })?;
    let fingerprint = fingerprint(&key, value);
    let before = read(&path)?;
    let owners = before.get(&fingerprint.0).into_iter().flatten();
    let projects = owners.filter_map(|owner| owner.split_once('/').map(|(project, _)| project));
    let others: BTreeSet<String> = projects.filter(|other| *other != project.as_str()).map(str::to_owned).collect();
    if others.is_empty() {
        // A value that the project had before under this name is its own no more.
        let mut registry = without(before.clone(), project, name);
        registry.entry(fingerprint.0.clone()).or_default().insert(format!("{project}/{name}"));
        // Every start of a sandbox comes here, and a synced write is what costs.
        if registry != before {
            write(state, &path, &registry)?;
        }
    }
    Ok(Claimed { fingerprint, others })
}

/// Forgets what the project had under this name, so that the value can be another project's.
///
/// # Errors
/// When the registry cannot be used.
pub fn release(state: &Path, project: &ProjectName, name: &CredentialName) -> Result<(), FingerprintError> {
    let path = state.join("fingerprints.json");
    let _lock = lock(state)?;
    let before = read(&path)?;
    let after = without(before.clone(), project, name);
    if after == before { Ok(()) } else { write(state, &path, &after) }
}

fn without(mut registry: Registry, project: &ProjectName, name: &CredentialName) -> Registry {
    let ours = format!("{project}/{name}");
    for owners in registry.values_mut() {
        owners.remove(&ours);
    }
    registry.retain(|_, owners| !owners.is_empty());
    registry
}

/// The lock of key and registry, held until it is dropped.
fn lock(state: &Path) -> Result<File, FingerprintError> {
    let path = state.join("fingerprints.lock");
    let failed = |source| FingerprintError::Io { path: path.clone(), source };
    fs::DirBuilder::new().recursive(true).mode(0o700).create(state).map_err(failed)?;
    let lock = File::options().create(true).truncate(false).write(true).mode(0o600).open(&path).map_err(failed)?;
    lock.lock().map_err(failed)?;
    Ok(lock)
}

fn write(state: &Path, path: &Path, registry: &Registry) -> Result<(), FingerprintError> {
    let failed = |source| FingerprintError::Io { path: path.to_path_buf(), source };
    let json = serde_json::to_vec_pretty(registry)
        .map_err(|source| FingerprintError::Format { path: path.to_path_buf(), source })?;
    let mut file = tempfile::NamedTempFile::new_in(state).map_err(failed)?;
    file.write_all(&json).and_then(|()| file.as_file().sync_all()).map_err(failed)?;
    file.persist(path).map_err(|error| failed(error.error))?;
    Ok(())
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

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use super::*;

    fn claimed(state: &Path, project: &str, name: &str, value: &str) -> Claimed {
        claim(state, &project.parse().unwrap(), &name.parse().unwrap(), &Secret::new(value.into())).unwrap()
    }

    fn others(state: &Path, project: &str, name: &str, value: &str) -> Vec<String> {
        claimed(state, project, name, value).others.into_iter().collect()
    }

    #[test]
    fn finds_one_value_in_two_projects_and_not_within_one() {
        let state = tempfile::tempdir().unwrap();
        assert!(others(state.path(), "one", "a", "value").is_empty());
        assert!(others(state.path(), "one", "b", "value").is_empty());
        assert_eq!(others(state.path(), "two", "a", "value"), ["one"]);
        assert!(others(state.path(), "two", "a", "another").is_empty());
    }

    #[test]
    fn a_rotated_or_removed_value_is_free_again_and_a_refused_claim_takes_nothing() {
        let state = tempfile::tempdir().unwrap();
        others(state.path(), "one", "a", "first");
        others(state.path(), "two", "a", "mine");
        assert_eq!(others(state.path(), "two", "a", "first"), ["one"]);
        assert_eq!(others(state.path(), "three", "a", "mine"), ["two"]);
        others(state.path(), "one", "a", "second");
        assert!(others(state.path(), "three", "a", "first").is_empty());
        release(state.path(), &"one".parse().unwrap(), &"a".parse().unwrap()).unwrap();
        assert!(others(state.path(), "three", "b", "second").is_empty());
    }

    #[test]
    fn tells_nothing_of_the_value_without_the_key_of_the_machine() {
        let (here, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let ours = claimed(here.path(), "one", "a", "value").fingerprint;
        assert_eq!(ours, claimed(here.path(), "one", "b", "value").fingerprint);
        assert_ne!(ours, claimed(there.path(), "one", "a", "value").fingerprint);
        assert_eq!(ours.to_string().len(), 16);
        let registry = fs::read_to_string(here.path().join("fingerprints.json")).unwrap();
        assert!(registry.contains(&ours.to_string()) && !registry.contains("value"));
        for file in ["fingerprint.key", "fingerprints.json", "fingerprints.lock"] {
            assert_eq!(fs::metadata(here.path().join(file)).unwrap().mode() & 0o777, 0o600, "{file}");
        }
    }
}
