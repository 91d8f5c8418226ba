//! `sandbox trust`: says in words what a manifest asks for, and records that the user approves it.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::IsTerminal;
use std::path::Path;

use serde::Serialize;

use super::printer::sanitise;
use super::{Context, Failure};
use crate::commands::audit::record;
use crate::credential::spec::{
    AwsSource, AwsStsSpec, Delivery, GithubAppSpec, GithubRepositories, JwtSource, KeySource, ProviderSpec,
    SecretSource, VaultAuth, VaultFields, VaultSpec,
};
use crate::image::reference::{Digest, ImageChoice};
use crate::project::manifest::{self, Manifest};
use crate::project::quantity::{show_duration, show_size};
use crate::project::trust::{self, Trust, TrustError};

/// Approve what a project's manifest asks for
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// A path, or the name of a project that this machine has seen; the current folder's when left out
    project: Option<String>,
    /// Approve without being asked
    #[arg(long)]
    yes: bool,
}

#[derive(Debug, Serialize)]
struct Report {
    project: String,
    digest: Digest,
    files: Vec<String>,
    asks_for: Vec<String>,
    approved: bool,
}

/// The user did not approve, or cannot be asked.
#[derive(Debug, thiserror::Error)]
enum NotApproved {
    #[error("approve the manifest of `{0}`: the answer was no")]
    Declined(String),
    #[error("approve the manifest of `{0}`: there is no terminal to ask on")]
    NoTerminal(String),
    #[error("use {0}: its content was never approved")]
    New(String),
    #[error("use {path}: changed since it was approved: {files}")]
    Changed { path: String, files: String },
}

/// Runs the verb.
pub fn run(context: &Context, arguments: Arguments) -> Result<u8, Failure> {
    let current = std::env::current_dir().unwrap_or_default();
    let path = crate::project::locate(arguments.project.as_deref(), &current, &context.folders.state)?;
    let manifest = manifest::load(&path)?;
    let files = trust::files(&manifest)?;
    let earlier = trust::status(&context.folders.state, &manifest)?;
    let asks_for = describe(&manifest);
    let mut report = Report {
        project: manifest.project.to_string(),
        digest: trust::digest(&files),
        files: files.keys().cloned().collect(),
        asks_for,
        approved: matches!(earlier, Trust::Approved(_)),
    };
    if !report.approved {
        let words = words(&report.project, &report.asks_for, &earlier);
        if arguments.yes {
            context.printer.note(&words);
        } else {
            context.printer.question(&words);
            ask(&report.project)?;
        }
        approve(context, &manifest, files)?;
        report.approved = true;
    }
    crate::project::remember(&context.folders.state, &manifest)?;
    context.printer.result(&report, || format!("`{}` is approved at {}", report.project, report.digest));
    Ok(0)
}

/// Makes sure that the user approved this manifest with all that it uses; asks when there is a terminal to ask on.
///
/// # Errors
/// When the user did not approve, or the files or the record of the approval cannot be read.
pub fn require(context: &Context, manifest_path: &Path, manifest: &Manifest) -> Result<(), Failure> {
    require_on(terminal(), context, manifest_path, manifest)
}

fn require_on(terminal: bool, context: &Context, manifest_path: &Path, manifest: &Manifest) -> Result<(), Failure> {
    let state = &context.folders.state;
    // What is approved is what was there before the question, so the files are listed first.
    let files = trust::files(manifest)?;
    let earlier = trust::status(state, manifest)?;
    let path = manifest_path.display().to_string();
    let error = match &earlier {
        Trust::Approved(_) => return Ok(()),
        Trust::New => NotApproved::New(path),
        Trust::Changed { files } => NotApproved::Changed { path, files: sanitise(&files.join(", ")) },
    };
    if !terminal {
        return Err(Failure::new("manifest-not-trusted", &error, "read it, then `sandbox trust`"));
    }
    context.printer.question(&words(manifest.project.as_str(), &describe(manifest), &earlier));
    ask(manifest.project.as_str())?;
    approve(context, manifest, files)?;
    crate::project::remember(state, manifest)?;
    Ok(())
}

fn approve(context: &Context, manifest: &Manifest, files: BTreeMap<String, Digest>) -> Result<(), Failure> {
    let digest = trust::digest(&files).to_string();
    record(context, &manifest.project, "manifest.approved", &[("digest", &digest)])?;
    trust::approve(&context.folders.state, manifest, files, &user())?;
    Ok(())
}

