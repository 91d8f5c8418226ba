//! The root file system in memory: paths and metadata here, contents in files on disk.
//!
//! Packages are merged into it as dpkg would: symbolic links to folders stay and are followed. As no path ever reaches
//! the machine's own file system, a hostile package can at most damage the image that names it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::Arc;

use md5::Digest as _;

use super::error::{ImageError, PackageProblem, at};
use super::reference::{Digest, Hasher};

/// What the name of a mark begins with that hides an entry of a lower layer (image-spec, layer.md).
const WHITEOUT: &str = ".wh.";

/// Bytes of a file that is read as a whole; dpkg's `status` of a large image has some million.
const TEXT: u64 = 64 << 20;

/// Bytes of a layer that are written, and then hashed, at once.
const BLOCK: usize = 1 << 18;

/// Blocks that may be written and not hashed yet.
const BLOCKS: usize = 8;

/// Bytes of a regular file.
#[derive(Debug, Clone)]
pub enum Content {
    /// Small, made by the builder.
    Bytes(Arc<[u8]>),
    /// A stretch of a file on disk.
    Spilled {
        /// The file.
        file: Arc<File>,
        /// First byte.
        offset: u64,
        /// Number of bytes.
        length: u64,
    },
}

impl Content {
    /// Number of bytes.
    pub fn length(&self) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::Spilled { length, .. } => *length,
        }
    }

    /// The MD5 of the bytes, for dpkg's database; it protects nothing.
    pub fn md5(&self) -> std::io::Result<[u8; 16]> {
        let mut hash = md5::Md5::new();
        std::io::copy(&mut self.reader(), &mut hash)?;
        Ok(hash.finalize().into())
    }

    /// The bytes, from the first.
    pub(super) fn reader(&self) -> Box<dyn Read + '_> {
        match self {
            Self::Bytes(bytes) => Box::new(&bytes[..]),
            Self::Spilled { file, offset, length } => Box::new(Stretch { file, offset: *offset, left: *length }),
        }
    }
}

struct Stretch<'a> {
    file: &'a File,
    offset: u64,
    left: u64,
}

impl Read for Stretch<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let limit = buffer.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        let count = self.file.read_at(&mut buffer[..limit], self.offset)?;
        self.offset += count as u64;
        self.left -= count as u64;
        Ok(count)
    }
}

/// What an entry is.
#[derive(Debug, Clone)]
pub enum Kind {
    /// A folder.
    Folder,
    /// A regular file.
    File(Content),
    /// A symbolic link and its target.
    Symlink(String),
    /// Another name of the file at this path.
    HardLink(String),
}

/// One entry of the root.
#[derive(Debug, Clone)]
pub struct Entry {
    /// What it is.
    pub kind: Kind,
    /// The lower 12 bits of the mode.
    pub mode: u32,
    /// Owner.
    pub uid: u64,
    /// Group.
    pub gid: u64,
    /// Modification time, Unix seconds.
    pub time: u64,
    /// File capabilities (capabilities(7)), as the extended attribute has them.
    pub capability: Option<Arc<[u8]>>,
    /// The package it is from.
    pub package: Option<Arc<str>>,
    /// Whether a lower layer has it as it is.
    pub below: bool,
}

impl Entry {
    /// An entry of root's that the builder makes.
    pub fn new(kind: Kind, mode: u32) -> Self {
        Self { kind, mode, uid: 0, gid: 0, time: u64::MAX, capability: None, package: None, below: false }
    }

    /// The same with another owner.
    pub fn owned(mut self, uid: u64, gid: u64) -> Self {
        (self.uid, self.gid) = (uid, gid);
        self
    }
}

/// The root. Paths have no slash at either end.
#[derive(Debug, Default)]
pub struct Tree {
    entries: BTreeMap<String, Entry>,
    /// What lower layers have and this root has no more.
    removed: BTreeSet<String>,
}

/// Makes a path of an archive canonical, or refuses it.
pub fn clean(path: &str) -> Result<String, PackageProblem> {
    let wrong = || PackageProblem::Path(path.to_owned());
    if path.starts_with('/') || path.len() > 4000 || path.contains('\0') {
        return Err(wrong());
    }
    let parts: Vec<&str> = path.split('/').filter(|part| !matches!(*part, "" | ".")).collect();
    if parts.contains(&"..") { Err(wrong()) } else { Ok(parts.join("/")) }
}

