//! Reads and writes files below the project's folder, and nowhere else: every folder on the way is opened from the one
//! before it and is no symbolic link, whatever an agent left there.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;

use super::EditorError;

/// The largest file that is read.
pub const LIMIT: u64 = 1 << 20;

/// The project's folder, held open.
#[derive(Debug)]
pub struct ProjectFolder(OwnedFd);

/// What was read, with the permissions that a new version keeps.
struct Found {
    text: String,
    mode: Mode,
}

impl ProjectFolder {
    /// Opens the folder.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub fn open(path: &Path) -> Result<Self, EditorError> {
        let opened = rustix::fs::open(path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
        opened.map(Self).map_err(|error| access(&path.display().to_string(), error))
    }

    /// The text of a file; none when it is not there.
    ///
    /// # Errors
    /// When it is no ordinary file of text, too large, or behind a symbolic link.
    pub fn read(&self, path: &str) -> Result<Option<String>, EditorError> {
        let Some((folder, name)) = self.folder_of(path, false)? else { return Ok(None) };
        Ok(read(&folder, name, path)?.map(|found| found.text))
    }

    /// Replaces a file whose text is still `before`, at once as a whole.
    ///
    /// # Errors
    /// When it has another text by now, or cannot be written.
    pub fn write(&self, path: &str, before: Option<&str>, text: &str) -> Result<(), EditorError> {
        let Some((folder, name)) = self.folder_of(path, true)? else {
            return Err(access(path, Errno::NOENT));
        };
        let found = read(&folder, name, path)?;
        if found.as_ref().map(|found| found.text.as_str()) != before {
            return Err(EditorError::Changed(path.to_owned()));
        }
        let mut random = [0; 8];
        getrandom::fill(&mut random).map_err(|error| access(path, io::Error::other(error)))?;
        let temporary = format!(".sandbox-{}", hex::encode(random));
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let new = rustix::fs::openat(&folder, &temporary, flags, Mode::from(0o666));
        let mut new = File::from(new.map_err(|error| access(path, error))?);
        let written = (|| {
            if let Some(found) = &found {
                rustix::fs::fchmod(&new, found.mode)?;
            }
            new.write_all(text.as_bytes())?;
            new.sync_all()?;
            rustix::fs::renameat(&folder, &temporary, &folder, name)?;
            Ok::<(), io::Error>(())
        })();
        written.map_err(|error| {
            // The first failure is the one to tell.
            let _ = rustix::fs::unlinkat(&folder, &temporary, AtFlags::empty());
            access(path, error)
        })
    }

    /// Removes a file whose text is still `before`, and the folders that are empty then.
    ///
    /// # Errors
    /// When it has another text by now, or cannot be removed.
    pub fn remove(&self, path: &str, before: &str) -> Result<(), EditorError> {
        let Some((folder, name)) = self.folder_of(path, false)? else { return Ok(()) };
        if read(&folder, name, path)?.is_none_or(|found| found.text != before) {
            return Err(EditorError::Changed(path.to_owned()));
        }
        rustix::fs::unlinkat(&folder, name, AtFlags::empty()).map_err(|error| access(path, error))?;
        let mut rest = path;
        while let Some((parent, _)) = rest.rsplit_once('/') {
            let Some((above, name)) = self.folder_of(parent, false)? else { break };
            if rustix::fs::unlinkat(above, name, AtFlags::REMOVEDIR).is_err() {
                break;
            }
            rest = parent;
        }
        Ok(())
    }

    /// The folder of a path, and the last name. None when a folder on the way lacks and none is to be made.
    fn folder_of<'a>(&self, path: &'a str, make: bool) -> Result<Option<(OwnedFd, &'a str)>, EditorError> {
        let (folders, name) = path.rsplit_once('/').unwrap_or(("", path));
        let mut folder = self.0.try_clone().map_err(|error| access(path, error))?;
        for part in folders.split('/').filter(|part| !part.is_empty()) {
            if make {
                match rustix::fs::mkdirat(&folder, part, Mode::from(0o777)) {
                    Ok(()) | Err(Errno::EXIST) => {}
                    Err(error) => return Err(access(path, error)),
                }
            }
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            folder = match rustix::fs::openat(&folder, part, flags, Mode::empty()) {
                Ok(opened) => opened,
                Err(Errno::NOENT) => return Ok(None),
                // A link has either error, by whether NOFOLLOW or DIRECTORY is looked at first.
                Err(Errno::LOOP | Errno::NOTDIR) => return Err(EditorError::Link(path.to_owned())),
                Err(error) => return Err(access(path, error)),
            };
        }
        Ok(Some((folder, name)))
    }
}

fn read(folder: &OwnedFd, name: &str, path: &str) -> Result<Option<Found>, EditorError> {
    // Without NONBLOCK a pipe of that name would stop the launcher.
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = match rustix::fs::openat(folder, name, flags, Mode::empty()) {
        Ok(opened) => opened,
        Err(Errno::NOENT) => return Ok(None),
        Err(Errno::LOOP | Errno::NXIO) => return Err(EditorError::Link(path.to_owned())),
        Err(error) => return Err(access(path, error)),
    };
    let status = rustix::fs::fstat(&file).map_err(|error| access(path, error))?;
    if FileType::from_raw_mode(status.st_mode) != FileType::RegularFile {
        return Err(EditorError::Link(path.to_owned()));
    }
    let mut bytes = Vec::new();
    File::from(file).take(LIMIT + 1).read_to_end(&mut bytes).map_err(|error| access(path, error))?;
    if bytes.len() as u64 > LIMIT {
        return Err(EditorError::Large(path.to_owned()));
    }
    let text = String::from_utf8(bytes)
        .map_err(|_| EditorError::Format { path: path.to_owned(), fault: "it is no UTF-8 text".to_owned() })?;
    Ok(Some(Found { text, mode: Mode::from_raw_mode(status.st_mode) & Mode::from(0o777) }))
}

fn access(path: &str, source: impl Into<io::Error>) -> EditorError {
    EditorError::Access { path: path.to_owned(), source: source.into() }
}
