//! Files of a sandbox as a tar archive that is safe to unpack: regular files and folders with plain names, of nobody, without
//! links, and without anything that goes through a git folder, whatever the sandbox sends.

use std::io::{self, Read, Write};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

use serde::Serialize;
use tokio::io::{AsyncRead, AsyncWrite};

use super::copy::CopyError;
use super::stream_client::SessionClient;
use crate::beneath::tree::{self, Entry, EntryKind, Piece, Totals, TreeError, TreeLimits};
use crate::init::frame::CopyRequest;
use crate::workspace::hazard;

/// Pieces on their way to the archive.
const PIECES: usize = 4;

/// What went into an archive.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Archived {
    /// Files, folders and bytes.
    #[serde(flatten)]
    pub totals: Totals,
    /// Files and folders that came and were left out for their names.
    pub left_out: u64,
}

/// Writes an archive, piece by piece.
struct Archiver {
    pieces: Option<SyncSender<Piece>>,
    writing: Option<JoinHandle<io::Result<()>>>,
    /// Where the files are in the archive.
    top: &'static str,
    limits: TreeLimits,
    archived: Archived,
    entries: u64,
    bytes: u64,
    /// Bytes that the current file still lacks.
    left: u64,
    skipping: bool,
}

impl<R: AsyncRead + Unpin, W: AsyncWrite + Unpin> SessionClient<R, W> {
    /// Writes what is in a folder of the sandbox into an archive, below `top`; gives the writer back.
    ///
    /// # Errors
    /// When the session or the writer fails, or more comes than may.
    pub async fn archive<T: Write + Send + 'static>(
        &mut self,
        folder: &str,
        top: &'static str,
        limits: TreeLimits,
        builder: tar::Builder<T>,
    ) -> Result<(Archived, tar::Builder<T>), CopyError> {
        let (pieces, taken) = sync_channel(PIECES);
        let (back, builder_back) = sync_channel(1);
        let writing = std::thread::spawn(move || {
            let mut builder = builder;
            let written = write(&mut builder, top, &taken);
            // Whoever no longer waits for it has failed already.
            let _ = back.send(builder);
            written
        });
        let mut archiver = Archiver {
            pieces: Some(pieces),
            writing: Some(writing),
            top,
            limits,
            archived: Archived::default(),
            entries: 0,
            bytes: 0,
            left: 0,
            skipping: false,
        };
        let request = CopyRequest {
            folder: folder.to_owned(),
            path: String::new(),
            name: String::new(),
            force: false,
            lenient: true,
            limits,
        };
        self.pieces_of(request, |piece| archiver.take(piece)).await?;
        let archived = archiver.finish()?;
        let builder = builder_back.recv().map_err(|_| TreeError::Gone)?;
        Ok((archived, builder))
    }
}

impl Archiver {
    fn take(&mut self, piece: Piece) -> Result<(), TreeError> {
        match &piece {
            Piece::Data(bytes) => {
                let count = bytes.len() as u64;
                self.left = self.left.checked_sub(count).ok_or(TreeError::Malformed("more bytes than announced"))?;
                if self.skipping {
                    return Ok(());
                }
            }
            Piece::Entry(_) if self.left > 0 => {
                return Err(TreeError::Malformed("a file that is shorter than announced"));
            }
            Piece::Entry(entry) => {
                self.count(entry)?;
                // The top is there without being sent.
                self.skipping = entry.path.is_empty() || !fit(&entry.path);
                if self.skipping {
                    self.archived.left_out += u64::from(!entry.path.is_empty());
                    return Ok(());
                }
                match entry.kind {
                    EntryKind::Folder => self.archived.totals.folders += 1,
                    EntryKind::File { size, .. } => {
                        self.archived.totals.files += 1;
                        self.archived.totals.bytes += size;
                    }
                }
            }
        }
        let sent = self.pieces.as_ref().map(|pieces| pieces.send(piece));
        match sent {
            Some(Ok(())) => Ok(()),
            // The writer says why it has ended.
            _ => self.end().and(Err(TreeError::Gone)),
        }
    }

    fn count(&mut self, entry: &Entry) -> Result<(), TreeError> {
        self.entries += 1;
        if let EntryKind::File { size, .. } = entry.kind {
            self.bytes = self.bytes.saturating_add(size);
            self.left = size;
        }
        if self.entries > self.limits.entries {
            return Err(TreeError::Limit(format!("{} files and folders", self.limits.entries)));
        }
        if self.bytes > self.limits.bytes {
            return Err(TreeError::Limit(format!("{} bytes", self.limits.bytes)));
        }
        Ok(())
    }

    fn finish(mut self) -> Result<Archived, TreeError> {
        if self.left > 0 {
            return Err(TreeError::Malformed("a file that is shorter than announced"));
        }
        self.end()?;
        Ok(self.archived)
    }

    fn end(&mut self) -> Result<(), TreeError> {
        drop(self.pieces.take());
        let ended = self.writing.take().map(JoinHandle::join);
        let path = self.top.to_owned();
        match ended {
            Some(Ok(written)) => written.map_err(|source| TreeError::Io { path, source }),
            _ => Err(TreeError::Gone),
        }
    }
}

/// Whether a path may be in the archive.
fn fit(path: &str) -> bool {
    tree::checked(path).is_ok() && !hazard::through_git(path)
}

/// Bytes of one file, as they come.
struct Content<'a> {
    pieces: &'a Receiver<Piece>,
    current: bytes::Bytes,
}

impl Read for Content<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.current.is_empty() {
            match self.pieces.recv() {
                Ok(Piece::Data(bytes)) => self.current = bytes,
                _ => return Err(io::ErrorKind::UnexpectedEof.into()),
            }
        }
        let count = buffer.len().min(self.current.len());
        buffer[..count].copy_from_slice(&self.current.split_to(count));
        Ok(count)
    }
}

fn write<T: Write>(builder: &mut tar::Builder<T>, top: &str, pieces: &Receiver<Piece>) -> io::Result<()> {
    while let Ok(piece) = pieces.recv() {
        let Piece::Entry(entry) = piece else { return Err(io::ErrorKind::InvalidData.into()) };
        let mut header = tar::Header::new_gnu();
        header.set_mtime(0);
        header.set_uid(0);
        header.set_gid(0);
        let path = format!("{top}/{}", entry.path);
        match entry.kind {
            EntryKind::Folder => {
                header.set_entry_type(tar::EntryType::Directory);
                header.set_mode(0o755);
                header.set_size(0);
                builder.append_data(&mut header, format!("{path}/"), io::empty())?;
            }
            EntryKind::File { size, executable } => {
                header.set_entry_type(tar::EntryType::Regular);
                header.set_mode(if executable { 0o755 } else { 0o644 });
                header.set_size(size);
                let content = Content { pieces, current: bytes::Bytes::new() };
                builder.append_data(&mut header, path, content.take(size))?;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_paths_go_into_an_archive() {
        for path in ["a", "src/main.rs", "données/a b", "-x", ".gitignore"] {
            assert!(fit(path), "{path}");
        }
        for path in
            ["/etc/passwd", "../x", "a/../x", "a//b", ".git/config", "a/.GIT/hooks/x", "a\nb", "a\u{202e}b", "git~1/x"]
        {
            assert!(!fit(path), "{path}");
        }
    }
}
