//! The rules on dependencies that need no database: where crates come from, their licences, and which must not be among
//! them. `deny.toml` says the same to cargo-deny, which also knows advisories.
#![allow(clippy::unwrap_used)]

use std::process::Command;

use serde_json::Value;

/// Licences that need no more than their text kept.
const LICENCES: &[&str] = &[
    "MIT",
    "MIT-0",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-1-Clause",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "CC0-1.0",
    "CDLA-Permissive-2.0",
    "ISC",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
];

/// Crates that must not be in the graph, and why.
const BANNED: &[(&str, &str)] = &[
    ("openssl-sys", "a static binary brings rustls, not the system's TLS"),
    ("native-tls", "a static binary brings rustls, not the system's TLS"),
    ("serde_yml", "it has an advisory, and takes duplicate keys silently"),
    ("serde_yaml", "it is archived, and takes duplicate keys silently; the name here is serde-saphyr renamed"),
    ("aws-lc-sys", "one TLS provider is enough, and ring needs no cmake"),
];

/// Where the launcher runs. Crates for other systems are in the lock file and in no binary.
const PLATFORMS: [&str; 2] = ["x86_64-unknown-linux-gnu", "aarch64-unknown-linux-gnu"];

/// The crates of the graph, as cargo resolved it from the lock file.
fn packages() -> Vec<Value> {
    let mut command = Command::new(env!("CARGO"));
    command.args(["metadata", "--format-version", "1", "--locked"]).current_dir(env!("CARGO_MANIFEST_DIR"));
    for platform in PLATFORMS {
        command.args(["--filter-platform", platform]);
    }
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    let packages = metadata["packages"].as_array().unwrap().clone();
    assert!(packages.len() > 100, "only {} crates", packages.len());
    packages
}

/// Whether an SPDX expression (SPDX 2.3, annex D) can be met with these licences alone. `/` is an old way to write OR.
fn permits(expression: &str, allowed: &[&str]) -> bool {
    let text = expression.replace('/', " OR ").replace('(', " ( ").replace(')', " ) ");
    let mut words = text.split_whitespace().peekable();
    let result = any(&mut words, allowed);
    assert_eq!(words.next(), None, "`{expression}` is not understood");
    result
}

type Words<'a> = std::iter::Peekable<std::str::SplitWhitespace<'a>>;

fn any(words: &mut Words<'_>, allowed: &[&str]) -> bool {
    let mut result = all(words, allowed);
    while words.next_if_eq(&"OR").is_some() {
        result |= all(words, allowed);
    }
    result
}

fn all(words: &mut Words<'_>, allowed: &[&str]) -> bool {
    let mut result = one(words, allowed);
    while words.next_if_eq(&"AND").is_some() {
        result &= one(words, allowed);
    }
    result
}

fn one(words: &mut Words<'_>, allowed: &[&str]) -> bool {
    if words.next_if_eq(&"(").is_some() {
        let result = any(words, allowed);
        assert_eq!(words.next(), Some(")"));
        return result;
    }
    let mut licence = words.next().unwrap().to_owned();
    if words.next_if_eq(&"WITH").is_some() {
        licence = format!("{licence} WITH {}", words.next().unwrap());
    }
    allowed.contains(&licence.as_str())
}

#[test]
fn reads_licence_expressions() {
    assert!(permits("MIT OR GPL-3.0-only", LICENCES));
    assert!(permits("MIT/Apache-2.0", LICENCES));
    assert!(permits("(MIT OR GPL-2.0-only) AND Unicode-3.0", LICENCES));
    assert!(permits("Apache-2.0 WITH LLVM-exception OR GPL-2.0-only", LICENCES));
    assert!(!permits("GPL-3.0-only", LICENCES));
    assert!(!permits("MIT AND GPL-3.0-only", LICENCES));
    assert!(!permits("(MIT OR Apache-2.0) AND AGPL-3.0-only", LICENCES));
    assert!(!permits("GPL-2.0-only WITH Classpath-exception-2.0", LICENCES));
}

#[test]
fn every_crate_has_a_licence_that_we_can_meet() {
    for package in packages() {
        let licence = package["license"].as_str();
        assert!(licence.is_some_and(|licence| permits(licence, LICENCES)), "{}: {licence:?}", package["name"]);
    }
}

#[test]
fn every_crate_comes_from_the_registry() {
    for package in packages() {
        let own = package["name"] == env!("CARGO_PKG_NAME");
        match package["source"].as_str() {
            None => assert!(own, "{} is a folder of this machine", package["name"]),
            Some(source) => assert_eq!(
                source, "registry+https://github.com/rust-lang/crates.io-index",
                "{} comes from elsewhere",
                package["name"]
            ),
        }
    }
}

#[test]
fn no_banned_crate_is_among_them() {
    for package in packages() {
        let found = BANNED.iter().find(|(name, _)| package["name"] == *name);
        assert!(found.is_none(), "{found:?}");
    }
}

#[test]
fn tar_is_new_enough() {
    // 0.4.45 mended advisories on links and sparse entries.
    for package in packages().iter().filter(|package| package["name"] == "tar") {
        let version = package["version"].as_str().unwrap();
        let numbers: Vec<u32> = version.split('.').map(|part| part.parse().unwrap()).collect();
        assert!(numbers >= vec![0, 4, 46], "tar {version}");
    }
}
