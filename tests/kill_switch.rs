//! `sandbox credential revoke --all` and `--owner` on a real engine: what is out ends at its issuer, also after a crash and
//! past a failure, and what still lives is named.

#![allow(clippy::unwrap_used, reason = "a test says by a panic what is wrong")]

mod support;

use std::fs;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;
use support::{Home, Project, eventually, status, text};

/// Credentials of two commands that write down what they do, the second of which cannot revoke while a file is there.
fn manifest(home: &Path) -> String {
    let notes = home.join("notes").display().to_string();
    let broken = home.join("broken").display().to_string();
    let command = |text: String| serde_json::to_string(&["/bin/sh", "-c", &text]).unwrap();
    let issue = |name: &str| {
        command(format!(
            "echo issued {name} >> {notes}; echo '{{\"value\":\"value-of-{name}\",\"handle\":\"{name}\"}}'"
        ))
    };
    let revoke = |name: &str, before: &str| command(format!("{before} cat >/dev/null; echo revoked {name} >> {notes}"));
    format!(
        "image: agent\ncommand: [bash, -l]\ncredentials:\n\
         \x20 good: {{ provider: exec, command: {}, revoke_command: {} }}\n\
         \x20 stubborn: {{ provider: exec, command: {}, revoke_command: {} }}\n",
        issue("good"),
        revoke("good", ""),
        issue("stubborn"),
        revoke("stubborn", &format!("test ! -e {broken} || exit 3;"))
    )
}

fn up(home: &Home, project: &str, name: &str) {
    let up = home.sandbox().args(["up", project, "--name", name, "--detach", "--", "sleep", "300"]).output().unwrap();
    assert!(up.status.success(), "{}", text(&up.stderr));
}

/// Runs the kill switch. Gives its exit code and its rows.
fn revoke(home: &Home, arguments: &[&str]) -> (i32, Vec<Value>) {
    let output = home.sandbox().args(["credential", "revoke", "--format", "json"]).args(arguments).output().unwrap();
    let rows = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", text(&output.stderr)));
    (output.status.code().unwrap(), rows)
}

#[test]
fn all_that_a_project_has_ends_in_every_sandbox_and_past_a_failure() {
    let home = Home::new();
    let project = Project::new(&home, "kill", &manifest(home.path()));
    let notes = || fs::read_to_string(home.path().join("notes")).unwrap();
    up(&home, project.name(), "main");
    up(&home, project.name(), "second");
    fs::write(home.path().join("broken"), "").unwrap();

    let (code, rows) = revoke(&home, &["--all", project.name()]);
    let result = |sandbox: &str, name: &str| {
        let row = rows.iter().find(|row| row["sandbox"] == sandbox && row["credential"] == name).unwrap();
        (!row["out"].as_bool().unwrap(), row["result"].as_str().unwrap().to_owned())
    };
    assert_eq!((code, rows.len()), (1, 4), "{rows:?}");
    for sandbox in ["main", "second"] {
        assert_eq!(result(sandbox, "good"), (true, "revoked".to_owned()));
        let (ended, words) = result(sandbox, "stubborn");
        assert!(!ended && words.starts_with("NOT ended: "), "{words}");
        let listed = ["exec", project.name(), "--name", sandbox, "--", "ls", "/run/secrets/"];
        let files = home.sandbox().args(listed).output().unwrap();
        assert!(
            !text(&files.stdout).contains("good") && !text(&files.stdout).contains("stubborn"),
            "{}",
            text(&files.stdout)
        );
        assert!(files.status.success(), "it still runs: {}", text(&files.stderr));
    }
    assert_eq!(notes().matches("revoked good").count(), 2, "{}", notes());

    // The issuer is back: what is left ends, and then nothing is.
    fs::remove_file(home.path().join("broken")).unwrap();
    let (code, rows) = revoke(&home, &["--all", project.name()]);
    assert_eq!((code, rows.len()), (0, 2), "{rows:?}");
    assert_eq!(notes().matches("revoked stubborn").count(), 2, "{}", notes());
    let (code, rows) = revoke(&home, &["--all", project.name()]);
    assert_eq!((code, rows.len()), (0, 0), "{rows:?}");
    let down = home.sandbox().args(["down", project.name(), "--name", "second"]).output().unwrap();
    assert!(down.status.success(), "{}", text(&down.stderr));
}

#[test]
fn what_a_crash_left_ends_by_its_owner_and_the_sandbox_with_it() {
    let home = Home::new();
    let project = Project::new(&home, "owner", &manifest(home.path()));
    up(&home, project.name(), "main");
    let supervisors = support::supervisors(project.path());
    assert_eq!(supervisors.len(), 1);
    let process = rustix::process::Pid::from_raw(supervisors[0]).unwrap();
    rustix::process::kill_process(process, rustix::process::Signal::KILL).unwrap();
    let (code, rows) = revoke(&home, &["--owner", "nobody-of-that-name"]);
    assert_eq!((code, rows.len()), (0, 0), "{rows:?}");
    let owner = status(&home, project.name())["owner"].as_str().unwrap().to_owned();
    let person = owner.split('@').next().unwrap();
    let (code, rows) = revoke(&home, &["--owner", person]);
    assert_eq!((code, rows.len()), (0, 2), "{rows:?}");
    assert!(rows.iter().all(|row| row["out"] == false && row["lives"].is_null()), "{rows:?}");
    let noted = fs::read_to_string(home.path().join("notes")).unwrap();
    assert!(noted.contains("revoked good") && noted.contains("revoked stubborn"), "{noted}");
    eventually("the end", Duration::from_secs(20), || status(&home, project.name())["condition"] == "stopped");
}

