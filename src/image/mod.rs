//! Agent images: references that are always pinned, locks, and the builder that turns a lock into the same bytes.
//!
//! [`lock()`] resolves a definition, [`locked`] reads what came of it, [`ensure_archive`] builds it. The builder runs
//! nothing of what it unpacks and needs neither an engine nor root. This module never talks to an engine.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use sha2::Digest as _;

pub mod archive;
pub mod build;
pub mod control;
pub mod definition;
pub mod difference;
pub mod error;
pub mod fetch;
pub mod finish;
pub mod inventory;
pub mod lock;
pub mod reference;
pub mod registry;
pub mod release;
pub mod resolve;
pub mod sbom;
pub mod sources;
pub mod tree;
pub mod unpack;

pub use archive::{BuiltImage, BuiltLayer};
pub use error::ImageError;

use definition::Loaded;
use difference::Difference;
use error::{PackageProblem, at};
use inventory::Inventory;
use lock::{Lock, NpmTarball, RECIPE, ResultDigests, Source};
use reference::Digest;

/// Debian's keys, as its package debian-archive-keyring installs them.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// What the builder needs of its surroundings.
#[derive(Debug, Clone, Copy)]
pub struct ImageContext<'a> {
    /// Where the project's `images/` is.
    pub project_root: Option<&'a Path>,
    /// The launcher's cache.
    pub cache: &'a Path,
    /// Where apt's sources are: `/etc/apt`.
    pub apt_sources_root: &'a Path,
    /// Whether to draw progress on standard error.
    pub progress: bool,
    /// Whether to keep off the network.
    pub offline: bool,
}

/// An image as its lock promises it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LockedImage {
    /// The definition's name.
    pub name: String,
    /// Digest of the lock.
    pub lock_digest: Digest,
    /// Digest of the configuration: the image id on graph drivers.
    pub config_digest: Digest,
    /// Digest of the manifest: the image id on the containerd store.
    pub manifest_digest: Digest,
    /// Digest of each layer, lowest first.
    pub diff_ids: Vec<Digest>,
    /// Environment of every command.
    pub environment: BTreeMap<String, String>,
    /// Whether definition and lock came with the launcher.
    pub built_in: bool,
}

/// Reads a definition and its lock, and checks that they belong together.
pub fn locked(name: &str, project_root: Option<&Path>) -> Result<LockedImage, ImageError> {
    let chain = definition::chain(name, project_root)?;
    let locks = lock::locks(&chain)?;
    let unlocked = || ImageError::Unlocked(name.to_owned());
    let lock = locks.last().ok_or_else(unlocked)?;
    let result = lock.result.clone().ok_or_else(unlocked)?;
    Ok(LockedImage {
        name: name.to_owned(),
        lock_digest: lock.digest()?,
        config_digest: result.config,
        manifest_digest: result.manifest,
        diff_ids: result.diff_ids,
        environment: lock::environment(&chain),
        built_in: chain.last().is_some_and(|loaded| loaded.built_in),
    })
}

/// Builds what the lock promises, or takes it from the cache; anything else is a failure.
pub async fn ensure_archive(image: &LockedImage, context: &ImageContext<'_>) -> Result<BuiltImage, ImageError> {
    build_into(&image.name, context, &context.cache.join("layers")).await
}

/// Builds anew, without the cache of layers, and compares with the lock.
pub async fn verify(name: &str, context: &ImageContext<'_>) -> Result<BuiltImage, ImageError> {
    std::fs::create_dir_all(context.cache).map_err(at(context.cache))?;
    let layers = tempfile::tempdir_in(context.cache).map_err(at(context.cache))?;
    build_into(name, context, layers.path()).await
}

/// What came of a check.
#[derive(Debug)]
pub struct Checked {
    /// The first of the two builds.
    pub built: BuiltImage,
    /// Where it is not what the lock promises.
    pub mismatches: Vec<build::Mismatch>,
    /// Whether the second build gave the same.
    pub repeats: bool,
    /// The difference entry by entry: between the two builds, or between the lock's layers, where the cache has them, and
    /// the first build.
    pub difference: Option<Difference>,
}

