//! The engine module against a real Docker Engine, and against one that misbehaves.

#![allow(clippy::unwrap_used)]

mod fixture;
mod misbehaving;

use std::time::Duration;

use fixture::{Fixture, exec, read_all, spec};
use futures_util::{StreamExt, TryStreamExt};
use sandbox::engine::container::{MemoryVolume, Mount, Network, User, VolumeSpec};
use sandbox::engine::{Chunk, ContainerStatus, Engine, EngineError, Kind};
use tokio::io::AsyncWriteExt;

#[tokio::test]
async fn describes_the_engine() {
    let fixture = Fixture::new("describe").await;
    let (info, system) = (fixture.engine.info(), fixture.engine.system().await.unwrap());
    assert!(!info.version.is_empty() && info.endpoint.contains("://"), "{info:?}");
    assert!(["1", "2"].contains(&system.cgroup_version.as_str()), "{system:?}");
    assert!(!system.id.is_empty() && !system.storage_driver.is_empty(), "{system:?}");
}

#[tokio::test]
async fn attaching_before_the_start_misses_nothing() {
    let fixture = Fixture::new("attach").await;
    for _ in 0..3 {
        let id = fixture.create(&spec(&fixture, &["/inside", "greet"])).await;
        let mut stream = fixture.engine.attach(&id).await.unwrap();
        fixture.engine.start_container(&id).await.unwrap();
        assert_eq!(read_all(&mut stream.output).await, (b"out\n".to_vec(), b"err\n".to_vec()));
        assert_eq!(fixture.engine.wait_container(&id).await.unwrap(), 3);
        let state = fixture.engine.inspect_container(&id).await.unwrap().unwrap();
        assert_eq!((state.status, state.exit_code), (ContainerStatus::Exited, Some(3)));
        assert!(state.started_at.is_some() && state.finished_at.is_some() && !state.oom_killed);
        fixture.engine.remove_container(&id).await.unwrap();
    }
}

#[tokio::test]
async fn output_that_looks_like_a_frame_arrives_as_it_is() {
    let fixture = Fixture::new("evil").await;
    let expected = b"\x01\0\0\0\xff\xff\xff\xff and on";
    let id = fixture.create(&spec(&fixture, &["/inside", "evil"])).await;
    let mut stream = fixture.engine.attach(&id).await.unwrap();
    fixture.engine.start_container(&id).await.unwrap();
    assert_eq!(read_all(&mut stream.output).await.0, expected);
    fixture.engine.wait_container(&id).await.unwrap();
    let chunks: Vec<Chunk> = fixture.engine.logs(&id, false, None).try_collect().await.unwrap();
    let log: Vec<u8> = chunks
        .into_iter()
        .flat_map(|chunk| match chunk {
            Chunk::Out(bytes) | Chunk::Err(bytes) => bytes,
        })
        .collect();
    assert_eq!(log, expected);
}

#[tokio::test]
async fn input_reaches_a_container_that_was_attached_to_before_it_started() {
    let fixture = Fixture::new("input").await;
    let mut cat = spec(&fixture, &["/inside", "wait"]);
    cat.open_stdin = true;
    let id = fixture.create(&cat).await;
    let mut stream = fixture.engine.attach(&id).await.unwrap();
    stream.input.write_all(b"early").await.unwrap();
    fixture.engine.start_container(&id).await.unwrap();
    // The program does not read, so what counts is that nothing breaks and the output stays open.
    assert!(tokio::time::timeout(Duration::from_millis(300), stream.output.next()).await.is_err());
    fixture.engine.kill_container(&id, "KILL").await.unwrap();
    assert_eq!(read_all(&mut stream.output).await, (Vec::new(), Vec::new()));
}

