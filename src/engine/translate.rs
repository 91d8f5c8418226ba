//! From a [`ContainerSpec`] to the engine's own request, and back: what an existing container has against what it should.
//!
//! Everything that the specification leaves unsaid is hardened here: no capability, no new privileges, read-only root,
//! private namespaces, bounded logs.

use std::collections::{BTreeMap, HashMap};

use bollard::models::{
    ContainerCreateBody, ContainerInspectResponse, HealthConfig, HostConfig, HostConfigCgroupnsModeEnum,
    HostConfigLogConfig, Mount as ApiMount, MountType, MountVolumeOptions, ResourcesUlimits, RestartPolicy,
    RestartPolicyNameEnum, VolumeCreateRequest,
};

use super::container::{ContainerSpec, Network, Tmpfs, VolumeSpec};

fn network_mode(network: &Network) -> String {
    match network {
        Network::None => "none".to_owned(),
        Network::Container(name) => format!("container:{name}"),
        Network::Named(name) => name.clone(),
    }
}

fn tmpfs_options(tmpfs: &Tmpfs) -> String {
    let exec = if tmpfs.exec { "exec" } else { "noexec" };
    format!(
        "rw,nosuid,nodev,{exec},size={},mode={:o},uid={},gid={}",
        tmpfs.size, tmpfs.mode, tmpfs.owner.uid, tmpfs.owner.gid
    )
}

/// The request that creates the container. Variables of the image that the specification does not set are emptied,
/// since the engine merges the image's environment into ours.
pub(super) fn create_body(spec: &ContainerSpec, image_environment: &[String]) -> ContainerCreateBody {
    let mut environment: BTreeMap<&str, &str> = BTreeMap::new();
    for variable in image_environment {
        environment.insert(variable.split_once('=').map_or(variable.as_str(), |(name, _)| name), "");
    }
    environment.extend(spec.environment.iter().map(|(name, value)| (name.as_str(), value.as_str())));
    let (entrypoint, command) = match spec.command.split_first() {
        Some((program, arguments)) => (vec![program.clone()], arguments.to_vec()),
        None => (Vec::new(), Vec::new()),
    };
    ContainerCreateBody {
        image: Some(spec.image.clone()),
        entrypoint: Some(entrypoint),
        cmd: Some(command),
        env: Some(environment.into_iter().map(|(name, value)| format!("{name}={value}")).collect()),
        user: Some(format!("{}:{}", spec.user.uid, spec.user.gid)),
        working_dir: Some(spec.working_directory.clone()),
        hostname: spec.hostname.clone(),
        labels: Some(spec.labels.clone().into_iter().collect()),
        tty: Some(false),
        open_stdin: Some(spec.open_stdin),
        stdin_once: Some(false),
        attach_stdin: Some(spec.open_stdin),
        attach_stdout: Some(true),
        attach_stderr: Some(true),
        healthcheck: Some(HealthConfig { test: Some(vec!["NONE".to_owned()]), ..HealthConfig::default() }),
        host_config: Some(host_config(spec)),
        ..ContainerCreateBody::default()
    }
}

fn security_options(spec: &ContainerSpec) -> Vec<String> {
    let mut options = vec!["no-new-privileges".to_owned()];
    options.extend(spec.seccomp.iter().map(|profile| format!("seccomp={profile}")));
    options
}