/// Builds twice without the cache of layers, below a folder of the caller's, and compares both with each other
/// and with the lock. Needs neither an engine nor root.
///
/// # Errors
/// When it cannot be built at all; a build that gives something else is a result.
pub async fn check(name: &str, context: &ImageContext<'_>, folder: &Path) -> Result<Checked, ImageError> {
    let chain = definition::chain(name, context.project_root)?;
    let locks = lock::locks(&chain)?;
    let lock = locks.last().ok_or_else(|| ImageError::Unlocked(name.to_owned()))?;
    let built = build::chain(&chain, &locks, context, &folder.join("one")).await?;
    let again = build::chain(&chain, &locks, context, &folder.join("two")).await?;
    let mismatches = build::mismatches(name, &built, lock)?;
    let repeats = built.manifest() == again.manifest();
    let difference = if !repeats {
        Some(difference(&built, &again)?)
    } else if mismatches.is_empty() {
        None
    } else {
        let promised = lock.result.as_ref().map(|result| promised(&result.diff_ids, context.cache));
        match promised.flatten() {
            Some(layers) => Some(difference(&BuiltImage::of_config(name, built.config().to_vec(), layers)?, &built)?),
            None => None,
        }
    };
    Ok(Checked { built, mismatches, repeats, difference })
}

/// The layers that a lock promises, where the cache still has every one of them.
fn promised(diff_ids: &[Digest], cache: &Path) -> Option<Vec<BuiltLayer>> {
    let layer = |diff_id: &Digest| {
        let path = cache.join("layers").join(format!("{}.tar", diff_id.hex()));
        let size = path.metadata().ok()?.len();
        Some(BuiltLayer { diff_id: diff_id.clone(), size, path })
    };
    diff_ids.iter().map(layer).collect()
}

/// What differs between two images.
///
/// # Errors
/// When a layer cannot be read.
pub fn difference(first: &BuiltImage, second: &BuiltImage) -> Result<Difference, ImageError> {
    Ok(Difference::between(&Inventory::read(first)?, &Inventory::read(second)?))
}

async fn build_into(name: &str, context: &ImageContext<'_>, layers: &Path) -> Result<BuiltImage, ImageError> {
    let chain = definition::chain(name, context.project_root)?;
    let locks = lock::locks(&chain)?;
    let built = build::chain(&chain, &locks, context, layers).await?;
    let lock = locks.last().ok_or_else(|| ImageError::Unlocked(name.to_owned()))?;
    build::compare(name, &built, lock)?;
    Ok(built)
}

/// Resolves a definition whose base is locked, builds it, and gives the lock with the result.
pub async fn lock(name: &str, context: &ImageContext<'_>) -> Result<Lock, ImageError> {
    let chain = definition::chain(name, context.project_root)?;
    let unknown = || ImageError::UnknownImage(name.to_owned());
    let (own, below) = chain.split_last().ok_or_else(unknown)?;
    let mut locks = lock::locks(below)?;
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => return Err(ImageError::Architecture(other)),
    };
    let client = fetch::client()?;
    let (sources, packages) = match &own.definition.debian {
        Some(debian) => resolve_debian(&client, debian, &locks, architecture, context).await?,
        None => (Vec::new(), Vec::new()),
    };
    let mut npm = Vec::new();
    for wanted in &own.definition.npm {
        npm.push(resolve_npm(&client, wanted, context.cache).await?);
    }
    let below = locks.last();
    let epoch = sources.iter().map(|source| source.date).chain(below.map(|lock| lock.epoch)).max().unwrap_or_default();
    let base = below.map(Lock::digest).transpose()?;
    let definition = own.digest.clone();
    let architecture = architecture.to_owned();
    let mut lock = Lock {
        version: 1,
        recipe: RECIPE,
        definition,
        architecture,
        base,
        epoch,
        sources,
        packages,
        npm,
        result: None,
    };
    locks.push(lock.clone());
    let built = build::chain(&chain, &locks, context, &context.cache.join("layers")).await?;
    lock.result = Some(ResultDigests {
        diff_ids: built.layers.into_iter().map(|layer| layer.diff_id).collect(),
        config: built.config_digest,
        manifest: built.manifest_digest,
    });
    Ok(lock)
}

