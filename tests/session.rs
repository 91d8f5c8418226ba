//! The life of a sandbox on a real engine: start, join, streams, exit codes, crash, rotation, down.

#![allow(clippy::unwrap_used, reason = "a test says by a panic what is wrong")]

mod support;

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Command, Stdio};
use std::time::Duration;

use support::{Home, Project, eventually, status, text};

const PLAIN: &str = "image: agent\ncommand: [bash, -l]\n";

#[test]
fn up_runs_the_command_and_passes_its_streams_and_exit_code() {
    let home = Home::new();
    let project = Project::new(&home, "streams", PLAIN);
    let output = home
        .sandbox()
        .args(["up", project.name(), "--", "bash", "-c", "cat; echo oops >&2; exit 7"])
        .write_stdin("hello\n")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(7), "{}", text(&output.stderr));
    assert_eq!(text(&output.stdout), "hello\n");
    assert!(text(&output.stderr).contains("oops"));
    let absent = home.sandbox().args(["up", project.name(), "--", "no-such-program"]).output().unwrap();
    assert_eq!(absent.status.code(), Some(127), "{}", text(&absent.stderr));
    let denied = home.sandbox().args(["up", project.name(), "--", "/etc/passwd"]).output().unwrap();
    assert_eq!(denied.status.code(), Some(126), "{}", text(&denied.stderr));
    let usage = home.sandbox().args(["up", "--no-such-option"]).output().unwrap();
    assert_eq!(usage.status.code(), Some(125));
    let killed = home.sandbox().args(["up", project.name(), "--", "bash", "-c", "kill -TERM $$"]).output().unwrap();
    assert_eq!(killed.status.code(), Some(143), "{}", text(&killed.stderr));
}

#[test]
fn an_up_that_comes_while_a_session_ends_starts_the_next_one() {
    let home = Home::new();
    let project = Project::new(&home, "next", PLAIN);
    // One after the other, without a pause, also after a command that cannot be run.
    for command in ["no-such-program", "true", "no-such-program", "true"] {
        let output = home.sandbox().args(["up", project.name(), "--", command]).output().unwrap();
        let expected = if command == "true" { 0 } else { 127 };
        assert_eq!(output.status.code(), Some(expected), "{}", text(&output.stderr));
    }
    // At once: whoever comes while the other's session ends waits for its end.
    for pause in [0, 300, 600, 900] {
        let first = home.command().args(["up", project.name(), "--", "sleep", "0.5"]).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(1500 + pause));
        let second = home.sandbox().args(["up", project.name(), "--", "true"]).output().unwrap();
        assert_eq!(second.status.code(), Some(0), "after {pause} ms: {}", text(&second.stderr));
        let mut first = first;
        assert!(first.wait().unwrap().success());
    }
}

#[test]
fn a_second_up_joins_the_running_sandbox() {
    let home = Home::new();
    let project = Project::new(&home, "join", PLAIN);
    let up = home.sandbox().args(["up", project.name(), "--detach", "--", "sleep", "300"]).output().unwrap();
    assert!(up.status.success(), "{}", text(&up.stderr));
    let session = || {
        text(
            &home
                .sandbox()
                .args(["exec", project.name(), "--", "printenv", "SANDBOX_SESSION"])
                .output()
                .unwrap()
                .stdout,
        )
    };
    let first = session();
    assert_eq!(first.trim().len(), 16);
    let joined = home.sandbox().args(["up", project.name(), "--", "printenv", "SANDBOX_SESSION"]).output().unwrap();
    assert_eq!(text(&joined.stdout), first, "{}", text(&joined.stderr));
    let ps: serde_json::Value =
        serde_json::from_slice(&home.sandbox().args(["ps", "--format", "json"]).output().unwrap().stdout).unwrap();
    let rows: Vec<_> = ps.as_array().unwrap().iter().filter(|row| row["project"] == project.name()).collect();
    assert_eq!(rows.len(), 1);
    assert_eq!(rows[0]["condition"], "running");
}

