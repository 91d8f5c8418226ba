//! Makes the layers of a chain of definitions from their locks.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use oci_spec::image::Config;

use super::ImageContext;
use super::archive::{BuiltImage, BuiltLayer, Settings};
use super::control::paragraph;
use super::definition::Loaded;
use super::error::{ImageError, PackageProblem, at};
use super::fetch::{self, Wanted, blob};
use super::lock::{Lock, NpmTarball, Package, PypiWheel, ResultDigests};
use super::pylock::Interpreter;
use super::reference::Digest;
use super::sources::Mirrors;
use super::tree::{Entry, Kind, Tree};
use super::unpack::{self, Unpacked};
use super::{alternatives, finish, lock, wheel};

/// Threads that take packages apart, at most; each needs memory for what it unpacks.
const THREADS: usize = 8;

/// Where a project keeps what its images are made of, by digest.
pub(super) const VENDOR: &str = "images/vendor";

/// Builds all layers of a chain, or takes them from `layers`, and puts the image together.
pub async fn chain(
    chain: &[Loaded],
    locks: &[Lock],
    context: &ImageContext<'_>,
    layers: &Path,
) -> Result<BuiltImage, ImageError> {
    std::fs::create_dir_all(layers).map_err(at(layers))?;
    fetch::sweep(&[context.cache, &context.cache.join("blobs/sha256"), layers]);
    let mut built: Vec<BuiltLayer> = Vec::new();
    for (index, (loaded, lock)) in chain.iter().zip(locks).enumerate() {
        let note = layers.join(format!("{}.inputs", key(lock, &built)?.hex()));
        if let Some(layer) = cached(&note, layers) {
            built.push(layer);
            continue;
        }
        let wanted = wanted(lock, context);
        if let Some(root) = context.project_root {
            fetch::adopt(&root.join(VENDOR), context.cache, &wanted)?;
        }
        fetch::all(context.cache, wanted, context.progress, context.offline).await?;
        let python = match lock.pypi.is_empty() {
            true => None,
            false => Some(Interpreter::of(&locks[..=index]).map_err(|problem| ImageError::Pylock { problem })?),
        };
        let (loaded, lock, below) = (loaded.clone(), lock.clone(), built.clone());
        let (cache, folder) = (context.cache.to_owned(), layers.to_owned());
        let progress = context.progress;
        let work = move || layer(&loaded, &lock, python, &below, &cache, &folder, progress);
        let work = tokio::task::spawn_blocking(work);
        let layer = work.await.map_err(|_| ImageError::Worker)??;
        std::fs::write(&note, format!("{} {}", layer.diff_id, layer.size)).map_err(at(&note))?;
        built.push(layer);
    }
    let environment = lock::environment(chain);
    let epoch = locks.iter().map(|lock| lock.epoch).max().unwrap_or_default();
    let name = chain.last().map(|loaded| loaded.name.as_str()).unwrap_or_default();
    let architecture = locks.last().map(|lock| lock.architecture.as_str()).unwrap_or_default();
    let mut run = Config::default();
    run.set_cmd(Some(vec!["/bin/bash".to_owned()]))
        .set_env(Some(environment.iter().map(|(key, value)| format!("{key}={value}")).collect()))
        .set_user(Some("1000:1000".to_owned()))
        .set_working_dir(Some("/workspace".to_owned()));
    BuiltImage::assemble(Settings { name, run, architecture, epoch }, built)
}

/// Compares a build with what its lock promises.
pub fn compare(name: &str, built: &BuiltImage, lock: &Lock) -> Result<(), ImageError> {
    let result = lock.result.as_ref().ok_or_else(|| ImageError::Unlocked(name.to_owned()))?;
    compare_digests(name, built, result)
}

/// Compares a build with these digests.
pub fn compare_digests(name: &str, built: &BuiltImage, result: &ResultDigests) -> Result<(), ImageError> {
    match mismatches(built, result).into_iter().next() {
        None => Ok(()),
        Some(Mismatch { what, built, locked, .. }) => {
            Err(ImageError::Mismatch { name: name.to_owned(), what, built, locked })
        }
    }
}

