//! Why a command lost its session: what the journal tells, a moment later, about the container that it ran in.

use std::time::{Duration, Instant};

use jiff::Timestamp;

use crate::commands::Failure;
use crate::session::journal::{Journal, Phase, Record};
use crate::session::stream_client::SessionError;

/// How long the supervisor may take to notice what happened and to write it down.
const PATIENCE: Duration = Duration::from_secs(15);

/// What happened to a session whose stream ended.
#[derive(Debug, thiserror::Error)]
enum CutOff {
    #[error("the session ended: {0}")]
    Ended(String),
    #[error("the session ended: the sandbox was taken down")]
    Removed,
    #[error("the relay died, so the agent's container was started again after it, which ended what ran there")]
    Restarted,
}

/// The failure to show for a session that `error` ended, begun at `begun`.
pub async fn explain(journal: &Journal, record: &Record, begun: Timestamp, error: SessionError) -> Failure {
    if !matches!(error, SessionError::Ended | SessionError::Frame(_)) {
        return error.into();
    }
    let asked = Instant::now();
    let project = &record.id.project;
    let again = format!("run it again with `sandbox up {project}`; the clone is as it was");
    while asked.elapsed() < PATIENCE {
        let Ok(now) = journal.read() else { break };
        let Some(now) = now.filter(|now| now.session == record.session) else {
            return Failure::told("session-ended", &CutOff::Removed, format!("start it with `sandbox up {project}`"));
        };
        if let (Phase::Stopped, Some(ended)) = (now.phase, now.ended) {
            return Failure::told("session-ended", &CutOff::Ended(ended), again);
        }
        if now.restarted.is_some_and(|at| at >= begun) {
            return Failure::told("session-ended", &CutOff::Restarted, again);
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    error.into()
}
