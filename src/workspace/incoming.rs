//! The way out: a bundle from the container is read into quarantine, reviewed there, and brought under `refs/sandbox/`.

use std::path::{Path, PathBuf};

use serde::Serialize;
use tempfile::TempDir;

use super::WorkspaceError;
use super::git::{Git, GitError};
use super::review::{self, AcceptedRisks, DiffStyle, Review, ReviewRules};
use super::source::{Places, check_branch, check_object_id};
use crate::project::ProjectName;

/// The most bytes of the refs that a bundle may name.
const ADVERTISED: usize = 1 << 20;

/// What came of a bundle.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Received {
    /// Object id of the branch's tip in the bundle.
    pub head: String,
    /// The ref that now holds it; none when something was held back.
    pub reference: Option<String>,
    /// What the review found.
    pub review: Review,
}

/// A bundle in a private bare repository that borrows the developer's objects; gone when dropped.
#[derive(Debug)]
pub struct Quarantine {
    folder: TempDir,
    places: Places,
    base: String,
    head: String,
}

/// The ref below which an incoming branch lands.
pub fn reference(project: &ProjectName, branch: &str) -> String {
    format!("refs/sandbox/{project}/{branch}")
}

/// `git fetch` of one ref from a bundle file, with everything off that would do more.
fn fetch(git_dir: &Path, bundle: &Path, from: &str, to: &str) -> Result<(), GitError> {
    Git::at(git_dir, "fetch")
        .args(["--quiet", "--no-tags", "--no-write-fetch-head", "--no-auto-maintenance", "--no-prune"])
        .args(["--no-recurse-submodules", "--refmap=", "--no-write-commit-graph", "--no-show-forced-updates"])
        .setting("protocol.file.allow", "always")
        .setting("transfer.fsckObjects", "true")
        .setting("fetch.fsckObjects", "true")
        .setting("fetch.fsck.skipList", "/dev/null")
        .setting("fetch.unpackLimit", "1")
        .setting("fetch.output", "compact")
        .arg("--end-of-options")
        .arg(bundle)
        .arg(format!("+{from}:{to}"))
        .output()
        .map(drop)
}

/// Checks every object that came as `transfer.fsckObjects` does. Whatever that setting says, git 2.39 checks nothing of
/// what it fetches from a bundle; 2.47 does.
fn check_objects(git_dir: &Path) -> Result<(), WorkspaceError> {
    for entry in std::fs::read_dir(git_dir.join("objects/pack"))? {
        let pack = entry?.path();
        if pack.extension().is_some_and(|extension| extension == "pack") {
            let index = git_dir.join("checked.idx");
            Git::at(git_dir, "index-pack").args(["--strict", "-o"]).args([&index, &pack]).output()?;
            std::fs::remove_file(&index)?;
        }
    }
    Ok(())
}

impl Quarantine {
    /// Reads the bundle; the developer's repository is only read.
    pub fn open(repository: &Path, bundle: &Path, branch: &str, base: &str) -> Result<Self, WorkspaceError> {
        check_branch(branch)?;
        check_object_id(base)?;
        let bundle = std::path::absolute(bundle)?;
        let places = Places::find(repository)?;
        let folder = tempfile::tempdir()?;
        places.borrow(folder.path())?;
        // The base as a ref bounds the walk that checks connectivity, and satisfies the bundle's prerequisites.
        Git::at(folder.path(), "update-ref").args(["refs/quarantine/base", base]).output()?;
        // `fetch` takes a file that is no bundle for a repository, and starts a shell with `git-upload-pack` for it.
        Git::at(folder.path(), "bundle").arg("list-heads").arg(&bundle).limit(ADVERTISED).output()?;
        fetch(folder.path(), &bundle, &format!("refs/heads/{branch}"), "refs/quarantine/head")?;
        check_objects(folder.path())?;
        let ids = Git::at(folder.path(), "rev-parse")
            .args(["refs/quarantine/head", "refs/quarantine/head^{commit}"])
            .line()?;
        // A tag would be peeled for the review, and land as what it is, with a name and a message that nobody saw.
        let head = match ids.split_once('\n') {
            Some((tip, head)) if tip == head => head.to_owned(),
            _ => return Err(WorkspaceError::NotACommit(branch.to_owned())),
        };
        Ok(Self { folder, places, base: base.to_owned(), head })
    }

