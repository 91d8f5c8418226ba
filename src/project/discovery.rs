//! Finds the manifest that a command means: by path, by a name that this machine has seen, or from the current folder.
//!
//! A manifest of another owner is never taken: in a shared folder such as `/tmp` anybody could leave one.

use std::io::{Read, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::project::manifest::Manifest;
use crate::project::name::ProjectName;

/// The manifest's file name.
pub const FILE_NAME: &str = "sandbox.yaml";

/// The most bytes of a recorded path (`PATH_MAX` of Linux).
const PATH_LIMIT: u64 = 4096;

/// Why no manifest was found.
#[derive(Debug, thiserror::Error)]
pub enum LocateError {
    /// Neither the folder nor one above it has a manifest.
    #[error("find {FILE_NAME} in {} or a folder above it", .0.display())]
    Missing(PathBuf),
    /// The path has no manifest.
    #[error("find {}", .0.display())]
    NoFile(PathBuf),
    /// No project of this name was used on this machine.
    #[error("find the project `{}`: this machine has not seen it", .0.escape_debug())]
    Unknown(String),
    /// The manifest belongs to another user.
    #[error("use {}: it belongs to the user with the id {owner}", .path.display())]
    Owner {
        /// The file.
        path: PathBuf,
        /// Its owner.
        owner: u32,
    },
    /// The file, after its links are followed, has another name: an approval covers files of the name `sandbox.yaml`.
    #[error("use {}: a manifest is named {FILE_NAME}", .0.display())]
    Name(PathBuf),
    /// A file or folder cannot be read or written.
    #[error("use {}", .path.display())]
    Access {
        /// The file or folder.
        path: PathBuf,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
}

/// The manifest's file. `argument` is what stands for PROJECT: a path, or a name recorded below `state`; without one the
/// nearest manifest from `current` upwards is meant.
pub fn locate(argument: Option<&str>, current: &Path, state: &Path) -> Result<PathBuf, LocateError> {
    let Some(argument) = argument else { return upwards(current) };
    let path = current.join(argument);
    let file = if path.is_dir() { path.join(FILE_NAME) } else { path.clone() };
    if argument.contains('/') || argument == "." || argument == ".." || argument == FILE_NAME {
        return if file.is_file() { ours(file) } else { Err(LocateError::NoFile(file)) };
    }
    if path.is_dir() && file.is_file() {
        return ours(file);
    }
    let name: ProjectName = argument.parse().map_err(|_| LocateError::Unknown(argument.to_owned()))?;
    let record = state.join("projects").join(name.as_str());
    let opened = match std::fs::File::open(&record) {
        Ok(opened) => opened,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Err(LocateError::Unknown(argument.to_owned()));
        }
        Err(source) => return Err(LocateError::Access { path: record, source }),
    };
    let mut bytes = Vec::new();
    opened.take(PATH_LIMIT).read_to_end(&mut bytes).map_err(|source| LocateError::Access { path: record, source })?;
    let file = PathBuf::from(std::ffi::OsString::from_vec(bytes)).join(FILE_NAME);
    if file.is_file() { ours(file) } else { Err(LocateError::NoFile(file)) }
}

fn upwards(current: &Path) -> Result<PathBuf, LocateError> {
    for folder in current.ancestors() {
        let file = folder.join(FILE_NAME);
        if file.is_file() {
            return ours(file);
        }
    }
    Err(LocateError::Missing(current.to_owned()))
}

fn ours(path: PathBuf) -> Result<PathBuf, LocateError> {
    let access = |source| LocateError::Access { path: path.clone(), source };
    let owner = std::fs::metadata(&path).map_err(access)?.uid();
    if owner != rustix::process::getuid().as_raw() {
        return Err(LocateError::Owner { path, owner });
    }
    let real = path.canonicalize().map_err(access)?;
    if real.file_name() != Some(std::ffi::OsStr::new(FILE_NAME)) {
        return Err(LocateError::Name(real));
    }
    Ok(real)
}

/// Records where a project lies, so that its name finds it from any folder.
pub fn remember(state: &Path, manifest: &Manifest) -> Result<(), LocateError> {
    let folder = state.join("projects");
    let record = folder.join(manifest.project.as_str());
    let access = |source| LocateError::Access { path: record.clone(), source };
    let root = manifest.root.canonicalize().map_err(access)?;
    std::fs::create_dir_all(&folder).map_err(access)?;
    let mut file = tempfile::NamedTempFile::new_in(&folder).map_err(access)?;
    file.write_all(root.as_os_str().as_bytes()).map_err(access)?;
    file.persist(&record).map_err(|error| access(error.error))?;
    Ok(())
}

#[cfg(test)]
mod tests;
