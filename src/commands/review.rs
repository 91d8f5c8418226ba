//! `sandbox review`: what a person should look at before the agent's commits come in, as a page that stands alone and in
//! short on the terminal. Nothing lands.

mod body;

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::audit::report::{Scope, SessionReport};
use crate::commands::connect::connect;
use crate::commands::load::{Target, manifest};
use crate::commands::page::page;
use crate::commands::printer::sanitise;
use crate::commands::report::{counted, sessions, usage};
use crate::commands::{Context, Failure, commits, sandbox, sandbox_exchange};
use crate::session::identity::private_folder;
use crate::workspace::incoming::{Quarantine, Starts};
use crate::workspace::review::{DiffStyle, FileChange, Remark, Review, ReviewRules};
use crate::workspace::{GitError, WorkspaceError};

/// Remarks that the terminal shows; the page has them all.
const SHOWN: usize = 20;

/// Arguments of `review`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Which sandbox.
    #[command(flatten)]
    pub target: Target,
    /// Another branch of the agent's clone than the one that it began on
    #[arg(long, value_name = "BRANCH")]
    pub branch: Option<String>,
    /// Write the page to this file, in place of one in the launcher's state folder
    #[arg(long, value_name = "FILE")]
    pub output: Option<PathBuf>,
}

/// What a page is made of.
#[derive(Debug, Serialize)]
struct Material {
    project: String,
    name: String,
    branch: String,
    base: String,
    head: String,
    review: Review,
    /// The patch, sanitised; none when it is larger than anybody reads.
    #[serde(skip)]
    patch: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    session: Option<SessionReport>,
}

#[derive(Serialize)]
struct Answer<'a> {
    page: &'a Path,
    #[serde(flatten)]
    material: &'a Material,
}

/// Writes the page and says in short what is in it.
///
/// # Errors
/// When there is no such sandbox, its commits cannot be taken or reviewed, or the page cannot be written.
pub async fn run(context: &Context, args: &Args) -> Result<u8, Failure> {
    let engine = connect(context).await?;
    let project = args.target.project.as_deref();
    let found = sandbox::find(context, &engine, &args.target).await?;
    let (_, manifest) = manifest(context, project)?;
    let rules = sandbox_exchange::rules(context, &manifest, &found.record)?;
    let record = &found.record;
    let branch = args.branch.as_deref().unwrap_or(&record.branch).to_owned();
    let taken = commits::take(context, &engine, &found, project, &branch).await?;
    sandbox_exchange::tell_of_others(context, &found, &taken);
    let repository = manifest.root.join(&manifest.workspace.source);
    let starts = commits::starts(record);
    let of = branch.clone();
    let (head, review, patch) = match taken.bundle {
        // The session is worth a look also when nothing would come in.
        None => (record.start.clone(), Review::default(), Some(String::new())),
        Some(bundle) => tokio::task::spawn_blocking(move || look(&repository, bundle.path(), &of, &starts, &rules))
            .await
            .map_err(WorkspaceError::Cancelled)
            .and_then(|result| result)
            .map_err(Failure::from)?,
    };
    let scope = Scope {
        project: Some(record.id.project.to_string()),
        sandbox: Some(record.id.name.to_string()),
        ..Scope::default()
    };
    let session = sessions(context, scope)?.into_iter().rev().find(|one| one.session == record.session.as_str());
    let material = Material {
        project: record.id.project.to_string(),
        name: record.id.name.to_string(),
        branch,
        base: record.start.clone(),
        head,
        review,
        patch,
        session,
    };
    let title = format!("Review of {} ({})", material.project, material.name);
    let file = match &args.output {
        Some(file) => file.clone(),
        None => {
            let folder = context.folders.state.join("reviews");
            private_folder(&folder).map_err(|error| written(&folder, &error))?;
            folder.join(format!("{}.{}.html", material.project, material.name))
        }
    };
    write(&file, &page(&title, &body::body(&material)))?;
    context.printer.paged(&Answer { page: &file, material: &material }, || describe(&material, &file));
    Ok(0)
}

/// Head, review and patch of a bundle.
fn look(
    repository: &Path,
    bundle: &Path,
    branch: &str,
    starts: &Starts,
    rules: &ReviewRules,
) -> Result<(String, Review, Option<String>), WorkspaceError> {
    let quarantine = Quarantine::open(repository, bundle, branch, starts)?;
    let review = quarantine.review(rules)?;
    let patch = match quarantine.diff(DiffStyle::Patch) {
        Err(WorkspaceError::Git(GitError::TooMuch(..))) => None,
        other => Some(other?),
    };
    Ok((quarantine.head().to_owned(), review, patch))
}

/// The body of the page of one session.
pub(super) fn session_page(title: &str, session: &SessionReport) -> maud::Markup {
    body::session(title, session)
}

/// Writes the file in one step, readable by the user alone.
pub(super) fn write(file: &Path, text: &str) -> Result<(), Failure> {
    let folder = match file.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let made = tempfile::NamedTempFile::new_in(folder).and_then(|mut made| {
        made.write_all(text.as_bytes())?;
        made.persist(file).map_err(|error| error.error)
    });
    made.map(drop).map_err(|error| written(file, &error))
}

fn written(path: &Path, error: &std::io::Error) -> Failure {
    let what = format!("write {}", path.display());
    Failure::system("page-not-written", &what, error, "name a file in a folder that you can write to, with --output")
}