#[test]
fn a_launcher_whose_file_is_replaced_while_it_runs_goes_on() {
    let home = Home::new();
    let project = Project::new(&home, "replaced", PLAIN);
    let own = home.path().join("sandbox");
    fs::copy(env!("CARGO_BIN_EXE_sandbox"), &own).unwrap();
    let mut up = home.command_of(&own);
    up.args(["up", project.name(), "--", "echo", "done"]);
    let up = up.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    fs::remove_file(&own).unwrap();
    let output = up.wait_with_output().unwrap();
    assert_eq!(text(&output.stdout), "done\n", "{}", text(&output.stderr));
}

#[test]
fn the_session_ends_with_its_last_command_and_the_clone_stays() {
    let home = Home::new();
    let project = Project::new(&home, "ends", PLAIN);
    // In two pieces, so that nobody takes this file for a place of one.
    let token = ["ghp_zQWBuTSOoRi4A9spHcVY5n", "cnsDkxkJ0mLq17"].concat();
    fs::write(project.path().join("settings.py"), format!("TOKEN = '{token}'\n")).unwrap();
    project.git(&["add", "."]);
    project.git(&["config", "user.name", "Ada Lovelace"]);
    project.git(&["config", "user.email", "ada@example.com"]);
    project.git(&["commit", "--quiet", "-m", "Settings"]);
    let up = home
        .sandbox()
        .args([
            "up",
            project.name(),
            "--",
            "bash",
            "-c",
            "echo kept > file && git add file && git commit -qm kept; printenv SANDBOX_SESSION",
        ])
        .output()
        .unwrap();
    assert!(up.status.success(), "{}", text(&up.stderr));
    let warned = text(&up.stderr);
    assert!(warned.contains("settings.py:1 holds a GitHub token") && !warned.contains(&token), "{warned}");
    let status: serde_json::Value = serde_json::from_slice(
        &home.sandbox().args(["status", project.name(), "--format", "json"]).output().unwrap().stdout,
    )
    .unwrap();
    assert_eq!(status["condition"], "stopped");
    assert_eq!(status["credentials"].as_array().unwrap().len(), 0);
    let again = home.sandbox().args(["up", project.name(), "--", "cat", "file"]).output().unwrap();
    assert_eq!(text(&again.stdout), "kept\n", "{}", text(&again.stderr));
    let refused = home.sandbox().args(["down", project.name()]).output().unwrap();
    assert!(!refused.status.success());
    assert!(text(&refused.stderr).contains("sandbox pull"), "{}", text(&refused.stderr));
    let diff = home.sandbox().args(["diff", project.name()]).output().unwrap();
    assert!(text(&diff.stdout).contains("file"), "{} {}", text(&diff.stdout), text(&diff.stderr));
    let own = home.path().join("config/sandbox/config.yaml");
    fs::create_dir_all(own.parent().unwrap()).unwrap();
    fs::write(&own, "review: { held_back: [\"F*\"] }\n").unwrap();
    let held = home.sandbox().args(["pull", project.name()]).output().unwrap();
    assert_eq!(held.status.code(), Some(1), "{}", text(&held.stderr));
    assert!(text(&held.stdout).contains("file: is held back by your configuration"), "{}", text(&held.stdout));
    let review = home.sandbox().args(["review", project.name()]).output().unwrap();
    assert!(text(&review.stdout).contains("--accept-risk"), "{}{}", text(&review.stdout), text(&review.stderr));
    let page = home.path().join(format!("state/sandbox/reviews/{}.main.html", project.name()));
    let shown = fs::read_to_string(&page).unwrap();
    assert!(shown.contains("1 held back") && shown.contains("+kept"), "{shown}");
    assert_eq!(fs::metadata(&page).unwrap().permissions().mode() & 0o777, 0o600);
    let nowhere = home.sandbox().args(["review", project.name(), "--output", "/proc/x.html"]).output().unwrap();
    assert!(text(&nowhere.stderr).contains("page-not-written"), "{}", text(&nowhere.stderr));
    fs::remove_file(own).unwrap();
    let pull = home.sandbox().args(["pull", project.name()]).output().unwrap();
    assert!(pull.status.success(), "{}{}", text(&pull.stdout), text(&pull.stderr));
    let log = Command::new("git")
        .args([
            "log",
            "--format=%an %s %(trailers:key=Sandbox-Session,valueonly)",
            &format!("refs/sandbox/{}/main", project.name()),
        ])
        .current_dir(project.path())
        .output()
        .unwrap();
    let commit = format!("{}-agent[bot] kept {}", project.name(), text(&up.stdout));
    assert!(text(&log.stdout).contains(&commit), "{}", text(&log.stdout));
    // Its author is the agent, and the person stands beside it.
    let reference = format!("refs/sandbox/{}/main", project.name());
    let people = project.git(&["log", "-1", "--format=%(trailers:key=Co-authored-by,valueonly)", &reference]);
    assert_eq!(people.trim(), "Ada Lovelace <ada@example.com>");
    let down = home.sandbox().args(["down", project.name()]).output().unwrap();
    assert!(down.status.success(), "{}", text(&down.stderr));
    assert_eq!(support::objects(project.name()), Vec::<String>::new());
    let report = text(&home.sandbox().args(["report", project.name()]).output().unwrap().stdout);
    let reference = format!("into refs/sandbox/{}/main", project.name());
    assert!(text(&down.stdout).contains("sandbox report") && report.contains(&reference), "{report}");
}

