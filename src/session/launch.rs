//! Applies a plan: the steps of `up`, in an order in which every later step adds access and none removes it.
//!
//! Objects are journalled before they exist. The agent's container starts on the relay's network, with nothing but the
//! helper in it, while the gateway starts and gets its policy; only when the probe has held does it get credentials and
//! the project.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::watch;

use crate::audit::AuditLog;
use crate::audit::event::AuditEvent;
use crate::credential::signing_key::SigningKeyError;
use crate::credential::{CredentialError, IssueContext};
use crate::engine::stream::{AttachedStream, Chunk};
use crate::engine::{Engine, EngineError, ExecSpec};
use crate::gateway::protocol::ProxyLogIn;
use crate::image::{BuiltImage, ImageError};
use crate::init::frame::{Finding, Outcome, ProbeRequest};
use crate::network::name::HostPattern;
use crate::network::policy::Policy;
use crate::project::CredentialName;
use crate::project::manifest::Manifest;
use crate::session::gateway_control::GatewayControlError;
use crate::session::identity::{MachineKey, Role, SessionId, lock_file};
use crate::session::journal::{
    Journal, JournalError, JournalObject, JournalPort, ObjectKind, Phase, Record, RecordedEvents, SessionLimits,
};
use crate::session::launcher_image::{LauncherImage, LauncherImageError};
use crate::session::launcher_versions;
use crate::session::outside;
use crate::session::plan::{AGENT, HELPER, HOME, PROXY, Plan, WORKSPACE};
use crate::session::plan_parts;
use crate::session::stream_client::{SessionClient, SessionError};
use crate::workspace::WorkspaceError;
use crate::workspace::source::{self, SourceState};

mod containers;
mod delivery;
mod handing_over;

pub(super) use containers::wait_for_relay;
use containers::{Started, start_containers};
use delivery::{deliver, git_environment, issue_all, signing_key};
pub(super) use delivery::{issued_facts, lease};
use handing_over::hand_over;

/// Hosts whose addresses of ssh git is told to ask over https: each takes three settings of every command.
const REWRITTEN: usize = 32;
/// How long a session may take for one answer.
const SESSION_PATIENCE: Duration = Duration::from_secs(120);
/// How long relay and gateway may take until they listen.
pub(super) const READY_LIMIT: Duration = Duration::from_secs(20);

