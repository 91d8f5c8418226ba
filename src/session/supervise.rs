//! The supervisor: a background process of the developer's, one for each running sandbox.
//!
//! It rotates credentials, records what the gateway decides, mends a gateway that died, and ends the session when the
//! last command has ended. Commands of the user hold a shared lock on `sessions.lock` while they run; the supervisor
//! waits for the exclusive one, so that a crashed terminal counts as an end and nobody has to keep a list.
//!
//! It is always a process of its own, also for a foreground `up`: whoever started the sandbox may leave first.

use std::cell::Cell;
use std::fs::File;
use std::path::Path;
use std::time::Duration;

use futures_util::StreamExt as _;
use jiff::Timestamp;
use tokio::sync::watch;

use crate::audit::AuditLog;
use crate::credential::IssueContext;
use crate::engine::{Engine, EngineError};
use crate::gateway::protocol::ProxyLogIn;
use crate::session::gateway_events::Recorder;
use crate::session::identity::{LABEL_SESSION, Role, lock_file};
use crate::session::journal::{Journal, JournalError, Phase, Record};
use crate::session::launch::event;
use crate::session::live_policy;
use crate::session::mend::{self, Health};
use crate::session::recall::recall;
use crate::session::rotation::{Steering, rotate_until_the_end};
use crate::session::teardown::{self, EndContext};
use crate::session::watchdog::{self, Notice};

/// How often the agent's container is started again in one session: a relay that goes on dying has a cause.
const RESTARTS: u32 = 5;
/// The exit code of a process that SIGKILL ended.
const KILLED: i64 = 137;
/// When containers are looked at that the engine tells nothing of: once it surely listens, for what died before. Later its
/// events do; a container that somebody paused is not to be taken for one that died.
const FIRST_LOOK: Duration = Duration::from_millis(500);
const NEXT_LOOK: Duration = Duration::from_secs(24 * 60 * 60);

/// Why a session could not be supervised.
#[derive(Debug, thiserror::Error)]
pub enum SuperviseError {
    /// The journal failed.
    #[error("use the journal")]
    Journal(#[from] JournalError),
    /// The engine failed.
    #[error("watch the sandbox's containers")]
    Engine(#[from] EngineError),
    /// A lock failed.
    #[error("use the sandbox's locks")]
    Lock(#[source] std::io::Error),
    /// Another supervisor is there already.
    #[error("supervise a sandbox that has a supervisor already")]
    Taken,
    /// The sandbox does not run.
    #[error("supervise a sandbox that does not run")]
    NotRunning,
}

/// What the supervisor needs.
pub struct SuperviseInput<'a> {
    /// The engine.
    pub engine: &'a Engine,
    /// The launcher's state folder.
    pub state: &'a Path,
    /// The sandbox's journal.
    pub journal: Journal,
    /// The developer's user name.
    pub actor: &'a str,
    /// The audit log.
    pub audit: &'a AuditLog,
    /// How credentials are issued and revoked.
    pub issue: IssueContext<'a>,
    /// The log-in at the company's proxy, for a gateway that is started again.
    pub proxy_log_in: Option<ProxyLogIn>,
}

/// Takes the supervisor's lock.
///
/// # Errors
/// When another supervisor holds it.
pub fn claim(journal: &Journal) -> Result<File, SuperviseError> {
    let lock = lock_file(journal.folder(), "supervisor.lock").map_err(SuperviseError::Lock)?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(std::fs::TryLockError::WouldBlock) => Err(SuperviseError::Taken),
        Err(std::fs::TryLockError::Error(error)) => Err(SuperviseError::Lock(error)),
    }
}

/// Joins the commands of a sandbox: as long as the returned file lives, the supervisor does not end the session.
/// Waits while an end is under way.
///
/// # Errors
/// When the lock file cannot be used.
pub async fn join(journal: &Journal) -> Result<File, SuperviseError> {
    let lock = lock_file(journal.folder(), "sessions.lock").map_err(SuperviseError::Lock)?;
    blocking(move || lock.lock_shared().map(|()| lock)).await
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> std::io::Result<T> + Send + 'static,
) -> Result<T, SuperviseError> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| SuperviseError::Lock(std::io::Error::other(error)))?
        .map_err(SuperviseError::Lock)
}

