//! Holds the credential files in the tmpfs volume that the agent mounts read-only.
//!
//! The layout is the one that kubelet's atomic writer uses: `NAME -> ..data/NAME`, `..data -> ..data-N`. A new set is
//! written into a new folder, and renaming one link makes it current: a reader sees the old set or the new one, never
//! half of one. The folder before stays until the next change, for readers that resolved a path just before the swap.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use crate::credential::secret::Secret;
use crate::gateway::protocol::SecretFile;

/// The link to the current folder.
const CURRENT: &str = "..data";

/// The certificates that the agent has to trust beside its image's, which are public and belong to no set.
pub const AUTHORITY: &str = "..authority.pem";

/// The link under its temporary name.
const NEXT: &str = "..data-next";

/// What the folders of the sets begin with.
const SET: &str = "..data-";

/// How many files a set may have.
const FILE_LIMIT: usize = 256;

/// The longest file: the volume has 1 MiB.
const CONTENT_LIMIT: usize = 1 << 20;

/// The longest file name, in bytes.
const NAME_LIMIT: usize = 64;

/// Why a set of files was not put in place. The set before it is still current.
#[derive(Debug, thiserror::Error)]
pub enum SecretsError {
    /// A file name is not one plain component.
    #[error("take the file name `{}`", .0.escape_debug())]
    Name(String),
    /// Two files have one name.
    #[error("take two files named `{0}`")]
    Twice(String),
    /// Too many files.
    #[error("take {0} files, at most {FILE_LIMIT} are allowed")]
    TooMany(usize),
    /// The files do not fit.
    #[error("write {needed} bytes of credential files where {free} are free")]
    Room {
        /// Bytes that are needed, in whole pages.
        needed: u64,
        /// Bytes that are free.
        free: u64,
    },
    /// A file operation failed.
    #[error("{action} `{}`", path.display())]
    File {
        /// What was tried.
        action: &'static str,
        /// On which path.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
}

/// The folder of credential files.
#[derive(Debug)]
pub struct SecretFolder {
    root: PathBuf,
    current: Option<String>,
    number: u64,
}

impl SecretFolder {
    /// Opens the folder, which may hold the sets of a gateway before this one.
    pub fn open(root: &Path) -> Result<Self, SecretsError> {
        let current = fs::read_link(root.join(CURRENT)).ok().and_then(|target| Some(target.to_str()?.to_owned()));
        let mut folder = Self { root: root.to_owned(), current, number: 0 };
        let numbers = list(root)?.into_iter().filter_map(|name| name.strip_prefix(SET)?.parse().ok());
        folder.number = numbers.max().unwrap_or(0);
        Ok(folder)
    }

    /// Puts certificates of authorities where the agent reads them, whole or not at all.
    pub fn publish_authorities(&self, certificates: &str) -> Result<(), SecretsError> {
        let path = self.root.join(AUTHORITY);
        let temporary = self.root.join("..authority-next");
        fs::write(&temporary, certificates).map_err(|source| file("write", &temporary, source))?;
        set_mode(&temporary, 0o444)?;
        fs::rename(&temporary, &path).map_err(|source| file("rename to", &path, source))
    }

    /// The folder of the current set.
    pub fn current(&self) -> Option<PathBuf> {
        self.current.as_ref().map(|name| self.root.join(name))
    }

    /// The files of the current set.
    pub fn contents(&self) -> Result<Vec<SecretFile>, SecretsError> {
        let Some(folder) = self.current() else { return Ok(Vec::new()) };
        let read = |name: String| {
            let path = folder.join(&name);
            let handle = File::open(&path).map_err(|source| file("open", &path, source))?;
            let content = Secret::read(handle, CONTENT_LIMIT).map_err(|source| file("read", &path, source))?;
            Ok(SecretFile { name, content })
        };
        list(&folder)?.into_iter().map(read).collect()
    }

    /// Makes the files the current set, all at once. Without files, every set is removed at once.
    pub fn replace(&mut self, files: &[SecretFile]) -> Result<(), SecretsError> {
        self.install(files, &[])?;
        if files.is_empty() { self.remove_sets_except(self.current.as_deref()) } else { Ok(()) }
    }

    /// Makes a set current that has these files and, of the set before, those that are not among them.
    pub fn update(&mut self, files: &[SecretFile]) -> Result<(), SecretsError> {
        let mut kept = self.current_names()?;
        kept.retain(|old| files.iter().all(|new| &new.name != old));
        self.install(files, &kept)
    }

    /// Makes a set current without these files. They are gone at once, also from the sets before.
    pub fn remove(&mut self, names: &[String]) -> Result<(), SecretsError> {
        let mut kept = self.current_names()?;
        kept.retain(|old| !names.contains(old));
        self.install(&[], &kept)?;
        self.remove_sets_except(self.current.as_deref())
    }

    /// Makes a set of new files and of files kept from the current one, and then the current one of it.
    fn install(&mut self, files: &[SecretFile], kept: &[String]) -> Result<(), SecretsError> {
        let names = check_names(files, kept)?;
        self.remove_sets_except(self.current.as_deref())?;
        self.check_room(files)?;
        let number = self.number + 1;
        let set = format!("{SET}{number}");
        let written = self.write_set(&set, files).and_then(|()| self.keep(&set, kept));
        if let Err(error) = written.and_then(|()| self.point(CURRENT, &set)) {
            // Half a set must not stay: the error is what counts, and the next change removes what is left.
            let _ = fs::remove_dir_all(self.root.join(&set));
            return Err(error);
        }
        self.number = number;
        self.current = Some(set);
        self.link_names(&names)
    }

