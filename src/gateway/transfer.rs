//! Moves bytes from one stream to another through a buffer that all connections of a thread share.
//!
//! A connection that waits holds no buffer, so thousands of idle ones cost little, and the shared one can be large. Only
//! what a slow receiver has not taken yet is kept for its connection, and all of that together is bounded.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, ReadBuf};

/// Bytes that are read at once.
const BUFFER: usize = 128 << 10;
/// Bytes that are read at once while slow receivers hold back [`HELD_LIMIT`].
const SMALL: usize = 8 << 10;
/// How many bytes may be held back in all before less is read at once.
const HELD_LIMIT: usize = 4 << 20;

thread_local! {
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

/// Bytes that their receiver has not taken yet.
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
