//! The streams of a container or an exec, on a connection that the engine has given up HTTP on.
//!
//! The connection is taken over here rather than in the client library, which guesses from the first byte whether a
//! stream is framed: a program that prints `\x01\0\0\0\xff\xff\xff\xff` could make it buffer without bound. Nothing of
//! ours has a TTY, so every stream is framed, and a frame is handed on in pieces as they come, whatever length it claims.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWrite, ReadHalf, WriteHalf};

use super::error::{EngineError, Refusal};

/// How much is read at once, in bytes.
const READ_SIZE: usize = 32 << 10;
/// Length of a frame's head, in bytes.
const HEAD: usize = 8;

/// The streams of a container or an exec.
#[derive(Debug)]
pub struct AttachedStream {
    /// The exec's id, for [`super::Engine::exec_exit_code`]; absent for a container.
    pub exec_id: Option<String>,
    /// Standard input.
    pub input: StreamInput,
    /// Standard output and standard error.
    pub output: StreamOutput,
}

impl AttachedStream {
    pub(super) fn new(exec_id: Option<String>, connection: TokioIo<Upgraded>) -> Self {
        let (reader, writer) = tokio::io::split(connection);
        Self { exec_id, input: StreamInput(writer), output: StreamOutput::new(Source::Connection(reader)) }
    }
}

/// Standard input. Shutting it down closes the input of an exec and leaves its output open; a container's input stays
/// open for whoever attaches next. Dropping it closes nothing until the output is dropped too.
#[derive(Debug)]
pub struct StreamInput(WriteHalf<TokioIo<Upgraded>>);

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

/// A piece of output; where one ends means nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Chunk {
    /// Of standard output.
    Out(Bytes),
    /// Of standard error.
    Err(Bytes),
}

/// Standard output and standard error, live or from the engine's log.
#[derive(Debug)]
pub struct StreamOutput {
    source: Source,
    demultiplexer: Demultiplexer,
}

#[derive(Debug)]
enum Source {
    Connection(ReadHalf<TokioIo<Upgraded>>),
    Body(Incoming),
}

impl StreamOutput {
    fn new(source: Source) -> Self {
        Self { source, demultiplexer: Demultiplexer::default() }
    }

    /// The output in the body of an answer, such as a log.
    pub(super) fn of_body(body: Incoming) -> Self {
        Self::new(Source::Body(body))
    }

    /// The next piece, or nothing at the end. May be cancelled without losing any.
    ///
    /// # Errors
    ///
    /// When the connection breaks, the framing is wrong, or the engine reports a failure in the stream.
    pub async fn next(&mut self) -> Result<Option<Chunk>, EngineError> {
        const CALL: &str = "read the output of a container";
        let broken = |source: Box<dyn std::error::Error + Send + Sync>| EngineError::Transport { call: CALL, source };
        loop {
            if let Some(piece) = self.demultiplexer.piece()? {
                return match piece {
                    Piece::Output(chunk) => Ok(Some(chunk)),
                    Piece::Failure(text) => Err(EngineError::Api {
                        call: CALL,
                        status: 0,
                        source: Refusal::new(&String::from_utf8_lossy(&text)),
                    }),
                };
            }
            let more = match &mut self.source {
                Source::Connection(reader) => {
                    let buffer = &mut self.demultiplexer.buffer;
                    buffer.reserve(READ_SIZE);
                    reader.read_buf(buffer).await.map_err(|source| broken(Box::new(source)))? > 0
                }
                Source::Body(body) => match body.frame().await {
                    Some(Ok(frame)) => {
                        if let Ok(data) = frame.into_data() {
                            self.demultiplexer.push(&data);
                        }
                        true
                    }
                    Some(Err(source)) => return Err(broken(Box::new(source))),
                    None => false,
                },
            };
            if !more {
                self.demultiplexer.finish()?;
                return Ok(None);
            }
        }
    }
}

/// Why a stream is not framed as the Engine API says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FramingError {
    /// No such stream, or bytes that must be zero are not.
    #[error("a frame begins with the bytes {0:02x?}, which no engine sends")]
    Head([u8; 4]),
    /// The stream ended inside a frame.
    #[error("the stream ended inside a frame, {0} bytes early")]
    Truncated(usize),
}

/// Takes frames apart: one byte of stream, three zero bytes, four bytes of length (big endian), the payload
/// (Docker Engine API, "Attach to a container", "Stream format").
#[derive(Debug, Default)]
pub struct Demultiplexer {
    buffer: BytesMut,
    /// The stream and what is still to come of the current frame.
    current: Option<(Stream, usize)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stream {
    Output,
    Error,
    /// The engine's own failures.
    System,
}

/// What a frame carries, or the part of it that has come.
#[derive(Debug, PartialEq, Eq)]
pub enum Piece {
    /// Output of the container.
    Output(Chunk),
    /// Text of the engine's own, about a failure.
    Failure(Bytes),
}

impl Demultiplexer {
    /// Adds bytes that came; where they were cut means nothing.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// What the buffer holds of the current frame, as one piece; nothing when more bytes are needed.
    ///
    /// # Errors
    ///
    /// When a frame begins as no engine begins one.
    pub fn piece(&mut self) -> Result<Option<Piece>, FramingError> {
        loop {
            let (stream, left) = match self.current {
                Some(current) => current,
                None => match self.head()? {
                    Some(current) => current,
                    None => return Ok(None),
                },
            };
            if left == 0 {
                self.current = None;
                continue;
            }
            if self.buffer.is_empty() {
                self.current = Some((stream, left));
                return Ok(None);
            }
            let length = left.min(self.buffer.len());
            let bytes = self.buffer.split_to(length).freeze();
            self.current = Some((stream, left - length)).filter(|_| left > length);
            return Ok(Some(match stream {
                Stream::Output => Piece::Output(Chunk::Out(bytes)),
                Stream::Error => Piece::Output(Chunk::Err(bytes)),
                Stream::System => Piece::Failure(bytes),
            }));
        }
    }

    fn head(&mut self) -> Result<Option<(Stream, usize)>, FramingError> {
        let Some(&[kind, a, b, c, l0, l1, l2, l3]) = self.buffer.first_chunk::<HEAD>() else {
            return Ok(None);
        };
        let stream = match [kind, a, b, c] {
            // 0 is the echo of an input, which an engine writes to the output.
            [0 | 1, 0, 0, 0] => Stream::Output,
            [2, 0, 0, 0] => Stream::Error,
            [3, 0, 0, 0] => Stream::System,
            wrong => return Err(FramingError::Head(wrong)),
        };
        self.buffer.advance(HEAD);
        Ok(Some((stream, u32::from_be_bytes([l0, l1, l2, l3]) as usize)))
    }

    /// Whether the stream may end here.
    ///
    /// # Errors
    ///
    /// When it would end inside a frame.
    pub fn finish(&self) -> Result<(), FramingError> {
        match self.current {
            Some((_, left)) => Err(FramingError::Truncated(left)),
            None if self.buffer.is_empty() => Ok(()),
            None => Err(FramingError::Truncated(HEAD.saturating_sub(self.buffer.len()))),
        }
    }
}

#[cfg(test)]
mod tests;
