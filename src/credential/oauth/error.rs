//! Why a log-in could not be used. No text of the issuer's is in here but its word for the error.

use std::io;
use std::path::PathBuf;

use crate::credential::key_source::KeyError;
use crate::credential::store::StoreError;
use crate::project::CredentialName;

/// Why a log-in failed.
#[derive(Debug, thiserror::Error)]
pub enum OauthError {
    /// An address that gets a token is not fit for it.
    #[error("use the address {address}: {problem}")]
    Address {
        /// The address.
        address: String,
        /// What is wrong.
        problem: &'static str,
    },
    /// The HTTP client could not be made.
    #[error("prepare the call of the issuer")]
    Client(#[source] reqwest::Error),
    /// No connection.
    #[error("reach the issuer at {address}")]
    Unreachable {
        /// The address.
        address: String,
        /// Whether there was a connection, so that the request may have been taken.
        sent: bool,
        /// The cause.
        #[source]
        source: reqwest::Error,
    },
    /// It did not answer in time.
    #[error("have an answer of {address} within {seconds} seconds")]
    Timeout {
        /// The address.
        address: String,
        /// How long it had.
        seconds: u64,
    },
    /// It answered with an error.
    #[error("have the issuer do it: it answered {status}{}", if word.is_empty() { String::new() } else { format!(" ({word})") })]
    Failed {
        /// The status.
        status: u16,
        /// Its word for the error (RFC 6749, section 5.2), or nothing.
        word: String,
    },
    /// The refresh token is good no more.
    #[error("refresh the log-in: the issuer refused it ({word})")]
    Refused {
        /// Its word for the error.
        word: String,
    },
    /// The log-in has ended.
    #[error("use the log-in of `{name}`, which the issuer ended{}", if *interrupted { "; a refresh before was cut off, and its answer lost" } else { "" })]
    Over {
        /// The credential.
        name: CredentialName,
        /// Whether a refresh was cut off before.
        interrupted: bool,
    },
    /// Nobody logged in.
    #[error("find a log-in for `{0}`")]
    LoggedOut(CredentialName),
    /// The log-in was made at another address or for another client.
    #[error("use the log-in of `{name}`, which was made with another `token_url` or `client_id`")]
    Elsewhere {
        /// The credential.
        name: CredentialName,
    },
    /// What was given is no token.
    #[error("take what was given for a refresh token")]
    NotAToken,
    /// The issuer gave no refresh token.
    #[error("get a refresh token: the issuer gave an access token alone")]
    NoRefreshToken,
    /// It cannot be understood.
    #[error("understand the issuer, which gave {0}")]
    Answer(&'static str),
    /// It gave more than was asked for.
    #[error("accept an access token that is good for more than `scopes` says")]
    Wider,
    /// The client's secret cannot be had.
    #[error("act as the client of the log-in")]
    KeySource(#[from] KeyError),
    /// What was read is no secret of a client.
    #[error("act as the client of the log-in: its secret is not one line of plain text")]
    NotASecret,
    /// Nothing can be brought back to this machine.
    #[error("listen on port {port} of this machine for the browser")]
    Listen {
        /// The port; 0 for any.
        port: u16,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The kernel gives no random bytes.
    #[error("make a log-in that nobody can guess")]
    Random(#[source] io::Error),
    /// The person said no.
    #[error("log in: it was declined at the issuer")]
    Declined,
    /// Nobody entered the code in time.
    #[error("log in: the code was not entered in time")]
    CodeExpired,
    /// The record cannot be used.
    #[error("keep the log-in")]
    Store(#[from] StoreError),
    /// The record is none.
    #[error("understand the record of the log-in")]
    Damaged,
    /// The lock cannot be used.
    #[error("lock {path}")]
    Lock {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// Another process refreshes for too long.
    #[error("wait for another process that refreshes the log-in, for {seconds} seconds by now")]
    Busy {
        /// How long it was waited for.
        seconds: u64,
    },
    /// The refresh was stopped.
    #[error("refresh the log-in: the process ended")]
    Stopped,
    /// The journal's handle is none.
    #[error("understand the handle of the access token")]
    Handle,
}

impl OauthError {
    /// Whether the refresh token was certainly not used up.
    pub(super) fn is_harmless(&self) -> bool {
        match self {
            Self::Unreachable { sent, .. } => !sent,
            Self::Client(_) | Self::Address { .. } | Self::NotASecret => true,
            // An error of the client's is answered before anything is issued; one of the server's may come after.
            Self::Failed { status, .. } => (400..500).contains(status),
            _ => false,
        }
    }
}
