//! The launcher's end of a session: sends requests, checks and bounds what comes back.
//!
//! Everything that arrives was written by the agent's container: it is never trusted, and never shown unsanitised.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use futures_util::{SinkExt, StreamExt};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_util::codec::{FramedRead, FramedWrite};

use crate::init::frame::{
    BundleRequest, CloneRequest, FailureKind, Finding, Frame, FrameCodec, FrameError, ProbeRequest, Reply, Request,
    RunRequest, StandingFile, StandingRequest, TerminalSize, Tip, Usage,
};
use crate::init::standing;

/// Bytes of a bundle or of standard input sent at once.
const CHUNK: usize = 64 << 10;
/// The most findings that a probe may report.
const FINDINGS_LIMIT: usize = 256;
/// How long work on a whole repository may take, which is long for one of a million files, and how long a bundle may be on its
/// way: an agent that sends it byte by byte must not hold anybody for ever.
pub(super) const REPOSITORY: Duration = Duration::from_secs(3600);
/// How much of a message from the container is kept, in characters.
const MESSAGE_LIMIT: usize = 2000;

/// Why a session did not do as asked.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// The stream is broken or holds something else than frames.
    #[error("the session does not speak as expected")]
    Frame(#[from] FrameError),
    /// The stream ended in the middle of an answer.
    #[error("the session ended without an answer")]
    Ended,
    /// The session did not answer in time.
    #[error("the session did not answer within {} seconds", .0.as_secs())]
    Timeout(Duration),
    /// A frame that has no place where it stands.
    #[error("the session gave an answer that does not belong to the request")]
    Unexpected,
    /// A bundle above the request's limit.
    #[error("the bundle is larger than {0} bytes")]
    TooLarge(u64),
    /// The session said that it failed; its message has no control characters any more.
    #[error("{message}")]
    Failed {
        /// What kind of failure.
        kind: FailureKind,
        /// What the session said.
        message: String,
    },
    /// This side's own stream (a bundle's source, standard output) failed.
    #[error("a local stream failed")]
    Local(#[source] std::io::Error),
}

impl SessionError {
    /// The exit code that a shell gives for this: 127 or 126 for a command that cannot run; none for other failures.
    pub fn exit_code(&self) -> Option<u8> {
        match self {
            Self::Failed { kind: FailureKind::NotFound, .. } => Some(127),
            Self::Failed { kind: FailureKind::NotExecutable, .. } => Some(126),
            _ => None,
        }
    }
}

/// What a running command is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CommandInput {
    /// Bytes of standard input.
    Data(Bytes),
    /// The end of standard input.
    End,
    /// The terminal's new size.
    Resize(TerminalSize),
    /// A signal, by number, for the command's process group.
    Signal(i32),
}

/// The streams of a running command.
#[derive(Debug)]
pub struct CommandStreams<O, E> {
    /// What the command is told; that all senders are gone says nothing to it.
    pub input: mpsc::Receiver<CommandInput>,
    /// Receives its standard output, or all that its terminal shows.
    pub output: O,
    /// Receives its standard error.
    pub errors: E,
}

/// One session, over the two directions of a stream.
#[derive(Debug)]
pub struct SessionClient<R, W> {
    incoming: FramedRead<R, FrameCodec>,
    outgoing: FramedWrite<W, FrameCodec>,
    patience: Duration,
}

impl<R: AsyncRead + Unpin, W: AsyncWrite + Unpin> SessionClient<R, W> {
    /// A session whose output is `read` and whose input is `write`; `patience` bounds the wait for each single answer,
    /// except for a running command's.
    pub fn new(read: R, write: W, patience: Duration) -> Self {
        Self { incoming: FramedRead::new(read, FrameCodec), outgoing: FramedWrite::new(write, FrameCodec), patience }
    }

    /// Checks the confinement from inside.
    pub async fn probe(&mut self, request: ProbeRequest) -> Result<Vec<Finding>, SessionError> {
        self.request(&Request::Probe(request)).await?;
        match self.reply().await? {
            Reply::Probed(findings) if (1..=FINDINGS_LIMIT).contains(&findings.len()) => {
                let clean = |finding: Finding| Finding {
                    check: sanitise(&finding.check),
                    detail: sanitise(&finding.detail),
                    ..finding
                };
                Ok(findings.into_iter().map(clean).collect())
            }
            _ => Err(SessionError::Unexpected),
        }
    }

