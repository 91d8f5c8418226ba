//! Everything that `up` is going to do, as one value: computed without Docker and without reading a secret.
//!
//! The plan can be printed, compared and hashed; the hash is the label by which a running sandbox is recognised as
//! still the right one. It holds no state of the repository (the base commit moves while a session lives).

use std::collections::BTreeMap;

use serde::Serialize;
use sha2::{Digest as _, Sha256};

use crate::credential::spec::{CredentialSpec, Delivery, STAND_IN};
use crate::engine::container::{ContainerSpec, Limits, MemoryVolume, Mount, Network, Tmpfs, User, VolumeSpec};
use crate::gateway::secrets::AUTHORITY;
use crate::image::reference::Digest;
use crate::network::placement::Placement;
use crate::network::policy::Policy;
use crate::profile::Profile;
use crate::project::manifest::Manifest;
use crate::project::{CredentialName, PortForward, SandboxName};
use crate::session::identity::{Role, SandboxId};

/// The agent's user and group.
pub const AGENT: User = User { uid: 1000, gid: 1000 };
/// The gateway's user; its group is the agent's, so that the agent can read what the gateway writes.
pub const GATEWAY: User = User { uid: 65532, gid: 1000 };
/// The relay's user. Never the agent's, or the agent could join its socket.
pub const RELAY: User = User { uid: 65534, gid: 65533 };
/// The group that relay and gateway share for their socket.
pub const CHANNEL_GROUP: u32 = 65533;
/// The network that every gateway is in.
pub const EGRESS_NETWORK: &str = "sandbox-egress";
/// Where the agent's clone is.
pub const WORKSPACE: &str = "/workspace";
/// The agent's home.
pub const HOME: &str = "/home/agent";
/// Where credential files are.
pub const SECRETS: &str = "/run/secrets";
/// Where the launcher's binary appears in the agent's container.
pub const HELPER_FOLDER: &str = "/.sandbox";
/// The launcher's binary in the agent's container.
pub const HELPER: &str = "/.sandbox/sandbox";
/// The launcher's binary in its own image.
pub const LAUNCHER_BINARY: &str = "/helper/sandbox";
/// The folder of the socket between relay and gateway.
pub const CHANNEL: &str = "/run/channel";
/// Where the relay takes HTTP proxy requests.
pub const PROXY: &str = "127.0.0.1:3128";

/// Where the helper puts the image's certificate authorities together with the session's.
pub const CA_BUNDLE: &str = "/tmp/.sandbox/ca-certificates.crt";
/// The same as a trust store of Java's.
pub const TRUST_STORE: &str = "/tmp/.sandbox/ca-certificates.jks";
/// The variables by which tools find certificate authorities. Each replaces the tool's own list, so the bundle is whole.
const BUNDLE_VARIABLES: [&str; 13] = [
    "SSL_CERT_FILE",
    "NODE_EXTRA_CA_CERTS",
    "REQUESTS_CA_BUNDLE",
    "CURL_CA_BUNDLE",
    "GIT_SSL_CAINFO",
    "CARGO_HTTP_CAINFO",
    "PIP_CERT",
    "DENO_CERT",
    "AWS_CA_BUNDLE",
    "CLOUDSDK_CORE_CUSTOM_CA_CERTS_FILE",
    "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH",
    "HTTPLIB2_CA_CERTS",
    "NIX_SSL_CERT_FILE",
];

const MEBIBYTE: u64 = 1 << 20;

/// What a plan is made of.
#[derive(Debug)]
pub struct PlanInput<'a> {
    /// The manifest, restricted by the user's configuration.
    pub manifest: &'a Manifest,
    /// The sandbox's name.
    pub name: &'a SandboxName,
    /// The confinement profile.
    pub profile: &'a Profile,
    /// The agent's image.
    pub image: PlannedImage,
    /// Variables that the image's definition sets.
    pub image_environment: BTreeMap<String, String>,
    /// The id of the launcher's own image.
    pub launcher: Digest,
}

