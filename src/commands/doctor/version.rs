//! Versions of engine, runc and git with holes that matter to a sandbox, and how to tell whether one is mended.
//!
//! By number alone: distributions mend older versions without changing it, which every remedy says.

/// A hole and the versions that mended it.
pub(super) struct Hole {
    /// The program.
    pub(super) program: Program,
    /// What it is, to follow "older than …, which mended".
    pub(super) what: &'static str,
    /// The first mended version of each line of releases, oldest line first.
    mended: &'static [&'static [u32]],
    /// Whether a sandbox is safe from it anyway, and why.
    pub(super) harmless: Option<&'static str>,
}

/// A program whose version is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Program {
    Engine,
    Runc,
    Git,
}

const HOLES: &[Hole] = &[
    Hole {
        program: Program::Engine,
        what: "name look-ups that leave an internal network (CVE-2024-29018)",
        mended: &[&[23, 0, 11], &[25, 0, 5], &[26, 0, 0]],
        harmless: Some("an agent has no network and no resolver of the engine's"),
    },
    Hole {
        program: Program::Engine,
        what: "holes in the archive calls behind `docker cp`",
        mended: &[&[29, 5, 1]],
        harmless: Some("no sandbox uses those calls; do not use `docker cp` on an agent's container yourself"),
    },
    Hole {
        program: Program::Runc,
        what: "a leaked descriptor of the host (CVE-2024-21626)",
        mended: &[&[1, 1, 12]],
        harmless: None,
    },
    Hole {
        program: Program::Runc,
        what: "escapes through masked paths and the console (CVE-2025-31133, CVE-2025-52565, CVE-2025-52881)",
        mended: &[&[1, 2, 8], &[1, 3, 3]],
        harmless: None,
    },
    Hole {
        program: Program::Git,
        what: "code that runs on cloning a hostile repository (CVE-2025-48384)",
        mended: &[
            &[2, 43, 7],
            &[2, 44, 4],
            &[2, 45, 4],
            &[2, 46, 4],
            &[2, 47, 3],
            &[2, 48, 2],
            &[2, 49, 1],
            &[2, 50, 1],
        ],
        harmless: None,
    },
];

impl Hole {
    /// The holes of this version of a program, by its number.
    pub(super) fn of(program: Program, version: &str) -> impl Iterator<Item = &'static Self> {
        let version = numbers(version);
        HOLES.iter().filter(move |hole| hole.program == program && !hole.is_mended(&version))
    }

    /// Mended where its own line of releases is, or where the line is newer than all that needed it.
    fn is_mended(&self, version: &[u32]) -> bool {
        let line = version.get(..2).unwrap_or(version);
        match self.mended.iter().find(|first| first.starts_with(line)) {
            Some(first) => version >= *first,
            None => self.mended.last().is_some_and(|newest| version > *newest),
        }
    }

    /// The mended versions, for a message.
    pub(super) fn mended(&self) -> String {
        let versions =
            self.mended.iter().map(|version| version.iter().map(u32::to_string).collect::<Vec<_>>().join("."));
        versions.collect::<Vec<_>>().join(", ")
    }
}

/// The leading numbers of a version: `1.1.5+ds1` is 1, 1, 5.
pub(super) fn numbers(version: &str) -> Vec<u32> {
    let plain = version.split(|character: char| !(character.is_ascii_digit() || character == '.')).next().unwrap_or("");
    plain.split('.').map_while(|part| part.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holes(program: Program, version: &str) -> usize {
        Hole::of(program, version).count()
    }

    #[test]
    fn compares_versions_by_their_numbers() {
        assert_eq!(numbers("20.10.24+dfsg1"), [20, 10, 24]);
        assert_eq!(numbers("2.47.3.windows.1"), [2, 47, 3]);
        assert!(numbers("").is_empty() && numbers("master").is_empty());
        assert!(numbers("1.2.10") > numbers("1.2.8"));
    }

    #[test]
    fn a_version_is_mended_within_its_own_line_of_releases() {
        for (version, expected) in [
            ("2.39.5", 1),
            ("2.43.6", 1),
            ("2.43.7", 0),
            ("2.47.2", 1),
            ("2.47.3", 0),
            ("2.50.0", 1),
            ("2.51.0", 0),
            ("3.0.0", 0),
        ] {
            assert_eq!(holes(Program::Git, version), expected, "{version}");
        }
    }

    #[test]
    fn a_newer_line_of_runc_can_lack_what_an_older_one_has() {
        for (version, expected) in
            [("1.1.5+ds1", 2), ("1.1.12", 1), ("1.2.7", 1), ("1.2.8", 0), ("1.3.0", 1), ("1.3.3", 0), ("1.4.0", 0)]
        {
            assert_eq!(holes(Program::Runc, version), expected, "{version}");
        }
    }

    #[test]
    fn an_engine_between_two_mended_lines_is_not_mended() {
        for (version, expected) in
            [("20.10.24", 2), ("23.0.11", 1), ("24.0.9", 2), ("25.0.5", 1), ("28.0.0", 1), ("29.5.1", 0)]
        {
            assert_eq!(holes(Program::Engine, version), expected, "{version}");
        }
    }

    #[test]
    fn a_version_that_is_not_one_counts_as_not_mended() {
        assert_eq!(holes(Program::Runc, "unknown"), 2);
    }
}
