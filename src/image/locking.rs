//! Makes locks: asks the repositories of Debian and npm's registry what there is, and builds what was chosen.

use std::path::Path;

use base64::Engine as _;
use futures_util::{StreamExt as _, TryStreamExt as _};
use sha2::Digest as _;

use super::candidate::Candidate;
use super::definition::{self, Loaded};
use super::error::{self, ImageError, PackageProblem, PylockProblem, at};
use super::lock::{self, Lock, NpmTarball, RECIPE, ResultDigests, Source};
use super::pylock::{self, Interpreter};
use super::reference::Digest;
use super::resolve::Index;
use super::{ImageContext, build, fetch, package_lock, repository, unpack};

/// Bytes of a tarball of npm.
const NPM_LIMIT: usize = 512 << 20;

/// Resolves a definition whose base is locked, builds it, and gives the lock with the result. A lock of an older recipe
/// keeps what it pins if its definition is as it was and its packages still go with those of its base.
pub async fn lock(name: &str, context: &ImageContext<'_>) -> Result<Lock, ImageError> {
    let chain = definition::chain(name, context.project_root)?;
    let unknown = || ImageError::UnknownImage(name.to_owned());
    let (own, below) = chain.split_last().ok_or_else(unknown)?;
    let below = lock::locks(below)?;
    let lock = match of_older_recipe(own, &below)? {
        Some(lock) if is_complete(&lock, &below, context).await? => lock,
        _ => resolved(own, &below, context).await?,
    };
    with_result(&chain, below, lock, context).await
}

/// The lock of an older recipe for this one, on these locks of its bases, if all that it was made of is as it was.
fn of_older_recipe(own: &Loaded, below: &[Lock]) -> Result<Option<Lock>, ImageError> {
    let Some(old) = own.lock.as_deref().and_then(|text| Lock::parse(&own.name, text).ok()) else { return Ok(None) };
    let digest = |text: &Option<String>| text.as_ref().map(|text| Digest::of(text.as_bytes()));
    let same = old.definition == own.digest
        && old.pylock == digest(&own.pylock)
        && old.package_lock == digest(&own.package_lock)
        && old.architecture == architecture()?;
    // That of the base, if the definition names none.
    let suite = own.definition.debian.as_ref().and_then(|debian| debian.suite.as_ref());
    let same_suite = suite.is_none_or(|suite| old.sources.iter().any(|source| source.suite == *suite));
    if old.recipe >= RECIPE || !same || !same_suite {
        return Ok(None);
    }
    let base = below.last().map(Lock::digest).transpose()?;
    let epoch = below.last().map_or(old.epoch, |lock| lock.epoch.max(old.epoch));
    let packages = old.packages.iter().filter(|own| !lock::superseded(own, below)).cloned().collect();
    Ok(Some(Lock { recipe: RECIPE, base, epoch, packages, result: None, ..old }))
}

/// Whether the packages of a lock have all that they need in it and below.
async fn is_complete(lock: &Lock, below: &[Lock], context: &ImageContext<'_>) -> Result<bool, ImageError> {
    let mut packages = Vec::new();
    for lock in below.iter().chain([lock]) {
        packages.extend(candidates(lock, &Index::default(), context).await?);
    }
    Ok(Index::are_complete(&packages))
}

/// Debian's name of this machine's architecture.
///
/// # Errors
/// When nothing is published for it.
pub fn architecture() -> Result<&'static str, ImageError> {
    match std::env::consts::ARCH {
        "x86_64" => Ok("amd64"),
        "aarch64" => Ok("arm64"),
        other => Err(ImageError::Architecture(other)),
    }
}

