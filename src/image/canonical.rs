//! One layer out of those that an engine made above a base: the same files give the same bytes, whichever builder wrote them.
//!
//! What counts is the file system that the layers show, compared with the base's. Times are bounded, names of owners and
//! what a build leaves behind are dropped, and an entry of which the time alone changed is the base's. Nothing is unpacked:
//! paths are text here.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use super::archive::BuiltLayer;
use super::error::{ImageError, at};
use super::saved::{SavedError, Section};
use super::tree::{self, Content, Tree};
use super::unpack::{HEADER_LIMIT, Metered};

/// Entries of an image.
const ENTRIES: usize = 4_000_000;
/// The largest file that is rewritten.
const TEXT: u64 = 1 << 20;
/// Where docker keeps extended attributes in a tar.
const CAPABILITY: &[u8] = b"SCHILY.xattr.security.capability";
/// The largest value of it (linux/capability.h: `XATTR_CAPS_SZ_3` is 24).
const CAPABILITY_SIZE: usize = 64;

/// Files and folders that a build leaves behind, or that an engine puts there for a container.
const LEFT_OUT: &[&str] = &[
    ".dockerenv",
    "etc/.pwd.lock",
    "etc/group-",
    "etc/gshadow-",
    "etc/hostname",
    "etc/hosts",
    "etc/mtab",
    "etc/passwd-",
    "etc/resolv.conf",
    "etc/shadow-",
    "etc/subgid-",
    "etc/subuid-",
    "var/cache/ldconfig/aux-cache",
    "var/log/alternatives.log",
    "var/log/bootstrap.log",
    "var/log/btmp",
    "var/log/dpkg.log",
    "var/log/faillog",
    "var/log/fontconfig.log",
    "var/log/lastlog",
    "var/log/tallylog",
    "var/log/wtmp",
];

/// Folders whose contents are left out; they themselves stay.
const LEFT_EMPTY: &[&str] =
    &["dev", "proc", "run", "sys", "tmp", "var/cache/apt", "var/lib/apt/lists", "var/log/apt", "var/tmp"];

#[derive(Debug, Clone)]
enum Kind {
    Folder,
    /// A file, and the number that all its names share.
    File(Content, usize),
    Symlink(String),
    /// What only an image from elsewhere may have.
    Special,
}

#[derive(Debug, Clone)]
struct Node {
    kind: Kind,
    mode: u32,
    owner: (u64, u64),
    time: u64,
    capability: Option<Arc<[u8]>>,
    upper: bool,
}

/// The file system that layers show.
#[derive(Debug, Clone, Default)]
struct View {
    nodes: BTreeMap<String, Node>,
    files: usize,
}

/// Makes the layer, below `folder`, of what these layers change of a base; `None` when they change nothing.
///
/// # Errors
/// When a layer cannot be read, or holds what an image of ours does not.
pub fn layer(
    base: &[BuiltLayer],
    above: Vec<Section>,
    epoch: u64,
    folder: &Path,
) -> Result<Option<BuiltLayer>, ImageError> {
    let mut below = View::default();
    for layer in base {
        below.add(Section::of(&layer.path).map_err(at(&layer.path))?, false).map_err(ImageError::Saved)?;
    }
    let mut view = below.clone();
    for section in above {
        view.add(section, true).map_err(ImageError::Saved)?;
    }
    let tree = view.changes(&below, epoch).map_err(ImageError::Saved)?;
    if tree.is_empty() {
        return Ok(None);
    }
    let mut output = tempfile::NamedTempFile::new_in(folder).map_err(at(folder))?;
    let (diff_id, size) = tree.layer(output.as_file_mut(), epoch).map_err(at(folder))?;
    let path = folder.join(format!("{}.tar", diff_id.hex()));
    output.persist(&path).map_err(|error| at(&path)(error.error))?;
    Ok(Some(BuiltLayer { diff_id, size, path }))
}

