//! The way of every verb to the engine, and what its errors mean to a person.

use std::path::PathBuf;

use super::{Context, Failure};
use crate::engine::{self, EndpointProblem, Engine, EngineEnvironment, EngineError};

/// What the environment says about the engine.
pub fn engine_environment(context: &Context) -> EngineEnvironment {
    let text = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
    EngineEnvironment {
        docker_host: text("DOCKER_HOST"),
        docker_context: text("DOCKER_CONTEXT"),
        docker_config: text("DOCKER_CONFIG").map(PathBuf::from),
        docker_tls_verify: text("DOCKER_TLS_VERIFY").is_some(),
        xdg_runtime_dir: text("XDG_RUNTIME_DIR").map(PathBuf::from),
        home: context.folders.home.clone(),
    }
}

/// Finds the engine and connects to it.
///
/// # Errors
///
/// When there is none that can be used; the failure says what to do about it.
pub async fn connect(context: &Context) -> Result<Engine, Failure> {
    let endpoint = engine::discover(context.engine.as_deref(), &engine_environment(context))?;
    Ok(Engine::connect(endpoint).await?)
}

impl From<EngineError> for Failure {
    fn from(error: EngineError) -> Self {
        let (code, next) = advice(&error);
        Failure::new(code, &error, next)
    }
}

/// The code of an error of the engine and what to do about it.
fn advice(error: &EngineError) -> (&'static str, String) {
    use EngineError as E;
    match error {
        E::EndpointInvalid { source, .. } => ("engine-address", endpoint_advice(*source).into()),
        E::ContextMissing { .. } => (
            "engine-context",
            "`docker context ls` shows the contexts that there are; choose one with `docker context use NAME`, or name \
             the engine with `--engine ADDRESS`"
                .into(),
        ),
        E::ConfigurationUnreadable { path, .. } | E::ConfigurationInvalid { path, .. } => (
            "engine-configuration",
            format!("mend {}, or go past it with `--engine ADDRESS`", path.display()),
        ),
        E::NotAnswering { .. } => (
            "engine-not-answering",
            "start the engine (`sudo systemctl start docker`, or `systemctl --user start docker` for a rootless one), \
             install one (https://docs.docker.com/engine/install/), or name another with `--engine ADDRESS`"
                .into(),
        ),
        E::NotPermitted { .. } => (
            "engine-not-permitted",
            "use a rootless engine (https://docs.docker.com/engine/security/rootless/), or join the group that owns the \
             socket (`sudo usermod -aG docker $USER`, then log in again); that group is as good as root"
                .into(),
        ),
        E::NotAnEngine { .. } => (
            "engine-unknown",
            "check the address: what answers there does not speak the Docker Engine API; `sandbox doctor` shows which \
             address is used"
                .into(),
        ),
        E::TooOld { .. } => {
            ("engine-too-old", "install Docker Engine 20.10 or later (https://docs.docker.com/engine/install/)".into())
        }
        E::TooNew { .. } => ("engine-too-new", "install a newer `sandbox`".into()),
        E::NameTaken { kind, .. } => (
            "name-taken",
            format!("`sandbox ps` shows whether it is one of yours; otherwise remove that {kind}, or use `--name`"),
        ),
        E::NotFound { .. } | E::NotRunning { .. } => (
            "not-there",
            "`sandbox status` shows what is there and `sandbox up` starts what is missing".into(),
        ),
        E::InUse { .. } => ("in-use", "end what uses it (`sandbox ps`, `sandbox down`) and try again".into()),
        E::Warnings { .. } | E::LimitMissing { .. } => (
            "limit-missing",
            "`sandbox doctor` shows which limits this engine enforces; a rootless engine needs cgroup v2 with the cpu, \
             memory and pids controllers delegated (https://docs.docker.com/engine/security/rootless/)"
                .into(),
        ),
        E::Different { .. } => (
            "container-different",
            "the engine does not do what it was asked; update it, and report this with the output of `sandbox doctor`"
                .into(),
        ),
        E::VolumeUncovered { .. } => (
            "image-volume",
            "build the image without that `VOLUME`: the folder would be writable and unbounded".into(),
        ),
        E::NameInvalid { .. } | E::Inexpressible { .. } => ("engine-request", "correct that value".into()),
        E::BuildFailed { .. } => (
            "image-build",
            "correct that step; its network is off unless the image is locked with `--with-network`".into(),
        ),
        E::BuilderAbsent { .. } => (
            "image-builder",
            "leave DOCKER_BUILDKIT out, so that the classic builder is used, or update the engine to 27.5 or later".into(),
        ),
        E::SavedTooLarge { .. } | E::SavedUnwritten(_) => {
            ("image-build", "look whether the disk is full, and make the image smaller".into())
        }
        E::Timeout { .. } => (
            "engine-timeout",
            "look whether the engine is busy or stuck (`docker ps`, `journalctl -u docker`) and try again".into(),
        ),
        E::Api { .. } | E::Transport { .. } | E::AnswerIncomplete { .. } | E::Framing(_) => (
            "engine-call",
            "look into the engine's own log (`journalctl -u docker`); `sandbox doctor` shows what is known about this \
             version"
                .into(),
        ),
    }
}

fn endpoint_advice(problem: EndpointProblem) -> &'static str {
    match problem {
        EndpointProblem::Ssh => {
            "forward the socket, `ssh -nNT -L $HOME/.docker/remote.sock:/var/run/docker.sock USER@HOST`, and use \
             `--engine unix://$HOME/.docker/remote.sock`, or make that a context: `docker context create NAME --docker \
             host=unix://$HOME/.docker/remote.sock`"
        }
        EndpointProblem::Tls => {
            "forward the engine over ssh, `ssh -nNT -L $HOME/.docker/remote.sock:/var/run/docker.sock USER@HOST`, and use \
             `--engine unix://$HOME/.docker/remote.sock`"
        }
        EndpointProblem::Syntax | EndpointProblem::RelativePath | EndpointProblem::Scheme => {
            "write the address as `unix:///var/run/docker.sock` or `tcp://127.0.0.1:2375`"
        }
    }
}
