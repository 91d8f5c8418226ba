//! What was written into which project's files, in the launcher's state, where no agent can reach it.
//!
//! By it `pull` notices that commits change such a file, and `--remove` gives back the file that was there before, byte
//! for byte, as long as nobody else has changed it since.

use std::collections::BTreeMap;
use std::io::{self, Read as _, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha1::Sha1;
use sha2::{Digest as _, Sha256};

use super::file::LIMIT as FILE_LIMIT;
use super::{Editor, EditorError};
use crate::workspace::review::WrittenFile;

/// The largest record: a dozen files as they were before, escaped as JSON.
const LIMIT: u64 = 32 * FILE_LIMIT;

/// What was written into one project.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Memory {
    /// The files by path below the project's folder.
    pub files: BTreeMap<String, Written>,
}

/// One file as it was left.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Written {
    /// The editor's name.
    pub editor: String,
    /// SHA-256 of the whole text.
    sha256: String,
    /// The ids that git gives this text, in a repository of either kind.
    blobs: [String; 2],
    /// The text before; none when there was no file.
    pub before: Option<String>,
}

impl Written {
    /// Remembers that `text` replaced `before`, for an editor.
    pub fn new(editor: Editor, text: &str, before: Option<String>) -> Self {
        // A blob's id is the hash of its header and content: git's documentation, "Git Internals - Git Objects".
        let blob = format!("blob {}\0{text}", text.len());
        let blobs = [hex::encode(Sha1::digest(&blob)), hex::encode(Sha256::digest(&blob))];
        Self { editor: editor.name().to_owned(), sha256: hex::encode(Sha256::digest(text)), blobs, before }
    }

    /// Whether the file still is what was written.
    pub fn is(&self, text: &str) -> bool {
        self.sha256 == hex::encode(Sha256::digest(text))
    }
}

impl Memory {
    fn place(state: &Path, root: &Path) -> PathBuf {
        let name = hex::encode(Sha256::digest(root.as_os_str().as_bytes()));
        state.join("editors").join(format!("{name}.json"))
    }

    /// Reads what was written into the project with this folder.
    ///
    /// # Errors
    /// When there is a record that cannot be read.
    pub fn load(state: &Path, root: &Path) -> Result<Self, EditorError> {
        let path = Self::place(state, root);
        let read = || {
            let mut text = String::new();
            match std::fs::File::open(&path) {
                Ok(file) => file.take(LIMIT).read_to_string(&mut text)?,
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
                Err(error) => return Err(error),
            };
            serde_json::from_str(&text).map_err(io::Error::from)
        };
        read().map_err(|source| EditorError::Memory { path: path.clone(), source })
    }

    /// Keeps it; a project without such files has no record.
    ///
    /// # Errors
    /// When the state folder cannot be written.
    pub fn save(&self, state: &Path, root: &Path) -> Result<(), EditorError> {
        let path = Self::place(state, root);
        let save = || {
            if self.files.is_empty() {
                return match std::fs::remove_file(&path) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
                    _ => Ok(()),
                };
            }
            let folder = state.join("editors");
            std::fs::create_dir_all(&folder)?;
            let mut file = tempfile::NamedTempFile::new_in(&folder)?;
            file.write_all(&serde_json::to_vec(self).map_err(io::Error::from)?)?;
            file.as_file().sync_all()?;
            file.persist(&path).map_err(|error| error.error)?;
            Ok(())
        };
        save().map_err(|source| EditorError::Memory { path: path.clone(), source })
    }

    /// The files for a review of commits of a repository in which the project lies at `prefix`.
    pub fn written_files(&self, prefix: &Path) -> Vec<WrittenFile> {
        let file = |(path, written): (&String, &Written)| WrittenFile {
            path: prefix.join(path).to_string_lossy().into_owned(),
            blobs: written.blobs.to_vec(),
        };
        self.files.iter().map(file).collect()
    }
}
