//! Which tarballs of npm a definition gets with all they depend on: the reader of `package-lock.json` (npm's documentation,
//! package-lock.json, lockfileVersion 3), and `npm` that writes one where it is needed.
//!
//! Nothing of a package is run, so one with a script for its installation is left out where it is optional, and refused
//! where it is not.

use std::collections::BTreeMap;
use std::process::Stdio;
use std::time::Duration;

use serde::Deserialize;

use super::build::npm_address;
use super::definition::{Npm, PACKAGE_LOCK};
use super::error::{ImageError, NpmLockProblem, at};

/// Bytes of a `package-lock.json`.
const LIMIT: u64 = 16 << 20;
/// Packages in one.
const PACKAGES: usize = 5_000;
/// How long `npm` may take.
const PATIENCE: Duration = Duration::from_secs(300);

/// A tarball that a `package-lock.json` names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tarball {
    /// Where it is unpacked, from the folder of the environment: `node_modules/a/node_modules/b`.
    pub place: String,
    /// Name in the registry.
    pub package: String,
    /// Exact version.
    pub version: String,
    /// Where it is.
    pub url: String,
    /// `sha512-` and base64.
    pub integrity: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Document {
    lockfile_version: u64,
    #[serde(default)]
    packages: BTreeMap<String, Package>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Package {
    /// Only where the folder has another name.
    name: Option<String>,
    version: Option<String>,
    resolved: Option<String>,
    integrity: Option<String>,
    link: bool,
    dev: bool,
    optional: bool,
    dev_optional: bool,
    in_bundle: bool,
    has_install_script: bool,
    os: Names,
    cpu: Names,
    libc: Names,
}

/// One name or several, as package authors write them.
#[derive(Debug, Default)]
struct Names(Vec<String>);

impl<'de> Deserialize<'de> for Names {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = serde_json::Value::deserialize(deserializer)?;
        let values = value.as_array().map_or(std::slice::from_ref(&value), Vec::as_slice);
        let name = |value: &serde_json::Value| value.as_str().map(str::to_owned);
        let names: Option<Vec<String>> = values.iter().map(name).collect();
        names.map(Self).ok_or_else(|| serde::de::Error::custom("expected a name or a list of names"))
    }
}

impl Package {
    /// Whether it is for Linux, this processor and the C library of Debian (npm's documentation, package.json: `os`,
    /// `cpu`; a name with `!` excludes).
    fn fits(&self, architecture: &str) -> bool {
        let cpu = if architecture == "amd64" { "x64" } else { architecture };
        let allows = |Names(list): &Names, own: &str| {
            let excluded = list.iter().any(|entry| entry.strip_prefix('!') == Some(own));
            let mut names = list.iter().filter(|entry| !entry.starts_with('!')).peekable();
            !excluded && (names.peek().is_none() || names.any(|entry| entry == own || entry == "any"))
        };
        allows(&self.os, "linux") && allows(&self.cpu, cpu) && allows(&self.libc, "glibc")
    }
}