/// The whole of what `up` is going to do.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Plan {
    /// The sandbox.
    #[serde(flatten)]
    pub id: SandboxId,
    /// Hash over everything below.
    pub plan_hash: String,
    /// The command that `up` runs when none is given.
    pub command: Vec<String>,
    /// The agent's image.
    pub image: PlannedImage,
    /// The confinement profile's name.
    pub profile: String,
    /// What the agent works on.
    pub workspace: PlannedWorkspace,
    /// What is mounted into the agent's container.
    pub mounts: Vec<PlannedMount>,
    /// The allow list.
    pub network: Policy,
    /// Ports of the agent's loopback that are forwarded to this machine's.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<PortForward>,
    /// The credentials, without values.
    pub credentials: Vec<PlannedCredential>,
    /// The agent's limits.
    pub limits: Limits,
    /// Disk for workspace and home together, in bytes.
    pub disk: u64,
    /// How long a session may last, in seconds; without an end of its own when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session_limit: Option<u64>,
    /// What is weaker than the default, in words.
    pub weakened: Vec<String>,
    /// The volumes, in the order in which they are made.
    pub volumes: Vec<VolumeSpec>,
    /// The containers.
    pub containers: Containers,
}

/// The agent's image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PlannedImage {
    /// The definition's name, or the reference.
    pub name: String,
    /// What `docker images --digests` or the lock call it: the manifest's digest.
    pub digest: Digest,
    /// The configuration's digest, which is the image's id on most engines; unknown for a foreign image.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub config: Option<Digest>,
    /// Whether the launcher builds it from a lock.
    pub built: bool,
}

/// What the agent works on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PlannedWorkspace {
    /// The branch; the current one when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub branch: Option<String>,
    /// Commits of history; all when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub depth: Option<u32>,
    /// Whether uncommitted changes of tracked files go along.
    pub include_uncommitted: bool,
    /// Whether commits are signed with a key of the session.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub sign: bool,
    /// Folders of the working tree; all when empty.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub sparse: Vec<String>,
    /// Submodules that go along.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub submodules: Vec<String>,
    /// Large files that go along.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub lfs: Vec<String>,
    /// Whether the agent's home outlives `down`.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub keep_home: bool,
    /// The most bytes of the agent's home, where it has a limit of its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub home_limit: Option<u64>,
}

/// One mount of the agent's container, for people and auditors.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PlannedMount {
    /// Where it appears.
    pub target: String,
    /// The volume, or `tmpfs`.
    pub source: String,
    /// Whether the agent may only read.
    pub read_only: bool,
    /// What it is for.
    pub purpose: &'static str,
}

/// One credential of the plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PlannedCredential {
    /// Its name.
    pub name: CredentialName,
    /// Its provider's word in the manifest.
    pub provider: String,
    /// How the agent gets it, in words.
    pub deliver: String,
    /// How long it lives at most, in seconds, where the manifest says so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub life: Option<u64>,
    /// When it runs out; known once it was issued.
    pub expires_at: Option<jiff::Timestamp>,
}

/// The containers of a sandbox.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Containers {
    /// Owns the network namespace.
    pub relay: ContainerSpec,
    /// Has the route out.
    pub gateway: ContainerSpec,
    /// The untrusted program's.
    pub agent: ContainerSpec,
}

