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
use crate::commands::down::wait_for_supervisor;
use crate::commands::printer::sanitise;
use crate::commands::up::take_lock;
use crate::commands::{Context, Failure, sandbox};
use crate::credential::{Revocation, rotation};
use crate::engine::Engine;
use crate::project::{CredentialName, ProjectName};
use crate::session::journal::{Journal, Phase, Record};
use crate::session::supervise;

/// How long the supervisors may take, which ask the issuers.
const LIMIT: Duration = Duration::from_secs(45);
/// How such a session ended, for its report.
const ENDED: &str = "sandbox credential revoke";
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
    pub(super) fn covers(&self, record: &Record) -> bool {
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
        self.names.iter().any(|name| self.is_out(name))
    }

    /// Whether this credential is. What cannot be read is not known to be gone.
    fn is_out(&self, name: &CredentialName) -> bool {
        match self.journal.read() {
            Ok(Some(now)) => {
                now.leases.contains_key(name) || now.retiring.iter().any(|retiring| retiring.name == *name)
            }
            Ok(None) => false,
            Err(_) => true,
        }
    }
}

/// What came of one credential.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Row {
    project: String,
    sandbox: String,
    credential: String,
    provider: &'static str,
    /// Whether a sandbox still has it.
    out: bool,
    /// Until when it can be used, by whoever has its value, where nothing ended it.
    #[serde(skip_serializing_if = "Option::is_none")]
    lives: Option<String>,
    /// What came of it, in words.
    result: String,
}

/// Ends the credentials. Exit code 1 when one of them still lives, or a journal could not be read.
///
/// # Errors
/// When the list of journals cannot be read at all.
pub(super) async fn run(context: &Context, whose: &Whose, stop: bool, reason: Option<&str>) -> Result<u8, Failure> {
    let begun = Timestamp::now();
    let mut complaints = Vec::new();
    let holders = holders(context, whose, stop, &mut complaints)?;
    let unread = !complaints.is_empty();
    for project in holders.iter().map(|holder| &holder.before.id.project).collect::<BTreeSet<_>>() {
        let scope = match whose {
            Whose::Project(_) => "all".to_owned(),
            Whose::Owner(owner) => format!("owner {owner}"),
        };
        let mut facts = vec![("scope", scope.as_str())];
        facts.extend(reason.map(|reason| ("reason", reason)));
        // A log that cannot be written must not keep a credential alive.
        if let Err(failure) = note(context, project, "credential.revoke_requested", &facts) {
            complaints.push(failure.what);
        }
    }
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
    let rows = rows(context, &holders, begun, &mut complaints);
    sandbox::report(context, complaints);
    let lives = rows.iter().any(|row| row.out || row.lives.is_some());
    context.printer.result(&rows, || table(&rows));
    Ok(u8::from(lives || unread))
}

fn holders(context: &Context, whose: &Whose, stop: bool, complaints: &mut Vec<String>) -> Result<Vec<Holder>, Failure> {
    let mut found = Vec::new();
    for journal in Journal::all(&context.folders.state)? {
        // A journal that cannot be read must not keep the others' credentials alive.
        let record = match journal.read() {
            Ok(Some(record)) => record,
            Ok(None) => continue,
            Err(error) => {
                let why = std::error::Error::source(&error).map(|source| format!(": {source}")).unwrap_or_default();
                complaints.push(format!("{error}{why}; what its sandbox has is not known"));
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
        for name in &holder.names {
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
    sandbox::stop(context, engine, &holder.journal, &mut record, ENDED).await?;
    wait_for_supervisor(&holder.journal).await;
    // The supervisor may have written the journal once more while it left.
    match holder.journal.read()? {
        Some(mut record) if record.owes() => sandbox::stop(context, engine, &holder.journal, &mut record, ENDED).await,
        _ => Ok(()),
    }
}

/// What the log says of each credential since the beginning, and the journals of what is still out.
fn rows(context: &Context, holders: &[Holder], begun: Timestamp, complaints: &mut Vec<String>) -> Vec<Row> {
    let mut told: BTreeMap<(String, String), (bool, String)> = BTreeMap::new();
    let log = AuditLog::open(&context.folders.state);
    let read = log.and_then(|log| {
        log.records(|record| {
            let event = record.event;
            let expires = event.action == "credential.left_to_expire";
            if event.time < begun || !(expires || event.action == "credential.revoked") {
                return;
            }
            let fact = |name: &str| event.facts.get(name).cloned();
            if let (Some(session), Some(name)) = (event.session.clone(), fact("credential")) {
                let words = fact(if event.outcome == "ok" { "result" } else { "reason" }).unwrap_or_default();
                told.insert((session, name), (expires, words));
            }
        })
    });
    if let Err(error) = read {
        complaints.push(format!("what came of it is not known: {error}"));
    }
    let mut rows = Vec::new();
    for holder in holders {
        for name in &holder.names {
            let retired = holder.before.retiring.iter().find(|retiring| retiring.name == *name);
            let Some(lease) = holder.before.leases.get(name).or(retired.map(|retiring| &retiring.lease)) else {
                continue;
            };
            let out = holder.is_out(name);
            let said = told.get(&(holder.before.session.as_str().to_owned(), name.to_string()));
            let remains = Revocation::StaticRemains.result();
            let dead = !out && said.is_some_and(|(expires, words)| !expires && *words != remains);
            let lives = (!dead).then(|| {
                lease.expires_at.map_or_else(|| "until it is rotated".to_owned(), |time| format!("until {time}"))
            });
            let result = match (out, said) {
                (false, Some((_, words))) => words.clone(),
                (false, None) => "no sandbox has it; nobody said more".to_owned(),
                (true, Some((_, words))) => format!("NOT ended: {words}"),
                (true, None) => "NOT ended: nobody answered".to_owned(),
            };
            rows.push(Row {
                project: holder.before.id.project.to_string(),
                sandbox: holder.before.id.name.to_string(),
                credential: name.to_string(),
                provider: lease.spec.provider.word(),
                out,
                lives,
                result,
            });
        }
    }
    rows
}

fn table(rows: &[Row]) -> String {
    if rows.is_empty() {
        return "no sandbox has a credential".to_owned();
    }
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_header(["PROJECT", "SANDBOX", "CREDENTIAL", "PROVIDER", "LIVES", "RESULT"]);
    for row in rows {
        let lives = row.lives.as_deref().unwrap_or("no");
        let cells = [&row.project, &row.sandbox, &row.credential, row.provider, lives, &row.result];
        table.add_row(cells.map(sanitise));
    }
    table.to_string()
}
