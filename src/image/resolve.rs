//! Chooses packages: what is asked for and, in turn, what that depends on (Debian Policy, chapter 7).
//!
//! Greedy: of alternatives the first that can be had is taken, of versions the preferred one (apt_preferences(5)). What
//! does not go together with that is mended by newer versions, never by older ones, so there is an end. What is only
//! recommended is left out.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

use super::candidate::{Candidate, Relation};
use super::control::paragraphs;
use super::definition::{Pin, Request};
use super::error::ImageError;
use super::lock::Package;

/// How a source stands to others (apt_preferences(5)).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Priority {
    /// Its release file says `NotAutomatic`, as those of backports do: taken for what no other source has, and for what
    /// is asked from it.
    OnRequest,
    /// Of the sources of this kind, the newest version is taken.
    Normal,
}

/// All packages that can be had, by name, and who provides what.
#[derive(Debug, Default)]
pub struct Index {
    /// Of each name the preferred version first.
    packages: HashMap<String, Vec<(Priority, Candidate)>>,
    providers: HashMap<String, Vec<String>>,
}

impl Index {
    /// Adds the packages of one source, such as the suite `bookworm-security`.
    ///
    /// # Errors
    /// When a paragraph lacks something, or is none.
    pub fn add(&mut self, source: &str, priority: Priority, text: &str) -> Result<(), ImageError> {
        for paragraph in paragraphs(text) {
            let paragraph =
                paragraph.map_err(|_| ImageError::Index { suite: source.to_owned(), field: "paragraph" })?;
            let candidate = Candidate::parse(source, &paragraph)?;
            for provided in &candidate.provides {
                let providers = self.providers.entry(provided.name.clone()).or_default();
                if !providers.contains(&candidate.name) {
                    providers.push(candidate.name.clone());
                }
            }
            let known = self.packages.entry(candidate.name.clone()).or_default();
            let before =
                |(other, have): &(Priority, Candidate)| (*other, &have.version) >= (priority, &candidate.version);
            known.insert(known.partition_point(before), (priority, candidate));
        }
        // As apt: what every system has goes before what somebody may want, so `mawk` before `gawk` for `awk`.
        let packages = &self.packages;
        let preferred = |name: &String| packages.get(name).and_then(|known| known.first());
        let rank = |name: &String| (preferred(name).map_or(u8::MAX, |(_, candidate)| candidate.rank), name.clone());
        self.providers.values_mut().for_each(|providers| providers.sort_by_cached_key(rank));
        Ok(())
    }

    /// The version of a package that is taken when nothing else is said.
    pub fn preferred(&self, name: &str) -> Option<&Candidate> {
        self.packages.get(name)?.first().map(|(_, candidate)| candidate)
    }

    /// All versions of a package, the preferred one first.
    fn versions(&self, name: &str) -> impl Iterator<Item = &Candidate> {
        self.packages.get(name).into_iter().flatten().map(|(_, candidate)| candidate)
    }

    /// That there is no package of this name, and which may be meant.
    fn unknown(&self, name: &str) -> ImageError {
        const SHOWN: usize = 10;
        let providers = self.providers.get(name).into_iter().flatten().take(SHOWN).cloned().collect();
        let distances = self.packages.keys().map(|known| (strsim::damerau_levenshtein(known, name), known));
        let similar = distances.filter(|(distance, _)| *distance <= (name.len() / 3).max(1)).min();
        let similar = similar.map(|(_, known)| known.clone());
        ImageError::UnknownPackage { package: name.to_owned(), providers, similar }
    }

    /// Whether a name is that of one package, which nothing else provides.
    fn is_one(&self, name: &str) -> bool {
        self.packages.contains_key(name) && !self.providers.contains_key(name)
    }

    /// The very package that a lock has, if it still can be had.
    pub fn same(&self, locked: &Package) -> Option<&Candidate> {
        self.versions(&locked.name).find(|candidate| candidate.sha256 == locked.sha256)
    }

