//! `sandbox diff`: what the agent changed since the base; nothing lands.

use std::path::Path;

use serde::Serialize;

use super::{Context, Failure, pager};
use crate::project::manifest::Manifest;
use crate::project::{ProjectName, SandboxName};
use crate::workspace::incoming::{Quarantine, Starts};
use crate::workspace::review::{DiffStyle, Review, ReviewRules};
use crate::workspace::{GitError, WorkspaceError};

/// What the agent changed since the base
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// The project; the one of this folder when absent
    pub project: Option<ProjectName>,
    /// Which of the project's sandboxes
    #[arg(long)]
    pub name: Option<SandboxName>,
    /// Another branch of the agent's clone than the one that it began on
    #[arg(long, value_name = "BRANCH")]
    pub branch: Option<String>,
    /// Changed lines by file (the default)
    #[arg(long, group = "style")]
    pub stat: bool,
    /// The whole patch
    #[arg(long, group = "style")]
    pub patch: bool,
    /// The paths alone
    #[arg(long, group = "style")]
    pub names: bool,
}

#[derive(Serialize)]
struct Answer<'a> {
    base: &'a str,
    head: &'a str,
    review: &'a Review,
    #[serde(skip_serializing_if = "Option::is_none")]
    patch: Option<&'a str>,
}

/// Shows the difference that a bundle from the sandbox carries.
pub async fn run_with_bundle(
    context: &Context,
    manifest: &Manifest,
    starts: &Starts,
    branch: &str,
    bundle: &Path,
    rules: &ReviewRules,
    args: &Args,
) -> Result<u8, Failure> {
    let style = match (args.patch, args.names) {
        (true, _) => DiffStyle::Patch,
        (_, true) => DiffStyle::Names,
        _ => DiffStyle::Stat,
    };
    let repository = manifest.root.join(&manifest.workspace.source);
    let (bundle, known, branch) = (bundle.to_path_buf(), starts.clone(), branch.to_owned());
    let rules = rules.clone();
    let (head, review, text) = tokio::task::spawn_blocking(move || {
        let quarantine = Quarantine::open(&repository, &bundle, &branch, &known)?;
        Ok((quarantine.head().to_owned(), quarantine.review(&rules)?, quarantine.diff(style)?))
    })
    .await
    .map_err(WorkspaceError::Cancelled)
    .and_then(|result| result)
    .map_err(Failure::from)?;
    let patch = (style == DiffStyle::Patch).then_some(text.as_str());
    context.printer.paged(&Answer { base: &starts.start, head: &head, review: &review, patch }, || match style {
        DiffStyle::Patch => pager::coloured(&text),
        _ => text.clone(),
    });
    Ok(0)
}

impl From<WorkspaceError> for Failure {
    fn from(error: WorkspaceError) -> Self {
        let (code, next) = match &error {
            WorkspaceError::Git(GitError::Ownership) => {
                ("repository-owner", "run as the repository's owner, or change its owner to yourself")
            }
            WorkspaceError::Git(GitError::NotInstalled) => ("git-missing", "install git and try again"),
            WorkspaceError::NotARepository(..) => {
                ("no-repository", "run `git init` and commit, or set workspace.source")
            }
            WorkspaceError::DetachedHead => ("detached-head", "set workspace.branch, or `git switch` to a branch"),
            WorkspaceError::NoCommit(_) => ("no-commit", "commit something on that branch first"),
            WorkspaceError::OtherBranch(_) => {
                ("other-branch", "`git switch` to that branch, or set workspace.include_uncommitted to false")
            }
            WorkspaceError::PartialClone(_) => ("partial-clone", "run `git fetch --refetch --no-filter` first"),
            WorkspaceError::NoSubmodule(_) => {
                ("submodule", "name a path that `git submodule status` lists, and commit it first")
            }
            WorkspaceError::SubmoduleAbsent { .. } => ("submodule", "run `git submodule update --init PATH` first"),
            WorkspaceError::LargeFileAbsent(_) => ("large-file", "run `git lfs fetch` first"),
            WorkspaceError::BranchAbsent(_) => ("branch-absent", "name one that the agent made, with --branch"),
            WorkspaceError::BranchExists(_) => ("branch-exists", "choose another name for --into"),
            WorkspaceError::BranchName(_) => {
                ("branch-name", "choose a name that `git check-ref-format --branch` takes")
            }
            _ => ("workspace", "look at the cause above; nothing outside refs/sandbox/ was changed"),
        };
        Self::new(code, &error, next)
    }
}
