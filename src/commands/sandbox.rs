//! What several verbs do with a sandbox: find it, refuse it, read its commits, end it.

use std::path::Path;
use std::time::{Duration, Instant};

use crate::audit::AuditLog;
use crate::commands::credential::issue_context;
use crate::commands::load::{Loaded, Overrides, Target, actor, load, machine_key, sandbox_id};
use crate::commands::{Context, Failure};
use crate::credential;
use crate::engine::{ContainerStatus, Engine};
use crate::init::frame::BundleRequest;
use crate::project::SandboxName;
use crate::session::identity::{MachineKey, Role, SandboxId};
use crate::session::journal::{Journal, ObjectKind, Phase, Record};
use crate::session::launch::{self, ExecSession};
use crate::session::plan::{HELPER_FOLDER, WORKSPACE, helper_volume, reader_container};
use crate::session::reconcile::{Condition, SandboxState, reconcile};
use crate::session::supervise;
use crate::session::teardown::{self, Complaint};
use crate::workspace;

/// How long the supervisor may take to end credentials.
const REVOCATION_LIMIT: Duration = Duration::from_secs(15);
/// The largest bundle that is taken out of a sandbox, in bytes.
const BUNDLE_LIMIT: u64 = 8 << 30;

/// A sandbox that this machine has a journal of.
#[derive(Debug, Clone)]
pub struct Sandbox {
    /// How it is.
    pub state: SandboxState,
    /// What the journal holds.
    pub record: Record,
}

/// A refusal that has no error of a domain module behind it.
#[derive(Debug, thiserror::Error)]
enum Refusal {
    #[error("find a sandbox of {0}")]
    Absent(String),
    #[error("use the sandbox of {id}, which belongs to {owner}")]
    Foreign { id: String, owner: String },
    #[error("run a command in the sandbox of {0}, which does not run")]
    NotRunning(String),
    #[error("join the running sandbox of {0}, which was started from another plan")]
    OtherPlan(String),
    #[error("use the running sandbox of {id}, whose container is not as planned: {}", differences.join("; "))]
    Differs { id: String, differences: Vec<String> },
    #[error("remove a clone with commits on `{branch}` that were not pulled")]
    Unpulled { branch: String },
    #[error("finish, since it was interrupted")]
    Interrupted,
}

/// Finds a sandbox that exists.
///
/// # Errors
/// When there is none, or it is another person's.
pub async fn find(context: &Context, engine: &Engine, target: &Target) -> Result<Sandbox, Failure> {
    let id = sandbox_id(context, target)?;
    let key = machine_key(context)?;
    let state = reconcile(engine, &context.folders.state, &key, &id).await?;
    refuse_foreign(&state)?;
    match state.record.clone() {
        Some(record) => Ok(Sandbox { state, record }),
        None => {
            let next = format!("start it with `sandbox up {}`", id.project);
            Err(Failure::new("sandbox-absent", &Refusal::Absent(id.to_string()), next))
        }
    }
}

/// Refuses a sandbox of another person or machine.
///
/// # Errors
/// When it is one.
pub fn refuse_foreign(state: &SandboxState) -> Result<(), Failure> {
    let Some(owner) = &state.foreign else { return Ok(()) };
    let owner = super::printer::sanitise(owner);
    let error = Refusal::Foreign { id: state.id.to_string(), owner };
    let next = "use `--name` for a sandbox of your own, or ask the owner to run `sandbox down`";
    Err(Failure::new("sandbox-foreign", &error, next))
}

/// The failure for a sandbox that runs from another plan, of which these parts need a restart.
pub fn other_plan(record: &Record, differences: &[&str]) -> Failure {
    let next = format!(
        "pull what is there and run `sandbox down {0}`, then `sandbox up {0}`; or use `--name` for a second sandbox",
        record.id.project
    );
    let mut failure = Failure::new("plan-changed", &Refusal::OtherPlan(record.id.to_string()), next);
    if !differences.is_empty() {
        failure.why.push(format!("what changed and needs a restart: {}", differences.join(", ")));
    }
    failure
}

