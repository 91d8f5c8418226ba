//! A session: started by an `exec` without a terminal, it speaks frames and serves requests until its input ends.
//!
//! Nothing that a session runs outlives its launcher: the end of the input ends the command.

use std::io::Write;
use std::process::ExitCode;

use futures_util::{SinkExt, StreamExt};
use tokio::io::{Stdin, Stdout};
use tokio::sync::mpsc;
use tokio_util::codec::{FramedRead, FramedWrite};

use super::frame::{FailureKind, Frame, FrameCodec, FrameError, Reply, Request};
use super::{certificates, checks, command, copy, large_files, repository, socket, standing, usage};

/// Frames on their way to the launcher; a command that says more waits.
const OUTGOING: usize = 8;

/// The launcher is gone or does not speak frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the launcher is gone")]
pub(super) struct Disconnected;

/// The two directions of the stream.
pub(super) struct Connection {
    incoming: FramedRead<Stdin, FrameCodec>,
    pub(super) outgoing: mpsc::Sender<Frame>,
}

impl Connection {
    /// The next frame; safe to drop while it waits.
    pub(super) async fn next(&mut self) -> Result<Frame, Disconnected> {
        match self.incoming.next().await {
            Some(Ok(frame)) => Ok(frame),
            Some(Err(error)) => {
                let _ = writeln!(std::io::stderr(), "the session ends: {error}");
                Err(Disconnected)
            }
            None => Err(Disconnected),
        }
    }

    /// Sends an answer.
    pub(super) async fn reply(&self, reply: &Reply) -> Result<(), Disconnected> {
        let frame = Frame::control(reply).map_err(|_| Disconnected)?;
        self.send(frame).await
    }

    /// Sends a frame, waiting while the launcher reads slower than we speak.
    pub(super) async fn send(&self, frame: Frame) -> Result<(), Disconnected> {
        self.outgoing.send(frame).await.map_err(|_| Disconnected)
    }

    /// Answers that the request failed.
    pub(super) async fn fail(&self, kind: FailureKind, message: String) -> Result<(), Disconnected> {
        self.reply(&Reply::Failed { kind, message }).await
    }
}

/// Serves requests on standard input and output until the input ends.
pub fn main() -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "failed to start the session: {error}");
            return ExitCode::FAILURE;
        }
    };
    // A session that is opened after the gateway was started again brings its authority. A command reports the failure.
    let _ = certificates::merge_as_configured();
    runtime.block_on(serve());
    // A thread may still wait for standard input; nothing is lost by leaving it.
    runtime.shutdown_background();
    ExitCode::SUCCESS
}

async fn serve() {
    let (outgoing, frames) = mpsc::channel(OUTGOING);
    let writer = tokio::spawn(write(FramedWrite::new(tokio::io::stdout(), FrameCodec), frames));
    let mut connection = Connection { incoming: FramedRead::new(tokio::io::stdin(), FrameCodec), outgoing };
    while answer_next(&mut connection).await.is_ok() {}
    drop(connection);
    let _ = tokio::time::timeout(super::GRACE, writer).await;
}

/// Writes frames, many at once while there are many.
async fn write(mut sink: FramedWrite<Stdout, FrameCodec>, mut frames: mpsc::Receiver<Frame>) -> Result<(), FrameError> {
    while let Some(frame) = frames.recv().await {
        sink.feed(frame).await?;
        while let Ok(more) = frames.try_recv() {
            sink.feed(more).await?;
        }
        sink.flush().await?;
    }
    Ok(())
}

async fn answer_next(connection: &mut Connection) -> Result<(), Disconnected> {
    // Anything but a request is the rest of a stream whose request has already ended.
    let Frame::Control(json) = connection.next().await? else { return Ok(()) };
    match serde_json::from_slice(&json) {
        Ok(Request::Probe(request)) => {
            let findings = checks::probe(request).await;
            connection.reply(&Reply::Probed(findings)).await
        }
        Ok(Request::Clone(request)) => repository::clone(connection, request).await,
        Ok(Request::Bundle(request)) => repository::bundle(connection, request).await,
        Ok(Request::LargeFiles(request)) => large_files::receive(connection, request).await,
        Ok(Request::Tips(directory)) => standing::tips(connection, &directory).await,
        Ok(Request::Standing(request)) => standing::look(connection, request).await,
        Ok(Request::Usage(folders)) => match tokio::task::spawn_blocking(move || usage::measure(&folders)).await {
            Ok(Ok(usage)) => connection.reply(&Reply::Used(usage)).await,
            Ok(Err(error)) => connection.fail(FailureKind::Other, error.to_string()).await,
            Err(error) => connection.fail(FailureKind::Other, error.to_string()).await,
        },
        Ok(Request::Run(request)) => {
            if let Err(error) = certificates::merge_as_configured() {
                let message = format!("the session's certificate authority cannot be merged: {error}");
                return connection.fail(FailureKind::Other, message).await;
            }
            command::run(connection, request).await
        }
        Ok(Request::Connect { port }) => socket::connect(connection, port).await,
        Ok(Request::CopyOut(request)) => copy::send(connection, request).await,
        Ok(Request::CopyIn(request)) => copy::receive(connection, request).await,
        // The rest of a copy that failed is nothing to answer.
        Ok(Request::Resize(_) | Request::Signal(_) | Request::Entry(_)) => Ok(()),
        Err(error) => connection.fail(FailureKind::Other, format!("the request is not known: {error}")).await,
    }
}
