//! `sandbox workspace`: the clones and homes that sandboxes keep: listed with what they take, removed, and exported.

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use comfy_table::{Table, presets};
use jiff::Timestamp;
use serde::Serialize;

use crate::audit::AuditLog;
use crate::audit::report::Scope;
use crate::beneath::tree::TreeLimits;
use crate::commands::connect::connect;
use crate::commands::load::{Target, actor, machine_key, manifest, sandbox_id};
use crate::commands::printer::sanitise;
use crate::commands::report::sessions;
use crate::commands::{Context, Failure, commits, down, kept_home, sandbox, sandbox_exchange};
use crate::engine::Engine;
use crate::project::quantity::{show_size, size};
use crate::session::archive::Archived;
use crate::session::copy::CopyError;
use crate::session::identity::Role;
use crate::session::launch::event;
use crate::session::plan::{HOME, WORKSPACE};
use crate::session::reconcile::{Condition, SandboxState, reconcile, reconcile_all};
use crate::workspace::WorkspaceError;
use crate::workspace::incoming::Quarantine;

/// The most bytes of an archive, unless another limit is given.
const BYTES: u64 = 64 << 30;
/// The most files and folders of an archive.
const ENTRIES: u64 = 5_000_000;
/// Folders within folders.
const DEPTH: usize = 200;
/// How long an export may take.
const TIME: Duration = Duration::from_secs(3600);
/// How long the measuring of one sandbox may take.
const MEASURE: Duration = Duration::from_secs(60);

/// Arguments of `workspace`.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// List the clones and homes that there are, with what they take and when they were last used
    Ls,
    /// Remove the clone of a sandbox that does not run, or a home that is kept
    Rm(RemoveArgs),
    /// Write what is in a clone or a home to a tar archive, or the agent's commits to a bundle
    Export(ExportArgs),
}

/// Arguments of `workspace rm`.
#[derive(Debug, clap::Args)]
struct RemoveArgs {
    #[command(flatten)]
    target: Target,
    /// Also remove the home that `workspace.home: keep` keeps
    #[arg(long)]
    home: bool,
    /// Lose commits that were not pulled
    #[arg(long)]
    discard: bool,
}

/// Arguments of `workspace export`.
#[derive(Debug, clap::Args)]
struct ExportArgs {
    #[command(flatten)]
    target: Target,
    /// Where to; nothing is written over
    #[arg(long, short, value_name = "FILE")]
    output: PathBuf,
    /// The home in place of the clone
    #[arg(long, conflicts_with = "bundle")]
    home: bool,
    /// The agent's commits since the start, as a bundle that git fetches from
    #[arg(long)]
    bundle: bool,
    /// Another branch than the one that the agent began on
    #[arg(long, value_name = "BRANCH", requires = "bundle")]
    branch: Option<String>,
    /// The most that may be written, such as 5GiB
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    limit: Option<u64>,
}

fn parse_size(text: &str) -> Result<u64, String> {
    size(text).ok_or_else(|| "write a size such as 5GiB".to_owned())
}

/// A refusal of this verb.
#[derive(Debug, thiserror::Error)]
enum Refusal {
    #[error("remove the workspace of {0}, which runs")]
    Runs(String),
    #[error("find a workspace or a home of {0}")]
    Absent(String),
    #[error("export what {0} holds, since its container is not there")]
    NoClone(String),
    #[error("export within {} seconds", TIME.as_secs())]
    Time,
}

/// One row of `workspace ls`.
#[derive(Debug, Serialize)]
struct Row {
    project: String,
    name: String,
    condition: Condition,
    /// Bytes of the clone; none when there is none, or when it could not be measured.
    #[serde(skip_serializing_if = "Option::is_none")]
    workspace_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    home_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_used: Option<Timestamp>,
}

/// Runs one of the verbs.
///
/// # Errors
/// When the engine, the state folder or the file cannot be used, or something would be lost.
pub async fn run(context: &Context, arguments: Arguments) -> Result<u8, Failure> {
    match arguments.verb {
        Verb::Ls => list(context).await,
        Verb::Rm(args) => remove(context, args).await,
        Verb::Export(args) => export(context, &args).await,
    }
}

async fn list(context: &Context) -> Result<u8, Failure> {
    let engine = connect(context).await?;
    let key = machine_key(context)?;
    let states = reconcile_all(&engine, &context.folders.state, &key).await?;
    let used = sessions(context, Scope::default())?;
    let kept = states.iter().filter(|state| {
        state.condition != Condition::Foreign
            && [Role::Workspace, Role::Home].iter().any(|role| state.volumes.contains(role))
    });
    let mut rows = Vec::new();
    for state in kept {
        let (project, name) = (state.id.project.to_string(), state.id.name.to_string());
        let last = used.iter().rfind(|session| session.project == project && session.sandbox == name);
        let measured = tokio::time::timeout(MEASURE, measure(context, &engine, state)).await;
        let (workspace_bytes, home_bytes) = measured.ok().and_then(Result::ok).unwrap_or_default();
        rows.push(Row {
            project,
            name,
            condition: state.condition,
            workspace_bytes,
            home_bytes,
            last_used: last.and_then(|session| session.ended.or(session.started).or(session.launched)),
        });
    }
    context.printer.result(&rows, || table(&rows));
    Ok(0)
}

