//! Reads tokens that only they themselves can end back from `/run/secrets`, for a process that did not issue them: a
//! supervisor that was started again, or `down` after a crash.
//!
//! The gateway's container answers, never the agent's. What it gives counts only if its keyed fingerprint is the one in
//! the journal. Nothing is written anywhere.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::io::AsyncWriteExt as _;
use zeroize::Zeroizing;

use crate::credential::IssueContext;
use crate::credential::fingerprint;
use crate::credential::secret::Secret;
use crate::engine::stream::{AttachedStream, Chunk};
use crate::engine::{Engine, EngineError, ExecSpec};
use crate::project::CredentialName;
use crate::session::identity::Role;
use crate::session::journal::{JournalLease, Record};
use crate::session::plan::{GATEWAY, LAUNCHER_BINARY};

/// How long the gateway's container may take for one token.
const LIMIT: Duration = Duration::from_secs(5);
/// The longest answer, in bytes.
const ANSWER_LIMIT: usize = 16 << 10;

/// Holds the tokens of a record that are not held yet and can be read: also one that was delivered by a process that died
/// before it could say so, which the journal has among those that are to be revoked. What is brokered is in no file.
pub(super) async fn recall(engine: &Engine, record: &Record, issue: &IssueContext<'_>) {
    let mut files: BTreeMap<(&CredentialName, &str), Vec<&JournalLease>> = BTreeMap::new();
    let retiring = record.retiring.iter().map(|retiring| (&retiring.name, &retiring.lease));
    for (name, lease) in record.leases.iter().chain(retiring) {
        let held = lease.handle.as_deref().is_none_or(|handle| issue.held.find(handle).is_some());
        if held || !lease.spec.provider.ends_by_its_value() {
            continue;
        }
        if let Some(file) = lease.spec.deliver.file(name) {
            files.entry((name, file)).or_default().push(lease);
        }
    }
    let gateway = record.id.object(Role::Gateway);
    for ((name, file), leases) in files {
        match tokio::time::timeout(LIMIT, read(engine, &gateway, file)).await {
            Ok(Ok(Some(token))) => hold(issue, name, &leases, token),
            Ok(Ok(None)) => tracing::debug!(credential = %name, "the gateway has no such token any more"),
            Ok(Err(error)) => tracing::debug!(credential = %name, %error, "a token was not read back"),
            Err(error) => tracing::debug!(credential = %name, %error, "the gateway did not give a token back"),
        }
    }
}

/// Holds a token for the one of these leases that it is of.
fn hold(issue: &IssueContext<'_>, name: &CredentialName, leases: &[&JournalLease], token: Secret) {
    let found = match fingerprint::of(issue.state, &token) {
        Ok(found) => found.to_string(),
        Err(error) => return tracing::warn!(credential = %name, %error, "a token was not recognised"),
    };
    match leases.iter().find(|lease| lease.fingerprint == found).and_then(|lease| lease.handle.as_deref()) {
        Some(handle) => issue.held.keep(handle, token),
        None => tracing::warn!(credential = %name, "below /run/secrets is another value than the journal has"),
    }
}

/// Asks as git does. What an exec prints is not in the engine's log, unlike what the container's first process prints.
async fn read(engine: &Engine, gateway: &str, file: &str) -> Result<Option<Secret>, EngineError> {
    let words = [LAUNCHER_BINARY, "git-credential", "--file", file, "get"];
    let spec = ExecSpec {
        command: words.map(str::to_owned).to_vec(),
        user: GATEWAY,
        environment: BTreeMap::new(),
        working_directory: "/".to_owned(),
        stdin: true,
    };
    let AttachedStream { mut input, mut output, .. } = engine.exec(gateway, &spec).await?;
    // One that ended already says so by its output.
    let _ = input.write_all(b"protocol=https\n\n").await;
    let _ = input.flush().await;
    let mut answer = Zeroizing::new(Vec::with_capacity(ANSWER_LIMIT));
    while let Some(chunk) = output.next().await? {
        if let Chunk::Out(bytes) = chunk {
            if answer.len() + bytes.len() > ANSWER_LIMIT {
                return Ok(None);
            }
            answer.extend_from_slice(&bytes);
        }
    }
    let password = answer.split(|byte| *byte == b'\n').find_map(|line| line.strip_prefix(b"password="));
    Ok(password.map(|password| Secret::new(password.to_vec())))
}
