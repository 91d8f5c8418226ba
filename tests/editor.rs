//! `sandbox editor`: what it shows, writes and takes away, and what `pull` says of commits that change it. No engine is
//! needed.

#![allow(clippy::unwrap_used, reason = "a test says by a panic what is wrong")]

mod support;

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use sandbox::editor::memory::Memory;
use sandbox::workspace::incoming::{Quarantine, Starts};
use sandbox::workspace::review::ReviewRules;
use serde_json::Value;
use support::{Home, text};

const EDITORS: [&str; 5] = ["vscode", "zed", "jetbrains", "neovim", "helix"];

fn git(folder: &Path, arguments: &[&str]) -> String {
    let output = Command::new("git")
        .args(["-c", "user.name=Ada", "-c", "user.email=ada@example.com"])
        .args(arguments)
        .current_dir(folder)
        .output()
        .unwrap();
    assert!(output.status.success(), "git {arguments:?}: {}", text(&output.stderr));
    text(&output.stdout).trim().to_owned()
}

fn project(home: &Home) -> PathBuf {
    let folder = home.path().join("payments");
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("sandbox.yaml"), "version: 1\nproject: payments\nagent: claude-code\n").unwrap();
    git(&folder, &["init", "--quiet", "--initial-branch=main"]);
    git(&folder, &["add", "."]);
    git(&folder, &["commit", "--quiet", "-m", "Begin"]);
    folder.canonicalize().unwrap()
}

fn editor(home: &Home, folder: &Path, arguments: &[&str]) -> String {
    let output = home.sandbox().arg("editor").args(arguments).current_dir(folder).output().unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    text(&output.stdout)
}

fn refused(home: &Home, folder: &Path, arguments: &[&str]) -> String {
    let output = home.sandbox().arg("editor").args(arguments).current_dir(folder).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", text(&output.stdout));
    text(&output.stderr)
}

/// Every file of a folder but git's, with its bytes.
fn files(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    let mut open = vec![folder.to_owned()];
    while let Some(next) = open.pop() {
        for entry in fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                if !path.ends_with(".git") {
                    open.push(path);
                }
            } else {
                found.push((path.clone(), fs::read(path).unwrap()));
            }
        }
    }
    found.sort();
    found
}

#[test]
fn shows_what_it_would_write_and_writes_nothing() {
    let home = Home::without_engine();
    let folder = project(&home);
    let before = files(&folder);
    for name in EDITORS {
        insta::assert_snapshot!(format!("editor_{name}"), editor(&home, &folder, &[name]));
    }
    assert_eq!(files(&folder), before);
}

#[test]
fn writes_twice_the_same_and_gives_back_what_was_there() {
    let home = Home::without_engine();
    let folder = project(&home);
    fs::create_dir(folder.join(".vscode")).unwrap();
    // Odd layout on purpose: what is given back is the very bytes.
    fs::write(folder.join(".vscode/tasks.json"), "{ \"version\":\"2.0.0\",\"tasks\":[ ]  , } // mine").unwrap();
    fs::write(folder.join(".nvim.lua"), "vim.o.number = true").unwrap();
    let before = files(&folder);
    for name in EDITORS {
        editor(&home, &folder, &[name, "--write"]);
        let first = files(&folder);
        let again = editor(&home, &folder, &[name, "--write"]);
        assert_eq!(files(&folder), first, "{name}");
        assert!(!again.contains("created") && !again.contains("changed"), "{again}");
        assert_ne!(first, before);
    }
    for name in EDITORS {
        editor(&home, &folder, &[name, "--remove"]);
    }
    assert_eq!(files(&folder), before);
    assert!(editor(&home, &folder, &["zed", "--remove"]).contains("nothing to take away"));
    // Nothing is remembered of what is not there any more.
    assert_eq!(fs::read_dir(home.path().join("state/sandbox/editors")).unwrap().count(), 0);
}

