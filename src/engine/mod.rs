//! The one module that talks to Docker: containers, volumes, networks, images, exec and attach streams.
//!
//! What a container may ask for is a [`container::ContainerSpec`], which has no field for a host path, a capability, a
//! privilege or a host namespace; `translate` adds the hardening, `verify` compares what the engine made of it. Every
//! call has a time limit. The archive calls (`docker cp`) are never used: files travel on streams, see [`stream`].

mod build;
mod buildkit;
mod containers;
mod error;
mod event;
mod exec;
mod image;
mod network;
mod translate;
mod transport;
mod verify;
mod volume;

pub mod container;
pub mod endpoint;
pub mod stream;

use std::collections::HashMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bollard::{API_DEFAULT_VERSION, BollardRequest, ClientVersion, Docker};
use serde::{Deserialize, Serialize};

pub use build::{Build, BuildSpec, Builder};
pub use containers::{ContainerState, ContainerStatus, ContainerUsage};
pub use endpoint::{Endpoint, EngineEnvironment, discover};
pub use error::{EndpointProblem, EngineError, Kind, Refusal};
pub use event::EngineEvent;
pub use exec::ExecSpec;
pub use image::ImageSummary;
pub use stream::{AttachedStream, Chunk, StreamInput, StreamOutput};
pub use volume::VolumeSummary;

use transport::Address;

/// The oldest API that has all that is needed; Docker Engine 20.10 speaks it.
pub const MINIMUM_API: &str = "1.41";
const MINIMUM: ApiVersion = ApiVersion(1, 41);

/// How long an ordinary call may take. Generous: an engine on a busy machine takes seconds to start a container.
const CALL_LIMIT: Duration = Duration::from_secs(120);
/// How long an image may take to load.
const LOAD_LIMIT: Duration = Duration::from_secs(30 * 60);
/// How long the steps of a Dockerfile may take.
const BUILD_LIMIT: Duration = Duration::from_secs(50 * 60);
/// The client library's own limit, above all of ours, which are the ones that count.
const CLIENT_LIMIT: Duration = Duration::from_secs(60 * 60);

/// What an engine says of itself at once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct EngineInfo {
    /// Version, such as `20.10.24`.
    pub version: String,
    /// The API version that is spoken with it.
    pub api_version: String,
    /// Its machine's architecture, in Go's words (`amd64`).
    pub architecture: String,
    /// Version of runc, when the engine tells.
    pub runc_version: Option<String>,
    /// Where it was found.
    pub endpoint: String,
}

/// What an engine says of its machine and settings.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct EngineSystem {
    /// Its own id.
    pub id: String,
    /// Storage driver, such as `overlay2`.
    pub storage_driver: String,
    /// Whether images are kept by containerd, where an image's id is the digest of its manifest.
    pub containerd_store: bool,
    /// Whether it runs without root.
    pub rootless: bool,
    /// `1` or `2`.
    pub cgroup_version: String,
    /// Such as `name=seccomp,profile=default`.
    pub security_options: Vec<String>,
    /// Its machine's kernel.
    pub kernel_version: String,
    /// What it warns of, such as limits that its kernel lacks.
    pub warnings: Vec<String>,
}

/// A connected engine. Cheap to clone.
#[derive(Clone)]
pub struct Engine {
    inner: Arc<Inner>,
}

struct Inner {
    client: Docker,
    address: Address,
    api: ApiVersion,
    info: EngineInfo,
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Engine").field("info", &self.inner.info).finish_non_exhaustive()
    }
}

impl Engine {
    /// Connects and agrees on the newest API version that both sides speak.
    ///
    /// # Errors
    ///
    /// When nothing answers, the socket may not be opened, or there is no common API version from 1.41 on.
    pub async fn connect(endpoint: Endpoint) -> Result<Self, EngineError> {
        let address = transport::resolve(&endpoint).await?;
        transport::probe(&endpoint, &address).await?;
        let not_an_engine = |error| match error {
            EngineError::Api { .. } | EngineError::Transport { .. } => {
                EngineError::NotAnEngine { endpoint: endpoint.clone() }
            }
            other => other,
        };
        // Without a version in the path, which is how every engine can be asked.
        let version: VersionDocument =
            transport::get_json(&address, "ask the engine for its version", "/version").await.map_err(not_an_engine)?;
        let api = agree(&version)?;
        let client = client(&address, api)?;
        let info = describe(version, api, &endpoint);
        Ok(Self { inner: Arc::new(Inner { client, address, api, info }) })
    }

