//! The one module that talks to Docker: containers, volumes, networks, images, exec and attach streams.
//!
//! What a container may ask for is a [`container::ContainerSpec`], which has no field for a host path, a capability, a
//! privilege or a host namespace. Every call has a time limit. The archive calls of the API are never used.

use std::collections::{BTreeMap, HashMap};
use std::future::Future;
use std::time::Duration;

use bollard::Docker;
use bollard::models::{ContainerInspectResponse, ContainerStateStatusEnum, NetworkCreateRequest};
use bollard::query_parameters as query;
use futures_util::{Stream, StreamExt as _, TryStreamExt as _};
use serde::Serialize;
use tokio::io::AsyncRead;

pub mod container;
pub mod endpoint;
pub mod error;
pub mod stream;
mod translate;

pub use endpoint::{Endpoint, EngineEnvironment};
pub use error::EngineError;

use container::{ContainerSpec, User, VolumeSpec};
use stream::{AttachedStream, Chunk};

/// The oldest API version that is enough: Engine 20.10.
const MINIMUM_API: &str = "1.41";
/// How long a call may take that only asks or changes little.
const CALL_LIMIT: Duration = Duration::from_secs(30);
/// How long loading an image may take.
const LOAD_LIMIT: Duration = Duration::from_secs(600);

/// A connection to an engine.
#[derive(Debug, Clone)]
pub struct Engine {
    docker: Docker,
    endpoint: Endpoint,
    info: EngineInfo,
}

/// What an engine says of itself.
#[derive(Debug, Clone, Serialize)]
pub struct EngineInfo {
    /// Its version.
    pub version: String,
    /// The API version that is spoken with it.
    pub api_version: String,
    /// Its processor architecture.
    pub architecture: String,
    /// Version of its `runc`, when it tells.
    pub runc_version: Option<String>,
    /// Its address.
    pub endpoint: String,
}

/// What an engine says of its machine; asked for by `doctor` alone, since it takes long.
#[derive(Debug, Clone, Serialize)]
pub struct EngineSystem {
    /// How it stores images.
    pub storage_driver: String,
    /// Whether images are kept by containerd, so that an image's id is its manifest's digest.
    pub containerd_store: bool,
    /// Whether it runs without root.
    pub rootless: bool,
    /// Version of control groups.
    pub cgroup_version: String,
    /// Security options such as `name=seccomp,profile=default`.
    pub security_options: Vec<String>,
    /// Its own warnings.
    pub warnings: Vec<String>,
}

/// How a container is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ContainerStatus {
    /// Made, never started.
    Created,
    /// Its program runs.
    Running,
    /// Its processes are frozen.
    Paused,
    /// It is being restarted.
    Restarting,
    /// It is being removed.
    Removing,
    /// Its program ended.
    Exited,
    /// It could not be removed.
    Dead,
    /// The engine does not tell.
    Unknown,
}

/// A container as the engine has it.
#[derive(Debug, Clone, Serialize)]
pub struct ContainerState {
    /// Its id.
    pub id: String,
    /// Its name, without the leading slash.
    pub name: String,
    /// The id of its image.
    pub image: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// How it is.
    pub status: ContainerStatus,
    /// How its program ended; only after it did.
    pub exit_code: Option<i64>,
    /// Whether the kernel ended it for memory; only after it ended.
    pub oom_killed: bool,
}

/// A volume as the engine has it.
#[derive(Debug, Clone, Serialize)]
pub struct VolumeSummary {
    /// Its name.
    pub name: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// The driver's options.
    pub options: BTreeMap<String, String>,
}

/// An image as the engine has it.
#[derive(Debug, Clone, Serialize)]
pub struct ImageSummary {
    /// Its id.
    pub id: String,
    /// Size in bytes.
    pub size: u64,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Variables that it sets, as `NAME=value`.
    pub environment: Vec<String>,
    /// Paths that it declares as volumes.
    pub volumes: Vec<String>,
}

/// A program to start in a running container. It never has a TTY: a terminal is made inside.
#[derive(Debug, Clone)]
pub struct ExecSpec {
    /// The program and its arguments.
    pub command: Vec<String>,
    /// Its user.
    pub user: User,
    /// Variables on top of the container's.
    pub environment: BTreeMap<String, String>,
    /// Its working directory.
    pub working_directory: String,
    /// Whether standard input is attached.
    pub stdin: bool,
}

