//! Bundles made by a hostile sandbox, against a developer's repository that must not change outside `refs/sandbox/`.
#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use sandbox::project::manifest::WorkspaceSpec;
use sandbox::project::path_patterns::{PathPattern, PathPatterns};
use sandbox::project::{ProjectName, SandboxName};
use sandbox::workspace::incoming::{Starts, Terms, reference};
use sandbox::workspace::tracked_secrets::{self, TrackedSecret};
use sandbox::workspace::{
    AcceptedRisks, Received, ReviewRules, SourceState, WorkspaceError, inspect, is_pulled, open_bundle, receive,
};
use tempfile::TempDir;
use tokio::io::AsyncReadExt;

/// A developer's repository whose hooks, monitor and filter write to `tripwire` when anything runs them.
struct Scene {
    folder: TempDir,
}

fn git(folder: &Path, arguments: &[&str]) -> String {
    git_with(folder, arguments, b"")
}

/// Plain git for building the scene, switched away from the traps.
fn git_with(folder: &Path, arguments: &[&str], input: &[u8]) -> String {
    let mut child = Command::new("git")
        .args(["-c", "core.hooksPath=/dev/null", "-c", "core.fsmonitor=false", "-c", "filter.trap.clean="])
        .args(["-c", "core.protectHFS=false", "-c", "core.protectNTFS=false"])
        .args(arguments)
        .current_dir(folder)
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .envs([("GIT_AUTHOR_NAME", "a"), ("GIT_AUTHOR_EMAIL", "a@x"), ("GIT_COMMITTER_NAME", "a")])
        .env("GIT_COMMITTER_EMAIL", "a@x")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), input).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "git {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

impl Scene {
    fn new() -> Self {
        let scene = Self { folder: tempfile::tempdir().unwrap() };
        let repository = scene.repository();
        std::fs::create_dir(&repository).unwrap();
        git(&repository, &["init", "-q", "-b", "main"]);
        std::fs::write(repository.join("a.txt"), "one\n").unwrap();
        std::fs::write(repository.join(".gitattributes"), "*.txt filter=trap diff=trap\n").unwrap();
        git(&repository, &["add", "."]);
        git(&repository, &["commit", "-qm", "first"]);
        git(&scene.path(), &["clone", "-q", "--bare", "repository", "agent"]);
        let trap = scene.path().join("trap");
        std::fs::write(&trap, format!("#!/bin/sh\necho ran >> '{}'\ncat\n", scene.tripwire().display())).unwrap();
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(&trap, mode).unwrap();
        for hook in ["reference-transaction", "post-checkout", "post-merge", "pre-auto-gc", "post-index-change"] {
            std::fs::create_dir_all(repository.join(".git/hooks")).unwrap();
            std::fs::copy(&trap, repository.join(".git/hooks").join(hook)).unwrap();
        }
        let trap = trap.to_str().unwrap();
        for key in ["core.fsmonitor", "filter.trap.clean", "diff.trap.command", "diff.trap.textconv"] {
            git(&repository, &["config", key, trap]);
        }
        scene
    }

    fn path(&self) -> PathBuf {
        self.folder.path().to_path_buf()
    }

    fn repository(&self) -> PathBuf {
        self.path().join("repository")
    }

    fn agent(&self) -> PathBuf {
        self.path().join("agent")
    }

    fn tripwire(&self) -> PathBuf {
        self.path().join("tripwire")
    }

    fn base(&self) -> String {
        git(&self.repository(), &["rev-parse", "main"])
    }

    fn refs(&self) -> String {
        git(&self.repository(), &["for-each-ref"])
    }

    /// Commits one entry on top of the base, by writing trees from the inside out.
    fn plant(&self, path: &str, mode: &str, content: &str) {
        let agent = self.agent();
        let mut id = match mode {
            "160000" => self.base(),
            _ => git_with(&agent, &["hash-object", "-w", "--stdin"], content.as_bytes()),
        };
        let mut mode = mode.to_owned();
        let parts: Vec<&str> = path.split('/').collect();
        for (depth, part) in parts.iter().enumerate().rev() {
            let kind = match mode.as_str() {
                "40000" => "tree",
                "160000" => "commit",
                _ => "blob",
            };
            let mut entries = format!("{mode} {kind} {id}\t{part}\0").into_bytes();
            if depth == 0 {
                for line in
                    git(&agent, &["ls-tree", "main"]).lines().filter(|line| !line.ends_with(&format!("\t{part}")))
                {
                    entries.extend(line.bytes());
                    entries.push(0);
                }
            }
            id = git_with(&agent, &["mktree", "-z", "--missing"], &entries);
            mode = "40000".to_owned();
        }
        self.commit(&id);
    }

