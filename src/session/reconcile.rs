//! What is alive, what is half there, what is gone: the journal compared with the engine. `ps`, `status`, `gc`, `up` and
//! `down` all decide by it.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;

use serde::Serialize;

use crate::engine::{ContainerState, ContainerStatus, Engine, EngineError};
use crate::session::identity::{LABEL_OWNER, LABEL_PROJECT, LABEL_SANDBOX, MachineKey, Role, SandboxId, lock_file};
use crate::session::journal::{Journal, JournalError, ObjectKind, Phase, Record};

/// Why the state of a sandbox could not be found out.
#[derive(Debug, thiserror::Error)]
pub enum ReconcileError {
    /// The engine failed.
    #[error("ask the engine for the sandbox's objects")]
    Engine(#[from] EngineError),
    /// The journal failed.
    #[error("read the sandbox's journal")]
    Journal(#[from] JournalError),
    /// The machine's key or a lock file failed.
    #[error("read the launcher's state folder")]
    State(#[source] io::Error),
}

/// How a sandbox is, in one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Condition {
    /// Nothing of it exists.
    Absent,
    /// Some `up` or `down` works on it right now.
    Changing,
    /// Everything runs and a supervisor is there.
    Running,
    /// Containers run, but nobody renews credentials or records events: the next `up` mends it.
    Unsupervised,
    /// Containers are stopped; the clone is there.
    Stopped,
    /// It is down; the home of its agent is kept for the next session.
    Kept,
    /// A launch or an end was cut off: `up` or `gc` mends it.
    Half,
    /// Objects with its names belong to another person or machine.
    Foreign,
}

/// One sandbox as it is.
#[derive(Debug, Clone)]
pub struct SandboxState {
    /// Which one.
    pub id: SandboxId,
    /// What the journal says.
    pub record: Option<Record>,
    /// Its containers that exist and are ours, by role.
    pub containers: BTreeMap<Role, ContainerState>,
    /// Its volumes that exist and are ours, by role.
    pub volumes: BTreeSet<Role>,
    /// Who owns objects of its names that are not ours.
    pub foreign: Option<String>,
    /// Whether a supervisor lives.
    pub supervised: bool,
    /// The summary.
    pub condition: Condition,
}

const CONTAINER_ROLES: [Role; 5] = [Role::Agent, Role::Relay, Role::Gateway, Role::Fill, Role::Reader];
const VOLUME_ROLES: [Role; 4] = [Role::Workspace, Role::Home, Role::Secrets, Role::Channel];

impl SandboxState {
    /// Whether nothing is there but a home that `down` kept. A journal goes only after everything else went, so a home
    /// without one was not left by a crash.
    pub fn is_kept_home(&self) -> bool {
        self.record.is_none() && self.containers.is_empty() && self.volumes.iter().eq([&Role::Home])
    }

    /// Whether the container of that role runs.
    pub fn runs(&self, role: Role) -> bool {
        self.containers.get(&role).is_some_and(|container| container.status == ContainerStatus::Running)
    }
}

/// Finds out how one sandbox is.
///
/// # Errors
/// When engine, journal or state folder cannot be read: "unknown" is an answer, a guess is not.
pub async fn reconcile(
    engine: &Engine,
    state: &Path,
    key: &MachineKey,
    id: &SandboxId,
) -> Result<SandboxState, ReconcileError> {
    let labels = vec![format!("{LABEL_PROJECT}={}", id.project), format!("{LABEL_SANDBOX}={}", id.name)];
    let (containers, volumes) = tokio::try_join!(engine.containers(&labels), engine.volumes(&labels))?;
    let journal = Journal::of(state, id);
    let record = journal.read()?;
    let known = |kind: ObjectKind, name: &str, object_id: Option<&str>| {
        record.as_ref().is_some_and(|record| {
            record.objects.iter().any(|object| {
                object.kind == kind && object.name == name && object_id.is_some() && object.id.as_deref() == object_id
            })
        })
    };
    let mut foreign = None;
    let mut ours = BTreeMap::new();
    for container in containers {
        let Some(role) = CONTAINER_ROLES.into_iter().find(|role| id.object(*role) == container.name) else { continue };
        if known(ObjectKind::Container, &container.name, Some(&container.id))
            || key.proves(&container.name, role, &container.labels)
        {
            ours.insert(role, container);
        } else {
            foreign = Some(container.labels.get(LABEL_OWNER).cloned().unwrap_or_else(|| "somebody else".to_owned()));
        }
    }
    let mut our_volumes = BTreeSet::new();
    for volume in volumes {
        let Some(role) = VOLUME_ROLES.into_iter().find(|role| id.object(*role) == volume.name) else { continue };
        if key.proves(&volume.name, role, &volume.labels) {
            our_volumes.insert(role);
        } else {
            foreign = Some(volume.labels.get(LABEL_OWNER).cloned().unwrap_or_else(|| "somebody else".to_owned()));
        }
    }
    let supervised = is_locked(journal.folder(), "supervisor.lock").map_err(ReconcileError::State)?;
    let busy = is_locked(journal.folder(), "lock").map_err(ReconcileError::State)?;
    let mut found = SandboxState {
        id: id.clone(),
        record,
        containers: ours,
        volumes: our_volumes,
        foreign,
        supervised,
        condition: Condition::Absent,
    };
    found.condition = condition(&found, busy);
    Ok(found)
}

fn condition(state: &SandboxState, busy: bool) -> Condition {
    if state.foreign.is_some() {
        return Condition::Foreign;
    }
    if busy {
        return Condition::Changing;
    }
    let phase = state.record.as_ref().map(|record| record.phase);
    let all_run = [Role::Agent, Role::Relay, Role::Gateway].into_iter().all(|role| state.runs(role));
    let any_runs = state.containers.keys().any(|role| state.runs(*role));
    match phase {
        None if state.containers.is_empty() && state.volumes.is_empty() => Condition::Absent,
        None if state.is_kept_home() => Condition::Kept,
        None => Condition::Half,
        Some(Phase::Running) if all_run && state.supervised => Condition::Running,
        Some(Phase::Running) if all_run => Condition::Unsupervised,
        Some(Phase::Stopping) if state.supervised => Condition::Changing,
        Some(Phase::Stopped) if !any_runs => Condition::Stopped,
        Some(_) => Condition::Half,
    }
}

/// Finds out how every sandbox is that this machine's journals or the engine's labels know.
///
/// # Errors
/// As [`reconcile`].
pub async fn reconcile_all(
    engine: &Engine,
    state: &Path,
    key: &MachineKey,
) -> Result<Vec<SandboxState>, ReconcileError> {
    let labels = vec![LABEL_PROJECT.to_owned()];
    let (containers, volumes) = tokio::try_join!(engine.containers(&labels), engine.volumes(&labels))?;
    let mut ids = BTreeSet::new();
    for journal in Journal::all(state)? {
        if let Some(record) = journal.read()? {
            ids.insert(record.id);
        }
    }
    let all_labels = containers.iter().map(|object| &object.labels).chain(volumes.iter().map(|object| &object.labels));
    for labels in all_labels {
        let (Some(project), Some(name)) = (labels.get(LABEL_PROJECT), labels.get(LABEL_SANDBOX)) else { continue };
        if let (Ok(project), Ok(name)) = (project.parse(), name.parse()) {
            ids.insert(SandboxId { project, name });
        }
    }
    let mut states = Vec::new();
    for id in ids {
        states.push(reconcile(engine, state, key, &id).await?);
    }
    Ok(states)
}

/// Whether somebody holds this lock.
fn is_locked(folder: &Path, name: &str) -> io::Result<bool> {
    if !folder.join(name).exists() {
        return Ok(false);
    }
    let file = lock_file(folder, name)?;
    match file.try_lock() {
        Ok(()) => Ok(false),
        Err(std::fs::TryLockError::WouldBlock) => Ok(true),
        Err(std::fs::TryLockError::Error(error)) => Err(error),
    }
}
