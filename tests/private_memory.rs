//! The memory of a program that holds secrets is no other process's, and no core of it is written.
#![allow(clippy::unwrap_used)]

mod support;

use std::io::Write as _;
use std::os::unix::fs::MetadataExt as _;
use std::process::{Command, Stdio};
use std::time::Duration;

use support::{Home, Project, docker, eventually, supervisors, text};

/// The soft limit of a core's size.
fn core_limit(process: &str) -> String {
    let limits = std::fs::read_to_string(format!("/proc/{process}/limits")).unwrap();
    let line = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
    line.trim_start_matches("Max core file size").split_whitespace().next().unwrap().to_owned()
}

/// Whose `/proc/PID` is: root's when the process cannot be dumped or traced (proc(5)), whoever it runs as.
fn owner(process: &str) -> u32 {
    std::fs::metadata(format!("/proc/{process}/environ")).unwrap().uid()
}

/// A process as somebody who is not root, so that the two can be told apart.
fn somebody(program: &str) -> Command {
    if !rustix::process::getuid().is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups", "--", program]);
    command
}

#[test]
fn a_program_with_a_secret_cannot_be_dumped_or_read_by_its_own_user() {
    // A copy that everybody can execute, wherever the checkout is.
    let folder = tempfile::tempdir_in("/tmp").unwrap();
    let program = folder.path().join("sandbox");
    std::fs::copy(env!("CARGO_BIN_EXE_sandbox"), &program).unwrap();
    std::fs::set_permissions(folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    // It waits for git's question.
    let mut helper = somebody(program.to_str().unwrap())
        .args(["git-credential", "--file", "token", "get"])
        .stdin(Stdio::piped())
        .current_dir("/")
        .spawn()
        .unwrap();
    let id = helper.id().to_string();
    let name = || std::fs::read_to_string(format!("/proc/{id}/comm")).unwrap_or_default();
    eventually("the program's start", Duration::from_secs(20), || name().trim() == "sandbox");
    // Nothing is in its memory yet, so the moment before is no matter.
    let reads = || somebody("cat").arg(format!("/proc/{id}/environ")).output().unwrap().status.success();
    eventually("the end of being read", Duration::from_secs(20), || !reads());
    assert_eq!((owner(&id), core_limit(&id).as_str()), (0, "0"));
    assert!(!reads());
    // The control: one that protects nothing belongs to its user, who reads it.
    let mut open = somebody("sleep").arg("60").spawn().unwrap();
    let control = open.id().to_string();
    eventually("another user", Duration::from_secs(20), || owner(&control) != 0);
    assert!(somebody("cat").arg(format!("/proc/{control}/environ")).output().unwrap().status.success());
    open.kill().unwrap();
    let _ = open.wait();
    helper.stdin.take().unwrap().write_all(b"\n").unwrap();
    let _ = helper.wait();
}

#[test]
fn supervisor_and_gateway_leave_no_core() {
    let home = Home::new();
    let project = Project::new(&home, "core", "image: agent\ncommand: [bash, -l]\n");
    let up = home.sandbox().args(["up", project.name(), "--detach", "--", "sleep", "300"]).output().unwrap();
    assert!(up.status.success(), "{}", text(&up.stderr));
    let supervisor = supervisors(project.path())[0].to_string();
    assert_eq!(core_limit(&supervisor), "0");
    if !rustix::process::getuid().is_root() {
        assert_eq!(owner(&supervisor), 0);
    }
    let process = |role: &str| {
        let name = format!("sandbox-{}.main-{role}", project.name());
        text(&docker(&["inspect", "--format", "{{.State.Pid}}", &name]).stdout).trim().to_owned()
    };
    for role in ["gateway", "relay"] {
        assert_eq!((core_limit(&process(role)).as_str(), owner(&process(role))), ("0", 0), "{role}");
    }
    // The agent's own first process is the agent's.
    assert_eq!(owner(&process("agent")), 1000);
}
