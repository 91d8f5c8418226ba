//! What has newer versions, and the smallest change of the locks that takes them in.

use std::collections::BTreeSet;

use serde::Serialize;

use super::ImageContext;
use super::definition::{self, Loaded};
use super::error::ImageError;
use super::inventory::PackageKind;
use super::lock::{self, Lock, Package};
use super::locking::{candidates, npm_latest, pypi_latest, resolved, with_result};
use super::repository;
use super::resolve::Index;
use super::{fetch, unpack};

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
    /// What its makers say of the versions since the locked one: lines of Debian's changelog (Debian Policy, section 4.4), or
    /// the address of the registry's page.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub changelog: Vec<String>,
}

/// Lines of one changelog that are shown.
const CHANGELOG_LINES: usize = 40;

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
        own.package_lock = None;
        let mut new = resolved(&own, &below, context).await?;
        (new.npm, new.pylock, new.pypi) = (old.npm.clone(), old.pylock.clone(), old.pypi.clone());
        let mut packages = compare(&old, &new);
        for npm in &loaded.definition.npm {
            let latest = npm_latest(&npm.package, &npm.version).await?;
            if latest != npm.version {
                let (name, from) = (npm.package.clone(), Some(npm.version.clone()));
                let kind = PackageKind::Npm;
                let changelog = vec![page(kind, &name, &latest)];
                packages.push(VersionChange { kind, name, from, to: Some(latest), suite: None, growth: 0, changelog });
            }
        }
        for pypi in &loaded.definition.pypi {
            let latest = pypi_latest(&pypi.package).await?;
            if latest != pypi.version {
                let (name, from) = (pypi.package.clone(), Some(pypi.version.clone()));
                let kind = PackageKind::Pypi;
                let changelog = vec![page(kind, &name, &latest)];
                packages.push(VersionChange { kind, name, from, to: Some(latest), suite: None, growth: 0, changelog });
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
            (old.recipe, &old.definition, &old.base, &old.pylock, &old.package_lock, old.result.is_some())
                != (new.recipe, &new.definition, &new.base, &new.pylock, &new.package_lock, true)
        });
        match old.filter(|_| packages.is_empty() && !stale) {
            Some(old) => below.push(old),
            None => {
                let lock = with_result(&chain[..=index], below.clone(), new, context).await?;
                let packages = told(packages, &lock, context);
                changed.push((LockChange { image: loaded.name.clone(), packages, stale }, lock.clone()));
                below.push(lock);
            }
        }
    }
    Ok(changed)
}

/// New locks for the newest version of one Debian package, in the lock of the project that has it. Other packages change
/// only where that version needs it; the locks above change in their base alone.
///
/// # Errors
/// When no lock has the package, a lock is out of date, the version does not fit, or a build fails.
pub async fn update_package(
    name: &str,
    package: &str,
    context: &ImageContext<'_>,
) -> Result<Vec<(LockChange, Lock)>, ImageError> {
    let chain = definition::chain(name, context.project_root)?;
    let mut locks = lock::locks(&chain)?;
    let has = |(loaded, lock): (&Loaded, &Lock)| {
        !loaded.built_in && lock.packages.iter().any(|locked| locked.name == package)
    };
    let absent = || ImageError::NoPackage { name: name.to_owned(), package: package.chars().take(100).collect() };
    let place = chain.iter().zip(&locks).position(has).ok_or_else(absent)?;
    let debian = chain[place].definition.debian.as_ref().ok_or_else(absent)?;
    let old = locks[place].clone();
    let (index, sources) = repository::index(&chain[place], debian, &old.architecture, Some(&old), context).await?;
    let mut base = Vec::new();
    for lock in &locks[..place] {
        base.extend(candidates(lock, &index, context).await?);
    }
    let own = candidates(&old, &index, context).await?;
    let chosen = index.update(&own, &base, &debian.packages, package)?;
    let packages: Vec<Package> =
        chosen.into_iter().map(|candidate| kept(candidate.into_locked(), &old, &index)).collect();
    let dates = sources.iter().map(|source| source.date).chain(locks[..place].last().map(|lock| lock.epoch));
    let epoch = dates.max().unwrap_or(old.epoch);
    let new = Lock { sources, packages, epoch, result: None, ..old.clone() };
    let packages = compare(&old, &new);
    let mut changed = Vec::new();
    if packages.is_empty() {
        return Ok(changed);
    }
    let lock = with_result(&chain[..=place], locks[..place].to_vec(), new, context).await?;
    locks[place] = lock.clone();
    let packages = told(packages, &lock, context);
    changed.push((LockChange { image: chain[place].name.clone(), packages, stale: false }, lock));
    for above in place + 1..chain.len() {
        let below = locks[..above].to_vec();
        let old = &locks[above];
        let epoch = below.last().map_or(old.epoch, |lock| lock.epoch.max(old.epoch));
        let packages = old.packages.iter().filter(|own| !lock::superseded(own, &below)).cloned().collect();
        let base = below.last().map(Lock::digest).transpose()?;
        let new = Lock { base, packages, epoch, result: None, ..old.clone() };
        let lock = with_result(&chain[..=above], below, new, context).await?;
        locks[above] = lock.clone();
        let image = chain[above].name.clone();
        changed.push((LockChange { image, packages: Vec::new(), stale: true }, lock));
    }
    Ok(changed)
}