/// A digest of a build that is not what the lock promises.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Mismatch {
    /// Layer, configuration or manifest.
    pub what: &'static str,
    /// For a layer, which one, from below and from 0.
    pub layer: Option<usize>,
    /// What came out.
    pub built: Digest,
    /// What should have.
    pub locked: Digest,
}

/// All digests of a build that are not what its lock promises.
pub fn mismatches(built: &BuiltImage, result: &ResultDigests) -> Vec<Mismatch> {
    let layers = built.layers.iter().zip(&result.diff_ids).enumerate();
    let layers = layers.map(|(index, (layer, locked))| ("layer", Some(index), &layer.diff_id, locked));
    let rest = [
        ("configuration", None, &built.config_digest, &result.config),
        ("manifest", None, &built.manifest_digest, &result.manifest),
    ];
    let all = layers.chain(rest).filter(|(_, _, built, locked)| built != locked);
    let all =
        all.map(|(what, layer, built, locked)| Mismatch { what, layer, built: built.clone(), locked: locked.clone() });
    all.collect()
}

/// The text of every file that decides which bytes a layer has. A builder that was changed finds no layer of the former
/// one in the cache, whether or not somebody thought of [`lock::RECIPE`].
const BUILDER: &[&str] = &[
    include_str!("alternatives.rs"),
    include_str!("build.rs"),
    include_str!("control.rs"),
    include_str!("finish.rs"),
    include_str!("php.rs"),
    include_str!("pylock.rs"),
    include_str!("tree.rs"),
    include_str!("unpack.rs"),
    include_str!("wheel.rs"),
    include_str!("../init/truststore.rs"),
    include_str!("../../Cargo.lock"),
];

/// All that a layer depends on: the lock without its result (and so the definition), the layers below, the builder.
fn key(lock: &Lock, below: &[BuiltLayer]) -> Result<Digest, ImageError> {
    let mut parts = vec![Lock { result: None, ..lock.clone() }.digest()?.to_string()];
    parts.extend(below.iter().map(|layer| layer.diff_id.to_string()));
    parts.extend(BUILDER.iter().map(|text| Digest::of(text.as_bytes()).to_string()));
    Ok(Digest::of(parts.join("\n").as_bytes()))
}

fn cached(note: &Path, layers: &Path) -> Option<BuiltLayer> {
    let text = std::fs::read_to_string(note).ok()?;
    let (digest, size) = text.split_once(' ')?;
    let (diff_id, size): (Digest, u64) = (digest.parse().ok()?, size.parse().ok()?);
    let path = layers.join(format!("{}.tar", diff_id.hex()));
    let there = path.metadata().is_ok_and(|metadata| metadata.len() == size);
    there.then_some(BuiltLayer { diff_id, size, path })
}

pub(super) fn wanted(lock: &Lock, context: &ImageContext<'_>) -> Vec<Wanted> {
    let mirrors = Mirrors::read(context.apt_sources_root);
    let mut wanted: Vec<Wanted> = lock.packages.iter().map(|package| debian(package, lock, &mirrors)).collect();
    wanted.extend(lock.npm.iter().map(|npm| Wanted {
        what: format!("{} {}", npm.package, npm.version),
        sha256: npm.sha256.clone(),
        size: npm.size,
        addresses: vec![npm.url.clone().unwrap_or_else(|| npm_address(&npm.package, &npm.version))],
    }));
    wanted.extend(lock.pypi.iter().map(wheel_wanted));
    wanted
}

/// How a wheel is fetched.
pub(super) fn wheel_wanted(wheel: &PypiWheel) -> Wanted {
    Wanted {
        what: format!("the wheel {}", wheel.file),
        sha256: wheel.sha256.clone(),
        size: wheel.size,
        addresses: vec![wheel.url.clone()],
    }
}

