//! Keeps README, SECURITY, ARCHITECTURE and CONTRIBUTING true: the commands they show exist with the options they show,
//! the make targets and files they name are there, and the manifests they print are what `sandbox` reads.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

/// The documents at the top, the pages of `docs/`, and the demo's. Generated pages show what is true by the way they are made.
fn documents() -> Vec<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let top = ["README.md", "SECURITY.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "examples/demo/README.md"];
    let mut found: Vec<String> = top.map(str::to_owned).into();
    let mut open = vec![root.join("docs")];
    while let Some(folder) = open.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() && !path.ends_with("reference") {
                open.push(path);
            } else if path.extension().is_some_and(|extension| extension == "md") {
                found.push(path.strip_prefix(root).unwrap().to_str().unwrap().to_owned());
            }
        }
    }
    assert!(found.len() > 30, "{found:?}");
    found.sort();
    found
}

/// Workflows that people copy.
const WORKFLOWS: &[&str] =
    &["examples/ci/github-actions.yml", "examples/ci/gitlab-ci.yml", "examples/ci/credentials-github-actions.yml"];

fn read(name: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(name)).unwrap()
}

/// The fenced blocks of a document in one of these languages.
fn blocks(document: &str, languages: &[&str]) -> Vec<String> {
    let mut found = Vec::new();
    let mut open: Option<Vec<&str>> = None;
    for line in document.lines() {
        match (line.strip_prefix("```"), &mut open) {
            (Some(language), None) => open = Some(vec![language]),
            (Some(_), Some(lines)) => {
                if languages.contains(&lines[0].trim()) {
                    found.push(lines[1..].join("\n"));
                }
                open = None;
            }
            (None, Some(lines)) => lines.push(line),
            (None, None) => {}
        }
    }
    assert!(open.is_none(), "a block is not closed");
    found
}

/// The words of each `sandbox …` command that a document shows, in blocks and between backticks.
fn shown_commands() -> BTreeSet<Vec<String>> {
    let mut found = BTreeSet::new();
    for document in documents() {
        let text = read(&document);
        let lines = blocks(&text, &["console"]).join("\n");
        let in_blocks =
            lines.lines().filter_map(|line| line.trim_start().strip_prefix("$ sandbox ").map(str::to_owned));
        let prose = text.split("```").step_by(2).collect::<Vec<_>>().join("\n");
        let in_prose = prose.split('`').skip(1).step_by(2).filter_map(|piece| piece.strip_prefix("sandbox "));
        for command in in_blocks.chain(in_prose.map(str::to_owned)) {
            for single in command.split(" && sandbox ") {
                let plain = single.split('#').next().unwrap();
                found.insert(plain.split_whitespace().map(str::to_owned).collect());
            }
        }
    }
    for workflow in WORKFLOWS {
        let text = read(workflow);
        let commands: Vec<Vec<String>> = text
            .lines()
            .map(|line| line.trim_start_matches([' ', '-']).trim_start_matches("run: "))
            .filter_map(|line| line.strip_prefix("sandbox "))
            .map(|line| line.split(" > ").next().unwrap().split(" | ").next().unwrap())
            .map(|line| line.split_whitespace().map(str::to_owned).collect())
            .collect();
        assert!(commands.len() >= 3, "{workflow} shows {commands:?}");
        found.extend(commands);
    }
    assert!(found.len() >= 10, "only {} commands are shown", found.len());
    found
}

fn help(words: &[&str]) -> Option<String> {
    let output = Command::new(env!("CARGO_BIN_EXE_sandbox")).args(words).arg("--help").output().unwrap();
    output.status.success().then(|| String::from_utf8(output.stdout).unwrap())
}

#[test]
fn every_command_that_is_shown_exists_with_its_options() {
    let general = help(&[]).unwrap();
    let nested = ["credential", "image", "audit", "network"];
    for command in shown_commands() {
        let own: Vec<&str> = command.iter().map(String::as_str).take_while(|word| *word != "--").collect();
        let Some(verb) = own.first() else { continue };
        if verb.starts_with('-') {
            assert!(general.contains(verb), "`sandbox {verb}` is shown and not known");
            continue;
        }
        let count = if nested.contains(verb) && own.len() > 1 { 2 } else { 1 };
        let shown = command.join(" ");
        let Some(help) = help(&own[..count]) else { panic!("`sandbox {shown}` is shown, and there is no such verb") };
        for option in own.iter().filter(|word| word.starts_with('-')) {
            let option = option.split('=').next().unwrap();
            assert!(help.contains(option), "`sandbox {shown}` is shown, and `{option}` is not an option of it");
        }
    }
}

