//! Where a command's output goes: to the launcher in frames, and a copy to the container's log.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rustix::fs::{Mode, OFlags};
use rustix::termios::Winsize;
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;
use tokio::process::{ChildStderr, ChildStdout};
use tokio::sync::{mpsc, watch};

use super::frame::Frame;

/// Bytes read at once.
const CHUNK: usize = 64 << 10;
/// Once the command's processes have ended, a stream that says nothing for this long is given up: a daemon holds it.
const QUIET: Duration = Duration::from_millis(300);

/// A best-effort copy of output on PID 1's standard output.
#[derive(Debug, Clone)]
pub(super) struct Log(Option<Arc<OwnedFd>>);

impl Log {
    /// Opens PID 1's standard output when `wanted`; a log that cannot be opened is none.
    pub(super) fn open(wanted: bool) -> Self {
        // Non-blocking: an engine that reads its log slowly must not slow the command down.
        let open = || {
            rustix::fs::open(
                "/proc/1/fd/1",
                OFlags::WRONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC,
                Mode::empty(),
            )
        };
        Self(if wanted { open().ok().map(Arc::new) } else { None })
    }

    fn copy(&self, bytes: &[u8]) {
        if let Some(file) = &self.0 {
            let _ = rustix::io::write(file, bytes);
        }
    }
}

/// Sends what `source` says as frames until its end, or until `ended` and quiet.
pub(super) async fn pump(mut source: Source, to: mpsc::Sender<Frame>, log: Log, mut ended: watch::Receiver<bool>) {
    let mut buffer = vec![0; CHUNK];
    loop {
        let read = tokio::select! {
            biased;
            read = source.read(&mut buffer) => read,
            () = quiet_after(&mut ended) => return,
        };
        // A pseudo-terminal whose last user has gone reads EIO: its way to say end of file.
        let Ok(count @ 1..) = read else { return };
        log.copy(&buffer[..count]);
        if to.send(source.frame(Bytes::copy_from_slice(&buffer[..count]))).await.is_err() {
            return;
        }
    }
}

async fn quiet_after(ended: &mut watch::Receiver<bool>) {
    let _ = ended.wait_for(|ended| *ended).await;
    tokio::time::sleep(QUIET).await;
}

/// The launcher's side of a pseudo-terminal, for a read and a write at the same time.
///
/// It goes through tokio's pipe ends, which take any descriptor that can be polled, and only by readiness and a try: their
/// plain read takes a short one for an empty pipe, but a terminal gives short reads while it holds more.
#[derive(Debug, Clone)]
pub(super) struct Terminal {
    reader: Arc<pipe::Receiver>,
    writer: Arc<pipe::Sender>,
}

impl Terminal {
    /// Takes over a descriptor that does not block.
    pub(super) fn new(file: OwnedFd) -> io::Result<Self> {
        let writer = pipe::Sender::from_owned_fd_unchecked(file.try_clone()?)?;
        Ok(Self { reader: Arc::new(pipe::Receiver::from_owned_fd_unchecked(file)?), writer: Arc::new(writer) })
    }

    /// Writes all of `bytes` as if they were typed.
    pub(super) async fn type_in(&self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            self.writer.writable().await?;
            match self.writer.try_write(bytes) {
                Ok(count) => bytes = bytes.get(count..).unwrap_or_default(),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Tells the command the terminal's new size.
    pub(super) fn resize(&self, size: Winsize) {
        let _ = rustix::termios::tcsetwinsize(&*self.reader, size);
    }

    async fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            self.reader.readable().await?;
            match self.reader.try_read(buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                read => return read,
            }
        }
    }
}

/// Where a command speaks.
#[derive(Debug)]
pub(super) enum Source {
    /// The terminal, with both streams in one.
    Terminal(Terminal),
    /// Its standard output.
    Output(ChildStdout),
    /// Its standard error.
    Errors(ChildStderr),
}

impl Source {
    async fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Terminal(terminal) => terminal.read(buffer).await,
            Self::Output(output) => output.read(buffer).await,
            Self::Errors(errors) => errors.read(buffer).await,
        }
    }

    fn frame(&self, bytes: Bytes) -> Frame {
        match self {
            Self::Terminal(_) | Self::Output(_) => Frame::Data(bytes),
            Self::Errors(_) => Frame::ErrorData(bytes),
        }
    }
}