impl View {
    fn add(&mut self, section: Section, upper: bool) -> Result<(), SavedError> {
        let (file, start) = (section.file.clone(), section.start);
        let mut own = BTreeSet::new();
        // The number of each file of this layer, by path.
        let mut numbers: BTreeMap<String, usize> = BTreeMap::new();
        // Contents are not read here, only passed over.
        let (reader, allowance) = Metered::new(section);
        let mut archive = tar::Archive::new(reader);
        let mut entries = archive.entries_with_seek()?;
        loop {
            allowance.set(HEADER_LIMIT);
            let Some(entry) = entries.next() else { break };
            let mut entry = entry?;
            let Some(path) = canonical(&entry.path_bytes())? else { continue };
            let (folder, last) = path.rsplit_once('/').unwrap_or(("", &path));
            // Whiteouts (image-spec, layer.md): they hide what lower layers have, never what this one brings.
            if last == ".wh..wh..opq" {
                self.hide_below(folder, &own);
                continue;
            }
            if let Some(hidden) = last.strip_prefix(".wh.") {
                let hidden = if folder.is_empty() { hidden.to_owned() } else { format!("{folder}/{hidden}") };
                if !own.contains(&hidden) {
                    self.nodes.remove(&hidden);
                }
                self.hide_below(&hidden, &own);
                continue;
            }
            let capability = match entry.pax_extensions()? {
                Some(extensions) => extensions
                    .filter_map(Result::ok)
                    .find(|extension| extension.key_bytes() == CAPABILITY)
                    .map(|extension| extension.value_bytes().to_vec()),
                None => None,
            };
            if capability.as_ref().is_some_and(|value| value.len() > CAPABILITY_SIZE) {
                return Err(SavedError::Path(path));
            }
            let link = || -> Result<String, SavedError> {
                let target = entry.link_name_bytes().unwrap_or_default();
                String::from_utf8(target.into_owned()).map_err(|_| SavedError::Path(path.clone()))
            };
            let header = entry.header();
            let mut node = Node {
                kind: Kind::Folder,
                mode: header.mode()? & 0o7777,
                owner: (header.uid()?, header.gid()?),
                time: header.mtime()?,
                capability: capability.map(Into::into),
                upper,
            };
            match header.entry_type() {
                tar::EntryType::Directory => {}
                tar::EntryType::Symlink => node.kind = Kind::Symlink(link()?),
                tar::EntryType::Link => {
                    let target = canonical(link()?.as_bytes())?.unwrap_or_default();
                    let same = self.nodes.get(&target).filter(|same| matches!(same.kind, Kind::File(..)));
                    node = Node { upper, ..same.cloned().ok_or_else(|| SavedError::Path(path.clone()))? };
                    if let (Kind::File(_, number), Some(own)) = (&mut node.kind, numbers.get(&target)) {
                        *number = *own;
                    }
                }
                tar::EntryType::Regular | tar::EntryType::Continuous => {
                    let (offset, length) = (start + entry.raw_file_position(), entry.size());
                    self.files += 1;
                    node.kind = Kind::File(Content::Spilled { file: file.clone(), offset, length }, self.files);
                }
                _ if upper => return Err(SavedError::Special(path)),
                _ => node.kind = Kind::Special,
            }
            if let Kind::File(_, number) = node.kind {
                numbers.insert(path.clone(), number);
            }
            if !matches!(node.kind, Kind::Folder) {
                self.hide_below(&path, &own);
            }
            // A graph driver brings a file again that only got a second name, and the containerd store does not, which then
            // has that name as a file of its own. So what is as it was stays what it was, and no name of what is new.
            let unchanged = match self.nodes.get(&path).filter(|_| upper) {
                Some(old) => same(old, &node)?,
                None => false,
            };
            if !unchanged {
                self.nodes.insert(path.clone(), node);
            }
            own.insert(path);
            if self.nodes.len() > ENTRIES {
                return Err(SavedError::Size);
            }
        }
        Ok(())
    }

    fn hide_below(&mut self, folder: &str, own: &BTreeSet<String>) {
        let prefix = if folder.is_empty() { String::new() } else { format!("{folder}/") };
        let below = self.nodes.range(prefix.clone()..).map(|(path, _)| path);
        let hidden: Vec<String> =
            below.take_while(|path| path.starts_with(&prefix)).filter(|path| !own.contains(*path)).cloned().collect();
        for path in hidden {
            self.nodes.remove(&path);
        }
    }

    /// The entries that are not the base's, and whiteouts for what the base has and this does not.
    fn changes(&self, base: &Self, epoch: u64) -> Result<Tree, SavedError> {
        let mut tree = Tree::default();
        let mut names: BTreeMap<usize, String> = BTreeMap::new();
        for (path, node) in &self.nodes {
            let is_folder = matches!(node.kind, Kind::Folder);
            if !node.upper || left_out(path, is_folder) {
                continue;
            }
            if let Some(old) = base.nodes.get(path)
                && same(old, node)?
            {
                continue;
            }
            let kind = match &node.kind {
                Kind::Folder => tree::Kind::Folder,
                Kind::Symlink(target) => tree::Kind::Symlink(target.clone()),
                Kind::Special => return Err(SavedError::Special(path.clone())),
                Kind::File(content, number) => match names.get(number) {
                    // Paths are in order, so the first name is the same whoever wrote the layer.
                    Some(first) => tree::Kind::HardLink(first.clone()),
                    None => {
                        names.insert(*number, path.clone());
                        tree::Kind::File(rewritten(path, content, epoch)?)
                    }
                },
            };
            let (mode, (uid, gid), time) = (node.mode, node.owner, node.time);
            let linked = matches!(kind, tree::Kind::HardLink(_) | tree::Kind::Symlink(_));
            // A link of either kind has what its file has, and no mode of its own.
            let mode = if matches!(kind, tree::Kind::Symlink(_)) { 0o777 } else { mode };
            let capability = node.capability.clone().filter(|_| !linked);
            let entry = tree::Entry { kind, mode, uid, gid, time, capability, package: None, below: false };
            tree.place(path.clone(), entry);
        }
        for path in base.nodes.keys().filter(|path| !self.nodes.contains_key(*path)) {
            let (folder, last) = path.rsplit_once('/').unwrap_or(("", path));
            // Where the folder is gone too, or is no folder any more, that says it all.
            let there =
                folder.is_empty() || self.nodes.get(folder).is_some_and(|node| matches!(node.kind, Kind::Folder));
            if there {
                let whiteout = if folder.is_empty() { format!(".wh.{last}") } else { format!("{folder}/.wh.{last}") };
                let content = tree::Kind::File(Content::Bytes(Arc::new([])));
                tree.place(whiteout, tree::Entry { time: 0, ..tree::Entry::new(content, 0) });
            }
        }
        Ok(tree)
    }
}

