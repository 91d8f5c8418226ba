use bollard::models::{ContainerConfig, DeviceMapping};

use super::super::translate;
use super::super::translate::tests::{image, spec};
use super::*;

/// What an engine would say of a container that is just as planned, with what engines fill in.
fn as_planned() -> (ContainerSpec, ContainerCreateBody, ContainerInspectResponse) {
    let spec = spec();
    let body = translate::container(&spec, &image()).unwrap();
    let config: ContainerConfig = serde_json::from_value(serde_json::to_value(&body).unwrap()).unwrap();
    let host = HostConfig {
        runtime: Some("runc".into()),
        console_size: Some(vec![0, 0]),
        binds: Some(Vec::new()),
        pid_mode: Some(String::new()),
        network_mode: Some("container:1234".into()),
        ..body.host_config.clone().unwrap()
    };
    let mounts = vec![MountPoint {
        typ: Some("volume".into()),
        name: Some("sandbox-demo-workspace".into()),
        source: Some("/var/lib/docker/volumes/sandbox-demo-workspace/_data".into()),
        destination: Some("/workspace".into()),
        rw: Some(true),
        ..MountPoint::default()
    }];
    let found = ContainerInspectResponse {
        image: Some(spec.image.clone()),
        config: Some(config),
        host_config: Some(host),
        mounts: Some(mounts),
        ..ContainerInspectResponse::default()
    };
    (spec, body, found)
}

/// The fields that differ after a change.
fn changed(change: impl FnOnce(&mut ContainerInspectResponse)) -> Vec<String> {
    let (spec, body, mut found) = as_planned();
    change(&mut found);
    differences(&spec, &body, &found, Some("container:1234")).into_iter().map(|difference| difference.field).collect()
}

fn host(found: &mut ContainerInspectResponse) -> &mut HostConfig {
    found.host_config.as_mut().unwrap()
}

#[test]
fn finds_nothing_where_all_is_as_planned() {
    assert_eq!(changed(|_| {}), [""; 0]);
}

#[test]
fn finds_a_privilege_that_nobody_asked_for() {
    assert_eq!(changed(|found| host(found).privileged = Some(true)), ["Privileged"]);
    assert_eq!(changed(|found| host(found).cap_add = Some(vec!["SYS_ADMIN".into()])), ["CapAdd"]);
    assert_eq!(changed(|found| host(found).pid_mode = Some("host".into())), ["PidMode"]);
    assert_eq!(changed(|found| host(found).binds = Some(vec!["/:/host".into()])), ["Binds"]);
    assert_eq!(
        changed(|found| host(found).devices =
            Some(vec![DeviceMapping { path_on_host: Some("/dev/kvm".into()), ..DeviceMapping::default() }])),
        ["Devices"]
    );
    assert_eq!(changed(|found| host(found).oom_score_adj = Some(-1000)), ["OomScoreAdj"]);
}

#[test]
fn finds_a_protection_that_is_gone() {
    assert_eq!(changed(|found| host(found).cap_drop = None), ["CapDrop"]);
    assert_eq!(changed(|found| host(found).readonly_rootfs = Some(false)), ["ReadonlyRootfs"]);
    assert_eq!(
        changed(|found| {
            host(found).security_opt.as_mut().unwrap().pop();
        }),
        ["SecurityOpt"]
    );
    assert_eq!(changed(|found| host(found).masked_paths = Some(Vec::new())), ["MaskedPaths"]);
}

#[test]
fn takes_either_spelling_of_a_security_option() {
    let respell = |found: &mut ContainerInspectResponse| {
        host(found).security_opt.as_mut().unwrap()[0] = "no-new-privileges:true".into();
    };
    assert_eq!(changed(respell), [""; 0]);
}

#[test]
fn names_each_limit_that_is_missing() {
    let (spec, body, mut found) = as_planned();
    host(&mut found).pids_limit = None;
    host(&mut found).ulimits = Some(Vec::new());
    let differences = differences(&spec, &body, &found, Some("container:1234"));
    assert!(differences.iter().all(Difference::is_limit));
    let text: Vec<String> = differences.iter().map(Difference::to_string).collect();
    assert_eq!(text[0], "PidsLimit should be 64 and is absent");
    assert!(text[1].starts_with("Ulimits should be "), "{text:?}");
}

#[test]
fn allows_limits_that_the_engine_adds_by_itself() {
    let add = |found: &mut ContainerInspectResponse| {
        let limits = host(found).ulimits.as_mut().unwrap();
        let mut more = limits[0].clone();
        more.name = Some("nproc".into());
        limits.push(more);
    };
    assert_eq!(changed(add), [""; 0]);
}

#[test]
fn finds_another_network_and_another_peer() {
    assert_eq!(changed(|found| host(found).network_mode = Some("host".into())), ["NetworkMode"]);
    assert_eq!(changed(|found| host(found).network_mode = Some("container:5678".into())), ["NetworkMode"]);
}

#[test]
fn finds_a_mount_that_is_not_planned_or_has_become_writable() {
    let (mut spec, mut body, found) = as_planned();
    let mount = |found: &mut ContainerInspectResponse| found.mounts.as_mut().unwrap().clone();
    assert_eq!(
        changed(|found| found.mounts = Some(
            [
                mount(found),
                vec![MountPoint {
                    typ: Some("bind".into()),
                    source: Some("/".into()),
                    destination: Some("/host".into()),
                    ..MountPoint::default()
                }]
            ]
            .concat()
        )),
        ["Mounts"]
    );
    spec.mounts[0].read_only = true;
    body.host_config = translate::container(&spec, &image()).unwrap().host_config;
    let fields: Vec<String> = differences(&spec, &body, &found, Some("container:1234"))
        .into_iter()
        .map(|difference| difference.field)
        .collect();
    assert_eq!(fields, ["Mounts", "Mounts"]);
}

#[test]
fn finds_what_an_image_brought_in() {
    let config = |change: fn(&mut ContainerConfig)| changed(move |found| change(found.config.as_mut().unwrap()));
    assert_eq!(config(|config| config.env.as_mut().unwrap().push("LD_PRELOAD=/evil.so".into())), ["Env"]);
    assert_eq!(config(|config| config.user = Some("0:0".into())), ["User"]);
    assert_eq!(config(|config| config.healthcheck = None), ["Healthcheck"]);
    assert_eq!(config(|config| config.labels = None), ["Labels.dev.sandbox.role"]);
    assert_eq!(config(|config| config.hostname = Some("other".into())), ["Hostname"]);
    assert_eq!(changed(|found| found.image = Some("sha256:ff".into())), ["Image"]);
}

#[test]
fn keeps_an_empty_argument_of_a_command() {
    let drop_last = |found: &mut ContainerInspectResponse| {
        found.config.as_mut().unwrap().cmd.as_mut().unwrap().pop();
    };
    assert_eq!(changed(drop_last), ["Cmd"]);
}
