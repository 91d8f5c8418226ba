//! Completions, asked for by real shells: bash, zsh and fish (`make packages` installs them). No engine is needed.

#![allow(clippy::unwrap_used, reason = "a test says by a panic what is wrong")]

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use support::{Home, text};

const MANIFEST: &str = "version: 1\nproject: payments\ncredentials:\n  github-token: { provider: store }\n  \
                        gitlab-token: { provider: store }\n";

/// A machine that has seen two projects, and the folder of one of them.
fn machine(home: &Home) -> PathBuf {
    let folder = home.path().join("payments");
    fs::create_dir_all(folder.join("images/ours")).unwrap();
    fs::write(folder.join("images/ours/image.yaml"), "version: 1\nbase: agent\n").unwrap();
    fs::write(folder.join("sandbox.yaml"), MANIFEST).unwrap();
    let state = home.path().join("state/sandbox");
    fs::create_dir_all(state.join("projects")).unwrap();
    fs::write(state.join("projects/payments"), folder.to_str().unwrap()).unwrap();
    fs::write(state.join("projects/parcels"), "/elsewhere").unwrap();
    // No name of a project: nothing of it may reach a shell.
    fs::write(state.join("projects/pa$(touch x)"), "").unwrap();
    fs::create_dir_all(state.join("sandboxes/payments.try-2")).unwrap();
    folder
}

/// A script run by a real shell, with this launcher as `sandbox`.
fn in_shell(home: &Home, folder: &Path, shell: &str, script: &str) -> String {
    let bin = home.path().join("bin");
    if !bin.exists() {
        fs::create_dir(&bin).unwrap();
        std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_sandbox"), bin.join("sandbox")).unwrap();
    }
    let environment = home.command();
    let mut command = Command::new(shell);
    for (name, value) in environment.get_envs() {
        if let Some(value) = value {
            command.env(name, value);
        }
    }
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
    let output = command.args(["-c", script]).env("PATH", path).env("HOME", home.path()).current_dir(folder).output();
    let output = output.unwrap_or_else(|error| panic!("{shell}: {error}: run `make packages`"));
    assert!(output.status.success(), "{}{}", text(&output.stdout), text(&output.stderr));
    text(&output.stdout)
}

/// What bash offers at the end of a line, through the script and the function that it registers.
fn bash(home: &Home, folder: &Path, line: &str) -> Vec<String> {
    let words: Vec<String> = line.split(' ').map(|word| format!("'{word}'")).collect();
    let script = format!(
        "source <(sandbox completions bash)\n\
         spec=$(complete -p sandbox); spec=${{spec#*-F }}; function=${{spec%% *}}\n\
         COMP_WORDS=({}); COMP_CWORD={}; COMP_TYPE=9; COMP_LINE='{line}'; COMP_POINT=${{#COMP_LINE}}\n\
         \"$function\" sandbox \"${{COMP_WORDS[COMP_CWORD]}}\" \"${{COMP_WORDS[COMP_CWORD-1]}}\"\n\
         printf '%s\\n' \"${{COMPREPLY[@]}}\"",
        words.join(" "),
        words.len() - 1,
    );
    in_shell(home, folder, "bash", &script).lines().map(|line| line.trim_end().to_owned()).collect()
}

#[test]
fn bash_completes_what_this_machine_and_the_project_know() {
    let home = Home::without_engine();
    let folder = machine(&home);
    for (line, expected) in [
        ("sandbox up p", &["parcels", "payments"] as &[&str]),
        ("sandbox status pay", &["payments"]),
        ("sandbox exec pay", &["payments"]),
        ("sandbox diff --name ", &["try-2"]),
        ("sandbox credential rotate g", &["github-token", "gitlab-token"]),
        ("sandbox credential rotate github-token par", &["parcels"]),
        ("sandbox image build ou", &["ours"]),
        ("sandbox up --image ou", &["ours"]),
        ("sandbox up --profile st", &["strict"]),
        ("sandbox editor j", &["jetbrains"]),
        ("sandbox editor zed pay", &["payments"]),
        ("sandbox explain manifest-inv", &["manifest-invalid"]),
        ("sandbox complet", &["completions"]),
        ("sandbox audit log --project parc", &["parcels"]),
    ] {
        assert_eq!(bash(&home, &folder, line), expected, "{line}");
    }
    assert!(!folder.join("x").exists());
    // Hidden verbs stay hidden, here those that begin with `s`.
    assert_eq!(bash(&home, &folder, "sandbox s"), ["shell", "status", "scan", "schema"]);
}

