//! Measures `sandbox` against what does a part of the same: `docker run`, `docker exec`, a direct connection, squid,
//! tinyproxy, mitmproxy, mmdebstrap, git. Both sides run in turn, in one run on one machine, so the ratios mean something where the times do not.
//!
//! `cargo bench --bench sandbox` measures everything, `cargo bench --bench sandbox -- exec memory` these groups alone.
//! `SANDBOX_BENCH_RUNS` says how often each thing is measured; the medians are printed. A ratio over its aim is told and
//! is no failure: that is for whoever reads it to judge. A missing program is: exit code 2.
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::print_stderr, reason = "a program for a terminal")]

mod credentials;
mod gateway;
#[allow(dead_code, reason = "the tests use more of it")]
#[path = "../../tests/gateway/harness.rs"]
mod harness;
mod images;
mod measure;
mod network;
mod sessions;
#[path = "../../tests/support/mod.rs"]
mod support;
mod terminal;
mod workspace;

use std::process::{Command, ExitCode, Stdio};

use measure::Table;

/// How often each thing is measured.
const RUNS: usize = 7;

/// A group of measurements, what it needs of the machine as command and Debian package, and the code.
struct Group {
    name: &'static str,
    needs: &'static [(&'static str, &'static str)],
    run: fn(&Table),
}

const DOCKER: (&str, &str) = ("docker", "docker.io");

const GROUPS: &[Group] = &[
    Group { name: "up", needs: &[DOCKER], run: sessions::up },
    Group { name: "exec", needs: &[DOCKER], run: sessions::exec },
    Group { name: "keys", needs: &[DOCKER], run: terminal::keys },
    Group { name: "help", needs: &[DOCKER], run: terminal::at_once },
    Group { name: "memory", needs: &[DOCKER], run: sessions::memory },
    Group { name: "workspace", needs: &[DOCKER], run: workspace::run },
    Group { name: "many-files", needs: &[DOCKER], run: workspace::many_files },
    Group { name: "network", needs: &[DOCKER, ("squid", "squid")], run: network::run },
    Group {
        name: "gateway",
        needs: &[("squid", "squid"), ("tinyproxy", "tinyproxy-bin"), ("mitmdump", "mitmproxy")],
        run: gateway::run,
    },
    Group { name: "credentials", needs: &[DOCKER], run: credentials::run },
    Group { name: "parallel", needs: &[DOCKER], run: sessions::parallel },
    Group {
        name: "image",
        needs: &[("mmdebstrap", "mmdebstrap"), ("dpkg-deb", "dpkg"), ("ar", "binutils"), ("xz", "xz-utils")],
        run: images::run,
    },
];

fn main() -> ExitCode {
    // Cargo adds `--bench`, and other options are for harnesses.
    let asked: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    if let Some(unknown) = asked.iter().find(|name| GROUPS.iter().all(|group| group.name != **name)) {
        let names: Vec<&str> = GROUPS.iter().map(|group| group.name).collect();
        eprintln!("bench: there is no group `{unknown}`, but {}", names.join(", "));
        return ExitCode::from(2);
    }
    let chosen = || GROUPS.iter().filter(|group| asked.is_empty() || asked.iter().any(|name| name == group.name));
    let mut missing: Vec<&str> = chosen()
        .flat_map(|group| group.needs)
        .filter(|(command, _)| !installed(command))
        .map(|(_, package)| *package)
        .collect();
    missing.sort_unstable();
    missing.dedup();
    if !missing.is_empty() {
        let packages = missing.join(" ");
        eprintln!("bench: missing: {packages}; run `sudo apt-get install --no-install-recommends {packages}`");
        return ExitCode::from(2);
    }
    let runs = std::env::var("SANDBOX_BENCH_RUNS").ok().and_then(|text| text.parse().ok()).unwrap_or(RUNS).max(1);
    let table = Table::begin(runs);
    for group in chosen() {
        (group.run)(&table);
    }
    table.end();
    ExitCode::SUCCESS
}

/// Whether a command can be started. `/usr/sbin` is where Debian puts daemons, and is in few users' PATH.
fn installed(command: &str) -> bool {
    let path = std::env::var("PATH").unwrap_or_default();
    path.split(':').chain(["/usr/sbin"]).any(|folder| std::path::Path::new(folder).join(command).is_file())
}

/// Runs a command to its end and gives its standard output; panics with what it said when it fails.
fn succeed(command: &mut Command) -> Vec<u8> {
    let output = command.stdin(Stdio::null()).output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}
