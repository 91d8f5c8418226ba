//! Image locks: everything that a build reads, by digest, and the digests that come out of it.
//!
//! A lock names no mirror and no time of its making, so two people who lock the same definition on the same day get
//! the same bytes.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::definition::{Loaded, PACKAGE_LOCK, repository_address};
use super::error::ImageError;
use super::reference::Digest;

/// Changes whenever the builder makes other bytes of the same inputs.
pub const RECIPE: u32 = 3;

/// The content of `image.lock`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lock {
    /// Format version; 1.
    pub version: u32,
    /// The builder's recipe.
    pub recipe: u32,
    /// Digest of the definition's text.
    pub definition: Digest,
    /// Debian's name of the machine's architecture.
    pub architecture: String,
    /// Digest of the lock of the base.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base: Option<Digest>,
    /// Unix time of the newest source, in seconds; no file of the image is younger.
    pub epoch: u64,
    /// Repositories of Debian.
    pub sources: Vec<Source>,
    /// Packages, sorted by name, without those of the base.
    pub packages: Vec<Package>,
    /// Tarballs of npm, in the definition's order, or in that of their places in `package-lock.json`.
    pub npm: Vec<NpmTarball>,
    /// Digest of the `package-lock.json` from which the tarballs are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub package_lock: Option<Digest>,
    /// Digest of the `pylock.toml` from which the wheels are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pylock: Option<Digest>,
    /// Wheels of PyPI, sorted by name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pypi: Vec<PypiWheel>,
    /// What the build must give.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<ResultDigests>,
}

/// One suite of a repository.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Source {
    /// Such as `bookworm-security`; with the address before it for a repository of others than Debian.
    pub suite: String,
    /// The part of the archive, if it is not `main`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub component: Option<String>,
    /// Digest of the key that signed it, for a repository of others than Debian.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<Digest>,
    /// Whether it was out of date when it was locked, and taken all the same.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub expired: bool,
    /// `Date` of InRelease, Unix time in seconds.
    pub date: u64,
    /// Digest of InRelease.
    pub in_release: Digest,
    /// Digest of the `Packages` of the component, compressed as it was fetched.
    pub packages: Digest,
}

/// One package of Debian.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Package {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Its architecture: the machine's or `all`.
    pub architecture: String,
    /// The suite that it is from.
    pub suite: String,
    /// Digest of the .deb.
    pub sha256: Digest,
    /// Its size in bytes.
    pub size: u64,
    /// Its path on a mirror.
    pub path: String,
    /// A day on which it was published, Unix time in seconds, if it is older than the suite's date: it stayed when others
    /// were updated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub date: Option<u64>,
}

/// One tarball of npm.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NpmTarball {
    /// Name in the registry.
    pub package: String,
    /// Exact version.
    pub version: String,
    /// `sha512-` and base64, as the registry publishes it.
    pub integrity: String,
    /// Digest of the tarball, under which the cache keeps it.
    pub sha256: Digest,
    /// Its size in bytes.
    pub size: u64,
    /// Where it is unpacked, as `package-lock.json` has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub place: Option<String>,
    /// Where it is, if it is not in npm's own registry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
}

/// One wheel of PyPI.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PypiWheel {
    /// Normalised name.
    pub package: String,
    /// Exact version.
    pub version: String,
    /// The wheel's own name.
    pub file: String,
    /// Where it is.
    pub url: String,
    /// Digest of the wheel.
    pub sha256: Digest,
    /// Its size in bytes.
    pub size: u64,
}

/// The digests of a build.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ResultDigests {
    /// Uncompressed digest of each layer, lowest first, the base's included.
    pub diff_ids: Vec<Digest>,
    /// Digest of the configuration: the image id on graph drivers.
    pub config: Digest,
    /// Digest of the manifest: the image id on the containerd store.
    pub manifest: Digest,
}

