//! Two wrappers of byte streams: one that counts, one that puts back what was read ahead.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use crate::gateway::budget::Slot;
use crate::gateway::transfer::End;

/// Bytes that passed a [`Counted`] stream.
#[derive(Debug, Clone, Default)]
pub struct Count {
    read: Arc<AtomicU64>,
    written: Arc<AtomicU64>,
}

impl Count {
    /// Bytes read from the stream so far.
    pub fn read(&self) -> u64 {
        self.read.load(Ordering::Relaxed)
    }

    /// Bytes written to the stream so far.
    pub fn written(&self) -> u64 {
        self.written.load(Ordering::Relaxed)
    }
}

/// A stream whose bytes are counted.
#[derive(Debug)]
pub struct Counted<S> {
    inner: S,
    count: Count,
    slot: Option<Arc<Slot>>,
}

impl<S> Counted<S> {
    /// Counts what passes the stream from now on. The counter outlives the stream.
    pub fn new(inner: S) -> (Self, Count) {
        let count = Count::default();
        (Self { inner, count: count.clone(), slot: None }, count)
    }

    /// The same, and what is written counts for a budget: when that is used up, writing fails.
    pub fn within(inner: S, slot: Arc<Slot>) -> (Self, Count) {
        let (counted, count) = Self::new(inner);
        (Self { slot: Some(slot), ..counted }, count)
    }

    fn has_room(&self) -> io::Result<()> {
        match &self.slot {
            Some(slot) if !slot.has_room() => Err(io::ErrorKind::QuotaExceeded.into()),
            _ => Ok(()),
        }
    }

    fn written(&self, bytes: usize) {
        self.count.written.fetch_add(bytes as u64, Ordering::Relaxed);
        if let Some(slot) = &self.slot {
            slot.sent(bytes as u64);
        }
    }
}

impl<S: End> End for Counted<S> {
    fn socket(&self) -> Option<&TcpStream> {
        self.inner.socket()
    }

    fn may_take(&self) -> io::Result<()> {
        self.has_room()
    }

    fn gave(&self, bytes: usize) {
        self.count.read.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    fn took(&self, bytes: usize) {
        self.written(bytes);
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Counted<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let result = Pin::new(&mut self.inner).poll_read(cx, buffer);
        let read = buffer.filled().len().saturating_sub(before);
        self.count.read.fetch_add(read as u64, Ordering::Relaxed);
        result
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Counted<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.has_room()?;
        let result = Pin::new(&mut self.inner).poll_write(cx, bytes);
        if let Poll::Ready(Ok(written)) = result {
            self.written(written);
        }
        result
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.has_room()?;
        let result = Pin::new(&mut self.inner).poll_write_vectored(cx, bytes);
        if let Poll::Ready(Ok(written)) = result {
            self.written(written);
        }
        result
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

/// A stream that first gives bytes that were read ahead of it.
#[derive(Debug)]
pub struct Rewound<S> {
    ahead: Vec<u8>,
    given: usize,
    inner: S,
}

impl<S> Rewound<S> {
    /// Puts `ahead` back before the stream.
    pub fn new(ahead: Vec<u8>, inner: S) -> Self {
        Self { ahead, given: 0, inner }
    }
}

impl<S: End> End for Rewound<S> {
    fn socket(&self) -> Option<&TcpStream> {
        // Bytes that were read ahead are in no socket.
        self.inner.socket().filter(|_| self.ahead.is_empty())
    }

    fn may_take(&self) -> io::Result<()> {
        self.inner.may_take()
    }

    fn gave(&self, bytes: usize) {
        self.inner.gave(bytes);
    }

    fn took(&self, bytes: usize) {
        self.inner.took(bytes);
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Rewound<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.given < this.ahead.len() {
            let rest = &this.ahead[this.given..];
            let taken = rest.len().min(buffer.remaining());
            buffer.put_slice(&rest[..taken]);
            this.given += taken;
            if this.given == this.ahead.len() {
                this.ahead = Vec::new();
                this.given = 0;
            }
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut this.inner).poll_read(cx, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Rewound<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write_vectored(cx, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}
