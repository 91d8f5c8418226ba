//! What is in an image, read from its layers: every entry with its digest, and the packages that databases in it name.
//!
//! The layers may be a stranger's. Nothing is unpacked: paths are text here, and what is kept in memory is bounded.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;

use serde::Serialize;
use sha1::Digest as _;

use super::archive::BuiltImage;
use super::control::paragraphs;
use super::error::{ImageError, at};
use super::pylock::normal;
use super::reference::{Digest, Hasher};
use super::unpack::{HEADER_LIMIT, Metered};

/// More entries than any image has.
const ENTRIES: usize = 4_000_000;
/// The largest file whose text is looked at.
const TEXT: u64 = 64 << 20;
/// Bytes of all texts that are looked at.
const TEXTS: u64 = 256 << 20;
/// Bytes of all files. Of holes in them a layer says in a few bytes how long they are.
const BYTES: u64 = 32 << 30;

/// What may still be read.
struct Budget {
    texts: u64,
    bytes: u64,
}

/// Who made a package.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum PackageKind {
    /// Debian.
    Deb,
    /// npm.
    Npm,
    /// PyPI.
    Pypi,
}

impl std::fmt::Display for PackageKind {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(match self {
            Self::Deb => "deb",
            Self::Npm => "npm",
            Self::Pypi => "pypi",
        })
    }
}

/// What an entry is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EntryKind {
    /// A regular file, or another name of one.
    File {
        /// Its size in bytes.
        size: u64,
        /// Digest of its content.
        sha256: Digest,
        /// SHA-1 of its content, which SPDX 2.3 wants beside a good one.
        sha1: [u8; 20],
    },
    /// A folder.
    Folder,
    /// A symbolic link.
    Symlink(String),
    /// Another name of the file at this path; only while layers are read.
    HardLink(String),
    /// A device or a pipe.
    Special,
}

/// One entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// What it is.
    pub kind: EntryKind,
    /// The lower 12 bits of the mode.
    pub mode: u32,
    /// Owner and group.
    pub owner: (u64, u64),
    /// Modification time, Unix seconds.
    pub time: u64,
}

/// What is in an image.
#[derive(Debug, Default)]
pub struct Inventory {
    /// Entries by path, without a slash at either end.
    pub entries: BTreeMap<String, Entry>,
    /// Versions by kind and name.
    pub packages: BTreeMap<(PackageKind, String), String>,
    /// The package of each path that the databases of Debian and Python name.
    pub owners: BTreeMap<String, (PackageKind, String)>,
    texts: BTreeMap<String, Vec<u8>>,
}

impl Inventory {
    /// Reads all layers of an image, the lowest first.
    ///
    /// # Errors
    /// When a layer is not a tar, or has more entries than any image has.
    pub fn read(image: &BuiltImage) -> Result<Self, ImageError> {
        let mut inventory = Self::default();
        let mut budget = Budget { texts: TEXTS, bytes: BYTES };
        for layer in &image.layers {
            inventory.add(&layer.path, &mut budget)?;
        }
        inventory.link();
        inventory.find_packages();
        inventory.texts.clear();
        Ok(inventory)
    }

    fn add(&mut self, path: &Path, budget: &mut Budget) -> Result<(), ImageError> {
        let file = std::fs::File::open(path).map_err(at(path))?;
        let (reader, allowance) = Metered::new(std::io::BufReader::with_capacity(1 << 18, file));
        let mut archive = tar::Archive::new(reader);
        let mut own = std::collections::BTreeSet::new();
        let mut entries = archive.entries().map_err(at(path))?;
        loop {
            allowance.set(HEADER_LIMIT);
            let Some(entry) = entries.next() else { break };
            let mut entry = entry.map_err(at(path))?;
            // The layer is no longer than its file, whatever it says.
            allowance.set(u64::MAX);
            let Some(name) = canonical(&entry.path_bytes()) else { continue };
            let (folder, last) = name.rsplit_once('/').unwrap_or(("", &name));
            // Whiteouts (image-spec, layer.md): they hide what lower layers have.
            if last == ".wh..wh..opq" {
                self.remove_below(folder, &own);
                continue;
            }
            if let Some(hidden) = last.strip_prefix(".wh.") {
                let hidden = if folder.is_empty() { hidden.to_owned() } else { format!("{folder}/{hidden}") };
                self.entries.remove(&hidden);
                self.texts.remove(&hidden);
                self.remove_below(&hidden, &own);
                continue;
            }
            let read = read_entry(&mut entry, &name, budget).map_err(at(path))?;
            if !matches!(read.0.kind, EntryKind::Folder) {
                self.remove_below(&name, &own);
            }
            self.texts.remove(&name);
            if let Some(text) = read.1 {
                self.texts.insert(name.clone(), text);
            }
            own.insert(name.clone());
            self.entries.insert(name, read.0);
            if self.entries.len() > ENTRIES {
                return Err(at(path)(std::io::ErrorKind::FileTooLarge.into()));
            }
        }
        Ok(())
    }