    fn commit(&self, tree: &str) {
        let commit = git(&self.agent(), &["commit-tree", "-p", "main", "-m", "work", tree]);
        git(&self.agent(), &["update-ref", "refs/heads/main", &commit]);
    }

    fn bundle(&self, references: &[&str]) -> PathBuf {
        let file = self.path().join("incoming.bundle");
        let not = format!("^{}", self.base());
        let mut arguments = vec!["bundle", "create", "-q", file.to_str().unwrap(), &not];
        arguments.extend(references);
        git(&self.agent(), &arguments);
        file
    }

    async fn receive(&self, bundle: &Path, accepted: &[&str]) -> Result<Received, WorkspaceError> {
        let accepted = AcceptedRisks(accepted.iter().map(|path| (*path).to_owned()).collect());
        let starts = Starts { base: self.base(), start: self.base() };
        let place = reference(&project(), &SandboxName::main(), "main");
        let rules = ReviewRules::default();
        let terms = Terms { rules: &rules, accepted: &accepted };
        receive(&self.repository(), bundle, &place, "main", &starts, terms, |_| {}).await
    }

    fn assert_untouched(&self, refs_before: &str, what: &str) {
        assert_eq!(self.refs(), refs_before, "{what}: refs changed");
        self.assert_quiet(what);
    }

    fn assert_quiet(&self, what: &str) {
        assert!(!self.tripwire().exists(), "{what}: something ran on the host");
    }
}

fn project() -> ProjectName {
    "payments".parse().unwrap()
}

fn spec(include_uncommitted: bool, depth: Option<u32>) -> WorkspaceSpec {
    WorkspaceSpec { depth, include_uncommitted, ..WorkspaceSpec::default() }
}

async fn bundled(scene: &Scene, spec: &WorkspaceSpec) -> (SourceState, PathBuf) {
    let state = inspect(&scene.repository(), spec).unwrap();
    let mut stream = open_bundle(&scene.repository(), spec, &state).await.unwrap();
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).await.unwrap();
    stream.finish().await.unwrap();
    let file = scene.path().join("out.bundle");
    std::fs::write(&file, bytes).unwrap();
    (state, file)
}

#[tokio::test]
async fn refuses_or_holds_back_every_hostile_entry() {
    let cases: &[(&str, &str, &str)] = &[
        ("link", "120000", "/etc/passwd"),
        ("link", "120000", "../outside"),
        ("d/link", "120000", "x/../../../y"),
        ("link", "120000", ".git/hooks/post-checkout"),
        ("link", "120000", ".GIT/config"),
        ("link", "120000", "C:\\Windows"),
        ("link", "120000", "\\\\host\\share"),
        ("link", "120000", "~/x"),
        ("d/link", "120000", "../.git"),
        (".gitmodules", "120000", "a.txt"),
        (".gitattributes", "120000", "a.txt"),
        ("sub", "160000", ""),
        ("d/sub", "160000", ""),
        (".git/config", "100644", "x"),
        ("d/.git/config", "100644", "x"),
        (".GIT/config", "100644", "x"),
        ("d/.Git/hooks/x", "100755", "x"),
        (".git./x", "100644", "x"),
        (".git /x", "100644", "x"),
        ("git~1/x", "100644", "x"),
        ("d/GIT~2/x", "100644", "x"),
        (".git::$INDEX_ALLOCATION/x", "100644", "x"),
        (".g\u{200c}it/x", "100644", "x"),
        (".gi\u{feff}t/x", "100644", "x"),
        ("..\\x", "100644", "x"),
        ("a\\.git\\config", "100644", "x"),
        ("../x", "100644", "x"),
        ("./x", "100644", "x"),
        (".gitmodules", "100644", "[submodule \"a\"]\n\tpath = a\n\turl = --upload-pack=x\n"),
        (".gitmodules", "100644", "[submodule \"a\"]\n\tpath = a\n\turl = https://x/y\n\tupdate = !touch x\n"),
        (".gitmodules", "100644", "[submodule \"a\"]\n\tpath = a\n\turl = https://x/y\n"),
        ("d/.gitmodules", "100644", "x"),
        (".GitModules", "100644", "x"),
        ("GITMOD~1", "100644", "x"),
        ("gi7eba~1", "100644", "x"),
        (".gitattributes", "100644", "* filter=evil\n"),
        ("d/.gitattributes", "100644", "* filter=evil\n"),
        (".GITATTRIBUTES.", "100644", "x"),
        (".lfsconfig", "100644", "[lfs]\n"),
        ("sandbox.yaml", "100644", "x"),
        ("d/Sandbox.yaml", "100644", "x"),
        (".sandbox/x", "100644", "x"),
        ("images/x", "100644", "x"),
        ("profiles/x", "100644", "x"),
        ("Dockerfile.agent", "100644", "x"),
    ];
    for (path, mode, content) in cases {
        let scene = Scene::new();
        scene.plant(path, mode, content);
        let bundle = scene.bundle(&["main"]);
        let refs = scene.refs();
        let what = format!("{mode} {path:?} {content:?}");
        match scene.receive(&bundle, &[]).await {
            Ok(received) => {
                assert!(!received.review.held_back.is_empty(), "{what}: not held back");
                assert_eq!(received.reference, None, "{what}: landed");
            }
            Err(WorkspaceError::Git(error)) => {
                assert!(
                    error.to_string().contains("fsck") || error.to_string().contains("index-pack"),
                    "{what}: {error}"
                );
            }
            Err(other) => panic!("{what}: {other:?}"),
        }
        scene.assert_untouched(&refs, &what);
    }
}

