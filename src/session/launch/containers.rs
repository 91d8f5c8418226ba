//! The volumes and containers of a launch, in an order in which nothing that runs has more than it needs.

use std::collections::BTreeMap;

use super::{ExecSession, LaunchError, LaunchInput, READY_LIMIT, open_session};
use crate::engine::container::{ContainerSpec, Mount, Network};
use crate::engine::stream::{AttachedStream, Chunk};
use crate::engine::{Engine, EngineError};
use crate::gateway::protocol::{Action, ProxyLogIn};
use crate::network::policy::Policy;
use crate::session::gateway_control::{GatewayControl, LineBuffer};
use crate::session::identity::{
    LABEL_OWNER, LABEL_PLAN, LABEL_PROJECT, LABEL_PROOF, LABEL_ROLE, LABEL_SANDBOX, LABEL_SESSION, Role, SandboxId,
};
use crate::session::journal::{Journal, Record};
use crate::session::plan::{EGRESS_NETWORK, HELPER_FOLDER, HOME, WORKSPACE, helper_volume};

/// What runs when all have started.
pub(super) struct Started {
    pub(super) agent_id: String,
    pub(super) gateway: GatewayControl,
    pub(super) client: ExecSession,
}

pub(super) async fn start_containers(
    input: &LaunchInput<'_>,
    record: Record,
    journal: &Journal,
    launcher_id: &str,
    agent_id: &str,
) -> Result<Started, LaunchError> {
    let LaunchInput { engine, plan, .. } = input;
    (input.progress)("creating containers");
    let labels = |role: Role| labels(input, &record, role);
    engine.ensure_network(EGRESS_NETWORK, &BTreeMap::new()).await?;
    create_volumes(input, &record, true).await?;
    let helper = helper_volume(&input.launcher.config);

    let mut relay = plan.containers.relay.clone();
    relay.image = launcher_id.to_owned();
    relay.labels = labels(Role::Relay);
    let mut gateway = plan.containers.gateway.clone();
    gateway.image = launcher_id.to_owned();
    gateway.labels = labels(Role::Gateway);
    let mut agent = plan.containers.agent.clone();
    agent.image = agent_id.to_owned();
    agent.labels = labels(Role::Agent);
    agent.mounts.push(Mount { volume: helper.clone(), target: HELPER_FOLDER.to_owned(), read_only: true, copy: false });
    let fill = fill_container(input, &record, launcher_id, &helper);

    // The engine fills a volume when a container that mounts it is created, so the fill container never runs. The
    // agent's comes after it: no other container may mount those volumes before they are filled.
    let (fill_id, relay_id, gateway_id) = tokio::join!(
        engine.create_container(&fill),
        engine.create_container(&relay),
        engine.create_container(&gateway)
    );
    let (fill_id, relay_id, gateway_id) = (fill_id?, relay_id?, gateway_id?);
    // Issuers may have written what they gave meanwhile.
    journal.update(|record| {
        for (role, id) in [(Role::Fill, &fill_id), (Role::Relay, &relay_id), (Role::Gateway, &gateway_id)] {
            record.name_object(role, id);
        }
    })?;

    (input.progress)("starting containers");
    // Three starts take most of the time, so they overlap: the agent's container needs the relay's network and nothing
    // of the gateway, without which the relay refuses every connection. All are waited for also when one fails: what
    // the engine was asked for must not appear after it was taken down.
    let agent_side = async {
        let (created, relay_started) = tokio::join!(engine.create_container(&agent), start_relay(engine, &relay_id));
        let agent_id = created?;
        let relay_stream = relay_started?;
        if let Err(error) = engine.start_container(&agent_id).await {
            // Without a relay there is no network to join, and the relay has said why.
            wait_for_relay(relay_stream).await?;
            return Err(error.into());
        }
        let (client, ready, removed) = tokio::join!(
            open_session(engine, &agent_id),
            wait_for_relay(relay_stream),
            engine.remove_container(&fill_id)
        );
        ready?;
        removed?;
        Ok::<_, LaunchError>((agent_id, client?))
    };
    let (agent_side, gateway_side) =
        tokio::join!(agent_side, start_gateway(engine, &gateway_id, &plan.network, input.proxy_log_in.as_ref()));
    let (agent_id, client) = agent_side?;
    Ok(Started { agent_id, gateway: gateway_side?, client })
}

/// Starts the relay's container; gives what it prints from its first byte on.
async fn start_relay(engine: &Engine, id: &str) -> Result<AttachedStream, EngineError> {
    let stream = engine.attach(id).await?;
    engine.start_container(id).await?;
    Ok(stream)
}

