//! A file or a folder as a bounded stream of pieces, and back: regular files and folders only, never over what is there.
//!
//! The receiver believes nothing: names are checked, everything is made in a fresh folder beneath a descriptor, and one
//! rename at the end brings it to its place.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::{Component, Path, PathBuf};

use bytes::Bytes;
use rustix::fs::{AtFlags, FileType, Mode, OFlags, RenameFlags, ResolveFlags};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use super::{Links, Opened, listed, open};

/// Bytes of a file in one piece.
const CHUNK: usize = 256 << 10;
/// The longest name in bytes, as on any file system of Linux (NAME_MAX).
const NAME: usize = 255;

/// How much may go through.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TreeLimits {
    /// Bytes of all files together.
    pub bytes: u64,
    /// Files and folders.
    pub entries: u64,
    /// Folders within folders.
    pub depth: usize,
}

/// One file or folder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// Its path from the top, with `/`; empty for the top itself, which comes first.
    pub path: String,
    /// What it is.
    pub kind: EntryKind,
}

/// What an entry is. Anything else has no name here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum EntryKind {
    /// A folder; what is in it follows.
    Folder,
    /// A file, of which so many bytes follow.
    File {
        /// Its size.
        size: u64,
        /// Whether it may be executed. No other permission goes along.
        executable: bool,
    },
}

/// A piece of the stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    /// The next file or folder.
    Entry(Entry),
    /// Bytes of the file that was named last.
    Data(Bytes),
}

/// What went through.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Totals {
    /// Files.
    pub files: u64,
    /// Folders.
    pub folders: u64,
    /// Bytes of files.
    pub bytes: u64,
}

/// Why a tree did not go through.
#[derive(Debug, thiserror::Error)]
pub enum TreeError {
    /// The system refused.
    #[error("use {path}")]
    Io {
        /// Where.
        path: String,
        /// What it said.
        #[source]
        source: io::Error,
    },
    /// It is a link, a device, a pipe or a socket.
    #[error("copy {0}, which is neither a file nor a folder")]
    Kind(String),
    /// A name that cannot stand in a path of another machine, or that would be shown as another one.
    #[error("take the name {0}")]
    Name(String),
    /// More than is allowed.
    #[error("copy more than {0}")]
    Limit(String),
    /// The file became shorter while it was read.
    #[error("read {0} to its end: it changed meanwhile")]
    Changed(String),
    /// The stream is not one of a tree.
    #[error("understand what was sent: {0}")]
    Malformed(&'static str),
    /// Something is there already.
    #[error("write over {0}")]
    Exists(String),
    /// A folder is there, or would take the place of a file.
    #[error("put a folder in the place of something else at {0}")]
    Folder(String),
    /// Nobody takes the pieces.
    #[error("go on: the other side is gone")]
    Gone,
}

fn failed(path: &Path) -> impl Fn(rustix::io::Errno) -> TreeError {
    let path = shown(path);
    move |error| TreeError::Io { path: path.clone(), source: error.into() }
}

fn shown(path: &Path) -> String {
    if path.as_os_str().is_empty() { "it".to_owned() } else { format!("`{}`", path.to_string_lossy().escape_debug()) }
}

/// `Path::join` with nothing would add a slash, which makes a file's path one of a folder.
fn joined(path: &Path, below: &Path) -> PathBuf {
    if below.as_os_str().is_empty() { path.to_path_buf() } else { path.join(below) }
}

/// What both sides count.
#[derive(Debug, Default)]
struct Count(Totals);

impl Count {
    fn entry(&mut self, entry: &Entry, limits: &TreeLimits) -> Result<(), TreeError> {
        match entry.kind {
            EntryKind::Folder => self.0.folders += 1,
            EntryKind::File { size, .. } => {
                self.0.files += 1;
                self.0.bytes = self.0.bytes.saturating_add(size);
            }
        }
        if self.0.bytes > limits.bytes {
            return Err(TreeError::Limit(format!("{} bytes", limits.bytes)));
        }
        if self.0.files + self.0.folders > limits.entries {
            return Err(TreeError::Limit(format!("{} files and folders", limits.entries)));
        }
        if Path::new(&entry.path).components().count() > limits.depth {
            return Err(TreeError::Limit(format!("{} folders within folders", limits.depth)));
        }
        Ok(())
    }
}

/// What becomes of something that cannot be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unfit {
    /// It is an error: whoever asks for a folder wants to know that a part of it cannot come.
    Refused,
    /// It is left out, and so are folders called `.git`: for a copy of what there is.
    LeftOut,
}

