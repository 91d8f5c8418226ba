//! Bills of materials and provenance, made from the locks of an image and the files in its layers.
//!
//! They name no machine and no time but the lock's, so the same lock gives the same bytes. What a licence is, is not
//! guessed: nothing here reads copyright files.

use std::collections::BTreeMap;

use serde_json::Value;

use super::archive::BuiltImage;
use super::build;
use super::definition::{self, Loaded};
use super::dockerfile::is_name;
use super::dockerfile::lock::DockerfileLock;
use super::dockerfile::recipe::{Base, Recipe};
use super::error::ImageError;
use super::inventory::{EntryKind, Inventory, PackageKind};
use super::lock::{self, Lock};
use super::reference::Digest;

mod cyclonedx;
mod provenance;
mod spdx;

/// A part of an image that its lock pins.
#[derive(Debug)]
struct Part<'a> {
    kind: PackageKind,
    name: &'a str,
    version: &'a str,
    /// Package URL (purl-spec, types deb, npm and pypi).
    purl: String,
    /// Digest of what was fetched.
    sha256: &'a Digest,
    /// What the registry of npm publishes, as hexadecimal digits.
    sha512: Option<String>,
}

/// A file of an image.
#[derive(Debug)]
struct Content<'a> {
    path: &'a str,
    sha256: &'a Digest,
    sha1: &'a [u8; 20],
}

/// What the documents are made of.
#[derive(Debug)]
struct Materials<'a> {
    name: &'a str,
    manifest: &'a Digest,
    config: &'a Digest,
    /// Unix seconds.
    epoch: u64,
    parts: Vec<Part<'a>>,
    /// Files by the index of their part, and those of none.
    files: BTreeMap<Option<usize>, Vec<Content<'a>>>,
}

impl Materials<'_> {
    /// The epoch in the form of RFC 3339.
    fn time(&self) -> String {
        let second = i64::try_from(self.epoch).unwrap_or_default();
        jiff::Timestamp::from_second(second).unwrap_or_default().to_string()
    }
}

/// The form of a bill of materials.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// SPDX 2.3, as JSON.
    Spdx,
    /// CycloneDX 1.6, as JSON.
    CycloneDx,
}

/// Makes a bill of materials of a built image.
///
/// # Errors
/// When definition, lock or layers cannot be read.
pub fn sbom(built: &BuiltImage, project_root: Option<&std::path::Path>, form: Form) -> Result<Value, ImageError> {
    let sources = Sources::of(&built.name, project_root)?;
    let inventory = Inventory::read(built)?;
    let materials = materials(built, &sources, &inventory);
    Ok(match form {
        Form::Spdx => spdx::document(&materials),
        Form::CycloneDx => cyclonedx::document(&materials),
    })
}

/// Makes a statement of how an image came to be (in-toto Statement v1, SLSA provenance v1).
///
/// # Errors
/// When definition or lock cannot be read.
pub fn provenance(built: &BuiltImage, project_root: Option<&std::path::Path>) -> Result<Value, ImageError> {
    let sources = Sources::of(&built.name, project_root)?;
    Ok(provenance::statement(&materials(built, &sources, &Inventory::default()), &sources))
}

/// What an image is made from, besides what its locks name.
struct Sources {
    chain: Vec<Loaded>,
    locks: Vec<Lock>,
    /// The lock of the Dockerfile that is built on the chain.
    dockerfile: Option<DockerfileLock>,
}

impl Sources {
    fn of(name: &str, root: Option<&std::path::Path>) -> Result<Self, ImageError> {
        let (base, dockerfile) = match root.filter(|_| is_name(name)) {
            Some(root) => {
                let lock = DockerfileLock::load(name, root)?.ok_or_else(|| ImageError::Unlocked(name.to_owned()))?;
                let recipe = Recipe::load(name, root, &lock.tags())?;
                let base = match recipe.last.and_then(|last| recipe.bases.get(&last).cloned()) {
                    Some(Base::Definition(name)) => Some(name),
                    _ => None,
                };
                (base, Some(lock))
            }
            None => (Some(name.to_owned()), None),
        };
        let chain = base.map(|base| definition::chain(&base, root)).transpose()?.unwrap_or_default();
        Ok(Self { locks: lock::locks(&chain)?, chain, dockerfile })
    }
}

