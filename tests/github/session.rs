//! Whole sessions: git in the sandbox gets the token, the journal has none, and every token that was issued is ended,
//! also the replaced ones, the brokered ones, and those of a supervisor that died.

use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use serde_json::Value;

use crate::server::{APP, Github, INSTALLATION};
use crate::support::{Home, Project, assert_no_canary, eventually, supervisors};

fn manifest(github: &Github, network: &str, deliver: &str) -> String {
    format!(
        "image: agent
command: [bash, -l]
{network}credentials:
  github:
    provider: github-app
    address: {}
    app: {APP}
    installation: {INSTALLATION}
    repositories: [payments]
    permissions: {{ contents: write, pull_requests: write }}
    key_file: ~/app.pem
    deliver: {deliver}
",
        github.address
    )
}

fn with_key(home: &Home, github: &Github) {
    let key = home.path().join("app.pem");
    std::fs::write(&key, github.key()).unwrap();
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600)).unwrap();
}

fn run(home: &Home, words: &[&str]) -> (Option<i32>, String, String) {
    let output = home.sandbox().args(words).env("HOME", home.path()).output().unwrap();
    (output.status.code(), String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap())
}

fn good(home: &Home, words: &[&str]) -> String {
    let (code, output, errors) = run(home, words);
    assert_eq!(code, Some(0), "{words:?}: {errors}{output}");
    output
}

const FILL: &str = "printf 'protocol=https\\nhost=github.com\\n\\n' | git credential fill";

#[test]
fn git_has_a_token_until_the_session_ends() {
    let github = Github::start();
    let home = Home::new();
    with_key(&home, &github);
    let project = Project::new(&home, "github", &manifest(&github, "", "{ git: github.com }"));
    let name = project.name();

    let plan = good(&home, &["plan", name]);
    assert!(plan.contains("github from github-app") && plan.contains("1h"), "{plan}");
    let listed: Value = serde_json::from_str(&good(&home, &["credential", "ls", name, "--format", "json"])).unwrap();
    assert_eq!((&listed[0]["provider"], &listed[0]["state"]), (&"github-app".into(), &"on_demand".into()));
    let checked = good(&home, &["credential", "check", name, "--format", "json"]);
    assert!(serde_json::from_str::<Value>(&checked).unwrap()[0]["expires_at"].is_string(), "{checked}");
    assert!(github.good().is_empty(), "the token of a check is ended");

    good(&home, &["up", name, "--detach", "--", "sleep", "300"]);
    let first = github.good().pop().unwrap();
    let filled = good(&home, &["exec", name, "--", "sh", "-c", FILL]);
    assert!(filled.contains("username=x-access-token") && filled.contains(&format!("password={first}")), "{filled}");
    assert_no_canary(&home, name, &[&first]);

    good(&home, &["credential", "rotate", "github", name]);
    eventually("the new token's arrival", Duration::from_secs(30), || {
        !good(&home, &["exec", name, "--", "sh", "-c", FILL]).contains(&first)
    });
    let both = github.good();
    assert_eq!(both.len(), 2, "the replaced one goes on for its grace");
    good(&home, &["down", "--discard", name]);
    assert!(github.good().is_empty(), "{:?} outlive the session", github.good());
    let log = good(&home, &["audit", "log", "--format", "json"]);
    assert!(log.contains("credential.issued") && log.contains("credential.revoked"), "{log}");
    assert!(!log.contains("credential.left_to_expire"), "{log}");
    assert!(both.iter().all(|token| !log.contains(token)), "the audit log holds a token");
}

#[test]
fn a_brokered_token_ends_with_the_session() {
    let github = Github::start();
    let home = Home::new();
    with_key(&home, &github);
    let network = "network:\n  allow: [api.github.com]\n";
    let project = Project::new(&home, "brokered", &manifest(&github, network, "{ broker: api.github.com }"));
    good(&home, &["up", "--offline", project.name(), "--detach", "--", "sleep", "300"]);
    assert_eq!(github.good().len(), 1);
    good(&home, &["down", "--discard", project.name()]);
    assert!(github.good().is_empty());
}

#[test]
fn after_a_crash_the_token_is_read_back_or_said_to_live() {
    let github = Github::start();
    let home = Home::new();
    with_key(&home, &github);
    for (prefix, gateway_lives) in [("crash", true), ("lost", false)] {
        let project = Project::new(&home, prefix, &manifest(&github, "", "{ file: github }"));
        let name = project.name();
        good(&home, &["up", name, "--detach", "--", "sleep", "300"]);
        assert_eq!(github.good().len(), 1);
        let process = rustix::process::Pid::from_raw(supervisors(project.path())[0]).unwrap();
        rustix::process::kill_process(process, rustix::process::Signal::KILL).unwrap();
        eventually("the supervisor's end", Duration::from_secs(10), || supervisors(project.path()).is_empty());
        if !gateway_lives {
            let gateway = format!("sandbox-{name}.main-gateway");
            assert!(crate::support::docker(&["kill", &gateway]).status.success());
        }
        let (code, output, errors) = run(&home, &["down", "--discard", name]);
        assert_eq!(code, Some(0), "{errors}{output}");
        let log = good(&home, &["audit", "log", "--format", "json"]);
        assert_eq!(github.good().is_empty(), gateway_lives, "{errors}");
        assert_eq!(errors.contains("lives until"), !gateway_lives, "{errors}");
        assert_eq!(log.contains("not revoked; expires at"), !gateway_lives, "{log}");
        github.set(|state| state.good.clear());
    }
}
