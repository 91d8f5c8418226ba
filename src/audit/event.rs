//! What is recorded. No event has a field that could hold a secret value.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// One recorded step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditEvent {
    /// When, in UTC.
    pub time: Timestamp,
    /// What happened, as `subject.verb`: `session.started`, `credential.issued`, `network.denied`, …
    pub action: String,
    /// Who asked: the developer's user name.
    pub actor: String,
    /// The project.
    pub project: String,
    /// The sandbox's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sandbox: Option<String>,
    /// The session's id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<String>,
    /// `ok`, `denied` or `failed`.
    pub outcome: String,
    /// Further facts by name: `credential`, `provider`, `fingerprint`, `host`, `port`, `image`, `reason`, …
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub facts: BTreeMap<String, String>,
}
