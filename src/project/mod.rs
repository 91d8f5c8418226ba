//! The project: its manifest `sandbox.yaml`, where it is found, its names, and whether the user approved it.

pub mod allow_entry;
pub mod configuration;
pub mod discovery;
pub mod manifest;
pub mod name;
pub mod network_preset;
pub mod path_patterns;
pub mod port;
pub mod preset;
pub mod problem;
pub mod quantity;
pub(crate) mod reader;
pub mod schema;
pub mod survey;
pub mod trust;
pub(crate) mod yaml;

pub use discovery::{LocateError, locate, remember};
pub use name::{CredentialName, ProjectName, SandboxName};
pub use port::PortForward;
