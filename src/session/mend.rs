//! Starts again what died of a running sandbox. Nothing restarts by itself: an engine that did it would know neither the
//! order nor the probe.
//!
//! A gateway that died leaves the agent without a network, and gets its policy again. A relay that died took the
//! agent's network namespace along, so the agent's container is stopped, started after it and probed anew.

use std::time::Duration;

use crate::engine::{ContainerStatus, Engine, EngineError};
use crate::gateway::protocol::{Action, ProxyLogIn};
use crate::session::gateway_control::{GatewayControl, GatewayControlError};
use crate::session::identity::Role;
use crate::session::journal::Record;
use crate::session::launch::{self, LaunchError, READY_LIMIT};

/// How long the agent's processes have between SIGTERM and SIGKILL.
const GRACE: Duration = Duration::from_secs(3);

/// How the containers of a sandbox are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Health {
    /// All run.
    Whole,
    /// The agent's container ended, and with it the session.
    AgentEnded,
    /// The relay died.
    RelayDied,
    /// The gateway died.
    GatewayDied,
}

/// Looks at the three containers; names the death that has to be mended first.
///
/// # Errors
/// When the engine does not answer.
pub async fn examine(engine: &Engine, record: &Record) -> Result<Health, EngineError> {
    let runs = async |role: Role| -> Result<bool, EngineError> {
        let found = engine.inspect_container(&record.id.object(role)).await?;
        Ok(found.is_some_and(|container| container.status == ContainerStatus::Running))
    };
    for (role, death) in
        [(Role::Agent, Health::AgentEnded), (Role::Relay, Health::RelayDied), (Role::Gateway, Health::GatewayDied)]
    {
        if !runs(role).await? {
            return Ok(death);
        }
    }
    Ok(Health::Whole)
}

/// Starts the gateway again and hands it its policy.
///
/// # Errors
/// When it does not start or does not take the policy.
pub async fn gateway(engine: &Engine, record: &Record, log_in: Option<&ProxyLogIn>) -> Result<(), GatewayControlError> {
    let name = record.id.object(Role::Gateway);
    let mut control = GatewayControl::attach(engine, &name).await?;
    engine.start_container(&name).await?;
    control.ready(READY_LIMIT).await?;
    if let Some(log_in) = log_in {
        control.carry_out(Action::ProxyLogIn(log_in.clone())).await?;
    }
    control.carry_out(Action::Policy(record.policy.clone())).await?;
    // The new gateway has a new authority. A session program takes it into the agent's bundle, for what reads that from
    // now on; a process that has read the old one has to be started again.
    if let Err(error) = launch::open_session(engine, &record.id.object(Role::Agent)).await {
        tracing::warn!(%error, "the new gateway's certificate was not handed to the agent");
    }
    Ok(())
}

/// Starts the relay again and the agent's container after it, and proves the confinement. What ran in the agent's
/// container has ended; its clone and its credential files are still there.
///
/// # Errors
/// When one of them does not start, or when the probe finds a hole.
pub async fn relay(engine: &Engine, record: &Record) -> Result<(), LaunchError> {
    let agent = record.id.object(Role::Agent);
    let relay = record.id.object(Role::Relay);
    engine.stop_container(&agent, GRACE).await?;
    let stream = engine.attach(&relay).await?;
    engine.start_container(&relay).await?;
    launch::wait_for_relay(stream).await?;
    engine.start_container(&agent).await?;
    let mut client = launch::open_session(engine, &agent).await?;
    // A listed host that does not answer is no reason to end a session that had begun.
    launch::prove(&mut client, record, true).await?;
    Ok(())
}
