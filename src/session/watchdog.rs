//! The limits that no engine enforces: the disk that workspace and home take together, that of the home alone, and how long a session lasts.
//!
//! Most file systems give volumes no quota, so a helper in the agent's container measures. The agent can end that
//! helper, which ends the session, and it can hide folders from it, which is recorded. It waits between two looks at
//! least twenty times as long as one takes.

use std::time::{Duration, Instant};

use jiff::Timestamp;

use crate::engine::Engine;
use crate::init::frame::Usage;
use crate::project::quantity::{show_duration, show_size};
use crate::session::identity::Role;
use crate::session::journal::Record;
use crate::session::launch::{self, ExecSession};
use crate::session::plan::{HOME, WORKSPACE};

/// The shortest pause between two measurements.
const PAUSE: Duration = Duration::from_secs(10);
/// The longest pause between two measurements.
const PAUSE_MOST: Duration = Duration::from_secs(600);
/// Measurements that may fail in a row.
const FAILURES: u32 = 3;

/// What the watchdog tells while it watches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Notice {
    /// The sandbox has used this much of its disk, and more than four fifths of what it may.
    DiskNearlyFull(Usage),
    /// This many folders cannot be measured.
    Unreadable(u64),
}

/// Watches until a limit is reached and gives the reason for which the session has to end.
pub async fn watch(engine: &Engine, record: &Record, told: impl Fn(Notice)) -> String {
    tokio::select! {
        reason = watch_disk(engine, record, told) => reason,
        reason = watch_time(record) => reason,
    }
}

async fn watch_time(record: &Record) -> String {
    let Some(limit) = record.limits.session else { return std::future::pending().await };
    // The clock on the wall, not the monotonic one: a laptop that slept has used up its session.
    loop {
        let lasted = Timestamp::now().duration_since(record.started_at).unsigned_abs();
        let Some(left) = limit.checked_sub(lasted) else {
            return format!("the session lasted {}, as long as it may (`resources.session`)", show_duration(limit));
        };
        tokio::time::sleep(left.clamp(Duration::from_millis(100), Duration::from_secs(30))).await;
    }
}

async fn watch_disk(engine: &Engine, record: &Record, told: impl Fn(Notice)) -> String {
    let limit = record.limits.disk;
    let home_limit = record.limits.home;
    if limit == 0 && home_limit.is_none() {
        // A record of a version that planned no limit.
        return std::future::pending().await;
    }
    let agent = record.id.object(Role::Agent);
    let mut session = None;
    let mut failures = 0;
    let mut state = DiskState::default();
    loop {
        let begun = Instant::now();
        match measure(engine, &agent, &mut session, home_limit.is_some()).await {
            Ok((usage, home)) => {
                failures = 0;
                if let Some(limit) = home_limit.filter(|limit| home.bytes >= *limit) {
                    return format!(
                        "the home took {}, and may take {} (`workspace.home.limit`)",
                        show_size(home.bytes >> 20 << 20),
                        show_size(limit)
                    );
                }
                for notice in state.notices(usage, limit) {
                    told(notice);
                }
                if limit > 0 && usage.bytes >= limit {
                    return format!(
                        "workspace and home took {}, and may take {} (`resources.disk`)",
                        show_size(usage.bytes >> 20 << 20),
                        show_size(limit)
                    );
                }
            }
            Err(error) => {
                tracing::warn!(%error, "the disk was not measured");
                session = None;
                failures += 1;
                if failures >= FAILURES {
                    return "the disk that workspace and home take could not be measured".to_owned();
                }
            }
        }
        let pause = (begun.elapsed() * 20).clamp(PAUSE, PAUSE_MOST);
        tokio::time::sleep(pause).await;
    }
}

async fn measure(
    engine: &Engine,
    agent: &str,
    session: &mut Option<ExecSession>,
    home_apart: bool,
) -> Result<(Usage, Usage), Box<dyn std::error::Error + Send + Sync>> {
    let client = match session {
        Some(client) => client,
        None => session.insert(launch::open_session(engine, agent).await?),
    };
    if !home_apart {
        return Ok((client.usage(vec![WORKSPACE.to_owned(), HOME.to_owned()]).await?, Usage::default()));
    }
    let home = client.usage(vec![HOME.to_owned()]).await?;
    let workspace = client.usage(vec![WORKSPACE.to_owned()]).await?;
    let together = Usage {
        bytes: workspace.bytes.saturating_add(home.bytes),
        files: workspace.files.saturating_add(home.files),
        unreadable: workspace.unreadable.saturating_add(home.unreadable),
    };
    Ok((together, home))
}

/// What was told already: each thing is told once.
#[derive(Debug, Default)]
struct DiskState {
    nearly_full: bool,
    unreadable: bool,
}

impl DiskState {
    fn notices(&mut self, usage: Usage, limit: u64) -> Vec<Notice> {
        let mut notices = Vec::new();
        let nearly_full = limit > 0 && usage.bytes >= limit / 5 * 4;
        if nearly_full && !self.nearly_full && usage.bytes < limit {
            notices.push(Notice::DiskNearlyFull(usage));
        }
        self.nearly_full = nearly_full;
        if usage.unreadable > 0 && !self.unreadable {
            notices.push(Notice::Unreadable(usage.unreadable));
            self.unreadable = true;
        }
        notices
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn usage(bytes: u64, unreadable: u64) -> Usage {
        Usage { bytes, files: 1, unreadable }
    }

    #[test]
    fn tells_once_that_the_disk_is_nearly_full_and_again_after_it_was_not() {
        let mut state = DiskState::default();
        assert_eq!(state.notices(usage(79, 0), 100), vec![]);
        assert_eq!(state.notices(usage(80, 0), 100), vec![Notice::DiskNearlyFull(usage(80, 0))]);
        assert_eq!(state.notices(usage(90, 0), 100), vec![]);
        assert_eq!(state.notices(usage(10, 0), 100), vec![]);
        assert_eq!(state.notices(usage(85, 0), 100), vec![Notice::DiskNearlyFull(usage(85, 0))]);
    }

    #[test]
    fn tells_once_that_folders_are_hidden() {
        let mut state = DiskState::default();
        assert_eq!(state.notices(usage(1, 2), 100), vec![Notice::Unreadable(2)]);
        assert_eq!(state.notices(usage(1, 3), 100), vec![]);
    }
}
