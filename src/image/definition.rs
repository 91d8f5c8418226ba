//! Image definitions: the hand-written `images/NAME/image.yaml`, of the project or built in.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;

use super::error::{ImageError, at};
use super::reference::Digest;

/// The file beside a definition that names tarballs of npm.
pub const PACKAGE_LOCK: &str = "package-lock.json";

/// Bytes of a file beside a definition.
const FILE_LIMIT: u64 = 16 << 20;

/// A definition as written.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Definition {
    /// Format version; 1.
    pub version: u32,
    /// Another definition that this one adds to.
    #[serde(default)]
    pub base: Option<String>,
    /// Debian packages.
    #[serde(default)]
    pub debian: Option<Debian>,
    /// Programs of npm. Those that need others stand with all they need in `package-lock.json` beside the definition.
    #[serde(default)]
    pub npm: Vec<Npm>,
    /// Programs of PyPI, which stand with all they need in `pylock.toml` beside the definition.
    #[serde(default)]
    pub pypi: Vec<Pypi>,
    /// Small text files: absolute path to content, owner root. One that begins with `#!` can be run by everybody.
    #[serde(default)]
    pub files: BTreeMap<String, String>,
    /// Environment of every command; a base's variables stay unless named again.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
}

/// Debian packages, installed with all they depend on but nothing that they only recommend.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Debian {
    /// Such as `bookworm`; its updates and security suites are used too. Without it, it is the base's; with `sources` and
    /// without it, packages are of these alone.
    #[serde(default)]
    pub suite: Option<String>,
    /// Parts of the archive; `main` when nothing is said.
    #[serde(default = "main_component")]
    pub components: Vec<String>,
    /// As for apt-get(8): `NAME`, `NAME=VERSION` (with `*` at the end for a part of one), or `NAME/SUITE`.
    pub packages: Vec<Request>,
    /// Further sources: `SUITE` of Debian, such as backports, or somebody else's repository.
    #[serde(default)]
    pub sources: Vec<Repository>,
    /// Packages of this definition that are installed though their scripts are not run and nothing stands for them.
    #[serde(default)]
    pub without_scripts: Vec<String>,
}

/// One more source of packages.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Repository {
    /// Such as `bookworm-backports`.
    pub suite: String,
    /// Address of the repository, as in sources.list(5); Debian's mirrors when nothing is said.
    #[serde(default)]
    pub address: Option<String>,
    /// Parts of the repository; `main` when nothing is said.
    #[serde(default = "main_component")]
    pub components: Vec<String>,
    /// The file beside the definition with the OpenPGP key that signs it; for repositories of others than Debian.
    #[serde(default)]
    pub key: Option<String>,
}

fn main_component() -> Vec<String> {
    vec!["main".to_owned()]
}

/// A package that a definition names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// Its name.
    pub name: String,
    /// Which version of it, if not the preferred one.
    pub pin: Option<Pin>,
}

/// Which version of a package.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Pin {
    /// This one, or the preferred one of those that begin so if it ends with `*`.
    Version(String),
    /// That of this suite.
    Suite(String),
}

impl Request {
    /// Reads `NAME`, `NAME=VERSION` or `NAME/SUITE`.
    pub fn parse(text: &str) -> Option<Self> {
        // Debian Policy, section 5.6.12.
        let version = |text: &str| {
            let body = text.strip_suffix('*').unwrap_or(text);
            let known = body.chars().all(|c| c.is_ascii_alphanumeric() || ".+-~:".contains(c));
            (known && !body.is_empty() && text.len() <= 200).then(|| Pin::Version(text.to_owned()))
        };
        let (name, pin) = match text.find(['=', '/']) {
            None => (text, None),
            Some(end) => {
                let (name, rest) = (&text[..end], &text[end + 1..]);
                let suite = || plain(rest, "-").then(|| Pin::Suite(rest.to_owned()));
                (name, Some(if text[end..].starts_with('=') { version(rest)? } else { suite()? }))
            }
        };
        plain(name, "+-.").then(|| Self { name: name.to_owned(), pin })
    }
}

impl std::fmt::Display for Request {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.pin {
            None => formatter.write_str(&self.name),
            Some(Pin::Version(version)) => write!(formatter, "{}={version}", self.name),
            Some(Pin::Suite(suite)) => write!(formatter, "{}/{suite}", self.name),
        }
    }
}