/// Where npm's registry has a tarball.
pub fn npm_address(package: &str, version: &str) -> String {
    let base = package.rsplit('/').next().unwrap_or(package);
    format!("https://registry.npmjs.org/{package}/-/{base}-{version}.tgz")
}

fn debian(package: &Package, lock: &Lock, mirrors: &Mirrors) -> Wanted {
    let what = format!("the package {} {}", package.name, package.version);
    let (sha256, size) = (package.sha256.clone(), package.size);
    if let Some((address, _)) = package.suite.split_once(' ') {
        return Wanted { what, sha256, size, addresses: vec![format!("{address}/{}", package.path)] };
    }
    let mut addresses: Vec<String> =
        mirrors.of(&package.suite).iter().map(|mirror| format!("{mirror}/{}", package.path)).collect();
    // Mirrors drop superseded packages within weeks; the snapshot archive has every day.
    let suite = lock.sources.iter().find(|source| source.suite == package.suite).map(|source| source.date);
    let date = package.date.or(suite);
    let time = date.and_then(|date| jiff::Timestamp::from_second(i64::try_from(date).ok()? + 21_600).ok());
    if let Some(time) = time {
        let archive = if package.suite.ends_with("-security") { "debian-security" } else { "debian" };
        let time = time.strftime("%Y%m%dT%H%M%SZ");
        addresses.push(format!("https://snapshot.debian.org/archive/{archive}/{time}/{}", package.path));
    }
    Wanted { what, sha256, size, addresses }
}

fn layer(
    loaded: &Loaded,
    lock: &Lock,
    python: Option<Interpreter>,
    below: &[BuiltLayer],
    cache: &Path,
    folder: &Path,
    progress: bool,
) -> Result<BuiltLayer, ImageError> {
    let mut tree = Tree::default();
    for layer in below {
        tree.add_layer(&layer.path)?;
    }
    if below.is_empty() {
        finish::begin(&mut tree);
    }
    if !below.is_empty() {
        let status = tree.read("var/lib/dpkg/status").map_err(at(folder))?.unwrap_or_default();
        let there = installed(&status);
        for package in lock.packages.iter().filter(|package| there.contains(&package.name)) {
            finish::forget(&mut tree, &package.name).map_err(at(folder))?;
        }
    }
    let mut status = tree.read("var/lib/dpkg/status").map_err(at(folder))?.unwrap_or_default();
    let bar = fetch::bar("unpacking", lock.packages.iter().map(|package| package.size).sum(), progress);
    let unpacked = unpack_all(&lock.packages, cache, folder, &bar)?;
    bar.finish_and_clear();
    let (mut offered, mut refused) = (Vec::new(), Vec::new());
    let without_scripts = loaded.definition.debian.as_ref().map_or(&[][..], |debian| &debian.without_scripts);
    if let Some(idle) = without_scripts.iter().find(|name| !lock.packages.iter().any(|package| package.name == **name))
    {
        let expected = "package that this definition brings, as `without_scripts` has them";
        return Err(ImageError::DefinitionValue { name: loaded.name.clone(), value: idle.clone(), expected });
    }
    for (package, unpacked) in lock.packages.iter().zip(unpacked) {
        let broken = |problem| ImageError::Package { package: package.name.clone(), problem };
        let unpacked = unpacked.map_err(broken)?;
        match finish::check_scripts(&package.name, &unpacked) {
            Ok(alternatives) => offered.extend(alternatives),
            Err(_) if without_scripts.contains(&package.name) => {}
            Err(script) => refused.push(script),
        }
        let stanza = finish::record(&mut tree, package, &unpacked).map_err(broken)?;
        same(package, &stanza).map_err(broken)?;
        let replaces = paragraph(&stanza).and_then(|fields| fields.get("Replaces")).unwrap_or_default();
        status.extend_from_slice(stanza.as_bytes());
        for (path, entry) in unpacked.entries {
            tree.merge(&path, entry, &replaces).map_err(broken)?;
        }
    }
    if !refused.is_empty() {
        return Err(ImageError::Scripts { name: loaded.name.clone(), refused });
    }
    if !lock.packages.is_empty() {
        tree.write("var/lib/dpkg/status", status, 0o644);
    }
    npm(&mut tree, loaded, lock, cache, folder)?;
    if let Some(python) = python {
        wheels(&mut tree, loaded, lock, python, cache, folder)?;
    }
    if below.is_empty() {
        finish::base(&mut tree, lock.epoch).map_err(at(folder))?;
    }
    alternatives::install(&mut tree, offered).map_err(at(folder))?;
    finish::every(&mut tree).map_err(at(folder))?;
    for (path, text) in &loaded.definition.files {
        tree.write(&path[1..], text.clone(), if text.starts_with("#!") { 0o755 } else { 0o644 });
    }
    let mut output = tempfile::NamedTempFile::new_in(folder).map_err(at(folder))?;
    let bar = fetch::bar("writing", tree.size(), progress);
    let (diff_id, size) = tree.layer(&mut bar.wrap_write(output.as_file_mut()), lock.epoch).map_err(at(folder))?;
    bar.finish_and_clear();
    let path = folder.join(format!("{}.tar", diff_id.hex()));
    output.persist(&path).map_err(|error| at(&path)(error.error))?;
    Ok(BuiltLayer { diff_id, size, path })
}

