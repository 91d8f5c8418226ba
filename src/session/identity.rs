//! Which sandbox an object of the engine belongs to: names, labels, and the proof that a label was written here.
//!
//! Labels alone prove nothing: an image's labels are inherited by its containers. So each object also carries an HMAC
//! over its name and role under a key that never leaves this machine.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use hmac::{Hmac, Mac as _};
use serde::{Deserialize, Serialize};
use sha2::Sha256;
use zeroize::Zeroizing;

use crate::project::{ProjectName, SandboxName};

/// The label that names the project.
pub const LABEL_PROJECT: &str = "dev.sandbox.project";
/// The label that names the sandbox among those of a project.
pub const LABEL_SANDBOX: &str = "dev.sandbox.name";
/// The label with the session's id.
pub const LABEL_SESSION: &str = "dev.sandbox.session";
/// The label with the object's role.
pub const LABEL_ROLE: &str = "dev.sandbox.role";
/// The label with the plan's hash.
pub const LABEL_PLAN: &str = "dev.sandbox.plan";
/// The label with the person who started it, as `USER@HOST`.
pub const LABEL_OWNER: &str = "dev.sandbox.owner";
/// The label with the HMAC over name and role.
pub const LABEL_PROOF: &str = "dev.sandbox.proof";

/// One sandbox: a project and the name of one of its sandboxes.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct SandboxId {
    /// The project.
    pub project: ProjectName,
    /// The sandbox's name; `main` unless `--name` was given.
    pub name: SandboxName,
}

/// What an object of the engine is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// The container of the untrusted program.
    Agent,
    /// The container that owns the network namespace.
    Relay,
    /// The container with the route out.
    Gateway,
    /// A container that is created, never started, so that the engine fills volumes from its image.
    Fill,
    /// A container that reads the workspace of a stopped sandbox.
    Reader,
    /// The volume with the clone.
    Workspace,
    /// The volume of the agent's home.
    Home,
    /// The volume in memory with the credential files.
    Secrets,
    /// The volume in memory with the socket between relay and gateway.
    Channel,
}

impl Role {
    /// The role's word in names and labels.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Agent => "agent",
            Self::Relay => "relay",
            Self::Gateway => "gateway",
            Self::Fill => "fill",
            Self::Reader => "reader",
            Self::Workspace => "workspace",
            Self::Home => "home",
            Self::Secrets => "secrets",
            Self::Channel => "channel",
        }
    }
}

impl SandboxId {
    /// The name of this sandbox's object of that role: `sandbox-PROJECT.NAME-ROLE`. The dot cannot be part of either
    /// name, so two sandboxes never share an object.
    pub fn object(&self, role: Role) -> String {
        format!("sandbox-{}.{}-{}", self.project, self.name, role.as_str())
    }

    /// The folder with this sandbox's journal and locks.
    pub fn folder(&self, state: &Path) -> PathBuf {
        state.join("sandboxes").join(format!("{}.{}", self.project, self.name))
    }
}

impl fmt::Display for SandboxId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}", self.project)?;
        if self.name != SandboxName::main() {
            write!(formatter, " ({})", self.name)?;
        }
        Ok(())
    }
}

/// A session's id: 16 hexadecimal digits, random.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionId(String);

impl SessionId {
    /// A new id.
    ///
    /// # Errors
    /// When the kernel gives no random bytes.
    pub fn random() -> io::Result<Self> {
        let mut bytes = [0; 8];
        getrandom::fill(&mut bytes).map_err(io::Error::other)?;
        Ok(Self(hex::encode(bytes)))
    }

    /// The digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The key under which this machine signs the labels of its objects.
pub struct MachineKey(Zeroizing<[u8; 64]>);

impl MachineKey {
    /// Reads the key from `STATE/machine.key`, or makes it there with mode 0600.
    ///
    /// # Errors
    /// When the file cannot be read or made, or does not hold 64 bytes.
    pub fn load(state: &Path) -> io::Result<Self> {
        let path = state.join("machine.key");
        for _ in 0..2 {
            match fs::read(&path) {
                Ok(bytes) => {
                    let bytes = Zeroizing::new(bytes);
                    let key: [u8; 64] = bytes.as_slice().try_into().map_err(|_| {
                        io::Error::new(io::ErrorKind::InvalidData, format!("{} does not hold 64 bytes", path.display()))
                    })?;
                    return Ok(Self(Zeroizing::new(key)));
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
            fs::create_dir_all(state)?;
            let mut bytes = Zeroizing::new([0; 64]);
            getrandom::fill(bytes.as_mut()).map_err(io::Error::other)?;
            // Written aside and linked into place, so that nobody ever reads half a key.
            let mut file = tempfile::NamedTempFile::new_in(state)?;
            file.write_all(bytes.as_ref())?;
            file.as_file().sync_all()?;
            match file.persist_noclobber(&path) {
                Ok(_) => return Ok(Self(bytes)),
                Err(error) if error.error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error.error),
            }
        }
        Err(io::Error::other(format!("{} appeared and vanished", path.display())))
    }

    /// The HMAC for an object's name and role, as hexadecimal digits.
    pub fn proof(&self, object: &str, role: Role) -> String {
        hex::encode(self.mac(object, role).finalize().into_bytes())
    }

    /// Whether labels were written by this machine for that object.
    pub fn proves(&self, object: &str, role: Role, labels: &BTreeMap<String, String>) -> bool {
        labels
            .get(LABEL_PROOF)
            .and_then(|proof| hex::decode(proof).ok())
            .is_some_and(|proof| self.mac(object, role).verify_slice(&proof).is_ok())
    }

    fn mac(&self, object: &str, role: Role) -> Hmac<Sha256> {
        let key: &[u8; 64] = &self.0;
        let mut mac = Hmac::<Sha256>::new(key.into());
        mac.update(role.as_str().as_bytes());
        mac.update(b"\0");
        mac.update(object.as_bytes());
        mac
    }
}

/// Makes a folder that only the user can enter.
///
/// # Errors
/// When the folder cannot be made.
pub fn private_folder(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// Opens a lock file of a sandbox, making its folder.
///
/// # Errors
/// When folder or file cannot be made.
pub fn lock_file(folder: &Path, name: &str) -> io::Result<fs::File> {
    private_folder(folder)?;
    fs::OpenOptions::new().create(true).truncate(false).read(true).write(true).mode(0o600).open(folder.join(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proves_only_the_object_that_was_signed() {
        let folder = tempfile::tempdir().unwrap();
        let key = MachineKey::load(folder.path()).unwrap();
        let labels = BTreeMap::from([(LABEL_PROOF.to_owned(), key.proof("a", Role::Agent))]);
        assert!(key.proves("a", Role::Agent, &labels));
        assert!(!key.proves("b", Role::Agent, &labels));
        assert!(!key.proves("a", Role::Relay, &labels));
        assert!(!key.proves("a", Role::Agent, &BTreeMap::new()));
        let again = MachineKey::load(folder.path()).unwrap();
        assert!(again.proves("a", Role::Agent, &labels));
        let other = tempfile::tempdir().unwrap();
        assert!(!MachineKey::load(other.path()).unwrap().proves("a", Role::Agent, &labels));
    }
}
