//! What this machine knows of a sandbox: every object that a launch is about to make, written and synced before the
//! first of them exists, and what a later command needs to go on, revoke or clean up. It holds no secret.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::credential::challenge::Challenge;
use crate::credential::spec::CredentialSpec;
use crate::network::policy::Policy;
use crate::project::{CredentialName, PortForward};
use crate::session::identity::{Role, SandboxId, SessionId, lock_file, private_folder};

/// A journal is at most this large, in bytes; a larger file is not ours.
const LIMIT: u64 = 4 << 20;

/// Why the journal could not be used.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// Reading or writing failed.
    #[error("use the journal {path}")]
    Io {
        /// The journal.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The file is not a journal of this version.
    #[error("understand the journal {path}")]
    Format {
        /// The journal.
        path: PathBuf,
        /// The cause.
        #[source]
        source: serde_json::Error,
    },
}

/// How far a session is. The order is that of a life: a crash leaves the last phase that was reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Objects are being made; the agent has nothing yet.
    Launching,
    /// The agent works.
    Running,
    /// Credentials are being revoked and containers stopped.
    Stopping,
    /// Containers are stopped, credentials are gone, volumes are there.
    Stopped,
}

/// One object of the engine that the journal answers for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JournalObject {
    /// Container or volume.
    pub kind: ObjectKind,
    /// The object's name in the engine.
    pub name: String,
    /// What it is for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<Role>,
    /// The engine's id, once it was made. Volumes have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
}

/// Kinds of objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ObjectKind {
    /// A container.
    Container,
    /// A volume.
    Volume,
}

/// A credential that was issued and not yet revoked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JournalLease {
    /// Its declaration when it was issued, by which it is revoked.
    pub spec: CredentialSpec,
    /// The provider's handle, which is not secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub handle: Option<String>,
    /// Keyed fingerprint of the value.
    pub fingerprint: String,
    /// A question about the value, for one that the gateway puts into requests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub challenge: Option<Challenge>,
    /// When it was issued.
    pub issued_at: Timestamp,
    /// When it was last made to live longer, its value being the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub renewed_at: Option<Timestamp>,
    /// When it runs out by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
    /// Since when it could not be replaced.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failing_since: Option<Timestamp>,
}

impl JournalLease {
    /// Whether both are of one value, however long it was made to live.
    pub fn is_same(&self, other: &Self) -> bool {
        (&self.handle, &self.fingerprint, self.issued_at) == (&other.handle, &other.fingerprint, other.issued_at)
    }

    /// When what it lives now began.
    pub fn begun_at(&self) -> Timestamp {
        self.renewed_at.unwrap_or(self.issued_at)
    }

    /// When it is of no use any more: at its end, or at the age that its declaration allows.
    pub fn ends_at(&self) -> Option<Timestamp> {
        let oldest = self.spec.max_age.and_then(|age| self.issued_at.checked_add(age).ok());
        match (self.expires_at, oldest) {
            (Some(end), Some(oldest)) => Some(end.min(oldest)),
            (end, oldest) => end.or(oldest),
        }
    }
}

/// A credential that is to be revoked: it was replaced, or never delivered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RetiringLease {
    /// The credential's name.
    pub name: CredentialName,
    /// What is revoked.
    pub lease: JournalLease,
    /// When.
    pub end_at: Timestamp,
}

/// A port that the supervisor forwards.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JournalPort {
    /// From where to where.
    pub forward: PortForward,
    /// Why it is not forwarded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

/// Limits of a session that no engine enforces.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionLimits {
    /// Disk for workspace and home together, in bytes; none when 0.
    pub disk: u64,
    /// Disk for the home alone, in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub home: Option<u64>,
    /// How long the session may last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<Duration>,
}

/// Which of the gateway's events are recorded: by run of its program, the number of the last one. Each run numbers its own
/// from 1.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RecordedEvents(Vec<(String, u64)>);

impl RecordedEvents {
    /// How many runs are told apart. The oldest is forgotten first, when the engine's log has long lost it.
    const RUNS: usize = 64;

    /// Takes note of an event. Gives how many of that run never came between the last one and this one, or nothing when it
    /// is recorded already.
    pub fn note(&mut self, run: &str, sequence: u64) -> Option<u64> {
        let Some((_, last)) = self.0.iter_mut().find(|(known, _)| known == run) else {
            if self.0.len() == Self::RUNS {
                self.0.remove(0);
            }
            self.0.push((run.to_owned(), sequence));
            return Some(sequence.saturating_sub(1));
        };
        let missing = sequence.checked_sub(*last)?.checked_sub(1)?;
        *last = sequence;
        Some(missing)
    }
}

