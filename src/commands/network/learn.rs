//! `sandbox network learn`: the narrowest list that would have allowed what a session asked for, for a person to go through.
//!
//! It reads the log of a session, of the last one or of one that it runs, and changes nothing. What an agent asked for is a
//! wish: a host stands in the list because somebody looked at it. A session that it runs denies what every session denies.
//! One that observes instead has no credential, and a person has said that the clone may be seen by whoever it talks to.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use crate::audit::report::SessionReport;
use crate::commands::denied::{DeniedRow, denied};
use crate::commands::load::manifest;
use crate::commands::network::observed::{self, Observed};
use crate::commands::printer::sanitise;
use crate::commands::report::{counted, session};
use crate::commands::{Context, Failure, trust, up};
use crate::network::name::{Host, HostPattern};
use crate::network::policy::{AllowRule, Policy};
use crate::network::request::RequestRule;
use crate::project::allow_entry;
use crate::session::identity::SandboxId;
use crate::session::journal::{Journal, Phase};

/// Why an entry is in the proposal, or is not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Status {
    /// The manifest has it, or a wider one, and the session used it.
    Used,
    /// The manifest has it, and the session did not use it.
    Unused,
    /// The session asked for it in vain.
    Denied,
    /// The session observed, and used it.
    Observed,
    /// The session looked its name up and never got to asking for it: the port is a guess.
    LookedUp,
}

/// One line of the proposal.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Line {
    /// The entry, as it stands in a manifest.
    entry: String,
    status: Status,
    /// Connections, or attempts.
    count: u64,
    /// The wider entry of the manifest that covers it now.
    #[serde(skip_serializing_if = "Option::is_none")]
    instead_of: Option<String>,
    /// Requests of it that were denied and are among its rules here.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    added: Vec<String>,
}

/// Why nothing is observed.
#[derive(Debug, thiserror::Error)]
enum NotObserved {
    #[error("observe in the sandbox {0}, which runs: it has what its session gave it")]
    Runs(SandboxId),
    #[error("open the network without an answer: nobody is at a terminal")]
    NoTerminal,
    #[error("open the network: you declined")]
    Declined,
}

/// Prints the proposal for the sandbox's last session, another one of its sessions, or one that is run for it.
///
/// # Errors
/// When there was no such session, when it cannot be run, or when the manifest or the log cannot be read.
pub(super) async fn run(context: &Context, args: super::LearnArgs) -> Result<u8, Failure> {
    let super::LearnArgs { target, session: id, observe, yes, command } = args;
    let (_, manifest) = manifest(context, target.project.as_deref())?;
    if observe {
        let sandbox = SandboxId { project: manifest.project.clone(), name: target.name.clone() };
        consent(context, &sandbox, yes)?;
    }
    if observe || !command.is_empty() {
        let code = up::run(context, &up::Args::for_learning(target.clone(), command, observe)).await?;
        if code != 0 {
            context.printer.note(&format!("the command ended with {code}; what it asked for until then is below"));
        }
    }
    let report = session(context, &target, id.as_deref())?;
    let denied = denied(context, &report.session)?;
    let observed = observed::of(context, &report.session)?;
    let mut policy = manifest.network;
    let sandbox = SandboxId { project: manifest.project, name: target.name.clone() };
    let record = Journal::of(&context.folders.state, &sandbox).read()?;
    if let Some(record) = record.filter(|record| record.session.as_str() == report.session) {
        let known: BTreeSet<String> = policy.allow.iter().map(allow_entry::text).collect();
        let added = record.policy.allow.into_iter().filter(|rule| rule.is_added());
        policy.allow.extend(added.filter(|rule| !known.contains(&allow_entry::text(rule))));
    }
    let lines = propose(&policy, &report, &denied, &observed);
    context.printer.result(&lines, || text(&report, &lines));
    Ok(0)
}

/// Has a person say that the session may reach everybody.
fn consent(context: &Context, sandbox: &SandboxId, yes: bool) -> Result<(), Failure> {
    let runs =
        Journal::of(&context.folders.state, sandbox).read()?.is_some_and(|record| record.phase == Phase::Running);
    if runs {
        let error = NotObserved::Runs(sandbox.clone());
        let next = "end it with `sandbox down`, or observe in another one with `--name`";
        return Err(Failure::new("learn-observe", &error, next));
    }
    if yes {
        return Ok(());
    }
    context.printer.note(
        "the command will reach every public host on the ports 80 and 443, so that whatever it runs can send your clone \
         anywhere. It has no credential, private addresses stay closed, and each request is recorded",
    );
    let next = "run it again with `--yes` once you are sure, or without `--observe`, which opens nothing";
    if !trust::terminal() {
        return Err(Failure::new("learn-observe", &NotObserved::NoTerminal, next));
    }
    let answer = dialoguer::Confirm::new().with_prompt("Open the network for it?").default(false).interact();
    if answer.unwrap_or(false) { Ok(()) } else { Err(Failure::new("learn-observe", &NotObserved::Declined, next)) }
}