fn host_config(spec: &ContainerSpec) -> HostConfig {
    let limits = &spec.limits;
    let ulimit = |name: &str, value: u64| ResourcesUlimits {
        name: Some(name.to_owned()),
        soft: Some(value as i64),
        hard: Some(value as i64),
    };
    let mounts = spec.mounts.iter().map(|mount| ApiMount {
        target: Some(mount.target.clone()),
        source: Some(mount.volume.clone()),
        typ: Some(MountType::VOLUME),
        read_only: Some(mount.read_only),
        volume_options: Some(MountVolumeOptions { no_copy: Some(!mount.copy), ..MountVolumeOptions::default() }),
        ..ApiMount::default()
    });
    let log = HashMap::from([("max-size".to_owned(), "10m".to_owned()), ("max-file".to_owned(), "3".to_owned())]);
    HostConfig {
        network_mode: Some(network_mode(&spec.network)),
        dns: (!spec.dns.is_empty()).then(|| spec.dns.clone()),
        mounts: Some(mounts.collect()),
        tmpfs: Some(spec.tmpfs.iter().map(|tmpfs| (tmpfs.target.clone(), tmpfs_options(tmpfs))).collect()),
        group_add: Some(spec.groups.iter().map(u32::to_string).collect()),
        privileged: Some(false),
        cap_drop: Some(vec!["ALL".to_owned()]),
        cap_add: Some(Vec::new()),
        security_opt: Some(security_options(spec)),
        readonly_rootfs: Some(true),
        ipc_mode: Some("private".to_owned()),
        cgroupns_mode: Some(HostConfigCgroupnsModeEnum::PRIVATE),
        shm_size: Some(limits.shm as i64),
        memory: Some(limits.memory as i64),
        memory_swap: Some(limits.memory as i64),
        nano_cpus: Some(limits.millicpus as i64 * 1_000_000),
        pids_limit: Some(i64::from(limits.pids)),
        // A core of one byte: a limit of nothing would still let a core handler behind a pipe run.
        ulimits: Some(vec![ulimit("nofile", limits.open_files), ulimit("fsize", limits.file_size), ulimit("core", 1)]),
        masked_paths: Some(spec.masked_paths.clone()),
        readonly_paths: Some(spec.readonly_paths.clone()),
        log_config: Some(HostConfigLogConfig { typ: Some("local".to_owned()), config: Some(log) }),
        restart_policy: Some(RestartPolicy { name: Some(RestartPolicyNameEnum::NO), maximum_retry_count: None }),
        init: Some(false),
        ..HostConfig::default()
    }
}

/// The request that creates a volume.
pub(super) fn volume_body(spec: &VolumeSpec) -> VolumeCreateRequest {
    let options = spec.memory.as_ref().map(|memory| {
        let noswap = if memory.noswap { ",noswap" } else { "" };
        let flags = format!(
            "size={},mode={:04o},uid={},gid={},nosuid,nodev,noexec{noswap}",
            memory.size, memory.mode, memory.owner.uid, memory.owner.gid
        );
        HashMap::from([
            ("type".to_owned(), "tmpfs".to_owned()),
            ("device".to_owned(), "tmpfs".to_owned()),
            ("o".to_owned(), flags),
        ])
    });
    VolumeCreateRequest {
        name: Some(spec.name.clone()),
        driver: Some("local".to_owned()),
        driver_opts: options,
        labels: Some(spec.labels.clone().into_iter().collect()),
        ..VolumeCreateRequest::default()
    }
}

