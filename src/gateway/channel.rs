//! The unix socket between relay and gateway: a header line of JSON, then raw bytes both ways.
//!
//! The agent's containers do not have this socket. Even so the gateway trusts nothing that arrives here: the relay
//! passes on what the agent sent.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncRead, AsyncReadExt};

use crate::network::name::HostPattern;
use crate::network::policy::DenyRule;

/// Where the socket is in both containers.
pub const SOCKET: &str = "/run/channel/gateway.sock";

/// The longest header line, in bytes.
pub const HEADER_LIMIT: usize = 4096;

/// How many connections a relay or a gateway serves at a time.
pub const CONNECTION_LIMIT: usize = 1024;

/// What a connection of the relay is for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Header {
    /// The agent speaks HTTP to its proxy: raw bytes follow.
    Http {},
    /// The agent connected to the address of a listed name: raw bytes follow.
    Tcp {
        /// The name behind the address.
        host: String,
        /// The port.
        port: u16,
    },
    /// The gateway pushes a [`Listing`] as a line now and after each change of policy.
    Control {},
}

/// The names that the relay answers in DNS and listens for. It replaces the listing before it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Listing {
    /// The destinations, without those that are addresses.
    pub names: Vec<ListedName>,
    /// What is denied of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub denied: Vec<DenyRule>,
}

/// One name of a [`Listing`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ListedName {
    /// The name, or all names below one.
    pub host: HostPattern,
    /// The port.
    pub port: u16,
}

/// Why a line could not be read.
#[derive(Debug, thiserror::Error)]
pub enum LineError {
    /// The other side closed in the middle, or reading failed.
    #[error("read a line")]
    Read(#[source] std::io::Error),
    /// The line is longer than allowed.
    #[error("read a line of more than {0} bytes")]
    TooLong(usize),
    /// The line is not what was expected.
    #[error("parse a line")]
    Parse(#[source] serde_json::Error),
}

/// Reads the header byte by byte, so that nothing of the raw bytes behind it is swallowed.
pub async fn read_header<R: AsyncRead + Unpin>(stream: &mut R) -> Result<Header, LineError> {
    let mut line = Vec::with_capacity(64);
    loop {
        match stream.read_u8().await.map_err(LineError::Read)? {
            b'\n' => return serde_json::from_slice(&line).map_err(LineError::Parse),
            _ if line.len() >= HEADER_LIMIT => return Err(LineError::TooLong(HEADER_LIMIT)),
            byte => line.push(byte),
        }
    }
}

/// Reads the next line, without its end, into an empty buffer. `false` is the end of the stream.
pub async fn read_line<R: AsyncBufRead + Unpin>(
    reader: &mut R,
    line: &mut Vec<u8>,
    limit: usize,
) -> Result<bool, LineError> {
    loop {
        let chunk = reader.fill_buf().await.map_err(LineError::Read)?;
        if chunk.is_empty() {
            return Ok(!line.is_empty());
        }
        let end = chunk.iter().position(|byte| *byte == b'\n');
        let taken = end.unwrap_or(chunk.len());
        if line.len() + taken > limit {
            return Err(LineError::TooLong(limit));
        }
        line.extend_from_slice(&chunk[..taken]);
        reader.consume(taken + usize::from(end.is_some()));
        if end.is_some() {
            return Ok(true);
        }
    }
}

/// A value as a line of JSON.
pub fn to_line<T: Serialize>(value: &T) -> Result<Vec<u8>, serde_json::Error> {
    let mut line = serde_json::to_vec(value)?;
    line.push(b'\n');
    Ok(line)
}

/// A line of JSON as a value.
pub fn from_line<T: DeserializeOwned>(line: &[u8]) -> Result<T, LineError> {
    serde_json::from_slice(line).map_err(LineError::Parse)
}
