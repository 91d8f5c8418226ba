//! `sandbox credential revoke --all` and `--owner`: ends every credential that the sandboxes of a project, or of a person,
//! have. It goes on past each failure, and says at the end what still lives and until when.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use comfy_table::{Table, presets};
use jiff::Timestamp;
use serde::Serialize;

use crate::audit::AuditLog;
use crate::commands::audit::record as note;
use crate::commands::connect::connect;
use crate::commands::printer::sanitise;
use crate::commands::up::take_lock;
use crate::commands::{Context, Failure, sandbox};
use crate::credential::rotation;
use crate::engine::Engine;
use crate::project::{CredentialName, ProjectName};
use crate::session::journal::{Journal, Phase, Record};
use crate::session::supervise;

/// How long the supervisors may take, which ask the issuers.
const LIMIT: Duration = Duration::from_secs(45);
/// Between two looks at the journals.
const LOOK: Duration = Duration::from_millis(100);

/// Whose credentials end.
#[derive(Debug, Clone)]
pub(super) enum Whose {
    /// All of a project.
    Project(ProjectName),
    /// All of the sandboxes that a person started on this machine, in whatever project: a user name, or USER@HOST.
    Owner(String),
}

impl Whose {
    fn covers(&self, record: &Record) -> bool {
        match self {
            Self::Project(project) => record.id.project == *project,
            Self::Owner(owner) => {
                record.owner == *owner || record.owner.split_once('@').is_some_and(|(user, _)| user == owner)
            }
        }
    }
}

/// One sandbox that has credentials.
struct Holder {
    journal: Journal,
    before: Record,
    names: BTreeSet<CredentialName>,
}

impl Holder {
    fn is_supervised(&self) -> bool {
        // Whoever gets the supervisor's lock knows that there is none.
        self.before.phase == Phase::Running && supervise::claim(&self.journal).is_err()
    }

    /// Whether something that was out at the beginning still is.
    fn owes(&self) -> bool {
        let Ok(Some(now)) = self.journal.read() else { return false };
        self.names
            .iter()
            .any(|name| now.leases.contains_key(name) || now.retiring.iter().any(|retiring| retiring.name == *name))
    }
}

/// What came of one credential.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Row {
    project: String,
    sandbox: String,
    credential: String,
    provider: &'static str,
    /// Whether it is out no more.
    ended: bool,
    /// What came of it, in words.
    result: String,
}

/// Ends the credentials. Exit code 1 when one of them is still out.
///
/// # Errors
/// When the journals or the audit log cannot be used at all.
pub(super) async fn run(context: &Context, whose: &Whose, stop: bool) -> Result<u8, Failure> {
    let begun = Timestamp::now();
    let holders = holders(context, whose, stop)?;
    for project in holders.iter().map(|holder| &holder.before.id.project).collect::<BTreeSet<_>>() {
        let scope = match whose {
            Whose::Project(_) => "all".to_owned(),
            Whose::Owner(owner) => format!("owner {owner}"),
        };
        note(context, project, "credential.revoke_requested", &[("scope", &scope)])?;
    }
    let mut complaints = Vec::new();
    if !stop {
        by_supervisors(&holders, &mut complaints).await;
    }
    let rest: Vec<&Holder> =
        holders.iter().filter(|holder| stop || (holder.owes() && !holder.is_supervised())).collect();
    if !rest.is_empty() {
        match connect(context).await {
            Ok(engine) => {
                for holder in rest {
                    if let Err(failure) = end(context, &engine, holder).await {
                        complaints.push(format!("{}: {}", holder.before.id, failure.what));
                    }
                }
            }
            Err(failure) => complaints.push(failure.what),
        }
    }
    sandbox::report(context, complaints);
    let rows = rows(context, &holders, begun)?;
    let lives = rows.iter().any(|row| !row.ended);
    context.printer.result(&rows, || table(&rows));
    Ok(u8::from(lives))
}

