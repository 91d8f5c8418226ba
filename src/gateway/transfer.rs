//! Moves bytes from one stream to another through a buffer that all connections of a thread share, and those of a large
//! transfer between two sockets through a pipe, where they are not copied at all (splice(2)).
//!
//! A connection that waits holds neither buffer nor pipe, so thousands of idle ones cost little, and the shared buffer can be
//! large. Only what a slow receiver has not taken yet is kept for its connection, and all of that together is bounded.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use rustix::pipe::{PipeFlags, SpliceFlags, fcntl_setpipe_size, pipe_with, splice};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, Interest, ReadBuf};
use tokio::net::TcpStream;

/// Bytes that are read at once.
const BUFFER: usize = 128 << 10;
/// Bytes that are read at once while slow receivers hold back [`HELD_LIMIT`].
const SMALL: usize = 8 << 10;
/// How many bytes may be held back in all before less is read at once.
const HELD_LIMIT: usize = 4 << 20;

/// Bytes that a pipe takes.
const PIPE: usize = 512 << 10;
/// How many pipes there are at most, in use and waiting. Beyond them bytes are copied.
const PIPES: usize = 32;
/// From how many bytes at once on a transfer is a large one.
const LARGE: usize = 32 << 10;

thread_local! {
    static WAITING: RefCell<Vec<Pipe>> = const { RefCell::new(Vec::new()) };
    static MADE: Cell<usize> = const { Cell::new(0) };
    static SHARED: RefCell<Box<[u8]>> = RefCell::new(vec![0; BUFFER].into_boxed_slice());
    static HELD: Cell<usize> = const { Cell::new(0) };
}

/// Moves bytes until the sender has ended; gives how many they were. The receiver's side is not shut down.
///
/// # Errors
/// When reading or writing fails.
pub async fn transfer<R, W>(from: &mut R, to: &mut W) -> io::Result<u64>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let mut total = 0;
    loop {
        let (read, rest) = poll_fn(|context| pass(context, from, to)).await?;
        if read == 0 {
            return Ok(total);
        }
        total += read as u64;
        if let Some(rest) = rest {
            to.write_all(&rest.0).await?;
        }
        to.flush().await?;
    }
}

/// One end of a connection, as far as the kernel can move its bytes by itself.
pub trait End {
    /// The socket beneath, where its bytes are what passes and nothing is read ahead.
    fn socket(&self) -> Option<&TcpStream> {
        None
    }

    /// Whether it may get more.
    ///
    /// # Errors
    /// When it may not.
    fn may_take(&self) -> io::Result<()> {
        Ok(())
    }

    /// Notes bytes that the kernel read from it.
    fn gave(&self, _bytes: usize) {}

    /// Notes bytes that the kernel wrote to it.
    fn took(&self, _bytes: usize) {}
}

impl End for TcpStream {
    fn socket(&self) -> Option<&TcpStream> {
        Some(self)
    }
}

impl<S> End for tokio::io::WriteHalf<S> {}
impl<S> End for tokio::io::ReadHalf<S> {}
impl<S> End for hyper_util::rt::TokioIo<S> {}
#[cfg(test)]
impl End for tokio::io::DuplexStream {}

/// A pipe, its ends in the order of [`pipe_with`].
#[derive(Debug)]
struct Pipe(OwnedFd, OwnedFd);

impl Pipe {
    /// A pipe that nobody uses, unless all are in use.
    fn take() -> Option<Self> {
        if let Some(pipe) = WAITING.with_borrow_mut(Vec::pop) {
            return Some(pipe);
        }
        if MADE.get() >= PIPES {
            return None;
        }
        let (from, to) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK).ok()?;
        // A smaller one moves less at once.
        let _ = fcntl_setpipe_size(&to, PIPE);
        MADE.set(MADE.get() + 1);
        Some(Self(from, to))
    }

    /// Gives an empty one back.
    fn give_back(self) {
        WAITING.with_borrow_mut(|waiting| waiting.push(self));
    }
}

/// What a receiver has not taken yet.
#[derive(Debug)]
enum Held {
    Nothing,
    Bytes(Rest, usize),
    Piped(InPipe),
}

/// So many bytes in a pipe. One that is given up with bytes in it is closed.
#[derive(Debug)]
struct InPipe(Option<Pipe>, usize);

impl Drop for InPipe {
    fn drop(&mut self) {
        if self.0.take().is_some() {
            MADE.set(MADE.get().saturating_sub(1));
        }
    }
}

/// One way of a connection, from its first byte to its end.
#[derive(Debug)]
pub struct Way {
    held: Held,
    large: bool,
    stage: Stage,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Moving,
    Ending,
    Ended,
}

