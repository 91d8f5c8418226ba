//! The agent's commits on their way out of a sandbox: as a bundle in a temporary file, and which of them nothing else holds.

use std::collections::BTreeMap;

use crate::commands::load::{Overrides, Target, load, machine_key};
use crate::commands::progress::Progress;
use crate::commands::sandbox::Sandbox;
use crate::commands::{Context, Failure};
use crate::engine::container::Mount;
use crate::engine::{ContainerStatus, Engine};
use crate::init::frame::{BundleRequest, FailureKind, Tip};
use crate::session::identity::{LABEL_PROJECT, LABEL_PROOF, LABEL_ROLE, LABEL_SANDBOX, Role, SandboxId};
use crate::session::journal::Record;
use crate::session::launch::{self, ExecSession};
use crate::session::launcher_image;
use crate::session::plan::{
    HELPER_FOLDER, HOME, LAUNCHER_BINARY, WORKSPACE, helper_volume, reader_container, volume_reader,
};
use crate::session::reconcile::SandboxState;
use crate::session::stream_client::SessionError;
use crate::workspace::incoming::{Starts, is_pulled};

/// The largest bundle that is taken out of a sandbox, in bytes.
const BUNDLE_LIMIT: u64 = 8 << 30;
/// The most tips that are named in a message.
const NAMED: usize = 5;

/// A refusal to lose something.
#[derive(Debug, thiserror::Error)]
#[error("remove a clone with commits on {} that were not pulled", told(.0))]
struct Unpulled(Vec<Tip>);

/// A session in the sandbox's container, or in one that was made for reading since the sandbox is stopped.
pub struct Reader {
    /// The session.
    pub client: ExecSession,
    container: Option<String>,
}

impl Reader {
    /// Removes the container that was made for it.
    ///
    /// # Errors
    /// When the engine fails.
    pub async fn close(self, engine: &Engine) -> Result<(), Failure> {
        if let Some(container) = &self.container {
            engine.remove_container(container).await?;
        }
        Ok(())
    }
}

/// Opens a session that reads the sandbox's clone with the git of its image.
///
/// # Errors
/// When the engine fails, or the container of a stopped sandbox cannot be made.
pub async fn open_reader(
    context: &Context,
    engine: &Engine,
    sandbox: &Sandbox,
    project: Option<&str>,
) -> Result<Reader, Failure> {
    let id = &sandbox.record.id;
    if sandbox.state.runs(Role::Agent) {
        let client = launch::open_session(engine, &id.object(Role::Agent)).await?;
        return Ok(Reader { client, container: None });
    }
    let target = Target { project: project.map(str::to_owned), name: id.name.clone() };
    let loaded = load(context, &target, &Overrides::default())?;
    let mut reader = reader_container(&loaded.plan.containers.agent, id);
    if let Some(agent) = sandbox.state.containers.get(&Role::Agent) {
        reader.image = agent.image.clone();
    }
    reader.mounts.push(Mount {
        volume: helper_volume(&loaded.launcher.config),
        target: HELPER_FOLDER.to_owned(),
        read_only: true,
        copy: false,
    });
    reader.labels = labels(context, id, &reader.name)?;
    remove_old_reader(engine, &sandbox.state).await?;
    let container = engine.create_container(&reader).await?;
    engine.start_container(&container).await?;
    let client = launch::open_session(engine, &container).await?;
    Ok(Reader { client, container: Some(container) })
}

/// Opens a session that sees clone and home of a sandbox, as they are: in its own container, or in one of the launcher's image
/// that needs neither the manifest nor the agent's image. It has no git.
///
/// # Errors
/// When the engine fails.
pub async fn open_bare_reader(context: &Context, engine: &Engine, state: &SandboxState) -> Result<Reader, Failure> {
    let id = &state.id;
    if state.runs(Role::Agent) {
        let client = launch::open_session(engine, &id.object(Role::Agent)).await?;
        return Ok(Reader { client, container: None });
    }
    let launcher = launcher_image::describe(&context.folders.cache)?;
    let mut reader = volume_reader(id, &launcher.config);
    reader.image = launch::ensure_launcher(engine, &context.folders.state, &launcher).await?;
    for (role, target) in [(Role::Workspace, WORKSPACE), (Role::Home, HOME)] {
        if state.volumes.contains(&role) {
            let mount = Mount { volume: id.object(role), target: target.to_owned(), read_only: true, copy: false };
            reader.mounts.push(mount);
        }
    }
    // It is no part of the sandbox: one that a crash left must not make a kept home look like a half sandbox.
    let key = machine_key(context)?;
    let proof = key.proof(&reader.name, Role::Reader);
    reader.labels =
        BTreeMap::from([(LABEL_ROLE.to_owned(), Role::Reader.as_str().to_owned()), (LABEL_PROOF.to_owned(), proof)]);
    if let Some(old) = engine.inspect_container(&reader.name).await?
        && key.proves(&reader.name, Role::Reader, &old.labels)
    {
        engine.remove_container(&old.id).await?;
    }
    let container = engine.create_container(&reader).await?;
    engine.start_container(&container).await?;
    let client = launch::open_session_of(engine, &container, LAUNCHER_BINARY).await?;
    Ok(Reader { client, container: Some(container) })
}