/// What a container has that differs from what the specification and its hardening demand. Labels are compared only
/// where the specification has them.
pub(super) fn differences(spec: &ContainerSpec, found: &ContainerInspectResponse) -> Vec<String> {
    let mut differences = Vec::new();
    let mut expect = |what: &str, holds: bool| {
        if !holds {
            differences.push(format!("{what} is not as planned"));
        }
    };
    let Some(host) = &found.host_config else { return vec!["the engine tells nothing of the container".to_owned()] };
    let planned = host_config(spec);
    let sorted = |list: &Option<Vec<String>>| {
        let mut list = list.clone().unwrap_or_default();
        list.sort();
        list
    };
    expect("the image", found.image.as_deref() == Some(spec.image.as_str()));
    expect("privileged mode", host.privileged != Some(true));
    let dropped = sorted(&host.cap_drop);
    expect("the dropped capabilities", dropped == ["ALL"] || dropped == ["CAP_ALL"]);
    expect("the added capabilities", host.cap_add.as_ref().is_none_or(Vec::is_empty));
    expect("the security options", sorted(&host.security_opt) == sorted(&planned.security_opt));
    expect("the read-only root", host.readonly_rootfs == Some(true));
    expect("the IPC namespace", host.ipc_mode == planned.ipc_mode);
    expect("the process namespace", host.pid_mode.as_deref().is_none_or(str::is_empty));
    expect("the UTS namespace", host.uts_mode.as_deref().is_none_or(str::is_empty));
    expect("the user namespace", host.userns_mode.as_deref() != Some("host"));
    expect("the devices", host.devices.as_ref().is_none_or(Vec::is_empty));
    expect("the host folders", host.binds.as_ref().is_none_or(Vec::is_empty));
    expect("the runtime's init", host.init != Some(true));
    expect("the memory limit", host.memory == planned.memory && host.memory_swap == planned.memory_swap);
    expect("the processor limit", host.nano_cpus == planned.nano_cpus);
    expect("the process limit", host.pids_limit == planned.pids_limit);
    expect("the masked paths", sorted(&host.masked_paths) == sorted(&planned.masked_paths));
    expect("the read-only paths", sorted(&host.readonly_paths) == sorted(&planned.readonly_paths));
    let network = host.network_mode.as_deref().unwrap_or_default();
    // The engine replaces a container's name by its id.
    let joined = matches!(spec.network, Network::Container(_)) && network.starts_with("container:");
    expect("the network", joined || Some(network) == planned.network_mode.as_deref());
    let mut mounts: Vec<(String, String, bool)> = (found.mounts.iter().flatten())
        .map(|mount| {
            let name = mount.name.clone().or_else(|| mount.source.clone()).unwrap_or_default();
            (mount.destination.clone().unwrap_or_default(), name, mount.rw == Some(false))
        })
        .collect();
    // Engines list folders in memory among the mounts, or not.
    mounts.retain(|(target, _, _)| !spec.tmpfs.iter().any(|tmpfs| tmpfs.target == *target));
    mounts.sort();
    let mut planned_mounts: Vec<(String, String, bool)> =
        (spec.mounts.iter()).map(|mount| (mount.target.clone(), mount.volume.clone(), mount.read_only)).collect();
    planned_mounts.sort();
    expect("the set of mounts", mounts == planned_mounts);
    let config = found.config.as_ref();
    let user = format!("{}:{}", spec.user.uid, spec.user.gid);
    expect("the user", config.and_then(|config| config.user.as_deref()) == Some(user.as_str()));
    let labels = config.and_then(|config| config.labels.clone()).unwrap_or_default();
    expect("the labels", spec.labels.iter().all(|(name, value)| labels.get(name) == Some(value)));
    differences
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::container::{Limits, Mount, User};
    use super::*;

    fn spec(
        network: Network,
        seccomp: Option<String>,
        volume: String,
        environment: BTreeMap<String, String>,
    ) -> ContainerSpec {
        ContainerSpec {
            name: "x".to_owned(),
            image: "sha256:00".to_owned(),
            command: vec!["/a".to_owned(), "b".to_owned()],
            user: User { uid: 1000, gid: 1000 },
            groups: vec![5],
            environment,
            working_directory: "/".to_owned(),
            hostname: None,
            labels: BTreeMap::new(),
            network,
            dns: Vec::new(),
            mounts: vec![Mount { volume, target: "/v".to_owned(), read_only: true, copy: false }],
            tmpfs: vec![Tmpfs {
                target: "/tmp".to_owned(),
                size: 5,
                mode: 0o1777,
                exec: true,
                owner: User { uid: 0, gid: 0 },
            }],
            limits: Limits { memory: 1 << 20, millicpus: 1500, pids: 9, open_files: 8, file_size: 7, shm: 6 },
            seccomp,
            masked_paths: vec!["/proc/keys".to_owned()],
            readonly_paths: Vec::new(),
            open_stdin: false,
        }
    }

    proptest! {
        #[test]
        fn whatever_is_asked_for_is_hardened(
            name in "\\PC{0,30}",
            volume in "\\PC{0,30}",
            seccomp in proptest::option::of("\\PC{0,30}"),
            environment in proptest::collection::btree_map("[A-Z_]{1,10}", "\\PC{0,20}", 0..5),
        ) {
            for network in [Network::None, Network::Container(name.clone()), Network::Named("egress".to_owned())] {
                let body = create_body(&spec(network, seccomp.clone(), volume.clone(), environment.clone()), &[]);
                let host = body.host_config.unwrap();
                prop_assert_eq!(host.privileged, Some(false));
                prop_assert_eq!(host.cap_drop, Some(vec!["ALL".to_owned()]));
                prop_assert!(host.cap_add.unwrap().is_empty());
                prop_assert!(host.binds.is_none() && host.devices.is_none() && host.pid_mode.is_none());
                prop_assert_eq!(host.readonly_rootfs, Some(true));
                prop_assert!(host.security_opt.unwrap().contains(&"no-new-privileges".to_owned()));
                prop_assert!(host.mounts.unwrap().iter().all(|mount| mount.typ == Some(MountType::VOLUME)));
                prop_assert!(host.network_mode.unwrap() != "host");
                prop_assert_eq!(body.tty, Some(false));
            }
        }
    }

    #[test]
    fn empties_variables_of_the_image_that_are_not_ours() {
        let environment = BTreeMap::from([("PATH".to_owned(), "/bin".to_owned())]);
        let body = create_body(
            &spec(Network::None, None, "v".to_owned(), environment),
            &["LD_PRELOAD=/evil.so".to_owned(), "NO_PROXY=*".to_owned(), "PATH=/evil".to_owned()],
        );
        assert_eq!(body.env.unwrap(), ["LD_PRELOAD=", "NO_PROXY=", "PATH=/bin"]);
    }

    #[test]
    fn a_volume_in_memory_has_owner_mode_and_size() {
        let body = volume_body(&VolumeSpec {
            name: "s".to_owned(),
            labels: BTreeMap::new(),
            memory: Some(super::super::container::MemoryVolume {
                size: 1024,
                mode: 0o750,
                owner: User { uid: 65532, gid: 1000 },
                noswap: true,
            }),
        });
        assert_eq!(body.driver_opts.unwrap()["o"], "size=1024,mode=0750,uid=65532,gid=1000,nosuid,nodev,noexec,noswap");
    }

    #[test]
    fn sees_a_container_that_was_changed() {
        let spec = spec(Network::None, None, "v".to_owned(), BTreeMap::new());
        let body = create_body(&spec, &[]);
        let found = |change: fn(&mut HostConfig)| {
            let mut host = body.host_config.clone().unwrap();
            change(&mut host);
            ContainerInspectResponse {
                image: Some(spec.image.clone()),
                host_config: Some(host),
                mounts: Some(vec![bollard::models::MountPoint {
                    name: Some("v".to_owned()),
                    destination: Some("/v".to_owned()),
                    rw: Some(false),
                    ..Default::default()
                }]),
                config: Some(bollard::models::ContainerConfig { user: body.user.clone(), ..Default::default() }),
                ..Default::default()
            }
        };
        assert_eq!(differences(&spec, &found(|_| {})), Vec::<String>::new());
        let changes: [fn(&mut HostConfig); 8] = [
            |host| host.privileged = Some(true),
            |host| host.cap_add = Some(vec!["NET_ADMIN".to_owned()]),
            |host| host.cap_drop = None,
            |host| host.binds = Some(vec!["/:/host".to_owned()]),
            |host| host.network_mode = Some("host".to_owned()),
            |host| host.pids_limit = Some(0),
            |host| host.security_opt = Some(vec!["seccomp=unconfined".to_owned()]),
            |host| host.masked_paths = Some(Vec::new()),
        ];
        for change in changes {
            assert_eq!(differences(&spec, &found(change)).len(), 1);
        }
    }
}
