//! Agent images: references that are always pinned, locks, and the builder that turns a lock into the same bytes.
//!
//! [`lock()`] resolves a definition, [`locked`] reads what came of it, [`ensure_archive`] builds it. The builder runs
//! nothing of what it unpacks and needs neither an engine nor root. This module never talks to an engine.

use std::collections::BTreeMap;
use std::path::Path;

pub mod alternatives;
pub mod archive;
pub mod attestation;
pub mod build;
pub mod candidate;
pub mod canonical;
pub mod control;
pub mod definition;
pub mod difference;
pub mod dockerfile;
pub mod error;
pub mod fetch;
pub mod finish;
pub mod inventory;
pub mod lock;
pub mod locking;
pub mod package_lock;
pub mod php;
pub mod pylock;
pub mod reference;
pub mod registry;
pub mod release;
pub mod repository;
pub mod resolve;
pub mod saved;
pub mod sbom;
pub mod sources;
pub mod tree;
pub mod unpack;
pub mod update;
pub mod wheel;

pub use archive::{BuiltImage, BuiltLayer};
pub use error::ImageError;
pub use locking::{architecture, lock};

use definition::Loaded;
use difference::Difference;
use error::at;
use inventory::Inventory;
use reference::Digest;

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
    /// Whether a release file that is out of date is taken when something is locked.
    pub allow_expired: bool,
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
    if dockerfile::is_name(name) {
        return dockerfile::lock::locked(name, project_root);
    }
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
    let result = lock.result.as_ref().ok_or_else(|| ImageError::Unlocked(name.to_owned()))?;
    compared(built, &again, result, context.cache)
}

/// Compares two builds with each other and with what a lock promises.
///
/// # Errors
/// When a layer cannot be read.
pub fn compared(
    built: BuiltImage,
    again: &BuiltImage,
    result: &lock::ResultDigests,
    cache: &Path,
) -> Result<Checked, ImageError> {
    let mismatches = build::mismatches(&built, result);
    let repeats = built.manifest() == again.manifest();
    let difference = if !repeats {
        Some(difference(&built, again)?)
    } else if mismatches.is_empty() {
        None
    } else {
        match promised(&result.diff_ids, cache) {
            Some(layers) => {
                let before = BuiltImage::of_config(&built.name, built.config().to_vec(), layers)?;
                Some(difference(&before, &built)?)
            }
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

/// What a project keeps of one of its images.
#[derive(Debug)]
pub struct Vendored {
    /// Where.
    pub folder: std::path::PathBuf,
    /// Files that the image needs.
    pub files: usize,
    /// Their size in bytes.
    pub size: u64,
    /// Bytes that were not there before.
    pub copied: u64,
}

/// Keeps all files that an image is made of in the project's `images/vendor`, from which it is built without a network.
///
/// # Errors
/// When one cannot be fetched, or the folder cannot be written.
pub async fn vendor(name: &str, root: &Path, context: &ImageContext<'_>) -> Result<Vendored, ImageError> {
    let chain = definition::chain(name, context.project_root)?;
    let wanted: Vec<_> = lock::locks(&chain)?.iter().flat_map(|lock| build::wanted(lock, context)).collect();
    let folder = root.join(build::VENDOR);
    fetch::adopt(&folder, context.cache, &wanted)?;
    fetch::all(context.cache, wanted.clone(), context.progress, context.offline).await?;
    let copied = fetch::vendor(&folder, context.cache, &wanted)?;
    Ok(Vendored { folder, files: wanted.len(), size: wanted.iter().map(|wanted| wanted.size).sum(), copied })
}

/// All definitions, sorted by name.
pub fn list(project_root: Option<&Path>) -> Vec<(String, Result<LockedImage, ImageError>)> {
    let names = definition::names(project_root).into_iter().chain(dockerfile::names(project_root));
    names.into_iter().map(|name| (name.clone(), locked(&name, project_root))).collect()
}

/// Reads one definition.
pub fn load(name: &str, project_root: Option<&Path>) -> Result<Loaded, ImageError> {
    definition::load(name, project_root)
}
