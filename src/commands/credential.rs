//! `sandbox credential`: set, import, list, check, rotate, revoke and remove the project's credentials.
//!
//! Values come in by standard input or a hidden prompt, never by argument: arguments are in the shell's history and in
//! every process list.

use std::collections::BTreeMap;
use std::io::{IsTerminal as _, Read as _};
use std::path::{Path, PathBuf};

use comfy_table::{Table, presets};
use jiff::Timestamp;
use serde::Serialize;
use zeroize::Zeroizing;

use crate::audit::AuditLog;
use crate::audit::event::AuditEvent;
use crate::commands::load::{actor, manifest};
use crate::commands::{Context, Failure};
use crate::credential::secret::Secret;
use crate::credential::spec::{CredentialSpec, Delivery, ProviderSpec};
use crate::credential::store::{Store, StoreError};
use crate::credential::{CredentialError, IssueContext, env_file, issue, kind, rotation};
use crate::project::manifest::Manifest;
use crate::project::{CredentialName, ProjectName, SandboxName, trust};
use crate::session::journal::{Journal, Phase};

/// The largest value that is read, in bytes.
const LIMIT: u64 = 64 << 10;

/// Set, list, rotate and remove the project's credentials
#[derive(Debug, clap::Args)]
pub struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// Set a value from standard input or a hidden prompt
    Set(Named),
    /// Set the values of an env file whose variables are named like declared credentials
    Import {
        /// The file
        file: PathBuf,
        /// The project
        project: Option<String>,
    },
    /// List the project's credentials, without values
    Ls {
        /// The project
        project: Option<String>,
    },
    /// Check that every declared credential can be used; exit code 1 when not. Made for cron and CI
    Check {
        /// The project
        project: Option<String>,
    },
    /// Give a credential a new value, also in the running sandboxes
    Rotate(Named),
    /// Withdraw a credential from the running sandboxes
    Revoke(Named),
    /// Remove a value from the store
    Rm(Named),
}

#[derive(Debug, clap::Args)]
struct Named {
    /// The credential's name
    name: CredentialName,
    /// The project
    project: Option<String>,
}

/// A refusal of this verb.
#[derive(Debug, thiserror::Error)]
enum Refusal {
    #[error("find the credential `{0}` in the manifest")]
    Undeclared(CredentialName),
    #[error("set `{name}`, which the provider {provider} issues")]
    NotStored { name: CredentialName, provider: &'static str },
    #[error("take an empty value")]
    Empty,
    #[error("take a value longer than {LIMIT} bytes")]
    TooLong,
    #[error("take {0}")]
    Personal(&'static str),
    #[error("read the value")]
    Read(#[source] std::io::Error),
    #[error("ask the running sandbox for a rotation")]
    Request(#[source] std::io::Error),
    #[error("find a variable of {0} that is named like a declared credential")]
    NothingToImport(PathBuf),
    #[error("withdraw `{0}`, which no running sandbox has")]
    NotOut(CredentialName),
}

/// How credentials of a project are issued and revoked.
pub fn issue_context<'a>(
    context: &'a Context,
    project: &'a ProjectName,
    root: &'a Path,
    sandbox: &'a SandboxName,
    actor: &'a str,
    reason: &'a str,
) -> IssueContext<'a> {
    IssueContext {
        project,
        project_root: root,
        sandbox,
        actor,
        store: store(context, root, actor),
        state: &context.folders.state,
        reason,
    }
}

fn store(context: &Context, root: &Path, actor: &str) -> Store {
    let own = root.join(".sandbox");
    let identity = std::env::var_os("SANDBOX_AGE_IDENTITY").filter(|path| !path.is_empty());
    Store {
        folder: own.join("credentials"),
        recipients: own.join("recipients"),
        identity: identity.map_or_else(|| context.folders.config.join("identity.txt"), PathBuf::from),
        owner: actor.to_owned(),
    }
}

/// Runs the verb.
///
/// # Errors
/// When the credential is not declared, or its provider, the store or the input fails.
pub async fn run(context: &Context, arguments: Arguments) -> Result<u8, Failure> {
    match arguments.verb {
        Verb::Set(named) => set(context, &named),
        Verb::Import { file, project } => import(context, &file, project.as_deref()),
        Verb::Ls { project } => list(context, project.as_deref(), false).await,
        Verb::Check { project } => list(context, project.as_deref(), true).await,
        Verb::Rotate(named) => rotate(context, &named).await,
        Verb::Revoke(named) => revoke(context, &named).await,
        Verb::Rm(named) => remove(context, &named),
    }
}

fn declared<'a>(manifest: &'a Manifest, name: &CredentialName) -> Result<&'a CredentialSpec, Failure> {
    manifest.credentials.get(name).ok_or_else(|| {
        let next = format!("declare it in sandbox.yaml:\n  credentials:\n    {name}: {{ provider: store }}");
        Failure::new("credential-undeclared", &Refusal::Undeclared(name.clone()), next)
    })
}

