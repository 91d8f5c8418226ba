//! Credentials that belong to one project: what is declared, who issues it, how it is delivered, rotated and revoked.
//!
//! Providers are one enum and four verbs: issue, revoke, deliver, and when to rotate. No error, event or log line of this
//! module holds a value; what identifies one is its keyed fingerprint.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;

use crate::gateway::protocol::{Brokered, SecretFile};
use crate::network::placement::Placement;
use crate::project::{CredentialName, ProjectName, SandboxName};

pub mod aws;
pub mod challenge;
pub mod env_file;
pub mod exec;
pub mod federation;
pub mod fingerprint;
pub mod git_helper;
pub mod github;
pub mod held;
pub mod identity;
mod jwt;
pub mod key_source;
pub mod kind;
pub mod oauth;
pub mod openai;
pub mod rotation;
pub mod scan;
pub mod secret;
pub mod signing_key;
pub mod spec;
pub mod store;
pub mod vault;
mod web;
mod wiped;

use aws::source::SourceKeys;
use fingerprint::{Fingerprint, FingerprintError};
use secret::Secret;
use spec::{CredentialSpec, Delivery, ProviderSpec};

/// Where the launcher's binary is in the agent's container; git asks it for credentials.
const HELPER: &str = "/.sandbox/sandbox";
/// The largest value that is taken and delivered, in bytes: the volume in memory has 1 MiB for all.
pub const VALUE_LIMIT: usize = 64 << 10;