    /// Clones `bundle` and gives the object id of `HEAD`; none for a repository without a commit.
    pub async fn clone_bundle(
        &mut self,
        request: CloneRequest,
        mut bundle: impl AsyncRead + Unpin,
    ) -> Result<Option<String>, SessionError> {
        self.request(&Request::Clone(request)).await?;
        let (patience, outgoing) = (self.patience, &mut self.outgoing);
        let send = async move {
            let mut buffer = BytesMut::new();
            loop {
                buffer.reserve(CHUNK);
                if bundle.read_buf(&mut buffer).await.map_err(SessionError::Local)? == 0 {
                    break;
                }
                let frame = Frame::Data(buffer.split().freeze());
                timeout(patience, outgoing.send(frame)).await.map_err(|_| SessionError::Timeout(patience))??;
            }
            Ok::<_, SessionError>(outgoing.send(Frame::End).await?)
        };
        let incoming = &mut self.incoming;
        // A session that fails early answers while the bundle is still on its way.
        let early = tokio::select! {
            biased;
            sent = send => { sent?; None }
            frame = incoming.next() => Some(frame),
        };
        let reply = match early {
            Some(frame) => {
                let reply = parse(frame.ok_or(SessionError::Ended)??)?;
                // A clone that stands may be answered only once the whole bundle was read.
                return Err(if matches!(reply, Reply::Failed { .. }) {
                    failed(reply)
                } else {
                    SessionError::Unexpected
                });
            }
            None => self.reply_within(REPOSITORY).await?,
        };
        match reply {
            Reply::Cloned { head } if head.is_empty() => Ok(None),
            Reply::Cloned { head } => object_id(head).map(Some),
            _ => Err(SessionError::Unexpected),
        }
    }

    /// Writes the bundle to `target` and gives the tip's object id; none, and nothing written, when there is nothing new.
    pub async fn bundle(
        &mut self,
        request: BundleRequest,
        target: impl AsyncWrite + Unpin,
    ) -> Result<Option<String>, SessionError> {
        let whole = timeout(REPOSITORY, self.take_bundle(request, target)).await;
        whole.map_err(|_| SessionError::Timeout(REPOSITORY))?
    }

    async fn take_bundle(
        &mut self,
        request: BundleRequest,
        mut target: impl AsyncWrite + Unpin,
    ) -> Result<Option<String>, SessionError> {
        let limit = request.limit;
        self.request(&Request::Bundle(request)).await?;
        let Reply::Bundling { head, empty } = self.reply_within(REPOSITORY).await? else {
            return Err(SessionError::Unexpected);
        };
        let head = object_id(head)?;
        let mut received = 0;
        loop {
            // git counts and compresses before the first byte comes.
            match self.frame_within(if received == 0 { REPOSITORY } else { self.patience }).await? {
                Frame::Data(bytes) if !empty => {
                    received += bytes.len() as u64;
                    if received > limit {
                        return Err(SessionError::TooLarge(limit));
                    }
                    target.write_all(&bytes).await.map_err(SessionError::Local)?;
                }
                Frame::End => break,
                frame @ Frame::Control(_) => {
                    let reply = parse(frame)?;
                    return Err(match reply {
                        Reply::Failed { .. } => failed(reply),
                        _ => SessionError::Unexpected,
                    });
                }
                Frame::Data(_) | Frame::ErrorData(_) => return Err(SessionError::Unexpected),
            }
        }
        target.flush().await.map_err(SessionError::Local)?;
        match self.reply().await? {
            Reply::Bundled => Ok((!empty).then_some(head)),
            _ => Err(SessionError::Unexpected),
        }
    }

    /// The commits that branches, the stash and a detached `HEAD` of the clone hold, as it says. The names are cut and
    /// without control characters.
    pub async fn tips(&mut self, clone: &str) -> Result<Vec<Tip>, SessionError> {
        self.request(&Request::Tips(clone.to_owned())).await?;
        match self.reply().await? {
            Reply::Tips(tips) if tips.len() <= standing::TIPS + 1 => {
                let checked = |tip: Tip| Ok(Tip { name: sanitise(&tip.name), commit: object_id(tip.commit)? });
                tips.into_iter().map(checked).collect()
            }
            _ => Err(SessionError::Unexpected),
        }
    }

    /// The files that act without being committed, as far as the agent lets them be seen.
    pub async fn standing(&mut self, request: StandingRequest) -> Result<Vec<StandingFile>, SessionError> {
        self.request(&Request::Standing(request)).await?;
        match self.reply().await? {
            Reply::Standing(files) if files.len() <= standing::FILES => {
                let clean = |file: StandingFile| StandingFile {
                    path: sanitise(&file.path),
                    digest: sanitise(&file.digest).chars().take(64).collect(),
                    committed: file.committed,
                };
                Ok(files.into_iter().map(clean).collect())
            }
            _ => Err(SessionError::Unexpected),
        }
    }

