//! A whole session with a value of each kind, at the log's finest level and with parts that crash: no value is anywhere but
//! in the agent's memory-backed files and in the gateway's memory.
#![allow(clippy::unwrap_used, reason = "a test says by a panic what is wrong")]

mod support;

use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use rustix::process::{Pid, Signal};
use support::{Home, Project, assert_no_canary, docker, eventually, grep, status, supervisors, text};

const FILED: &str = "canary-filed-0d6c5b1e94";
const BROKERED: &str = "canary-brokered-7a31f208cd";
const ISSUED: &str = "canary-issued-c4e9927b55";
const ROTATED: &str = "canary-rotated-18fd03aa6e";

const MANIFEST: &str = "image: agent
network:
  allow: [api.example.test]
credentials:
  filed: { provider: store }
  brokered:
    provider: store
    deliver: { broker: api.example.test, header: x-api-key, environment: API_KEY }
  issued:
    provider: exec
    command: [./issue]
    revoke_command: [./revoke]
";

/// Prints a value as an issuer of a team's own would, and complains about it on standard error.
const ISSUE: &str = r#"#!/bin/sh
cat > /dev/null
echo "the value is VALUE" >&2
printf '{"value": "VALUE-%s", "expires_at": "%s", "handle": "issued-4711"}\n' \
    "$(date +%N)" "$(date --utc --date='+1 hour' +%Y-%m-%dT%H:%M:%SZ)"
"#;

#[test]
fn a_value_is_nowhere_but_where_it_belongs() {
    let home = Home::new();
    let project = Project::new(&home, "canary", MANIFEST);
    for (name, content) in
        [("issue", ISSUE.replace("VALUE", ISSUED)), ("revoke", "#!/bin/sh\ncat > /dev/null\n".into())]
    {
        let path = project.path().join(name);
        // The value is the script's own, where the search does not look.
        std::fs::write(&path, content).unwrap();
        std::fs::set_permissions(path, PermissionsExt::from_mode(0o755)).unwrap();
    }
    let canaries = [FILED, BROKERED, ISSUED, ROTATED];
    let run = |words: &[&str], input: &str| {
        let mut command = home.sandbox();
        command.args(words).env("SANDBOX_LOG", "trace").env("RUST_BACKTRACE", "full").write_stdin(input.to_owned());
        let output = command.output().unwrap();
        let said = text(&output.stdout) + &text(&output.stderr);
        for canary in canaries {
            assert!(!said.contains(canary), "{words:?} says {canary}");
        }
        (output.status.success(), said)
    };
    let good = |words: &[&str], input: &str| {
        let (success, said) = run(words, input);
        assert!(success, "{words:?}: {said}");
        said
    };
    let name = project.name();
    good(&["credential", "set", "filed", name], FILED);
    good(&["credential", "set", "brokered", name], BROKERED);
    let said = good(&["up", name, "--detach", "--", "sleep", "600"], "");
    assert!(said.contains("INFO sandbox::commands::progress"), "nothing is logged: {said}");
    let search = |words: &str| good(&["exec", name, "--", "bash", "-c", words], "");
    assert!(
        search("grep -l canary- /run/secrets/* | tr '\\n' ' '").contains("/run/secrets/filed /run/secrets/issued"),
        "the search finds nothing"
    );
    assert!(!search("env; cat /proc/[0-9]*/environ /proc/[0-9]*/cmdline; true").contains("canary-filed"));
    assert_no_canary(&home, name, &canaries);

    good(&["credential", "rotate", "filed", name], ROTATED);
    good(&["credential", "rotate", "issued", name], "");
    eventually("the new value", Duration::from_secs(20), || search("cat /run/secrets/filed | wc -c").contains("25"));
    for words in [
        &["credential", "check", name][..],
        &["credential", "ls", name, "--format", "json"],
        &["credential", "ls", name],
        &["status", name, "--format", "json"],
        &["why", name, "api.example.test"],
        &["plan", name],
        &["network", "log", name],
        &["report", name],
        &["ps"],
        &["doctor"],
        &["audit", "log", "--format", "json"],
    ] {
        run(words, "");
    }
    // Both sides crash: the launcher's supervisor, and the gateway, which has the brokered value in its memory.
    let process = |role: &str| {
        let container = format!("sandbox-{name}.main-{role}");
        text(&docker(&["inspect", "--format", "{{.State.Pid}}", &container]).stdout).trim().parse::<i32>().unwrap()
    };
    let gateway = process("gateway");
    let supervisor = supervisors(project.path())[0];
    // The first process of a container takes no other signal from outside.
    for (id, signal) in [(gateway, Signal::KILL), (supervisor, Signal::ABORT)] {
        rustix::process::kill_process(Pid::from_raw(id).unwrap(), signal).unwrap();
    }
    eventually("the end of the supervisor", Duration::from_secs(10), || supervisors(project.path()).is_empty());
    good(&["up", name, "--detach", "--", "sleep", "600"], "");
    assert!(![0, gateway].contains(&process("gateway")));
    eventually("the session's recovery", Duration::from_secs(20), || status(&home, name)["condition"] == "running");
    assert_no_canary(&home, name, &canaries);

    good(&["down", "--discard", name], "");
    good(&["audit", "report", "--project", name], "");
    assert_no_canary(&home, name, &canaries);
    std::fs::remove_file(project.path().join("issue")).unwrap();
    grep(project.path(), 0, &canaries);
}