    fn remove_below(&mut self, folder: &str, own: &std::collections::BTreeSet<String>) {
        let prefix = if folder.is_empty() { String::new() } else { format!("{folder}/") };
        let below = self.entries.range(prefix.clone()..).map(|(path, _)| path);
        let hidden: Vec<String> =
            below.take_while(|path| path.starts_with(&prefix)).filter(|path| !own.contains(*path)).cloned().collect();
        for path in hidden {
            self.entries.remove(&path);
            self.texts.remove(&path);
        }
    }

    /// Gives other names of files the content of the files.
    fn link(&mut self) {
        let links: Vec<(String, String)> = self
            .entries
            .iter()
            .filter_map(|(path, entry)| match &entry.kind {
                EntryKind::HardLink(target) => Some((path.clone(), target.clone())),
                _ => None,
            })
            .collect();
        for (path, target) in links {
            let kind = self.entries.get(&target).map(|entry| entry.kind.clone());
            let kind = kind.filter(|kind| matches!(kind, EntryKind::File { .. })).unwrap_or(EntryKind::Special);
            if let Some(entry) = self.entries.get_mut(&path) {
                entry.kind = kind;
            }
        }
    }

    fn find_packages(&mut self) {
        for (path, text) in &self.texts {
            let text = String::from_utf8_lossy(text);
            if path == "var/lib/dpkg/status" || path.starts_with("var/lib/dpkg/status.d/") {
                for paragraph in paragraphs(&text).map_while(Result::ok) {
                    let installed = paragraph.line("Status").is_none_or(|status| status.ends_with(" installed"));
                    if let (true, Some(name), Some(version)) =
                        (installed, paragraph.line("Package"), paragraph.line("Version"))
                    {
                        self.packages.insert((PackageKind::Deb, short(name)), short(version));
                    }
                }
            } else if let Some(stem) =
                path.strip_prefix("var/lib/dpkg/info/").and_then(|path| path.strip_suffix(".list"))
            {
                let package = stem.split(':').next().unwrap_or(stem);
                for line in text.lines().filter_map(|line| line.strip_prefix('/')) {
                    self.owners.insert(self.real(line), (PackageKind::Deb, package.to_owned()));
                }
            } else if let Some(folder) = path.strip_suffix("/METADATA") {
                // The head of METADATA is a message's (PyPA, core metadata); a description may follow.
                let field = |name: &str| {
                    let mut head = text.lines().take_while(|line| !line.is_empty());
                    head.find_map(|line| line.strip_prefix(name)).map(|value| short(value.trim()))
                };
                let (Some(name), Some(version)) = (field("Name:"), field("Version:")) else { continue };
                let name = normal(&name);
                if let Some(record) = self.texts.get(&format!("{folder}/RECORD")) {
                    let site = folder.rsplit_once('/').map_or("", |(site, _)| site);
                    for file in python_files(&String::from_utf8_lossy(record), site) {
                        self.owners.insert(file, (PackageKind::Pypi, name.clone()));
                    }
                }
                self.packages.insert((PackageKind::Pypi, name), version);
            } else if let Ok(package) = serde_json::from_str::<serde_json::Value>(&text) {
                let field = |name: &str| package.get(name).and_then(serde_json::Value::as_str).map(short);
                if let (Some(name), Some(version)) = (field("name"), field("version")) {
                    self.packages.insert((PackageKind::Npm, name), version);
                }
            }
        }
    }

    /// The path of an entry after the links of merged /usr: dpkg lists `/bin/sh`, the file is at `usr/bin/sh`.
    fn real(&self, path: &str) -> String {
        let (first, rest) = path.split_once('/').unwrap_or((path, ""));
        match self.entries.get(first).map(|entry| &entry.kind) {
            Some(EntryKind::Symlink(target)) if !rest.is_empty() => {
                format!("{}/{rest}", target.trim_start_matches('/'))
            }
            _ => path.to_owned(),
        }
    }
}

fn short(text: &str) -> String {
    text.chars().take(200).collect()
}

fn canonical(path: &[u8]) -> Option<String> {
    let path = String::from_utf8_lossy(path);
    let parts: Vec<&str> = path.split('/').filter(|part| !matches!(*part, "" | ".")).collect();
    (!parts.is_empty()).then(|| parts.join("/"))
}