/// The failure for an interrupted launch.
pub fn interrupted() -> Failure {
    Failure::new("interrupted", &Refusal::Interrupted, "run it again; what was begun was taken back")
}

/// The failure for a sandbox that does not run.
pub fn not_running(record: &Record) -> Failure {
    let next = format!("start it with `sandbox up {}`", record.id.project);
    Failure::new("sandbox-stopped", &Refusal::NotRunning(record.id.to_string()), next)
}

/// How a sandbox is when it only looked busy because this process holds its lock.
pub fn settled(state: &SandboxState) -> Condition {
    let all_run = [Role::Agent, Role::Relay, Role::Gateway].into_iter().all(|role| state.runs(role));
    match state.record.as_ref().map(|record| record.phase) {
        None if state.containers.is_empty() && state.volumes.is_empty() => Condition::Absent,
        None if state.is_kept_home() => Condition::Kept,
        Some(Phase::Running) if all_run && state.supervised => Condition::Running,
        Some(Phase::Running) if all_run => Condition::Unsupervised,
        Some(Phase::Stopped) => Condition::Stopped,
        _ => Condition::Half,
    }
}

/// Compares the agent's running container with the plan.
///
/// # Errors
/// When the engine fails or something differs.
pub async fn verify_agent(engine: &Engine, container: &str, loaded: &Loaded) -> Result<(), Failure> {
    let Some(found) = engine.inspect_container(container).await? else { return Ok(()) };
    let mut expected = loaded.plan.containers.agent.clone();
    expected.image = found.image.clone();
    expected.labels.clear();
    expected.mounts.push(crate::engine::container::Mount {
        volume: helper_volume(&loaded.launcher.config),
        target: HELPER_FOLDER.to_owned(),
        read_only: true,
        copy: false,
    });
    let differences = engine.verify_container(&found.id, &expected).await?;
    if differences.is_empty() {
        return Ok(());
    }
    let id = loaded.plan.id.to_string();
    let next = format!("run `sandbox down {0}` and `sandbox up {0}`", loaded.plan.id.project);
    Err(Failure::new("sandbox-differs", &Refusal::Differs { id, differences }, next))
}

/// Stops a sandbox: revokes, empties, stops. Prints what could not be done.
///
/// # Errors
/// When the audit log cannot be used.
pub async fn stop(
    context: &Context,
    engine: &Engine,
    journal: &Journal,
    record: &mut Record,
    ended: &str,
) -> Result<(), Failure> {
    if record.phase == Phase::Stopping && supervise::claim(journal).is_err() {
        // It is ending the session itself.
        super::down::wait_for_supervisor(journal).await;
        if let Some(now) = journal.read()? {
            *record = now;
        }
        if record.phase == Phase::Stopped && !record.owes() {
            return Ok(());
        }
    }
    ask_supervisor(journal, record).await?;
    let (actor, _) = actor();
    let audit = AuditLog::open(&context.folders.state)?;
    let (project, name) = (record.id.project.clone(), record.id.name.clone());
    let root = record.manifest.parent().map(Path::to_path_buf).unwrap_or_default();
    let issue = issue_context(context, &project, &root, &name, &actor, "down");
    let end = teardown::EndContext { state: &context.folders.state, actor: &actor, audit: &audit, issue };
    report(context, teardown::stop(engine, journal, record, ended, &end).await);
    Ok(())
}