#[tokio::test]
async fn holds_back_what_only_a_commit_in_between_has() {
    let target = "../../outside";
    for (path, mode, content) in [
        (".gitattributes", "100644", "* filter=evil\n"),
        ("link", "120000", target),
        ("sub", "160000", ""),
        ("deep/sandbox.yaml", "100644", "x"),
    ] {
        let scene = Scene::new();
        let before = git(&scene.agent(), &["rev-parse", "main^{tree}"]);
        scene.plant(path, mode, content);
        let hazard = git(&scene.agent(), &["rev-parse", "main"]);
        scene.commit(&before);
        scene.plant("b.txt", "100644", "harmless\n");
        let bundle = scene.bundle(&["main"]);
        let received = scene.receive(&bundle, &[]).await.unwrap();
        let [remark] = &received.review.held_back[..] else { panic!("{path}: {:?}", received.review.held_back) };
        assert_eq!((remark.path.as_str(), remark.commit.as_deref()), (path, Some(hazard.as_str())));
        assert_eq!(received.reference, None, "{path}");
        assert!(received.review.files.iter().all(|file| file.path != path), "{path} is in the last commit");
        assert!(scene.receive(&bundle, &[path]).await.unwrap().reference.is_some(), "{path} was accepted");
    }
}

/// In two pieces, so that nobody takes this file for a place of one.
fn token() -> String {
    ["ghp_zQWBuTSOoRi4A9spHcVY5n", "cnsDkxkJ0mLq17"].concat()
}

#[tokio::test]
async fn a_credential_of_the_base_may_move_and_one_that_is_brought_may_not() {
    let scene = Scene::new();
    let repository = scene.repository();
    std::fs::write(repository.join("sample.md"), format!("one\n{}\n", token())).unwrap();
    git(&repository, &["add", "sample.md"]);
    git(&repository, &["-c", "filter.trap.clean=cat", "commit", "-qm", "second"]);
    git(&scene.agent(), &["fetch", "-q", repository.to_str().unwrap(), "+main:main"]);
    std::fs::remove_file(scene.tripwire()).ok();
    // Moved and changed, in a commit in between as in the last one.
    let without = git(&repository, &["rev-parse", "main^^{tree}"]);
    scene.commit(&without);
    scene.plant("moved.md", "100644", &format!("another\n\n{}\n", token()));
    scene.plant("again.md", "100644", &format!("and another\n{}\n", token()));
    let received = scene.receive(&scene.bundle(&["main"]), &[]).await.unwrap();
    assert_eq!((&received.review.held_back[..], received.reference.is_some()), (&[][..], true));

    // Brought by one commit, moved by the next, and taken away by the last.
    let scene = Scene::new();
    let before = git(&scene.agent(), &["rev-parse", "main^{tree}"]);
    scene.plant("one.md", "100644", &token());
    scene.commit(&before);
    scene.plant("two.md", "100644", &token());
    scene.commit(&before);
    let received = scene.receive(&scene.bundle(&["main"]), &[]).await.unwrap();
    let paths: Vec<&str> = received.review.held_back.iter().map(|remark| remark.path.as_str()).collect();
    assert_eq!(paths, ["one.md", "two.md"]);
}

