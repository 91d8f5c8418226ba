//! `sandbox credential`: set, import, list, check, rotate, revoke and remove the project's credentials.
//!
//! Values come in by standard input or a hidden prompt, never by argument: arguments are in the shell's history and in
//! every process list. Who gives one all the same is told so, and the word is not repeated.

use std::collections::BTreeMap;
use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use crate::commands::audit::record;
use crate::commands::load::{self, actor};
use crate::commands::printer::sanitise;
use crate::commands::{Context, Failure};
use crate::credential::fingerprint::{self, Fingerprint};
use crate::credential::identity::Authority;
use crate::credential::secret::Secret;
use crate::credential::spec::{CredentialSpec, ProviderSpec};
use crate::credential::store::{IdentityPlace, Store};
use crate::credential::{
    CredentialError, IssueContext, VALUE_LIMIT, admit, aws, env_file, exec, oauth, rotation, vault,
};
use crate::project::configuration::{self, StorePlace};
use crate::project::manifest::Manifest;
use crate::project::{CredentialName, ProjectName, SandboxName, discovery, trust};
use crate::session::journal::{Journal, Phase};

mod advice;
pub use advice::advice;
mod identity;
mod listing;
mod login;
mod owned;
mod recipients;
mod revoke_all;

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
    /// Log in for a credential of the provider `oauth`: by a code in the browser, or with a refresh token from standard
    /// input. Sandboxes get access tokens; what renews them stays here
    Login(Named),
    /// Set the values of an env file whose variables are named like declared credentials
    Import {
        /// The file
        file: PathBuf,
        /// The project
        project: Option<String>,
        /// What the variables' names begin with before the credentials' names, such as PAYMENTS_
        #[arg(long, default_value = "")]
        prefix: String,
    },
    /// List the project's credentials, without values; or what a person has, in whatever project
    Ls {
        /// The project
        #[arg(conflicts_with = "owner")]
        project: Option<String>,
        /// What this person has on this machine: in sandboxes, in stores, as log-ins
        #[arg(long, value_name = "PERSON")]
        owner: Option<String>,
    },
    /// Check every declared credential; exit code 1 when one cannot be used or is due soon. Made for cron and CI
    Check {
        /// The project
        project: Option<String>,
        /// The form: `table` for a terminal, or SARIF 2.1.0 for other programs
        #[arg(long = "as", value_enum, value_name = "FORM", default_value_t = listing::Form::Table)]
        form: listing::Form,
    },
    /// Who can open the project's stored values: list, add and remove public keys
    Recipients(recipients::Arguments),
    /// Encrypt the project's stored values anew, to the recipients of now
    Rekey {
        /// The project
        project: Option<String>,
    },
    /// Give a credential a new value, also in the running sandboxes
    Rotate(Named),
    /// Withdraw a credential from the running sandboxes, or all that a project or a person has
    Revoke(RevokeArgs),
    /// Remove a value from the store
    Rm(Named),
    /// Print what issuers need to take the project's sandboxes by their signed identity, without a shared secret
    Identity(identity::Arguments),
}

// The words are parsed here and not by clap, whose errors repeat them.
#[derive(Debug, clap::Args)]
struct Named {
    /// The credential's name
    name: String,
    /// The project
    project: Option<String>,
    /// Whatever else is there, which may be a value
    #[arg(hide = true)]
    surplus: Vec<String>,
}

#[derive(Debug, clap::Args)]
struct RevokeArgs {
    /// The credential's name; with --all, the project in its place
    #[arg(required_unless_present_any = ["all", "owner"])]
    name: Option<String>,
    /// The project
    project: Option<String>,
    /// Every credential that sandboxes of the project have, also after a crash
    #[arg(long, conflicts_with = "owner")]
    all: bool,
    /// Every credential of the sandboxes that this person started on this machine, in whatever project
    #[arg(long, value_name = "PERSON")]
    owner: Option<String>,
    /// With --all or --owner: stop the sandboxes too
    #[arg(long)]
    stop: bool,
    /// Why, for the audit log
    #[arg(long, value_name = "TEXT", value_parser = reason)]
    reason: Option<String>,
    /// Whatever else is there, which may be a value
    #[arg(hide = true)]
    surplus: Vec<String>,
}

