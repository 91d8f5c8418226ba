//! The end of a session and of a sandbox: revoke, empty, stop, remove. It goes on after a failure and reports all.

use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;

use crate::audit::AuditLog;
use crate::credential::{self, IssueContext, Revocation};
use crate::engine::{Engine, EngineError};
use crate::gateway::protocol::Action;
use crate::network::policy::Policy;
use crate::session::gateway_control::GatewayControl;
use crate::session::identity::{MachineKey, Role};
use crate::session::journal::{Journal, JournalObject, ObjectKind, Phase, Record, RetiringLease};
use crate::session::recall::recall;

/// How long the agent's processes have between SIGTERM and SIGKILL.
const GRACE: Duration = Duration::from_secs(3);

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
    record.phase = Phase::Stopping;
    keep(journal, record, &mut complaints);
    recall(engine, record, &context.issue).await;
    revoke(record, context, &mut complaints).await;
    let gateway = record.id.object(Role::Gateway);
    // A gateway that is gone already holds nothing, so this may fail; the volume in memory ends with its last container.
    if let Ok(mut control) = GatewayControl::attach(engine, &gateway).await {
        let emptied = async {
            control.carry_out(Action::Policy(Policy::default())).await?;
            control.carry_out(Action::Secrets(Vec::new())).await
        };
        if let Err(error) = tokio::time::timeout(GRACE, emptied).await {
            tracing::debug!(%error, "the gateway did not answer while the session ended");
        }
    }
    let agent = record.id.object(Role::Agent);
    let relay = record.id.object(Role::Relay);
    let stops = futures_util::future::join3(
        engine.stop_container(&agent, GRACE),
        engine.kill_container(&gateway, "KILL"),
        engine.kill_container(&relay, "KILL"),
    );
    let (agent, _, _) = stops.await;
    if let Err(error) = agent
        && !matches!(error, crate::engine::EngineError::NotFound { .. })
    {
        complaints.push(format!("the agent's container did not stop: {error}"));
    }
    record.phase = Phase::Stopped;
    record.ended = Some(ended.to_owned());
    keep(journal, record, &mut complaints);
    context.audit(record, "session.stopped", "ok", &[("reason", ended)]);
    complaints
}

/// Removes every container and volume of the sandbox, and its journal when nothing is left.
///
/// The journal names objects before they exist, so a name alone does not make an object ours: without an id in the
/// journal, its label must prove it.
pub async fn remove(engine: &Engine, key: &MachineKey, journal: &Journal, record: &Record) -> Vec<Complaint> {
    let mut complaints = Vec::new();
    let containers = record.objects.iter().filter(|object| object.kind == ObjectKind::Container);
    let removals = containers.map(|object| async move { (object, remove_container(engine, key, object).await) });
    for (object, removed) in futures_util::future::join_all(removals).await {
        if let Err(error) = removed {
            complaints.push(format!("the container {} was not removed: {error}", object.name));
        }
    }
    let volumes = record.objects.iter().filter(|object| object.kind == ObjectKind::Volume);
    let removals = volumes.map(|object| async move { (object, remove_volume(engine, key, object).await) });
    for (object, removed) in futures_util::future::join_all(removals).await {
        if let Err(error) = removed {
            complaints.push(format!("the volume {} was not removed: {error}", object.name));
        }
    }
    if complaints.is_empty()
        && !record.owes()
        && let Err(error) = journal.remove()
    {
        complaints.push(error.to_string());
    }
    complaints
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

async fn revoke(record: &mut Record, context: &EndContext<'_>, complaints: &mut Vec<Complaint>) {
    let retiring = std::mem::take(&mut record.retiring).into_iter().map(|old| (old.name, old.lease, false));
    let current = std::mem::take(&mut record.leases).into_iter().map(|(name, lease)| (name, lease, true));
    for (name, lease, current) in current.chain(retiring).collect::<Vec<_>>() {
        let revoked = credential::revoke(&name, &lease.spec, lease.handle.as_deref(), &context.issue).await;
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
                "ok"
            }
            Err(error) => {
                let until =
                    lease.expires_at.map_or_else(|| "until it is rotated".to_owned(), |time| format!("until {time}"));
                complaints.push(format!("the credential {name} was not revoked and lives {until}: {error}"));
                facts.push(("reason", error.to_string()));
                // It stays in the journal, so that `gc` or the next `down` tries again.
                if current {
                    record.leases.insert(name.clone(), lease);
                } else {
                    record.retiring.push(RetiringLease { name: name.clone(), lease, end_at: Timestamp::now() });
                }
                "failed"
            }
        };
        let facts: Vec<(&str, &str)> = facts.iter().map(|(name, value)| (*name, value.as_str())).collect();
        context.audit(record, action, outcome, &facts);
    }
}

fn keep(journal: &Journal, record: &Record, complaints: &mut Vec<Complaint>) {
    if let Err(error) = journal.write(record) {
        complaints.push(error.to_string());
    }
}