/// Something that happened to a container.
#[derive(Debug, Clone)]
pub struct EngineEvent {
    /// The container's name.
    pub container: String,
    /// What happened: `start`, `die`, `oom`, …
    pub action: String,
}

fn failed(call: &'static str, error: bollard::errors::Error) -> EngineError {
    match error {
        bollard::errors::Error::DockerResponseServerError { status_code, message } => {
            EngineError::Refused { call, status: status_code, message }
        }
        other => EngineError::Transport { call, source: Box::new(other) },
    }
}

async fn limited<T>(
    call: &'static str,
    limit: Duration,
    work: impl Future<Output = Result<T, bollard::errors::Error>>,
) -> Result<T, EngineError> {
    match tokio::time::timeout(limit, work).await {
        Ok(result) => result.map_err(|error| failed(call, error)),
        Err(_) => Err(EngineError::Timeout { call, limit }),
    }
}

/// Turns the engine's "there is none" into none.
fn absent<T>(result: Result<T, EngineError>) -> Result<Option<T>, EngineError> {
    match result {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error),
    }
}

/// Takes "there is none" as done.
fn gone(result: Result<(), EngineError>) -> Result<(), EngineError> {
    absent(result).map(|_| ())
}

fn filters(labels: &[String]) -> HashMap<String, Vec<String>> {
    HashMap::from([("label".to_owned(), labels.to_vec())])
}

impl Engine {
    /// Connects, agrees on an API version and refuses an engine that is too old.
    ///
    /// # Errors
    /// When the engine does not answer, is not permitted, or is too old.
    pub async fn connect(endpoint: Endpoint) -> Result<Self, EngineError> {
        const SECONDS: u64 = 600;
        reach(&endpoint).await?;
        let (address, version) = (endpoint.to_string(), bollard::API_DEFAULT_VERSION);
        let docker = match &endpoint {
            Endpoint::Unix(_) => Docker::connect_with_unix(&address, SECONDS, version),
            Endpoint::Tcp(_) => Docker::connect_with_http(&address, SECONDS, version),
        };
        let docker = docker.map_err(|error| failed("connect", error))?;
        // The one question that is answered in any version of the API says which version the engine has.
        let docker = limited("tell its version", CALL_LIMIT, docker.negotiate_version()).await?;
        let version = limited("tell its version", CALL_LIMIT, docker.version()).await?;
        let spoken = docker.client_version();
        let api_version = format!("{}.{}", spoken.major_version, spoken.minor_version);
        let engine_version = version.version.unwrap_or_default();
        let minimum =
            MINIMUM_API.split_once('.').and_then(|(_, minor)| minor.parse::<usize>().ok()).unwrap_or_default();
        if spoken.major_version < 1 || (spoken.major_version == 1 && spoken.minor_version < minimum) {
            return Err(EngineError::TooOld { version: engine_version, api: api_version, minimum: MINIMUM_API });
        }
        let components = version.components.unwrap_or_default();
        let runc = components.into_iter().find(|component| component.name == "runc").map(|component| component.version);
        let info = EngineInfo {
            version: engine_version,
            api_version,
            architecture: version.arch.unwrap_or_default(),
            runc_version: runc,
            endpoint: address,
        };
        Ok(Self { docker, endpoint, info })
    }

    /// What the engine says of itself.
    pub fn info(&self) -> &EngineInfo {
        &self.info
    }

    /// What the engine says of its machine.
    ///
    /// # Errors
    /// When the engine does not answer.
    pub async fn system(&self) -> Result<EngineSystem, EngineError> {
        let info = limited("describe itself", CALL_LIMIT, self.docker.info()).await?;
        let options = info.security_options.unwrap_or_default();
        let status = info.driver_status.unwrap_or_default();
        Ok(EngineSystem {
            containerd_store: status.iter().flatten().any(|text| text.starts_with("io.containerd.snapshotter")),
            storage_driver: info.driver.unwrap_or_default(),
            rootless: options.iter().any(|option| option == "name=rootless"),
            cgroup_version: info.cgroup_version.map(|version| version.to_string()).unwrap_or_default(),
            security_options: options,
            warnings: info.warnings.unwrap_or_default(),
        })
    }

