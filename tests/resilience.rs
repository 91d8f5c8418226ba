//! A running sandbox to which something happens: its limits are reached, its containers die, commands come at once.

#![allow(clippy::unwrap_used, reason = "a test says by a panic what is wrong")]

mod support;

use std::process::Stdio;
use std::time::Duration;

use support::{Home, Project, docker, eventually, status, supervisors, text};

/// A command that tells in the home folder how often it was started, and stays.
const COUNTS: &[&str] = &["bash", "-c", "date +%s.%N >> ~/starts; exec sleep 600"];

fn detached(home: &Home, project: &Project<'_>, command: &[&str]) {
    let up = home.sandbox().args(["up", project.name(), "--detach", "--"]).args(command).output().unwrap();
    assert!(up.status.success(), "{}", text(&up.stderr));
}

fn inside(home: &Home, project: &Project<'_>, script: &str) -> (Option<i32>, String) {
    let output = home.sandbox().args(["exec", project.name(), "--", "bash", "-c", script]).output().unwrap();
    (output.status.code(), text(&output.stdout) + &text(&output.stderr))
}

fn container(project: &Project<'_>, role: &str) -> String {
    format!("sandbox-{}.main-{role}", project.name())
}

fn actions(home: &Home) -> String {
    text(&home.sandbox().args(["audit", "log", "--format", "json"]).output().unwrap().stdout)
}

#[test]
fn a_session_that_takes_more_disk_than_it_may_is_ended_and_says_so() {
    let home = Home::new();
    let project = Project::new(&home, "disk", "image: agent\nresources: { disk: 64MiB }\n");
    detached(
        &home,
        &project,
        &["bash", "-c", "head -c 60M /dev/zero > ~/a; sleep 14; head -c 60M /dev/zero > b; sleep 600"],
    );
    eventually("the end of the session", Duration::from_secs(60), || {
        status(&home, project.name())["condition"] == "stopped"
    });
    let ended = status(&home, project.name())["ended"].to_string();
    assert!(ended.contains("`resources.disk`") && ended.contains("64MiB"), "{ended}");
    let log = actions(&home);
    assert!(log.contains("session.disk_nearly_full"), "{log}");
    // What it wrote is still there for review, and a new session has its say again.
    let again = home.sandbox().args(["up", project.name(), "--", "bash", "-c", "rm b; ls ~/a"]).output().unwrap();
    assert!(again.status.success(), "{}", text(&again.stderr));
}

#[test]
fn a_session_that_lasts_longer_than_it_may_is_ended_and_says_so() {
    let home = Home::new();
    let project = Project::new(&home, "time", "image: agent\nresources: { session: 60s }\n");
    detached(&home, &project, &["sleep", "600"]);
    eventually("the end of the session", Duration::from_secs(90), || {
        status(&home, project.name())["condition"] == "stopped"
    });
    let ended = status(&home, project.name())["ended"].to_string();
    assert!(ended.contains("`resources.session`"), "{ended}");
}

#[test]
fn a_relay_that_dies_is_started_again_and_the_agent_after_it() {
    let home = Home::new();
    let project = Project::new(&home, "relay", "image: agent\ncredentials:\n  token: { provider: store }\n");
    let set =
        home.sandbox().args(["credential", "set", "token", project.name()]).write_stdin("value").output().unwrap();
    assert!(set.status.success(), "{}", text(&set.stderr));
    detached(&home, &project, COUNTS);
    eventually("the first start", Duration::from_secs(5), || inside(&home, &project, "wc -l < ~/starts").1 == "1\n");
    assert!(docker(&["kill", &container(&project, "relay")]).status.success());
    eventually("the second start", Duration::from_secs(30), || inside(&home, &project, "wc -l < ~/starts").1 == "2\n");
    let status = status(&home, project.name());
    assert_eq!(status["condition"], "running");
    assert!(status["restarted"].is_string(), "{status}");
    assert_eq!(inside(&home, &project, "cat /run/secrets/token").1, "value");
    let log = actions(&home);
    assert!(log.contains("relay.died") && log.contains("agent.restarted"), "{log}");
}

