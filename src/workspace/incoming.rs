//! The way out: a bundle from the container is read into quarantine, reviewed there, and brought under `refs/sandbox/`.

use std::path::{Path, PathBuf};

use serde::Serialize;
use tempfile::TempDir;

use super::WorkspaceError;
use super::git::{Git, GitError};
use super::pack::{self, PackFiles};
use super::review::{self, AcceptedRisks, DiffStyle, Review, ReviewRules};
use super::source::{Places, check_branch, check_object_id};
use crate::project::{ProjectName, SandboxName};

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

/// On which terms commits come in.
#[derive(Debug, Clone, Copy)]
pub struct Terms<'a> {
    /// What is held back, and what is shown first.
    pub rules: &'a ReviewRules,
    /// What comes in though it is held back.
    pub accepted: &'a AcceptedRisks,
}

/// The steps of [`receive`].
pub const CHECKING: &str = "checking the commits";
/// The second.
pub const REVIEWING: &str = "reviewing the commits";
/// The last.
pub const LANDING: &str = "taking the commits in";

/// Where the work of an agent begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Starts {
    /// The commit of the developer's repository.
    pub base: String,
    /// The commit that the agent's branch started at: the same, or one of what was not committed on top of it.
    pub start: String,
}

/// A bundle in a private bare repository that borrows the developer's objects; gone when dropped.
#[derive(Debug)]
pub struct Quarantine {
    folder: TempDir,
    places: Places,
    pack: PackFiles,
    /// The commit of the developer's.
    own: String,
    /// The commit that the review begins at.
    base: String,
    head: String,
}

/// Where the branches of a sandbox land: `refs/sandbox/PROJECT/`, and `refs/sandbox/PROJECT@NAME/` for another than the main
/// one, so that those of parallel sandboxes never take each other's place.
pub fn folder(project: &ProjectName, sandbox: &SandboxName) -> String {
    if *sandbox == SandboxName::main() {
        format!("refs/sandbox/{project}/")
    } else {
        format!("refs/sandbox/{project}@{sandbox}/")
    }
}

/// The ref in which an incoming branch lands.
pub fn reference(project: &ProjectName, sandbox: &SandboxName, branch: &str) -> String {
    format!("{}{branch}", folder(project, sandbox))
}

impl Quarantine {
    /// Reads the bundle; the developer's repository is only read.
    pub fn open(repository: &Path, bundle: &Path, branch: &str, starts: &Starts) -> Result<Self, WorkspaceError> {
        let Starts { base, start } = starts;
        check_branch(branch)?;
        check_object_id(base)?;
        check_object_id(start)?;
        let places = Places::find(repository)?;
        let folder = tempfile::tempdir()?;
        places.borrow(folder.path())?;
        let (header, pack) = pack::header(bundle)?;
        if header.object_format != places.object_format {
            let own = places.object_format.clone();
            return Err(WorkspaceError::ObjectFormat { came: header.object_format, own });
        }
        let named = header.object(&format!("refs/heads/{branch}"));
        let tip = named.ok_or_else(|| WorkspaceError::BranchAbsent(branch.to_owned()))?.to_owned();
        // A bundle that is made on top of something else is none of what was asked for.
        let known = Git::at(folder.path(), "cat-file").args(["--buffer", "--batch-check=%(objecttype)"]);
        let known = known.input(header.bases.iter().flat_map(|base| [base, "\n"]).collect::<String>().into_bytes());
        if let Some(at) = known.line()?.lines().position(|kind| kind != "commit") {
            return Err(WorkspaceError::BaseAbsent(header.bases.get(at).cloned().unwrap_or_default()));
        }
        let pack = pack::take(folder.path(), pack)?;
        let ids = Git::at(folder.path(), "rev-parse")
            .args(["--verify", "--end-of-options", &format!("{tip}^{{commit}}")])
            .line()?;
        // A tag would be peeled for the review, and land as what it is, with a name and a message that nobody saw.
        if ids != tip {
            return Err(WorkspaceError::NotACommit(branch.to_owned()));
        }
        // The agent may have left that commit out; then all since the developer's own is looked at.
        let has_start =
            Git::at(folder.path(), "cat-file").args(["-e", &format!("{start}^{{commit}}")]).output().is_ok();
        let (own, base) = (base.clone(), if has_start { start.clone() } else { base.clone() });
        Ok(Self { folder, places, pack, own, base, head: tip })
    }