/// Has the supervisor end the credentials that only their values can end: it has them in memory. Without one, the end of
/// the session reads back what it can.
async fn ask_supervisor(journal: &Journal, record: &mut Record) -> Result<(), Failure> {
    let names: Vec<_> = (record.leases.iter())
        .filter(|(_, lease)| lease.handle.is_some() && lease.spec.provider.ends_by_its_value())
        .map(|(name, _)| name.clone())
        .collect();
    // Whoever gets the supervisor's lock knows that there is none.
    if names.is_empty() || record.phase != Phase::Running || supervise::claim(journal).is_ok() {
        return Ok(());
    }
    for name in &names {
        // A request that cannot be written is one that nobody serves.
        let _ = credential::rotation::request_revocation(journal.folder(), name);
    }
    let begun = Instant::now();
    while begun.elapsed() < REVOCATION_LIMIT && supervise::claim(journal).is_err() {
        tokio::time::sleep(Duration::from_millis(50)).await;
        let Some(now) = journal.read()? else { break };
        *record = now;
        let out = names.iter().any(|name| record.leases.contains_key(name));
        if !out && !record.retiring.iter().any(|retiring| names.contains(&retiring.name)) {
            break;
        }
    }
    // What it did not take would take the next session's credentials away.
    let _ = credential::rotation::take_requests(journal.folder());
    Ok(())
}

/// Where to read what a sandbox's last session did.
pub fn report_hint(id: &SandboxId) -> String {
    let name = if id.name == SandboxName::main() { String::new() } else { format!(" --name {}", id.name) };
    format!("what it did: sandbox report {}{name}", id.project)
}

/// Prints what could not be done.
pub fn report(context: &Context, complaints: Vec<Complaint>) {
    for complaint in complaints {
        context.printer.warning(&super::printer::sanitise(&complaint));
    }
}

/// A failure that also names what could not be taken back.
pub fn with_complaints(mut failure: Failure, complaints: &[Complaint]) -> Failure {
    failure.why.extend(complaints.iter().cloned());
    failure
}

/// Removes the containers that a record names and that are ours.
pub async fn remove_containers(engine: &Engine, key: &MachineKey, record: &Record) -> Vec<Complaint> {
    let containers = record.objects.iter().filter(|object| object.kind == ObjectKind::Container);
    let removals =
        containers.map(|object| async move { (object, teardown::remove_container(engine, key, object).await) });
    let removed = futures_util::future::join_all(removals).await;
    let failed = removed.into_iter().filter_map(|(object, result)| result.err().map(|error| (object, error)));
    failed.map(|(object, error)| format!("the container {} was not removed: {error}", object.name)).collect()
}

/// Removes objects that are proved to be ours but that no journal knows.
///
/// # Errors
/// When the engine fails.
pub async fn remove_found(engine: &Engine, state: &SandboxState) -> Result<(), Failure> {
    for container in state.containers.values() {
        engine.remove_container(&container.id).await?;
    }
    for role in &state.volumes {
        engine.remove_volume(&state.id.object(*role)).await?;
    }
    Ok(())
}

/// Opens a session in the sandbox's container, or in one made for reading when the sandbox is stopped. The returned
/// name is that of the container to remove afterwards.
async fn open_reader(
    context: &Context,
    engine: &Engine,
    sandbox: &Sandbox,
    project: Option<&str>,
) -> Result<(ExecSession, Option<String>), Failure> {
    let id = &sandbox.record.id;
    if sandbox.state.runs(Role::Agent) {
        return Ok((launch::open_session(engine, &id.object(Role::Agent)).await?, None));
    }
    let target = Target { project: project.map(str::to_owned), name: id.name.clone() };
    let loaded = load(context, &target, &Overrides::default())?;
    let mut reader = reader_container(&loaded.plan.containers.agent, id);
    if let Some(agent) = sandbox.state.containers.get(&Role::Agent) {
        reader.image = agent.image.clone();
    }
    reader.mounts.push(crate::engine::container::Mount {
        volume: helper_volume(&loaded.launcher.config),
        target: HELPER_FOLDER.to_owned(),
        read_only: true,
        copy: false,
    });
    let key = machine_key(context)?;
    reader.labels = std::collections::BTreeMap::from([
        (crate::session::identity::LABEL_PROJECT.to_owned(), id.project.to_string()),
        (crate::session::identity::LABEL_SANDBOX.to_owned(), id.name.to_string()),
        (crate::session::identity::LABEL_ROLE.to_owned(), Role::Reader.as_str().to_owned()),
        (crate::session::identity::LABEL_PROOF.to_owned(), key.proof(&reader.name, Role::Reader)),
    ]);
    if let Some(old) = sandbox.state.containers.get(&Role::Reader)
        && old.status != ContainerStatus::Running
    {
        engine.remove_container(&old.id).await?;
    }
    let container = engine.create_container(&reader).await?;
    engine.start_container(&container).await?;
    Ok((launch::open_session(engine, &container).await?, Some(container)))
}