#[test]
fn keeps_what_was_written_into_the_file_afterwards() {
    let home = Home::without_engine();
    let folder = project(&home);
    editor(&home, &folder, &["vscode", "--write"]);
    let path = folder.join(".vscode/tasks.json");
    let written = fs::read_to_string(&path).unwrap();
    let mine = "\"tasks\": [\n    { \"label\": \"mine\", \"command\": \"make\" }, // my own\n";
    let edited = written.replacen("\"tasks\": [\n", mine, 1);
    assert_ne!(edited, written);
    fs::write(&path, &edited).unwrap();
    editor(&home, &folder, &["vscode", "--write"]);
    assert_eq!(fs::read_to_string(&path).unwrap(), edited);
    editor(&home, &folder, &["vscode", "--remove"]);
    let left = fs::read_to_string(&path).unwrap();
    assert!(left.contains("// my own") && left.contains("\"mine\"") && !left.contains("sandbox"), "{left}");
    assert!(!folder.join(".vscode/settings.json").exists());
}

#[test]
fn takes_the_prompt_away_when_the_agent_has_none_any_more() {
    let home = Home::without_engine();
    let folder = project(&home);
    editor(&home, &folder, &["jetbrains", "--write"]);
    editor(&home, &folder, &["vscode", "--write"]);
    assert!(folder.join(".run/sandbox-prompt.run.xml").exists());
    fs::write(folder.join("sandbox.yaml"), "version: 1\nproject: payments\nagent: shell\n").unwrap();
    editor(&home, &folder, &["jetbrains", "--write"]);
    editor(&home, &folder, &["vscode", "--write"]);
    assert!(!folder.join(".run/sandbox-prompt.run.xml").exists());
    assert!(folder.join(".run/sandbox-up.run.xml").exists());
    assert!(!fs::read_to_string(folder.join(".vscode/tasks.json")).unwrap().contains("claude"));
}

#[test]
fn changes_nothing_when_one_file_cannot_be_used() {
    let home = Home::without_engine();
    let folder = project(&home);
    fs::create_dir(folder.join(".vscode")).unwrap();
    fs::write(folder.join(".vscode/settings.json"), "{ broken").unwrap();
    let said = refused(&home, &folder, &["vscode", "--write"]);
    assert!(said.contains("error[editor-format]") && said.contains(".vscode/settings.json"), "{said}");
    assert!(!folder.join(".vscode/tasks.json").exists());

    symlink(home.path(), folder.join(".zed")).unwrap();
    let said = refused(&home, &folder, &["zed", "--write"]);
    assert!(said.contains("error[editor-link]"), "{said}");
    assert!(!home.path().join("tasks.json").exists());

    fs::create_dir(folder.join(".run")).unwrap();
    fs::write(folder.join(".run/sandbox-down.run.xml"), "<mine/>").unwrap();
    let said = refused(&home, &folder, &["jetbrains", "--write"]);
    assert!(said.contains("error[editor-taken]"), "{said}");
    assert_eq!(fs::read_dir(folder.join(".run")).unwrap().count(), 1);
    editor(&home, &folder, &["jetbrains", "--remove"]);
    assert_eq!(fs::read_to_string(folder.join(".run/sandbox-down.run.xml")).unwrap(), "<mine/>");
}

