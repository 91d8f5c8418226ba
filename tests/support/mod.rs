//! What the end-to-end tests share: a home of their own for the launcher, projects, and what the engine has of them.
#![allow(dead_code, reason = "each test program uses a part of it")]

pub(crate) mod neighbour;
pub(crate) mod real_history;

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant, SystemTime};

use tempfile::TempDir;

/// Fails, with a line that says what to do, when no engine answers.
pub(crate) fn engine() {
    let answers = Command::new("docker").args(["version", "--format", "{{.Server.Version}}"]).output();
    assert!(answers.is_ok_and(|output| output.status.success()), "no Docker Engine answers: run `make engine`");
}

/// Runs the engine's own client; it sees what the launcher cannot make up.
pub(crate) fn docker(arguments: &[&str]) -> Output {
    Command::new("docker").args(arguments).output().expect("the docker command is installed")
}

/// What a program said.
pub(crate) fn text(output: &[u8]) -> String {
    String::from_utf8_lossy(output).into_owned()
}

/// Waits until something holds, and says what did not.
pub(crate) fn eventually(what: &str, limit: Duration, mut holds: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < limit, "{what} did not happen within {limit:?}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// What `sandbox status` says of a project.
pub(crate) fn status(home: &Home, project: &str) -> serde_json::Value {
    let output = home.sandbox().args(["status", project, "--format", "json"]).output().unwrap();
    serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", text(&output.stderr)))
}

/// A launcher with state and configuration of its own. The cache is shared by all tests: it holds packages by digest.
pub(crate) struct Home {
    folder: TempDir,
    /// When the test began, in seconds since the epoch.
    began: i64,
}

impl Home {
    pub(crate) fn new() -> Self {
        engine();
        Self::without_engine()
    }

    /// For commands that talk to no engine.
    pub(crate) fn without_engine() -> Self {
        let began = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
        Self { folder: tempfile::tempdir().unwrap(), began: i64::try_from(began).unwrap() }
    }

    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    fn variables(&self) -> [(&'static str, PathBuf); 4] {
        let cache = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("sandbox-test-cache");
        [
            ("XDG_CONFIG_HOME", self.path().join("config")),
            ("XDG_STATE_HOME", self.path().join("state")),
            ("XDG_DATA_HOME", self.path().join("data")),
            ("XDG_CACHE_HOME", cache),
        ]
    }

    /// The launcher.
    pub(crate) fn command(&self) -> Command {
        self.command_of(Path::new(env!("CARGO_BIN_EXE_sandbox")))
    }

    /// A launcher of another path.
    pub(crate) fn command_of(&self, launcher: &Path) -> Command {
        let mut command = Command::new(launcher);
        command.envs(self.variables()).env_remove("SANDBOX_LOG").env("CI", "true").current_dir("/");
        command
    }

    /// The launcher, for running to its end.
    pub(crate) fn sandbox(&self) -> assert_cmd::Command {
        assert_cmd::Command::from_std(self.command())
    }
}

/// A git repository with a manifest that was approved. Its sandbox is taken down when it goes.
pub(crate) struct Project<'a> {
    home: &'a Home,
    folder: TempDir,
    name: String,
}

impl<'a> Project<'a> {
    /// Makes one with a name that no other test has. `manifest` is all but `version` and `project`.
    pub(crate) fn new(home: &'a Home, prefix: &str, manifest: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let random = folder.path().file_name().unwrap().to_string_lossy().to_lowercase().replace(['.', '_'], "");
        let name = format!("{prefix}-{random}");
        fs::write(folder.path().join("sandbox.yaml"), format!("version: 1\nproject: {name}\n{manifest}")).unwrap();
        fs::write(folder.path().join("README.md"), "A project.\n").unwrap();
        let project = Self { home, folder, name };
        project.git(&["init", "--quiet", "--initial-branch=main"]);
        project.git(&["add", "."]);
        project.git(&["-c", "user.name=Ada", "-c", "user.email=ada@example.com", "commit", "--quiet", "-m", "Begin"]);
        let folder = project.path().to_str().unwrap();
        let trusted = home.sandbox().args(["trust", "--yes", folder]).output().unwrap();
        assert!(trusted.status.success(), "{}", String::from_utf8_lossy(&trusted.stderr));
        project
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn git(&self, arguments: &[&str]) -> String {
        let output = Command::new("git").args(arguments).current_dir(self.path()).output().unwrap();
        assert!(output.status.success(), "git {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }
}

impl Drop for Project<'_> {
    fn drop(&mut self) {
        let _ = self.home.sandbox().args(["down", "--discard", &self.name]).output();
    }
}

/// The processes that supervise sandboxes of the project in this folder.
pub(crate) fn supervisors(folder: &Path) -> Vec<i32> {
    let processes =
        std::fs::read_dir("/proc").unwrap().filter_map(|entry| entry.unwrap().file_name().to_str()?.parse().ok());
    let supervises = |id: &i32| {
        let words = std::fs::read(format!("/proc/{id}/cmdline")).unwrap_or_default();
        let words = String::from_utf8_lossy(&words).into_owned();
        words.contains("\0supervise\0") && words.contains(&folder.display().to_string())
    };
    processes.filter(supervises).collect()
}

/// Names of the containers and volumes that the engine has of a project.
pub(crate) fn objects(project: &str) -> Vec<String> {
    let filter = format!("label=dev.sandbox.project={project}");
    let containers = docker(&["ps", "--all", "--filter", &filter, "--format", "{{.Names}}"]);
    let volumes = docker(&["volume", "ls", "--filter", &filter, "--format", "{{.Name}}"]);
    let text = format!("{}{}", String::from_utf8_lossy(&containers.stdout), String::from_utf8_lossy(&volumes.stdout));
    text.lines().map(str::to_owned).collect()
}

/// Searches for values wherever a secret must not be: in what the engine tells of the project's containers, in the
/// engine's data folder, in what it exports and commits of the containers, in the launcher's folders, and in the environment
/// and arguments of every process of this machine.
pub(crate) fn assert_no_canary(home: &Home, project: &str, canaries: &[&str]) {
    let check = |place: &str, bytes: &[u8]| {
        for canary in canaries {
            let found = bytes.windows(canary.len()).any(|window| window == canary.as_bytes());
            assert!(!found, "{canary} is in {place}");
        }
    };
    for name in objects(project).iter().filter(|name| !name.ends_with("-workspace") && !name.ends_with("-home")) {
        for verb in ["inspect", "logs", "diff"] {
            let output = docker(&[verb, name]);
            check(&format!("docker {verb} {name}"), &[output.stdout, output.stderr].concat());
        }
        if !docker(&["container", "inspect", name]).status.success() {
            continue;
        }
        assert_not_printed(&format!("docker export {name}"), canaries);
        let image = format!("canary:{name}");
        assert!(docker(&["commit", "--pause=false", name, &image]).status.success(), "docker commit {name}");
        assert_not_printed(&format!("docker save {image}"), canaries);
        docker(&["rmi", "--force", &image]);
    }
    let events = docker(&["events", "--since", "10m", "--until", "0s"]);
    check("docker events", &events.stdout);
    let root = docker(&["info", "--format", "{{.DockerRootDir}}"]);
    let root = String::from_utf8_lossy(&root.stdout).trim().to_owned();
    for folder in ["containers", "volumes", "overlay2", "containerd", "rootfs", "image"] {
        grep(&Path::new(&root).join(folder), home.began, canaries);
    }
    grep(home.path(), 0, canaries);
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        if entry.file_name().to_string_lossy().bytes().all(|byte| byte.is_ascii_digit()) {
            for file in ["environ", "cmdline"] {
                check(
                    &format!("{}", entry.path().join(file).display()),
                    &fs::read(entry.path().join(file)).unwrap_or_default(),
                );
            }
        }
    }
}

/// Searches what a command prints, which may be an archive of a whole root.
fn assert_not_printed(command: &str, canaries: &[&str]) {
    let mut patterns = tempfile::NamedTempFile::new().unwrap();
    writeln!(patterns, "{}", canaries.join("\n")).unwrap();
    let pipe = format!("set -o pipefail; {command} | LC_ALL=C grep -aobF -f {}", patterns.path().display());
    let output = Command::new("bash").args(["-c", &pipe]).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{command}: {}{}", text(&output.stdout), text(&output.stderr));
}

/// Searches the files of a folder that changed after a time. What is mounted in it is memory, where secrets belong.
pub(crate) fn grep(folder: &Path, since: i64, canaries: &[&str]) {
    use std::os::unix::fs::MetadataExt as _;
    let Ok(top) = fs::metadata(folder) else { return };
    let mut open = vec![folder.to_path_buf()];
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            let Ok(metadata) = entry.metadata() else { continue };
            if metadata.dev() != top.dev() {
                continue;
            }
            if metadata.is_dir() {
                open.push(entry.path());
            } else if metadata.is_file() && metadata.ctime() >= since && metadata.len() < 64 << 20 {
                let bytes = fs::read(entry.path()).unwrap_or_default();
                for canary in canaries {
                    let found = bytes.windows(canary.len()).any(|window| window == canary.as_bytes());
                    assert!(!found, "{canary} is in {}", entry.path().display());
                }
            }
        }
    }
}