async fn resolve_debian(
    client: &reqwest::Client,
    debian: &definition::Debian,
    below: &[Lock],
    architecture: &str,
    context: &ImageContext<'_>,
) -> Result<(Vec<Source>, Vec<lock::Package>), ImageError> {
    let mirrors = sources::Mirrors::read(context.apt_sources_root);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map(|since| since.as_secs()).unwrap_or_default();
    let (mut index, mut sources) = (resolve::Index::default(), Vec::new());
    for suite in ["", "-security", "-updates"].map(|more| format!("{}{more}", debian.suite)) {
        let distributions: Vec<String> =
            mirrors.of(&suite).iter().map(|mirror| format!("{mirror}/dists/{suite}")).collect();
        let join = |rest: &str| distributions.iter().map(|base| format!("{base}/{rest}")).collect::<Vec<_>>();
        let bytes = fetch::small(client, &format!("the release file of {suite}"), &join("InRelease"), 4 << 20).await?;
        let missing = |field| ImageError::Index { suite: suite.clone(), field };
        let text = std::str::from_utf8(&bytes).map_err(|_| missing("InRelease"))?;
        let release = release::verify(&suite, text, Path::new(KEYRING), architecture, now)?;
        if release.packages_size > 64 << 20 {
            return Err(missing("size of Packages.xz"));
        }
        let folder = format!("main/binary-{architecture}");
        let mut addresses = join(&format!("{folder}/by-hash/SHA256/{}", release.packages.hex()));
        addresses.extend(join(&format!("{folder}/Packages.xz")));
        let (sha256, size) = (release.packages.clone(), release.packages_size);
        let what = format!("the index of {suite}");
        let wanted = fetch::Wanted { what, sha256, size, addresses };
        fetch::all(context.cache, vec![wanted], context.progress, context.offline).await?;
        let path = fetch::blob(context.cache, &release.packages);
        let file = std::fs::File::open(&path).map_err(at(&path))?;
        let mut packages = String::new();
        let mut reader = std::io::Read::take(liblzma::read::XzDecoder::new(std::io::BufReader::new(file)), 1 << 30);
        std::io::Read::read_to_string(&mut reader, &mut packages).map_err(at(&path))?;
        index.add(&suite, &packages)?;
        sources.push(Source { suite, date: release.date, in_release: Digest::of(&bytes), packages: release.packages });
    }
    sources.sort_by(|a, b| a.suite.cmp(&b.suite));
    let base: Vec<String> = below.iter().flat_map(|lock| &lock.packages).map(|package| package.name.clone()).collect();
    let packages = index.resolve(&debian.packages, &base)?;
    let packages = packages.into_iter().map(|candidate| lock::Package {
        name: candidate.name,
        version: candidate.version.to_string(),
        architecture: candidate.architecture,
        suite: candidate.suite,
        sha256: candidate.sha256,
        size: candidate.size,
        path: candidate.path,
    });
    Ok((sources, packages.collect()))
}

async fn resolve_npm(
    client: &reqwest::Client,
    wanted: &definition::Npm,
    cache: &Path,
) -> Result<NpmTarball, ImageError> {
    let what = format!("{} {}", wanted.package, wanted.version);
    let broken = |problem| ImageError::Package { package: what.clone(), problem };
    let about = format!("https://registry.npmjs.org/{}/{}", wanted.package, wanted.version);
    let about = fetch::small(client, &what, &[about], 4 << 20).await?;
    let about: serde_json::Value =
        serde_json::from_slice(&about).map_err(|source| ImageError::Lock { name: what.clone(), source })?;
    let integrity = about.pointer("/dist/integrity").and_then(serde_json::Value::as_str);
    let integrity = integrity.ok_or_else(|| broken(PackageProblem::Member("integrity")))?.to_owned();
    let address = build::npm_address(&wanted.package, &wanted.version);
    let bytes = fetch::small(client, &what, &[address], 512 << 20).await?;
    let sum = base64::engine::general_purpose::STANDARD.encode(sha2::Sha512::digest(&bytes));
    if integrity != format!("sha512-{sum}") {
        return Err(ImageError::Unavailable { what, source: error::FetchError::Content });
    }
    let sha256 = fetch::keep(cache, &bytes)?;
    let (package, version) = (wanted.package.clone(), wanted.version.clone());
    Ok(NpmTarball { package, version, integrity, sha256, size: bytes.len() as u64 })
}

/// All definitions, sorted by name.
pub fn list(project_root: Option<&Path>) -> Vec<(String, Result<LockedImage, ImageError>)> {
    let names = definition::names(project_root);
    names.into_iter().map(|name| (name.clone(), locked(&name, project_root))).collect()
}

/// Reads one definition.
pub fn load(name: &str, project_root: Option<&Path>) -> Result<Loaded, ImageError> {
    definition::load(name, project_root)
}
