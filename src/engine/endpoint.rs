//! Where the engine is, by the rules of the Docker command line.
//!
//! Reads files of its configuration and nothing else: the environment comes in as a value, and nothing is connected to.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};

use super::error::{EndpointProblem, EngineError};

/// The largest configuration file that is read, in bytes.
const FILE_LIMIT: u64 = 1 << 20;

/// The port of an engine on plain TCP when the address names none.
const DEFAULT_PORT: u16 = 2375;

/// What the environment of the launcher says about the engine.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EngineEnvironment {
    /// `DOCKER_HOST`.
    pub docker_host: Option<String>,
    /// `DOCKER_CONTEXT`.
    pub docker_context: Option<String>,
    /// `DOCKER_CONFIG`: the folder in place of `~/.docker`.
    pub docker_config: Option<PathBuf>,
    /// Whether `DOCKER_TLS_VERIFY` is set to anything, as the Docker command line reads it.
    pub docker_tls_verify: bool,
    /// `XDG_RUNTIME_DIR`.
    pub xdg_runtime_dir: Option<PathBuf>,
    /// The user's home.
    pub home: PathBuf,
}

/// The address of an engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Endpoint {
    /// A unix socket.
    Unix(PathBuf),
    /// Plain TCP, as `host:port`.
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

/// Finds the engine: `explicit`, then `DOCKER_HOST`, then `DOCKER_CONTEXT` or the current Docker context, then the usual
/// sockets of a system-wide, a rootless and a desktop engine.
///
/// # Errors
///
/// When an address is not one, or the context that is asked for cannot be read. That nothing answers is found out later.
pub fn discover(explicit: Option<&str>, environment: &EngineEnvironment) -> Result<Endpoint, EngineError> {
    if let Some(address) = explicit {
        return parse(address);
    }
    if let Some(address) = environment.docker_host.as_deref().filter(|address| !address.is_empty()) {
        let endpoint = parse(address)?;
        if environment.docker_tls_verify && matches!(endpoint, Endpoint::Tcp(_)) {
            return Err(invalid(address, EndpointProblem::Tls));
        }
        return Ok(endpoint);
    }
    let folder = environment.docker_config.clone().unwrap_or_else(|| environment.home.join(".docker"));
    let context = match environment.docker_context.clone().filter(|name| !name.is_empty()) {
        Some(name) => Some(name),
        None => current_context(&folder)?,
    };
    match context {
        Some(name) if name != "default" => read_context(&folder, &name),
        _ => Ok(Endpoint::Unix(usual_socket(&usual_sockets(environment)))),
    }
}

/// Reads an address as Docker writes them.
fn parse(address: &str) -> Result<Endpoint, EngineError> {
    if address.starts_with('/') {
        return Ok(Endpoint::Unix(PathBuf::from(address)));
    }
    let Some((scheme, rest)) = address.split_once("://") else {
        return Err(invalid(address, EndpointProblem::Syntax));
    };
    match scheme {
        "unix" if rest.starts_with('/') => Ok(Endpoint::Unix(PathBuf::from(rest))),
        "unix" => Err(invalid(address, EndpointProblem::RelativePath)),
        "tcp" | "http" => parse_tcp(address, rest),
        "ssh" => Err(invalid(address, EndpointProblem::Ssh)),
        "https" => Err(invalid(address, EndpointProblem::Tls)),
        _ => Err(invalid(address, EndpointProblem::Scheme)),
    }
}

/// Reads `host`, `host:port` or `[v6]:port`.
fn parse_tcp(address: &str, rest: &str) -> Result<Endpoint, EngineError> {
    let wrong = || invalid(address, EndpointProblem::Syntax);
    let authority = rest.strip_suffix('/').unwrap_or(rest);
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, port.parse::<u16>().map_err(|_| wrong())?),
        _ => (authority, DEFAULT_PORT),
    };
    let bracketed = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let fits = match bracketed {
        Some(inner) => inner.parse::<std::net::Ipv6Addr>().is_ok(),
        None => {
            !host.is_empty()
                && host.len() <= 253
                && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_'))
        }
    };
    if !fits || port == 0 {
        return Err(wrong());
    }
    Ok(Endpoint::Tcp(format!("{host}:{port}")))
}