/// Why a sandbox could not be launched.
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    /// The engine failed.
    #[error("have the engine start the sandbox")]
    Engine(#[from] EngineError),
    /// The journal failed.
    #[error("journal the launch")]
    Journal(#[from] JournalError),
    /// The launcher's own image failed.
    #[error("make the launcher's image")]
    LauncherImage(#[from] LauncherImageError),
    /// The agent's image failed.
    #[error("build the agent's image")]
    Image(#[from] ImageError),
    /// A foreign image is not in the engine.
    #[error("find the image {reference} in the engine")]
    ImageAbsent {
        /// The reference.
        reference: String,
    },
    /// What the engine loaded is not what was sent.
    #[error("find the image {expected} in the engine after it was loaded")]
    ImageLost {
        /// The expected id.
        expected: String,
    },
    /// The gateway failed.
    #[error("set up the gateway")]
    Gateway(#[from] GatewayControlError),
    /// The relay did not start.
    #[error("start the relay, which said: {said}")]
    Relay {
        /// The last it printed, sanitised by who shows it.
        said: String,
    },
    /// The session inside the agent's container failed.
    #[error("set up the agent's container")]
    Session(#[from] SessionError),
    /// The confinement has a hole, so nothing was handed over.
    #[error("prove the confinement: {}", broken(.findings))]
    Probe {
        /// All findings.
        findings: Vec<Finding>,
    },
    /// A credential could not be issued.
    #[error("issue the credential `{name}`")]
    Credential {
        /// Its name.
        name: CredentialName,
        /// The cause.
        #[source]
        source: CredentialError,
    },
    /// The credentials could not be made into files.
    #[error("deliver the credentials")]
    Deliver(#[source] CredentialError),
    /// The audit log cannot be written.
    #[error("record the launch in the audit log")]
    Audit(#[from] crate::audit::AuditError),
    /// The workspace failed.
    #[error("hand the project over")]
    Workspace(#[from] WorkspaceError),
    /// The launcher's folders failed.
    #[error("use the launcher's folder {path}")]
    Folder {
        /// The folder.
        path: PathBuf,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// There is no key to sign with.
    #[error("make the key that signs the session's commits")]
    SigningKey(#[from] SigningKeyError),
}

fn broken(findings: &[Finding]) -> String {
    let broken = findings.iter().filter(|finding| finding.outcome == Outcome::Broken);
    broken.map(|finding| format!("{} ({})", finding.check, finding.detail)).collect::<Vec<_>>().join(", ")
}

/// The agent's image, wherever it comes from.
pub enum AgentImage {
    /// Built by the launcher from its lock; the archive is loaded when the engine lacks it.
    Built(Box<BuiltImage>),
    /// The engine has it under this id.
    Present(String),
}

/// What a launch needs.
pub struct LaunchInput<'a> {
    /// The engine.
    pub engine: &'a Engine,
    /// The launcher's state folder.
    pub state: &'a Path,
    /// The plan.
    pub plan: &'a Plan,
    /// The manifest that the plan was made of.
    pub manifest: &'a Manifest,
    /// The manifest's file.
    pub manifest_path: &'a Path,
    /// The launcher's own image.
    pub launcher: &'a LauncherImage,
    /// The agent's image.
    pub image: AgentImage,
    /// The developer's repository.
    pub source: &'a SourceState,
    /// The clone of an earlier session, when its volume is kept.
    pub kept: Option<KeptClone>,
    /// The key that signs labels.
    pub key: &'a MachineKey,
    /// `USER@HOST` of the developer.
    pub owner: &'a str,
    /// The developer's user name.
    pub actor: &'a str,
    /// How credentials are issued.
    pub issue: IssueContext<'a>,
    /// The audit log.
    pub audit: &'a AuditLog,
    /// The log-in at the company's proxy, where there is one.
    pub proxy_log_in: Option<ProxyLogIn>,
    /// Whether upstream failures are expected.
    pub offline: bool,
    /// True while an issuer is being asked. Whoever gives up a launch at such a moment forgets a credential that may have
    /// been made already.
    pub issuing: &'a watch::Sender<bool>,
    /// Told of each step as it begins.
    pub progress: &'a (dyn Fn(&'static str) + Sync),
}

/// A clone that an earlier session left in the workspace volume.
#[derive(Debug, Clone)]
pub struct KeptClone {
    /// Its branch.
    pub branch: String,
    /// The developer's commit that it started from.
    pub base: String,
    /// The commit that the agent's branch started at.
    pub start: String,
    /// Public keys of the sessions that worked on it.
    pub signers: Vec<String>,
}

/// A session that is ready for its command.
pub struct Launched {
    /// What the journal holds now.
    pub record: Record,
    /// The session in the agent's container that probed and cloned; the first command runs on it.
    pub client: ExecSession,
    /// Findings of the probe that are worth a word.
    pub warnings: Vec<String>,
}

/// A session program in the agent's container.
pub type ExecSession = SessionClient<Box<dyn tokio::io::AsyncRead + Send + Unpin>, crate::engine::stream::StreamInput>;

/// Makes an audit event of a sandbox.
pub fn event(actor: &str, record: &Record, action: &str, outcome: &str, facts: &[(&str, &str)]) -> AuditEvent {
    AuditEvent {
        time: Timestamp::now(),
        action: action.to_owned(),
        actor: actor.to_owned(),
        project: record.id.project.to_string(),
        sandbox: Some(record.id.name.to_string()),
        session: Some(record.session.as_str().to_owned()),
        outcome: outcome.to_owned(),
        facts: facts.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
    }
}

/// The record that is journalled before the first object of a launch exists.
///
/// # Errors
/// When the kernel gives no random bytes.
pub fn intend(input: &LaunchInput<'_>) -> Result<Record, LaunchError> {
    let plan = input.plan;
    let container = |role: Role| JournalObject {
        kind: ObjectKind::Container,
        name: plan.id.object(role),
        role: Some(role),
        id: None,
    };
    let volume = |role: Role| JournalObject { kind: ObjectKind::Volume, ..container(role) };
    let session =
        SessionId::random().map_err(|source| LaunchError::Folder { path: input.state.to_path_buf(), source })?;
    Ok(Record {
        version: 1,
        id: plan.id.clone(),
        session,
        phase: Phase::Launching,
        plan_hash: plan.plan_hash.clone(),
        plan_parts: plan_parts::parts(plan),
        owner: input.owner.to_owned(),
        manifest: input.manifest_path.to_path_buf(),
        repository: input.manifest.workspace.source.clone(),
        branch: input.kept.as_ref().map_or(&input.source.branch, |kept| &kept.branch).clone(),
        base: input.kept.as_ref().map_or(&input.source.base, |kept| &kept.base).clone(),
        start: input.kept.as_ref().map(|kept| kept.start.clone()).unwrap_or_default(),
        signers: input.kept.as_ref().map(|kept| kept.signers.clone()).unwrap_or_default(),
        engine: input.engine.info().endpoint.clone(),
        image: plan.image.digest.to_string(),
        limits: SessionLimits {
            disk: plan.disk,
            home: plan.workspace.home_limit,
            session: plan.session_limit.map(Duration::from_secs),
        },
        policy: plan.network.clone(),
        ports: plan.ports.iter().map(|&forward| JournalPort { forward, problem: None }).collect(),
        keep_home: plan.workspace.keep_home,
        standing: BTreeMap::new(),
        objects: vec![
            container(Role::Agent),
            container(Role::Gateway),
            container(Role::Relay),
            container(Role::Fill),
            container(Role::Reader),
            volume(Role::Workspace),
            volume(Role::Home),
            volume(Role::Secrets),
            volume(Role::Channel),
        ],
        leases: BTreeMap::new(),
        retiring: Vec::new(),
        environment: BTreeMap::new(),
        secret_environment: BTreeMap::new(),
        links: BTreeMap::new(),
        started_at: Timestamp::now(),
        restarted: None,
        ended: None,
        recorded: RecordedEvents::default(),
    })
}

/// Applies the plan. On an error, or when the future is dropped, the caller takes down what `record` names.
///
/// # Errors
/// When any step fails.
pub async fn launch(input: LaunchInput<'_>, record: &mut Record) -> Result<Launched, LaunchError> {
    let LaunchInput { engine, plan, .. } = &input;
    let journal = Journal::of(input.state, &plan.id);
    journal.write(record)?;
    audit(&input, record, "session.launching", &[("plan", &plan.plan_hash), ("image", &record.image.clone())])?;

    (input.progress)("preparing images");
    let launcher_id = ensure_launcher(engine, input.state, input.launcher).await?;
    let agent_id = ensure_agent_image(engine, &input.image, input.progress).await?;

    let issue = IssueContext { session: Some(record.session.as_str().to_owned()), ..input.issue.clone() };
    input.issuing.send_replace(true);
    let issuing = async {
        let issued = issue_all(&input, record, &journal, &issue).await;
        input.issuing.send_replace(false);
        issued
    };
    let starting = start_containers(&input, record.clone(), &journal, &launcher_id, &agent_id);
    // Issuers answer while the engine works. Nothing is delivered before the probe.
    let (issued, started) = tokio::join!(issuing, starting);
    // Both wrote it meanwhile.
    if let Some(now) = journal.read()? {
        *record = now;
    }
    let issued = issued?;
    let Started { agent_id, mut gateway, mut client } = started?;
    record.name_object(Role::Agent, &agent_id);
    journal.write(record)?;

    (input.progress)("proving the confinement");
    let mut warnings = probe(&input, record, &mut client).await?;

    let signing_key = signing_key(&input, record)?;
    let delivered = deliver(&input, record, issued, signing_key, &mut gateway).await?;
    record.secret_environment = delivered.secret_environment;
    let rewritten = source::https_for_ssh(&hosts_of_ssh(&input.plan.network));
    record.links = delivered.links;
    record.environment = git_environment(&[delivered.git_configuration, rewritten].concat());
    record.environment.extend(delivered.environment);

    (input.progress)("handing the project over");
    record.start = hand_over(&input, &mut client, &mut warnings).await?;
    record.standing = outside::look(&mut client).await?.digests;
    record.environment.insert("SANDBOX_SESSION".to_owned(), record.session.as_str().to_owned());
    if let Some(person) = source::person(&input.manifest.workspace.source, input.issue.home) {
        record.environment.insert("SANDBOX_PERSON".to_owned(), person);
    }
    record.phase = Phase::Running;
    journal.write(record)?;
    audit(&input, record, "session.started", &[("branch", &record.branch.clone()), ("base", &record.base.clone())])?;
    Ok(Launched { record: record.clone(), client, warnings })
}

fn audit(input: &LaunchInput<'_>, record: &Record, action: &str, facts: &[(&str, &str)]) -> Result<(), LaunchError> {
    let event = event(input.actor, record, action, "ok", facts);
    // What is not recorded does not happen: a session starts only with a log that can be written.
    input.audit.append(&event)?;
    Ok(())
}

/// The id of the launcher's own image, which is loaded when the engine lacks it.
///
/// # Errors
/// When it cannot be made or loaded.
pub async fn ensure_launcher(engine: &Engine, state: &Path, launcher: &LauncherImage) -> Result<String, LaunchError> {
    for id in [&launcher.config, &launcher.manifest] {
        if let Some(found) = engine.image(&id.to_string()).await? {
            return Ok(found.id);
        }
    }
    let failed = |source| LaunchError::Folder { path: state.to_path_buf(), source };
    // Two launches at once would send the same archive twice.
    let lock = lock_file(state, "launcher-image.lock").map_err(failed)?;
    let lock = tokio::task::spawn_blocking(move || lock.lock().map(|()| lock))
        .await
        .map_err(|error| failed(std::io::Error::other(error)))?
        .map_err(failed)?;
    launcher_versions::remember(state, &launcher.config).map_err(failed)?;
    let archive = launcher.archive()?;
    engine.load_image(tokio::fs::File::from_std(archive)).await?;
    drop(lock);
    for id in [&launcher.config, &launcher.manifest] {
        if let Some(found) = engine.image(&id.to_string()).await? {
            return Ok(found.id);
        }
    }
    Err(LaunchError::ImageLost { expected: launcher.config.to_string() })
}

async fn ensure_agent_image(
    engine: &Engine,
    image: &AgentImage,
    progress: &(dyn Fn(&'static str) + Sync),
) -> Result<String, LaunchError> {
    let built = match image {
        AgentImage::Present(id) => return Ok(id.clone()),
        AgentImage::Built(built) => built,
    };
    let ids = [built.config_digest.to_string(), built.manifest_digest.to_string()];
    for id in &ids {
        if let Some(found) = engine.image(id).await? {
            return Ok(found.id);
        }
    }
    progress("loading the agent's image");
    engine.load_image(built.archive()?).await?;
    for id in &ids {
        if let Some(found) = engine.image(id).await? {
            return Ok(found.id);
        }
    }
    Err(LaunchError::ImageLost { expected: ids[0].clone() })
}

/// Starts a session program in a running container of the agent's.
///
/// # Errors
/// When the engine refuses.
pub async fn open_session(engine: &Engine, container: &str) -> Result<ExecSession, EngineError> {
    open_session_of(engine, container, HELPER).await
}

/// Starts a session program that is at this path of the container.
///
/// # Errors
/// When the engine refuses.
pub async fn open_session_of(engine: &Engine, container: &str, program: &str) -> Result<ExecSession, EngineError> {
    let spec = ExecSpec {
        command: vec![program.to_owned(), "session".to_owned()],
        user: AGENT,
        environment: BTreeMap::new(),
        working_directory: "/".to_owned(),
        stdin: true,
    };
    let stream = engine.exec(container, &spec).await?;
    let AttachedStream { input, output, .. } = stream;
    let chunks = futures_util::stream::unfold(output, |mut output| async move {
        loop {
            match output.next().await {
                Ok(None) => return None,
                Ok(Some(Chunk::Out(bytes))) => return Some((Ok(bytes), output)),
                Ok(Some(Chunk::Err(bytes))) => {
                    tracing::debug!(said = %String::from_utf8_lossy(&bytes).escape_debug(), "the session program wrote to its standard error");
                }
                Err(error) => return Some((Err(std::io::Error::other(error)), output)),
            }
        }
    });
    let reader: Box<dyn tokio::io::AsyncRead + Send + Unpin> =
        Box::new(tokio_util::io::StreamReader::new(Box::pin(chunks)));
    Ok(SessionClient::new(reader, input, SESSION_PATIENCE))
}

/// The name that the probe asks for and that no policy lists: below `.invalid` (RFC 2606, section 2).
pub fn probe_host(session: &str) -> String {
    format!("{session}.invalid")
}

/// Has the confinement proved from inside the agent's container, and gives what was found.
///
/// # Errors
/// When a check finds a hole, or when there is no answer.
pub async fn prove(client: &mut ExecSession, record: &Record, offline: bool) -> Result<Vec<Finding>, LaunchError> {
    let listed = record.policy.allow.iter().find_map(|rule| match &rule.host {
        crate::network::name::HostPattern::Exact(name) => Some((name.to_string(), rule.port)),
        _ => None,
    });
    let mut unlisted = probe_host(record.session.as_str());
    if record.policy.observe {
        // Every host is listed then, on the web's ports.
        unlisted.push_str(":1");
    }
    let request = ProbeRequest {
        proxy: PROXY.to_owned(),
        listed,
        unlisted,
        offline,
        writable: vec![WORKSPACE.to_owned(), HOME.to_owned(), "/tmp".to_owned()],
    };
    let findings = client.probe(request).await?;
    if findings.iter().any(|finding| finding.outcome == Outcome::Broken) || findings.is_empty() {
        return Err(LaunchError::Probe { findings });
    }
    Ok(findings)
}

async fn probe(input: &LaunchInput<'_>, record: &Record, client: &mut ExecSession) -> Result<Vec<String>, LaunchError> {
    let findings = prove(client, record, input.offline).await?;
    audit(input, record, "session.probed", &[("checks", &findings.len().to_string())])?;
    let warnings = findings.into_iter().filter(|finding| finding.outcome == Outcome::Warning);
    Ok(warnings.map(|finding| format!("{}: {}", finding.check, finding.detail)).collect())
}

/// The hosts that git asks over https in place of ssh: those that are listed for the one and not for the other.
fn hosts_of_ssh(network: &Policy) -> Vec<String> {
    let exact = network.allow.iter().filter(|rule| rule.port == 443).filter_map(|rule| match &rule.host {
        HostPattern::Exact(name) if network.find(name, 22).is_none() => Some(name.to_string()),
        HostPattern::Exact(_) | HostPattern::Below(_) | HostPattern::Address(_) => None,
    });
    exact.take(REWRITTEN).collect()
}
