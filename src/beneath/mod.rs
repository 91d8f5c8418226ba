//! Opens what is beneath a folder and nothing else: no path leads out of it, and no device, pipe or socket is opened.
//!
//! The kernel keeps the rule (`openat2`, Linux 5.6), so that a link that is swapped between a check and a use gains
//! nothing. It never looks at a name twice.

pub mod tree;

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, Mode, OFlags, ResolveFlags};

/// Whether symbolic links are followed, within the folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Links {
    /// As long as they stay beneath the folder; one that leads out is an error.
    Inside,
    /// A link anywhere on the way is an error.
    Refused,
}

impl Links {
    fn flags(self) -> ResolveFlags {
        // openat2(2): RESOLVE_BENEATH refuses `..` above the folder, absolute paths and absolute links.
        let beneath = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
        match self {
            Self::Inside => beneath,
            Self::Refused => beneath | ResolveFlags::NO_SYMLINKS,
        }
    }

    /// With `O_PATH` and `O_NOFOLLOW` a link itself would be opened; it is then no file and no folder.
    fn last(self) -> OFlags {
        if self == Self::Refused { OFlags::NOFOLLOW } else { OFlags::empty() }
    }
}

/// What was opened.
#[derive(Debug)]
pub enum Opened {
    /// A regular file, for reading.
    File(File, u64),
    /// A folder.
    Folder(OwnedFd),
    /// Anything else; it was not opened.
    Other,
}

/// The folder at a path that is trusted.
///
/// # Errors
/// When there is none.
pub fn folder(path: &Path) -> io::Result<OwnedFd> {
    Ok(rustix::fs::open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?)
}

/// Opens a path beneath a folder. What it is, is asked of a descriptor that reads nothing (`O_PATH`), since to open a
/// device or a pipe is to act on it already.
///
/// # Errors
/// When there is no such thing, or the way to it leads out of the folder or through a link that is refused.
pub fn open(root: impl AsFd, path: &Path, links: Links) -> io::Result<Opened> {
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    let found =
        rustix::fs::openat2(root, path, OFlags::PATH | OFlags::CLOEXEC | links.last(), Mode::empty(), links.flags())?;
    let stat = rustix::fs::fstat(&found)?;
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => Ok(Opened::Folder(found)),
        FileType::RegularFile => {
            // proc_pid_fd(5): the very file that was looked at, whatever its name means by now.
            let same = format!("/proc/self/fd/{}", found.as_raw_fd());
            let file = rustix::fs::open(same, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
            Ok(Opened::File(File::from(file), u64::try_from(stat.st_size).unwrap_or(0)))
        }
        _ => Ok(Opened::Other),
    }
}

/// The names in a folder, in order, without `.` and `..`; at most `limit`.
///
/// # Errors
/// When it cannot be read.
pub fn listed(folder: &OwnedFd, limit: usize) -> io::Result<Vec<PathBuf>> {
    // A descriptor of O_PATH cannot be listed; `.` of it can.
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let open = rustix::fs::openat(folder, ".", flags, Mode::empty())?;
    let mut names = Vec::new();
    for entry in rustix::fs::Dir::new(open)? {
        let name = PathBuf::from(OsStr::from_bytes(entry?.file_name().to_bytes()));
        if name != Path::new(".") && name != Path::new("..") {
            if names.len() >= limit {
                break;
            }
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Read as _;
    use std::os::unix::fs::symlink;
    use std::os::unix::net::UnixListener;

    use super::*;

    fn content(root: &OwnedFd, path: &str, links: Links) -> io::Result<Option<String>> {
        match open(root, Path::new(path), links)? {
            Opened::File(mut file, size) => {
                let mut text = String::new();
                file.read_to_string(&mut text)?;
                assert_eq!(text.len() as u64, size);
                Ok(Some(text))
            }
            Opened::Folder(_) | Opened::Other => Ok(None),
        }
    }

    #[test]
    fn opens_nothing_outside_whatever_leads_there() {
        let place = tempfile::tempdir().unwrap();
        let inside = place.path().join("inside");
        fs::create_dir_all(inside.join("deep")).unwrap();
        fs::write(inside.join("plain"), "mine").unwrap();
        fs::write(place.path().join("outside"), "not mine").unwrap();
        symlink("../outside", inside.join("up")).unwrap();
        symlink(place.path().join("outside"), inside.join("absolute")).unwrap();
        symlink("..", inside.join("deep/parent")).unwrap();
        symlink("../..", inside.join("deep/above")).unwrap();
        symlink("/proc/self/root", inside.join("magic")).unwrap();
        symlink("plain", inside.join("near")).unwrap();
        let root = folder(&inside).unwrap();
        for links in [Links::Inside, Links::Refused] {
            assert_eq!(content(&root, "plain", links).unwrap().as_deref(), Some("mine"));
            for path in [
                "up",
                "absolute",
                "../outside",
                "deep/above/outside",
                "magic/etc/hostname",
                "/etc/hostname",
                "deep/../../outside",
            ] {
                assert_eq!(content(&root, path, links).ok().flatten(), None, "{path}");
            }
        }
        for path in ["near", "deep/parent/plain"] {
            assert_eq!(content(&root, path, Links::Inside).unwrap().as_deref(), Some("mine"), "{path}");
        }
        assert!(content(&root, "deep/parent/plain", Links::Refused).is_err());
        assert_ne!(content(&root, "near", Links::Refused).ok().flatten().as_deref(), Some("mine"));
    }

    #[test]
    fn opens_neither_a_pipe_nor_a_socket_and_does_not_wait_for_one() {
        let place = tempfile::tempdir().unwrap();
        let made = std::process::Command::new("mkfifo").arg(place.path().join("pipe")).status().unwrap();
        assert!(made.success());
        let _socket = UnixListener::bind(place.path().join("socket")).unwrap();
        let root = folder(place.path()).unwrap();
        for path in ["pipe", "socket"] {
            assert!(matches!(open(&root, Path::new(path), Links::Refused).unwrap(), Opened::Other), "{path}");
        }
        assert!(matches!(
            open(folder(Path::new("/dev")).unwrap(), Path::new("null"), Links::Inside),
            Ok(Opened::Other)
        ));
    }
}