/// The paths that a RECORD names: the first field of each line, from the folder of the packages.
fn python_files(record: &str, site: &str) -> Vec<String> {
    let mut files = Vec::new();
    for row in super::wheel::rows(record).map_while(Result::ok) {
        let path = row.get(0).unwrap_or_default();
        let mut parts: Vec<&str> = site.split('/').collect();
        for part in path.split('/') {
            match part {
                "" | "." => {}
                ".." => drop(parts.pop()),
                part => parts.push(part),
            }
        }
        files.push(parts.join("/"));
    }
    files
}

/// Whether the text of a file says which packages there are.
fn is_database(path: &str) -> bool {
    if let Some(rest) = path.strip_prefix("var/lib/dpkg/") {
        return rest == "status"
            || (rest.starts_with("status.d/") && !rest.ends_with(".md5sums"))
            || (rest.starts_with("info/") && rest.ends_with(".list"));
    }
    // Debian's own packages of Python are known to dpkg, and are below /usr/lib.
    if path.starts_with("usr/local/")
        && [".dist-info/METADATA", ".dist-info/RECORD"].iter().any(|end| path.ends_with(end))
    {
        return true;
    }
    let Some(folder) = path.strip_suffix("/package.json") else { return false };
    let Some((before, name)) = folder.rsplit_once('/') else { return false };
    let scope = before.rsplit_once('/').filter(|(_, scope)| scope.starts_with('@'));
    !name.starts_with('@') && scope.map_or(before, |(above, _)| above).ends_with("node_modules")
}

