//! The workflows of `examples/ci` do what they say: their steps run here as they stand, as a user who is not root, without
//! an engine, against Debian's `docker-registry`. Only what fetches the repository and installs programs is left out, and
//! `gh` is a stand-in that checks how it is called.
#![allow(clippy::unwrap_used, reason = "a test says by a panic what is wrong")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");
/// The password `canary-password`, as bcrypt.
const HTPASSWD: &str = "ada:$2b$04$rSRwlk3qwaIfnL0AMRMSQO39GUwo3t/VZLH7jc8GLbTiMGUjAFGzy\n";
const GH: &str = "#!/bin/bash\nset -eu\n[ \"$1 $2 $3 $4 $5\" = 'pr create --title Update the agent image --body-file' ] \
                  && [ $# = 6 ] && [ \"$GH_TOKEN\" = canary-password ] && [ -s \"$6\" ] && cp \"$6\" \"$HOME/request\"\n";

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn run(command: &mut Command) -> Output {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}{}", text(&output.stdout), text(&output.stderr));
    output
}

/// A repository with an image of its own, a remote, a registry, and the home of whoever runs the steps.
struct Runner {
    folder: tempfile::TempDir,
    registry: Child,
    address: String,
}

impl Drop for Runner {
    fn drop(&mut self) {
        let _ = self.registry.kill();
        let _ = self.registry.wait();
    }
}

impl Runner {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = |below: &str| folder.path().join(below);
        for below in ["work/images/base", "home", "bin", "runner"] {
            fs::create_dir_all(path(below)).unwrap();
        }
        for file in ["image.yaml", "image.lock"] {
            fs::copy(Path::new(ROOT).join("images/base").join(file), path("work/images/base").join(file)).unwrap();
        }
        fs::write(path("bin/gh"), GH).unwrap();
        fs::set_permissions(path("bin/gh"), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_sandbox"), path("bin/sandbox")).unwrap();
        let git = |words: &[&str]| run(Command::new("git").args(words).current_dir(path("work")));
        git(&["init", "--quiet", "--bare", path("origin").to_str().unwrap()]);
        git(&["init", "--quiet", "--initial-branch=main"]);
        git(&["remote", "add", "origin", path("origin").to_str().unwrap()]);
        git(&["add", "."]);
        git(&["-c", "user.name=Ada", "-c", "user.email=ada@example.com", "commit", "--quiet", "--message", "Begin"]);
        run(Command::new("openssl").args(["genpkey", "-algorithm", "ED25519", "-out"]).arg(path("key.pem")));
        let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
        fs::write(path("htpasswd"), HTPASSWD).unwrap();
        let place = folder.path().display();
        let config = format!(
            "version: 0.1\nstorage: {{filesystem: {{rootdirectory: {place}/data}}}}\nhttp: {{addr: '{address}'}}\n\
             auth: {{htpasswd: {{realm: test, path: {place}/htpasswd}}}}\n"
        );
        fs::write(path("config.yml"), config).unwrap();
        let mut registry = Command::new("docker-registry");
        registry.arg("serve").arg(path("config.yml")).stdout(Stdio::null()).stderr(Stdio::null());
        let registry = registry.spawn().expect("docker-registry is installed: run `scripts/packages`");
        let begun = Instant::now();
        while std::net::TcpStream::connect(&address).is_err() {
            assert!(begun.elapsed() < Duration::from_secs(20), "the registry does not listen");
            std::thread::sleep(Duration::from_millis(50));
        }
        let runner = Self { folder, registry, address };
        runner.hand_over();
        runner
    }

    fn path(&self, below: &str) -> PathBuf {
        self.folder.path().join(below)
    }

    /// Gives everything to the user that runs the steps, if there is another one.
    fn hand_over(&self) {
        if rustix::process::getuid().is_root() {
            run(Command::new("chown").args(["--recursive", "65534:65534"]).arg(self.folder.path()));
        }
    }

    /// Runs a script as the service does, with its variables and those of the step.
    fn step(&self, script: &str, variables: &[(String, String)]) -> Output {
        let mut command = match rustix::process::getuid().is_root() {
            true => {
                let mut command = Command::new("setpriv");
                command.args(["--reuid", "65534", "--regid", "65534", "--clear-groups", "bash"]);
                command
            }
            false => Command::new("bash"),
        };
        let path = format!("{}:{}", self.path("bin").display(), std::env::var("PATH").unwrap());
        let pem = fs::read_to_string(self.path("key.pem")).unwrap();
        command.args(["-e", "-o", "pipefail", "-c", script]).current_dir(self.path("work")).env("PATH", path);
        command.env("HOME", self.path("home")).env("RUNNER_TEMP", self.path("runner")).env("CI", "true");
        command.env("DOCKER_HOST", "unix:///nowhere").env_remove("XDG_CACHE_HOME").env_remove("DOCKER_CONFIG");
        for (name, value) in variables {
            let value = value.replace("${{ secrets.AGENT_IMAGE_KEY }}", &pem);
            command.env(name, value.replace("${{ github.token }}", "canary-password"));
        }
        command.output().unwrap()
    }