impl Tree {
    /// The entry at a canonical path; links are not followed.
    pub fn get(&self, path: &str) -> Option<&Entry> {
        self.entries.get(path)
    }

    /// Paths and entries below a folder.
    pub fn below<'a>(&'a self, folder: &'a str) -> impl Iterator<Item = (&'a str, &'a Entry)> {
        let range = self.entries.range(folder.to_owned()..);
        let range = range.take_while(move |(path, _)| path.starts_with(folder));
        range.map(|(path, entry)| (path.as_str(), entry))
    }

    /// The text of a regular file, if it is one; links are not followed.
    ///
    /// # Errors
    /// When it cannot be read, or is longer than any text that the builder needs.
    pub fn read(&self, path: &str) -> std::io::Result<Option<Vec<u8>>> {
        let Some(Entry { kind: Kind::File(content), .. }) = self.entries.get(path) else { return Ok(None) };
        if content.length() > TEXT {
            return Err(std::io::ErrorKind::FileTooLarge.into());
        }
        let mut bytes = Vec::new();
        content.reader().read_to_end(&mut bytes)?;
        Ok(Some(bytes))
    }

    /// Follows symbolic links of all folders on the way, within the root.
    pub fn locate(&self, path: &str) -> Result<String, PackageProblem> {
        let wrong = || PackageProblem::Path(path.to_owned());
        let (mut open, mut done) = (Vec::new(), Vec::<String>::new());
        open.extend(path.rsplit('/').map(str::to_owned));
        let mut links = 0;
        while let Some(part) = open.pop() {
            match part.as_str() {
                "" | "." => continue,
                ".." => {
                    done.pop();
                    continue;
                }
                _ => done.push(part),
            }
            if open.is_empty() {
                break;
            }
            match self.entries.get(&done.join("/")).map(|entry| &entry.kind) {
                Some(Kind::Symlink(target)) => {
                    links += 1;
                    if links > 40 {
                        return Err(wrong());
                    }
                    done.pop();
                    if target.starts_with('/') {
                        done.clear();
                    }
                    open.extend(target.rsplit('/').map(str::to_owned));
                }
                Some(Kind::Folder) | None => {}
                Some(_) => return Err(wrong()),
            }
        }
        Ok(done.join("/"))
    }

    /// Adds an entry as dpkg would; `replaces` names packages whose files it may take over.
    pub fn merge(&mut self, path: &str, mut entry: Entry, replaces: &str) -> Result<(), PackageProblem> {
        let path = self.locate(path)?;
        if path.is_empty() {
            return Ok(());
        }
        if let Kind::HardLink(target) = &entry.kind {
            entry.kind = Kind::HardLink(self.locate(target)?);
        }
        if let Some(old) = self.entries.get(&path) {
            match (&old.kind, &entry.kind) {
                (Kind::Folder | Kind::Symlink(_), Kind::Folder) => return Ok(()),
                (Kind::Folder, _) => return Err(PackageProblem::Path(path)),
                _ => {}
            }
            if let (Some(owner), Some(_)) = (&old.package, &entry.package) {
                let allowed = replaces.split([',', ' ', '(']).any(|name| name == &**owner);
                if !allowed && old.package != entry.package {
                    return Err(PackageProblem::Overwrites(path, owner.to_string()));
                }
            }
        }
        self.parents(&path);
        self.entries.insert(path, entry);
        Ok(())
    }

    /// Adds or replaces an entry of the builder's own.
    pub fn put(&mut self, path: &str, entry: Entry) {
        let path = self.locate(path).unwrap_or_else(|_| path.to_owned());
        self.parents(&path);
        self.entries.insert(path, entry);
    }

    /// Adds an entry as it stands: no link is followed and no folder made.
    pub fn place(&mut self, path: String, entry: Entry) {
        self.entries.insert(path, entry);
    }

    /// Takes an entry away, but not a folder that something is in. Links are not followed.
    pub fn remove(&mut self, path: &str) {
        let Some(entry) = self.entries.get(path) else { return };
        let start = format!("{path}/");
        if matches!(entry.kind, Kind::Folder)
            && self.entries.range(start.clone()..).next().is_some_and(|(next, _)| next.starts_with(&start))
        {
            return;
        }
        if entry.below {
            self.removed.insert(path.to_owned());
        }
        self.entries.remove(path);
    }

    /// Bytes of all files that no lower layer has.
    pub fn size(&self) -> u64 {
        let own = self.entries.values().filter(|entry| !entry.below);
        own.map(|entry| if let Kind::File(content) = &entry.kind { content.length() } else { 0 }).sum()
    }

    /// Whether there is no entry.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Adds or replaces a file of root's.
    pub fn write(&mut self, path: &str, bytes: impl Into<Vec<u8>>, mode: u32) {
        self.put(path, Entry::new(Kind::File(Content::Bytes(bytes.into().into())), mode));
    }

    fn parents(&mut self, path: &str) {
        for (end, _) in path.match_indices('/') {
            self.entries.entry(path[..end].to_owned()).or_insert_with(|| Entry::new(Kind::Folder, 0o755));
        }
    }

    /// Reads a layer that [`Tree::layer`] wrote, as something that is below.
    pub fn add_layer(&mut self, path: &Path) -> Result<(), ImageError> {
        let file = Arc::new(File::open(path).map_err(at(path))?);
        let reader = File::open(path).map_err(at(path))?;
        let mut archive = tar::Archive::new(reader);
        for entry in archive.entries_with_seek().map_err(at(path))? {
            let entry = entry.map_err(at(path))?;
            let header = entry.header();
            let name = String::from_utf8_lossy(&entry.path_bytes()).trim_end_matches('/').to_owned();
            let (folder, last) = name.rsplit_once('/').map_or(("", name.as_str()), |(folder, last)| (folder, last));
            if let Some(hidden) = last.strip_prefix(WHITEOUT) {
                self.entries.remove(format!("{folder}/{hidden}").trim_start_matches('/'));
                continue;
            }
            let link =
                || entry.link_name_bytes().map(|name| String::from_utf8_lossy(&name).into_owned()).unwrap_or_default();
            let kind = match header.entry_type() {
                tar::EntryType::Directory => Kind::Folder,
                tar::EntryType::Symlink => Kind::Symlink(link()),
                tar::EntryType::Link => Kind::HardLink(link()),
                _ => Kind::File(Content::Spilled {
                    file: file.clone(),
                    offset: entry.raw_file_position(),
                    length: entry.size(),
                }),
            };
            let number = |value: std::io::Result<u64>| value.map_err(at(path));
            let (uid, gid, time) = (number(header.uid())?, number(header.gid())?, number(header.mtime())?);
            let mode = header.mode().map_err(at(path))?;
            let entry = Entry { kind, mode, uid, gid, time, capability: None, package: None, below: true };
            self.entries.insert(name, entry);
        }
        Ok(())
    }

    /// Marks of what lower layers have and this root has not (image-spec, layer.md, "Whiteouts").
    fn whiteouts(&self) -> Vec<(String, Entry)> {
        // Where the folder is gone too, or is no folder any more, that says it all.
        let there = |path: &str| {
            let folder = path.rsplit_once('/').map(|(folder, _)| self.entries.get(folder).map(|entry| &entry.kind));
            matches!(folder, None | Some(Some(Kind::Folder)))
        };
        let gone = self.removed.iter().filter(|path| !self.entries.contains_key(*path) && there(path));
        let mark = |path: &String| {
            let (folder, name) = path.rsplit_once('/').map_or(("", path.as_str()), |(folder, name)| (folder, name));
            let path = format!("{folder}/{WHITEOUT}{name}").trim_start_matches('/').to_owned();
            (path, Entry { time: 0, ..Entry::new(Kind::File(Content::Bytes([].into())), 0o644) })
        };
        gone.map(mark).collect()
    }

    /// Writes all entries that no lower layer has, sorted, hard links last; gives the digest and the size.
    pub fn layer(&self, output: &mut impl Write, epoch: u64) -> std::io::Result<(Digest, u64)> {
        // Hashing takes as long as all else here where the processor has no instructions for it.
        std::thread::scope(|scope| {
            let (blocks, written) = std::sync::mpsc::sync_channel::<Vec<u8>>(BLOCKS);
            let hash = scope.spawn(move || {
                let mut hasher = Hasher::default();
                written.into_iter().for_each(|block| hasher.update(&block));
                (hasher.size(), hasher.digest())
            });
            // With the writer its end of the channel goes, which ends the other thread.
            self.archive(Hashed { output, blocks }, epoch)?;
            let (size, digest) =
                hash.join().map_err(|_| std::io::Error::other("the thread that hashes a layer stopped"))?;
            Ok((digest, size))
        })
    }

    fn archive(&self, writer: Hashed<'_, impl Write>, epoch: u64) -> std::io::Result<()> {
        let mut builder = tar::Builder::new(std::io::BufWriter::with_capacity(BLOCK, writer));
        let whiteouts = self.whiteouts();
        let mut own: Vec<(&String, &Entry)> = self.entries.iter().filter(|(_, entry)| !entry.below).collect();
        own.extend(whiteouts.iter().map(|(path, entry)| (path, entry)));
        own.sort_by_key(|(path, _)| *path);
        let own = || own.iter().copied();
        let linked = |entry: &Entry| matches!(entry.kind, Kind::HardLink(_));
        for (path, entry) in own().filter(|(_, e)| !linked(e)).chain(own().filter(|(_, e)| linked(e))) {
            let mut header = tar::Header::new_gnu();
            header.set_mode(entry.mode & 0o7777);
            header.set_uid(entry.uid);
            header.set_gid(entry.gid);
            header.set_mtime(entry.time.min(epoch));
            header.set_size(0);
            if let Some(capability) = &entry.capability {
                builder.append_pax_extensions([("SCHILY.xattr.security.capability", &capability[..])])?;
            }
            match &entry.kind {
                Kind::Folder => {
                    header.set_entry_type(tar::EntryType::Directory);
                    builder.append_data(&mut header, format!("{path}/"), std::io::empty())?;
                }
                Kind::File(content) => {
                    header.set_entry_type(tar::EntryType::Regular);
                    header.set_size(content.length());
                    builder.append_data(&mut header, path, content.reader())?;
                }
                Kind::Symlink(target) => {
                    header.set_entry_type(tar::EntryType::Symlink);
                    builder.append_link(&mut header, path, target)?;
                }
                Kind::HardLink(target) => {
                    header.set_entry_type(tar::EntryType::Link);
                    builder.append_link(&mut header, path, target)?;
                }
            }
        }
        let buffered = builder.into_inner()?;
        buffered.into_inner().map_err(std::io::IntoInnerError::into_error)?;
        Ok(())
    }
}

