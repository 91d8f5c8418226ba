//! Why Vault did not give or end a credential. Of what the server says, one sanitised line is kept.

use std::io;
use std::path::PathBuf;

use crate::credential::{env_file, exec, identity};

/// What is wrong with a server's certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CertificateFault {
    /// Its authority is none of ours.
    #[error("no authority that is trusted here signed it")]
    Issuer,
    /// Its time is over.
    #[error("it has run out")]
    Expired,
    /// Its time has not begun.
    #[error("it is not valid yet")]
    Early,
    /// It names another host.
    #[error("it is for another name")]
    Name,
    /// Anything else.
    #[error("it cannot be checked, or does not hold")]
    Other,
}

/// Why Vault did not give or end a credential.
#[derive(Debug, thiserror::Error)]
pub enum VaultError {
    /// Neither manifest nor environment names a server.
    #[error("find Vault's address")]
    NoAddress,
    /// The address is none, or would send a token in the clear.
    #[error("use `{address}` as Vault's address: {problem}")]
    Address {
        /// The address.
        address: String,
        /// What is wrong.
        problem: &'static str,
    },
    /// The sandbox's identity was not signed.
    #[error("log in as the sandbox")]
    Signing(#[from] identity::IdentityError),
    /// There is no token.
    #[error("find a token for Vault")]
    NoToken,
    /// The token's file cannot be read.
    #[error("read {path}")]
    TokenFile {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The file with certificates cannot be used.
    #[error("read the certificates in {path}")]
    Certificates {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The HTTP client cannot be made.
    #[error("make an HTTP client")]
    Client(#[source] reqwest::Error),
    /// The file with a secret was refused.
    #[error("read what to log in with")]
    File(#[from] env_file::EnvFileError),
    /// The command for a secret failed.
    #[error("have a command say what to log in with")]
    Command(#[from] exec::ExecError),
    /// What to log in with, or a token, is not text.
    #[error("log in with something that is not plain text")]
    NotText,
    /// The certificate to log in with cannot be used. What is wrong is not told: it lies beside a private key.
    #[error("read a certificate and its private key, both as PEM")]
    Identity,
    /// No connection.
    #[error("reach Vault at {address}")]
    Unreachable {
        /// The server.
        address: String,
        /// The cause.
        #[source]
        source: reqwest::Error,
    },
    /// The server's certificate is not taken, so nothing was sent to it.
    #[error("trust the certificate of Vault at {address}: {fault}")]
    Untrusted {
        /// The server.
        address: String,
        /// What is wrong with it.
        fault: CertificateFault,
        /// The cause.
        #[source]
        source: reqwest::Error,
    },
    /// No answer in time.
    #[error("wait for Vault at {address} longer than {seconds} s")]
    Timeout {
        /// The server.
        address: String,
        /// How long.
        seconds: u64,
    },
    /// It is sealed.
    #[error("use Vault at {0}: it is sealed")]
    Sealed(String),
    /// It has too much to do, or no active node.
    #[error("use Vault at {address}: it answers {status} time after time")]
    Busy {
        /// The server.
        address: String,
        /// The status.
        status: u16,
    },
    /// The token may not.
    #[error("use `{path}`: Vault says {said}")]
    Denied {
        /// The path.
        path: String,
        /// What it says.
        said: String,
    },
    /// There is no such namespace.
    #[error("find the namespace `{0}` in Vault")]
    NoNamespace(String),
    /// There is nothing.
    #[error("find `{path}` in Vault")]
    Absent {
        /// The path.
        path: String,
    },
    /// The version was deleted.
    #[error("read `{path}`: its latest version was deleted")]
    Deleted {
        /// The path.
        path: String,
    },
    /// Another refusal.
    #[error("use `{path}`: Vault answers {status}{}{said}", if said.is_empty() { "" } else { " and says " })]
    Failed {
        /// The path.
        path: String,
        /// The status.
        status: u16,
        /// What it says.
        said: String,
    },
    /// A redirection that is not followed.
    #[error("follow Vault to another server: {0}")]
    Redirection(&'static str),
    /// The answer is not what is documented.
    #[error("understand Vault: it gave {0}")]
    Answer(&'static str),
    /// The answer has no such field.
    #[error("find the field `{0}` in what Vault gave")]
    Field(String),
    /// A wrapped secret id was opened by somebody else.
    #[error("unwrap the secret id: it was OPENED BEFORE or was not made by the role; somebody else may have it")]
    Intercepted,
    /// The child token has more than was asked for.
    #[error("accept a child token with {0} than asked for; it was revoked")]
    Wider(&'static str),
    /// The journal's handle is none.
    #[error("understand the handle of the credential")]
    Handle,
}