/// A package as the former lock had it, if it did; with a day on which it was published if it is not the newest.
fn kept(package: Package, old: &Lock, index: &Index) -> Package {
    let same = |locked: &&Package| (&locked.name, &locked.version) == (&package.name, &package.version);
    let Some(locked) = old.packages.iter().find(same) else { return package };
    let source = old.sources.iter().find(|source| source.suite == locked.suite).map(|source| source.date);
    Package { date: if index.same(locked).is_some() { None } else { locked.date.or(source) }, ..locked.clone() }
}

fn old_lock(loaded: &Loaded) -> Result<Option<Lock>, ImageError> {
    loaded.lock.as_deref().map(|text| Lock::parse(&loaded.name, text)).transpose()
}

/// Name, version, suite and size of everything that a lock pins.
fn pinned(lock: &Lock) -> impl Iterator<Item = (PackageKind, &str, &str, Option<&str>, u64)> {
    let debian = lock.packages.iter().map(|package| {
        (PackageKind::Deb, package.name.as_str(), package.version.as_str(), Some(package.suite.as_str()), package.size)
    });
    let npm = lock.npm.iter().map(|npm| {
        // One package can be there in several versions, for several others.
        let place = npm.place.as_deref().map(|place| place.trim_start_matches("node_modules/"));
        (PackageKind::Npm, place.unwrap_or(&npm.package), npm.version.as_str(), None, npm.size)
    });
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
                changelog: Vec::new(),
            });
        }
    }
    for (kind, name, version, suite, bytes) in pinned(new) {
        if !pinned(old).any(|other| (other.0, other.1) == (kind, name)) {
            let (to, suite) = (Some(version.to_owned()), suite.map(str::to_owned));
            let (name, growth, changelog) = (name.to_owned(), size(bytes), Vec::new());
            changes.push(VersionChange { kind, name, from: None, to, suite, growth, changelog });
        }
    }
    changes.sort_by(|one, other| (one.kind, &one.name).cmp(&(other.kind, &other.name)));
    changes
}

/// The page of a registry about one version.
fn page(kind: PackageKind, name: &str, version: &str) -> String {
    match kind {
        PackageKind::Pypi => format!("https://pypi.org/project/{name}/{version}/"),
        _ => format!("https://www.npmjs.com/package/{name}/v/{version}"),
    }
}

/// Adds what the makers say to versions that changed. The packages are in the cache, as the lock was just built of them,
/// and have their changelogs in them.
fn told(mut changes: Vec<VersionChange>, lock: &Lock, context: &ImageContext<'_>) -> Vec<VersionChange> {
    let mut known = BTreeSet::new();
    for change in &mut changes {
        let (Some(from), Some(to)) = (&change.from, &change.to) else { continue };
        if change.kind != PackageKind::Deb {
            change.changelog = vec![page(change.kind, &change.name, to)];
            continue;
        }
        let Some(package) = lock.packages.iter().find(|package| package.name == change.name) else { continue };
        let blob = fetch::blob(context.cache, &package.sha256);
        // Who lacks one keeps it with another package of the same source, which is not looked for.
        let Ok(Some(text)) = unpack::changelog(&blob, &package.name) else { continue };
        let lines = since(&text, from);
        // Packages of one source have the same changelog.
        if known.insert(lines.clone()) {
            change.changelog = lines;
        }
    }
    changes
}

/// The lines of a changelog (Debian Policy, section 4.4) that are about versions after this one.
fn since(text: &str, from: &str) -> Vec<String> {
    let Ok(from) = from.parse::<debversion::Version>() else { return Vec::new() };
    let mut lines = Vec::new();
    for line in text.lines().map(str::trim_end).filter(|line| !line.is_empty()) {
        if !line.starts_with(' ') {
            let version = line.split_once('(').and_then(|(_, rest)| rest.split_once(')'));
            let version = version.and_then(|(version, _)| version.parse::<debversion::Version>().ok());
            if version.is_none_or(|version| version <= from) {
                break;
            }
        }
        // Who signed and when is no news.
        if line.starts_with(" -- ") {
            continue;
        }
        if lines.len() == CHANGELOG_LINES {
            lines.push("…".to_owned());
            break;
        }
        lines.push(line.chars().take(200).collect());
    }
    lines
}

