//! Containers of the engine, from creation to removal.

use std::collections::BTreeMap;
use std::time::Duration;

use bollard::models::{ContainerInspectResponse, ContainerStateStatusEnum};
use bollard::query_parameters::{
    CreateContainerOptions, InspectContainerOptions, KillContainerOptions, ListContainersOptions,
    RemoveContainerOptions, StartContainerOptions, StatsOptions, StopContainerOptions, WaitContainerOptions,
};
use bytes::Bytes;
use futures_util::{Stream, StreamExt, TryFutureExt, stream};
use http::Method;
use serde::Serialize;

use super::container::{ContainerSpec, Network};
use super::error::{EngineError, Kind, Refusal, optional};
use super::image::ImageSummary;
use super::stream::{AttachedStream, Chunk, StreamOutput};
use super::verify::{self, Difference};
use super::{CALL_LIMIT, Engine, check_name, label_filter, translate, transport};

/// What a container has used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ContainerUsage {
    /// Time of all processors together.
    pub processor: Duration,
    /// The most memory at one time, in bytes, with the files that were cached; engines with control groups of version 2
    /// do not know it.
    pub memory_peak: Option<u64>,
}

/// What a container is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ContainerStatus {
    /// Never started.
    Created,
    /// Running.
    Running,
    /// All its processes are frozen.
    Paused,
    /// Being restarted by the engine.
    Restarting,
    /// Being removed.
    Removing,
    /// Ended.
    Exited,
    /// Could not be removed.
    Dead,
}

/// A container, inspected.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ContainerState {
    /// Id.
    pub id: String,
    /// Name, without a slash.
    pub name: String,
    /// The image's id.
    pub image: String,
    /// Labels, the image's included.
    pub labels: BTreeMap<String, String>,
    /// What it is doing.
    pub status: ContainerStatus,
    /// The exit code of process 1, once ended.
    pub exit_code: Option<i64>,
    /// Whether process 1 was ended for want of memory. A child that was leaves no trace here.
    pub oom_killed: bool,
    /// When it was last started (RFC 3339).
    pub started_at: Option<String>,
    /// When it last ended (RFC 3339).
    pub finished_at: Option<String>,
}

impl Engine {
    /// Creates a container and gives its id. Nothing runs yet.
    ///
    /// # Errors
    ///
    /// When the engine refuses, warns, or makes something else of it than the spec says; the container is then removed
    /// again.
    pub async fn create_container(&self, spec: &ContainerSpec) -> Result<String, EngineError> {
        const CALL: &str = "create a container";
        check_name(Kind::Container, &spec.name)?;
        let image = self.required_image(&spec.image).await?;
        let mut body = translate::container(spec, &image)?;
        if let (Some(host), Some(mode)) = (&mut body.host_config, self.network_by_id(&spec.network).await?) {
            host.network_mode = Some(mode);
        }
        let options = CreateContainerOptions { name: Some(spec.name.clone()), ..CreateContainerOptions::default() };
        let created = self.call(CALL, CALL_LIMIT, self.client().create_container(Some(options), body)).await;
        let created = match created {
            Err(error) if error.status() == Some(409) => {
                return Err(EngineError::NameTaken { kind: Kind::Container, name: spec.name.clone() });
            }
            other => other?,
        };
        let checked = if created.warnings.is_empty() {
            self.check_created(&created.id, spec, &image).await
        } else {
            let warnings = created.warnings.iter().map(|warning| Refusal::new(warning).as_str().to_owned()).collect();
            Err(EngineError::Warnings { name: spec.name.clone(), warnings })
        };
        if let Err(error) = checked {
            // The first failure is the one to tell; whatever this leaves behind has the labels by which it is found.
            if let Err(removal) = self.remove_container(&created.id).await {
                tracing::warn!(container = %created.id, %removal, "a container that was refused is still there");
            }
            return Err(error);
        }
        Ok(created.id)
    }

