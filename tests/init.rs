//! `sandbox init` and what `up` offers without a manifest. No engine is needed.

#![allow(clippy::unwrap_used, reason = "a test says by a panic what is wrong")]

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use expectrl::{Eof, Expect as _, Session};
use support::{Home, text};

fn repository(home: &Home, files: &[&str]) -> PathBuf {
    let folder = home.path().join("payments");
    fs::create_dir_all(folder.join("inner")).unwrap();
    for file in files {
        fs::write(folder.join(file), "").unwrap();
    }
    let git = |arguments: &[&str]| {
        assert!(Command::new("git").args(arguments).current_dir(&folder).output().unwrap().status.success());
    };
    git(&["init", "--quiet"]);
    git(&["remote", "add", "origin", "https://ada:word@git.example.com/acme/payments-api.git"]);
    folder
}

fn plan(home: &Home, folder: &Path) -> String {
    text(&home.sandbox().arg("plan").current_dir(folder).output().unwrap().stdout)
}

#[test]
fn writes_a_manifest_that_plan_takes_and_never_over_another() {
    let home = Home::without_engine();
    let folder = repository(&home, &["Cargo.toml", "CLAUDE.md"]);
    let init = home.sandbox().args(["init", "--yes"]).current_dir(folder.join("inner")).output().unwrap();
    assert!(init.status.success(), "{}", text(&init.stderr));
    assert!(text(&init.stdout).contains("sandbox credential set anthropic"), "{}", text(&init.stdout));
    // Nothing is committed yet, and a sandbox gets a clone.
    assert!(text(&init.stdout).contains("git add --all && git commit"), "{}", text(&init.stdout));
    let written = fs::read_to_string(folder.join("sandbox.yaml")).unwrap();
    assert!(written.contains("# - git.example.com") && !written.contains("word"), "{written}");
    let plan = plan(&home, &folder);
    for part in ["payments-api", "claude", "api.anthropic.com:443", "static.crates.io:443", "anthropic from store"] {
        assert!(plan.contains(part), "{part} is not in\n{plan}");
    }
    let again = home.sandbox().args(["init", "--yes"]).current_dir(&folder).output().unwrap();
    assert_eq!(again.status.code(), Some(1));
    assert!(text(&again.stderr).contains("error[manifest-exists]"), "{}", text(&again.stderr));
    assert_eq!(fs::read_to_string(folder.join("sandbox.yaml")).unwrap(), written);
}

#[test]
fn tells_what_it_wrote_as_json_and_takes_the_agent_and_the_name_from_the_command_line() {
    let home = Home::without_engine();
    let folder = repository(&home, &[]);
    let arguments = ["--format", "json", "init", "--yes", "--agent", "codex", "--project", "pay"];
    let init = home.sandbox().args(arguments).current_dir(&folder).output().unwrap();
    let answer: serde_json::Value = serde_json::from_slice(&init.stdout).unwrap();
    assert_eq!((&answer["agent"], &answer["project"]), (&"codex".into(), &"pay".into()));
    assert_eq!(answer["hosts"], serde_json::json!(["api.openai.com"]));
    let wrong = home.sandbox().args(["init", "--yes", "--agent", "nobody"]).current_dir(&folder).output().unwrap();
    assert!(text(&wrong.stderr).contains("error[manifest-exists]"));
    fs::remove_file(folder.join("sandbox.yaml")).unwrap();
    let wrong = home.sandbox().args(["init", "--yes", "--agent", "nobody"]).current_dir(&folder).output().unwrap();
    assert!(text(&wrong.stderr).contains("error[agent-unknown]"), "{}", text(&wrong.stderr));
    assert!(!folder.join("sandbox.yaml").exists());
}

#[test]
fn asks_nothing_and_writes_nothing_without_a_terminal_or_a_repository() {
    let home = Home::without_engine();
    let folder = repository(&home, &[]);
    let silent = home.sandbox().arg("init").current_dir(&folder).output().unwrap();
    assert!(text(&silent.stderr).contains("error[init-not-asked]"), "{}", text(&silent.stderr));
    assert!(!folder.join("sandbox.yaml").exists());
    let nowhere = home.sandbox().args(["init", "--yes"]).current_dir("/").output().unwrap();
    assert!(text(&nowhere.stderr).contains("error[no-repository]"), "{}", text(&nowhere.stderr));
    let up = home.sandbox().arg("up").current_dir(&folder).output().unwrap();
    assert_eq!(up.status.code(), Some(125));
    assert!(text(&up.stderr).contains("next: run `sandbox init`"), "{}", text(&up.stderr));
}

#[test]
fn asks_three_questions_on_a_terminal() {
    let home = Home::without_engine();
    let folder = repository(&home, &["package.json", "GEMINI.md"]);
    let mut command = home.command();
    command.arg("init").current_dir(&folder);
    let mut terminal = Session::spawn(command).unwrap();
    terminal.set_expect_timeout(Some(std::time::Duration::from_secs(10)));
    terminal.expect("GEMINI.md speaks for gemini-cli").unwrap();
    terminal.send("\r").unwrap();
    terminal.expect("What is the project called?").unwrap();
    terminal.send("Not A Name\r").unwrap();
    terminal.expect("is not a project name").unwrap();
    terminal.send("\u{15}shop\r").unwrap();
    terminal.expect("registry.npmjs.org").unwrap();
    terminal.expect("Write this to").unwrap();
    terminal.send("y").unwrap();
    terminal.expect("wrote").unwrap();
    terminal.expect(Eof).unwrap();
    let written = fs::read_to_string(folder.join("sandbox.yaml")).unwrap();
    assert!(written.contains("project: shop\nagent: gemini-cli\n"), "{written}");
}

#[test]
fn up_offers_it_and_goes_on_with_what_was_written() {
    let home = Home::without_engine();
    let folder = repository(&home, &[]);
    let mut command = home.command();
    command.args(["up", "--dry-run"]).current_dir(&folder);
    let mut terminal = Session::spawn(command).unwrap();
    terminal.set_expect_timeout(Some(std::time::Duration::from_secs(10)));
    terminal.expect("Write one now?").unwrap();
    terminal.send("y").unwrap();
    terminal.expect("Which agent?").unwrap();
    terminal.send("\r").unwrap();
    terminal.expect("What is the project called?").unwrap();
    terminal.send("\r").unwrap();
    terminal.expect("Write this to").unwrap();
    terminal.send("y").unwrap();
    terminal.expect("api.anthropic.com:443").unwrap();
    terminal.expect(Eof).unwrap();
}