    /// Creates a container and makes sure that it is what was asked for. Gives its id.
    ///
    /// # Errors
    /// When the name is taken, the image is absent or declares volumes, or the engine made something else; then the
    /// container is removed again.
    pub async fn create_container(&self, spec: &ContainerSpec) -> Result<String, EngineError> {
        let image = self
            .image(&spec.image)
            .await?
            .ok_or_else(|| EngineError::NotFound { kind: "image", name: spec.image.clone() })?;
        let covered = |path: &String| {
            spec.mounts.iter().any(|mount| mount.target == *path)
                || spec.tmpfs.iter().any(|tmpfs| tmpfs.target == *path)
        };
        if let Some(path) = image.volumes.into_iter().find(|path| !covered(path)) {
            return Err(EngineError::ImageVolume { image: spec.image.clone(), path });
        }
        let mut spec = spec.clone();
        spec.image = image.id;
        let body = translate::create_body(&spec, &image.environment);
        let options = query::CreateContainerOptionsBuilder::default().name(&spec.name).build();
        let created =
            limited("create a container", CALL_LIMIT, self.docker.create_container(Some(options), body)).await;
        let created = created.map_err(|error| match error {
            EngineError::Refused { status: 409, .. } => EngineError::NameTaken { name: spec.name.clone() },
            other => other,
        })?;
        let checked = match self.verify_container(&created.id, &spec).await {
            Ok(differences) if !differences.is_empty() => {
                Err(EngineError::Differs { name: spec.name.clone(), differences })
            }
            Ok(_) if !created.warnings.is_empty() => {
                Err(EngineError::Warnings { name: spec.name.clone(), warnings: created.warnings.clone() })
            }
            Ok(_) => Ok(created.id.clone()),
            Err(error) => Err(error),
        };
        if checked.is_err() {
            self.remove_container(&created.id).await?;
        }
        checked
    }

    /// Starts a container.
    ///
    /// # Errors
    /// When the engine refuses.
    pub async fn start_container(&self, id: &str) -> Result<(), EngineError> {
        let options = None::<query::StartContainerOptions>;
        limited("start a container", CALL_LIMIT, self.docker.start_container(id, options)).await
    }

    /// Asks a container's program to end, and kills it after `grace`.
    ///
    /// # Errors
    /// When the engine refuses, or there is no such container.
    pub async fn stop_container(&self, id: &str, grace: Duration) -> Result<(), EngineError> {
        let seconds = i32::try_from(grace.as_secs()).unwrap_or(i32::MAX);
        let options = query::StopContainerOptionsBuilder::default().t(seconds).build();
        let result =
            limited("stop a container", CALL_LIMIT + grace, self.docker.stop_container(id, Some(options))).await;
        match result {
            Err(EngineError::Refused { status: 404, .. }) => {
                Err(EngineError::NotFound { kind: "container", name: id.to_owned() })
            }
            // 304 says that it does not run any more.
            Err(EngineError::Refused { status: 304, .. }) => Ok(()),
            other => other,
        }
    }

    /// Sends a signal to a container's program. One that does not run needs none.
    ///
    /// # Errors
    /// When the engine refuses.
    pub async fn kill_container(&self, id: &str, signal: &str) -> Result<(), EngineError> {
        let options = query::KillContainerOptionsBuilder::default().signal(signal).build();
        match limited("kill a container", CALL_LIMIT, self.docker.kill_container(id, Some(options))).await {
            Err(EngineError::Refused { status: 404 | 409, .. }) => Ok(()),
            other => other,
        }
    }

    /// Removes a container, running or not, with its anonymous volumes. An absent one is as good.
    ///
    /// # Errors
    /// When the engine refuses.
    pub async fn remove_container(&self, id: &str) -> Result<(), EngineError> {
        let options = query::RemoveContainerOptionsBuilder::default().force(true).v(true).build();
        match limited("remove a container", CALL_LIMIT, self.docker.remove_container(id, Some(options))).await {
            // 409 says that somebody else is removing it right now.
            Err(EngineError::Refused { status: 409, .. }) => Ok(()),
            other => gone(other),
        }
    }

    async fn inspect(&self, name: &str) -> Result<Option<ContainerInspectResponse>, EngineError> {
        let options = None::<query::InspectContainerOptions>;
        absent(limited("inspect a container", CALL_LIMIT, self.docker.inspect_container(name, options)).await)
    }