/// Supervises until the last command has ended, the agent's container is gone or a limit is reached, then ends the
/// session. `restarts` counts how often the agent's container was started again, which ended what ran in it.
///
/// # Errors
/// When the session cannot be watched; what can be ended is ended all the same.
pub async fn supervise(input: SuperviseInput<'_>, restarts: &watch::Sender<u32>) -> Result<(), SuperviseError> {
    let record = input.journal.read()?.ok_or(SuperviseError::NotRunning)?;
    if record.phase != Phase::Running {
        return Err(SuperviseError::NotRunning);
    }
    recall(input.engine, &record, &input.issue).await;
    let out_of_memory = Cell::new(false);
    let sessions = lock_file(input.journal.folder(), "sessions.lock").map_err(SuperviseError::Lock)?;
    let last_command = tokio::task::spawn_blocking(move || sessions.lock().map(|()| sessions));
    let steering = Steering::new();
    let rotating = rotate_until_the_end(&input, &steering);
    tokio::pin!(rotating);
    let mut rotates = true;
    let (ended, _sessions) = tokio::select! {
        locked = last_command => match locked {
            Ok(Ok(sessions)) => ("the last command ended".to_owned(), Some(sessions)),
            _ => ("the sandbox's lock failed".to_owned(), None),
        },
        reason = watch_containers(&input, &record, restarts, &out_of_memory, &steering) => (reason.to_owned(), None),
        reason = watchdog::watch(input.engine, &record, |notice| tell(&input, &record, notice)) => (reason, None),
        reason = &mut rotating => {
            rotates = false;
            (reason, None)
        }
        never = record_events(&input, &record) => match never {},
        () = terminated() => ("the supervisor was asked to end".to_owned(), None),
    };
    steering.end();
    if rotates {
        rotating.await;
    }
    finish(&input, &ended, out_of_memory.get()).await
}

async fn terminated() {
    let signal = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate());
    match signal {
        Ok(mut signal) => {
            signal.recv().await;
        }
        Err(_) => std::future::pending().await,
    }
}

async fn finish(input: &SuperviseInput<'_>, ended: &str, out_of_memory: bool) -> Result<(), SuperviseError> {
    let Some(record) = input.journal.read()? else { return Ok(()) };
    // The container's state can lack the cause when the engine learned of the end first; its event does not.
    let died_of_memory = match input.engine.inspect_container(&record.id.object(Role::Agent)).await? {
        Some(agent) => agent.oom_killed || (out_of_memory && agent.exit_code == Some(KILLED)),
        None => false,
    };
    let ended = if died_of_memory { "the agent was killed for memory" } else { ended };
    // Only one of this process and a `sandbox down` ends it.
    let mut ours = false;
    let updated = input.journal.update(|now| {
        ours = now.phase == Phase::Running;
        if ours {
            now.phase = Phase::Stopping;
        }
    })?;
    let Some(mut record) = updated else { return Ok(()) };
    if !ours {
        // A container that this process was starting again at that moment must not outlive the session.
        if let Err(error) = teardown::halt(input.engine, &record).await {
            tracing::error!(%error, "the agent's container did not stop");
        }
        return Ok(());
    }
    let context = EndContext { state: input.state, actor: input.actor, audit: input.audit, issue: input.issue.clone() };
    let complaints = teardown::stop(input.engine, &input.journal, &mut record, ended, &context).await;
    for complaint in complaints {
        tracing::error!(%complaint, "the session's end is not complete");
    }
    Ok(())
}

/// Watches for containers that die. Gives the reason for which the session has to end.
async fn watch_containers(
    input: &SuperviseInput<'_>,
    record: &Record,
    restarts: &watch::Sender<u32>,
    out_of_memory: &Cell<bool>,
    steering: &Steering,
) -> &'static str {
    let agent = record.id.object(Role::Agent);
    let labels = vec![format!("{LABEL_SESSION}={}", record.session.as_str())];
    loop {
        let events = input.engine.events(&labels);
        tokio::pin!(events);
        let mut patience = FIRST_LOOK;
        loop {
            let event = match tokio::time::timeout(patience, events.next()).await {
                Ok(Some(Ok(event))) => event,
                Ok(_) => break,
                Err(_) => {
                    patience = NEXT_LOOK;
                    if let Some(reason) = mend_containers(input, record, restarts, steering).await {
                        return reason;
                    }
                    continue;
                }
            };
            if event.action == "oom" {
                note(input, record, "session.oom", "failed", &[("container", &event.container)]);
                if event.container == agent {
                    out_of_memory.set(true);
                }
            }
            if event.action != "die" {
                continue;
            }
            if let Some(reason) = mend_containers(input, record, restarts, steering).await {
                return reason;
            }
        }
        // The engine went away or restarted; without it there is nothing to do but to look again.
        tokio::time::sleep(Duration::from_secs(1)).await;
        if let Some(reason) = mend_containers(input, record, restarts, steering).await {
            return reason;
        }
    }
}