    /// What the engine said of itself when it was connected to.
    pub fn info(&self) -> &EngineInfo {
        &self.inner.info
    }

    /// Asks the engine about its machine and settings. Not done when connecting, since it takes an engine with many
    /// containers a while.
    pub async fn system(&self) -> Result<EngineSystem, EngineError> {
        let document: SystemDocument =
            transport::get_json(&self.inner.address, "ask the engine about itself", &self.path("/info")).await?;
        Ok(document.into())
    }

    fn client(&self) -> &Docker {
        &self.inner.client
    }

    /// The path of a request that does not go through the client library.
    fn path(&self, rest: &str) -> String {
        format!("/v{}{rest}", self.inner.api)
    }

    /// Makes a call within its limit.
    async fn call<T>(
        &self,
        call: &'static str,
        limit: Duration,
        request: impl Future<Output = Result<T, bollard::errors::Error>>,
    ) -> Result<T, EngineError> {
        transport::within(call, limit, request).await?.map_err(|error| EngineError::from_client(call, error))
    }
}

/// A version of the Engine API.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct ApiVersion(u32, u32);

impl std::fmt::Display for ApiVersion {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{}.{}", self.0, self.1)
    }
}

impl ApiVersion {
    fn parse(text: &str) -> Option<Self> {
        let (major, minor) = text.split_once('.')?;
        Some(Self(major.parse().ok()?, minor.parse().ok()?))
    }
}

/// `GET /version`, as far as it matters here.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct VersionDocument {
    version: String,
    api_version: String,
    #[serde(default)]
    arch: String,
    #[serde(rename = "MinAPIVersion", default)]
    min_api_version: String,
    #[serde(default)]
    components: Vec<ComponentDocument>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ComponentDocument {
    name: String,
    version: String,
}

/// `GET /info`, as far as it matters here.
#[derive(Deserialize, Default)]
#[serde(rename_all = "PascalCase", default)]
struct SystemDocument {
    #[serde(rename = "ID")]
    id: String,
    driver: String,
    driver_status: Option<Vec<Vec<String>>>,
    kernel_version: String,
    cgroup_version: String,
    security_options: Option<Vec<String>>,
    warnings: Option<Vec<String>>,
}

/// The newest API version that both sides speak.
fn agree(version: &VersionDocument) -> Result<ApiVersion, EngineError> {
    let newest = ApiVersion::parse(&version.api_version).unwrap_or(ApiVersion(0, 0));
    if newest < MINIMUM {
        return Err(EngineError::TooOld {
            version: version.version.clone(),
            api: version.api_version.clone(),
            minimum: MINIMUM_API,
        });
    }
    let ClientVersion { major_version, minor_version } = *API_DEFAULT_VERSION;
    let ours = ApiVersion(
        u32::try_from(major_version).unwrap_or(MINIMUM.0),
        u32::try_from(minor_version).unwrap_or(MINIMUM.1),
    );
    if ApiVersion::parse(&version.min_api_version).is_some_and(|oldest| oldest > ours) {
        return Err(EngineError::TooNew {
            version: version.version.clone(),
            api: version.min_api_version.clone(),
            maximum: ours.to_string(),
        });
    }
    Ok(newest.min(ours))
}

fn describe(version: VersionDocument, api: ApiVersion, endpoint: &Endpoint) -> EngineInfo {
    let runc = version.components.into_iter().find(|component| component.name == "runc");
    EngineInfo {
        version: version.version,
        api_version: api.to_string(),
        architecture: version.arch,
        runc_version: runc.map(|component| component.version),
        endpoint: endpoint.to_string(),
    }
}

impl From<SystemDocument> for EngineSystem {
    fn from(document: SystemDocument) -> Self {
        let security_options = document.security_options.unwrap_or_default();
        let containerd_store = document.driver_status.iter().flatten().any(|pair| {
            matches!(pair.as_slice(), [name, value] if name == "driver-type" && value.starts_with("io.containerd.snapshotter"))
        });
        Self {
            id: document.id,
            storage_driver: document.driver,
            containerd_store,
            rootless: security_options.iter().any(|option| option == "name=rootless"),
            // Engines that do not tell know version 1 only.
            cgroup_version: if document.cgroup_version.is_empty() { "1".into() } else { document.cgroup_version },
            security_options,
            kernel_version: document.kernel_version,
            warnings: document.warnings.unwrap_or_default(),
        }
    }
}

