//! `sandbox audit`: reads and checks the audit log.

use jiff::Timestamp;

use super::printer::sanitise;
use super::{Context, Failure};
use crate::audit::event::AuditEvent;
use crate::audit::log::{AuditError, AuditLog, Record};
use crate::commands::audit_report;
use crate::commands::load::actor;
use crate::project::ProjectName;

/// Read or check the audit log
#[derive(Debug, clap::Args)]
pub struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// List what happened
    Log {
        /// Only of this project
        #[arg(long)]
        project: Option<String>,
        /// Only since this time (RFC 3339, such as 2026-01-31T00:00:00Z)
        #[arg(long, value_name = "TIME")]
        since: Option<Timestamp>,
        /// Only actions that are this one or begin with it, such as `credential`
        #[arg(long)]
        action: Option<String>,
    },
    /// Check that no line was changed, removed, moved or cut off
    Verify,
    /// Report the sessions of a period and the credentials that they had, for an auditor
    Report(audit_report::Args),
}

/// Records what a person did to a project outside of a session.
///
/// # Errors
/// When the log cannot be written. What is not recorded must not happen.
pub fn record(context: &Context, project: &ProjectName, action: &str, facts: &[(&str, &str)]) -> Result<(), Failure> {
    let (actor, _) = actor();
    let event = AuditEvent {
        time: Timestamp::now(),
        action: action.to_owned(),
        actor,
        project: project.to_string(),
        sandbox: None,
        session: None,
        outcome: "ok".to_owned(),
        facts: facts.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
    };
    AuditLog::open(&context.folders.state)?.append(&event)?;
    Ok(())
}

/// Runs the verb.
pub fn run(context: &Context, arguments: Arguments) -> Result<u8, Failure> {
    let log = AuditLog::open(&context.folders.state)?;
    match arguments.verb {
        Verb::Report(args) => return audit_report::run(context, &args),
        Verb::Verify => {
            let head = log.verify()?;
            context.printer.result(&head, || format!("{} records, unbroken; head {}", head.sequence, head.hash));
        }
        Verb::Log { project, since, action } => {
            let mut found: Vec<Record> = Vec::new();
            log.records(|record| {
                if wanted(&record.event, project.as_deref(), since, action.as_deref()) {
                    found.push(record);
                }
            })?;
            context.printer.result(&found, || table(&found));
        }
    }
    Ok(0)
}

/// Whether an event passes every filter that is given. An action covers itself and those below it.
fn wanted(event: &AuditEvent, project: Option<&str>, since: Option<Timestamp>, action: Option<&str>) -> bool {
    project.is_none_or(|project| event.project == project)
        && since.is_none_or(|since| event.time >= since)
        && action.is_none_or(|action| {
            event.action.strip_prefix(action).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        })
}

fn table(records: &[Record]) -> String {
    let mut table = comfy_table::Table::new();
    table.load_preset(comfy_table::presets::NOTHING);
    table.set_header(["TIME", "ACTION", "PROJECT", "ACTOR", "OUTCOME", "FACTS"]);
    for Record { event, .. } in records {
        let facts: Vec<String> = event.facts.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let row = [
            event.time.to_string(),
            event.action.clone(),
            event.project.clone(),
            event.actor.clone(),
            event.outcome.clone(),
            facts.join(" "),
        ];
        table.add_row(row.map(|cell| sanitise(&cell)));
    }
    table.to_string()
}

impl From<AuditError> for Failure {
    fn from(error: AuditError) -> Self {
        let (code, next) = match &error {
            AuditError::Broken(_) => (
                "audit-broken",
                "keep the file as it is, compare it with a copy, and find out who could write to the state folder",
            ),
            AuditError::Access { .. } => {
                ("audit-access", "check the permissions and the free space of the state folder")
            }
            AuditError::Json(_) => ("audit-json", "report this as a fault of sandbox"),
        };
        Failure::new(code, &error, next)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn event(action: &str) -> AuditEvent {
        AuditEvent {
            time: "2026-01-02T03:04:05Z".parse().unwrap(),
            action: action.to_owned(),
            actor: "ada".to_owned(),
            project: "demo".to_owned(),
            sandbox: None,
            session: None,
            outcome: "ok".to_owned(),
            facts: BTreeMap::new(),
        }
    }

    #[test]
    fn a_filter_takes_an_action_with_those_below_it_and_no_other() {
        let taken = |action: &str, filter| wanted(&event(action), None, None, Some(filter));
        assert!(taken("credential.issued", "credential"));
        assert!(taken("credential.issued", "credential.issued"));
        assert!(!taken("credentials.listed", "credential"));
        assert!(!taken("session.started", "credential"));
        assert!(!taken("credential", "credential.issued"));
    }

    #[test]
    fn a_filter_takes_the_time_itself_and_later() {
        let taken = |since: &str| wanted(&event("a.b"), None, Some(since.parse().unwrap()), None);
        assert!(taken("2026-01-02T03:04:05Z"));
        assert!(taken("2026-01-02T04:04:04+01:00"));
        assert!(!taken("2026-01-02T03:04:06Z"));
    }

    #[test]
    fn filters_hold_together() {
        assert!(wanted(&event("a.b"), Some("demo"), None, Some("a")));
        assert!(!wanted(&event("a.b"), Some("dem"), None, Some("a")));
        assert!(!wanted(&event("a.b"), Some("demo"), None, Some("b")));
        assert!(wanted(&event("a.b"), None, None, None));
    }

    #[test]
    fn the_table_lets_no_escape_reach_the_terminal() {
        let mut event = event("network.denied");
        event.facts.insert("host".to_owned(), "\u{1b}]0;x\u{7}evil.example".to_owned());
        let zero = crate::image::reference::Digest::from_bytes([0; 32]);
        let text = table(&[Record { sequence: 1, previous: zero.clone(), event, hash: zero }]);
        assert!(text.contains("evil.example") && !text.contains('\u{1b}'), "{text:?}");
    }
}