/// What a definition comes to now, on these locks of its bases; without the result of a build.
pub(super) async fn resolved(own: &Loaded, below: &[Lock], context: &ImageContext<'_>) -> Result<Lock, ImageError> {
    let architecture = architecture()?;
    let client = fetch::client()?;
    let (sources, packages) = match &own.definition.debian {
        Some(debian) => resolve_debian(own, debian, below, architecture, context).await?,
        None => (Vec::new(), Vec::new()),
    };
    let mut npm = Vec::new();
    match &own.package_lock {
        Some(text) => npm = resolve_package_lock(own, text, architecture, context).await?,
        None => {
            for wanted in &own.definition.npm {
                npm.push(resolve_npm(&client, wanted, context.cache).await?);
            }
        }
    }
    let lock = Lock {
        version: 1,
        recipe: RECIPE,
        definition: own.digest.clone(),
        architecture: architecture.to_owned(),
        base: below.last().map(Lock::digest).transpose()?,
        epoch: 0,
        sources,
        packages,
        npm,
        package_lock: own.package_lock.as_ref().map(|text| Digest::of(text.as_bytes())),
        pylock: None,
        pypi: Vec::new(),
        result: None,
    };
    let lock = resolve_pypi(own, below, lock, context).await?;
    let dates = lock.sources.iter().map(|source| source.date).chain(below.last().map(|lock| lock.epoch));
    Ok(Lock { epoch: dates.max().unwrap_or_default(), ..lock })
}

/// A lock with the wheels of the definition's `pylock.toml`, for the Python that the lock and those below have.
async fn resolve_pypi(
    own: &Loaded,
    below: &[Lock],
    lock: Lock,
    context: &ImageContext<'_>,
) -> Result<Lock, ImageError> {
    let wanted = &own.definition.pypi;
    if wanted.is_empty() {
        return Ok(lock);
    }
    let failed = |problem| ImageError::Pylock { problem };
    let text = own.pylock.as_deref().ok_or_else(|| failed(PylockProblem::Missing(own.name.clone())))?;
    let python = Interpreter::of(below.iter().chain([&lock])).map_err(failed)?;
    let mut pypi = pylock::read(text, wanted, &python).map_err(failed)?;
    let fetched = pypi.iter().map(build::wheel_wanted).collect();
    fetch::all(context.cache, fetched, context.progress, context.offline).await?;
    for wheel in &mut pypi {
        // A pylock.toml need not have sizes, and what it has was a bound alone.
        let path = fetch::blob(context.cache, &wheel.sha256);
        wheel.size = path.metadata().map_err(at(&path))?.len();
    }
    Ok(Lock { pylock: Some(Digest::of(text.as_bytes())), pypi, ..lock })
}

/// A `pylock.toml` for a definition that has programs of PyPI and no such file yet; `uv` chooses the versions.
pub async fn python(name: &str, context: &ImageContext<'_>) -> Result<Option<String>, ImageError> {
    let chain = definition::chain(name, context.project_root)?;
    let unknown = || ImageError::UnknownImage(name.to_owned());
    let (own, below) = chain.split_last().ok_or_else(unknown)?;
    if own.definition.pypi.is_empty() || own.pylock.is_some() {
        return Ok(None);
    }
    if context.offline {
        return Err(ImageError::Offline("the list of the versions of PyPI".to_owned()));
    }
    let mut locks = lock::locks(below)?;
    if own.definition.debian.is_some() {
        // The definition itself may bring Python.
        let mut packages = own.clone();
        packages.definition.pypi.clear();
        packages.definition.npm.clear();
        packages.package_lock = None;
        locks.push(resolved(&packages, &locks, context).await?);
    }
    let python = Interpreter::of(&locks).map_err(|problem| ImageError::Pylock { problem })?;
    pylock::resolve(&own.definition.pypi, &python).await.map(Some)
}

/// The lock with what a build of it gives.
pub(super) async fn with_result(
    chain: &[Loaded],
    below: Vec<Lock>,
    mut lock: Lock,
    context: &ImageContext<'_>,
) -> Result<Lock, ImageError> {
    let mut locks = below;
    locks.push(lock.clone());
    let built = build::chain(chain, &locks, context, &context.cache.join("layers")).await?;
    lock.result = Some(ResultDigests {
        diff_ids: built.layers.into_iter().map(|layer| layer.diff_id).collect(),
        config: built.config_digest,
        manifest: built.manifest_digest,
    });
    Ok(lock)
}

