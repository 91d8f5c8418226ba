//! A command on the developer's machine that issues a credential: a password manager, a cloud's command line, a script.
//!
//! It runs without a shell, in a process group of its own and in the project's folder, for at most 30 s. It gets one JSON
//! document on standard input and answers in one of four formats. Manifests name such commands, so they run
//! only once the user approved them; that is not checked here.

use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use serde::Serialize;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use zeroize::Zeroizing;

use super::IssueContext;
use crate::project::CredentialName;

mod answer;
pub(super) mod said;

pub use answer::Answer;

/// How long a command may take.
const LIMIT: Duration = Duration::from_secs(30);
/// How long its streams may stay open once it ended.
const GRACE: Duration = Duration::from_secs(2);
/// The largest answer, in bytes.
const ANSWER_LIMIT: usize = 1 << 20;
/// How much of its standard error is kept, in bytes.
const SAID_LIMIT: usize = 4 << 10;

/// Why a command did not issue or revoke a credential.
#[derive(Debug, thiserror::Error)]
pub enum ExecError {
    /// There is no command.
    #[error("run a command without words")]
    Empty,
    /// It cannot be started.
    #[error("start `{program}`")]
    Start {
        /// The program.
        program: String,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// Its streams failed.
    #[error("talk to `{program}`")]
    Stream {
        /// The program.
        program: String,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// It did not end in time, and was killed.
    #[error("wait for `{program}` longer than {} s", .limit.as_secs())]
    Timeout {
        /// The program.
        program: String,
        /// How long it could have taken.
        limit: Duration,
    },
    /// It ended, and left something behind that holds its streams open.
    #[error("read the whole answer of `{program}`: something that it started still holds its output open")]
    Held {
        /// The program.
        program: String,
    },
    /// It failed.
    #[error("have `{program}` succeed: it ended with code {code}{}", if said.is_empty() { String::new() } else { format!(" and said: {said}") })]
    Failed {
        /// The program.
        program: String,
        /// Its exit code; minus one after a signal.
        code: i32,
        /// The beginning of its standard error, without control characters and without what looks like a secret.
        said: String,
    },
    /// It answered more than 1 MiB.
    #[error("take the answer of `{program}`, which is longer than {ANSWER_LIMIT} bytes")]
    TooLong {
        /// The program.
        program: String,
    },
    /// It answered in a known format, but without what is needed.
    #[error("understand the answer of `{program}`: {problem}")]
    Answer {
        /// The program.
        program: String,
        /// What is wrong; never the answer itself.
        problem: &'static str,
    },
}

/// What a command is told.
#[derive(Debug, Serialize)]
pub struct Request<'a> {
    version: u32,
    project: &'a str,
    sandbox: &'a str,
    name: &'a str,
    reason: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    handle: Option<&'a str>,
    /// Where it runs, so that a relative path means the same to `up` and to a supervisor in the background.
    #[serde(skip)]
    folder: &'a Path,
}

impl<'a> Request<'a> {
    /// The request for a credential, or for the end of the one with this handle.
    pub fn new(name: &'a CredentialName, context: &IssueContext<'a>, handle: Option<&'a str>) -> Self {
        Self {
            version: 1,
            project: context.project.as_str(),
            sandbox: context.sandbox.as_str(),
            name: name.as_str(),
            reason: context.reason,
            handle,
            folder: context.project_root,
        }
    }
}

impl<'a> Request<'a> {
    /// The request for the password of the company's proxy, which is no credential of the project.
    pub fn for_proxy(context: &IssueContext<'a>) -> Self {
        Self {
            version: 1,
            project: context.project.as_str(),
            sandbox: context.sandbox.as_str(),
            name: "proxy",
            reason: context.reason,
            handle: None,
            folder: context.home,
        }
    }
}

/// Has a command issue a credential.
///
/// # Errors
/// When it cannot be started, fails, takes too long, or answers what cannot be used.
pub async fn issue(command: &[String], request: &Request<'_>) -> Result<Answer, ExecError> {
    let output = run(command, request, LIMIT).await?;
    answer::parse(&output)
        .map_err(|problem| ExecError::Answer { program: command.first().cloned().unwrap_or_default(), problem })
}

/// Has a command end a credential. What it answers is not looked at.
///
/// # Errors
/// As [`issue`].
pub async fn revoke(command: &[String], request: &Request<'_>) -> Result<(), ExecError> {
    run(command, request, LIMIT).await.map(|_| ())
}

/// The process group of a command. Nothing of it outlives this value, however the command ends and also when nobody
/// waits for it any more.
struct Group(Option<Pid>);

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(group) = self.0 {
            // It is no failure when nobody is left.
            let _ = kill_process_group(group, Signal::KILL);
        }
    }
}

async fn run(command: &[String], request: &Request<'_>, limit: Duration) -> Result<Zeroizing<Vec<u8>>, ExecError> {
    let (program, arguments) = command.split_first().ok_or(ExecError::Empty)?;
    let failed = |source| ExecError::Stream { program: program.clone(), source };
    // A bare word is looked for in PATH; a relative path is one of the project.
    let path = if program.contains('/') { request.folder.join(program) } else { PathBuf::from(program) };
    let mut child = tokio::process::Command::new(path)
        .args(arguments)
        .current_dir(request.folder)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
        .map_err(|source| ExecError::Start { program: program.clone(), source })?;
    let group = Group(child.id().and_then(|id| Pid::from_raw(id.cast_signed())));
    let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let line = serde_json::to_vec(request).map_err(|error| failed(error.into()))?;
    // One byte more than is allowed tells a long answer from a full one. The buffer never grows, since growing would
    // leave copies of the value behind.
    let mut answer = Zeroizing::new(Vec::with_capacity(ANSWER_LIMIT + 1));
    let mut said = Vec::new();
    let ended = {
        let streams = async {
            let tell = async {
                if let Some(mut stdin) = stdin {
                    // A program that does not read its standard input is fine.
                    let _ = stdin.write_all(&line).await;
                }
                Ok(())
            };
            let listen = async {
                let Some(stdout) = stdout else { return Ok(()) };
                let read = stdout.take(ANSWER_LIMIT as u64 + 1).read_to_end(&mut answer).await.map_err(failed)?;
                if read > ANSWER_LIMIT { Err(ExecError::TooLong { program: program.clone() }) } else { Ok(()) }
            };
            let hear = async {
                let Some(mut stderr) = stderr else { return Ok(()) };
                let _ = (&mut stderr).take(SAID_LIMIT as u64).read_to_end(&mut said).await;
                // The rest is read as well, or the program would wait for a reader.
                let _ = tokio::io::copy(&mut stderr, &mut tokio::io::sink()).await;
                Ok(())
            };
            tokio::try_join!(tell, listen, hear).map(|_| ())
        };
        let work = async {
            tokio::pin!(streams);
            let (status, heard) = tokio::select! {
                heard = &mut streams => {
                    heard?;
                    (child.wait().await, true)
                }
                status = child.wait() => (status, false),
            };
            // What it left running would hold the streams open.
            drop(group);
            if !heard {
                let held = |_| ExecError::Held { program: program.clone() };
                tokio::time::timeout(GRACE, streams).await.map_err(held)??;
            }
            status.map_err(failed)
        };
        tokio::time::timeout(limit, work).await
    };
    let status = ended.map_err(|_| ExecError::Timeout { program: program.clone(), limit })??;
    if status.success() {
        return Ok(answer);
    }
    let code = status.code().unwrap_or(-1);
    Err(ExecError::Failed { program: program.clone(), code, said: said::shown(&said, &answer) })
}

#[cfg(test)]
mod tests;
