//! Chooses packages: what is asked for and, in turn, what that depends on (Debian Policy, chapter 7).
//!
//! Greedy: of alternatives the first that can be had is taken, of versions the newest. What is only recommended is left out.

use std::collections::{BTreeMap, HashMap};

use debversion::Version;

use super::control::{Paragraph, paragraphs};
use super::error::ImageError;
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
    provides: Vec<Relation>,
    /// 0 for `required`, and so on (Debian Policy, section 2.5).
    rank: u8,
}

#[derive(Debug, Clone)]
struct Relation {
    name: String,
    version: Option<(String, Version)>,
}

/// All packages that can be had, by name, and who provides what.
#[derive(Debug, Default)]
pub struct Index {
    packages: HashMap<String, Candidate>,
    providers: HashMap<String, Vec<String>>,
}

impl Index {
    /// Adds the packages of one suite; the newer version of a name wins.
    pub fn add(&mut self, suite: &str, text: &str) -> Result<(), ImageError> {
        for paragraph in paragraphs(text) {
            let paragraph = paragraph.map_err(|_| ImageError::Index { suite: suite.to_owned(), field: "paragraph" })?;
            let candidate = parse(suite, &paragraph)?;
            let older = self.packages.get(&candidate.name).is_none_or(|known| known.version < candidate.version);
            if older {
                for provided in &candidate.provides {
                    let providers = self.providers.entry(provided.name.clone()).or_default();
                    if !providers.contains(&candidate.name) {
                        providers.push(candidate.name.clone());
                    }
                }
                self.packages.insert(candidate.name.clone(), candidate);
            }
        }
        // As apt: what every system has goes before what somebody may want, so `mawk` before `gawk` for `awk`.
        let packages = &self.packages;
        let rank = |name: &String| (packages.get(name).map_or(u8::MAX, |candidate| candidate.rank), name.clone());
        self.providers.values_mut().for_each(|providers| providers.sort_by_cached_key(rank));
        Ok(())
    }

    /// The wanted packages and all they need, without those of the base, sorted by name.
    pub fn resolve(&self, wanted: &[String], base: &[String]) -> Result<Vec<Candidate>, ImageError> {
        let mut chosen: BTreeMap<&str, &Candidate> = BTreeMap::new();
        let base: BTreeMap<&str, &Candidate> =
            base.iter().filter_map(|name| self.packages.get_key_value(name)).map(|(k, v)| (k.as_str(), v)).collect();
        // Names that are asked for come first, so that they decide alternatives.
        let mut open = Vec::new();
        for name in wanted.iter().filter(|name| !base.contains_key(name.as_str())) {
            let candidate = self.packages.get(name).ok_or_else(|| ImageError::Unsatisfiable {
                dependency: name.clone(),
                dependent: "the definition".to_owned(),
            })?;
            if chosen.insert(&candidate.name, candidate).is_none() {
                open.push(candidate);
            }
        }
        while let Some(candidate) = open.pop() {
            for clause in candidate.depends.split(',').map(str::trim).filter(|clause| !clause.is_empty()) {
                let alternatives: Vec<Relation> = clause.split('|').filter_map(relation).collect();
                let have = |relation: &&Relation| {
                    base.values().chain(chosen.values()).any(|candidate| satisfies(candidate, relation))
                };
                if alternatives.iter().any(|relation| have(&relation)) {
                    continue;
                }
                let found = alternatives.iter().find_map(|relation| self.find(relation));
                let found = found.ok_or_else(|| ImageError::Unsatisfiable {
                    dependency: clause.to_owned(),
                    dependent: candidate.name.clone(),
                })?;
                chosen.insert(&found.name, found);
                open.push(found);
            }
        }
        let all = || base.values().chain(chosen.values());
        for candidate in all() {
            for relation in candidate.conflicts.split(',').filter_map(relation) {
                let mut others = all().filter(|other| other.name != candidate.name);
                if let Some(other) = others.find(|other| satisfies(other, &relation)) {
                    return Err(ImageError::Conflict(candidate.name.clone(), other.name.clone()));
                }
            }
        }
        Ok(chosen.into_values().cloned().collect())
    }

    fn find(&self, relation: &Relation) -> Option<&Candidate> {
        let real = self.packages.get(&relation.name).filter(|candidate| satisfies(candidate, relation));
        let providers = self.providers.get(&relation.name).into_iter().flatten();
        real.or_else(|| {
            providers.filter_map(|name| self.packages.get(name)).find(|candidate| satisfies(candidate, relation))
        })
    }
}