fn labels(context: &Context, id: &SandboxId, name: &str) -> Result<BTreeMap<String, String>, Failure> {
    let key = machine_key(context)?;
    Ok(BTreeMap::from([
        (LABEL_PROJECT.to_owned(), id.project.to_string()),
        (LABEL_SANDBOX.to_owned(), id.name.to_string()),
        (LABEL_ROLE.to_owned(), Role::Reader.as_str().to_owned()),
        (LABEL_PROOF.to_owned(), key.proof(name, Role::Reader)),
    ]))
}

async fn remove_old_reader(engine: &Engine, state: &SandboxState) -> Result<(), Failure> {
    if let Some(old) = state.containers.get(&Role::Reader)
        && old.status != ContainerStatus::Running
    {
        engine.remove_container(&old.id).await?;
    }
    Ok(())
}

/// What is waited for while commits are taken.
const OPENING: &str = "opening the sandbox's clone";
const BRINGING: &str = "bringing the commits";
const CLOSING: &str = "closing the sandbox's clone";

/// The agent's commits as a bundle in a temporary file outside every checkout.
pub struct Taken {
    /// The tip of the branch; empty when there is no commit beyond the start.
    pub head: String,
    /// The bundle; absent when there is no commit beyond the start.
    pub bundle: Option<tempfile::NamedTempFile>,
    /// Other tips of the clone, as it says, which no ref of the developer's repository holds.
    pub others: Vec<Tip>,
}

/// Takes a branch of the agent's out of the sandbox: all that the developer's own commit of the start lacks.
///
/// # Errors
/// When the sandbox cannot be read.
pub async fn take(
    context: &Context,
    engine: &Engine,
    sandbox: &Sandbox,
    project: Option<&str>,
    branch: &str,
) -> Result<Taken, Failure> {
    // The start may be a commit of what was not committed, which the developer's repository does not have.
    let progress = Progress::start(&context.printer);
    let mut taken = take_since(context, engine, sandbox, project, branch, &sandbox.record.base, &progress).await?;
    if taken.head == sandbox.record.start {
        (taken.head, taken.bundle) = (String::new(), None);
    }
    Ok(taken)
}

/// Takes what is not behind `base`.
///
/// # Errors
/// When the sandbox cannot be read, or has no commit `base`.
pub async fn take_since(
    context: &Context,
    engine: &Engine,
    sandbox: &Sandbox,
    project: Option<&str>,
    branch: &str,
    base: &str,
    progress: &Progress,
) -> Result<Taken, Failure> {
    progress.step(OPENING);
    let mut reader = open_reader(context, engine, sandbox, project).await?;
    progress.step(BRINGING);
    let taken = async {
        let file = tempfile::NamedTempFile::new().map_err(temporary)?;
        let mut output = tokio::fs::File::from_std(file.reopen().map_err(temporary)?);
        let request = BundleRequest {
            directory: WORKSPACE.to_owned(),
            branch: branch.to_owned(),
            base: Some(base.to_owned()).filter(|base| !base.is_empty()),
            limit: BUNDLE_LIMIT,
        };
        let head = reader.client.bundle(request, &mut output).await?;
        tokio::io::AsyncWriteExt::flush(&mut output).await.map_err(temporary)?;
        let mut others = known_tips(&mut reader.client).await?.unwrap_or_default();
        others.retain(|tip| tip.name != format!("refs/heads/{branch}"));
        let others = not_held(sandbox, others)?;
        Ok::<Taken, Failure>(Taken { bundle: head.is_some().then_some(file), head: head.unwrap_or_default(), others })
    };
    let taken = taken.await;
    progress.step(CLOSING);
    reader.close(engine).await?;
    taken
}

fn temporary(error: std::io::Error) -> Failure {
    Failure::system(
        "temporary-file",
        "use a temporary file",
        &error,
        "make room in the folder for temporary files (TMPDIR)",
    )
}

