//! The exchange of commits: a bundle in, a bundle out, and the review of what came back.
//!
//! Everything here runs on the developer's side. No git process ever opens a repository that the agent could write:
//! what comes back is a bundle file, read into a private bare repository, reviewed there by plumbing, and only then
//! brought under `refs/sandbox/` of the developer's repository.

pub mod git;

pub mod source;

pub mod incoming;

pub mod review;

pub mod hazard;

pub mod large_files;

mod pack;

mod passing;

pub mod secret_scan;
pub mod signature;
pub mod submodule;

pub mod tracked_secrets;

pub use git::GitError;
pub use incoming::{Received, is_pulled, receive};
pub use review::{AcceptedRisks, Review, ReviewRules};
pub use source::{OutgoingBundle, SourceState, clone_request, inspect, open_bundle};

use std::path::PathBuf;

/// Why commits could not be exchanged.
#[derive(Debug, thiserror::Error)]
pub enum WorkspaceError {
    /// A git process failed.
    #[error("run git")]
    Git(#[from] GitError),
    /// The folder is in no repository with a working tree.
    #[error("find a git repository with a working tree at {}", .0.display())]
    NotARepository(PathBuf, #[source] GitError),
    /// `HEAD` names no branch, and the manifest names none.
    #[error("choose a branch: HEAD is detached and `workspace.branch` is not set")]
    DetachedHead,
    /// The branch has no commit.
    #[error("read branch `{0}`: it has no commit")]
    NoCommit(String),
    /// Uncommitted changes of another branch than the current one were asked for.
    #[error("take uncommitted changes along: they belong to the checked-out branch, not to `{0}`")]
    OtherBranch(String),
    /// The branch's name cannot be a git ref.
    #[error("use `{}` as the name of a branch", .0.escape_debug())]
    BranchName(String),
    /// Text that is not an object id.
    #[error("use `{}` as a commit id", .0.escape_debug())]
    ObjectId(String),
    /// Objects that a partial clone left at its remote.
    #[error("bundle a partial clone, whose missing objects are not fetched on their own")]
    PartialClone(#[source] GitError),
    /// A path of `workspace.submodules` where the branch has none.
    #[error("take the submodule `{}` along: the branch has none there", .0.escape_debug())]
    NoSubmodule(String),
    /// A submodule whose commit is not on this machine.
    #[error("take the submodule `{}` along: its commit {commit} is not here", path.escape_debug())]
    SubmoduleAbsent {
        /// Its path.
        path: String,
        /// The commit that the branch names.
        commit: String,
    },
    /// A file of git-lfs that is not on this machine.
    #[error("take the large file `{}` along: its content is not here", .0.escape_debug())]
    LargeFileAbsent(String),
    /// The bundle's header is none.
    #[error("read the bundle that came")]
    Bundle(#[from] crate::init::bundle::BundleHeaderError),
    /// The bundle is made on top of a commit that is not here.
    #[error("take in a bundle on top of {0}, which this repository does not have")]
    BaseAbsent(String),
    /// The bundle has no such branch, or names it twice.
    #[error("find branch `{0}` in the bundle that came")]
    BranchAbsent(String),
    /// The bundle's objects have other ids than the repository's.
    #[error("take in objects of {came}: this repository has those of {own}")]
    ObjectFormat {
        /// What came.
        came: &'static str,
        /// What there is.
        own: String,
    },
    /// A path that git's list of alternates cannot hold.
    #[error("use the object folder {}: its path holds a line feed", .0.display().to_string().escape_debug())]
    ObjectFolder(PathBuf),
    /// The branch to create exists already.
    #[error("create branch `{0}`: it exists and is never moved")]
    BranchExists(String),
    /// The branch that came is a tag.
    #[error("bring in branch `{0}`: it is a tag and no commit")]
    NotACommit(String),
    /// git's output was not what its documentation says.
    #[error("understand the output of git {0}")]
    Output(&'static str),
    /// A temporary file or folder.
    #[error("use a temporary folder")]
    Io(#[from] std::io::Error),
    /// The work was cancelled.
    #[error("wait for the review")]
    Cancelled(#[source] tokio::task::JoinError),
}
