//! The agent's home that `workspace.home: keep` leaves after `down`: found, given to the next session, removed. It never
//! goes to another sandbox, and a volume of its name that this machine did not sign is never taken.

use jiff::Timestamp;

use crate::audit::AuditLog;
use crate::audit::event::AuditEvent;
use crate::commands::load::{Loaded, Target, actor, machine_key, sandbox_id};
use crate::commands::up::take_lock;
use crate::commands::{Context, Failure, sandbox};
use crate::engine::Engine;
use crate::session::identity::{MachineKey, Role, SandboxId};
use crate::session::journal::Journal;
use crate::session::reconcile::{SandboxState, reconcile};

/// A home that an earlier session left.
pub struct KeptHome {
    /// When its volume was made, as the engine says it; fit for a terminal.
    pub since: String,
}

/// The home that the next session is going to get, if there is one and the manifest keeps it.
///
/// # Errors
/// When the engine fails, or the volume of that name is not ours. The engine would take it as it is, and what is asked for
/// by labels does not show a volume without any.
pub async fn find(
    engine: &Engine,
    key: &MachineKey,
    loaded: &Loaded,
    state: &SandboxState,
) -> Result<Option<KeptHome>, Failure> {
    if !loaded.manifest.workspace.keep_home {
        return Ok(None);
    }
    let name = state.id.object(Role::Home);
    let Some(volume) = engine.inspect_volume(&name).await? else { return Ok(None) };
    if !key.proves(&name, Role::Home, &volume.labels) {
        let foreign = Some("somebody else".to_owned());
        sandbox::refuse_foreign(&SandboxState { foreign, ..state.clone() })?;
    }
    let since = volume.created_at.unwrap_or_else(|| "an earlier session".to_owned());
    Ok(Some(KeptHome { since: super::printer::sanitise(&since).chars().take(40).collect() }))
}

/// Removes the home of a sandbox that is down. Gives whether there was one.
///
/// # Errors
/// When the engine, the state folder or the audit log fails.
pub async fn discard(context: &Context, engine: &Engine, target: &Target) -> Result<bool, Failure> {
    let id = sandbox_id(context, target)?;
    let (state, key) = (&context.folders.state, machine_key(context)?);
    if !reconcile(engine, state, &key, &id).await?.is_kept_home() {
        return Ok(false);
    }
    let _lock = take_lock(context, &Journal::of(state, &id)).await?;
    // Only now nobody else starts it.
    if !reconcile(engine, state, &key, &id).await?.is_kept_home() {
        return Ok(false);
    }
    remove(context, engine, &id).await?;
    let summary = serde_json::json!({"project": id.project, "name": id.name, "removed": true, "home_kept": false});
    context.printer.result(&summary, || format!("the kept home of {id} is removed"));
    Ok(true)
}

/// Removes a home that was found to be ours, and records it.
///
/// # Errors
/// When the engine or the audit log fails.
pub async fn remove(context: &Context, engine: &Engine, id: &SandboxId) -> Result<(), Failure> {
    engine.remove_volume(&id.object(Role::Home)).await?;
    note_removal(context, id)
}

/// Records that a kept home was removed.
///
/// # Errors
/// When the audit log fails.
pub fn note_removal(context: &Context, id: &SandboxId) -> Result<(), Failure> {
    let audit = AuditLog::open(&context.folders.state)?;
    audit.append(&AuditEvent {
        time: Timestamp::now(),
        action: "home.removed".to_owned(),
        actor: actor().0,
        project: id.project.to_string(),
        sandbox: Some(id.name.to_string()),
        session: None,
        outcome: "ok".to_owned(),
        facts: Default::default(),
    })?;
    Ok(())
}
