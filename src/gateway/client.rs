//! The agent's connection, as the relay accepted it and handed it over.
//!
//! It belongs to the agent's network namespace, whose loopback is all that it can lead to. The gateway reads and writes
//! it and never connects with it.

use std::io::{self, IoSlice};
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use rustix::net::sockopt::{socket_acceptconn, socket_domain, socket_type};
use rustix::net::{AddressFamily, Shutdown, SocketType};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::gateway::transfer::{End, transfer};
use crate::gateway::tunnel::reset;

/// How long a client may go on sending after the gateway has said all that it has to say.
const HALF_OPEN: Duration = Duration::from_secs(2);

/// A connection of one of the agent's programs. Its clones are the same connection.
#[derive(Debug, Clone)]
pub struct Client(Arc<Accepted>);

#[derive(Debug)]
struct Accepted {
    stream: TcpStream,
    /// Whether it got a byte.
    answered: AtomicBool,
}

impl Client {
    /// Takes a descriptor over that a relay sent.
    ///
    /// # Errors
    /// When it is anything but a connection by TCP.
    pub fn take_over(descriptor: OwnedFd) -> io::Result<Self> {
        let family = socket_domain(&descriptor)?;
        let tcp = socket_type(&descriptor)? == SocketType::STREAM
            && (family == AddressFamily::INET || family == AddressFamily::INET6)
            && !socket_acceptconn(&descriptor)?;
        if !tcp {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "what the relay sent is no connection"));
        }
        let stream = std::net::TcpStream::from(descriptor);
        // One that is not connected, or no longer, has no peer.
        stream.peer_addr()?;
        stream.set_nonblocking(true)?;
        let stream = TcpStream::from_std(stream)?;
        // Only latency is at stake.
        let _ = stream.set_nodelay(true);
        Ok(Self(Arc::new(Accepted { stream, answered: AtomicBool::new(false) })))
    }

    /// Writes what fits at once; a client that does not read gets no more.
    pub fn say(&self, bytes: &[u8]) {
        if self.0.stream.try_write(bytes).is_ok() {
            self.0.answered.store(true, Ordering::Relaxed);
        }
    }

    /// Ends the connection: with a reset if the client never got a byte, so that it sees a refusal and not an empty
    /// answer; else in order, with a moment for what the client still sends, since closing a socket with unread bytes
    /// resets it and can cost the client the answer.
    pub async fn end(mut self) {
        if !self.0.answered.load(Ordering::Relaxed) {
            return reset(&self.0.stream);
        }
        // A client that is gone needs no end.
        let _ = rustix::net::shutdown(&self.0.stream, Shutdown::Write);
        let _ = timeout(HALF_OPEN, transfer(&mut self, &mut tokio::io::sink())).await;
    }
}

impl End for Client {
    fn socket(&self) -> Option<&TcpStream> {
        Some(&self.0.stream)
    }

    fn took(&self, _bytes: usize) {
        self.0.answered.store(true, Ordering::Relaxed);
    }
}

impl AsyncRead for Client {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        loop {
            ready!(self.0.stream.poll_read_ready(cx))?;
            match self.0.stream.try_read(buffer.initialize_unfilled()) {
                Ok(length) => {
                    buffer.advance(length);
                    return Poll::Ready(Ok(()));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }
}

impl Client {
    fn poll_try(
        &self,
        cx: &mut Context<'_>,
        write: impl Fn(&TcpStream) -> io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.0.stream.poll_write_ready(cx))?;
            match write(&self.0.stream) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                outcome => {
                    if outcome.is_ok() {
                        self.0.answered.store(true, Ordering::Relaxed);
                    }
                    return Poll::Ready(outcome);
                }
            }
        }
    }
}

impl AsyncWrite for Client {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_try(cx, |stream| stream.try_write(bytes))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.poll_try(cx, |stream| stream.try_write_vectored(bytes))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // As tokio's own: a client that has closed already is no failure.
        match rustix::net::shutdown(&self.0.stream, Shutdown::Write) {
            Ok(()) | Err(rustix::io::Errno::NOTCONN) => Poll::Ready(Ok(())),
            Err(error) => Poll::Ready(Err(error.into())),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, UdpSocket};
    use std::os::unix::net::UnixStream;

    use super::*;

    #[tokio::test]
    async fn takes_over_connections_by_tcp_and_nothing_else() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let connected = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let unconnected = rustix::net::socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
        assert!(Client::take_over(OwnedFd::from(connected)).is_ok());
        let file: OwnedFd = std::fs::File::open("/dev/null").unwrap().into();
        let others: [OwnedFd; 5] = [
            OwnedFd::from(listener),
            OwnedFd::from(UdpSocket::bind("127.0.0.1:0").unwrap()),
            OwnedFd::from(UnixStream::pair().unwrap().0),
            unconnected,
            file,
        ];
        for other in others {
            assert!(Client::take_over(other).is_err());
        }
    }
}
