//! Files that are not in git, in and out of the folders that the agent writes.
//!
//! It runs as the agent's user and can do nothing that the agent cannot; what it sends is believed nowhere.

use std::path::Path;

use tokio::sync::mpsc;

use super::frame::{CopyRequest, FailureKind, Frame, Reply, Request};
use super::session::{Connection, Disconnected};
use crate::beneath::tree::{self, Piece, Receiver, TreeError, Unfit};
use crate::beneath::{self, Links, Opened};

/// Pieces on their way.
const PIECES: usize = 4;

/// Sends what is at a path.
pub(super) async fn send(connection: &Connection, request: CopyRequest) -> Result<(), Disconnected> {
    let (pieces, mut taken) = mpsc::channel(PIECES);
    let reading = tokio::task::spawn_blocking(move || {
        let root = beneath::folder(Path::new(&request.folder))
            .map_err(|source| TreeError::Io { path: request.folder.clone(), source })?;
        let unfit = if request.lenient { Unfit::LeftOut } else { Unfit::Refused };
        tree::send(&root, Path::new(&request.path), &request.limits, unfit, &pieces)
    });
    while let Some(piece) = taken.recv().await {
        let frame = match piece {
            Piece::Entry(entry) => Frame::control(&Reply::Entry(entry)).map_err(|_| Disconnected)?,
            Piece::Data(bytes) => Frame::Data(bytes),
        };
        connection.send(frame).await?;
    }
    match reading.await {
        Ok(Ok(_)) => {
            connection.send(Frame::End).await?;
            connection.reply(&Reply::Copied).await
        }
        Ok(Err(error)) => fail(connection, &error).await,
        Err(error) => connection.fail(FailureKind::Other, error.to_string()).await,
    }
}

/// Takes what follows, and answers when it is in its place or cannot be.
pub(super) async fn receive(connection: &mut Connection, request: CopyRequest) -> Result<(), Disconnected> {
    let mut receiver = match open(&request) {
        Ok(receiver) => receiver,
        Err(error) => return fail(connection, &error).await,
    };
    loop {
        let piece = match connection.next().await? {
            Frame::Data(bytes) => Piece::Data(bytes),
            Frame::End => break,
            Frame::Control(json) => match serde_json::from_slice(&json) {
                Ok(Request::Entry(entry)) => Piece::Entry(entry),
                _ => return fail(connection, &TreeError::Malformed("another request")).await,
            },
            Frame::ErrorData(_) => continue,
        };
        if let Err(error) = receiver.take(piece) {
            drop(receiver);
            return fail(connection, &error).await;
        }
    }
    match receiver.finish(request.force) {
        Ok(_) => connection.reply(&Reply::Copied).await,
        Err(error) => fail(connection, &error).await,
    }
}

/// A path that is a folder takes the copy into it, under the name that it has on the other side.
fn open(request: &CopyRequest) -> Result<Receiver, TreeError> {
    let io = |source| TreeError::Io { path: request.path.clone(), source };
    let root = beneath::folder(Path::new(&request.folder)).map_err(io)?;
    let path = Path::new(&request.path);
    let found = beneath::open(&root, path, Links::Refused);
    let (folder, name) = match (found, path.parent(), path.file_name()) {
        (Ok(Opened::Folder(folder)), ..) => (Opened::Folder(folder), std::ffi::OsStr::new(&request.name)),
        (_, Some(parent), Some(name)) => (beneath::open(&root, parent, Links::Refused).map_err(io)?, name),
        _ => return Err(TreeError::Name(request.path.clone())),
    };
    let Opened::Folder(folder) = folder else { return Err(TreeError::Kind(request.path.clone())) };
    Receiver::new(folder, name, request.limits, |_| None)
}

async fn fail(connection: &Connection, error: &TreeError) -> Result<(), Disconnected> {
    let mut message = format!("cannot {error}");
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        message.push_str(&format!(": {cause}"));
        source = cause.source();
    }
    connection.fail(FailureKind::Other, message).await
}
