//! What differs between two images: packages, and entries with what changed about them.

use std::collections::BTreeSet;

use serde::Serialize;

use super::inventory::{Entry, EntryKind, Inventory, PackageKind};

/// All differences, sorted.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// Packages that came, went or have another version.
    pub packages: Vec<PackageChange>,
    /// Entries that came, went or changed.
    pub files: Vec<FileChange>,
}

/// A package that differs.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct PackageChange {
    /// Who made it.
    pub kind: PackageKind,
    /// Its name.
    pub name: String,
    /// Its version in the first image.
    pub from: Option<String>,
    /// Its version in the second image.
    pub to: Option<String>,
}

/// An entry that differs.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct FileChange {
    /// Its absolute path.
    pub path: String,
    /// Whether it came, went or changed.
    pub change: Change,
    /// What changed about it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub what: Vec<String>,
}

/// How something differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Change {
    /// Only the second image has it.
    Added,
    /// Only the first image has it.
    Removed,
    /// Both have it, and not the same.
    Changed,
}

impl Difference {
    /// Compares two inventories.
    pub fn between(first: &Inventory, second: &Inventory) -> Self {
        let mut difference = Self::default();
        let names: BTreeSet<_> = first.packages.keys().chain(second.packages.keys()).collect();
        for key in names {
            let (from, to) = (first.packages.get(key).cloned(), second.packages.get(key).cloned());
            if from != to {
                difference.packages.push(PackageChange { kind: key.0, name: key.1.clone(), from, to });
            }
        }
        let paths: BTreeSet<_> = first.entries.keys().chain(second.entries.keys()).collect();
        for path in paths {
            let (change, what) = match (first.entries.get(path), second.entries.get(path)) {
                (None, _) => (Change::Added, Vec::new()),
                (_, None) => (Change::Removed, Vec::new()),
                (Some(one), Some(other)) if one != other => (Change::Changed, changes(one, other)),
                _ => continue,
            };
            difference.files.push(FileChange { path: format!("/{path}"), change, what });
        }
        difference
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.packages.is_empty() && self.files.is_empty()
    }

    /// Lines for people, `limit` entries at most.
    pub fn text(&self, limit: usize) -> String {
        let mut text = String::new();
        for PackageChange { kind, name, from, to } in &self.packages {
            text.push_str(&match (from, to) {
                (Some(from), Some(to)) => format!("~ {kind} {name} {from} -> {to}\n"),
                (None, Some(to)) => format!("+ {kind} {name} {to}\n"),
                (from, _) => format!("- {kind} {name} {}\n", from.as_deref().unwrap_or_default()),
            });
        }
        for FileChange { path, change, what } in self.files.iter().take(limit) {
            text.push_str(&match change {
                Change::Added => format!("+ {path}\n"),
                Change::Removed => format!("- {path}\n"),
                Change::Changed => format!("~ {path}: {}\n", what.join(", ")),
            });
        }
        if self.files.len() > limit {
            text.push_str(&format!("… and {} more entries\n", self.files.len() - limit));
        }
        let count = |wanted: Change| self.files.iter().filter(|file| file.change == wanted).count();
        let (added, removed, changed) = (count(Change::Added), count(Change::Removed), count(Change::Changed));
        text.push_str(&format!(
            "packages that differ: {}; entries added: {added}, removed: {removed}, changed: {changed}\n",
            self.packages.len()
        ));
        text
    }
}

fn changes(one: &Entry, other: &Entry) -> Vec<String> {
    let mut what = Vec::new();
    match (&one.kind, &other.kind) {
        (EntryKind::File { size, sha256, .. }, EntryKind::File { size: size_after, sha256: sha256_after, .. }) => {
            if size != size_after {
                what.push(format!("size {size} -> {size_after}"));
            } else if sha256 != sha256_after {
                what.push("content".to_owned());
            }
        }
        (EntryKind::Symlink(from), EntryKind::Symlink(to)) if from != to => what.push(format!("target {from} -> {to}")),
        (from, to) if from != to => what.push(format!("{} -> {}", word(from), word(to))),
        _ => {}
    }
    if one.mode != other.mode {
        what.push(format!("mode {:o} -> {:o}", one.mode, other.mode));
    }
    if one.owner != other.owner {
        let (from, to) = (one.owner, other.owner);
        what.push(format!("owner {}:{} -> {}:{}", from.0, from.1, to.0, to.1));
    }
    if one.time != other.time {
        what.push(format!("time {} -> {}", one.time, other.time));
    }
    what
}

fn word(kind: &EntryKind) -> &'static str {
    match kind {
        EntryKind::File { .. } | EntryKind::HardLink(_) => "file",
        EntryKind::Folder => "folder",
        EntryKind::Symlink(_) => "link",
        EntryKind::Special => "special file",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::reference::Digest;

    fn file(text: &str, mode: u32) -> Entry {
        let kind = EntryKind::File { size: text.len() as u64, sha256: Digest::of(text.as_bytes()), sha1: [0; 20] };
        Entry { kind, mode, owner: (0, 0), time: 7 }
    }

    #[test]
    fn says_what_came_went_and_changed() {
        let (mut first, mut second) = (Inventory::default(), Inventory::default());
        first.entries.insert("a".into(), file("x", 0o644));
        first.entries.insert("b".into(), file("x", 0o644));
        first.entries.insert("same".into(), file("x", 0o644));
        second.entries.insert("b".into(), file("y", 0o755));
        second.entries.insert("same".into(), file("x", 0o644));
        second.entries.insert("c".into(), Entry { kind: EntryKind::Folder, ..file("", 0o755) });
        first.packages.insert((PackageKind::Deb, "git".into()), "1".into());
        second.packages.insert((PackageKind::Deb, "git".into()), "2".into());
        second.packages.insert((PackageKind::Npm, "n".into()), "1".into());
        let difference = Difference::between(&first, &second);
        let expected = "~ deb git 1 -> 2\n+ npm n 1\n- /a\n~ /b: content, mode 644 -> 755\n+ /c\n\
                        packages that differ: 2; entries added: 1, removed: 1, changed: 1\n";
        assert_eq!(difference.text(10), expected);
        assert!(difference.text(1).contains("… and 2 more entries"));
        assert!(Difference::between(&first, &first).is_empty());
    }
}