#[tokio::test]
async fn closing_the_input_of_a_command_leaves_its_output_open() {
    let fixture = Fixture::new("exec").await;
    let id = fixture.start(&spec(&fixture, &["/inside", "wait"])).await;
    let mut stream = fixture.engine.exec(&id, &exec("cat", true)).await.unwrap();
    let payload = vec![b'x'; 3 << 20];
    let writing = async {
        stream.input.write_all(&payload).await.unwrap();
        stream.input.shutdown().await.unwrap();
    };
    let (_, (out, err)) = tokio::join!(writing, read_all(&mut stream.output));
    assert_eq!((out.len(), out == payload, err.len()), (payload.len(), true, 0));
    let exec_id = stream.exec_id.unwrap();
    assert_eq!(fixture.engine.exec_exit_code(&exec_id).await.unwrap(), Some(7));
}

#[tokio::test]
async fn a_command_without_input_sees_its_end_at_once() {
    let fixture = Fixture::new("noinput").await;
    let id = fixture.start(&spec(&fixture, &["/inside", "wait"])).await;
    let mut stream = fixture.engine.exec(&id, &exec("cat", false)).await.unwrap();
    assert_eq!(read_all(&mut stream.output).await, (Vec::new(), Vec::new()));
    let running = fixture.engine.exec(&id, &exec("wait", false)).await.unwrap();
    assert_eq!(fixture.engine.exec_exit_code(&running.exec_id.unwrap()).await.unwrap(), None);
}

#[tokio::test]
async fn a_command_in_a_container_that_does_not_run_says_so() {
    let fixture = Fixture::new("stopped").await;
    let id = fixture.create(&spec(&fixture, &["/inside", "wait"])).await;
    let error = fixture.engine.exec(&id, &exec("greet", false)).await.unwrap_err();
    assert!(matches!(error, EngineError::NotRunning { .. }), "{error:?}");
    let error = fixture.engine.exec("engine-test-absent", &exec("greet", false)).await.unwrap_err();
    assert!(matches!(error, EngineError::NotFound { kind: Kind::Container, .. }), "{error:?}");
    let error = fixture.engine.attach("engine-test-absent").await.unwrap_err();
    assert!(matches!(error, EngineError::NotFound { kind: Kind::Container, .. }), "{error:?}");
    let error = fixture.engine.wait_container("engine-test-absent").await.unwrap_err();
    assert!(error.is_not_found(), "{error:?}");
}

#[tokio::test]
async fn the_hardening_is_there_inside() {
    let fixture = Fixture::new("hardening").await;
    let id = fixture.create(&spec(&fixture, &["/inside", "confinement"])).await;
    let mut stream = fixture.engine.attach(&id).await.unwrap();
    fixture.engine.start_container(&id).await.unwrap();
    let text = String::from_utf8(read_all(&mut stream.output).await.0).unwrap();
    let words: Vec<String> = text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    for expected in [
        "CapBnd: 0000000000000000",
        "CapEff: 0000000000000000",
        "NoNewPrivs: 1",
        "Seccomp: 2",
        "Uid: 1000 1000 1000 1000",
        "Groups: 1000 65533",
        "Max core file size 1 1 bytes",
        "Max open files 64 64 files",
        "/written: Some(ReadOnlyFilesystem)",
        "/tmp/written: None",
    ] {
        assert!(words.iter().any(|line| line == expected), "{expected} is not in:\n{text}");
    }
}

#[tokio::test]
async fn the_environment_of_the_image_does_not_leak_in() {
    let fixture = Fixture::new("environment").await;
    let id = fixture.create(&spec(&fixture, &["/inside", "environment"])).await;
    let mut stream = fixture.engine.attach(&id).await.unwrap();
    fixture.engine.start_container(&id).await.unwrap();
    let text = String::from_utf8(read_all(&mut stream.output).await.0).unwrap();
    assert!(text.contains("OURS=1\n") && text.contains("LD_PRELOAD=\n") && !text.contains("/evil.so"), "{text}");
}

