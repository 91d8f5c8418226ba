//! The unix socket between relay and gateway: a header line of JSON, and with it the connection that the relay accepted,
//! as a descriptor (`SCM_RIGHTS`, unix(7)).
//!
//! So no byte of the agent's passes through the relay, and a relay that dies cuts off nothing that the gateway allowed. The
//! agent's containers do not have this socket. Even so the gateway trusts nothing that arrives here.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, OwnedFd};

use rustix::cmsg_space;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
    recvmsg, sendmsg,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufRead, AsyncBufReadExt, Interest};
use tokio::net::{TcpStream, UnixStream};
use zeroize::Zeroize as _;

use crate::network::name::HostPattern;
use crate::network::policy::DenyRule;

/// Where the socket is in both containers.
pub const SOCKET: &str = "/run/channel/gateway.sock";

/// The longest header line, in bytes: a name has at most 253, and only what the relay itself read from a listing is one.
pub const HEADER_LIMIT: usize = 512;

/// How many connections a gateway serves at a time, as far as it may have two descriptors for each.
pub const CONNECTION_LIMIT: usize = 12_288;

/// What a connection of the relay is for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Header {
    /// The agent speaks HTTP to its proxy. Its connection comes along.
    Http {},
    /// The agent connected to the address of a listed name. Its connection comes along.
    Tcp {
        /// The name behind the address.
        host: String,
        /// The port.
        port: u16,
    },
    /// The gateway pushes a [`Listing`] as a line now and after each change of policy. The relay writes a line of
    /// [`crate::gateway::lookups::Asked`] now and then.
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
    /// The ports that are listed for every name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub all: Vec<u16>,
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

/// Sends a header, and with it a connection that the gateway is to serve.
///
/// # Errors
/// When the gateway is not there, or cannot take it.
pub async fn send_header(gateway: &UnixStream, header: &Header, client: Option<&TcpStream>) -> io::Result<()> {
    let line = to_line(header)?;
    loop {
        gateway.writable().await?;
        let sent = gateway.try_io(Interest::WRITABLE, || {
            let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(1))];
            let mut ancillary = SendAncillaryBuffer::new(&mut space);
            let client = client.map(|client| [client.as_fd()]);
            if let Some(descriptors) = &client
                && !ancillary.push(SendAncillaryMessage::ScmRights(descriptors))
            {
                return Err(io::ErrorKind::OutOfMemory.into());
            }
            Ok(sendmsg(gateway, &[IoSlice::new(&line)], &mut ancillary, SendFlags::NOSIGNAL)?)
        });
        match sent {
            Ok(length) if length == line.len() => return Ok(()),
            // A new socket's buffer has room for a line; the rest of one would come without its connection.
            Ok(_) => return Err(io::ErrorKind::WriteZero.into()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
}

/// Receives a header, and the connection that came with it. What comes behind the line is refused: nothing does.
///
/// # Errors
/// When it is no header.
pub async fn receive_header(relay: &UnixStream) -> Result<(Header, Option<OwnedFd>), LineError> {
    let mut line = Vec::with_capacity(HEADER_LIMIT);
    let mut client = None;
    loop {
        relay.readable().await.map_err(LineError::Read)?;
        match relay.try_io(Interest::READABLE, || receive_some(relay, &mut line, &mut client)) {
            Ok(0) => return Err(LineError::Read(io::ErrorKind::UnexpectedEof.into())),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
            Err(error) => return Err(LineError::Read(error)),
        }
        if let Some(line) = line.strip_suffix(b"\n") {
            return serde_json::from_slice(line).map(|header| (header, client)).map_err(LineError::Parse);
        }
        if line.len() >= HEADER_LIMIT {
            return Err(LineError::TooLong(HEADER_LIMIT));
        }
    }
}

fn receive_some(relay: &UnixStream, line: &mut Vec<u8>, client: &mut Option<OwnedFd>) -> io::Result<usize> {
    let mut bytes = [0; HEADER_LIMIT];
    let room = HEADER_LIMIT - line.len();
    // Room for one descriptor: the kernel closes any other.
    let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(1))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut parts = [IoSliceMut::new(&mut bytes[..room])];
    let length = recvmsg(relay, &mut parts, &mut ancillary, RecvFlags::CMSG_CLOEXEC)?.bytes;
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(descriptors) = message {
            client.replace(descriptors.last().ok_or(io::ErrorKind::InvalidData)?);
        }
    }
    line.extend_from_slice(&bytes[..length]);
    Ok(length)
}

/// Reads the next line, without its end, into an empty buffer. `false` is the end of the stream. A line may hold secrets, so
/// what the buffer leaves behind when it grows is wiped.
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
        if line.capacity() - line.len() < taken {
            let mut larger = Vec::with_capacity((line.len() + taken).max(2 * line.capacity()));
            larger.extend_from_slice(line);
            line.zeroize();
            *line = larger;
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

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};

    use super::*;

    async fn pair() -> (TcpStream, std::net::TcpStream) {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (listener.accept().await.unwrap().0, client)
    }

    #[tokio::test]
    async fn a_connection_comes_along_with_its_header() {
        let (relay, gateway) = UnixStream::pair().unwrap();
        let (accepted, mut client) = pair().await;
        let header = Header::Tcp { host: "a.example".to_owned(), port: 443 };
        send_header(&relay, &header, Some(&accepted)).await.unwrap();
        drop((relay, accepted));
        let (received, descriptor) = receive_header(&gateway).await.unwrap();
        assert_eq!(received, header);
        let mut served = std::net::TcpStream::from(descriptor.unwrap());
        client.write_all(b"hello").unwrap();
        served.set_nonblocking(false).unwrap();
        let mut bytes = [0; 5];
        served.read_exact(&mut bytes).unwrap();
        assert_eq!(&bytes, b"hello");
    }

    #[tokio::test]
    async fn what_is_no_header_is_refused() {
        use tokio::io::AsyncWriteExt as _;

        let long = vec![b'x'; HEADER_LIMIT + 1];
        for bytes in [&b"{}\n"[..], b"\n", b"{\"http\":{}}", b"{\"http\":{}}\nmore", b"{\"http\":{\"a\":1}}\n", &long] {
            let (mut relay, gateway) = UnixStream::pair().unwrap();
            relay.write_all(bytes).await.unwrap();
            drop(relay);
            assert!(receive_header(&gateway).await.is_err(), "{:?}", String::from_utf8_lossy(bytes));
        }
    }

    #[tokio::test]
    async fn the_longest_name_fits() {
        let (relay, gateway) = UnixStream::pair().unwrap();
        let header = Header::Tcp { host: "a.".repeat(126) + "x", port: 65_535 };
        send_header(&relay, &header, None).await.unwrap();
        assert_eq!(receive_header(&gateway).await.unwrap().0, header);
    }
}