#[test]
fn a_rotated_value_reaches_the_running_agent_and_is_nowhere_else() {
    let home = Home::new();
    let manifest = format!("{PLAIN}credentials:\n  token: {{ provider: store }}\n");
    let project = Project::new(&home, "rotate", &manifest);
    let (old, new) = ("canary-7d1f9a52-old-value", "canary-90be11c4-new-value");
    let set = home.sandbox().args(["credential", "set", "token", project.name()]).write_stdin(old).output().unwrap();
    assert!(set.status.success(), "{}", text(&set.stderr));
    let argument = home.sandbox().args(["credential", "set", "token", project.name(), old]).output().unwrap();
    assert_eq!(argument.status.code(), Some(2), "a value is never an argument");
    let up = home
        .sandbox()
        .env("SANDBOX_LOG", "trace")
        .args(["up", project.name(), "--detach", "--", "sleep", "300"])
        .output()
        .unwrap();
    assert!(up.status.success(), "{}", text(&up.stderr));
    assert!(!text(&up.stderr).contains(old), "the log at the finest level holds the value");
    let read = || {
        text(&home.sandbox().args(["exec", project.name(), "--", "cat", "/run/secrets/token"]).output().unwrap().stdout)
    };
    assert_eq!(read(), old);
    let rotated =
        home.sandbox().args(["credential", "rotate", "token", project.name()]).write_stdin(new).output().unwrap();
    assert!(rotated.status.success(), "{}", text(&rotated.stderr));
    eventually("the new value's arrival", Duration::from_secs(5), || read() == new);
    let environment = text(&home.sandbox().args(["exec", project.name(), "--", "env"]).output().unwrap().stdout);
    assert!(!environment.contains(new));
    support::assert_no_canary(&home, project.name(), &[old, new]);
    let down = home.sandbox().args(["down", project.name()]).output().unwrap();
    assert!(down.status.success(), "{}", text(&down.stderr));
    support::assert_no_canary(&home, project.name(), &[old, new]);
    let verified = home.sandbox().args(["audit", "verify"]).output().unwrap();
    assert!(verified.status.success(), "{}", text(&verified.stderr));
    let log = text(&home.sandbox().args(["audit", "log", "--format", "json"]).output().unwrap().stdout);
    for action in [
        "credential.set",
        "session.launching",
        "session.probed",
        "credential.issued",
        "credential.delivered",
        "session.started",
        "credential.rotated",
        "credential.revoked",
        "session.stopped",
        "session.removed",
    ] {
        assert!(log.contains(action), "{action} is not in the audit log");
    }
    let report = home.sandbox().args(["report", project.name(), "--format", "json"]).output().unwrap();
    let report: serde_json::Value = serde_json::from_slice(&report.stdout).unwrap();
    let token = &report["credentials"][0];
    assert_eq!((&report["reason"], &token["rotations"]), (&"sandbox down".into(), &1.into()), "{report:#}");
    assert!(report["probes"].as_u64() >= Some(10) && token["withdrawn"]["time"].is_string(), "{report:#}");
    assert!(token["reads"].as_u64() >= Some(2), "{report:#}");
    let page = home.sandbox().args(["audit", "report", "--as", "html"]).output().unwrap();
    assert!(text(&page.stdout).contains("withdrawn from the sandbox"), "{}", text(&page.stderr));
}

