//! Why an image cannot be pulled or pushed.

use crate::image::reference::Digest;

/// A failure of a registry or of what came from it, as a fragment that fits after "failed to".
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// Not the name of a repository.
    #[error("use `{}` as the name of a repository: {problem}", .name.escape_debug())]
    Name {
        /// What is written.
        name: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// The HTTP client or the resolver cannot be set up.
    #[error("set up the client of the registry")]
    Setup(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// No answer.
    #[error("reach {host}")]
    Unreachable {
        /// The registry, or where it sent us.
        host: String,
        /// Why.
        #[source]
        source: reqwest::Error,
    },
    /// The registry wants a login, or refuses the one there is.
    #[error("be let in by {host} ({status}){}", shown(.said))]
    Denied {
        /// The registry or its token service.
        host: String,
        /// 401 or 403.
        status: u16,
        /// What it said.
        said: String,
    },
    /// The registry asks for a login in a way that is not known or not safe.
    #[error("log in at {host}: {problem}")]
    Challenge {
        /// The registry.
        host: String,
        /// What is wrong.
        problem: &'static str,
    },
    /// There is no such thing.
    #[error("find {what} in {repository}")]
    Absent {
        /// A manifest or a blob.
        what: String,
        /// The repository.
        repository: String,
    },
    /// The registry is busy, and was asked often enough.
    #[error("have {host} answer: it is busy ({status})")]
    Busy {
        /// The registry.
        host: String,
        /// The last status.
        status: u16,
    },
    /// An answer with another status than the specification has.
    #[error("{what}: {host} answered {status}{}", shown(.said))]
    Status {
        /// What was asked.
        what: &'static str,
        /// The registry.
        host: String,
        /// The status.
        status: u16,
        /// What it said.
        said: String,
    },
    /// A redirection that is not followed.
    #[error("follow {host} to {target}: {problem}")]
    Redirection {
        /// Who sends us on.
        host: String,
        /// Where to, without path and query, which may hold a signature.
        target: String,
        /// Why not.
        problem: &'static str,
    },
    /// The bytes are not those of the digest.
    #[error("use {what}: its digest is {found}, not {wanted}")]
    Digest {
        /// Manifest, configuration or layer.
        what: String,
        /// What came.
        found: Digest,
        /// What should have.
        wanted: Digest,
    },
    /// More or fewer bytes than the manifest says.
    #[error("use {what}: it has not the {wanted} bytes that are promised")]
    Size {
        /// Configuration or layer.
        what: String,
        /// The promised size.
        wanted: u64,
    },
    /// A document that is not what it should be.
    #[error("use the {document}: {problem}")]
    Document {
        /// Manifest, index or configuration.
        document: &'static str,
        /// What is wrong.
        problem: &'static str,
    },
    /// A document that is no JSON of its form.
    #[error("read the {document}")]
    Json {
        /// Manifest, index or configuration.
        document: &'static str,
        /// What the parser says.
        #[source]
        source: serde_json::Error,
    },
    /// An index without this platform.
    #[error("find an image for linux/{architecture} among {}", .platforms.join(", "))]
    Platform {
        /// Go's name of the architecture.
        architecture: &'static str,
        /// What there is.
        platforms: Vec<String>,
    },
    /// The transfer broke off again and again.
    #[error("transfer {what}: it broke off {attempts} times")]
    Interrupted {
        /// The layer.
        what: String,
        /// How often it was tried.
        attempts: u32,
        /// The last failure.
        #[source]
        source: reqwest::Error,
    },
    /// The network is not allowed.
    #[error("fetch {what}, which is not in the cache, without the network")]
    Offline {
        /// The image.
        what: String,
    },
    /// A file of the cache cannot be read or written.
    #[error("use the cache")]
    Cache(#[from] std::io::Error),
}

fn shown(said: &str) -> String {
    if said.is_empty() { String::new() } else { format!(": {said}") }
}

/// What a registry says in its answer to a failure (distribution-spec, "Error Codes"), short and without control
/// characters.
pub(super) fn said(body: &[u8]) -> String {
    let Ok(document) = serde_json::from_slice::<serde_json::Value>(body) else { return String::new() };
    let errors = document.get("errors").and_then(serde_json::Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let text = |error: &serde_json::Value, key: &str| {
        error.get(key).and_then(serde_json::Value::as_str).unwrap_or_default().to_owned()
    };
    let all: Vec<String> =
        errors.iter().take(3).map(|error| format!("{} {}", text(error, "code"), text(error, "message"))).collect();
    all.join("; ").chars().take(200).collect::<String>().trim().escape_debug().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_a_registry_briefly_and_without_control_characters() {
        let body = br#"{"errors":[{"code":"DENIED","message":"no\u001b[2J"}]}"#;
        assert_eq!(said(body), "DENIED no\\u{1b}[2J");
        assert_eq!(said(b"<html>"), "");
        let long = serde_json::json!({"errors": [{"code": "A", "message": "x".repeat(10_000)}]}).to_string();
        assert_eq!(said(long.as_bytes()).len(), 200);
    }
}
