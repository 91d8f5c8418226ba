//! What can go wrong between the launcher and a Docker Engine.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use super::endpoint::Endpoint;

/// The longest text of the engine that an error keeps, in bytes.
const REFUSAL_LIMIT: usize = 2000;

/// What a name or id stands for in the engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A container.
    Container,
    /// A volume.
    Volume,
    /// A network.
    Network,
    /// An image.
    Image,
    /// A command inside a running container.
    Exec,
}

impl std::fmt::Display for Kind {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(match self {
            Self::Container => "container",
            Self::Volume => "volume",
            Self::Network => "network",
            Self::Image => "image",
            Self::Exec => "exec",
        })
    }
}

/// Why an address of an engine cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum EndpointProblem {
    /// Not an address of the form `scheme://…`.
    #[error("it is not of the form `unix:///PATH` or `tcp://HOST:PORT`")]
    Syntax,
    /// A path that does not begin with a slash.
    #[error("the path of a unix socket must begin with `/`")]
    RelativePath,
    /// An `ssh://` address.
    #[error("`ssh://` is not supported directly")]
    Ssh,
    /// TLS was asked for.
    #[error("TLS is not supported directly, and it must not silently become plain text")]
    Tls,
    /// Another scheme.
    #[error("only `unix://` and `tcp://` are supported")]
    Scheme,
}

/// A text by which the engine refused a request, bounded, with control characters made visible.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Refusal(String);

