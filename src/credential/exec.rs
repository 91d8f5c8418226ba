//! A command on the developer's machine that issues a credential: a password manager, a cloud's command line, a script.
//!
//! It runs without a shell, in a process group of its own, for at most 30 s. It gets one JSON document on standard input
//! and answers in one of four formats. Manifests name such commands, so they run only once the user approved them.

use std::io;
use std::process::Stdio;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use zeroize::{Zeroize as _, Zeroizing};

use super::IssueContext;
use super::secret::Secret;
use crate::project::CredentialName;

/// How long a command may take.
const LIMIT: Duration = Duration::from_secs(30);
/// The largest answer, in bytes.
const ANSWER_LIMIT: usize = 1 << 20;
/// How much of its standard error is shown, in characters.
const SAID_LIMIT: usize = 200;

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
    #[error("wait for `{program}` longer than {} s", LIMIT.as_secs())]
    Timeout {
        /// The program.
        program: String,
    },
    /// It failed.
    #[error("have `{program}` succeed: it ended with code {code}{}", if said.is_empty() { String::new() } else { format!(" and said: {said}") })]
    Failed {
        /// The program.
        program: String,
        /// Its exit code.
        code: i32,
        /// The beginning of its standard error, sanitised.
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
        }
    }
}

/// What a command answered.
#[derive(Debug)]
pub struct Answer {
    /// The value.
    pub value: Secret,
    /// When it runs out.
    pub expires_at: Option<Timestamp>,
    /// By what it is revoked.
    pub handle: Option<String>,
    /// What it is good for.
    pub scope: Option<String>,
}

/// Has a command issue a credential.
///
/// # Errors
/// When it cannot be started, fails, takes too long, or answers what cannot be used.
pub async fn issue(command: &[String], request: &Request<'_>) -> Result<Answer, ExecError> {
    let output = run(command, request).await?;
    parse(&output)
        .map_err(|problem| ExecError::Answer { program: command.first().cloned().unwrap_or_default(), problem })
}

/// Has a command end a credential.
///
/// # Errors
/// As [`issue`].
pub async fn revoke(command: &[String], request: &Request<'_>) -> Result<(), ExecError> {
    run(command, request).await.map(|_| ())
}

async fn run(command: &[String], request: &Request<'_>) -> Result<Zeroizing<Vec<u8>>, ExecError> {
    let (program, arguments) = command.split_first().ok_or(ExecError::Empty)?;
    let failed = |source| ExecError::Stream { program: program.clone(), source };
    let mut child = tokio::process::Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
        .map_err(|source| ExecError::Start { program: program.clone(), source })?;
    let group = child.id().and_then(|id| rustix::process::Pid::from_raw(id.cast_signed()));
    let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let line = serde_json::to_vec(request).map_err(|error| failed(error.into()))?;
    let work = async {
        let tell = async {
            if let Some(mut stdin) = stdin {
                // A program that does not read its standard input is fine.
                let _ = stdin.write_all(&line).await;
            }
        };
        // One byte more than is allowed tells a long answer from a full one. The buffer never grows, since growing
        // would leave copies of the value behind.
        let mut answer = Zeroizing::new(Vec::with_capacity(ANSWER_LIMIT + 1));
        let listen = async {
            let Some(stdout) = stdout else { return Ok(0) };
            stdout.take(ANSWER_LIMIT as u64 + 1).read_to_end(&mut answer).await
        };
        let mut said = Vec::new();
        let hear = async {
            let Some(mut stderr) = stderr else { return };
            let _ = (&mut stderr).take(4096).read_to_end(&mut said).await;
            let _ = tokio::io::copy(&mut stderr, &mut tokio::io::sink()).await;
        };
        let ((), heard, ()) = tokio::join!(tell, listen, hear);
        heard.map_err(failed)?;
        let status = child.wait().await.map_err(failed)?;
        Ok((answer, said, status))
    };
    let done = tokio::time::timeout(LIMIT, work).await;
    // Whatever the program left running does not outlive it.
    if let Some(group) = group {
        let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
    }
    let (answer, said, status) = done.map_err(|_| ExecError::Timeout { program: program.clone() })??;
    if !status.success() {
        return Err(ExecError::Failed {
            program: program.clone(),
            code: status.code().unwrap_or(-1),
            said: shown(&said, &answer),
        });
    }
    if answer.len() > ANSWER_LIMIT {
        return Err(ExecError::TooLong { program: program.clone() });
    }
    Ok(answer)
}

