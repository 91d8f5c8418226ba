//! Why AWS did not give a session of a role. Of what it says, one sanitised line is kept.

use std::io;
use std::path::PathBuf;

use crate::credential::{exec, identity};

/// Why a role could not be assumed.
#[derive(Debug, thiserror::Error)]
pub enum StsError {
    /// The address is none, or would send a token in the clear.
    #[error("use `{address}` as the address of STS: {problem}")]
    Address {
        /// The address.
        address: String,
        /// What is wrong.
        problem: &'static str,
    },
    /// The sandbox's identity was not signed.
    #[error("assume the role as the sandbox")]
    Identity(#[from] identity::IdentityError),
    /// There are no keys to assume the role with.
    #[error("find keys in the environment, or of the profile `{profile}` in {path}")]
    NoKeys {
        /// The credentials file.
        path: PathBuf,
        /// The profile.
        profile: String,
    },
    /// The credentials file cannot be read.
    #[error("read {path}")]
    File {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The command for the keys failed.
    #[error("have a command say the keys")]
    Command(#[from] exec::ExecError),
    /// It answers something else.
    #[error("understand the command: it does not answer as a `credential_process`")]
    CommandAnswer,
    /// The key's id is none.
    #[error("sign with a key whose id is not one")]
    KeyId,
    /// The HTTP client cannot be made.
    #[error("make an HTTP client")]
    Client(#[source] reqwest::Error),
    /// No connection.
    #[error("reach STS at {address}")]
    Unreachable {
        /// The server.
        address: String,
        /// The cause.
        #[source]
        source: reqwest::Error,
    },
    /// No answer in time.
    #[error("wait for STS at {address} longer than {seconds} s")]
    Timeout {
        /// The server.
        address: String,
        /// How long.
        seconds: u64,
    },
    /// A refusal.
    #[error("assume the role: STS answers {status} {code}{}{said}", if said.is_empty() { "" } else { " and says " })]
    Refused {
        /// The status.
        status: u16,
        /// Its word for the error.
        code: String,
        /// What it says.
        said: String,
    },
    /// The answer is not what is documented.
    #[error("understand STS: it gave {0}")]
    Answer(&'static str),
    /// The session is another, or longer, than was asked for.
    #[error("accept a session with {0} than asked for; it was not delivered, and runs out by itself")]
    Other(&'static str),
    /// The journal's handle is none.
    #[error("understand the handle of the credential")]
    Handle,
}
