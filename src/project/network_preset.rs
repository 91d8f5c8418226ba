//! Presets of `network.allow`: hosts with their narrow rules, as data in `profiles/network/NAME.yaml`.
//!
//! A file of the project's own comes before the one that is compiled in, and is part of what `sandbox trust` approves. A
//! preset gives entries and nothing else: what comes of it stands in the plan, line by line.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read as _};
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::image::reference::Digest;
use crate::network::name::{HostName, HostPattern};
use crate::network::policy::AllowRule;
use crate::network::request::RequestRule;
use crate::project::problem::Problem;
use crate::project::yaml;

/// Where a project keeps presets of its own, below the folder of `sandbox.yaml`.
pub const FOLDER: &str = "profiles/network";

/// Those that are compiled in, by name.
const BUILT_IN: &[(&str, &str)] = &[
    ("anthropic", include_str!("../../profiles/network/anthropic.yaml")),
    ("crates", include_str!("../../profiles/network/crates.yaml")),
    ("debian", include_str!("../../profiles/network/debian.yaml")),
    ("github", include_str!("../../profiles/network/github.yaml")),
    ("gitlab", include_str!("../../profiles/network/gitlab.yaml")),
    ("go", include_str!("../../profiles/network/go.yaml")),
    ("google", include_str!("../../profiles/network/google.yaml")),
    ("npm", include_str!("../../profiles/network/npm.yaml")),
    ("openai", include_str!("../../profiles/network/openai.yaml")),
    ("pypi", include_str!("../../profiles/network/pypi.yaml")),
];

/// Values that one parameter may have.
pub const VALUE_LIMIT: usize = 32;
/// Bytes of one value.
const LENGTH_LIMIT: usize = 253;
/// Entries, and rules of an entry, that a preset may have.
const ENTRY_LIMIT: usize = 64;
/// Parameters that a preset may have.
const PARAMETER_LIMIT: usize = 16;
/// Presets that a project may have.
const PRESET_LIMIT: usize = 256;

/// Why there is no such preset.
#[derive(Debug, thiserror::Error)]
pub enum PresetError {
    /// Nobody has one of this name.
    #[error("find the preset `{}`", .0.escape_debug())]
    Unknown(String),
    /// The project's file cannot be read.
    #[error("read the preset {path}")]
    Read {
        /// The file, below the project's folder.
        path: String,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The file is no preset.
    #[error("read the preset {path}: line {}: {}", .problem.line, .problem.message)]
    Syntax {
        /// The file, below the project's folder.
        path: String,
        /// The fault.
        problem: Box<Problem>,
    },
    /// A line of the file is no entry.
    #[error("use the preset {path}")]
    Entry {
        /// The file, below the project's folder.
        path: String,
        /// The fault.
        #[source]
        fault: EntryError,
    },
}

/// What is wrong with an entry of a preset.
#[derive(Debug, thiserror::Error)]
pub enum EntryError {
    /// More than a preset may have.
    #[error("it has too many parameters, examples, entries or rules, or a parameter without an example")]
    TooMany,
    /// A parameter's name is no lower-case word.
    #[error("`{}` is not a name for a parameter", .0.escape_debug())]
    Parameter(String),
    /// A `{name}` of no parameter, or two of them in one text, or one that does not belong there.
    #[error("`{}` does not name one parameter of the right kind", .0.escape_debug())]
    Placeholder(String),
    /// It would be no host, or no rule.
    #[error("`{}` is not a host or a rule", .0.escape_debug())]
    Text(String),
}

/// What a parameter's values are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Host names.
    Host,
    /// Parts of a path such as `acme/payments-api`.
    Path,
}

/// A parameter that a manifest fills in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Parameter {
    /// What its values are.
    pub kind: Kind,
    /// Whether it may be left out; then what needs it is not there.
    #[serde(default)]
    pub optional: bool,
    /// Values, such as those that most projects need.
    pub examples: Vec<String>,
    /// What it is for.
    pub description: String,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    host: String,
    #[serde(default = "https")]
    port: u16,
    #[serde(default)]
    rules: Vec<String>,
}

