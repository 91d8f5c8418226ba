//! The agent's clone: made from a bundle, and sent back as one.
//!
//! git runs here as the agent, on files that the agent may write; nothing that it says is believed outside.

use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Stdio;

use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::Command;

use super::frame::{BundleRequest, CloneRequest, FailureKind, Frame, Reply};
use super::session::{Connection, Disconnected};

/// The bundle while it is being cloned, inside `.git`; that it exists means that the clone is not finished.
const BUNDLE: &str = ".git/sandbox.bundle";
/// Bytes of a bundle sent at once.
const CHUNK: usize = 256 << 10;
/// Names the session in each commit's message, and the person whose agent it is as a second author (`Co-authored-by`, which
/// GitHub and GitLab show: "Creating a commit with multiple authors"). It is the same hook for a clone that several sessions use. `commit-msg` sees what an
/// editor made of the message, `prepare-commit-msg` also runs with `--no-verify` (githooks(5)). An empty message stays
/// empty, so that git still refuses it. A repository that sets `core.hooksPath` has hooks of its own instead.
const HOOK: &str = r#"#!/bin/sh
[ -n "$SANDBOX_SESSION" ] && grep -q '^[^#]' "$1" || exit 0
case $0 in *prepare-commit-msg) [ -n "$2" ] || exit 0 ;; esac
exec git interpret-trailers --in-place --if-exists addIfDifferent --trailer "Sandbox-Session: $SANDBOX_SESSION" \
    ${SANDBOX_PERSON:+--trailer "Co-authored-by: $SANDBOX_PERSON"} "$1"
"#;
/// What is kept of git's complaints, in bytes.
const COMPLAINT_LIMIT: usize = 2000;

