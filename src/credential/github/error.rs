//! Why GitHub did not give or end a token. Of what it says, one sanitised line is kept.

use std::io;

use crate::credential::key_source::KeyError;

/// Why GitHub did not give or end a token.
#[derive(Debug, thiserror::Error)]
pub enum GithubError {
    /// The address is none, or would send a token in the clear.
    #[error("use `{address}` as the address of GitHub's API: {problem}")]
    Address {
        /// The address.
        address: String,
        /// What is wrong.
        problem: &'static str,
    },
    /// The app's private key cannot be had.
    #[error("sign as the app")]
    KeySource(#[from] KeyError),
    /// The key is none that GitHub makes.
    #[error("sign as the app: the key is not an RSA key in PEM")]
    Key,
    /// The HTTP client cannot be made.
    #[error("make an HTTP client")]
    Client(#[source] reqwest::Error),
    /// No connection.
    #[error("reach GitHub at {address}")]
    Unreachable {
        /// The server.
        address: String,
        /// The cause.
        #[source]
        source: reqwest::Error,
    },
    /// No answer in time.
    #[error("wait for GitHub at {address} longer than {seconds} s")]
    Timeout {
        /// The server.
        address: String,
        /// How long.
        seconds: u64,
    },
    /// The signature, or who signed, is not accepted.
    #[error("log in as the app {app}: GitHub answers 401 and says {said}")]
    Unauthenticated {
        /// The app.
        app: String,
        /// What it says.
        said: String,
    },
    /// Somebody suspended the installation.
    #[error("use the installation {0}, which is suspended")]
    Suspended(u64),
    /// The app may not.
    #[error("have GitHub issue a token: it answers 403 and says {0}")]
    Forbidden(String),
    /// There are too many requests, or GitHub has trouble of its own.
    #[error("use GitHub at {address}, which answers {status}")]
    Busy {
        /// The server.
        address: String,
        /// The status.
        status: u16,
    },
    /// There is no such installation of this app.
    #[error("find the installation {installation} of the app {app}")]
    NoInstallation {
        /// The installation.
        installation: u64,
        /// The app.
        app: String,
    },
    /// A repository is not one of the installation.
    #[error("have GitHub issue a token for these repositories: it says {0}")]
    Repositories(String),
    /// A permission is not one of the installation.
    #[error("have GitHub issue a token with these permissions: it says {0}")]
    Permissions(String),
    /// Another refusal.
    #[error("use GitHub: it answers {status}{}{said}", if said.is_empty() { "" } else { " and says " })]
    Failed {
        /// The status.
        status: u16,
        /// What it says.
        said: String,
    },
    /// The answer is not what is documented.
    #[error("understand GitHub: it gave {0}")]
    Answer(&'static str),
    /// The token is good for more than was asked for.
    #[error("accept a token with {what} than asked for; it {fate}")]
    Wider {
        /// What is wider.
        what: &'static str,
        /// Whether it could be revoked.
        fate: &'static str,
    },
    /// It was told to end the token, which is still accepted.
    #[error("see the token end: GitHub still accepts it")]
    StillGood,
    /// The kernel gives no random bytes.
    #[error("make a handle for the token")]
    Random(#[source] io::Error),
    /// The journal's handle is none.
    #[error("understand the handle of the credential")]
    Handle,
}