fn satisfies(candidate: &Candidate, relation: &Relation) -> bool {
    let holds = |have: Option<&Version>| match (&relation.version, have) {
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
    };
    if candidate.name == relation.name && holds(Some(&candidate.version)) {
        return true;
    }
    let mut provided = candidate.provides.iter().filter(|provided| provided.name == relation.name);
    provided.any(|provided| holds(provided.version.as_ref().map(|(_, version)| version)))
}

/// `name:qualifier (operator version) [architectures]`.
fn relation(text: &str) -> Option<Relation> {
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
    (!name.is_empty()).then(|| Relation { name: name.to_owned(), version })
}

fn parse(suite: &str, paragraph: &Paragraph<'_>) -> Result<Candidate, ImageError> {
    let missing = |field| ImageError::Index { suite: suite.to_owned(), field };
    let need = |name: &'static str| paragraph.line(name).ok_or_else(|| missing(name));
    let text = |name: &str| paragraph.get(name).unwrap_or_default();
    let path = need("Filename")?.to_owned();
    if !path.starts_with("pool/") || path.split('/').any(|part| part == "..") {
        return Err(missing("Filename"));
    }
    Ok(Candidate {
        name: need("Package")?.to_owned(),
        version: need("Version")?.parse().map_err(|_| missing("Version"))?,
        architecture: need("Architecture")?.to_owned(),
        suite: suite.to_owned(),
        path,
        size: need("Size")?.parse().map_err(|_| missing("Size"))?,
        sha256: format!("sha256:{}", need("SHA256")?).parse()?,
        depends: format!("{}, {}", text("Pre-Depends"), text("Depends")),
        conflicts: format!("{}, {}", text("Conflicts"), text("Breaks")),
        provides: text("Provides").split(',').filter_map(relation).collect(),
        rank: match paragraph.line("Priority") {
            Some("required") => 0,
            Some("important") => 1,
            Some("standard") => 2,
            _ => 3,
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn index(packages: &[(&str, &str, &str)]) -> Index {
        let mut index = Index::default();
        for (name, version, more) in packages {
            let digest = "0".repeat(64);
            let stanza = format!(
                "Package: {name}\nVersion: {version}\nArchitecture: all\nFilename: pool/x\nSize: 1\nSHA256: {digest}\n{more}\n"
            );
            index.add("s", &stanza).unwrap();
        }
        index
    }

    fn names(index: &Index, wanted: &[&str]) -> Result<Vec<String>, ImageError> {
        let wanted: Vec<String> = wanted.iter().map(|name| name.to_string()).collect();
        Ok(index.resolve(&wanted, &[])?.into_iter().map(|candidate| candidate.name).collect())
    }

    #[test]
    fn takes_the_first_alternative_unless_another_is_there() {
        let index = index(&[("a", "1", "Depends: b | c"), ("b", "1", ""), ("c", "1", "")]);
        assert_eq!(names(&index, &["a"]).unwrap(), ["a", "b"]);
        assert_eq!(names(&index, &["a", "c"]).unwrap(), ["a", "c"]);
    }

    #[test]
    fn a_virtual_package_meets_a_version_only_if_it_has_one() {
        let index =
            index(&[("a", "1", "Depends: v (>= 2)"), ("p", "1", "Provides: v"), ("q", "1", "Provides: v (= 2)")]);
        assert_eq!(names(&index, &["a"]).unwrap(), ["a", "q"]);
    }

    #[test]
    fn of_those_who_provide_a_package_the_one_that_every_system_has_is_taken() {
        let index = index(&[
            ("a", "1", "Depends: awk"),
            ("gawk", "1", "Provides: awk\nPriority: optional"),
            ("mawk", "1", "Provides: awk\nPriority: required"),
        ]);
        assert_eq!(names(&index, &["a"]).unwrap(), ["a", "mawk"]);
        assert_eq!(names(&index, &["a", "gawk"]).unwrap(), ["a", "gawk"]);
    }

    #[test]
    fn refuses_conflicts_and_versions_that_do_not_exist() {
        let index =
            index(&[("a", "1", "Conflicts: b (<< 1:0~rc1)"), ("b", "9", ""), ("c", "1", "Depends: b (>> 1:0)")]);
        assert!(matches!(names(&index, &["a", "b"]), Err(ImageError::Conflict(..))));
        assert!(matches!(names(&index, &["c"]), Err(ImageError::Unsatisfiable { .. })));
    }

    #[test]
    fn the_newest_version_of_a_name_wins_in_any_order() {
        let index = index(&[("a", "1.10", ""), ("a", "1.9", ""), ("a", "1.10~rc1", "")]);
        assert_eq!(index.packages["a"].version.to_string(), "1.10");
    }
}
