//! What a person reads when something fails: every failure that can be brought about without an engine, word for word.
//!
//! `tests/snapshots/messages__*.snap` are to be read like a page of the documentation. Failures that need an engine's,
//! a registry's or a gateway's help have their texts in the snapshots beside `src/commands`.

#![allow(clippy::unwrap_used, reason = "a test says by a panic what is wrong")]

mod support;

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::Command;

use support::{Home, text};

const MANIFEST: &str = "version: 1\nproject: demo\nimage: agent\ncommand: [\"true\"]\n";

/// A project's folder, a home, and everything that was said so far.
struct Stage {
    home: Home,
    project: PathBuf,
    said: String,
    /// The project of a sandbox that has to be gone at the end, also of a test that fails.
    running: Option<String>,
}

impl Drop for Stage {
    fn drop(&mut self) {
        if let Some(project) = &self.running {
            let _ = self.home.sandbox().args(["down", "--discard", project]).output();
        }
    }
}

impl Stage {
    fn new() -> Self {
        let home = Home::without_engine();
        let project = home.path().join("demo");
        fs::create_dir_all(&project).unwrap();
        fs::write(project.join("sandbox.yaml"), MANIFEST).unwrap();
        Self { home, project, said: String::new(), running: None }
    }

    fn write(&self, path: &str, content: &str) {
        let path = self.project.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    fn configure(&self, content: &str) {
        let path = self.home.path().join("config/sandbox/config.yaml");
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    fn git(&self, arguments: &[&str]) {
        let mut git = Command::new("git");
        git.arg("-C").arg(&self.project).args(["-c", "user.name=Ada", "-c", "user.email=ada@example.com"]);
        let output = git.args(arguments).env("GIT_CONFIG_GLOBAL", "/dev/null").output().unwrap();
        assert!(output.status.success(), "git {arguments:?}: {}", text(&output.stderr));
    }

    fn commit(&self) {
        self.git(&["init", "--quiet", "--initial-branch=main"]);
        self.git(&["add", "."]);
        self.git(&["commit", "--quiet", "--message=begin"]);
    }

    fn trust(&self) {
        let output = self.home.sandbox().arg("trust").arg(&self.project).arg("--yes").output().unwrap();
        assert!(output.status.success(), "{}", text(&output.stderr));
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.home.command();
        command.current_dir(&self.project).args(arguments).env("USER", "ada");
        command.env("DOCKER_HOST", format!("unix://{}", self.home.path().join("no-engine.sock").display()));
        command
    }

    /// Runs what must fail and notes what it said, for a person who reads it in order.
    fn fails(&mut self, because: &str, arguments: &[&str]) {
        let command = self.command(arguments);
        self.fails_as(because, command);
    }

    fn fails_as(&mut self, because: &str, mut command: Command) {
        let output = command.stdin(std::process::Stdio::null()).output().unwrap();
        let errors = text(&output.stderr);
        assert!(!output.status.success(), "{because}: {}", text(&output.stdout));
        assert!(errors.contains("error") && errors.contains("next: "), "{because}: {errors}");
        assert!(!errors.contains("sk-secret"), "{because}: {errors}");
        let arguments: Vec<_> = command.get_args().map(|argument| argument.to_string_lossy()).collect();
        let code = output.status.code().unwrap();
        self.said.push_str(&format!("# {because}\n$ sandbox {}\n{errors}exit code {code}\n\n", arguments.join(" ")));
    }

    /// What was said, without what differs between machines.
    fn stable(&self) -> String {
        let said = self.said.replace(self.home.path().to_str().unwrap(), "HOME");
        let cache = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("sandbox-test-cache");
        let said = said.replace(cache.to_str().unwrap(), "CACHE");
        let mut stable = String::new();
        for (index, piece) in said.split("sha256:").enumerate() {
            let digits = if index > 0 { piece.bytes().take_while(u8::is_ascii_hexdigit).count() } else { 0 };
            stable.push_str(match (index, digits) {
                (0, _) => "",
                (_, 64) => "sha256:…",
                _ => "sha256:",
            });
            stable.push_str(if digits == 64 { &piece[digits..] } else { piece });
        }
        stable
    }
}

#[test]
fn of_the_project_and_its_manifest() {
    let mut stage = Stage::new();
    stage.fails("there is no such project", &["plan", "elsewhere"]);
    stage.fails("there is no such folder", &["plan", "./elsewhere"]);
    stage.fails("the manifest was not approved, and there is nobody to ask", &["up"]);
    stage.fails("approving needs a person, or --yes", &["trust"]);
    stage.write("sandbox.yaml", "version: 1\nproject: demo\nimage: agent\nprivileged: true\n");
    stage.fails("the manifest has a key that is not known", &["plan"]);
    stage.write("sandbox.yaml", "version: 1\nproject: demo\nimage: node:22\n");
    stage.fails("an image has a tag and no digest", &["plan"]);
    stage.write("sandbox.yaml", "version: 1\nproject: demo\nimage: missing\n");
    stage.fails("the project has no such image", &["plan"]);
    stage.fails("there was no session", &["report"]);
    stage.fails("there was no such session", &["report", "demo", "--session", "0123456789abcdef"]);
    stage.fails("there is no such preset", &["network", "presets", "githbu"]);
    stage.write("sandbox.yaml", &format!("{MANIFEST}profile: lax\n"));
    stage.fails("there is no such profile", &["plan"]);
    stage.write("sandbox.yaml", MANIFEST);
    stage.fails("there is no such profile, by argument", &["up", "--dry-run", "--profile", "lax"]);
    stage.fails("the argument is no image", &["up", "--dry-run", "--image", "node:22"]);
    stage.fails("no such code", &["explain", "manifest-mising"]);
    stage.fails("neither path is in a sandbox", &["cp", "a", "b"]);
    stage.fails("secrets are never copied", &["cp", "demo:/run/secrets/github", "."]);
    stage.fails("there is nothing to look through", &["scan", "./elsewhere"]);
    stage.fails("the destination is not one", &["why", ".", "https://"]);
    fs::remove_file(stage.project.join("sandbox.yaml")).unwrap();
    stage.fails("there is no manifest", &["plan"]);
    symlink("/etc/hostname", stage.project.join("sandbox.yaml")).unwrap();
    stage.fails("the manifest leads out of the project", &["plan"]);
    fs::remove_file(stage.project.join("sandbox.yaml")).unwrap();
    fs::create_dir(stage.project.join("sandbox.yaml")).unwrap();
    stage.fails("the manifest is a folder", &["plan"]);
    fs::remove_dir(stage.project.join("sandbox.yaml")).unwrap();
    fs::write(stage.project.join("sandbox.yaml"), b"version: 1\nproject: \xff\n").unwrap();
    stage.fails("the manifest is no text", &["plan"]);
    insta::assert_snapshot!("manifest", stage.stable());
}

#[test]
fn of_the_configuration() {
    let mut stage = Stage::new();
    stage.configure("engine: unix:///run/docker.sock\nminimum: { memory: 1GiB }\n");
    stage.fails("the configuration has keys that are not known", &["plan"]);
    stage.configure("review: { held_back: ['[a'] }\n");
    stage.fails("a pattern of paths is not one", &["plan"]);
    let path = stage.home.path().join("config/sandbox/config.yaml");
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    stage.fails("the configuration is a folder", &["plan"]);
    insta::assert_snapshot!("configuration", stage.stable());
}

#[test]
fn of_the_first_minutes() {
    let mut stage = Stage::new();
    stage.fails("the folder is in no repository", &["init", "--yes"]);
    stage.git(&["init", "--quiet", "--initial-branch=main"]);
    stage.fails("there is a manifest already", &["init", "--yes"]);
    fs::remove_file(stage.project.join("sandbox.yaml")).unwrap();
    stage.fails("nobody can be asked", &["init"]);
    stage.fails("the agent is not known", &["init", "--yes", "--agent", "claud"]);
    let odd = stage.home.path().join("***");
    fs::create_dir(&odd).unwrap();
    assert!(Command::new("git").arg("init").arg("--quiet").arg(&odd).status().unwrap().success());
    let mut command = stage.command(&["init", "--yes"]);
    command.current_dir(&odd);
    stage.fails_as("no name can be made of the folder's", command);
    let gone = stage.home.path().join("gone");
    fs::create_dir(&gone).unwrap();
    let mut shell = Command::new("sh");
    let binary = env!("CARGO_BIN_EXE_sandbox");
    shell.current_dir(&gone).args(["-c", "rmdir ../gone; exec \"$0\" init --yes", binary]);
    let output = shell.output().unwrap();
    stage.said.push_str(&format!("# the current folder is gone\n{}", text(&output.stderr)));
    insta::assert_snapshot!("init", stage.stable().replace(binary, "sandbox"));
}

#[test]
fn of_the_repository() {
    let mut stage = Stage::new();
    let (address, _engine) = engine(
        &stage,
        "engine.sock",
        r#"{"Version":"28.0.0","ApiVersion":"1.48","MinAPIVersion":"1.24","Os":"linux","Arch":"amd64"}"#,
    );
    let up = |stage: &Stage| {
        let mut command = stage.command(&["up"]);
        command.env("DOCKER_HOST", &address);
        command
    };
    stage.trust();
    let command = up(&stage);
    stage.fails_as("the project is in no repository", command);
    stage.git(&["init", "--quiet", "--initial-branch=main"]);
    let command = up(&stage);
    stage.fails_as("the branch has no commit", command);
    stage.commit();
    stage.git(&["checkout", "--quiet", "--detach"]);
    let command = up(&stage);
    stage.fails_as("no branch is checked out", command);
    stage.git(&["checkout", "--quiet", "main"]);
    stage.write("sandbox.yaml", &format!("{MANIFEST}workspace: {{ branch: 'a..b' }}\n"));
    let command = up(&stage);
    stage.fails_as("the branch's name is not one", command);
    stage.write("sandbox.yaml", &format!("{MANIFEST}workspace: {{ branch: other, include_uncommitted: true }}\n"));
    stage.trust();
    let command = up(&stage);
    stage.fails_as("uncommitted changes belong to another branch", command);
    stage.write("sandbox.yaml", MANIFEST);
    stage.trust();
    let mut command = up(&stage);
    command.env("PATH", "/nowhere");
    stage.fails_as("git is not installed", command);
    insta::assert_snapshot!("repository", stage.stable());
}

#[test]
fn of_the_credentials() {
    let mut stage = Stage::new();
    stage.commit();
    stage.fails("no credential is declared", &["credential", "set", "api-key"]);
    let declared =
        "credentials:\n  api-key: { provider: store }\n  pass: { provider: exec, command: [pass, show, x] }\n";
    stage.write("sandbox.yaml", &format!("{MANIFEST}{declared}"));
    stage.fails("the value is empty", &["credential", "set", "api-key"]);
    stage.fails("the credential comes from elsewhere", &["credential", "set", "pass"]);
    stage.fails("there is no log-in for such a credential", &["credential", "login", "pass"]);
    stage.fails("the name is not one", &["credential", "set", "API KEY"]);
    stage.fails("a value was given as an argument", &["credential", "set", ".", "api-key", "sk-secret"]);
    stage.fails("the file is the developer's own", &["credential", "import", ".env"]);
    stage.fails("there is no such file", &["credential", "import", ".env.agent"]);
    stage.write(".env.agent", "A=1\n");
    stage.fails("others can read the file", &["credential", "import", ".env.agent"]);
    fs::set_permissions(stage.project.join(".env.agent"), fs::Permissions::from_mode(0o600)).unwrap();
    stage.fails("the file has nothing to import", &["credential", "import", ".env.agent"]);
    stage.write(".env.agent", "A=1\nB\n");
    stage.fails("the file is no file of variables", &["credential", "import", ".env.agent"]);
    stage.fails("the file is a folder", &["credential", "import", "/"]);
    stage.fails("the new value is empty", &["credential", "rotate", "api-key"]);
    stage.fails("no running sandbox has it", &["credential", "revoke", "api-key"]);
    stage.write("sandbox.yaml", &format!("{MANIFEST}credentials:\n  api-key: {{ provider: github-app }}\n"));
    stage.fails("the provider's settings are missing", &["plan"]);
    stage.write("sandbox.yaml", MANIFEST);
    stage.fails("nobody issues an identity", &["credential", "identity"]);
    insta::assert_snapshot!("credentials", stage.stable());
}

#[test]
fn of_the_engine() {
    let mut stage = Stage::new();
    stage.commit();
    stage.trust();
    stage.fails("nothing answers", &["ps"]);
    stage.fails("nothing answers, to a session", &["up"]);
    for (because, address) in [
        ("the address is not one", "docker"),
        ("the path is relative", "unix://run/docker.sock"),
        ("ssh is not supported", "ssh://host.example"),
        ("the scheme is not known", "ftp://host.example"),
    ] {
        stage.fails(because, &["ps", "--engine", address]);
    }
    let mut command = stage.command(&["ps"]);
    command.env("DOCKER_HOST", "tcp://127.0.0.1:9").env("DOCKER_TLS_VERIFY", "1");
    stage.fails_as("TLS is asked for", command);
    let mut command = stage.command(&["ps"]);
    command.env_remove("DOCKER_HOST").env("DOCKER_CONTEXT", "elsewhere");
    stage.fails_as("there is no such context", command);
    let docker = stage.home.path().join("docker");
    fs::create_dir(&docker).unwrap();
    fs::write(docker.join("config.json"), "{ not json").unwrap();
    let mut command = stage.command(&["ps"]);
    command.env_remove("DOCKER_HOST").env("DOCKER_CONFIG", &docker);
    stage.fails_as("the client's configuration is not JSON", command);
    for (because, name, version) in [
        (
            "the engine is too old",
            "old.sock",
            r#"{"Version":"18.09.1","ApiVersion":"1.39","MinAPIVersion":"1.12","Os":"linux","Arch":"amd64"}"#,
        ),
        (
            "the engine is too new",
            "new.sock",
            r#"{"Version":"99.0.0","ApiVersion":"1.99","MinAPIVersion":"1.90","Os":"linux","Arch":"amd64"}"#,
        ),
        ("it is no engine", "other.sock", "<html></html>"),
    ] {
        let (address, _engine) = engine(&stage, name, version);
        stage.fails(because, &["ps", "--engine", &address]);
    }
    insta::assert_snapshot!("engine", stage.stable());
}

#[test]
fn of_images() {
    let mut stage = Stage::new();
    stage.fails("there is no such image", &["image", "verify", "missing"]);
    stage.write(
        "images/own/image.yaml",
        "version: 1\nbase: agent\ndebian: { suite: bookworm, packages: [jq] }\ncolour: red\n",
    );
    stage.fails("the definition has a key that is not known", &["image", "build", "own"]);
    stage.write("images/own/image.yaml", "version: 1\nbase: agent\ndebian: { suite: bookworm, packages: [jq] }\n");
    stage.fails("the definition has no lock", &["image", "build", "own"]);
    stage.write("images/own/image.lock", "{}");
    stage.fails("the lock is not one", &["image", "build", "own"]);
    stage.write("images/own/image.yaml", "version: 1\nbase: agent\npypi: [{ package: black, version: 25.1.0 }]\n");
    stage.write("images/own/pylock.toml", "lock-version = \"1.0\"\n");
    stage.fails("the list of wheels lacks what the definition wants", &["image", "lock", "own"]);
    stage.write("Dockerfile.agent", "FROM agent\nPLEASE install git\n");
    stage.fails("the Dockerfile is none", &["image", "lint"]);
    stage.write("Dockerfile.agent", "FROM scratch\nCOPY a.txt /\nADD https://example.com/x /x\n");
    stage.fails("a line is not built", &["image", "lock", "Dockerfile.agent"]);
    stage.write("Dockerfile.agent", "FROM scratch\nCOPY .env /\n");
    stage.write(".env", "TOKEN=x\n");
    stage.fails("a file stays out", &["image", "lock", "Dockerfile.agent"]);
    stage.fails("the launcher's own lock has it", &["image", "update", "agent", "git"]);
    stage.fails("it has no packages", &["image", "update", "Dockerfile.agent"]);
    stage.write("key.pem", "no key\n");
    let key = stage.project.join("key.pem").display().to_string();
    stage.fails("the key is none", &["image", "sign", "base", "--key", &key]);
    stage.fails("the reference has no digest", &["image", "pull", "registry.example/agent:latest"]);
    stage.fails("the repository's name is not one", &["image", "push", "agent", "Registry/AGENT"]);
    stage.fails(
        "nothing listens at the registry",
        &["image", "pull", &format!("127.0.0.1:9/agent@sha256:{}", "0".repeat(64))],
    );
    insta::assert_snapshot!("images", stage.stable());
}

#[test]
fn of_editors() {
    let mut stage = Stage::new();
    stage.commit();
    stage.write(".vscode/tasks.json", "{ \"version\": ");
    stage.fails("the tasks are no JSON", &["editor", "vscode", "--write"]);
    fs::remove_file(stage.project.join(".vscode/tasks.json")).unwrap();
    fs::create_dir(stage.project.join(".vscode/tasks.json")).unwrap();
    stage.fails("the tasks are a folder", &["editor", "vscode", "--write"]);
    fs::remove_dir(stage.project.join(".vscode/tasks.json")).unwrap();
    stage.write(".vscode/tasks.json", &" ".repeat(8 << 20));
    stage.fails("the tasks are too large", &["editor", "vscode", "--write"]);
    fs::remove_dir_all(stage.project.join(".vscode")).unwrap();
    symlink("/tmp", stage.project.join(".vscode")).unwrap();
    stage.fails("the folder is a link", &["editor", "vscode", "--write"]);
    stage.write(".run/sandbox-up.run.xml", "<component/>");
    stage.fails("another file is in the way", &["editor", "jetbrains", "--write"]);
    stage.fails("the folder of the manual cannot be made", &["man", "--output", "/proc/none"]);
    insta::assert_snapshot!("editors", stage.stable());
}

#[test]
fn of_the_state() {
    let mut stage = Stage::new();
    stage.commit();
    stage.trust();
    let state = stage.home.path().join("state/sandbox");
    fs::create_dir_all(state.join("audit")).unwrap();
    let log: Vec<PathBuf> = fs::read_dir(state.join("audit")).unwrap().map(|entry| entry.unwrap().path()).collect();
    if let Some(log) = log.iter().find(|path| path.extension().is_some_and(|extension| extension == "jsonl")) {
        let broken = fs::read_to_string(log).unwrap().replacen("\"ok\"", "\"no\"", 1);
        fs::set_permissions(log, fs::Permissions::from_mode(0o600)).unwrap();
        fs::write(log, broken).unwrap();
    }
    stage.fails("somebody wrote into the audit log", &["audit", "verify"]);
    insta::assert_snapshot!("state", stage.stable());
}

#[test]
fn of_a_running_sandbox() {
    support::engine();
    let mut stage = Stage::new();
    let project = format!("messages-{}", std::process::id());
    let manifest = MANIFEST.replace("project: demo", &format!("project: {project}"));
    let manifest = manifest.replace("[\"true\"]", "[sleep, infinity]");
    stage.write("sandbox.yaml", &manifest);
    stage.commit();
    stage.trust();
    let real = |stage: &Stage, arguments: &[&str]| {
        let mut command = stage.command(arguments);
        command.env_remove("DOCKER_HOST");
        command
    };
    let succeed = |stage: &Stage, arguments: &[&str]| {
        let output = real(stage, arguments).output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", text(&output.stderr));
    };
    let fail = |stage: &mut Stage, because: &str, arguments: &[&str]| {
        let command = real(stage, arguments);
        stage.fails_as(because, command);
    };
    fail(&mut stage, "there is no sandbox", &["diff", &project]);
    fail(&mut stage, "nobody can be asked", &["network", "learn", "--observe", "--", "true"]);
    let absent = stage.home.path().join("absent").display().to_string();
    stage.configure(&format!(
        "network:\n  proxy: http://proxy.example:3128\n  proxy_log_in: {{ user: ada, file: {absent} }}\n"
    ));
    fail(&mut stage, "the password for the proxy is not there", &["up", "--detach"]);
    stage.configure("");
    stage.running = Some(project.clone());
    succeed(&stage, &["up", "--detach"]);
    fail(&mut stage, "the image has no such program", &["exec", &project, "--", "no-such-program"]);
    fail(&mut stage, "the file is no program", &["exec", &project, "--", "/etc/passwd"]);
    let commit = "git -c user.name=a -c user.email=a@example.com commit --quiet --allow-empty --message=work";
    succeed(&stage, &["exec", &project, "--", "sh", "-c", commit]);
    fail(&mut stage, "there are commits that were not pulled", &["down", &project]);
    stage.write("sandbox.yaml", &format!("{manifest}environment: {{ A: b }}\n"));
    stage.trust();
    fail(&mut stage, "the sandbox was started from another plan", &["up", "--detach"]);
    succeed(&stage, &["pull", &project]);
    let engine = |arguments: &[&str]| assert!(support::docker(arguments).status.success(), "docker {arguments:?}");
    engine(&["kill", &format!("sandbox-{project}.main-agent")]);
    support::eventually("the session's end", std::time::Duration::from_secs(30), || {
        let output = real(&stage, &["status", &project, "--format", "json"]).output().unwrap();
        text(&output.stdout).contains("\"stopped\"")
    });
    fail(&mut stage, "the sandbox does not run any more", &["exec", &project, "--", "true"]);
    succeed(&stage, &["down", &project, "--discard"]);
    insta::assert_snapshot!("sandbox", stage.stable().replace(&project, "demo"));
}

/// An engine that knows its version and nothing else, as a unix socket and a thread.
fn engine(stage: &Stage, name: &str, version: &'static str) -> (String, std::thread::JoinHandle<()>) {
    let path = stage.home.path().join(name);
    let listener = UnixListener::bind(&path).unwrap();
    let serving = std::thread::spawn(move || {
        for connection in listener.incoming() {
            let Ok(mut connection) = connection else { return };
            std::thread::spawn(move || {
                let mut head = Vec::new();
                let mut byte = [0];
                while !head.ends_with(b"\r\n\r\n") {
                    if connection.read(&mut byte).unwrap_or(0) == 0 {
                        return;
                    }
                    head.push(byte[0]);
                }
                let asked = text(&head);
                let body = match () {
                    () if asked.contains("/version ") => version,
                    () if asked.contains("/volumes") => r#"{"Volumes":[],"Warnings":[]}"#,
                    () => "[]",
                };
                let length = body.len();
                let _ = write!(
                    connection,
                    "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
                );
            });
        }
    });
    (format!("unix://{}", path.display()), serving)
}

/// The codes in the snapshots, `error[CODE]`.
fn codes_in(folder: &Path, codes: &mut BTreeSet<String>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            codes_in(&path, codes);
        } else if path.extension().is_some_and(|extension| extension == "snap") {
            let text = fs::read_to_string(path).unwrap();
            codes.extend(text.split("error[").skip(1).filter_map(|rest| Some(rest.split_once(']')?.0.to_owned())));
        }
    }
}

