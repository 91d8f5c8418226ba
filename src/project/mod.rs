//! The project: its manifest `sandbox.yaml`, where it is found, its names, and whether the user approved it.

pub mod manifest;
pub mod name;

pub use name::{CredentialName, ProjectName, SandboxName};
