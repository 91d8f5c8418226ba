//! `sandbox report`: what one session of a project's sandbox did, from the audit log, also when it is long gone.

use std::fmt::Write as _;
use std::path::PathBuf;

use crate::audit::AuditLog;
use crate::audit::report::{CredentialUse, Exchange, Reporter, Scope, SessionReport};
use crate::commands::load::{Target, manifest};
use crate::commands::page::page;
use crate::commands::printer::sanitise;
use crate::commands::{Context, Failure, review};
use crate::project::ProjectName;
use crate::project::quantity::show_size;
use crate::session::launch::probe_host;

/// Arguments of `report`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Which sandbox.
    #[command(flatten)]
    pub target: Target,
    /// The session's id; the last session when left out
    #[arg(long, value_name = "ID")]
    pub session: Option<String>,
    /// Also write it to this file, as a page that stands alone
    #[arg(long, value_name = "FILE")]
    pub output: Option<PathBuf>,
}

/// What is asked about and not in the log.
#[derive(Debug, thiserror::Error)]
enum ReportError {
    #[error("find a session of {project} ({name}) in the audit log")]
    NoSession { project: ProjectName, name: String },
    #[error("find the session `{}` of {project} ({name}) in the audit log", .session.escape_debug())]
    Unknown { project: ProjectName, name: String, session: String },
}

/// Reports what a session did.
///
/// # Errors
/// When there was no such session, or the log cannot be read.
pub fn run(context: &Context, args: &Args) -> Result<u8, Failure> {
    let report = session(context, &args.target, args.session.as_deref())?;
    if let Some(file) = &args.output {
        let title = format!("Session of {} ({})", report.project, report.sandbox);
        review::write(file, &page(&title, &review::session_page(&title, &report)))?;
    }
    context.printer.described(&report, || describe(&report));
    Ok(0)
}

/// The report of a session, the last one when none is named.
///
/// # Errors
/// As for [`run`].
pub fn session(context: &Context, target: &Target, session: Option<&str>) -> Result<SessionReport, Failure> {
    let named = target.project.as_deref().and_then(|text| text.parse::<ProjectName>().ok());
    let project = match named {
        Some(project) => project,
        None => manifest(context, target.project.as_deref())?.1.project,
    };
    let name = target.name.to_string();
    let scope = Scope { project: Some(project.to_string()), sandbox: Some(name.clone()), ..Scope::default() };
    let mut sessions = sessions(context, scope)?;
    let found = match session {
        None => sessions.pop(),
        Some(id) => sessions.into_iter().rev().find(|report| report.session == id),
    };
    found.ok_or_else(|| match session {
        None => Failure::new(
            "no-session",
            &ReportError::NoSession { project, name },
            "start one with `sandbox up`; `sandbox audit report` lists the sessions of all projects",
        ),
        Some(id) => Failure::new(
            "no-session",
            &ReportError::Unknown { project, name, session: id.chars().take(80).collect() },
            "leave --session out for the last one; `sandbox audit report` lists them all",
        ),
    })
}

/// Every session in the scope, in the order of their launches.
///
/// # Errors
/// When the log cannot be read.
pub fn sessions(context: &Context, scope: Scope) -> Result<Vec<SessionReport>, Failure> {
    let mut reporter = Reporter::new(scope);
    AuditLog::open(&context.folders.state)?.records(|record| reporter.add(&record.event, probe_host))?;
    Ok(reporter.finish())
}

/// A number with its noun.
pub fn counted(count: u64, noun: &str) -> String {
    if count == 1 { format!("1 {noun}") } else { format!("{count} {noun}s") }
}

/// How a credential was used, in words.
pub fn usage(used: &CredentialUse) -> String {
    let mut parts = Vec::new();
    if let Some(reads) = used.reads {
        parts.push(format!("file opened {}", counted(reads, "time")));
    }
    if used.injected > 0 {
        parts.push(format!("put into {}", counted(used.injected, "request")));
    }
    if parts.is_empty() {
        parts.push("no use was seen".to_owned());
    }
    if used.rotations > 0 {
        parts.push(format!("replaced {}", counted(used.rotations, "time")));
    }
    if used.renewals > 0 {
        parts.push(format!("renewed {}", counted(used.renewals, "time")));
    }
    parts.join(", ")
}

/// What came back, in words.
pub fn exchange(exchange: &Exchange) -> String {
    let fact = |name: &str| exchange.facts.get(name).map(String::as_str).unwrap_or_default();
    let number = |name: &str| fact(name).parse().unwrap_or_default();
    let mut text = format!("{}, {}", counted(number("commits"), "commit"), counted(number("files"), "file"));
    if exchange.landed {
        let _ = write!(text, " into {}", fact("reference"));
    }
    for (name, words) in
        [("held_back", "held back"), ("accepted", "accepted at risk"), ("look_first", "to look at first")]
    {
        if let Some(paths) = exchange.facts.get(name) {
            let _ = write!(text, "; {words}: {paths}");
        }
    }
    text
}

