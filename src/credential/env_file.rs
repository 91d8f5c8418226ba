//! Values from an env file that belongs to the project's agents, such as `.env.agent`.
//!
//! The developer's own `.env`, a file that others can read and one that git tracks are refused.

use std::io;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Component, Path, PathBuf};

use jiff::Timestamp;
use zeroize::Zeroizing;

use super::secret::Secret;
use crate::workspace::git::{Git, GitError};

/// The largest file that is read, in bytes.
const LIMIT: usize = 256 << 10;

/// Why an env file could not be used.
#[derive(Debug, thiserror::Error)]
pub enum EnvFileError {
    /// Reading failed.
    #[error("read {path}")]
    Io {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The path leaves the project, or is a link.
    #[error("use {path}, which is not a plain file inside the project")]
    Outside {
        /// The path.
        path: PathBuf,
    },
    /// It is the developer's own file.
    #[error("use {path}, which is the developer's own")]
    Developers {
        /// The file.
        path: PathBuf,
    },
    /// Group or others may read it.
    #[error("use {path}, which others can read (mode {mode:04o})")]
    Readable {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// git tracks it.
    #[error("use {path}, which git tracks")]
    Tracked {
        /// The file.
        path: PathBuf,
    },
    /// git did not say whether it tracks the file.
    #[error("ask git whether it tracks {path}")]
    Unasked {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: GitError,
    },
    /// A line is not an assignment.
    #[error("understand line {line} of {path}")]
    Line {
        /// The file.
        path: PathBuf,
        /// The line's number, from 1.
        line: usize,
    },
    /// The variable is not set.
    #[error("find {variable} in {path}")]
    Absent {
        /// The file.
        path: PathBuf,
        /// The variable.
        variable: String,
    },
}

/// Reads one variable. Gives the file's time of change too, which stands for the value's age.
///
/// # Errors
/// When the file is refused, or does not set the variable.
pub fn read(root: &Path, path: &Path, variable: &str) -> Result<(Secret, Timestamp), EnvFileError> {
    let (text, modified) = open(root, path)?;
    let found = parse(text.expose()).map_err(|line| EnvFileError::Line { path: path.to_path_buf(), line })?;
    let value = found.into_iter().rfind(|(name, _)| name == variable).map(|(_, value)| value);
    let absent = || EnvFileError::Absent { path: path.to_path_buf(), variable: variable.to_owned() };
    Ok((value.ok_or_else(absent)?, modified))
}

/// Reads all variables.
///
/// # Errors
/// When the file is refused.
pub fn read_all(root: &Path, path: &Path) -> Result<Vec<(String, Secret)>, EnvFileError> {
    let (text, _) = open(root, path)?;
    parse(text.expose()).map_err(|line| EnvFileError::Line { path: path.to_path_buf(), line })
}

/// Reads a whole file under the same rules, such as one that holds nothing but a secret.
///
/// # Errors
/// When the file is refused.
pub fn read_whole(root: &Path, path: &Path) -> Result<Secret, EnvFileError> {
    open(root, path).map(|(text, _)| text)
}

fn open(root: &Path, path: &Path) -> Result<(Secret, Timestamp), EnvFileError> {
    let shown = path.to_path_buf();
    let failed = |source| EnvFileError::Io { path: shown.clone(), source };
    let relative = path.strip_prefix(root).unwrap_or(path);
    if relative.as_os_str().is_empty() || !relative.components().all(|part| matches!(part, Component::Normal(_))) {
        return Err(EnvFileError::Outside { path: shown });
    }
    if relative.file_name().is_some_and(|name| name == ".env" || name == ".env.local") {
        return Err(EnvFileError::Developers { path: shown });
    }
    let full = root.join(relative);
    // No component may be a link: the repository is not trusted to say where it leads.
    let resolved = full.canonicalize().map_err(failed)?;
    if resolved != root.canonicalize().map_err(failed)?.join(relative) {
        return Err(EnvFileError::Outside { path: shown });
    }
    // NONBLOCK so that a named pipe is refused below and not waited for; on plain files it does nothing.
    let flags = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK;
    let flags = i32::try_from(flags.bits()).unwrap_or_default();
    let file = std::fs::File::options().read(true).custom_flags(flags).open(&full).map_err(failed)?;
    let metadata = file.metadata().map_err(failed)?;
    if !metadata.is_file() {
        return Err(EnvFileError::Outside { path: shown });
    }
    let mode = metadata.mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(EnvFileError::Readable { path: shown, mode });
    }
    match tracked(&resolved) {
        Ok(false) => {}
        Ok(true) => return Err(EnvFileError::Tracked { path: shown }),
        Err(source) => return Err(EnvFileError::Unasked { path: shown, source }),
    }
    let modified = Timestamp::from_second(metadata.mtime()).unwrap_or(Timestamp::UNIX_EPOCH);
    let text = Secret::read(file, LIMIT).map_err(failed)?;
    Ok((text, modified))
}

/// Whether git tracks the file. It is asked in the file's own folder, so that the innermost repository answers.
fn tracked(file: &Path) -> Result<bool, GitError> {
    // Outside of any repository nothing is tracked, and git need not be there.
    if !file.ancestors().skip(1).any(|folder| folder.join(".git").symlink_metadata().is_ok()) {
        return Ok(false);
    }
    let (Some(folder), Some(name)) = (file.parent(), file.file_name()) else { return Ok(false) };
    match Git::discover(folder, "ls-files").args(["--error-unmatch", "--"]).arg(name).output() {
        Ok(_) => Ok(true),
        // git-ls-files(1): 1 is the answer that the index does not have it; everything else is no answer.
        Err(GitError::Failed { code: Some(1), .. }) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Reads assignments: `NAME=value`, an optional `export`, values bare, in single quotes (as they are) or in double
/// quotes (with `\n`, `\"`, `\\`, `\$`). Nothing is expanded. An error is the number of the line.
pub fn parse(text: &[u8]) -> Result<Vec<(String, Secret)>, usize> {
    let text = std::str::from_utf8(text).map_err(|_| 1_usize)?;
    let mut variables = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let line = line.strip_prefix("export ").unwrap_or(line).trim_start();
        let (name, value) = line.split_once('=').ok_or(index + 1)?;
        let first = name.chars().next().is_some_and(|first| first.is_ascii_alphabetic() || first == '_');
        if !first || !name.chars().all(|character| character.is_ascii_alphanumeric() || character == '_') {
            return Err(index + 1);
        }
        let value = unquote(value.trim_start()).ok_or(index + 1)?;
        variables.push((name.to_owned(), Secret::new(value)));
    }
    Ok(variables)
}

fn unquote(text: &str) -> Option<Vec<u8>> {
    if let Some(rest) = text.strip_prefix('\'') {
        let (value, after) = rest.split_once('\'')?;
        return is_comment(after).then(|| value.as_bytes().to_vec());
    }
    if let Some(rest) = text.strip_prefix('"') {
        let mut value = Zeroizing::new(String::with_capacity(rest.len()));
        let mut characters = rest.chars();
        loop {
            match characters.next()? {
                '"' => return is_comment(characters.as_str()).then(|| value.as_bytes().to_vec()),
                '\\' => value.push(match characters.next()? {
                    'n' => '\n',
                    't' => '\t',
                    escaped @ ('"' | '\\' | '$') => escaped,
                    _ => return None,
                }),
                plain => value.push(plain),
            }
        }
    }
    let value = text.split_once(" #").map_or(text, |(value, _)| value).trim_end();
    (!value.contains(['\'', '"'])).then(|| value.as_bytes().to_vec())
}

fn is_comment(rest: &str) -> bool {
    let rest = rest.trim();
    rest.is_empty() || rest.starts_with('#')
}

#[cfg(test)]
mod tests;
