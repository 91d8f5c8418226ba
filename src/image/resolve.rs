//! Chooses packages: what is asked for and, in turn, what that depends on (Debian Policy, chapter 7).
//!
//! Greedy: of alternatives the first that can be had is taken, of versions the newest. What is only recommended is left out.

use std::collections::{BTreeMap, HashMap};

use debversion::Version;

use super::control::{Paragraph, paragraphs};
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
    provides: Vec<Relation>,
    /// 0 for `required`, and so on (Debian Policy, section 2.5).
    rank: u8,
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
        let paragraph = super::control::paragraph(control).ok_or_else(|| wrong("paragraph"))?;
        if paragraph.line("Package") != Some(&locked.name) {
            return Err(wrong("Package"));
        }
        let text = |name: &str| paragraph.get(name).unwrap_or_default();
        Ok(Self {
            name: locked.name.clone(),
            version: locked.version.parse().map_err(|_| wrong("Version"))?,
            architecture: locked.architecture.clone(),
            suite: locked.suite.clone(),
            path: locked.path.clone(),
            size: locked.size,
            sha256: locked.sha256.clone(),
            depends: format!("{}, {}", text("Pre-Depends"), text("Depends")),
            conflicts: format!("{}, {}", text("Conflicts"), text("Breaks")),
            provides: text("Provides").split(',').filter_map(relation).collect(),
            rank: 3,
        })
    }
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

    /// The newest version of a package.
    pub fn newest(&self, name: &str) -> Option<&Candidate> {
        self.packages.get(name)
    }

    /// A package of a base, which stays as it is: its own name and version, and what the newest version says it provides.
    ///
    /// # Errors
    /// When its version is none.
    pub fn stand_in(&self, locked: &Package) -> Result<Candidate, ImageError> {
        let plain = Candidate::of_locked(locked, &format!("Package: {}\n", locked.name))?;
        let provides = self.newest(&locked.name).map(|newest| newest.provides.clone()).unwrap_or_default();
        Ok(Candidate { provides, ..plain })
    }

    /// The packages of a lock with the newest version of one of them. Others change only where that one needs it, and those
    /// that nothing needs any more go; `base` stays as it is.
    ///
    /// # Errors
    /// When the newest version does not go together with what is there.
    pub fn update(
        &self,
        locked: &[Candidate],
        base: &[Candidate],
        wanted: &[String],
        package: &str,
    ) -> Result<Vec<Candidate>, ImageError> {
        let mut chosen: BTreeMap<String, Candidate> =
            locked.iter().map(|candidate| (candidate.name.clone(), candidate.clone())).collect();
        let newer = |have: &Candidate| self.packages.get(&have.name).filter(|newest| newest.version > have.version);
        if let Some(newest) = chosen.get(package).and_then(newer) {
            chosen.insert(package.to_owned(), newest.clone());
        }
        // Each round takes in a newer version or one more package, so there is an end.
        while let Some(change) = self.next_change(&chosen, base)? {
            chosen.insert(change.name.clone(), change);
        }
        let mut needed: BTreeMap<String, Candidate> = BTreeMap::new();
        let mut open: Vec<&Candidate> = wanted.iter().filter_map(|name| chosen.get(name)).collect();
        while let Some(candidate) = open.pop() {
            if needed.insert(candidate.name.clone(), candidate.clone()).is_some() {
                continue;
            }
            let relations = candidate.depends.split([',', '|']).filter_map(relation);
            for relation in relations {
                open.extend(chosen.values().filter(|other| satisfies(other, &relation)));
            }
        }
        Ok(needed.into_values().collect())
    }

    /// What has to change first for all relations to hold; nothing if they do.
    fn next_change(
        &self,
        chosen: &BTreeMap<String, Candidate>,
        base: &[Candidate],
    ) -> Result<Option<Candidate>, ImageError> {
        let newer = |have: &Candidate| self.packages.get(&have.name).filter(|newest| newest.version > have.version);
        let all = || base.iter().chain(chosen.values());
        for candidate in chosen.values() {
            for clause in candidate.depends.split(',').map(str::trim).filter(|clause| !clause.is_empty()) {
                let alternatives: Vec<Relation> = clause.split('|').filter_map(relation).collect();
                if all().any(|other| alternatives.iter().any(|relation| satisfies(other, relation))) {
                    continue;
                }
                // A newer version of what is there goes before another package, and that before a change of who asks.
                let there = alternatives
                    .iter()
                    .find_map(|relation| chosen.values().filter_map(newer).find(|newest| satisfies(newest, relation)));
                let another = || alternatives.iter().find_map(|relation| self.find(relation));
                let another = || another().filter(|other| !all().any(|have| have.name == other.name));
                let change = there.or_else(another).or_else(|| newer(candidate));
                let missing =
                    || ImageError::Unsatisfiable { dependency: clause.to_owned(), dependent: candidate.name.clone() };
                return change.cloned().map(Some).ok_or_else(missing);
            }
        }
        for candidate in all() {
            for relation in candidate.conflicts.split(',').filter_map(relation) {
                let mut others = all().filter(|other| other.name != candidate.name);
                let Some(other) = others.find(|other| satisfies(other, &relation)) else { continue };
                let own = |one: &Candidate| chosen.get(&one.name).and_then(newer).cloned();
                let conflict = || ImageError::Conflict(candidate.name.clone(), other.name.clone());
                return own(other).or_else(|| own(candidate)).map(Some).ok_or_else(conflict);
            }
        }
        Ok(None)
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

    fn candidate(name: &str, version: &str, more: &str) -> Candidate {
        let locked = Package {
            name: name.into(),
            version: version.into(),
            architecture: "all".into(),
            suite: "s".into(),
            sha256: Digest::of(name.as_bytes()),
            size: 1,
            path: "pool/old".into(),
            date: None,
        };
        Candidate::of_locked(&locked, &format!("Package: {name}\nVersion: {version}\n{more}\n")).unwrap()
    }

    fn updated(index: &Index, locked: &[Candidate], wanted: &[&str], package: &str) -> Result<Vec<String>, ImageError> {
        let wanted: Vec<String> = wanted.iter().map(|name| name.to_string()).collect();
        let found = index.update(locked, &[], &wanted, package)?;
        Ok(found.into_iter().map(|candidate| format!("{} {}", candidate.name, candidate.version)).collect())
    }

    #[test]
    fn an_update_of_one_package_takes_along_what_it_needs_and_nothing_else() {
        let index = index(&[
            ("a", "2", "Depends: b (>= 2), e"),
            ("b", "2", ""),
            ("c", "2", ""),
            ("d", "2", "Depends: b (= 2)"),
            ("e", "1", ""),
        ]);
        let locked = [
            candidate("a", "1", "Depends: b, old"),
            candidate("b", "1", ""),
            candidate("c", "1", ""),
            candidate("d", "1", "Depends: b (= 1)"),
            candidate("old", "1", ""),
        ];
        let wanted = ["a", "c", "d"];
        // `b` because `a` wants it, `d` because it is of the same source as `b`; `old` is needed no more, `c` stays.
        assert_eq!(updated(&index, &locked, &wanted, "a").unwrap(), ["a 2", "b 2", "c 1", "d 2", "e 1"]);
        assert_eq!(updated(&index, &locked, &wanted, "c").unwrap(), ["a 1", "b 1", "c 2", "d 1", "old 1"]);
        assert_eq!(updated(&index, &locked, &wanted, "e").unwrap(), ["a 1", "b 1", "c 1", "d 1", "old 1"]);
    }

    #[test]
    fn an_update_ends_with_conflicts_by_what_is_newer_or_says_so() {
        let index = index(&[("a", "2", "Breaks: b (<< 2)"), ("b", "2", ""), ("c", "2", "Breaks: z")]);
        let locked =
            [candidate("a", "1", ""), candidate("b", "1", ""), candidate("c", "1", ""), candidate("z", "1", "")];
        let wanted = ["a", "b", "c", "z"];
        assert_eq!(updated(&index, &locked, &wanted, "a").unwrap(), ["a 2", "b 2", "c 1", "z 1"]);
        assert!(matches!(updated(&index, &locked, &wanted, "c"), Err(ImageError::Conflict(..))));
        let index = super::tests::index(&[("a", "2", "Depends: nowhere")]);
        assert!(matches!(updated(&index, &locked, &wanted, "a"), Err(ImageError::Unsatisfiable { .. })));
    }

    #[test]
    fn the_newest_version_of_a_name_wins_in_any_order() {
        let index = index(&[("a", "1.10", ""), ("a", "1.9", ""), ("a", "1.10~rc1", "")]);
        assert_eq!(index.packages["a"].version.to_string(), "1.10");
    }
}
