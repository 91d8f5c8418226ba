//! The sets of packages that our resolver chooses are those that apt chooses, for the same indexes and an empty root.
//!
//! Runs apt-get in folders of its own; nothing of this machine's packages is read or changed.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Command, Output};

use sandbox::image::definition::Request;
use sandbox::image::resolve::{Index, Priority};
use sandbox::image::sources::Mirrors;

/// What each release of Debian consists of, with its backports, from which only what is asked for is taken.
const SUITES: [&str; 4] = ["", "-security", "-updates", "-backports"];

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

/// What people ask for of backports, or in a certain version.
const PINNED: [&[&str]; 5] = [
    &["git-lfs", "golang-go/RELEASE-backports"],
    &["curl/RELEASE-backports"],
    &["cmake/RELEASE-backports", "make"],
    &["openssl/RELEASE", "ca-certificates"],
    &["jq=1.*"],
];

struct Apt(tempfile::TempDir);

impl Apt {
    fn new(release: &str) -> Self {
        let apt = Self(tempfile::tempdir().unwrap());
        for folder in ["lists/partial", "cache/archives/partial", "parts"] {
            std::fs::create_dir_all(apt.0.path().join(folder)).unwrap();
        }
        std::fs::write(apt.0.path().join("status"), "").unwrap();
        let mirrors = Mirrors::read(Path::new("/etc/apt"));
        let lines = SUITES.map(|more| {
            let suite = format!("{release}{more}");
            let keyring = "/usr/share/keyrings/debian-archive-keyring.gpg";
            format!("deb [signed-by={keyring}] {} {suite} main\n", mirrors.of(&suite)[0])
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

    /// Name and version of all that apt would install, or `None` when it cannot. What a package of backports needs of
    /// backports has to be asked for as well, while the resolver takes it by itself.
    fn choice(&self, packages: &[String], backports: &str) -> Option<BTreeSet<(String, String)>> {
        let mut packages = packages.to_vec();
        let output = loop {
            let words: Vec<&str> = packages.iter().map(String::as_str).collect();
            let output = self.run(&[&["install", "--simulate"], &words[..]].concat());
            if output.status.success() {
                break output;
            }
            // Such as ` curl : Depends: libcurl4 (= 8.14.1-2~bpo12+1) but 7.88.1-10 is to be installed`.
            let said = String::from_utf8(output.stdout).unwrap();
            let more = said.lines().filter(|line| line.ends_with("is to be installed"));
            let more = more.filter_map(|line| line.split_once("Depends: ")?.1.split(' ').next());
            let more: Vec<String> = more.map(|name| format!("{name}/{backports}")).collect();
            let late = packages.iter().any(|package| package.ends_with(backports));
            if !late || more.is_empty() || more.iter().any(|package| packages.contains(package)) {
                return None;
            }
            packages.extend(more);
        };
        let text = String::from_utf8(output.stdout).unwrap();
        let lines = text.lines().filter_map(|line| line.strip_prefix("Inst "));
        let chosen = lines.map(|line| {
            let (name, rest) = line.split_once(" (").unwrap();
            (name.split(' ').next().unwrap().to_owned(), rest.split(' ').next().unwrap().to_owned())
        });
        Some(chosen.collect())
    }

    fn index(&self, release: &str) -> Index {
        let mut index = Index::default();
        for more in SUITES {
            let suite = format!("{release}{more}");
            let priority = if more == "-backports" { Priority::OnRequest } else { Priority::Normal };
            let lists = std::fs::read_dir(self.0.path().join("lists")).unwrap().flatten();
            let path = lists
                .map(|entry| entry.path())
                .find(|path| {
                    let name = path.file_name().unwrap().to_string_lossy().into_owned();
                    name.contains(&format!("_dists_{suite}_main_binary-")) && name.ends_with("_Packages")
                })
                .unwrap();
            index.add(&suite, priority, &std::fs::read_to_string(path).unwrap()).unwrap();
        }
        index
    }
}

#[test]
#[ignore = "fetches Debian's indexes and runs apt-get 70 times; `make test-full` runs it"]
fn sets_of_packages_of_two_releases_come_out_as_with_apt() {
    let (mut wrong, mut packages) = (Vec::new(), 0);
    for release in ["bookworm", "trixie"] {
        let apt = Apt::new(release);
        let index = apt.index(release);
        for set in SETS.iter().chain(&PINNED) {
            let set: Vec<String> = set.iter().map(|name| name.replace("RELEASE", release)).collect();
            let wanted: Vec<Request> = set.iter().map(|name| Request::parse(name).unwrap()).collect();
            let ours = index.resolve(&wanted, &[]).ok();
            let ours: Option<BTreeSet<_>> = ours.map(|chosen| {
                chosen.into_iter().map(|candidate| (candidate.name, candidate.version.to_string())).collect()
            });
            let theirs = apt.choice(&set, &format!("{release}-backports"));
            packages += theirs.as_ref().map_or(0, BTreeSet::len);
            match (&ours, &theirs) {
                (Some(ours), Some(theirs)) if ours != theirs => {
                    let only = |one: &BTreeSet<(String, String)>, other: &BTreeSet<(String, String)>| {
                        one.difference(other)
                            .map(|(name, version)| format!("{name}={version}"))
                            .collect::<Vec<_>>()
                            .join(" ")
                    };
                    let (ours, theirs) = (only(ours, theirs), only(theirs, ours));
                    wrong.push(format!("{release} {set:?}: ours alone [{ours}], apt alone [{theirs}]"));
                }
                (Some(_), Some(_)) | (None, None) => {}
                _ => wrong.push(format!("{release} {set:?}: by us {}, by apt {}", ours.is_some(), theirs.is_some())),
            }
        }
    }
    assert!(packages > 4000, "only {packages} packages were compared");
    assert!(wrong.is_empty(), "{} differ:\n{}", wrong.len(), wrong.join("\n"));
}
