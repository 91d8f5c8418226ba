//! How much a sandbox may do with what it may reach: enough for any day's work, and too little to carry a workspace away.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// `network.limits` of a manifest. Each limit is on what goes to one host, in one session, unless it says otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct NetworkLimits {
    /// Bytes from the agent to one host in a session.
    pub upload: u64,
    /// Bytes of one request's body, where the gateway reads requests.
    pub request_body: u64,
    /// Connections to one host at once.
    pub connections: u32,
    /// Different names that are reached in a session; each of them could carry a few bytes to a name server.
    pub names: u32,
    /// Seconds after which a connection ends on which nothing moves.
    pub idle: u64,
    /// Seconds after which a connection ends in any case.
    pub total: u64,
}

impl Default for NetworkLimits {
    fn default() -> Self {
        Self { upload: 2 << 30, request_body: 256 << 20, connections: 128, names: 1000, idle: 3600, total: 86_400 }
    }
}

impl NetworkLimits {
    /// The keys of the limits that let through more than the default.
    pub fn wider(&self) -> Vec<&'static str> {
        let usual = Self::default();
        let wider = [
            ("upload", self.upload > usual.upload),
            ("request_body", self.request_body > usual.request_body),
            ("connections", self.connections > usual.connections),
            ("names", self.names > usual.names),
            ("idle", self.idle > usual.idle),
            ("total", self.total > usual.total),
        ];
        wider.into_iter().filter(|(_, wider)| *wider).map(|(key, _)| key).collect()
    }

    /// [`Self::idle`] as a duration.
    pub fn idle(&self) -> Duration {
        Duration::from_secs(self.idle)
    }

    /// [`Self::total`] as a duration.
    pub fn total(&self) -> Duration {
        Duration::from_secs(self.total)
    }
}