    /// Measures the disk that these folders of the container take together.
    pub async fn usage(&mut self, folders: Vec<String>) -> Result<Usage, SessionError> {
        self.request(&Request::Usage(folders)).await?;
        match self.reply().await? {
            Reply::Used(usage) => Ok(usage),
            _ => Err(SessionError::Unexpected),
        }
    }

    /// Connects to a port of the agent's loopback. After a failure that the session told, it takes the next request.
    pub async fn connect(&mut self, port: u16) -> Result<(), SessionError> {
        self.request(&Request::Connect { port }).await?;
        match self.reply().await? {
            Reply::Connected => Ok(()),
            _ => Err(SessionError::Unexpected),
        }
    }

    /// Passes bytes between a local connection and the one of [`Self::connect`], and counts what it sent and received.
    ///
    /// It gives the connection up when nothing moves for `silence` though one direction has ended, or though something
    /// waits to be taken: otherwise a server could hold a connection whose client left long ago. After an error the
    /// session is of no further use.
    pub async fn pass(
        &mut self,
        mut reader: impl AsyncRead + Unpin,
        mut writer: impl AsyncWrite + Unpin,
        silence: Duration,
        (sent, received): (&AtomicU64, &AtomicU64),
    ) -> Result<(), SessionError> {
        let begun = Instant::now();
        let (moved, sending, half) = (AtomicU64::new(0), AtomicBool::new(false), AtomicBool::new(false));
        let since = || u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        let (incoming, outgoing) = (&mut self.incoming, &mut self.outgoing);
        let ask = async {
            let mut buffer = BytesMut::new();
            loop {
                buffer.reserve(CHUNK);
                let count = reader.read_buf(&mut buffer).await.map_err(SessionError::Local)?;
                moved.store(since(), Ordering::Relaxed);
                sending.store(true, Ordering::Relaxed);
                let frame = if count == 0 { Frame::End } else { Frame::Data(buffer.split().freeze()) };
                outgoing.send(frame).await?;
                sending.store(false, Ordering::Relaxed);
                moved.store(since(), Ordering::Relaxed);
                sent.fetch_add(count as u64, Ordering::Relaxed);
                if count == 0 {
                    half.store(true, Ordering::Relaxed);
                    return Ok::<_, SessionError>(());
                }
            }
        };
        let answer = async {
            loop {
                let frame = incoming.next().await.ok_or(SessionError::Ended)??;
                moved.store(since(), Ordering::Relaxed);
                match frame {
                    Frame::Data(bytes) => {
                        write(&mut writer, &bytes).await?;
                        received.fetch_add(bytes.len() as u64, Ordering::Relaxed);
                    }
                    Frame::End => {
                        writer.shutdown().await.map_err(SessionError::Local)?;
                        half.store(true, Ordering::Relaxed);
                        return Ok(());
                    }
                    Frame::Control(_) | Frame::ErrorData(_) => return Err(SessionError::Unexpected),
                }
            }
        };
        let watch = async {
            loop {
                tokio::time::sleep((silence / 4).max(Duration::from_millis(1))).await;
                let waits = half.load(Ordering::Relaxed) || sending.load(Ordering::Relaxed);
                let silent = Duration::from_millis(since().saturating_sub(moved.load(Ordering::Relaxed)));
                if waits && silent >= silence {
                    return SessionError::Timeout(silence);
                }
            }
        };
        tokio::select! {
            passed = async { tokio::try_join!(ask, answer) } => passed.map(|_| ()),
            error = watch => Err(error),
        }
    }