impl Lock {
    /// Parses a lock.
    pub fn parse(name: &str, text: &str) -> Result<Self, ImageError> {
        let lock = serde_json::from_str::<Self>(text).and_then(|lock| {
            // Other files have their place on a mirror; a wheel has an address, which somebody may have edited.
            let plain = |url: &str| reqwest::Url::parse(url).is_ok_and(|url| url.scheme() == "https");
            let wheels = lock.pypi.iter().map(|wheel| (&wheel.package, Some(&wheel.url)));
            let mut all = wheels.chain(lock.npm.iter().map(|npm| (&npm.package, npm.url.as_ref())));
            match all.find(|(_, url)| url.is_some_and(|url| !plain(url))) {
                Some((package, _)) => {
                    let said = format!("the address of {} is not one of https", package.escape_debug());
                    Err(serde::de::Error::custom(said))
                }
                None => Ok(lock),
            }
        });
        let lock = lock.and_then(|lock| {
            let named = |suite: &String| suite.split_once(' ').is_none_or(|(address, _)| repository_address(address));
            match lock.packages.iter().find(|package| !named(&package.suite)) {
                Some(package) => {
                    let said = format!("the repository of {} has no plain address", package.name.escape_debug());
                    Err(serde::de::Error::custom(said))
                }
                None => Ok(lock),
            }
        });
        lock.map_err(|source| ImageError::Lock { name: name.to_owned(), source })
    }

    /// The text of `image.lock`.
    pub fn text(&self) -> Result<String, ImageError> {
        let text = serde_json::to_string_pretty(self);
        Ok(text.map_err(|source| ImageError::Lock { name: String::new(), source })? + "\n")
    }

    /// The digest by which a lock is known to locks that are based on it.
    pub fn digest(&self) -> Result<Digest, ImageError> {
        Ok(Digest::of(self.text()?.as_bytes()))
    }
}

/// The locks of a chain of definitions, each checked against its definition and its base.
pub fn locks(chain: &[Loaded]) -> Result<Vec<Lock>, ImageError> {
    let mut locks: Vec<Lock> = Vec::new();
    for loaded in chain {
        let text = loaded.lock.as_deref().ok_or_else(|| ImageError::Unlocked(loaded.name.clone()))?;
        let lock = Lock::parse(&loaded.name, text)?;
        let stale = |what| Err(ImageError::Stale { name: loaded.name.clone(), what });
        if lock.version != 1 || lock.recipe != RECIPE {
            return stale("recipe");
        }
        if lock.definition != loaded.digest {
            return stale("definition");
        }
        if lock.pylock != loaded.pylock.as_ref().map(|text| Digest::of(text.as_bytes())) {
            return stale("pylock.toml");
        }
        if lock.package_lock != loaded.package_lock.as_ref().map(|text| Digest::of(text.as_bytes())) {
            return stale(PACKAGE_LOCK);
        }
        if lock.base != locks.last().map(Lock::digest).transpose()? {
            return stale("base");
        }
        let text = |text: &Option<String>, part: &str| text.as_ref().is_some_and(|text| text.contains(part));
        if !lock.pypi.iter().all(|wheel| text(&loaded.pylock, &wheel.sha256.hex())) {
            return stale("list of wheels");
        }
        let wanted = &loaded.definition.npm;
        let known = |npm: &NpmTarball| match &loaded.package_lock {
            Some(_) => text(&loaded.package_lock, &npm.integrity),
            None => wanted.iter().any(|wanted| (&wanted.package, &wanted.version) == (&npm.package, &npm.version)),
        };
        if !lock.npm.iter().all(known) {
            return stale("list of npm's packages");
        }
        if lock.result.is_none() {
            return Err(ImageError::Unlocked(loaded.name.clone()));
        }
        locks.push(lock);
    }
    Ok(locks)
}

/// The environment that a chain of definitions gives: later definitions win.
pub fn environment(chain: &[Loaded]) -> BTreeMap<String, String> {
    chain.iter().flat_map(|loaded| loaded.definition.env.clone()).collect()
}