    /// How a container is; none when there is none.
    ///
    /// # Errors
    /// When the engine refuses.
    pub async fn inspect_container(&self, name: &str) -> Result<Option<ContainerState>, EngineError> {
        let Some(found) = self.inspect(name).await? else { return Ok(None) };
        let state = found.state.unwrap_or_default();
        let ended = state.running == Some(false);
        Ok(Some(ContainerState {
            id: found.id.unwrap_or_default(),
            name: found.name.unwrap_or_default().trim_start_matches('/').to_owned(),
            image: found.image.unwrap_or_default(),
            labels: found.config.and_then(|config| config.labels).unwrap_or_default().into_iter().collect(),
            status: match state.status {
                Some(ContainerStateStatusEnum::CREATED) => ContainerStatus::Created,
                Some(ContainerStateStatusEnum::RUNNING) => ContainerStatus::Running,
                Some(ContainerStateStatusEnum::PAUSED) => ContainerStatus::Paused,
                Some(ContainerStateStatusEnum::RESTARTING) => ContainerStatus::Restarting,
                Some(ContainerStateStatusEnum::REMOVING) => ContainerStatus::Removing,
                Some(ContainerStateStatusEnum::EXITED) => ContainerStatus::Exited,
                Some(ContainerStateStatusEnum::DEAD) => ContainerStatus::Dead,
                _ => ContainerStatus::Unknown,
            },
            exit_code: state.exit_code.filter(|_| ended),
            oom_killed: ended && state.oom_killed == Some(true),
        }))
    }

    /// What a container has that differs from what the specification demands.
    ///
    /// # Errors
    /// When the engine refuses or there is no such container.
    pub async fn verify_container(&self, id: &str, spec: &ContainerSpec) -> Result<Vec<String>, EngineError> {
        match self.inspect(id).await? {
            Some(found) => Ok(translate::differences(spec, &found)),
            None => Err(EngineError::NotFound { kind: "container", name: id.to_owned() }),
        }
    }

    /// All containers with these labels (`NAME` or `NAME=value`), running or not.
    ///
    /// # Errors
    /// When the engine refuses.
    pub async fn containers(&self, labels: &[String]) -> Result<Vec<ContainerState>, EngineError> {
        let options = query::ListContainersOptionsBuilder::default().all(true).filters(&filters(labels)).build();
        let list = limited("list containers", CALL_LIMIT, self.docker.list_containers(Some(options))).await?;
        let ids = list.into_iter().filter_map(|summary| summary.id);
        let inspected = futures_util::future::join_all(ids.map(|id| async move { self.inspect_container(&id).await }));
        // One that vanished between list and inspect is gone.
        inspected.await.into_iter().filter_map(Result::transpose).collect()
    }

    /// Creates a volume; one that exists with that name is taken as it is.
    ///
    /// # Errors
    /// When the engine refuses.
    pub async fn create_volume(&self, spec: &VolumeSpec) -> Result<(), EngineError> {
        let body = translate::volume_body(spec);
        limited("create a volume", CALL_LIMIT, self.docker.create_volume(body)).await.map(|_| ())
    }

    /// Removes a volume. An absent one is as good.
    ///
    /// # Errors
    /// When the engine refuses, as it does while a container has it.
    pub async fn remove_volume(&self, name: &str) -> Result<(), EngineError> {
        let options = query::RemoveVolumeOptionsBuilder::default().force(true).build();
        gone(limited("remove a volume", CALL_LIMIT, self.docker.remove_volume(name, Some(options))).await)
    }

    /// All volumes with these labels.
    ///
    /// # Errors
    /// When the engine refuses.
    pub async fn volumes(&self, labels: &[String]) -> Result<Vec<VolumeSummary>, EngineError> {
        let options = query::ListVolumesOptionsBuilder::default().filters(&filters(labels)).build();
        let list = limited("list volumes", CALL_LIMIT, self.docker.list_volumes(Some(options))).await?;
        Ok(list.volumes.unwrap_or_default().into_iter().map(volume_summary).collect())
    }

    /// One volume; none when there is none.
    ///
    /// # Errors
    /// When the engine refuses.
    pub async fn inspect_volume(&self, name: &str) -> Result<Option<VolumeSummary>, EngineError> {
        let found = absent(limited("inspect a volume", CALL_LIMIT, self.docker.inspect_volume(name)).await)?;
        Ok(found.map(volume_summary))
    }