    /// The wanted packages and all they need, sorted by name: without those of the base, unless in another version.
    ///
    /// # Errors
    /// When something cannot be had, or what is chosen does not go together.
    pub fn resolve(&self, wanted: &[Request], base: &[Candidate]) -> Result<Vec<Candidate>, ImageError> {
        let mut choice = Choice::new(self, wanted, base, &[])?;
        // Names that are asked for come first, so that they decide alternatives.
        let mut open = Vec::new();
        for request in wanted {
            let pinned = choice.pins.get(request.name.as_str()).copied();
            let there = choice.chosen.get(request.name.as_str());
            if there.is_some_and(|have| pinned.is_none_or(|pinned| pinned.version == have.version)) {
                continue;
            }
            let candidate = pinned.or_else(|| self.preferred(&request.name));
            let candidate = candidate.ok_or_else(|| self.unknown(&request.name))?;
            choice.chosen.insert(&candidate.name, candidate);
            open.push(candidate);
        }
        choice.follow(open)?;
        choice.settle()?;
        Ok(choice.result(wanted, base))
    }

    /// Whether these packages have all that they need in each other and exclude none of each other. Of two of one name the
    /// later one counts.
    pub fn are_complete(packages: &[Candidate]) -> bool {
        let index = Self::default();
        let choice = Choice::new(&index, &[], packages, &[]);
        choice.is_ok_and(|choice| matches!(choice.next_change(), Ok(None)))
    }

    /// The packages of a lock with the preferred version of one of them. Others change only where that one needs it, and
    /// those that nothing needs any more go.
    ///
    /// # Errors
    /// When that version does not go together with what is there.
    pub fn update(
        &self,
        locked: &[Candidate],
        base: &[Candidate],
        wanted: &[Request],
        package: &str,
    ) -> Result<Vec<Candidate>, ImageError> {
        let mut choice = Choice::new(self, wanted, base, locked)?;
        let have = choice.chosen.get(package).copied();
        if let Some(newer) = have.and_then(|have| choice.newer(have, &have.suite)) {
            choice.chosen.insert(&newer.name, newer);
        }
        choice.settle()?;
        Ok(choice.result(wanted, base))
    }
}

/// What is chosen so far.
struct Choice<'a> {
    index: &'a Index,
    /// Versions that the definition names.
    pins: BTreeMap<&'a str, &'a Candidate>,
    /// Those of the base too.
    chosen: BTreeMap<&'a str, &'a Candidate>,
}

impl<'a> Choice<'a> {
    fn new(
        index: &'a Index,
        wanted: &'a [Request],
        base: &'a [Candidate],
        locked: &'a [Candidate],
    ) -> Result<Self, ImageError> {
        let chosen: BTreeMap<&str, &Candidate> =
            base.iter().chain(locked).map(|candidate| (candidate.name.as_str(), candidate)).collect();
        let mut pins = BTreeMap::new();
        for request in wanted {
            let Some(pin) = &request.pin else { continue };
            let there = chosen.get(request.name.as_str()).copied().filter(|have| fits(pin, have));
            let found = there.or_else(|| index.versions(&request.name).find(|candidate| fits(pin, candidate)));
            let found = found.ok_or_else(|| ImageError::Pin {
                request: request.to_string(),
                versions: index.versions(&request.name).map(described).collect(),
            })?;
            pins.insert(request.name.as_str(), found);
        }
        Ok(Self { index, pins, chosen })
    }