fn invalid(address: &str, source: EndpointProblem) -> EngineError {
    EngineError::EndpointInvalid { address: address.chars().take(300).collect(), source }
}

/// `config.json` of the Docker command line, as far as it matters here.
#[derive(Deserialize)]
struct Configuration {
    #[serde(rename = "currentContext", default)]
    current_context: String,
}

/// `meta.json` of a Docker context.
#[derive(Deserialize)]
struct ContextMetadata {
    #[serde(rename = "Endpoints", default)]
    endpoints: ContextEndpoints,
}

#[derive(Deserialize, Default)]
struct ContextEndpoints {
    docker: Option<ContextEndpoint>,
}

#[derive(Deserialize)]
struct ContextEndpoint {
    #[serde(rename = "Host", default)]
    host: String,
}

fn current_context(folder: &Path) -> Result<Option<String>, EngineError> {
    let configuration: Option<Configuration> = read_json(&folder.join("config.json"))?;
    Ok(configuration.map(|configuration| configuration.current_context).filter(|name| !name.is_empty()))
}

/// Reads `contexts/meta/SHA256(name)/meta.json`; the digest also keeps a name from being a path.
fn read_context(folder: &Path, name: &str) -> Result<Endpoint, EngineError> {
    let identifier = hex::encode(Sha256::digest(name.as_bytes()));
    let metadata: Option<ContextMetadata> =
        read_json(&folder.join("contexts/meta").join(&identifier).join("meta.json"))?;
    let host = metadata.and_then(|metadata| metadata.endpoints.docker).map(|endpoint| endpoint.host);
    let Some(host) = host.filter(|host| !host.is_empty()) else {
        return Err(EngineError::ContextMissing { name: name.chars().take(100).collect() });
    };
    let endpoint = parse(&host)?;
    // Key material beside a context means that its engine is to be authenticated.
    if matches!(endpoint, Endpoint::Tcp(_)) && folder.join("contexts/tls").join(&identifier).exists() {
        return Err(invalid(&host, EndpointProblem::Tls));
    }
    Ok(endpoint)
}

/// Reads a bounded JSON file; an absent one is no error.
fn read_json<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, EngineError> {
    let unreadable = |source| EngineError::ConfigurationUnreadable { path: path.to_owned(), source };
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(None);
        }
        Err(error) => return Err(unreadable(error)),
    };
    let mut text = Vec::new();
    file.take(FILE_LIMIT + 1).read_to_end(&mut text).map_err(unreadable)?;
    if text.len() as u64 > FILE_LIMIT {
        return Err(unreadable(io::ErrorKind::FileTooLarge.into()));
    }
    serde_json::from_slice(&text)
        .map(Some)
        .map_err(|source| EngineError::ConfigurationInvalid { path: path.to_owned(), source })
}

/// The sockets of a system-wide, a rootless and a desktop engine, in this order.
fn usual_sockets(environment: &EngineEnvironment) -> Vec<PathBuf> {
    let mut sockets = vec![PathBuf::from("/var/run/docker.sock")];
    sockets.extend(environment.xdg_runtime_dir.as_ref().map(|folder| folder.join("docker.sock")));
    sockets.push(environment.home.join(".docker/run/docker.sock"));
    sockets
}

/// The first socket that this user may open; else the first that is there; else the first.
///
/// Somebody outside the `docker` group who runs a rootless engine beside a system-wide one means the rootless one.
fn usual_socket(sockets: &[PathBuf]) -> PathBuf {
    let usable = |path: &&PathBuf| rustix::fs::access(path.as_path(), rustix::fs::Access::WRITE_OK).is_ok();
    sockets
        .iter()
        .find(usable)
        .or_else(|| sockets.iter().find(|path| path.exists()))
        .or_else(|| sockets.first())
        .cloned()
        .unwrap_or_default()
}

#[cfg(test)]
mod tests;