fn seconds(time: &jiff::Timestamp) -> String {
    time.strftime("%Y-%m-%d %H:%M:%SZ").to_string()
}

/// The page for a terminal.
pub fn describe(report: &SessionReport) -> String {
    let mut text = String::new();
    let mut line = |words: String| {
        text.push_str(&sanitise(&words.replace(['\n', '\t'], " ")));
        text.push('\n');
    };
    line(format!("{} ({}), session {}, started by {}", report.project, report.sandbox, report.session, report.actor));
    if let Some(launched) = &report.launched {
        let started = if report.started.is_some() { "" } else { "; it never came up" };
        line(format!("  launched  {}{started}", seconds(launched)));
    }
    match (&report.ended, &report.reason) {
        (Some(ended), reason) => {
            line(format!("  ended     {}: {}", seconds(ended), reason.as_deref().unwrap_or("nobody said why")));
        }
        (None, _) => line("  ended     not yet".to_owned()),
    }
    line(format!("  image     {}", report.image));
    let processor =
        report.processor_ms.map(|time| format!("{}.{} s of processor time", time / 1000, time % 1000 / 100));
    let memory = report.memory_peak.map(|bytes| format!("at most {} of memory", show_size(bytes)));
    let used: Vec<String> = processor.into_iter().chain(memory).collect();
    if !used.is_empty() {
        line(format!("  used      {}", used.join(", ")));
    }
    match &report.approval {
        Some(approval) => {
            line(format!("  approved  by {} at {} ({})", approval.actor, seconds(&approval.time), approval.digest));
        }
        None => line("  approved  by nobody on this machine".to_owned()),
    }
    line(format!(
        "  proven    {} of the confinement passed before anything was handed over",
        counted(report.probes, "check")
    ));
    if !report.branch.is_empty() {
        line(format!("  work      {} from {}", report.branch, report.base));
    }
    let mut section = |title: &str, rows: Vec<String>| {
        line(String::new());
        line(if rows.is_empty() { format!("{title}: none") } else { format!("{title}:") });
        rows.into_iter().for_each(|row| line(format!("  {row}")));
    };
    let credentials = report.credentials.iter().flat_map(|used| {
        let first = format!(
            "{} from {} ({}): issued {}, {}; {}",
            used.name,
            used.provider,
            used.fingerprint,
            seconds(&used.issued),
            usage(used),
            used.state()
        );
        std::iter::once(first).chain(used.problems.iter().map(|problem| format!("  problem: {problem}")))
    });
    section("credentials", credentials.collect());
    let commands = report.commands.iter().map(|run| {
        let end = match (run.code, run.ended) {
            (Some(code), _) => format!("exit code {code}"),
            (None, Some(_)) => "cut off".to_owned(),
            (None, None) => "no end is known".to_owned(),
        };
        format!("{}  {} by {}: {end}", seconds(&run.time), run.command, run.actor)
    });
    section("commands started in it", commands.collect());
    let outside = report.outside.iter().map(|file| format!("{}  {}", file.path, file.change));
    section("changed outside of the commits, as its container says", outside.collect());
    let hosts = report.hosts.iter().map(|used| {
        let requests =
            if used.requests > 0 { format!(", {}", counted(used.requests, "request")) } else { String::new() };
        let moved = format!("{} sent, {} received", show_size(used.sent), show_size(used.received));
        format!("{}:{}  {}{requests}, {moved}", used.host, used.port, counted(used.connections, "connection"))
    });
    section("hosts reached", hosts.collect());
    let denied = report.denied.iter().map(|denied| {
        format!(
            "{}  {}, {}, last {}",
            denied.place(),
            denied.reason,
            counted(denied.count, "time"),
            seconds(&denied.last)
        )
    });
    section("denied", denied.collect());
    let exchanges = report.exchanges.iter().map(|one| {
        let what = if one.landed { "pulled" } else { "held back" };
        format!("{}  {what} by {}: {}", seconds(&one.time), one.actor, exchange(one))
    });
    section("commits that came back", exchanges.collect());
    if !report.notices.is_empty() {
        let notices = report.notices.iter().map(|notice| {
            let facts: Vec<String> = notice.facts.iter().map(|(name, value)| format!("{name}={value}")).collect();
            format!("{}  {} by {} {}", seconds(&notice.time), notice.action, notice.actor, facts.join(" "))
        });
        section("also", notices.collect());
    }
    text
}

#[cfg(test)]
pub(in crate::commands) mod tests;
