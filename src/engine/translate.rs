//! Turns specs into requests of the Engine API, with the hardening that every container gets whatever its spec says.
//!
//! Pure: everything that the engine is asked for can be tested here without one.

use std::collections::{BTreeMap, HashMap};

use bollard::models::{
    ContainerCreateBody, HealthConfig, HostConfig, HostConfigCgroupnsModeEnum, HostConfigLogConfig, Mount as ApiMount,
    MountType, MountVolumeOptions, ResourcesUlimits, RestartPolicy, RestartPolicyNameEnum, VolumeCreateRequest,
};

use super::container::{ContainerSpec, Limits, MemoryVolume, Mount, Network, Tmpfs, User, VolumeSpec};
use super::error::EngineError;
use super::image::ImageSummary;

/// The engine counts processor time in thousand-millionths of a core; specs in thousandths.
const NANO_PER_MILLI: u64 = 1_000_000;

/// The request that creates a container.
///
/// # Errors
///
/// When the command is empty, a number is too large for the API, or the image declares a volume that no mount covers.
pub(super) fn container(spec: &ContainerSpec, image: &ImageSummary) -> Result<ContainerCreateBody, EngineError> {
    if let Some(volume) = uncovered_volume(spec, image) {
        return Err(EngineError::VolumeUncovered { image: image.id.clone(), volume });
    }
    let (entrypoint, arguments) = spec.command.split_first().ok_or_else(|| inexpressible(spec, "the empty command"))?;
    Ok(ContainerCreateBody {
        image: Some(spec.image.clone()),
        entrypoint: Some(vec![entrypoint.clone()]),
        cmd: Some(arguments.to_vec()),
        env: Some(environment(spec, image)),
        user: Some(user(spec.user)),
        working_dir: Some(spec.working_directory.clone()),
        hostname: spec.hostname.clone(),
        labels: Some(spec.labels.clone().into_iter().collect()),
        attach_stdin: Some(spec.open_stdin),
        attach_stdout: Some(true),
        attach_stderr: Some(true),
        open_stdin: Some(spec.open_stdin),
        // The launcher detaches and attaches again.
        stdin_once: Some(false),
        tty: Some(false),
        // These two an image could choose otherwise.
        healthcheck: Some(HealthConfig { test: Some(vec!["NONE".into()]), ..HealthConfig::default() }),
        stop_signal: Some("SIGTERM".into()),
        host_config: Some(host(spec)?),
        ..ContainerCreateBody::default()
    })
}

/// The half of the request that is about the host.
fn host(spec: &ContainerSpec) -> Result<HostConfig, EngineError> {
    let limits = &spec.limits;
    let memory = number(spec, "the memory limit", limits.memory)?;
    let cpus = limits.millicpus.saturating_mul(NANO_PER_MILLI);
    Ok(HostConfig {
        privileged: Some(false),
        cap_drop: Some(vec!["ALL".into()]),
        security_opt: Some(security_options(spec)),
        readonly_rootfs: Some(true),
        ipc_mode: Some("private".into()),
        cgroupns_mode: Some(HostConfigCgroupnsModeEnum::PRIVATE),
        network_mode: Some(network_mode(&spec.network)),
        dns: Some(spec.dns.clone()),
        group_add: Some(spec.groups.iter().map(u32::to_string).collect()),
        // Memory and swap together as much as memory alone: no swap, so that no secret is ever written to it.
        memory: Some(memory),
        memory_swap: Some(memory),
        nano_cpus: Some(number(spec, "the processor limit", cpus)?),
        pids_limit: Some(i64::from(limits.pids)),
        ulimits: Some(ulimits(spec, limits)?),
        shm_size: Some(number(spec, "the size of /dev/shm", limits.shm)?),
        masked_paths: Some(spec.masked_paths.clone()),
        readonly_paths: Some(spec.readonly_paths.clone()),
        mounts: Some(spec.mounts.iter().map(mount).collect()),
        tmpfs: Some(spec.tmpfs.iter().map(|tmpfs| (tmpfs.target.clone(), tmpfs_options(tmpfs))).collect()),
        // The default driver fills the host's disk.
        log_config: Some(HostConfigLogConfig {
            typ: Some("local".into()),
            config: Some(HashMap::from([("max-size".into(), "10m".into()), ("max-file".into(), "3".into())])),
        }),
        restart_policy: Some(RestartPolicy { name: Some(RestartPolicyNameEnum::NO), maximum_retry_count: Some(0) }),
        // Process 1 is our helper, which reaps.
        init: Some(false),
        auto_remove: Some(false),
        publish_all_ports: Some(false),
        ..HostConfig::default()
    })
}

