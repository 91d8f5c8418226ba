//! Makes locks: asks the repositories of Debian and npm's registry what there is, and builds what was chosen.

use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use sha2::Digest as _;

use super::definition::{self, Loaded};
use super::error::{self, ImageError, PackageProblem, PylockProblem, at};
use super::lock::{self, Lock, NpmTarball, RECIPE, ResultDigests, Source};
use super::pylock::{self, Interpreter};
use super::reference::Digest;
use super::resolve::{self, Candidate};
use super::{ImageContext, build, fetch, release, sources};

/// Debian's keys, as its package debian-archive-keyring installs them.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// Resolves a definition whose base is locked, builds it, and gives the lock with the result.
pub async fn lock(name: &str, context: &ImageContext<'_>) -> Result<Lock, ImageError> {
    let chain = definition::chain(name, context.project_root)?;
    let unknown = || ImageError::UnknownImage(name.to_owned());
    let (own, below) = chain.split_last().ok_or_else(unknown)?;
    let below = lock::locks(below)?;
    let lock = resolved(own, &below, context).await?;
    with_result(&chain, below, lock, context).await
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
        Some(debian) => resolve_debian(&client, debian, below, architecture, context).await?,
        None => (Vec::new(), Vec::new()),
    };
    let mut npm = Vec::new();
    for wanted in &own.definition.npm {
        npm.push(resolve_npm(&client, wanted, context.cache).await?);
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
    client: &reqwest::Client,
    debian: &definition::Debian,
    below: &[Lock],
    architecture: &str,
    context: &ImageContext<'_>,
) -> Result<(Vec<Source>, Vec<lock::Package>), ImageError> {
    let (index, sources) = debian_index(client, &debian.suite, architecture, context).await?;
    let base: Vec<String> = below.iter().flat_map(|lock| &lock.packages).map(|package| package.name.clone()).collect();
    let packages = index.resolve(&debian.packages, &base)?.into_iter().map(Candidate::into_locked);
    Ok((sources, packages.collect()))
}

/// All packages of a suite with its updates, after their signatures were checked.
pub(super) async fn debian_index(
    client: &reqwest::Client,
    suite: &str,
    architecture: &str,
    context: &ImageContext<'_>,
) -> Result<(resolve::Index, Vec<Source>), ImageError> {
    let mirrors = sources::Mirrors::read(context.apt_sources_root);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map(|since| since.as_secs()).unwrap_or_default();
    let (mut index, mut sources) = (resolve::Index::default(), Vec::new());
    for suite in ["", "-security", "-updates"].map(|more| format!("{suite}{more}")) {
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
    Ok((index, sources))
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

/// The newest version of a package of PyPI (the index's JSON API).
pub(super) async fn pypi_latest(package: &str) -> Result<String, ImageError> {
    let what = format!("the newest version of {package}");
    let address = format!("https://pypi.org/pypi/{}/json", pylock::normal(package));
    let about = fetch::small(&fetch::client()?, &what, &[address], 64 << 20).await?;
    let about: serde_json::Value =
        serde_json::from_slice(&about).map_err(|source| ImageError::Lock { name: what.clone(), source })?;
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
    let about: serde_json::Value =
        serde_json::from_slice(&about).map_err(|source| ImageError::Lock { name: what.clone(), source })?;
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