impl Default for Way {
    fn default() -> Self {
        Self::after(&[])
    }
}

impl Way {
    /// A way on which these bytes go first.
    pub fn after(bytes: &[u8]) -> Self {
        let held = if bytes.is_empty() { Held::Nothing } else { Held::Bytes(Rest::new(bytes), 0) };
        Self { held, large: false, stage: Stage::Moving }
    }

    /// Moves what can be moved. Ready when the sender has ended, and the receiver was told.
    pub fn poll<F, T>(&mut self, context: &mut Context<'_>, from: &mut F, to: &mut T) -> Poll<io::Result<()>>
    where
        F: AsyncRead + End + Unpin,
        T: AsyncWrite + End + Unpin,
    {
        loop {
            match self.stage {
                Stage::Ended => return Poll::Ready(Ok(())),
                Stage::Ending => {
                    ready!(Pin::new(&mut *to).poll_shutdown(context))?;
                    self.stage = Stage::Ended;
                }
                Stage::Moving => {
                    ready!(self.poll_out(context, to))?;
                    // A receiver that keeps bytes back (TLS) is to send them before more is waited for.
                    let read = match self.poll_in(context, from, to) {
                        Poll::Ready(read) => read?,
                        Poll::Pending => {
                            ready!(Pin::new(&mut *to).poll_flush(context))?;
                            return Poll::Pending;
                        }
                    };
                    self.large = read >= LARGE;
                    if read == 0 {
                        self.stage = Stage::Ending;
                    }
                }
            }
        }
    }

    fn poll_out<T: AsyncWrite + End + Unpin>(&mut self, context: &mut Context<'_>, to: &mut T) -> Poll<io::Result<()>> {
        match &mut self.held {
            Held::Nothing => return Poll::Ready(Ok(())),
            Held::Bytes(rest, written) => {
                while *written < rest.0.len() {
                    match ready!(Pin::new(&mut *to).poll_write(context, &rest.0[*written..]))? {
                        0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                        count => *written += count,
                    }
                }
            }
            Held::Piped(InPipe(pipe, left)) => {
                let (Some(Pipe(out, _)), Some(socket)) = (&pipe, to.socket()) else {
                    return Poll::Ready(Err(io::ErrorKind::InvalidInput.into()));
                };
                while *left > 0 {
                    ready!(socket.poll_write_ready(context))?;
                    to.may_take()?;
                    match socket.try_io(Interest::WRITABLE, || moved(out, socket, *left)) {
                        Ok(0) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                        Ok(count) => {
                            *left -= count;
                            to.took(count);
                        }
                        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                        Err(error) => return Poll::Ready(Err(error)),
                    }
                }
                if let Some(pipe) = pipe.take() {
                    pipe.give_back();
                }
            }
        }
        self.held = Held::Nothing;
        Poll::Ready(Ok(()))
    }

    /// Reads once, and writes what is taken at once.
    fn poll_in<F, T>(&mut self, context: &mut Context<'_>, from: &mut F, to: &mut T) -> Poll<io::Result<usize>>
    where
        F: AsyncRead + End + Unpin,
        T: AsyncWrite + End + Unpin,
    {
        if self.large
            && to.socket().is_some()
            && let Some(socket) = from.socket()
        {
            ready!(socket.poll_read_ready(context))?;
            if let Some(pipe) = Pipe::take() {
                // The pipe is empty: what would block is the socket.
                let outcome = socket.try_io(Interest::READABLE, || moved(socket, &pipe.1, PIPE));
                return match outcome {
                    Ok(count @ 1..) => {
                        from.gave(count);
                        self.held = Held::Piped(InPipe(Some(pipe), count));
                        Poll::Ready(Ok(count))
                    }
                    outcome => {
                        pipe.give_back();
                        match outcome {
                            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                                // Readiness was taken back; this asks to be woken.
                                self.large = false;
                                self.poll_in(context, from, to)
                            }
                            outcome => Poll::Ready(outcome),
                        }
                    }
                };
            }
        }
        let (read, rest) = ready!(pass(context, from, to))?;
        if let Some(rest) = rest {
            self.held = Held::Bytes(rest, 0);
        }
        Poll::Ready(Ok(read))
    }
}

fn moved(from: impl std::os::fd::AsFd, to: impl std::os::fd::AsFd, length: usize) -> io::Result<usize> {
    Ok(splice(from.as_fd(), None, to.as_fd(), None, length, SpliceFlags::MOVE | SpliceFlags::NONBLOCK)?)
}

/// Moves bytes both ways until both sides have ended.
///
/// # Errors
/// When reading or writing fails.
pub async fn exchange<C, U>(client: &mut C, upstream: &mut U, mut up: Way, mut down: Way) -> io::Result<()>
where
    C: AsyncRead + AsyncWrite + End + Unpin,
    U: AsyncRead + AsyncWrite + End + Unpin,
{
    poll_fn(|context| {
        let one = up.poll(context, client, upstream)?;
        let other = down.poll(context, upstream, client)?;
        if one.is_ready() && other.is_ready() { Poll::Ready(Ok(())) } else { Poll::Pending }
    })
    .await
}

/// Bytes that their receiver has not taken yet.
#[derive(Debug)]
struct Rest(Box<[u8]>);

impl Rest {
    fn new(bytes: &[u8]) -> Self {
        HELD.set(HELD.get() + bytes.len());
        Self(bytes.into())
    }
}

impl Drop for Rest {
    fn drop(&mut self) {
        HELD.set(HELD.get().saturating_sub(self.0.len()));
    }
}

/// Reads once and writes as much of it as is taken at once; the shared buffer is free again afterwards.
fn pass<R, W>(context: &mut Context<'_>, from: &mut R, to: &mut W) -> Poll<io::Result<(usize, Option<Rest>)>>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    SHARED.with_borrow_mut(|shared| {
        let size = if HELD.get() < HELD_LIMIT { BUFFER } else { SMALL };
        let mut buffer = ReadBuf::new(&mut shared[..size]);
        ready!(Pin::new(from).poll_read(context, &mut buffer))?;
        let bytes = buffer.filled();
        let mut written = 0;
        while written < bytes.len() {
            match Pin::new(&mut *to).poll_write(context, &bytes[written..])? {
                Poll::Ready(0) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(count) => written += count,
                Poll::Pending => return Poll::Ready(Ok((bytes.len(), Some(Rest::new(&bytes[written..]))))),
            }
        }
        Poll::Ready(Ok((bytes.len(), None)))
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tokio::io::{AsyncReadExt as _, duplex};

    use super::*;

    async fn through(bytes: Vec<u8>, before: usize, after: usize) -> (Vec<u8>, u64) {
        let (mut sender, mut from) = duplex(before);
        let (mut to, mut receiver) = duplex(after);
        let send = async {
            sender.write_all(&bytes).await.unwrap();
            drop(sender);
        };
        let moving = async {
            let moved = transfer(&mut from, &mut to).await.unwrap();
            drop(to);
            moved
        };
        let mut received = Vec::new();
        let (_, moved, _) = tokio::join!(send, moving, async { receiver.read_to_end(&mut received).await.unwrap() });
        (received, moved)
    }

    async fn sockets() -> (TcpStream, TcpStream) {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (one, other) = tokio::join!(TcpStream::connect(listener.local_addr().unwrap()), listener.accept());
        (one.unwrap(), other.unwrap().0)
    }

    /// A socket that counts, and gets so many bytes at most.
    struct Measured(TcpStream, Cell<usize>, Cell<usize>, usize);

    impl End for Measured {
        fn socket(&self) -> Option<&TcpStream> {
            Some(&self.0)
        }

        fn may_take(&self) -> io::Result<()> {
            if self.2.get() > self.3 { Err(io::ErrorKind::QuotaExceeded.into()) } else { Ok(()) }
        }

        fn gave(&self, bytes: usize) {
            self.1.set(self.1.get() + bytes);
        }

        fn took(&self, bytes: usize) {
            self.2.set(self.2.get() + bytes);
        }
    }

    impl AsyncRead for Measured {
        fn poll_read(
            mut self: Pin<&mut Self>,
            context: &mut Context<'_>,
            buffer: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            let before = buffer.filled().len();
            let outcome = Pin::new(&mut self.0).poll_read(context, buffer);
            self.gave(buffer.filled().len() - before);
            outcome
        }
    }

    impl AsyncWrite for Measured {
        fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
            self.may_take()?;
            let written = ready!(Pin::new(&mut self.0).poll_write(context, bytes))?;
            self.took(written);
            Poll::Ready(Ok(written))
        }

        fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
            Pin::new(&mut self.0).poll_flush(context)
        }

        fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
            Pin::new(&mut self.0).poll_shutdown(context)
        }
    }

    /// Sends so many bytes through two pairs of sockets to an end that sends them back, of which the second socket takes so
    /// many at most; gives what came back and how many were counted.
    async fn echoed(bytes: &[u8], most: usize) -> (Vec<u8>, io::Result<()>, [usize; 4]) {
        let (client, inner) = sockets().await;
        let (outer, mut server) = sockets().await;
        let measured = |stream, most| Measured(stream, Cell::new(0), Cell::new(0), most);
        let (mut inner, mut outer) = (measured(inner, usize::MAX), measured(outer, most));
        let echo = async {
            let (mut from, mut to) = server.split();
            let _ = tokio::io::copy(&mut from, &mut to).await;
            let _ = to.shutdown().await;
        };
        let moving = async {
            let outcome = exchange(&mut inner, &mut outer, Way::after(b"first"), Way::default()).await;
            let counts = [inner.1.get(), inner.2.get(), outer.1.get(), outer.2.get()];
            drop((inner, outer));
            (outcome, counts)
        };
        let (mut from, mut to) = client.into_split();
        let send = async {
            let _ = to.write_all(bytes).await;
            let _ = to.shutdown().await;
        };
        let mut received = Vec::new();
        let receive = async {
            let _ = from.read_to_end(&mut received).await;
        };
        let (_, (outcome, counts), _, _) = tokio::join!(echo, moving, send, receive);
        (received, outcome, counts)
    }

    #[tokio::test]
    async fn the_kernel_moves_every_byte_in_order_and_each_is_counted_once() {
        for length in [0, 1, 1000, LARGE, 300_000, 20 << 20] {
            let bytes: Vec<u8> = (0..length).map(|index| (index % 251) as u8).collect();
            let (received, outcome, counts) = echoed(&bytes, usize::MAX).await;
            outcome.unwrap();
            assert!(received.starts_with(b"first") && received[5..] == bytes, "{length}");
            assert_eq!(counts, [length, length + 5, length + 5, length + 5]);
            assert_eq!((HELD.get(), MADE.get()), (0, WAITING.with_borrow(Vec::len)), "a pipe was lost");
        }
        assert!(MADE.get() > 0, "nothing was large enough for the kernel");
    }

    #[tokio::test]
    async fn a_receiver_that_may_take_no_more_ends_a_large_transfer_too() {
        let (_, outcome, counts) = echoed(&vec![7; 20 << 20], 5 << 20).await;
        assert_eq!(outcome.unwrap_err().kind(), io::ErrorKind::QuotaExceeded);
        assert!((5 << 20..(5 << 20) + 2 * PIPE).contains(&counts[3]), "{counts:?}");
        assert_eq!(MADE.get(), WAITING.with_borrow(Vec::len), "a pipe with bytes in it was kept");
    }

    #[tokio::test]
    async fn slow_receivers_hold_few_pipes_and_the_rest_is_copied() {
        let mut ends = Vec::new();
        let mut moving = tokio::task::JoinSet::new();
        for _ in 0..PIPES + 8 {
            let ((mut client, inner), (outer, server)) = (sockets().await, sockets().await);
            let (mut inner, mut outer) = (
                Measured(inner, Cell::new(0), Cell::new(0), usize::MAX),
                Measured(outer, Cell::new(0), Cell::new(0), usize::MAX),
            );
            moving.spawn(async move { exchange(&mut inner, &mut outer, Way::default(), Way::default()).await });
            ends.push((tokio::spawn(async move { client.write_all(&vec![1; 12 << 20]).await }), server));
        }
        tokio::time::sleep(std::time::Duration::from_millis(500)).await;
        assert!(MADE.get() <= PIPES, "{}", MADE.get());
        moving.shutdown().await;
        assert_eq!((HELD.get(), MADE.get()), (0, WAITING.with_borrow(Vec::len)));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn moves_every_byte_in_order(length in 0_usize..600_000, before in 1_usize..300_000, after in 1_usize..300_000) {
            let bytes: Vec<u8> = (0..length).map(|index| (index % 251) as u8).collect();
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let (received, moved) = runtime.block_on(through(bytes.clone(), before.max(64), after.max(64)));
            prop_assert_eq!(moved, length as u64);
            prop_assert!(received == bytes);
            prop_assert_eq!(HELD.get(), 0);
        }
    }

    #[tokio::test]
    async fn holds_back_little_when_many_receivers_are_slow() {
        let mut moving = Vec::new();
        let mut ends = Vec::new();
        for _ in 0..200 {
            let (mut sender, mut from) = duplex(BUFFER);
            let (mut to, receiver) = duplex(1);
            sender.write_all(&[b'x'; BUFFER]).await.unwrap();
            moving.push(tokio::spawn(async move { transfer(&mut from, &mut to).await }));
            ends.push((sender, receiver));
            tokio::task::yield_now().await;
        }
        let held = HELD.get();
        assert!(held > HELD_LIMIT - BUFFER && held < HELD_LIMIT + BUFFER + 200 * SMALL, "{held} bytes are held back");
        for task in &moving {
            task.abort();
        }
        for task in moving {
            assert!(task.await.unwrap_err().is_cancelled());
        }
        assert_eq!(HELD.get(), 0);
    }
}
