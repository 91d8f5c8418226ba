//! `sandbox ps` and `sandbox status`: what runs, and how one sandbox is.

use std::fmt::Write as _;

use comfy_table::{Table, presets};
use jiff::Timestamp;
use serde::Serialize;

use crate::commands::connect::connect;
use crate::commands::denied::{DeniedRow, denied};
use crate::commands::load::{Target, machine_key};
use crate::commands::printer::sanitise;
use crate::commands::{Context, Failure, sandbox};
use crate::project::{PortForward, ProjectName, SandboxName};
use crate::session::identity::Role;
use crate::session::journal::JournalPort;
use crate::session::ports;
use crate::session::reconcile::{Condition, SandboxState, reconcile_all};

/// Arguments of `ps`.
#[derive(Debug, clap::Args)]
pub struct Args {}

/// Arguments of `status`.
#[derive(Debug, clap::Args)]
pub struct StatusArgs {
    /// Which sandbox.
    #[command(flatten)]
    pub target: Target,
}

/// One row of `ps`.
#[derive(Debug, Serialize)]
struct Row {
    project: ProjectName,
    name: SandboxName,
    condition: Condition,
    #[serde(skip_serializing_if = "Option::is_none")]
    branch: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    started_at: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    owner: Option<String>,
    credentials: usize,
}

/// Lists every sandbox of this machine.
///
/// # Errors
/// When engine or journals cannot be read.
pub async fn run(context: &Context, _args: &Args) -> Result<u8, Failure> {
    let engine = connect(context).await?;
    let key = machine_key(context)?;
    let states = reconcile_all(&engine, &context.folders.state, &key).await?;
    let rows: Vec<Row> = states.iter().filter(|state| state.condition != Condition::Absent).map(row).collect();
    context.printer.result(&rows, || table(&rows));
    Ok(0)
}

fn row(state: &SandboxState) -> Row {
    Row {
        project: state.id.project.clone(),
        name: state.id.name.clone(),
        condition: state.condition,
        branch: state.record.as_ref().map(|record| record.branch.clone()),
        started_at: state.record.as_ref().map(|record| record.started_at),
        owner: state.foreign.clone().or_else(|| state.record.as_ref().map(|record| record.owner.clone())),
        credentials: state.record.as_ref().map_or(0, |record| record.leases.len()),
    }
}

pub(super) fn word(condition: Condition) -> &'static str {
    match condition {
        Condition::Absent => "absent",
        Condition::Changing => "changing",
        Condition::Running => "running",
        Condition::Unsupervised => "unsupervised",
        Condition::Stopped => "stopped",
        Condition::Kept => "home kept",
        Condition::Half => "cut off",
        Condition::Foreign => "somebody else's",
    }
}

fn table(rows: &[Row]) -> String {
    if rows.is_empty() {
        return "no sandbox; start one with `sandbox up`".to_owned();
    }
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_header([
        "PROJECT",
        "NAME",
        "STATE",
        "BRANCH",
        "SINCE",
        "CREDENTIALS",
        "OWNER",
    ]);
    for row in rows {
        table.add_row([
            row.project.to_string(),
            row.name.to_string(),
            word(row.condition).to_owned(),
            sanitise(row.branch.as_deref().unwrap_or("-")),
            row.started_at.map_or_else(|| "-".to_owned(), ago),
            row.credentials.to_string(),
            sanitise(row.owner.as_deref().unwrap_or("-")),
        ]);
    }
    table.to_string()
}

/// A time for people: how long ago.
pub(super) fn ago(time: Timestamp) -> String {
    let seconds = Timestamp::now().as_second().saturating_sub(time.as_second()).max(0);
    match seconds {
        0..=59 => format!("{seconds}s ago"),
        60..=3599 => format!("{}m ago", seconds / 60),
        3600..=86_399 => format!("{}h {}m ago", seconds / 3600, seconds % 3600 / 60),
        _ => format!("{}d ago", seconds / 86_400),
    }
}

/// What `status` reports.
#[derive(Debug, Serialize)]
struct Status {
    project: ProjectName,
    name: SandboxName,
    condition: Condition,
    session: String,
    started_at: Timestamp,
    owner: String,
    branch: String,
    base: String,
    image: String,
    plan_hash: String,
    supervised: bool,
    containers: Vec<ContainerRow>,
    credentials: Vec<CredentialRow>,
    allow: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    ports: Vec<PortRow>,
    denied: Vec<DeniedRow>,
    #[serde(skip_serializing_if = "Option::is_none")]
    restarted: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ended: Option<String>,
    out_of_memory: bool,
}

#[derive(Debug, Serialize)]
struct ContainerRow {
    role: &'static str,
    status: String,
}

#[derive(Debug, Serialize)]
struct CredentialRow {
    name: String,
    provider: String,
    fingerprint: String,
    issued_at: Timestamp,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_at: Option<Timestamp>,
    /// When it is of no use any more: then, or at the age that the manifest allows.
    #[serde(skip_serializing_if = "Option::is_none")]
    ends_at: Option<Timestamp>,
    /// Since when it could not be replaced.
    #[serde(skip_serializing_if = "Option::is_none")]
    failing_since: Option<Timestamp>,
}

