//! The launcher's own images that it has loaded, by digest, so that `gc` can remove those of earlier versions: a label
//! would not prove that an image is ours.

use std::fs;
use std::io::{self, Write as _};
use std::path::Path;

use crate::engine::{Engine, EngineError};
use crate::image::reference::Digest;
use crate::session::plan::helper_volume;

/// The file in the launcher's state folder: a digest a line.
const FILE: &str = "launcher-images";
/// The most bytes that are read of it.
const LIMIT: usize = 64 << 10;

/// Remembers a version; to be called before its image is loaded.
///
/// # Errors
/// When the file cannot be written.
pub fn remember(state: &Path, config: &Digest) -> io::Result<()> {
    let mut known = read(state)?;
    if known.contains(config) {
        return Ok(());
    }
    known.push(config.clone());
    write(state, &known)
}

fn read(state: &Path) -> io::Result<Vec<Digest>> {
    match fs::read(state.join(FILE)) {
        Ok(bytes) => {
            let text = String::from_utf8_lossy(&bytes[..bytes.len().min(LIMIT)]).into_owned();
            Ok(text.lines().filter_map(|line| line.parse().ok()).collect())
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

fn write(state: &Path, known: &[Digest]) -> io::Result<()> {
    fs::create_dir_all(state)?;
    let mut file = tempfile::NamedTempFile::new_in(state)?;
    for digest in known {
        writeln!(file, "{digest}")?;
    }
    file.as_file().sync_all()?;
    file.persist(state.join(FILE)).map(drop).map_err(|error| error.error)
}

/// Why earlier versions were not removed.
#[derive(Debug, thiserror::Error)]
pub enum VersionsError {
    /// The list failed.
    #[error("use the list of the launcher's images")]
    List(#[from] io::Error),
    /// The engine failed.
    #[error("remove images of earlier versions")]
    Engine(#[from] EngineError),
}

/// Removes images and helper volumes of other versions than `current` that no container uses, and gives their digests.
/// With `dry_run` nothing is removed, and what a container uses is among them.
///
/// # Errors
/// When the list or the engine fails.
pub async fn remove_others(
    engine: &Engine,
    state: &Path,
    current: &Digest,
    dry_run: bool,
) -> Result<Vec<Digest>, VersionsError> {
    let mut kept = Vec::new();
    let mut removed = Vec::new();
    for digest in read(state)? {
        if digest == *current {
            kept.push(digest);
        } else if dry_run || remove(engine, &digest).await? {
            removed.push(digest);
        } else {
            kept.push(digest);
        }
    }
    if !dry_run {
        write(state, &kept)?;
    }
    Ok(removed)
}

/// Whether both are gone.
async fn remove(engine: &Engine, digest: &Digest) -> Result<bool, EngineError> {
    let volume = engine.remove_volume(&helper_volume(digest)).await;
    let image = match &volume {
        Ok(()) => engine.remove_image(&digest.to_string()).await,
        Err(_) => Ok(()),
    };
    for result in [volume, image] {
        match result {
            Ok(()) => {}
            Err(EngineError::InUse { .. }) => return Ok(false),
            Err(error) => return Err(error),
        }
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn remembers_each_version_once_and_reads_past_what_is_no_digest() {
        let folder = tempfile::tempdir().unwrap();
        let state = folder.path().join("state");
        let (one, other) = (Digest::of(b"one"), Digest::of(b"other"));
        for digest in [&one, &other, &one] {
            remember(&state, digest).unwrap();
        }
        assert_eq!(read(&state).unwrap(), [one.clone(), other.clone()]);
        fs::write(state.join(FILE), format!("junk\n{one}\nsha256:zz\n")).unwrap();
        remember(&state, &other).unwrap();
        assert_eq!(read(&state).unwrap(), [one, other]);
    }
}