impl<'de> Deserialize<'de> for Request {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let wrong = || {
            let text: String = text.chars().take(100).collect();
            let text = text.escape_debug();
            serde::de::Error::custom(format!("`{text}` is neither NAME, NAME=VERSION nor NAME/SUITE"))
        };
        Self::parse(&text).ok_or_else(wrong)
    }
}

/// One program of npm, unpacked to `/usr/local/lib/node_modules/PACKAGE`, or below `/usr/local/lib/npm/IMAGE` when there is
/// a `package-lock.json`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Npm {
    /// Name in the registry, with its scope.
    pub package: String,
    /// Exact version.
    pub version: String,
    /// Commands in `/usr/local/bin`, and the files in the tarball that they are.
    pub bin: BTreeMap<String, String>,
}

/// One program of PyPI. Those of one definition share an environment, `/usr/local/lib/pypi/IMAGE`, which no other Python
/// program sees.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pypi {
    /// Name in the index.
    pub package: String,
    /// Exact version.
    pub version: String,
    /// Its commands that `/usr/local/bin` has.
    #[serde(default)]
    pub bin: Vec<String>,
}

/// A definition with its text's digest and its lock's text.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// Name of the folder in `images/`.
    pub name: String,
    /// The parsed definition.
    pub definition: Definition,
    /// Digest of the definition's text.
    pub digest: Digest,
    /// The lock's text, if there is one.
    pub lock: Option<String>,
    /// The text of `pylock.toml`, if the definition has programs of PyPI and there is one.
    pub pylock: Option<String>,
    /// The text of `package-lock.json`, if the definition has programs of npm and there is one.
    pub package_lock: Option<String>,
    /// The keys of further sources, by the names of their files.
    pub keys: BTreeMap<String, Vec<u8>>,
    /// Whether it came with the launcher.
    pub built_in: bool,
}

/// Name, definition and lock of an image that comes with the launcher.
macro_rules! built_in {
    ($name:literal, $pylock:expr, $package_lock:expr) => {
        BuiltIn {
            name: $name,
            definition: include_str!(concat!("../../images/", $name, "/image.yaml")),
            lock: include_str!(concat!("../../images/", $name, "/image.lock")),
            pylock: $pylock,
            package_lock: $package_lock,
        }
    };
    ($name:literal) => {
        built_in!($name, None, None)
    };
}

/// The files of one image that comes with the launcher.
struct BuiltIn {
    name: &'static str,
    definition: &'static str,
    lock: &'static str,
    pylock: Option<&'static str>,
    package_lock: Option<&'static str>,
}

/// All images that come with the launcher.
const BUILT_IN: &[BuiltIn] = &[
    built_in!("agent"),
    built_in!("aider", Some(include_str!("../../images/aider/pylock.toml")), None),
    built_in!("base"),
    built_in!("claude-code"),
    built_in!("codex"),
    built_in!("gemini-cli", None, Some(include_str!("../../images/gemini-cli/package-lock.json"))),
    built_in!("opencode"),
];

/// Whether a definition can have this name.
pub fn is_name(name: &str) -> bool {
    plain(name, "-")
}

/// Reads a definition and its lock: the project's, or else the built-in one.
pub fn load(name: &str, project_root: Option<&Path>) -> Result<Loaded, ImageError> {
    if super::dockerfile::is_name(name) {
        return Err(ImageError::NoDefinition(name.to_owned()));
    }
    if !is_name(name) {
        return Err(ImageError::UnknownImage(name.to_owned()));
    }
    let own = project_root.map(|root| root.join("images").join(name));
    let own = own.filter(|folder| folder.join("image.yaml").is_file());
    let (text, lock, pylock, package_lock, built_in) = match &own {
        Some(folder) => {
            let text = read(&folder.join("image.yaml"))?.unwrap_or_default();
            let beside = |file: &str| read(&folder.join(file));
            (text, beside("image.lock")?, beside("pylock.toml")?, beside(PACKAGE_LOCK)?, false)
        }
        None => {
            let found = BUILT_IN.iter().find(|known| known.name == name);
            let found = found.ok_or_else(|| ImageError::UnknownImage(name.to_owned()))?;
            let [pylock, package_lock] = [found.pylock, found.package_lock].map(|text| text.map(str::to_owned));
            (found.definition.to_owned(), Some(found.lock.to_owned()), pylock, package_lock, true)
        }
    };
    let lock = lock.filter(|lock| !lock.trim().is_empty());
    let definition: Definition = serde_yaml::from_str(&text)
        .map_err(|source| ImageError::Definition { name: name.to_owned(), source: source.into() })?;
    check(name, &definition)?;
    let pylock = pylock.filter(|_| !definition.pypi.is_empty());
    let package_lock = package_lock.filter(|_| !definition.npm.is_empty());
    let mut keys = BTreeMap::new();
    let sources = definition.debian.iter().flat_map(|debian| &debian.sources);
    for (folder, key) in
        own.iter().flat_map(|own| sources.clone().filter_map(move |source| Some((own, source.key.as_ref()?))))
    {
        let path = folder.join(key);
        let text = bytes(&path)?.ok_or_else(|| at(&path)(std::io::ErrorKind::NotFound.into()))?;
        keys.insert(key.clone(), text);
    }
    let (name, digest) = (name.to_owned(), Digest::of(text.as_bytes()));
    Ok(Loaded { name, definition, digest, lock, pylock, package_lock, keys, built_in })
}