    /// The names of the files in the current set.
    fn current_names(&self) -> Result<Vec<String>, SecretsError> {
        match self.current() {
            None => Ok(Vec::new()),
            Some(folder) => list(&folder),
        }
    }

    /// Takes files of the current set into a new one. They are linked and not copied: opening one would look like a
    /// read by the agent.
    fn keep(&self, set: &str, names: &[String]) -> Result<(), SecretsError> {
        let Some(current) = self.current() else { return Ok(()) };
        for name in names {
            let path = self.root.join(set).join(name);
            fs::hard_link(current.join(name), &path).map_err(|source| file("link", &path, source))?;
        }
        Ok(())
    }

    fn remove_sets_except(&self, kept: Option<&str>) -> Result<(), SecretsError> {
        for name in list(&self.root)? {
            let path = self.root.join(&name);
            if name.starts_with(SET) && name != NEXT && Some(name.as_str()) != kept {
                fs::remove_dir_all(&path).map_err(|source| file("remove", &path, source))?;
            }
        }
        Ok(())
    }

    /// Checks that the files fit before anything is written: a full disk in the middle would be too late to notice.
    fn check_room(&self, files: &[SecretFile]) -> Result<(), SecretsError> {
        let statistics =
            rustix::fs::statvfs(&self.root).map_err(|source| file("measure", &self.root, source.into()))?;
        let page = statistics.f_frsize.max(1);
        let free = statistics.f_bavail.saturating_mul(page);
        // One page more for each file and folder covers file systems that count directories and links.
        let needed = files.iter().map(|file| (file.content.len() as u64).div_ceil(page) + 1).sum::<u64>() + 1;
        let needed = needed.saturating_mul(page);
        if needed > free { Err(SecretsError::Room { needed, free }) } else { Ok(()) }
    }

    fn write_set(&self, set: &str, files: &[SecretFile]) -> Result<(), SecretsError> {
        let folder = self.root.join(set);
        fs::DirBuilder::new().mode(0o750).create(&folder).map_err(|source| file("create", &folder, source))?;
        // The umask may have taken bits away.
        set_mode(&folder, 0o750)?;
        for secret in files {
            let path = folder.join(&secret.name);
            let mut handle: File = OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(0o440)
                .open(&path)
                .map_err(|source| file("create", &path, source))?;
            handle.write_all(secret.content.expose()).map_err(|source| file("write", &path, source))?;
            set_mode(&path, 0o440)?;
        }
        Ok(())
    }

    /// Makes a link point at a target, atomically.
    fn point(&self, link: &str, target: &str) -> Result<(), SecretsError> {
        let (temporary, path) = (self.root.join(NEXT), self.root.join(link));
        match fs::remove_file(&temporary) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => return Err(file("remove", &temporary, source)),
            _ => {}
        }
        symlink(target, &temporary).map_err(|source| file("link", &temporary, source))?;
        fs::rename(&temporary, &path).map_err(|source| file("rename to", &path, source))
    }

    /// Makes the names outside the sets those of the current one. Only what is missing or gone is touched.
    fn link_names(&self, names: &BTreeSet<&str>) -> Result<(), SecretsError> {
        let present: BTreeSet<String> = list(&self.root)?.into_iter().filter(|name| !name.starts_with("..")).collect();
        for name in &present {
            if !names.contains(name.as_str()) {
                let path = self.root.join(name);
                fs::remove_file(&path).map_err(|source| file("remove", &path, source))?;
            }
        }
        for name in names {
            if !present.contains(*name) {
                self.point(name, &format!("{CURRENT}/{name}"))?;
            }
        }
        Ok(())
    }
}

/// All names of a set, each of them once and plain.
fn check_names<'a>(files: &'a [SecretFile], kept: &'a [String]) -> Result<BTreeSet<&'a str>, SecretsError> {
    if files.len() + kept.len() > FILE_LIMIT {
        return Err(SecretsError::TooMany(files.len() + kept.len()));
    }
    let mut names = BTreeSet::new();
    for name in files.iter().map(|file| &file.name).chain(kept) {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        if name.is_empty() || name.len() > NAME_LIMIT || name.starts_with('.') || !name.bytes().all(plain) {
            return Err(SecretsError::Name(name.clone()));
        }
        if !names.insert(name.as_str()) {
            return Err(SecretsError::Twice(name.clone()));
        }
    }
    Ok(names)
}

/// The names in a folder.
fn list(folder: &Path) -> Result<Vec<String>, SecretsError> {
    let names = || -> io::Result<Vec<String>> {
        fs::read_dir(folder)?.map(|entry| entry.map(|entry| entry.file_name().to_string_lossy().into_owned())).collect()
    };
    names().map_err(|source| file("list", folder, source))
}

fn set_mode(path: &Path, mode: u32) -> Result<(), SecretsError> {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).map_err(|source| file("set the mode of", path, source))
}

fn file(action: &'static str, path: &Path, source: io::Error) -> SecretsError {
    SecretsError::File { action, path: path.to_owned(), source }
}

#[cfg(test)]
mod tests;