/// Codes whose messages no snapshot shows, and why.
const NOT_SHOWN: &[(&str, &str)] = &[
    ("editor-memory", "root may write everywhere"),
    ("image-build", "needs an engine; tests/dockerfile_agent.rs asks for it"),
    ("image-keyring", "the machine's own keyring would have to be damaged"),
    ("image-mismatch", "needs a build that gives other bytes than its lock"),
    ("image-signature", "tests/image_reports.rs asks for it"),
    ("image-unavailable", "needs a mirror that fails"),
    ("copy-exists", "needs a sandbox; tests/copy.rs asks for it"),
    ("copy-failed", "needs a sandbox; tests/copy.rs asks for it"),
    ("image-vendored", "tests/image_reports.rs asks for it"),
    ("credential-input", "standard input would have to fail"),
    ("init-declined", "needs a terminal"),
    ("manifest-not-written", "root may write everywhere"),
    ("network-entry", "needs a sandbox; tests/network_policy.rs asks for it"),
    ("network-restart", "needs a sandbox; tests/network_policy.rs asks for it"),
    ("page-not-written", "needs a sandbox; tests/session.rs asks for it"),
    ("port-refused", "root may take every port"),
    ("export-failed", "tests/workspace_out.rs asks for it"),
    ("port-taken", "tests/ports.rs asks for it"),
    ("registry-login", "the forms of a wrong login are tested beside the code"),
    ("rotation-request", "root may write everywhere"),
    ("runtime", "the process would have to be out of threads"),
    ("sandbox-differs", "needs an engine that changes a container"),
    ("sandbox-foreign", "needs another person's sandbox"),
    ("session-ended", "tests/resilience.rs asks for each of its sentences"),
    ("signing-key", "the system would have to be without random bytes"),
    ("temporary-file", "the disk would have to be full"),
    ("trust-declined", "needs a terminal"),
    ("workspace-absent", "tests/workspace_out.rs asks for it"),
    ("workspace-in-use", "tests/workspace_out.rs asks for it"),
];

#[test]
fn every_code_has_a_message_in_a_snapshot() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut shown = BTreeSet::new();
    codes_in(&root.join("tests/snapshots"), &mut shown);
    codes_in(&root.join("src"), &mut shown);
    let output = Home::without_engine().sandbox().arg("explain").output().unwrap();
    let said = text(&output.stdout);
    let excused: BTreeSet<&str> = NOT_SHOWN.iter().map(|(code, _)| *code).collect();
    let missing: Vec<&str> = said.lines().filter(|code| !shown.contains(*code) && !excused.contains(code)).collect();
    assert!(missing.is_empty(), "no snapshot shows {missing:?}");
    let idle: Vec<&&str> = excused.iter().filter(|code| shown.contains(**code)).collect();
    assert!(idle.is_empty(), "a snapshot does show {idle:?}");
}