#[test]
fn sandboxes_are_stopped_when_that_is_asked_for() {
    let home = Home::new();
    let project = Project::new(&home, "stop", &manifest(home.path()));
    up(&home, project.name(), "main");
    let (code, rows) = revoke(&home, &["--all", "--stop", "--reason", "the laptop of ada was stolen", project.name()]);
    assert_eq!((code, rows.len()), (0, 2), "{rows:?}");
    eventually("the end", Duration::from_secs(20), || status(&home, project.name())["condition"] == "stopped");
    let log = home.sandbox().args(["audit", "log", "--action", "credential.revoke_requested"]).output().unwrap();
    assert!(text(&log.stdout).contains("the laptop of ada was stolen"), "{}", text(&log.stdout));
    let short =
        home.sandbox().args(["credential", "revoke", "--all", "--reason", "x", project.name()]).output().unwrap();
    assert_eq!(short.status.code(), Some(2), "{}", text(&short.stderr));
}

#[test]
fn what_the_issuer_cannot_end_is_said_to_live() {
    let home = Home::new();
    let project = Project::new(&home, "lives", "image: agent\ncredentials:\n  token: { provider: store }\n");
    let set =
        home.sandbox().args(["credential", "set", "token", project.name()]).write_stdin("a-value").output().unwrap();
    assert!(set.status.success(), "{}", text(&set.stderr));
    up(&home, project.name(), "main");
    let (code, rows) = revoke(&home, &["--all", project.name()]);
    assert_eq!((code, rows.len()), (1, 1), "{rows:?}");
    assert_eq!((&rows[0]["out"], &rows[0]["lives"]), (&false.into(), &"until it is rotated".into()), "{rows:?}");
}

#[test]
fn a_damaged_journal_is_named_and_keeps_no_other_sandbox_alive() {
    let home = Home::new();
    let project = Project::new(&home, "damaged", &manifest(home.path()));
    up(&home, project.name(), "main");
    let damaged = home.path().join("state/sandbox/sandboxes/other.main");
    fs::create_dir_all(&damaged).unwrap();
    fs::write(damaged.join("journal.json"), "{").unwrap();
    let output =
        home.sandbox().args(["credential", "revoke", "--all", project.name(), "--format", "json"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", text(&output.stderr));
    assert!(text(&output.stderr).contains("other.main"), "{}", text(&output.stderr));
    let noted = fs::read_to_string(home.path().join("notes")).unwrap();
    assert!(noted.contains("revoked good") && noted.contains("revoked stubborn"), "{noted}");
    fs::remove_dir_all(damaged).unwrap();
}

#[test]
fn what_two_projects_share_stands_with_its_reason_where_the_grant_is() {
    let home = Home::new();
    let one = Project::new(&home, "owns", "image: agent\ncredentials:\n  token: { provider: store }\n");
    let shared = format!("shared_with: {{ projects: [{}], reason: one contract and one key }}", one.name());
    let manifest = |further: &str| format!("image: agent\ncredentials:\n  token: {{ provider: store{further} }}\n");
    let (alone, with) =
        (Project::new(&home, "alone", &manifest("")), Project::new(&home, "with", &manifest(&format!(", {shared}"))));
    let set = |project: &Project<'_>| {
        let words = ["credential", "set", "token", project.name()];
        home.sandbox().args(words).write_stdin("the-value-of-one-contract").output().unwrap()
    };
    assert!(set(&one).status.success());
    let refused = set(&alone);
    assert!(!refused.status.success() && text(&refused.stderr).contains(one.name()), "{}", text(&refused.stderr));
    assert!(set(&with).status.success());
    let listed = home.sandbox().args(["credential", "ls", with.name()]).output().unwrap();
    assert!(text(&listed.stdout).contains("one contract and one key"), "{}", text(&listed.stdout));
    up(&home, with.name(), "main");
    let log =
        home.sandbox().args(["audit", "log", "--action", "credential.issued", "--format", "json"]).output().unwrap();
    assert!(text(&log.stdout).contains("one contract and one key"), "{}", text(&log.stdout));
    let report = home.sandbox().args(["audit", "report", "--project", with.name(), "--as", "csv"]).output().unwrap();
    let expected = format!("shared with {}: one contract and one key", one.name());
    assert!(text(&report.stdout).contains(&expected), "{}", text(&report.stdout));
}
