//! What has newer versions, and the smallest change of the locks that takes them in.

use serde::Serialize;

use super::ImageContext;
use super::definition::{self, Loaded};
use super::error::ImageError;
use super::inventory::PackageKind;
use super::lock::Lock;
use super::locking::{npm_latest, pypi_latest, resolved, with_result};

/// What changed in the lock of one definition.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct LockChange {
    /// The definition.
    pub image: String,
    /// Packages that came, went or have another version.
    pub packages: Vec<VersionChange>,
    /// Whether the definition or the base changed since it was locked.
    pub stale: bool,
}

/// One package.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct VersionChange {
    /// Who made it.
    pub kind: PackageKind,
    /// Its name.
    pub name: String,
    /// The locked version.
    pub from: Option<String>,
    /// The present version.
    pub to: Option<String>,
    /// The suite that the present version is from.
    pub suite: Option<String>,
    /// How many bytes more there are to fetch.
    pub growth: i64,
}

/// What has newer versions than a definition and its bases have in their locks. Of npm and PyPI, whose versions stand in
/// the definition, it tells the newest.
///
/// # Errors
/// When a repository or registry cannot be asked.
pub async fn outdated(name: &str, context: &ImageContext<'_>) -> Result<Vec<LockChange>, ImageError> {
    let (mut changes, mut below) = (Vec::new(), Vec::new());
    for loaded in definition::chain(name, context.project_root)? {
        let old = old_lock(&loaded)?.ok_or_else(|| ImageError::Unlocked(loaded.name.clone()))?;
        // What is asked of npm here is the newest version, not whether the locked one is still there.
        let mut own = loaded.clone();
        own.definition.npm.clear();
        own.definition.pypi.clear();
        let mut new = resolved(&own, &below, context).await?;
        (new.npm, new.pylock, new.pypi) = (old.npm.clone(), old.pylock.clone(), old.pypi.clone());
        let mut packages = compare(&old, &new);
        for npm in &old.npm {
            let latest = npm_latest(&npm.package, &npm.version).await?;
            if latest != npm.version {
                let (name, from) = (npm.package.clone(), Some(npm.version.clone()));
                let kind = PackageKind::Npm;
                packages.push(VersionChange { kind, name, from, to: Some(latest), suite: None, growth: 0 });
            }
        }
        for pypi in &loaded.definition.pypi {
            let latest = pypi_latest(&pypi.package).await?;
            if latest != pypi.version {
                let (name, from) = (pypi.package.clone(), Some(pypi.version.clone()));
                let kind = PackageKind::Pypi;
                packages.push(VersionChange { kind, name, from, to: Some(latest), suite: None, growth: 0 });
            }
        }
        let stale = old.definition != loaded.digest || old.base != below.last().map(Lock::digest).transpose()?;
        if stale || !packages.is_empty() {
            changes.push(LockChange { image: loaded.name.clone(), packages, stale });
        }
        below.push(old);
    }
    Ok(changes)
}

/// New locks for a definition and those of its bases that belong to the project, where something changed. A lock whose
/// packages are all as they were is left alone, so that a newer index by itself changes nothing.
///
/// # Errors
/// When a repository cannot be asked, or a build fails.
pub async fn update(name: &str, context: &ImageContext<'_>) -> Result<Vec<(LockChange, Lock)>, ImageError> {
    let chain = definition::chain(name, context.project_root)?;
    let (mut changed, mut below) = (Vec::new(), Vec::<Lock>::new());
    for (index, loaded) in chain.iter().enumerate() {
        let old = old_lock(loaded)?;
        if loaded.built_in {
            below.push(old.ok_or_else(|| ImageError::Unlocked(loaded.name.clone()))?);
            continue;
        }
        let new = resolved(loaded, &below, context).await?;
        let packages = old.as_ref().map(|old| compare(old, &new)).unwrap_or_default();
        let stale = old.as_ref().is_none_or(|old| {
            (old.recipe, &old.definition, &old.base, &old.pylock, old.result.is_some())
                != (new.recipe, &new.definition, &new.base, &new.pylock, true)
        });
        match old.filter(|_| packages.is_empty() && !stale) {
            Some(old) => below.push(old),
            None => {
                let lock = with_result(&chain[..=index], below.clone(), new, context).await?;
                changed.push((LockChange { image: loaded.name.clone(), packages, stale }, lock.clone()));
                below.push(lock);
            }
        }
    }
    Ok(changed)
}

