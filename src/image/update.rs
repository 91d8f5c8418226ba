//! What has newer versions, and the smallest change of the locks that takes them in.

use serde::Serialize;

use super::ImageContext;
use super::definition::{self, Loaded};
use super::error::ImageError;
use super::inventory::PackageKind;
use super::lock::{self, Lock, Package};
use super::locking::{debian_index, npm_latest, pypi_latest, resolved, with_result};
use super::resolve::{Candidate, Index};
use super::{build, fetch, unpack};

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
    let (index, sources) = debian_index(&fetch::client()?, &debian.suite, &old.architecture, context).await?;
    let base: Vec<_> = locks[..place].iter().flat_map(|lock| &lock.packages).collect();
    let base = base.into_iter().map(|locked| index.stand_in(locked)).collect::<Result<Vec<_>, _>>()?;
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
    changed.push((LockChange { image: chain[place].name.clone(), packages, stale: false }, lock));
    for above in place + 1..chain.len() {
        let below = locks[..above].to_vec();
        let old = &locks[above];
        let epoch = below.last().map_or(old.epoch, |lock| lock.epoch.max(old.epoch));
        let new = Lock { base: below.last().map(Lock::digest).transpose()?, epoch, result: None, ..old.clone() };
        let lock = with_result(&chain[..=above], below, new, context).await?;
        locks[above] = lock.clone();
        let image = chain[above].name.clone();
        changed.push((LockChange { image, packages: Vec::new(), stale: true }, lock));
    }
    Ok(changed)
}

/// The packages of a lock with what they say of others: in the index for those that are the newest, and otherwise in the
/// package itself.
async fn candidates(lock: &Lock, index: &Index, context: &ImageContext<'_>) -> Result<Vec<Candidate>, ImageError> {
    let newest = |locked: &Package| {
        index.newest(&locked.name).filter(|newest| newest.version.to_string() == locked.version).cloned()
    };
    let older = lock.packages.iter().filter(|locked| newest(locked).is_none()).cloned().collect();
    let older = Lock { packages: older, npm: Vec::new(), pypi: Vec::new(), ..lock.clone() };
    let wanted = build::wanted(&older, context);
    if let Some(root) = context.project_root {
        fetch::adopt(&root.join(build::VENDOR), context.cache, &wanted)?;
    }
    fetch::all(context.cache, wanted, context.progress, context.offline).await?;
    let mut candidates = Vec::new();
    for locked in &lock.packages {
        candidates.push(match newest(locked) {
            Some(candidate) => candidate,
            None => {
                let broken = |problem| ImageError::Package { package: locked.name.clone(), problem };
                let control = unpack::control(&fetch::blob(context.cache, &locked.sha256)).map_err(broken)?;
                Candidate::of_locked(locked, &control)?
            }
        });
    }
    Ok(candidates)
}

/// A package as the former lock had it, if it did; with a day on which it was published if it is not the newest.
fn kept(package: Package, old: &Lock, index: &Index) -> Package {
    let same = |locked: &&Package| (&locked.name, &locked.version) == (&package.name, &package.version);
    let Some(locked) = old.packages.iter().find(same) else { return package };
    let newest = index.newest(&locked.name).is_some_and(|newest| newest.version.to_string() == locked.version);
    let source = old.sources.iter().find(|source| source.suite == locked.suite).map(|source| source.date);
    Package { date: if newest { None } else { locked.date.or(source) }, ..locked.clone() }
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

    #[test]
    fn what_stays_behind_keeps_a_day_on_which_it_could_be_had() {
        let lock = old_lock(&definition::load("base", None).unwrap()).unwrap().unwrap();
        let (first, second) = (&lock.packages[0], &lock.packages[1]);
        let mut index = Index::default();
        let stanza = |package: &Package, version: &str| {
            let digest = package.sha256.hex();
            let name = &package.name;
            format!(
                "Package: {name}\nVersion: {version}\nArchitecture: all\nFilename: pool/x\nSize: 1\nSHA256: {digest}\n\n"
            )
        };
        index.add("s", &(stanza(first, "999:1") + &stanza(second, &second.version))).unwrap();
        let source = lock.sources.iter().find(|source| source.suite == first.suite).unwrap().date;
        assert_eq!(kept(first.clone(), &lock, &index), Package { date: Some(source), ..first.clone() });
        assert_eq!(kept(second.clone(), &lock, &index), *second);
        // A second update does not move the day.
        let mut later = lock.clone();
        later.packages[0].date = Some(7);
        assert_eq!(kept(first.clone(), &later, &index).date, Some(7));
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
        assert!(text.ends_with(&format!("to fetch: {:+} bytes\n", 10 - i64::try_from(gone.size).unwrap())), "{text}");
        assert_eq!(compare(&old, &old), []);
    }
}
