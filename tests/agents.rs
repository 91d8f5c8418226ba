//! The agents that come with the launcher start from their locked images with nothing but what a sandbox has: as uid
//! 1000, without a network, a capability or a writable root.

#![allow(clippy::unwrap_used, reason = "a test says by a panic what is wrong")]

mod support;

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use sandbox::project::preset::PRESETS;
use support::neighbour::Neighbour;
use support::{Home, Project, docker, text};

/// Builds an image from its lock, gives it to the engine, and runs `COMMAND --version` in it.
fn version(image: &str, command: &str) -> String {
    run(&Home::new(), Path::new("/"), image, &format!("exec {command} --version"))
}

/// Builds an image of a project, or a built-in one, gives it to the engine, and runs a shell's script in it.
fn run(home: &Home, project: &Path, image: &str, script: &str) -> String {
    let archive = home.path().join("image.tar");
    let output = format!("docker-archive:{}", archive.display());
    let mut build = home.sandbox();
    build.args(["--format", "json", "image", "build", image, "--output", &output, "--project"]).arg(project);
    let built = build.output().unwrap();
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    let built: serde_json::Value = serde_json::from_slice(&built.stdout).unwrap();
    let id = built["config"].as_str().unwrap();
    let known = docker(&["image", "inspect", id]).status.success();
    let loaded = docker(&["load", "--quiet", "--input", archive.to_str().unwrap()]);
    assert!(loaded.status.success(), "{}", String::from_utf8_lossy(&loaded.stderr));
    let run = Command::new("docker")
        .args(["run", "--rm", "--network", "none", "--read-only", "--cap-drop", "ALL", "--user", "1000:1000"])
        .args([
            "--security-opt",
            "no-new-privileges",
            "--tmpfs",
            "/tmp:exec",
            "--tmpfs",
            "/home/agent:uid=1000,gid=1000",
        ])
        .args(["--env", "HOME=/home/agent", id, "bash", "-c"])
        // The checks of the surroundings come first: a version that was printed with a network proves less.
        .arg(format!(
            "test $(id -u) = 1000 && ! touch /x 2>/dev/null && test \"$(ls /sys/class/net)\" = lo && {script}"
        ))
        .output()
        .unwrap();
    if !known {
        docker(&["image", "rm", id]);
    }
    assert!(run.status.success(), "{script}: {}", String::from_utf8_lossy(&run.stderr));
    String::from_utf8(run.stdout).unwrap()
}

/// The version in the definition of an image, which is what the program must say of itself.
fn wanted(image: &str, package: &str) -> String {
    let chain = sandbox::image::definition::chain(image, None).unwrap();
    let npm = chain.last().unwrap().definition.npm.iter().find(|npm| npm.package == package).unwrap();
    npm.version.split('-').next().unwrap().to_owned()
}

#[test]
fn the_images_of_the_presets_have_the_programs_that_the_presets_run() {
    for preset in PRESETS {
        let chain = sandbox::image::definition::chain(preset.image, None).unwrap();
        // A shell is in every image.
        if chain.last().unwrap().name != "agent" {
            let definition = &chain.last().unwrap().definition;
            let command = preset.command[0];
            let has = definition.npm.iter().any(|npm| npm.bin.contains_key(command))
                || definition.pypi.iter().any(|pypi| pypi.bin.iter().any(|bin| bin == command));
            assert!(has, "{}", preset.name);
        }
    }
}

#[test]
fn opencode_starts_offline_and_read_only() {
    assert!(version("opencode", "opencode").contains(&wanted("opencode", "opencode-linux-x64-baseline")));
}

#[test]
#[ignore = "fetches 170 MB; `make test-full` runs it"]
fn codex_starts_offline_and_read_only() {
    assert!(version("codex", "codex").contains(&wanted("codex", "@openai/codex")));
}

#[test]
#[ignore = "fetches 80 MB; `make test-full` runs it"]
fn gemini_cli_starts_offline_and_read_only() {
    assert!(version("gemini-cli", "gemini").contains(&wanted("gemini-cli", "@google/gemini-cli")));
    // What stands in its package-lock.json beside it is found, for its shell has a terminal.
    let script = "node -e 'require(\"/usr/local/lib/npm/gemini-cli/node_modules/@lydell/node-pty\")\
        .spawn(\"sh\", [\"-c\", \"exit 7\"], {}).onExit(end => { console.log(end.exitCode); process.exit() })'";
    assert_eq!(run(&Home::new(), Path::new("/"), "gemini-cli", script).trim(), "7");
}

#[test]
#[ignore = "fetches 180 MB; `make test-full` runs it"]
fn claude_code_starts_offline_and_read_only() {
    assert!(version("claude-code", "claude").contains(&wanted("claude-code", "@anthropic-ai/claude-code-linux-x64")));
}