#[test]
fn a_verb_that_does_not_exist_would_be_noticed() {
    assert!(help(&["no-such-verb"]).is_none());
    assert!(help(&["credential", "no-such-verb"]).is_none());
}

#[test]
fn every_make_target_that_is_shown_exists() {
    let makefile = read("Makefile");
    let mut seen = 0;
    for document in documents() {
        for piece in read(&document).split("make ").skip(1) {
            let target: String = piece.chars().take_while(|c| c.is_ascii_lowercase() || *c == '-').collect();
            let before = [
                "demo",
                "test",
                "test-full",
                "bench",
                "fuzz",
                "engine",
                "packages",
                "lint",
                "build",
                "install",
                "deb",
                "docs",
            ];
            if before.contains(&target.as_str()) {
                assert!(makefile.contains(&format!("\n{target}:")), "{document} names `make {target}`");
                seen += 1;
            }
        }
    }
    assert!(seen >= 3);
}

#[test]
fn every_linked_file_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for document in documents() {
        let folder = root.join(&document).parent().unwrap().to_owned();
        for piece in read(&document).split("](").skip(1) {
            let link = piece.split(')').next().unwrap();
            if !link.starts_with("http") && !link.starts_with('#') {
                assert!(folder.join(link.split('#').next().unwrap()).exists(), "{document} links to {link}");
            }
        }
    }
}

#[test]
fn every_manifest_that_is_shown_is_one() {
    let mut texts = vec![read("examples/demo/project/sandbox.yaml")];
    texts.extend(blocks(&read("README.md"), &["yaml"]));
    assert!(texts.len() >= 2);
    for text in texts {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("sandbox.yaml");
        std::fs::write(&path, &text).unwrap();
        let result = sandbox::project::manifest::load(&path);
        assert!(result.is_ok(), "{text}\n{:?}", result.err());
    }
}

#[test]
fn the_units_are_ones_that_systemd_takes() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/systemd");
    let units = ["sandbox-credential-check.service", "sandbox-credential-check.timer"].map(|unit| folder.join(unit));
    let verify = |units: &[std::path::PathBuf]| {
        let output = Command::new("systemd-analyze").arg("verify").args(units).output();
        output.unwrap_or_else(|error| panic!("this test needs `systemd-analyze` (Debian package `systemd`): {error}"))
    };
    let verified = verify(&units);
    let said = String::from_utf8_lossy(&verified.stderr);
    assert!(verified.status.success() && !said.contains("sandbox-credential-check"), "{said}");
    // The check notices what is wrong.
    let broken = tempfile::tempdir().unwrap();
    let copy = broken.path().join("sandbox-credential-check.service");
    let text = std::fs::read_to_string(&units[0]).unwrap();
    std::fs::write(&copy, text.replace("ExecStart=/usr/bin/env", "ExecStart=env-that-is-not-there/x")).unwrap();
    assert!(!verify(&[copy]).status.success());
    let command = text.lines().find_map(|line| line.strip_prefix("ExecStart=/usr/bin/env sandbox ")).unwrap();
    assert!(help(&command.split_whitespace().take(2).collect::<Vec<_>>()).is_some(), "{command}");
}

#[test]
fn the_workflows_are_yaml_and_the_definition_that_is_shown_is_one() {
    for workflow in WORKFLOWS {
        let parsed: Result<serde_json::Value, _> = serde_yaml::from_str(&read(workflow));
        assert!(parsed.as_ref().is_ok_and(serde_json::Value::is_object), "{workflow}: {parsed:?}");
    }
    let definition = blocks(&read("docs/images.md"), &["yaml"]).remove(0);
    let folder = tempfile::tempdir().unwrap();
    let images = folder.path().join("images/go");
    std::fs::create_dir_all(&images).unwrap();
    std::fs::write(images.join("image.yaml"), definition).unwrap();
    let loaded = sandbox::image::load("go", Some(folder.path())).unwrap();
    assert_eq!(loaded.definition.base.as_deref(), Some("agent"));
}
