//! What can go wrong with the engine, told apart by what the user has to do about it.

use std::time::Duration;

/// Why the engine did not do something.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// No engine was found at any usual place.
    #[error("find a Docker Engine: none answers at {}", tried.join(", "))]
    NoEngine {
        /// The places that were tried.
        tried: Vec<String>,
    },
    /// The engine does not answer at its address.
    #[error("reach the Docker Engine at {endpoint}")]
    NotAnswering {
        /// The address.
        endpoint: String,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// The socket is there, but this user may not use it.
    #[error("use the Docker Engine at {endpoint}, since its socket is not permitted to you")]
    NotPermitted {
        /// The address.
        endpoint: String,
    },
    /// The engine's API is older than what the containers need.
    #[error("use the Docker Engine {version}: its API is {api}, at least {minimum} is needed")]
    TooOld {
        /// The engine's version.
        version: String,
        /// Its API version.
        api: String,
        /// The oldest API version that is enough.
        minimum: &'static str,
    },
    /// An address of a kind that is not spoken.
    #[error("understand the engine's address `{address}`")]
    Address {
        /// The address.
        address: String,
    },
    /// A Docker context that cannot be read.
    #[error("read the Docker context `{name}`")]
    Context {
        /// The context's name.
        name: String,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// Another container has the name.
    #[error("create the container {name}, since another one has that name")]
    NameTaken {
        /// The name.
        name: String,
    },
    /// There is no such object.
    #[error("find the {kind} {name}")]
    NotFound {
        /// Kind of object.
        kind: &'static str,
        /// Its name.
        name: String,
    },
    /// The engine created the container with warnings, which mean that it ignored something.
    #[error("create the container {name} as planned: {}", warnings.join("; "))]
    Warnings {
        /// The container.
        name: String,
        /// The engine's words.
        warnings: Vec<String>,
    },
    /// The container is not what was asked for.
    #[error("create the container {name} as planned: {}", differences.join("; "))]
    Differs {
        /// The container.
        name: String,
        /// What differs.
        differences: Vec<String>,
    },
    /// The image declares volumes that would be writable and unbounded.
    #[error("use the image {image}, since it declares the volume {path}, which nothing covers")]
    ImageVolume {
        /// The image.
        image: String,
        /// The declared path.
        path: String,
    },
    /// The engine did not answer in time.
    #[error("get the engine's answer to `{call}` within {} s", .limit.as_secs())]
    Timeout {
        /// What was asked.
        call: &'static str,
        /// The limit.
        limit: Duration,
    },
    /// The engine refused.
    #[error("have the engine {call}: {message}")]
    Refused {
        /// What was asked.
        call: &'static str,
        /// HTTP status.
        status: u16,
        /// The engine's words.
        message: String,
    },
    /// Transport or format failed.
    #[error("have the engine {call}")]
    Transport {
        /// What was asked.
        call: &'static str,
        /// The cause.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A stream broke.
    #[error("read a stream of the engine")]
    Stream(#[source] std::io::Error),
    /// A stream that is not in the engine's format.
    #[error("understand a stream of the engine")]
    StreamFormat,
}

impl EngineError {
    /// Whether the object was not there.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::NotFound { .. } | Self::Refused { status: 404, .. })
    }
}
