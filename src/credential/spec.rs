//! What a manifest declares of a credential: provider, delivery, age. No secret is in here.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::network::name::{HostName, HostPattern};
use crate::network::placement::Placement;
use crate::project::CredentialName;

/// A declared credential.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CredentialSpec {
    /// Who issues it.
    pub provider: ProviderSpec,
    /// How the agent gets it.
    pub deliver: Delivery,
    /// The age after which it is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_age: Option<Duration>,
    /// What happens when the value that the sandbox has runs out, and there was no new one in time.
    #[serde(default, skip_serializing_if = "OnExpiry::is_warn")]
    pub on_expiry: OnExpiry,
    /// Why the same value is used by other projects too, when it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shared_with: Option<SharedWith>,
    /// Why a personal or organisation-wide value is accepted, when it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accept_personal: Option<String>,
    /// The hosts that it may be sent to, for one that the agent has. Its delivery can say more: see
    /// [`CredentialSpec::places`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hosts: Vec<HostPattern>,
}

impl CredentialSpec {
    /// Whether an agent's own program gets a file of its own form.
    pub fn has_agent_file(&self) -> bool {
        matches!(&self.provider, ProviderSpec::Oauth(oauth) if oauth.agent.is_some())
    }

    /// The hosts that a credential may be sent to that the agent has: those that are named, else those of its delivery or
    /// issuer. None are known of others.
    pub fn places(&self) -> Vec<HostPattern> {
        if !self.hosts.is_empty() {
            return self.hosts.clone();
        }
        let known = match (&self.deliver, &self.provider) {
            // The API of GitHub and GitLab for their own programs takes the same token.
            (Delivery::Git { host }, _) => vec![host.to_string(), format!("api.{host}")],
            // Every endpoint takes a session's token, in a header field or a query (AWS General Reference, Signature
            // Version 4).
            (_, ProviderSpec::AwsSts(_)) => vec!["*.amazonaws.com".to_owned()],
            (_, ProviderSpec::Gcp(_)) => vec!["*.googleapis.com".to_owned()],
            (_, ProviderSpec::OpenaiProject(_)) => vec!["api.openai.com".to_owned()],
            (_, ProviderSpec::Oauth(oauth)) => match oauth.agent {
                None => Vec::new(),
                Some(agent) => agent.hosts().iter().map(|host| (*host).to_owned()).collect(),
            },
            (_, ProviderSpec::AnthropicWif(_)) => vec!["api.anthropic.com".to_owned()],
            _ => Vec::new(),
        };
        known.iter().filter_map(|host| host.parse().ok()).collect()
    }
}

/// What becomes of a session that has a credential which ran out.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnExpiry {
    /// It goes on; the audit log and `status` say it.
    #[default]
    Warn,
    /// It ends, as by `sandbox down`; the clone stays.
    Stop,
}

impl OnExpiry {
    /// Whether it goes on.
    pub fn is_warn(&self) -> bool {
        *self == Self::Warn
    }
}

/// Who issues a credential.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "provider", rename_all = "kebab-case")]
pub enum ProviderSpec {
    /// The embedded, encrypted store.
    Store {
        /// Has the issuer give a new value, for `credential rotate`; runs only in a trusted manifest.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        rotate_command: Option<Vec<String>>,
    },
    /// A variable of an env file that belongs to the project.
    EnvFile {
        /// The file, inside the project.
        path: PathBuf,
        /// The variable.
        variable: String,
    },
    /// A command on the developer's machine; runs only in a trusted manifest.
    Exec {
        /// The program and its arguments; no shell.
        command: Vec<String>,
        /// Ends the credential again, when the issuer can.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        revoke_command: Option<Vec<String>>,
    },
    /// Vault or OpenBao.
    Vault(Box<VaultSpec>),
    /// An app of GitHub's, installed at some account.
    GithubApp(Box<GithubAppSpec>),
    /// A session of a role at AWS.
    AwsSts(Box<AwsStsSpec>),
    /// A service account in a project at OpenAI.
    OpenaiProject(Box<OpenaiProjectSpec>),
    /// A token of a service account at Google Cloud.
    Gcp(Box<GcpSpec>),
    /// A token of an application at Microsoft Entra.
    Azure(Box<AzureSpec>),
    /// A token of a service account at Anthropic.
    AnthropicWif(Box<AnthropicSpec>),
    /// A log-in by OAuth 2.0.
    Oauth(Box<OauthSpec>),
}

