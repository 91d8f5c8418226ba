//! A key that issues others, from a file of the developer's or from a command: worth more than what is issued with it, so it
//! is in no project's folder, and it is never delivered.

use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;

use super::secret::Secret;
use super::spec::KeySource;
use super::{IssueContext, exec};
use crate::project::CredentialName;

/// The largest key that is read, in bytes: 16 KiB is several times an RSA key of 4096 bits in PEM.
const LIMIT: usize = 16 << 10;

/// Why a key cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The file cannot be read.
    #[error("read the key in {path}")]
    File {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The file must not be used.
    #[error("use the key in {path}: {problem}")]
    Place {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: &'static str,
    },
    /// The command failed.
    #[error("have a command say the key")]
    Command(#[from] exec::ExecError),
}

/// Reads the key.
///
/// # Errors
/// When the command fails, or the file cannot be read, is one that others can read, or lies inside the project.
pub(super) async fn read(
    source: &KeySource,
    name: &CredentialName,
    context: &IssueContext<'_>,
) -> Result<Secret, KeyError> {
    let path = match source {
        KeySource::Command(command) => {
            return Ok(exec::issue(command, &exec::Request::new(name, context, None)).await?.value);
        }
        KeySource::File(path) => match path.strip_prefix("~") {
            Ok(rest) => context.home.join(rest),
            Err(_) => path.clone(),
        },
    };
    let failed = |source: io::Error| KeyError::File { path: path.clone(), source };
    let refused = |problem| Err(KeyError::Place { path: path.clone(), problem });
    // What is looked at and what is read are one open file, whatever a path leads to later.
    let real = path.canonicalize().map_err(failed)?;
    if real.starts_with(context.project_root.canonicalize().map_err(failed)?) {
        return refused("it is inside the project, from where it gets into commits");
    }
    let options = rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK;
    let opened = rustix::fs::open(&real, options | rustix::fs::OFlags::CLOEXEC, rustix::fs::Mode::empty());
    let file = File::from(opened.map_err(|error| failed(error.into()))?);
    let about = file.metadata().map_err(failed)?;
    if !about.is_file() {
        return refused("it is not a plain file");
    }
    if about.mode() & 0o077 != 0 {
        return refused("others can read it; its mode has to be 600");
    }
    Secret::read(file, LIMIT).map_err(failed)
}