    async fn check_created(&self, id: &str, spec: &ContainerSpec, image: &ImageSummary) -> Result<(), EngineError> {
        let differences = self.differences(id, spec, image).await?;
        if let Some(limit) = differences.iter().find(|difference| difference.is_limit()) {
            return Err(EngineError::LimitMissing {
                name: spec.name.clone(),
                limit: limit.field.clone(),
                wanted: limit.wanted.clone(),
                found: limit.found.clone(),
            });
        }
        if differences.is_empty() {
            return Ok(());
        }
        Err(EngineError::Different {
            name: spec.name.clone(),
            differences: differences.iter().map(Difference::to_string).collect(),
        })
    }

    /// Compares a container with the spec and the hardening that goes with every spec. Empty when it is as planned.
    ///
    /// # Errors
    ///
    /// When it, or the image of the spec, is not there.
    pub async fn verify_container(&self, id: &str, spec: &ContainerSpec) -> Result<Vec<String>, EngineError> {
        let image = self.required_image(&spec.image).await?;
        Ok(self.differences(id, spec, &image).await?.iter().map(Difference::to_string).collect())
    }

    async fn differences(
        &self,
        id: &str,
        spec: &ContainerSpec,
        image: &ImageSummary,
    ) -> Result<Vec<Difference>, EngineError> {
        let found = self.inspect(id).await?;
        // A peer or network that is gone makes the container different; it is no reason not to say so.
        let network = optional(self.network_by_id(&spec.network).await)?.flatten();
        Ok(verify::differences(spec, &translate::container(spec, image)?, &found, network.as_deref()))
    }

    /// The network mode that a spec asks for, with the id of the network or container in place of its name.
    async fn network_by_id(&self, network: &Network) -> Result<Option<String>, EngineError> {
        let by_id = match network {
            Network::None => return Ok(None),
            Network::Named(name) => Network::Named(self.network_id(name).await?),
            Network::Container(name) => {
                let peer = self.inspect(name).await?;
                let incomplete = EngineError::AnswerIncomplete { call: "inspect a container", field: "Id" };
                Network::Container(peer.id.ok_or(incomplete)?)
            }
        };
        Ok(Some(translate::network_mode(&by_id)))
    }

    async fn inspect(&self, id_or_name: &str) -> Result<ContainerInspectResponse, EngineError> {
        check_name(Kind::Container, id_or_name)?;
        let request = self.client().inspect_container(id_or_name, None::<InspectContainerOptions>);
        let answer = self.call("inspect a container", CALL_LIMIT, request).await;
        answer.map_err(|error| error.missing(Kind::Container, id_or_name))
    }

    /// The container of this id or name, if there is one.
    pub async fn inspect_container(&self, id_or_name: &str) -> Result<Option<ContainerState>, EngineError> {
        optional(self.inspect(id_or_name).await)?.map(ContainerState::from_api).transpose()
    }

    /// All containers with these labels (`key=value` or `key`), also those that do not run.
    pub async fn containers(&self, labels: &[String]) -> Result<Vec<ContainerState>, EngineError> {
        let options =
            ListContainersOptions { all: true, filters: label_filter(labels), ..ListContainersOptions::default() };
        let listed = self.call("list containers", CALL_LIMIT, self.client().list_containers(Some(options))).await?;
        let ids: Vec<String> = listed.into_iter().filter_map(|container| container.id).collect();
        let inspected = futures_util::future::try_join_all(ids.iter().map(|id| self.inspect_container(id))).await?;
        // One that was removed in between is not listed.
        Ok(inspected.into_iter().flatten().collect())
    }

    /// Starts a container. That it runs already is fine.
    pub async fn start_container(&self, id: &str) -> Result<(), EngineError> {
        check_name(Kind::Container, id)?;
        let request = self.client().start_container(id, None::<StartContainerOptions>);
        let answer = self.call("start a container", CALL_LIMIT, request).await;
        answer.map_err(|error| error.missing(Kind::Container, id))
    }