fn user() -> String {
    std::env::var("USER").unwrap_or_else(|_| rustix::process::getuid().as_raw().to_string())
}

/// Whether a person can be asked.
pub(super) fn terminal() -> bool {
    std::io::stdin().is_terminal() && std::io::stderr().is_terminal()
}

fn ask(project: &str) -> Result<(), Failure> {
    let next = "read the manifest, then run `sandbox trust --yes`";
    if !terminal() {
        return Err(Failure::new("trust-not-asked", &NotApproved::NoTerminal(project.to_owned()), next));
    }
    let answer = dialoguer::Confirm::new().with_prompt("Approve this?").default(false).interact();
    if answer.unwrap_or(false) {
        return Ok(());
    }
    Err(Failure::new("trust-declined", &NotApproved::Declined(project.to_owned()), next))
}

fn words(project: &str, asks_for: &[String], earlier: &Trust) -> String {
    let mut text = format!("The manifest of `{project}` asks for:\n");
    for line in asks_for {
        let _ = writeln!(text, "  - {}", sanitise(line));
    }
    if let Trust::Changed { files } = earlier {
        let _ = writeln!(text, "Changed since it was approved: {}", sanitise(&files.join(", ")));
    }
    text
}

/// What a manifest asks for, a sentence each.
pub fn describe(manifest: &Manifest) -> Vec<String> {
    let mut lines = vec![format!("run {} in the sandbox", manifest.command.join(" "))];
    lines.push(match &manifest.image {
        ImageChoice::Definition(name) => format!("use the image definition `{name}`"),
        ImageChoice::Dockerfile(name) => {
            format!("have the engine build `{name}`, whose steps run as root in containers")
        }
        ImageChoice::Pinned(image) => format!("use the image {}@{}", image.repository, image.digest),
    });
    lines.push(format!("run under the profile `{}`", manifest.profile));
    if manifest.network.allow.is_empty() {
        lines.push("reach no host at all".to_owned());
    }
    for rule in &manifest.network.allow {
        let mut line = format!("reach {} on port {}", rule.host, rule.port);
        if !rule.allow_private.is_empty() {
            let networks: Vec<String> = rule.allow_private.iter().map(ToString::to_string).collect();
            let _ = write!(line, ", also at the PRIVATE addresses {}", networks.join(", "));
        }
        lines.push(line);
    }
    for (name, credential) in &manifest.credentials {
        let source = match &credential.provider {
            ProviderSpec::Store { rotate_command } => {
                lines.extend(rotate_command.iter().map(|words| format!("RUN ON THIS MACHINE: {}", words.join(" "))));
                "from the store".to_owned()
            }
            ProviderSpec::EnvFile { path, variable } => format!("from {variable} in {}", path.display()),
            ProviderSpec::Exec { command, revoke_command } => {
                lines.push(format!("RUN ON THIS MACHINE: {}", command.join(" ")));
                lines.extend(revoke_command.iter().map(|words| format!("RUN ON THIS MACHINE: {}", words.join(" "))));
                "from that command".to_owned()
            }
            ProviderSpec::Vault(vault) => vault_source(vault, &mut lines),
            ProviderSpec::GithubApp(app) => github_source(app, &mut lines),
            ProviderSpec::AwsSts(sts) => aws_source(sts, &mut lines),
            ProviderSpec::OpenaiProject(openai) => {
                match &openai.key {
                    KeySource::Command(words) => {
                        lines.push(format!("RUN ON THIS MACHINE: {}", words.join(" ")));
                        lines.push(format!("administer your organisation with its answer at {}", openai.address));
                    }
                    KeySource::File(path) => {
                        lines.push(format!(
                            "ADMINISTER your organisation with {} at {}",
                            path.display(),
                            openai.address
                        ));
                    }
                }
                format!("of OpenAI (a service account in {})", openai.project)
            }
            ProviderSpec::Gcp(gcp) => {
                let at = gcp.address.as_deref().unwrap_or("Google Cloud");
                signs_in(&mut lines, at, &gcp.audience);
                format!("of Google Cloud (a token of {} for {})", gcp.service_account, gcp.scopes.join(", "))
            }
            ProviderSpec::Azure(azure) => {
                signs_in(&mut lines, &azure.address, &azure.audience);
                format!("of Entra (a token of {} in {} for {})", azure.client, azure.tenant, azure.scope)
            }
            ProviderSpec::AnthropicWif(anthropic) => {
                signs_in(&mut lines, &anthropic.address, &anthropic.audience);
                format!("of Anthropic (a token of {} by the rule {})", anthropic.service_account, anthropic.rule)
            }
            ProviderSpec::Oauth(oauth) => {
                lines.push(format!("USE YOUR LOG-IN as the client {} at {}", oauth.client_id, oauth.token_url));
                match &oauth.client_secret {
                    Some(KeySource::Command(words)) => {
                        lines.push(format!("RUN ON THIS MACHINE: {}", words.join(" ")));
                        lines.push("send its answer there as the client's secret".to_owned());
                    }
                    Some(KeySource::File(path)) => {
                        lines.push(format!("SEND {} there as the client's secret", path.display()));
                    }
                    None => {}
                }
                let further = [&oauth.device_url, &oauth.authorize_url, &oauth.revoke_url];
                let further: Vec<&str> = further.into_iter().flatten().map(String::as_str).collect();
                if !further.is_empty() {
                    lines.push(format!("log in by {}", further.join(", ")));
                }
                match oauth.agent {
                    Some(agent) => {
                        format!("from that log-in, in the form of {} at ~/{}", agent.word(), agent.home_path())
                    }
                    None => "from that log-in".to_owned(),
                }
            }
        };
        let way = match &credential.deliver {
            Delivery::File { name } => format!("as the file /run/secrets/{name}"),
            Delivery::Git { host } => format!("to git for {host}"),
            Delivery::Environment { variable } => format!("in the variable {variable}"),
            Delivery::Broker { host, placement, .. } => {
                format!("as {placement} in its requests to {host}, without showing it")
            }
        };
        let hosts: Vec<String> = credential.hosts.iter().map(ToString::to_string).collect();
        let hosts = if hosts.is_empty() { String::new() } else { format!(", for {}", hosts.join(", ")) };
        lines.push(format!("hand over the credential `{name}` {source}, {way}{hosts}"));
        if let Some(shared) = &credential.shared_with {
            lines.push(format!("share `{name}` with {}: {}", shared.projects.join(", "), shared.reason));
        }
        if let Some(reason) = &credential.accept_personal {
            lines.push(format!("accept a PERSONAL value for `{name}`: {reason}"));
        }
    }
    for (name, value) in &manifest.environment {
        lines.push(format!("set {name} to `{value}`"));
    }
    let limits = &manifest.resources;
    let asked = [
        limits.cpus.map(|cpus| format!("{cpus} cores")),
        limits.memory.map(|bytes| format!("{} of memory", show_size(bytes))),
        limits.pids.map(|pids| format!("{pids} processes")),
        limits.disk.map(|bytes| format!("{} of disk", show_size(bytes))),
        limits.session.map(|time| format!("sessions of {}", show_duration(time))),
    ];
    let asked: Vec<String> = asked.into_iter().flatten().collect();
    if !asked.is_empty() {
        lines.push(format!("use up to {}", asked.join(", ")));
    }
    lines
}

