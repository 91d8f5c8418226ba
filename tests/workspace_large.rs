//! Large repositories on their way into a sandbox: neither the launcher nor the helper holds them in memory. By default a small
//! one, which would show a leak as well; with `SANDBOX_TEST_FULL=1` a million files and a gigabyte of history, of which the working
//! tree has a thousandth, for a million files take four gigabytes of most disks; and, when asked for, five gigabytes of history.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test says by a panic what is wrong, and what it measured"
)]

use std::io::{BufWriter, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use sandbox::project::SandboxName;
use sandbox::project::manifest::WorkspaceSpec;
use sandbox::session::stream_client::SessionClient;
use sandbox::workspace::{clone_request, inspect, open_bundle};

/// The most that launcher or helper may have in memory at one time, in KiB.
const PEAK: u64 = 96 << 10;

fn git(folder: &Path, words: &[&str]) -> String {
    let output = Command::new("git").args(words).current_dir(folder).output().unwrap();
    assert!(output.status.success(), "git {words:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// The most memory that a process had, in KiB (proc(5), `VmHWM`).
fn peak(process: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// Writes a history with git-fast-import(1): one commit for each large file of the past, and a last one with many small ones.
fn write_history(repository: &Path, files: usize, past: usize, size: usize) {
    git(repository, &["init", "-q", "-b", "main"]);
    let mut import = Command::new("git")
        .args(["-c", "core.compression=0", "fast-import", "--depth=0", "--quiet", "--done"])
        .current_dir(repository)
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stream = BufWriter::new(import.stdin.take().unwrap());
    // A generator whose bytes no compression makes fewer.
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut noise = vec![0; size];
    for turn in 0..=past {
        for chunk in noise.chunks_mut(8) {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            chunk.copy_from_slice(&state.to_le_bytes());
        }
        write!(stream, "commit refs/heads/main\ncommitter a <a@x> {turn} +0000\ndata 1\nx\n").unwrap();
        write!(stream, "M 100644 inline noise\ndata {}\n", noise.len()).unwrap();
        stream.write_all(&noise).unwrap();
        stream.write_all(b"\n").unwrap();
        if turn == past {
            for number in 0..files {
                let content = format!("file {number}\n");
                let place = format!("d{:03}/e{:02}/f{number}", number % 1000, number / 1000 % 50);
                write!(stream, "M 100644 inline {place}\ndata {}\n{content}\n", content.len()).unwrap();
            }
        }
    }
    stream.write_all(b"done\n").unwrap();
    drop(stream);
    assert!(import.wait().unwrap().success());
    git(repository, &["read-tree", "main"]);
}

#[tokio::test]
async fn a_large_repository_goes_in_with_flat_memory() {
    let full = std::env::var_os("SANDBOX_TEST_FULL").is_some();
    let (files, past) = if full { (1_000_000, 1000) } else { (5000, 150) };
    let sparse = if full { vec!["d000".to_owned()] } else { Vec::new() };
    goes_in(files, past, 1 << 20, sparse).await;
}

#[tokio::test]
#[ignore = "takes 11 GB of the disk; `make test-full` runs it"]
async fn five_gigabytes_of_history_go_in_with_flat_memory() {
    goes_in(1000, 256, 20 << 20, Vec::new()).await;
}

async fn goes_in(files: usize, past: usize, size: usize, sparse: Vec<String>) {
    // One after the other: each takes gigabytes of the disk, and the memory is that of the whole process.
    static TURN: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());
    let _turn = TURN.lock().await;
    let top = tempfile::tempdir().unwrap();
    let source = top.path().join("source");
    std::fs::create_dir(&source).unwrap();
    write_history(&source, files, past, size);
    let spec = WorkspaceSpec { branch: Some("main".into()), sparse, ..WorkspaceSpec::default() };
    let own_before = peak(std::process::id());
    let begun = Instant::now();
    let state = inspect(&source, &spec).unwrap();
    println!("looked at in {:?}", begun.elapsed());
    let clone = top.path().join("clone");
    let mut child = tokio::process::Command::new(env!("CARGO_BIN_EXE_sandbox"))
        .arg("session")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let (read, write) = (child.stdout.take().unwrap(), child.stdin.take().unwrap());
    let mut client = SessionClient::new(read, write, Duration::from_secs(120));
    let (project, name) = ("large".parse().unwrap(), SandboxName::main());
    let request = clone_request(clone.to_str().unwrap(), &spec, &state, &project, &name, &[]);
    let begun = Instant::now();
    let mut bundle = open_bundle(&source, &spec, &state).await.unwrap();
    let head = client.clone_bundle(request, &mut bundle).await.unwrap();
    bundle.finish().await.unwrap();
    let (helper, own) = (peak(child.id().unwrap()), peak(std::process::id()));
    println!(
        "{files} files and {} MiB of history in {:?}: helper {helper} KiB, launcher {own} KiB (before: {own_before} KiB)",
        (past * size) >> 20,
        begun.elapsed()
    );
    assert_eq!(head.as_deref(), Some(state.base.as_str()));
    assert_eq!(git(&clone, &["rev-parse", "HEAD^{tree}"]), git(&source, &["rev-parse", "main^{tree}"]));
    assert!(helper < PEAK, "the helper had {helper} KiB");
    assert!(own.saturating_sub(own_before) < PEAK, "the launcher had {own} KiB, before {own_before} KiB");
}
