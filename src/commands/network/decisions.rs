//! `sandbox network log`: the decisions of a session, from the audit log. The supervisor writes them there.

use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;

use crate::audit::AuditLog;
use crate::audit::event::AuditEvent;
use crate::commands::connect::connect;
use crate::commands::load::Target;
use crate::commands::printer::sanitise;
use crate::commands::{Context, Failure, sandbox};
use crate::session::journal::{Journal, Phase};
use crate::session::launch::probe_host;

/// How often a log that is followed is looked at.
const TICK: Duration = Duration::from_millis(200);

/// One decision, on a connection, on a request, or by a person.
#[derive(Debug, Serialize)]
pub(super) struct Entry {
    pub(super) time: Timestamp,
    /// `network.allowed`, `request.denied`, `policy.allowed`, …
    pub(super) action: String,
    /// Who: of a decision of the gateway, whose sandbox it is.
    pub(super) actor: String,
    pub(super) denied: bool,
    pub(super) host: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) port: Option<u16>,
    /// Method and path.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) request: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) reason: Option<String>,
    /// Where the rule stands that decided.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) rule: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) address: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) credential: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) detail: Option<String>,
    /// How many times it was decided so.
    pub(super) count: u64,
}

impl Entry {
    /// The decision that an event of this session tells of.
    pub(super) fn of(event: &AuditEvent, session: &str) -> Option<Self> {
        let decides = ["network.allowed", "network.denied", "request.allowed", "request.denied"];
        let by_person = event.action.starts_with("policy.");
        if event.session.as_deref() != Some(session) || !(by_person || decides.contains(&event.action.as_str())) {
            return None;
        }
        let fact = |name: &str| event.facts.get(name).cloned();
        // The probe at every start asks for a name that nobody lists.
        if event.action == "network.denied" && fact("host").is_some_and(|host| host == probe_host(session)) {
            return None;
        }
        Some(Self {
            time: event.time,
            action: event.action.clone(),
            actor: event.actor.clone(),
            denied: event.action.ends_with(".denied"),
            host: fact("host").unwrap_or_else(|| "sandbox.yaml".to_owned()),
            port: fact("port").and_then(|port| port.parse().ok()),
            request: fact("method").map(|method| format!("{method} {}", fact("path").unwrap_or_default())),
            reason: fact("reason"),
            rule: fact("rule"),
            address: fact("address"),
            credential: fact("credential"),
            detail: fact("detail")
                .or_else(|| fact("entry"))
                .or_else(|| Some(format!("begins: {}; ends: {}", fact("begins")?, fact("ends")?))),
            count: fact("count").and_then(|count| count.parse().ok()).unwrap_or(1),
        })
    }
}

/// Prints the decisions of the sandbox's last session.
pub(super) async fn run(context: &Context, target: &Target, follow: bool, denied: bool) -> Result<u8, Failure> {
    let engine = connect(context).await?;
    let found = sandbox::find(context, &engine, target).await?;
    let session = found.record.session.as_str();
    let log = AuditLog::open(&context.folders.state)?;
    let wanted = |event: &AuditEvent| Entry::of(event, session).filter(|entry| entry.denied || !denied);
    if !follow {
        let mut entries = Vec::new();
        log.records(|record| entries.extend(wanted(&record.event)))?;
        context.printer.result(&entries, || entries.iter().map(|entry| format!("{}\n", line(entry))).collect());
        return Ok(0);
    }
    let journal = Journal::of(&context.folders.state, &found.record.id);
    let mut place = 0;
    loop {
        // What is decided until the session has ended is in the log when the journal says that it has.
        let now = journal.read()?;
        let ended = !now.is_some_and(|now| now.session == found.record.session && now.phase < Phase::Stopped);
        place = log.records_from(place, |record| {
            let Some(entry) = wanted(&record.event) else { return };
            if context.printer.json() {
                context.printer.line(&serde_json::to_string(&entry).unwrap_or_default());
            } else {
                context.printer.line(&line(&entry));
            }
        })?;
        if ended {
            return Ok(0);
        }
        tokio::time::sleep(TICK).await;
    }
}

fn line(entry: &Entry) -> String {
    let word = if entry.denied { "denied " } else { "allowed" };
    let port = entry.port.map(|port| format!(":{port}")).unwrap_or_default();
    let mut text = format!("{:.0}  {word}  {}{port}", entry.time, entry.host);
    if let Some(request) = &entry.request {
        text.push_str(&format!(" {request}"));
    }
    if entry.action.starts_with("policy.") {
        text.push_str(&format!("  from now on, by {}", entry.actor));
    }
    let why = if entry.denied { entry.reason.as_ref() } else { entry.rule.as_ref() };
    if let Some(why) = why {
        text.push_str(&format!("  {why}"));
    }
    if entry.count > 1 {
        text.push_str(&format!("  {} times", entry.count));
    }
    if let Some(detail) = &entry.detail {
        text.push_str(&format!("  ({detail})"));
    }
    sanitise(&text).replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(action: &str, facts: &[(&str, &str)]) -> AuditEvent {
        AuditEvent {
            time: "2026-01-02T03:04:05.123Z".parse().unwrap(),
            action: action.to_owned(),
            actor: "ada".to_owned(),
            project: "demo".to_owned(),
            sandbox: None,
            session: Some("one".to_owned()),
            outcome: "ok".to_owned(),
            facts: facts.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
        }
    }

    #[test]
    fn takes_decisions_of_its_session_alone() {
        let denied = event("network.denied", &[("host", "a.example"), ("port", "443"), ("reason", "unlisted")]);
        assert!(Entry::of(&denied, "one").unwrap().denied);
        assert!(Entry::of(&denied, "two").is_none());
        assert!(Entry::of(&event("credential.issued", &[]), "one").is_none());
        assert!(!Entry::of(&event("policy.allowed", &[]), "one").unwrap().denied);
    }

    #[test]
    fn a_line_is_one_line_and_lets_no_escape_reach_the_terminal() {
        let facts = [("host", "a\u{1b}[31m\nb"), ("port", "22"), ("count", "9"), ("reason", "unlisted")];
        let line = line(&Entry::of(&event("network.denied", &facts), "one").unwrap());
        assert_eq!(line, "2026-01-02T03:04:05Z  denied   a\\u{1b}[31m\\nb:22  unlisted  9 times");
    }
}
