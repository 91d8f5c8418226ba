//! Why an issuer did not take the sandbox's identity. Of what it says, its code and one sanitised line are kept.

use crate::credential::identity::IdentityError;

/// Why there is no token.
#[derive(Debug, thiserror::Error)]
pub enum FederationError {
    /// The identity was not signed.
    #[error("log in as the sandbox")]
    Signing(#[from] IdentityError),
    /// The address is none, or would send a token in the clear.
    #[error("use `{address}` as an address of {issuer}: {problem}")]
    Address {
        /// The issuer.
        issuer: &'static str,
        /// The address.
        address: String,
        /// What is wrong.
        problem: &'static str,
    },
    /// The HTTP client cannot be made.
    #[error("make an HTTP client")]
    Client(#[source] reqwest::Error),
    /// The request does not fit.
    #[error("send a request of that length")]
    TooLong,
    /// No connection.
    #[error("reach {issuer} at {address}")]
    Unreachable {
        /// The issuer.
        issuer: &'static str,
        /// The server.
        address: String,
        /// The cause.
        #[source]
        source: reqwest::Error,
    },
    /// No answer in time.
    #[error("wait for {issuer} at {address} longer than {seconds} s")]
    Timeout {
        /// The issuer.
        issuer: &'static str,
        /// The server.
        address: String,
        /// How long.
        seconds: u64,
    },
    /// There are too many requests, or it has trouble of its own.
    #[error("use {issuer} at {address}, which answers {status}")]
    Busy {
        /// The issuer.
        issuer: &'static str,
        /// The server.
        address: String,
        /// The status.
        status: u16,
    },
    /// A refusal.
    #[error("have {issuer} take the sandbox's identity: it answers {status} {code}{}{said}", if said.is_empty() { "" } else { " and says " })]
    Refused {
        /// The issuer.
        issuer: &'static str,
        /// The status.
        status: u16,
        /// Its word for the error.
        code: String,
        /// What it says.
        said: String,
    },
    /// The answer is not what is documented.
    #[error("understand {issuer}: it gave {what}")]
    Answer {
        /// The issuer.
        issuer: &'static str,
        /// What it gave.
        what: &'static str,
    },
    /// The token is good for more than was asked for.
    #[error("accept a token of {issuer} with {what} than asked for; it was not delivered, and runs out by itself")]
    Wider {
        /// The issuer.
        issuer: &'static str,
        /// What is wider.
        what: &'static str,
    },
    /// The journal's handle is none.
    #[error("understand the handle of the credential")]
    Handle,
}