#[tokio::test]
async fn a_container_is_as_planned_before_and_after_its_start() {
    let fixture = Fixture::new("verify").await;
    let relay = spec(&fixture, &["/inside", "wait"]);
    let relay_id = fixture.start(&relay).await;
    assert_eq!(fixture.engine.verify_container(&relay_id, &relay).await.unwrap(), [""; 0]);

    // The engine writes the id where the plan has the name.
    let mut agent = spec(&fixture, &["/inside", "wait"]);
    agent.name.push_str("-agent");
    agent.hostname = None;
    agent.dns.clear();
    agent.network = Network::Container(relay.name.clone());
    let agent_id = fixture.start(&agent).await;
    assert_eq!(fixture.engine.verify_container(&agent_id, &agent).await.unwrap(), [""; 0]);

    agent.network = Network::None;
    agent.limits.pids += 1;
    agent.labels.insert("dev.sandbox.plan".into(), "other".into());
    let differences = fixture.engine.verify_container(&agent_id, &agent).await.unwrap();
    let fields: Vec<&str> = differences.iter().filter_map(|text| text.split(' ').next()).collect();
    assert_eq!(fields, ["NetworkMode", "PidsLimit", "Labels.dev.sandbox.plan"]);
}

#[tokio::test]
async fn every_profile_gives_a_container_that_is_as_planned() {
    let fixture = Fixture::new("profile").await;
    for name in sandbox::profile::NAMES {
        let profile = sandbox::profile::load(name).unwrap();
        let mut agent = spec(&fixture, &["/inside", "greet"]);
        agent.seccomp = Some(profile.seccomp_json);
        agent.masked_paths = profile.masked_paths;
        agent.readonly_paths = profile.readonly_paths;
        let id = fixture.start(&agent).await;
        assert_eq!(fixture.engine.wait_container(&id).await.unwrap(), 3, "{name}");
        assert_eq!(fixture.engine.verify_container(&id, &agent).await.unwrap(), [""; 0], "{name}");
        fixture.engine.remove_container(&id).await.unwrap();
    }
}

#[tokio::test]
async fn a_taken_name_and_an_absent_image_are_told_apart() {
    let fixture = Fixture::new("names").await;
    let spec = spec(&fixture, &["/inside", "wait"]);
    let id = fixture.create(&spec).await;
    let error = fixture.engine.create_container(&spec).await.unwrap_err();
    assert!(matches!(error, EngineError::NameTaken { kind: Kind::Container, .. }), "{error:?}");
    let mut imageless = spec.clone();
    imageless.image = format!("sha256:{}", "0".repeat(64));
    let error = fixture.engine.create_container(&imageless).await.unwrap_err();
    assert!(matches!(error, EngineError::NotFound { kind: Kind::Image, .. }), "{error:?}");

    let labels = ["dev.sandbox.test=names".to_owned()];
    let listed = fixture.engine.containers(&labels).await.unwrap();
    assert_eq!(listed.iter().map(|container| &container.id).collect::<Vec<_>>(), [&id]);
    assert_eq!((listed[0].status, listed[0].exit_code), (ContainerStatus::Created, None));
    fixture.engine.remove_container(&id).await.unwrap();
    fixture.engine.remove_container(&id).await.unwrap();
    fixture.engine.kill_container(&id, "KILL").await.unwrap();
    assert!(fixture.engine.inspect_container(&spec.name).await.unwrap().is_none());
}

#[tokio::test]
async fn an_image_that_declares_a_volume_is_refused_unless_it_is_covered() {
    let fixture = Fixture::new("declared").await;
    let image = fixture::load(&fixture.engine, &["/data"]).await;
    let mut spec = spec(&fixture, &["/inside", "wait"]);
    spec.image = image;
    let error = fixture.engine.create_container(&spec).await.unwrap_err();
    assert!(matches!(error, EngineError::VolumeUncovered { ref volume, .. } if volume == "/data"), "{error:?}");
    spec.tmpfs[0].target = "/data".into();
    let id = fixture.create(&spec).await;
    assert_eq!(fixture.engine.verify_container(&id, &spec).await.unwrap(), [""; 0]);
}

