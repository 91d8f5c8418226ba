//! Submodules that go along: at the commit that the branch names, out of the developer's own working tree. Nothing is
//! fetched, no submodule's settings, hooks or filters are obeyed, and those within submodules stay behind.

use std::path::{Path, PathBuf};

use super::WorkspaceError;
use super::git::GitError;
use super::source::{
    OutgoingBundle, Places, SourceState, bundle_of, check_object_id, cut_at, start, without_credentials,
};
use crate::init::frame::CloneRequest;

/// The most bytes of a branch's `.gitmodules`.
const SETTINGS: usize = 1 << 20;
/// What its commit is called in the bundle; in the clone it is no branch.
const BRANCH: &str = "submodule";

/// A submodule of the branch that goes along.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Submodule {
    /// Its path from the top of the repository.
    pub path: String,
    /// Its name in `.gitmodules`.
    pub name: String,
    /// Its address there, without user name and password.
    pub url: String,
    /// The commit that the branch names.
    pub commit: String,
    /// Its folder in the developer's working tree.
    pub(super) folder: PathBuf,
}

/// The submodules at these paths of a commit.
///
/// # Errors
/// When there is none at one of them, or its commit is not on this machine.
pub(super) fn find(places: &Places, base: &str, paths: &[String]) -> Result<Vec<Submodule>, WorkspaceError> {
    paths.iter().map(|path| one(places, base, path)).collect()
}

fn one(places: &Places, base: &str, path: &str) -> Result<Submodule, WorkspaceError> {
    let none = || WorkspaceError::NoSubmodule(path.to_owned());
    let entry = places.git("ls-tree").args(["-z", "--full-tree", base, "--", path]).line()?;
    let commit =
        entry.strip_prefix("160000 commit ").and_then(|rest| rest.split_once('\t')).ok_or_else(none)?.0.to_owned();
    check_object_id(&commit)?;
    let (name, url) = named(places, base, path)?.ok_or_else(none)?;
    let folder = places.work_tree.join(path);
    let absent = || WorkspaceError::SubmoduleAbsent { path: path.to_owned(), commit: commit.clone() };
    // Where it was never checked out, git finds the repository around it.
    let own = Places::find(&folder).map_err(|_| absent())?;
    let same = |a: &Path, b: &Path| a.canonicalize().ok().is_some_and(|a| b.canonicalize().ok() == Some(a));
    if !same(&own.work_tree, &folder) {
        return Err(absent());
    }
    match own.git("cat-file").args(["-e", &format!("{commit}^{{commit}}")]).output() {
        Ok(_) => {}
        Err(GitError::Failed { .. }) => return Err(absent()),
        Err(other) => return Err(other.into()),
    }
    Ok(Submodule { path: path.to_owned(), name, url: without_credentials(&url), commit, folder })
}

/// Name and address of the submodule at a path, as the branch's `.gitmodules` has them (gitmodules(5)).
fn named(places: &Places, base: &str, path: &str) -> Result<Option<(String, String)>, WorkspaceError> {
    let settings = places
        .git("config")
        .arg(format!("--blob={base}:.gitmodules"))
        .args(["--null", "--list"])
        .limit(SETTINGS)
        .output();
    let settings = match settings {
        Ok(settings) => settings,
        Err(GitError::Failed { .. }) => return Ok(None),
        Err(other) => return Err(other.into()),
    };
    let text = String::from_utf8_lossy(&settings);
    let entries = || text.split('\0').filter_map(|entry| entry.split_once('\n'));
    let plain = |name: &&str| !name.is_empty() && !name.chars().any(char::is_control);
    let name = entries().find_map(|(key, value)| {
        key.strip_prefix("submodule.")?.strip_suffix(".path").filter(|_| value == path).filter(plain)
    });
    let Some(name) = name else { return Ok(None) };
    let key = format!("submodule.{name}.url");
    let url = entries().find(|(known, _)| *known == key).map(|(_, url)| url.to_owned());
    Ok(url.map(|url| (name.to_owned(), url)))
}

/// Starts the bundle of a submodule, and says how to clone it into the folder that its path has there.
///
/// # Errors
/// When git fails.
pub async fn open_bundle(
    submodule: &Submodule,
    state: &SourceState,
    depth: Option<u32>,
    clone: &str,
    config: Vec<(String, String)>,
) -> Result<(CloneRequest, OutgoingBundle), WorkspaceError> {
    let (folder, commit) = (submodule.folder.clone(), submodule.commit.clone());
    let prepared = tokio::task::spawn_blocking(move || {
        let places = Places::find(&folder)?;
        let cut = match depth {
            Some(depth) => cut_at(&places, &commit, depth.max(1))?,
            None if places.shallow.exists() => {
                std::fs::read_to_string(&places.shallow)?.lines().map(str::to_owned).collect()
            }
            None => Vec::new(),
        };
        let borrowed = tempfile::tempdir()?;
        places.borrow(borrowed.path())?;
        Ok::<_, WorkspaceError>((bundle_of(borrowed, BRANCH, &commit, &cut)?, cut))
    });
    let (prepared, cut) = prepared.await.map_err(WorkspaceError::Cancelled)??;
    let request = CloneRequest {
        directory: format!("{clone}/{}", submodule.path),
        branch: BRANCH.to_owned(),
        shallow: cut,
        config,
        remotes: [("origin".to_owned(), submodule.url.clone())].into(),
        sparse: Vec::new(),
        detached: true,
    };
    Ok((request, start(state.partial, move || Ok(prepared)).await?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn git(folder: &Path, words: &[&str]) -> String {
        let output = std::process::Command::new("git")
            .args(["-c", "user.name=a", "-c", "user.email=a@x", "-c", "protocol.file.allow=always"])
            .args(words)
            .current_dir(folder)
            .output()
            .unwrap();
        assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    #[test]
    fn takes_the_commit_that_the_branch_names_and_says_why_it_cannot() {
        let top = tempfile::tempdir().unwrap();
        for name in ["library", "project"] {
            git(top.path(), &["init", "-q", "-b", "main", name]);
            std::fs::write(top.path().join(name).join("a"), name).unwrap();
            git(&top.path().join(name), &["add", "."]);
            git(&top.path().join(name), &["commit", "-qm", "first"]);
        }
        let project = top.path().join("project");
        git(&project, &["submodule", "--quiet", "add", "--name", "a b", "../library", "third/library"]);
        git(&project, &["commit", "-qm", "second"]);
        let places = Places::find(&project).unwrap();
        let base = git(&project, &["rev-parse", "HEAD"]);
        let found = find(&places, &base, &["third/library".to_owned()]).unwrap();
        assert_eq!((found[0].name.as_str(), found[0].url.as_str()), ("a b", "../library"));
        assert_eq!(found[0].commit, git(&top.path().join("library"), &["rev-parse", "HEAD"]));
        assert!(matches!(one(&places, &base, "a"), Err(WorkspaceError::NoSubmodule(_))));
        // A clone has the entry, and neither the submodule's files nor its commit.
        git(top.path(), &["clone", "-q", "project", "copy"]);
        let copy = Places::find(&top.path().join("copy")).unwrap();
        assert!(matches!(one(&copy, &base, "third/library"), Err(WorkspaceError::SubmoduleAbsent { .. })));
    }
}
