//! The line protocol between the launcher and the gateway: JSON lines on the gateway's standard input and output.
//!
//! Standard input is never logged by the engine, so it carries the secrets; standard output is, so it carries none.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::credential::secret::Secret;
use crate::network::name::{Host, HostName};
use crate::network::placement::Placement;
use crate::network::policy::Policy;

/// The longest line in either direction, in bytes.
pub const LINE_LIMIT: usize = 4 << 20;

/// A command of the launcher. Each is answered by an [`Event::Acknowledged`] with its number.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Command {
    /// Number chosen by the launcher.
    pub id: u64,
    /// What to do.
    pub action: Action,
}

/// What the gateway is told to do.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Action {
    /// Replace the policy. Before the first one nothing is allowed.
    Policy(Policy),
    /// Replace all files below `/run/secrets` in one atomic swap.
    Secrets(Vec<SecretFile>),
    /// Replace or add these files and keep the others, in one atomic swap.
    UpdateSecrets(Vec<SecretFile>),
    /// Remove these files and keep the others, in one atomic swap.
    RemoveSecrets(Vec<String>),
    /// Hold these brokered credentials, in place of those of the same names.
    Broker(Vec<Brokered>),
    /// Forget these brokered credentials.
    Unbroker(Vec<String>),
    /// Log in so at the company's proxy.
    ProxyLogIn(ProxyLogIn),
    /// Report what was counted and not reported yet: nothing comes after it. A gateway that does not know it forgets its policy, so
    /// that it is for the end of a session alone.
    ReportSums {},
    /// Show which brokered credential a request would carry. It is answered by [`Event::Proven`] or by an error, and nothing is
    /// sent. A gateway that does not know it has to see by its name that it is about no policy.
    ProveBrokered(Proof),
}

/// The request that is asked about, and the question that what stands in it answers.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Proof {
    /// The host.
    pub host: Host,
    /// The port.
    pub port: u16,
    /// The method.
    pub method: String,
    /// The path, without a query.
    pub path: String,
    /// The question of a [`Challenge`](crate::credential::challenge::Challenge).
    #[serde(serialize_with = "write_secret", deserialize_with = "read_secret")]
    pub nonce: Secret,
}

/// What stands in a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proven {
    /// The credential's name.
    pub credential: String,
    /// Where it stands, in words.
    pub place: String,
    /// The answer of what stands there, in hexadecimal.
    pub answer: String,
}

/// A log-in at the company's proxy. It is in no file and not in the policy.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProxyLogIn {
    /// The user name.
    pub user: String,
    /// The password.
    #[serde(serialize_with = "write_secret", deserialize_with = "read_secret")]
    pub password: Secret,
}

/// A credential that the gateway puts into requests. It is in no file.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Brokered {
    /// The credential's name.
    pub name: String,
    /// The one host that gets it.
    pub host: HostName,
    /// Where in a request it stands.
    pub placement: Placement,
    /// Its value.
    #[serde(serialize_with = "write_secret", deserialize_with = "read_secret")]
    pub value: Secret,
}

/// One file below `/run/secrets`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SecretFile {
    /// The file's name: one path component.
    pub name: String,
    /// Its content.
    #[serde(serialize_with = "write_secret", deserialize_with = "read_secret")]
    pub content: Secret,
}

/// One line of the gateway's standard output: an event, numbered, so that whoever reads the engine's log of it knows what it
/// has read already and whether something is missing. The engine's log is bounded, and its oldest lines go first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NumberedEvent {
    /// The run of the gateway that wrote it: 16 random hexadecimal digits. The program may be started several times in one
    /// container, whose log goes on.
    pub run: String,
    /// The number of the event in that run, from 1.
    pub sequence: u64,
    /// The event.
    #[serde(flatten)]
    pub event: Event,
}

/// What the gateway reports.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "event")]
pub enum Event {
    /// The gateway listens.
    Ready,
    /// A command was carried out, or not.
    Acknowledged {
        /// The command's number.
        id: u64,
        /// Why it was not carried out.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        error: Option<String>,
    },
    /// What a request would carry.
    Proven {
        /// The command's number.
        id: u64,
        /// It.
        #[serde(flatten)]
        proven: Proven,
    },
    /// A connection was decided on.
    Decision(Decision),
    /// A request to a host with rules was decided on.
    Request(RequestDecision),
    /// A connection that was allowed ended.
    Closed(Closed),
    /// The agent read or opened a file below `/run/secrets`.
    SecretRead {
        /// The file's name.
        name: String,
        /// How many times since the last such event.
        count: u64,
    },
}

/// One decision. Control characters in `host` were made visible.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decision {
    /// Number of the connection.
    pub connection: u64,
    /// Whether it was allowed.
    pub allowed: bool,
    /// Why, as one word: `listed`, `unlisted`, `address`, `resolve`, `connect`, `sni`, `request`, `leak`,
    /// `no_policy`, and `lookup` for a name that was only asked for in DNS and is not listed.
    pub reason: String,
    /// The host as asked for.
    pub host: String,
    /// The port as asked for; 0 for a name in DNS.
    pub port: u16,
    /// How it was asked for: `connect`, `http`, `tcp`, `dns`.
    pub via: String,
    /// The address that was dialled, when one was.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub address: Option<String>,
    /// Where the deciding rule was written.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub rule: Option<String>,
    /// More for people.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub detail: Option<String>,
    /// How many such decisions this one stands for, when it is more than itself.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub count: Option<u64>,
}

/// One decision on a request. It has no query, no header and no body.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RequestDecision {
    /// Number of the connection.
    pub connection: u64,
    /// Whether it was allowed.
    pub allowed: bool,
    /// Why, as one word: `rule`, `host`, `path`, `request`, `credential`, `leak`.
    pub reason: String,
    /// The host.
    pub host: String,
    /// The port.
    pub port: u16,
    /// The method.
    pub method: String,
    /// The path, bounded, with control characters made visible.
    pub path: String,
    /// The rule that allowed it, and where it was written.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub rule: Option<String>,
    /// The brokered credential that was put in, or the credential that the request was refused for.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub credential: Option<String>,
    /// More for people.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub detail: Option<String>,
    /// How many such decisions this one stands for, when it is more than itself.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub count: Option<u64>,
}

/// The end of an allowed connection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Closed {
    /// Number of the connection.
    pub connection: u64,
    /// Bytes from the agent.
    pub sent: u64,
    /// Bytes to the agent.
    pub received: u64,
}

fn write_secret<S: Serializer>(secret: &Secret, serializer: S) -> Result<S::Ok, S::Error> {
    let text = zeroize::Zeroizing::new(STANDARD.encode(secret.expose()));
    serializer.serialize_str(&text)
}

fn read_secret<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Secret, D::Error> {
    let text = zeroize::Zeroizing::new(String::deserialize(deserializer)?);
    STANDARD.decode(text.as_bytes()).map(Secret::new).map_err(|_| serde::de::Error::custom("the content is not base64"))
}