    /// The versions of a name that may be taken: the one that is pinned, or the preferred one and, for somebody of this
    /// source, those of the same source. So what backports have for each other is found, as with `apt-get install NAME/SUITE`.
    fn offered(&self, name: &str, source: &str) -> Vec<&'a Candidate> {
        if let Some(pinned) = self.pins.get(name) {
            return vec![pinned];
        }
        let versions = self.index.versions(name).enumerate();
        versions.filter(|(place, candidate)| *place == 0 || candidate.suite == source).map(|(_, one)| one).collect()
    }

    /// A newer version of what is there.
    fn newer(&self, have: &Candidate, source: &str) -> Option<&'a Candidate> {
        self.offered(&have.name, source).into_iter().find(|candidate| candidate.version > have.version)
    }

    fn holds(&self, alternatives: &[Relation]) -> bool {
        // By its own name, mostly.
        let named =
            |relation: &Relation| self.chosen.get(relation.name.as_str()).is_some_and(|have| have.satisfies(relation));
        alternatives.iter().any(named)
            || self.chosen.values().any(|have| alternatives.iter().any(|relation| have.satisfies(relation)))
    }

    /// What would satisfy one of these alternatives: a newer version of what is there goes before another package.
    fn found(&self, alternatives: &[Relation], source: &str) -> Option<&'a Candidate> {
        let raised = alternatives.iter().find_map(|relation| {
            let have = self.chosen.get(relation.name.as_str())?;
            let mut offered = self.offered(&relation.name, source).into_iter();
            offered.find(|candidate| candidate.version > have.version && candidate.satisfies(relation))
        });
        raised.or_else(|| alternatives.iter().find_map(|relation| self.another(relation, source)))
    }

    /// A package that is not there yet.
    fn another(&self, relation: &Relation, source: &str) -> Option<&'a Candidate> {
        let of = |name: &str| {
            let offered = if self.chosen.contains_key(name) { Vec::new() } else { self.offered(name, source) };
            offered.into_iter().find(|candidate| candidate.satisfies(relation))
        };
        let providers = self.index.providers.get(&relation.name).into_iter().flatten();
        of(&relation.name).or_else(|| providers.filter_map(|name| of(name)).next())
    }

    /// Takes in what these packages need, and what that needs. Where there is a choice it is made last, as what is needed
    /// without one may well meet it.
    fn follow(&mut self, mut open: Vec<&'a Candidate>) -> Result<(), ImageError> {
        let mut choices = VecDeque::new();
        loop {
            if let Some(candidate) = open.pop() {
                for (clause, alternatives) in candidate.needs() {
                    if self.holds(&alternatives) {
                        continue;
                    }
                    match &alternatives[..] {
                        [relation] if self.index.is_one(&relation.name) => {
                            open.push(self.take(candidate, clause, &alternatives)?);
                        }
                        _ => choices.push_back((candidate, clause, alternatives)),
                    }
                }
            } else if let Some((candidate, clause, alternatives)) = choices.pop_front() {
                if !self.holds(&alternatives) {
                    open.push(self.take(candidate, clause, &alternatives)?);
                }
            } else {
                return Ok(());
            }
        }
    }

    /// Takes in what meets one of the alternatives that a package needs.
    fn take(
        &mut self,
        candidate: &Candidate,
        clause: &str,
        alternatives: &[Relation],
    ) -> Result<&'a Candidate, ImageError> {
        let found = self.found(alternatives, &candidate.suite);
        let found = found.ok_or_else(|| unsatisfiable(clause, candidate))?;
        self.chosen.insert(&found.name, found);
        Ok(found)
    }

    /// Mends what does not go together. Each round takes in a newer version or one more package.
    fn settle(&mut self) -> Result<(), ImageError> {
        while let Some(change) = self.next_change()? {
            self.chosen.insert(&change.name, change);
            self.follow(vec![change])?;
        }
        Ok(())
    }

    /// What has to change first for all relations to hold; nothing if they do.
    fn next_change(&self) -> Result<Option<&'a Candidate>, ImageError> {
        for candidate in self.chosen.values() {
            for (clause, alternatives) in candidate.needs() {
                if !self.holds(&alternatives) {
                    let change = self.found(&alternatives, &candidate.suite);
                    // A newer version of who asks may ask for something else.
                    let change = change.or_else(|| self.newer(candidate, &candidate.suite));
                    return change.map(Some).ok_or_else(|| unsatisfiable(clause, candidate));
                }
            }
        }
        for candidate in self.chosen.values() {
            for relation in candidate.excludes() {
                let mut others = self.chosen.values().filter(|other| other.name != candidate.name);
                let Some(other) = others.find(|other| other.satisfies(&relation)) else { continue };
                let change = self.newer(other, &candidate.suite).or_else(|| self.newer(candidate, &candidate.suite));
                let conflict = || ImageError::Conflict(candidate.name.clone(), other.name.clone());
                return change.map(Some).ok_or_else(conflict);
            }
        }
        Ok(None)
    }

    /// What the base does not have as it is: what the wanted packages need, and newer versions of the base's own.
    fn result(&self, wanted: &[Request], base: &[Candidate]) -> Vec<Candidate> {
        let below: BTreeMap<&str, &Candidate> =
            base.iter().map(|candidate| (candidate.name.as_str(), candidate)).collect();
        let mut needed = BTreeSet::new();
        let mut open: Vec<&Candidate> =
            wanted.iter().filter_map(|request| self.chosen.get(request.name.as_str()).copied()).collect();
        open.extend(base.iter().filter_map(|candidate| self.chosen.get(candidate.name.as_str()).copied()));
        while let Some(candidate) = open.pop() {
            if !needed.insert(candidate.name.as_str()) {
                continue;
            }
            for relation in candidate.needs().flat_map(|(_, alternatives)| alternatives) {
                open.extend(self.chosen.values().filter(|other| other.satisfies(&relation)));
            }
        }
        let own = self.chosen.values().filter(|chosen| match below.get(chosen.name.as_str()) {
            Some(below) => below.version != chosen.version,
            None => needed.contains(chosen.name.as_str()),
        });
        own.map(|candidate| (*candidate).clone()).collect()
    }
}