/// Bytes of clone and home, measured by the helper in the sandbox's own container, or in one that mounts both read-only.
async fn measure(
    context: &Context,
    engine: &Engine,
    state: &SandboxState,
) -> Result<(Option<u64>, Option<u64>), Failure> {
    let mut reader = commits::open_bare_reader(context, engine, state).await?;
    let measured = async {
        let mut sizes = (None, None);
        if state.volumes.contains(&Role::Workspace) {
            sizes.0 = Some(reader.client.usage(vec![WORKSPACE.to_owned()]).await?.bytes);
        }
        if state.volumes.contains(&Role::Home) {
            sizes.1 = Some(reader.client.usage(vec![HOME.to_owned()]).await?.bytes);
        }
        Ok::<_, Failure>(sizes)
    };
    let measured = measured.await;
    reader.close(engine).await?;
    measured
}

fn table(rows: &[Row]) -> String {
    if rows.is_empty() {
        return "no workspace; `sandbox up` makes one".to_owned();
    }
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_header(["PROJECT", "NAME", "STATE", "WORKSPACE", "HOME", "LAST USED"]);
    for row in rows {
        let bytes = |bytes: Option<u64>| bytes.map_or_else(|| "-".to_owned(), show_size);
        table.add_row([
            row.project.clone(),
            row.name.clone(),
            super::ps::word(row.condition).to_owned(),
            bytes(row.workspace_bytes),
            bytes(row.home_bytes),
            row.last_used.map_or_else(|| "-".to_owned(), super::ps::ago),
        ]);
    }
    table.to_string()
}

async fn remove(context: &Context, args: RemoveArgs) -> Result<u8, Failure> {
    let engine = connect(context).await?;
    let id = sandbox_id(context, &args.target)?;
    let state = reconcile(&engine, &context.folders.state, &machine_key(context)?, &id).await?;
    sandbox::refuse_foreign(&state)?;
    match state.condition {
        Condition::Running | Condition::Unsupervised | Condition::Changing => {
            let next = format!("end it with `sandbox down {}`, which removes its clone too", id.project);
            Err(Failure::new("workspace-in-use", &Refusal::Runs(id.to_string()), next))
        }
        // Whoever names a home that alone is left means that one.
        Condition::Kept => {
            kept_home::discard(context, &engine, &args.target).await?;
            Ok(0)
        }
        Condition::Absent => {
            let next = "`sandbox workspace ls` lists those that there are";
            Err(Failure::new("workspace-absent", &Refusal::Absent(id.to_string()), next))
        }
        Condition::Stopped | Condition::Half | Condition::Foreign => {
            let args = down::Args { target: args.target, discard: args.discard, discard_home: args.home };
            down::run(context, &args).await
        }
    }
}

async fn export(context: &Context, args: &ExportArgs) -> Result<u8, Failure> {
    let engine = connect(context).await?;
    if args.bundle {
        return export_bundle(context, &engine, args).await;
    }
    let id = sandbox_id(context, &args.target)?;
    let state = reconcile(&engine, &context.folders.state, &machine_key(context)?, &id).await?;
    sandbox::refuse_foreign(&state)?;
    let (role, folder, top) =
        if args.home { (Role::Home, HOME, "home") } else { (Role::Workspace, WORKSPACE, "workspace") };
    if !state.volumes.contains(&role) {
        let next = "`sandbox workspace ls` lists those that there are";
        return Err(Failure::new("workspace-absent", &Refusal::Absent(id.to_string()), next));
    }
    let made = fresh(&args.output)?;
    let file = made.as_file().try_clone().map_err(|error| unwritten(&args.output, &error))?;
    let limits = TreeLimits { bytes: args.limit.unwrap_or(BYTES), entries: ENTRIES, depth: DEPTH };
    let mut reader = commits::open_bare_reader(context, &engine, &state).await?;
    let builder = tar::Builder::new(std::io::BufWriter::new(file));
    let archived = tokio::time::timeout(TIME, reader.client.archive(folder, top, limits, builder)).await;
    reader.close(&engine).await?;
    let (archived, builder) =
        archived.map_err(|_| Failure::new("export-failed", &Refusal::Time, ADVICE))?.map_err(|error| match error {
            CopyError::Session(error) => Failure::from(error),
            CopyError::Tree(error) => Failure::new("export-failed", &error, ADVICE),
        })?;
    let written = builder.into_inner().and_then(|mut file| file.flush());
    written.map_err(|error| unwritten(&args.output, &error))?;
    keep(made, &args.output)?;
    note(context, &state, &args.output, &[("files", archived.totals.files), ("bytes", archived.totals.bytes)])?;
    context.printer.result(&ExportAnswer { file: &args.output, archived }, || {
        let left = match archived.left_out {
            0 => String::new(),
            count => format!("; {count} with names that hide something or mean a git folder were left out"),
        };
        format!(
            "{} files, {}, in {}{left}\nlinks, devices and `.git` are not in it; it is what an agent wrote and nobody reviewed",
            archived.totals.files,
            show_size(archived.totals.bytes),
            sanitise(&args.output.to_string_lossy())
        )
    });
    Ok(0)
}

