//! Every kind of repository that a developer may have, on its way into a sandbox: it arrives whole, or it is said why not. The
//! program that clones is the one of the agent's container, run here without a container.

#![allow(clippy::unwrap_used, reason = "a test says by a panic what is wrong")]

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use sandbox::project::SandboxName;
use sandbox::project::manifest::WorkspaceSpec;
use sandbox::session::stream_client::SessionClient;
use sandbox::workspace::{WorkspaceError, clone_request, inspect, open_bundle, submodule};
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;

fn git(folder: &Path, words: &[&str]) -> String {
    let output = std::process::Command::new("git")
        .args(["-c", "user.name=Ada", "-c", "user.email=ada@example.com", "-c", "protocol.file.allow=always"])
        .args(["-c", "gc.auto=0"])
        .args(words)
        .current_dir(folder)
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .output()
        .unwrap();
    assert!(output.status.success(), "git {words:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// A repository with three commits, a folder and a tag.
fn repository(folder: &Path, name: &str, options: &[&str]) -> PathBuf {
    git(folder, &[&["init", "-q", "-b", "main"], options, &[name]].concat());
    let repository = folder.join(name);
    std::fs::create_dir_all(repository.join("src/api")).unwrap();
    std::fs::create_dir_all(repository.join("docs")).unwrap();
    for turn in ["one", "two", "three"] {
        for file in ["top.txt", "src/api/a.txt", "docs/b.txt"] {
            std::fs::write(repository.join(file), format!("{turn} of {file}\n")).unwrap();
        }
        git(&repository, &["add", "."]);
        git(&repository, &["commit", "-qm", turn]);
    }
    git(&repository, &["tag", "v1"]);
    repository
}

/// Hands a repository over, and gives the folder with the clone in it.
async fn hand_over(source: &Path, spec: &WorkspaceSpec) -> Result<TempDir, WorkspaceError> {
    let state = inspect(source, spec)?;
    let target = tempfile::tempdir().unwrap();
    let clone = target.path().join("workspace");
    let mut child = tokio::process::Command::new(env!("CARGO_BIN_EXE_sandbox"))
        .arg("session")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let (read, write) = (child.stdout.take().unwrap(), child.stdin.take().unwrap());
    let mut client = SessionClient::new(read, write, Duration::from_secs(60));
    let (project, name) = ("payments".parse().unwrap(), SandboxName::main());
    let request = clone_request(clone.to_str().unwrap(), spec, &state, &project, &name, &[]);
    let mut bundle = open_bundle(source, spec, &state).await?;
    let cloned = client.clone_bundle(request, &mut bundle).await;
    // git's own word for why is better than what a cut bundle looks like from inside.
    bundle.finish().await?;
    let head = cloned.unwrap();
    assert_eq!(head.as_deref(), Some(git(&clone, &["rev-parse", "HEAD"]).as_str()));
    for one in &state.submodules {
        let opened = submodule::open_bundle(one, &state, spec.depth, clone.to_str().unwrap(), Vec::new()).await?;
        let (request, mut bundle) = opened;
        client.clone_bundle(request, &mut bundle).await.unwrap();
        bundle.finish().await?;
    }
    if !state.large_files.is_empty() {
        client.large_files(clone.to_str().unwrap(), &state.large_files).await.unwrap();
    }
    Ok(target)
}

/// It arrives, on its branch, with every file of the commit, and nothing is wrong with it.
async fn arrives(source: &Path, spec: &WorkspaceSpec, commit: &str) -> (TempDir, PathBuf) {
    let target = hand_over(source, spec).await.unwrap();
    let clone = target.path().join("workspace");
    assert_eq!(git(&clone, &["rev-parse", "HEAD"]), git(source, &["rev-parse", commit]), "{source:?}");
    assert_eq!(git(&clone, &["status", "--porcelain"]), "", "{source:?}");
    git(&clone, &["fsck", "--full", "--strict"]);
    assert!(!clone.join(".git/sandbox.unfinished").exists());
    (target, clone)
}

fn plain() -> WorkspaceSpec {
    WorkspaceSpec::default()
}

#[tokio::test]
async fn worktrees_borrowed_objects_and_separate_git_folders_arrive() {
    let top = tempfile::tempdir().unwrap();
    let main = repository(top.path(), "main", &[]);
    git(&main, &["worktree", "add", "-q", "-b", "feature", "../linked"]);
    let linked = top.path().join("linked");
    std::fs::write(linked.join("only-here"), "x").unwrap();
    git(&linked, &["add", "."]);
    git(&linked, &["commit", "-qm", "feature"]);
    let (_target, clone) = arrives(&linked, &plain(), "feature").await;
    assert_eq!(git(&clone, &["symbolic-ref", "--short", "HEAD"]), "feature");
    arrives(&main, &plain(), "main").await;
    git(top.path(), &["clone", "-q", "--shared", "main", "borrows"]);
    git(top.path(), &["clone", "-q", "--shared", "borrows", "borrows-again"]);
    arrives(&top.path().join("borrows-again"), &plain(), "main").await;
    git(top.path(), &["clone", "-q", "--separate-git-dir=elsewhere", "main", "apart"]);
    arrives(&top.path().join("apart"), &plain(), "main").await;
    // Everything in packs, with their own index of commits.
    git(&main, &["repack", "-adq"]);
    git(&main, &["commit-graph", "write", "--reachable"]);
    git(&main, &["pack-refs", "--all"]);
    arrives(&main, &plain(), "main").await;
}

#[tokio::test]
async fn cut_and_partial_histories_arrive_or_it_is_said_why_not() {
    let top = tempfile::tempdir().unwrap();
    let main = repository(top.path(), "main", &[]);
    git(&main, &["config", "uploadpack.allowFilter", "true"]);
    let address = format!("file://{}", main.display());
    git(top.path(), &["clone", "-q", "--depth=2", &address, "shallow"]);
    let (_target, clone) = arrives(&top.path().join("shallow"), &plain(), "main").await;
    assert_eq!(git(&clone, &["rev-list", "--count", "HEAD"]), "2");
    let (_target, clone) = arrives(&main, &WorkspaceSpec { depth: Some(1), ..plain() }, "main").await;
    assert_eq!(git(&clone, &["rev-list", "--count", "HEAD"]), "1");
    git(top.path(), &["clone", "-q", "--filter=blob:none", &address, "partial"]);
    let partial = top.path().join("partial");
    let error = hand_over(&partial, &plain()).await.unwrap_err();
    assert!(matches!(error, WorkspaceError::PartialClone(_)), "{error:?}");
    // What it has is enough for its last commit.
    arrives(&partial, &WorkspaceSpec { depth: Some(1), ..plain() }, "main").await;
    git(&partial, &["fetch", "-q", "--refetch", "--no-filter"]);
    arrives(&partial, &plain(), "main").await;
}

#[tokio::test]
async fn a_head_that_is_no_branch_or_has_no_commit_is_told_or_does_not_matter() {
    let top = tempfile::tempdir().unwrap();
    let main = repository(top.path(), "main", &[]);
    git(&main, &["checkout", "-q", "--detach", "HEAD~1"]);
    assert!(matches!(hand_over(&main, &plain()).await, Err(WorkspaceError::DetachedHead)));
    let named = WorkspaceSpec { branch: Some("main".into()), ..plain() };
    arrives(&main, &named, "main").await;
    git(&main, &["checkout", "-q", "--orphan", "unborn"]);
    assert!(matches!(hand_over(&main, &plain()).await, Err(WorkspaceError::NoCommit(_))));
    arrives(&main, &named, "main").await;
    git(&main, &["checkout", "-qf", "-b", "odd/$(touch-x)/\u{e9}", "main"]);
    let (_target, clone) = arrives(&main, &plain(), "HEAD").await;
    assert_eq!(git(&clone, &["symbolic-ref", "--short", "HEAD"]), "odd/$(touch-x)/\u{e9}");
    let absent = WorkspaceSpec { branch: Some("absent".into()), ..plain() };
    assert!(matches!(hand_over(&main, &absent).await, Err(WorkspaceError::NoCommit(_))));
}

#[tokio::test]
async fn odd_names_arrive_as_they_are() {
    let top = tempfile::tempdir().unwrap();
    let main = repository(top.path(), "a folder with \"quotes\" and \u{e9}", &[]);
    let names: [&[u8]; 8] =
        [b"two\nlines", b"\xff\xfe", b"-rf", b"trailing ", b"\x1b[2J", b"a\tb", b"\"q\"", "e\u{301}".as_bytes()];
    for name in names {
        std::fs::write(main.join(OsStr::from_bytes(name)), name).unwrap();
    }
    git(&main, &["add", "."]);
    git(&main, &["commit", "-qm", "odd"]);
    let (_target, clone) = arrives(&main, &plain(), "main").await;
    for name in names {
        assert_eq!(std::fs::read(clone.join(OsStr::from_bytes(name))).unwrap(), name);
    }
}

#[tokio::test]
async fn repositories_of_another_format_arrive() {
    let top = tempfile::tempdir().unwrap();
    let long = repository(top.path(), "long", &["--object-format=sha256"]);
    let (_target, clone) = arrives(&long, &plain(), "main").await;
    assert_eq!(git(&clone, &["rev-parse", "--show-object-format"]), "sha256");
    let dirty = WorkspaceSpec { include_uncommitted: true, ..plain() };
    std::fs::write(long.join("top.txt"), "changed\n").unwrap();
    let target = hand_over(&long, &dirty).await.unwrap();
    assert_eq!(std::fs::read_to_string(target.path().join("workspace/top.txt")).unwrap(), "changed\n");
    // Refs in tables came with git 2.45 (git-init(1), `--ref-format`).
    let version = git(top.path(), &["version"]);
    let minor: u32 = version.split('.').nth(1).unwrap().parse().unwrap();
    if minor >= 45 || !version.contains(" 2.") {
        let tables = repository(top.path(), "tables", &["--ref-format=reftable"]);
        arrives(&tables, &plain(), "main").await;
        let both = repository(top.path(), "both", &["--ref-format=reftable", "--object-format=sha256"]);
        arrives(&both, &plain(), "main").await;
    }
}

#[tokio::test]
async fn a_sparse_tree_has_the_folders_that_were_asked_for_and_the_whole_history() {
    let top = tempfile::tempdir().unwrap();
    let main = repository(top.path(), "main", &[]);
    let sparse = WorkspaceSpec { sparse: vec!["src/api".into()], ..plain() };
    let (_target, clone) = arrives(&main, &sparse, "main").await;
    assert!(clone.join("src/api/a.txt").exists() && clone.join("top.txt").exists());
    assert!(!clone.join("docs").exists());
    assert_eq!(git(&clone, &["rev-list", "--count", "HEAD"]), "3");
    assert_eq!(git(&clone, &["rev-parse", "HEAD^{tree}"]), git(&main, &["rev-parse", "main^{tree}"]));
}

#[tokio::test]
async fn submodules_arrive_when_they_are_listed_and_nothing_of_theirs_runs() {
    let top = tempfile::tempdir().unwrap();
    let main = repository(top.path(), "main", &[]);
    let library = repository(top.path(), "library", &[]);
    git(&main, &["submodule", "--quiet", "add", "../library", "third/library"]);
    git(&main, &["commit", "-qm", "submodule"]);
    let inner = main.join("third/library");
    let trap = top.path().join("trap");
    std::fs::write(&trap, format!("#!/bin/sh\necho ran >> {}\ncat\n", top.path().join("tripwire").display())).unwrap();
    std::fs::set_permissions(&trap, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    for key in
        ["core.fsmonitor", "filter.trap.clean", "filter.trap.smudge", "core.sshCommand", "uploadpack.packObjectsHook"]
    {
        git(&inner, &["config", key, trap.to_str().unwrap()]);
    }
    let listed = WorkspaceSpec { submodules: vec!["third/library".into()], ..plain() };
    let (_target, clone) = arrives(&main, &listed, "main").await;
    let there = clone.join("third/library");
    assert_eq!(git(&there, &["rev-parse", "HEAD"]), git(&library, &["rev-parse", "main"]));
    assert_eq!(git(&clone, &["submodule", "status"]).trim_start_matches(' ').split(' ').nth(1), Some("third/library"));
    assert_eq!(std::fs::read_to_string(there.join("top.txt")).unwrap(), "three of top.txt\n");
    let (_target, clone) = arrives(&main, &plain(), "main").await;
    assert!(!clone.join("third/library/top.txt").exists());
    assert!(!top.path().join("tripwire").exists(), "something of the submodule's ran");
    let wrong = WorkspaceSpec { submodules: vec!["src".into()], ..plain() };
    assert!(matches!(hand_over(&main, &wrong).await, Err(WorkspaceError::NoSubmodule(_))));
}

#[tokio::test]
async fn large_files_arrive_from_the_developers_store_under_the_digest_of_what_they_hold() {
    let top = tempfile::tempdir().unwrap();
    let main = repository(top.path(), "main", &[]);
    let content = vec![7_u8; 3 << 20];
    let oid = hex::encode(Sha256::digest(&content));
    let pointer = format!("version https://git-lfs.github.com/spec/v1\noid sha256:{oid}\nsize {}\n", content.len());
    std::fs::create_dir(main.join("assets")).unwrap();
    std::fs::write(main.join("assets/film.bin"), &pointer).unwrap();
    git(&main, &["add", "."]);
    git(&main, &["commit", "-qm", "large"]);
    let listed = WorkspaceSpec { lfs: vec!["assets".into()], ..plain() };
    let error = hand_over(&main, &listed).await.unwrap_err();
    assert!(matches!(&error, WorkspaceError::LargeFileAbsent(path) if path == "assets/film.bin"), "{error:?}");
    let place = |top: &Path| top.join(".git/lfs/objects").join(&oid[..2]).join(&oid[2..4]).join(&oid);
    std::fs::create_dir_all(place(&main).parent().unwrap()).unwrap();
    std::fs::write(place(&main), &content).unwrap();
    let target = hand_over(&main, &listed).await.unwrap();
    assert!(std::fs::read(place(&target.path().join("workspace"))).unwrap() == content);
    let (_target, clone) = arrives(&main, &plain(), "main").await;
    assert!(!place(&clone).exists());
}

#[tokio::test]
async fn a_change_of_the_same_size_in_the_same_second_is_not_passed_over() {
    let top = tempfile::tempdir().unwrap();
    let main = repository(top.path(), "main", &[]);
    for turn in 0..5 {
        std::fs::write(main.join("top.txt"), format!("a{turn}\n")).unwrap();
        git(&main, &["add", "."]);
        git(&main, &["commit", "-qm", "a"]);
        std::fs::write(main.join("top.txt"), format!("b{turn}\n")).unwrap();
        let target = hand_over(&main, &WorkspaceSpec { include_uncommitted: true, ..plain() }).await.unwrap();
        let there = std::fs::read_to_string(target.path().join("workspace/top.txt")).unwrap();
        assert_eq!(there, format!("b{turn}\n"));
    }
}
