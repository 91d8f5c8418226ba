//! `sandbox network allow` and `deny`. The change is recorded before it happens, and never goes beyond what a manifest
//! could have under the user's own configuration.

use std::fmt::Write as _;

use serde::Serialize;

use super::{AllowArgs, DenyArgs, destination};
use crate::audit::AuditLog;
use crate::commands::connect::connect;
use crate::commands::load::{Target, actor};
use crate::commands::printer::sanitise;
use crate::commands::sandbox::{self, Sandbox};
use crate::commands::up::take_lock;
use crate::commands::{Context, Failure};
use crate::engine::Engine;
use crate::network::policy::{AllowRule, DenyRule, Policy};
use crate::network::request::RequestRule;
use crate::project::manifest::ManifestError;
use crate::project::{allow_entry, configuration};
use crate::session::journal::{Journal, Phase, Record};
use crate::session::launch::event;
use crate::session::live_policy::{self, LivePolicyError};
use crate::session::plan::Plan;
use crate::session::plan_parts;

/// What was changed.
#[derive(Debug, Serialize)]
struct Report {
    project: String,
    name: String,
    host: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    port: Option<u16>,
    changed: bool,
    /// What to write into `network.allow` of sandbox.yaml for the change to stay, or what to take out of it.
    manifest: Vec<String>,
    /// Entries of the file that the change is about.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    replaces: Vec<String>,
}

