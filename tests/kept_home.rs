//! The agent's home that outlives `down`, on a real engine: kept, given back to the same sandbox alone, removed.

#![allow(clippy::unwrap_used, reason = "a test says by a panic what is wrong")]

mod support;

use std::process::{Output, Stdio};
use std::time::Duration;

use support::{Home, Project, eventually, text};

const KEPT: &str = "image: agent\ncommand: [bash, -l]\nworkspace: { home: keep }\n";

fn run(home: &Home, arguments: &[&str]) -> Output {
    home.sandbox().args(arguments).output().unwrap()
}

fn succeed(home: &Home, arguments: &[&str]) -> Output {
    let output = run(home, arguments);
    assert!(output.status.success(), "{arguments:?}: {}", text(&output.stderr));
    output
}

/// What the sandbox's home remembers, in a new session.
fn memory(home: &Home, project: &Project, options: &[&str]) -> String {
    let script = ["--", "bash", "-c", "cat ~/memory 2>/dev/null || echo nothing"];
    text(&succeed(home, &[&["up", project.name()], options, &script].concat()).stdout).trim().to_owned()
}

fn remember(home: &Home, project: &Project, options: &[&str], what: &str) {
    let script = format!("echo {what} > ~/memory; echo clone > /workspace/left");
    succeed(home, &[&["up", project.name()], options, &["--", "bash", "-c", &script]].concat());
}

#[test]
fn a_kept_home_comes_back_to_its_own_sandbox_until_it_is_discarded() {
    let home = Home::new();
    let project = Project::new(&home, "home", KEPT);
    let volume = format!("sandbox-{}.main-home", project.name());
    remember(&home, &project, &[], "first");
    succeed(&home, &["down", project.name()]);
    assert_eq!(support::objects(project.name()), std::slice::from_ref(&volume));
    let listed: serde_json::Value =
        serde_json::from_slice(&succeed(&home, &["ps", "--format", "json"]).stdout).unwrap();
    let row = listed.as_array().unwrap().iter().find(|row| row["project"] == project.name()).unwrap().clone();
    assert_eq!(row["condition"], "kept");
    // It is no rubbish, and another sandbox of the project has a home of its own.
    succeed(&home, &["gc"]);
    assert_eq!(support::objects(project.name()), std::slice::from_ref(&volume));
    assert_eq!(memory(&home, &project, &["--name", "other"]), "nothing");
    remember(&home, &project, &["--name", "other"], "second");
    let script = "cat ~/memory; test ! -e /workspace/left";
    let again = succeed(&home, &["up", project.name(), "--", "bash", "-c", script]);
    assert_eq!(text(&again.stdout), "first\n");
    assert!(text(&again.stderr).contains("comes along"), "{}", text(&again.stderr));
    succeed(&home, &["down", project.name()]);
    assert_eq!(memory(&home, &project, &["--fresh"]), "nothing");
    remember(&home, &project, &[], "third");
    succeed(&home, &["down", project.name()]);
    succeed(&home, &["down", "--discard-home", project.name()]);
    succeed(&home, &["down", "--discard-home", "--name", "other", project.name()]);
    assert_eq!(support::objects(project.name()), Vec::<String>::new());
    let log = text(&succeed(&home, &["audit", "log", "--format", "json"]).stdout);
    for action in ["home.kept", "home.reused", "home.removed"] {
        assert!(log.contains(action), "{action} is not in {log}");
    }
}

#[test]
fn a_launch_that_is_killed_does_not_lose_the_kept_home() {
    let home = Home::new();
    let project = Project::new(&home, "homecrash", KEPT);
    remember(&home, &project, &[], "kept");
    succeed(&home, &["down", project.name()]);
    let mut up = home.command();
    up.args(["up", project.name(), "--", "sleep", "60"]);
    let mut child = up.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    eventually("the first container", Duration::from_secs(60), || {
        support::objects(project.name()).iter().any(|name| name.contains("relay"))
    });
    child.kill().unwrap();
    child.wait().unwrap();
    succeed(&home, &["gc"]);
    assert_eq!(memory(&home, &project, &[]), "kept");
    succeed(&home, &["down", "--discard-home", project.name()]);
    assert_eq!(support::objects(project.name()), Vec::<String>::new());
}

#[test]
fn a_volume_of_that_name_that_this_machine_did_not_sign_is_not_taken() {
    let home = Home::new();
    let project = Project::new(&home, "homeforeign", KEPT);
    let volume = format!("sandbox-{}.main-home", project.name());
    assert!(support::docker(&["volume", "create", &volume]).status.success());
    let refused = run(&home, &["up", project.name(), "--", "true"]);
    let removed = support::docker(&["volume", "rm", &volume]);
    assert_eq!(refused.status.code(), Some(125));
    assert!(text(&refused.stderr).contains("belongs to somebody else"), "{}", text(&refused.stderr));
    assert!(removed.status.success(), "it was not removed by `up`, and nothing uses it");
}
