//! What a container of a sandbox looks like, before the engine hears of it.
//!
//! There is deliberately no field for a host path, a device, a capability, a runtime flag or a host namespace. Whatever
//! is made from this value also drops every capability, sets `no-new-privileges`, has a read-only root, private IPC and
//! cgroup namespaces, no TTY, no restart policy and the `local` log driver with 3 files of 10 MiB.

use std::collections::BTreeMap;

use serde::Serialize;

/// A container to create.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ContainerSpec {
    /// The container's name.
    pub name: String,
    /// The image's id in this engine (`sha256:…`), never a tag.
    pub image: String,
    /// The whole command line: `Entrypoint` is its first word, `Cmd` the rest.
    pub command: Vec<String>,
    /// Numeric user and group.
    pub user: User,
    /// Supplementary groups.
    pub groups: Vec<u32>,
    /// The whole environment; variables that the image sets and this does not are emptied.
    pub environment: BTreeMap<String, String>,
    /// The working directory.
    pub working_directory: String,
    /// The host name inside.
    pub hostname: Option<String>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// The network.
    pub network: Network,
    /// Resolvers for `/etc/resolv.conf`; must be empty when the network is another container's.
    pub dns: Vec<String>,
    /// Volumes.
    pub mounts: Vec<Mount>,
    /// Folders in memory.
    pub tmpfs: Vec<Tmpfs>,
    /// Limits.
    pub limits: Limits,
    /// The seccomp profile, as JSON in the engine's format. The engine's default when absent.
    pub seccomp: Option<String>,
    /// Paths that are hidden, in place of the engine's default list.
    pub masked_paths: Vec<String>,
    /// Paths that are read-only, in place of the engine's default list.
    pub readonly_paths: Vec<String>,
    /// Whether standard input stays open for attaching.
    pub open_stdin: bool,
}

/// A numeric user and group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct User {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
}

/// The network of a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Network {
    /// A namespace with loopback alone.
    None,
    /// The namespace of this container.
    Container(String),
    /// This network of the engine.
    Named(String),
}

/// A volume mounted into a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Mount {
    /// The volume's name.
    pub volume: String,
    /// Where it appears.
    pub target: String,
    /// Whether the container may only read.
    pub read_only: bool,
    /// Whether an empty volume is filled from the image's folder.
    pub copy: bool,
}

/// A folder in memory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Tmpfs {
    /// Where it appears.
    pub target: String,
    /// Size in bytes.
    pub size: u64,
    /// Permission bits.
    pub mode: u32,
    /// Whether programs may run from it.
    pub exec: bool,
    /// Owner.
    pub owner: User,
}

/// Limits of a container.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Limits {
    /// Memory in bytes; swap is not allowed on top.
    pub memory: u64,
    /// Processor time, in thousandths of a core.
    pub millicpus: u64,
    /// Processes and threads.
    pub pids: u32,
    /// Open files of each process.
    pub open_files: u64,
    /// Largest file, in bytes.
    pub file_size: u64,
    /// Size of `/dev/shm`, in bytes.
    pub shm: u64,
}

/// A volume to create.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct VolumeSpec {
    /// The volume's name.
    pub name: String,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// In memory with these options, or on the engine's disk when absent.
    pub memory: Option<MemoryVolume>,
}

/// A volume in memory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct MemoryVolume {
    /// Size in bytes.
    pub size: u64,
    /// Permission bits of its root.
    pub mode: u32,
    /// Owner of its root.
    pub owner: User,
    /// Whether to ask for `noswap` (Linux 6.4 and later).
    pub noswap: bool,
}