/// The rules of <https://code.visualstudio.com/docs/reference/tasks-appendix> that a task could break.
#[test]
fn the_tasks_of_vscode_follow_its_published_rules() {
    let home = Home::without_engine();
    let folder = project(&home);
    editor(&home, &folder, &["vscode", "--write"]);
    let whole: Value = serde_json::from_slice(&fs::read(folder.join(".vscode/tasks.json")).unwrap()).unwrap();
    let members = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<BTreeSet<_>>();
    let among = |value: &Value, allowed: &[&str]| {
        for name in members(value) {
            assert!(allowed.contains(&name.as_str()), "`{name}` is not among {allowed:?}");
        }
    };
    among(&whole, &["version", "tasks", "inputs"]);
    assert_eq!(whole["version"], "2.0.0");
    let mut labels = BTreeSet::new();
    for task in whole["tasks"].as_array().unwrap() {
        let allowed = ["label", "detail", "type", "command", "args", "options", "presentation", "problemMatcher"];
        among(task, &allowed);
        among(&task["options"], &["cwd", "env", "shell"]);
        among(&task["presentation"], &["reveal", "focus", "echo", "showReuseMessage", "panel", "clear", "close"]);
        assert!(labels.insert(task["label"].as_str().unwrap().to_owned()));
        assert!(["shell", "process"].contains(&task["type"].as_str().unwrap()));
        assert!(task["presentation"]["focus"].is_boolean());
        assert!(["always", "silent", "never"].contains(&task["presentation"]["reveal"].as_str().unwrap()));
        assert!(["shared", "dedicated", "new"].contains(&task["presentation"]["panel"].as_str().unwrap()));
        assert!(task["args"].as_array().unwrap().iter().all(Value::is_string));
        if task["problemMatcher"].is_object() {
            let matcher = &task["problemMatcher"];
            among(matcher, &["owner", "source", "severity", "fileLocation", "pattern"]);
            for pattern in matcher["pattern"].as_array().unwrap() {
                among(pattern, &["regexp", "message", "file", "line", "column"]);
            }
        }
    }
    let ids: Vec<&Value> = whole["inputs"].as_array().unwrap().iter().map(|input| &input["id"]).collect();
    let all = whole["tasks"].to_string();
    for used in all.split("${input:").skip(1).map(|rest| rest.split('}').next().unwrap()) {
        assert!(ids.iter().any(|id| *id == used), "{used} is asked for by nobody");
    }
    assert_eq!(ids.len(), 1);
}

/// The keys and words of <https://zed.dev/docs/tasks> and of Zed's own schema of tasks (`TaskTemplate`).
#[test]
fn the_tasks_of_zed_follow_its_published_rules() {
    let home = Home::without_engine();
    let folder = project(&home);
    editor(&home, &folder, &["zed", "--write"]);
    let tasks: Vec<Value> = serde_json::from_slice(&fs::read(folder.join(".zed/tasks.json")).unwrap()).unwrap();
    let allowed = [
        "label",
        "command",
        "args",
        "env",
        "cwd",
        "use_new_terminal",
        "allow_concurrent_runs",
        "reveal",
        "reveal_target",
        "hide",
        "tags",
        "shell",
        "show_summary",
        "show_command",
        "save",
    ];
    let mut labels = BTreeSet::new();
    for task in &tasks {
        for name in task.as_object().unwrap().keys() {
            assert!(allowed.contains(&name.as_str()), "`{name}` is not among {allowed:?}");
        }
        assert!(labels.insert(task["label"].as_str().unwrap()) && task["command"].is_string(), "{task}");
        assert!(task["args"].as_array().unwrap().iter().all(Value::is_string));
        assert!(task["use_new_terminal"].is_boolean() && task["allow_concurrent_runs"].is_boolean());
        assert!(["always", "no_focus", "never"].contains(&task["reveal"].as_str().unwrap()));
        assert!(["always", "never", "on_success"].contains(&task["hide"].as_str().unwrap()));
    }
    assert!(labels.len() >= 9);
}

/// What the bundled plugin `Shell Script` writes for a configuration that is stored as a project file
/// (intellij-community, `ShRunConfiguration.java`).
#[test]
fn the_run_configurations_of_jetbrains_are_of_the_form_of_their_plugin() {
    let home = Home::without_engine();
    let folder = project(&home);
    editor(&home, &folder, &["jetbrains", "--write"]);
    let script = "import sys,xml.etree.ElementTree as tree\n\
        options={'SCRIPT_TEXT','INDEPENDENT_SCRIPT_PATH','SCRIPT_PATH','SCRIPT_OPTIONS','INDEPENDENT_SCRIPT_WORKING_DIRECTORY',\
        'SCRIPT_WORKING_DIRECTORY','INDEPENDENT_INTERPRETER_PATH','INTERPRETER_PATH','INTERPRETER_OPTIONS','EXECUTE_IN_TERMINAL',\
        'EXECUTE_SCRIPT_FILE'}\n\
        for path in sys.argv[1:]:\n\
        \x20   root=tree.parse(path).getroot(); assert (root.tag,root.attrib)==('component',{'name':'ProjectRunConfigurationManager'})\n\
        \x20   configuration,=root; assert configuration.get('type')=='ShConfigurationType' and configuration.get('name')\n\
        \x20   found={o.get('name'):o.get('value') for o in configuration.iter('option')}; assert set(found)==options, found\n\
        \x20   assert found['EXECUTE_SCRIPT_FILE']=='false' and 'sandbox ' in found['SCRIPT_TEXT']\n\
        \x20   assert [e.tag for e in configuration if e.tag!='option']==['envs','method'], path\n";
    let paths: Vec<PathBuf> = fs::read_dir(folder.join(".run")).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(paths.len() >= 9 && paths.iter().all(|path| path.to_str().unwrap().ends_with(".run.xml")), "{paths:?}");
    let output = Command::new("python3").args(["-c", script]).args(&paths).output().unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
}

