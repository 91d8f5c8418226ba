//! Files of git-lfs that go along: out of the developer's own store, without git-lfs and without its filters.

use std::path::PathBuf;

use super::WorkspaceError;
use super::git::{Git, GitError};
use super::source::Places;

/// The most bytes of a pointer (docs/spec.md of git-lfs, "The Pointer").
const POINTER: usize = 1024;
/// The most pointers.
const POINTERS: usize = 100_000;
/// The most bytes of all names of files with a pointer.
const NAMES: usize = 64 << 20;
/// What a pointer begins with.
const VERSION: &str = "version https://git-lfs.github.com/spec/v1";

/// A file of git-lfs.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct LargeFile {
    /// SHA-256 of its content, in hexadecimal digits.
    pub oid: String,
    /// Its size in bytes.
    pub size: u64,
    /// Where it lies.
    pub file: PathBuf,
}

/// The files that the pointers of a commit below these paths mean.
///
/// # Errors
/// When one of them is not in the store.
pub(super) fn find(places: &Places, base: &str, paths: &[String]) -> Result<Vec<LargeFile>, WorkspaceError> {
    if paths.is_empty() {
        return Ok(Vec::new());
    }
    let grep = places
        .git("grep")
        .args(["-l", "-z", "--full-name", "--fixed-strings", "-e", VERSION, base, "--"])
        .args(paths)
        .limit(NAMES)
        .output();
    let listing = match grep {
        Ok(listing) => listing,
        Err(GitError::Failed { code: Some(1), .. }) => return Ok(Vec::new()),
        Err(error) => return Err(error.into()),
    };
    let store = PathBuf::from(places.git("rev-parse").args(["--path-format=absolute", "--git-common-dir"]).line()?);
    let store = store.join("lfs/objects");
    let mut found = Vec::new();
    for name in listing.split(|byte| *byte == 0).filter(|name| !name.is_empty()).take(POINTERS) {
        let name = String::from_utf8_lossy(name);
        let content = match pointer(places, &name) {
            Ok(content) => content,
            // A large file that only speaks of pointers is none.
            Err(GitError::TooMuch(..)) => continue,
            Err(error) => return Err(error.into()),
        };
        let Some((oid, size)) = parse(&content) else { continue };
        let file = store.join(&oid[..2]).join(&oid[2..4]).join(&oid);
        if !file.metadata().is_ok_and(|metadata| metadata.is_file() && metadata.len() == size) {
            let path = name.split_once(':').map_or(&*name, |(_, path)| path).to_owned();
            return Err(WorkspaceError::LargeFileAbsent(path));
        }
        found.push(LargeFile { oid, size, file });
    }
    found.sort();
    found.dedup();
    Ok(found)
}

fn pointer(places: &Places, name: &str) -> Result<Vec<u8>, GitError> {
    Git::at(&places.git_dir, "cat-file").args(["blob", name]).limit(POINTER).output()
}

/// Digest and size of a pointer: lines of a key and a value, the version first.
fn parse(content: &[u8]) -> Option<(String, u64)> {
    let text = std::str::from_utf8(content).ok()?;
    let mut lines = text.lines();
    if lines.next() != Some(VERSION) {
        return None;
    }
    let (mut oid, mut size) = (None, None);
    for line in lines {
        match line.split_once(' ')? {
            ("oid", value) => oid = value.strip_prefix("sha256:"),
            ("size", value) => size = value.parse().ok(),
            _ => {}
        }
    }
    let digits = |oid: &&str| oid.len() == 64 && oid.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    Some((oid.filter(digits)?.to_owned(), size?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_pointers_and_nothing_else() {
        let oid = "4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393";
        let text = format!("{VERSION}\next-0-x sha256:1\noid sha256:{oid}\nsize 12345\n");
        assert_eq!(parse(text.as_bytes()), Some((oid.to_owned(), 12345)));
        for wrong in [
            format!("x\n{text}"),
            text.replace("12345", "-1"),
            text.replace("4d7a", "../x"),
            text.replace("sha256:4d", "sha512:4d"),
            VERSION.to_owned(),
        ] {
            assert_eq!(parse(wrong.as_bytes()), None, "{wrong}");
        }
    }
}