/// Starts the gateway's container and gives it its policy.
async fn start_gateway(
    engine: &Engine,
    id: &str,
    policy: &Policy,
    log_in: Option<&ProxyLogIn>,
) -> Result<GatewayControl, LaunchError> {
    let mut control = GatewayControl::attach(engine, id).await?;
    engine.start_container(id).await?;
    control.ready(READY_LIMIT).await?;
    if let Some(log_in) = log_in {
        control.carry_out(Action::ProxyLogIn(log_in.clone())).await?;
    }
    control.carry_out(Action::Policy(policy.clone())).await?;
    Ok(control)
}

fn labels(input: &LaunchInput<'_>, record: &Record, role: Role) -> BTreeMap<String, String> {
    let id: &SandboxId = &input.plan.id;
    BTreeMap::from([
        (LABEL_PROJECT.to_owned(), id.project.to_string()),
        (LABEL_SANDBOX.to_owned(), id.name.to_string()),
        (LABEL_SESSION.to_owned(), record.session.as_str().to_owned()),
        (LABEL_ROLE.to_owned(), role.as_str().to_owned()),
        (LABEL_PLAN.to_owned(), input.plan.plan_hash.clone()),
        (LABEL_OWNER.to_owned(), input.owner.to_owned()),
        (LABEL_PROOF.to_owned(), input.key.proof(&id.object(role), role)),
    ])
}

async fn create_volumes(input: &LaunchInput<'_>, record: &Record, noswap: bool) -> Result<(), LaunchError> {
    let roles = [Role::Workspace, Role::Home, Role::Secrets, Role::Channel];
    let creations = roles.into_iter().zip(&input.plan.volumes).map(|(role, volume)| {
        let mut volume = volume.clone();
        volume.labels = labels(input, record, role);
        if let Some(memory) = &mut volume.memory {
            memory.noswap = noswap && kernel_has_noswap();
        }
        async move { input.engine.create_volume(&volume).await }
    });
    futures_util::future::try_join_all(creations).await?;
    Ok(())
}

/// Whether this kernel's tmpfs knows `noswap` (Linux 6.4, tmpfs(5)). A remote engine may differ; then the mount fails
/// and says so.
fn kernel_has_noswap() -> bool {
    let system = rustix::system::uname();
    let release = system.release().to_string_lossy();
    let mut numbers =
        release.split(|character: char| !character.is_ascii_digit()).map(|part| part.parse().unwrap_or(0));
    let version: (u32, u32) = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    version >= (6, 4)
}

fn fill_container(input: &LaunchInput<'_>, record: &Record, launcher_id: &str, helper: &str) -> ContainerSpec {
    let id = &input.plan.id;
    let filled =
        |volume: String, target: &str| Mount { volume, target: target.to_owned(), read_only: false, copy: true };
    ContainerSpec {
        name: id.object(Role::Fill),
        image: launcher_id.to_owned(),
        labels: labels(input, record, Role::Fill),
        network: Network::None,
        dns: Vec::new(),
        mounts: vec![
            filled(id.object(Role::Workspace), WORKSPACE),
            filled(id.object(Role::Home), HOME),
            filled(helper.to_owned(), "/helper"),
        ],
        ..input.plan.containers.relay.clone()
    }
}

/// Waits until the relay says that it listens.
pub(in crate::session) async fn wait_for_relay(mut stream: AttachedStream) -> Result<(), LaunchError> {
    let mut said = String::new();
    let wait = async {
        let mut lines = LineBuffer::default();
        while let Some(chunk) = stream.output.next().await? {
            match chunk {
                Chunk::Out(bytes) => {
                    for line in lines.push(&bytes) {
                        if serde_json::from_slice::<crate::gateway::protocol::Event>(&line)
                            .is_ok_and(|event| event == crate::gateway::protocol::Event::Ready)
                        {
                            return Ok(true);
                        }
                    }
                }
                Chunk::Err(bytes) if said.len() < 2000 => said.push_str(&String::from_utf8_lossy(&bytes)),
                Chunk::Err(_) => {}
            }
        }
        Ok::<bool, EngineError>(false)
    };
    match tokio::time::timeout(READY_LIMIT, wait).await {
        Ok(Ok(true)) => Ok(()),
        Ok(Ok(false)) | Err(_) => Err(LaunchError::Relay { said }),
        Ok(Err(error)) => Err(error.into()),
    }
}
