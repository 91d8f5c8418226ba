//! The files that a Dockerfile takes from the project, and nothing else: what its COPY and ADD name, without what
//! `.dockerignore` leaves out and without files that hold credentials.
//!
//! Every file is opened beneath the project's folder. Owners, times and permissions but one do not come along, so that the
//! same files are the same context on every machine.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::AtFlags;

use super::ignore::{self, Ignore, Pattern, PatternError};
use crate::beneath::{self, Links, Opened};
use crate::image::reference::{Digest, Hasher};

/// Bytes of all files together.
const BYTES: u64 = 1 << 30;
/// Files, folders and links.
const ENTRIES: usize = 50_000;
/// Folders in folders.
const DEPTH: usize = 64;
/// The start of a file in which a private key would be seen, with a chain of certificates before it.
const HEAD: usize = 1 << 16;

/// Why the files of a build cannot be put together.
#[derive(Debug, thiserror::Error)]
pub enum ContextError {
    /// Not to be read.
    #[error("`{}` cannot be read", .0.display())]
    Read(PathBuf, #[source] io::Error),
    /// A line of the file of patterns is none.
    #[error("`{0}` cannot be used")]
    Ignore(String, #[source] PatternError),
    /// A path that leads out of the project.
    #[error("`{}` is not a path in the project", .0.escape_debug())]
    Source(String),
    /// A name that is not there or does not go into builds.
    #[error("`{}` is not there, or .dockerignore leaves it out, or it may hold credentials by its name", .0.escape_debug())]
    Nothing(String),
    /// A link that is not within the project.
    #[error("the link `{}` leads out of the project", .0.escape_debug())]
    Link(String),
    /// Devices, sockets and the like.
    #[error("`{}` is neither a file, a folder nor a link", .0.escape_debug())]
    Special(String),
    /// Text that looks like a private key.
    #[error("`{}` holds a private key", .0.escape_debug())]
    Key(String),
    /// A name that is not text.
    #[error("`{}` is not UTF-8", .0.display())]
    Name(PathBuf),
    /// More than a build should take.
    #[error("the files are more than {limit}")]
    TooLarge {
        /// Which limit.
        limit: &'static str,
    },
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Kind {
    Folder,
    File,
    Link(String),
}

/// The files of a build, which are read when they are written.
#[derive(Debug)]
pub struct BuildContext {
    root: OwnedFd,
    place: PathBuf,
    entries: BTreeMap<String, Kind>,
}

impl BuildContext {
    /// Looks for what the sources name. `name` is the Dockerfile's: `NAME.dockerignore` goes before `.dockerignore`.
    ///
    /// # Errors
    /// When a source names nothing, or something that may not go into a build.
    pub fn collect(place: &Path, name: &str, sources: &[String]) -> Result<Self, ContextError> {
        let read = |error| ContextError::Read(place.to_owned(), error);
        let root = beneath::folder(place).map_err(read)?;
        let ignore = patterns(&root, place, name)?;
        let mut wanted = Vec::new();
        for source in sources {
            wanted.push(Pattern::parse(source).ok_or_else(|| ContextError::Source(source.clone()))?);
        }
        let mut walk = Walk { ignore: &ignore, wanted: &wanted, entries: BTreeMap::new() };
        if !wanted.is_empty() {
            let top = beneath::folder(place).map_err(read)?;
            walk.folder(&top, "", 0).map_err(|error| match error {
                Fault::Read(path, error) => ContextError::Read(place.join(path), error),
                Fault::Context(error) => error,
            })?;
        }
        let entries = walk.entries;
        for (source, pattern) in sources.iter().zip(&wanted) {
            let whole = pattern.covers("");
            if !whole && !entries.keys().any(|path| pattern.covers(path)) {
                return Err(ContextError::Nothing(source.clone()));
            }
        }
        Ok(Self { root, place: place.to_owned(), entries })
    }

    /// How many files, folders and links there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether nothing is taken from the project.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The digest over paths, kinds and contents.
    ///
    /// # Errors
    /// When a file cannot be read, or should not be in an image.
    pub fn digest(&self) -> Result<Digest, ContextError> {
        self.write(io::sink(), 0, &[])
    }

    /// Writes the files as a tar, and `more` beside them, and gives the digest of what was written of the former.
    ///
    /// # Errors
    /// When a file cannot be read, or should not be in an image.
    pub fn write(&self, output: impl Write, epoch: u64, more: &[(&str, &[u8])]) -> Result<Digest, ContextError> {
        let mut builder = tar::Builder::new(output);
        let mut hash = Hasher::default();
        let mut left = BYTES;
        let header = |mode: u32, size: u64, kind: tar::EntryType| {
            let mut header = tar::Header::new_gnu();
            header.set_entry_type(kind);
            header.set_mode(mode);
            header.set_size(size);
            header.set_mtime(epoch);
            header.set_uid(0);
            header.set_gid(0);
            header
        };
        for (path, kind) in &self.entries {
            let failed = |error| ContextError::Read(self.place.join(path), error);
            let mut record = |tag: u8, text: &[u8]| {
                hash.update(&[tag]);
                hash.update(&(text.len() as u64).to_be_bytes());
                hash.update(text);
            };
            record(b'p', path.as_bytes());
            match kind {
                Kind::Folder => {
                    record(b'd', b"");
                    let mut header = header(0o755, 0, tar::EntryType::Directory);
                    builder.append_data(&mut header, format!("{path}/"), io::empty()).map_err(failed)?;
                }
                Kind::Link(target) => {
                    record(b'l', target.as_bytes());
                    let mut header = header(0o777, 0, tar::EntryType::Symlink);
                    builder.append_link(&mut header, path, target).map_err(failed)?;
                }
                Kind::File => {
                    let opened = beneath::open(&self.root, Path::new(path), Links::Refused).map_err(failed)?;
                    let Opened::File(file, size) = opened else { return Err(ContextError::Special(path.clone())) };
                    left = left.checked_sub(size).ok_or(ContextError::TooLarge { limit: "1 GiB" })?;
                    let mode = std::os::unix::fs::PermissionsExt::mode(&file.metadata().map_err(failed)?.permissions());
                    let executable = mode & 0o100 != 0;
                    record(if executable { b'x' } else { b'f' }, b"");
                    hash.update(&size.to_be_bytes());
                    let mut reader = Watched { inner: file.take(size), hash: &mut hash, head: Vec::new(), count: 0 };
                    let mut header = header(if executable { 0o755 } else { 0o644 }, size, tar::EntryType::Regular);
                    builder.append_data(&mut header, path, &mut reader).map_err(failed)?;
                    if reader.count != size {
                        return Err(failed(io::Error::other("it changed while it was read")));
                    }
                    if is_key(&reader.head) {
                        return Err(ContextError::Key(path.clone()));
                    }
                }
            }
        }
        for (path, bytes) in more {
            let failed = |error| ContextError::Read(PathBuf::from(path), error);
            let mut header = header(0o644, bytes.len() as u64, tar::EntryType::Regular);
            builder.append_data(&mut header, path, *bytes).map_err(failed)?;
        }
        let finished = builder.into_inner().and_then(|mut output| output.flush());
        finished.map_err(|error| ContextError::Read(self.place.clone(), error))?;
        Ok(hash.digest())
    }
}

/// The patterns of the Dockerfile's own file, or else of the project's.
fn patterns(root: &OwnedFd, place: &Path, name: &str) -> Result<Ignore, ContextError> {
    let mut text = String::new();
    for file in [format!("{name}.dockerignore"), ".dockerignore".to_owned()] {
        let failed = |error| ContextError::Read(place.join(&file), error);
        match beneath::open(root, Path::new(&file), Links::Refused) {
            Ok(Opened::File(reader, size)) => {
                if size > ignore::LIMIT {
                    return Err(failed(io::ErrorKind::FileTooLarge.into()));
                }
                reader.take(ignore::LIMIT).read_to_string(&mut text).map_err(failed)?;
                return Ignore::parse(&text).map_err(|error| ContextError::Ignore(file.clone(), error));
            }
            Ok(_) => return Err(failed(io::ErrorKind::InvalidInput.into())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(failed(error)),
        }
    }
    Ignore::parse("").map_err(|error| ContextError::Ignore(name.to_owned(), error))
}

/// Armour of PEM and OpenSSH (RFC 7468, section 2).
fn is_key(head: &[u8]) -> bool {
    let text = String::from_utf8_lossy(head);
    text.lines().any(|line| line.starts_with("-----BEGIN ") && line.contains("PRIVATE KEY"))
        || text.contains("AGE-SECRET-KEY-1")
}

/// Hashes what is read, and keeps the start.
struct Watched<'a, R> {
    inner: R,
    hash: &'a mut Hasher,
    head: Vec<u8>,
    count: u64,
}

impl<R: Read> Read for Watched<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.hash.update(&buffer[..count]);
        let kept = count.min(HEAD - self.head.len());
        self.head.extend_from_slice(&buffer[..kept]);
        self.count += count as u64;
        Ok(count)
    }
}

enum Fault {
    Read(String, io::Error),
    Context(ContextError),
}

struct Walk<'a> {
    ignore: &'a Ignore,
    wanted: &'a [Pattern],
    entries: BTreeMap<String, Kind>,
}