fn old_lock(loaded: &Loaded) -> Result<Option<Lock>, ImageError> {
    loaded.lock.as_deref().map(|text| Lock::parse(&loaded.name, text)).transpose()
}

/// Name, version, suite and size of everything that a lock pins.
fn pinned(lock: &Lock) -> impl Iterator<Item = (PackageKind, &str, &str, Option<&str>, u64)> {
    let debian = lock.packages.iter().map(|package| {
        (PackageKind::Deb, package.name.as_str(), package.version.as_str(), Some(package.suite.as_str()), package.size)
    });
    let npm = lock.npm.iter().map(|npm| (PackageKind::Npm, npm.package.as_str(), npm.version.as_str(), None, npm.size));
    let pypi = lock.pypi.iter();
    let pypi = pypi.map(|wheel| (PackageKind::Pypi, wheel.package.as_str(), wheel.version.as_str(), None, wheel.size));
    debian.chain(npm).chain(pypi)
}

fn compare(old: &Lock, new: &Lock) -> Vec<VersionChange> {
    let size = |size: u64| i64::try_from(size).unwrap_or(i64::MAX);
    let mut changes = Vec::new();
    for (kind, name, version, _, bytes) in pinned(old) {
        let same = pinned(new).find(|other| (other.0, other.1) == (kind, name));
        if same.is_none_or(|other| other.2 != version) {
            changes.push(VersionChange {
                kind,
                name: name.to_owned(),
                from: Some(version.to_owned()),
                to: same.map(|other| other.2.to_owned()),
                suite: same.and_then(|other| other.3).map(str::to_owned),
                growth: same.map_or(0, |other| size(other.4)).saturating_sub(size(bytes)),
            });
        }
    }
    for (kind, name, version, suite, bytes) in pinned(new) {
        if !pinned(old).any(|other| (other.0, other.1) == (kind, name)) {
            let (to, suite) = (Some(version.to_owned()), suite.map(str::to_owned));
            changes.push(VersionChange { kind, name: name.to_owned(), from: None, to, suite, growth: size(bytes) });
        }
    }
    changes.sort_by(|one, other| (one.kind, &one.name).cmp(&(other.kind, &other.name)));
    changes
}

impl LockChange {
    /// Lines for people, as a pull request wants them.
    pub fn text(&self) -> String {
        let mut text = format!("{}:{}\n", self.image, if self.stale { " its definition or base changed" } else { "" });
        for change in &self.packages {
            let suite = change.suite.as_deref().map(|suite| format!(" ({suite})")).unwrap_or_default();
            let (kind, name) = (change.kind, &change.name);
            text.push_str(&match (&change.from, &change.to) {
                (Some(from), Some(to)) => format!("  ~ {kind} {name} {from} -> {to}{suite}\n"),
                (None, Some(to)) => format!("  + {kind} {name} {to}{suite}\n"),
                (from, None) => format!("  - {kind} {name} {}\n", from.as_deref().unwrap_or_default()),
            });
        }
        let growth: i64 = self.packages.iter().map(|change| change.growth).sum();
        if growth != 0 {
            text.push_str(&format!("  to fetch: {growth:+} bytes\n"));
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::lock::Package;

    #[test]
    fn tells_versions_that_changed_and_the_growth() {
        let lock = definition::load("base", None).unwrap();
        let old = old_lock(&lock).unwrap().unwrap();
        let mut new = old.clone();
        new.packages[0] = Package { version: "999".into(), size: new.packages[0].size + 10, ..new.packages[0].clone() };
        let gone = new.packages.remove(1);
        new.sources.clear();
        let packages = compare(&old, &new);
        assert_eq!((packages[0].to.as_deref(), packages[0].growth), (Some("999"), 10));
        assert_eq!((packages[1].name.as_str(), packages[1].to.as_deref()), (gone.name.as_str(), None));
        let text = LockChange { image: "base".into(), packages, stale: false }.text();
        assert!(text.starts_with("base:\n  ~ deb ") && text.contains(" -> 999 ("), "{text}");
        assert!(text.ends_with(&format!("to fetch: {:+} bytes\n", 10 - i64::try_from(gone.size).unwrap())), "{text}");
        assert_eq!(compare(&old, &old), []);
    }
}