/// A manifest with a credential from a command that writes down what it issues and revokes. From the second on it takes a
/// moment to issue one.
fn issuing(notes: &std::path::Path) -> String {
    let notes = notes.display();
    let issue = format!(
        "count=$(grep -c asked {notes} || true); echo asked >> {notes}; test $count -eq 0 || sleep 2; \
         echo issued $count >> {notes}; echo '{{\"value\":\"v'$count'\",\"handle\":\"'$count'\"}}'"
    );
    let revoke = format!("sed -n 's/.*\"handle\":\"\\([0-9]*\\)\".*/revoked \\1/p' >> {notes}; echo >> {notes}");
    let command = |text: &str| serde_json::to_string(&["/bin/sh", "-c", text]).unwrap();
    format!(
        "{PLAIN}credentials:\n  token: {{ provider: exec, command: {}, revoke_command: {} }}\n",
        command(&issue),
        command(&revoke)
    )
}

#[test]
fn a_credential_that_is_issued_while_the_session_ends_is_revoked_too() {
    for down in [false, true] {
        let home = Home::new();
        let notes = home.path().join("notes");
        fs::write(&notes, "").unwrap();
        let project = Project::new(&home, "issuing", &issuing(&notes));
        let up = home.sandbox().args(["up", project.name(), "--detach", "--", "sleep", "300"]).output().unwrap();
        assert!(up.status.success(), "{}", text(&up.stderr));
        let noted = || fs::read_to_string(&notes).unwrap();
        let rotate = home.sandbox().args(["credential", "rotate", "token", project.name()]).output().unwrap();
        assert!(rotate.status.success(), "{}", text(&rotate.stderr));
        eventually("the issuer's being asked", Duration::from_secs(10), || noted().matches("asked").count() == 2);
        if down {
            let down = home.sandbox().args(["down", project.name()]).output().unwrap();
            assert!(down.status.success(), "{}", text(&down.stderr));
        } else {
            let agent = format!("sandbox-{}.main-agent", project.name());
            assert!(support::docker(&["kill", &agent]).status.success());
            eventually("the end", Duration::from_secs(30), || status(&home, project.name())["condition"] == "stopped");
        }
        let noted = noted();
        assert!(noted.contains("issued 1") && noted.contains("revoked 0") && noted.contains("revoked 1"), "{noted}");
    }
}

