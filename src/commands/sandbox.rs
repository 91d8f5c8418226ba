//! What several verbs do with a sandbox: find it, refuse it, read its commits, end it.

use std::path::Path;
use std::time::{Duration, Instant};

use crate::audit::AuditLog;
use crate::commands::credential::issue_context;
use crate::commands::load::{Loaded, Target, actor, machine_key, sandbox_id};
use crate::commands::{Context, Failure};
use crate::credential;
use crate::engine::Engine;
use crate::project::SandboxName;
use crate::session::identity::{MachineKey, Role, SandboxId};
use crate::session::journal::{Journal, ObjectKind, Phase, Record};
use crate::session::plan::{HELPER_FOLDER, helper_volume};
use crate::session::reconcile::{Condition, SandboxState, reconcile};
use crate::session::supervise;
use crate::session::teardown::{self, Complaint};

/// How long the supervisor may take to end credentials.
const REVOCATION_LIMIT: Duration = Duration::from_secs(15);

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