fn read_value(name: &CredentialName) -> Result<Secret, Failure> {
    let failed = |error| {
        Failure::new(
            "credential-input",
            &Refusal::Read(error),
            format!("pipe it in: `COMMAND | sandbox credential set {name}`"),
        )
    };
    let mut value = if std::io::stdin().is_terminal() {
        let prompt = dialoguer::Password::new().with_prompt(format!("Value of {name} (not shown)"));
        let text = prompt.interact().map_err(|error| failed(std::io::Error::other(error)))?;
        Zeroizing::new(text.into_bytes())
    } else {
        let mut value = Zeroizing::new(Vec::with_capacity(LIMIT as usize + 1));
        std::io::stdin().take(LIMIT + 1).read_to_end(&mut value).map_err(failed)?;
        value
    };
    if value.ends_with(b"\n") {
        value.pop();
    }
    let refused = |refusal| Failure::new("credential-input", &refusal, "give the value on standard input");
    if value.is_empty() {
        return Err(refused(Refusal::Empty));
    }
    if value.len() as u64 > LIMIT {
        return Err(refused(Refusal::TooLong));
    }
    Ok(Secret::new(std::mem::take(&mut *value)))
}

fn refuse_personal(spec: &CredentialSpec, value: &Secret) -> Result<(), Failure> {
    match kind::personal(value) {
        Some(what) if spec.accept_personal.is_none() => Err(Failure::new(
            "credential-personal",
            &Refusal::Personal(what),
            "make a key for this project alone; or write `accept_personal: REASON`, which the report shows",
        )),
        _ => Ok(()),
    }
}

fn record(context: &Context, manifest: &Manifest, action: &str, facts: &[(&str, &str)]) -> Result<(), Failure> {
    let (actor, _) = actor();
    let event = AuditEvent {
        time: Timestamp::now(),
        action: action.to_owned(),
        actor,
        project: manifest.project.to_string(),
        sandbox: None,
        session: None,
        outcome: "ok".to_owned(),
        facts: facts.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
    };
    AuditLog::open(&context.folders.state)?.append(&event)?;
    Ok(())
}

fn store_value(context: &Context, manifest: &Manifest, name: &CredentialName, value: &Secret) -> Result<(), Failure> {
    let (actor, _) = actor();
    let state = &context.folders.state;
    let store = store(context, &manifest.root, &actor);
    // The first value begins the list of recipients. Who approved the manifest and sets a value need not approve his
    // own name; an existing list is never touched, so that nobody else's comes in by this.
    let begins = !store.recipients.exists();
    let approved = matches!(trust::status(state, manifest)?, trust::Trust::Approved(_));
    store.write(&manifest.project, name, value).map_err(CredentialError::from)?;
    if begins && approved {
        trust::approve(state, manifest, trust::files(manifest)?, &actor)?;
    }
    record(context, manifest, "credential.set", &[("credential", name.as_str()), ("provider", "store")])
}

