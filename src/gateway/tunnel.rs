//! Moves the bytes of a connection that is not plain HTTP, after a look at its first ones.
//!
//! TLS must name the host that was allowed. Port 443 must be TLS. On other ports the server may speak first (SSH, SMTP,
//! PostgreSQL), so its bytes flow while the client's first ones are still awaited.

use std::future::poll_fn;
use std::io;
use std::task::Poll;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::gateway::hello::{ClientHello, HELLO_LIMIT, names_host, opens_tls, parse_client_hello, records_end};
use crate::gateway::transfer::{End, Way, exchange};
use crate::network::name::Host;

/// How long a ClientHello may take from its first byte to its last, and on port 443 from the connection's start.
pub const HELLO_TIMEOUT: Duration = Duration::from_secs(5);

/// Bytes that are read first, to see what a client speaks.
const FIRST: usize = 16;

/// Why a connection's first bytes are refused.
#[derive(Debug, thiserror::Error)]
pub enum OpeningError {
    /// Port 443, but not TLS.
    #[error("port 443 was not spoken to in TLS")]
    NotTls,
    /// The ClientHello is malformed, too long or took too long.
    #[error("the ClientHello is malformed, too long or too slow")]
    Hello,
    /// The ClientHello names another host, or none.
    #[error("the server name in TLS is {}, not the host", .0.as_deref().unwrap_or("missing"))]
    ServerName(Option<String>),
    /// Reading failed.
    #[error("the connection broke")]
    Read(#[source] io::Error),
}

/// Reads the client's first bytes and judges them. Empty bytes mean that the client has closed.
pub async fn read_opening<C: AsyncRead + Unpin>(
    client: &mut C,
    host: &Host,
    port: u16,
) -> Result<Vec<u8>, OpeningError> {
    // Little, while nothing is said: there may be thousands that wait here.
    let mut bytes = Vec::with_capacity(FIRST);
    let first = if port == 443 {
        timeout(HELLO_TIMEOUT, client.read_buf(&mut bytes)).await.map_err(|_| OpeningError::Hello)?
    } else {
        client.read_buf(&mut bytes).await
    };
    if first.map_err(OpeningError::Read)? == 0 {
        return Ok(bytes);
    }
    if !opens_tls(bytes[0]) {
        return if port == 443 { Err(OpeningError::NotTls) } else { Ok(bytes) };
    }
    bytes.reserve(2048);
    timeout(HELLO_TIMEOUT, read_hello(client, host, &mut bytes)).await.map_err(|_| OpeningError::Hello)??;
    Ok(bytes)
}

async fn read_hello<C: AsyncRead + Unpin>(
    client: &mut C,
    host: &Host,
    bytes: &mut Vec<u8>,
) -> Result<(), OpeningError> {
    let mut awaited = 0;
    loop {
        if bytes.len() >= awaited {
            match parse_client_hello(bytes) {
                ClientHello::Complete(name) if names_host(name.as_deref(), host) => return Ok(()),
                ClientHello::Complete(name) => return Err(OpeningError::ServerName(name)),
                ClientHello::Invalid => return Err(OpeningError::Hello),
                ClientHello::Incomplete => {}
            }
            awaited = records_end(bytes);
            if awaited > HELLO_LIMIT {
                return Err(OpeningError::Hello);
            }
        }
        let room = (HELLO_LIMIT + 1 - bytes.len()) as u64;
        let read = (&mut *client).take(room).read_buf(bytes).await.map_err(OpeningError::Read)?;
        if read == 0 {
            return Err(OpeningError::Hello);
        }
    }
}

/// Passes on what was read, then everything else until both sides have closed.
///
/// # Errors
/// When reading or writing fails.
pub async fn relay<C, U>(client: &mut C, upstream: &mut U, opening: &[u8]) -> io::Result<()>
where
    C: AsyncRead + AsyncWrite + End + Unpin,
    U: AsyncRead + AsyncWrite + End + Unpin,
{
    exchange(client, upstream, Way::after(opening), Way::default()).await
}

/// Judges the client's first bytes while the server's already flow, then passes everything on.
///
/// # Errors
/// When the first bytes are refused, and when reading or writing fails.
pub async fn relay_concurrently<C, U>(client: C, mut upstream: U, host: &Host, port: u16) -> Result<(), OpeningError>
where
    C: AsyncRead + AsyncWrite + End + Unpin,
    U: AsyncRead + AsyncWrite + End + Unpin,
{
    let (mut from_client, mut to_client) = tokio::io::split(client);
    let mut down = Way::default();
    // On the heap while it lasts: a tunnel that waits is smaller without it.
    let mut opening = Box::pin(read_opening(&mut from_client, host, port));
    let up = poll_fn(|context| {
        if let Poll::Ready(opening) = opening.as_mut().poll(context) {
            return Poll::Ready(opening.map(|opening| Way::after(&opening)));
        }
        match down.poll(context, &mut upstream, &mut to_client) {
            Poll::Ready(Err(error)) => Poll::Ready(Err(OpeningError::Read(error))),
            // It has ended; the client may still speak.
            Poll::Ready(Ok(())) | Poll::Pending => Poll::Pending,
        }
    })
    .await?;
    drop(opening);
    let mut client = from_client.unsplit(to_client);
    exchange(&mut client, &mut upstream, up, down).await.map_err(OpeningError::Read)
}

/// Makes a connection end with a reset rather than in order, so that the client sees a refusal and not an empty answer.
pub fn reset(stream: &TcpStream) {
    // Failing to set the option only changes how the refusal looks.
    let _ = rustix::net::sockopt::set_socket_linger(stream, Some(Duration::ZERO));
}
