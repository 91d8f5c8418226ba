//! The log file: JSON lines in one hash chain, `hash = SHA-256(previous ‖ canonical JSON)`.
//!
//! `head.json` beside it keeps how far the chain was written, so that a line cut from the end is noticed as well. Whoever
//! can write both files can forge both: keep a copy of the head elsewhere to notice that.

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::audit::event::AuditEvent;
use crate::image::reference::Digest;

/// Characters of one field; what is longer is cut and marked.
const FIELD_LIMIT: usize = 1024;
/// Facts of one event.
const FACT_LIMIT: usize = 64;
/// Bytes of one line. Escaping can make a character six bytes: above what the limits on fields allow.
const LINE_LIMIT: usize = 1 << 20;

/// Why the log cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    /// A file or folder cannot be used.
    #[error("use {}", .path.display())]
    Access {
        /// The file or folder.
        path: PathBuf,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// An event has no JSON.
    #[error("write an audit event as JSON")]
    Json(#[source] serde_json::Error),
    /// The chain is broken.
    #[error("trust the audit log: {0}")]
    Broken(Broken),
}

/// How a chain is broken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Broken {
    /// A line is not a record, or not in the form in which it was written.
    #[error("line {line} is not a record as it was written")]
    Malformed {
        /// The line, from 1.
        line: u64,
    },
    /// A record's content does not fit its hash.
    #[error("line {line} was changed after it was written")]
    Changed {
        /// The line, from 1.
        line: u64,
    },
    /// A record does not follow the one before it.
    #[error("line {line} does not follow the line before it: a line was removed, added or moved")]
    Order {
        /// The line, from 1.
        line: u64,
    },
    /// The log ends before its head.
    #[error("the log ends at record {found}, but {expected} were written: its end was cut")]
    Cut {
        /// Records that are there.
        found: u64,
        /// Records that were written.
        expected: u64,
    },
    /// The record at the head is not the one that was written.
    #[error("the record {sequence} is not the one that was written: the log was replaced")]
    Replaced {
        /// Its number.
        sequence: u64,
    },
    /// The head is missing or unreadable although there are records.
    #[error("the head of the log is missing or unreadable")]
    NoHead,
}

/// A line of the log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// Its number, from 1.
    pub sequence: u64,
    /// The hash of the record before it; 64 zeros for the first.
    pub previous: Digest,
    /// What happened.
    pub event: AuditEvent,
    /// The hash of `previous` and of the record without its hash.
    pub hash: Digest,
}

/// How far the log was written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Head {
    /// The number of the last record; 0 for an empty log.
    pub sequence: u64,
    /// Its hash.
    pub hash: Digest,
}

/// The log of this user on this machine.
#[derive(Debug, Clone)]
pub struct AuditLog {
    log: PathBuf,
    head: PathBuf,
    lock: PathBuf,
}

fn genesis() -> Head {
    Head { sequence: 0, hash: Digest::from_bytes([0; 32]) }
}

fn hash(sequence: u64, previous: &Digest, event: &AuditEvent) -> Result<Digest, AuditError> {
    // A tuple of the sequence and an event of fixed field order has one JSON form only.
    let canonical = serde_json::to_string(&(sequence, event)).map_err(AuditError::Json)?;
    Ok(Digest::of(format!("{}{canonical}", previous.hex()).as_bytes()))
}

/// The text with control characters made visible, cut to the limit.
fn bounded(text: &str) -> String {
    let mut clean = String::new();
    for (count, character) in text.chars().enumerate() {
        if count == FIELD_LIMIT {
            clean.push('…');
            break;
        }
        if character.is_control() {
            clean.extend(character.escape_unicode());
        } else {
            clean.push(character);
        }
    }
    clean
}

fn cleaned(event: &AuditEvent) -> AuditEvent {
    AuditEvent {
        time: event.time,
        action: bounded(&event.action),
        actor: bounded(&event.actor),
        project: bounded(&event.project),
        sandbox: event.sandbox.as_deref().map(bounded),
        session: event.session.as_deref().map(bounded),
        outcome: bounded(&event.outcome),
        facts: event.facts.iter().take(FACT_LIMIT).map(|(name, value)| (bounded(name), bounded(value))).collect(),
    }
}

