//! Attacks on the running sandbox from inside, and the same list against a weak container, which has to fail.
#![allow(clippy::unwrap_used, reason = "a test says by a panic what is wrong")]

mod support;

use std::collections::BTreeMap;
use std::io::Write as _;
use std::process::{Command, Stdio};
use std::time::Duration;

use support::{Home, Project, eventually};

const PROGRAM: &str = include_str!("attacks/attack.py");
const MANIFEST: &str = "image: agent
network: { allow: [api.example.com] }
credentials:
  token: { provider: store }
resources: { cpus: 2, memory: 1GiB, pids: 200 }
";

/// Outcome and what was seen, by the attack's name.
fn read(output: &[u8]) -> BTreeMap<String, (String, String)> {
    let text = String::from_utf8_lossy(output);
    let rows = text.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    let field = |row: &serde_json::Value, name: &str| row[name].as_str().unwrap().to_owned();
    rows.map(|row| (field(&row, "name"), (field(&row, "outcome"), field(&row, "seen")))).collect()
}

#[test]
fn every_attack_from_inside_is_held_and_the_list_bites_a_weak_container() {
    let home = Home::new();
    let project = Project::new(&home, "attacked", MANIFEST);
    let set =
        home.sandbox().args(["credential", "set", "token", project.name()]).write_stdin("value").output().unwrap();
    assert!(set.status.success(), "{}", String::from_utf8_lossy(&set.stderr));
    let up = home.sandbox().args(["up", project.name(), "--detach", "--", "sleep", "600"]).output().unwrap();
    assert!(up.status.success(), "{}", String::from_utf8_lossy(&up.stderr));
    let attacked =
        home.sandbox().args(["exec", project.name(), "--", "python3", "-"]).write_stdin(PROGRAM).output().unwrap();
    let strong = read(&attacked.stdout);
    let got_through: Vec<_> = strong.iter().filter(|(_, (outcome, _))| outcome != "held").collect();
    assert!(got_through.is_empty(), "{got_through:#?}");
    assert!(strong.len() >= 80, "{} attacks: {}", strong.len(), String::from_utf8_lossy(&attacked.stderr));

    // The supervisor writes down what the gateway decides, in its own time.
    let recorded = |host: &str| {
        let log = home.sandbox().args(["audit", "log", "--format", "json"]).output().unwrap();
        let log = String::from_utf8_lossy(&log.stdout).into_owned();
        log.contains("network.denied") && log.contains(host)
    };
    for host in ["example.com", "169.254.169.254", "127.0.0.1"] {
        eventually(&format!("a record of the denial of {host}"), Duration::from_secs(20), || recorded(host));
    }

    let agent = format!("sandbox-{}.main-agent", project.name());
    let image = support::docker(&["inspect", "--format", "{{.Image}}", &agent]);
    let image = String::from_utf8_lossy(&image.stdout).trim().to_owned();
    let mut weak = Command::new("docker")
        .args([
            "run",
            "--rm",
            "-i",
            "--user",
            "0",
            "--security-opt",
            "seccomp=unconfined",
            "--security-opt",
            "systempaths=unconfined",
            "--pids-limit",
            "400",
            "--memory",
            "1g",
        ])
        .args([&image, "python3", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .unwrap();
    // Attacks that would do harm where nothing holds them are left out of the weak container.
    let careful = PROGRAM.replace(
        "for name, attack in ATTACKS.items():",
        "for name, attack in ((n, a) for n, a in ATTACKS.items() if n.split(':')[0] not in ('proxy', 'dns', 'limit') \
         and n not in ('kernel: core handler', 'kernel: sysrq', 'kernel: sysctl', 'kernel: control groups', \
         'syscall: reboot', 'syscall: settimeofday', 'syscall: pivot_root', 'syscall: acct', 'syscall: swapon', \
         'syscall: chroot', 'syscall: kexec_load')):",
    );
    weak.stdin.take().unwrap().write_all(careful.as_bytes()).unwrap();
    let weak = read(&weak.wait_with_output().unwrap().stdout);
    let bitten = weak.values().filter(|(outcome, _)| outcome != "held").count();
    assert!(bitten >= 30, "only {bitten} of {} attacks bite a weak container: {weak:#?}", weak.len());
}