/// A path of a layer in its one form; `None` for the root.
fn canonical(path: &[u8]) -> Result<Option<String>, SavedError> {
    let wrong = || SavedError::Path(String::from_utf8_lossy(path).chars().take(200).collect());
    let text = std::str::from_utf8(path).map_err(|_| wrong())?;
    let clean = tree::clean(text.trim_start_matches('/')).map_err(|_| wrong())?;
    Ok(Some(clean).filter(|path| !path.is_empty()))
}

/// Whether an entry is of those that a build leaves behind.
fn left_out(path: &str, is_folder: bool) -> bool {
    if LEFT_OUT.contains(&path) || path.split('/').any(|name| name == "__pycache__") {
        return true;
    }
    let inside = |folder: &str| path.strip_prefix(folder).is_some_and(|rest| rest.starts_with('/'));
    if LEFT_EMPTY.iter().any(|folder| inside(folder)) || (!is_folder && path.ends_with(".pyc")) {
        return true;
    }
    if let Some(name) = path.strip_prefix("etc/ssh/") {
        return name.starts_with("ssh_host_");
    }
    // Caches of npm, pip and the like, in the home of root or of anybody.
    let home = path.strip_prefix("root/").or_else(|| path.strip_prefix("home/")?.split_once('/').map(|(_, rest)| rest));
    home.is_some_and(|rest| {
        [".cache", ".npm"].iter().any(|name| rest == *name || rest.starts_with(&format!("{name}/")))
    })
}

/// Whether two entries are the same but for their time.
fn same(one: &Node, other: &Node) -> Result<bool, SavedError> {
    let kind = match (&one.kind, &other.kind) {
        (Kind::Folder, Kind::Folder) => true,
        (Kind::Symlink(one), Kind::Symlink(other)) => return Ok(one == other),
        (Kind::File(one, first), Kind::File(other, second)) => first == second || equal(one, other)?,
        _ => false,
    };
    Ok(kind && (one.mode, one.owner, &one.capability) == (other.mode, other.owner, &other.capability))
}

fn equal(one: &Content, other: &Content) -> Result<bool, SavedError> {
    if one.length() != other.length() {
        return Ok(false);
    }
    let (mut first, mut second) = (one.reader(), other.reader());
    let (mut left, mut right) = (vec![0; 1 << 16], vec![0; 1 << 16]);
    let mut rest = one.length();
    while rest > 0 {
        let size = left.len().min(usize::try_from(rest).unwrap_or(usize::MAX));
        first.read_exact(&mut left[..size])?;
        second.read_exact(&mut right[..size])?;
        if left[..size] != right[..size] {
            return Ok(false);
        }
        rest -= size as u64;
    }
    Ok(true)
}

/// The content of a file without what is of the day of the build, or of one machine.
fn rewritten(path: &str, content: &Content, epoch: u64) -> Result<Content, SavedError> {
    match path {
        // machine-id(5): an empty file is filled at the first start.
        "etc/machine-id" | "var/lib/dbus/machine-id" => Ok(Content::Bytes(Arc::new([]))),
        "etc/shadow" if content.length() <= TEXT => {
            let mut text = Vec::new();
            content.reader().read_to_end(&mut text)?;
            let Ok(text) = String::from_utf8(text) else { return Ok(content.clone()) };
            Ok(Content::Bytes(shadow(&text, epoch).into_bytes().into()))
        }
        _ => Ok(content.clone()),
    }
}

/// shadow(5): the third field is the day of the last change.
fn shadow(text: &str, epoch: u64) -> String {
    let last = epoch / 86_400;
    let mut lines = String::new();
    for line in text.split_inclusive('\n') {
        let mut fields: Vec<String> = line.split(':').map(str::to_owned).collect();
        if let Some(day) = fields.get_mut(2).filter(|day| day.parse::<u64>().is_ok_and(|day| day > last)) {
            *day = last.to_string();
        }
        lines.push_str(&fields.join(":"));
    }
    lines
}

#[cfg(test)]
mod tests;
