//! The end of a session and of a sandbox: revoke, empty, stop, remove. It goes on after a failure and reports all.

use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;

use crate::audit::AuditLog;
use crate::credential::{self, IssueContext, Revocation};
use crate::engine::{Engine, EngineError};
use crate::gateway::protocol::Action;
use crate::network::policy::Policy;
use crate::project::CredentialName;
use crate::session::gateway_control::GatewayControl;
use crate::session::gateway_events::Recorder;
use crate::session::identity::{MachineKey, Role};
use crate::session::journal::{Journal, JournalLease, JournalObject, ObjectKind, Phase, Record};
use crate::session::recall::recall;
use crate::session::{launch, outside};

/// How long the agent's processes have between SIGTERM and SIGKILL.
const GRACE: Duration = Duration::from_secs(3);
/// How long a volume may stay in use after the containers were removed.
const LATE: Duration = Duration::from_secs(5);
/// After how long it is looked at again.
const AGAIN: Duration = Duration::from_millis(250);

/// One thing that could not be done, in words; the rest was done all the same.
pub type Complaint = String;

/// Revokes the session's credentials, empties the secrets, closes the network and stops the containers. The volumes
/// stay.
///
/// Credentials go first: whatever happens to the containers, the agent has nothing to use any more.
pub async fn stop(
    engine: &Engine,
    journal: &Journal,
    record: &mut Record,
    ended: &str,
    context: &EndContext<'_>,
) -> Vec<Complaint> {
    let mut complaints = Vec::new();
    // A launch that failed has used nothing worth a word.
    let ran = !record.start.is_empty();
    change(journal, record, &mut complaints, |now| now.phase = Phase::Stopping);
    recall(engine, record, &context.issue).await;
    let gone = revoke(record, context, &mut complaints).await;
    // What a rotation that was under way put there meanwhile stays: its supervisor, or the next `down`, ends it.
    change(journal, record, &mut complaints, |now| {
        now.leases.retain(|name, lease| !gone.iter().any(|(other, revoked)| other == name && revoked.is_same(lease)));
        now.retiring.retain(|old| !gone.iter().any(|(name, revoked)| *name == old.name && revoked.is_same(&old.lease)));
    });
    // A gateway that is gone already holds nothing, so this may fail; the volume in memory ends with its last container.
    if let Ok(mut control) = GatewayControl::attach(engine, &record.id.object(Role::Gateway)).await {
        let emptied = async {
            control.carry_out(Action::Policy(Policy::default())).await?;
            control.carry_out(Action::Secrets(Vec::new())).await?;
            control.carry_out(Action::ReportSums {}).await
        };
        if let Err(error) = tokio::time::timeout(GRACE, emptied).await {
            tracing::debug!(%error, "the gateway did not answer while the session ended");
        }
    }
    if ran {
        note_usage(engine, record, context).await;
        note_outside(engine, record, context).await;
    }
    if let Err(error) = halt(engine, record).await {
        complaints.push(format!("the agent's container did not stop: {error}"));
    }
    // What the gateway reported last, or while no supervisor lived.
    match Recorder::start(engine, journal, context.audit, context.actor, record).await {
        Ok(mut recorder) => recorder.drain().await,
        Err(error) => complaints.push(format!("the last decisions on the network were not recorded: {error}")),
    }
    change(journal, record, &mut complaints, |now| {
        now.phase = Phase::Stopped;
        now.ended = Some(ended.to_owned());
    });
    context.audit(record, "session.stopped", "ok", &[("reason", ended)]);
    complaints
}

/// Records what the agent's container has used, as far as the engine says.
async fn note_usage(engine: &Engine, record: &Record, context: &EndContext<'_>) {
    let agent = record.id.object(Role::Agent);
    let Ok(Ok(Some(usage))) = tokio::time::timeout(GRACE, engine.container_usage(&agent)).await else { return };
    let milliseconds = usage.processor.as_millis().to_string();
    let peak = usage.memory_peak.map(|bytes| bytes.to_string());
    let mut facts = vec![("processor_ms", milliseconds.as_str())];
    facts.extend(peak.as_deref().map(|bytes| ("memory_peak", bytes)));
    context.audit(record, "session.used", "ok", &facts);
}