#[tokio::test]
async fn stops_within_the_grace_and_waits_with_the_code() {
    let fixture = Fixture::new("stop").await;
    let id = fixture.start(&spec(&fixture, &["/inside", "wait"])).await;
    let waiting = fixture.engine.wait_container(&id);
    // Process 1 has no handler, so the signal does nothing and the engine kills it.
    let (code, stopped) = tokio::join!(waiting, fixture.engine.stop_container(&id, Duration::from_millis(10)));
    stopped.unwrap();
    assert_eq!(code.unwrap(), 137);
    fixture.engine.stop_container(&id, Duration::ZERO).await.unwrap();
}

#[tokio::test]
async fn memory_that_runs_out_shows_as_state_or_as_event() {
    let fixture = Fixture::new("oom").await;
    let labels = ["dev.sandbox.test=oom".to_owned()];
    let mut hungry = spec(&fixture, &["/inside", "eat"]);
    hungry.limits.memory = 16 << 20;
    // Engine 20.10 now and then loses the cause of a container that ends at once, as event and as state.
    for _ in 0..5 {
        let mut events = Box::pin(fixture.engine.events(&labels));
        let cause = async {
            while let Some(event) = events.next().await {
                let event = event.unwrap();
                assert_eq!(event.container, hungry.name);
                if event.action == "oom" {
                    return true;
                }
            }
            false
        };
        let run = async {
            // The engine has to see the subscription before there is anything to tell.
            tokio::time::sleep(Duration::from_millis(500)).await;
            let id = fixture.start(&hungry).await;
            fixture.engine.wait_container(&id).await.unwrap();
            fixture.engine.inspect_container(&id).await.unwrap().unwrap()
        };
        let (told, state) = tokio::join!(tokio::time::timeout(Duration::from_secs(5), cause), run);
        assert_eq!(state.exit_code, Some(137), "{state:?}");
        fixture.engine.remove_container(&state.id).await.unwrap();
        if told == Ok(true) || state.oom_killed {
            return;
        }
    }
    panic!("five containers died of memory, and the engine told of none");
}

#[tokio::test]
async fn a_log_can_be_followed_and_cut() {
    let fixture = Fixture::new("logs").await;
    let id = fixture.start(&spec(&fixture, &["/inside", "confinement"])).await;
    let follow = fixture.engine.logs(&id, true, None);
    let chunks: Vec<Chunk> =
        tokio::time::timeout(Duration::from_secs(30), follow.try_collect()).await.unwrap().unwrap();
    assert!(!chunks.is_empty());
    let tail: Vec<Chunk> = fixture.engine.logs(&id, false, Some(1)).try_collect().await.unwrap();
    assert_eq!(tail, [Chunk::Out("/tmp/written: None\n".into())]);
    let missing: Result<Vec<Chunk>, _> = fixture.engine.logs("engine-test-absent", false, None).try_collect().await;
    assert!(missing.unwrap_err().is_not_found());
}