/// Reads a `package-lock.json` and gives what has to be unpacked for this architecture of Debian, sorted by place.
///
/// # Errors
/// When it is no such file, lacks what is wanted, or needs more than unpacking.
pub fn read(text: &str, wanted: &[Npm], architecture: &str) -> Result<Vec<Tarball>, NpmLockProblem> {
    if text.len() as u64 > LIMIT {
        return Err(NpmLockProblem::Size);
    }
    let document: Document = serde_json::from_str(text)?;
    if document.lockfile_version != 3 {
        return Err(NpmLockProblem::Version(document.lockfile_version));
    }
    if document.packages.len() > PACKAGES {
        return Err(NpmLockProblem::Size);
    }
    let mut tarballs: Vec<Tarball> = Vec::new();
    let mut left: Vec<String> = Vec::new();
    // A folder comes before what is in it.
    for (place, package) in document.packages.iter().filter(|(place, _)| !place.is_empty()) {
        let folder = folder(place).ok_or_else(|| NpmLockProblem::Place(short(place)))?;
        let within = left.iter().any(|above| place.strip_prefix(above).is_some_and(|rest| rest.starts_with('/')));
        if package.dev || package.in_bundle || within {
            continue;
        }
        let optional = package.optional || package.dev_optional;
        if optional && (package.has_install_script || !package.fits(architecture)) {
            left.push(place.clone());
            continue;
        }
        let missing = |what| NpmLockProblem::Entry(short(place), what);
        if package.link || !package.fits(architecture) {
            return Err(missing(if package.link { "tarball of its own" } else { "files for this platform" }));
        }
        if package.has_install_script {
            return Err(NpmLockProblem::Script(short(place)));
        }
        let name = package.name.as_deref().unwrap_or(folder);
        let version = package.version.as_deref().filter(|version| word(version)).ok_or_else(|| missing("version"))?;
        if !name.trim_start_matches('@').split('/').all(word) {
            return Err(missing("plain name"));
        }
        // npm can be told to leave out where the registry has it. Nothing is said to a plain connection, though the
        // content is checked.
        let address = package.resolved.clone().unwrap_or_else(|| npm_address(name, version));
        let url = reqwest::Url::parse(&address).ok().filter(|url| {
            url.scheme() == "https"
                && url.username().is_empty()
                && url.password().is_none()
                && url.as_str().len() < 2_000
        });
        let url = url.ok_or_else(|| missing("address of https"))?.to_string();
        let mut sums = package.integrity.as_deref().unwrap_or_default().split_whitespace();
        let integrity = sums.find(|sum| sum.starts_with("sha512-") && sum.len() == 95);
        let integrity = integrity.ok_or_else(|| missing("sha512 integrity"))?.to_owned();
        let (place, package, version) = (place.clone(), name.to_owned(), version.to_owned());
        tarballs.push(Tarball { place, package, version, url, integrity });
    }
    for wanted in wanted {
        let place = format!("node_modules/{}", wanted.package);
        let found = tarballs.iter().find(|tarball| tarball.place == place);
        if found.is_none_or(|found| found.version != wanted.version) {
            return Err(NpmLockProblem::Absent(wanted.package.clone(), wanted.version.clone()));
        }
    }
    Ok(tarballs)
}

/// The name of the innermost package of a place, if the place is a path of packages below `node_modules`.
fn folder(place: &str) -> Option<&str> {
    let mut last = None;
    for part in format!("/{place}").split("/node_modules/").skip(1) {
        let (scope, name) = part.split_once('/').map_or((None, part), |(scope, name)| (Some(scope), name));
        let scoped = scope.is_none_or(|scope| scope.strip_prefix('@').is_some_and(word));
        if !scoped || !word(name) || name.starts_with('@') {
            return None;
        }
        last = Some(part.len());
    }
    place.starts_with("node_modules/").then(|| last.map(|length| &place[place.len() - length..])).flatten()
}

fn word(text: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-._+~".contains(c);
    !text.is_empty() && text.len() <= 214 && text.chars().all(plain) && !matches!(text, "." | ".." | "node_modules")
}

fn short(text: &str) -> String {
    text.chars().take(200).collect()
}

