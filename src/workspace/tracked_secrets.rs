//! Finds credentials that the repository tracks, before its bundle leaves for a sandbox: the agent can read them there.
//!
//! The files of the commit that the agent starts from are looked at, what is not committed and goes along, and the submodules
//! that do; not the history behind them.

use std::path::Path;

use super::WorkspaceError;
use super::git::{Git, GitError};
use super::secret_scan::{self, HINT};
use super::source::{Places, SourceState, check_object_id};
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

/// The credentials that would go along: in the commit of the branch, and in the submodules that are listed.
///
/// # Errors
/// When git fails.
pub fn of_commits(source: &Path, state: &SourceState) -> Result<Vec<TrackedSecret>, WorkspaceError> {
    let mut found = find(source, &state.base)?;
    for submodule in &state.submodules {
        let inside = find(&submodule.folder, &submodule.commit)?;
        let below = sanitise(&submodule.path).replace('\n', "\\n");
        found.extend(inside.into_iter().map(|one| TrackedSecret { path: format!("{below}/{}", one.path), ..one }));
    }
    Ok(found)
}

/// The credentials in the files of a commit, by their paths.
///
/// # Errors
/// When git fails.
pub fn find(source: &Path, commit: &str) -> Result<Vec<TrackedSecret>, WorkspaceError> {
    check_object_id(commit)?;
    let places = Places::find(source)?;
    let mut found = Vec::new();
    for name in candidates(places.git("grep"), Some(commit))? {
        let content = match places.git("cat-file").args(["blob", &name]).limit(FILE).output() {
            Ok(content) => content,
            // A name that is no text cannot be asked for so, and a large file is passed over.
            Err(GitError::Failed { .. } | GitError::TooMuch(..)) => continue,
            Err(error) => return Err(error.into()),
        };
        look(name.split_once(':').map_or(&*name, |(_, path)| path), &content, &mut found);
    }
    Ok(found)
}

/// The credentials in tracked files as they stand in the working tree: with `include_uncommitted` these go along.
///
/// # Errors
/// When git fails.
pub fn of_working_tree(source: &Path) -> Result<Vec<TrackedSecret>, WorkspaceError> {
    let places = Places::find(source)?;
    let mut found = Vec::new();
    for name in candidates(places.git("grep").work_tree(&places.work_tree), None)? {
        let file = places.work_tree.join(&name);
        let small = file.symlink_metadata().is_ok_and(|found| found.is_file() && found.len() <= FILE as u64);
        // One that goes away meanwhile is none that goes along.
        if let Some(content) = small.then(|| std::fs::read(&file).ok()).flatten() {
            look(&name, &content, &mut found);
        }
    }
    Ok(found)
}

/// The names of files that could hold a credential: git looks through all on every core, and only these are opened.
fn candidates(grep: Git, commit: Option<&str>) -> Result<Vec<String>, WorkspaceError> {
    let words = ["-l", "-z", "--text", "--full-name", "--no-textconv", "--extended-regexp", "-e", HINT];
    let listing = match grep.args(words).args(commit).output() {
        Ok(listing) => listing,
        Err(GitError::Failed { code: Some(1), .. }) => return Ok(Vec::new()),
        Err(error) => return Err(error.into()),
    };
    let names = listing.split(|byte| *byte == 0).filter(|name| !name.is_empty());
    Ok(names.take(FILES).map(|name| String::from_utf8_lossy(name).into_owned()).collect())
}

fn look(path: &str, content: &[u8], found: &mut Vec<TrackedSecret>) {
    let path = sanitise(path).replace('\n', "\\n");
    found.extend(secret_scan::scan(content, b"").into_iter().map(|finding| TrackedSecret {
        path: path.clone(),
        line: finding.line,
        reason: finding.reason,
    }));
}