impl CredentialRow {
    /// Until when it lasts, in words.
    fn lasts(&self, now: Timestamp) -> String {
        let failing = self
            .failing_since
            .map(|since| format!(", could not be replaced since {since}: `sandbox audit log` says why"));
        let until = match self.ends_at {
            None => "does not expire by itself".to_owned(),
            Some(end) if end <= now => format!("RAN OUT at {end}"),
            Some(end) => format!("until {end}"),
        };
        until + &failing.unwrap_or_default()
    }
}

/// A port that the manifest names.
#[derive(Debug, Serialize)]
struct PortRow {
    #[serde(flatten)]
    forward: PortForward,
    url: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<String>,
}

/// Reports how one sandbox is. Exit code 0 when it runs, 1 when not.
///
/// # Errors
/// When there is none, or engine or journal cannot be read.
pub async fn status(context: &Context, args: &StatusArgs) -> Result<u8, Failure> {
    let engine = connect(context).await?;
    let found = sandbox::find(context, &engine, &args.target).await?;
    let record = &found.record;
    let roles = [Role::Agent, Role::Relay, Role::Gateway];
    let containers = roles.into_iter().map(|role| ContainerRow {
        role: role.as_str(),
        status: found
            .state
            .containers
            .get(&role)
            .map_or_else(|| "absent".to_owned(), |container| format!("{:?}", container.status).to_lowercase()),
    });
    let leases = record.leases.iter().map(|(name, lease)| CredentialRow {
        name: name.to_string(),
        provider: lease.spec.provider.word().to_owned(),
        fingerprint: lease.fingerprint.clone(),
        issued_at: lease.issued_at,
        expires_at: lease.expires_at,
        ends_at: lease.ends_at(),
        failing_since: lease.failing_since,
    });
    let status = Status {
        project: record.id.project.clone(),
        name: record.id.name.clone(),
        condition: found.state.condition,
        session: record.session.as_str().to_owned(),
        started_at: record.started_at,
        owner: record.owner.clone(),
        branch: record.branch.clone(),
        base: record.base.clone(),
        image: record.image.clone(),
        plan_hash: record.plan_hash.clone(),
        supervised: found.state.supervised,
        containers: containers.collect(),
        credentials: leases.collect(),
        allow: record.policy.allow.iter().map(|rule| format!("{}:{}", rule.host, rule.port)).collect(),
        ports: ports_of(&found),
        denied: denied(context, record.session.as_str())?,
        restarted: record.restarted,
        ended: record.ended.clone(),
        out_of_memory: found.state.containers.get(&Role::Agent).is_some_and(|agent| agent.oom_killed),
    };
    context.printer.described(&status, || describe(&status));
    Ok(u8::from(found.state.condition != Condition::Running))
}

/// The ports that the supervisor forwards; without one it is nobody.
fn ports_of(found: &sandbox::Sandbox) -> Vec<PortRow> {
    let runs = found.state.supervised && found.state.condition == Condition::Running;
    let ports = found.record.ports.iter().filter(|_| runs);
    let row = |port: &JournalPort| PortRow {
        forward: port.forward,
        url: ports::url(&found.record.id.project, port.forward),
        problem: port.problem.clone(),
    };
    ports.map(row).collect()
}

fn describe(status: &Status) -> String {
    let mut text = String::new();
    let mut row = |name: &str, value: String| {
        let _ = writeln!(text, "{name:<12} {}", sanitise(&value));
    };
    row("project", format!("{} ({})", status.project, status.name));
    row("state", word(status.condition).to_owned());
    if status.condition == Condition::Unsupervised {
        row("", "nobody renews its credentials or records what it does; `sandbox up` mends that".to_owned());
    }
    row("session", format!("{}, {}", status.session, ago(status.started_at)));
    row("branch", format!("{} from {}", status.branch, status.base.get(..12).unwrap_or(&status.base)));
    row("image", status.image.clone());
    let containers = status.containers.iter().map(|container| format!("{} {}", container.role, container.status));
    row("containers", containers.collect::<Vec<_>>().join(", "));
    for credential in &status.credentials {
        let lasts = credential.lasts(Timestamp::now());
        let CredentialRow { name, provider, fingerprint, .. } = credential;
        row("credential", format!("{name} from {provider}, {lasts}, fingerprint {fingerprint}"));
    }
    row("network", if status.allow.is_empty() { "nothing".to_owned() } else { status.allow.join(", ") });
    for port in &status.ports {
        let problem = port.problem.as_ref().map(|problem| format!(", not forwarded: {problem}")).unwrap_or_default();
        row("port", format!("{} at {}{problem}", port.forward.port, port.url));
    }
    for denied in &status.denied {
        let request = denied.request.as_ref().map(|request| format!(" {request}")).unwrap_or_default();
        let times = if denied.count == 1 { "once".to_owned() } else { format!("{} times", denied.count) };
        let remedy = denied.remedy.as_ref().map(|remedy| format!("; to allow it: {remedy}")).unwrap_or_default();
        let port = if denied.port.is_empty() { String::new() } else { format!(":{}", denied.port) };
        row("denied", format!("{}{port}{request} {times}, last {}{remedy}", denied.host, ago(denied.last)));
    }
    if status.out_of_memory {
        row("memory", "the agent was killed because it used more than `resources.memory`".to_owned());
    }
    if let Some(at) = status.restarted {
        row("restarted", format!("{}: the relay died, so the agent's container was started again after it", ago(at)));
    }
    if let Some(ended) = &status.ended {
        row("ended", ended.clone());
    }
    text
}