fn propose(policy: &Policy, report: &SessionReport, denied: &[DeniedRow], observed: &Observed) -> Vec<Line> {
    let mut lines = Vec::new();
    for rule in &policy.allow {
        let mut reached: BTreeMap<String, u64> = BTreeMap::new();
        for used in &report.hosts {
            let host = used.host.parse::<Host>().ok().filter(|host| rule.host.covers(host));
            if host.is_some() && used.port == rule.port.to_string() {
                *reached.entry(used.host.clone()).or_default() += used.connections;
            }
        }
        let (rules, added) = with_denied(rule, denied);
        if reached.is_empty() && added.is_empty() {
            lines.push(line(allow_entry::text(rule), Status::Unused, 0));
            continue;
        }
        let whole = AllowRule { rules, ..rule.clone() };
        if matches!(rule.host, HostPattern::Below(_)) && !reached.is_empty() {
            // Of a domain, only the hosts that were asked for.
            for (host, count) in reached {
                let Ok(host) = host.parse::<HostPattern>() else { continue };
                let narrow = AllowRule { host, ..whole.clone() };
                let mut line = line(allow_entry::text(&narrow), Status::Used, count);
                line.instead_of = Some(allow_entry::text(rule));
                line.added.clone_from(&added);
                lines.push(line);
            }
            continue;
        }
        let mut line = line(allow_entry::text(&whole), Status::Used, reached.values().sum());
        line.added = added;
        lines.push(line);
    }
    let mut seen: BTreeSet<String> = lines.iter().map(|line| line.entry.clone()).collect();
    // What a person allowed while a session ran that is gone by now, and what was observed.
    for used in &report.hosts {
        let (Ok(host), Ok(port)) = (used.host.parse::<Host>(), used.port.parse::<u16>()) else { continue };
        let Ok(pattern) = used.host.parse::<HostPattern>() else { continue };
        let requests = observed.rules(&used.host, port);
        let rules = requests.clone().unwrap_or_default();
        let entry = allow_entry::text(&AllowRule { rules, ..AllowRule::new(pattern, port) });
        if policy.find_host(&host, port).is_none() && seen.insert(entry.clone()) {
            let status = if requests.is_some() { Status::Observed } else { Status::Used };
            lines.push(line(entry, status, used.connections));
        }
    }
    for row in denied.iter().filter(|row| row.request.is_none()) {
        let (Ok(host), Ok(port)) = (row.host.parse::<HostPattern>(), row.port.parse::<u16>()) else { continue };
        // Its address is what is against a host that is listed already, or a limit.
        let listed = row.host.parse::<Host>().is_ok_and(|host| policy.find_host(&host, port).is_some());
        let entry = allow_entry::text(&AllowRule::new(host, port));
        if !listed && seen.insert(entry.clone()) {
            lines.push(line(entry, Status::Denied, row.count));
        }
    }
    for row in denied.iter().filter(|row| row.port.is_empty() && row.remedy.is_some()) {
        let Ok(host) = row.host.parse::<HostPattern>() else { continue };
        let known = policy.allow.iter().any(|rule| row.host.parse::<Host>().is_ok_and(|host| rule.host.covers(&host)));
        let asked = denied.iter().any(|other| other.host == row.host && !other.port.is_empty());
        let entry = allow_entry::text(&AllowRule::new(host, 443));
        if !known && !asked && seen.insert(entry.clone()) {
            lines.push(line(entry, Status::LookedUp, row.count));
        }
    }
    lines
}

fn line(entry: String, status: Status, count: u64) -> Line {
    Line { entry, status, count, instead_of: None, added: Vec::new() }
}

/// The rules of an entry, with requests to its host that no rule allowed; and these alone.
fn with_denied(rule: &AllowRule, denied: &[DeniedRow]) -> (Vec<RequestRule>, Vec<String>) {
    let mut rules = rule.rules.clone();
    let mut added = Vec::new();
    for row in denied.iter().filter(|_| !rule.rules.is_empty()) {
        let covers =
            row.port == rule.port.to_string() && row.host.parse::<Host>().is_ok_and(|host| rule.host.covers(&host));
        let Some(Ok(request)) = row.request.as_ref().filter(|_| covers).map(|text| text.parse::<RequestRule>()) else {
            continue;
        };
        // A `*` in a path that was asked for would be a pattern in a rule.
        if !request.to_string().contains('*') && !rules.contains(&request) {
            added.push(request.to_string());
            rules.push(request);
        }
    }
    (rules, added)
}