/// To be a sandbox of this project at an issuer is more than to hand over what is there.
fn signs_in(lines: &mut Vec<String>, at: &str, audience: &str) {
    lines.push(format!("SIGN IN AS A SANDBOX OF THIS PROJECT at {at}, for `{audience}`"));
}

/// What a credential of Vault's asks for; what is more than to hand it over gets a line of its own.
fn vault_source(vault: &VaultSpec, lines: &mut Vec<String>) -> String {
    let address = vault.address.as_deref().unwrap_or("the address of your environment");
    let source = match &vault.auth {
        VaultAuth::Token => {
            lines.push(format!("USE YOUR VAULT TOKEN at {address}"));
            None
        }
        VaultAuth::Approle { secret_id, .. } => Some(secret_id),
        VaultAuth::Jwt { jwt: JwtSource::Given(source), .. } => Some(source),
        VaultAuth::Jwt { jwt: JwtSource::Identity(audience), .. } => {
            signs_in(lines, address, audience);
            None
        }
        VaultAuth::Cert { identity, .. } => Some(identity),
    };
    match source {
        None => {}
        Some(SecretSource::Command(words)) => {
            lines.push(format!("RUN ON THIS MACHINE: {}", words.join(" ")));
            lines.push(format!("log in with its answer at {address}"));
        }
        Some(SecretSource::File(path)) => lines.push(format!("log in with {} at {address}", path.display())),
    }
    let fields = match &vault.fields {
        VaultFields::One(field) => field.clone(),
        VaultFields::Several(fields) => fields.join(", "),
    };
    format!("from {fields} of {} in Vault at {address}", vault.path)
}

