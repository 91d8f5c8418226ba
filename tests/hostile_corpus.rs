//! Every hostile bundle that we know of, against a developer's repository in which every command is a trap: each is
//! stopped or shown as it should be, nothing runs on the host, and nothing but `refs/sandbox/` changes. By the gits of this machine,
//! and by the newest one that Debian has.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test says by a panic what is wrong, and how long a case took"
)]

#[path = "hostile/cases.rs"]
mod cases;
#[path = "hostile/scene.rs"]
mod scene;

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use cases::{Case, Expected};
use sandbox::workspace::WorkspaceError;
use scene::Scene;

/// The subcommands of git that building a scene and bringing a bundle in need.
const SUBCOMMANDS: [&str; 23] = [
    "add",
    "bundle",
    "cat-file",
    "check-ref-format",
    "commit",
    "commit-tree",
    "diff-tree",
    "fast-import",
    "for-each-ref",
    "hash-object",
    "index-pack",
    "init",
    "log",
    "ls-tree",
    "mktree",
    "pack-objects",
    "rev-list",
    "rev-parse",
    "symbolic-ref",
    "unpack-objects",
    "update-index",
    "update-ref",
    "write-tree",
];

/// What is wrong with what became of a case.
async fn judge(case: &Case) -> Vec<String> {
    let scene = Scene::new();
    let bundle = (case.make)(&scene);
    let before = scene.snapshot();
    let refs = scene.refs();
    let outcome = scene.receive(&bundle, &[]).await;
    let after = scene.refs();
    let others = |text: &str| text.lines().filter(|line| !line.contains("refs/sandbox/")).collect::<String>();
    let mut faults = Vec::new();
    let mut check = |holds: bool, fault: String| {
        if !holds {
            faults.push(fault);
        }
    };
    match (case.expected, outcome) {
        (Expected::Stopped, Ok(received)) => {
            check(!received.review.held_back.is_empty(), format!("is not held back: {:?}", received.review));
            check(received.reference.is_none() && after == refs, "came in".to_owned());
        }
        (Expected::Stopped, Err(WorkspaceError::Cancelled(error))) => check(false, format!("panics: {error}")),
        (Expected::Stopped, Err(error)) => {
            let said = std::iter::successors(Some(&error as &dyn std::error::Error), |error| error.source())
                .map(ToString::to_string)
                .collect::<String>();
            check(!said.chars().any(char::is_control), format!("says what no terminal should get: {said:?}"));
            check(after == refs, "is refused, and came in".to_owned());
        }
        (expected, Ok(received)) => {
            let review = &received.review;
            check(review.held_back.is_empty(), format!("is held back: {:?}", review.held_back));
            check(review.shown_first.is_empty() != (expected == Expected::ShownFirst), format!("{review:?}"));
            let shown = serde_json::to_string(review).unwrap();
            check(!shown.contains(deceptive) && !shown.contains("\\u001b"), format!("is shown as it is: {shown}"));
            let landed = received
                .reference
                .as_deref()
                .map(|reference| scene::git(&scene.repository(), &["rev-parse", &format!("{reference}^{{commit}}")]));
            check(landed.as_ref() == Some(&received.head), format!("{landed:?} came in, not {}", received.head));
            check(others(&after) == others(&refs), "moves other refs".to_owned());
        }
        (_, Err(error)) => check(false, format!("{error:?}")),
    }
    check(scene.snapshot() == before, "changes files of the developer's".to_owned());
    check(!scene.tripwire().exists(), "runs something on the host".to_owned());
    faults.into_iter().map(|fault| format!("{}: {}", case.name, fault.chars().take(600).collect::<String>())).collect()
}

fn deceptive(character: char) -> bool {
    matches!(character, '\u{1b}' | '\u{202a}'..='\u{202e}' | '\u{200b}'..='\u{200f}')
}

#[test]
fn every_hostile_bundle_is_stopped_or_shown_and_leaves_the_repository_alone() {
    let cases = cases::all();
    assert!(cases.len() >= 120, "{} cases", cases.len());
    let names: BTreeSet<&str> = cases.iter().map(|case| case.name.as_str()).collect();
    assert_eq!(names.len(), cases.len(), "a case is there twice");
    let next = AtomicUsize::new(0);
    let faults = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
                while let Some(case) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let begun = Instant::now();
                    let found = runtime.block_on(judge(case));
                    faults.lock().unwrap().extend(found);
                    println!("{:>6} ms  {}", begun.elapsed().as_millis(), case.name);
                }
            });
        }
    });
    let faults = faults.into_inner().unwrap();
    println!("{} cases", cases.len());
    assert!(faults.is_empty(), "{} faults in {} cases:\n{}", faults.len(), cases.len(), faults.join("\n"));
}

