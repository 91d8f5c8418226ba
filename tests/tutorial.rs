//! Runs the tutorial: every command of its console blocks, in order, in one shell, as a reader would.

#![allow(clippy::unwrap_used, reason = "a test says by a panic what is wrong")]

mod support;

use std::fs;
use std::path::Path;
use std::process::Stdio;

use support::{Home, objects, text};

/// The project of the tutorial; several of these tests may run on one engine.
const PROJECT: &str = "tutorial-shop";

#[test]
fn the_commands_of_the_tutorial_do_what_it_says() {
    let home = Home::new();
    let page = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/tutorial.md")).unwrap();
    let commands: Vec<&str> = page
        .split("```console\n")
        .skip(1)
        .flat_map(|rest| rest.split("```").next().unwrap().lines())
        .map(|line| line.strip_prefix("$ ").unwrap_or_else(|| panic!("{line} is no command")))
        .collect();
    assert!(commands.len() > 15, "{commands:?}");
    let folder = tempfile::tempdir().unwrap();
    let random = folder.path().file_name().unwrap().to_string_lossy().to_lowercase().replace(['.', '_'], "");
    let project = format!("tutorial-{random}");
    let script = commands.join("\n").replace(PROJECT, &project);
    let launcher = Path::new(env!("CARGO_BIN_EXE_sandbox")).parent().unwrap();
    let path = format!("{}:{}", launcher.display(), std::env::var("PATH").unwrap());
    let run = |script: &str| {
        let mut shell = home.command_of(Path::new("bash"));
        shell.args(["-euxc", script]).current_dir(folder.path()).env("PATH", &path).stdin(Stdio::null());
        shell.output().unwrap()
    };
    let output = run(&script);
    let (said, told) = (text(&output.stdout), text(&output.stderr));
    let left = objects(&project);
    run(&format!("sandbox down --discard {project} || true"));
    assert!(output.status.success(), "{said}\n{told}");
    assert!(said.contains("greeting.txt") && said.contains("Greet"), "{said}");
    let greeting = fs::read_to_string(folder.path().join("shop/greeting.txt")).unwrap();
    assert_eq!(greeting, "hello, world\n");
    assert!(left.is_empty(), "{left:?}");
}
