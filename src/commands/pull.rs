//! `sandbox pull`: brings the agent's commits into this repository as `refs/sandbox/PROJECT/BRANCH`, after review.

use std::fmt::Write;
use std::path::Path;
use std::sync::Arc;

use serde::Serialize;

use super::commits::starts;
use super::load::actor;
use super::progress::Progress;
use super::{Context, Failure};
use crate::audit::AuditLog;
use crate::commands::report::counted;
use crate::project::manifest::Manifest;
use crate::project::{ProjectName, SandboxName};
use crate::session::journal::Record;
use crate::session::launch::event;
use crate::workspace::incoming::{Received, Starts, Terms, create_branch, receive, reference};
use crate::workspace::review::{AcceptedRisks, Remark, ReviewRules};

/// Bring the agent's commits into this repository, after review
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
    /// Let this path in though it is held back; may be given several times
    #[arg(long, value_name = "PATH")]
    pub accept_risk: Vec<String>,
    /// Also create this branch at what came; never moves one and checks nothing out
    #[arg(long, value_name = "BRANCH")]
    pub into: Option<String>,
    /// Go on: bring in and review what the agent commits, as it comes, until the session ends or Ctrl-C
    // What is accepted once would be accepted unseen later, and a branch can be created only once.
    #[arg(long, conflicts_with_all = ["accept_risk", "into"])]
    pub watch: bool,
}

#[derive(Serialize)]
struct Answer<'a> {
    #[serde(flatten)]
    received: &'a Received,
    #[serde(skip_serializing_if = "Option::is_none")]
    created: Option<&'a str>,
}

/// Reviews a bundle from the sandbox and brings it in; exit code 1 when something is held back.
pub async fn run_with_bundle(
    context: &Context,
    manifest: &Manifest,
    record: &Record,
    bundle: &Path,
    rules: &ReviewRules,
    args: &Args,
) -> Result<u8, Failure> {
    let repository = manifest.root.join(&manifest.workspace.source);
    let accepted = AcceptedRisks(args.accept_risk.iter().cloned().collect());
    let branch = args.branch.as_deref().unwrap_or(&record.branch);
    let place = reference(&record.id.project, &record.id.name, branch);
    let progress = Arc::new(Progress::start(&context.printer));
    let shown = progress.clone();
    let terms = Terms { rules, accepted: &accepted };
    let begins = move |step| shown.step(step);
    let received = receive(&repository, bundle, &place, branch, &starts(record), terms, begins).await?;
    progress.finish();
    note(context, record, &received, &accepted)?;
    let mut created = None;
    if let (Some(_), Some(into)) = (&received.reference, &args.into) {
        create_branch(&repository, into, &received.head)?;
        created = Some(into.as_str());
    }
    context
        .printer
        .result(&Answer { received: &received, created }, || describe(&received, &starts(record), created, &accepted));
    Ok(if received.reference.is_some() { 0 } else { 1 })
}

/// Paths of one event.
const NOTED_PATHS: usize = 20;

/// Records what came in, or what kept it out. No path is worth more than the log: only some are named.
fn note(context: &Context, record: &Record, received: &Received, accepted: &AcceptedRisks) -> Result<(), Failure> {
    let review = &received.review;
    let held_back = review.unaccepted(accepted);
    let paths = |remarks: &[&Remark]| {
        let names: Vec<&str> = remarks.iter().take(NOTED_PATHS).map(|remark| remark.path.as_str()).collect();
        names.join(", ")
    };
    let mut facts = vec![
        ("head", received.head.clone()),
        ("commits", review.commits.len().to_string()),
        ("files", review.files.len().to_string()),
    ];
    for (name, remarks) in [
        ("look_first", review.shown_first.iter().collect::<Vec<_>>()),
        ("held_back", held_back.clone()),
        ("accepted", review.held_back.iter().filter(|remark| !held_back.contains(remark)).collect()),
    ] {
        if !remarks.is_empty() {
            facts.push((name, paths(&remarks)));
        }
    }
    if review.commits.iter().any(|commit| commit.signature.is_some()) {
        facts.push(("unsigned", review.unsigned().len().to_string()));
    }
    facts.extend(received.reference.clone().map(|reference| ("reference", reference)));
    let facts: Vec<(&str, &str)> = facts.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let (action, outcome) =
        if received.reference.is_some() { ("commits.pulled", "ok") } else { ("commits.held_back", "denied") };
    AuditLog::open(&context.folders.state)?.append(&event(&actor().0, record, action, outcome, &facts))?;
    Ok(())
}

fn describe(received: &Received, starts: &Starts, created: Option<&str>, accepted: &AcceptedRisks) -> String {
    let review = &received.review;
    let (commits, files) = (review.commits.len() as u64, review.files.len() as u64);
    let mut text = format!("{}, {}\n", counted(commits, "commit"), counted(files, "file"));
    for commit in review.commits.iter().take(20) {
        let short = commit.id.get(..12).unwrap_or(&commit.id);
        let _ = writeln!(text, "  {short} {} ({})", commit.subject, commit.author);
    }
    let unsigned = review.unsigned();
    if !unsigned.is_empty() {
        let ids: Vec<&str> = unsigned.iter().take(20).map(|commit| commit.id.get(..12).unwrap_or(&commit.id)).collect();
        let more = if unsigned.len() > ids.len() { " and more" } else { "" };
        let _ = writeln!(text, "\nNot signed by a session of this sandbox: {}{more}", ids.join(", "));
    }
    let mut list = |title: &str, remarks: &[&Remark]| {
        if !remarks.is_empty() {
            let _ = writeln!(text, "\n{title}:");
            for remark in remarks {
                let passing = remark
                    .commit
                    .as_deref()
                    .map(|id| format!(", in commit {}, not in the last one", id.get(..12).unwrap_or(id)));
                let line = remark.line.map(|line| format!(" in line {line}")).unwrap_or_default();
                let passing = passing.unwrap_or_default();
                let _ = writeln!(text, "  {}: {}{line}{passing}", remark.path, remark.reason);
            }
        }
    };
    list("Look at these first", &review.shown_first.iter().collect::<Vec<_>>());
    let unaccepted = review.unaccepted(accepted);
    list("Held back", &unaccepted);
    match (&received.reference, created) {
        (Some(reference), _) => {
            let _ = write!(text, "\nNow in {reference}; nothing is checked out.\n");
            if let Some(branch) = created {
                let _ = writeln!(text, "Created branch {branch}.");
            }
            let base = &starts.start;
            let _ = writeln!(text, "next: git log {base}..{reference}");
            if starts.start == starts.base {
                let _ = writeln!(text, "      git merge {reference}");
            } else {
                // A merge would bring in once more what stands in the working tree already.
                let _ = writeln!(text, "      git cherry-pick {base}..{reference}");
                text.push_str(
                    "the agent began at a commit of what you had not committed, which `git merge` would take too\n",
                );
            }
        }
        (None, _) => {
            text.push_str("\nNothing was brought in.\nnext: look with `sandbox diff --patch`; ");
            text.push_str("repeat with --accept-risk PATH for each path that you accept\n");
        }
    }
    text
}