/// Whether a package is the one that the lock names. Its digest is, so a difference is one of somebody's editing.
fn same(package: &Package, stanza: &str) -> Result<(), PackageProblem> {
    let fields = paragraph(stanza).ok_or(PackageProblem::Member("control paragraph"))?;
    let named = [("Package", &package.name), ("Version", &package.version), ("Architecture", &package.architecture)];
    match named.into_iter().find(|(field, locked)| fields.line(field) != Some(locked.as_str())) {
        Some((field, _)) => Err(PackageProblem::Differs(field)),
        None => Ok(()),
    }
}

/// The names of the packages in a text of `status`.
fn installed(status: &[u8]) -> BTreeSet<String> {
    let text = String::from_utf8_lossy(status);
    text.lines().filter_map(|line| line.strip_prefix("Package: ")).map(str::to_owned).collect()
}

/// Unpacks the tarballs of npm of a lock, and links the commands that the definition names.
fn npm(tree: &mut Tree, loaded: &Loaded, lock: &Lock, cache: &Path, folder: &Path) -> Result<(), ImageError> {
    for locked in &lock.npm {
        let broken = |problem| ImageError::Package { package: locked.package.clone(), problem };
        let spill = Arc::new(tempfile::tempfile_in(folder).map_err(at(folder))?);
        let prefix = npm_folder(&loaded.name, lock, locked);
        if !unpack::has_integrity(&blob(cache, &locked.sha256), &locked.integrity).map_err(at(cache))? {
            return Err(broken(PackageProblem::Differs("integrity")));
        }
        let entries = unpack::npm(&blob(cache, &locked.sha256), &prefix, &locked.package, &spill).map_err(broken)?;
        for (path, entry) in entries {
            tree.merge(&path, entry, "").map_err(broken)?;
        }
        let about = tree.read(&format!("{prefix}/package.json")).map_err(at(folder))?;
        is_named(locked, &about.unwrap_or_default()).map_err(broken)?;
    }
    for wanted in &loaded.definition.npm {
        for (command, file) in &wanted.bin {
            let target = format!("{}/node_modules/{}/{file}", npm_root(&loaded.name, lock), wanted.package);
            let entry = tree.get(&target).ok_or_else(|| ImageError::Package {
                package: wanted.package.clone(),
                problem: PackageProblem::Path(target.clone()),
            })?;
            let program = Entry { mode: 0o755, ..entry.clone() };
            tree.put(&target, program);
            tree.put(&format!("usr/local/bin/{command}"), Entry::new(Kind::Symlink(format!("/{target}")), 0o777));
        }
    }
    Ok(())
}