fn text(report: &SessionReport, lines: &[Line]) -> String {
    let mut text = format!(
        "# What session {} of {} ({}) asked for. Go through it before it replaces network.allow.\nnetwork:\n  allow:\n",
        report.session, report.project, report.sandbox
    );
    if lines.iter().all(|line| line.status == Status::Unused) {
        text.push_str("    []\n");
    }
    for line in lines {
        let times = counted(line.count, "time");
        let (sign, words) = match line.status {
            Status::Used => ("- ", format!("used {times}")),
            Status::Unused => ("# - ", "not used".to_owned()),
            Status::Denied => ("- ", format!("NEW: denied {times}")),
            Status::Observed => ("- ", format!("NEW: observed {times}")),
            Status::LookedUp => ("- ", format!("NEW: looked up {times}, the port is a guess")),
        };
        let instead = line.instead_of.as_ref().map(|wide| format!(", in place of {wide}")).unwrap_or_default();
        let added =
            if line.added.is_empty() { String::new() } else { format!(", NEW rules: {}", line.added.join(", ")) };
        text.push_str(&format!("    {sign}{}  # {words}{instead}{added}\n", line.entry));
    }
    sanitise(&text)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::audit::report::HostUse;

    fn used(host: &str, port: u16, connections: u64) -> HostUse {
        HostUse { host: host.to_owned(), port: port.to_string(), connections, ..HostUse::default() }
    }

    fn refused(host: &str, port: &str, request: Option<&str>, count: u64) -> DeniedRow {
        DeniedRow {
            host: host.to_owned(),
            port: port.to_owned(),
            request: request.map(str::to_owned),
            count,
            last: "2026-01-02T03:04:05Z".parse().unwrap(),
            remedy: None,
        }
    }

    fn looked_up(host: &str) -> DeniedRow {
        DeniedRow { remedy: Some("add it".to_owned()), ..refused(host, "", None, 2) }
    }

    #[test]
    fn the_proposal_is_what_was_used_and_asked_for_and_can_be_a_manifest() {
        let manifest = "version: 1\nproject: demo\nnetwork:\n  allow:\n    - a.example\n    - \"*.b.example\"\n    - unused.example\n    - { host: c.example, rules: [\"GET /v1/**\"] }\n";
        let policy = crate::project::manifest::parse(manifest, Path::new("/nowhere/sandbox.yaml")).unwrap().network;
        let report = SessionReport {
            project: "demo".to_owned(),
            sandbox: "main".to_owned(),
            session: "s1".to_owned(),
            hosts: vec![
                used("a.example", 443, 3),
                used("x.b.example", 443, 1),
                used("y.b.example", 443, 2),
                used("c.example", 443, 1),
                used("live.example", 8000, 1),
            ],
            ..SessionReport::default()
        };
        let denied = [
            refused("new.example", "443", None, 4),
            refused("new.example", "22", None, 1),
            refused("c.example", "443", Some("POST /v1/items"), 2),
            refused("c.example", "443", Some("POST /v1/*"), 2),
            refused("a.example", "443", None, 9),
            refused("(others)", "", None, 100),
            looked_up("resolved.example"),
            looked_up("new.example"),
            looked_up("x.b.example"),
            refused("evil\u{1b}[2J", "443", None, 1),
        ];
        let text = text(&report, &propose(&policy, &report, &denied, &Observed::default()));
        let whole = format!("version: 1\nproject: demo\n{text}");
        let read = crate::project::manifest::parse(&whole, Path::new("/nowhere/sandbox.yaml")).unwrap().network.allow;
        let entries: Vec<String> = read.iter().map(allow_entry::text).collect();
        assert_eq!(
            entries,
            [
                "a.example",
                "x.b.example",
                "y.b.example",
                "{ host: c.example, rules: [\"GET /v1/**\", \"POST /v1/items\"] }",
                "{ host: live.example, port: 8000 }",
                "new.example",
                "{ host: new.example, port: 22 }",
                "resolved.example"
            ],
            "{text}"
        );
        assert!(text.contains("# - unused.example  # not used") && text.contains("NEW: denied 4 times"), "{text}");
        assert!(text.contains("- resolved.example  # NEW: looked up 2 times, the port is a guess"), "{text}");
        assert!(text.contains("in place of \"*.b.example\"") && text.contains("NEW rules: POST /v1/items"), "{text}");
    }

    #[test]
    fn a_session_that_asked_for_nothing_needs_nothing() {
        let report = SessionReport::default();
        let whole = format!(
            "version: 1\nproject: demo\n{}",
            text(&report, &propose(&Policy::default(), &report, &[], &Observed::default()))
        );
        let read = crate::project::manifest::parse(&whole, Path::new("/nowhere/sandbox.yaml")).unwrap();
        assert!(read.network.allow.is_empty());
    }
}