#[test]
fn a_folder_without_a_project_and_a_manifest_with_a_fault_offer_what_is_left() {
    let home = Home::without_engine();
    let folder = machine(&home);
    assert!(bash(&home, Path::new("/"), "sandbox credential rotate g").concat().is_empty());
    assert_eq!(bash(&home, Path::new("/"), "sandbox up pay"), ["payments"]);
    fs::write(folder.join("sandbox.yaml"), "nonsense: [").unwrap();
    assert!(bash(&home, &folder, "sandbox credential rotate g").concat().is_empty());
    assert_eq!(bash(&home, &folder, "sandbox image build ou"), ["ours"]);
}

/// What stands on the line after a person typed it, tab included, into a shell on a terminal.
fn typed(home: &Home, folder: &Path, shell: &[&str], script: &str, line: &str, wanted: &str) -> String {
    in_shell(home, folder, "bash", "true");
    // One server for each line: a server that was told to end may still hold its socket.
    let socket = home.path().join(format!("{}-{}", shell[0], wanted.replace(' ', "-")));
    let tmux = |arguments: &[&str]| {
        let mut command = Command::new("tmux");
        for (name, value) in home.command().get_envs() {
            if let Some(value) = value {
                command.env(name, value);
            }
        }
        let path = format!("{}:{}", home.path().join("bin").display(), std::env::var("PATH").unwrap());
        command.env("PATH", path).env("HOME", home.path()).env("TERM", "xterm").current_dir(folder);
        let output = command.args(["-f", "/dev/null", "-S", socket.to_str().unwrap()]).args(arguments).output();
        text(&output.unwrap_or_else(|error| panic!("tmux: {error}: run `make packages`")).stdout)
    };
    let screen = |what: &str| {
        let mut shown = String::new();
        for _ in 0..100 {
            shown = tmux(&["capture-pane", "-p"]);
            if shown.contains(what) {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(200));
        }
        shown
    };
    tmux(&[&["new-session", "-d", "-x", "120", "-y", "30"], shell].concat());
    tmux(&["send-keys", "-l", &format!("{script}; echo rea''dy")]);
    tmux(&["send-keys", "Enter"]);
    assert!(screen("\nready").contains("\nready"), "{shell:?}: {}", screen("\nready"));
    tmux(&["send-keys", "-l", line]);
    tmux(&["send-keys", "Tab"]);
    let shown = screen(wanted);
    tmux(&["kill-server"]);
    shown
}

#[test]
fn every_shell_completes_on_a_terminal_what_a_person_types() {
    let home = Home::without_engine();
    let folder = machine(&home);
    let zsh = "autoload -Uz compinit && compinit -u -D && source <(sandbox completions zsh)";
    for (shell, script) in [
        (&["bash", "--norc", "--noprofile"] as &[&str], "source <(sandbox completions bash)"),
        (&["zsh", "-f"], zsh),
        (&["fish", "--no-config"], "sandbox completions fish | source"),
    ] {
        for (line, wanted) in [
            ("sandbox up pay", "sandbox up payments"),
            ("sandbox image build ou", "sandbox image build ours"),
            ("sandbox explain manifest-inv", "sandbox explain manifest-invalid"),
        ] {
            let shown = typed(&home, &folder, shell, script, line, wanted);
            assert!(shown.contains(wanted), "{shell:?}, {line}:\n{shown}");
        }
    }
    assert!(!folder.join("x").exists());
}

#[test]
fn other_shells_complete_the_same() {
    let home = Home::without_engine();
    let folder = machine(&home);
    let script = "sandbox completions fish | source; complete --do-complete 'sandbox up pay'";
    assert_eq!(in_shell(&home, &folder, "fish", script).split_whitespace().next(), Some("payments"));
    for shell in ["zsh", "fish", "elvish", "powershell"] {
        let output = home.sandbox().args(["completions", shell]).output().unwrap();
        assert!(text(&output.stdout).contains("SANDBOX_COMPLETE"), "{shell}");
    }
}

#[test]
fn a_shell_that_is_not_known_is_a_wrong_use() {
    let home = Home::without_engine();
    let output = home.sandbox().env("SANDBOX_COMPLETE", "csh").args(["--", "sandbox", "up"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("unknown shell"), "{}", text(&output.stderr));
}