    /// The tip of the bundle's branch.
    pub fn head(&self) -> &str {
        &self.head
    }

    /// Says whether all that the commits need is there: what the developer's own commit has is his, and everything else has to
    /// have come.
    pub fn check_whole(&self) -> Result<(), WorkspaceError> {
        let words = ["--objects", "--quiet", &self.head, "--not", &self.own];
        Git::at(self.folder.path(), "rev-list").args(words).output()?;
        Ok(())
    }

    /// Reviews what came, once it is whole.
    pub fn review(&self, rules: &ReviewRules) -> Result<Review, WorkspaceError> {
        // The two look at the same objects and wait for nothing of each other.
        std::thread::scope(|scope| {
            let whole = scope.spawn(|| self.check_whole());
            let review = review::review(self.folder.path(), &self.base, &self.head, rules);
            whole.join().map_err(|_| WorkspaceError::Output("rev-list"))??;
            review
        })
    }

    /// The difference to the base, sanitised.
    pub fn diff(&self, style: DiffStyle) -> Result<String, WorkspaceError> {
        review::diff_text(self.folder.path(), &self.base, &self.head, style)
    }

    /// Brings the reviewed commit under `refs/sandbox/`. What the ref held before stays in its reflog.
    fn land(&self, reference: &str) -> Result<(), WorkspaceError> {
        let kept = self.pack.copy_into(&self.places)?;
        self.places
            .git("update-ref")
            .args(["--create-reflog", "-m", "sandbox pull", reference, &self.head])
            .variable("GIT_COMMITTER_NAME", "sandbox")
            .variable("GIT_COMMITTER_EMAIL", "sandbox@sandbox.invalid")
            .output()?;
        drop(kept);
        Ok(())
    }
}

/// Reviews a bundle in quarantine and, when nothing unaccepted is held back, brings its branch in as this [`reference()`]. No
/// other ref, no index and no working tree changes. `begins` is told of each step, in words for people.
pub async fn receive(
    repository: &Path,
    bundle: &Path,
    reference: &str,
    branch: &str,
    starts: &Starts,
    terms: Terms<'_>,
    begins: impl Fn(&'static str) + Send + 'static,
) -> Result<Received, WorkspaceError> {
    let (repository, bundle): (PathBuf, PathBuf) = (repository.to_path_buf(), bundle.to_path_buf());
    let (reference, branch, starts) = (reference.to_owned(), branch.to_owned(), starts.clone());
    let (rules, accepted) = (terms.rules.clone(), terms.accepted.clone());
    tokio::task::spawn_blocking(move || {
        begins(CHECKING);
        let quarantine = Quarantine::open(&repository, &bundle, &branch, &starts)?;
        begins(REVIEWING);
        let review = quarantine.review(&rules)?;
        let mut landed = None;
        if review.unaccepted(&accepted).is_empty() {
            begins(LANDING);
            quarantine.land(&reference)?;
            landed = Some(reference);
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

/// Whether the commit `head` of the sandbox is held by a ref of the developer's repository, so that removing the
/// sandbox loses nothing that is committed.
pub fn is_pulled(repository: &Path, head: &str) -> Result<bool, WorkspaceError> {
    check_object_id(head)?;
    let places = Places::find(repository)?;
    match places.git("cat-file").args(["-e", &format!("{head}^{{commit}}")]).output() {
        Ok(_) => {}
        Err(GitError::Failed { .. }) => return Ok(false),
        Err(other) => return Err(other.into()),
    }
    let holders = places.git("for-each-ref").args(["--count=1", &format!("--contains={head}")]).line()?;
    Ok(!holders.is_empty())
}