/// Why a repository's request failed.
#[derive(Debug, thiserror::Error)]
enum RepositoryError {
    #[error("git {step} failed: {complaint}")]
    Git { step: String, complaint: String },
    #[error("git cannot be run: {0}")]
    Run(#[source] io::Error),
    #[error("the clone's folder {0} holds other files")]
    Occupied(String),
    #[error("the clone's files cannot be written: {0}")]
    Write(#[source] io::Error),
    #[error("the bundle is larger than {0} bytes")]
    TooLarge(u64),
    #[error(transparent)]
    Disconnected(#[from] Disconnected),
}

/// Clones the bundle that follows and answers with `HEAD`; a finished clone is left as it is.
pub(super) async fn clone(connection: &mut Connection, request: CloneRequest) -> Result<(), Disconnected> {
    match receive_and_clone(connection, &request).await {
        Ok(head) => connection.reply(&Reply::Cloned { head }).await,
        Err(error) => fail(connection, error).await,
    }
}

async fn fail(connection: &Connection, error: RepositoryError) -> Result<(), Disconnected> {
    let kind = match error {
        RepositoryError::Disconnected(gone) => return Err(gone),
        RepositoryError::Git { .. } | RepositoryError::Run(_) => FailureKind::Git,
        _ => FailureKind::Other,
    };
    connection.fail(kind, error.to_string()).await
}

async fn receive_and_clone(connection: &mut Connection, request: &CloneRequest) -> Result<String, RepositoryError> {
    let directory = Path::new(&request.directory);
    let bundle = directory.join(BUNDLE);
    let repository = directory.join(".git");
    if repository.join("HEAD").exists() && !bundle.exists() {
        while connection.next().await? != Frame::End {}
        return head(directory, "HEAD").await;
    }
    if repository.exists() {
        std::fs::remove_dir_all(&repository).map_err(RepositoryError::Write)?;
    } else if std::fs::read_dir(directory).map_err(RepositoryError::Write)?.next().is_some() {
        return Err(RepositoryError::Occupied(request.directory.clone()));
    }
    std::fs::create_dir(&repository).map_err(RepositoryError::Write)?;
    let mut file = tokio::fs::File::create(&bundle).await.map_err(RepositoryError::Write)?;
    loop {
        match connection.next().await? {
            Frame::Data(bytes) => file.write_all(&bytes).await.map_err(RepositoryError::Write)?,
            Frame::End => break,
            _ => {}
        }
    }
    file.flush().await.map_err(RepositoryError::Write)?;
    let empty = file.metadata().await.map_err(RepositoryError::Write)?.len() == 0;
    drop(file);
    let branch = format!("refs/heads/{}", request.branch);
    git(directory, &["init", "--quiet", "--template=", &format!("--initial-branch={}", request.branch)]).await?;
    write_hooks(&repository.join("hooks")).map_err(RepositoryError::Write)?;
    for (key, value) in &request.config {
        git(directory, &["config", "--add", key, value]).await?;
    }
    for (name, url) in &request.remotes {
        git(directory, &["config", &format!("remote.{name}.url"), url]).await?;
        let fetch = format!("+refs/heads/*:refs/remotes/{name}/*");
        git(directory, &["config", &format!("remote.{name}.fetch"), &fetch]).await?;
    }
    if !request.shallow.is_empty() {
        let lines: String = request.shallow.iter().map(|id| format!("{id}\n")).collect();
        std::fs::write(repository.join("shallow"), lines).map_err(RepositoryError::Write)?;
    }
    if !empty {
        let heads = git(directory, &["bundle", "list-heads", BUNDLE]).await?;
        let names: Vec<&str> = heads.lines().filter_map(|line| line.split_once(' ')).map(|(_, name)| name).collect();
        let chosen = names.iter().find(|name| **name == branch).or(names.first()).copied().unwrap_or(&branch);
        let fetch = format!("+{chosen}:{branch}");
        let quiet = ["fetch", "--quiet", "--no-auto-maintenance", "--update-head-ok", "--no-write-fetch-head"];
        git(directory, &[&quiet[..], &[BUNDLE, &fetch, "refs/tags/*:refs/tags/*"]].concat()).await?;
        git(directory, &["reset", "--quiet", "--hard", &branch]).await?;
    }
    std::fs::remove_file(&bundle).map_err(RepositoryError::Write)?;
    head(directory, "HEAD").await
}

fn write_hooks(folder: &Path) -> io::Result<()> {
    std::fs::create_dir_all(folder)?;
    for name in ["prepare-commit-msg", "commit-msg"] {
        let hook = folder.join(name);
        std::fs::write(&hook, HOOK)?;
        std::fs::set_permissions(&hook, std::fs::Permissions::from_mode(0o755))?;
    }
    Ok(())
}

/// Sends the commits that the receiver does not have.
pub(super) async fn bundle(connection: &mut Connection, request: BundleRequest) -> Result<(), Disconnected> {
    match send_bundle(connection, &request).await {
        Ok(()) => connection.reply(&Reply::Bundled).await,
        Err(error) => fail(connection, error).await,
    }
}

async fn send_bundle(connection: &Connection, request: &BundleRequest) -> Result<(), RepositoryError> {
    let directory = Path::new(&request.directory);
    let branch = format!("refs/heads/{}", request.branch);
    let head = head(directory, &branch).await?;
    if head.is_empty() {
        return Err(RepositoryError::Git {
            step: "rev-parse".into(),
            complaint: format!("no branch {}", request.branch),
        });
    }
    let range = match &request.base {
        Some(base) => vec![branch.clone(), format!("^{base}")],
        None => vec![branch.clone()],
    };
    let range: Vec<&str> = range.iter().map(String::as_str).collect();
    // A branch that was set back has another tip and yet nothing to send; git refuses to make an empty bundle.
    let count = git(directory, &[&["rev-list", "--count"], &range[..]].concat()).await?;
    let empty = count.trim() == "0";
    connection.reply(&Reply::Bundling { head, empty }).await?;
    if !empty {
        let mut child = command(directory, &[&["bundle", "create", "--quiet", "-"], &range[..]].concat())
            .spawn()
            .map_err(RepositoryError::Run)?;
        let (output, errors) = (child.stdout.take(), child.stderr.take());
        let complaint = tokio::spawn(read_complaint(errors));
        if let Some(output) = output {
            stream(connection, output, request.limit).await?;
        }
        let status = child.wait().await.map_err(RepositoryError::Run)?;
        if !status.success() {
            return Err(RepositoryError::Git { step: "bundle".into(), complaint: complaint.await.unwrap_or_default() });
        }
    }
    Ok(connection.send(Frame::End).await?)
}

async fn stream(
    connection: &Connection,
    mut output: tokio::process::ChildStdout,
    limit: u64,
) -> Result<(), RepositoryError> {
    let mut sent = 0;
    let mut buffer = vec![0; CHUNK];
    loop {
        let count = output.read(&mut buffer).await.map_err(RepositoryError::Run)?;
        if count == 0 {
            return Ok(());
        }
        sent += count as u64;
        if sent > limit {
            return Err(RepositoryError::TooLarge(limit));
        }
        connection.send(Frame::Data(Bytes::copy_from_slice(&buffer[..count]))).await?;
    }
}

/// The commit that `name` means; empty when it means none yet.
async fn head(directory: &Path, name: &str) -> Result<String, RepositoryError> {
    match git(directory, &["rev-parse", "--quiet", "--verify", &format!("{name}^{{commit}}")]).await {
        Ok(id) => Ok(id.trim().to_owned()),
        Err(RepositoryError::Git { complaint, .. }) if complaint.is_empty() => Ok(String::new()),
        Err(error) => Err(error),
    }
}

async fn read_complaint(errors: Option<tokio::process::ChildStderr>) -> String {
    let mut kept = Vec::new();
    if let Some(mut errors) = errors {
        let mut buffer = [0; 4096];
        while let Ok(count @ 1..) = errors.read(&mut buffer).await {
            // Reads on beyond what is kept: git must not stop at a full pipe.
            kept.extend_from_slice(&buffer[..count.min(COMPLAINT_LIMIT - kept.len())]);
        }
    }
    String::from_utf8_lossy(&kept).trim().to_owned()
}

async fn git(directory: &Path, arguments: &[&str]) -> Result<String, RepositoryError> {
    let output = command(directory, arguments).output().await.map_err(RepositoryError::Run)?;
    if !output.status.success() {
        let complaint = String::from_utf8_lossy(&output.stderr).trim().chars().take(COMPLAINT_LIMIT).collect();
        return Err(RepositoryError::Git { step: arguments.first().copied().unwrap_or_default().into(), complaint });
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// git without hooks, questions or settings from outside the clone.
fn command(directory: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new("git");
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.as_encoded_bytes().starts_with(b"GIT_")) {
        command.env_remove(name);
    }
    command
        .args(["-c", "core.hooksPath=/dev/null", "-c", "core.fsmonitor=false", "-c", "gc.auto=0"])
        .args(arguments)
        .current_dir(directory)
        .env("GIT_TERMINAL_PROMPT", "0")
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    command
}