/// Whether a version is the one that is asked for.
fn fits(pin: &Pin, candidate: &Candidate) -> bool {
    let version = candidate.version.to_string();
    match pin {
        Pin::Version(wanted) => match wanted.strip_suffix('*') {
            Some(start) => version.starts_with(start),
            None => version == *wanted,
        },
        // A source of others than Debian is named as in sources.list(5), by its address and its suite.
        Pin::Suite(suite) => candidate.suite.rsplit(' ').next() == Some(suite),
    }
}

fn described(candidate: &Candidate) -> String {
    format!("{} ({})", candidate.version, candidate.suite)
}

fn unsatisfiable(clause: &str, candidate: &Candidate) -> ImageError {
    let dependent = format!("{} {}", candidate.name, candidate.version);
    ImageError::Unsatisfiable { dependency: clause.to_owned(), dependent }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::reference::Digest;

    fn index(packages: &[(&str, &str, &str)]) -> Index {
        let mut index = Index::default();
        for (name, version, more) in packages {
            let digest = "0".repeat(64);
            let stanza = format!(
                "Package: {name}\nVersion: {version}\nArchitecture: all\nFilename: pool/x\nSize: 1\nSHA256: {digest}\n{more}\n"
            );
            index.add("s", Priority::Normal, &stanza).unwrap();
        }
        index
    }

    fn requests(wanted: &[&str]) -> Vec<Request> {
        wanted.iter().map(|text| Request::parse(text).unwrap()).collect()
    }

    fn names(index: &Index, wanted: &[&str]) -> Result<Vec<String>, ImageError> {
        Ok(index.resolve(&requests(wanted), &[])?.into_iter().map(|candidate| candidate.name).collect())
    }

    #[test]
    fn takes_the_first_alternative_unless_another_is_there() {
        let index = index(&[("a", "1", "Depends: b | c"), ("b", "1", ""), ("c", "1", "")]);
        assert_eq!(names(&index, &["a"]).unwrap(), ["a", "b"]);
        assert_eq!(names(&index, &["a", "c"]).unwrap(), ["a", "c"]);
    }

    #[test]
    fn a_choice_is_made_after_all_that_is_needed_without_one() {
        let index = index(&[
            ("tool", "1", "Depends: schema"),
            ("schema", "1", "Depends: json, server | client"),
            ("server", "1", "Provides: json"),
            ("client", "1", "Provides: json"),
            ("program", "1", "Depends: library"),
            ("library", "1", "Depends: client"),
        ]);
        for wanted in [["tool", "program"], ["program", "tool"]] {
            assert_eq!(names(&index, &wanted).unwrap(), ["client", "library", "program", "schema", "tool"]);
        }
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
    fn packages_are_complete_when_they_need_nothing_else() {
        let of = |packages: &[(&str, &str, &str)]| -> Vec<Candidate> {
            packages.iter().map(|(name, version, more)| candidate(name, version, more)).collect()
        };
        assert!(Index::are_complete(&of(&[("a", "1", "Depends: b | c"), ("c", "1", "")])));
        assert!(Index::are_complete(&of(&[("b", "1", ""), ("a", "1", "Depends: b (>= 2)"), ("b", "2", "")])));
        assert!(!Index::are_complete(&of(&[("a", "1", "Depends: b | c"), ("d", "1", "")])));
        assert!(!Index::are_complete(&of(&[("a", "1", "Conflicts: b"), ("b", "1", "")])));
    }

    #[test]
    fn tells_what_a_name_may_have_meant() {
        let index = index(&[("ffmpeg", "1", ""), ("mawk", "1", "Provides: awk"), ("gawk", "1", "Provides: awk")]);
        let told = |name: &str| names(&index, &[name]).unwrap_err().to_string();
        assert_eq!(told("fmpeg"), "no source has a package `fmpeg`; there is `ffmpeg`");
        assert_eq!(told("awk"), "no source has a package `awk`; what it stands for is in gawk, mawk");
        assert_eq!(told("quite-another"), "no source has a package `quite-another`");
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
        let found = index.update(locked, &[], &requests(wanted), package)?;
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
        assert_eq!(index.preferred("a").unwrap().version.to_string(), "1.10");
    }

    /// An index of two sources: `s`, and `late`, from which only what is asked for is taken.
    fn with_backports(normal: &[(&str, &str, &str)], late: &[(&str, &str, &str)]) -> Index {
        let mut index = index(normal);
        for (name, version, more) in late {
            let digest = Digest::of(version.as_bytes());
            let digest = digest.hex();
            let stanza = format!(
                "Package: {name}\nVersion: {version}\nArchitecture: all\nFilename: pool/x\nSize: 1\nSHA256: {digest}\n{more}\n"
            );
            index.add("late", Priority::OnRequest, &stanza).unwrap();
        }
        index
    }

    fn versions(index: &Index, wanted: &[&str], base: &[Candidate]) -> Result<Vec<String>, ImageError> {
        let found = index.resolve(&requests(wanted), base)?;
        Ok(found.into_iter().map(|candidate| format!("{} {}", candidate.name, candidate.version)).collect())
    }

    #[test]
    fn backports_are_taken_only_for_what_is_asked_of_them_and_what_that_needs() {
        let normal = [("a", "1", "Depends: b"), ("b", "1", ""), ("c", "1", "")];
        let late = [("a", "2", "Depends: b (>= 2), c"), ("b", "2", ""), ("c", "2", ""), ("d", "2", "")];
        let index = with_backports(&normal, &late);
        assert_eq!(versions(&index, &["a"], &[]).unwrap(), ["a 1", "b 1"]);
        // `c` of the release is good enough, `b` is not; `d` is nowhere else.
        assert_eq!(versions(&index, &["a/late"], &[]).unwrap(), ["a 2", "b 2", "c 1"]);
        assert_eq!(versions(&index, &["a/late", "b=2*", "d"], &[]).unwrap(), ["a 2", "b 2", "c 1", "d 2"]);
    }

    #[test]
    fn a_version_that_is_asked_for_is_taken_or_refused_and_never_replaced() {
        let index = index(&[("a", "1.9", ""), ("a", "1.10", ""), ("b", "1", "Depends: a (>= 1.10)")]);
        assert_eq!(versions(&index, &["a=1.9"], &[]).unwrap(), ["a 1.9"]);
        assert_eq!(versions(&index, &["a=1.*"], &[]).unwrap(), ["a 1.10"]);
        assert!(matches!(versions(&index, &["a=1.9", "b"], &[]), Err(ImageError::Unsatisfiable { .. })));
        let refused = versions(&index, &["a=2"], &[]).unwrap_err();
        assert_eq!(refused.to_string(), "no source has `a=2`; there are 1.10 (s), 1.9 (s)");
        // An update leaves it as it is, also when no source has it any more.
        let locked = [candidate("a", "1.8", "")];
        assert_eq!(updated(&index, &locked, &["a=1.8"], "a").unwrap(), ["a 1.8"]);
    }

    #[test]
    fn a_package_of_the_base_counts_in_its_locked_version_and_is_raised_where_that_is_too_old() {
        let index = index(&[
            ("dev", "2", "Depends: lib (= 2)"),
            ("lib", "2", ""),
            ("tool", "2", "Depends: lib (= 2)"),
            ("other", "1", "Depends: lib"),
        ]);
        let base = [candidate("lib", "1", ""), candidate("tool", "1", "Depends: lib (= 1)")];
        assert_eq!(versions(&index, &["other"], &base).unwrap(), ["other 1"]);
        // `tool` is of the same source as `lib`, so it has to follow.
        assert_eq!(versions(&index, &["dev"], &base).unwrap(), ["dev 2", "lib 2", "tool 2"]);
        assert_eq!(versions(&index, &["lib"], &base).unwrap(), Vec::<String>::new());
        let base = [candidate("lib", "3", "")];
        assert!(matches!(versions(&index, &["dev"], &base), Err(ImageError::Unsatisfiable { .. })));
    }

    #[test]
    fn what_breaks_an_older_version_raises_it() {
        let index = index(&[("new", "1", "Breaks: old (<< 2)"), ("old", "2", "")]);
        assert_eq!(versions(&index, &["new"], &[candidate("old", "1", "")]).unwrap(), ["new 1", "old 2"]);
        let index = super::tests::index(&[("new", "1", "Breaks: old")]);
        assert!(matches!(versions(&index, &["new"], &[candidate("old", "1", "")]), Err(ImageError::Conflict(..))));
    }
}