/// Reads what is at `path` beneath `root`, and sends it; blocks. A link on the way or within is never followed.
///
/// # Errors
/// When it cannot be read, holds what cannot be sent, or is above a limit.
pub fn send(
    root: &OwnedFd,
    path: &Path,
    limits: &TreeLimits,
    unfit: Unfit,
    pieces: &mpsc::Sender<Piece>,
) -> Result<Totals, TreeError> {
    let leaves_out = unfit == Unfit::LeftOut;
    let give = |piece| pieces.blocking_send(piece).map_err(|_| TreeError::Gone);
    let mut count = Count::default();
    let mut open_paths = vec![PathBuf::new()];
    let mut buffer = vec![0; CHUNK];
    while let Some(below) = open_paths.pop() {
        let full = joined(path, &below);
        let name = match below.to_str() {
            Some(name) => name.to_owned(),
            None if leaves_out => continue,
            None => return Err(TreeError::Name(shown(&below))),
        };
        let opened = match open(root, &full, Links::Refused) {
            Ok(opened) => opened,
            Err(_) if leaves_out && !name.is_empty() => continue,
            Err(source) => return Err(TreeError::Io { path: shown(&full), source }),
        };
        match opened {
            Opened::Other if leaves_out => {}
            Opened::Folder(_) if leaves_out && below.file_name().is_some_and(|name| name == ".git") => {}
            Opened::Other => return Err(TreeError::Kind(shown(&full))),
            Opened::Folder(folder) => {
                let entry = Entry { path: name, kind: EntryKind::Folder };
                count.entry(&entry, limits)?;
                give(Piece::Entry(entry))?;
                let room = usize::try_from(limits.entries).unwrap_or(usize::MAX).saturating_add(1);
                let names = listed(&folder, room).map_err(|source| TreeError::Io { path: shown(&full), source })?;
                if open_paths.len().saturating_add(names.len()) >= room {
                    return Err(TreeError::Limit(format!("{} files and folders", limits.entries)));
                }
                open_paths.extend(names.iter().rev().map(|name| below.join(name)));
            }
            Opened::File(mut file, size) => {
                let mode = rustix::fs::fstat(&file).map_err(failed(&full))?.st_mode;
                let kind = EntryKind::File { size, executable: mode & 0o111 != 0 };
                let entry = Entry { path: name, kind };
                count.entry(&entry, limits)?;
                give(Piece::Entry(entry))?;
                let mut left = size;
                while left > 0 {
                    let most = usize::try_from(left).unwrap_or(CHUNK).min(CHUNK);
                    let read = file.read(&mut buffer[..most]);
                    let read = read.map_err(|source| TreeError::Io { path: shown(&full), source })?;
                    if read == 0 {
                        return Err(TreeError::Changed(shown(&full)));
                    }
                    give(Piece::Data(Bytes::copy_from_slice(&buffer[..read])))?;
                    left -= read as u64;
                }
            }
        }
    }
    Ok(count.0)
}

/// The path of an entry, in parts that are names and nothing else.
///
/// # Errors
/// When it has others, or could be shown as another path than it is.
pub fn checked(path: &str) -> Result<PathBuf, TreeError> {
    let wrong = || TreeError::Name(format!("`{}`", path.chars().take(200).collect::<String>().escape_debug()));
    if path.is_empty() {
        return Ok(PathBuf::new());
    }
    let plain = path.split('/').all(|name| !matches!(name, "" | "." | "..") && name.len() <= NAME);
    let honest =
        !path.contains('\0') && crate::commands::printer::sanitise(path) == path && !path.contains(['\n', '\t']);
    let built: PathBuf = path.split('/').collect();
    let normal = built.components().all(|part| matches!(part, Component::Normal(_)));
    if plain && honest && normal && path.len() <= 4096 { Ok(built) } else { Err(wrong()) }
}