#[tokio::test]
async fn holds_back_what_a_merge_alone_brings_and_a_repository_in_pieces() {
    let scene = Scene::new();
    let agent = scene.agent();
    let tree = git(&agent, &["rev-parse", "main^{tree}"]);
    let base = git(&agent, &["rev-parse", "main"]);
    let side = git(&agent, &["commit-tree", "-p", "main", "-m", "side", &tree]);
    scene.plant("sub", "160000", "");
    let evil = git(&agent, &["rev-parse", "main^{tree}"]);
    let merge = git(&agent, &["commit-tree", "-p", &base, "-p", &side, "-m", "merge", &evil]);
    git(&agent, &["update-ref", "refs/heads/main", &merge]);
    scene.commit(&tree);
    let received = scene.receive(&scene.bundle(&["main"]), &[]).await.unwrap();
    assert!(received.review.held_back.iter().any(|remark| remark.path == "sub"), "{:?}", received.review.held_back);

    let scene = Scene::new();
    let tree = git(&scene.agent(), &["rev-parse", "main^{tree}"]);
    for path in ["bare/HEAD", "bare/objects/x", "bare/refs/x"] {
        scene.plant(path, "100644", "x");
        scene.commit(&tree);
    }
    let received = scene.receive(&scene.bundle(&["main"]), &[]).await.unwrap();
    assert!(received.review.held_back.iter().any(|remark| remark.path == "bare"), "{:?}", received.review.held_back);
}

#[tokio::test]
async fn holds_back_and_shows_first_what_the_user_listed() {
    let scene = Scene::new();
    scene.plant("Deploy/Main.tf", "100644", "x");
    let patterns = |text| PathPatterns::new(&[PathPattern::parse(text).unwrap()]).unwrap();
    let listed =
        ReviewRules { held_back: patterns("deploy/**"), shown_first: patterns("*.TF"), ..ReviewRules::default() };
    let (repository, bundle) = (scene.repository(), scene.bundle(&["main"]));
    let starts = Starts { base: scene.base(), start: scene.base() };
    let received = receive(
        &repository,
        &bundle,
        "refs/sandbox/payments/main",
        "main",
        &starts,
        Terms { rules: &listed, accepted: &AcceptedRisks::default() },
        |_| {},
    )
    .await;
    let review = received.unwrap().review;
    assert_eq!(review.held_back.iter().map(|remark| remark.path.as_str()).collect::<Vec<_>>(), ["Deploy/Main.tf"]);
    assert!(review.shown_first.iter().any(|remark| remark.reason == "is on your list of what to look at"));
    assert!(scene.receive(&bundle, &[]).await.unwrap().reference.is_some());
}

#[tokio::test]
async fn holds_back_a_repository_inside_the_tree() {
    let scene = Scene::new();
    let agent = scene.agent();
    let blob = git_with(&agent, &["hash-object", "-w", "--stdin"], b"x");
    let inner = git_with(&agent, &["mktree"], format!("100644 blob {blob}\tx\n").as_bytes());
    let bare = format!("100644 blob {blob}\tHEAD\n040000 tree {inner}\tobjects\n040000 tree {inner}\trefs\n");
    let bare = git_with(&agent, &["mktree"], bare.as_bytes());
    scene.commit(&git_with(&agent, &["mktree"], format!("040000 tree {bare}\tdeep\n").as_bytes()));
    let received = scene.receive(&scene.bundle(&["main"]), &[]).await.unwrap();
    assert!(received.review.held_back.iter().any(|remark| remark.path == "deep"), "{:?}", received.review.held_back);
    assert_eq!(received.reference, None);
}