/// Passes what is written on to be hashed.
struct Hashed<'a, W> {
    output: &'a mut W,
    blocks: std::sync::mpsc::SyncSender<Vec<u8>>,
}

impl<W: Write> Write for Hashed<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let count = self.output.write(bytes)?;
        self.blocks.send(bytes[..count].to_vec()).map_err(std::io::Error::other)?;
        Ok(count)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.output.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_paths_that_leave_the_root() {
        assert!(clean("/etc/passwd").is_err() && clean("a/../../b").is_err() && clean("a\0").is_err());
        assert_eq!(clean("./a//b/").unwrap(), "a/b");
    }

    #[test]
    fn follows_links_within_the_root_only() {
        let mut tree = Tree::default();
        tree.put("bin", Entry::new(Kind::Symlink("usr/bin".into()), 0o777));
        tree.put("out", Entry::new(Kind::Symlink("../../../etc".into()), 0o777));
        tree.put("loop", Entry::new(Kind::Symlink("/loop".into()), 0o777));
        assert_eq!(tree.locate("bin/sh").unwrap(), "usr/bin/sh");
        assert_eq!(tree.locate("out/passwd").unwrap(), "etc/passwd");
        assert!(tree.locate("loop/a").is_err());
        tree.write("file", "x", 0o644);
        assert!(tree.locate("file/below").is_err());
    }

    #[test]
    fn a_folder_does_not_replace_the_link_of_merged_usr() {
        let mut tree = Tree::default();
        tree.put("bin", Entry::new(Kind::Symlink("usr/bin".into()), 0o777));
        tree.merge("bin", Entry::new(Kind::Folder, 0o755), "").unwrap();
        assert!(matches!(tree.get("bin").unwrap().kind, Kind::Symlink(_)));
    }

    #[test]
    fn what_a_layer_takes_away_is_marked_in_it_and_gone_in_the_next_one() {
        let folder = tempfile::tempdir().unwrap();
        let layer = |tree: &Tree, name: &str| {
            let path = folder.path().join(name);
            tree.layer(&mut File::create(&path).unwrap(), 7).unwrap();
            path
        };
        let mut first = Tree::default();
        first.write("usr/lib/old", "1", 0o644);
        first.write("usr/lib/changed", "1", 0o644);
        first.write("top", "1", 0o644);
        let first = layer(&first, "first");
        let mut second = Tree::default();
        second.add_layer(&first).unwrap();
        for path in ["usr/lib/old", "usr/lib/changed", "top", "absent", "usr"] {
            second.remove(path);
        }
        second.write("usr/lib/changed", "2", 0o644);
        second.write("own", "2", 0o644);
        second.remove("own");
        let second = layer(&second, "second");
        let mut archive = tar::Archive::new(File::open(&second).unwrap());
        let paths = archive.entries().unwrap().map(|entry| entry.unwrap().path().unwrap().display().to_string());
        assert_eq!(paths.collect::<Vec<_>>(), [".wh.top", "usr/lib/.wh.old", "usr/lib/changed"]);
        let mut third = Tree::default();
        third.add_layer(&first).unwrap();
        third.add_layer(&second).unwrap();
        let paths: Vec<_> = third.below("").map(|(path, _)| path).collect();
        assert_eq!(paths, ["usr", "usr/lib", "usr/lib/changed"]);
        assert_eq!(third.read("usr/lib/changed").unwrap().unwrap(), b"2");
    }

    #[test]
    fn a_layer_longer_than_what_waits_to_be_hashed_has_the_digest_of_its_bytes() {
        let mut tree = Tree::default();
        let bytes: Vec<u8> = (0..BLOCK * (BLOCKS + 3) + 7).map(|number| (number % 251) as u8).collect();
        tree.write("large", bytes, 0o644);
        let mut written = Vec::new();
        let (digest, size) = tree.layer(&mut written, 7).unwrap();
        assert_eq!((digest, size), (Digest::of(&written), written.len() as u64));
    }

    #[test]
    fn a_layer_that_cannot_be_written_is_an_error() {
        struct Full(usize);
        impl Write for Full {
            fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
                self.0 = self.0.checked_sub(bytes.len()).ok_or(std::io::ErrorKind::StorageFull)?;
                Ok(bytes.len())
            }
            fn flush(&mut self) -> std::io::Result<()> {
                Ok(())
            }
        }
        let mut tree = Tree::default();
        tree.write("large", vec![0; BLOCK * 4], 0o644);
        let error = tree.layer(&mut Full(BLOCK * 2), 7).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::StorageFull);
    }

    #[test]
    fn nothing_is_marked_below_a_folder_that_is_gone_or_became_a_link() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("first");
        let mut first = Tree::default();
        for file in ["a/gone/x", "a/linked/x", "a/stays"] {
            first.write(file, "1", 0o644);
        }
        first.layer(&mut File::create(&path).unwrap(), 7).unwrap();
        let mut second = Tree::default();
        second.add_layer(&path).unwrap();
        for removed in ["a/gone/x", "a/gone", "a/linked/x", "a/linked"] {
            second.remove(removed);
        }
        second.put("a/linked", Entry::new(Kind::Symlink("stays".into()), 0o777));
        let mut bytes = Vec::new();
        second.layer(&mut bytes, 7).unwrap();
        let mut archive = tar::Archive::new(&bytes[..]);
        let paths = archive.entries().unwrap().map(|entry| entry.unwrap().path().unwrap().display().to_string());
        assert_eq!(paths.collect::<Vec<_>>(), ["a/.wh.gone", "a/linked"]);
    }

    #[test]
    fn a_file_longer_than_any_text_is_not_read_into_memory() {
        let spill = tempfile::tempfile().unwrap();
        spill.set_len(TEXT + 1).unwrap();
        let content = Content::Spilled { file: Arc::new(spill), offset: 0, length: TEXT + 1 };
        let mut tree = Tree::default();
        tree.put("etc/x", Entry::new(Kind::File(content), 0o644));
        assert_eq!(tree.read("etc/x").unwrap_err().kind(), std::io::ErrorKind::FileTooLarge);
    }

    #[test]
    fn layers_are_sorted_and_no_younger_than_the_epoch() {
        let mut tree = Tree::default();
        tree.put("a", Entry::new(Kind::HardLink("z".into()), 0o644));
        tree.write("z", "content", 0o644);
        let mut bytes = Vec::new();
        let (digest, size) = tree.layer(&mut bytes, 7).unwrap();
        assert_eq!((digest, size), (Digest::of(&bytes), bytes.len() as u64));
        let mut archive = tar::Archive::new(&bytes[..]);
        let found: Vec<_> = archive
            .entries()
            .unwrap()
            .map(|entry| {
                let entry = entry.unwrap();
                (entry.path().unwrap().display().to_string(), entry.header().mtime().unwrap())
            })
            .collect();
        assert_eq!(found, [("z".to_owned(), 7), ("a".to_owned(), 7)]);
    }
}
