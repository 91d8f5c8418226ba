//! Finds credentials on this machine that an agent would inherit if it ran here as the developer does.
//!
//! It reads regular files, follows no link out of the folder that it looks through, opens no device, and is bounded in
//! files, bytes and time; what it could not look at, it says. It never gives, stores or sends a value.

mod keys;
mod places;
mod ssh;

use std::collections::BTreeSet;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::Serialize;

use super::fingerprint::Fingerprinter;
use super::kind::personal;
use super::secret::Secret;
use crate::beneath::{self, Links, Opened};
use crate::commands::printer::sanitise;
use keys::Key;
use places::{HOME, PASSED_OVER, Shape, shape_of};

/// How much is looked at.
#[derive(Debug, Clone, Copy)]
pub struct ScanLimits {
    /// Bytes of one file; a larger one is passed over, and named.
    pub file: usize,
    /// Bytes altogether.
    pub bytes: u64,
    /// Files and folders.
    pub entries: usize,
    /// Folders within folders.
    pub depth: usize,
    /// Findings.
    pub findings: usize,
    /// Time.
    pub time: Duration,
}

impl Default for ScanLimits {
    fn default() -> Self {
        Self {
            file: 4 << 20,
            bytes: 512 << 20,
            entries: 100_000,
            depth: 32,
            findings: 1000,
            time: Duration::from_secs(60),
        }
    }
}

/// Whose a credential is, as far as it can be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Class {
    /// A whole organisation's.
    OrganisationWide,
    /// A person's own.
    Personal,
    /// Of a kind that tells nothing.
    Unknown,
    /// Made for one project.
    Project,
    /// It ends by itself within hours.
    Temporary,
}

impl Class {
    /// In words.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::OrganisationWide => "organisation-wide",
            Self::Personal => "personal",
            Self::Unknown => "unknown",
            Self::Project => "project",
            Self::Temporary => "temporary",
        }
    }
}

/// A credential and where it is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Finding {
    /// Whose it is.
    pub class: Class,
    /// The file, or the variable of the environment as `environment:NAME`; made harmless for a terminal.
    pub path: String,
    /// The line, from 1; none for a variable.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub line: Option<usize>,
    /// A stable word for the kind, such as `github-token`.
    pub rule: String,
    /// The kind in words.
    pub kind: String,
    /// The account that it logs in as, where the file says so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub account: Option<String>,
    /// Keyed fingerprint, the same for the same value on this machine.
    pub fingerprint: String,
    /// The projects and credentials that have this value, as `PROJECT/NAME`.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub lent_to: BTreeSet<String>,
    /// What to do about it.
    pub next: &'static str,
}

/// Something that was not looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PassedOver {
    /// The file or folder, made harmless for a terminal.
    pub path: String,
    /// Why.
    pub reason: &'static str,
}

/// What was found.
#[derive(Debug, Default, Serialize)]
pub struct Report {
    /// By class, the worst first, and by place.
    pub findings: Vec<Finding>,
    /// How many files were read.
    pub files: usize,
    /// Whether a limit ended the search.
    pub cut: bool,
    /// What was passed over though it is a place for credentials.
    pub passed_over: Vec<PassedOver>,
}

/// The most places that are named as passed over.
const NAMED: usize = 100;

/// A search for credentials.
#[derive(Debug)]
pub struct Scanner<'a> {
    fingerprinter: &'a Fingerprinter,
    limits: ScanLimits,
    began: Instant,
    bytes: u64,
    entries: usize,
    report: Report,
}

impl<'a> Scanner<'a> {
    /// A search that has found nothing yet.
    pub fn new(fingerprinter: &'a Fingerprinter, limits: ScanLimits) -> Self {
        Self { fingerprinter, limits, began: Instant::now(), bytes: 0, entries: 0, report: Report::default() }
    }

    /// Looks at the places below a home where programs keep credentials.
    ///
    /// # Errors
    /// When there is no such folder.
    pub fn home(&mut self, home: &Path) -> io::Result<()> {
        let root = beneath::folder(home)?;
        for (place, shape) in HOME {
            self.look(&root, home, Path::new(place), *shape, true);
        }
        Ok(())
    }

