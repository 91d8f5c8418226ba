//! Confinement profiles: limits and the seccomp profile that a container of an agent gets.
//!
//! The profiles are compiled in. A manifest picks one by name and can narrow its limits; it cannot bring one of its own,
//! and none of them is unconfined.

mod paths;
pub mod seccomp;

use serde::Deserialize;

use crate::engine::container::Limits;
use crate::project::problem::Problem;
use crate::project::{quantity, yaml};

/// The profiles that exist.
pub const NAMES: &[&str] = &["strict", "default", "debug", "browser"];

/// Why a profile cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum ProfileError {
    /// There is none of this name.
    #[error("find the profile `{}`", .0.escape_debug())]
    Unknown(String),
    /// A profile that is compiled in has a fault.
    #[error("read the profile `{name}`")]
    Syntax {
        /// The profile.
        name: String,
        /// The cause.
        #[source]
        source: Problem,
    },
    /// A profile that is compiled in has a size that is none, or a folder for temporary files that is too large.
    #[error("read the profile `{name}`: the value `{value}` is wrong")]
    Value {
        /// The profile.
        name: String,
        /// The value.
        value: String,
    },
    /// The seccomp profile cannot be written as JSON.
    #[error("write the system call filter")]
    Filter(#[source] serde_json::Error),
}

/// A confinement profile.
#[derive(Debug, Clone, PartialEq)]
pub struct Profile {
    /// Its name.
    pub name: String,
    /// The limits of the agent's container, unless the manifest narrows them.
    pub limits: Limits,
    /// Disk for workspace and home together, in bytes.
    pub disk: u64,
    /// Size of `/tmp` in bytes: at most half of the memory, since a larger one ends in an OOM kill, not in ENOSPC.
    pub tmp_size: u64,
    /// The seccomp profile, in the engine's JSON format.
    pub seccomp_json: String,
    /// Paths that are hidden, in place of the engine's default list.
    pub masked_paths: Vec<String>,
    /// Paths that are read-only, in place of the engine's default list.
    pub readonly_paths: Vec<String>,
    /// What is weaker than in the default profile, in words.
    pub weakened: Vec<String>,
}

/// The file's shape.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Shape {
    limits: LimitsShape,
    tmp_size: String,
    #[serde(default)]
    allow: Vec<String>,
    #[serde(default)]
    deny: Vec<String>,
    #[serde(default)]
    weakened: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct LimitsShape {
    cpus: u64,
    memory: String,
    pids: u32,
    disk: String,
    open_files: u64,
    file_size: String,
    shm: String,
}

/// The paths that are hidden from every container, whatever its profile.
pub fn masked_paths() -> Vec<String> {
    paths::MASKED.iter().map(|&path| path.to_owned()).collect()
}

/// The paths that are read-only in every container, whatever its profile.
pub fn readonly_paths() -> Vec<String> {
    paths::READ_ONLY.iter().map(|&path| path.to_owned()).collect()
}

/// The profile of this name.
pub fn load(name: &str) -> Result<Profile, ProfileError> {
    let text = match name {
        "strict" => include_str!("../../profiles/strict.yaml"),
        "default" => include_str!("../../profiles/default.yaml"),
        "debug" => include_str!("../../profiles/debug.yaml"),
        "browser" => include_str!("../../profiles/browser.yaml"),
        _ => return Err(ProfileError::Unknown(name.chars().take(60).collect())),
    };
    let shape: Shape = yaml::typed(text).map_err(|source| ProfileError::Syntax { name: name.to_owned(), source })?;
    let wrong = |value: &str| ProfileError::Value { name: name.to_owned(), value: value.to_owned() };
    let size = |value: &str| quantity::size(value).ok_or_else(|| wrong(value));
    let limits = Limits {
        memory: size(&shape.limits.memory)?,
        millicpus: shape.limits.cpus * 1000,
        pids: shape.limits.pids,
        open_files: shape.limits.open_files,
        file_size: size(&shape.limits.file_size)?,
        shm: size(&shape.limits.shm)?,
    };
    let tmp_size = size(&shape.tmp_size)?;
    if tmp_size > limits.memory / 2 {
        return Err(wrong(&shape.tmp_size));
    }
    let filter = seccomp::filter(std::env::consts::ARCH, &shape.allow, &shape.deny);
    Ok(Profile {
        name: name.to_owned(),
        disk: size(&shape.limits.disk)?,
        limits,
        tmp_size,
        seccomp_json: serde_json::to_string(&filter).map_err(ProfileError::Filter)?,
        masked_paths: masked_paths(),
        readonly_paths: readonly_paths(),
        weakened: shape.weakened,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_profile_that_is_named_can_be_loaded() {
        for name in NAMES {
            let profile = load(name).unwrap();
            assert!(profile.tmp_size * 2 <= profile.limits.memory);
            assert_eq!(profile.weakened.is_empty(), matches!(*name, "strict" | "default"), "{name}");
        }
    }

    #[test]
    fn there_is_no_unconfined_profile() {
        assert!(matches!(load("unconfined"), Err(ProfileError::Unknown(_))));
    }

    #[test]
    fn tells_of_a_closed_and_an_opened_system_call() {
        assert!(!load("strict").unwrap().seccomp_json.contains("\"ptrace\""));
        assert!(load("default").unwrap().seccomp_json.contains("\"ptrace\""));
        assert!(load("debug").unwrap().seccomp_json.contains("\"perf_event_open\""));
        assert!(!load("default").unwrap().seccomp_json.contains("\"perf_event_open\""));
    }
}
