//! The how-to pages: there is one for each agent and for each provider, their manifests are manifests, and the commands of
//! their console blocks run in order, as a reader would type them.
//!
//! What needs a running sandbox is run for the page of the plain shell alone, and what asks an issuer for the providers that
//! have none but this machine: the others' issuers have tests of their own. `tests/documents.rs` looks that these commands
//! exist with their options.

#![allow(clippy::unwrap_used, reason = "a test says by a panic what is wrong")]

mod support;

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use expectrl::{Eof, Expect as _, Session};
use sandbox::project::preset::PRESETS;
use sandbox::project::{manifest, schema};
use support::{Home, objects, text};

/// Verbs that are about a sandbox that runs.
const RUNNING: [&str; 10] = ["up", "exec", "shell", "logs", "diff", "pull", "down", "network", "status", "port"];
/// Verbs below `credential` that ask the issuer.
const ASKING: [&str; 3] = ["check", "rotate", "login"];
/// Providers whose issuer is this machine.
const HERE: [&str; 3] = ["store", "env-file", "exec"];

fn pages(folder: &str) -> Vec<(String, String)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/how-to").join(folder);
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        found.push((path.file_stem().unwrap().to_str().unwrap().to_owned(), fs::read_to_string(&path).unwrap()));
    }
    found.sort();
    found
}

/// The blocks of a page in order: the language, and the lines.
fn blocks(page: &str) -> Vec<(&str, &str)> {
    let fenced = page.split("```").skip(1).step_by(2);
    fenced.map(|block| block.split_once('\n').unwrap()).collect()
}

/// Every provider that a manifest can name.
fn providers() -> BTreeSet<String> {
    let schema = schema::manifest().to_string();
    let rules = schema.split("\"provider\":{\"const\":\"").skip(1);
    rules.map(|rest| rest.split('"').next().unwrap().to_owned()).collect()
}

#[test]
fn every_agent_and_every_provider_has_a_page() {
    let named = |folder: &str| pages(folder).into_iter().map(|(name, _)| name).collect::<BTreeSet<_>>();
    let agents = PRESETS.iter().map(|preset| preset.name.to_owned()).chain(["other".to_owned()]);
    assert_eq!(named("agents"), agents.collect::<BTreeSet<_>>());
    assert!(providers().len() >= 10, "{:?}", providers());
    assert_eq!(named("credentials"), providers());
}

#[test]
fn every_manifest_on_a_page_is_one_and_has_what_the_page_is_about() {
    let mut checked = 0;
    for (folder, (name, page)) in
        ["agents", "credentials"].iter().flat_map(|folder| pages(folder).into_iter().map(move |page| (folder, page)))
    {
        for (language, block) in blocks(&page) {
            if language == "yaml" {
                let read = manifest::parse(block, Path::new("/nowhere/sandbox.yaml"));
                assert!(read.is_ok(), "{name}: {:?}\n{block}", read.err());
                checked += 1;
                assert!(*folder == "agents" || block.contains(&format!("provider: {name}\n")), "{name}: {block}");
            }
        }
        if let Some(key) = PRESETS.iter().find(|preset| preset.name == name).and_then(|preset| preset.key) {
            for word in [key.host, key.variable, &format!("sandbox credential set {}", key.credential)] {
                assert!(page.contains(word), "the page of {name} does not say {word}");
            }
        }
    }
    assert!(checked >= 14, "only {checked} manifests");
}

/// A person's machine and repository, with the password managers that pages name.
struct Reader {
    home: Home,
    folder: PathBuf,
    path: String,
}

impl Reader {
    fn new(home: Home) -> Self {
        let folder = home.path().join("payments-api");
        let bin = home.path().join("bin");
        for folder in [&folder, &bin, &home.path().join("config/sandbox")] {
            fs::create_dir_all(folder).unwrap();
        }
        for (program, says) in [("pass", "correct-horse-battery"), ("op", "correct-horse-battery")] {
            fs::write(bin.join(program), format!("#!/bin/sh\necho {says}\n")).unwrap();
            fs::set_permissions(bin.join(program), PermissionsExt::from_mode(0o755)).unwrap();
        }
        let issuer = "credentials: { issuer: https://identity.example.com/sandbox }\n";
        fs::write(home.path().join("config/sandbox/config.yaml"), issuer).unwrap();
        let launcher = Path::new(env!("CARGO_BIN_EXE_sandbox")).parent().unwrap();
        let path = format!("{}:{}:{}", bin.display(), launcher.display(), std::env::var("PATH").unwrap());
        let reader = Self { home, folder, path };
        reader.run("git init --quiet --initial-branch=main . && echo hello > README.md && git add .");
        reader.run("git -c user.name=Ada -c user.email=ada@example.com commit --quiet -m Begin");
        reader
    }