impl Walk<'_> {
    fn folder(&mut self, folder: &OwnedFd, path: &str, depth: usize) -> Result<(), Fault> {
        let failed = |error| Fault::Read(path.to_owned(), error);
        if depth > DEPTH {
            return Err(Fault::Context(ContextError::TooLarge { limit: "64 folders deep" }));
        }
        let names = beneath::listed(folder, ENTRIES + 1).map_err(failed)?;
        for name in names {
            let within = Path::new(path).join(&name);
            let Some(inner) = within.to_str().map(str::to_owned) else {
                // What nobody asked for may have any name.
                let wanted = self.wanted.iter().any(|pattern| pattern.covers(path));
                if wanted {
                    return Err(Fault::Context(ContextError::Name(within)));
                }
                continue;
            };
            let wanted = self.wanted.iter().any(|pattern| pattern.covers(&inner));
            let reached = self.wanted.iter().any(|pattern| pattern.reaches(&inner));
            if !(wanted || reached) || self.ignore.excludes_all(&inner) {
                continue;
            }
            let taken = wanted && !self.ignore.excludes(&inner);
            match beneath::open(folder, &name, Links::Refused) {
                Ok(Opened::Folder(below)) => {
                    if taken {
                        self.add(&inner, Kind::Folder)?;
                    }
                    self.folder(&below, &inner, depth + 1)?;
                }
                Ok(Opened::File(..)) if taken => self.add(&inner, Kind::File)?,
                Ok(Opened::File(..)) => {}
                Ok(Opened::Other) | Err(_) if !taken => {}
                Ok(Opened::Other) | Err(_) => {
                    let kind = link(folder, &name, &inner)?;
                    self.add(&inner, kind)?;
                }
            }
        }
        Ok(())
    }

    /// Adds an entry, and the folders above it, which a negated line may have left out.
    fn add(&mut self, path: &str, kind: Kind) -> Result<(), Fault> {
        for (end, _) in path.match_indices('/') {
            self.entries.entry(path[..end].to_owned()).or_insert(Kind::Folder);
        }
        self.entries.insert(path.to_owned(), kind);
        match self.entries.len() > ENTRIES {
            true => Err(Fault::Context(ContextError::TooLarge { limit: "50000 entries" })),
            false => Ok(()),
        }
    }
}