#[test]
#[ignore = "fetches 130 MB; `make test-full` runs it"]
fn aider_starts_offline_and_read_only() {
    let home = Home::new();
    let chain = sandbox::image::definition::chain("aider", None).unwrap();
    let version = &chain.last().unwrap().definition.pypi[0].version;
    assert_eq!(run(&home, Path::new("/"), "aider", "exec aider --version").trim(), format!("aider {version}"));
    // Its environment is its own: the project's Python sees nothing of it, and knows what is installed in it.
    let script = "! python3 -c 'import aider' 2>/dev/null \
        && /usr/local/lib/pypi/aider/bin/python3 -c 'import importlib.metadata as m, sys; \
        files = m.files(\"aider-chat\"); assert all(f.locate().exists() for f in files); \
        print(m.version(\"aider-chat\"), sys.prefix, len(files) > 50)'";
    let said = run(&home, Path::new("/"), "aider", script);
    assert_eq!(said.trim(), format!("{version} /usr/local/lib/pypi/aider True"));
}

#[test]
#[ignore = "fetches 300 MB; `make test-full` runs it"]
fn compilers_and_interpreters_of_a_definition_of_ones_own_work() {
    let home = Home::new();
    let project = tempfile::tempdir().unwrap();
    let images = project.path().join("images/tools");
    std::fs::create_dir_all(&images).unwrap();
    let packages = "build-essential, cargo, cmake, gawk, golang, pkg-config, postgresql-client, python3-pip, \
                    python3-venv, ruby, rustc";
    let definition = format!("version: 1\nbase: agent\ndebian: {{suite: bookworm, packages: [{packages}]}}\n");
    std::fs::write(images.join("image.yaml"), definition).unwrap();
    let locked = home.sandbox().args(["image", "lock", "tools", "--project"]).arg(project.path()).output().unwrap();
    assert!(locked.status.success(), "{}", String::from_utf8_lossy(&locked.stderr));
    let script = "cd /tmp && echo 'int main(){return 0;}' | tee a.c > a.cc && cc a.c -o a && ./a && echo c \
        && c++ a.cc -o a && ./a && echo c++ && echo 'fn main(){println!(\"rust\")}' > a.rs && rustc a.rs -o a && ./a \
        && awk --version | head -c 7 && echo && go version | head -c 10 && echo && python3 -m venv v \
        && v/bin/pip --version | head -c 3 && echo && psql --version | head -c 4 && echo && ruby -e 'puts :ruby' \
        && cmake --version | head -c 5 && echo && dpkg --audit && echo consistent";
    let said = run(&home, project.path(), "tools", script);
    let expected = ["c", "c++", "rust", "GNU Awk", "go version", "pip", "psql", "ruby", "cmake", "consistent"];
    assert_eq!(said.lines().collect::<Vec<_>>(), expected);
}

/// The API of the model: it has one plan, and notes each request with the key that came with it.
const MODEL: &str = include_str!("agents/model.py");

/// The host of the agent's model, whose authority the home's configuration has.
fn model(home: &Home, host: &str) -> Neighbour {
    let neighbour = Neighbour::network(home, &[host]);
    let authorities = home.path().join("company.pem");
    fs::write(&authorities, &neighbour.certificate).unwrap();
    let configuration = home.path().join("config/sandbox/config.yaml");
    fs::create_dir_all(configuration.parent().unwrap()).unwrap();
    fs::write(configuration, format!("network: {{ authorities: {} }}\n", authorities.display())).unwrap();
    neighbour
}

/// Has a real agent do tasks with a key that it reads from its file when it needs it: after a rotation the next task has the
/// new one, with nothing in the sandbox changed.
fn reads_its_key_from_a_file(agent: &str, command: &str, asked: &str) {
    let key = sandbox::project::preset::find(agent).unwrap().key.unwrap();
    let home = Home::new();
    let neighbour = model(&home, key.host);
    let manifest = format!(
        "agent: {agent}\nnetwork:\n  allow: [{{ host: {}, allow_private: {} }}]\n\
         credentials:\n  {}: {{ provider: store }}\n",
        key.host, neighbour.subnet, key.credential
    );
    let project = Project::new(&home, agent, &manifest);
    let succeed = |arguments: &[&str], input: &str| {
        let output = home.sandbox().args(arguments).current_dir(project.path()).write_stdin(input).output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", text(&output.stderr));
        text(&output.stdout)
    };
    let (first, second) = ("sk-first-5b0e7f1c93d24a86", "sk-second-77c1d0aa42be9913");
    succeed(&["credential", "set", key.credential], first);
    succeed(&["up", "--detach", "--", "sleep", "600"], "");
    let container = |role: &str| format!("sandbox-{}.main-{role}", project.name());
    let image = text(&docker(&["inspect", "--format", "{{.Image}}", &container("agent")]).stdout);
    neighbour.serve(image.trim(), &container("gateway"), MODEL);
    let task = |value: &str| {
        let script = format!("cd /workspace && timeout 120 {command} </dev/null");
        let ran = home.sandbox().args(["exec", project.name(), "--", "bash", "-c", &script]).output().unwrap();
        let said = text(&ran.stdout) + &text(&ran.stderr);
        let requests = text(&docker(&["exec", &neighbour.name, "cat", "/dev/shm/requests"]).stdout);
        let sent = requests.lines().filter(|line| line.starts_with(asked) && line.contains(value)).count();
        assert!(sent >= 3, "{requests}{said}");
    };
    task(first);
    let file = format!("cat /run/secrets/{}", key.credential);
    succeed(&["credential", "rotate", key.credential], second);
    support::eventually("the new key", Duration::from_secs(10), || {
        succeed(&["exec", project.name(), "--", "bash", "-c", &file], "") == second
    });
    task(second);
}

