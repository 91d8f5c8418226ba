//! `sandbox audit`: reads and checks the audit log.

use super::printer::sanitise;
use super::{Context, Failure};
use crate::audit::log::{AuditError, AuditLog, Record};

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
        since: Option<jiff::Timestamp>,
        /// Only actions that are this one or begin with it, such as `credential`
        #[arg(long)]
        action: Option<String>,
    },
    /// Check that no line was changed, removed, moved or cut off
    Verify,
}

/// Runs the verb.
pub fn run(context: &Context, arguments: Arguments) -> Result<u8, Failure> {
    let log = AuditLog::open(&context.folders.state)?;
    match arguments.verb {
        Verb::Verify => {
            let head = log.verify()?;
            context.printer.result(&head, || format!("{} records, unbroken; head {}", head.sequence, head.hash));
        }
        Verb::Log { project, since, action } => {
            let mut found: Vec<Record> = Vec::new();
            log.records(|record| {
                let event = &record.event;
                let wanted = project.as_ref().is_none_or(|project| *project == event.project)
                    && since.is_none_or(|since| event.time >= since)
                    && action.as_ref().is_none_or(|action| {
                        event
                            .action
                            .strip_prefix(action.as_str())
                            .is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
                    });
                if wanted {
                    found.push(record);
                }
            })?;
            context.printer.result(&found, || table(&found));
        }
    }
    Ok(0)
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
