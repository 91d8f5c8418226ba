//! The agent's clone: made from a bundle, and sent back as one.
//!
//! git runs here as the agent, on files that the agent may write; nothing that it says is believed outside.

use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Stdio;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::Command;

use super::bundle::{BundleHeader, BundleHeaderError};
use super::frame::{BundleRequest, CloneRequest, FailureKind, Frame, Reply};
use super::session::{Connection, Disconnected};

/// That it exists inside `.git` means that the clone is not finished.
const UNFINISHED: &str = "sandbox.unfinished";
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
pub(super) enum RepositoryError {
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
    #[error("the bundle cannot be read: {0}")]
    Header(#[from] BundleHeaderError),
    #[error("a large file is not what it says: {0}")]
    LargeFile(String),
    #[error("the bundle names no object as {0}")]
    Absent(String),
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

pub(super) async fn fail(connection: &Connection, error: RepositoryError) -> Result<(), Disconnected> {
    let kind = match error {
        RepositoryError::Disconnected(gone) => return Err(gone),
        RepositoryError::Git { .. } | RepositoryError::Run(_) => FailureKind::Git,
        _ => FailureKind::Other,
    };
    connection.fail(kind, error.to_string()).await
}

async fn receive_and_clone(connection: &mut Connection, request: &CloneRequest) -> Result<String, RepositoryError> {
    let directory = Path::new(&request.directory);
    let repository = directory.join(".git");
    let unfinished = repository.join(UNFINISHED);
    if repository.join("HEAD").exists() && !unfinished.exists() {
        while connection.next().await? != Frame::End {}
        return head(directory, "HEAD").await;
    }
    // A submodule's folder is missing where the working tree is sparse.
    std::fs::create_dir_all(directory).map_err(RepositoryError::Write)?;
    if repository.exists() {
        std::fs::remove_dir_all(&repository).map_err(RepositoryError::Write)?;
    } else if std::fs::read_dir(directory).map_err(RepositoryError::Write)?.next().is_some() {
        return Err(RepositoryError::Occupied(request.directory.clone()));
    }
    std::fs::create_dir(&repository).map_err(RepositoryError::Write)?;
    std::fs::write(&unfinished, "").map_err(RepositoryError::Write)?;
    let begun = read_header(connection).await?;
    let format = begun.as_ref().map_or("sha1", |(header, _)| header.object_format);
    let format = format!("--object-format={format}");
    let initial = format!("--initial-branch={}", request.branch);
    git(directory, &["init", "--quiet", "--template=", &format, &initial]).await?;
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
    if let Some((header, rest)) = begun {
        let branch = format!("refs/heads/{}", request.branch);
        let Some(tip) = header.object(&branch) else { return Err(RepositoryError::Absent(branch)) };
        take_pack(connection, directory, rest).await?;
        let place = if request.detached { "HEAD" } else { &branch };
        git(directory, &["update-ref", "--no-deref", place, tip]).await?;
        if !request.sparse.is_empty() {
            let folders = request.sparse.iter().map(String::as_str);
            let words: Vec<&str> = ["sparse-checkout", "set", "--cone", "--"].into_iter().chain(folders).collect();
            git(directory, &words).await?;
        }
        git(directory, &["reset", "--quiet", "--hard", tip]).await?;
    }
    std::fs::remove_file(&unfinished).map_err(RepositoryError::Write)?;
    head(directory, "HEAD").await
}

/// The header of the bundle that comes, and what came after it; none when nothing comes.
async fn read_header(connection: &mut Connection) -> Result<Option<(BundleHeader, Bytes)>, RepositoryError> {
    let mut begun = BytesMut::new();
    loop {
        match connection.next().await? {
            Frame::Data(bytes) => begun.extend_from_slice(&bytes),
            Frame::End if begun.is_empty() => return Ok(None),
            Frame::End => return Err(BundleHeaderError::Ended.into()),
            _ => continue,
        }
        if let Some(header) = BundleHeader::parse(&begun)? {
            let rest = begun.split_off(header.length).freeze();
            return Ok(Some((header, rest)));
        }
    }
}

/// Hands the pack to git as it comes, so that it lies on the disk once.
async fn take_pack(connection: &mut Connection, directory: &Path, rest: Bytes) -> Result<(), RepositoryError> {
    let mut child = command(directory, &["index-pack", "--stdin", "--fix-thin"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .map_err(RepositoryError::Run)?;
    let complaint = tokio::spawn(read_complaint(child.stderr.take()));
    let mut input = child.stdin.take();
    let mut next = Some(rest);
    while let Some(bytes) = next {
        // When git has ended, its complaint says why; what is still on its way is read all the same.
        if let Some(pipe) = &mut input
            && pipe.write_all(&bytes).await.is_err()
        {
            input = None;
        }
        next = loop {
            match connection.next().await? {
                Frame::Data(bytes) => break Some(bytes),
                Frame::End => break None,
                _ => {}
            }
        };
    }
    drop(input);
    let status = child.wait().await.map_err(RepositoryError::Run)?;
    if status.success() {
        return Ok(());
    }
    Err(RepositoryError::Git { step: "index-pack".into(), complaint: complaint.await.unwrap_or_default() })
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
pub(super) async fn head(directory: &Path, name: &str) -> Result<String, RepositoryError> {
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

pub(super) async fn git(directory: &Path, arguments: &[&str]) -> Result<String, RepositoryError> {
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