    /// The digest that the registry has under this tag.
    fn digest(&self, repository: &str) -> String {
        let address = format!("http://{}/v2/{repository}", self.address);
        let accept = "Accept: application/vnd.oci.image.manifest.v1+json";
        let head = run(Command::new("curl")
            .args([
                "--silent",
                "--fail",
                "--noproxy",
                "*",
                "--head",
                "--user",
                "ada:canary-password",
                "--header",
                accept,
            ])
            .arg(address));
        let head = text(&head.stdout).to_lowercase();
        let line = head.lines().find_map(|line| line.strip_prefix("docker-content-digest: "));
        line.unwrap_or_else(|| panic!("{head}")).trim().to_owned()
    }

    fn locked(&self) -> Value {
        serde_json::from_slice(&fs::read(self.path("work/images/base/image.lock")).unwrap()).unwrap()
    }

    /// Makes the lock name an old version of `dash`, so that there is something to update.
    fn grow_old(&self) {
        let mut lock = self.locked();
        let packages = lock["packages"].as_array_mut().unwrap();
        packages.iter_mut().find(|package| package["name"] == "dash").unwrap()["version"] = "0.1".into();
        fs::write(self.path("work/images/base/image.lock"), lock.to_string()).unwrap();
        let script = "git -c user.name=Ada -c user.email=ada@example.com commit --quiet --all --message 'Grow old'";
        let done = self.step(script, &[]);
        assert!(done.status.success(), "{}", text(&done.stderr));
    }
}

fn workflow(name: &str) -> Value {
    serde_yaml::from_str(&fs::read_to_string(Path::new(ROOT).join("examples/ci").join(name)).unwrap()).unwrap()
}

fn variables(value: &Value) -> Vec<(String, String)> {
    let pairs = value.as_object().into_iter().flatten();
    pairs.map(|(name, value)| (name.clone(), value.as_str().unwrap().to_owned())).collect()
}

/// Whether a step brings programs, which are here already.
fn installs(script: &str) -> bool {
    ["sudo apt-get ", "apt-get ", "cargo install "].iter().any(|start| script.starts_with(start))
}

/// Runs a job of GitHub's; steps that only the main branch has are run.
fn github(runner: &Runner, job: &str) {
    let workflow = workflow("github-actions.yml");
    let mut shared = variables(&workflow["env"]);
    shared.extend(
        [
            ("IMAGE", "base"),
            ("REGISTRY", runner.address.as_str()),
            ("GITHUB_ACTOR", "ada"),
            ("GITHUB_REPOSITORY", "Team/Project"),
            ("GITHUB_RUN_ID", "7"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned())),
    );
    let mut ran = 0;
    for step in workflow["jobs"][job]["steps"].as_array().unwrap() {
        if let Some(uses) = step["uses"].as_str() {
            assert!(["actions/checkout@v4", "actions/upload-artifact@v4"].contains(&uses), "{uses}");
            continue;
        }
        let script = step["run"].as_str().unwrap();
        if installs(script) {
            continue;
        }
        let done = runner.step(script, &[shared.clone(), variables(&step["env"])].concat());
        assert!(done.status.success(), "{script}: {}{}", text(&done.stdout), text(&done.stderr));
        ran += 1;
    }
    assert!(ran >= 2, "{job} has no steps");
}

/// Runs a job of GitLab's, whose lines are one script.
fn gitlab(runner: &Runner, job: &str) -> Output {
    let workflow = workflow("gitlab-ci.yml");
    let lines: Vec<&str> =
        workflow[job]["script"].as_array().unwrap().iter().map(|line| line.as_str().unwrap()).collect();
    assert!(!lines.iter().any(|line| installs(line)));
    let mut shared = variables(&workflow["variables"]);
    let registry_image = format!("{}/team/project", runner.address);
    let key = runner.path("key.pem").display().to_string();
    shared.extend(
        [
            ("IMAGE", "base"),
            ("CI_REGISTRY", runner.address.as_str()),
            ("CI_REGISTRY_USER", "ada"),
            ("CI_REGISTRY_PASSWORD", "canary-password"),
            ("CI_REGISTRY_IMAGE", registry_image.as_str()),
            ("CI_COMMIT_REF_SLUG", "main"),
            ("AGENT_IMAGE_KEY", key.as_str()),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned())),
    );
    runner.step(&lines.join("\n"), &shared)
}

