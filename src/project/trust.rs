//! Whether the user approved what a manifest asks for.
//!
//! An approval is for content, not for a name: it covers `sandbox.yaml` and everything of the project that it uses, and
//! ends with the first byte that changes. It runs nothing.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::image::reference::{Digest, Hasher, ImageChoice};
use crate::project::manifest::Manifest;

/// Files that one project may have under approval.
const FILE_LIMIT: usize = 2_000;
/// Bytes of one such file.
const SIZE_LIMIT: u64 = 16 << 20;
/// Depth of folders below the project.
const DEPTH_LIMIT: usize = 16;

/// Why trust cannot be told or given.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    /// A file or folder cannot be used.
    #[error("use {}", .path.display())]
    Access {
        /// The file or folder.
        path: PathBuf,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// Something that can change without its path changing, or that reads as something else.
    #[error("approve {}: it is a symbolic link or a special file", .0.display())]
    Special(PathBuf),
    /// More, or larger, files than a person can have looked at.
    #[error("approve {}: it holds too many or too large files", .0.display())]
    TooLarge(PathBuf),
    /// The manifest is not the one that was parsed, and perhaps shown, any more.
    #[error("approve {}: it changed since it was read", .0.display())]
    Edited(PathBuf),
    /// The record of an approval has no JSON form.
    #[error("write the approval")]
    Json(#[source] serde_json::Error),
}

/// What a user approved.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Approval {
    /// The project's folder.
    pub root: PathBuf,
    /// The digest over all files.
    pub digest: Digest,
    /// The digest of each file, by path below the folder.
    pub files: BTreeMap<String, Digest>,
    /// Who.
    pub user: String,
    /// When.
    pub time: Timestamp,
}

/// Whether a manifest is approved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trust {
    /// This very content was approved.
    Approved(Approval),
    /// Nothing of this project in this folder was approved.
    New,
    /// Something changed since.
    Changed {
        /// The files that changed, came or went.
        files: Vec<String>,
    },
}

/// The digest of each file that a manifest uses, by path below the project's folder.
///
/// # Errors
/// When a file cannot be read or approved, or `sandbox.yaml` has other bytes than those that were parsed.
pub fn files(manifest: &Manifest) -> Result<BTreeMap<String, Digest>, TrustError> {
    let mut found = BTreeMap::new();
    collect(&manifest.root, Path::new(super::discovery::FILE_NAME), 0, &mut found)?;
    for path in ["Dockerfile.agent", "profiles", ".sandbox/recipients"] {
        collect(&manifest.root, Path::new(path), 0, &mut found)?;
    }
    if let ImageChoice::Definition(name) = &manifest.image {
        collect(&manifest.root, &Path::new("images").join(name), 0, &mut found)?;
    }
    if let ImageChoice::Dockerfile(name) = &manifest.image {
        // The lock has the digests of the files that the Dockerfile takes, and of its bases.
        for path in [name.clone(), format!("{name}.lock"), format!("{name}.dockerignore"), ".dockerignore".to_owned()] {
            collect(&manifest.root, Path::new(&path), 0, &mut found)?;
        }
    }
    unedited(manifest, &found)?;
    Ok(found)
}

/// Refuses a list in which `sandbox.yaml`, or a preset that it uses, has other bytes than those that were parsed.
fn unedited(manifest: &Manifest, files: &BTreeMap<String, Digest>) -> Result<(), TrustError> {
    let parsed = manifest.preset_files.iter().map(|(path, digest)| (path.as_str(), digest));
    let mut parsed = parsed.chain([(super::discovery::FILE_NAME, &manifest.digest)]);
    match parsed.find(|(path, digest)| files.get(*path) != Some(digest)) {
        Some((path, _)) => Err(TrustError::Edited(manifest.root.join(path))),
        None => Ok(()),
    }
}

/// One digest over the files: of each path, its length, and its content's digest.
pub fn digest(files: &BTreeMap<String, Digest>) -> Digest {
    let mut hasher = Hasher::default();
    for (path, digest) in files {
        // The length keeps two lists apart that would be the same text.
        hasher.update(&(path.len() as u64).to_be_bytes());
        hasher.update(path.as_bytes());
        hasher.update(digest.hex().as_bytes());
    }
    hasher.digest()
}

fn collect(root: &Path, relative: &Path, depth: usize, found: &mut BTreeMap<String, Digest>) -> Result<(), TrustError> {
    let path = root.join(relative);
    let access = |source| TrustError::Access { path: path.clone(), source };
    let metadata = match std::fs::symlink_metadata(&path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        other => other.map_err(access)?,
    };
    if metadata.is_dir() {
        if depth >= DEPTH_LIMIT {
            return Err(TrustError::TooLarge(path));
        }
        for entry in std::fs::read_dir(&path).map_err(access)? {
            collect(root, &relative.join(entry.map_err(access)?.file_name()), depth + 1, found)?;
        }
        return Ok(());
    }
    if !metadata.is_file() {
        return Err(TrustError::Special(path));
    }
    let mut bytes = Vec::new();
    let file = std::fs::File::open(&path).map_err(access)?;
    file.take(SIZE_LIMIT + 1).read_to_end(&mut bytes).map_err(access)?;
    if bytes.len() as u64 > SIZE_LIMIT || found.len() >= FILE_LIMIT {
        return Err(TrustError::TooLarge(path));
    }
    // `Debug` of a path escapes what is not UTF-8, so two paths never become one text.
    let name = relative.to_str().map_or_else(|| format!("{relative:?}"), str::to_owned);
    found.insert(name, Digest::of(&bytes));
    Ok(())
}

fn record(state: &Path, manifest: &Manifest) -> PathBuf {
    state.join("trust").join(format!("{}.json", manifest.project))
}