/// Records what the session changed outside of its commits, as far as its container tells in time.
async fn note_outside(engine: &Engine, record: &Record, context: &EndContext<'_>) {
    let agent = record.id.object(Role::Agent);
    let looked = tokio::time::timeout(GRACE, async {
        let mut client = launch::open_session(engine, &agent).await.ok()?;
        outside::look(&mut client).await.ok()
    });
    let Ok(Some(now)) = looked.await else { return };
    let found = outside::differences(&record.standing, &now);
    if !found.is_empty() {
        let facts: Vec<(&str, &str)> = found.iter().map(|(change, paths)| (*change, paths.as_str())).collect();
        context.audit(record, "session.outside", "ok", &facts);
    }
}

/// Stops the containers of a sandbox. What is gone already is as good as stopped.
///
/// # Errors
/// When the agent's container did not stop; without it the others serve nobody.
pub async fn halt(engine: &Engine, record: &Record) -> Result<(), EngineError> {
    let [agent, gateway, relay] = [Role::Agent, Role::Gateway, Role::Relay].map(|role| record.id.object(role));
    let stops = futures_util::future::join3(
        engine.stop_container(&agent, GRACE),
        engine.kill_container(&gateway, "KILL"),
        engine.kill_container(&relay, "KILL"),
    );
    match stops.await.0 {
        Err(error) if !matches!(error, EngineError::NotFound { .. }) => Err(error),
        _ => Ok(()),
    }
}

/// Removes every container and volume of the sandbox, and its journal when nothing is left. A home that is kept stays,
/// unless it is to go too.
///
/// The journal names objects before they exist, so a name alone does not make an object ours: without an id in the
/// journal, its label must prove it.
pub async fn remove(
    engine: &Engine,
    key: &MachineKey,
    journal: &Journal,
    record: &Record,
    discard_home: bool,
) -> Vec<Complaint> {
    let begun = tokio::time::Instant::now();
    let mut complaints = loop {
        let (complaints, in_use) = remove_objects(engine, key, record, discard_home).await;
        // A launcher that was killed may have asked for a container that the engine makes only now, and which nobody
        // saw when containers were removed.
        if !in_use || begun.elapsed() > LATE {
            break complaints;
        }
        tokio::time::sleep(AGAIN).await;
    };
    if complaints.is_empty()
        && !record.owes()
        && let Err(error) = journal.remove()
    {
        complaints.push(error.to_string());
    }
    complaints
}

/// Removes the containers and volumes of a sandbox once; also tells whether a volume is still in use.
async fn remove_objects(
    engine: &Engine,
    key: &MachineKey,
    record: &Record,
    discard_home: bool,
) -> (Vec<Complaint>, bool) {
    let (mut complaints, mut in_use) = (Vec::new(), false);
    let containers = record.objects.iter().filter(|object| object.kind == ObjectKind::Container);
    let removals = containers.map(|object| async move { (object, remove_container(engine, key, object).await) });
    for (object, removed) in futures_util::future::join_all(removals).await {
        if let Err(error) = removed {
            complaints.push(format!("the container {} was not removed: {error}", object.name));
        }
    }
    let stays = |role: Option<Role>| role == Some(Role::Home) && record.keep_home && !discard_home;
    let volumes = record.objects.iter().filter(|object| object.kind == ObjectKind::Volume && !stays(object.role));
    let removals = volumes.map(|object| async move { (object, remove_volume(engine, key, object).await) });
    for (object, removed) in futures_util::future::join_all(removals).await {
        if let Err(error) = removed {
            in_use |= matches!(error, EngineError::InUse { .. });
            complaints.push(format!("the volume {} was not removed: {error}", object.name));
        }
    }
    (complaints, in_use)
}

