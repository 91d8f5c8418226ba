//! Large files of git-lfs that the developer's machine has already: into the clone's store, each under the digest of what it
//! holds. When the image has git-lfs, they take the place of their pointers in the working tree.

use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};
use tokio::io::AsyncWriteExt as _;

use super::frame::{Frame, LargeFilesRequest, Reply, Request};
use super::repository::{RepositoryError, fail, git};
use super::session::{Connection, Disconnected};
use crate::beneath::tree::EntryKind;

/// The store, as the documentation of git-lfs has it (docs/spec.md of git-lfs, "Local storage").
const STORE: &str = ".git/lfs/objects";

/// Takes what follows.
pub(super) async fn receive(connection: &mut Connection, request: LargeFilesRequest) -> Result<(), Disconnected> {
    match take(connection, Path::new(&request.directory)).await {
        Ok(checked_out) => connection.reply(&Reply::LargeFiles { checked_out }).await,
        Err(error) => fail(connection, error).await,
    }
}

/// A file on its way.
struct Arriving {
    oid: String,
    file: tokio::fs::File,
    place: PathBuf,
    digest: Sha256,
}

async fn take(connection: &mut Connection, directory: &Path) -> Result<bool, RepositoryError> {
    let store = directory.join(STORE);
    let mut arriving: Option<Arriving> = None;
    loop {
        match connection.next().await? {
            Frame::Data(bytes) => {
                if let Some(current) = &mut arriving {
                    current.digest.update(&bytes);
                    current.file.write_all(&bytes).await.map_err(RepositoryError::Write)?;
                }
            }
            Frame::Control(json) => {
                settle(arriving.take()).await?;
                match serde_json::from_slice(&json) {
                    Ok(Request::Entry(entry)) if matches!(entry.kind, EntryKind::File { .. }) => {
                        arriving = Some(begin(&store, entry.path).await?);
                    }
                    _ => return Err(RepositoryError::LargeFile("another request".to_owned())),
                }
            }
            Frame::End => break,
            Frame::ErrorData(_) => {}
        }
    }
    settle(arriving).await?;
    if git(directory, &["lfs", "version"]).await.is_err() {
        return Ok(false);
    }
    git(directory, &["lfs", "install", "--local", "--skip-repo"]).await?;
    git(directory, &["lfs", "checkout"]).await?;
    Ok(true)
}

async fn begin(store: &Path, oid: String) -> Result<Arriving, RepositoryError> {
    let digits = oid.len() == 64 && oid.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    if !digits {
        return Err(RepositoryError::LargeFile(oid.escape_debug().to_string()));
    }
    let folder = store.join(&oid[..2]).join(&oid[2..4]);
    std::fs::create_dir_all(&folder).map_err(RepositoryError::Write)?;
    let place = folder.join(&oid);
    let file = tokio::fs::File::create(&place).await.map_err(RepositoryError::Write)?;
    Ok(Arriving { oid, file, place, digest: Sha256::new() })
}

/// Ends a file, which has to hold what its name says.
async fn settle(arriving: Option<Arriving>) -> Result<(), RepositoryError> {
    let Some(Arriving { oid, mut file, place, digest }) = arriving else { return Ok(()) };
    file.flush().await.map_err(RepositoryError::Write)?;
    if hex::encode(digest.finalize()) == oid {
        return Ok(());
    }
    std::fs::remove_file(&place).map_err(RepositoryError::Write)?;
    Err(RepositoryError::LargeFile(oid))
}
