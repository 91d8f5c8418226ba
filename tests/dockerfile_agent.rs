//! The Dockerfile at the root: the launcher has nothing to say about it, and the engine builds it on our own image without a
//! network.
#![allow(clippy::unwrap_used, reason = "a test says by a panic what is wrong")]

mod support;

use std::path::Path;
use std::process::{Command, Stdio};

use support::{Home, docker, text};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

#[test]
fn the_lint_has_nothing_to_say_about_it() {
    let home = Home::without_engine();
    let lint = |arguments: &[&str]| {
        let output = home.sandbox().args(["image", "lint"]).args(arguments).output().unwrap();
        (output.status.code().unwrap(), text(&output.stdout))
    };
    let (code, said) = lint(&["--strict", "--project", ROOT]);
    assert_eq!((code, said.trim()), (0, "Dockerfile.agent: 0 errors, 0 warnings"));
    // The same with a tag is an error, and the line is shown.
    let project = tempfile::tempdir().unwrap();
    let file = std::fs::read_to_string(Path::new(ROOT).join("Dockerfile.agent")).unwrap();
    let lines = file.lines().take_while(|line| *line != "FROM agent").count() + 1;
    let tagged = file.replace("\nFROM agent\n", "\nFROM debian:bookworm\n") + "RUN apt-get install -y jq\n";
    std::fs::write(project.path().join("Dockerfile.agent"), tagged).unwrap();
    let folder = project.path().to_str().unwrap();
    let (code, said) = lint(&["--project", folder]);
    assert_eq!(code, 1, "{said}");
    assert!(said.contains(&format!("--> Dockerfile.agent:{lines}:6")), "{said}");
    assert!(said.contains("FROM debian:bookworm") && said.contains("1 error, 1 warning"), "{said}");
    let (code, said) = lint(&["--format", "json", "--project", folder]);
    let said: serde_json::Value = serde_json::from_str(&said).unwrap();
    assert_eq!((code, said["findings"][0]["rule"].as_str()), (1, Some("unpinned")));
    assert_eq!((said["findings"][0]["line"].as_u64(), said["errors"].as_u64()), (Some(lines as u64), Some(1)));
}

#[test]
fn the_engine_builds_it_on_our_own_image_without_a_network() {
    let home = Home::new();
    let archive = home.path().join("agent.tar");
    let output = format!("docker-archive:{}", archive.display());
    let built =
        home.sandbox().args(["--format", "json", "image", "build", "agent", "--output", &output]).output().unwrap();
    assert!(built.status.success(), "{}", text(&built.stderr));
    let built: serde_json::Value = serde_json::from_slice(&built.stdout).unwrap();
    let id = built["config"].as_str().unwrap();
    let known = docker(&["image", "inspect", id]).status.success();
    assert!(docker(&["load", "--quiet", "--input", archive.to_str().unwrap()]).status.success());
    // Removing an image removes its unnamed parents, but none that a container has.
    let holder = text(&docker(&["create", id, "true"]).stdout);
    // By its id and without a name: whoever removes an image's last name removes the image, which others may be using.
    let image = format!("sandbox-test-agent-{}", std::process::id());
    let file = std::fs::read_to_string(Path::new(ROOT).join("Dockerfile.agent")).unwrap();
    let file = file.replace("\nFROM agent\n", &format!("\nFROM {id}\n"));
    // BuildKit takes ids of images for names of a registry's.
    let mut build = Command::new("docker")
        .env("DOCKER_BUILDKIT", "0")
        .args(["build", "--quiet", "--network", "none", "--force-rm", "--no-cache", "--tag", &image, "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    std::io::Write::write_all(&mut build.stdin.take().unwrap(), file.as_bytes()).unwrap();
    let build = build.wait_with_output().unwrap();
    let script = "id -u && python --version && git config --system init.defaultBranch && test ! -w /usr/local/bin";
    let run = docker(&["run", "--rm", "--network", "none", "--read-only", &image, "bash", "-c", script]);
    docker(&["image", "rm", &image]);
    let there = docker(&["image", "inspect", id]).status.success();
    docker(&["rm", holder.trim()]);
    assert!(there, "the base was removed with what was built on it");
    if !known {
        docker(&["image", "rm", id]);
    }
    assert!(build.status.success(), "{}{}", text(&build.stdout), text(&build.stderr));
    let said = text(&run.stdout);
    assert!(said.starts_with("1000\nPython 3.") && said.ends_with("\nmain\n"), "{said}{}", text(&run.stderr));
}