fn set(context: &Context, named: &Named) -> Result<u8, Failure> {
    let (_, manifest) = manifest(context, named.project.as_deref())?;
    let spec = declared(&manifest, &named.name)?;
    require_store(spec, &named.name)?;
    let value = read_value(&named.name)?;
    refuse_personal(spec, &value)?;
    store_value(context, &manifest, &named.name, &value)?;
    context.printer.note(&format!("`{}` of {} is set", named.name, manifest.project));
    Ok(0)
}

fn require_store(spec: &CredentialSpec, name: &CredentialName) -> Result<(), Failure> {
    if matches!(spec.provider, ProviderSpec::Store) {
        return Ok(());
    }
    let refusal = Refusal::NotStored { name: name.clone(), provider: spec.provider.word() };
    Err(Failure::new("credential-not-stored", &refusal, "change it there, or write `provider: store`"))
}

fn import(context: &Context, file: &Path, project: Option<&str>) -> Result<u8, Failure> {
    let (_, manifest) = manifest(context, project)?;
    let full = std::env::current_dir().map(|folder| folder.join(file)).unwrap_or_else(|_| file.to_path_buf());
    let root = full.parent().unwrap_or(&manifest.root).to_path_buf();
    let name = full.file_name().map(PathBuf::from).unwrap_or_default();
    let values = env_file::read_all(&root, &name).map_err(CredentialError::from)?;
    let mut imported = Vec::new();
    for (variable, value) in values {
        let plain = variable.to_ascii_lowercase();
        let candidates = [plain.clone(), plain.replace('_', "-")];
        let found = manifest.credentials.iter().find(|(name, spec)| {
            matches!(spec.provider, ProviderSpec::Store) && candidates.iter().any(|text| text == name.as_str())
        });
        let Some((name, spec)) = found else { continue };
        refuse_personal(spec, &value)?;
        store_value(context, &manifest, name, &value)?;
        imported.push(name.to_string());
    }
    if imported.is_empty() {
        let next = "declare credentials with `provider: store`, named like the variables in lower case";
        return Err(Failure::new("nothing-to-import", &Refusal::NothingToImport(file.to_path_buf()), next));
    }
    context.printer.result(&imported, || format!("imported {}; now remove the file", imported.join(", ")));
    Ok(0)
}

/// One row of `ls`.
#[derive(Debug, Serialize)]
struct Row {
    name: CredentialName,
    provider: &'static str,
    deliver: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    issued_at: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_at: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_age_seconds: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    fingerprint: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    owner: Option<String>,
    status: String,
    usable: bool,
    sandboxes: Vec<String>,
}

async fn list(context: &Context, project: Option<&str>, check: bool) -> Result<u8, Failure> {
    let (path, manifest) = manifest(context, project)?;
    if check {
        // Commands of the manifest run for a check, so it has to be approved.
        super::trust::require(context, &path, &manifest)?;
    }
    let mut rows = Vec::new();
    for (name, spec) in &manifest.credentials {
        rows.push(row(context, &manifest, name, spec, check).await?);
    }
    context.printer.result(&rows, || table(&rows));
    Ok(u8::from(check && rows.iter().any(|row| !row.usable)))
}