/// Words for the audit log: one line that somebody can read.
fn reason(text: &str) -> Result<String, String> {
    let text = text.trim();
    let fine = (5..=500).contains(&text.chars().count()) && !text.chars().any(char::is_control);
    if fine { Ok(text.to_owned()) } else { Err("write 5 to 500 characters, on one line".to_owned()) }
}

/// A refusal of this verb.
#[derive(Debug, thiserror::Error)]
enum Refusal {
    #[error("take what stands after `credential` for a credential's name and a project")]
    Words,
    #[error("find a credential of that name in the manifest")]
    Undeclared,
    #[error("set `{name}`, which the provider {provider} issues")]
    NotStored { name: CredentialName, provider: &'static str },
    #[error("log in for `{name}`, which the provider {provider} issues")]
    NoLogin { name: CredentialName, provider: &'static str },
    #[error("read the value")]
    Read(#[source] std::io::Error),
    #[error("ask the running sandbox for it")]
    Request(#[source] std::io::Error),
    #[error("find the file that {0} names")]
    NoFile(PathBuf),
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
        home: &context.folders.home,
        vault: vault_environment(context),
        aws: aws_environment(context),
        identity: authority(context),
        held: crate::credential::held::Held::default(),
        session: None,
        reason,
    }
}

/// Who signs what is said of a sandbox. What only ends a session must not fail for a word in a file, as with the store.
fn authority(context: &Context) -> Authority {
    let issuer = configuration::load(&context.folders.config).ok().and_then(|own| own.issuer);
    Authority { folder: context.folders.config.join("issuer"), issuer }
}

/// What the environment says of Vault. OpenBao's own names come first, as its command line has it.
fn vault_environment(context: &Context) -> vault::Environment {
    let variable = |name: &str| {
        let find = |prefix: &str| std::env::var(format!("{prefix}_{name}")).ok().filter(|value| !value.is_empty());
        find("BAO").or_else(|| find("VAULT"))
    };
    vault::Environment {
        address: variable("ADDR"),
        token: variable("TOKEN").map(|token| Secret::new(token.into_bytes())),
        token_file: context.folders.home.join(".vault-token"),
        namespace: variable("NAMESPACE"),
        ca_file: variable("CACERT").map(PathBuf::from),
    }
}

/// What the environment says of AWS.
fn aws_environment(context: &Context) -> aws::Environment {
    let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let secret = |name: &str| variable(name).map(|value| Secret::new(value.into_bytes()));
    let file = variable("AWS_SHARED_CREDENTIALS_FILE").map(PathBuf::from);
    aws::Environment {
        access_key_id: variable("AWS_ACCESS_KEY_ID"),
        secret_access_key: secret("AWS_SECRET_ACCESS_KEY"),
        session_token: secret("AWS_SESSION_TOKEN"),
        profile: variable("AWS_PROFILE"),
        credentials_file: file.unwrap_or_else(|| context.folders.home.join(".aws/credentials")),
    }
}

fn store(context: &Context, root: &Path, actor: &str) -> Store {
    // Whoever reads or writes a value has read the manifest, and with it a configuration that is whole. What only ends
    // a session needs no store, and must not fail for a word in a file.
    let own = configuration::load(&context.folders.config);
    let (place, keyring) = own.map_or((StorePlace::Repository, false), |own| (own.store, own.keyring));
    let own = match place {
        StorePlace::Repository => root.join(".sandbox"),
        StorePlace::State => context.folders.state.join("store"),
    };
    let file = context.folders.config.join("identity.txt");
    let identity = match std::env::var_os("SANDBOX_AGE_IDENTITY").filter(|path| !path.is_empty()) {
        Some(path) => IdentityPlace::given(PathBuf::from(path)),
        None if keyring => IdentityPlace::Keyring { file },
        None => IdentityPlace::made(file),
    };
    Store { folder: own.join("credentials"), recipients: own.join("recipients"), identity, owner: actor.to_owned() }
}

/// Runs the verb.
///
/// # Errors
/// When the credential is not declared, or its provider, the store or the input fails.
pub async fn run(context: &Context, arguments: Arguments) -> Result<u8, Failure> {
    match arguments.verb {
        Verb::Set(named) => set(context, &named),
        Verb::Login(named) => login::login(context, &named).await,
        Verb::Import { file, project, prefix } => import(context, &file, project.as_deref(), &prefix),
        Verb::Ls { owner: Some(person), .. } => owned::run(context, &person),
        Verb::Ls { project, .. } => listing::list(context, project.as_deref(), None).await,
        Verb::Check { project, form } => listing::list(context, project.as_deref(), Some(form)).await,
        Verb::Recipients(args) => recipients::run(context, args),
        Verb::Rekey { project } => recipients::rekey(context, project.as_deref()),
        Verb::Rotate(named) => rotate(context, &named).await,
        Verb::Revoke(args) => revoke(context, args).await,
        Verb::Rm(named) => remove(context, &named).await,
        Verb::Identity(args) => identity::run(context, &args),
    }
}

/// The project and the credential's name that the words say. No word that could be a value is ever repeated.
fn named(context: &Context, words: &Named) -> Result<(Manifest, CredentialName), Failure> {
    let refused = || {
        let next = "write `sandbox credential VERB NAME [PROJECT]` and give a value on standard input or at the prompt; \
                    if a value stood there, it is in your shell's history now: change it at its issuer";
        Failure::new("credential-words", &Refusal::Words, next).with_exit(2)
    };
    let name = words.name.parse().map_err(|_| refused())?;
    if !words.surplus.is_empty() {
        return Err(refused());
    }
    let current = std::env::current_dir().unwrap_or_default();
    let state = &context.folders.state;
    // Failures to find the project repeat its name, failures after that do not.
    if words.project.is_some() && crate::project::locate(words.project.as_deref(), &current, state).is_err() {
        return Err(refused());
    }
    let (_, manifest) = load::manifest(context, words.project.as_deref())?;
    Ok((manifest, name))
}

/// The declaration of a credential. The refusal lists what is declared in place of the name, which may be a value that
/// was typed where the name belongs.
fn declared<'a>(manifest: &'a Manifest, name: &CredentialName) -> Result<&'a CredentialSpec, Failure> {
    manifest.credentials.get(name).ok_or_else(|| {
        let names: Vec<&str> = manifest.credentials.keys().map(CredentialName::as_str).collect();
        let names = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
        let next =
            format!("declared: {names}; add others to sandbox.yaml:\n  credentials:\n    NAME: {{ provider: store }}");
        Failure::new("credential-undeclared", &Refusal::Undeclared, next)
    })
}

fn read_value(name: &CredentialName) -> Result<Secret, Failure> {
    let failed = |error| {
        let next = format!("pipe it in, at most {VALUE_LIMIT} bytes: `COMMAND | sandbox credential set {name}`");
        Failure::new("credential-input", &Refusal::Read(error), next)
    };
    let value = if std::io::stdin().is_terminal() {
        let prompt = dialoguer::Password::new().with_prompt(format!("Value of {name} (not shown)"));
        let text = Zeroizing::new(prompt.interact().map_err(|error| failed(std::io::Error::other(error)))?);
        Secret::new(text.as_bytes().to_vec())
    } else {
        // Room for the line end, which is no part of the value.
        Secret::read(std::io::stdin(), VALUE_LIMIT + 2).map_err(failed)?
    };
    Ok(value.without_line_end())
}

/// Applies the rules to a value, so that it is refused now and not at the next `up`.
fn admitted(
    context: &Context,
    manifest: &Manifest,
    name: &CredentialName,
    value: &Secret,
) -> Result<Fingerprint, Failure> {
    let spec = declared(manifest, name)?;
    let (actor, _) = actor();
    let sandbox = SandboxName::main();
    let issue = issue_context(context, &manifest.project, &manifest.root, &sandbox, &actor, "set");
    Ok(admit(name, spec, &issue, value)?)
}

/// Stores a value that was admitted, and says who can open it.
fn store_value(
    context: &Context,
    manifest: &Manifest,
    name: &CredentialName,
    value: &Secret,
    fingerprint: &Fingerprint,
) -> Result<Vec<String>, Failure> {
    let (actor, _) = actor();
    let state = &context.folders.state;
    let approved = matches!(trust::status(state, manifest)?, trust::Trust::Approved(_));
    let written =
        store(context, &manifest.root, &actor).write(&manifest.project, name, value).map_err(CredentialError::from)?;
    // The first value begins the list of recipients. Who approved the manifest and sets a value need not approve his
    // own name; an existing list is never touched, so that nobody else's comes in by this.
    if written.began && approved {
        trust::approve(state, manifest, trust::files(manifest)?, &actor)?;
    }
    let readers: Vec<String> = written.readers.iter().map(|reader| sanitise(reader)).collect();
    let facts = [
        ("credential", name.as_str()),
        ("provider", "store"),
        ("fingerprint", &fingerprint.to_string()),
        ("readers", &readers.join(", ")),
    ];
    record(context, &manifest.project, "credential.set", &facts)?;
    Ok(readers)
}

fn set(context: &Context, words: &Named) -> Result<u8, Failure> {
    let (manifest, name) = named(context, words)?;
    require_store(declared(&manifest, &name)?, &name)?;
    let value = read_value(&name)?;
    let fingerprint = admitted(context, &manifest, &name, &value)?;
    let readers = store_value(context, &manifest, &name, &value, &fingerprint)?;
    context.printer.note(&format!("`{name}` of {} is set; it opens for {}", manifest.project, readers.join(", ")));
    Ok(0)
}

fn require_store(spec: &CredentialSpec, name: &CredentialName) -> Result<(), Failure> {
    if matches!(spec.provider, ProviderSpec::Store { .. }) {
        return Ok(());
    }
    let refusal = Refusal::NotStored { name: name.clone(), provider: spec.provider.word() };
    Err(Failure::new("credential-not-stored", &refusal, "change it there, or write `provider: store`"))
}

fn import(context: &Context, file: &Path, project: Option<&str>, prefix: &str) -> Result<u8, Failure> {
    let (_, manifest) = load::manifest(context, project)?;
    let full = std::env::current_dir().unwrap_or_default().join(file);
    let (Some(folder), Some(own)) = (full.parent(), full.file_name()) else {
        let next = "name an env file, such as `.env.agent`";
        return Err(Failure::new("nothing-to-import", &Refusal::NoFile(file.to_path_buf()), next));
    };
    let values = env_file::read_all(folder, Path::new(own)).map_err(CredentialError::from)?;
    // All are looked at before the first is stored.
    let mut admissible = BTreeMap::new();
    for (variable, value) in values {
        let Some(plain) = variable.strip_prefix(prefix).map(str::to_ascii_lowercase) else { continue };
        let candidates = [plain.replace('_', "-"), plain];
        let found = manifest.credentials.iter().find(|(name, spec)| {
            matches!(spec.provider, ProviderSpec::Store { .. }) && candidates.iter().any(|text| text == name.as_str())
        });
        if let Some((name, _)) = found {
            let fingerprint = admitted(context, &manifest, name, &value)?;
            // As a shell has it, the last assignment counts.
            admissible.insert(name.clone(), (value, fingerprint));
        }
    }
    if admissible.is_empty() {
        let next =
            "declare credentials with `provider: store`, named like the variables (without --prefix) in lower case";
        return Err(Failure::new("nothing-to-import", &Refusal::NothingToImport(file.to_path_buf()), next));
    }
    for (name, (value, fingerprint)) in &admissible {
        store_value(context, &manifest, name, value, fingerprint)?;
    }
    let imported: Vec<String> = admissible.keys().map(ToString::to_string).collect();
    context.printer.result(&imported, || format!("imported {}; now remove the file", imported.join(", ")));
    Ok(0)
}

/// The running sandboxes of the project that have a credential, by name, with their journals.
fn holders(
    context: &Context,
    manifest: &Manifest,
    name: &CredentialName,
) -> Result<BTreeMap<String, Journal>, Failure> {
    let mut found = BTreeMap::new();
    for journal in Journal::all(&context.folders.state)? {
        let Some(record) = journal.read()? else { continue };
        if record.id.project == manifest.project && record.phase == Phase::Running && record.leases.contains_key(name) {
            found.insert(record.id.name.to_string(), journal);
        }
    }
    Ok(found)
}

fn request_failed(error: std::io::Error) -> Failure {
    Failure::new("rotation-request", &Refusal::Request(error), "make the launcher's state folder writable")
}

async fn rotate(context: &Context, words: &Named) -> Result<u8, Failure> {
    let (manifest, name) = named(context, words)?;
    let stored = match &declared(&manifest, &name)?.provider {
        ProviderSpec::Oauth(_) => {
            let (actor, _) = actor();
            let sandbox = SandboxName::main();
            let issue = issue_context(context, &manifest.project, &manifest.root, &sandbox, &actor, "rotate");
            oauth::expire(&name, &issue).await.map_err(CredentialError::from)?;
            false
        }
        ProviderSpec::Store { rotate_command } => {
            let value = match rotate_command {
                None => read_value(&name)?,
                Some(command) => {
                    let path = manifest.root.join(discovery::FILE_NAME);
                    crate::commands::trust::require(context, &path, &manifest)?;
                    rotated(context, &manifest, &name, command).await?
                }
            };
            let fingerprint = admitted(context, &manifest, &name, &value)?;
            store_value(context, &manifest, &name, &value, &fingerprint)?;
            true
        }
        // The supervisors of the running sandboxes ask these anew.
        ProviderSpec::EnvFile { .. }
        | ProviderSpec::Exec { .. }
        | ProviderSpec::Vault(_)
        | ProviderSpec::GithubApp(_)
        | ProviderSpec::AwsSts(_)
        | ProviderSpec::OpenaiProject(_)
        | ProviderSpec::Gcp(_)
        | ProviderSpec::Azure(_)
        | ProviderSpec::AnthropicWif(_) => false,
    };
    let journals = holders(context, &manifest, &name)?;
    for journal in journals.values() {
        rotation::request(journal.folder(), &name).map_err(request_failed)?;
    }
    record(context, &manifest.project, "credential.rotate_requested", &[("credential", name.as_str())])?;
    let sandboxes: Vec<&String> = journals.keys().collect();
    context.printer.result(&sandboxes, || match (stored, sandboxes.len()) {
        (true, 0) => format!("`{name}` has a new value; no running sandbox has it"),
        (true, count) => format!("`{name}` has a new value; {count} running sandbox(es) get it now"),
        (false, 0) => format!("no running sandbox has `{name}`; each `up` issues it anew"),
        (false, count) => format!("`{name}` is being issued anew for {count} running sandbox(es)"),
    });
    Ok(0)
}

/// The new value that a command of the manifest has an issuer make.
async fn rotated(
    context: &Context,
    manifest: &Manifest,
    name: &CredentialName,
    command: &[String],
) -> Result<Secret, Failure> {
    let (actor, _) = actor();
    let sandbox = SandboxName::main();
    let issue = issue_context(context, &manifest.project, &manifest.root, &sandbox, &actor, "rotate");
    let answer = exec::issue(command, &exec::Request::new(name, &issue, None)).await.map_err(CredentialError::from)?;
    Ok(answer.value.without_line_end())
}

async fn revoke(context: &Context, args: RevokeArgs) -> Result<u8, Failure> {
    if let Some(owner) = args.owner.clone().filter(|_| args.name.is_none()) {
        return revoke_all::run(context, &revoke_all::Whose::Owner(owner), args.stop, args.reason.as_deref()).await;
    }
    if args.all && args.project.is_none() {
        // A project whose folder is gone still has its credentials.
        let named = args.name.as_deref().and_then(|text| text.parse::<ProjectName>().ok());
        let project = match named {
            Some(project) => project,
            None => load::manifest(context, args.name.as_deref())?.1.project,
        };
        return revoke_all::run(context, &revoke_all::Whose::Project(project), args.stop, args.reason.as_deref()).await;
    }
    let surplus = args.all || args.owner.is_some() || args.stop;
    let words = Named {
        name: args.name.unwrap_or_default(),
        project: args.project,
        surplus: if surplus { vec![String::new()] } else { args.surplus },
    };
    let (manifest, name) = named(context, &words)?;
    declared(&manifest, &name)?;
    let journals = holders(context, &manifest, &name)?;
    if journals.is_empty() {
        return Err(Failure::new("credential-not-out", &Refusal::NotOut(name), "see `sandbox credential ls`"));
    }
    for journal in journals.values() {
        rotation::request_revocation(journal.folder(), &name).map_err(request_failed)?;
    }
    let mut facts = vec![("credential", name.as_str())];
    facts.extend(args.reason.as_deref().map(|reason| ("reason", reason)));
    record(context, &manifest.project, "credential.revoke_requested", &facts)?;
    context.printer.note(&format!("`{name}` is being withdrawn from {} sandbox(es)", journals.len()));
    Ok(0)
}

async fn remove(context: &Context, words: &Named) -> Result<u8, Failure> {
    let (manifest, name) = named(context, words)?;
    let (actor, _) = actor();
    let removed =
        store(context, &manifest.root, &actor).remove(&manifest.project, &name).map_err(CredentialError::from)?;
    let sandbox = SandboxName::main();
    let issue = issue_context(context, &manifest.project, &manifest.root, &sandbox, &actor, "rm");
    let mut ended = false;
    if let Some(CredentialSpec { provider: ProviderSpec::Oauth(oauth_spec), .. }) = manifest.credentials.get(&name)
        && oauth::logged_in(&name, &issue)
    {
        match oauth::end(&name, oauth_spec, &issue).await {
            Ok(done) => ended = done,
            // It is forgotten all the same: who removes it does not want it used any more.
            Err(error) => context.printer.warning(&format!("`{name}` was not ended at its issuer: cannot {error}")),
        }
    }
    // Also when the manifest declares it in another way by now.
    let logged_out =
        oauth::logged_in(&name, &issue) && oauth::forget(&name, &issue).await.map_err(CredentialError::from)?;
    let removed = removed || logged_out;
    // While a running sandbox has the value, it is still this project's.
    if holders(context, &manifest, &name)?.is_empty() {
        fingerprint::release(&context.folders.state, &manifest.project, &name).map_err(CredentialError::from)?;
    }
    if removed {
        record(context, &manifest.project, "credential.removed", &[("credential", name.as_str())])?;
    }
    if logged_out && ended {
        context.printer.note(&format!("the log-in of `{name}` is ended at its issuer, and forgotten here"));
    } else if logged_out {
        context
            .printer
            .note(&format!("the log-in of `{name}` is forgotten here; at its issuer it goes on until you end it"));
    } else if removed {
        context.printer.note(&format!("`{name}` is removed; who had the file and its key can still read it"));
    } else {
        context.printer.note(&format!("`{name}` was not set"));
    }
    Ok(u8::from(!removed))
}