/// Takes pieces into a fresh folder beside the place where they will be.
#[derive(Debug)]
pub struct Receiver {
    parent: OwnedFd,
    name: OsString,
    limits: TreeLimits,
    /// What a path must not be, besides what cannot be a path.
    refused: fn(&str) -> Option<&'static str>,
    fresh: OsString,
    folder: OwnedFd,
    top: Option<EntryKind>,
    file: Option<(File, u64)>,
    count: Count,
    /// Where repositories are refused: what each folder has of one.
    repositories: Option<BTreeMap<PathBuf, u8>>,
}

/// What git takes a folder for a repository by, whatever it is called (gitrepository-layout(5)).
const REPOSITORY: [&str; 3] = ["head", "objects", "refs"];

impl Receiver {
    /// For `name` in the folder `parent`. `refused` says of a path, the name included, why it is not taken.
    ///
    /// # Errors
    /// When nothing can be written there.
    pub fn new(
        parent: OwnedFd,
        name: &OsStr,
        limits: TreeLimits,
        refused: fn(&str) -> Option<&'static str>,
    ) -> Result<Self, TreeError> {
        let text = name.to_str().filter(|name| !name.contains('/') && !name.is_empty());
        let text = text.ok_or_else(|| TreeError::Name(shown(Path::new(name))))?;
        checked(text)?;
        if let Some(reason) = refused(text) {
            return Err(TreeError::Name(format!("{}: it {reason}", shown(Path::new(name)))));
        }
        let mut random = [0; 8];
        getrandom::fill(&mut random)
            .map_err(|error| TreeError::Io { path: "random bytes".into(), source: io::Error::other(error) })?;
        let fresh = OsString::from(format!(".sandbox-copy-{}", hex::encode(random)));
        rustix::fs::mkdirat(&parent, &fresh, Mode::RWXU).map_err(failed(Path::new(name)))?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let folder = rustix::fs::openat(&parent, &fresh, flags, Mode::empty()).map_err(failed(Path::new(name)))?;
        let count = Count::default();
        let name = name.to_owned();
        let (top, file, repositories) = (None, None, None);
        Ok(Self { parent, name, limits, refused, fresh, folder, top, file, count, repositories })
    }

    /// The same, which takes no folder that git would take for a repository: its settings run programs.
    #[must_use]
    pub fn without_repositories(mut self) -> Self {
        self.repositories = Some(BTreeMap::new());
        self
    }

    /// Takes the next piece.
    ///
    /// # Errors
    /// When it is not one that may come now, or cannot be written. Nothing can follow then.
    pub fn take(&mut self, piece: Piece) -> Result<(), TreeError> {
        match piece {
            Piece::Data(bytes) => {
                let Some((file, left)) = self.file.as_mut() else {
                    return Err(TreeError::Malformed("bytes of no file"));
                };
                *left =
                    left.checked_sub(bytes.len() as u64).ok_or(TreeError::Malformed("more bytes than announced"))?;
                file.write_all(&bytes)
                    .map_err(|source| TreeError::Io { path: shown(Path::new(&self.name)), source })?;
                if *left == 0 {
                    self.file = None;
                }
                Ok(())
            }
            Piece::Entry(_) if self.file.is_some() => {
                Err(TreeError::Malformed("a file that is shorter than announced"))
            }
            Piece::Entry(entry) => self.entry(&entry),
        }
    }