#[test]
fn a_launcher_that_is_killed_leaves_nothing_that_the_next_command_does_not_mend() {
    let home = Home::new();
    let project = Project::new(&home, "killed", PLAIN);
    // The image and the launcher's image are there after this, so that the pauses below fall into the launch itself.
    let warm = home.sandbox().args(["up", project.name(), "--", "true"]).output().unwrap();
    assert!(warm.status.success(), "{}", text(&warm.stderr));
    assert!(home.sandbox().args(["down", project.name()]).output().unwrap().status.success());
    for pause in [50, 150, 300, 450, 600, 800, 1000] {
        let mut up = home.command();
        let mut child = up
            .args(["up", project.name(), "--", "sleep", "60"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(Duration::from_millis(pause));
        child.kill().unwrap();
        child.wait().unwrap();
        let mended = home.sandbox().args(["up", project.name(), "--", "echo", "mended"]).output().unwrap();
        assert_eq!(text(&mended.stdout), "mended\n", "after {pause} ms: {}", text(&mended.stderr));
        let down = home.sandbox().args(["down", project.name()]).output().unwrap();
        assert!(down.status.success(), "after {pause} ms: {}", text(&down.stderr));
        assert_eq!(support::objects(project.name()), Vec::<String>::new(), "after {pause} ms");
    }
}

#[test]
fn gc_removes_what_a_crash_left_and_keeps_what_is_stopped() {
    let home = Home::new();
    let project = Project::new(&home, "gc", PLAIN);
    let mut up = home.command();
    let mut child = up
        .args(["up", project.name(), "--", "sleep", "60"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    eventually("the first container", Duration::from_secs(60), || {
        support::objects(project.name()).iter().any(|name| name.contains("relay"))
    });
    child.kill().unwrap();
    child.wait().unwrap();
    let gc = home.sandbox().args(["gc"]).output().unwrap();
    assert!(gc.status.success(), "{}", text(&gc.stderr));
    assert_eq!(support::objects(project.name()), Vec::<String>::new(), "{}", text(&gc.stdout));
    let stopped = Project::new(&home, "kept", PLAIN);
    assert!(home.sandbox().args(["up", stopped.name(), "--", "true"]).output().unwrap().status.success());
    assert!(home.sandbox().args(["gc"]).output().unwrap().status.success());
    assert!(support::objects(stopped.name()).iter().any(|name| name.ends_with("-workspace")));
}

#[test]
fn gc_removes_what_other_versions_left_once_nothing_uses_it() {
    let home = Home::new();
    let project = Project::new(&home, "versions", PLAIN);
    // Another version: the same program with a byte behind it, which no loader reads, and its path makes it unique.
    let other = home.path().join("sandbox");
    let mut program = fs::read(env!("CARGO_BIN_EXE_sandbox")).unwrap();
    program.extend(other.as_os_str().as_encoded_bytes());
    fs::write(&other, program).unwrap();
    fs::set_permissions(&other, fs::Permissions::from_mode(0o755)).unwrap();
    let up = home.command_of(&other).args(["up", project.name(), "--", "true"]).output().unwrap();
    assert!(up.status.success(), "{}", text(&up.stderr));
    let gc = |arguments: &[&str]| {
        let output = home.sandbox().arg("gc").args(arguments).output().unwrap();
        assert!(output.status.success(), "{}", text(&output.stderr));
        text(&output.stdout)
    };
    assert!(gc(&[]).contains("nothing to clean up"), "a sandbox that is stopped still uses it");
    let down = home.sandbox().args(["down", project.name()]).output().unwrap();
    assert!(down.status.success(), "{}", text(&down.stderr));
    let told = gc(&["--dry-run"]);
    let digest = told.split(['(', ')']).nth(1).unwrap_or_else(|| panic!("{told}")).to_owned();
    let volumes = || text(&support::docker(&["volume", "ls", "--quiet", "--filter", &format!("name={digest}")]).stdout);
    assert_eq!(volumes().lines().count(), 1);
    assert!(gc(&[]).contains(&digest));
    assert_eq!(volumes(), "");
    assert!(gc(&[]).contains("nothing to clean up"));
}

#[test]
fn standard_input_is_half_closed_and_large_output_arrives_whole() {
    let home = Home::new();
    let project = Project::new(&home, "large", PLAIN);
    let mut child = home
        .command()
        .args(["up", project.name(), "--", "sha256sum"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let writer = std::thread::spawn(move || {
        for _ in 0..320 {
            stdin.write_all(&[0x5a; 65536]).unwrap();
        }
    });
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    use sha2::Digest as _;
    let expected = hex::encode(sha2::Sha256::digest(vec![0x5a; 320 * 65536]));
    assert!(text(&output.stdout).starts_with(&expected));
    let tricky = home
        .sandbox()
        .args(["up", project.name(), "--", "printf", "\\001\\000\\000\\000\\377\\377\\377\\377"])
        .output()
        .unwrap();
    assert_eq!(tricky.stdout, b"\x01\0\0\0\xff\xff\xff\xff");
}

#[test]
fn a_detached_command_is_followed_by_its_log() {
    let home = Home::new();
    let project = Project::new(&home, "detach", PLAIN);
    let up = home
        .sandbox()
        .args(["up", project.name(), "--detach", "--", "bash", "-c", "echo first; sleep 2; echo last"])
        .output()
        .unwrap();
    assert!(up.status.success(), "{}", text(&up.stderr));
    let logs = home.sandbox().args(["logs", "-f", project.name()]).timeout(Duration::from_secs(60)).output().unwrap();
    let log = text(&logs.stdout);
    assert!(log.contains("first") && log.contains("last"), "{log}");
    eventually("the end of the session", Duration::from_secs(30), || {
        let status = home.sandbox().args(["status", project.name(), "--format", "json"]).output().unwrap();
        text(&status.stdout).contains("\"stopped\"")
    });
}

#[test]
fn a_sandbox_with_a_shell_stays_up_in_the_background_until_down() {
    let home = Home::new();
    let project = Project::new(&home, "stays", "agent: shell\n");
    let up = home.sandbox().args(["up", "--detach", project.name()]).output().unwrap();
    let said = text(&up.stderr);
    assert!(
        up.status.success() && said.contains("`sandbox shell") && said.contains("is up until `sandbox down"),
        "{said}"
    );
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(status(&home, project.name())["condition"], "running");
    let inside = home.sandbox().args(["exec", project.name(), "--", "echo", "hello"]).output().unwrap();
    assert_eq!(text(&inside.stdout), "hello\n", "{}", text(&inside.stderr));
    assert_eq!(status(&home, project.name())["condition"], "running", "the last command that was typed ended it");
    assert!(home.sandbox().args(["down", project.name()]).output().unwrap().status.success());
}

#[test]
fn an_untrusted_or_changed_manifest_is_not_run() {
    let home = Home::new();
    let project = Project::new(&home, "trust", PLAIN);
    let manifest = project.path().join("sandbox.yaml");
    let mut changed = fs::read_to_string(&manifest).unwrap();
    changed.push_str("environment: { CHANGED: 'yes' }\n");
    fs::write(&manifest, changed).unwrap();
    let up = home.sandbox().args(["up", project.name(), "--", "true"]).output().unwrap();
    assert_eq!(up.status.code(), Some(125));
    assert!(text(&up.stderr).contains("sandbox trust"), "{}", text(&up.stderr));
    assert_eq!(support::objects(project.name()), Vec::<String>::new());
}

#[test]
fn a_terminal_has_a_size_and_is_restored() {
    use expectrl::Expect as _;
    let home = Home::new();
    let project = Project::new(&home, "tty", PLAIN);
    let up = home.sandbox().args(["up", project.name(), "--detach", "--", "sleep", "300"]).output().unwrap();
    assert!(up.status.success(), "{}", text(&up.stderr));
    let mut command = home.command();
    command.args(["shell", project.name()]);
    let mut session = expectrl::Session::spawn(command).unwrap();
    session.set_expect_timeout(Some(Duration::from_secs(20)));
    session.send_line("tty; echo size=$(stty size)").unwrap();
    session.expect("/dev/pts/").unwrap();
    session.expect(expectrl::Regex("size=[0-9]+ [0-9]+")).unwrap();
    session.send_line("exit 3").unwrap();
    let status = session.get_process().wait().unwrap();
    assert!(format!("{status:?}").contains('3'), "{status:?}");
}

#[test]
fn down_says_what_the_session_did_and_records_what_is_lost() {
    let home = Home::new();
    let project = Project::new(&home, "lost", PLAIN);
    let script = "cd /workspace && git commit --quiet --allow-empty --message lost && git rev-parse HEAD";
    let up = home.sandbox().args(["up", project.name(), "--", "sh", "-c", script]).output().unwrap();
    let head = text(&up.stdout).trim().to_owned();
    assert_eq!(head.len(), 40, "{}", text(&up.stderr));
    let refused = home.sandbox().args(["down", project.name()]).output().unwrap();
    assert_eq!(refused.status.code(), Some(1), "{}", text(&refused.stderr));
    let down = home.sandbox().args(["down", "--discard", project.name(), "--format", "json"]).output().unwrap();
    assert!(down.status.success(), "{}", text(&down.stderr));
    let answer: serde_json::Value = serde_json::from_slice(&down.stdout).unwrap();
    let report = &answer["report"];
    assert_eq!((&answer["removed"], &report["reason"]), (&true.into(), &"the last command ended".into()), "{answer:#}");
    assert!(report["processor_ms"].as_u64().unwrap() > 0, "{answer:#}");
    let lost = report["notices"].as_array().unwrap().iter().find(|one| one["action"] == "commits.discarded").unwrap();
    assert_eq!(lost["facts"]["head"], head.as_str(), "{answer:#}");
}