    /// Makes sure that a bridge network of this name exists.
    ///
    /// # Errors
    /// When the engine refuses.
    pub async fn ensure_network(&self, name: &str, labels: &BTreeMap<String, String>) -> Result<(), EngineError> {
        let options = None::<query::InspectNetworkOptions>;
        let found = limited("inspect a network", CALL_LIMIT, self.docker.inspect_network(name, options)).await;
        if absent(found)?.is_some() {
            return Ok(());
        }
        let request = NetworkCreateRequest {
            name: name.to_owned(),
            driver: Some("bridge".to_owned()),
            // Gateways of different sandboxes share this network and have nothing to say to each other.
            options: Some(HashMap::from([("com.docker.network.bridge.enable_icc".to_owned(), "false".to_owned())])),
            labels: Some(labels.clone().into_iter().collect()),
            ..NetworkCreateRequest::default()
        };
        match limited("create a network", CALL_LIMIT, self.docker.create_network(request)).await {
            Ok(_) | Err(EngineError::Refused { status: 409, .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// The engine's own address in a bridge network.
    ///
    /// # Errors
    /// When the engine refuses.
    pub async fn network_gateway(&self, name: &str) -> Result<Option<std::net::IpAddr>, EngineError> {
        let options = None::<query::InspectNetworkOptions>;
        let found = limited("inspect a network", CALL_LIMIT, self.docker.inspect_network(name, options)).await?;
        let configs = found.ipam.and_then(|ipam| ipam.config).unwrap_or_default();
        Ok(configs.into_iter().find_map(|config| config.gateway?.parse().ok()))
    }

    /// Loads an image archive.
    ///
    /// # Errors
    /// When the engine refuses the archive.
    pub async fn load_image(&self, archive: impl AsyncRead + Send + Unpin + 'static) -> Result<(), EngineError> {
        const CALL: &str = "load an image";
        let body = tokio_util::io::ReaderStream::with_capacity(archive, 256 << 10);
        let body = body.filter_map(|piece| async { piece.ok() });
        let options = query::ImportImageOptionsBuilder::default().quiet(true).build();
        let load = async {
            let answers =
                self.docker.import_image(options, bollard::body_try_stream(body.map(Ok::<_, std::io::Error>)), None);
            answers.try_for_each(|_| async { Ok(()) }).await
        };
        limited(CALL, LOAD_LIMIT, load).await
    }

    /// An image by id or reference; none when the engine lacks it.
    ///
    /// # Errors
    /// When the engine refuses.
    pub async fn image(&self, reference: &str) -> Result<Option<ImageSummary>, EngineError> {
        let found = absent(limited("inspect an image", CALL_LIMIT, self.docker.inspect_image(reference)).await)?;
        Ok(found.map(|image| {
            let config = image.config.unwrap_or_default();
            ImageSummary {
                id: image.id.unwrap_or_default(),
                size: image.size.and_then(|size| u64::try_from(size).ok()).unwrap_or_default(),
                labels: config.labels.unwrap_or_default().into_iter().collect(),
                environment: config.env.unwrap_or_default(),
                volumes: config.volumes.unwrap_or_default(),
            }
        }))
    }

    /// Removes an image. An absent one is as good.
    ///
    /// # Errors
    /// When the engine refuses.
    pub async fn remove_image(&self, id: &str) -> Result<(), EngineError> {
        let options = None::<query::RemoveImageOptions>;
        let removal = self.docker.remove_image(id, options, None);
        gone(limited("remove an image", CALL_LIMIT, removal).await.map(|_| ()))
    }

    /// Starts a program in a running container, with its streams.
    ///
    /// # Errors
    /// When the engine refuses.
    pub async fn exec(&self, container: &str, spec: &ExecSpec) -> Result<AttachedStream, EngineError> {
        let config = bollard::exec::CreateExecOptions {
            attach_stdin: Some(spec.stdin),
            attach_stdout: Some(true),
            attach_stderr: Some(true),
            tty: Some(false),
            env: Some(spec.environment.iter().map(|(name, value)| format!("{name}={value}")).collect()),
            cmd: Some(spec.command.clone()),
            user: Some(format!("{}:{}", spec.user.uid, spec.user.gid)),
            working_dir: Some(spec.working_directory.clone()),
            privileged: Some(false),
            ..bollard::exec::CreateExecOptions::<String>::default()
        };
        let created = limited("prepare a command", CALL_LIMIT, self.docker.create_exec(container, config)).await?;
        let path = format!("/v{}/exec/{}/start", self.info.api_version, created.id);
        let body = br#"{"Detach":false,"Tty":false}"#.to_vec();
        stream::hijack(&self.endpoint, "start a command", &path, body, Some(created.id)).await
    }

    /// How an exec ended; none while it runs.
    ///
    /// # Errors
    /// When the engine refuses.
    pub async fn exec_exit_code(&self, exec_id: &str) -> Result<Option<i64>, EngineError> {
        let found = limited("inspect a command", CALL_LIMIT, self.docker.inspect_exec(exec_id)).await?;
        Ok(found.exit_code.filter(|_| found.running == Some(false)))
    }

    /// Attaches to a container's streams from now on; also before it starts.
    ///
    /// # Errors
    /// When the engine refuses.
    pub async fn attach(&self, container: &str) -> Result<AttachedStream, EngineError> {
        let container: String = container.chars().filter(|c| c.is_ascii_alphanumeric() || "-._".contains(*c)).collect();
        let path =
            format!("/v{}/containers/{container}/attach?stream=1&stdin=1&stdout=1&stderr=1", self.info.api_version);
        stream::hijack(&self.endpoint, "attach to a container", &path, Vec::new(), None).await
    }

    /// The container's log: what its first process printed.
    pub fn logs(
        &self,
        container: &str,
        follow: bool,
        tail: Option<u64>,
    ) -> impl Stream<Item = Result<Chunk, EngineError>> + use<> {
        let tail = tail.map_or_else(|| "all".to_owned(), |lines| lines.to_string());
        let options = query::LogsOptionsBuilder::default().follow(follow).stdout(true).stderr(true).tail(&tail).build();
        let docker = self.docker.clone();
        let log = docker.logs(container, Some(options));
        log.map(|piece| match piece {
            Ok(bollard::container::LogOutput::StdErr { message }) => Ok(Chunk::Err(message)),
            Ok(other) => Ok(Chunk::Out(other.into_bytes())),
            Err(error) => Err(failed("read a log", error)),
        })
    }

    /// What happens to the containers with these labels, from now on.
    pub fn events(&self, labels: &[String]) -> impl Stream<Item = Result<EngineEvent, EngineError>> + use<> {
        let mut filters = filters(labels);
        filters.insert("type".to_owned(), vec!["container".to_owned()]);
        let options = query::EventsOptionsBuilder::default().filters(&filters).build();
        self.docker.clone().events(Some(options)).map(|event| {
            let event = event.map_err(|error| failed("watch for events", error))?;
            let attributes = event.actor.and_then(|actor| actor.attributes).unwrap_or_default();
            Ok(EngineEvent {
                container: attributes.get("name").cloned().unwrap_or_default(),
                action: event.action.unwrap_or_default(),
            })
        })
    }
}

fn volume_summary(volume: bollard::models::Volume) -> VolumeSummary {
    VolumeSummary {
        name: volume.name,
        labels: volume.labels.into_iter().collect(),
        options: volume.options.into_iter().collect(),
    }
}

/// Opens the socket once, to tell "no engine" from "not permitted" before a library turns both into the same error.
async fn reach(endpoint: &Endpoint) -> Result<(), EngineError> {
    let opened = match endpoint {
        Endpoint::Unix(path) => tokio::net::UnixStream::connect(path).await.map(|_| ()),
        Endpoint::Tcp(address) => {
            let connect = tokio::net::TcpStream::connect(address);
            match tokio::time::timeout(Duration::from_secs(5), connect).await {
                Ok(connected) => connected.map(|_| ()),
                Err(_) => Err(std::io::ErrorKind::TimedOut.into()),
            }
        }
    };
    opened.map_err(|source| match source.kind() {
        std::io::ErrorKind::PermissionDenied => EngineError::NotPermitted { endpoint: endpoint.to_string() },
        _ => EngineError::NotAnswering { endpoint: endpoint.to_string(), source },
    })
}