/// The name of the test above.
const CORPUS: &str = "every_hostile_bundle_is_stopped_or_shown_and_leaves_the_repository_alone";

/// A command under whose end every program stands in `trace` that was started.
fn traced(trace: &Path) -> Command {
    let mut command = Command::new("strace");
    command
        .args(["--follow-forks", "--seccomp-bpf", "--trace=execve,execveat", "--successful-only", "--string-limit=300"])
        .arg("--output")
        .arg(trace);
    command
}

/// Runs the whole corpus under a trace of every program that starts; `starts` are the programs that begin it.
fn run_traced(command: &mut Command, trace: &Path, starts: usize) {
    let output = command.output().expect("strace has to be installed: `make packages`");
    assert!(output.status.success(), "{}{}", text(&output.stdout), text(&output.stderr));
    assert!(text(&output.stdout).contains("1 passed"), "{}", text(&output.stdout));
    let trace = std::fs::read_to_string(trace).unwrap();
    let calls: Vec<&str> = trace.lines().filter(|line| line.contains("exec")).collect();
    assert!(calls.len() > 1000, "the trace holds {} calls", calls.len());
    for call in &calls[starts..] {
        let program = call.split('"').nth(1).unwrap_or_default();
        let words: Vec<&str> = call.split('"').skip(3).step_by(2).collect();
        let named = program.rsplit('/').next().unwrap_or_default();
        let known = words.iter().any(|word| SUBCOMMANDS.contains(word));
        assert!(matches!(named, "git") && known, "something else ran: {call}");
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn nothing_runs_on_the_host_but_git_and_its_own_plumbing() {
    let folder = tempfile::tempdir().unwrap();
    let trace = folder.path().join("trace");
    // Where there is more than one git, this run takes the other one.
    let path = std::env::var_os("PATH").unwrap();
    let others: Vec<_> = std::env::split_paths(&path).collect();
    let mut command = traced(&trace);
    command.arg(std::env::current_exe().unwrap()).args(["--exact", CORPUS]);
    command.env("PATH", std::env::join_paths(others.iter().rev()).unwrap());
    run_traced(&mut command, &trace, 1);
}

#[test]
#[ignore = "fetches 60 MB of Debian's newest suite and changes root, for which it has to be root; `make test-full` runs it"]
fn the_newest_git_does_no_other() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("root");
    let made = Command::new("mmdebstrap")
        .args(["--quiet", "--variant=extract", "--include=git,libc-bin"])
        // A mirror that stands still for a while gives what it had; the signature is checked all the same.
        .args(["--aptopt=Acquire::Check-Valid-Until \"false\"", "sid"])
        .arg(&root)
        .output()
        .expect("mmdebstrap has to be installed: `make packages`");
    assert!(made.status.success(), "{}", text(&made.stderr));
    // What `usr-is-merged` would have made, had it been installed and not only unpacked.
    for name in ["bin", "lib", "lib64"] {
        if !root.join(name).exists() {
            std::os::unix::fs::symlink(format!("usr/{name}"), root.join(name)).unwrap();
        }
    }
    std::fs::copy(std::env::current_exe().unwrap(), root.join("corpus")).unwrap();
    let inside = |words: &[&str]| {
        let mut command = Command::new("chroot");
        command.arg(&root).args(words).env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").env_remove("TMPDIR");
        command
    };
    let version = text(&inside(&["git", "version"]).output().unwrap().stdout);
    let number = |text: &str| -> Vec<u32> {
        text.trim_start_matches("git version ").split('.').filter_map(|part| part.trim().parse().ok()).collect()
    };
    let own = text(&Command::new("git").arg("version").output().unwrap().stdout);
    assert!(number(&version) >= number(&own), "{version} is older than {own}");
    println!("{}", version.trim());
    let trace = folder.path().join("trace");
    let mut command = traced(&trace);
    let change = inside(&["/corpus", "--exact", CORPUS]);
    command.arg(change.get_program()).args(change.get_args());
    command.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").env_remove("TMPDIR");
    // `chroot`, and the test's own start.
    run_traced(&mut command, &trace, 2);
}