async fn row(
    context: &Context,
    manifest: &Manifest,
    name: &CredentialName,
    spec: &CredentialSpec,
    check: bool,
) -> Result<Row, Failure> {
    let (actor, _) = actor();
    let sandbox = SandboxName::main();
    let issue_context = issue_context(context, &manifest.project, &manifest.root, &sandbox, &actor, "check");
    let deliver = match &spec.deliver {
        Delivery::File { name } => format!("file {name}"),
        Delivery::Git { host } => format!("git {host}"),
        Delivery::Environment { variable } => format!("variable {variable}"),
    };
    let mut row = Row {
        name: name.clone(),
        provider: spec.provider.word(),
        deliver,
        issued_at: None,
        expires_at: None,
        max_age_seconds: spec.max_age.map(|age| age.as_secs()),
        fingerprint: None,
        owner: None,
        status: String::new(),
        usable: true,
        sandboxes: out(context, manifest, name)?.into_keys().collect(),
    };
    if let ProviderSpec::Store = spec.provider {
        match issue_context.store.read(&manifest.project, name) {
            Ok(stored) => row.owner = Some(stored.owner),
            Err(StoreError::Absent(_)) => {
                row.status = "not set".to_owned();
                row.usable = false;
                return Ok(row);
            }
            Err(error) => {
                row.status = error.to_string();
                row.usable = false;
                return Ok(row);
            }
        }
    } else if !check && matches!(spec.provider, ProviderSpec::Exec { .. }) {
        row.status = "issued at `up`".to_owned();
        return Ok(row);
    }
    match issue(name, spec, &issue_context).await {
        Ok(issued) => {
            row.issued_at = Some(issued.issued_at);
            row.expires_at = issued.expires_at;
            row.fingerprint = Some(issued.fingerprint.to_string());
            row.status = if issued.warnings.is_empty() { "ok".to_owned() } else { issued.warnings.join("; ") };
            if let Some(handle) = &issued.handle {
                let _ = crate::credential::revoke(name, spec, Some(handle), &issue_context).await;
            }
        }
        Err(error) => {
            let failure = Failure::from(error);
            row.status = std::iter::once(failure.what).chain(failure.why).collect::<Vec<_>>().join(": ");
            row.usable = false;
        }
    }
    Ok(row)
}

fn table(rows: &[Row]) -> String {
    if rows.is_empty() {
        return "the manifest declares no credential".to_owned();
    }
    let mut table = Table::new();
    table.load_preset(presets::NOTHING);
    table.set_header([
        "NAME",
        "PROVIDER",
        "DELIVERED AS",
        "SET",
        "EXPIRES",
        "FINGERPRINT",
        "OWNER",
        "IN USE BY",
        "STATUS",
    ]);
    let day = |time: Option<Timestamp>| {
        time.map_or_else(|| "-".to_owned(), |time| time.strftime("%Y-%m-%d %H:%M").to_string())
    };
    for row in rows {
        table.add_row([
            row.name.to_string(),
            row.provider.to_owned(),
            row.deliver.clone(),
            day(row.issued_at),
            day(row.expires_at),
            row.fingerprint.clone().unwrap_or_else(|| "-".to_owned()),
            row.owner.clone().unwrap_or_else(|| "-".to_owned()),
            if row.sandboxes.is_empty() { "-".to_owned() } else { row.sandboxes.join(", ") },
            super::printer::sanitise(&row.status),
        ]);
    }
    table.to_string()
}

/// The running sandboxes of the project that have a credential, by name, with their journals.
fn out(context: &Context, manifest: &Manifest, name: &CredentialName) -> Result<BTreeMap<String, Journal>, Failure> {
    let mut found = BTreeMap::new();
    for journal in Journal::all(&context.folders.state)? {
        let Some(record) = journal.read()? else { continue };
        if record.id.project == manifest.project && record.phase == Phase::Running && record.leases.contains_key(name) {
            found.insert(record.id.name.to_string(), journal);
        }
    }
    Ok(found)
}

async fn rotate(context: &Context, named: &Named) -> Result<u8, Failure> {
    let (_, manifest) = manifest(context, named.project.as_deref())?;
    let spec = declared(&manifest, &named.name)?;
    if matches!(spec.provider, ProviderSpec::Store) {
        let value = read_value(&named.name)?;
        refuse_personal(spec, &value)?;
        store_value(context, &manifest, &named.name, &value)?;
    }
    let journals = out(context, &manifest, &named.name)?;
    for journal in journals.values() {
        rotation::request(journal.folder(), &named.name).map_err(|error| {
            Failure::new("rotation-request", &Refusal::Request(error), "make the launcher's state folder writable")
        })?;
    }
    record(context, &manifest, "credential.rotate_requested", &[("credential", named.name.as_str())])?;
    let sandboxes: Vec<&String> = journals.keys().collect();
    context.printer.result(&sandboxes, || match sandboxes.len() {
        0 => format!("`{}` has a new value; no running sandbox has it", named.name),
        count => format!("`{}` has a new value; {count} running sandbox(es) get it now", named.name),
    });
    Ok(0)
}