/// The agent's commits as a bundle in a temporary file outside every checkout.
pub struct Taken {
    /// The tip of the agent's branch; empty when there is no commit beyond the start.
    pub head: String,
    /// The bundle; absent when there is no commit beyond the start.
    pub bundle: Option<tempfile::NamedTempFile>,
}

/// Takes the agent's commits out of the sandbox.
///
/// # Errors
/// When the sandbox cannot be read.
pub async fn take_commits(
    context: &Context,
    engine: &Engine,
    sandbox: &Sandbox,
    project: Option<&str>,
) -> Result<Taken, Failure> {
    take_commits_since(context, engine, sandbox, project, &sandbox.record.start).await
}

/// Takes those that are not behind `base`.
///
/// # Errors
/// When the sandbox cannot be read, or has no commit `base`.
pub async fn take_commits_since(
    context: &Context,
    engine: &Engine,
    sandbox: &Sandbox,
    project: Option<&str>,
    base: &str,
) -> Result<Taken, Failure> {
    let (mut client, reader) = open_reader(context, engine, sandbox, project).await?;
    let taken = async {
        let file = tempfile::NamedTempFile::new().map_err(temporary)?;
        let mut output = tokio::fs::File::from_std(file.reopen().map_err(temporary)?);
        let request = BundleRequest {
            directory: WORKSPACE.to_owned(),
            branch: sandbox.record.branch.clone(),
            base: Some(base.to_owned()).filter(|base| !base.is_empty()),
            limit: BUNDLE_LIMIT,
        };
        let head = client.bundle(request, &mut output).await?;
        tokio::io::AsyncWriteExt::flush(&mut output).await.map_err(temporary)?;
        Ok::<Taken, Failure>(Taken { bundle: head.is_some().then_some(file), head: head.unwrap_or_default() })
    };
    let taken = taken.await;
    if let Some(reader) = reader {
        engine.remove_container(&reader).await?;
    }
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
    if unpulled(context, engine, sandbox, project).await?.is_none() {
        return Ok(());
    }
    let record = &sandbox.record;
    let project = &record.id.project;
    let next = format!("take them with `sandbox pull {project}`, or lose them with `sandbox down --discard {project}`");
    Err(Failure::new("commits-not-pulled", &Refusal::Unpulled { branch: record.branch.clone() }, next))
}
/// The tip of the agent's branch, when it has commits that no ref of the developer's repository holds.
///
/// # Errors
/// When they cannot be looked at.
pub async fn unpulled(
    context: &Context,
    engine: &Engine,
    sandbox: &Sandbox,
    project: Option<&str>,
) -> Result<Option<String>, Failure> {
    let record = &sandbox.record;
    if record.start.is_empty() || !sandbox.state.volumes.contains(&Role::Workspace) {
        return Ok(None);
    }
    // Usually everything was pulled, and then there is nothing to send. A clone that lacks that commit says so.
    let landed = workspace::incoming::landed(&record.repository, &record.id.project, &record.branch)?;
    if let Some(landed) = landed
        && let Ok(Taken { bundle: None, .. }) = take_commits_since(context, engine, sandbox, project, &landed).await
    {
        return Ok(None);
    }
    let taken = take_commits(context, engine, sandbox, project).await?;
    let held = taken.bundle.is_none()
        || workspace::incoming::is_pulled(&record.repository, &record.id.project, &record.branch, &taken.head)?;
    Ok((!held).then_some(taken.head))
}
