//! `sandbox credential ls --owner`: what a person has on this machine, in whatever project. Whoever leaves is taken off by
//! what it shows: `revoke --owner` for the sandboxes, `recipients rm`, `rekey` and `rotate` for the stores.

use std::collections::BTreeSet;

use comfy_table::{Table, presets};
use jiff::Timestamp;
use serde::Serialize;

use super::{recipients, revoke_all, store};
use crate::audit::AuditLog;
use crate::commands::load::actor;
use crate::commands::printer::sanitise;
use crate::commands::{Context, Failure, candidates};
use crate::project;
use crate::project::manifest::{self, Manifest};
use crate::session::journal::Journal;

/// One thing that a person has.
#[derive(Debug, Serialize)]
struct Row {
    project: String,
    /// The credential; none for a store that opens.
    #[serde(skip_serializing_if = "Option::is_none")]
    credential: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    provider: Option<&'static str>,
    /// What the person has of it, in words.
    has: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    since: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_at: Option<Timestamp>,
    /// What ends it.
    next: String,
}

/// Lists it. What cannot be read is named, and the exit code is 1 then.
///
/// # Errors
/// When the list of journals cannot be read at all.
pub(super) fn run(context: &Context, person: &str) -> Result<u8, Failure> {
    let mut complaints = Vec::new();
    let mut rows = in_sandboxes(context, person, &mut complaints)?;
    for name in candidates::projects() {
        let located = project::locate(Some(&name), &context.folders.home, &context.folders.state);
        match located.ok().map(|path| manifest::load(&path)) {
            // Its folder is gone, and with it what was in it.
            None => {}
            Some(Ok(manifest)) => rows.extend(in_store(context, &manifest, person)),
            Some(Err(_)) => {
                complaints.push(format!("the manifest of {name} cannot be read; what its store has is not known"))
            }
        }
    }
    rows.extend(log_ins(context, person, &mut complaints));
    for complaint in &complaints {
        context.printer.warning(complaint);
    }
    context.printer.result(&rows, || table(&rows, person));
    Ok(u8::from(!complaints.is_empty()))
}

fn in_sandboxes(context: &Context, person: &str, complaints: &mut Vec<String>) -> Result<Vec<Row>, Failure> {
    let whose = revoke_all::Whose::Owner(person.to_owned());
    let mut rows = Vec::new();
    for journal in Journal::all(&context.folders.state)? {
        let record = match journal.read() {
            Ok(Some(record)) if whose.covers(&record) => record,
            Ok(_) => continue,
            Err(error) => {
                complaints.push(format!("{error}; what its sandbox has is not known"));
                continue;
            }
        };
        let retiring = record.retiring.iter().map(|retiring| (&retiring.name, &retiring.lease));
        for (name, lease) in record.leases.iter().chain(retiring) {
            rows.push(Row {
                project: record.id.project.to_string(),
                credential: Some(name.to_string()),
                provider: Some(lease.spec.provider.word()),
                has: format!("a value in the sandbox {}", record.id.name),
                since: Some(lease.issued_at),
                expires_at: lease.expires_at,
                next: format!("credential revoke --owner {person}"),
            });
        }
    }
    Ok(rows)
}

fn in_store(context: &Context, manifest: &Manifest, person: &str) -> Vec<Row> {
    let store = store(context, &manifest.root, &actor().0);
    let row = |credential: Option<String>, has: &str, since, next: String| Row {
        project: manifest.project.to_string(),
        provider: credential.as_ref().map(|_| "store"),
        credential,
        has: has.to_owned(),
        since,
        expires_at: None,
        next,
    };
    let mut rows = Vec::new();
    if recipients::opens_for(context, &manifest.root, person) {
        let next = format!("credential recipients rm {person} {}", manifest.project);
        rows.push(row(None, "a key that opens the store", None, next));
    }
    for name in manifest.credentials.keys() {
        // What does not open for whoever asks says nothing of who set it.
        if let Ok(stored) = store.read(&manifest.project, name)
            && stored.owner == person
        {
            let next = format!("credential rotate {name} {}", manifest.project);
            rows.push(row(Some(name.to_string()), "set the value, and knows it", Some(stored.rotated_at), next));
        }
    }
    rows
}

/// Log-ins that the person made and nobody has removed since, as the audit log says.
fn log_ins(context: &Context, person: &str, complaints: &mut Vec<String>) -> Vec<Row> {
    let mut there: BTreeSet<(String, String)> = BTreeSet::new();
    let mut rows = Vec::new();
    let log = AuditLog::open(&context.folders.state);
    let read = log.and_then(|log| {
        log.records(|record| {
            let event = record.event;
            let Some(name) = event.facts.get("credential").cloned() else { return };
            let key = (event.project.clone(), name.clone());
            match event.action.as_str() {
                "credential.removed" => {
                    there.remove(&key);
                }
                "credential.login" => {
                    there.remove(&key);
                    let of =
                        event.actor == person || event.actor.split_once('@').is_some_and(|(user, _)| user == person);
                    if of {
                        there.insert(key);
                        rows.push((event.project.clone(), name, event.time));
                    }
                }
                _ => {}
            }
        })
    });
    if let Err(error) = read {
        complaints.push(format!("which log-ins there are is not known: {error}"));
    }
    let mut latest = Vec::new();
    for (project, name, time) in rows.into_iter().rev() {
        if there.remove(&(project.clone(), name.clone())) {
            latest.push(Row {
                next: format!("credential rm {name} {project}"),
                project,
                credential: Some(name),
                provider: Some("oauth"),
                has: "a log-in that acts as the person".to_owned(),
                since: Some(time),
                expires_at: None,
            });
        }
    }
    latest.reverse();
    latest
}

fn table(rows: &[Row], person: &str) -> String {
    if rows.is_empty() {
        return format!("{} has no credential on this machine", sanitise(person));
    }
    let day = |time: Option<Timestamp>| time.map_or_else(|| "-".to_owned(), |time| time.strftime("%F").to_string());
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_header([
        "PROJECT",
        "CREDENTIAL",
        "HAS",
        "SINCE",
        "EXPIRES",
        "WHAT ENDS IT",
    ]);
    for row in rows {
        let credential = row.credential.as_deref().unwrap_or("-");
        let cells = [&row.project, credential, &row.has, &day(row.since), &day(row.expires_at), &row.next];
        table.add_row(cells.map(sanitise));
    }
    table.to_string()
}