#[tokio::test]
async fn shows_first_what_runs_later_or_deceives_and_brings_it_in() {
    for (path, mode, content) in [
        (".envrc", "100644", "x"),
        (".vscode/tasks.json", "100644", "x"),
        (".github/workflows/x.yml", "100644", "x"),
        ("CLAUDE.md", "100644", "x"),
        ("build.rs", "100644", "x"),
        ("tool", "100755", "x"),
        ("b.bin", "100644", "a\0b"),
        ("bidi.rs", "100644", "a\u{202e}b"),
        ("escape.rs", "100644", "\u{1b}[2J"),
        ("name\u{202e}txt", "100644", "x"),
        ("name\u{1b}[2J", "100644", "x"),
    ] {
        let scene = Scene::new();
        scene.plant(path, mode, content);
        let received = scene.receive(&scene.bundle(&["main"]), &[]).await.unwrap();
        assert!(!received.review.shown_first.is_empty(), "{path:?}: not shown first");
        assert!(received.review.files.iter().all(|file| !file.path.contains(['\u{1b}', '\u{202e}'])), "{path:?}");
        assert_eq!(received.reference.as_deref(), Some("refs/sandbox/payments/main"), "{path:?}");
        scene.assert_quiet(path);
    }
}

#[tokio::test]
async fn moves_no_ref_but_the_named_one() {
    let scene = Scene::new();
    scene.plant("b.txt", "100644", "two\n");
    for name in ["refs/tags/v1", "refs/heads/other", "refs/remotes/origin/main"] {
        git(&scene.agent(), &["update-ref", name, "main"]);
    }
    let before = scene.refs();
    let bundle = scene.bundle(&["--all"]);
    let received = scene.receive(&bundle, &[]).await.unwrap();
    let after: Vec<String> =
        scene.refs().lines().filter(|line| !line.contains("refs/sandbox/")).map(str::to_owned).collect();
    assert_eq!(after.join("\n"), before);
    assert_eq!(
        git(&scene.repository(), &["rev-parse", "refs/sandbox/payments/main^{tree}"]),
        git(&scene.agent(), &["rev-parse", "main^{tree}"])
    );
    assert!(is_pulled(&scene.repository(), &received.head).unwrap());
    scene.assert_quiet("all refs");
}

#[tokio::test]
async fn refuses_bundles_that_are_none() {
    let scene = Scene::new();
    scene.plant("b.txt", "100644", "two\n");
    let whole = std::fs::read(scene.bundle(&["main"])).unwrap();
    let refs = scene.refs();
    let lying = String::from_utf8_lossy(&whole).lines().next().unwrap().to_owned() + "\n-" + &"1".repeat(40) + " x\n\n";
    let cases = [b"".to_vec(), b"garbage".to_vec(), whole[..whole.len() / 2].to_vec(), lying.into_bytes()];
    for (index, bytes) in cases.into_iter().enumerate() {
        let file = scene.path().join("bad.bundle");
        std::fs::write(&file, bytes).unwrap();
        assert!(scene.receive(&file, &[]).await.is_err(), "case {index}");
        scene.assert_untouched(&refs, "bad bundle");
    }
}

#[tokio::test]
async fn lets_in_what_is_accepted_path_by_path() {
    let scene = Scene::new();
    scene.plant("sub", "160000", "");
    let bundle = scene.bundle(&["main"]);
    assert_eq!(scene.receive(&bundle, &["other"]).await.unwrap().reference, None);
    assert!(scene.receive(&bundle, &["sub"]).await.unwrap().reference.is_some());
}

#[tokio::test]
async fn takes_uncommitted_changes_along_and_leaves_the_checkout_as_it_was() {
    let scene = Scene::new();
    let repository = scene.repository();
    std::fs::write(repository.join("a.txt"), "changed\n").unwrap();
    std::fs::write(repository.join(".env"), "KEY=1\n").unwrap();
    let read = || (std::fs::read(repository.join(".git/index")).unwrap(), scene.refs());
    let before = read();
    let (state, bundle) = bundled(&scene, &spec(true, None)).await;
    assert!(state.dirty);
    assert!(before == read(), "index or refs changed");
    scene.assert_quiet("include_uncommitted");
    git(&scene.path(), &["clone", "-q", bundle.to_str().unwrap(), "copy", "-b", "main"]);
    let copy = scene.path().join("copy");
    assert_eq!(std::fs::read_to_string(copy.join("a.txt")).unwrap(), "changed\n");
    assert!(!copy.join(".env").exists());
    assert_eq!(git(&copy, &["rev-parse", "HEAD^"]), state.base);
}

