//! What is wrong with a file that people write: the place, the fault, and what to write instead.

use std::path::{Path, PathBuf};

/// A place in a text; lines and columns count characters from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The line.
    pub line: usize,
    /// The column of the first character.
    pub column: usize,
    /// Characters, from 1.
    pub length: usize,
}

impl Place {
    /// The first character of a file.
    pub const START: Self = Self { line: 1, column: 1, length: 1 };
}

/// One fault.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Problem {
    /// The line, from 1.
    pub line: usize,
    /// The column, from 1.
    pub column: usize,
    /// Characters that are at fault.
    pub length: usize,
    /// What is wrong, as a lower-case fragment.
    pub message: String,
    /// What to write instead.
    pub remedy: String,
}

impl Problem {
    /// A fault at a place.
    pub fn new(place: Place, message: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self {
            line: place.line,
            column: place.column,
            length: place.length,
            message: message.into(),
            remedy: remedy.into(),
        }
    }
}

/// Why a manifest, or another file that people write, is refused.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// The file cannot be read.
    #[error("read {}", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// The file has faults.
    #[error("accept {}: {}", .path.display(), count(.problems.len()))]
    Invalid {
        /// The file.
        path: PathBuf,
        /// Its text, for showing the lines; bounded in size.
        text: String,
        /// The faults, by line; at least one.
        problems: Vec<Problem>,
    },
}

fn count(problems: usize) -> String {
    if problems == 1 { "1 problem".to_owned() } else { format!("{problems} problems") }
}

impl ManifestError {
    /// The faults, sorted by place.
    pub(crate) fn invalid(path: &Path, text: &str, mut problems: Vec<Problem>) -> Self {
        problems.sort_by_key(|problem| (problem.line, problem.column));
        // Text beyond the limit is never shown, so it is not kept.
        let shown = if text.len() > super::yaml::SIZE_LIMIT { String::new() } else { text.to_owned() };
        Self::Invalid { path: path.to_owned(), text: shown, problems }
    }

    /// The faults; empty when the file could not be read.
    pub fn problems(&self) -> &[Problem] {
        match self {
            Self::Read { .. } => &[],
            Self::Invalid { problems, .. } => problems,
        }
    }
}
