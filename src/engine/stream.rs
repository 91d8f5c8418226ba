//! Attach and exec streams: our own hijack of the connection, and the engine's framing of standard output and error.
//!
//! A client library that guesses from the first byte whether a stream is framed can be frozen by a program's output, so
//! streams here are never those of a TTY and always framed (Docker Engine API, "Attach to a container", stream format).

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf as _, Bytes, BytesMut};
use http_body_util::{BodyExt as _, Full};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadHalf, WriteHalf};
use tokio::net::{TcpStream, UnixStream};

use super::endpoint::Endpoint;
use super::error::EngineError;

/// How long the engine may take to open a stream.
const OPEN_LIMIT: Duration = Duration::from_secs(30);
/// The most that is read at once, in bytes. A frame that is larger comes in pieces.
const PIECE: usize = 64 << 10;
/// The largest error body that is read, in bytes.
const ERROR_LIMIT: usize = 64 << 10;

/// A piece of output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Chunk {
    /// Of standard output.
    Out(Bytes),
    /// Of standard error.
    Err(Bytes),
}

/// An open stream to a container or exec.
pub struct AttachedStream {
    /// The exec's id, when it is one.
    pub exec_id: Option<String>,
    /// Standard input.
    pub input: StreamInput,
    /// Standard output and error.
    pub output: StreamOutput,
}

/// Standard input. Shutting it down half-closes the connection, which the program sees as end of file.
pub struct StreamInput(WriteHalf<TokioIo<Upgraded>>);

/// Standard output and error.
pub struct StreamOutput {
    reader: ReadHalf<TokioIo<Upgraded>>,
    demultiplexer: Demultiplexer,
}

/// Takes the engine's frames apart: one byte of stream, three of nothing, four of length (big endian), payload.
#[derive(Debug, Default)]
pub struct Demultiplexer {
    buffer: BytesMut,
    current: Option<(u8, usize)>,
}

impl Demultiplexer {
    /// Adds bytes of the connection.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next piece of output that is complete enough to hand on; frames are handed on in pieces, so that a frame's
    /// announced length never decides how much is buffered.
    ///
    /// # Errors
    /// When the stream is not framed.
    pub fn next_chunk(&mut self) -> Result<Option<Chunk>, EngineError> {
        loop {
            if let Some((stream, left)) = self.current {
                if left == 0 {
                    self.current = None;
                    continue;
                }
                if self.buffer.is_empty() {
                    return Ok(None);
                }
                let piece = self.buffer.split_to(left.min(self.buffer.len())).freeze();
                self.current = Some((stream, left - piece.len()));
                return Ok(Some(if stream == 2 { Chunk::Err(piece) } else { Chunk::Out(piece) }));
            }
            if self.buffer.len() < 8 {
                return Ok(None);
            }
            let stream = self.buffer[0];
            if stream > 2 || self.buffer[1..4] != [0, 0, 0] {
                return Err(EngineError::StreamFormat);
            }
            self.buffer.advance(4);
            let length = self.buffer.get_u32() as usize;
            self.current = Some((stream, length));
        }
    }
}

impl StreamOutput {
    /// The next piece of output; none when the program ended. May be dropped and called again.
    ///
    /// # Errors
    /// When the connection breaks or is not framed.
    pub async fn next(&mut self) -> Result<Option<Chunk>, EngineError> {
        loop {
            if let Some(chunk) = self.demultiplexer.next_chunk()? {
                return Ok(Some(chunk));
            }
            self.demultiplexer.buffer.reserve(PIECE);
            let read = self.reader.read_buf(&mut self.demultiplexer.buffer).await.map_err(EngineError::Stream)?;
            if read == 0 {
                return Ok(None);
            }
        }
    }
}

impl AsyncWrite for StreamInput {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}

trait Connection: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Connection for T {}

