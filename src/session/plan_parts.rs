//! Which parts of a plan differ from those of a running sandbox. Only the allow list, its limits, the hosts that
//! credentials may go to and the company's proxy can change without a restart, so they are no part here.

use std::collections::BTreeMap;

use serde_json::Value;
use sha2::{Digest as _, Sha256};

use crate::network::limits::NetworkLimits;
use crate::session::plan::Plan;

/// Keys of a plan that say nothing of their own, or that a running sandbox takes.
const LEFT_OUT: [&str; 6] = ["project", "name", "plan_hash", "command", "weakened", "mounts"];

/// What people call the parts.
const NAMES: [(&str, &str); 9] = [
    ("credentials", "credentials"),
    ("disk", "resources"),
    ("image", "the image"),
    ("limits", "resources"),
    ("network", "certificate authorities of your configuration"),
    ("profile", "the profile"),
    ("session_limit", "resources"),
    ("volumes", "volumes"),
    ("workspace", "the workspace"),
];

/// A hash for each part of the plan, by its key.
pub fn parts(plan: &Plan) -> BTreeMap<String, String> {
    let mut plan = plan.clone();
    plan.network.allow.clear();
    plan.network.limits = NetworkLimits::default();
    plan.network.credentials.clear();
    plan.network.proxy = None;
    // All map types in a plan are ordered and all keys are text, so that serialising cannot fail.
    let Ok(Value::Object(fields)) = serde_json::to_value(&plan) else { return BTreeMap::new() };
    let kept = fields.into_iter().filter(|(key, _)| !LEFT_OUT.contains(&key.as_str()));
    kept.map(|(key, value)| (key, hex::encode(&Sha256::digest(value.to_string())[..16]))).collect()
}

/// What is different, in words. Empty when the allow list alone is.
pub fn differences(running: &BTreeMap<String, String>, planned: &BTreeMap<String, String>) -> Vec<&'static str> {
    if running == planned {
        return Vec::new();
    }
    let differs = |key: &str| running.get(key) != planned.get(key);
    let mut named: Vec<&str> = NAMES.iter().filter(|(key, _)| differs(key)).map(|(_, name)| *name).collect();
    named.dedup();
    if named.is_empty() {
        // The containers hold what none of the others says.
        named.push("variables of its programs (`environment`, or a first host with `rules`), or the launcher");
    }
    named
}
