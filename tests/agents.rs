//! The agents that come with the launcher start from their locked images with nothing but what a sandbox has: as uid
//! 1000, without a network, a capability or a writable root.

#![allow(clippy::unwrap_used, reason = "a test says by a panic what is wrong")]

mod support;

use std::process::Command;

use sandbox::project::preset::PRESETS;
use support::{Home, docker};

/// Builds an image from its lock, gives it to the engine, and runs `COMMAND --version` in it.
fn version(image: &str, command: &str) -> String {
    let home = Home::new();
    let archive = home.path().join("image.tar");
    let output = format!("docker-archive:{}", archive.display());
    let built =
        home.sandbox().args(["--format", "json", "image", "build", image, "--output", &output]).output().unwrap();
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    let built: serde_json::Value = serde_json::from_slice(&built.stdout).unwrap();
    let id = built["config"].as_str().unwrap();
    let known = docker(&["image", "inspect", id]).status.success();
    let loaded = docker(&["load", "--quiet", "--input", archive.to_str().unwrap()]);
    assert!(loaded.status.success(), "{}", String::from_utf8_lossy(&loaded.stderr));
    let run = Command::new("docker")
        .args(["run", "--rm", "--network", "none", "--read-only", "--cap-drop", "ALL", "--user", "1000:1000"])
        .args(["--security-opt", "no-new-privileges", "--tmpfs", "/tmp", "--tmpfs", "/home/agent:uid=1000,gid=1000"])
        .args(["--env", "HOME=/home/agent", id, "bash", "-c"])
        // The checks of the surroundings come first: a version that was printed with a network proves less.
        .arg(format!(
            "test $(id -u) = 1000 && ! touch /x 2>/dev/null && test \"$(ls /sys/class/net)\" = lo && exec {command} --version"
        ))
        .output()
        .unwrap();
    if !known {
        docker(&["image", "rm", id]);
    }
    assert!(run.status.success(), "{command}: {}", String::from_utf8_lossy(&run.stderr));
    String::from_utf8(run.stdout).unwrap()
}

/// The version in the definition of an image, which is what the program must say of itself.
fn wanted(image: &str, package: &str) -> String {
    let chain = sandbox::image::definition::chain(image, None).unwrap();
    let npm = chain.last().unwrap().definition.npm.iter().find(|npm| npm.package == package).unwrap();
    npm.version.split('-').next().unwrap().to_owned()
}

#[test]
fn the_images_of_the_presets_have_the_programs_that_the_presets_run() {
    for preset in PRESETS {
        let chain = sandbox::image::definition::chain(preset.image, None).unwrap();
        // Aider has no image of its own yet, and a shell is in every image.
        if chain.last().unwrap().name != "agent" {
            let has = chain.last().unwrap().definition.npm.iter().any(|npm| npm.bin.contains_key(preset.command[0]));
            assert!(has, "{}", preset.name);
        }
    }
}

#[test]
fn opencode_starts_offline_and_read_only() {
    assert!(version("opencode", "opencode").contains(&wanted("opencode", "opencode-linux-x64-baseline")));
}

#[test]
#[ignore = "fetches 170 MB; `make test-full` runs it"]
fn codex_starts_offline_and_read_only() {
    assert!(version("codex", "codex").contains(&wanted("codex", "@openai/codex")));
}

#[test]
#[ignore = "fetches 80 MB; `make test-full` runs it"]
fn gemini_cli_starts_offline_and_read_only() {
    assert!(version("gemini-cli", "gemini").contains(&wanted("gemini-cli", "@google/gemini-cli")));
}

#[test]
#[ignore = "fetches 180 MB; `make test-full` runs it"]
fn claude_code_starts_offline_and_read_only() {
    assert!(version("claude-code", "claude").contains(&wanted("claude-code", "@anthropic-ai/claude-code-linux-x64")));
}