fn assert_documents(runner: &Runner, names: &[&str]) {
    for name in names {
        let document = fs::read(runner.path("work").join(name)).unwrap();
        assert!(serde_json::from_slice::<Value>(&document).unwrap().is_object(), "{name}");
        fs::remove_file(runner.path("work").join(name)).unwrap();
    }
}

#[test]
fn the_workflow_for_github_builds_signs_pushes_and_proposes_what_is_newer() {
    let runner = Runner::new();
    github(&runner, "build");
    assert!(runner.path("work/layout/index.json").exists());
    let documents = ["sbom.spdx.json", "sbom.cdx.json", "provenance.json", "provenance.dsse.json", "sbom.dsse.json"];
    assert_documents(&runner, &documents);
    assert_eq!(runner.digest("team/project/base/manifests/main"), runner.locked()["result"]["manifest"]);
    assert_eq!(fs::read_dir(runner.path("runner")).unwrap().count(), 0, "the key was left behind");
    runner.grow_old();
    github(&runner, "update");
    let request = fs::read_to_string(runner.path("home/request")).unwrap();
    assert!(request.starts_with("base:\n") && request.contains("  ~ deb dash 0.1 -> 0.5"), "{request}");
    let commit = run(Command::new("git")
        .args(["-c", "safe.directory=*", "--git-dir"])
        .arg(runner.path("origin"))
        .args(["show", "--stat", "--format=%an%n%B", "agent-image-7"]));
    let commit = text(&commit.stdout);
    assert!(
        commit.starts_with("github-actions[bot]\nUpdate the agent image\n") && commit.contains("dash 0.1"),
        "{commit}"
    );
    assert!(commit.contains("images/base/image.lock"), "{commit}");
}

#[test]
fn the_workflow_for_gitlab_builds_signs_pushes_and_says_what_is_newer() {
    let runner = Runner::new();
    for job in ["agent-image", "agent-image-signed", "agent-image-push"] {
        let done = gitlab(&runner, job);
        assert!(done.status.success(), "{job}: {}{}", text(&done.stdout), text(&done.stderr));
    }
    let documents = ["sbom.spdx.json", "sbom.cdx.json", "provenance.json", "provenance.dsse.json", "sbom.dsse.json"];
    assert_documents(&runner, &documents);
    assert_eq!(runner.digest("team/project/base/manifests/main"), runner.locked()["result"]["manifest"]);
    runner.grow_old();
    let done = gitlab(&runner, "agent-image-outdated");
    assert_eq!(done.status.code(), Some(1), "{}", text(&done.stderr));
    assert!(text(&done.stdout).contains("  ~ deb dash 0.1 -> 0.5"), "{}", text(&done.stdout));
}

#[test]
#[ignore = "installs a validator from PyPI; `make test-full` runs it"]
fn the_published_schemas_of_both_services_accept_the_workflows() {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("check-jsonschema");
    if !folder.join("bin/check-jsonschema").exists() {
        run(Command::new("python3").args(["-m", "venv"]).arg(&folder));
        let pip = ["-m", "pip", "install", "--quiet", "check-jsonschema==0.39.0"];
        run(Command::new(folder.join("bin/python3")).args(pip));
    }
    let temporary = tempfile::tempdir().unwrap();
    for (file, schema, wrong) in [
        ("github-actions.yml", "vendor.github-workflows", "runs-on:"),
        ("credentials-github-actions.yml", "vendor.github-workflows", "runs-on:"),
        ("gitlab-ci.yml", "vendor.gitlab-ci", "script:"),
    ] {
        let check = |path: &Path| {
            let mut command = Command::new(folder.join("bin/check-jsonschema"));
            command.args(["--builtin-schema", schema]).arg(path).output().unwrap()
        };
        let path = Path::new(ROOT).join("examples/ci").join(file);
        let output = check(&path);
        assert!(output.status.success(), "{file}: {}{}", text(&output.stdout), text(&output.stderr));
        // The control: a mistake is found.
        let other = temporary.path().join(file);
        fs::write(&other, fs::read_to_string(path).unwrap().replace(wrong, "runs-nowhere:")).unwrap();
        assert!(!check(&other).status.success(), "{file}: the validator finds no mistake");
    }
}