/// The client library, made to name the API version in every request: by itself it leaves the version out, and an engine
/// then answers in its newest.
fn client(address: &Address, api: ApiVersion) -> Result<Docker, EngineError> {
    let limit = CLIENT_LIMIT.as_secs();
    let client = match address {
        Address::Unix(path) => Docker::connect_with_unix(&path.to_string_lossy(), limit, API_DEFAULT_VERSION),
        Address::Tcp(address) => Docker::connect_with_http(&address.to_string(), limit, API_DEFAULT_VERSION),
    };
    let client = client.map_err(|error| EngineError::from_client("prepare the connection", error))?;
    Ok(client.with_request_modifier(move |request| with_version(request, api)))
}

fn with_version(mut request: BollardRequest, api: ApiVersion) -> BollardRequest {
    let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
    let mut parts = request.uri().clone().into_parts();
    // What was a path stays one with a prefix; should that ever fail, the engine answers in its newest version.
    if let Ok(prefixed) = format!("/v{api}{path}").parse() {
        parts.path_and_query = Some(prefixed);
        if let Ok(uri) = http::Uri::from_parts(parts) {
            *request.uri_mut() = uri;
        }
    }
    request
}

/// The filter for labels, `key=value` or `key`.
fn label_filter(labels: &[String]) -> Option<HashMap<String, Vec<String>>> {
    (!labels.is_empty()).then(|| HashMap::from([("label".to_owned(), labels.to_vec())]))
}

/// Refuses what the engine never takes as a name or id, so that it can stand in the path of a request.
fn check_name(kind: Kind, name: &str) -> Result<(), EngineError> {
    let known = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    let fits = name.len() <= 255
        && name.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric())
        && name.bytes().all(known);
    if fits { Ok(()) } else { Err(EngineError::NameInvalid { kind, name: name.chars().take(100).collect() }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(api: &str, minimum: &str) -> VersionDocument {
        VersionDocument {
            version: "1.2.3".into(),
            api_version: api.into(),
            arch: "amd64".into(),
            min_api_version: minimum.into(),
            components: Vec::new(),
        }
    }

    #[test]
    fn agrees_on_the_newest_version_that_both_speak() {
        assert_eq!(agree(&version("1.41", "1.12")).unwrap(), MINIMUM);
        assert!(agree(&version("1.999", "1.44")).unwrap() > MINIMUM);
        assert!(agree(&version("1.999", "1.44")).unwrap() < ApiVersion(1, 999));
    }

    #[test]
    fn refuses_an_engine_that_is_too_old_or_has_left_us_behind() {
        assert!(matches!(agree(&version("1.40", "1.12")), Err(EngineError::TooOld { minimum: "1.41", .. })));
        assert!(matches!(agree(&version("nonsense", "")), Err(EngineError::TooOld { .. })));
        assert!(matches!(agree(&version("1.999", "1.998")), Err(EngineError::TooNew { .. })));
    }

    #[test]
    fn a_version_compares_by_number_and_not_by_text() {
        assert!(ApiVersion::parse("1.9").unwrap() < ApiVersion::parse("1.41").unwrap());
    }

    #[test]
    fn a_name_cannot_leave_its_place_in_a_path() {
        for name in ["", "..", "a/b", "a?force=1", "a b", "-a", "a%2f", &"a".repeat(256)] {
            assert!(check_name(Kind::Container, name).is_err(), "{name}");
        }
        assert!(check_name(Kind::Container, "sandbox-demo.two-agent").is_ok());
    }

    #[test]
    fn the_description_tells_a_rootless_engine_with_the_containerd_store() {
        let system: SystemDocument = serde_json::from_str(
            r#"{"ID":"X","Driver":"overlayfs","DriverStatus":[["driver-type","io.containerd.snapshotter.v1"]],
                "CgroupVersion":"2","SecurityOptions":["name=seccomp,profile=builtin","name=rootless"],"Warnings":null}"#,
        )
        .unwrap();
        let system = EngineSystem::from(system);
        assert!(system.rootless && system.containerd_store);
        assert_eq!(system.cgroup_version, "2");
    }
}