fn https() -> u16 {
    443
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Shape {
    description: String,
    #[serde(default)]
    parameters: BTreeMap<String, Parameter>,
    allow: Vec<Entry>,
}

/// A preset.
#[derive(Debug, Clone)]
pub struct NetworkPreset {
    /// Its name.
    pub name: String,
    /// What it allows, in a few words.
    pub description: String,
    /// What a manifest has to say.
    pub parameters: BTreeMap<String, Parameter>,
    /// The file of the project's own, below its folder, with the digest of what was read; none for one that is compiled in.
    pub file: Option<(String, Digest)>,
    /// The file's text.
    pub text: String,
    entries: Vec<Entry>,
}

/// Why a text is not a value for a parameter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("it is not {}", match .0 { Kind::Host => "a host name", Kind::Path => "a path such as `acme/payments-api`" })]
pub struct ValueError(Kind);

impl Parameter {
    /// Checks a value.
    ///
    /// # Errors
    /// When it is not of the parameter's kind.
    pub fn check(&self, value: &str) -> Result<(), ValueError> {
        let proper = match self.kind {
            Kind::Host => value.parse::<HostName>().is_ok(),
            // Nothing of a rule's own signs, no segment that a server would take off, and never a whole account.
            Kind::Path => {
                value.len() <= LENGTH_LIMIT
                    && value.contains('/')
                    && !value.ends_with(".git")
                    && value.split('/').all(|segment| {
                        !segment.is_empty()
                            && !matches!(segment, "." | "..")
                            && segment.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte))
                    })
            }
        };
        if proper { Ok(()) } else { Err(ValueError(self.kind)) }
    }

    /// The examples as a list in YAML.
    pub fn list(&self) -> String {
        format!("[{}]", self.examples.join(", "))
    }
}

/// The names that a manifest in this folder can use, sorted.
pub fn names(root: &Path) -> Vec<String> {
    let mut names: BTreeSet<String> = BUILT_IN.iter().map(|(name, _)| (*name).to_owned()).collect();
    if let Ok(files) = root.join(FOLDER).read_dir() {
        let own = files.flatten().take(PRESET_LIMIT).filter_map(|file| {
            let name = file.file_name().into_string().ok()?;
            name.strip_suffix(".yaml").filter(|name| is_name(name)).map(str::to_owned)
        });
        names.extend(own);
    }
    names.into_iter().collect()
}

fn is_name(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= 40
        && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
}

/// The preset of this name: the project's own, or else the one that is compiled in.
///
/// # Errors
/// When there is none, or its file is wrong.
pub fn find(name: &str, root: &Path) -> Result<NetworkPreset, PresetError> {
    let unknown = || PresetError::Unknown(name.chars().take(60).collect());
    if !is_name(name) {
        return Err(unknown());
    }
    let path = format!("{FOLDER}/{name}.yaml");
    match own(root, &path)? {
        Some(text) => {
            let digest = Digest::of(text.as_bytes());
            read(name, &text, Some((path, digest)))
        }
        None => match BUILT_IN.iter().find(|(known, _)| *known == name) {
            Some((_, text)) => read(name, text, None),
            None => Err(unknown()),
        },
    }
}

/// The text of the project's own file, if it has one. Links are not followed: an approval is for a file's bytes.
fn own(root: &Path, path: &str) -> Result<Option<String>, PresetError> {
    let failed = |source| PresetError::Read { path: path.to_owned(), source };
    let place = root.join(path);
    match place.symlink_metadata() {
        Err(error) if error.kind() == io::ErrorKind::NotFound || error.kind() == io::ErrorKind::NotADirectory => {
            return Ok(None);
        }
        Err(error) => return Err(failed(error)),
        Ok(metadata) if !metadata.is_file() => {
            return Err(failed(io::Error::new(io::ErrorKind::InvalidInput, "it is no regular file")));
        }
        Ok(_) => {}
    }
    let mut text = String::new();
    let file = std::fs::File::open(&place).map_err(failed)?;
    file.take(yaml::SIZE_LIMIT as u64 + 1).read_to_string(&mut text).map_err(failed)?;
    Ok(Some(text))
}

fn read(name: &str, text: &str, file: Option<(String, Digest)>) -> Result<NetworkPreset, PresetError> {
    let path = file.as_ref().map_or_else(|| format!("{FOLDER}/{name}.yaml"), |(path, _)| path.clone());
    let shape: Shape = match yaml::typed(text) {
        Ok(shape) => shape,
        Err(problem) => return Err(PresetError::Syntax { path, problem: Box::new(problem) }),
    };
    let preset = NetworkPreset {
        name: name.to_owned(),
        description: shape.description,
        parameters: shape.parameters,
        file,
        text: text.to_owned(),
        entries: shape.allow,
    };
    match preset.check() {
        Ok(()) => Ok(preset),
        Err(fault) => Err(PresetError::Entry { path, fault }),
    }
}

