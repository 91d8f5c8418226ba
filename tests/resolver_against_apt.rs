//! The sets of packages that our resolver chooses are those that apt chooses, for the same indexes and an empty root.
//!
//! Runs apt-get in folders of its own; nothing of this machine's packages is read or changed.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Command, Output};

use sandbox::image::resolve::Index;
use sandbox::image::sources::Mirrors;

const SUITES: [&str; 3] = ["bookworm", "bookworm-security", "bookworm-updates"];

/// What people ask for in a definition.
const SETS: [&[&str]; 30] = [
    &["bash"],
    &["git"],
    &["git", "openssh-client", "ca-certificates"],
    &["curl", "jq", "ripgrep"],
    &["python3"],
    &["python3", "python3-pip", "python3-venv"],
    &["python3-numpy"],
    &["nodejs"],
    &["npm"],
    &["gcc", "libc6-dev", "make"],
    &["build-essential"],
    &["clang", "lld", "cmake", "ninja-build"],
    &["golang"],
    &["rustc", "cargo"],
    &["default-jdk-headless", "maven"],
    &["ruby", "bundler"],
    &["php-cli", "composer"],
    &["perl", "cpanminus"],
    &["postgresql-client", "sqlite3", "redis-tools"],
    &["vim", "tmux", "less"],
    &["emacs-nox"],
    &["imagemagick", "ffmpeg"],
    &["pandoc", "graphviz"],
    &["shellcheck", "bats", "gawk"],
    &["protobuf-compiler", "libssl-dev", "pkg-config"],
    &["qemu-utils", "socat", "tcpdump"],
    &["ghc", "cabal-install"],
    &["elixir", "erlang-base"],
    &["gdb", "strace", "valgrind"],
    &["mawk", "usr-is-merged", "dpkg", "login"],
];

struct Apt(tempfile::TempDir);

impl Apt {
    fn new() -> Self {
        let apt = Self(tempfile::tempdir().unwrap());
        for folder in ["lists/partial", "cache/archives/partial", "parts"] {
            std::fs::create_dir_all(apt.0.path().join(folder)).unwrap();
        }
        std::fs::write(apt.0.path().join("status"), "").unwrap();
        let mirrors = Mirrors::read(Path::new("/etc/apt"));
        let lines = SUITES.map(|suite| {
            let keyring = "/usr/share/keyrings/debian-archive-keyring.gpg";
            format!("deb [signed-by={keyring}] {} {suite} main\n", mirrors.of(suite)[0])
        });
        std::fs::write(apt.0.path().join("sources.list"), lines.concat()).unwrap();
        let updated = apt.run(&["update"]);
        assert!(updated.status.success(), "{}", String::from_utf8_lossy(&updated.stderr));
        apt
    }

    fn run(&self, words: &[&str]) -> Output {
        let root = self.0.path().display();
        let options = [
            format!("Dir::State={root}"),
            format!("Dir::State::status={root}/status"),
            format!("Dir::State::extended_states={root}/extended"),
            format!("Dir::Cache={root}/cache"),
            format!("Dir::Etc::sourcelist={root}/sources.list"),
            format!("Dir::Etc::sourceparts={root}/parts"),
            format!("Dir::Etc::preferences={root}/preferences"),
            format!("Dir::Etc::preferencesparts={root}/parts"),
            "Acquire::GzipIndexes=false".to_owned(),
            "Acquire::Languages=none".to_owned(),
            "APT::Sandbox::User=".to_owned(),
            "APT::Install-Recommends=false".to_owned(),
        ];
        let mut command = Command::new("apt-get");
        command.args(options.iter().flat_map(|option| ["-o", option])).args(words).env("LC_ALL", "C");
        command.output().unwrap()
    }

    /// Name and version of all that apt would install, or `None` when it cannot.
    fn choice(&self, packages: &[&str]) -> Option<BTreeSet<(String, String)>> {
        let output = self.run(&[&["install", "--simulate"], packages].concat());
        if !output.status.success() {
            return None;
        }
        let text = String::from_utf8(output.stdout).unwrap();
        let lines = text.lines().filter_map(|line| line.strip_prefix("Inst "));
        let chosen = lines.map(|line| {
            let (name, rest) = line.split_once(" (").unwrap();
            (name.split(' ').next().unwrap().to_owned(), rest.split(' ').next().unwrap().to_owned())
        });
        Some(chosen.collect())
    }

    fn index(&self) -> Index {
        let mut index = Index::default();
        for suite in SUITES {
            let lists = std::fs::read_dir(self.0.path().join("lists")).unwrap().flatten();
            let path = lists
                .map(|entry| entry.path())
                .find(|path| {
                    let name = path.file_name().unwrap().to_string_lossy().into_owned();
                    name.contains(&format!("_dists_{suite}_main_binary-")) && name.ends_with("_Packages")
                })
                .unwrap();
            index.add(suite, &std::fs::read_to_string(path).unwrap()).unwrap();
        }
        index
    }
}

#[test]
#[ignore = "fetches Debian's indexes and runs apt-get 30 times; `make test-full` runs it"]
fn thirty_sets_of_packages_come_out_as_with_apt() {
    let apt = Apt::new();
    let index = apt.index();
    let (mut wrong, mut packages) = (Vec::new(), 0);
    for set in SETS {
        let wanted: Vec<String> = set.iter().map(|name| (*name).to_owned()).collect();
        let ours = index.resolve(&wanted, &[]).ok();
        let ours: Option<BTreeSet<_>> = ours.map(|chosen| {
            chosen.into_iter().map(|candidate| (candidate.name, candidate.version.to_string())).collect()
        });
        let theirs = apt.choice(set);
        packages += theirs.as_ref().map_or(0, BTreeSet::len);
        match (&ours, &theirs) {
            (Some(ours), Some(theirs)) if ours != theirs => {
                let only = |one: &BTreeSet<(String, String)>, other: &BTreeSet<(String, String)>| {
                    one.difference(other).map(|(name, _)| name.clone()).collect::<Vec<_>>().join(" ")
                };
                wrong.push(format!("{set:?}: ours alone [{}], apt alone [{}]", only(ours, theirs), only(theirs, ours)));
            }
            (Some(_), Some(_)) => {}
            _ => wrong.push(format!("{set:?}: resolved by us {}, by apt {}", ours.is_some(), theirs.is_some())),
        }
    }
    assert!(packages > 2000, "only {packages} packages were compared");
    assert!(wrong.is_empty(), "{} of {} differ:\n{}", wrong.len(), SETS.len(), wrong.join("\n"));
}