fn describe(material: &Material, file: &Path) -> String {
    let review = &material.review;
    let mut text = match review.commits.len() as u64 {
        0 => format!("no new commit of {} ({})\n", material.project, material.name),
        commits => format!(
            "{} and {} of {} ({})\n",
            counted(commits, "commit"),
            counted(review.files.len() as u64, "changed file"),
            material.project,
            material.name
        ),
    };
    for (title, remarks) in [("Held back", &review.held_back), ("Look at these first", &review.shown_first)] {
        let rows: Vec<String> = remarks.iter().map(told).collect();
        list(&mut text, title, &rows, "all of them on the page");
    }
    let commits: Vec<String> = (review.commits.iter())
        .map(|commit| format!("{} {} ({})", body::short(&commit.id), commit.subject, commit.author))
        .collect();
    list(&mut text, "Commits", &commits, "all of them on the page");
    list(&mut text, "Files", &files(review), "`sandbox diff --names` lists them");
    if let Some(session) = &material.session {
        of_session(&mut text, session);
    }
    let _ = write!(text, "\nThe whole page: {}", file.display());
    if !review.commits.is_empty() {
        let name = name_option(material);
        let _ = write!(text, "\nThe changes:    sandbox diff {}{name} --patch", material.project);
        let (command, how) = next(material);
        let _ = write!(text, "\nnext: {command}{how}");
    }
    sanitise(&text)
}

/// A part of the terminal's view: some rows, and how many more there are.
fn list(text: &mut String, title: &str, rows: &[String], more: &str) {
    if rows.is_empty() {
        return;
    }
    let _ = writeln!(text, "\n{title}:");
    for row in rows.iter().take(SHOWN) {
        let _ = writeln!(text, "  {}", row.replace('\n', "\\n"));
    }
    if rows.len() > SHOWN {
        let _ = writeln!(text, "  and {} more; {more}", rows.len() - SHOWN);
    }
}

/// The changed files: what is held back, then what to look at first, then the rest.
fn by_risk(review: &Review) -> Vec<&FileChange> {
    let paths = |remarks: &'_ [Remark]| -> BTreeSet<String> { remarks.iter().map(|one| one.path.clone()).collect() };
    let (held, first) = (paths(&review.held_back), paths(&review.shown_first));
    let mut files: Vec<_> = review.files.iter().collect();
    files.sort_by_key(|file| (!held.contains(&file.path), !first.contains(&file.path)));
    files
}

fn files(review: &Review) -> Vec<String> {
    let row = |file: &FileChange| {
        let lines = match (file.added, file.removed) {
            (Some(added), Some(removed)) => format!("+{added} -{removed}"),
            _ => "binary".to_owned(),
        };
        format!("{} {}  {lines}", file.status, file.path)
    };
    by_risk(review).into_iter().map(row).collect()
}

/// What the session had and did, in short.
fn of_session(text: &mut String, session: &SessionReport) {
    let more = "`sandbox report` has them all";
    let denied: u64 = session.denied.iter().map(|denied| denied.count).sum();
    let _ = writeln!(
        text,
        "\nThe session had {}, reached {} and was denied {}.",
        counted(session.credentials.len() as u64, "credential"),
        counted(session.hosts.len() as u64, "host"),
        counted(denied, "time")
    );
    let credentials =
        session.credentials.iter().map(|used| format!("{}: {}; {}", used.name, usage(used), used.state()));
    list(text, "Credentials", &credentials.collect::<Vec<_>>(), more);
    let commands = session.commands.iter().map(|run| match run.code {
        Some(code) => format!("{} (exit code {code})", run.command),
        None => run.command.clone(),
    });
    list(text, "Commands started in it", &commands.collect::<Vec<_>>(), more);
    let outside = session.outside.iter().map(|file| format!("{}: {}", file.path, file.change));
    list(text, "Changed outside of the commits, as its container says", &outside.collect::<Vec<_>>(), more);
    let hosts = session
        .hosts
        .iter()
        .map(|used| format!("{}:{}  {}", used.host, used.port, counted(used.connections, "connection")));
    list(text, "Hosts reached", &hosts.collect::<Vec<_>>(), more);
    let denied =
        session.denied.iter().map(|one| format!("{}  {}, {}", one.place(), one.reason, counted(one.count, "time")));
    list(text, "Denied", &denied.collect::<Vec<_>>(), more);
}

/// A remark in one line.
fn told(remark: &Remark) -> String {
    let line = remark.line.map(|line| format!(" in line {line}")).unwrap_or_default();
    let passing =
        remark.commit.as_deref().map(|id| format!(", in commit {}, not in the last one", id.get(..12).unwrap_or(id)));
    format!("{}: {}{line}{}", remark.path, remark.reason, passing.unwrap_or_default())
}

fn name_option(material: &Material) -> String {
    if material.name == "main" { String::new() } else { format!(" --name {}", material.name) }
}

/// The command that brings it in, and what to put in its place.
fn next(material: &Material) -> (String, &'static str) {
    let command = format!("sandbox pull {}{}", material.project, name_option(material));
    if material.review.held_back.is_empty() {
        (command, "")
    } else {
        (format!("{command} --accept-risk PATH"), ", with that option for each held back path that you accept")
    }
}
