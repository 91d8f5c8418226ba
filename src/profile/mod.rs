//! Confinement profiles: limits and the seccomp profile that a container of an agent gets.

/// The profiles that exist.
pub const NAMES: &[&str] = &["strict", "default", "debug", "browser"];
