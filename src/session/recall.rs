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
use crate::credential::spec::Delivery;
use crate::engine::stream::{AttachedStream, Chunk};
use crate::engine::{Engine, EngineError, ExecSpec};
use crate::session::identity::Role;
use crate::session::journal::Record;
use crate::session::plan::{GATEWAY, LAUNCHER_BINARY};

/// How long the gateway's container may take for one token.
const LIMIT: Duration = Duration::from_secs(5);
/// The longest answer, in bytes.
const ANSWER_LIMIT: usize = 16 << 10;

/// Holds the tokens of a record that are not held yet and can be read. What is brokered is in no file.
pub(super) async fn recall(engine: &Engine, record: &Record, issue: &IssueContext<'_>) {
    for (name, lease) in &record.leases {
        let Some(handle) = lease.handle.as_deref().filter(|_| lease.spec.provider.ends_by_its_value()) else {
            continue;
        };
        let file = match &lease.spec.deliver {
            Delivery::File { name } => name.clone(),
            Delivery::Git { .. } | Delivery::Environment { .. } => name.to_string(),
            Delivery::Broker { .. } => continue,
        };
        if issue.held.find(handle).is_some() {
            continue;
        }
        let gateway = record.id.object(Role::Gateway);
        match tokio::time::timeout(LIMIT, read(engine, &gateway, &file)).await {
            Ok(Ok(Some(token))) => match fingerprint::of(issue.state, &token) {
                Ok(found) if found.to_string() == lease.fingerprint => issue.held.keep(handle, token),
                Ok(_) => tracing::warn!(credential = %name, "below /run/secrets is another value than the journal has"),
                Err(error) => tracing::warn!(credential = %name, %error, "a token was not recognised"),
            },
            Ok(Ok(None)) => tracing::debug!(credential = %name, "the gateway has no such token any more"),
            Ok(Err(error)) => tracing::debug!(credential = %name, %error, "a token was not read back"),
            Err(error) => tracing::debug!(credential = %name, %error, "the gateway did not give a token back"),
        }
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