/// What was refused.
#[derive(Debug, thiserror::Error)]
enum Refused {
    #[error("allow `{0}`")]
    Entry(String),
    #[error("understand the private network `{}`", .0.escape_debug())]
    Private(String),
    #[error("understand the request `{}`", .0.escape_debug())]
    Request(String, #[source] crate::network::request::RuleError),
}

impl From<LivePolicyError> for Failure {
    fn from(error: LivePolicyError) -> Self {
        match error {
            LivePolicyError::Gateway(error) => error.into(),
            LivePolicyError::Journal(error) => error.into(),
            LivePolicyError::Lock(ref source) => Failure::system(
                "state-folder",
                "use the sandbox's locks",
                source,
                "make the state folder writable for you",
            ),
            LivePolicyError::Ended => Failure::new("sandbox-stopped", &error, "start it with `sandbox up`"),
            LivePolicyError::Inspection => Failure::new(
                "network-restart",
                &error,
                "allow the whole host, or write the rule into sandbox.yaml, then `sandbox down` and `sandbox up`",
            ),
        }
    }
}

/// Lets the running sandbox reach one more destination.
pub(super) async fn allow(context: &Context, args: &AllowArgs) -> Result<u8, Failure> {
    let entry = entry(args)?;
    let (engine, found, journal) = running(context, &args.project, &args.name).await?;
    let _lock = take_lock(context, &journal).await?;
    let record = current(&journal, &found.record)?;
    let shown = format!("{}:{}", entry.host, entry.port);
    let (changed, entry) = match live_policy::with_allowed(&record.policy, &entry) {
        None => (false, entry),
        Some((policy, entry)) => {
            check(context, &policy, &shown)?;
            let line = allow_entry::text(&entry);
            note(context, &record, "policy.allowed", &[("host", &shown), ("entry", &line)])?;
            live_policy::put_in_force(&engine, &journal, &record, &policy, None).await?;
            (true, entry)
        }
    };
    let own = |rule: &&AllowRule| rule.host == entry.host && rule.port == entry.port && !rule.is_added();
    let report = Report {
        project: record.id.project.to_string(),
        name: record.id.name.to_string(),
        host: entry.host.to_string(),
        port: Some(entry.port),
        changed,
        manifest: if changed { vec![format!("- {}", allow_entry::text(&entry))] } else { Vec::new() },
        replaces: record.policy.allow.iter().filter(own).filter_map(|rule| rule.origin.clone()).collect(),
    };
    let wider = record.policy.denied.iter().find(|rule| rule.covers_pattern(&entry.host, entry.port));
    if let Some(wider) = wider.filter(|rule| rule.host != entry.host) {
        context.printer.warning(&format!("{} is denied still: allow that first", wider.host));
    }
    context.printer.result(&report, || describe_allowed(&report));
    Ok(0)
}

/// Denies the running sandbox a destination.
pub(super) async fn deny(context: &Context, args: &DenyArgs) -> Result<u8, Failure> {
    let (host, port) = destination(&args.destination)?;
    let (engine, found, journal) = running(context, &args.project, &args.name).await?;
    let _lock = take_lock(context, &journal).await?;
    let record = current(&journal, &found.record)?;
    let denial = DenyRule { host, port };
    let policy = live_policy::with_denied(&record.policy, &denial);
    let changed = policy != record.policy;
    if changed {
        let port = denial.port.map_or_else(|| "every".to_owned(), |port| port.to_string());
        note(context, &record, "policy.denied", &[("host", &denial.host.to_string()), ("port", &port)])?;
        live_policy::put_in_force(&engine, &journal, &record, &policy, None).await?;
    }
    let covered = |rule: &&AllowRule| denial.covers_pattern(&rule.host, rule.port) && !rule.is_added();
    let entries: Vec<&AllowRule> = record.policy.allow.iter().filter(covered).collect();
    let report = Report {
        project: record.id.project.to_string(),
        name: record.id.name.to_string(),
        host: denial.host.to_string(),
        port: denial.port,
        changed,
        manifest: entries.iter().map(|rule| format!("- {}", allow_entry::text(rule))).collect(),
        replaces: entries.iter().filter_map(|rule| rule.origin.clone()).collect(),
    };
    context.printer.result(&report, || describe_denied(&report));
    Ok(0)
}

/// Has a running sandbox take the network of a manifest that was changed and approved.
///
/// # Errors
/// When more than the allow list was changed, or when the gateway does not take it.
pub async fn apply(
    context: &Context,
    engine: &Engine,
    journal: &Journal,
    record: &Record,
    plan: &Plan,
) -> Result<(), Failure> {
    let mut differences = plan_parts::differences(&record.plan_parts, &plan_parts::parts(plan));
    if record.policy.observe != plan.network.observe {
        differences.push("network, which observes in one of the two");
    }
    if record.plan_parts.is_empty() || !differences.is_empty() {
        return Err(sandbox::other_plan(record, &differences));
    }
    let policy = live_policy::with_manifest(&record.policy, &plan.network);
    let names = |from: &Policy, without: &Policy| {
        let bare = |rule: &AllowRule| AllowRule { origin: None, ..rule.clone() };
        let only = from.allow.iter().filter(|rule| !without.allow.iter().any(|other| bare(rule) == bare(other)));
        only.map(|rule| format!("{}:{}", rule.host, rule.port)).collect::<Vec<_>>().join(", ")
    };
    let (begins, ends) = (names(&policy, &record.policy), names(&record.policy, &policy));
    note(context, record, "policy.applied", &[("begins", &begins), ("ends", &ends)])?;
    live_policy::put_in_force(engine, journal, record, &policy, Some(&plan.plan_hash)).await?;
    let said = |word: &str, list: &str| if list.is_empty() { String::new() } else { format!("; {word}: {list}") };
    let (begins, ends) = (said("from now on", &begins), said("no more as before", &ends));
    context.printer.note(&format!("the running sandbox took the changed `network` of sandbox.yaml{begins}{ends}"));
    for denial in &policy.denied {
        if plan.network.allow.iter().any(|rule| denial.covers_pattern(&rule.host, rule.port)) {
            context
                .printer
                .warning(&format!("{} stays denied in this session: allow it by `sandbox network allow`", denial.host));
        }
    }
    Ok(())
}

/// The entry that is asked for.
fn entry(args: &AllowArgs) -> Result<AllowRule, Failure> {
    let (host, port) = destination(&args.destination)?;
    let mut entry = AllowRule::new(host, port.unwrap_or(443));
    for text in &args.allow_private {
        let network = text.parse().map_err(|_| {
            let next = "write a network such as 10.20.0.0/16";
            Failure::new("destination", &Refused::Private(text.clone()), next)
        })?;
        entry.allow_private.push(network);
    }
    if let (Some(method), Some(path)) = (&args.method, &args.path) {
        let text = format!("{} {path}", method.to_uppercase());
        let rule: RequestRule = text.parse().map_err(|error| {
            Failure::new(
                "destination",
                &Refused::Request(text, error),
                "write a method and a path such as GET /acme/**",
            )
        })?;
        entry.rules.push(rule);
    }
    Ok(entry)
}

async fn running(
    context: &Context,
    project: &str,
    name: &crate::project::SandboxName,
) -> Result<(Engine, Sandbox, Journal), Failure> {
    let engine = connect(context).await?;
    let target = Target { project: Some(project.to_owned()), name: name.clone() };
    let found = sandbox::find(context, &engine, &target).await?;
    let journal = Journal::of(&context.folders.state, &found.record.id);
    Ok((engine, found, journal))
}

/// The record under the sandbox's lock, if the session that was found still runs.
fn current(journal: &Journal, found: &Record) -> Result<Record, Failure> {
    let runs = |record: &Record| record.session == found.session && record.phase == Phase::Running;
    journal.read()?.filter(runs).ok_or_else(|| sandbox::not_running(found))
}

/// Refuses a list that no manifest could have here.
fn check(context: &Context, policy: &Policy, shown: &str) -> Result<(), Failure> {
    let configuration = configuration::load(&context.folders.config)?;
    let Err(error) = allow_entry::check(&policy.allow, &configuration) else { return Ok(()) };
    let next = error
        .problems()
        .last()
        .map_or_else(|| "see `sandbox network ls`".to_owned(), |problem| sanitise(&problem.remedy));
    let mut failure = Failure::new("network-entry", &Refused::Entry(shown.to_owned()), next);
    failure.why = reasons(&error);
    Err(failure)
}

fn reasons(error: &ManifestError) -> Vec<String> {
    error.problems().iter().take(5).map(|problem| sanitise(&problem.message)).collect()
}

/// Records what a person does to the running sandbox. What is not recorded must not happen.
fn note(context: &Context, record: &Record, action: &str, facts: &[(&str, &str)]) -> Result<(), Failure> {
    let (actor, _) = actor();
    AuditLog::open(&context.folders.state)?.append(&event(&actor, record, action, "ok", facts))?;
    Ok(())
}

fn describe_allowed(report: &Report) -> String {
    let (host, port) = (&report.host, report.port.unwrap_or(443));
    if !report.changed {
        return format!("{host}:{port} is allowed already; nothing was changed");
    }
    let mut text = format!("{host}:{port} is allowed until the session ends; to keep it, ");
    match report.replaces.first() {
        None => text.push_str("add to `network.allow` in sandbox.yaml:\n"),
        Some(place) => {
            let _ = writeln!(text, "write in place of the entry at {place}:");
        }
    }
    for line in &report.manifest {
        let _ = writeln!(text, "    {line}");
    }
    text
}

fn describe_denied(report: &Report) -> String {
    let port = report.port.map(|port| format!(":{port}")).unwrap_or_default();
    if !report.changed {
        return format!("{}{port} is denied already; nothing was changed", report.host);
    }
    let mut text =
        format!("{}{port} is denied until the session ends, and what was open to it is cut off", report.host);
    if report.replaces.is_empty() {
        return text;
    }
    text.push_str("; to keep it, take out of `network.allow` in sandbox.yaml:\n");
    for (line, place) in report.manifest.iter().zip(&report.replaces) {
        let _ = writeln!(text, "    {line}   ({place})");
    }
    text
}