/// How the agent gets a credential.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Delivery {
    /// As the file `/run/secrets/NAME`.
    File {
        /// The file's name below `/run/secrets`.
        name: String,
    },
    /// As a file, and git asks for it when it talks to this host.
    Git {
        /// The git host.
        host: HostName,
    },
    /// As a file, and additionally in the environment of commands: weaker, since it outlives a rotation.
    Environment {
        /// The variable.
        variable: String,
    },
    /// Put by the gateway into requests to one host; the agent never has it.
    Broker {
        /// The host.
        host: HostName,
        /// Where in a request it stands.
        placement: Placement,
        /// A variable that holds a stand-in, for programs that do not start without a key.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        variable: Option<String>,
    },
}

impl Delivery {
    /// The file below `/run/secrets` that a credential of this name is in; none for what is brokered.
    pub fn file<'a>(&'a self, name: &'a CredentialName) -> Option<&'a str> {
        match self {
            Self::File { name } => Some(name),
            Self::Git { .. } | Self::Environment { .. } => Some(name.as_str()),
            Self::Broker { .. } => None,
        }
    }
}

/// What the agent sees in place of a brokered credential.
pub const STAND_IN: &str = "sandbox-brokered";

/// Other projects that hold the same value on purpose.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SharedWith {
    /// Their names.
    pub projects: Vec<String>,
    /// Why.
    pub reason: String,
}

/// What is read from Vault or OpenBao, and as whom.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VaultSpec {
    /// The server; of the developer's environment when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// The namespace; of the developer's environment when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// As whom.
    pub auth: VaultAuth,
    /// The path, as the command line of Vault takes it.
    pub path: String,
    /// What of it is delivered.
    pub fields: VaultFields,
    /// How long the child token lives.
    pub ttl: Duration,
    /// How long it can be made to live by renewing it, for a value with a lease. Not longer than `ttl`: it is read anew
    /// each time.
    #[serde(default)]
    pub max_ttl: Duration,
    /// The child token's policies; the developer's own when empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub policies: Vec<String>,
}

/// How the launcher logs in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum VaultAuth {
    /// With the developer's own token, of which a child is made.
    Token,
    /// With a role's id and a secret id.
    Approle {
        /// Where the method is mounted.
        mount: String,
        /// The role's id, which is no secret by itself.
        role_id: String,
        /// Where the secret id comes from.
        secret_id: SecretSource,
        /// Whether that is a wrapping token with the secret id in it.
        wrapped: bool,
    },
    /// With a client's certificate.
    Cert {
        /// Where the method is mounted.
        mount: String,
        /// The role; whichever fits the certificate when left out.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        role: Option<String>,
        /// Where certificate and private key come from: both as PEM, one after the other.
        identity: SecretSource,
    },
    /// With a signed token of an identity provider.
    Jwt {
        /// Where the method is mounted.
        mount: String,
        /// The role.
        role: String,
        /// Where the signed token comes from.
        jwt: JwtSource,
    },
}

/// Where the launcher gets a secret of its own from, such as one to log in with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SecretSource {
    /// A file inside the project that nobody else can read and git does not track.
    File(PathBuf),
    /// A command on the developer's machine; runs only in a trusted manifest.
    Command(Vec<String>),
}

/// Where a signed token comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum JwtSource {
    /// The launcher signs it, as the sandbox's identity for this audience.
    Identity(String),
    /// Somebody else signed it.
    #[serde(untagged)]
    Given(SecretSource),
}

/// What of an answer is delivered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum VaultFields {
    /// The text of one field.
    One(String),
    /// A JSON object of these fields.
    Several(Vec<String>),
}

/// What an installation token of a GitHub App is good for, and with what it is asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GithubAppSpec {
    /// The API: `https://api.github.com`, `https://HOST/api/v3` or `https://api.TENANT.ghe.com`.
    pub address: String,
    /// The app's client id, or its number.
    pub app: String,
    /// The number of the installation.
    pub installation: u64,
    /// What the token is good for. Never empty: without it a token covers every repository of the installation.
    pub repositories: GithubRepositories,
    /// What it may do there, by the API's names.
    pub permissions: BTreeMap<String, GithubAccess>,
    /// The app's private key.
    pub key: KeySource,
}

/// Repositories of an installation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum GithubRepositories {
    /// By their names without an owner, in lower case: GitHub does not tell cases apart.
    Names(BTreeSet<String>),
    /// By their numbers, which a renaming does not change.
    Ids(BTreeSet<u64>),
}

/// How much of a permission; each has what those before it have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum GithubAccess {
    /// Look.
    Read,
    /// Look and change.
    Write,
    /// Look, change and administer.
    Admin,
}

