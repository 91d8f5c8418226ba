//! The launcher's end of a copy: files that are not in git, over the session's stream.

use std::os::fd::OwnedFd;
use std::path::PathBuf;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;

use super::stream_client::{SessionClient, SessionError, expected};
use crate::beneath::tree::{self, Piece, Receiver, Totals, TreeError, Unfit};
use crate::init::frame::{CopyRequest, Frame, Reply, Request};

/// Pieces on their way.
const PIECES: usize = 4;

/// Why nothing was copied.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// The session failed.
    #[error(transparent)]
    Session(#[from] SessionError),
    /// This side could not read or write, or refused what came.
    #[error(transparent)]
    Tree(#[from] TreeError),
}

impl<R: AsyncRead + Unpin, W: AsyncWrite + Unpin> SessionClient<R, W> {
    /// Takes what is at a path of the sandbox into the receiver, which the caller brings to its place.
    pub async fn copy_out(&mut self, request: CopyRequest, receiver: &mut Receiver) -> Result<(), CopyError> {
        self.pieces_of(request, |piece| receiver.take(piece)).await
    }

    /// Hands each piece of what is at a path of the sandbox over.
    pub async fn pieces_of(
        &mut self,
        request: CopyRequest,
        mut take: impl FnMut(Piece) -> Result<(), TreeError>,
    ) -> Result<(), CopyError> {
        self.request(&Request::CopyOut(request)).await?;
        loop {
            match self.frame().await? {
                Frame::Data(bytes) => take(Piece::Data(bytes))?,
                frame @ Frame::Control(_) => match expected(frame)? {
                    Reply::Entry(entry) => take(Piece::Entry(entry))?,
                    _ => return Err(SessionError::Unexpected.into()),
                },
                Frame::End => break,
                Frame::ErrorData(_) => return Err(SessionError::Unexpected.into()),
            }
        }
        match self.reply().await? {
            Reply::Copied => Ok(()),
            _ => Err(SessionError::Unexpected.into()),
        }
    }

    /// Sends what is at `path` beneath `root` to a path of the sandbox.
    pub async fn copy_in(&mut self, request: CopyRequest, root: OwnedFd, path: PathBuf) -> Result<Totals, CopyError> {
        let limits = request.limits;
        self.request(&Request::CopyIn(request)).await?;
        let (pieces, mut taken) = mpsc::channel(PIECES);
        let reading = tokio::task::spawn_blocking(move || tree::send(&root, &path, &limits, Unfit::Refused, &pieces));
        while let Some(piece) = taken.recv().await {
            let frame = match piece {
                Piece::Entry(entry) => Frame::control(&Request::Entry(entry)).map_err(SessionError::from)?,
                Piece::Data(bytes) => Frame::Data(bytes),
            };
            if let Some(early) = self.send_or_answer(frame).await? {
                // A session that cannot write answers while we still send; it has no other answer before the end.
                expected(early)?;
                return Err(SessionError::Unexpected.into());
            }
        }
        let totals = reading.await.map_err(|_| TreeError::Gone)??;
        self.send(Frame::End).await?;
        match self.reply().await? {
            Reply::Copied => Ok(totals),
            _ => Err(SessionError::Unexpected.into()),
        }
    }
}
