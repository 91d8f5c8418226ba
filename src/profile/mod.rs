//! Confinement profiles: limits and the seccomp profile that a container of an agent gets.