/// Those tips that no ref of the developer's repository holds.
fn not_held(sandbox: &Sandbox, tips: Vec<Tip>) -> Result<Vec<Tip>, Failure> {
    let record = &sandbox.record;
    let mut left = Vec::new();
    for tip in tips {
        if tip.commit != record.start && tip.commit != record.base && !is_pulled(&record.repository, &tip.commit)? {
            left.push(tip);
        }
    }
    Ok(left)
}

/// Refuses to go on when the sandbox holds commits that the developer's repository lacks.
///
/// # Errors
/// When it does, or when that cannot be found out.
pub async fn refuse_unpulled(
    context: &Context,
    engine: &Engine,
    sandbox: &Sandbox,
    project: Option<&str>,
) -> Result<(), Failure> {
    let left = unpulled(context, engine, sandbox, project).await?;
    if left.is_empty() {
        return Ok(());
    }
    let project = &sandbox.record.id.project;
    let next = format!(
        "take them with {}, or lose them with `sandbox down --discard {project}`",
        how_to_take(sandbox, &left).unwrap_or_else(|| format!("`sandbox workspace export {project}`"))
    );
    Err(Failure::new("commits-not-pulled", &Unpulled(left), next))
}

/// Tips of the clone (branches, the stash, a `HEAD` that is no branch) that no ref of the developer's repository holds.
///
/// # Errors
/// When they cannot be looked at.
pub async fn unpulled(
    context: &Context,
    engine: &Engine,
    sandbox: &Sandbox,
    project: Option<&str>,
) -> Result<Vec<Tip>, Failure> {
    if sandbox.record.start.is_empty() || !sandbox.state.volumes.contains(&Role::Workspace) {
        return Ok(Vec::new());
    }
    let mut reader = open_reader(context, engine, sandbox, project).await?;
    let tips = known_tips(&mut reader.client).await;
    reader.close(engine).await?;
    if let Some(tips) = tips? {
        return not_held(sandbox, tips);
    }
    let branch = sandbox.record.branch.clone();
    let taken = take(context, engine, sandbox, project, &branch).await?;
    let tip = Tip { name: format!("refs/heads/{branch}"), commit: taken.head };
    if taken.bundle.is_none() { Ok(Vec::new()) } else { not_held(sandbox, vec![tip]) }
}

/// The tips of the clone; none when the helper in the container is that of an earlier version, which does not know them.
async fn known_tips(client: &mut ExecSession) -> Result<Option<Vec<Tip>>, SessionError> {
    match client.tips(WORKSPACE).await {
        Ok(tips) => Ok(Some(tips)),
        Err(SessionError::Failed { kind: FailureKind::Other, .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Where the work in a sandbox began.
pub fn starts(record: &Record) -> Starts {
    Starts { base: record.base.clone(), start: record.start.clone() }
}

/// The tips in words, for a message.
pub fn told(tips: &[Tip]) -> String {
    let name = |tip: &Tip| match tip.name.as_str() {
        "HEAD" => "a detached HEAD".to_owned(),
        "refs/stash" => "the stash".to_owned(),
        name => format!("`{}`", super::printer::sanitise(name.strip_prefix("refs/heads/").unwrap_or(name))),
    };
    let mut names: Vec<String> = tips.iter().take(NAMED).map(name).collect();
    if tips.len() > NAMED {
        names.push(format!("{} more", tips.len() - NAMED));
    }
    names.join(", ")
}

/// The verb that takes the first of these tips that is a branch.
pub fn how_to_take(sandbox: &Sandbox, tips: &[Tip]) -> Option<String> {
    let branch = tips.iter().find_map(|tip| tip.name.strip_prefix("refs/heads/"))?;
    let record = &sandbox.record;
    // The name is the agent's, and people paste what is proposed to them into a shell.
    let plain = branch.chars().all(|letter| letter.is_ascii_alphanumeric() || "._/-".contains(letter));
    let option = match branch {
        own if own == record.branch => String::new(),
        other if plain && !other.starts_with('-') => format!(" --branch {other}"),
        _ => " --branch BRANCH".to_owned(),
    };
    Some(format!("`sandbox pull {}{}{option}`", record.id.project, name_option(sandbox)))
}

/// What names this sandbox of the project on a command line; nothing for the main one.
pub fn name_option(sandbox: &Sandbox) -> String {
    let name = &sandbox.record.id.name;
    if *name == crate::project::SandboxName::main() { String::new() } else { format!(" --name {name}") }
}