/// Whether this manifest, with all that it uses now, is approved.
pub fn status(state: &Path, manifest: &Manifest) -> Result<Trust, TrustError> {
    let path = record(state, manifest);
    let bytes = match std::fs::read(&path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Trust::New),
        other => other.map_err(|source| TrustError::Access { path, source })?,
    };
    // An approval that cannot be read approves nothing.
    let Ok(approval) = serde_json::from_slice::<Approval>(&bytes) else { return Ok(Trust::New) };
    if approval.root != root(manifest)? {
        return Ok(Trust::New);
    }
    let now = files(manifest)?;
    if digest(&now) == approval.digest {
        return Ok(Trust::Approved(approval));
    }
    let mut changed: Vec<String> =
        now.iter().filter(|(path, digest)| approval.files.get(*path) != Some(digest)).map(|(p, _)| p.clone()).collect();
    changed.extend(approval.files.keys().filter(|path| !now.contains_key(*path)).cloned());
    changed.sort();
    Ok(Trust::Changed { files: changed })
}

/// Records that the user approves these files, as [`files`] gave them when the user was asked: what changed in the
/// meantime is then not approved.
pub fn approve(
    state: &Path,
    manifest: &Manifest,
    files: BTreeMap<String, Digest>,
    user: &str,
) -> Result<Approval, TrustError> {
    unedited(manifest, &files)?;
    let approval = Approval {
        root: root(manifest)?,
        digest: digest(&files),
        files,
        user: user.to_owned(),
        time: Timestamp::now(),
    };
    let folder = state.join("trust");
    let path = record(state, manifest);
    let access = |source| TrustError::Access { path: path.clone(), source };
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder).map_err(access)?;
    let text = serde_json::to_vec_pretty(&approval).map_err(TrustError::Json)?;
    let mut file = tempfile::NamedTempFile::new_in(&folder).map_err(access)?;
    file.write_all(&text).map_err(access)?;
    file.persist(&path).map_err(|error| access(error.error))?;
    Ok(approval)
}

fn root(manifest: &Manifest) -> Result<PathBuf, TrustError> {
    manifest.root.canonicalize().map_err(|source| TrustError::Access { path: manifest.root.clone(), source })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::project::manifest;

    #[test]
    fn an_approval_ends_when_anything_that_the_manifest_uses_changes() {
        let folder = tempfile::tempdir().unwrap();
        let state = tempfile::tempdir().unwrap();
        let path = folder.path().join("sandbox.yaml");
        std::fs::write(&path, "version: 1\nproject: demo\n").unwrap();
        let manifest = manifest::load(&path).unwrap();
        assert_eq!(status(state.path(), &manifest).unwrap(), Trust::New);
        approve(state.path(), &manifest, files(&manifest).unwrap(), "ada").unwrap();
        assert!(matches!(status(state.path(), &manifest).unwrap(), Trust::Approved(_)));

        std::fs::create_dir_all(folder.path().join("images/agent")).unwrap();
        std::fs::write(folder.path().join("images/agent/image.yaml"), "x").unwrap();
        let changed = Trust::Changed { files: vec!["images/agent/image.yaml".to_owned()] };
        assert_eq!(status(state.path(), &manifest).unwrap(), changed);
    }

    #[test]
    fn approves_nothing_when_the_manifest_was_edited_after_it_was_parsed() {
        let folder = tempfile::tempdir().unwrap();
        let state = tempfile::tempdir().unwrap();
        let path = folder.path().join("sandbox.yaml");
        std::fs::write(&path, "version: 1\nproject: demo\n").unwrap();
        let read = manifest::load(&path).unwrap();
        let approved = files(&read).unwrap();
        approve(state.path(), &read, approved, "ada").unwrap();

        std::fs::write(&path, "version: 1\nproject: demo\nprofile: debug\n").unwrap();
        assert!(matches!(status(state.path(), &read), Err(TrustError::Edited(_))));
        let edited = manifest::load(&path).unwrap();
        let edited_files = files(&edited).unwrap();
        assert!(matches!(approve(state.path(), &read, edited_files, "ada"), Err(TrustError::Edited(_))));
        let changed = Trust::Changed { files: vec!["sandbox.yaml".to_owned()] };
        assert_eq!(status(state.path(), &edited).unwrap(), changed);
    }

    #[test]
    fn refuses_a_symbolic_link_among_the_files() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("sandbox.yaml"), "version: 1\nproject: demo\n").unwrap();
        std::os::unix::fs::symlink("/etc/passwd", folder.path().join("Dockerfile.agent")).unwrap();
        let manifest = manifest::load(&folder.path().join("sandbox.yaml")).unwrap();
        assert!(matches!(files(&manifest), Err(TrustError::Special(_))));
    }

    #[test]
    fn a_preset_that_changed_since_it_was_read_is_not_approved() {
        let folder = tempfile::tempdir().unwrap();
        let presets = folder.path().join("profiles/network");
        std::fs::create_dir_all(&presets).unwrap();
        std::fs::write(presets.join("ours.yaml"), "description: d\nallow: [{ host: a.example }]\n").unwrap();
        let path = folder.path().join("sandbox.yaml");
        std::fs::write(&path, "version: 1\nproject: demo\nnetwork: { allow: [{ preset: ours }] }\n").unwrap();
        let read = manifest::load(&path).unwrap();
        assert!(files(&read).unwrap().contains_key("profiles/network/ours.yaml"));
        std::fs::write(presets.join("ours.yaml"), "description: d\nallow: [{ host: b.example }]\n").unwrap();
        assert!(matches!(files(&read), Err(TrustError::Edited(path)) if path.ends_with("ours.yaml")));
    }
}