/// Computes the plan.
pub fn plan(input: PlanInput<'_>) -> Plan {
    let PlanInput { manifest, name, profile, image, image_environment, launcher } = input;
    let id = SandboxId { project: manifest.project.clone(), name: name.clone() };
    let mut limits = profile.limits.clone();
    if let Some(cpus) = manifest.resources.cpus {
        limits.millicpus = (cpus * 1000.0).round() as u64;
    }
    if let Some(memory) = manifest.resources.memory {
        limits.memory = memory;
    }
    if let Some(pids) = manifest.resources.pids {
        limits.pids = pids;
    }
    let mut weakened = profile.weakened.clone();
    for (credential, spec) in &manifest.credentials {
        if let Delivery::Environment { variable } = &spec.deliver {
            weakened.push(format!(
                "credential `{credential}` is also in the environment variable {variable}, which keeps the old value after a rotation"
            ));
        }
        if let Some(reason) = &spec.accept_personal {
            weakened
                .push(format!("credential `{credential}` may be a person's own or an organisation-wide one: {reason}"));
        }
    }
    if manifest.network.observe {
        weakened.push(
            "every public host is open on the ports 80 and 443, to be observed; no credential is handed out".to_owned(),
        );
    }
    let wider = manifest.network.limits.wider();
    if !wider.is_empty() {
        weakened.push(format!("`network.limits` lets through more than the default: {}", wider.join(", ")));
    }
    let disk = manifest.resources.disk.unwrap_or(profile.disk);
    let volumes = volumes(&id);
    let agent = agent_container(&id, manifest, profile, &image, &image_environment, &limits);
    let mut plan = Plan {
        plan_hash: String::new(),
        command: manifest.command.clone(),
        profile: profile.name.clone(),
        workspace: PlannedWorkspace {
            branch: manifest.workspace.branch.clone(),
            depth: manifest.workspace.depth,
            include_uncommitted: manifest.workspace.include_uncommitted,
            sign: manifest.workspace.sign,
            sparse: manifest.workspace.sparse.clone(),
            submodules: manifest.workspace.submodules.clone(),
            lfs: manifest.workspace.lfs.clone(),
            keep_home: manifest.workspace.keep_home,
            home_limit: manifest.workspace.home_limit,
        },
        mounts: planned_mounts(&agent),
        network: manifest.network.clone(),
        ports: manifest.ports.clone(),
        credentials: manifest.credentials.iter().map(|(name, spec)| planned_credential(name, spec)).collect(),
        limits,
        disk,
        session_limit: manifest.resources.session.map(|limit| limit.as_secs()),
        weakened,
        volumes,
        containers: Containers {
            relay: relay_container(&id, &launcher),
            gateway: gateway_container(&id, &launcher),
            agent,
        },
        image,
        id,
    };
    plan.plan_hash = hash(&plan);
    plan
}

/// The hash of a plan: SHA-256 over its JSON with sorted keys, the hash field empty and rule origins left out, since a
/// comment that moves a line does not change what is allowed.
fn hash(plan: &Plan) -> String {
    let mut plan = plan.clone();
    plan.plan_hash.clear();
    plan.command.clear();
    for rule in &mut plan.network.allow {
        rule.origin = None;
    }
    // All map types in a plan are ordered and all keys are text, so that serialising cannot fail.
    let json = serde_json::to_vec(&plan).unwrap_or_default();
    format!("sha256:{}", hex::encode(Sha256::digest(json)))
}

fn volumes(id: &SandboxId) -> Vec<VolumeSpec> {
    let disk = |role: Role| VolumeSpec { name: id.object(role), labels: BTreeMap::new(), memory: None };
    let memory = |role: Role, mode: u32, owner: User| VolumeSpec {
        name: id.object(role),
        labels: BTreeMap::new(),
        memory: Some(MemoryVolume { size: MEBIBYTE, mode, owner, noswap: true }),
    };
    vec![
        disk(Role::Workspace),
        disk(Role::Home),
        memory(Role::Secrets, 0o750, GATEWAY),
        memory(Role::Channel, 0o770, User { uid: GATEWAY.uid, gid: CHANNEL_GROUP }),
    ]
}

fn mount(volume: String, target: &str, read_only: bool) -> Mount {
    Mount { volume, target: target.to_owned(), read_only, copy: false }
}

/// The volume that holds the launcher's binary for agents.
pub fn helper_volume(launcher: &Digest) -> String {
    format!("sandbox-helper-{}", launcher.short())
}

fn plumbing_limits() -> Limits {
    Limits {
        memory: 64 * MEBIBYTE,
        millicpus: 2000,
        pids: 32,
        open_files: 16_384,
        file_size: 16 * MEBIBYTE,
        shm: MEBIBYTE,
    }
}

fn plumbing(id: &SandboxId, role: Role, launcher: &Digest) -> ContainerSpec {
    ContainerSpec {
        name: id.object(role),
        image: launcher.to_string(),
        command: vec![LAUNCHER_BINARY.to_owned(), role.as_str().to_owned()],
        user: RELAY,
        groups: Vec::new(),
        environment: BTreeMap::new(),
        working_directory: "/".to_owned(),
        hostname: Some(role.as_str().to_owned()),
        labels: BTreeMap::new(),
        network: Network::None,
        dns: Vec::new(),
        mounts: vec![mount(id.object(Role::Channel), CHANNEL, false)],
        tmpfs: Vec::new(),
        limits: plumbing_limits(),
        seccomp: None,
        masked_paths: crate::profile::masked_paths(),
        readonly_paths: crate::profile::readonly_paths(),
        open_stdin: false,
    }
}