/// Has `npm` choose versions and write a `package-lock.json`. It resolves only: nothing is installed, and no script is run.
///
/// # Errors
/// When `npm` is not there or does not find a solution.
pub async fn resolve(name: &str, wanted: &[Npm]) -> Result<String, ImageError> {
    let failed = |problem| ImageError::NpmLock { name: name.to_owned(), problem };
    // An empty folder: an `.npmrc` or a workspace of the project would have a say otherwise.
    let folder = tempfile::tempdir().map_err(at(&std::env::temp_dir()))?;
    let dependencies: BTreeMap<_, _> = wanted.iter().map(|npm| (&npm.package, &npm.version)).collect();
    let manifest =
        serde_json::json!({"name": "image", "version": "0.0.0", "private": true, "dependencies": dependencies});
    let path = folder.path().join("package.json");
    std::fs::write(&path, manifest.to_string()).map_err(at(&path))?;
    let child = tokio::process::Command::new("npm")
        .args(["install", "--package-lock-only", "--ignore-scripts", "--no-audit", "--no-fund", "--no-update-notifier"])
        .args(["--lockfile-version", "3", "--loglevel", "error"])
        .current_dir(folder.path())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(|source| failed(NpmLockProblem::NoNpm(source)))?;
    let output = tokio::time::timeout(PATIENCE, child.wait_with_output()).await;
    let output = output.map_err(|_| failed(NpmLockProblem::Patience))?;
    let output = output.map_err(|source| failed(NpmLockProblem::NoNpm(source)))?;
    if !output.status.success() {
        let said: String = String::from_utf8_lossy(&output.stderr).chars().take(2_000).collect();
        let said = said.lines().map(|line| line.escape_debug().to_string()).collect::<Vec<_>>().join("\n");
        return Err(failed(NpmLockProblem::Npm(said)));
    }
    let path = folder.path().join(PACKAGE_LOCK);
    if path.metadata().map_err(at(&path))?.len() > LIMIT {
        return Err(failed(NpmLockProblem::Size));
    }
    std::fs::read_to_string(&path).map_err(at(&path))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted() -> Vec<Npm> {
        vec![Npm { package: "@a/tool".into(), version: "1.0.0".into(), bin: BTreeMap::new() }]
    }

    fn entry(more: &str) -> String {
        let integrity = format!("sha512-{}", "A".repeat(88));
        format!(r#"{{"version": "1.0.0", "resolved": "https://r/t.tgz", "integrity": "{integrity}" {more}}}"#)
    }

    fn document(entries: &[(&str, String)]) -> String {
        let entries = entries.iter().map(|(place, entry)| format!(r#", "{place}": {entry}"#)).collect::<String>();
        let tool = entry("");
        format!(r#"{{"lockfileVersion": 3, "packages": {{"": {{}}, "node_modules/@a/tool": {tool}{entries}}}}}"#)
    }

    fn places(entries: &[(&str, String)]) -> Result<Vec<String>, NpmLockProblem> {
        let found = read(&document(entries), &wanted(), "amd64")?;
        Ok(found.into_iter().map(|tarball| format!("{} {}", tarball.place, tarball.package)).collect())
    }

    #[test]
    fn takes_what_fits_the_platform_and_needs_no_script() {
        let found = places(&[
            ("node_modules/@a/tool/node_modules/b", entry("")),
            ("node_modules/alias", entry(r#", "name": "@real/name""#)),
            ("node_modules/bundled", entry(r#", "inBundle": true"#)),
            ("node_modules/development", entry(r#", "dev": true"#)),
            ("node_modules/linux", entry(r#", "optional": true, "os": ["linux"], "cpu": "x64", "libc": ["glibc"]"#)),
            ("node_modules/mac", entry(r#", "optional": true, "os": ["darwin"]"#)),
            ("node_modules/mac/node_modules/c", entry("")),
            ("node_modules/musl", entry(r#", "optional": true, "libc": ["musl"]"#)),
            ("node_modules/no-linux", entry(r#", "optional": true, "os": ["!linux"]"#)),
            ("node_modules/script", entry(r#", "optional": true, "hasInstallScript": true"#)),
        ]);
        let expected = [
            "node_modules/@a/tool @a/tool",
            "node_modules/@a/tool/node_modules/b b",
            "node_modules/alias @real/name",
            "node_modules/linux linux",
        ];
        assert_eq!(found.unwrap(), expected);
    }

    #[test]
    fn refuses_what_has_no_digest_no_safe_address_an_odd_place_or_a_script() {
        let case = |place: &str, entry: String| places(&[(place, entry)]).unwrap_err();
        let changed = |from: &str, to: &str| entry("").replace(from, to);
        for place in [
            "node_modules/../x",
            "node_modules/a/../../b",
            "node_modules/@a",
            "node_modules/a/b",
            "node_modules/",
            "node_modules/.",
            "packages/x",
            "/node_modules/x",
            "node_modules/node_modules",
            "node_modules/a/node_modules/..",
        ] {
            assert!(matches!(case(place, entry("")), NpmLockProblem::Place(_)), "{place}");
        }
        for (from, to) in [
            ("https:", "http:"),
            ("https://", "https://u:p@"),
            ("https://r/t.tgz", "file:../x"),
            ("sha512-", "sha1-"),
            ("sha512-A", "sha512-"),
            ("\"1.0.0\"", "\"1/0\""),
        ] {
            assert!(matches!(case("node_modules/x", changed(from, to)), NpmLockProblem::Entry(..)), "{to}");
        }
        assert!(matches!(case("node_modules/x", entry(r#", "link": true"#)), NpmLockProblem::Entry(..)));
        assert!(matches!(case("node_modules/x", entry(r#", "os": ["win32"]"#)), NpmLockProblem::Entry(..)));
        assert!(matches!(case("node_modules/x", entry(r#", "hasInstallScript": true"#)), NpmLockProblem::Script(_)));
        let other = vec![Npm { version: "2.0.0".into(), ..wanted().remove(0) }];
        assert!(matches!(read(&document(&[]), &other, "amd64"), Err(NpmLockProblem::Absent(..))));
        let older = document(&[]).replace(": 3,", ": 1,");
        assert!(matches!(read(&older, &wanted(), "amd64"), Err(NpmLockProblem::Version(1))));
        assert!(matches!(read("[]", &wanted(), "amd64"), Err(NpmLockProblem::Form(_))));
    }
}