/// Everything that is remembered of one sandbox.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// Version of this shape.
    pub version: u32,
    /// The sandbox.
    pub id: SandboxId,
    /// The session that was launched last.
    pub session: SessionId,
    /// How far it is.
    pub phase: Phase,
    /// Hash of the plan that was launched.
    pub plan_hash: String,
    /// Hashes of those parts of it that a running sandbox cannot change.
    #[serde(default)]
    pub plan_parts: BTreeMap<String, String>,
    /// `USER@HOST` of who started it.
    pub owner: String,
    /// The manifest's path.
    pub manifest: PathBuf,
    /// The developer's repository.
    pub repository: PathBuf,
    /// The branch that the agent works on.
    pub branch: String,
    /// The commit of the developer's repository that the clone started from.
    pub base: String,
    /// The commit that the agent's branch started at: the base, or one more with the uncommitted changes.
    pub start: String,
    /// Public keys with which sessions signed commits of the clone, as lines of OpenSSH's.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub signers: Vec<String>,
    /// The engine's address.
    pub engine: String,
    /// Digest of the agent's image.
    pub image: String,
    /// What the supervisor enforces.
    #[serde(default)]
    pub limits: SessionLimits,
    /// The allow list in force.
    pub policy: Policy,
    /// Ports of the agent's loopback that the supervisor forwards, and what keeps it from that.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<JournalPort>,
    /// Whether the volume of the agent's home outlives the sandbox.
    #[serde(default)]
    pub keep_home: bool,
    /// The files that act without being committed, at the start of the session, by their path: what they held.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub standing: BTreeMap<String, String>,
    /// Every object that was, or was about to be, made.
    pub objects: Vec<JournalObject>,
    /// Credentials that are out, by name.
    pub leases: BTreeMap<CredentialName, JournalLease>,
    /// Credentials that were replaced, or issued and not delivered, and are not revoked yet.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub retiring: Vec<RetiringLease>,
    /// Environment of commands that was made for this session's credentials.
    pub environment: BTreeMap<String, String>,
    /// Variables that are read from a file below `/run/secrets` when a command starts.
    pub secret_environment: BTreeMap<String, String>,
    /// Links in the agent's home to files below `/run/secrets`, which each command finds there.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub links: BTreeMap<String, String>,
    /// When the session was launched.
    pub started_at: Timestamp,
    /// When the agent's container was started again, since its network had died.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restarted: Option<Timestamp>,
    /// How the last session ended, in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<String>,
    /// Which of the gateway's events of this session are in the audit log already.
    #[serde(default)]
    pub recorded: RecordedEvents,
}

impl Record {
    /// Remembers the engine's id of a container that was made.
    pub fn name_object(&mut self, role: Role, id: &str) {
        let container = |object: &&mut JournalObject| object.kind == ObjectKind::Container && object.role == Some(role);
        if let Some(object) = self.objects.iter_mut().find(container) {
            object.id = Some(id.to_owned());
        }
    }

    /// Whether some credential is still to be revoked.
    pub fn owes(&self) -> bool {
        !self.leases.is_empty() || !self.retiring.is_empty()
    }
}

/// The journal of one sandbox: a record that is replaced atomically.
#[derive(Debug, Clone)]
pub struct Journal {
    folder: PathBuf,
    path: PathBuf,
}

impl Journal {
    /// The journal of a sandbox; nothing is read or written yet.
    pub fn of(state: &Path, id: &SandboxId) -> Self {
        let folder = id.folder(state);
        Self { path: folder.join("journal.json"), folder }
    }

    /// The folder with journal and locks.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The record; none when the sandbox was never launched here or was taken down.
    ///
    /// # Errors
    /// When the file cannot be read or understood.
    pub fn read(&self) -> Result<Option<Record>, JournalError> {
        let io = |source| JournalError::Io { path: self.path.clone(), source };
        let file = match fs::File::open(&self.path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(io(error)),
        };
        let mut text = Vec::new();
        file.take(LIMIT).read_to_end(&mut text).map_err(io)?;
        serde_json::from_slice(&text)
            .map(Some)
            .map_err(|source| JournalError::Format { path: self.path.clone(), source })
    }

