//! The launcher's end of handing large files of git-lfs over: from the developer's own store into that of the clone.

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite};

use super::stream_client::{SessionClient, SessionError, expected};
use crate::beneath::tree::{Entry, EntryKind};
use crate::init::frame::{Frame, LargeFilesRequest, Reply, Request};
use crate::workspace::large_files::LargeFile;

/// Bytes of a file sent at once.
const CHUNK: usize = 256 << 10;

impl<R: AsyncRead + Unpin, W: AsyncWrite + Unpin> SessionClient<R, W> {
    /// Sends the files, and says whether git-lfs put them into the working tree.
    pub async fn large_files(&mut self, clone: &str, files: &[LargeFile]) -> Result<bool, SessionError> {
        self.request(&Request::LargeFiles(LargeFilesRequest { directory: clone.to_owned() })).await?;
        for file in files {
            let kind = EntryKind::File { size: file.size, executable: false };
            let entry = Entry { path: file.oid.clone(), kind };
            self.offer(Frame::control(&Request::Entry(entry))?).await?;
            let mut source = tokio::fs::File::open(&file.file).await.map_err(SessionError::Local)?.take(file.size);
            loop {
                let mut chunk = bytes::BytesMut::with_capacity(CHUNK);
                if source.read_buf(&mut chunk).await.map_err(SessionError::Local)? == 0 {
                    break;
                }
                self.offer(Frame::Data(chunk.freeze())).await?;
            }
        }
        self.send(Frame::End).await?;
        match self.reply_within(super::stream_client::REPOSITORY).await? {
            Reply::LargeFiles { checked_out } => Ok(checked_out),
            _ => Err(SessionError::Unexpected),
        }
    }

    /// Sends a frame; a session that cannot go on answers meanwhile.
    async fn offer(&mut self, frame: Frame) -> Result<(), SessionError> {
        match self.send_or_answer(frame).await? {
            None => Ok(()),
            Some(early) => expected(early).and(Err(SessionError::Unexpected)),
        }
    }
}
