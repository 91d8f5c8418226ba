//! Where the engine is: `--engine`, DOCKER_HOST, the current Docker context, or the usual sockets.

use std::fmt;
use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

use super::error::EngineError;

/// The largest file of a Docker context that is read, in bytes.
const LIMIT: u64 = 1 << 20;

/// What the environment says of the engine. Filled by `commands`, which alone reads the environment.
#[derive(Debug, Clone, Default)]
pub struct EngineEnvironment {
    /// `DOCKER_HOST`.
    pub docker_host: Option<String>,
    /// `DOCKER_CONTEXT`.
    pub docker_context: Option<String>,
    /// `DOCKER_CONFIG`.
    pub docker_config: Option<PathBuf>,
    /// `XDG_RUNTIME_DIR`, where a rootless engine has its socket.
    pub xdg_runtime_dir: Option<PathBuf>,
    /// The user's home.
    pub home: PathBuf,
}

/// The engine's address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Endpoint {
    /// A unix socket.
    Unix(PathBuf),
    /// Host and port, without TLS.
    Tcp(String),
}

impl fmt::Display for Endpoint {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(formatter, "unix://{}", path.display()),
            Self::Tcp(address) => write!(formatter, "tcp://{address}"),
        }
    }
}

/// Finds the engine's address.
///
/// # Errors
/// When an address is given that cannot be used, or none is given and no usual socket exists.
pub fn discover(explicit: Option<&str>, environment: &EngineEnvironment) -> Result<Endpoint, EngineError> {
    if let Some(address) = explicit.or(environment.docker_host.as_deref().filter(|host| !host.is_empty())) {
        return parse(address);
    }
    let config = environment.docker_config.clone().unwrap_or_else(|| environment.home.join(".docker"));
    let context =
        environment.docker_context.clone().filter(|name| !name.is_empty()).or_else(|| current_context(&config));
    if let Some(name) = context.filter(|name| name != "default") {
        return of_context(&config, &name);
    }
    let runtime = environment.xdg_runtime_dir.iter().map(|folder| folder.join("docker.sock"));
    let places: Vec<PathBuf> = std::iter::once(PathBuf::from("/var/run/docker.sock"))
        .chain(runtime)
        .chain([environment.home.join(".docker/run/docker.sock"), environment.home.join(".docker/desktop/docker.sock")])
        .collect();
    match places.iter().find(|path| path.exists()) {
        Some(path) => Ok(Endpoint::Unix(path.clone())),
        None => Err(EngineError::NoEngine {
            tried: places.iter().map(|path| format!("unix://{}", path.display())).collect(),
        }),
    }
}

fn parse(address: &str) -> Result<Endpoint, EngineError> {
    let wrong = || EngineError::Address { address: address.chars().take(200).collect() };
    if let Some(path) = address.strip_prefix("unix://") {
        return if path.starts_with('/') { Ok(Endpoint::Unix(PathBuf::from(path))) } else { Err(wrong()) };
    }
    let host = address.strip_prefix("tcp://").or_else(|| address.strip_prefix("http://")).ok_or_else(wrong)?;
    let host = host.trim_end_matches('/');
    let port = host.rsplit_once(':').and_then(|(name, port)| (!name.is_empty()).then_some(port));
    match port.and_then(|port| port.parse::<u16>().ok()) {
        Some(_) => Ok(Endpoint::Tcp(host.to_owned())),
        None => Err(wrong()),
    }
}

fn read_json(path: &Path) -> std::io::Result<serde_json::Value> {
    let mut text = Vec::new();
    fs::File::open(path)?.take(LIMIT).read_to_end(&mut text)?;
    Ok(serde_json::from_slice(&text)?)
}

fn current_context(config: &Path) -> Option<String> {
    read_json(&config.join("config.json")).ok()?.get("currentContext")?.as_str().map(str::to_owned)
}

/// The address of a Docker context, which the client keeps in `contexts/meta/SHA256(name)/meta.json`.
fn of_context(config: &Path, name: &str) -> Result<Endpoint, EngineError> {
    let failed = |source| EngineError::Context { name: name.chars().take(100).collect(), source };
    let folder = hex::encode(Sha256::digest(name.as_bytes()));
    let meta = read_json(&config.join("contexts/meta").join(folder).join("meta.json")).map_err(failed)?;
    let host = meta.pointer("/Endpoints/docker/Host").and_then(|host| host.as_str());
    parse(host.ok_or_else(|| failed(std::io::Error::other("it names no Docker endpoint")))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(home: &Path) -> EngineEnvironment {
        EngineEnvironment { home: home.to_path_buf(), ..EngineEnvironment::default() }
    }

    #[test]
    fn the_option_wins_over_docker_host() {
        let home = tempfile::tempdir().unwrap();
        let mut environment = environment(home.path());
        environment.docker_host = Some("tcp://127.0.0.1:2375".to_owned());
        assert_eq!(discover(None, &environment).unwrap(), Endpoint::Tcp("127.0.0.1:2375".to_owned()));
        assert_eq!(
            discover(Some("unix:///run/other.sock"), &environment).unwrap(),
            Endpoint::Unix(PathBuf::from("/run/other.sock"))
        );
    }

    #[test]
    fn reads_the_current_context() {
        let home = tempfile::tempdir().unwrap();
        let config = home.path().join(".docker");
        let folder = config.join("contexts/meta").join(hex::encode(Sha256::digest(b"colima")));
        fs::create_dir_all(&folder).unwrap();
        fs::write(config.join("config.json"), r#"{"currentContext":"colima"}"#).unwrap();
        fs::write(
            folder.join("meta.json"),
            r#"{"Name":"colima","Endpoints":{"docker":{"Host":"unix:///run/colima.sock"}}}"#,
        )
        .unwrap();
        let found = discover(None, &environment(home.path())).unwrap();
        assert_eq!(found, Endpoint::Unix(PathBuf::from("/run/colima.sock")));
        fs::remove_file(folder.join("meta.json")).unwrap();
        assert!(matches!(discover(None, &environment(home.path())), Err(EngineError::Context { .. })));
    }

    #[test]
    fn finds_a_rootless_socket() {
        let home = tempfile::tempdir().unwrap();
        fs::write(home.path().join("docker.sock"), "").unwrap();
        let mut environment = environment(home.path());
        environment.xdg_runtime_dir = Some(home.path().to_path_buf());
        // A system-wide engine comes first where one is installed.
        let expected = if Path::new("/var/run/docker.sock").exists() {
            PathBuf::from("/var/run/docker.sock")
        } else {
            home.path().join("docker.sock")
        };
        assert_eq!(discover(None, &environment).unwrap(), Endpoint::Unix(expected));
    }

    #[test]
    fn refuses_addresses_of_other_kinds() {
        let environment = environment(Path::new("/nonexistent"));
        for address in ["ssh://me@host", "unix://relative", "tcp://host", "npipe:////./pipe/docker", "", "tcp://:1"] {
            assert!(matches!(discover(Some(address), &environment), Err(EngineError::Address { .. })), "{address}");
        }
    }
}