    /// Runs a command to its end and gives its exit code.
    pub async fn run<O, E>(
        &mut self,
        request: RunRequest,
        mut streams: CommandStreams<O, E>,
    ) -> Result<u8, SessionError>
    where
        O: AsyncWrite + Unpin,
        E: AsyncWrite + Unpin,
    {
        self.request(&Request::Run(request)).await?;
        match self.reply().await? {
            Reply::Started { .. } => {}
            _ => return Err(SessionError::Unexpected),
        }
        let outgoing = &mut self.outgoing;
        let incoming = &mut self.incoming;
        let tell = async move {
            while let Some(input) = streams.input.recv().await {
                let frame = match input {
                    CommandInput::Data(bytes) => Frame::Data(bytes),
                    CommandInput::End => Frame::End,
                    CommandInput::Resize(size) => Frame::control(&Request::Resize(size))?,
                    CommandInput::Signal(number) => Frame::control(&Request::Signal(number))?,
                };
                outgoing.send(frame).await?;
            }
            std::future::pending::<Result<(), SessionError>>().await
        };
        let listen = async move {
            loop {
                match incoming.next().await.ok_or(SessionError::Ended)?? {
                    Frame::Data(bytes) => write(&mut streams.output, &bytes).await?,
                    Frame::ErrorData(bytes) => write(&mut streams.errors, &bytes).await?,
                    Frame::End => return Err(SessionError::Unexpected),
                    frame @ Frame::Control(_) => match parse(frame)? {
                        Reply::Exited { code } => return Ok(code),
                        reply @ Reply::Failed { .. } => return Err(failed(reply)),
                        _ => return Err(SessionError::Unexpected),
                    },
                }
            }
        };
        // An input that can no longer be sent is not the end: what the command said last is still on its way.
        let tell = async {
            let _ = tell.await;
            std::future::pending::<()>().await;
        };
        tokio::select! {
            code = listen => code,
            () = tell => Err(SessionError::Ended),
        }
    }

    pub(super) async fn request(&mut self, request: &Request) -> Result<(), SessionError> {
        self.send(Frame::control(request)?).await
    }

    pub(super) async fn send(&mut self, frame: Frame) -> Result<(), SessionError> {
        Ok(timeout(self.patience, self.outgoing.send(frame))
            .await
            .map_err(|_| SessionError::Timeout(self.patience))??)
    }

    /// Sends a frame, unless the session answers first: one that fails early answers while there is more to send.
    pub(super) async fn send_or_answer(&mut self, frame: Frame) -> Result<Option<Frame>, SessionError> {
        let (patience, incoming) = (self.patience, &mut self.incoming);
        tokio::select! {
            biased;
            answer = incoming.next() => Ok(Some(answer.ok_or(SessionError::Ended)??)),
            sent = timeout(patience, self.outgoing.send(frame)) => {
                sent.map_err(|_| SessionError::Timeout(patience))??;
                Ok(None)
            }
        }
    }

    pub(super) async fn frame(&mut self) -> Result<Frame, SessionError> {
        self.frame_within(self.patience).await
    }

    pub(super) async fn frame_within(&mut self, limit: Duration) -> Result<Frame, SessionError> {
        let next = timeout(limit, self.incoming.next()).await;
        Ok(next.map_err(|_| SessionError::Timeout(limit))?.ok_or(SessionError::Ended)??)
    }

    pub(super) async fn reply(&mut self) -> Result<Reply, SessionError> {
        self.reply_within(self.patience).await
    }

    pub(super) async fn reply_within(&mut self, limit: Duration) -> Result<Reply, SessionError> {
        match parse(self.frame_within(limit).await?)? {
            reply @ Reply::Failed { .. } => Err(failed(reply)),
            reply => Ok(reply),
        }
    }
}

async fn write(target: &mut (impl AsyncWrite + Unpin), bytes: &[u8]) -> Result<(), SessionError> {
    target.write_all(bytes).await.map_err(SessionError::Local)?;
    target.flush().await.map_err(SessionError::Local)
}

fn parse(frame: Frame) -> Result<Reply, SessionError> {
    let Frame::Control(json) = frame else { return Err(SessionError::Unexpected) };
    Ok(serde_json::from_slice(&json).map_err(FrameError::Message)?)
}

/// The reply in a frame; one that says that the request failed is an error.
pub(super) fn expected(frame: Frame) -> Result<Reply, SessionError> {
    match parse(frame)? {
        reply @ Reply::Failed { .. } => Err(failed(reply)),
        reply => Ok(reply),
    }
}

fn failed(reply: Reply) -> SessionError {
    match reply {
        Reply::Failed { kind, message } => SessionError::Failed { kind, message: sanitise(&message) },
        _ => SessionError::Unexpected,
    }
}

/// One bounded line without control characters: a terminal escape in a message must not reach the terminal.
fn sanitise(text: &str) -> String {
    text.chars().take(MESSAGE_LIMIT).map(|letter| if letter.is_control() { ' ' } else { letter }).collect()
}

/// An object id of SHA-1 or SHA-256, so that it can stand in a git argument.
fn object_id(text: String) -> Result<String, SessionError> {
    let digits = text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    if digits && matches!(text.len(), 40 | 64) { Ok(text) } else { Err(SessionError::Unexpected) }
}

#[cfg(test)]
mod tests;