/// The text of a file that need not be there.
fn read(path: &Path) -> Result<Option<String>, ImageError> {
    let text = bytes(path)?.map(String::from_utf8).transpose();
    text.map_err(|_| at(path)(std::io::ErrorKind::InvalidData.into()))
}

/// The bytes of a file that need not be there. It may be a stranger's repository.
fn bytes(path: &Path) -> Result<Option<Vec<u8>>, ImageError> {
    let metadata = match path.metadata() {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(at(path)(error)),
    };
    if !metadata.is_file() || metadata.len() > FILE_LIMIT {
        return Err(at(path)(std::io::ErrorKind::InvalidInput.into()));
    }
    std::fs::read(path).map(Some).map_err(at(path))
}

/// The definition and all that it is based on, the base first.
pub fn chain(name: &str, project_root: Option<&Path>) -> Result<Vec<Loaded>, ImageError> {
    let mut chain = vec![load(name, project_root)?];
    while let Some(base) = chain.last().and_then(|loaded| loaded.definition.base.clone()) {
        if chain.len() == 16 || chain.iter().any(|loaded| loaded.name == base) {
            return Err(ImageError::BaseCycle(name.to_owned()));
        }
        chain.push(load(&base, project_root)?);
    }
    chain.reverse();
    inherit_suites(&mut chain)?;
    Ok(chain)
}

/// Gives a definition that names no source of its packages the suite of the one that it is based on.
fn inherit_suites(chain: &mut [Loaded]) -> Result<(), ImageError> {
    let mut inherited = None;
    for Loaded { name, definition, .. } in chain {
        let Some(debian) = &mut definition.debian else { continue };
        if debian.suite.is_none() && debian.sources.is_empty() {
            debian.suite.clone_from(&inherited);
            if debian.suite.is_none() {
                let (value, expected) =
                    ("debian".to_owned(), "list of packages with a suite, which no base has either");
                return Err(ImageError::DefinitionValue { name: name.clone(), value, expected });
            }
        }
        inherited = debian.suite.clone().or(inherited);
    }
    Ok(())
}

/// Names of all definitions, the project's and the built-in ones, sorted.
pub fn names(project_root: Option<&Path>) -> Vec<String> {
    let mut names: std::collections::BTreeSet<String> = BUILT_IN.iter().map(|known| known.name.to_owned()).collect();
    let folder = project_root.map(|root| root.join("images"));
    for entry in folder.iter().filter_map(|folder| std::fs::read_dir(folder).ok()).flatten().flatten() {
        if let Some(name) =
            entry.file_name().to_str().filter(|name| is_name(name) && entry.path().join("image.yaml").is_file())
        {
            names.insert(name.to_owned());
        }
    }
    names.into_iter().collect()
}

fn plain(text: &str, more: &str) -> bool {
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || more.contains(c);
    !text.is_empty() && text.len() <= 100 && text.chars().all(allowed) && !text.starts_with(['.', '-'])
}

/// Whether it is a plain address. A repository may be reached in the clear: what it gives is signed.
pub(super) fn repository_address(address: &str) -> bool {
    let Ok(url) = reqwest::Url::parse(address) else { return false };
    let plain =
        url.username().is_empty() && url.password().is_none() && url.query().is_none() && url.fragment().is_none();
    plain && matches!(url.scheme(), "http" | "https") && address.len() <= 500 && !address.contains(char::is_whitespace)
}