fn holders(context: &Context, whose: &Whose, stop: bool) -> Result<Vec<Holder>, Failure> {
    let mut found = Vec::new();
    for journal in Journal::all(&context.folders.state)? {
        // A journal that cannot be read must not keep the others' credentials alive.
        let record = match journal.read() {
            Ok(Some(record)) => record,
            Ok(None) => continue,
            Err(error) => {
                context.printer.warning(&sanitise(&format!("{error}; look at it with `sandbox gc`")));
                continue;
            }
        };
        if !whose.covers(&record) || !(record.owes() || (stop && record.phase == Phase::Running)) {
            continue;
        }
        let names =
            record.leases.keys().chain(record.retiring.iter().map(|retiring| &retiring.name)).cloned().collect();
        found.push(Holder { journal, before: record, names });
    }
    Ok(found)
}

/// Has the supervisors of running sandboxes withdraw what these have, and waits for that.
async fn by_supervisors(holders: &[Holder], complaints: &mut Vec<String>) {
    let asked: Vec<&Holder> = holders.iter().filter(|holder| holder.is_supervised()).collect();
    for holder in &asked {
        for name in holder.before.leases.keys() {
            if let Err(error) = rotation::request_revocation(holder.journal.folder(), name) {
                complaints.push(format!("{}: `{name}` could not be asked for: {error}", holder.before.id));
            }
        }
    }
    let begun = Instant::now();
    while begun.elapsed() < LIMIT && asked.iter().any(|holder| holder.owes() && holder.is_supervised()) {
        tokio::time::sleep(LOOK).await;
    }
}

/// Ends a session with its credentials: one that nobody supervises any more, or that is to be stopped.
async fn end(context: &Context, engine: &Engine, holder: &Holder) -> Result<(), Failure> {
    let _lock = take_lock(context, &holder.journal).await?;
    let Some(mut record) = holder.journal.read()? else { return Ok(()) };
    sandbox::stop(context, engine, &holder.journal, &mut record, "sandbox credential revoke").await
}

/// What the log says of each credential since the beginning, and the journals of what is still out.
fn rows(context: &Context, holders: &[Holder], begun: Timestamp) -> Result<Vec<Row>, Failure> {
    let mut told: BTreeMap<(String, String), String> = BTreeMap::new();
    AuditLog::open(&context.folders.state)?.records(|record| {
        let event = record.event;
        let ending = matches!(event.action.as_str(), "credential.revoked" | "credential.left_to_expire");
        if event.time < begun || !ending {
            return;
        }
        let fact = |name: &str| event.facts.get(name).cloned();
        if let (Some(session), Some(name)) = (event.session.clone(), fact("credential")) {
            let words = fact(if event.outcome == "ok" { "result" } else { "reason" }).unwrap_or_default();
            told.insert((session, name), words);
        }
    })?;
    let mut rows = Vec::new();
    for holder in holders {
        let now = holder.journal.read().ok().flatten();
        for name in &holder.names {
            let retired = holder.before.retiring.iter().find(|retiring| retiring.name == *name);
            let Some(lease) = holder.before.leases.get(name).or(retired.map(|retiring| &retiring.lease)) else {
                continue;
            };
            let out = now.as_ref().is_some_and(|now| {
                now.leases.contains_key(name) || now.retiring.iter().any(|retiring| retiring.name == *name)
            });
            let words = told.get(&(holder.before.session.as_str().to_owned(), name.to_string()));
            let until =
                lease.expires_at.map_or_else(|| "until it is rotated".to_owned(), |time| format!("until {time}"));
            let result = match (out, words) {
                (false, Some(words)) => words.clone(),
                (false, None) => "it is out no more".to_owned(),
                (true, Some(words)) => format!("NOT ended, lives {until}: {words}"),
                (true, None) => format!("NOT ended, lives {until}: nobody answered"),
            };
            rows.push(Row {
                project: holder.before.id.project.to_string(),
                sandbox: holder.before.id.name.to_string(),
                credential: name.to_string(),
                provider: lease.spec.provider.word(),
                ended: !out,
                result,
            });
        }
    }
    Ok(rows)
}

fn table(rows: &[Row]) -> String {
    if rows.is_empty() {
        return "no sandbox has a credential".to_owned();
    }
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_header(["PROJECT", "SANDBOX", "CREDENTIAL", "PROVIDER", "RESULT"]);
    for row in rows {
        let cells = [&row.project, &row.sandbox, &row.credential, row.provider, &row.result];
        table.add_row(cells.map(sanitise));
    }
    table.to_string()
}
