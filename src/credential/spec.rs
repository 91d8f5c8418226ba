//! What a manifest declares of a credential: provider, delivery, age. No secret is in here.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::network::name::HostName;

/// A declared credential.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CredentialSpec {
    /// Who issues it.
    pub provider: ProviderSpec,
    /// How the agent gets it.
    pub deliver: Delivery,
    /// The age after which it is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_age: Option<Duration>,
    /// Why the same value is used by other projects too, when it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shared_with: Option<SharedWith>,
    /// Why a personal or organisation-wide value is accepted, when it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accept_personal: Option<String>,
}

/// Who issues a credential.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "provider", rename_all = "kebab-case")]
pub enum ProviderSpec {
    /// The embedded, encrypted store.
    Store,
    /// A variable of an env file that belongs to the project.
    EnvFile {
        /// The file, inside the project.
        path: PathBuf,
        /// The variable.
        variable: String,
    },
    /// A command on the developer's machine; runs only in a trusted manifest.
    Exec {
        /// The program and its arguments; no shell.
        command: Vec<String>,
        /// Ends the credential again, when the issuer can.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        revoke_command: Option<Vec<String>>,
    },
}

/// How the agent gets a credential.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Delivery {
    /// As the file `/run/secrets/NAME`.
    File {
        /// The file's name below `/run/secrets`.
        name: String,
    },
    /// As a file, and git asks for it when it talks to this host.
    Git {
        /// The git host.
        host: HostName,
    },
    /// As a file, and additionally in the environment of commands: weaker, since it outlives a rotation.
    Environment {
        /// The variable.
        variable: String,
    },
}

/// Other projects that hold the same value on purpose.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SharedWith {
    /// Their names.
    pub projects: Vec<String>,
    /// Why.
    pub reason: String,
}