/// Has a real agent do one whole task with a brokered key, by the manifest that `init` writes: its model tells it to write
/// a file and to commit it. `asked` is the request that it has to make. Before that it has to start on a terminal: what it
/// shows and what is typed then, step by step, until it takes a prompt.
fn does_a_task(agent: &str, command: &str, asked: &str, start: &[(&str, &str)]) {
    let preset = sandbox::project::preset::find(agent).unwrap();
    let key = preset.key.unwrap();
    let home = Home::new();
    let neighbour = model(&home, key.host);
    let project = Project::new(&home, agent, "image: agent\n");
    let succeed = |arguments: &[&str], input: &str| {
        let output = home.sandbox().args(arguments).current_dir(project.path()).write_stdin(input).output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", text(&output.stderr));
    };
    let manifest = project.path().join("sandbox.yaml");
    fs::remove_file(&manifest).unwrap();
    succeed(&["init", "--yes", "--agent", agent, "--project", project.name()], "");
    let written = fs::read_to_string(&manifest).unwrap();
    let (before, after) = written.split_once(&format!("- {}", key.host)).unwrap();
    let entry = format!("- {{ host: {}, allow_private: {} }}", key.host, neighbour.subnet);
    fs::write(&manifest, format!("{before}{entry}{after}")).unwrap();
    let canary = "sk-canary-5b0e7f1c93d24a86";
    succeed(&["credential", "set", key.credential], canary);
    succeed(&["trust", "--yes"], "");
    succeed(&["up", "--detach", "--", "sleep", "600"], "");
    let container = |role: &str| format!("sandbox-{}.main-{role}", project.name());
    let image = text(&docker(&["inspect", "--format", "{{.Image}}", &container("agent")]).stdout);
    neighbour.serve(image.trim(), &container("gateway"), MODEL);
    starts_on_a_terminal(&home, &project, &preset.command(true), start);
    let exec =
        |script: &str| home.sandbox().args(["exec", project.name(), "--", "bash", "-c", script]).output().unwrap();
    let ran = exec(&format!("cd /workspace && timeout 120 {command} </dev/null"));
    let said = text(&ran.stdout) + &text(&ran.stderr);
    let requests = text(&docker(&["exec", &neighbour.name, "cat", "/dev/shm/requests"]).stdout);
    let sent: Vec<_> = requests.lines().filter(|line| line.starts_with(asked)).collect();
    // One for each of the two tools, and one whose answer ends the task; or one for the edit and one for the commit.
    let least = if agent == "aider" { 2 } else { 3 };
    assert!(sent.len() >= least && sent.iter().all(|line| line.contains(canary)), "{requests}{said}");
    assert!(!requests.contains("sandbox-brokered"), "{requests}");
    assert!(!said.contains(canary), "{said}");
    let committed =
        exec("git -C /workspace show --format=%s --stat --no-renames HEAD && git -C /workspace show HEAD:written.txt");
    let committed = text(&committed.stdout);
    assert!(committed.starts_with("Write what was asked for\n"), "{committed}{said}{requests}");
    assert!(committed.trim_end().ends_with("written by the agent"), "{committed}");
    // The agent's own files and its environment do not have the key.
    let search =
        format!("! {{ grep -rqs {canary} /home/agent /workspace /tmp /run/secrets || env | grep -q {canary}; }}");
    assert!(exec(&search).status.success(), "the agent has the key");
}

