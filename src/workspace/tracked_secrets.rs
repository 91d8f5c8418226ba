//! Finds credentials that the repository tracks, before its bundle leaves for a sandbox: the agent can read them there.
//!
//! Only the files of the commit that the agent starts from are looked at, not the history behind it.

use std::path::Path;

use super::WorkspaceError;
use super::git::GitError;
use super::secret_scan::{self, HINT};
use super::source::{Places, check_object_id};
use crate::commands::printer::sanitise;

/// A file above this many bytes is no place where people keep credentials.
const FILE: usize = 4 << 20;
/// The most files that are opened.
const FILES: usize = 500;

/// A credential that a tracked file holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrackedSecret {
    /// The path from the top of the repository, sanitised.
    pub path: String,
    /// The line, from 1.
    pub line: usize,
    /// What to say of the file, such as `holds a private key`.
    pub reason: &'static str,
}

/// The credentials in the files of a commit, by their paths.
///
/// # Errors
/// When git fails.
pub fn find(source: &Path, commit: &str) -> Result<Vec<TrackedSecret>, WorkspaceError> {
    check_object_id(commit)?;
    let places = Places::find(source)?;
    // git looks through all files on every core; only those that could hold one are opened.
    let grep = places
        .git("grep")
        .args(["-l", "-z", "--text", "--full-name", "--extended-regexp", "-e", HINT, commit])
        .output();
    let listing = match grep {
        Ok(listing) => listing,
        Err(GitError::Failed { code: Some(1), .. }) => return Ok(Vec::new()),
        Err(error) => return Err(error.into()),
    };
    let mut found = Vec::new();
    for name in listing.split(|byte| *byte == 0).filter(|name| !name.is_empty()).take(FILES) {
        let name = String::from_utf8_lossy(name);
        let content = match places.git("cat-file").args(["blob", &name]).limit(FILE).output() {
            Ok(content) => content,
            // A name that is no text cannot be asked for so, and a large file is passed over.
            Err(GitError::Failed { .. } | GitError::TooMuch(..)) => continue,
            Err(error) => return Err(error.into()),
        };
        let path = sanitise(name.split_once(':').map_or(&*name, |(_, path)| path)).replace('\n', "\\n");
        found.extend(secret_scan::scan(&content, b"").into_iter().map(|finding| TrackedSecret {
            path: path.clone(),
            line: finding.line,
            reason: finding.reason,
        }));
    }
    Ok(found)
}