    fn shell(&self, line: &str) -> Command {
        let mut shell = self.home.command_of(Path::new("bash"));
        shell.args(["-euc", line]).current_dir(&self.folder).env("PATH", &self.path);
        shell
    }

    fn run(&self, line: &str) -> String {
        let output = self.shell(line).stdin(Stdio::null()).output().unwrap();
        let said = text(&output.stdout) + &text(&output.stderr);
        assert!(output.status.success(), "$ {line}\n{said}");
        said
    }

    /// Runs what asks a person, and answers.
    fn answer(&self, line: &str, question: &str, answer: &str) -> String {
        let mut terminal = Session::spawn(self.shell(line)).unwrap();
        terminal.set_expect_timeout(Some(Duration::from_secs(30)));
        let asked = terminal.expect(question);
        assert!(asked.is_ok(), "$ {line} does not ask {question}: {asked:?}");
        // What is typed before the terminal is told to show nothing is thrown away.
        std::thread::sleep(Duration::from_millis(300));
        terminal.send(answer).unwrap();
        let rest = terminal.expect(Eof);
        let rest = rest.unwrap_or_else(|error| panic!("$ {line} does not end after {answer:?}: {error}"));
        let said = text(rest.as_bytes());
        assert!(!said.contains("error["), "$ {line}\n{said}");
        said
    }

    /// Goes through a page from the top. `reaches` says what can be reached of a command's words.
    fn follow(&self, page: &str, reaches: impl Fn(&[&str]) -> bool) {
        if !page.contains("$ sandbox init") {
            let (_, manifest) = blocks(page).into_iter().find(|(language, _)| *language == "yaml").unwrap();
            fs::write(self.folder.join("sandbox.yaml"), manifest).unwrap();
            self.run("sandbox credential ls");
        }
        for (_, block) in blocks(page).into_iter().filter(|(language, _)| *language == "console") {
            for line in block.lines() {
                let line = line.strip_prefix("$ ").unwrap_or_else(|| panic!("{line} is no command"));
                let words: Vec<&str> = line.split_whitespace().collect();
                if !reaches(&words) {
                    continue;
                }
                match words.as_slice() {
                    ["sandbox", "trust"] => drop(self.answer(line, "Approve this?", "y\r")),
                    ["sandbox", "credential", "set" | "rotate", name] => {
                        let value = format!("key-of-{name}-0a1b2c3d4e5f60718293\r");
                        self.answer(line, &format!("{name} (not shown)"), &value);
                    }
                    _ => drop(self.run(line)),
                }
            }
        }
    }
}

#[test]
fn the_commands_of_the_pages_run_in_order() {
    for (name, page) in pages("agents").into_iter().chain(pages("credentials")) {
        let reader = Reader::new(Home::without_engine());
        let here = HERE.contains(&name.as_str());
        reader.follow(&page, |words| match words {
            ["sandbox", "credential", verb, ..] => here || !ASKING.contains(verb),
            ["sandbox", verb, ..] => !RUNNING.contains(verb),
            _ => true,
        });
        // Whatever the page began with, the end is a project that could be started, if its image were there.
        if name != "other" {
            let planned = reader.run("sandbox up --dry-run");
            assert!(planned.contains("payments-api"), "{name}: {planned}");
        }
    }
}

#[test]
fn the_page_of_the_plain_shell_is_true_with_an_engine() {
    let reader = Reader::new(Home::new());
    let (_, page) = pages("agents").into_iter().find(|(name, _)| name == "shell").unwrap();
    // A name that no other test of this engine has.
    let random = reader.home.path().file_name().unwrap().to_string_lossy().to_lowercase().replace(['.', '_'], "");
    let project = format!("how-to-{random}");
    let page = page.replace("--agent shell", &format!("--agent shell --project {project}"));
    reader.follow(&page, |_| true);
    assert!(objects(&project).is_empty());
}