/// What is neither a file nor a folder: a link that stays within the project, by its text.
fn link(folder: &OwnedFd, name: &Path, path: &str) -> Result<Kind, Fault> {
    let stat = rustix::fs::statat(folder, name, AtFlags::SYMLINK_NOFOLLOW);
    let stat = stat.map_err(|error| Fault::Read(path.to_owned(), error.into()))?;
    if rustix::fs::FileType::from_raw_mode(stat.st_mode) != rustix::fs::FileType::Symlink {
        return Err(Fault::Context(ContextError::Special(path.to_owned())));
    }
    let target = rustix::fs::readlinkat(folder, name, Vec::new());
    let target = target.map_err(|error| Fault::Read(path.to_owned(), error.into()))?;
    let outside = || Fault::Context(ContextError::Link(path.to_owned()));
    let target = target.into_string().map_err(|_| outside())?;
    let mut depth = path.matches('/').count();
    if target.starts_with('/') {
        return Err(outside());
    }
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." => depth = depth.checked_sub(1).ok_or_else(outside)?,
            _ => depth += 1,
        }
    }
    Ok(Kind::Link(target))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    fn project(files: &[(&str, &str)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = folder.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        folder
    }

    fn collect(folder: &tempfile::TempDir, sources: &[&str]) -> Result<BuildContext, ContextError> {
        let sources: Vec<String> = sources.iter().map(|source| (*source).to_owned()).collect();
        BuildContext::collect(folder.path(), "Dockerfile.agent", &sources)
    }

    fn paths(context: &BuildContext) -> Vec<&str> {
        context.entries.keys().map(String::as_str).collect()
    }

    #[test]
    fn takes_what_is_named_and_nothing_else() {
        let folder =
            project(&[("a/one.txt", "1"), ("a/two.md", "2"), ("b/three", "3"), (".env", "SECRET=1"), ("c", "")]);
        assert_eq!(paths(&collect(&folder, &["a/*.txt", "/c"]).unwrap()), ["a", "a/one.txt", "c"]);
        assert!(collect(&folder, &[]).unwrap().is_empty());
        std::fs::write(folder.path().join(".dockerignore"), "*.md\nb\n!b/three\na/*.md\n").unwrap();
        assert_eq!(paths(&collect(&folder, &["."]).unwrap()), ["a", "a/one.txt", "b", "b/three", "c"]);
        std::fs::write(folder.path().join("Dockerfile.agent.dockerignore"), "*\n!c\n").unwrap();
        assert_eq!(paths(&collect(&folder, &["."]).unwrap()), ["c"]);
        for source in ["absent", ".env", "a/one.txt"] {
            assert!(matches!(collect(&folder, &[source]), Err(ContextError::Nothing(_))), "{source}");
        }
        assert!(matches!(collect(&folder, &["../x"]), Err(ContextError::Source(_))));
    }

    #[test]
    fn refuses_links_that_lead_out_keys_and_special_files() {
        let key = "-----BEGIN OPENSSH PRIVATE KEY-----\nx\n";
        let folder = project(&[("in/file", "1"), ("secrets/deploy", key)]);
        symlink("../in/file", folder.path().join("in/near")).unwrap();
        assert_eq!(paths(&collect(&folder, &["in"]).unwrap()), ["in", "in/file", "in/near"]);
        let context = collect(&folder, &["secrets"]).unwrap();
        assert!(matches!(context.digest(), Err(ContextError::Key(path)) if path == "secrets/deploy"));
        for target in ["/etc/passwd", "../../outside", "a/../../.."] {
            let link = folder.path().join("in/far");
            symlink(target, &link).unwrap();
            assert!(matches!(collect(&folder, &["in"]), Err(ContextError::Link(path)) if path == "in/far"), "{target}");
            std::fs::remove_file(link).unwrap();
        }
        let socket = std::os::unix::net::UnixListener::bind(folder.path().join("in/socket")).unwrap();
        assert!(matches!(collect(&folder, &["in"]), Err(ContextError::Special(path)) if path == "in/socket"));
        drop(socket);
    }

    #[test]
    fn a_folder_that_becomes_a_link_between_two_looks_is_not_followed() {
        let folder = project(&[("in/file", "inside"), ("out/file", "outside")]);
        let context = collect(&folder, &["in"]).unwrap();
        std::fs::rename(folder.path().join("in"), folder.path().join("old")).unwrap();
        symlink("out", folder.path().join("in")).unwrap();
        assert!(matches!(context.digest(), Err(ContextError::Read(..))));
    }

    #[test]
    fn the_digest_is_of_names_contents_and_the_executable_bit_alone() {
        let folder = project(&[("a", "1"), ("b", "2")]);
        let digest = || collect(&folder, &["."]).unwrap().digest().unwrap();
        let first = digest();
        let path = folder.path().join("a");
        let mode = |mode| std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        mode(0o600);
        let file = std::fs::File::options().write(true).open(&path).unwrap();
        file.set_modified(std::time::UNIX_EPOCH).unwrap();
        assert_eq!(digest(), first);
        mode(0o700);
        assert_ne!(digest(), first);
        mode(0o644);
        std::fs::write(&path, "3").unwrap();
        assert_ne!(digest(), first);
        let mut bytes = Vec::new();
        let context = collect(&folder, &["."]).unwrap();
        assert_eq!(context.write(&mut bytes, 7, &[("Dockerfile", b"FROM x")]).unwrap(), context.digest().unwrap());
        let mut archive = tar::Archive::new(&bytes[..]);
        let entries = archive.entries().unwrap().map(|entry| {
            let entry = entry.unwrap();
            (entry.path().unwrap().display().to_string(), entry.header().mtime().unwrap())
        });
        assert_eq!(
            entries.collect::<Vec<_>>(),
            [("a".to_owned(), 7), ("b".to_owned(), 7), ("Dockerfile".to_owned(), 7)]
        );
    }
}
