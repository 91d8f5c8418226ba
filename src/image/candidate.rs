//! Packages of Debian that can be chosen, and what they say of others (Debian Policy, chapter 7).

use debversion::Version;

use super::control::{Paragraph, paragraph};
use super::error::ImageError;
use super::lock::Package;
use super::reference::Digest;

/// A stanza of an index of packages.
#[derive(Debug, Clone)]
pub struct Candidate {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: Version,
    /// Its architecture.
    pub architecture: String,
    /// The suite whose index this is.
    pub suite: String,
    /// Path of the .deb on a mirror.
    pub path: String,
    /// Size of the .deb.
    pub size: u64,
    /// Digest of the .deb.
    pub sha256: Digest,
    depends: String,
    conflicts: String,
    pub(super) provides: Vec<Relation>,
    /// 0 for `required`, and so on (Debian Policy, section 2.5).
    pub(super) rank: u8,
}

impl Candidate {
    /// The package as a lock has it.
    pub fn into_locked(self) -> Package {
        Package {
            name: self.name,
            version: self.version.to_string(),
            architecture: self.architecture,
            suite: self.suite,
            sha256: self.sha256,
            size: self.size,
            path: self.path,
            date: None,
        }
    }

    /// A package of a lock, with what its own control file says of others.
    ///
    /// # Errors
    /// When that text is none, or is another package's.
    pub fn of_locked(locked: &Package, control: &str) -> Result<Self, ImageError> {
        let wrong = |field| ImageError::Index { suite: locked.name.clone(), field };
        let paragraph = paragraph(control).ok_or_else(|| wrong("paragraph"))?;
        if paragraph.line("Package") != Some(&locked.name) {
            return Err(wrong("Package"));
        }
        Ok(Self {
            name: locked.name.clone(),
            version: locked.version.parse().map_err(|_| wrong("Version"))?,
            architecture: locked.architecture.clone(),
            suite: locked.suite.clone(),
            path: locked.path.clone(),
            size: locked.size,
            sha256: locked.sha256.clone(),
            ..Self::relations(&paragraph)
        })
    }

    /// A stanza of an index.
    ///
    /// # Errors
    /// When a field that has to be there is not, or is none of its kind.
    pub(super) fn parse(suite: &str, paragraph: &Paragraph<'_>) -> Result<Self, ImageError> {
        let missing = |field| ImageError::Index { suite: suite.to_owned(), field };
        let need = |name: &'static str| paragraph.line(name).ok_or_else(|| missing(name));
        let path = need("Filename")?;
        let path = path.strip_prefix("./").unwrap_or(path);
        // It becomes a part of an address.
        let plain = path.len() <= 1000 && path.bytes().all(|byte| byte.is_ascii_graphic() && !b"?#\\".contains(&byte));
        if !plain || path.split('/').any(|part| matches!(part, "" | "." | "..")) {
            return Err(missing("Filename"));
        }
        Ok(Self {
            name: need("Package")?.to_owned(),
            version: need("Version")?.parse().map_err(|_| missing("Version"))?,
            architecture: need("Architecture")?.to_owned(),
            suite: suite.to_owned(),
            path: path.to_owned(),
            size: need("Size")?.parse().map_err(|_| missing("Size"))?,
            sha256: format!("sha256:{}", need("SHA256")?).parse()?,
            ..Self::relations(paragraph)
        })
    }

    /// What a paragraph says of other packages, and nothing else of it.
    fn relations(paragraph: &Paragraph<'_>) -> Self {
        let text = |name: &str| paragraph.get(name).unwrap_or_default();
        Self {
            depends: format!("{}, {}", text("Pre-Depends"), text("Depends")),
            conflicts: format!("{}, {}", text("Conflicts"), text("Breaks")),
            provides: text("Provides").split(',').filter_map(Relation::parse).collect(),
            rank: match paragraph.line("Priority") {
                Some("required") => 0,
                Some("important") => 1,
                Some("standard") => 2,
                _ => 3,
            },
            name: String::new(),
            version: Version { epoch: None, upstream_version: String::new(), debian_revision: None },
            architecture: String::new(),
            suite: String::new(),
            path: String::new(),
            size: 0,
            sha256: Digest::from_bytes([0; 32]),
        }
    }

    /// What it needs: of each clause, as it is written, one of the alternatives.
    pub(super) fn needs(&self) -> impl Iterator<Item = (&str, Vec<Relation>)> {
        let clauses = self.depends.split(',').map(str::trim).filter(|clause| !clause.is_empty());
        clauses.map(|clause| (clause, clause.split('|').filter_map(Relation::parse).collect()))
    }

    /// What must not be there with it.
    pub(super) fn excludes(&self) -> impl Iterator<Item = Relation> {
        self.conflicts.split(',').filter_map(Relation::parse)
    }

    /// Whether it is what a relation means, by its own name or by one that it provides.
    pub(super) fn satisfies(&self, relation: &Relation) -> bool {
        if self.name == relation.name && relation.holds(Some(&self.version)) {
            return true;
        }
        let mut provided = self.provides.iter().filter(|provided| provided.name == relation.name);
        provided.any(|provided| relation.holds(provided.version.as_ref().map(|(_, version)| version)))
    }
}

/// A name, and which versions of it.
#[derive(Debug, Clone)]
pub(super) struct Relation {
    pub(super) name: String,
    version: Option<(String, Version)>,
}

impl Relation {
    /// `name:qualifier (operator version) [architectures]`.
    fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        let (name, version) = match text.split_once('(') {
            None => (text, None),
            Some((name, rest)) => {
                let inner = rest.split(')').next()?.trim();
                let split = inner.find(|c: char| !"<=>".contains(c))?;
                let version = inner[split..].trim().parse().ok()?;
                (name, Some((inner[..split].to_owned(), version)))
            }
        };
        let name = name.split([':', '[', ' ']).next()?.trim();
        (!name.is_empty()).then(|| Self { name: name.to_owned(), version })
    }

    /// Whether a version is one of those; a name that is provided without a version has none.
    fn holds(&self, have: Option<&Version>) -> bool {
        match (&self.version, have) {
            (None, _) => true,
            (Some(_), None) => false,
            (Some((operator, wanted)), Some(have)) => match operator.as_str() {
                "<<" => have < wanted,
                "<=" => have <= wanted,
                "=" => have == wanted,
                ">=" => have >= wanted,
                ">>" => have > wanted,
                _ => false,
            },
        }
    }
}