    /// Looks at variables of the environment.
    pub fn environment(&mut self, variables: impl Iterator<Item = (String, Secret)>) {
        for (name, value) in variables.take(self.limits.entries) {
            if let Some(key) = keys::variable(&name, &value) {
                let name: String = sanitise(&name).chars().take(100).collect();
                self.note(&format!("environment:{name}"), key, true, false);
            }
        }
    }

    /// Looks through a file or a folder: at every file, or only at those whose names tell that they hold settings.
    ///
    /// # Errors
    /// When there is no such file or folder.
    pub fn path(&mut self, path: &Path, every_file: bool) -> io::Result<()> {
        let path = path.canonicalize()?;
        if path.is_dir() {
            let root = beneath::folder(&path)?;
            self.walk(&root, &path, every_file);
        } else if let (Some(folder), Some(name)) = (path.parent(), path.file_name()) {
            let shape = shape_of(&path.to_string_lossy()).unwrap_or(Shape::Settings);
            self.look(&beneath::folder(folder)?, folder, Path::new(name), shape, false);
        }
        Ok(())
    }

    /// What was found.
    pub fn report(mut self) -> Report {
        self.report.findings.sort();
        self.report.findings.dedup();
        self.report
    }

    /// Whether a limit is reached; from then on nothing is looked at.
    fn ended(&mut self) -> bool {
        let limits = &self.limits;
        self.report.cut |= self.bytes > limits.bytes
            || self.entries > limits.entries
            || self.report.findings.len() >= limits.findings
            || self.began.elapsed() > limits.time;
        self.report.cut
    }

    fn pass_over(&mut self, path: &Path, reason: &'static str) {
        if self.report.passed_over.len() < NAMED {
            self.report.passed_over.push(PassedOver { path: shown(path), reason });
        }
    }

    /// Reads one place beneath a folder; of a folder, the files in it.
    fn look(&mut self, root: &OwnedFd, base: &Path, place: &Path, shape: Shape, in_home: bool) {
        self.entries += 1;
        if self.ended() {
            return;
        }
        let full = base.join(place);
        match beneath::open(root, place, Links::Inside) {
            Ok(Opened::File(_, size)) if size > self.limits.file as u64 => self.pass_over(&full, "it is too large"),
            Ok(Opened::File(file, _)) => match Secret::read(file, self.limits.file) {
                Ok(text) => {
                    self.report.files += 1;
                    self.bytes += text.len() as u64;
                    for key in keys::find(&text, shape) {
                        let login = in_home && shape != Shape::Settings;
                        self.note(&shown(&full), key, false, login);
                    }
                }
                Err(_) => self.pass_over(&full, "it cannot be read"),
            },
            // A folder of keys or caches, whose files have names of their own.
            Ok(Opened::Folder(folder)) => {
                for name in beneath::listed(&folder, self.limits.entries).unwrap_or_default() {
                    if matches!(beneath::open(&folder, &name, Links::Inside), Ok(Opened::File(..))) {
                        self.look(&folder, &full, &name, shape, in_home);
                    }
                }
            }
            Ok(Opened::Other) => self.pass_over(&full, "it is neither a file nor a folder"),
            Err(error) => match error.raw_os_error().map(rustix::io::Errno::from_raw_os_error) {
                Some(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR) => {}
                Some(rustix::io::Errno::XDEV) => self.pass_over(&full, "it is a link that leads out of the folder"),
                Some(rustix::io::Errno::ACCESS) => self.pass_over(&full, "it may not be read"),
                _ => self.pass_over(&full, "it cannot be opened"),
            },
        }
    }