async fn resolve_debian(
    own: &Loaded,
    debian: &definition::Debian,
    below: &[Lock],
    architecture: &str,
    context: &ImageContext<'_>,
) -> Result<(Vec<Source>, Vec<lock::Package>), ImageError> {
    let former = own.lock.as_deref().and_then(|text| Lock::parse(&own.name, text).ok());
    let (index, sources) = repository::index(own, debian, architecture, former.as_ref(), context).await?;
    let mut base = Vec::new();
    for lock in below {
        base.extend(candidates(lock, &index, context).await?);
    }
    let packages = index.resolve(&debian.packages, &base)?.into_iter().map(Candidate::into_locked);
    Ok((sources, packages.collect()))
}

/// The packages of a lock with what they say of others: in the index where it has them, and otherwise in the package
/// itself.
pub(super) async fn candidates(
    lock: &Lock,
    index: &Index,
    context: &ImageContext<'_>,
) -> Result<Vec<Candidate>, ImageError> {
    let older = lock.packages.iter().filter(|locked| index.same(locked).is_none()).cloned().collect();
    let older = Lock { packages: older, npm: Vec::new(), pypi: Vec::new(), ..lock.clone() };
    let wanted = build::wanted(&older, context);
    if let Some(root) = context.project_root {
        fetch::adopt(&root.join(build::VENDOR), context.cache, &wanted)?;
    }
    fetch::all(context.cache, wanted, context.progress, context.offline).await?;
    let mut candidates = Vec::new();
    for locked in &lock.packages {
        candidates.push(match index.same(locked) {
            Some(candidate) => candidate.clone(),
            None => {
                let broken = |problem| ImageError::Package { package: locked.name.clone(), problem };
                let control = unpack::control(&fetch::blob(context.cache, &locked.sha256)).map_err(broken)?;
                Candidate::of_locked(locked, &control)?
            }
        });
    }
    Ok(candidates)
}

/// The tarballs of a definition's `package-lock.json`.
async fn resolve_package_lock(
    own: &Loaded,
    text: &str,
    architecture: &str,
    context: &ImageContext<'_>,
) -> Result<Vec<NpmTarball>, ImageError> {
    let failed = |problem| ImageError::NpmLock { name: own.name.clone(), problem };
    let tarballs = package_lock::read(text, &own.definition.npm, architecture).map_err(failed)?;
    let client = fetch::client()?;
    let fetched = tarballs.into_iter().map(|tarball| {
        let client = &client;
        async move {
            let what = format!("{} {}", tarball.package, tarball.version);
            let bytes = fetch::small(client, &what, std::slice::from_ref(&tarball.url), NPM_LIMIT).await?;
            let sha256 = kept(&what, &bytes, &tarball.integrity, context.cache)?;
            let own = build::npm_address(&tarball.package, &tarball.version);
            Ok(NpmTarball {
                url: Some(tarball.url).filter(|url| *url != own),
                place: Some(tarball.place),
                package: tarball.package,
                version: tarball.version,
                integrity: tarball.integrity,
                sha256,
                size: bytes.len() as u64,
            })
        }
    });
    futures_util::stream::iter(fetched).buffered(4).try_collect().await
}

/// Keeps a tarball whose SHA-512 is the one that the registry publishes.
fn kept(what: &str, bytes: &[u8], integrity: &str, cache: &Path) -> Result<Digest, ImageError> {
    let sum = base64::engine::general_purpose::STANDARD.encode(sha2::Sha512::digest(bytes));
    if integrity != format!("sha512-{sum}") {
        return Err(ImageError::Unavailable { what: what.to_owned(), source: error::FetchError::Content });
    }
    fetch::keep(cache, bytes)
}

