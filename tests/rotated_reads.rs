//! A file that is read all the time while it is replaced again and again: every read finds one whole value.
#![allow(clippy::unwrap_used)]

mod support;

use std::process::Stdio;

use support::{Home, Project, text};

const READER: &str = include_str!("support/reads.py");

#[test]
fn sixty_thousand_reads_over_thirty_rotations_all_succeed() {
    let home = Home::new();
    let counter = home.path().join("counter");
    std::fs::write(&counter, "100").unwrap();
    let issue = format!(
        "n=$(($(cat {0}) + 1)); echo $n > {0}; for i in $(seq 40); do printf 'v%s ' $n; done",
        counter.display()
    );
    let command = serde_json::to_string(&["/bin/sh", "-c", &issue]).unwrap();
    let manifest = format!(
        "image: agent\ncommand: [bash, -l]\ncredentials:\n  token: {{ provider: exec, command: {command}, deliver: {{ file: token }} }}\n"
    );
    let project = Project::new(&home, "reads", &manifest);
    let name = project.name();
    let up = home.sandbox().args(["up", name, "--detach", "--", "sleep", "600"]).output().unwrap();
    assert!(up.status.success(), "{}", text(&up.stderr));
    let mut reader = home.command();
    let mut reader = reader
        .args(["exec", name, "--", "python3", "-c", READER])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut asked = 0;
    while reader.try_wait().unwrap().is_none() {
        assert!(asked < 300, "the reader does not see the rotations");
        let rotated = home.sandbox().args(["credential", "rotate", "token", name]).output().unwrap();
        assert!(rotated.status.success(), "{}", text(&rotated.stderr));
        asked += 1;
        std::thread::sleep(std::time::Duration::from_millis(150));
    }
    let output = reader.wait_with_output().unwrap();
    let (said, errors) = (text(&output.stdout), text(&output.stderr));
    let numbers: Vec<u64> = said.split_whitespace().filter_map(|word| word.parse().ok()).collect();
    let [reads, failed, seen, _] = numbers[..] else { panic!("{said}{errors}") };
    assert!(reads >= 60_000 && seen > 30, "{said}");
    assert_eq!(failed, 0, "of {reads} reads");
    let report = home.sandbox().args(["report", name, "--format", "json"]).output().unwrap();
    let report: serde_json::Value = serde_json::from_slice(&report.stdout).unwrap();
    let told = &report["credentials"][0];
    // The log is as quick as the reader, within the second by which reads are summed up.
    assert!(told["reads"].as_u64().unwrap() > 0 && told["used"].is_string(), "{told}");
    assert!(told["rotations"].as_u64().unwrap() >= 30, "{told}");
}