impl Refusal {
    /// Takes over at most 2000 bytes of a text that came from the engine.
    pub(super) fn new(text: &str) -> Self {
        let mut kept = String::new();
        for character in text.trim().chars() {
            if kept.len() >= REFUSAL_LIMIT {
                kept.push('…');
                break;
            }
            if character.is_control() {
                kept.extend(character.escape_default());
            } else {
                kept.push(character);
            }
        }
        Self(kept)
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Why something could not be had from an engine; `call` names what was asked of it.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The address of the engine is not one.
    #[error("use the engine address `{}`", .address.escape_debug())]
    EndpointInvalid {
        /// The address as given.
        address: String,
        /// What is wrong with it.
        #[source]
        source: EndpointProblem,
    },
    /// The Docker context does not exist.
    #[error("find the Docker context `{}`", .name.escape_debug())]
    ContextMissing {
        /// The context's name.
        name: String,
    },
    /// A file of the Docker command line's configuration cannot be read.
    #[error("read {}", .path.display())]
    ConfigurationUnreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A file of the Docker command line's configuration is not what it should be.
    #[error("understand {}", .path.display())]
    ConfigurationInvalid {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// Nothing answers.
    #[error("reach a Docker Engine at {endpoint}")]
    NotAnswering {
        /// Where it was looked for.
        endpoint: Endpoint,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The socket is there and this user may not open it.
    #[error("open the Docker Engine's socket {endpoint}: permission denied")]
    NotPermitted {
        /// Where it is.
        endpoint: Endpoint,
    },
    /// What answers is not a Docker Engine.
    #[error("recognise a Docker Engine at {endpoint}")]
    NotAnEngine {
        /// Where it is.
        endpoint: Endpoint,
    },
    /// The engine is too old.
    #[error("use Docker Engine {version}: its API {api} is older than {minimum}")]
    TooOld {
        /// Version of the engine.
        version: String,
        /// Newest API version that it speaks.
        api: String,
        /// Oldest API version that is enough.
        minimum: &'static str,
    },
    /// The engine no longer speaks any API version of ours.
    #[error("use Docker Engine {version}: its oldest API {api} is newer than {maximum}")]
    TooNew {
        /// Version of the engine.
        version: String,
        /// Oldest API version that it speaks.
        api: String,
        /// Newest API version of ours.
        maximum: String,
    },
    /// A name or id with characters that the engine does not use in one.
    #[error("use `{}` as the name of a {kind}", .name.escape_debug())]
    NameInvalid {
        /// What it was to name.
        kind: Kind,
        /// The name.
        name: String,
    },
    /// The name belongs to something else.
    #[error("create the {kind} `{name}`: the name is taken")]
    NameTaken {
        /// What it names.
        kind: Kind,
        /// The name.
        name: String,
    },
    /// There is none.
    #[error("find the {kind} `{name}`")]
    NotFound {
        /// What was looked for.
        kind: Kind,
        /// Its name or id.
        name: String,
    },
    /// Something else still uses it.
    #[error("remove the {kind} `{name}`: it is in use")]
    InUse {
        /// What was to be removed.
        kind: Kind,
        /// Its name or id.
        name: String,
    },
    /// The container is not running.
    #[error("use the container `{name}`: it is not running")]
    NotRunning {
        /// The container's name or id.
        name: String,
    },
    /// The engine created the container with reservations, so it was removed again.
    #[error("create the container `{name}` as planned: {}", .warnings.join("; "))]
    Warnings {
        /// The container.
        name: String,
        /// The engine's warnings.
        warnings: Vec<String>,
    },
    /// A limit did not take effect, so the container was removed again.
    #[error("limit the container `{name}`: {limit} should be {wanted} and is {found}")]
    LimitMissing {
        /// The container.
        name: String,
        /// The limit, by its name in the Engine API.
        limit: String,
        /// What was asked for.
        wanted: String,
        /// What the engine made of it.
        found: String,
    },
    /// The container is not what was asked for, so it was removed again.
    #[error("create the container `{name}` as planned: {}", .differences.join("; "))]
    Different {
        /// The container.
        name: String,
        /// What differs.
        differences: Vec<String>,
    },
    /// The image declares a volume that the plan does not cover; it would be writable and without a bound.
    #[error("use the image {image}: it declares the volume `{}`, which nothing of the plan covers", .volume.escape_debug())]
    VolumeUncovered {
        /// The image's id.
        image: String,
        /// The folder inside.
        volume: String,
    },
    /// A value of a spec that the engine's API cannot express.
    #[error("express {field} of the container `{name}` to the engine")]
    Inexpressible {
        /// The container.
        name: String,
        /// The field.
        field: &'static str,
    },
    /// The engine did not answer in time.
    #[error("{call} within {}s", .limit.as_secs())]
    Timeout {
        /// What was asked.
        call: &'static str,
        /// How long it was waited for.
        limit: Duration,
    },
    /// The engine refused.
    #[error("{call}: the engine answered {status}")]
    Api {
        /// What was asked.
        call: &'static str,
        /// HTTP status; 0 when the refusal came in the middle of an answer.
        status: u16,
        /// What the engine said.
        #[source]
        source: Refusal,
    },
    /// The connection to the engine broke, or its answer is not understood.
    #[error("{call}")]
    Transport {
        /// What was asked.
        call: &'static str,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The answer lacks a field that every engine sends.
    #[error("{call}: the engine's answer lacks `{field}`")]
    AnswerIncomplete {
        /// What was asked.
        call: &'static str,
        /// The field.
        field: &'static str,
    },
    /// A step of a Dockerfile failed.
    #[error("build the Dockerfile; the last that was said:\n{output}")]
    BuildFailed {
        /// The last lines, bounded.
        output: String,
        /// Why.
        #[source]
        source: Refusal,
    },
    /// This engine has no BuildKit that can be given files.
    #[error("build with BuildKit: that of Docker Engine {version} does not get the files of a build")]
    BuilderAbsent {
        /// Version of the engine.
        version: String,
    },
    /// An image is larger than anybody's.
    #[error("save an image: it is larger than {limit} bytes")]
    SavedTooLarge {
        /// The most that is taken.
        limit: u64,
    },
    /// What an engine gives cannot be kept.
    #[error("save an image")]
    SavedUnwritten(#[source] io::Error),
    /// A stream of a container is not framed as the Engine API says.
    #[error("read the output of a container")]
    Framing(#[from] super::stream::FramingError),
}

impl EngineError {
    /// Translates an error of the client library; a name that is missing is told apart by the caller.
    pub(super) fn from_client(call: &'static str, error: bollard::errors::Error) -> Self {
        use bollard::errors::Error;
        match error {
            Error::DockerResponseServerError { status_code, message } => {
                Self::Api { call, status: status_code, source: Refusal::new(&message) }
            }
            Error::DockerStreamError { error } => Self::Api { call, status: 0, source: Refusal::new(&error) },
            other => Self::Transport { call, source: Box::new(other) },
        }
    }

    /// The HTTP status of a refusal.
    pub(super) fn status(&self) -> Option<u16> {
        match self {
            Self::Api { status, .. } => Some(*status),
            _ => None,
        }
    }

    /// Makes a 404 say what is missing.
    pub(super) fn missing(self, kind: Kind, name: &str) -> Self {
        if self.status() == Some(404) { Self::NotFound { kind, name: name.to_owned() } } else { self }
    }

    /// Whether the engine says that there is no such thing.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::NotFound { .. }) || self.status() == Some(404)
    }
}

/// Turns "there is none" into an absent value.
pub(super) fn optional<T>(result: Result<T, EngineError>) -> Result<Option<T>, EngineError> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error),
    }
}