/// Whether a tarball is the one that the lock names (package.json, "name" and "version").
fn is_named(locked: &NpmTarball, about: &[u8]) -> Result<(), PackageProblem> {
    let about: serde_json::Value = serde_json::from_slice(about).map_err(|_| PackageProblem::Member("package.json"))?;
    let field = |name: &str| about.get(name).and_then(serde_json::Value::as_str).unwrap_or_default();
    // The registry has a version without what some write before or after it.
    let version = field("version").trim_start_matches(['v', '=']).split('+').next().unwrap_or_default();
    match (field("name") == locked.package, Some(version) == locked.version.split('+').next()) {
        (true, true) => Ok(()),
        (true, false) => Err(PackageProblem::Differs("version")),
        (false, _) => Err(PackageProblem::Differs("name")),
    }
}

/// The folder whose `node_modules` has the programs of an image. Those of a `package-lock.json` are among themselves, as
/// those of other images can have other versions.
fn npm_root(image: &str, lock: &Lock) -> String {
    match &lock.package_lock {
        Some(_) => format!("usr/local/lib/npm/{image}"),
        None => "usr/local/lib".to_owned(),
    }
}

/// The folder of one tarball of npm in an image.
pub(super) fn npm_folder(image: &str, lock: &Lock, npm: &NpmTarball) -> String {
    let root = npm_root(image, lock);
    match &npm.place {
        Some(place) => format!("{root}/{place}"),
        None => format!("{root}/node_modules/{}", npm.package),
    }
}

/// Unpacks the wheels of a lock into the environment of their image, and links the commands that the definition names.
fn wheels(
    tree: &mut Tree,
    loaded: &Loaded,
    lock: &Lock,
    python: Interpreter,
    cache: &Path,
    folder: &Path,
) -> Result<(), ImageError> {
    let environment = wheel::Environment::new(&loaded.name, python);
    for (path, entry) in environment.entries() {
        tree.put(&path, entry);
    }
    let spill = Arc::new(tempfile::tempfile_in(folder).map_err(at(folder))?);
    for locked in &lock.pypi {
        let broken = |problem| ImageError::Package { package: locked.package.clone(), problem };
        let entries = wheel::unpack(&blob(cache, &locked.sha256), locked, &environment, &spill).map_err(broken)?;
        for (path, entry) in entries {
            tree.merge(&path, entry, "").map_err(broken)?;
        }
    }
    for pypi in &loaded.definition.pypi {
        for command in &pypi.bin {
            let target = format!("{}/bin/{command}", environment.prefix);
            if tree.get(&target).is_none() {
                let problem = PackageProblem::Path(target);
                return Err(ImageError::Package { package: pypi.package.clone(), problem });
            }
            tree.put(&format!("usr/local/bin/{command}"), Entry::new(Kind::Symlink(format!("/{target}")), 0o777));
        }
    }
    Ok(())
}

type Slot = Option<Result<Unpacked, PackageProblem>>;