    fn walk(&mut self, root: &OwnedFd, base: &Path, every_file: bool) {
        let mut folders = vec![(PathBuf::new(), 0)];
        while let Some((folder, depth)) = folders.pop() {
            let full = base.join(&folder);
            let Ok(Opened::Folder(open)) = beneath::open(root, &folder, Links::Refused) else {
                self.pass_over(&full, "it cannot be opened");
                continue;
            };
            for name in beneath::listed(&open, self.limits.entries).unwrap_or_default() {
                self.entries += 1;
                if self.ended() {
                    return;
                }
                let path = folder.join(&name);
                let text = base.join(&path).to_string_lossy().into_owned();
                let name = name.to_string_lossy();
                let shape = shape_of(&text);
                // What a name says is only a hint; `look` asks what it is again.
                match beneath::open(root, &path, Links::Refused) {
                    Ok(Opened::Folder(_)) if name == ".git" => {
                        self.look(root, base, &path.join("config"), Shape::Settings, false);
                    }
                    Ok(Opened::Folder(_)) if PASSED_OVER.contains(&&*name) => {}
                    Ok(Opened::Folder(_)) if depth >= self.limits.depth => {
                        self.pass_over(&base.join(&path), "it is too deep");
                    }
                    Ok(Opened::Folder(_)) => folders.push((path, depth + 1)),
                    Ok(Opened::File(..)) if shape.is_some() || every_file => {
                        self.look(root, base, &path, shape.unwrap_or(Shape::Any), false);
                    }
                    Ok(_) => {}
                    // A link is looked at where it leads, as long as it stays inside and tells by its name.
                    Err(_) => {
                        if let Some(shape) = shape {
                            self.look(root, base, &path, shape, false);
                        }
                    }
                }
            }
        }
    }

    fn note(&mut self, path: &str, key: Key, variable: bool, login: bool) {
        if self.report.findings.len() >= self.limits.findings {
            return;
        }
        let (fingerprint, lent_to) = self.fingerprinter.look_up(&key.value);
        let known = personal(&key.value);
        let class = classify(&key, known, login, !lent_to.is_empty());
        let next = advice(&key.rule, class, variable);
        self.report.findings.push(Finding {
            class,
            path: path.to_owned(),
            line: (!variable).then_some(key.line),
            kind: known.map_or(key.kind, str::to_owned),
            rule: key.rule,
            account: key.account,
            fingerprint: fingerprint.to_string(),
            lent_to,
            next,
        });
    }
}

fn classify(key: &Key, known: Option<&str>, login: bool, lent: bool) -> Class {
    let begins = |prefixes: &[&str]| prefixes.iter().any(|prefix| key.value.expose().starts_with(prefix.as_bytes()));
    match known {
        Some(what) if what.starts_with("an organisation-wide") => Class::OrganisationWide,
        Some(_) => Class::Personal,
        None if lent => Class::Project,
        // AWS IAM "Unique identifiers", GitHub "About authentication to GitHub", Vault "Batch tokens".
        None if begins(&["ASIA", "ghs_", "hvb."]) => Class::Temporary,
        None if begins(&["sk-proj-", "sk-svcacct-", "xoxb-"]) => Class::Project,
        // A program's log-in below the home is the person's whose home it is.
        None if login => Class::Personal,
        None => Class::Unknown,
    }
}

/// What to do about a finding.
fn advice(rule: &str, class: Class, variable: bool) -> &'static str {
    match (rule, class) {
        (_, Class::Project) => {
            "keep it out of plain files: `sandbox credential set` takes it, and the file's line can go"
        }
        (_, Class::Temporary) => {
            "it ends by itself; issue one for the project with `provider: aws-sts` or `github-app`"
        }
        (_, Class::OrganisationWide) => "revoke it where it was issued, and use keys of one project instead",
        ("github-token", _) => "use `provider: github-app` for agents, and revoke it at github.com/settings/tokens",
        ("aws-access-key", _) => "use `provider: aws-sts` for agents, and delete the key in IAM",
        ("private-key", _) => {
            "give the key a passphrase: `ssh-keygen -p -f FILE`; agents push with `deliver: { git: … }`"
        }
        ("url-password", _) => "take it out of the URL: `git remote set-url`, and a credential helper for git",
        ("netrc-password", _) => "use a credential helper; an agent that runs here reads this file as you do",
        _ if variable => "unset it in the shells that start agents, and declare it under `credentials` in sandbox.yaml",
        (_, Class::Personal) => "it is your own log-in: run agents with `sandbox up`, where this file does not exist",
        _ => "declare it under `credentials` in sandbox.yaml, give it by `sandbox credential set`, and delete the line",
    }
}

fn shown(path: &Path) -> String {
    sanitise(&path.to_string_lossy()).replace('\n', "\\n")
}

#[cfg(test)]
mod tests;