#[tokio::test]
async fn a_volume_in_memory_is_what_it_says_and_is_never_taken_for_another() {
    let fixture = Fixture::new("volume").await;
    let mut volume = VolumeSpec {
        name: fixture.name("secrets"),
        labels: fixture.labels(),
        memory: Some(MemoryVolume { size: 1 << 20, mode: 0o750, owner: User { uid: 1000, gid: 1000 }, noswap: false }),
    };
    fixture.engine.create_volume(&volume).await.unwrap();
    fixture.engine.create_volume(&volume).await.unwrap();
    let found = fixture.engine.inspect_volume(&volume.name).await.unwrap().unwrap();
    assert_eq!(found.labels, volume.labels);
    assert_eq!(found.options["type"], "tmpfs");
    assert_eq!(fixture.engine.volumes(&["dev.sandbox.test=volume".into()]).await.unwrap().len(), 1);

    let mut user = spec(&fixture, &["/inside", "wait"]);
    user.mounts = vec![Mount { volume: volume.name.clone(), target: "/secrets".into(), read_only: true, copy: false }];
    let id = fixture.start(&user).await;
    assert_eq!(fixture.engine.verify_container(&id, &user).await.unwrap(), [""; 0]);
    let error = fixture.engine.remove_volume(&volume.name).await.unwrap_err();
    assert!(matches!(error, EngineError::InUse { kind: Kind::Volume, .. }), "{error:?}");

    volume.memory = None;
    let error = fixture.engine.create_volume(&volume).await.unwrap_err();
    assert!(matches!(error, EngineError::NameTaken { kind: Kind::Volume, .. }), "{error:?}");
    fixture.engine.remove_container(&id).await.unwrap();
    fixture.engine.remove_volume(&volume.name).await.unwrap();
    fixture.engine.remove_volume(&volume.name).await.unwrap();
    assert!(fixture.engine.inspect_volume(&volume.name).await.unwrap().is_none());
}

#[tokio::test]
async fn launchers_that_want_the_same_network_at_once_get_one() {
    let fixture = Fixture::new("network").await;
    let name = fixture.name("egress");
    let labels = fixture.labels();
    let attempts = (0..4).map(|_| fixture.engine.ensure_network(&name, &labels));
    futures_util::future::try_join_all(attempts).await.unwrap();
    fixture.engine.ensure_network(&name, &labels).await.unwrap();
    assert!(fixture.engine.network_gateway(&name).await.unwrap().is_some());

    let mut user = spec(&fixture, &["/inside", "wait"]);
    user.network = Network::Named(name.clone());
    let id = fixture.start(&user).await;
    assert_eq!(fixture.engine.verify_container(&id, &user).await.unwrap(), [""; 0]);
    let error = fixture.engine.remove_network(&name).await.unwrap_err();
    assert!(matches!(error, EngineError::InUse { kind: Kind::Network, .. }), "{error:?}");
    fixture.engine.remove_container(&id).await.unwrap();
    fixture.engine.remove_network(&name).await.unwrap();
    // Were there a twin, it would still be found by the name.
    assert_eq!(fixture.engine.network_gateway(&name).await.unwrap(), None);
    fixture.engine.remove_network(&name).await.unwrap();
}

#[tokio::test]
async fn an_image_is_known_by_what_it_brings() {
    let fixture = Fixture::new("image").await;
    let image = fixture.engine.image(&fixture.image).await.unwrap().unwrap();
    assert_eq!(image.environment["LD_PRELOAD"], "/evil.so");
    assert_eq!(image.diff_ids.len(), 1);
    assert!(image.size > 0 && image.volumes.is_empty());
    let listed = fixture.engine.images(&["dev.sandbox.test=image".into()]).await.unwrap();
    assert!(listed.iter().any(|found| found.id == image.id));
    let id = fixture.create(&spec(&fixture, &["/inside", "wait"])).await;
    let error = fixture.engine.load_image(&b"not an archive"[..]).await.unwrap_err();
    assert!(matches!(error, EngineError::Api { .. }), "{error:?}");
    fixture.engine.remove_container(&id).await.unwrap();
    assert!(fixture.engine.image("sandbox-absent:latest").await.unwrap().is_none());
    fixture.engine.remove_image("sandbox-absent:latest").await.unwrap();
}

#[tokio::test]
async fn an_absent_engine_is_named_with_its_address() {
    let endpoint = sandbox::engine::Endpoint::Unix("/nonexistent/docker.sock".into());
    let error = Engine::connect(endpoint.clone()).await.unwrap_err();
    assert!(matches!(error, EngineError::NotAnswering { endpoint: ref found, .. } if *found == endpoint), "{error:?}");
}