fn security_options(spec: &ContainerSpec) -> Vec<String> {
    let mut options = vec!["no-new-privileges".to_owned()];
    options.extend(spec.seccomp.as_ref().map(|profile| format!("seccomp={profile}")));
    options
}

/// The network mode as the engine writes it.
pub(super) fn network_mode(network: &Network) -> String {
    match network {
        Network::None => "none".into(),
        Network::Container(name) => format!("container:{name}"),
        Network::Named(name) => name.clone(),
    }
}

fn ulimits(spec: &ContainerSpec, limits: &Limits) -> Result<Vec<ResourcesUlimits>, EngineError> {
    let open_files = number(spec, "the limit of open files", limits.open_files)?;
    let file_size = number(spec, "the limit of a file's size", limits.file_size)?;
    let both = |name: &str, value| ResourcesUlimits { name: Some(name.into()), soft: Some(value), hard: Some(value) };
    // A core limit of 0 does not stop a kernel whose core pattern is a pipe; one of 1 byte does (core(5)).
    Ok(vec![both("nofile", open_files), both("fsize", file_size), both("core", 1)])
}

fn mount(mount: &Mount) -> ApiMount {
    ApiMount {
        typ: Some(MountType::VOLUME),
        source: Some(mount.volume.clone()),
        target: Some(mount.target.clone()),
        read_only: Some(mount.read_only),
        volume_options: Some(MountVolumeOptions { no_copy: Some(!mount.copy), ..MountVolumeOptions::default() }),
        ..ApiMount::default()
    }
}

fn tmpfs_options(tmpfs: &Tmpfs) -> String {
    let Tmpfs { size, mode, owner: User { uid, gid }, .. } = tmpfs;
    let exec = if tmpfs.exec { "exec" } else { "noexec" };
    format!("rw,nosuid,nodev,{exec},size={size},mode={mode:04o},uid={uid},gid={gid}")
}

/// A user as the engine writes it.
pub(super) fn user(user: User) -> String {
    format!("{}:{}", user.uid, user.gid)
}

/// Exactly the spec's environment: the engine adds what only the image sets and cannot unset it, so that is emptied.
fn environment(spec: &ContainerSpec, image: &ImageSummary) -> Vec<String> {
    let emptied = image.environment.keys().filter(|name| !spec.environment.contains_key(*name));
    variables(&spec.environment).into_iter().chain(emptied.map(|name| format!("{name}="))).collect()
}

/// Variables as the engine writes them.
pub(super) fn variables(environment: &BTreeMap<String, String>) -> Vec<String> {
    environment.iter().map(|(name, value)| format!("{name}={value}")).collect()
}

/// A volume that the image declares and nothing is mounted on. A mount above it does not help: the engine would mount an
/// unbounded anonymous volume inside.
fn uncovered_volume(spec: &ContainerSpec, image: &ImageSummary) -> Option<String> {
    let plain = |path: &str| path.trim_end_matches('/').to_owned();
    let targets = spec.mounts.iter().map(|mount| &mount.target).chain(spec.tmpfs.iter().map(|tmpfs| &tmpfs.target));
    let covered: Vec<String> = targets.map(|target| plain(target)).collect();
    image.volumes.iter().find(|volume| !covered.contains(&plain(volume))).cloned()
}

fn number(spec: &ContainerSpec, field: &'static str, value: u64) -> Result<i64, EngineError> {
    i64::try_from(value).map_err(|_| inexpressible(spec, field))
}

fn inexpressible(spec: &ContainerSpec, field: &'static str) -> EngineError {
    EngineError::Inexpressible { name: spec.name.clone(), field }
}

/// The request that creates a volume.
pub(super) fn volume(spec: &VolumeSpec) -> VolumeCreateRequest {
    VolumeCreateRequest {
        name: Some(spec.name.clone()),
        driver: Some("local".into()),
        driver_opts: Some(volume_options(spec).into_iter().collect()),
        labels: Some(spec.labels.clone().into_iter().collect()),
        ..VolumeCreateRequest::default()
    }
}

/// The options of the `local` driver: none for a volume on disk, those of mount(8) for one in memory.
pub(super) fn volume_options(spec: &VolumeSpec) -> BTreeMap<String, String> {
    let Some(MemoryVolume { size, mode, owner: User { uid, gid }, noswap }) = &spec.memory else {
        return BTreeMap::new();
    };
    let mut options = format!("size={size},mode={mode:04o},uid={uid},gid={gid},nosuid,nodev,noexec");
    if *noswap {
        options.push_str(",noswap");
    }
    [("type", "tmpfs"), ("device", "tmpfs"), ("o", &options)]
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}

#[cfg(test)]
pub(super) mod tests;