fn read_entry<R: Read>(
    entry: &mut tar::Entry<'_, R>,
    name: &str,
    budget: &mut Budget,
) -> std::io::Result<(Entry, Option<Vec<u8>>)> {
    let link = |entry: &tar::Entry<'_, R>| {
        entry.link_name_bytes().map(|name| String::from_utf8_lossy(&name).into_owned()).unwrap_or_default()
    };
    let mut text = None;
    let kind = match entry.header().entry_type() {
        tar::EntryType::Directory => EntryKind::Folder,
        tar::EntryType::Symlink => EntryKind::Symlink(link(entry)),
        tar::EntryType::Link => EntryKind::HardLink(canonical(link(entry).as_bytes()).unwrap_or_default()),
        tar::EntryType::Regular | tar::EntryType::Continuous | tar::EntryType::GNUSparse => {
            let (mut sha256, mut sha1) = (Hasher::default(), sha1::Sha1::new());
            let too_large = || std::io::Error::from(std::io::ErrorKind::FileTooLarge);
            budget.bytes = budget.bytes.checked_sub(entry.size()).ok_or_else(too_large)?;
            let mut kept = (is_database(name) && entry.size() <= TEXT).then(Vec::new);
            if kept.is_some() {
                budget.texts = budget.texts.checked_sub(entry.size()).ok_or_else(too_large)?;
            }
            let (mut size, mut buffer) = (0, vec![0; 1 << 16]);
            loop {
                let count = entry.read(&mut buffer)?;
                if count == 0 {
                    break;
                }
                size += count as u64;
                sha256.update(&buffer[..count]);
                sha1.update(&buffer[..count]);
                if let Some(kept) = &mut kept {
                    kept.extend_from_slice(&buffer[..count]);
                }
            }
            text = kept;
            EntryKind::File { size, sha256: sha256.digest(), sha1: sha1.finalize().into() }
        }
        _ => EntryKind::Special,
    };
    // Some builders leave numbers empty, which readers take as zero.
    let header = entry.header();
    let owner = (header.uid().unwrap_or_default(), header.gid().unwrap_or_default());
    let (mode, time) = (header.mode().unwrap_or_default() & 0o7777, header.mtime().unwrap_or_default());
    Ok((Entry { kind, mode, owner, time }, text))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::BuiltLayer;

    /// A layer of files and their texts; a text of `->` links, one of `/` is a folder.
    fn layer(folder: &Path, files: &[(&str, &str)]) -> BuiltLayer {
        let mut builder = tar::Builder::new(Vec::new());
        for (path, text) in files {
            let mut header = tar::Header::new_gnu();
            header.set_mode(0o644);
            header.set_size(0);
            if let Some(target) = text.strip_prefix("->") {
                header.set_entry_type(tar::EntryType::Symlink);
                builder.append_link(&mut header, path, target).unwrap();
            } else if let Some(target) = text.strip_prefix("=>") {
                header.set_entry_type(tar::EntryType::Link);
                builder.append_link(&mut header, path, target).unwrap();
            } else if *text == "/" {
                header.set_entry_type(tar::EntryType::Directory);
                builder.append_data(&mut header, path, std::io::empty()).unwrap();
            } else {
                header.set_size(text.len() as u64);
                builder.append_data(&mut header, path, text.as_bytes()).unwrap();
            }
        }
        let bytes = builder.into_inner().unwrap();
        let diff_id = Digest::of(&bytes);
        let path = folder.join(diff_id.hex());
        std::fs::write(&path, &bytes).unwrap();
        BuiltLayer { diff_id, size: bytes.len() as u64, path }
    }

    fn read(layers: &[&[(&str, &str)]]) -> Inventory {
        let folder = tempfile::tempdir().unwrap();
        let layers = layers.iter().map(|files| layer(folder.path(), files)).collect();
        Inventory::read(&BuiltImage::of_config("x", b"{}".to_vec(), layers).unwrap()).unwrap()
    }

    #[test]
    fn upper_layers_hide_and_replace_what_is_below() {
        let lower: &[(&str, &str)] = &[("a/one", "1"), ("a/two", "2"), ("b/three", "3"), ("c/four", "4"), ("d", "/")];
        let upper: &[(&str, &str)] = &[("a/.wh.one", ""), ("b/new", "n"), ("b/.wh..wh..opq", ""), ("c", "->d")];
        let found = read(&[lower, upper]);
        let paths: Vec<&String> = found.entries.keys().collect();
        assert_eq!(paths, ["a/two", "b/new", "c", "d"]);
    }

    #[test]
    fn finds_packages_and_whose_a_file_is() {
        let status = "Package: dash\nStatus: install ok installed\nVersion: 0.5\n\nPackage: gone\nStatus: deinstall ok config-files\nVersion: 1\n";
        let found = read(&[&[
            ("bin", "->usr/bin"),
            ("usr/bin/dash", "x"),
            ("usr/bin/sh", "=>usr/bin/dash"),
            ("var/lib/dpkg/status", status),
            ("var/lib/dpkg/info/dash.list", "/.\n/bin\n/bin/dash\n"),
            ("usr/local/lib/node_modules/@a/b/package.json", r#"{"name":"@a/b","version":"1.2.3"}"#),
            ("usr/local/lib/node_modules/@a/b/inner/package.json", r#"{"name":"inner","version":"1"}"#),
            (
                "usr/local/lib/pypi/x/lib/python3.11/site-packages/a_b-1.dist-info/METADATA",
                "Name: A_b\nVersion: 1\n\nName: c\n",
            ),
            (
                "usr/local/lib/pypi/x/lib/python3.11/site-packages/a_b-1.dist-info/RECORD",
                "a_b/x.py,sha256=x,1\n../../../bin/tool,sha256=x,1\n\"a_b/c,d\",sha256=x,1\n",
            ),
        ]]);
        let packages: Vec<String> = found.packages.iter().map(|((k, n), v)| format!("{k} {n} {v}")).collect();
        assert_eq!(packages, ["deb dash 0.5", "npm @a/b 1.2.3", "pypi a-b 1"]);
        assert_eq!(found.owners["usr/bin/dash"], (PackageKind::Deb, "dash".to_owned()));
        for path in ["bin/tool", "lib/python3.11/site-packages/a_b/x.py", "lib/python3.11/site-packages/a_b/c,d"] {
            let owner = &found.owners[&format!("usr/local/lib/pypi/x/{path}")];
            assert_eq!(*owner, (PackageKind::Pypi, "a-b".to_owned()), "{path}");
        }
        assert_eq!(found.entries["usr/bin/sh"].kind, found.entries["usr/bin/dash"].kind);
    }

    #[test]
    fn files_that_only_say_that_they_are_long_and_too_many_texts_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let sparse = |real: u64| {
            let mut header = tar::Header::new_gnu();
            header.set_path("hole").unwrap();
            header.set_entry_type(tar::EntryType::GNUSparse);
            header.set_size(0);
            let gnu = header.as_gnu_mut().unwrap();
            gnu.set_real_size(real);
            gnu.sparse[0].set_offset(real);
            gnu.sparse[0].set_length(0);
            header.set_cksum();
            let path = folder.path().join("layer");
            std::fs::write(&path, [header.as_bytes().as_slice(), &[0; 1024]].concat()).unwrap();
            Inventory::default().add(&path, &mut Budget { texts: 0, bytes: 1 << 20 })
        };
        assert!(sparse(1 << 20).is_ok());
        let too_large = |error: ImageError| match error {
            ImageError::File { source, .. } => source.kind() == std::io::ErrorKind::FileTooLarge,
            _ => false,
        };
        assert!(too_large(sparse((1 << 20) + 1).unwrap_err()));
        let texts = layer(folder.path(), &[("var/lib/dpkg/status", "Package: a\n")]);
        let found = Inventory::default().add(&texts.path, &mut Budget { texts: 10, bytes: 1 << 20 });
        assert!(too_large(found.unwrap_err()));
    }
}
