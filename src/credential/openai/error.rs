//! Why OpenAI did not make or delete a service account. Of what it says, one sanitised line is kept.

use std::io;

use crate::credential::key_source::KeyError;

/// Why there is no key, or why it goes on.
#[derive(Debug, thiserror::Error)]
pub enum OpenaiError {
    /// The address is none, or would send a key in the clear.
    #[error("use `{address}` as the address of OpenAI's API: {problem}")]
    Address {
        /// The address.
        address: String,
        /// What is wrong.
        problem: &'static str,
    },
    /// The admin key cannot be had.
    #[error("act as the organisation's administrator")]
    KeySource(#[from] KeyError),
    /// What was read is no key.
    #[error("act as the organisation's administrator: the admin key is not one line of plain text")]
    Key,
    /// The HTTP client cannot be made.
    #[error("make an HTTP client")]
    Client(#[source] reqwest::Error),
    /// No connection, or one that broke.
    #[error("reach OpenAI at {address}")]
    Unreachable {
        /// The server.
        address: String,
        /// Whether it may have got the request.
        sent: bool,
        /// The cause.
        #[source]
        source: reqwest::Error,
    },
    /// No answer in time.
    #[error("wait for OpenAI at {address} longer than {seconds} s")]
    Timeout {
        /// The server.
        address: String,
        /// Whether it may have got the request.
        sent: bool,
        /// How long.
        seconds: u64,
    },
    /// There are too many requests, or OpenAI has trouble of its own.
    #[error("use OpenAI at {address}, which answers {status}")]
    Busy {
        /// The server.
        address: String,
        /// The status.
        status: u16,
    },
    /// The admin key is not taken.
    #[error("act as the organisation's administrator: OpenAI answers 401 and says {0}")]
    Unauthenticated(String),
    /// The admin key may not.
    #[error("have OpenAI make a service account: it answers 403 and says {0}")]
    Forbidden(String),
    /// There is no such project.
    #[error("find the project {0} of the organisation")]
    NoProject(String),
    /// Another refusal.
    #[error("use OpenAI: it answers {status}{}{said}", if said.is_empty() { "" } else { " and says " })]
    Failed {
        /// The status.
        status: u16,
        /// What it says.
        said: String,
    },
    /// The answer is not what is documented.
    #[error("understand OpenAI: it gave {0}")]
    Answer(&'static str),
    /// The key is good for more than was asked for.
    #[error("accept a key with {what} than asked for; its service account {fate}")]
    Wider {
        /// What is wider.
        what: &'static str,
        /// Whether the account could be deleted.
        fate: &'static str,
    },
    /// It was told to delete the account, and does not say that it did.
    #[error("see the service account deleted: OpenAI does not confirm it")]
    StillThere,
    /// The kernel gives no random bytes.
    #[error("make a name for the service account")]
    Random(#[source] io::Error),
    /// The journal's handle is none.
    #[error("understand the handle of the credential")]
    Handle,
}

impl OpenaiError {
    /// Whether the request may have been carried out, though nobody said so.
    pub(super) fn may_have_happened(&self) -> bool {
        match self {
            Self::Unreachable { sent, .. } | Self::Timeout { sent, .. } => *sent,
            Self::Busy { status, .. } => *status >= 500,
            Self::Answer(_) => true,
            _ => false,
        }
    }
}