    /// Replaces the record, synced to the disk before it returns. For whoever alone works on the sandbox; while a
    /// supervisor may live, [`Journal::update`] keeps what that one wrote.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write(&self, record: &Record) -> Result<(), JournalError> {
        let _turn = self.turn()?;
        self.replace(record)
    }

    /// Held from the reading to the writing, so that no change that comes between is lost.
    fn turn(&self) -> Result<fs::File, JournalError> {
        let io = |source| JournalError::Io { path: self.path.clone(), source };
        let lock = lock_file(&self.folder, "journal.lock").map_err(io)?;
        lock.lock().map_err(io)?;
        Ok(lock)
    }

    fn replace(&self, record: &Record) -> Result<(), JournalError> {
        let io = |source| JournalError::Io { path: self.path.clone(), source };
        private_folder(&self.folder).map_err(io)?;
        let json = serde_json::to_vec_pretty(record)
            .map_err(|source| JournalError::Format { path: self.path.clone(), source })?;
        let mut file = tempfile::NamedTempFile::new_in(&self.folder).map_err(io)?;
        file.write_all(&json).map_err(io)?;
        file.as_file().sync_all().map_err(io)?;
        file.persist(&self.path).map_err(|error| io(error.error))?;
        fs::File::open(&self.folder).and_then(|folder| folder.sync_all()).map_err(io)
    }

    /// Changes the record that is there, if one is.
    ///
    /// # Errors
    /// When the file cannot be read or written.
    pub fn update(&self, change: impl FnOnce(&mut Record)) -> Result<Option<Record>, JournalError> {
        let _turn = self.turn()?;
        let Some(mut record) = self.read()? else { return Ok(None) };
        change(&mut record);
        self.replace(&record)?;
        Ok(Some(record))
    }

    /// Forgets the sandbox. The folder with its locks stays: a lock file that is removed while somebody waits for it
    /// would lock nothing.
    ///
    /// # Errors
    /// When the file cannot be removed.
    pub fn remove(&self) -> Result<(), JournalError> {
        match fs::remove_file(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(JournalError::Io { path: self.path.clone(), source: error })
            }
            _ => Ok(()),
        }
    }

    /// All sandboxes that have a record on this machine.
    ///
    /// # Errors
    /// When the state folder cannot be read.
    pub fn all(state: &Path) -> Result<Vec<Journal>, JournalError> {
        let folder = state.join("sandboxes");
        let entries = match fs::read_dir(&folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(source) => return Err(JournalError::Io { path: folder, source }),
        };
        let mut journals: Vec<Journal> = entries
            .filter_map(Result::ok)
            .map(|entry| Journal { path: entry.path().join("journal.json"), folder: entry.path() })
            .filter(|journal| journal.path.exists())
            .collect();
        journals.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(journals)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn records_an_event_once_and_counts_those_that_never_came() {
        let mut recorded = RecordedEvents::default();
        assert_eq!([1, 2, 2, 1, 3].map(|number| recorded.note("a", number)), [Some(0), Some(0), None, None, Some(0)]);
        // The engine dropped the oldest part of the log.
        assert_eq!(
            [("a", 9), ("b", 4), ("a", 3), ("b", 5)].map(|(run, number)| recorded.note(run, number)),
            [Some(5), Some(3), None, Some(0)]
        );
        for run in 0..RecordedEvents::RUNS {
            assert_eq!(recorded.note(&format!("run {run}"), 1), Some(0));
        }
        assert_eq!(recorded.0.len(), RecordedEvents::RUNS);
    }

    #[test]
    fn no_change_is_lost_to_another_at_the_same_time() {
        let folder = tempfile::tempdir().unwrap();
        let id: SandboxId = serde_json::from_value(json!({ "project": "demo", "name": "main" })).unwrap();
        let journal = Journal::of(folder.path(), &id);
        let record: Record = serde_json::from_value(json!({
            "version": 1, "id": id, "session": "0123456789abcdef", "phase": "running", "plan_hash": "",
            "owner": "ada@host", "manifest": "", "repository": "", "branch": "main", "base": "", "start": "",
            "engine": "", "image": "", "policy": { "allow": [] }, "objects": [], "leases": {}, "environment": {},
            "secret_environment": {}, "started_at": Timestamp::UNIX_EPOCH
        }))
        .unwrap();
        for _ in 0..20 {
            journal.write(&record).unwrap();
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    for line in 1..20 {
                        journal.update(|now| now.base = line.to_string()).unwrap();
                    }
                });
                journal.write(&Record { phase: Phase::Stopped, ..record.clone() }).unwrap();
            });
            assert_eq!(journal.read().unwrap().unwrap().phase, Phase::Stopped);
        }
    }
}