    /// The tip of the bundle's branch.
    pub fn head(&self) -> &str {
        &self.head
    }

    /// Reviews what came.
    pub fn review(&self, rules: &ReviewRules) -> Result<Review, WorkspaceError> {
        review::review(self.folder.path(), &self.base, &self.head, rules)
    }

    /// The difference to the base, sanitised.
    pub fn diff(&self, style: DiffStyle) -> Result<String, WorkspaceError> {
        review::diff_text(self.folder.path(), &self.base, &self.head, style)
    }

    /// Brings the reviewed commit under `refs/sandbox/`.
    fn land(&self, bundle: &Path, branch: &str, reference: &str) -> Result<(), WorkspaceError> {
        let bundle = std::path::absolute(bundle)?;
        fetch(&self.places.git_dir, &bundle, &format!("refs/heads/{branch}"), reference)?;
        let landed = self.places.git("rev-parse").args(["--verify", reference]).line()?;
        if landed != self.head {
            return Err(WorkspaceError::Changed { reviewed: self.head.clone(), landed });
        }
        Ok(())
    }
}

/// Reviews a bundle in quarantine and, when nothing unaccepted is held back, brings it in as
/// `refs/sandbox/PROJECT/BRANCH`. No other ref, no index and no working tree changes.
pub async fn receive(
    repository: &Path,
    bundle: &Path,
    project: &ProjectName,
    branch: &str,
    base: &str,
    rules: &ReviewRules,
    accepted: &AcceptedRisks,
) -> Result<Received, WorkspaceError> {
    let (repository, bundle): (PathBuf, PathBuf) = (repository.to_path_buf(), bundle.to_path_buf());
    let (project, branch, base) = (project.clone(), branch.to_owned(), base.to_owned());
    let (rules, accepted) = (rules.clone(), accepted.clone());
    tokio::task::spawn_blocking(move || {
        let quarantine = Quarantine::open(&repository, &bundle, &branch, &base)?;
        let review = quarantine.review(&rules)?;
        let mut landed = None;
        if review.unaccepted(&accepted).is_empty() {
            let name = reference(&project, &branch);
            quarantine.land(&bundle, &branch, &name)?;
            landed = Some(name);
        }
        Ok(Received { head: quarantine.head, reference: landed, review })
    })
    .await
    .map_err(WorkspaceError::Cancelled)?
}

/// Creates a branch at a commit that was received; never moves one and never checks one out.
pub fn create_branch(repository: &Path, branch: &str, commit: &str) -> Result<(), WorkspaceError> {
    check_branch(branch)?;
    check_object_id(commit)?;
    let places = Places::find(repository)?;
    // The old value of zeros makes git refuse a ref that exists, in one step.
    let zeros = "0".repeat(commit.len());
    match places.git("update-ref").arg(format!("refs/heads/{branch}")).args([commit, &zeros]).output() {
        Ok(_) => Ok(()),
        Err(GitError::Failed { message, .. }) if message.contains("already exists") => {
            Err(WorkspaceError::BranchExists(branch.to_owned()))
        }
        Err(other) => Err(other.into()),
    }
}

/// The commit that was brought in last from a branch of the sandbox, if one was.
///
/// # Errors
/// When the branch has no name that git takes, or there is no repository.
pub fn landed(repository: &Path, project: &ProjectName, branch: &str) -> Result<Option<String>, WorkspaceError> {
    check_branch(branch)?;
    let own = reference(project, branch);
    Ok(Places::find(repository)?.git("rev-parse").args(["--verify", "--quiet", &own]).line().ok())
}

/// Whether the commit `head` of the sandbox is held by a ref of the developer's repository, so that removing the
/// sandbox loses nothing that is committed.
pub fn is_pulled(repository: &Path, project: &ProjectName, branch: &str, head: &str) -> Result<bool, WorkspaceError> {
    check_branch(branch)?;
    check_object_id(head)?;
    if landed(repository, project, branch)?.as_deref() == Some(head) {
        return Ok(true);
    }
    let places = Places::find(repository)?;
    match places.git("cat-file").args(["-e", &format!("{head}^{{commit}}")]).output() {
        Ok(_) => {}
        Err(GitError::Failed { .. }) => return Ok(false),
        Err(other) => return Err(other.into()),
    }
    let holders = places.git("for-each-ref").args(["--count=1", &format!("--contains={head}")]).line()?;
    Ok(!holders.is_empty())
}