fn relay_container(id: &SandboxId, launcher: &Digest) -> ContainerSpec {
    // Without an explicit resolver the engine copies the host's resolv.conf.
    ContainerSpec {
        dns: vec!["127.0.0.53".to_owned()],
        hostname: Some(id.project.to_string()),
        ..plumbing(id, Role::Relay, launcher)
    }
}

fn gateway_container(id: &SandboxId, launcher: &Digest) -> ContainerSpec {
    let mut gateway = plumbing(id, Role::Gateway, launcher);
    gateway.user = GATEWAY;
    gateway.groups = vec![CHANNEL_GROUP];
    gateway.network = Network::Named(EGRESS_NETWORK.to_owned());
    gateway.mounts.push(mount(id.object(Role::Secrets), SECRETS, false));
    gateway.open_stdin = true;
    gateway.limits.memory = 256 * MEBIBYTE;
    gateway
}

fn agent_container(
    id: &SandboxId,
    manifest: &Manifest,
    profile: &Profile,
    image: &PlannedImage,
    image_environment: &BTreeMap<String, String>,
    limits: &Limits,
) -> ContainerSpec {
    let proxy = format!("http://{PROXY}");
    let mut environment = image_environment.clone();
    environment.extend(manifest.environment.clone());
    let ours = [
        ("HOME", HOME),
        ("USER", "agent"),
        ("LOGNAME", "agent"),
        ("CREDENTIALS_DIRECTORY", SECRETS),
        ("http_proxy", &proxy),
        ("https_proxy", &proxy),
        ("HTTP_PROXY", &proxy),
        ("HTTPS_PROXY", &proxy),
        ("no_proxy", "localhost,127.0.0.1,::1"),
        ("NO_PROXY", "localhost,127.0.0.1,::1"),
        // Node's own fetch takes the proxy variables only when asked to.
        ("NODE_USE_ENV_PROXY", "1"),
        ("SANDBOX_PROJECT", id.project.as_str()),
    ];
    environment.extend(ours.map(|(name, value)| (name.to_owned(), value.to_owned())));
    if manifest.network.adds_authorities() {
        environment.insert("SANDBOX_SESSION_CA".to_owned(), format!("{SECRETS}/{AUTHORITY}"));
        let variables = ["SANDBOX_CA_BUNDLE"].into_iter().chain(BUNDLE_VARIABLES);
        environment.extend(variables.map(|name| (name.to_owned(), CA_BUNDLE.to_owned())));
        environment.insert("SANDBOX_CA_TRUSTSTORE".to_owned(), TRUST_STORE.to_owned());
        // Java reads no variable for it but the one with all options ("JAVA_TOOL_OPTIONS", JVM Tool Interface).
        let options = environment.entry("JAVA_TOOL_OPTIONS".to_owned()).or_default();
        *options = format!("{options} -Djavax.net.ssl.trustStore={TRUST_STORE}").trim().to_owned();
    }
    for spec in manifest.credentials.values() {
        let Delivery::Broker { variable, placement, .. } = &spec.deliver else { continue };
        if let Some(variable) = variable {
            environment.insert(variable.clone(), STAND_IN.to_owned());
        }
        if let Placement::Sigv4 { region, .. } = placement {
            // Programs of AWS sign with these as they are, and do not ask a machine's metadata for others ("Environment
            // variables", AWS SDKs and Tools reference).
            for variable in ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"] {
                environment.insert(variable.to_owned(), STAND_IN.to_owned());
            }
            for (variable, value) in
                [("AWS_REGION", region.as_str()), ("AWS_DEFAULT_REGION", region), ("AWS_EC2_METADATA_DISABLED", "true")]
            {
                environment.entry(variable.to_owned()).or_insert_with(|| value.to_owned());
            }
        }
    }
    for (name, value) in [
        ("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"),
        ("LANG", "C.UTF-8"),
        ("SHELL", "/bin/bash"),
        ("TERM", "xterm-256color"),
    ] {
        environment.entry(name.to_owned()).or_insert_with(|| value.to_owned());
    }
    ContainerSpec {
        name: id.object(Role::Agent),
        image: image.config.as_ref().unwrap_or(&image.digest).to_string(),
        command: vec![HELPER.to_owned(), "reap".to_owned()],
        user: AGENT,
        groups: Vec::new(),
        environment,
        working_directory: WORKSPACE.to_owned(),
        hostname: None,
        labels: BTreeMap::new(),
        network: Network::Container(id.object(Role::Relay)),
        dns: Vec::new(),
        mounts: vec![
            mount(id.object(Role::Workspace), WORKSPACE, false),
            mount(id.object(Role::Home), HOME, false),
            mount(id.object(Role::Secrets), SECRETS, true),
        ],
        tmpfs: vec![Tmpfs {
            target: "/tmp".to_owned(),
            size: profile.tmp_size.min(limits.memory / 2),
            mode: 0o1777,
            exec: true,
            owner: User { uid: 0, gid: 0 },
        }],
        limits: limits.clone(),
        seccomp: Some(profile.seccomp_json.clone()),
        masked_paths: profile.masked_paths.clone(),
        readonly_paths: profile.readonly_paths.clone(),
        open_stdin: false,
    }
}