/// A number of bytes for people.
fn bytes(bytes: i64) -> String {
    let size = bytes.unsigned_abs();
    let sign = if bytes < 0 { '-' } else { '+' };
    match size {
        0..1_000 => format!("{sign}{size} bytes"),
        1_000..1_000_000 => format!("{sign}{}.{} kB", size / 1_000, size % 1_000 / 100),
        _ => format!("{sign}{}.{} MB", size / 1_000_000, size % 1_000_000 / 100_000),
    }
}

impl LockChange {
    /// Lines for people, as a pull request wants them.
    pub fn text(&self) -> String {
        let mut text = format!("{}:{}\n", self.image, if self.stale { " its definition or base changed" } else { "" });
        for change in &self.packages {
            let suite = change.suite.as_deref().map(|suite| format!(" ({suite})")).unwrap_or_default();
            let (kind, name) = (change.kind, &change.name);
            text.push_str(&match (&change.from, &change.to) {
                (Some(from), Some(to)) => format!("  ~ {kind} {name} {from} -> {to}{suite}"),
                (None, Some(to)) => format!("  + {kind} {name} {to}{suite}"),
                (from, None) => format!("  - {kind} {name} {}", from.as_deref().unwrap_or_default()),
            });
            if change.growth != 0 {
                text.push_str(&format!(", {}", bytes(change.growth)));
            }
            text.push('\n');
            change.changelog.iter().for_each(|line| text.push_str(&format!("      {line}\n")));
        }
        let growth: i64 = self.packages.iter().map(|change| change.growth).sum();
        if growth != 0 {
            text.push_str(&format!("  to fetch: {}\n", bytes(growth)));
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::resolve::Priority;

    #[test]
    fn what_stays_behind_keeps_a_day_on_which_it_could_be_had() {
        let lock = old_lock(&definition::load("base", None).unwrap()).unwrap().unwrap();
        let (first, second) = (&lock.packages[0], &lock.packages[1]);
        let mut index = Index::default();
        let stanza = |package: &Package, version: &str| {
            // Another version is another file.
            let own = package.sha256.hex().to_owned();
            let digest = if version == package.version { own } else { "0".repeat(64) };
            let name = &package.name;
            format!(
                "Package: {name}\nVersion: {version}\nArchitecture: all\nFilename: pool/x\nSize: 1\nSHA256: {digest}\n\n"
            )
        };
        index.add("s", Priority::Normal, &(stanza(first, "999:1") + &stanza(second, &second.version))).unwrap();
        let source = lock.sources.iter().find(|source| source.suite == first.suite).unwrap().date;
        assert_eq!(kept(first.clone(), &lock, &index), Package { date: Some(source), ..first.clone() });
        assert_eq!(kept(second.clone(), &lock, &index), *second);
        // A second update does not move the day.
        let mut later = lock.clone();
        later.packages[0].date = Some(7);
        assert_eq!(kept(first.clone(), &later, &index).date, Some(7));
    }

    #[test]
    fn of_a_changelog_the_news_since_the_locked_version_are_told() {
        let text = "dash (0.5.12-3) bookworm; urgency=medium\n\n  * Mend it.\n    More of it.\n\n -- Ada <a@example.com>  Sat\n\n\
                    dash (0.5.12-2) unstable; urgency=medium\n\n  * Older.\n\n -- Ada <a@example.com>  Fri\n";
        let news = ["dash (0.5.12-3) bookworm; urgency=medium", "  * Mend it.", "    More of it."];
        assert_eq!(since(text, "0.5.12-2"), news);
        assert_eq!(since(text, "0.5.12-3"), Vec::<String>::new());
        assert_eq!(since(text, "0.1").len(), 5);
        let long = format!("a (2) x; urgency=low\n{}", "  * x\n".repeat(100));
        assert_eq!(since(&long, "1").len(), CHANGELOG_LINES + 1);
        assert_eq!([bytes(-12), bytes(1_234), bytes(12_345_678)], ["-12 bytes", "+1.2 kB", "+12.3 MB"]);
    }

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
        let growth = 10 - i64::try_from(gone.size).unwrap();
        assert!(
            text.contains(", +10 bytes\n") && text.ends_with(&format!("to fetch: {}\n", super::bytes(growth))),
            "{text}"
        );
        assert_eq!(compare(&old, &old), []);
    }
}
