//! What `sandbox plan` shows, and what the user's configuration makes of it. No engine is needed.

#![allow(clippy::unwrap_used, reason = "a test says by a panic what is wrong")]

mod support;

use std::fs;

use support::{Home, text};

const WHOLE: &str = "\
version: 1
project: payments
image: agent
profile: default
command: [bash, -lc, 'make && make test']
workspace: { depth: 50, include_uncommitted: true }
network:
  allow:
    - github.com
    - { host: '*.crates.io', port: 443 }
    - { host: db.example.com, port: 5432, allow_private: 10.20.0.0/16 }
environment: { LOG_LEVEL: debug }
credentials:
  api-key: { provider: store, max_age: 30d }
  deploy: { provider: exec, command: [pass, show, deploy], deliver: { git: github.com } }
  legacy: { provider: env-file, path: legacy.env, variable: TOKEN, deliver: { environment: LEGACY_TOKEN } }
resources: { cpus: 1.5, memory: 3GiB, pids: 300, session: 8h }
";

fn run(home: &Home, manifest: &str, verb: &str, arguments: &[&str]) -> String {
    let folder = home.path().join("project");
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("sandbox.yaml"), manifest).unwrap();
    let output = home.sandbox().env("USER", "ada").arg(verb).arg(&folder).args(arguments).output().unwrap();
    text(&output.stdout) + &text(&output.stderr)
}

/// Takes out what differs between machines and between versions of an image.
fn stable(said: &str, home: &Home) -> String {
    let said = said.replace(home.path().to_str().unwrap(), "HOME");
    let mut stable = String::new();
    for (index, piece) in said.split("sha256:").enumerate() {
        let digits = piece.bytes().take_while(u8::is_ascii_hexdigit).count();
        stable.push_str(if index == 0 { piece } else { "sha256:…" });
        if index > 0 {
            stable.push_str(&piece[digits..]);
        }
    }
    stable
}

#[test]
fn shows_everything_that_a_sandbox_will_be_and_have() {
    let home = Home::without_engine();
    insta::assert_snapshot!("whole", stable(&run(&home, WHOLE, "plan", &[]), &home));
}

#[test]
fn shows_the_same_as_json() {
    let home = Home::without_engine();
    let said = run(&home, WHOLE, "plan", &["--format", "json"]);
    let mut plan: serde_json::Value = serde_json::from_str(&said).unwrap_or_else(|_| panic!("{said}"));
    // The filter names the machine's architecture; it is looked at in its own tests.
    let filter = plan["containers"]["agent"]["seccomp"].take();
    assert!(filter.as_str().is_some_and(|filter| filter.contains("SCMP_ACT_ERRNO")), "{filter}");
    insta::assert_snapshot!("whole_json", stable(&serde_json::to_string_pretty(&plan).unwrap(), &home));
}

#[test]
fn the_configuration_limits_what_a_profile_gives_whoever_chose_the_profile() {
    let home = Home::without_engine();
    let configuration = home.path().join("config/sandbox/config.yaml");
    fs::create_dir_all(configuration.parent().unwrap()).unwrap();
    fs::write(configuration, "maximum: { memory: 3GiB, disk: 30GiB }\n").unwrap();
    let limits = |arguments: &[&str]| {
        let said = run(&home, "version: 1\nproject: small\nimage: agent\n", "up", arguments);
        said.lines().find(|line| line.contains("cores")).unwrap_or(&said).to_owned()
    };
    let debug = limits(&["--dry-run", "--profile", "debug"]);
    assert!(debug.contains("3GiB of memory, 2048 processes, 30GiB of disk"), "{debug}");
    // The limit is a limit, not a wish: a smaller profile stays small.
    assert!(limits(&["--dry-run", "--profile", "strict"]).contains("2GiB of memory, 256 processes, 10GiB of disk"));
}