/// What a token of a GitHub App is good for, and with whose key it is asked for.
fn github_source(app: &GithubAppSpec, lines: &mut Vec<String>) -> String {
    match &app.key {
        KeySource::Command(words) => {
            lines.push(format!("RUN ON THIS MACHINE: {}", words.join(" ")));
            lines.push(format!("sign with its answer as the app {} at {}", app.app, app.address));
        }
        KeySource::File(path) => {
            lines.push(format!("SIGN WITH {} as the app {} at {}", path.display(), app.app, app.address));
        }
    }
    let repositories: Vec<String> = match &app.repositories {
        GithubRepositories::Names(names) => names.iter().cloned().collect(),
        GithubRepositories::Ids(ids) => ids.iter().map(ToString::to_string).collect(),
    };
    let permissions: Vec<String> =
        app.permissions.iter().map(|(name, access)| format!("{name}:{}", access.word())).collect();
    let (permissions, repositories) = (permissions.join(" "), repositories.join(", "));
    format!("of GitHub ({permissions} on {repositories} of the installation {})", app.installation)
}

/// Which role is assumed, and with whose keys.
fn aws_source(sts: &AwsStsSpec, lines: &mut Vec<String>) -> String {
    let at = sts.address.as_deref().map(|address| format!(" at {address}")).unwrap_or_default();
    match &sts.source {
        AwsSource::Environment => lines.push(format!("USE YOUR AWS KEYS to assume a role{at}")),
        AwsSource::Profile(profile) => lines.push(format!("USE YOUR AWS PROFILE {profile} to assume a role{at}")),
        AwsSource::Identity(audience) => {
            lines.push(format!("SIGN IN AS A SANDBOX OF THIS PROJECT to assume a role{at}, for `{audience}`"));
        }
        AwsSource::Command(words) => {
            lines.push(format!("RUN ON THIS MACHINE: {}", words.join(" ")));
            lines.push(format!("assume a role with its answer{at}"));
        }
    }
    if sts.policy.is_none() && sts.policy_arns.is_empty() {
        lines.push(format!("use ALL that {} may do: no session policy narrows it", sts.role));
    }
    format!("of AWS (a session of {})", sts.role)
}

impl From<TrustError> for Failure {
    fn from(error: TrustError) -> Self {
        let (code, next) = match &error {
            TrustError::Access { .. } => ("trust-access", "check the permissions of the file or folder"),
            TrustError::Special(_) => ("trust-special", "put a plain file there"),
            TrustError::TooLarge(_) => ("trust-too-large", "keep only the files that the sandbox needs there"),
            TrustError::Edited(_) => ("trust-edited", "read the manifest again, then try once more"),
            TrustError::Json(_) => ("trust-json", "report this as a fault of sandbox"),
        };
        Failure::new(code, &error, next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::{Folders, Format, Printer};

    fn context(base: &Path) -> Context {
        let folders =
            Folders { config: base.into(), state: base.join("state"), cache: base.into(), home: base.to_owned() };
        Context { printer: Printer::new(Format::Text, true), folders, engine: None }
    }

    #[test]
    fn a_manifest_is_used_only_while_its_content_is_approved() {
        let base = tempfile::tempdir().unwrap();
        let context = context(base.path());
        let path = base.path().join("sandbox.yaml");
        std::fs::write(&path, "version: 1\nproject: demo\n").unwrap();
        let read = manifest::load(&path).unwrap();
        let refusal = require_on(false, &context, &path, &read).unwrap_err();
        assert_eq!(refusal.code, "manifest-not-trusted");
        assert!(refusal.what.contains("never approved"), "{}", refusal.what);

        trust::approve(&context.folders.state, &read, trust::files(&read).unwrap(), "ada").unwrap();
        require_on(false, &context, &path, &read).unwrap();

        std::fs::write(base.path().join("Dockerfile.agent"), "FROM x\n").unwrap();
        let refusal = require_on(false, &context, &path, &read).unwrap_err();
        assert_eq!(refusal.code, "manifest-not-trusted");
        assert!(refusal.what.contains("Dockerfile.agent"), "{}", refusal.what);
    }
}
