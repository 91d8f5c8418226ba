//! What packages and `make install` put where: the package is the same bytes each time, installs, works and goes without
//! a rest; and a newer launcher goes on with the sandboxes of an older one.

#![allow(clippy::unwrap_used, reason = "a test says by a panic what is wrong")]

mod support;

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use support::{Home, Project, status, text};

const BINARY: &str = env!("CARGO_BIN_EXE_sandbox");

fn script(name: &str, arguments: &[&Path]) -> Output {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let output = Command::new(root.join("scripts").join(name))
        .args(arguments)
        .arg(BINARY)
        .env("SANDBOX_DEB_LEVEL", "0")
        .output()
        .unwrap();
    assert!(output.status.success(), "scripts/{name}: {}", text(&output.stderr));
    output
}

/// Every file below a folder, relative to it.
fn files(folder: &Path) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut open = vec![folder.to_path_buf()];
    while let Some(next) = open.pop() {
        for entry in fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else {
                found.insert(path.strip_prefix(folder).unwrap().to_str().unwrap().to_owned());
            }
        }
    }
    found
}

fn package(folder: &Path) -> PathBuf {
    text(&script("deb", &[folder]).stdout).trim().into()
}

#[test]
fn a_package_is_the_same_bytes_each_time_and_installs_and_goes_without_a_rest() {
    let folder = tempfile::tempdir().unwrap();
    let first = package(&folder.path().join("first"));
    // Times are in seconds: those of the second build differ, and must not show.
    std::thread::sleep(std::time::Duration::from_millis(1100));
    let second = package(&folder.path().join("second"));
    assert!(fs::read(&first).unwrap() == fs::read(&second).unwrap(), "two builds differ");

    let root = folder.path().join("root");
    for part in ["var/lib/dpkg/info", "var/lib/dpkg/updates"] {
        fs::create_dir_all(root.join(part)).unwrap();
    }
    fs::write(root.join("var/lib/dpkg/status"), "").unwrap();
    fs::write(root.join("var/lib/dpkg/available"), "").unwrap();
    let dpkg = |arguments: &[&str]| {
        let own = format!("--root={}", root.display());
        // The empty root has no git to depend on, and a user who is not root may try it too.
        let output = Command::new("dpkg")
            .args([own.as_str(), "--force-not-root", "--force-depends", "--force-script-chrootless"])
            .args(arguments)
            .env("PATH", format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap()))
            .output()
            .unwrap();
        assert!(output.status.success(), "dpkg {arguments:?}: {}", text(&output.stderr));
        text(&output.stdout)
    };
    let before = files(&root.join("var/lib/dpkg/info"));
    dpkg(&["--install", first.to_str().unwrap()]);
    let installed = files(&root.join("usr"));
    for expected in [
        "bin/sandbox",
        "share/man/man1/sandbox.1.gz",
        "share/man/man1/sandbox-credential-set.1.gz",
        "share/bash-completion/completions/sandbox",
        "share/zsh/vendor-completions/_sandbox",
        "share/fish/vendor_completions.d/sandbox.fish",
        "share/doc/sandbox/copyright",
        "share/doc/sandbox/changelog.gz",
    ] {
        assert!(installed.contains(expected), "{expected} is not among {installed:?}");
    }
    let program = root.join("usr/bin/sandbox");
    assert_eq!(fs::metadata(&program).unwrap().permissions().mode() & 0o7777, 0o755);
    let version = Command::new(&program).arg("--version").output().unwrap();
    assert_eq!(text(&version.stdout), format!("sandbox {}\n", env!("CARGO_PKG_VERSION")));
    assert!(dpkg(&["--verify", "sandbox"]).is_empty());
    dpkg(&["--purge", "sandbox"]);
    let rest: Vec<_> = files(&root).into_iter().filter(|file| !file.starts_with("var/")).collect();
    assert!(rest.is_empty(), "{rest:?}");
    let info: Vec<_> = files(&root.join("var/lib/dpkg/info")).difference(&before).cloned().collect();
    assert!(info.iter().all(|file| file == "format"), "{info:?}");
}

#[test]
fn a_prefix_has_the_program_its_pages_and_its_completions() {
    let folder = tempfile::tempdir().unwrap();
    let prefix = folder.path().join("prefix");
    script("install", &[&prefix]);
    let installed = files(&prefix);
    assert!(installed.contains("bin/sandbox") && installed.contains("share/zsh/site-functions/_sandbox"));
    assert!(installed.iter().filter(|file| file.ends_with(".1.gz")).count() > 30, "{installed:?}");
    let script = fs::read_to_string(prefix.join("share/bash-completion/completions/sandbox")).unwrap();
    assert!(script.contains("SANDBOX_COMPLETE"), "{script}");
    let relative = Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/install"))
        .args(["usr", BINARY])
        .output()
        .unwrap();
    assert_eq!(relative.status.code(), Some(2));
}

#[test]
fn another_version_lists_joins_and_ends_the_sandboxes_of_this_one() {
    let home = Home::new();
    let project = Project::new(&home, "upgrade", "image: agent\ncommand: [bash, -l]\n");
    let up = home.sandbox().args(["up", project.name(), "--detach", "--", "sleep", "300"]).output().unwrap();
    assert!(up.status.success(), "{}", text(&up.stderr));
    // What lies behind the end of a program is no part of what it does, and makes it another launcher: its images and
    // volumes go by its digest.
    let other = home.path().join("sandbox");
    let mut bytes = fs::read(BINARY).unwrap();
    bytes.extend_from_slice(b"another version");
    fs::write(&other, bytes).unwrap();
    fs::set_permissions(&other, fs::Permissions::from_mode(0o755)).unwrap();
    let run = |arguments: &[&str]| home.command_of(&other).args(arguments).output().unwrap();

    let listed: serde_json::Value = serde_json::from_slice(&run(&["ps", "--format", "json"]).stdout).unwrap();
    let own = listed.as_array().unwrap().iter().find(|row| row["project"] == project.name()).unwrap();
    assert_eq!(own["condition"], "running", "{own}");
    let commit = "echo more > more && git add more && git commit -qm more && printenv SANDBOX_SESSION";
    let joined = run(&["exec", project.name(), "--", "sh", "-c", commit]);
    let session = status(&home, project.name())["session"].as_str().unwrap().to_owned();
    assert_eq!(text(&joined.stdout).trim(), session, "{}", text(&joined.stderr));
    // `up` could not keep its promise that what runs is what it would start.
    let refused = run(&["up", project.name(), "--", "true"]);
    assert!(text(&refused.stderr).contains("error[plan-changed]"), "{}", text(&refused.stderr));
    assert!(text(&run(&["diff", project.name()]).stdout).contains("more"));
    let pulled = run(&["pull", project.name()]);
    assert!(pulled.status.success(), "{}", text(&pulled.stderr));
    let down = run(&["down", project.name()]);
    assert!(down.status.success(), "{}", text(&down.stderr));
    assert_eq!(support::objects(project.name()), Vec::<String>::new());
}