#[test]
fn a_command_in_the_foreground_says_that_the_relay_died() {
    let home = Home::new();
    let project = Project::new(&home, "foreground", "image: agent\n");
    let mut up = home.command();
    up.args(["up", project.name(), "--", "bash", "-c", "echo started; sleep 600"]);
    let up = up.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    eventually("the start", Duration::from_secs(30), || {
        text(&docker(&["top", &container(&project, "agent")]).stdout).contains("sleep 600")
    });
    assert!(docker(&["kill", &container(&project, "relay")]).status.success());
    let output = up.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(125));
    let said = text(&output.stderr);
    assert!(
        said.contains("error[session-ended]: the relay died, so the agent's container was started again"),
        "{said}"
    );
    assert!(said.contains(&format!("next: run it again with `sandbox up {}`", project.name())), "{said}");
}

#[test]
fn a_gateway_that_dies_is_started_again_and_what_runs_goes_on() {
    let home = Home::new();
    let project = Project::new(&home, "gateway", "image: agent\n");
    detached(&home, &project, COUNTS);
    let denied = "curl --silent --show-error --max-time 5 http://example.com/";
    assert!(inside(&home, &project, denied).1.contains("example.com"));
    assert!(docker(&["kill", &container(&project, "gateway")]).status.success());
    eventually("the gateway's return", Duration::from_secs(20), || actions(&home).contains("gateway.restarted"));
    // It has its policy again: what it refuses, it refuses by the list, and it records that.
    assert!(inside(&home, &project, denied).1.contains("host not allowed"), "{:?}", inside(&home, &project, denied));
    assert_eq!(inside(&home, &project, "wc -l < ~/starts").1, "1\n");
    assert!(status(&home, project.name())["restarted"].is_null());
}

/// Stops (SIGSTOP) what runs in a container, or lets it go on (SIGCONT).
fn signal(project: &Project<'_>, role: &str, name: &str) {
    let sent = docker(&["kill", "--signal", name, &container(project, role)]);
    assert!(sent.status.success(), "{}", text(&sent.stderr));
}

#[test]
fn a_gateway_and_a_relay_that_stand_still_let_nothing_through_and_go_on_where_they_were() {
    let home = Home::new();
    let project = Project::new(&home, "still", "image: agent\n");
    detached(&home, &project, COUNTS);
    let denied = "curl --silent --show-error --max-time 3 http://example.com/";
    assert!(inside(&home, &project, denied).1.contains("host not allowed"));
    for role in ["gateway", "relay"] {
        signal(&project, role, "STOP");
        let (code, said) = inside(&home, &project, denied);
        // curl(1): 28 is a time that ran out. Neither is there an answer, nor a way around.
        assert_eq!(code, Some(28), "{role}: {said}");
        signal(&project, role, "CONT");
        eventually(&format!("the {role}'s answer"), Duration::from_secs(10), || {
            inside(&home, &project, denied).1.contains("host not allowed")
        });
    }
    let status = status(&home, project.name());
    assert_eq!(status["condition"], "running", "{status}");
    assert_eq!(inside(&home, &project, "wc -l < ~/starts").1, "1\n");
}

#[test]
fn a_supervisor_that_stands_still_or_is_killed_opens_nothing_and_is_followed_by_the_next() {
    let home = Home::new();
    let project = Project::new(&home, "watcher", "image: agent\n");
    detached(&home, &project, COUNTS);
    let denied = "curl --silent --show-error --max-time 3 http://example.com/";
    let supervisor = || rustix::process::Pid::from_raw(supervisors(project.path())[0]).unwrap();
    let first = supervisor();
    rustix::process::kill_process(first, rustix::process::Signal::STOP).unwrap();
    // What it would restart stays away until it goes on: without a gateway nothing is let through.
    assert!(docker(&["kill", &container(&project, "gateway")]).status.success());
    let (_, said) = inside(&home, &project, denied);
    assert!(!said.contains("host not allowed"), "{said}");
    assert_ne!(inside(&home, &project, "curl --silent --fail --max-time 3 http://example.com/").0, Some(0));
    rustix::process::kill_process(first, rustix::process::Signal::CONT).unwrap();
    eventually("the gateway's return", Duration::from_secs(20), || {
        inside(&home, &project, denied).1.contains("host not allowed")
    });
    rustix::process::kill_process(first, rustix::process::Signal::KILL).unwrap();
    eventually("the supervisor's end", Duration::from_secs(10), || supervisors(project.path()).is_empty());
    // The gateway still decides, and what it decides is recorded once there is somebody to do so.
    assert!(inside(&home, &project, denied).1.contains("host not allowed"));
    detached(&home, &project, &["sleep", "600"]);
    eventually("another supervisor", Duration::from_secs(10), || !supervisors(project.path()).is_empty());
    assert_ne!(supervisor(), first);
    assert!(docker(&["kill", &container(&project, "gateway")]).status.success());
    eventually("the gateway's return", Duration::from_secs(30), || {
        inside(&home, &project, denied).1.contains("host not allowed")
    });
    assert_eq!(inside(&home, &project, "wc -l < ~/starts").1, "1\n");
}

