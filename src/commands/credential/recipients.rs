//! `sandbox credential recipients` and `rekey`: who can open the project's stored values.

use std::path::{Path, PathBuf};

use comfy_table::{Table, presets};
use serde::Serialize;

use super::advice::store_advice;
use super::store;
use crate::commands::audit::record;
use crate::commands::load::{self, actor};
use crate::commands::printer::sanitise;
use crate::commands::{Context, Failure};
use crate::credential::store::StoreError;
use crate::credential::{fingerprint, secret::Secret};
use crate::project::manifest::Manifest;
use crate::project::trust;

/// The largest file with a public key, in bytes.
const KEY_LIMIT: u64 = 16 << 10;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// List whose keys open new values
    Ls {
        /// The project
        project: Option<String>,
    },
    /// Add a public key; `credential rekey` has what is stored open for it too
    Add {
        /// Whose it is
        owner: String,
        /// The public key: age1…, `ssh-ed25519 …` in quotes, or a file that holds one
        key: String,
        /// The project
        project: Option<String>,
    },
    /// Take a person's keys out, or one key. What they could open before stays known to them
    Rm {
        /// The owner, or the public key
        who: String,
        /// The project
        project: Option<String>,
    },
}

/// One key.
#[derive(Debug, Serialize)]
struct Row {
    owner: String,
    key: String,
    /// Whether it is the user's own.
    own: bool,
}

pub(super) fn run(context: &Context, arguments: Arguments) -> Result<u8, Failure> {
    match arguments.verb {
        Verb::Ls { project } => list(context, project.as_deref()),
        Verb::Add { owner, key, project } => add(context, &owner, &key, project.as_deref()),
        Verb::Rm { who, project } => remove(context, &who, project.as_deref()),
    }
}

fn failed(error: StoreError) -> Failure {
    Failure::new("credential", &error, store_advice(&error))
}

fn list(context: &Context, project: Option<&str>) -> Result<u8, Failure> {
    let (_, manifest) = load::manifest(context, project)?;
    let (recipients, own) = store(context, &manifest.root, &actor().0).recipients().map_err(failed)?;
    let row = |(owner, key): (&str, &str)| Row {
        owner: owner.to_owned(),
        key: key.to_owned(),
        own: own.iter().any(|own| own == key),
    };
    let rows: Vec<Row> = recipients.pairs().map(row).collect();
    context.printer.result(&rows, || table(&rows));
    Ok(0)
}

fn table(rows: &[Row]) -> String {
    if rows.is_empty() {
        return "nobody yet: the first `sandbox credential set` begins the list with you".to_owned();
    }
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_header(["OWNER", "PUBLIC KEY", ""]);
    for row in rows {
        // The beginning of an ssh key is the same for all of its kind.
        let (kind, text) = row.key.split_once(' ').unwrap_or(("age", &row.key));
        let end = text.chars().count().saturating_sub(12);
        let key = if kind == "age" {
            text.chars().take(20).chain("…".chars()).collect::<String>()
        } else {
            format!("{kind} …{}", text.chars().skip(end).collect::<String>())
        };
        table.add_row([sanitise(&row.owner), sanitise(&key), if row.own { "yours" } else { "" }.to_owned()]);
    }
    table.to_string()
}

/// Changes the recipients' file. Whoever approved the manifest and changes it by this verb need not approve what he did.
fn change<T>(
    context: &Context,
    manifest: &Manifest,
    change: impl FnOnce() -> Result<T, StoreError>,
) -> Result<T, Failure> {
    let state = &context.folders.state;
    let approved = matches!(trust::status(state, manifest)?, trust::Trust::Approved(_));
    let changed = change().map_err(failed)?;
    if approved {
        trust::approve(state, manifest, trust::files(manifest)?, &actor().0)?;
    }
    Ok(changed)
}

fn add(context: &Context, owner: &str, key: &str, project: Option<&str>) -> Result<u8, Failure> {
    let (_, manifest) = load::manifest(context, project)?;
    let store = store(context, &manifest.root, &actor().0);
    let key = key_of(key)?;
    change(context, &manifest, || store.add_recipient(owner, &key))?;
    record(context, &manifest.project, "recipient.added", &[("owner", owner), ("key", &marked(context, &key))])?;
    context.printer.note(&format!(
        "new values of {} open for {} too; run `sandbox credential rekey` so that those which are there do",
        manifest.project,
        sanitise(owner)
    ));
    Ok(0)
}