#[derive(Debug, Serialize)]
struct ExportAnswer<'a> {
    file: &'a Path,
    #[serde(flatten)]
    archived: Archived,
}

/// What to do when something cannot be exported.
const ADVICE: &str = "look at the cause above; `--limit` lets more through, and `sandbox cp` takes single folders";

async fn export_bundle(context: &Context, engine: &Engine, args: &ExportArgs) -> Result<u8, Failure> {
    let project = args.target.project.as_deref();
    let found = sandbox::find(context, engine, &args.target).await?;
    let record = &found.record;
    if record.start.is_empty() {
        let next = format!("start it with `sandbox up {}`", record.id.project);
        return Err(Failure::new("workspace-absent", &Refusal::NoClone(record.id.to_string()), next));
    }
    let branch = args.branch.as_deref().unwrap_or(&record.branch).to_owned();
    let taken = commits::take(context, engine, &found, project, &branch).await?;
    let Some(bundle) = taken.bundle else {
        sandbox_exchange::nothing_new(context);
        return Ok(0);
    };
    let (_, manifest) = manifest(context, project)?;
    let repository = manifest.root.join(&manifest.workspace.source);
    let starts = commits::starts(record);
    let path = bundle.path().to_path_buf();
    // Only what is whole and well-formed is written, as `pull` would take it; it is not reviewed.
    let checked = tokio::task::spawn_blocking(move || {
        let quarantine = Quarantine::open(&repository, &path, &branch, &starts)?;
        quarantine.check_whole()?;
        Ok(quarantine.head().to_owned())
    });
    let head = checked.await.map_err(WorkspaceError::Cancelled).and_then(|result| result).map_err(Failure::from)?;
    let mut made = fresh(&args.output)?;
    let copied = File::open(bundle.path()).and_then(|mut file| std::io::copy(&mut file, made.as_file_mut()));
    let bytes = copied.map_err(|error| unwritten(&args.output, &error))?;
    keep(made, &args.output)?;
    note(context, &found.state, &args.output, &[("bytes", bytes)])?;
    let answer = serde_json::json!({"file": args.output, "head": head, "bytes": bytes});
    context.printer.result(&answer, || {
        format!(
            "{}, to {}, in {}; nobody reviewed it",
            show_size(bytes),
            head.get(..12).unwrap_or(&head),
            sanitise(&args.output.to_string_lossy())
        )
    });
    Ok(0)
}

/// A file beside the one that is to be.
fn fresh(output: &Path) -> Result<tempfile::NamedTempFile, Failure> {
    let folder = output.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    tempfile::NamedTempFile::new_in(folder).map_err(|error| unwritten(output, &error))
}

/// Brings it to its place, where nothing may be.
fn keep(made: tempfile::NamedTempFile, output: &Path) -> Result<(), Failure> {
    made.persist_noclobber(output).map(drop).map_err(|error| unwritten(output, &error.error))
}

fn unwritten(output: &Path, error: &std::io::Error) -> Failure {
    let what = format!("write {}", sanitise(&output.to_string_lossy()));
    Failure::system("export-failed", &what, error, "name a file that is not there, in a folder that you can write to")
}

/// Records that files left a sandbox.
fn note(context: &Context, state: &SandboxState, output: &Path, counts: &[(&str, u64)]) -> Result<(), Failure> {
    let mut facts = vec![("file".to_owned(), sanitise(&output.to_string_lossy()).chars().take(200).collect())];
    facts.extend(counts.iter().map(|(name, count)| ((*name).to_owned(), count.to_string())));
    let event = match &state.record {
        Some(record) => {
            let facts: Vec<(&str, &str)> =
                facts.iter().map(|(name, fact): &(String, String)| (name.as_str(), fact.as_str())).collect();
            event(&actor().0, record, "workspace.exported", "ok", &facts)
        }
        None => crate::audit::event::AuditEvent {
            time: Timestamp::now(),
            action: "workspace.exported".to_owned(),
            actor: actor().0,
            project: state.id.project.to_string(),
            sandbox: Some(state.id.name.to_string()),
            session: None,
            outcome: "ok".to_owned(),
            facts: facts.into_iter().collect(),
        },
    };
    AuditLog::open(&context.folders.state)?.append(&event)?;
    Ok(())
}
