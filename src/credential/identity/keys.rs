//! The launcher's signing key and the public halves of those before it, in a folder of the user's own.
//!
//! `key.pem` signs. `retired.json` has public keys with the time until which they are published; it is written before the key
//! is replaced, so that a crash between the two loses no key that signed something.

use std::fs::{DirBuilder, File};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use jiff::{SignedDuration, Timestamp};
use rsa::RsaPrivateKey;
use rsa::pkcs8::{EncodePrivateKey as _, LineEnding};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::IdentityError;
use crate::credential::jwt::RsaKey;
use crate::credential::secret::Secret;
use crate::credential::store;

/// What RFC 7518, section 3.3, wants at least, and every issuer takes.
const BITS: usize = 2048;
/// The largest file, in bytes.
const LIMIT: usize = 64 << 10;
/// How long a key is published after its last signature. Its tokens end after five minutes; the rest is for clocks that
/// differ and for issuers that keep the document for a while.
const OVERLAP: SignedDuration = SignedDuration::from_hours(1);

/// A key that signs.
pub(super) struct Key {
    pub(super) pair: RsaKey,
}

impl Key {
    /// Its name.
    pub(super) fn id(&self) -> String {
        id(&self.pair.public()).to_owned()
    }
}

fn id(public: &Value) -> &str {
    public.get("kid").and_then(Value::as_str).unwrap_or_default()
}

#[derive(Serialize, Deserialize)]
struct Retired {
    key: Value,
    until: Timestamp,
}

/// The key that signs; made when there is none.
pub(super) fn current(folder: &Path) -> Result<Key, IdentityError> {
    let path = folder.join("key.pem");
    let failed = |source| IdentityError::File { path: path.clone(), source };
    let file = match File::open(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            // When another process was faster, its key is the user's.
            store::create(&path, generate()?.expose()).map_err(failed)?;
            File::open(&path).map_err(failed)?
        }
        other => other.map_err(failed)?,
    };
    let about = file.metadata().map_err(failed)?;
    let mode = about.mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(IdentityError::Readable { path, mode });
    }
    let pem = Secret::read(file, LIMIT).map_err(failed)?;
    let damaged = IdentityError::Damaged { path: path.clone(), problem: "it is no RSA key in PEM" };
    Ok(Key { pair: RsaKey::read(&pem).ok_or(damaged)? })
}

fn generate() -> Result<Secret, IdentityError> {
    let key = RsaPrivateKey::new(&mut rsa::rand_core::OsRng, BITS).map_err(|_| IdentityError::Key("make"))?;
    let pem = key.to_pkcs8_pem(LineEnding::LF).map_err(|_| IdentityError::Key("make"))?;
    Ok(Secret::new(pem.as_bytes().to_vec()))
}

/// The public keys that are to be published: the one that signs, then those of which a token may still be about.
pub(super) fn published(folder: &Path, now: Timestamp) -> Result<Vec<Value>, IdentityError> {
    let current = current(folder)?.pair.public();
    let others = retired(folder)?.into_iter().filter(|old| old.until > now && id(&old.key) != id(&current));
    let others: Vec<Value> = others.map(|old| old.key).collect();
    Ok(std::iter::once(current).chain(others).collect())
}

/// Replaces the key. Two that rotate at once do it one after the other.
pub(super) fn rotate(folder: &Path, now: Timestamp) -> Result<(), IdentityError> {
    let failed = |path: PathBuf| move |source| IdentityError::File { path: path.clone(), source };
    DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(failed(folder.to_path_buf()))?;
    let path = folder.join("lock");
    let lock = File::options().create(true).truncate(false).write(true).open(&path).map_err(failed(path.clone()))?;
    lock.lock().map_err(failed(path))?;
    let old = current(folder)?.pair.public();
    let until = now.checked_add(OVERLAP).map_err(|_| IdentityError::Key("make"))?;
    let mut kept: Vec<Retired> = retired(folder)?.into_iter().filter(|old| old.until > now).collect();
    kept.retain(|kept| id(&kept.key) != id(&old));
    kept.push(Retired { key: old, until });
    let text = serde_json::to_vec_pretty(&kept).unwrap_or_default();
    for (name, bytes) in [("retired.json", text.as_slice()), ("key.pem", generate()?.expose())] {
        let path = folder.join(name);
        replace(&path, bytes).map_err(failed(path))?;
    }
    Ok(())
}

fn retired(folder: &Path) -> Result<Vec<Retired>, IdentityError> {
    let path = folder.join("retired.json");
    let failed = |source| IdentityError::File { path: path.clone(), source };
    let file = match File::open(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.map_err(failed)?,
    };
    let mut text = Vec::new();
    file.take(LIMIT as u64).read_to_end(&mut text).map_err(failed)?;
    let damaged = |_| IdentityError::Damaged { path: path.clone(), problem: "it is no list of public keys" };
    serde_json::from_slice(&text).map_err(damaged)
}

/// Writes a file that only the user can read, whole or not at all.
fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = tempfile::NamedTempFile::new_in(path.parent().ok_or(io::ErrorKind::InvalidFilename)?)?;
    file.write_all(bytes)?;
    file.as_file().sync_all()?;
    file.persist(path).map(|_| ()).map_err(|error| error.error)
}
