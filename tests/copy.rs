//! `sandbox cp` and `sandbox pull --watch` against an engine.

#![allow(clippy::unwrap_used, reason = "a test says by a panic what is wrong")]

mod support;

use std::fs;
use std::os::unix::fs::symlink;
use std::process::Stdio;
use std::time::Duration;

use support::{Home, Project, eventually, text};

const MANIFEST: &str = "image: agent\ncommand: [sleep, infinity]\n";

fn up(home: &Home, project: &Project<'_>) {
    let output = home.sandbox().args(["up", "--detach", project.path().to_str().unwrap()]).output().unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
}

fn run(home: &Home, project: &Project<'_>, script: &str) {
    let output = home.sandbox().args(["exec", project.name(), "--", "sh", "-c", script]).output().unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
}

/// Exit code, and what it said.
fn copy(home: &Home, arguments: &[&str]) -> (i32, String) {
    let output = home.sandbox().arg("cp").args(arguments).output().unwrap();
    (output.status.code().unwrap(), format!("{}{}", text(&output.stdout), text(&output.stderr)))
}

#[test]
fn files_go_both_ways_and_nothing_else_does() {
    let home = Home::new();
    let project = Project::new(&home, "copy", MANIFEST);
    up(&home, &project);
    let place = tempfile::tempdir().unwrap();
    let here = place.path().to_str().unwrap();
    let there = |path: &str| format!("{}:{path}", project.name());

    run(
        &home,
        &project,
        "mkdir -p out/deep && printf report > out/deep/a.pdf && printf run > out/go && chmod 755 out/go",
    );
    let (code, said) = copy(&home, &[&there("out"), here]);
    assert_eq!(code, 0, "{said}");
    assert_eq!(fs::read_to_string(place.path().join("out/deep/a.pdf")).unwrap(), "report");
    let (code, said) = copy(&home, &[&there("out"), here]);
    assert!(code == 1 && said.contains("copy-exists"), "{said}");

    fs::write(place.path().join("in.txt"), "fixture").unwrap();
    let local = place.path().join("in.txt");
    for target in ["/tmp/", "new.txt", "/home/agent"] {
        let (code, said) = copy(&home, &[local.to_str().unwrap(), &there(target)]);
        assert_eq!(code, 0, "{target}: {said}");
    }
    run(&home, &project, "test \"$(cat /tmp/in.txt new.txt ~/in.txt)\" = fixturefixturefixture");
    fs::write(&local, "changed").unwrap();
    let (code, said) = copy(&home, &[local.to_str().unwrap(), &there("new.txt")]);
    assert!(code == 1 && said.contains("write over"), "{said}");
    let (code, said) = copy(&home, &[local.to_str().unwrap(), &there("new.txt"), "--force"]);
    assert_eq!(code, 0, "{said}");
    run(&home, &project, "test \"$(cat new.txt)\" = changed && ls -A | grep -c sandbox-copy && exit 1; exit 0");

    // What must not come out, each beside what could.
    run(
        &home,
        &project,
        "mkdir -p bad1 bad2 bad3 bad4 bad5/.git && ln -s /run/secrets bad1/x && mkfifo bad2/x && ln -s /etc/passwd bad3 && \
         ln -sfn /run/secrets bad4/s && truncate -s 4G huge && printf x > \"$(printf 'a\\033[31mb')\" && touch bad5/.git/config && cp -r .git bad6",
    );
    for path in [
        "bad1",
        "bad1/x",
        "bad2",
        "bad2/x",
        "bad3",
        "bad4/s/x",
        "bad5",
        "bad6",
        "huge",
        "/run/secrets",
        ".git",
        ".git/hooks",
        "",
    ] {
        let target = place.path().join("taken");
        let (code, said) = copy(&home, &[&there(path), target.to_str().unwrap()]);
        assert_eq!(code, 1, "{path}: {said}");
        assert!(said.contains("next: ") && !said.contains('\u{1b}') && !target.exists(), "{path}: {said}");
    }
    // Its own name is not taken; another one that the person gives is.
    let (code, said) = copy(&home, &[&there("a\u{1b}[31mb"), here]);
    assert!(code == 1 && said.contains("take the name") && !said.contains('\u{1b}'), "{said}");
    symlink("/etc/hostname", place.path().join("link-out")).unwrap();
    fs::create_dir(place.path().join("mixed")).unwrap();
    symlink("/etc/hostname", place.path().join("mixed/link")).unwrap();
    let (code, said) = copy(&home, &[place.path().join("mixed").to_str().unwrap(), &there("mixed")]);
    assert_eq!(code, 1, "{said}");
    run(&home, &project, "test ! -e mixed");
    let left: Vec<_> = fs::read_dir(place.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left.len(), 4, "{left:?}");

    let log = home.sandbox().args(["audit", "log", "--format", "json"]).output().unwrap();
    let log = text(&log.stdout);
    assert!(log.contains("files.copied") && log.contains("denied") && log.contains("/workspace/out"), "{log}");
    let output = home.sandbox().args(["audit", "verify"]).output().unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
}

#[test]
fn watching_brings_in_each_commit_holds_back_as_pull_does_and_ends_with_the_session() {
    let home = Home::new();
    let project = Project::new(&home, "watch", MANIFEST);
    up(&home, &project);
    let mut watching = home
        .command()
        .args(["pull", "--watch", project.name()])
        .current_dir(project.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let reference = format!("refs/sandbox/{}/main", project.name());
    let subject = || {
        let arguments = ["for-each-ref", "--format=%(subject)", &reference];
        project.git(&arguments).trim().to_owned()
    };
    let patience = Duration::from_secs(60);
    for number in ["one", "two"] {
        run(&home, &project, &format!("echo {number} > work && git add work && git commit -qm {number}"));
        eventually(number, patience, || subject() == number);
    }
    run(&home, &project, "printf '[x]\\n' > .gitattributes && git add . && git commit -qm held");
    std::thread::sleep(Duration::from_secs(6));
    assert_eq!(subject(), "two", "what is held back does not land");
    assert!(watching.try_wait().unwrap().is_none(), "it goes on");
    let down = home.sandbox().args(["down", "--discard", project.name()]).output().unwrap();
    assert!(down.status.success(), "{}", text(&down.stderr));
    eventually("the end", patience, || watching.try_wait().unwrap().is_some());
    let output = watching.wait_with_output().unwrap();
    let said = text(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{said}{}", text(&output.stderr));
    assert!(said.contains(".gitattributes") && said.matches("Now in refs/sandbox/").count() == 2, "{said}");
    assert_eq!(text(&output.stderr), "", "quiet in a pipe");
}