fn materials<'a>(built: &'a BuiltImage, sources: &'a Sources, inventory: &'a Inventory) -> Materials<'a> {
    let mut parts = Vec::new();
    let mut folders = BTreeMap::new();
    for (place, lock) in sources.locks.iter().enumerate() {
        let above = &sources.locks[place + 1..];
        let raised = |name: &str| above.iter().flat_map(|lock| &lock.packages).any(|package| package.name == name);
        // A package of which an image above has another version is not there any more.
        for package in lock.packages.iter().filter(|package| !raised(&package.name)) {
            let (name, version) = (package.name.as_str(), package.version.as_str());
            let (architecture, named) = (&package.architecture, format!("{}@{}", escaped(name), escaped(version)));
            let purl = match package.suite.split_once(' ') {
                Some((address, _)) => {
                    format!("pkg:deb/{named}?arch={architecture}&repository_url={}", escaped(address))
                }
                None => {
                    let suite = package.suite.split('-').next().unwrap_or_default();
                    format!("pkg:deb/debian/{named}?arch={architecture}&distro={suite}")
                }
            };
            parts.push(Part { kind: PackageKind::Deb, name, version, purl, sha256: &package.sha256, sha512: None });
        }
        for npm in &lock.npm {
            folders.insert(build::npm_folder(&sources.chain[place].name, lock, npm), parts.len());
            let (name, version) = (npm.package.as_str(), npm.version.as_str());
            let purl = format!("pkg:npm/{}@{}", name.replace('@', "%40"), escaped(version));
            let (sha256, sha512) = (&npm.sha256, sha512(&npm.integrity));
            parts.push(Part { kind: PackageKind::Npm, name, version, purl, sha256, sha512 });
        }
        for wheel in &lock.pypi {
            let (name, version) = (wheel.package.as_str(), wheel.version.as_str());
            let purl = format!("pkg:pypi/{}@{}", escaped(name), escaped(version));
            parts.push(Part { kind: PackageKind::Pypi, name, version, purl, sha256: &wheel.sha256, sha512: None });
        }
    }
    let by_name: BTreeMap<(PackageKind, &str), usize> =
        parts.iter().enumerate().map(|(index, part)| ((part.kind, part.name), index)).collect();
    let mut files: BTreeMap<Option<usize>, Vec<Content<'a>>> = BTreeMap::new();
    for (path, entry) in &inventory.entries {
        let EntryKind::File { sha256, sha1, .. } = &entry.kind else { continue };
        let owner = match npm_part(path, &folders) {
            Some(part) => Some(part),
            None => inventory.owners.get(path).and_then(|(kind, name)| by_name.get(&(*kind, name.as_str()))),
        };
        files.entry(owner.copied()).or_default().push(Content { path, sha256, sha1 });
    }
    let above = sources.dockerfile.iter().map(|lock| lock.epoch);
    let epoch = sources.locks.iter().map(|lock| lock.epoch).chain(above).max().unwrap_or_default();
    let (manifest, config) = (&built.manifest_digest, &built.config_digest);
    Materials { name: &built.name, manifest, config, epoch, parts, files }
}

/// The part whose folder of `node_modules` is the innermost one that a path is in.
fn npm_part<'a>(path: &str, folders: &'a BTreeMap<String, usize>) -> Option<&'a usize> {
    let ends = path.match_indices('/').map(|(end, _)| &path[..end]);
    ends.rev().find_map(|folder| folders.get(folder))
}

/// `sha512-BASE64` as hexadecimal digits.
fn sha512(integrity: &str) -> Option<String> {
    use base64::Engine as _;
    let bytes = base64::engine::general_purpose::STANDARD.decode(integrity.strip_prefix("sha512-")?).ok()?;
    Some(hex::encode(bytes))
}

/// Percent-encoded as purl-spec wants names and versions.
fn escaped(text: &str) -> String {
    let mut escaped = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            escaped.push(char::from(byte));
        } else {
            escaped.push_str(&format!("%{byte:02X}"));
        }
    }
    escaped
}

fn sorted(mut value: Value) -> Value {
    value.sort_all_objects();
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_package_urls_as_their_specification_has_it() {
        assert_eq!(escaped("1:2.36-9+deb12u10~x"), "1%3A2.36-9%2Bdeb12u10~x");
        assert_eq!(sha512("sha512-AAEC").unwrap(), "000102");
        let folders = ["m/@a/b", "m/a", "m/a/node_modules/c"].map(str::to_owned);
        let folders: BTreeMap<String, usize> = folders.into_iter().zip(0..).collect();
        let part = |path: &str| npm_part(path, &folders).copied();
        assert_eq!([part("m/@a/b/c/d"), part("m/a/b"), part("m/a/node_modules/c/x")], [Some(0), Some(1), Some(2)]);
        assert_eq!([part("m/b/c"), part("m/a"), part("m/@a/bc/d")], [None, None, None]);
    }
}