/// Opens a hijacked stream: a POST that asks for an upgrade to `tcp` and is answered by 101 (or 200 of older engines).
pub(super) async fn hijack(
    endpoint: &Endpoint,
    call: &'static str,
    path: &str,
    body: Vec<u8>,
    exec_id: Option<String>,
) -> Result<AttachedStream, EngineError> {
    let open = async {
        let unreachable = |source| EngineError::NotAnswering { endpoint: endpoint.to_string(), source };
        let connection: Box<dyn Connection> = match endpoint {
            Endpoint::Unix(path) => Box::new(UnixStream::connect(path).await.map_err(unreachable)?),
            Endpoint::Tcp(address) => Box::new(TcpStream::connect(address).await.map_err(unreachable)?),
        };
        let transport = |source: hyper::Error| EngineError::Transport { call, source: Box::new(source) };
        let (mut sender, driver) =
            hyper::client::conn::http1::handshake(TokioIo::new(connection)).await.map_err(transport)?;
        tokio::spawn(driver.with_upgrades());
        let request = hyper::Request::post(path)
            .header("Host", "docker")
            .header("Connection", "Upgrade")
            .header("Upgrade", "tcp")
            .header("Content-Type", "application/json")
            .body(Full::new(Bytes::from(body)))
            .map_err(|source| EngineError::Transport { call, source: Box::new(source) })?;
        let response = sender.send_request(request).await.map_err(transport)?;
        let status = response.status();
        if status != hyper::StatusCode::SWITCHING_PROTOCOLS {
            let body = http_body_util::Limited::new(response.into_body(), ERROR_LIMIT).collect().await;
            let body = body.map(|body| body.to_bytes()).unwrap_or_default();
            let message = serde_json::from_slice::<serde_json::Value>(&body)
                .ok()
                .and_then(|value| value.get("message").and_then(|text| text.as_str()).map(str::to_owned))
                .unwrap_or_else(|| status.to_string());
            return Err(EngineError::Refused { call, status: status.as_u16(), message });
        }
        let upgraded = hyper::upgrade::on(response).await.map_err(transport)?;
        let (reader, writer) = tokio::io::split(TokioIo::new(upgraded));
        Ok(AttachedStream {
            exec_id,
            input: StreamInput(writer),
            output: StreamOutput { reader, demultiplexer: Demultiplexer::default() },
        })
    };
    tokio::time::timeout(OPEN_LIMIT, open).await.unwrap_or(Err(EngineError::Timeout { call, limit: OPEN_LIMIT }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(stream: u8, payload: &[u8]) -> Vec<u8> {
        let mut bytes = vec![stream, 0, 0, 0];
        bytes.extend_from_slice(&(payload.len() as u32).to_be_bytes());
        bytes.extend_from_slice(payload);
        bytes
    }

    #[test]
    fn output_that_looks_like_a_frame_is_only_output() {
        let mut demultiplexer = Demultiplexer::default();
        demultiplexer.push(&frame(1, b"\x01\0\0\0\xff\xff\xff\xff"));
        demultiplexer.push(&frame(2, b"after"));
        assert_eq!(
            demultiplexer.next_chunk().unwrap(),
            Some(Chunk::Out(Bytes::from_static(b"\x01\0\0\0\xff\xff\xff\xff")))
        );
        assert_eq!(demultiplexer.next_chunk().unwrap(), Some(Chunk::Err(Bytes::from_static(b"after"))));
        assert_eq!(demultiplexer.next_chunk().unwrap(), None);
    }

    #[test]
    fn a_frame_may_come_byte_by_byte() {
        let mut demultiplexer = Demultiplexer::default();
        let mut output = Vec::new();
        for byte in frame(1, b"hello") {
            demultiplexer.push(&[byte]);
            while let Some(Chunk::Out(piece)) = demultiplexer.next_chunk().unwrap() {
                output.extend_from_slice(&piece);
            }
        }
        assert_eq!(output, b"hello");
    }

    #[test]
    fn a_frame_that_announces_four_gigabytes_buffers_nothing_of_that_size() {
        let mut demultiplexer = Demultiplexer::default();
        demultiplexer.push(b"\x01\0\0\0\xff\xff\xff\xffab");
        assert_eq!(demultiplexer.next_chunk().unwrap(), Some(Chunk::Out(Bytes::from_static(b"ab"))));
        assert!(demultiplexer.buffer.capacity() < PIECE);
    }

    #[test]
    fn refuses_a_stream_that_is_not_framed() {
        let mut demultiplexer = Demultiplexer::default();
        demultiplexer.push(b"hello world");
        assert!(matches!(demultiplexer.next_chunk(), Err(EngineError::StreamFormat)));
    }

    proptest::proptest! {
        #[test]
        fn never_panics_and_never_makes_bytes_up(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..200)) {
            let mut demultiplexer = Demultiplexer::default();
            demultiplexer.push(&bytes);
            let mut total = 0;
            while let Ok(Some(Chunk::Out(piece) | Chunk::Err(piece))) = demultiplexer.next_chunk() {
                total += piece.len();
            }
            proptest::prop_assert!(total <= bytes.len());
        }
    }
}