/// Starts the agent as `up` does, on a terminal that answers what agents ask of one, and goes through what it shows.
fn starts_on_a_terminal(home: &Home, project: &Project<'_>, agent: &[&str], start: &[(&str, &str)]) {
    let socket = home.path().join("tmux");
    let tmux = |arguments: &[&str]| {
        let output = home.command_of(Path::new("tmux")).arg("-S").arg(&socket).args(arguments).output();
        let output = output.unwrap_or_else(|error| panic!("tmux: {error}: run `make packages`"));
        (output.status.success(), text(&output.stdout))
    };
    let launcher = env!("CARGO_BIN_EXE_sandbox");
    let shell = ["new-session", "-d", "-x", "100", "-y", "40", launcher, "exec", project.name(), "--"];
    let words = [&shell[..], agent].concat();
    assert!(tmux(&words).0);
    for (shown, typed) in start {
        let mut screen = String::new();
        let begun = Instant::now();
        while !screen.contains(shown) {
            assert!(begun.elapsed() < Duration::from_secs(90), "{agent:?} does not show `{shown}`, but\n{screen}");
            std::thread::sleep(Duration::from_millis(300));
            screen = tmux(&["capture-pane", "-p"]).1;
        }
        // What it takes for a prompt that was pasted, it would only show.
        std::thread::sleep(Duration::from_millis(500));
        tmux(&["send-keys", typed]);
    }
    tmux(&["kill-server"]);
}

#[test]
fn opencode_does_a_task_with_a_key_that_it_does_not_have() {
    let command = "opencode run -m anthropic/claude-sonnet-4-5 'write the file'";
    does_a_task("opencode", command, "POST /v1/messages ", &[("Ask anything", "")]);
}

#[test]
fn opencode_reads_its_key_from_a_file() {
    let settings = r#"{"provider":{"anthropic":{"options":{"apiKey":"{file:/run/secrets/anthropic}"}}}}"#;
    let command = format!(
        "bash -c 'mkdir -p ~/.config/opencode && echo '\\''{settings}'\\'' > ~/.config/opencode/opencode.json \
         && opencode run -m anthropic/claude-sonnet-4-5 \"write the file\"'"
    );
    reads_its_key_from_a_file("opencode", &command, "POST /v1/messages ");
}

#[test]
#[ignore = "fetches 180 MB; `make test-full` runs it"]
fn claude_code_reads_its_key_from_a_file() {
    let command = r#"claude --settings '{"apiKeyHelper": "cat /run/secrets/anthropic"}' \
        --dangerously-skip-permissions -p 'write the file'"#;
    reads_its_key_from_a_file("claude-code", command, "POST /v1/messages ");
}

#[test]
#[ignore = "fetches 170 MB; `make test-full` runs it"]
fn codex_reads_its_key_from_a_file() {
    let command = r#"codex -c 'model_providers.file={ name = "OpenAI", base_url = "https://api.openai.com/v1",
        wire_api = "responses", auth = { command = "cat", args = ["/run/secrets/openai"] } }' \
        -c model_provider=file exec 'write the file'"#;
    reads_its_key_from_a_file("codex", command, "POST /v1/responses ");
}

#[test]
#[ignore = "fetches 80 MB; `make test-full` runs it"]
fn gemini_cli_reads_its_key_from_a_file() {
    let command = "bash -c 'GEMINI_CLI_SYSTEM_DEFAULTS_PATH=/etc/gemini-cli/key.json \
        GEMINI_API_KEY=$(cat /run/secrets/gemini) gemini --yolo -p \"write the file\"'";
    reads_its_key_from_a_file("gemini-cli", command, "POST /v1beta/models/");
}

#[test]
#[ignore = "fetches 180 MB; `make test-full` runs it"]
fn claude_code_does_a_task_with_a_key_that_it_does_not_have() {
    let command = "claude --dangerously-skip-permissions -p 'write the file'";
    // No step of these is a log-in, and none asks about the key.
    let start = [
        ("text style", "Enter"),
        ("Security notes", "Enter"),
        ("❯ No, exit", "Down"),
        ("❯ Yes, I trust", "Enter"),
        ("API Usage Billing", ""),
    ];
    does_a_task("claude-code", command, "POST /v1/messages ", &start);
}

#[test]
#[ignore = "fetches 170 MB; `make test-full` runs it"]
fn codex_does_a_task_with_a_key_that_it_does_not_have() {
    does_a_task(
        "codex",
        "codex -c model_provider=key exec 'write the file'",
        "POST /v1/responses ",
        &[("Ask Codex to do anything", "")],
    );
}

#[test]
#[ignore = "fetches 80 MB; `make test-full` runs it"]
fn gemini_cli_does_a_task_with_a_key_that_it_does_not_have() {
    let start = [("Type your message", "")];
    does_a_task("gemini-cli", "gemini --yolo -p 'write the file'", "POST /v1beta/models/", &start);
}

#[test]
#[ignore = "fetches 130 MB; `make test-full` runs it"]
fn aider_does_a_task_with_a_key_that_it_does_not_have() {
    let command = "aider --yes-always --message 'write the file'";
    does_a_task("aider", command, "POST /v1/messages ", &[("Repo-map", "")]);
}
