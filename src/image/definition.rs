//! Image definitions: the hand-written `images/NAME/image.yaml`, of the project or built in.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;

use super::error::{ImageError, at};
use super::reference::Digest;

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
    /// Tarballs of npm that hold native programs.
    #[serde(default)]
    pub npm: Vec<Npm>,
    /// Programs of PyPI, which stand with all they need in `pylock.toml` beside the definition.
    #[serde(default)]
    pub pypi: Vec<Pypi>,
    /// Small text files: absolute path to content, mode 0644, owner root.
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
    /// Such as `bookworm`; its updates and security suites are used too.
    pub suite: String,
    /// Package names.
    pub packages: Vec<String>,
}

/// One tarball of npm, unpacked to `/usr/local/lib/node_modules/PACKAGE`.
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
    /// Whether it came with the launcher.
    pub built_in: bool,
}

/// Name, definition and lock of an image that comes with the launcher.
macro_rules! built_in {
    ($name:literal, $pylock:expr) => {
        BuiltIn {
            name: $name,
            definition: include_str!(concat!("../../images/", $name, "/image.yaml")),
            lock: include_str!(concat!("../../images/", $name, "/image.lock")),
            pylock: $pylock,
        }
    };
    ($name:literal) => {
        built_in!($name, None)
    };
}

/// The files of one image that comes with the launcher.
struct BuiltIn {
    name: &'static str,
    definition: &'static str,
    lock: &'static str,
    pylock: Option<&'static str>,
}

/// All images that come with the launcher.
const BUILT_IN: &[BuiltIn] = &[
    built_in!("agent"),
    built_in!("aider", Some(include_str!("../../images/aider/pylock.toml"))),
    built_in!("base"),
    built_in!("claude-code"),
    built_in!("codex"),
    built_in!("gemini-cli"),
    built_in!("opencode"),
];

/// Reads a definition and its lock: the project's, or else the built-in one.
pub fn load(name: &str, project_root: Option<&Path>) -> Result<Loaded, ImageError> {
    if super::dockerfile::is_name(name) {
        return Err(ImageError::NoDefinition(name.to_owned()));
    }
    if !plain(name, "-") {
        return Err(ImageError::UnknownImage(name.to_owned()));
    }
    let own = project_root.map(|root| root.join("images").join(name));
    let (text, lock, pylock, built_in) = match own.filter(|folder| folder.join("image.yaml").is_file()) {
        Some(folder) => {
            let path = folder.join("image.yaml");
            let text = std::fs::read_to_string(&path).map_err(at(&path))?;
            (text, optional(&folder.join("image.lock"))?, optional(&folder.join("pylock.toml"))?, false)
        }
        None => {
            let found = BUILT_IN.iter().find(|known| known.name == name);
            let found = found.ok_or_else(|| ImageError::UnknownImage(name.to_owned()))?;
            let pylock = found.pylock.map(str::to_owned);
            (found.definition.to_owned(), Some(found.lock.to_owned()), pylock, true)
        }
    };
    let lock = lock.filter(|lock| !lock.trim().is_empty());
    let definition: Definition = serde_yaml::from_str(&text)
        .map_err(|source| ImageError::Definition { name: name.to_owned(), source: source.into() })?;
    check(name, &definition)?;
    let pylock = pylock.filter(|_| !definition.pypi.is_empty());
    Ok(Loaded { name: name.to_owned(), definition, digest: Digest::of(text.as_bytes()), lock, pylock, built_in })
}

/// The text of a file that need not be there.
fn optional(path: &Path) -> Result<Option<String>, ImageError> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(at(path)(error)),
    }
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
    Ok(chain)
}

/// Names of all definitions, the project's and the built-in ones, sorted.
pub fn names(project_root: Option<&Path>) -> Vec<String> {
    let mut names: std::collections::BTreeSet<String> = BUILT_IN.iter().map(|known| known.name.to_owned()).collect();
    let folder = project_root.map(|root| root.join("images"));
    for entry in folder.iter().filter_map(|folder| std::fs::read_dir(folder).ok()).flatten().flatten() {
        if let Some(name) = entry.file_name().to_str().filter(|_| entry.path().join("image.yaml").is_file()) {
            names.insert(name.to_owned());
        }
    }
    names.into_iter().collect()
}

fn plain(text: &str, more: &str) -> bool {
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || more.contains(c);
    !text.is_empty() && text.len() <= 100 && text.chars().all(allowed) && !text.starts_with(['.', '-'])
}

fn check(name: &str, definition: &Definition) -> Result<(), ImageError> {
    let wrong = |value: &str, expected| {
        Err(ImageError::DefinitionValue { name: name.to_owned(), value: value.escape_debug().to_string(), expected })
    };
    if definition.version != 1 {
        return wrong(&definition.version.to_string(), "known version");
    }
    if let Some(debian) = &definition.debian {
        if !plain(&debian.suite, "-") {
            return wrong(&debian.suite, "suite");
        }
        if let Some(package) = debian.packages.iter().find(|package| !plain(package, "+-.")) {
            return wrong(package, "package name");
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
        ] {
            let folder = project("x", text);
            assert!(matches!(load("x", Some(folder.path())), Err(ImageError::DefinitionValue { .. })), "{text}");
        }
    }

    #[test]
    fn refuses_bases_that_go_round() {
        let folder = project("x", "version: 1\nbase: x\n");
        assert!(matches!(chain("x", Some(folder.path())), Err(ImageError::BaseCycle(_))));
    }
}