/// The beginning of what a program said, on one line, without control characters. Nothing is shown of a program that
/// repeats its answer there.
fn shown(said: &[u8], answer: &[u8]) -> String {
    let text = String::from_utf8_lossy(said);
    let answer = String::from_utf8_lossy(answer);
    let answer = answer.trim();
    if answer.len() >= 8 && text.contains(answer) {
        return String::new();
    }
    let line: String = text.split_whitespace().collect::<Vec<_>>().join(" ");
    line.chars().filter(|character| !character.is_control()).take(SAID_LIMIT).collect()
}

/// Our own answer.
#[derive(Deserialize)]
struct Ours {
    value: Option<String>,
    expires_at: Option<String>,
    handle: Option<String>,
    scope: Option<String>,
}

/// Reads an answer in any of the formats: our own JSON, an `ExecCredential` of Kubernetes (client.authentication.k8s.io),
/// a `credential_process` answer of AWS, or else text without its last line feed.
fn parse(output: &[u8]) -> Result<Answer, &'static str> {
    let text = output.strip_suffix(b"\n").unwrap_or(output);
    let text = text.strip_suffix(b"\r").unwrap_or(text);
    let raw = || Answer { value: Secret::new(text.to_vec()), expires_at: None, handle: None, scope: None };
    if !text.trim_ascii_start().starts_with(b"{") {
        return if text.is_empty() { Err("it is empty") } else { Ok(raw()) };
    }
    let Ok(document) = serde_json::from_slice::<serde_json::Value>(text) else { return Ok(raw()) };
    let document = Wiped(document);
    let text_at = |pointer: &str| document.0.pointer(pointer).and_then(|value| value.as_str());
    if text_at("/kind") == Some("ExecCredential") {
        let token = text_at("/status/token").ok_or("an ExecCredential without status.token")?;
        return Ok(Answer {
            value: Secret::new(token.as_bytes().to_vec()),
            expires_at: time(text_at("/status/expirationTimestamp"))?,
            handle: None,
            scope: None,
        });
    }
    if document.0.get("AccessKeyId").is_some() {
        if document.0.get("Version").and_then(serde_json::Value::as_u64) != Some(1) {
            return Err("AWS credentials whose Version is not 1");
        }
        text_at("/SecretAccessKey").ok_or("AWS credentials without SecretAccessKey")?;
        let expires_at = time(text_at("/Expiration"))?;
        // Tools of AWS read this very document through their own `credential_process`.
        return Ok(Answer { value: Secret::new(text.to_vec()), expires_at, handle: None, scope: None });
    }
    if document.0.get("value").is_none() {
        return Ok(raw());
    }
    let mut ours: Ours = serde_json::from_slice(text).map_err(|_| "a `value` document with fields of other types")?;
    let value = ours.value.take().map(Zeroizing::new).ok_or("a document without `value`")?;
    if ours.handle.as_ref().is_some_and(|handle| handle.len() > 1024 || handle.contains(value.as_str())) {
        return Err("a `handle` that is too long or holds the value");
    }
    Ok(Answer {
        value: Secret::new(value.as_bytes().to_vec()),
        expires_at: time(ours.expires_at.as_deref())?,
        handle: ours.handle.take(),
        scope: ours.scope.take().map(|scope| scope.chars().filter(|c| !c.is_control()).take(200).collect()),
    })
}

fn time(text: Option<&str>) -> Result<Option<Timestamp>, &'static str> {
    text.map(|text| text.parse().map_err(|_| "a time that is not in RFC 3339")).transpose()
}