/// The public key itself, or the one in a file. A private key in its place is never repeated.
fn key_of(text: &str) -> Result<String, Failure> {
    if text.starts_with("age1") || text.starts_with("ssh-") {
        return Ok(text.to_owned());
    }
    let path = PathBuf::from(text);
    let small = path.metadata().is_ok_and(|about| about.is_file() && about.len() <= KEY_LIMIT);
    let read = || std::fs::read_to_string(&path).map_err(|source| StoreError::Io { path: path.clone(), source });
    let content = if small { read().map_err(failed)? } else { return Err(failed(StoreError::NotAKey)) };
    let keys = content.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    match keys.collect::<Vec<_>>().as_slice() {
        [key] => Ok((*key).to_owned()),
        _ => Err(failed(StoreError::NotAKey)),
    }
}

/// A key in the audit log: by its fingerprint, which is short and the same for the same key.
fn marked(context: &Context, key: &str) -> String {
    let key = Secret::new(key.as_bytes().to_vec());
    fingerprint::of(&context.folders.state, &key).map_or_else(|_| "unknown".to_owned(), |found| found.to_string())
}

fn remove(context: &Context, who: &str, project: Option<&str>) -> Result<u8, Failure> {
    let (_, manifest) = load::manifest(context, project)?;
    let store = store(context, &manifest.root, &actor().0);
    let mut owners = change(context, &manifest, || store.remove_recipient(who))?;
    let keys = owners.len();
    owners.dedup();
    let named = owners.iter().map(|owner| sanitise(owner)).collect::<Vec<_>>().join(", ");
    record(context, &manifest.project, "recipient.removed", &[("owner", &named), ("keys", &keys.to_string())])?;
    let values = stored(context, &manifest);
    context.printer.note(&format!(
        "new values of {} do not open for {named} any more. That unreads nothing: {}",
        manifest.project,
        if values.is_empty() {
            "there are no values yet".to_owned()
        } else {
            format!(
                "the values of {} could be read, so give them new ones (`sandbox credential rotate`); `sandbox credential \
                 rekey` closes the files of now, and those in the repository's history stay open",
                values.join(", ")
            )
        }
    ));
    Ok(0)
}

/// The declared credentials that the store has a value of.
fn stored(context: &Context, manifest: &Manifest) -> Vec<String> {
    let store = store(context, &manifest.root, &actor().0);
    let names = manifest.credentials.keys().filter(|name| store.has(&manifest.project, name));
    names.map(ToString::to_string).collect()
}

/// What `rekey` did, for programs.
#[derive(Debug, Serialize)]
struct Report {
    rekeyed: Vec<String>,
    readers: Vec<String>,
    failed: Vec<Failed>,
}

#[derive(Debug, Serialize)]
struct Failed {
    credential: String,
    why: String,
}

/// Encrypts the stored values anew. Exit code 1 when one was left as it was.
pub(super) fn rekey(context: &Context, project: Option<&str>) -> Result<u8, Failure> {
    let (_, manifest) = load::manifest(context, project)?;
    let rekeyed = store(context, &manifest.root, &actor().0).rekey(&manifest.project).map_err(failed)?;
    let report = Report {
        rekeyed: rekeyed.done.iter().map(ToString::to_string).collect(),
        readers: rekeyed.readers.iter().map(|reader| sanitise(reader)).collect(),
        failed: (rekeyed.failed.into_iter())
            .map(|(name, error)| Failed { credential: name.to_string(), why: format!("cannot {}", failed(error).what) })
            .collect(),
    };
    let (values, readers) = (report.rekeyed.join(", "), report.readers.join(", "));
    record(context, &manifest.project, "credential.rekeyed", &[("values", &values), ("readers", &readers)])?;
    for failed in &report.failed {
        context.printer.warning(&format!("`{}` stays as it was: {}", failed.credential, failed.why));
    }
    context.printer.result(&report, || match report.rekeyed.len() {
        0 => format!("no value of {} was encrypted anew", manifest.project),
        _ => format!("{values} of {}: open for {readers}", manifest.project),
    });
    if !report.rekeyed.is_empty() {
        context.printer.note(
            "whoever was taken out may have read these values before, and the old files are in the repository's history: \
             give the values new ones at their issuers",
        );
    }
    Ok(u8::from(!report.failed.is_empty()))
}

/// Whether the project's store opens for somebody of this name, who may have left.
pub(super) fn opens_for(context: &Context, root: &Path, person: &str) -> bool {
    let recipients = store(context, root, &actor().0).recipients();
    recipients.is_ok_and(|(recipients, _)| recipients.owners().iter().any(|owner| owner == person))
}
