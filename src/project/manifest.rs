//! The manifest `sandbox.yaml`, resolved into typed values.
//!
//! The manifest comes from a repository that an agent can propose changes to, so it is untrusted: it has no field for a
//! host path to mount, a capability, a runtime flag or a network mode.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::credential::spec::CredentialSpec;
use crate::image::reference::{Digest, ImageChoice};
use crate::network::policy::Policy;
use crate::project::name::{CredentialName, ProjectName};
use crate::project::port::PortForward;
use crate::project::yaml;

mod aws;
pub(in crate::project) mod credential;
mod federation;
mod github;
pub(in crate::project) mod network;
mod oauth;
mod openai;
pub(in crate::project) mod resolve;
pub(in crate::project) mod vault;

pub use crate::project::problem::{ManifestError, Problem};

/// A manifest after every rule was checked.
#[derive(Debug, Clone)]
pub struct Manifest {
    /// The project's name.
    pub project: ProjectName,
    /// The folder that holds `sandbox.yaml`: the root of every path that the manifest names.
    pub root: PathBuf,
    /// The preset of the agent, when the manifest names one (`claude-code`, `codex`, …).
    pub agent: Option<String>,
    /// Whether a credential stands in the variable by which that agent takes its key.
    pub keyed: bool,
    /// The command that `up` runs when none is given on the command line; of the manifest or of the agent's preset.
    pub command: Vec<String>,
    /// The image: a definition in `images/` or a reference with a digest.
    pub image: ImageChoice,
    /// The name of the confinement profile.
    pub profile: String,
    /// What the agent works on.
    pub workspace: WorkspaceSpec,
    /// The allow list.
    pub network: Policy,
    /// The project's own presets that are in the allow list, by path below the root, with the digest of what was read.
    pub preset_files: BTreeMap<String, Digest>,
    /// Ports of the agent's loopback that `up` forwards to this machine's.
    pub ports: Vec<PortForward>,
    /// Environment variables for the agent that are not secret.
    pub environment: BTreeMap<String, String>,
    /// The credentials, by name.
    pub credentials: BTreeMap<CredentialName, CredentialSpec>,
    /// Limits that the manifest asks for; those absent come from the profile.
    pub resources: Resources,
    /// The digest of the bytes that were parsed, so that an approval is for what was read and for nothing later.
    pub digest: Digest,
    /// The text that was parsed, for showing its lines when something is refused later; bounded by the reader.
    pub text: String,
}

/// What the agent gets to work on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkspaceSpec {
    /// The repository's folder, inside the project.
    pub source: PathBuf,
    /// The branch to clone; the current one when absent.
    pub branch: Option<String>,
    /// Commits of history to take along; all when absent.
    pub depth: Option<u32>,
    /// Whether changes of tracked files that are not committed go along as one marked commit.
    pub include_uncommitted: bool,
    /// Whether commits are signed with a key of the session.
    pub sign: bool,
    /// Folders that the agent's working tree has, besides the files at its top; all when empty. Paths from the top of the
    /// repository, as the next two.
    pub sparse: Vec<String>,
    /// Submodules that go along.
    pub submodules: Vec<String>,
    /// Files of git-lfs, or folders with some, that go along.
    pub lfs: Vec<String>,
    /// Whether the agent's home outlives `down`.
    pub keep_home: bool,
    /// The most bytes that the agent's home may take; only `resources.disk` bounds it when absent.
    pub home_limit: Option<u64>,
}

impl Default for WorkspaceSpec {
    fn default() -> Self {
        Self {
            source: ".".into(),
            branch: None,
            depth: None,
            include_uncommitted: false,
            sign: false,
            sparse: Vec::new(),
            submodules: Vec::new(),
            lfs: Vec::new(),
            keep_home: false,
            home_limit: None,
        }
    }
}

/// Limits of the agent's container.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Resources {
    /// Processor time, in cores.
    pub cpus: Option<f64>,
    /// Memory without swap, in bytes.
    pub memory: Option<u64>,
    /// Processes and threads.
    pub pids: Option<u32>,
    /// Disk for workspace and home together, in bytes.
    pub disk: Option<u64>,
    /// How long a session may last.
    pub session: Option<Duration>,
}

/// Reads the manifest in this file.
pub fn load(path: &Path) -> Result<Manifest, ManifestError> {
    let read = |source| ManifestError::Read { path: path.to_owned(), source };
    let file = std::fs::File::open(path).map_err(read)?;
    let mut bytes = Vec::new();
    // One byte more than allowed, so that a larger file is noticed without being read.
    file.take(yaml::SIZE_LIMIT as u64 + 1).read_to_end(&mut bytes).map_err(read)?;
    let text = String::from_utf8(bytes)
        .map_err(|error| read(std::io::Error::new(std::io::ErrorKind::InvalidData, error.utf8_error())))?;
    parse(&text, path)
}

/// Reads the manifest in this text; `path` is where it came from, and its folder the root of the paths in it.
pub fn parse(text: &str, path: &Path) -> Result<Manifest, ManifestError> {
    let document = yaml::parse(text).map_err(|problem| ManifestError::invalid(path, text, vec![problem]))?;
    let mut reader = crate::project::reader::Reader::default();
    match resolve::manifest(&mut reader, &document, path, text) {
        Some(manifest) if reader.problems.is_empty() => Ok(manifest),
        _ => Err(ManifestError::invalid(path, text, reader.problems)),
    }
}

#[cfg(test)]
mod preset_tests;
#[cfg(test)]
mod tests;