/// A JSON document whose texts are wiped when it goes.
struct Wiped(serde_json::Value);

impl Drop for Wiped {
    fn drop(&mut self) {
        fn wipe(value: &mut serde_json::Value) {
            match value {
                serde_json::Value::String(text) => text.zeroize(),
                serde_json::Value::Array(values) => values.iter_mut().for_each(wipe),
                serde_json::Value::Object(values) => values.values_mut().for_each(wipe),
                _ => {}
            }
        }
        wipe(&mut self.0);
    }
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;

    use super::*;

    fn value(output: &str) -> (String, Option<Timestamp>) {
        let answer = parse(output.as_bytes()).unwrap();
        (String::from_utf8(answer.value.expose().to_vec()).unwrap(), answer.expires_at)
    }

    #[test]
    fn understands_all_four_formats() {
        let end: Timestamp = "2030-01-01T00:00:00Z".parse().unwrap();
        assert_eq!(value("plain\n"), ("plain".to_owned(), None));
        assert_eq!(value("two\nlines\n").0, "two\nlines");
        assert_eq!(
            value(r#"{"value":"v","expires_at":"2030-01-01T00:00:00Z","handle":"h1"}"#),
            ("v".to_owned(), Some(end))
        );
        let kubernetes = r#"{"apiVersion":"client.authentication.k8s.io/v1","kind":"ExecCredential","status":{"token":"t","expirationTimestamp":"2030-01-01T00:00:00Z"}}"#;
        assert_eq!(value(kubernetes), ("t".to_owned(), Some(end)));
        let aws = r#"{"Version":1,"AccessKeyId":"ASIA1","SecretAccessKey":"s","SessionToken":"t","Expiration":"2030-01-01T00:00:00Z"}"#;
        assert_eq!(value(aws), (aws.to_owned(), Some(end)));
        assert_eq!(value(r#"{"some":"document"}"#).0, r#"{"some":"document"}"#);
    }

    #[test]
    fn refuses_answers_that_cannot_be_used() {
        for output in [
            "",
            "\n",
            r#"{"value":5}"#,
            r#"{"kind":"ExecCredential"}"#,
            r#"{"AccessKeyId":"a"}"#,
            r#"{"value":"v","expires_at":"soon"}"#,
            r#"{"value":"abc","handle":"xabcx"}"#,
        ] {
            assert!(parse(output.as_bytes()).is_err(), "{output}");
        }
    }

    fn request() -> Request<'static> {
        Request { version: 1, project: "p", sandbox: "main", name: "n", reason: "up", handle: None }
    }

    fn words(line: &str) -> Vec<String> {
        vec!["/bin/sh".to_owned(), "-c".to_owned(), line.to_owned()]
    }

    #[tokio::test]
    async fn gives_the_request_on_standard_input() {
        let answer = issue(&words("base64 -w0"), &request()).await.unwrap();
        let told = STANDARD.decode(answer.value.expose()).unwrap();
        let told: serde_json::Value = serde_json::from_slice(&told).unwrap();
        assert_eq!(told["project"], "p");
        assert_eq!(told["version"], 1);
    }

    #[tokio::test]
    async fn an_error_never_repeats_the_value() {
        let error = issue(&words("echo hunter2-value; echo hunter2-value >&2; exit 3"), &request()).await.unwrap_err();
        assert!(matches!(error, ExecError::Failed { code: 3, .. }));
        assert!(!error.to_string().contains("hunter2"), "{error}");
        let error = issue(&words("echo locked >&2; exit 1"), &request()).await.unwrap_err();
        assert!(error.to_string().contains("locked"));
    }

    #[tokio::test]
    async fn refuses_an_endless_answer() {
        let error = issue(&words("head -c 3000000 /dev/zero"), &request()).await.unwrap_err();
        assert!(matches!(error, ExecError::TooLong { .. } | ExecError::Failed { .. }), "{error}");
    }
}
