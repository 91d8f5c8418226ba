//! Finds the engine and connects to it; turns its failures into words with a remedy.

use std::path::PathBuf;

use crate::commands::{Context, Failure};
use crate::engine::endpoint::discover;
use crate::engine::{Engine, EngineEnvironment, EngineError};

/// What the environment says of the engine.
pub fn engine_environment(context: &Context) -> EngineEnvironment {
    let text = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    EngineEnvironment {
        docker_host: text("DOCKER_HOST"),
        docker_context: text("DOCKER_CONTEXT"),
        docker_config: text("DOCKER_CONFIG").map(PathBuf::from),
        xdg_runtime_dir: text("XDG_RUNTIME_DIR").map(PathBuf::from),
        home: context.folders.home.clone(),
    }
}

/// Connects to the engine.
///
/// # Errors
/// When none answers, it is not permitted, or it is too old.
pub async fn connect(context: &Context) -> Result<Engine, Failure> {
    let endpoint = discover(context.engine.as_deref(), &engine_environment(context))?;
    Ok(Engine::connect(endpoint).await?)
}

impl From<EngineError> for Failure {
    fn from(error: EngineError) -> Self {
        let (code, next) = match &error {
            EngineError::NoEngine { .. } => (
                "engine-absent",
                "install Docker Engine (on Debian: `apt-get install docker.io`) and start it (`systemctl start docker`, or `dockerd &`), or set DOCKER_HOST",
            ),
            EngineError::NotAnswering { .. } => (
                "engine-not-answering",
                "start it (`systemctl start docker`, or `dockerd &`), or correct DOCKER_HOST, the Docker context or `--engine`",
            ),
            EngineError::NotPermitted { .. } => (
                "engine-not-permitted",
                "use a rootless engine (`dockerd-rootless-setuptool.sh install`), or join the `docker` group, whose members have root's rights on this machine",
            ),
            EngineError::TooOld { .. } => ("engine-too-old", "upgrade to Docker Engine 20.10 or later"),
            EngineError::Address { .. } => (
                "engine-address",
                "use `unix:///PATH` or `tcp://HOST:PORT`; for a remote engine forward its socket with `ssh -L /tmp/docker.sock:/var/run/docker.sock HOST`",
            ),
            EngineError::Context { .. } => {
                ("engine-context", "look at `docker context ls` and choose one that exists with `docker context use`")
            }
            EngineError::NameTaken { .. } => {
                ("name-taken", "look at `sandbox ps` and `docker ps -a`; `sandbox gc` removes what a crash left")
            }
            EngineError::NotFound { .. } => ("engine-object-absent", "run it again; `sandbox gc` cleans up first"),
            EngineError::Warnings { .. } | EngineError::Differs { .. } => (
                "engine-cannot-contain",
                "the engine cannot give what the plan demands; `sandbox doctor` says what it lacks",
            ),
            EngineError::ImageVolume { .. } => {
                ("image-volume", "build the image without VOLUME, since it would be writable without a limit")
            }
            EngineError::Timeout { .. } => ("engine-slow", "see whether `docker info` answers, and run it again"),
            EngineError::Refused { .. } | EngineError::Transport { .. } => {
                ("engine-refused", "read the engine's words above; `sandbox doctor` checks the engine")
            }
            EngineError::Stream(_) | EngineError::StreamFormat => {
                ("engine-stream", "see whether the sandbox still runs with `sandbox status`, and run it again")
            }
        };
        Failure::new(code, &error, next)
    }
}