    fn entry(&mut self, entry: &Entry) -> Result<(), TreeError> {
        self.count.entry(entry, &self.limits)?;
        let below = checked(&entry.path)?;
        let within = joined(Path::new(&self.name), &below);
        if let Some(reason) = within.to_str().and_then(self.refused) {
            return Err(TreeError::Name(format!("{}: it {reason}", shown(&within))));
        }
        let name = below.file_name().map(|name| name.to_string_lossy().to_lowercase()).unwrap_or_default();
        let part = REPOSITORY.iter().position(|part| *part == name);
        if let (Some(known), Some(part), Some(folder)) = (self.repositories.as_mut(), part, below.parent()) {
            let parts = known.entry(folder.to_path_buf()).or_default();
            *parts |= 1 << part;
            if *parts == 0b111 {
                return Err(TreeError::Name(format!("{}: its folder is a git repository", shown(&within))));
            }
        }
        match (self.top, entry.path.is_empty()) {
            (None, true) => self.top = Some(entry.kind),
            (Some(EntryKind::Folder), false) => {}
            _ => return Err(TreeError::Malformed("a path that is not below the top")),
        }
        // The top is made as `top` in the fresh folder, whatever it will be called.
        let place = if entry.path.is_empty() { PathBuf::from("top") } else { Path::new("top").join(&below) };
        let (Some(folder), Some(name)) = (place.parent(), place.file_name()) else {
            return Err(TreeError::Malformed("a path without a name"));
        };
        let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
        let rules = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let folder = rustix::fs::openat2(&self.folder, folder, flags, Mode::empty(), rules).map_err(failed(&within))?;
        match entry.kind {
            EntryKind::Folder => {
                let mode = Mode::RWXU | Mode::RGRP | Mode::XGRP | Mode::ROTH | Mode::XOTH;
                rustix::fs::mkdirat(&folder, name, mode).map_err(failed(&within))
            }
            EntryKind::File { size, executable } => {
                // The umask takes away what the person who runs this does not give.
                let mode = Mode::from_raw_mode(if executable { 0o755 } else { 0o644 });
                let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let file = rustix::fs::openat(&folder, name, flags, mode).map_err(failed(&within))?;
                self.file = (size > 0).then(|| (File::from(file), size));
                Ok(())
            }
        }
    }

    /// Brings what came to its place. What is there is never written over; with `force` a file takes a file's place.
    ///
    /// # Errors
    /// When something is missing, or something is there.
    pub fn finish(mut self, force: bool) -> Result<Totals, TreeError> {
        let Some(kind) = self.top else { return Err(TreeError::Malformed("nothing was sent")) };
        if self.file.take().is_some() {
            return Err(TreeError::Malformed("a file that is shorter than announced"));
        }
        let place = Path::new(&self.name).to_owned();
        let rename = |flags| rustix::fs::renameat_with(&self.folder, "top", &self.parent, &self.name, flags);
        match rename(RenameFlags::NOREPLACE) {
            Ok(()) => return Ok(self.count.0),
            Err(rustix::io::Errno::EXIST) if !force => return Err(TreeError::Exists(shown(&place))),
            Err(rustix::io::Errno::EXIST) => {}
            Err(error) => return Err(failed(&place)(error)),
        }
        if kind == EntryKind::Folder {
            return Err(TreeError::Folder(shown(&place)));
        }
        // Both exchange places at once, so that what was there can be looked at where nobody swaps it any more.
        rename(RenameFlags::EXCHANGE).map_err(failed(&place))?;
        let before = rustix::fs::statat(&self.folder, "top", AtFlags::SYMLINK_NOFOLLOW).map_err(failed(&place))?;
        if FileType::from_raw_mode(before.st_mode) != FileType::RegularFile {
            rename(RenameFlags::EXCHANGE).map_err(failed(&place))?;
            return Err(TreeError::Folder(shown(&place)));
        }
        Ok(self.count.0)
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        // The standard library removes by descriptors and follows no link (CVE-2022-21658).
        let path = Path::new("/proc/self/fd").join(self.parent.as_raw_fd().to_string()).join(&self.fresh);
        let _ = std::fs::remove_dir_all(path);
    }
}

#[cfg(test)]
mod tests;