/// What a text with a placeholder becomes.
enum Filled {
    /// It has none.
    Whole,
    /// One text for each value.
    Each(Vec<String>),
}

impl NetworkPreset {
    fn check(&self) -> Result<(), EntryError> {
        let rules = self.entries.iter().map(|entry| entry.rules.len()).max().unwrap_or_default();
        if self.entries.len() > ENTRY_LIMIT || rules > ENTRY_LIMIT || self.parameters.len() > PARAMETER_LIMIT {
            return Err(EntryError::TooMany);
        }
        let word = |name: &str| {
            !name.is_empty() && name.len() <= 40 && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_')
        };
        if let Some(odd) = self.parameters.keys().find(|name| !word(name)) {
            return Err(EntryError::Parameter(odd.clone()));
        }
        for parameter in self.parameters.values() {
            if parameter.examples.is_empty() || parameter.examples.len() > VALUE_LIMIT {
                return Err(EntryError::TooMany);
            }
            if let Some(odd) = parameter.examples.iter().find(|example| parameter.check(example).is_err()) {
                return Err(EntryError::Text(odd.clone()));
            }
        }
        // Each has a value in this, so that every line is tried.
        let examples = self.parameters.iter().map(|(name, parameter)| (name.clone(), parameter.examples.clone()));
        self.entries(&examples.collect()).map(drop)
    }

    /// The entries for these values, which were checked. A line whose parameter has no value is left out, and an entry
    /// that had rules and has none left with it: it never becomes one that allows the whole host.
    ///
    /// # Errors
    /// When a line becomes no host or no rule.
    pub fn entries(&self, values: &BTreeMap<String, Vec<String>>) -> Result<Vec<AllowRule>, EntryError> {
        let mut entries = Vec::new();
        for entry in &self.entries {
            let mut rules = Vec::new();
            for text in &entry.rules {
                let filled = match self.fill(text, Kind::Path, values)? {
                    Filled::Whole => vec![text.clone()],
                    Filled::Each(texts) => texts,
                };
                for text in filled {
                    rules.push(text.parse::<RequestRule>().map_err(|_| EntryError::Text(text))?);
                }
            }
            if rules.is_empty() && !entry.rules.is_empty() {
                continue;
            }
            let hosts = match self.fill(&entry.host, Kind::Host, values)? {
                Filled::Whole => vec![entry.host.clone()],
                Filled::Each(hosts) => hosts,
            };
            for text in hosts {
                let host = text.parse::<HostPattern>().ok().filter(|host| !matches!(host, HostPattern::Address(_)));
                let host = host.ok_or(EntryError::Text(text))?;
                entries.push(AllowRule { rules: rules.clone(), ..AllowRule::new(host, entry.port) });
            }
        }
        Ok(entries)
    }

    fn fill(&self, text: &str, kind: Kind, values: &BTreeMap<String, Vec<String>>) -> Result<Filled, EntryError> {
        let wrong = || EntryError::Placeholder(text.to_owned());
        let Some((before, rest)) = text.split_once('{') else {
            return if text.contains('}') { Err(wrong()) } else { Ok(Filled::Whole) };
        };
        let (inner, after) = rest.split_once('}').ok_or_else(wrong)?;
        let (name, form) = inner.split_once(':').map_or((inner, None), |(name, form)| (name, Some(form)));
        let parameter = self.parameters.get(name).filter(|parameter| parameter.kind == kind).ok_or_else(wrong)?;
        if after.contains(['{', '}']) || !matches!((form, parameter.kind), (None, _) | (Some("encoded"), Kind::Path)) {
            return Err(wrong());
        }
        let shown = |value: &String| if form.is_some() { value.replace('/', "%2F") } else { value.clone() };
        let values = values.get(name).into_iter().flatten();
        Ok(Filled::Each(values.map(|value| format!("{before}{}{after}", shown(value))).collect()))
    }

    /// How a manifest uses it, as a line of `network.allow`.
    pub fn usage(&self) -> String {
        let with: Vec<String> =
            self.parameters.iter().map(|(name, parameter)| format!("{name}: {}", parameter.list())).collect();
        if with.is_empty() {
            return format!("- {{ preset: {} }}", self.name);
        }
        format!("- {{ preset: {}, with: {{ {} }} }}", self.name, with.join(", "))
    }
}

#[cfg(test)]
mod tests;