/// A `package-lock.json` for a definition that has none and whose programs of npm need others; `npm` chooses the versions.
pub async fn node(name: &str, context: &ImageContext<'_>) -> Result<Option<String>, ImageError> {
    let own = definition::load(name, context.project_root)?;
    if own.definition.npm.is_empty() || own.package_lock.is_some() || context.offline {
        return Ok(None);
    }
    let client = fetch::client()?;
    for wanted in &own.definition.npm {
        let about = about(&client, wanted).await?;
        let needs =
            |field: &str| about.get(field).and_then(serde_json::Value::as_object).is_some_and(|map| !map.is_empty());
        if needs("dependencies") || needs("optionalDependencies") || needs("peerDependencies") {
            return package_lock::resolve(name, &own.definition.npm).await.map(Some);
        }
    }
    Ok(None)
}

/// What npm's registry says of one version.
async fn about(client: &reqwest::Client, wanted: &definition::Npm) -> Result<serde_json::Value, ImageError> {
    let what = format!("{} {}", wanted.package, wanted.version);
    let address = format!("https://registry.npmjs.org/{}/{}", wanted.package, wanted.version);
    let about = fetch::small(client, &what, &[address], 4 << 20).await?;
    serde_json::from_slice(&about).map_err(|source| ImageError::Unavailable { what, source: source.into() })
}

async fn resolve_npm(
    client: &reqwest::Client,
    wanted: &definition::Npm,
    cache: &Path,
) -> Result<NpmTarball, ImageError> {
    let what = format!("{} {}", wanted.package, wanted.version);
    let broken = |problem| ImageError::Package { package: what.clone(), problem };
    let about = about(client, wanted).await?;
    let integrity = about.pointer("/dist/integrity").and_then(serde_json::Value::as_str);
    let integrity = integrity.ok_or_else(|| broken(PackageProblem::Member("integrity")))?.to_owned();
    let address = build::npm_address(&wanted.package, &wanted.version);
    let bytes = fetch::small(client, &what, &[address], NPM_LIMIT).await?;
    let sha256 = kept(&what, &bytes, &integrity, cache)?;
    let (package, version) = (wanted.package.clone(), wanted.version.clone());
    Ok(NpmTarball { package, version, integrity, sha256, size: bytes.len() as u64, place: None, url: None })
}

/// The newest version of a package of PyPI (the index's JSON API).
pub(super) async fn pypi_latest(package: &str) -> Result<String, ImageError> {
    let what = format!("the newest version of {package}");
    let address = format!("https://pypi.org/pypi/{}/json", pylock::normal(package));
    let about = fetch::small(&fetch::client()?, &what, &[address], 64 << 20).await?;
    let about: serde_json::Value = serde_json::from_slice(&about)
        .map_err(|source| ImageError::Unavailable { what: what.clone(), source: source.into() })?;
    let version = about.pointer("/info/version").and_then(serde_json::Value::as_str).filter(|version| {
        version.len() < 100 && version.chars().all(|c| c.is_ascii_alphanumeric() || "-.+!".contains(c))
    });
    let problem = PackageProblem::Member("version");
    version.map(str::to_owned).ok_or(ImageError::Package { package: package.to_owned(), problem })
}

/// The newest version of a package of npm. Platform packages have their platform behind the version, and no tag of
/// their own: the suffix of the present version stays.
pub(super) async fn npm_latest(package: &str, present: &str) -> Result<String, ImageError> {
    let what = format!("the newest version of {package}");
    let address = format!("https://registry.npmjs.org/{package}/latest");
    let about = fetch::small(&fetch::client()?, &what, &[address], 4 << 20).await?;
    let about: serde_json::Value = serde_json::from_slice(&about)
        .map_err(|source| ImageError::Unavailable { what: what.clone(), source: source.into() })?;
    let version = about.get("version").and_then(serde_json::Value::as_str).filter(|version| {
        version.len() < 100 && version.chars().all(|c| c.is_ascii_alphanumeric() || "-.+".contains(c))
    });
    let problem = PackageProblem::Member("version");
    let version = version.ok_or(ImageError::Package { package: package.to_owned(), problem })?;
    Ok(match present.split_once("-linux") {
        Some((_, platform)) if !version.contains('-') => format!("{version}-linux{platform}"),
        _ => version.to_owned(),
    })
}