    /// Asks a container to end, and kills it after `grace` (in whole seconds, rounded up). That it has ended already is fine.
    pub async fn stop_container(&self, id: &str, grace: Duration) -> Result<(), EngineError> {
        check_name(Kind::Container, id)?;
        let seconds = grace.as_millis().div_ceil(1000);
        let options = StopContainerOptions { t: Some(i32::try_from(seconds).unwrap_or(i32::MAX)), signal: None };
        let request = self.client().stop_container(id, Some(options));
        let answer = self.call("stop a container", grace.saturating_add(CALL_LIMIT), request).await;
        answer.map_err(|error| error.missing(Kind::Container, id))
    }

    /// Sends a signal, such as `KILL`, to process 1 of a container. That it does not run, or is not there, is fine.
    pub async fn kill_container(&self, id: &str, signal: &str) -> Result<(), EngineError> {
        check_name(Kind::Container, id)?;
        let options = KillContainerOptions { signal: signal.to_owned() };
        let answer = self.call("signal a container", CALL_LIMIT, self.client().kill_container(id, Some(options))).await;
        match answer {
            Err(error) if matches!(error.status(), Some(404 | 409)) => Ok(()),
            other => other,
        }
    }

    /// Removes a container with its anonymous volumes, killing it first where needed. That there is none is fine.
    pub async fn remove_container(&self, id: &str) -> Result<(), EngineError> {
        const CALL: &str = "remove a container";
        check_name(Kind::Container, id)?;
        let options = RemoveContainerOptions { v: true, force: true, link: false };
        let answer = self.call(CALL, CALL_LIMIT, self.client().remove_container(id, Some(options))).await;
        match optional(answer) {
            Ok(_) => Ok(()),
            // Somebody else is removing it at this moment.
            Err(error) if error.status() == Some(409) => self.wait_until_gone(id).await,
            Err(error) => Err(error),
        }
    }