/// Where a key comes from that issues others. It is worth more than what is issued with it, so it is in no project's folder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum KeySource {
    /// A file of the developer's, below the home folder when it begins with `~/`.
    File(PathBuf),
    /// A command on the developer's machine; runs only in a trusted manifest.
    Command(Vec<String>),
}

/// In which project of OpenAI's a service account is made, for how long, and with whose key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenaiProjectSpec {
    /// The API.
    pub address: String,
    /// The project's id.
    pub project: String,
    /// How long a key lives.
    pub ttl: Duration,
    /// The organisation's admin key.
    pub key: KeySource,
}

/// Agents whose log-in can become a project's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LoginAgent {
    /// OpenAI's Codex, with a log-in at ChatGPT.
    Codex,
    /// Anthropic's Claude Code, with a log-in at Claude.
    ClaudeCode,
    /// Google's Gemini CLI, with a log-in at Google.
    GeminiCli,
}

/// Where a log-in is made and refreshed, and as which client.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OauthSpec {
    /// Whose log-in it is, when it is an agent's: its program gets a file of the form that it reads.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent: Option<LoginAgent>,
    /// The client's id.
    pub client_id: String,
    /// Where its secret comes from, for a client that has one (RFC 6749, section 2.3.1). That of an installed application is
    /// no secret from its users, and still nothing for a repository.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_secret: Option<KeySource>,
    /// The token endpoint.
    pub token_url: String,
    /// The device authorization endpoint; without it, a refresh token is taken over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device_url: Option<String>,
    /// The authorization endpoint, for a log-in in the browser.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authorize_url: Option<String>,
    /// Where the browser brings the code, on loopback; any free port when it names none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub redirect_url: Option<String>,
    /// Further parameters of the authorization request.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub authorize_parameters: BTreeMap<String, String>,
    /// The revocation endpoint (RFC 7009).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revoke_url: Option<String>,
    /// Whether the token endpoint takes JSON, against the standard, in place of a form.
    #[serde(default)]
    pub json_requests: bool,
    /// What is asked for, and the most that is accepted; not looked at when empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub scopes: Vec<String>,
}

/// Which role is assumed, how it is narrowed, and with whose keys.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AwsStsSpec {
    /// STS; the region's endpoint when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// The role's ARN.
    pub role: String,
    /// The region of STS, and of the agent's programs.
    pub region: String,
    /// Whose keys.
    pub source: AwsSource,
    /// How long a session lives.
    pub ttl: Duration,
    /// A policy in JSON that narrows the role's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<String>,
    /// ARNs of managed policies that narrow the role's.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub policy_arns: Vec<String>,
    /// Session tags.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub tags: BTreeMap<String, String>,
    /// What the role's trust policy wants of others' accounts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub external_id: Option<String>,
    /// Whether the developer's user name is the source identity, which also stays when roles are chained.
    #[serde(default)]
    pub source_identity: bool,
}

/// Whose keys assume a role.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AwsSource {
    /// Those of the developer's environment, or of the profile that it names.
    Environment,
    /// Those of a profile in the shared credentials file.
    Profile(String),
    /// Those that a command prints as a `credential_process` does; runs only in a trusted manifest.
    Command(Vec<String>),
    /// None: the sandbox's identity, signed for this audience, is what the role's trust policy names.
    Identity(String),
}

/// Which service account of Google Cloud the sandbox's identity becomes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GcpSpec {
    /// Both services; Google's own when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// The resource name of the provider in the workload identity pool, which is the identity's audience too.
    pub audience: String,
    /// The service account's address.
    pub service_account: String,
    /// What the token is good for.
    pub scopes: Vec<String>,
    /// How long it lives.
    pub ttl: Duration,
}

/// Which application of Microsoft Entra the sandbox's identity becomes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AzureSpec {
    /// The authority's host, which differs between the clouds.
    pub address: String,
    /// The identity's audience.
    pub audience: String,
    /// The tenant.
    pub tenant: String,
    /// The application.
    pub client: String,
    /// What the token is good for.
    pub scope: String,
}

/// Which service account of Anthropic the sandbox's identity becomes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AnthropicSpec {
    /// The API.
    pub address: String,
    /// The identity's audience.
    pub audience: String,
    /// The federation rule.
    pub rule: String,
    /// The organisation.
    pub organization: String,
    /// The service account.
    pub service_account: String,
    /// The workspace; the rule's own when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workspace: Option<String>,
}