impl AuditLog {
    /// The log below the launcher's state folder; its folder is made when it is missing.
    pub fn open(state: &Path) -> Result<Self, AuditError> {
        let folder = state.join("audit");
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&folder)
            .map_err(|source| AuditError::Access { path: folder.clone(), source })?;
        Ok(Self { log: folder.join("log.jsonl"), head: folder.join("head.json"), lock: folder.join("lock") })
    }

    /// Appends an event and waits until it is on the disk. Safe against other processes.
    pub fn append(&self, event: &AuditEvent) -> Result<Head, AuditError> {
        let _lock = self.locked()?;
        let event = cleaned(event);
        let mut file =
            self.options().read(true).append(true).create(true).open(&self.log).map_err(self.at(&self.log))?;
        let last = self.last(&mut file)?;
        let sequence = last.sequence + 1;
        let hash = hash(sequence, &last.hash, &event)?;
        let record = Record { sequence, previous: last.hash, event, hash: hash.clone() };
        let mut line = serde_json::to_string(&record).map_err(AuditError::Json)?;
        line.push('\n');
        file.write_all(line.as_bytes()).and_then(|()| file.sync_data()).map_err(self.at(&self.log))?;
        let head = Head { sequence, hash };
        self.write_head(&head)?;
        Ok(head)
    }

    /// Checks the whole chain and gives its head, to be kept elsewhere too.
    pub fn anchor(&self) -> Result<Head, AuditError> {
        self.verify()
    }

    /// Checks the whole chain: finds a line that was changed, removed, added, moved or cut off.
    pub fn verify(&self) -> Result<Head, AuditError> {
        let mut head = genesis();
        let _lock = self.locked()?;
        let written = self.read_head()?;
        self.walk(|line, record| {
            if record.sequence != head.sequence + 1 || record.previous != head.hash {
                return Err(AuditError::Broken(Broken::Order { line }));
            }
            if hash(record.sequence, &record.previous, &record.event)? != record.hash {
                return Err(AuditError::Broken(Broken::Changed { line }));
            }
            head = Head { sequence: record.sequence, hash: record.hash };
            if written.as_ref().is_some_and(|written| written.sequence == head.sequence && *written != head) {
                return Err(AuditError::Broken(Broken::Replaced { sequence: head.sequence }));
            }
            Ok(())
        })?;
        match written {
            None if head.sequence > 0 => Err(AuditError::Broken(Broken::NoHead)),
            Some(written) if written.sequence > head.sequence => {
                Err(AuditError::Broken(Broken::Cut { found: head.sequence, expected: written.sequence }))
            }
            _ => Ok(head),
        }
    }

    /// Gives every record to `visit`, oldest first, without checking the chain.
    pub fn records(&self, mut visit: impl FnMut(Record)) -> Result<(), AuditError> {
        let _lock = self.locked()?;
        self.walk(|_, record| {
            visit(record);
            Ok(())
        })
    }

    /// Gives every record behind a place in the file to `visit`, and the place behind the last of them. A place is 0 or
    /// what this gave before.
    pub fn records_from(&self, place: u64, mut visit: impl FnMut(Record)) -> Result<u64, AuditError> {
        let _lock = self.locked()?;
        self.walk_from(place, |_, record| {
            visit(record);
            Ok(())
        })
    }

    /// Every event, oldest first, without checking the chain.
    pub fn events(&self) -> Result<Vec<AuditEvent>, AuditError> {
        let mut events = Vec::new();
        self.records(|record| events.push(record.event))?;
        Ok(events)
    }

    fn walk(&self, visit: impl FnMut(u64, Record) -> Result<(), AuditError>) -> Result<(), AuditError> {
        self.walk_from(0, visit).map(|_| ())
    }

    fn walk_from(
        &self,
        mut place: u64,
        mut visit: impl FnMut(u64, Record) -> Result<(), AuditError>,
    ) -> Result<u64, AuditError> {
        let mut file = match File::open(&self.log) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(0),
            other => other.map_err(self.at(&self.log))?,
        };
        file.seek(SeekFrom::Start(place)).map_err(self.at(&self.log))?;
        let mut reader = BufReader::new(file);
        for line in 1.. {
            let malformed = || AuditError::Broken(Broken::Malformed { line });
            let mut bytes = Vec::new();
            let mut bounded = reader.by_ref().take(LINE_LIMIT as u64);
            if bounded.read_until(b'\n', &mut bytes).map_err(self.at(&self.log))? == 0 {
                break;
            }
            let length = bytes.len() as u64;
            if bytes.pop() != Some(b'\n') {
                return Err(malformed());
            }
            let record: Record = serde_json::from_slice(&bytes).map_err(|_| malformed())?;
            // Another spelling of the same values would pass the hash; only the written bytes are accepted.
            if serde_json::to_vec(&record).map_err(AuditError::Json)? != bytes {
                return Err(malformed());
            }
            visit(line, record)?;
            place += length;
        }
        Ok(place)
    }

    /// The last record's head, after a line that a crash left unfinished was taken off.
    fn last(&self, file: &mut File) -> Result<Head, AuditError> {
        let at = self.at(&self.log);
        let length = file.metadata().map_err(&at)?.len();
        let start = length.saturating_sub(LINE_LIMIT as u64);
        let mut tail = Vec::new();
        file.seek(SeekFrom::Start(start)).map_err(&at)?;
        (&*file).take(LINE_LIMIT as u64).read_to_end(&mut tail).map_err(&at)?;
        let complete = tail.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        if complete < tail.len() {
            file.set_len(start + complete as u64).map_err(&at)?;
        }
        let written = self.read_head()?;
        let lines = tail.get(..complete.saturating_sub(1)).unwrap_or_default();
        let line = lines.rsplit(|byte| *byte == b'\n').next().unwrap_or_default();
        let head = if line.is_empty() {
            genesis()
        } else {
            let record: Record =
                serde_json::from_slice(line).map_err(|_| AuditError::Broken(Broken::Malformed { line: 0 }))?;
            Head { sequence: record.sequence, hash: record.hash }
        };
        // Going on from a log that was cut would hide the cut. A log ahead of its head is a crash between the two.
        match written {
            Some(written) if written.sequence > head.sequence => {
                Err(AuditError::Broken(Broken::Cut { found: head.sequence, expected: written.sequence }))
            }
            Some(written) if written.sequence == head.sequence && written != head => {
                Err(AuditError::Broken(Broken::Replaced { sequence: head.sequence }))
            }
            None if head.sequence > 1 => Err(AuditError::Broken(Broken::NoHead)),
            _ => Ok(head),
        }
    }

    fn read_head(&self) -> Result<Option<Head>, AuditError> {
        match std::fs::read(&self.head) {
            Ok(bytes) => serde_json::from_slice(&bytes).map(Some).map_err(|_| AuditError::Broken(Broken::NoHead)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(AuditError::Access { path: self.head.clone(), source }),
        }
    }

    fn write_head(&self, head: &Head) -> Result<(), AuditError> {
        let folder = self.head.parent().unwrap_or(Path::new("."));
        let text = serde_json::to_vec(head).map_err(AuditError::Json)?;
        let at = self.at(&self.head);
        let mut file = tempfile::NamedTempFile::new_in(folder).map_err(&at)?;
        file.write_all(&text).and_then(|()| file.as_file().sync_data()).map_err(&at)?;
        file.persist(&self.head).map_err(|error| at(error.error))?;
        Ok(())
    }

    fn locked(&self) -> Result<File, AuditError> {
        let at = self.at(&self.lock);
        let lock = self.options().write(true).create(true).truncate(false).open(&self.lock).map_err(&at)?;
        lock.lock().map_err(&at)?;
        Ok(lock)
    }

    fn options(&self) -> OpenOptions {
        let mut options = OpenOptions::new();
        options.mode(0o600);
        options
    }

    fn at(&self, path: &Path) -> impl Fn(std::io::Error) -> AuditError + use<> {
        let path = path.to_owned();
        move |source| AuditError::Access { path: path.clone(), source }
    }
}

#[cfg(test)]
mod tests;