#[tokio::test]
async fn gives_the_branch_unchanged_and_cuts_at_the_depth() {
    let scene = Scene::new();
    for number in 0..3 {
        git(&scene.repository(), &["commit", "-q", "--allow-empty", "-m", &number.to_string()]);
    }
    let (state, bundle) = bundled(&scene, &spec(false, None)).await;
    assert!(!state.dirty && state.cut.is_empty());
    git(&scene.path(), &["clone", "-q", bundle.to_str().unwrap(), "copy", "-b", "main"]);
    assert_eq!(git(&scene.path().join("copy"), &["rev-parse", "HEAD"]), state.base);
    let (state, bundle) = bundled(&scene, &spec(false, Some(2))).await;
    assert_eq!(state.cut, [git(&scene.repository(), &["rev-parse", "main~1"])]);
    let cut = scene.path().join("cut");
    git(&scene.path(), &["init", "-q", "cut"]);
    std::fs::write(cut.join(".git/shallow"), state.cut.join("\n") + "\n").unwrap();
    git(&cut, &["fetch", "-q", bundle.to_str().unwrap(), "refs/heads/main:refs/heads/got"]);
    assert_eq!(git(&cut, &["rev-list", "--count", "got"]), "2");
    scene.assert_quiet("bundle");
}

#[test]
fn says_why_a_repository_cannot_go_along() {
    let scene = Scene::new();
    assert!(matches!(inspect(&scene.path(), &spec(false, None)), Err(WorkspaceError::NotARepository(..))));
    git(&scene.repository(), &["checkout", "-q", "--detach"]);
    assert!(matches!(inspect(&scene.repository(), &spec(false, None)), Err(WorkspaceError::DetachedHead)));
    git(&scene.path(), &["init", "-q", "-b", "main", "empty"]);
    assert!(matches!(inspect(&scene.path().join("empty"), &spec(false, None)), Err(WorkspaceError::NoCommit(_))));
}

#[test]
fn finds_credentials_that_the_repository_tracks_and_no_others() {
    let scene = Scene::new();
    let repository = scene.repository();
    assert_eq!(tracked_secrets::find(&repository, &scene.base()).unwrap(), []);
    let token = token();
    std::fs::create_dir(repository.join("d")).unwrap();
    std::fs::write(repository.join("d/odd\u{1b}[2J\nname"), format!("one\nTOKEN={token}\n")).unwrap();
    std::fs::write(repository.join("example.md"), "a token is ghp_xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\n").unwrap();
    git(&repository, &["add", "."]);
    git(&repository, &["commit", "-qm", "second"]);
    std::fs::write(repository.join("untracked"), &token).unwrap();
    let found = tracked_secrets::find(&repository, &scene.base()).unwrap();
    let expected = TrackedSecret { path: "d/odd\\u{1b}[2J\\nname".into(), line: 2, reason: "holds a GitHub token" };
    assert_eq!(found, [expected]);
    scene.assert_quiet("the search");

    // What is not committed goes along with `include_uncommitted`, and so does a listed submodule.
    std::fs::write(repository.join("a.txt"), format!("{token}\n")).unwrap();
    let own: Vec<_> = tracked_secrets::of_working_tree(&repository).unwrap();
    let paths: Vec<&str> = own.iter().map(|secret| secret.path.as_str()).collect();
    assert_eq!(paths, ["a.txt", "d/odd\\u{1b}[2J\\nname"]);
    let inner = repository.join("third");
    git(&scene.path(), &["init", "-q", "-b", "main", inner.to_str().unwrap()]);
    std::fs::write(inner.join("key"), &token).unwrap();
    git(&inner, &["add", "."]);
    git(&inner, &["commit", "-qm", "first"]);
    std::fs::write(repository.join(".gitmodules"), "[submodule \"third\"]\n\tpath = third\n\turl = ../x\n").unwrap();
    git(&repository, &["add", ".gitmodules", "third"]);
    git(&repository, &["commit", "-qm", "third", "--", ".gitmodules", "third"]);
    let listed = WorkspaceSpec { submodules: vec!["third".into()], ..WorkspaceSpec::default() };
    let found = tracked_secrets::of_commits(&repository, &inspect(&repository, &listed).unwrap()).unwrap();
    assert_eq!(found.last().map(|secret| (secret.path.as_str(), secret.line)), Some(("third/key", 1)));
    scene.assert_quiet("the search of what goes along");
}