fn planned_mounts(agent: &ContainerSpec) -> Vec<PlannedMount> {
    let purpose = |target: &str| match target {
        WORKSPACE => "the agent's own clone",
        HOME => "the agent's home",
        SECRETS => "credential files, in memory",
        "/tmp" => "temporary files, in memory",
        _ => "the launcher's helper",
    };
    let volumes = agent.mounts.iter().map(|mount| PlannedMount {
        target: mount.target.clone(),
        source: mount.volume.clone(),
        read_only: mount.read_only,
        purpose: purpose(&mount.target),
    });
    let tmpfs = agent.tmpfs.iter().map(|tmpfs| PlannedMount {
        target: tmpfs.target.clone(),
        source: "tmpfs".to_owned(),
        read_only: false,
        purpose: purpose(&tmpfs.target),
    });
    volumes.chain(tmpfs).collect()
}

fn planned_credential(name: &CredentialName, spec: &CredentialSpec) -> PlannedCredential {
    PlannedCredential {
        name: name.clone(),
        provider: spec.provider.word().to_owned(),
        deliver: match &spec.deliver {
            Delivery::File { name } => format!("file {SECRETS}/{name}"),
            Delivery::Git { host } => format!("git credential helper for {host}"),
            Delivery::Environment { variable } => format!("environment variable {variable}"),
            Delivery::Broker { host, placement, .. } => {
                format!("{placement} in requests to {host}, unseen by the agent")
            }
        },
        life: spec.provider.life().map(|life| life.as_secs()),
        expires_at: None,
    }
}

/// The container that reads the workspace of a stopped sandbox: no network, nothing writable but memory.
pub fn reader_container(plan_agent: &ContainerSpec, id: &SandboxId) -> ContainerSpec {
    let mut reader = plan_agent.clone();
    reader.name = id.object(Role::Reader);
    reader.network = Network::None;
    reader.dns = vec!["127.0.0.53".to_owned()];
    reader.mounts.retain(|mount| mount.target == WORKSPACE || mount.target == HELPER_FOLDER);
    for mount in &mut reader.mounts {
        mount.read_only = true;
    }
    reader.tmpfs.push(Tmpfs { target: HOME.to_owned(), size: MEBIBYTE, mode: 0o700, exec: false, owner: AGENT });
    reader
}

/// The container that looks at volumes with the launcher's own image: no network, nothing writable. Its mounts are still to
/// come.
pub fn volume_reader(id: &SandboxId, launcher: &Digest) -> ContainerSpec {
    let mut reader = plumbing(id, Role::Reader, launcher);
    reader.name = format!("{}-volumes", id.object(Role::Reader));
    reader.command = vec![LAUNCHER_BINARY.to_owned(), "reap".to_owned()];
    reader.user = AGENT;
    reader.mounts.clear();
    reader.dns = vec!["127.0.0.53".to_owned()];
    reader.limits.memory = 256 * MEBIBYTE;
    reader
}

#[cfg(test)]
mod tests;
