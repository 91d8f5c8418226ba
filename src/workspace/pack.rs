//! The objects of a bundle that came: checked into quarantine by one git process that reads the pack alone, and from there
//! into the developer's repository as they are.

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use super::WorkspaceError;
use super::git::Git;
use super::source::{Places, check_object_id};
use crate::init::bundle::{BundleHeader, BundleHeaderError, HEADER_LIMIT};

/// Reads the header of a bundle, and leaves the file at its pack.
pub(super) fn header(bundle: &Path) -> Result<(BundleHeader, File), WorkspaceError> {
    let mut file = File::open(bundle)?;
    let mut begun = Vec::new();
    (&mut file).take(HEADER_LIMIT as u64 + 1).read_to_end(&mut begun)?;
    let header = BundleHeader::parse(&begun)?.ok_or(BundleHeaderError::Ended)?;
    file.seek(SeekFrom::Start(header.length as u64))?;
    Ok((header, file))
}

/// Takes the pack into a repository: every object is checked as `transfer.fsckObjects` does, also by a git that does not do
/// so for what it fetches from a bundle (2.39), and every object that one of them names is there.
pub(super) fn take(repository: &Path, pack: File) -> Result<PackFiles, WorkspaceError> {
    // git-index-pack(1): it prints `pack`, a tab and the checksum that names the files.
    let said =
        Git::at(repository, "index-pack").args(["--stdin", "--fix-thin", "--strict"]).input_file(pack).output()?;
    let said = String::from_utf8_lossy(&said);
    let name = said.split(['\n', '\0']).next().and_then(|line| line.strip_prefix("pack\t")).unwrap_or_default();
    check_object_id(name).map_err(|_| WorkspaceError::Output("index-pack"))?;
    Ok(PackFiles { folder: repository.join("objects/pack"), name: format!("pack-{name}") })
}

/// A pack with what belongs to it.
#[derive(Debug)]
pub(super) struct PackFiles {
    folder: PathBuf,
    name: String,
}

/// Keeps a pack from being removed as long as no ref leads to it (git-repack(1), `.keep`).
#[derive(Debug)]
pub(super) struct Kept(Option<PathBuf>);

impl Drop for Kept {
    fn drop(&mut self) {
        if let Some(file) = &self.0 {
            let _ = std::fs::remove_file(file);
        }
    }
}

impl PackFiles {
    /// Copies it into a repository in the order in which git itself does (gitformat-pack(5)): git looks for indexes, so the
    /// pack is whole before there is one.
    pub(super) fn copy_into(&self, places: &Places) -> Result<Kept, WorkspaceError> {
        let target = places.objects.join("pack");
        std::fs::create_dir_all(&target)?;
        let there = |extension: &str| target.join(format!("{}.{extension}", self.name));
        if there("idx").exists() {
            return Ok(Kept(None));
        }
        let keep = there("keep");
        std::fs::write(&keep, "sandbox pull\n")?;
        let kept = Kept(Some(keep));
        for extension in ["pack", "rev", "idx"] {
            let source = self.folder.join(format!("{}.{extension}", self.name));
            // An older git writes no reverse index.
            if extension == "rev" && !source.exists() {
                continue;
            }
            let mut made = tempfile::Builder::new().prefix("tmp_sandbox_").tempfile_in(&target)?;
            std::io::copy(&mut File::open(&source)?, made.as_file_mut())?;
            made.as_file().set_permissions(std::fs::Permissions::from_mode(0o444))?;
            made.as_file().sync_all()?;
            made.persist(there(extension)).map_err(|error| error.error)?;
        }
        Ok(kept)
    }
}