/// The lines that `sandbox` prints are those that the problem matcher and Neovim's `errorformat` look for.
#[test]
fn the_faults_of_a_manifest_are_printed_as_the_editors_expect_them() {
    let home = Home::without_engine();
    let folder = project(&home);
    let shown = editor(&home, &folder, &["vscode", "--format", "json"]);
    let answer: Value = serde_json::from_str(&shown).unwrap();
    let tasks: Value = serde_json::from_str(answer["files"][0]["text"].as_str().unwrap()).unwrap();
    let patterns = tasks["tasks"][0]["problemMatcher"]["pattern"].as_array().unwrap().clone();
    fs::write(folder.join("sandbox.yaml"), "version: 1\nproject: payments\nnetwrk: {}\nprofil: x\n").unwrap();
    let said = text(&home.sandbox().arg("plan").current_dir(&folder).output().unwrap().stderr);
    // Python's expressions agree with those of JavaScript in all that is used here.
    let script = "import json,re,sys\n\
        patterns=json.loads(sys.argv[1]); lines=sys.stdin.read().split('\\n'); found=[]\n\
        for first,second in zip(lines,lines[1:]):\n\
        \x20   one=re.match(patterns[0]['regexp'],first); two=re.match(patterns[1]['regexp'],second)\n\
        \x20   if one and two: found.append([one.group(patterns[0]['message']),two.group(patterns[1]['file']),int(two.group(patterns[1]['line'])),int(two.group(patterns[1]['column']))])\n\
        print(json.dumps(found))";
    let matched = assert_cmd::Command::new("python3")
        .args(["-c", script, &Value::from(patterns).to_string()])
        .write_stdin(said.clone())
        .output()
        .unwrap();
    let found: Value = serde_json::from_slice(&matched.stdout).unwrap_or_else(|_| panic!("{}", text(&matched.stderr)));
    let file = folder.join("sandbox.yaml");
    let places: Vec<(&str, i64, i64)> = (found.as_array().unwrap().iter())
        .map(|fault| (fault[1].as_str().unwrap(), fault[2].as_i64().unwrap(), fault[3].as_i64().unwrap()))
        .collect();
    assert_eq!(places, [(file.to_str().unwrap(), 3, 1), (file.to_str().unwrap(), 4, 1)], "{said}");
    assert!(found[0][0].as_str().unwrap().contains("netwrk"), "{found}");
}