/// Removes a container if it is ours.
///
/// # Errors
/// When the engine fails.
pub async fn remove_container(engine: &Engine, key: &MachineKey, object: &JournalObject) -> Result<(), EngineError> {
    let Some(found) = engine.inspect_container(&object.name).await? else { return Ok(()) };
    let ours = object.id.as_deref() == Some(found.id.as_str())
        || object.role.is_some_and(|role| key.proves(&object.name, role, &found.labels));
    if ours { engine.remove_container(&found.id).await } else { Ok(()) }
}

async fn remove_volume(engine: &Engine, key: &MachineKey, object: &JournalObject) -> Result<(), EngineError> {
    let Some(found) = engine.inspect_volume(&object.name).await? else { return Ok(()) };
    let ours = object.role.is_some_and(|role| key.proves(&object.name, role, &found.labels));
    if ours { engine.remove_volume(&object.name).await } else { Ok(()) }
}

/// What the end of a session needs from the developer's side.
pub struct EndContext<'a> {
    /// The launcher's state folder.
    pub state: &'a Path,
    /// Who asked.
    pub actor: &'a str,
    /// The audit log.
    pub audit: &'a AuditLog,
    /// How credentials of this project are revoked.
    pub issue: IssueContext<'a>,
}

impl EndContext<'_> {
    /// Records an event of this sandbox. A full disk must not keep a session from ending, so a failure is only logged.
    pub fn audit(&self, record: &Record, action: &str, outcome: &str, facts: &[(&str, &str)]) {
        let event = crate::session::launch::event(self.actor, record, action, outcome, facts);
        if let Err(error) = self.audit.append(&event) {
            tracing::error!(%error, action, "an audit event was not written");
        }
    }
}

/// Revokes all that is out. Gives what need not be remembered any more; the rest stays in the journal, so that `gc` or the
/// next `down` tries again.
async fn revoke(
    record: &Record,
    context: &EndContext<'_>,
    complaints: &mut Vec<Complaint>,
) -> Vec<(CredentialName, JournalLease)> {
    let retiring = record.retiring.iter().map(|old| (&old.name, &old.lease));
    let mut gone = Vec::new();
    for (name, lease) in record.leases.iter().chain(retiring) {
        let revoked = credential::revoke(name, &lease.spec, lease.handle.as_deref(), &context.issue).await;
        let provider = lease.spec.provider.word();
        let mut facts = vec![
            ("credential", name.as_str().to_owned()),
            ("provider", provider.to_owned()),
            ("fingerprint", lease.fingerprint.clone()),
        ];
        let action = revoked.as_ref().map_or("credential.revoked", Revocation::action);
        let outcome = match revoked {
            Ok(ending) => {
                facts.push(("result", ending.result()));
                if let Revocation::ExpiresAt(time) = ending
                    && lease.spec.provider.ends_by_its_value()
                    && time > Timestamp::now()
                {
                    let why = "only the token itself can revoke it, and no process has it any more";
                    complaints.push(format!("the credential {name} was not revoked and lives until {time}: {why}"));
                }
                gone.push((name.clone(), lease.clone()));
                "ok"
            }
            Err(error) => {
                let until =
                    lease.expires_at.map_or_else(|| "until it is rotated".to_owned(), |time| format!("until {time}"));
                complaints.push(format!("the credential {name} was not revoked and lives {until}: {error}"));
                facts.push(("reason", error.to_string()));
                "failed"
            }
        };
        let facts: Vec<(&str, &str)> = facts.iter().map(|(name, value)| (*name, value.as_str())).collect();
        context.audit(record, action, outcome, &facts);
    }
    gone
}

/// Changes the journal and this copy of it, which then has what others wrote. A journal that cannot be written must not
/// keep a session from ending.
fn change(journal: &Journal, record: &mut Record, complaints: &mut Vec<Complaint>, with: impl Fn(&mut Record)) {
    match journal.update(&with) {
        Ok(Some(now)) => *record = now,
        Ok(None) => with(record),
        Err(error) => {
            complaints.push(error.to_string());
            with(record);
        }
    }
}