async fn revoke(context: &Context, named: &Named) -> Result<u8, Failure> {
    let (_, manifest) = manifest(context, named.project.as_deref())?;
    declared(&manifest, &named.name)?;
    let journals = out(context, &manifest, &named.name)?;
    if journals.is_empty() {
        return Err(Failure::new(
            "credential-not-out",
            &Refusal::NotOut(named.name.clone()),
            "see `sandbox credential ls`",
        ));
    }
    for journal in journals.values() {
        rotation::request_revocation(journal.folder(), &named.name).map_err(|error| {
            Failure::new("rotation-request", &Refusal::Request(error), "make the launcher's state folder writable")
        })?;
    }
    record(context, &manifest, "credential.revoke_requested", &[("credential", named.name.as_str())])?;
    context.printer.note(&format!("`{}` is being withdrawn from {} sandbox(es)", named.name, journals.len()));
    Ok(0)
}

fn remove(context: &Context, named: &Named) -> Result<u8, Failure> {
    let (_, manifest) = manifest(context, named.project.as_deref())?;
    let (actor, _) = actor();
    let removed =
        store(context, &manifest.root, &actor).remove(&manifest.project, &named.name).map_err(CredentialError::from)?;
    if removed {
        record(context, &manifest, "credential.removed", &[("credential", named.name.as_str())])?;
        context.printer.note(&format!("`{}` is removed; who had the file and its key can still read it", named.name));
    } else {
        context.printer.note(&format!("`{}` was not set", named.name));
    }
    Ok(u8::from(!removed))
}

impl From<CredentialError> for Failure {
    fn from(error: CredentialError) -> Self {
        let next = match &error {
            CredentialError::Store(StoreError::Absent(name)) => format!("set it with `sandbox credential set {name}`"),
            CredentialError::Store(StoreError::IdentityLost { path }) => format!(
                "put the identity back at {}, or set SANDBOX_AGE_IDENTITY; without it the values have to be set anew",
                path.display()
            ),
            CredentialError::Store(StoreError::NotARecipient { .. }) => {
                "ask somebody in `.sandbox/recipients` to add your public key and to set the value again".to_owned()
            }
            CredentialError::Store(StoreError::Misplaced { .. }) => {
                "remove the file and set the value with `sandbox credential set`".to_owned()
            }
            CredentialError::Store(StoreError::Recipient { .. }) => {
                "write one age or ssh public key a line; comments start with #".to_owned()
            }
            CredentialError::Store(_) => "make the file readable and writable for you".to_owned(),
            CredentialError::EnvFile(env_file::EnvFileError::Readable { path, .. }) => {
                format!("run `chmod 600 {}`", path.display())
            }
            CredentialError::EnvFile(env_file::EnvFileError::Tracked { path }) => {
                format!("run `git rm --cached {0}`, add it to .gitignore, and change the values", path.display())
            }
            CredentialError::EnvFile(_) => {
                "keep agents' values in a file of their own, such as `.env.agent`, with mode 600".to_owned()
            }
            CredentialError::Exec(_) => "run the command by hand and see what it says".to_owned(),
            CredentialError::Fingerprint(_) => "make the launcher's state folder writable for you".to_owned(),
            CredentialError::Shared { .. } => {
                "issue another one for this project; or declare `shared_with: { projects: […], reason: … }`".to_owned()
            }
            CredentialError::Personal { .. } => {
                "make a key for this project alone; or write `accept_personal: REASON`, which the report shows"
                    .to_owned()
            }
            CredentialError::TooOld { .. } => "rotate it with `sandbox credential rotate`".to_owned(),
            CredentialError::Size(_) => "look at what the provider gives".to_owned(),
            CredentialError::FileTwice(_) => "give them different names in `deliver: { file: NAME }`".to_owned(),
        };
        Failure::new("credential", &error, next)
    }
}