/// Takes all packages apart on several threads; their order is kept. Contents go to files without a name in `folder`.
///
/// # Errors
/// When the folder cannot be written; what is wrong with a package stands in its place.
pub fn unpack_all(
    packages: &[Package],
    cache: &Path,
    folder: &Path,
    bar: &indicatif::ProgressBar,
) -> Result<Vec<Result<Unpacked, PackageProblem>>, ImageError> {
    let mut slots: Vec<Slot> = packages.iter().map(|_| None).collect();
    let next = AtomicUsize::new(0);
    let done = std::thread::scope(|scope| {
        let work = || -> std::io::Result<Vec<(usize, Result<Unpacked, PackageProblem>)>> {
            let spill = Arc::new(tempfile::tempfile_in(folder)?);
            let mut done = Vec::new();
            loop {
                let index = next.fetch_add(1, Ordering::Relaxed);
                let Some(package) = packages.get(index) else { return Ok(done) };
                let unpacked = match fetch::verified(cache, &package.sha256)? {
                    true => unpack::deb(&blob(cache, &package.sha256), &package.name, &spill),
                    false => Err(PackageProblem::Cache),
                };
                bar.inc(package.size);
                done.push((index, unpacked));
            }
        };
        let count = std::thread::available_parallelism().map_or(1, usize::from).clamp(1, THREADS);
        let threads: Vec<_> = (0..count).map(|_| scope.spawn(work)).collect();
        threads.into_iter().map(|thread| thread.join().map_err(|_| ImageError::Worker)).collect::<Result<Vec<_>, _>>()
    })?;
    for part in done {
        for (index, result) in part.map_err(at(folder))? {
            slots[index] = Some(result);
        }
    }
    slots.into_iter().map(|slot| slot.ok_or(ImageError::Worker)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tarball_of_npm_has_the_name_and_version_of_the_lock() {
        let locked: NpmTarball = serde_json::from_value(serde_json::json!({
            "package": "@a/b", "version": "1.0.0", "integrity": "sha512-x", "sha256": Digest::of(b"x"), "size": 1,
        }))
        .unwrap();
        assert!(is_named(&locked, br#"{"name": "@a/b", "version": "v1.0.0+x"}"#).is_ok());
        for (about, field) in [
            (r#"{"name": "@a/b", "version": "1.0.1"}"#, Some("version")),
            (r#"{"name": "b", "version": "1.0.0"}"#, Some("name")),
            (r#"{"version": "1.0.0"}"#, Some("name")),
            ("", None),
        ] {
            match (is_named(&locked, about.as_bytes()), field) {
                (Err(PackageProblem::Differs(found)), Some(field)) => assert_eq!(found, field, "{about}"),
                (Err(PackageProblem::Member(_)), None) => {}
                (found, _) => panic!("{about}: {found:?}"),
            }
        }
    }
    use crate::image::definition;

    #[test]
    fn a_package_that_left_the_mirrors_is_looked_for_in_the_archive_of_the_day_of_the_lock() {
        let chain = definition::chain("base", None).unwrap();
        let lock = lock::locks(&chain).unwrap().pop().unwrap();
        let mirrors =
            Mirrors { debian: vec!["http://m/debian".into()], security: vec!["http://m/debian-security".into()] };
        for (suite, archive) in [("bookworm", "debian"), ("bookworm-security", "debian-security")] {
            let package = Package { suite: suite.into(), path: "pool/x.deb".into(), ..lock.packages[0].clone() };
            let sources = [lock::Source { suite: suite.into(), date: 1_747_500_000, ..lock.sources[0].clone() }];
            let lock = Lock { sources: sources.to_vec(), ..lock.clone() };
            // Six hours later the archive has what was published then.
            let day = format!("https://snapshot.debian.org/archive/{archive}/20250517T224000Z/pool/x.deb");
            assert_eq!(debian(&package, &lock, &mirrors).addresses, [format!("http://m/{archive}/pool/x.deb"), day]);
        }
    }

    #[test]
    fn a_layers_key_changes_with_its_lock_and_with_what_is_below_but_not_with_the_result() {
        let chain = definition::chain("agent", None).unwrap();
        let lock = lock::locks(&chain).unwrap().pop().unwrap();
        let below = |text: &str| BuiltLayer { diff_id: Digest::of(text.as_bytes()), size: 1, path: "x".into() };
        let first = key(&lock, &[below("a")]).unwrap();
        assert_eq!(first, key(&Lock { result: None, ..lock.clone() }, &[below("a")]).unwrap());
        let mut others = vec![key(&lock, &[]).unwrap(), key(&lock, &[below("b")]).unwrap()];
        others.push(key(&Lock { definition: Digest::of(b"other"), ..lock.clone() }, &[below("a")]).unwrap());
        others.push(key(&Lock { epoch: lock.epoch + 1, ..lock.clone() }, &[below("a")]).unwrap());
        assert!(!others.contains(&first));
    }
}
