use proptest::prelude::*;

use super::*;

/// A spec of an agent's shape.
pub(in crate::engine) fn spec() -> ContainerSpec {
    ContainerSpec {
        name: "sandbox-demo-agent".into(),
        image: "sha256:00".into(),
        command: vec!["/helper".into(), "init".into(), String::new()],
        user: User { uid: 1000, gid: 1000 },
        groups: vec![65533],
        environment: BTreeMap::from([("PATH".into(), "/usr/bin".into())]),
        working_directory: "/workspace".into(),
        hostname: Some("demo".into()),
        labels: BTreeMap::from([("dev.sandbox.role".into(), "agent".into())]),
        network: Network::Container("sandbox-demo-relay".into()),
        dns: Vec::new(),
        mounts: vec![Mount {
            volume: "sandbox-demo-workspace".into(),
            target: "/workspace".into(),
            read_only: false,
            copy: false,
        }],
        tmpfs: vec![Tmpfs {
            target: "/tmp".into(),
            size: 1 << 20,
            mode: 0o1777,
            exec: true,
            owner: User { uid: 0, gid: 0 },
        }],
        limits: Limits {
            memory: 1 << 30,
            millicpus: 1500,
            pids: 64,
            open_files: 1024,
            file_size: 1 << 30,
            shm: 1 << 20,
        },
        seccomp: Some(r#"{"defaultAction":"SCMP_ACT_ERRNO"}"#.into()),
        masked_paths: vec!["/proc/kcore".into()],
        readonly_paths: vec!["/proc/sys".into()],
        open_stdin: true,
    }
}

/// An image that brings nothing of its own.
pub(in crate::engine) fn image() -> ImageSummary {
    ImageSummary {
        id: "sha256:00".into(),
        size: 0,
        labels: BTreeMap::new(),
        environment: BTreeMap::new(),
        volumes: Vec::new(),
        user: String::new(),
        diff_ids: Vec::new(),
        created: None,
    }
}

#[test]
fn writes_the_whole_container_as_the_api_has_it() {
    let mut body = serde_json::to_value(container(&spec(), &image()).unwrap()).unwrap();
    body.sort_all_objects();
    insta::assert_json_snapshot!(body, @r#"
    {
      "AttachStderr": true,
      "AttachStdin": true,
      "AttachStdout": true,
      "Cmd": [
        "init",
        ""
      ],
      "Entrypoint": [
        "/helper"
      ],
      "Env": [
        "PATH=/usr/bin"
      ],
      "Healthcheck": {
        "Test": [
          "NONE"
        ]
      },
      "HostConfig": {
        "AutoRemove": false,
        "CapDrop": [
          "ALL"
        ],
        "CgroupnsMode": "private",
        "Dns": [],
        "GroupAdd": [
          "65533"
        ],
        "Init": false,
        "IpcMode": "private",
        "LogConfig": {
          "Config": {
            "max-file": "3",
            "max-size": "10m"
          },
          "Type": "local"
        },
        "MaskedPaths": [
          "/proc/kcore"
        ],
        "Memory": 1073741824,
        "MemorySwap": 1073741824,
        "Mounts": [
          {
            "ReadOnly": false,
            "Source": "sandbox-demo-workspace",
            "Target": "/workspace",
            "Type": "volume",
            "VolumeOptions": {
              "NoCopy": true
            }
          }
        ],
        "NanoCpus": 1500000000,
        "NetworkMode": "container:sandbox-demo-relay",
        "PidsLimit": 64,
        "Privileged": false,
        "PublishAllPorts": false,
        "ReadonlyPaths": [
          "/proc/sys"
        ],
        "ReadonlyRootfs": true,
        "RestartPolicy": {
          "MaximumRetryCount": 0,
          "Name": "no"
        },
        "SecurityOpt": [
          "no-new-privileges",
          "seccomp={\"defaultAction\":\"SCMP_ACT_ERRNO\"}"
        ],
        "ShmSize": 1048576,
        "Tmpfs": {
          "/tmp": "rw,nosuid,nodev,exec,size=1048576,mode=1777,uid=0,gid=0"
        },
        "Ulimits": [
          {
            "Hard": 1024,
            "Name": "nofile",
            "Soft": 1024
          },
          {
            "Hard": 1073741824,
            "Name": "fsize",
            "Soft": 1073741824
          },
          {
            "Hard": 1,
            "Name": "core",
            "Soft": 1
          }
        ]
      },
      "Hostname": "demo",
      "Image": "sha256:00",
      "Labels": {
        "dev.sandbox.role": "agent"
      },
      "OpenStdin": true,
      "StdinOnce": false,
      "StopSignal": "SIGTERM",
      "Tty": false,
      "User": "1000:1000",
      "WorkingDir": "/workspace"
    }
    "#);
}

#[test]
fn empties_the_variables_that_only_the_image_sets() {
    let mut image = image();
    image.environment = BTreeMap::from([("LD_PRELOAD".into(), "/evil.so".into()), ("PATH".into(), "/evil".into())]);
    let body = container(&spec(), &image).unwrap();
    assert_eq!(body.env.unwrap(), ["PATH=/usr/bin", "LD_PRELOAD="]);
}

#[test]
fn refuses_a_volume_of_the_image_that_nothing_covers() {
    let mut image = image();
    image.volumes = vec!["/tmp/".into(), "/workspace".into()];
    assert!(container(&spec(), &image).is_ok());
    for volume in ["/var/lib/data", "/workspace/inside"] {
        image.volumes = vec!["/tmp".into(), volume.into()];
        let error = container(&spec(), &image).unwrap_err();
        assert!(matches!(error, EngineError::VolumeUncovered { volume: found, .. } if found == volume));
    }
}

#[test]
fn refuses_an_empty_command_and_numbers_that_the_api_does_not_have() {
    let field = |change: fn(&mut ContainerSpec)| {
        let mut spec = spec();
        change(&mut spec);
        match container(&spec, &image()) {
            Err(EngineError::Inexpressible { field, .. }) => field,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(field(|spec| spec.command.clear()), "the empty command");
    assert_eq!(field(|spec| spec.limits.memory = u64::MAX), "the memory limit");
    assert_eq!(field(|spec| spec.limits.millicpus = u64::MAX / 2), "the processor limit");
}

#[test]
fn a_volume_in_memory_runs_nothing_and_belongs_to_its_owner() {
    let mut spec = VolumeSpec {
        name: "secrets".into(),
        labels: BTreeMap::new(),
        memory: Some(MemoryVolume { size: 1 << 20, mode: 0o750, owner: User { uid: 65532, gid: 1000 }, noswap: false }),
    };
    assert_eq!(volume_options(&spec)["o"], "size=1048576,mode=0750,uid=65532,gid=1000,nosuid,nodev,noexec");
    spec.memory.as_mut().unwrap().noswap = true;
    assert!(volume_options(&spec)["o"].ends_with(",noexec,noswap"));
    spec.memory = None;
    assert!(volume_options(&spec).is_empty());
}

fn text() -> impl Strategy<Value = String> {
    "[ -~]{0,24}"
}

prop_compose! {
    fn any_mount()(volume in text(), target in text(), read_only: bool, copy: bool) -> Mount {
        Mount { volume, target, read_only, copy }
    }
}

prop_compose! {
    fn any_tmpfs()(target in text(), size: u32, mode: u16, exec: bool, uid: u32, gid: u32) -> Tmpfs {
        Tmpfs { target, size: size.into(), mode: mode.into(), exec, owner: User { uid, gid } }
    }
}

prop_compose! {
    fn any_limits()(memory: u32, millicpus: u32, pids: u32, open_files: u32, file_size: u32, shm: u32) -> Limits {
        Limits {
            memory: memory.into(),
            millicpus: millicpus.into(),
            pids,
            open_files: open_files.into(),
            file_size: file_size.into(),
            shm: shm.into(),
        }
    }
}

prop_compose! {
    fn any_spec()(
        words in proptest::collection::vec(text(), 4),
        command in proptest::collection::vec(text(), 1..4),
        groups in proptest::collection::vec(any::<u32>(), 0..3),
        pairs in proptest::collection::btree_map(text(), text(), 0..4),
        labels in proptest::collection::btree_map(text(), text(), 0..4),
        network in prop_oneof![
            Just(Network::None),
            text().prop_map(Network::Container),
            text().prop_map(Network::Named),
        ],
        mounts in proptest::collection::vec(any_mount(), 0..4),
        tmpfs in proptest::collection::vec(any_tmpfs(), 0..4),
        limits in any_limits(),
        seccomp in proptest::option::of(text()),
        paths in proptest::collection::vec(text(), 0..4),
        (uid, gid, open_stdin) in any::<(u32, u32, bool)>(),
    ) -> ContainerSpec {
        ContainerSpec {
            name: words[0].clone(),
            image: words[1].clone(),
            command,
            user: User { uid, gid },
            groups,
            environment: pairs,
            working_directory: words[2].clone(),
            hostname: Some(words[3].clone()),
            labels,
            network,
            dns: paths.clone(),
            mounts,
            tmpfs,
            limits,
            seccomp,
            masked_paths: paths.clone(),
            readonly_paths: paths,
            open_stdin,
        }
    }
}

proptest! {
    #[test]
    fn no_spec_whatsoever_gives_up_the_hardening(spec in any_spec()) {
        let body = container(&spec, &image()).unwrap();
        prop_assert_eq!(body.tty, Some(false));
        prop_assert_eq!(body.stdin_once, Some(false));
        prop_assert_eq!(body.user, Some(format!("{}:{}", spec.user.uid, spec.user.gid)));
        let host = body.host_config.unwrap();
        prop_assert_eq!(host.privileged, Some(false));
        prop_assert_eq!(host.cap_drop.as_deref(), Some(&["ALL".to_owned()][..]));
        prop_assert_eq!(host.readonly_rootfs, Some(true));
        prop_assert_eq!(host.ipc_mode.as_deref(), Some("private"));
        prop_assert_eq!(host.cgroupns_mode, Some(HostConfigCgroupnsModeEnum::PRIVATE));
        prop_assert_eq!(host.memory, host.memory_swap);
        prop_assert_eq!(&host.security_opt.as_ref().unwrap()[0], "no-new-privileges");
        for option in &host.security_opt.unwrap()[1..] {
            prop_assert!(option.starts_with("seccomp="));
        }
        // Nothing of the host: no path, device, capability, namespace, port, runtime or kernel setting.
        prop_assert!(host.binds.is_none() && host.devices.is_none() && host.device_requests.is_none());
        prop_assert!(host.device_cgroup_rules.is_none() && host.cap_add.is_none() && host.volumes_from.is_none());
        prop_assert!(host.pid_mode.is_none() && host.uts_mode.is_none() && host.userns_mode.is_none());
        prop_assert!(host.port_bindings.is_none() && host.runtime.is_none() && host.sysctls.is_none());
        prop_assert!(host.cgroup_parent.is_none() && host.links.is_none() && host.extra_hosts.is_none());
        for mount in host.mounts.unwrap() {
            prop_assert_eq!(mount.typ, Some(MountType::VOLUME));
            prop_assert!(mount.bind_options.is_none() && mount.volume_options.unwrap().driver_config.is_none());
        }
        for options in host.tmpfs.unwrap().values() {
            prop_assert!(options.starts_with("rw,nosuid,nodev,"));
        }
    }
}