/// Why a credential could not be issued, delivered or revoked.
#[derive(Debug, thiserror::Error)]
pub enum CredentialError {
    /// The store failed.
    #[error("read it from the project's store")]
    Store(#[from] store::StoreError),
    /// The env file failed.
    #[error("read it from an env file")]
    EnvFile(#[from] env_file::EnvFileError),
    /// The command failed.
    #[error("have a command issue it")]
    Exec(#[from] exec::ExecError),
    /// Vault failed.
    #[error("get it from Vault")]
    Vault(#[from] vault::VaultError),
    /// GitHub failed.
    #[error("get it from GitHub")]
    Github(#[from] github::GithubError),
    /// AWS failed.
    #[error("get it from AWS")]
    Aws(#[from] aws::StsError),
    /// OpenAI failed.
    #[error("get it from OpenAI")]
    Openai(#[from] openai::OpenaiError),
    /// An issuer did not take the sandbox's identity.
    #[error("get it for the sandbox's identity")]
    Federation(#[from] federation::FederationError),
    /// The log-in failed.
    #[error("get it from a log-in")]
    Oauth(#[from] oauth::OauthError),
    /// The fingerprints failed.
    #[error("compare it with the credentials of other projects")]
    Fingerprint(#[from] FingerprintError),
    /// The same value is another project's.
    #[error("accept a value that the project `{other}` has too")]
    Shared {
        /// The other project.
        other: String,
    },
    /// A person's own or an organisation-wide key.
    #[error("accept {what}")]
    Personal {
        /// What it is.
        what: &'static str,
    },
    /// The value is older than `max_age`.
    #[error("accept a value that is {} days old, `max_age` is {} days", .age.as_secs() / 86_400, .limit.as_secs() / 86_400)]
    TooOld {
        /// Its age.
        age: Duration,
        /// The limit.
        limit: Duration,
    },
    /// The issuer gave a value that ran out already.
    #[error("accept a value that ran out at {0}")]
    Expired(Timestamp),
    /// The value is empty or too large.
    #[error("accept a value of {0} bytes, it has to have 1 to {VALUE_LIMIT}")]
    Size(usize),
    /// The gateway is to sign with it.
    #[error("sign requests with it: it is no JSON with AccessKeyId and SecretAccessKey")]
    Keys,
    /// Two credentials want the same file.
    #[error("put two credentials into the file `{0}`")]
    FileTwice(String),
}

/// What is known when a credential is issued.
#[derive(Debug, Clone)]
pub struct IssueContext<'a> {
    /// The project.
    pub project: &'a ProjectName,
    /// The project's folder.
    pub project_root: &'a Path,
    /// The sandbox.
    pub sandbox: &'a SandboxName,
    /// The developer's user name.
    pub actor: &'a str,
    /// Where the project's values are stored.
    pub store: store::Store,
    /// The launcher's state folder.
    pub state: &'a Path,
    /// The developer's home folder.
    pub home: &'a Path,
    /// What the developer's environment says of Vault.
    pub vault: vault::Environment,
    /// What the developer's environment says of AWS.
    pub aws: aws::Environment,
    /// Who signs what is said of the sandbox.
    pub identity: identity::Authority,
    /// Tokens that only they themselves can end.
    pub held: held::Held,
    /// The session, once there is one.
    pub session: Option<String>,
    /// Why: `up`, `rotation`, `down`.
    pub reason: &'a str,
}

/// A credential that was issued.
#[derive(Debug)]
pub struct Issued {
    /// Its name.
    pub name: CredentialName,
    /// Its value.
    pub value: Secret,
    /// When it was issued; for a static one, when it was set.
    pub issued_at: Timestamp,
    /// When it runs out by itself.
    pub expires_at: Option<Timestamp>,
    /// The provider's handle to revoke it by; not secret.
    pub handle: Option<String>,
    /// Keyed fingerprint of the value.
    pub fingerprint: Fingerprint,
    /// What the user ought to know.
    pub warnings: Vec<String>,
    /// What the provider says it is good for.
    pub scope: Option<String>,
    /// The provider's word.
    pub provider: &'static str,
    /// The file that an agent's own program reads, for a log-in of it.
    pub agent_file: Option<AgentFile>,
}

/// A file that an agent's own program reads.
#[derive(Debug)]
pub struct AgentFile {
    /// What is in it.
    pub content: Secret,
    /// Where the program looks for it, below the home folder.
    pub place: &'static str,
}

/// How a revocation ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Revocation {
    /// The issuer ended it.
    Revoked,
    /// The issuer cannot; it ends at this time.
    ExpiresAt(Timestamp),
    /// It is a static value that lives on at its issuer; the sandbox has it no more.
    StaticRemains,
}

impl Revocation {
    /// The word of the audit log. What goes on until it runs out is not called revoked.
    pub fn action(&self) -> &'static str {
        match self {
            Self::Revoked | Self::StaticRemains => "credential.revoked",
            Self::ExpiresAt(_) => "credential.left_to_expire",
        }
    }

    /// The same in words.
    pub fn result(&self) -> String {
        match self {
            Self::Revoked => "revoked".to_owned(),
            Self::ExpiresAt(time) => format!("not revoked; expires at {time}"),
            Self::StaticRemains => "withdrawn from the sandbox; the issuer cannot revoke it".to_owned(),
        }
    }
}

/// Issues a credential and applies the rules that no provider may skip.
///
/// # Errors
/// When the provider fails or a rule refuses the value.
pub async fn issue(
    name: &CredentialName,
    spec: &CredentialSpec,
    context: &IssueContext<'_>,
) -> Result<Issued, CredentialError> {
    let mut issued_at = Timestamp::now();
    let mut agent_file = None;
    let (value, expires_at, handle, scope) = match &spec.provider {
        ProviderSpec::Store { .. } => {
            let stored = context.store.read(context.project, name)?;
            issued_at = stored.rotated_at;
            (stored.value, None, None, None)
        }
        ProviderSpec::EnvFile { path, variable } => {
            let (value, modified) = env_file::read(context.project_root, path, variable)?;
            issued_at = modified;
            (value, None, None, None)
        }
        ProviderSpec::Exec { command, .. } => {
            let answer = exec::issue(command, &exec::Request::new(name, context, None)).await?;
            (answer.value, answer.expires_at, answer.handle, answer.scope)
        }
        ProviderSpec::Vault(vault) => {
            let read = vault::issue(name, vault, context).await?;
            issued_at = read.written_at.unwrap_or(issued_at);
            (read.value, read.expires_at, read.handle, Some(format!("vault {}", vault.path)))
        }
        ProviderSpec::GithubApp(app) => {
            let minted = github::issue(name, app, context).await?;
            (minted.token, Some(minted.expires_at), Some(minted.handle), Some(minted.scope))
        }
        ProviderSpec::AwsSts(sts) => {
            let assumed = aws::issue(name, sts, context).await?;
            (assumed.value, Some(assumed.expires_at), Some(assumed.handle), Some(assumed.scope))
        }
        ProviderSpec::OpenaiProject(openai) => {
            let minted = openai::issue(name, openai, context).await?;
            (minted.key, Some(minted.expires_at), Some(minted.handle), Some(minted.scope))
        }
        ProviderSpec::Gcp(gcp) => exchanged(federation::gcp(gcp, context).await?),
        ProviderSpec::Azure(azure) => exchanged(federation::azure(azure, context).await?),
        ProviderSpec::AnthropicWif(anthropic) => exchanged(federation::anthropic(anthropic, context).await?),
        ProviderSpec::Oauth(oauth) => {
            let lent = oauth::issue(name, oauth, context).await?;
            issued_at = lent.issued_at;
            if let Some(agent) = oauth.agent {
                let stand_in = matches!(spec.deliver, Delivery::Broker { .. }).then_some(spec::STAND_IN);
                let content = oauth::agent_file(&lent, agent, stand_in)?;
                agent_file = Some(AgentFile { content, place: agent.home_path() });
            }
            (lent.token, Some(lent.expires_at), Some(lent.expires_at.to_string()), Some(lent.scope))
        }
    };
    match accept(name, spec, context, &value, issued_at, expires_at) {
        Ok((fingerprint, warnings)) => {
            let (name, provider) = (name.clone(), spec.provider.word());
            Ok(Issued {
                name,
                value,
                issued_at,
                expires_at,
                handle,
                fingerprint,
                warnings,
                scope,
                provider,
                agent_file,
            })
        }
        Err(refused) => {
            // What was made for this sandbox and is not delivered must not live on at its issuer.
            if let Err(error) = revoke(name, spec, handle.as_deref(), context).await {
                tracing::warn!(credential = %name, %error, "a credential that was refused was not revoked");
            }
            Err(refused)
        }
    }
}

fn exchanged(token: federation::Exchanged) -> (Secret, Option<Timestamp>, Option<String>, Option<String>) {
    (token.token, Some(token.expires_at), Some(token.handle), Some(token.scope))
}

/// The rules for every value, and what to warn of.
fn accept(
    name: &CredentialName,
    spec: &CredentialSpec,
    context: &IssueContext<'_>,
    value: &Secret,
    issued_at: Timestamp,
    expires_at: Option<Timestamp>,
) -> Result<(Fingerprint, Vec<String>), CredentialError> {
    let now = Timestamp::now();
    if let Some(end) = expires_at.filter(|end| *end <= now) {
        return Err(CredentialError::Expired(end));
    }
    let warnings = too_old(name, spec.max_age, age(issued_at, now))?;
    Ok((admit(name, spec, context, value)?, warnings.into_iter().collect()))
}

/// Refuses a value that no sandbox of this project may have: of a wrong size, a person's own, or another project's.
/// Gives its fingerprint, under which it is the project's from now on.
///
/// # Errors
/// When the value is refused, or the fingerprints cannot be used.
pub fn admit(
    name: &CredentialName,
    spec: &CredentialSpec,
    context: &IssueContext<'_>,
    value: &Secret,
) -> Result<Fingerprint, CredentialError> {
    if value.is_empty() || value.len() > VALUE_LIMIT {
        return Err(CredentialError::Size(value.len()));
    }
    // Anthropic's tokens of service accounts begin as those of people do; this one was given for the sandbox's identity.
    let federated = matches!(spec.provider, ProviderSpec::AnthropicWif(_));
    if spec.accept_personal.is_none()
        && !federated
        && let Some(what) = kind::personal(value)
    {
        return Err(CredentialError::Personal { what });
    }
    claim(name, spec, context, value)
}

/// How old a value is. One from the future is new: clocks differ.
pub fn age(issued_at: Timestamp, now: Timestamp) -> Duration {
    Duration::from_secs(u64::try_from(now.as_second() - issued_at.as_second()).unwrap_or(0))
}

/// Refuses a value older than the limit, and warns from 80 % of it on.
fn too_old(name: &CredentialName, limit: Option<Duration>, age: Duration) -> Result<Option<String>, CredentialError> {
    let Some(limit) = limit else { return Ok(None) };
    if age > limit {
        return Err(CredentialError::TooOld { age, limit });
    }
    let left = (limit - age).as_secs() / 3600;
    let late = age >= limit.mul_f64(0.8);
    Ok(late.then(|| format!("credential `{name}` has to be rotated within {left} hours")))
}

/// Fingerprints a value and refuses one that another project has.
fn claim(
    name: &CredentialName,
    spec: &CredentialSpec,
    context: &IssueContext<'_>,
    value: &Secret,
) -> Result<Fingerprint, CredentialError> {
    let allowed = spec.shared_with.as_ref().map(|shared| shared.projects.as_slice()).unwrap_or_default();
    let claimed = fingerprint::claim(context.state, context.project, name, value)?;
    match claimed.others.into_iter().find(|other| !allowed.contains(other)) {
        Some(other) => Err(CredentialError::Shared { other }),
        None => Ok(claimed.fingerprint),
    }
}

/// Makes a credential live longer without changing its value, where the issuer does that. Gives its new end; none when it
/// has to be issued anew.
///
/// # Errors
/// When the issuer does not answer.
pub async fn renew(
    name: &CredentialName,
    spec: &CredentialSpec,
    handle: &str,
    context: &IssueContext<'_>,
) -> Result<Option<Timestamp>, CredentialError> {
    match &spec.provider {
        ProviderSpec::Vault(vault) => Ok(vault::renew(name, vault, handle, context).await?),
        _ => Ok(None),
    }
}

/// Ends a credential at its issuer, where the issuer can.
///
/// # Errors
/// When the issuer could and did not.
pub async fn revoke(
    name: &CredentialName,
    spec: &CredentialSpec,
    handle: Option<&str>,
    context: &IssueContext<'_>,
) -> Result<Revocation, CredentialError> {
    match &spec.provider {
        ProviderSpec::Exec { revoke_command: Some(command), .. } => {
            exec::revoke(command, &exec::Request::new(name, context, handle)).await?;
            Ok(Revocation::Revoked)
        }
        ProviderSpec::Vault(vault) => match handle {
            Some(handle) => {
                vault::revoke(name, vault, handle, context).await?;
                Ok(Revocation::Revoked)
            }
            // A stored value outlives the token that it was read with.
            None => Ok(Revocation::StaticRemains),
        },
        ProviderSpec::GithubApp(_) => match handle {
            Some(handle) => Ok(github::revoke(handle, context).await?),
            None => Ok(Revocation::StaticRemains),
        },
        ProviderSpec::AwsSts(_) => match handle {
            Some(handle) => Ok(aws::revoke(handle)?),
            None => Ok(Revocation::StaticRemains),
        },
        ProviderSpec::OpenaiProject(openai) => match handle {
            Some(handle) => Ok(openai::revoke(name, openai, handle, context).await?),
            None => Ok(Revocation::StaticRemains),
        },
        ProviderSpec::Gcp(_) | ProviderSpec::Azure(_) | ProviderSpec::AnthropicWif(_) => match handle {
            Some(handle) => Ok(federation::revoke(handle)?),
            None => Ok(Revocation::StaticRemains),
        },
        ProviderSpec::Oauth(_) => match handle {
            Some(handle) => Ok(oauth::revoke(handle)?),
            None => Ok(Revocation::StaticRemains),
        },
        ProviderSpec::Store { .. } | ProviderSpec::EnvFile { .. } | ProviderSpec::Exec { .. } => {
            Ok(Revocation::StaticRemains)
        }
    }
}

/// What the sandbox gets of its credentials.
#[derive(Debug, Default)]
pub struct Delivered {
    /// Files below `/run/secrets`.
    pub files: Vec<SecretFile>,
    /// Variables that are read from one of these files when a command starts: variable to file.
    pub secret_environment: BTreeMap<String, String>,
    /// Credentials that the gateway puts into requests.
    pub brokered: Vec<Brokered>,
    /// Settings of git.
    pub git_configuration: Vec<(String, String)>,
    /// Variables that say where something is.
    pub environment: BTreeMap<String, String>,
    /// Links in the home folder: where a program looks for a file, to the file below `/run/secrets`.
    pub links: BTreeMap<String, String>,
}

/// Makes files and settings of issued credentials.
///
/// # Errors
/// When two credentials want the same file.
pub fn deliver(issued: Vec<(&CredentialSpec, Issued)>) -> Result<Delivered, CredentialError> {
    let mut delivered = Delivered::default();
    for (spec, mut issued) in issued {
        let agent_file = issued.agent_file.take();
        let name = match &spec.deliver {
            Delivery::File { name } => name.clone(),
            Delivery::Git { host } => {
                let name = issued.name.to_string();
                // An empty helper first: helpers of the image's own configuration are not asked.
                let key = format!("credential.https://{host}.helper");
                delivered.git_configuration.push((key.clone(), String::new()));
                delivered.git_configuration.push((key, format!("{HELPER} git-credential --file {name}")));
                name
            }
            Delivery::Environment { variable } => {
                let name = issued.name.to_string();
                delivered.secret_environment.insert(variable.clone(), name.clone());
                name
            }
            Delivery::Broker { host, placement, .. } => {
                if matches!(placement, Placement::Sigv4 { .. }) && SourceKeys::of_document(&issued.value).is_none() {
                    return Err(CredentialError::Keys);
                }
                delivered.brokered.push(Brokered {
                    name: issued.name.to_string(),
                    host: host.clone(),
                    placement: placement.clone(),
                    value: issued.value,
                });
                let Some(file) = agent_file else { continue };
                // What is in it stands for the token.
                let name = issued.name.to_string();
                delivered.links.insert(file.place.to_owned(), name.clone());
                delivered.add(name, file.content)?;
                continue;
            }
        };
        if let ProviderSpec::AwsSts(sts) = &spec.provider {
            // No secret: it says how programs of AWS read the value, which they do anew when it runs out.
            let beside = format!("{name}-aws-config");
            let path = format!("/run/secrets/{beside}");
            let content = Secret::new(aws::configuration(sts, &name).into_bytes());
            delivered.environment.entry("AWS_CONFIG_FILE".to_owned()).or_insert(path);
            delivered.add(beside, content)?;
        }
        match (agent_file, &spec.deliver) {
            (Some(file), Delivery::File { .. }) => {
                delivered.links.insert(file.place.to_owned(), name.clone());
                delivered.add(name, file.content)?;
            }
            _ => delivered.add(name, issued.value)?,
        }
    }
    Ok(delivered)
}

impl Delivered {
    fn add(&mut self, name: String, content: Secret) -> Result<(), CredentialError> {
        if self.files.iter().any(|file| file.name == name) {
            return Err(CredentialError::FileTwice(name));
        }
        self.files.push(SecretFile { name, content });
        Ok(())
    }
}

/// When a credential is to be issued anew: at half of its life, or 15 minutes before its end when that is earlier, and
/// up to a tenth of that sooner so that many sandboxes do not ask at once. None for one that does not run out.
///
/// It is never before a quarter of the life: 15 minutes before the end of 16 would be every minute.
pub fn next_rotation(issued_at: Timestamp, expires_at: Option<Timestamp>, seed: &str) -> Option<Timestamp> {
    let life = u64::try_from(expires_at?.as_millisecond() - issued_at.as_millisecond()).unwrap_or(0);
    let half = life / 2;
    let early = life.saturating_sub(15 * 60 * 1000);
    let wait = if early == 0 { half } else { half.min(early.max(life / 4)) };
    let jitter = seed.bytes().fold(0_u64, |sum, byte| sum.wrapping_mul(31).wrapping_add(u64::from(byte))) % 100;
    let wait = wait - wait * jitter / 1000;
    issued_at.checked_add(Duration::from_millis(wait)).ok()
}

impl ProviderSpec {
    /// The provider's word in the manifest.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Store { .. } => "store",
            Self::EnvFile { .. } => "env-file",
            Self::Exec { .. } => "exec",
            Self::Vault(_) => "vault",
            Self::GithubApp(_) => "github-app",
            Self::AwsSts(_) => "aws-sts",
            Self::OpenaiProject(_) => "openai-project",
            Self::Gcp(_) => "gcp",
            Self::Azure(_) => "azure",
            Self::AnthropicWif(_) => "anthropic-wif",
            Self::Oauth(_) => "oauth",
        }
    }

    /// Whether only the value itself can end it, so that a handle is of no use without it.
    pub fn ends_by_its_value(&self) -> bool {
        matches!(self, Self::GithubApp(_))
    }

    /// How long what it issues lives, where that is known before.
    pub fn life(&self) -> Option<Duration> {
        match self {
            Self::Vault(vault) => Some(vault.ttl),
            Self::GithubApp(_) => Some(github::LIFE),
            Self::AwsSts(sts) => Some(sts.ttl),
            Self::OpenaiProject(openai) => Some(openai.ttl),
            Self::Gcp(gcp) => Some(gcp.ttl),
            Self::Azure(_) | Self::AnthropicWif(_) => None,
            Self::Store { .. } | Self::EnvFile { .. } | Self::Exec { .. } | Self::Oauth(_) => None,
        }
    }
}

#[cfg(test)]
mod tests;