fn check(name: &str, definition: &Definition) -> Result<(), ImageError> {
    let wrong = |value: &str, expected| {
        Err(ImageError::DefinitionValue { name: name.to_owned(), value: value.escape_debug().to_string(), expected })
    };
    if definition.version != 1 {
        return wrong(&definition.version.to_string(), "known version");
    }
    if let Some(debian) = &definition.debian {
        match &debian.suite {
            Some(suite) if !plain(suite, "-") => return wrong(suite, "suite"),
            None if debian.sources.is_empty() && definition.base.is_none() => {
                return wrong("debian", "list of packages with a suite");
            }
            _ => {}
        }
        let parts = |components: &[String]| {
            let plain = |component: &&String| plain(component, "-./") && !component.split('/').any(|part| part == "..");
            components.iter().find(|component| !plain(component)).cloned()
        };
        if let Some(component) = parts(&debian.components) {
            return wrong(&component, "component");
        }
        if let Some(package) = debian.without_scripts.iter().find(|package| !plain(package, "+-.")) {
            return wrong(package, "package");
        }
        for source in &debian.sources {
            // Others name suites as they like, such as `stable` or `noble`.
            if !plain(&source.suite, "-.") || Some(&source.suite) == debian.suite.as_ref() {
                return wrong(&source.suite, "further suite");
            }
            if let Some(component) = parts(&source.components) {
                return wrong(&component, "component");
            }
            if let Some(address) = source.address.as_ref().filter(|address| !repository_address(address)) {
                return wrong(address, "address of a repository, with a key");
            }
            match &source.key {
                Some(key) if source.address.is_none() || !plain(&key.to_ascii_lowercase(), "-._") => {
                    return wrong(key, "file beside the definition, with the key of a repository that has an address");
                }
                None if source.address.is_some() => return wrong(&source.suite, "source with a key"),
                _ => {}
            }
        }
    }
    for npm in &definition.npm {
        let (scope, package) = match npm.package.strip_prefix('@').map(|rest| rest.split_once('/')) {
            None => (None, npm.package.as_str()),
            Some(Some((scope, package))) => (Some(scope), package),
            Some(None) => return wrong(&npm.package, "package of npm"),
        };
        if scope.is_some_and(|scope| !plain(scope, "-._")) || !plain(package, "-._") {
            return wrong(&npm.package, "package of npm");
        }
        if !npm.version.chars().all(|c| c.is_ascii_alphanumeric() || "-.+".contains(c)) {
            return wrong(&npm.version, "version");
        }
        for (command, file) in &npm.bin {
            if !plain(command, "-._")
                || file.starts_with('/')
                || file.split('/').any(|part| part == ".." || part.is_empty())
            {
                return wrong(file, "path in the tarball");
            }
        }
    }
    for pypi in &definition.pypi {
        let word = |text: &str, more: &str| plain(&text.to_ascii_lowercase(), more);
        if !word(&pypi.package, "-._") {
            return wrong(&pypi.package, "package of PyPI");
        }
        if !word(&pypi.version, "-.+!") {
            return wrong(&pypi.version, "version");
        }
        if let Some(command) = pypi.bin.iter().find(|command| !word(command, "-._")) {
            return wrong(command, "command");
        }
    }
    for path in definition.files.keys() {
        if !path.starts_with('/') || path[1..].split('/').any(|part| matches!(part, "" | "." | "..")) {
            return wrong(path, "absolute path");
        }
    }
    for key in definition.env.keys() {
        if key.is_empty() || key.contains(['=', '\0']) {
            return wrong(key, "name of a variable");
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn project(name: &str, text: &str) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(folder.path().join("images").join(name)).unwrap();
        std::fs::write(folder.path().join("images").join(name).join("image.yaml"), text).unwrap();
        folder
    }

    #[test]
    fn the_projects_definition_wins_over_the_built_in_one() {
        let folder = project("agent", "version: 1\nbase: base\n");
        assert!(!load("agent", Some(folder.path())).unwrap().built_in);
        assert!(load("agent", None).unwrap().built_in);
    }

    #[test]
    fn refuses_names_and_paths_that_leave_their_folder() {
        assert!(matches!(load("../agent", None), Err(ImageError::UnknownImage(_))));
        for text in [
            "version: 1\nfiles: {/etc/../a: x}\n",
            "version: 1\nfiles: {etc/a: x}\n",
            "version: 1\nnpm: [{package: '@a/../b', version: 1.0.0, bin: {a: a}}]\n",
            "version: 1\nnpm: [{package: b, version: 1/0, bin: {a: a}}]\n",
            "version: 1\nnpm: [{package: b, version: 1.0.0, bin: {a: ../a}}]\n",
            "version: 1\npypi: [{package: a/b, version: 1.0.0}]\n",
            "version: 1\npypi: [{package: b, version: '>=1'}]\n",
            "version: 1\npypi: [{package: b, version: 1.0.0, bin: [../a]}]\n",
            "version: 2\n",
            "version: 1\ndebian: {suite: a/b, packages: []}\n",
            "version: 1\ndebian: {suite: a, components: [../b], packages: []}\n",
            "version: 1\ndebian: {packages: []}\n",
            "version: 1\ndebian: {suite: a, packages: [], without_scripts: [a/b]}\n",
            "version: 1\ndebian: {suite: a, packages: [], sources: [{suite: a}]}\n",
            "version: 1\ndebian: {suite: a, packages: [], sources: [{suite: b, address: 'https://h/x'}]}\n",
            "version: 1\ndebian: {suite: a, packages: [], sources: [{suite: b, key: k.asc}]}\n",
            "version: 1\ndebian: {suite: a, packages: [], sources: [{suite: b, address: 'file:///x', key: k.asc}]}\n",
            "version: 1\ndebian: {suite: a, packages: [], sources: [{suite: b, address: 'https://u:p@h', key: k.asc}]}\n",
            "version: 1\ndebian: {suite: a, packages: [], sources: [{suite: b, address: 'https://h', key: ../k.asc}]}\n",
        ] {
            let folder = project("x", text);
            assert!(matches!(load("x", Some(folder.path())), Err(ImageError::DefinitionValue { .. })), "{text}");
        }
    }

    #[test]
    fn a_definition_has_the_suite_of_its_base() {
        let suites = |text: &str| {
            let folder = project("x", text);
            let loaded = chain("x", Some(folder.path()))?;
            Ok(loaded.into_iter().map(|loaded| loaded.definition.debian.unwrap().suite).collect::<Vec<_>>())
        };
        let of = |suites: &[Option<&str>]| suites.iter().map(|suite| suite.map(str::to_owned)).collect::<Vec<_>>();
        let bookworm = Some("bookworm");
        let found: Result<_, ImageError> = suites("version: 1\nbase: agent\ndebian: {packages: [gdb]}\n");
        assert_eq!(found.unwrap(), of(&[bookworm, bookworm, bookworm]));
        let own = "version: 1\nbase: base\ndebian: {packages: [gdb], sources: [{suite: bookworm-backports}]}\n";
        assert_eq!(suites(own).unwrap(), of(&[bookworm, None]));
        let error = suites("version: 1\ndebian: {packages: [gdb]}\n").unwrap_err();
        assert!(matches!(error, ImageError::DefinitionValue { .. }), "{error:?}");
        let folder = project("x", "version: 1\nbase: y\ndebian: {packages: [gdb]}\n");
        std::fs::create_dir(folder.path().join("images/y")).unwrap();
        std::fs::write(folder.path().join("images/y/image.yaml"), "version: 1\n").unwrap();
        let error = chain("x", Some(folder.path())).unwrap_err();
        assert!(error.to_string().contains("which no base has either"), "{error}");
    }

    #[test]
    fn packages_are_written_as_for_apt() {
        let version = |text: &str| Some(Pin::Version(text.to_owned()));
        for (text, name, pin) in [
            ("g++", "g++", None),
            ("jq=1.6-2.1", "jq", version("1.6-2.1")),
            ("nodejs=1:20.*", "nodejs", version("1:20.*")),
            ("golang-go/bookworm-backports", "golang-go", Some(Pin::Suite("bookworm-backports".into()))),
        ] {
            let request = Request::parse(text).unwrap();
            assert_eq!((request.name.as_str(), &request.pin, request.to_string().as_str()), (name, &pin, text));
        }
        for text in ["", "=1", "A", "a=", "a=*", "a=1 2", "a=1/2", "a/", "a/../b", "a/B", "-a", "a b"] {
            assert_eq!(Request::parse(text), None, "{text}");
        }
    }

    #[test]
    fn refuses_bases_that_go_round() {
        let folder = project("x", "version: 1\nbase: x\n");
        assert!(matches!(chain("x", Some(folder.path())), Err(ImageError::BaseCycle(_))));
    }
}
