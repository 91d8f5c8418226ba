//! How much disk the agent's folders take: asked for by the launcher's supervisor, which ends a session that takes more
//! than its `resources.disk`.
//!
//! It runs as the agent's user, so that what the agent made unreadable is counted as such and not as bytes.

use std::collections::HashSet;
use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, Stat, openat, statat};

use super::frame::Usage;

/// How deep folders are followed. Each level holds a file descriptor while it is read.
const DEPTH_LIMIT: usize = 512;
/// How many files with several names are remembered, so that each counts once; beyond it each name counts.
const LINKS_LIMIT: usize = 1 << 20;
/// The unit of `st_blocks`, in bytes (stat(3type)).
const BLOCK: u64 = 512;

/// Measures these folders together. A folder that is not there takes nothing.
pub(super) fn measure(folders: &[String]) -> io::Result<Usage> {
    // The agent has the same user: it may end this process, which the supervisor notices, but not change what it says.
    rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable)?;
    let mut walk = Walk::default();
    for folder in folders {
        match open(rustix::fs::CWD, folder.as_str()) {
            Ok(opened) => walk.folder(opened, 0),
            Err(rustix::io::Errno::NOENT) => {}
            Err(_) => walk.usage.unreadable += 1,
        }
    }
    Ok(walk.usage)
}

#[derive(Default)]
struct Walk {
    usage: Usage,
    /// Device and inode of files with several names.
    links: HashSet<(u64, u64)>,
}

impl Walk {
    fn folder(&mut self, folder: OwnedFd, depth: usize) {
        let Ok(own) = rustix::fs::fstat(&folder) else {
            self.usage.unreadable += 1;
            return;
        };
        self.count(&own);
        if depth >= DEPTH_LIMIT {
            self.usage.unreadable += 1;
            return;
        }
        let Ok(entries) = Dir::read_from(&folder) else {
            self.usage.unreadable += 1;
            return;
        };
        for entry in entries {
            let Ok(entry) = entry else {
                self.usage.unreadable += 1;
                break;
            };
            let name = entry.file_name();
            if name != c"." && name != c".." {
                self.entry(&folder, name, own.st_dev, depth);
            }
        }
    }

    fn entry(&mut self, folder: &OwnedFd, name: &CStr, device: u64, depth: usize) {
        let Ok(stat) = statat(folder, name, AtFlags::SYMLINK_NOFOLLOW) else {
            // Gone since the folder was read, which is no news in a folder where somebody works.
            return;
        };
        if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
            self.count(&stat);
            return;
        }
        // Another file system has limits of its own.
        if stat.st_dev != device {
            return;
        }
        match open(folder, name) {
            Ok(opened) => self.folder(opened, depth + 1),
            Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR | rustix::io::Errno::LOOP) => {}
            Err(_) => {
                self.count(&stat);
                self.usage.unreadable += 1;
            }
        }
    }

    fn count(&mut self, stat: &Stat) {
        let linked = stat.st_nlink > 1 && FileType::from_raw_mode(stat.st_mode) != FileType::Directory;
        if linked && self.links.len() < LINKS_LIMIT && !self.links.insert((stat.st_dev, stat.st_ino)) {
            return;
        }
        self.usage.bytes = self.usage.bytes.saturating_add(u64::try_from(stat.st_blocks).unwrap_or(0) * BLOCK);
        self.usage.files += 1;
    }
}

fn open(folder: impl AsFd, name: impl rustix::path::Arg) -> rustix::io::Result<OwnedFd> {
    openat(folder, name, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn usage(folder: &std::path::Path) -> Usage {
        measure(&[folder.to_str().unwrap().to_owned()]).unwrap()
    }

    #[test]
    fn counts_blocks_and_not_lengths_and_each_file_once() {
        let folder = tempfile::tempdir().unwrap();
        let before = usage(folder.path());
        std::fs::create_dir(folder.path().join("inner")).unwrap();
        let file = folder.path().join("inner/file");
        std::fs::write(&file, vec![7; 1 << 20]).unwrap();
        std::fs::hard_link(&file, folder.path().join("again")).unwrap();
        // A file with a hole takes no room.
        std::fs::File::create(folder.path().join("hole")).unwrap().set_len(1 << 40).unwrap();
        std::os::unix::fs::symlink("/usr", folder.path().join("link")).unwrap();
        let after = usage(folder.path());
        let more = after.bytes - before.bytes;
        assert!(((1 << 20)..(1 << 20) + (64 << 10)).contains(&more), "{more}");
        assert_eq!((after.files - before.files, after.unreadable), (4, 0));
    }

    #[test]
    fn a_folder_that_is_not_there_takes_nothing() {
        assert_eq!(measure(&["/no/such/folder".into()]).unwrap(), Usage::default());
    }

    #[test]
    fn says_when_folders_are_too_deep_to_be_followed() {
        let folder = tempfile::tempdir().unwrap();
        let mut current = openat(rustix::fs::CWD, folder.path(), OFlags::DIRECTORY, Mode::empty()).unwrap();
        for _ in 0..=DEPTH_LIMIT {
            rustix::fs::mkdirat(&current, "d", Mode::RWXU).unwrap();
            current = open(&current, "d").unwrap();
        }
        assert_eq!(usage(folder.path()).unreadable, 1);
    }
}
