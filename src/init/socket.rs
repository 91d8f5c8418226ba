//! One connection to a port of the agent's own loopback, opened for the launcher. Nothing in here listens: what runs
//! beside the agent can answer a connection, and never open one.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::mpsc;

use super::frame::{FailureKind, Frame, Reply};
use super::session::{Connection, Disconnected};

/// Bytes read at once.
const CHUNK: usize = 64 << 10;
/// How long a server of the agent may take to accept.
const ACCEPT_LIMIT: Duration = Duration::from_secs(10);

/// Connects, and passes bytes until both directions have ended; each side says `End` once.
pub(super) async fn connect(connection: &mut Connection, port: u16) -> Result<(), Disconnected> {
    let socket = match tokio::time::timeout(ACCEPT_LIMIT, open(port)).await {
        Ok(Ok(socket)) => socket,
        Ok(Err(error)) => return connection.fail(FailureKind::Other, error.to_string()).await,
        Err(_) => return connection.fail(FailureKind::Other, "the server does not accept".to_owned()).await,
    };
    // What is typed into a terminal of the browser must not wait for more.
    let _ = socket.set_nodelay(true);
    connection.reply(&Reply::Connected).await?;
    let (from_server, to_server) = socket.into_split();
    let outgoing = connection.outgoing.clone();
    tokio::try_join!(answer(from_server, outgoing), ask(connection, to_server)).map(|_| ())
}

/// Servers listen on either loopback address: `localhost` is `::1` for some.
async fn open(port: u16) -> io::Result<TcpStream> {
    match TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await {
        Err(first) => TcpStream::connect((Ipv6Addr::LOCALHOST, port)).await.map_err(|_| first),
        socket => socket,
    }
}

async fn answer(mut server: OwnedReadHalf, outgoing: mpsc::Sender<Frame>) -> Result<(), Disconnected> {
    let mut buffer = vec![0; CHUNK];
    loop {
        let read = tokio::select! {
            read = server.read(&mut buffer) => read,
            // Nobody is left to be told.
            () = outgoing.closed() => return Err(Disconnected),
        };
        // A connection that was reset has ended as well.
        let Ok(count @ 1..) = read else { break };
        let frame = Frame::Data(Bytes::copy_from_slice(&buffer[..count]));
        outgoing.send(frame).await.map_err(|_| Disconnected)?;
    }
    outgoing.send(Frame::End).await.map_err(|_| Disconnected)
}

async fn ask(connection: &mut Connection, mut server: OwnedWriteHalf) -> Result<(), Disconnected> {
    let mut writable = true;
    loop {
        match connection.next().await? {
            Frame::Data(bytes) if writable => writable = server.write_all(&bytes).await.is_ok(),
            // The server has gone; the rest is read all the same, so that the next request stands where it belongs.
            Frame::Data(_) => {}
            Frame::End => {
                let _ = server.shutdown().await;
                return Ok(());
            }
            Frame::Control(_) | Frame::ErrorData(_) => return Err(Disconnected),
        }
    }
}