/// Whether a base has come to have this version of a package, or a newer one.
pub(super) fn superseded(own: &Package, below: &[Lock]) -> bool {
    let version = |package: &Package| package.version.parse::<debversion::Version>().ok();
    let mut same = below.iter().flat_map(|lock| &lock.packages).filter(|package| package.name == own.name);
    same.any(|package| version(package) >= version(own))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::definition;

    #[test]
    fn the_built_in_locks_belong_to_their_definitions_and_are_written_as_we_write_them() {
        for name in definition::names(None) {
            let chain = definition::chain(&name, None).unwrap();
            let locks = locks(&chain).unwrap();
            assert_eq!(locks.last().unwrap().text().unwrap(), chain.last().unwrap().lock.clone().unwrap());
        }
    }

    #[test]
    fn refuses_a_wheel_that_would_come_in_the_clear() {
        let aider = definition::chain("aider", None).unwrap().pop().unwrap().lock.unwrap();
        assert!(Lock::parse("aider", &aider).is_ok());
        for other in ["http://", "file:///", "ftp://", ""] {
            let changed = aider.replacen("https://", other, 1);
            assert!(matches!(Lock::parse("aider", &changed), Err(ImageError::Lock { .. })), "{other}");
        }
    }

    #[test]
    fn refuses_a_lock_after_a_change_of_its_pylock() {
        let mut chain = definition::chain("aider", None).unwrap();
        let last = chain.last_mut().unwrap();
        last.pylock = last.pylock.as_ref().map(|text| format!("{text}\n"));
        assert!(matches!(locks(&chain), Err(ImageError::Stale { what: "pylock.toml", .. })));
    }

    #[test]
    fn refuses_a_lock_that_was_edited_to_have_other_wheels_or_tarballs() {
        let edited = |name: &str, field: &str, from: &str, to: &str| {
            let mut chain = definition::chain(name, None).unwrap();
            let lock = &mut chain.last_mut().unwrap().lock;
            let text = lock.as_ref().unwrap();
            let place = text.find(field).unwrap();
            let changed = text[..place].to_owned() + &text[place..].replacen(from, to, 1);
            assert_ne!(*text, changed);
            *lock = Some(changed);
            locks(&chain)
        };
        let other = format!("\"sha256:{}", "0".repeat(64));
        let aider = definition::chain("aider", None).unwrap().pop().unwrap().lock.unwrap();
        let wheel = Lock::parse("aider", &aider).unwrap().pypi[0].sha256.to_string();
        let found = edited("aider", "\"pypi\": [", &format!("\"{wheel}"), &other);
        assert!(matches!(found, Err(ImageError::Stale { what: "list of wheels", .. })), "{found:?}");
        for (name, from, to) in
            [("gemini-cli", "sha512-", "sha512-AAAA"), ("codex", "\"version\": \"", "\"version\": \"9")]
        {
            let found = edited(name, "\"npm\": [", from, to);
            assert!(matches!(found, Err(ImageError::Stale { what: "list of npm's packages", .. })), "{found:?}");
        }
    }

    #[test]
    fn refuses_a_lock_after_a_change_of_its_definition_its_base_or_itself() {
        let mut chain = definition::chain("agent", None).unwrap();
        chain[1].digest = Digest::of(b"changed");
        assert!(matches!(locks(&chain), Err(ImageError::Stale { what: "definition", .. })));
        let mut chain = definition::chain("agent", None).unwrap();
        chain[0].lock = chain[0].lock.as_ref().map(|text| text.replacen("\"size\": ", "\"size\": 1", 1));
        assert!(matches!(locks(&chain), Err(ImageError::Stale { what: "base", .. })));
        let mut chain = definition::chain("agent", None).unwrap();
        chain[1].lock = chain[1].lock.as_ref().map(|text| text.replacen("sha256:", "md5:", 1));
        assert!(matches!(locks(&chain), Err(ImageError::Lock { .. })));
        chain[1].lock = None;
        assert!(matches!(locks(&chain), Err(ImageError::Unlocked(_))));
    }
}