#[test]
fn two_that_start_at_once_share_one_sandbox() {
    let home = Home::new();
    let project = Project::new(&home, "twice", "image: agent\n");
    let ups: Vec<_> = (0..2)
        .map(|_| {
            let mut up = home.command();
            up.args(["up", project.name(), "--", "bash", "-c", "printenv SANDBOX_SESSION; sleep 5"]);
            up.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
        })
        .collect();
    let outputs: Vec<_> = ups.into_iter().map(|up| up.wait_with_output().unwrap()).collect();
    for output in &outputs {
        assert!(output.status.success(), "{}", text(&output.stderr));
        assert_eq!(text(&output.stdout).trim().len(), 16, "{}", text(&output.stdout));
    }
    assert_eq!(text(&outputs[0].stdout), text(&outputs[1].stdout));
}

#[test]
fn what_was_decided_while_no_supervisor_lived_is_recorded_once_when_the_session_ends() {
    let home = Home::new();
    let project = Project::new(&home, "unwatched", "image: agent\n");
    detached(&home, &project, COUNTS);
    let ask = |host: &str| {
        let script = format!("curl --silent --max-time 10 --proxy http://127.0.0.1:3128 https://{host}/");
        assert_ne!(inside(&home, &project, &script).0, Some(0));
    };
    let denials = |host: &str| {
        let log =
            home.sandbox().args(["audit", "log", "--action", "network.denied", "--format", "json"]).output().unwrap();
        let events = serde_json::from_slice::<serde_json::Value>(&log.stdout).unwrap();
        events.as_array().unwrap().iter().filter(|event| event.to_string().contains(host)).count()
    };
    ask("before.example");
    eventually("the record of a denial", Duration::from_secs(10), || denials("before.example") == 1);
    // The supervisor writes down how far it came when nothing more comes.
    std::thread::sleep(Duration::from_secs(1));
    let supervisor = support::supervisors(project.path());
    assert_eq!(supervisor.len(), 1);
    let id = rustix::process::Pid::from_raw(supervisor[0]).unwrap();
    rustix::process::kill_process(id, rustix::process::Signal::KILL).unwrap();
    ask("meanwhile.example");
    let down = home.sandbox().args(["down", "--discard", project.name()]).output().unwrap();
    assert!(down.status.success(), "{}", text(&down.stderr));
    for host in ["before.example", "meanwhile.example"] {
        assert_eq!(denials(host), 1, "{host}: {}", actions(&home));
    }
}

#[test]
fn an_interrupted_launch_revokes_what_an_issuer_was_being_asked_for() {
    let home = Home::new();
    let manifest =
        "image: agent\ncredentials:\n  slow: { provider: exec, command: [./issue], revoke_command: [./revoke] }\n";
    let project = Project::new(&home, "interrupted", manifest);
    let script = |name: &str, text: &str| {
        let path = project.path().join(name);
        std::fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
        std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    };
    script(
        "issue",
        "touch asked; cat > /dev/null; sleep 2; echo '{\"value\": \"issued-value\", \"handle\": \"h-4711\"}'",
    );
    script("revoke", "cat >> revoked");
    let mut command = home.command();
    command.args(["up", project.name(), "--detach", "--", "sleep", "600"]);
    let launcher = command.stderr(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    eventually("the question to the issuer", Duration::from_secs(60), || project.path().join("asked").exists());
    let id = rustix::process::Pid::from_raw(i32::try_from(launcher.id()).unwrap()).unwrap();
    rustix::process::kill_process(id, rustix::process::Signal::INT).unwrap();
    let output = launcher.wait_with_output().unwrap();
    assert!(!output.status.success(), "{}{}", text(&output.stdout), text(&output.stderr));
    let revoked = std::fs::read_to_string(project.path().join("revoked")).unwrap_or_default();
    assert!(revoked.contains("h-4711"), "{revoked:?}: {}", text(&output.stderr));
    let log = actions(&home);
    assert!(log.contains("credential.issued") && log.contains("credential.revoked"), "{log}");
    let left = docker(&["ps", "--quiet", "--filter", &format!("label=dev.sandbox.project={}", project.name())]);
    assert_eq!(text(&left.stdout), "", "a container runs: {}", text(&output.stderr));
}