    async fn wait_until_gone(&self, id: &str) -> Result<(), EngineError> {
        let poll = async {
            while self.inspect_container(id).await?.is_some() {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            Ok(())
        };
        transport::within("remove a container", CALL_LIMIT, poll).await?
    }

    /// Waits until a container that was started has ended, however long that takes, and gives the exit code of process 1.
    pub async fn wait_container(&self, id: &str) -> Result<i64, EngineError> {
        use bollard::errors::Error::DockerContainerWaitError;
        const CALL: &str = "wait for a container";
        check_name(Kind::Container, id)?;
        let options = WaitContainerOptions { condition: "not-running".into() };
        let mut answers = Box::pin(self.client().wait_container(id, Some(options)));
        match answers.next().await {
            Some(Ok(answer)) => Ok(answer.status_code),
            // The client library takes every code but 0 for an error.
            Some(Err(DockerContainerWaitError { code, error })) if error.is_empty() => Ok(code),
            Some(Err(DockerContainerWaitError { error, .. })) => {
                Err(EngineError::Api { call: CALL, status: 0, source: Refusal::new(&error) })
            }
            Some(Err(error)) => Err(EngineError::from_client(CALL, error).missing(Kind::Container, id)),
            None => Err(EngineError::AnswerIncomplete { call: CALL, field: "StatusCode" }),
        }
    }

    /// What a container that runs has used since it was started; none when there is none, or it does not run.
    pub async fn container_usage(&self, id: &str) -> Result<Option<ContainerUsage>, EngineError> {
        const CALL: &str = "ask what a container uses";
        check_name(Kind::Container, id)?;
        // One answer without the pause in which the engine would measure a rate.
        let options = StatsOptions { stream: false, one_shot: true };
        let mut answers = Box::pin(self.client().stats(id, Some(options)));
        let answer = transport::within(CALL, CALL_LIMIT, answers.next()).await?;
        let answer = answer.transpose().map_err(|error| EngineError::from_client(CALL, error));
        let Some(stats) = optional(answer)?.flatten() else { return Ok(None) };
        let processor = stats.cpu_stats.and_then(|stats| stats.cpu_usage).and_then(|usage| usage.total_usage);
        // A container that does not run is answered with zeros.
        let Some(processor) = processor.filter(|time| *time > 0) else { return Ok(None) };
        let memory_peak = stats.memory_stats.and_then(|stats| stats.max_usage).filter(|bytes| *bytes > 0);
        Ok(Some(ContainerUsage { processor: Duration::from_nanos(processor), memory_peak }))
    }

    /// Attaches to a container's streams from now on. Attaching before the start misses nothing.
    pub async fn attach(&self, container: &str) -> Result<AttachedStream, EngineError> {
        check_name(Kind::Container, container)?;
        let path = self.path(&format!("/containers/{container}/attach?stream=1&stdin=1&stdout=1&stderr=1"));
        let call =
            transport::Call { name: "attach to a container", method: Method::POST, path: &path, body: Bytes::new() };
        let connection = transport::hijack(&self.inner.address, &call).await;
        Ok(AttachedStream::new(None, connection.map_err(|error| error.missing(Kind::Container, container))?))
    }

    /// Reads what a container has printed, by the engine's log: the last `tail` lines or all, and on from there when it is
    /// to `follow`.
    pub fn logs(
        &self,
        container: &str,
        follow: bool,
        tail: Option<u64>,
    ) -> impl Stream<Item = Result<Chunk, EngineError>> + Send + use<> {
        let (engine, container) = (self.clone(), container.to_owned());
        let open = async move { engine.open_log(&container, follow, tail).await };
        open.map_ok(|output| {
            stream::try_unfold(output, async |mut output| Ok(output.next().await?.map(|chunk| (chunk, output))))
        })
        .try_flatten_stream()
    }

    async fn open_log(&self, container: &str, follow: bool, tail: Option<u64>) -> Result<StreamOutput, EngineError> {
        check_name(Kind::Container, container)?;
        let tail = tail.map_or_else(|| "all".to_owned(), |lines| lines.to_string());
        let rest = format!("/containers/{container}/logs?stdout=1&stderr=1&follow={}&tail={tail}", u8::from(follow));
        let path = self.path(&rest);
        let call = transport::Call { name: "read a log", method: Method::GET, path: &path, body: Bytes::new() };
        let body = transport::stream(&self.inner.address, &call).await;
        Ok(StreamOutput::of_body(body.map_err(|error| error.missing(Kind::Container, container))?))
    }
}

impl ContainerState {
    fn from_api(container: ContainerInspectResponse) -> Result<Self, EngineError> {
        let incomplete = |field| EngineError::AnswerIncomplete { call: "inspect a container", field };
        let state = container.state.ok_or_else(|| incomplete("State"))?;
        let status = match state.status {
            Some(ContainerStateStatusEnum::CREATED) => ContainerStatus::Created,
            Some(ContainerStateStatusEnum::RUNNING | ContainerStateStatusEnum::STOPPING) => ContainerStatus::Running,
            Some(ContainerStateStatusEnum::PAUSED) => ContainerStatus::Paused,
            Some(ContainerStateStatusEnum::RESTARTING) => ContainerStatus::Restarting,
            Some(ContainerStateStatusEnum::REMOVING) => ContainerStatus::Removing,
            Some(ContainerStateStatusEnum::EXITED) => ContainerStatus::Exited,
            Some(ContainerStateStatusEnum::DEAD) => ContainerStatus::Dead,
            Some(ContainerStateStatusEnum::EMPTY) | None => return Err(incomplete("State.Status")),
        };
        // The engine writes the year 1 for "never".
        let moment = |time: Option<String>| time.filter(|time| !time.is_empty() && !time.starts_with("0001-"));
        let ended = matches!(status, ContainerStatus::Exited | ContainerStatus::Dead);
        Ok(Self {
            id: container.id.ok_or_else(|| incomplete("Id"))?,
            name: container.name.map(|name| plain_name(&name)).unwrap_or_default(),
            image: container.image.unwrap_or_default(),
            labels: container.config.and_then(|config| config.labels).unwrap_or_default().into_iter().collect(),
            status,
            exit_code: state.exit_code.filter(|_| ended),
            oom_killed: state.oom_killed.unwrap_or_default(),
            started_at: moment(state.started_at),
            finished_at: moment(state.finished_at),
        })
    }
}

/// A name without the slash that the engine puts before it.
fn plain_name(name: &str) -> String {
    name.trim_start_matches('/').to_owned()
}