/// Mends what can be mended; gives the reason for which the session has to end otherwise.
async fn mend_containers(
    input: &SuperviseInput<'_>,
    record: &Record,
    restarts: &watch::Sender<u32>,
    steering: &Steering,
) -> Option<&'static str> {
    loop {
        // The policy may have been changed since the launch.
        let record = &input.journal.read().ok().flatten().unwrap_or_else(|| record.clone());
        if record.phase != Phase::Running {
            // Whoever ends it stops the containers, which is no death.
            return Some("the session is being ended");
        }
        match mend::examine(input.engine, record).await {
            Ok(Health::Whole) => return None,
            Ok(Health::AgentEnded) => return Some("the agent's container ended"),
            Ok(Health::RelayDied) => {
                note(input, record, "relay.died", "failed", &[]);
                if *restarts.borrow() >= RESTARTS {
                    return Some("the relay died again and again");
                }
                if let Err(error) = mend::relay(input.engine, record).await {
                    tracing::error!(%error, "the relay that died was not started again");
                    return Some("the relay died, and the agent could not be started again after it");
                }
                let at = Timestamp::now();
                if let Err(error) = input.journal.update(|record| record.restarted = Some(at)) {
                    tracing::warn!(%error, "the journal was not updated");
                }
                note(input, record, "agent.restarted", "ok", &[("reason", "the relay died")]);
                restarts.send_modify(|count| *count += 1);
            }
            Ok(Health::GatewayDied) => {
                note(input, record, "gateway.died", "failed", &[]);
                // Whoever changes the policy at this moment is done first, or waits.
                let turn = live_policy::turn(&input.journal).await;
                let record = &input.journal.read().ok().flatten().unwrap_or_else(|| record.clone());
                let mended = mend::gateway(input.engine, record, input.proxy_log_in.as_ref()).await;
                drop(turn);
                if let Err(error) = mended {
                    // Without it the agent has no network, which is safe: the next look tries again.
                    tracing::warn!(%error, "the gateway that died was not started again");
                    tokio::time::sleep(Duration::from_secs(1)).await;
                    continue;
                }
                note(input, record, "gateway.restarted", "ok", &[]);
                steering.broker_again(record);
            }
            Err(error) => {
                tracing::warn!(%error, "the sandbox's containers cannot be seen");
                return None;
            }
        }
    }
}

fn tell(input: &SuperviseInput<'_>, record: &Record, notice: Notice) {
    match notice {
        Notice::DiskNearlyFull(usage) => {
            let facts = [("bytes", usage.bytes.to_string()), ("limit", record.limits.disk.to_string())];
            let facts: Vec<(&str, &str)> = facts.iter().map(|(name, value)| (*name, value.as_str())).collect();
            note(input, record, "session.disk_nearly_full", "ok", &facts);
        }
        Notice::Unreadable(count) => {
            note(input, record, "session.disk_unreadable", "failed", &[("folders", &count.to_string())]);
        }
    }
}

pub(super) fn note(input: &SuperviseInput<'_>, record: &Record, action: &str, outcome: &str, facts: &[(&str, &str)]) {
    let event = event(input.actor, record, action, outcome, facts);
    if let Err(error) = input.audit.append(&event) {
        tracing::error!(%error, action, "an audit event was not written");
    }
}

/// Records what the gateway decides, until the future is dropped.
async fn record_events(input: &SuperviseInput<'_>, record: &Record) -> std::convert::Infallible {
    loop {
        match Recorder::start(input.engine, &input.journal, input.audit, input.actor, record).await {
            Ok(mut recorder) => match recorder.follow().await {},
            Err(error) => tracing::error!(%error, "the gateway's decisions cannot be recorded"),
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}