/// Commits of an agent as a bundle: what the review says of them.
#[test]
fn commits_that_change_what_was_written_are_held_back() {
    let home = Home::without_engine();
    let folder = project(&home);
    editor(&home, &folder, &["vscode", "--write"]);
    git(&folder, &["add", "."]);
    git(&folder, &["commit", "--quiet", "-m", "Tasks"]);
    let base = git(&folder, &["rev-parse", "HEAD"]);
    let clone = home.path().join("clone");
    git(home.path(), &["clone", "--quiet", folder.to_str().unwrap(), "clone"]);
    let memory = Memory::load(&home.path().join("state/sandbox"), &folder).unwrap();
    let rules = ReviewRules { written: memory.written_files(Path::new("")), ..ReviewRules::default() };
    assert_eq!(rules.written.len(), 2);
    let held = |change: &dyn Fn()| {
        git(&clone, &["reset", "--quiet", "--hard", &base]);
        change();
        git(&clone, &["add", "--all"]);
        git(&clone, &["commit", "--quiet", "--allow-empty", "-m", "Work"]);
        let bundle = home.path().join("work.bundle");
        git(&clone, &["bundle", "create", "--quiet", bundle.to_str().unwrap(), "main", &format!("^{base}")]);
        let starts = Starts { base: base.clone(), start: base.clone() };
        let review = Quarantine::open(&folder, &bundle, "main", &starts).unwrap().review(&rules).unwrap();
        review.held_back.iter().map(|remark| format!("{}: {}", remark.path, remark.reason)).collect::<Vec<_>>()
    };
    let tasks = clone.join(".vscode/tasks.json");
    let theirs = |name: &str| vec![format!("{name}: was written by `sandbox editor`, and is changed here")];
    let changed = held(&|| {
        let hostile = fs::read_to_string(&tasks).unwrap().replace("\"sandbox\",", "\"./evil\",");
        fs::write(&tasks, hostile).unwrap();
    });
    assert_eq!(changed, theirs(".vscode/tasks.json"));
    assert_eq!(held(&|| fs::remove_file(&tasks).unwrap()), theirs(".vscode/tasks.json"));
    assert_eq!(held(&|| fs::write(clone.join(".vscode/Tasks.json"), "{}").unwrap()), theirs(".vscode/Tasks.json"));
    let linked = held(&|| {
        fs::remove_dir_all(clone.join(".vscode")).unwrap();
        symlink("elsewhere", clone.join(".vscode")).unwrap();
    });
    assert_eq!(linked.len(), 3, "{linked:?}");
    // Other files, also those of the same folder, are not held back for this.
    assert!(held(&|| fs::write(clone.join(".vscode/launch.json"), "{}").unwrap()).is_empty());
    assert!(held(&|| fs::write(clone.join("README.md"), "words").unwrap()).is_empty());
}

#[test]
fn neovim_takes_the_file_and_no_shell_reads_the_prompt() {
    assert!(Command::new("nvim").arg("--version").output().is_ok(), "Neovim is missing: run `make packages`");
    let home = Home::without_engine();
    let folder = project(&home);
    editor(&home, &folder, &["neovim", "--write"]);
    let bin = home.path().join("bin");
    fs::create_dir(&bin).unwrap();
    let said = home.path().join("said");
    fs::write(bin.join("sandbox"), format!("#!/bin/sh\nprintf '<%s>' \"$@\" >> {}\n", said.display())).unwrap();
    fs::set_permissions(bin.join("sandbox"), PermissionsExt::from_mode(0o755)).unwrap();
    let run = |commands: &[&str]| {
        let mut nvim = Command::new("nvim");
        nvim.args(["--headless", "-u", "NONE", "-c", "luafile .nvim.lua"]);
        for command in commands {
            nvim.args(["-c", command]);
        }
        let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
        let output = nvim.args(["-c", "qa!"]).env("PATH", path).current_dir(&folder).output().unwrap();
        text(&output.stderr)
    };
    let complained = run(&["Sandbox prompt it's $(touch x) \"quoted\"", "sleep 500m"]);
    assert_eq!(complained, "");
    assert_eq!(fs::read_to_string(&said).unwrap(), "<up><--><claude><it's $(touch x) \"quoted\">");
    assert!(!folder.join("x").exists());
    let unknown = run(&["Sandbox nothing"]);
    assert!(unknown.contains("one of check, diff, down, logs, plan, prompt, pull, shell, status, up"), "{unknown}");

    fs::remove_file(bin.join("sandbox")).unwrap();
    symlink(env!("CARGO_BIN_EXE_sandbox"), bin.join("sandbox")).unwrap();
    fs::write(folder.join("sandbox.yaml"), "version: 1\nproject: payments\nnetwrk: {}\n").unwrap();
    let list =
        "lua for _, i in ipairs(vim.fn.getqflist()) do print(vim.fn.bufname(i.bufnr), i.lnum, i.col, i.text) end";
    let faults = run(&["Sandbox check", list]);
    assert!(faults.contains("sandbox.yaml 3 1 the manifest has no key `netwrk`"), "{faults}");
}
