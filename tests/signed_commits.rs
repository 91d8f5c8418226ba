//! Commits that are signed with a key of their session: git and OpenSSH find the signature good, and `pull` tells them
//! from others.

#![allow(clippy::unwrap_used, reason = "a test says by a panic what is wrong")]

mod support;

use std::fs;
use std::process::Command;

use serde_json::Value;
use support::{Home, Project, assert_no_canary, text};

const MANIFEST: &str = "image: agent\ncommand: [bash, -l]\nworkspace: { sign: true }\n";

fn run(home: &Home, words: &[&str]) -> String {
    let output = home.sandbox().args(words).output().unwrap();
    assert!(output.status.success(), "{words:?}: {}", text(&output.stderr));
    text(&output.stdout)
}

fn commit(home: &Home, project: &Project<'_>, message: &str, further: &str) {
    let script = format!("cd /workspace && git {further} commit --quiet --allow-empty --message '{message}'");
    run(home, &["up", project.name(), "--", "sh", "-c", &script]);
}

fn signatures(pulled: &str) -> Vec<(String, String)> {
    let pulled: Value = serde_json::from_str(pulled).unwrap();
    let word = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let commits = pulled["review"]["commits"].as_array().unwrap_or_else(|| panic!("{pulled:#}"));
    commits.iter().map(|commit| (word(&commit["subject"]), word(&commit["signature"]))).collect()
}

#[test]
fn commits_of_a_session_are_told_from_others() {
    let home = Home::new();
    let project = Project::new(&home, "signed", MANIFEST);
    let name = project.name();
    assert!(run(&home, &["plan", name]).contains("signed with a key of the session"));
    run(&home, &["up", name, "--detach", "--", "sleep", "60"]);
    let key = run(&home, &["exec", name, "--", "cat", "/run/secrets/signing.key"]);
    assert!(key.contains("OPENSSH PRIVATE KEY"), "the test reads the key");
    commit(&home, &project, "first", "");
    let secret = key.lines().nth(2).unwrap();
    assert_no_canary(&home, name, &[secret]);
    run(&home, &["exec", name, "--", "pkill", "sleep"]);
    support::eventually("the first session's end", std::time::Duration::from_secs(20), || {
        support::status(&home, name)["condition"] == "stopped"
    });
    // Another session, with another key, goes on in the same clone.
    commit(&home, &project, "second", "");
    commit(&home, &project, "by hand", "-c commit.gpgSign=false");
    let told = run(&home, &["pull", name]);
    assert!(told.contains("Not signed by a session of this sandbox: "), "{told}");
    let expected = [("by hand", "none"), ("second", "session"), ("first", "session")];
    let pulled = signatures(&run(&home, &["pull", name, "--format", "json"]));
    assert_eq!(pulled, expected.map(|(subject, by)| (subject.to_owned(), by.to_owned())));

    // What the audit log has of the keys is enough for git itself, with OpenSSH.
    let log: Vec<Value> = serde_json::from_str(&run(&home, &["audit", "log", "--format", "json"])).unwrap();
    let keys: Vec<&str> = log
        .iter()
        .filter(|record| record["event"]["action"] == "session.signs")
        .map(|record| record["event"]["facts"]["key"].as_str().unwrap())
        .collect();
    assert_eq!(keys.len(), 3, "{log:#?}");
    let allowed = home.path().join("allowed");
    fs::write(&allowed, keys.iter().map(|key| format!("agent namespaces=\"git\" {key}\n")).collect::<String>())
        .unwrap();
    let git = |words: &[&str]| {
        let setting = format!("gpg.ssh.allowedSignersFile={}", allowed.display());
        Command::new("git").args(["-c", &setting]).args(words).current_dir(project.path()).output().unwrap()
    };
    let reference = format!("refs/sandbox/{name}/main");
    for (back, good) in [("", false), ("^", true), ("^^", true)] {
        let verified = git(&["verify-commit", &format!("{reference}{back}")]);
        assert_eq!(verified.status.success(), good, "{back}: {}", text(&verified.stderr));
    }
    run(&home, &["down", name]);
}
