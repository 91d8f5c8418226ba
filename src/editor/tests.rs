use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};

use super::file::ProjectFolder;
use super::*;
use crate::project::preset;

const TASKS: &str = "// The team's tasks.
{
  \"version\": \"2.0.0\",
  \"tasks\": [
    // Slow.
    { \"label\": \"test\", \"type\": \"shell\", \"command\": \"make test\" }, // at the end
  ],
  /* kept */ \"inputs\": [],
}
";
const SETTINGS: &str = "{\n\t// Two tabs wide.\n\t\"editor.tabSize\": 2\n}\n";
const ZED: &str = "[\n  // Mine.\n  { \"label\": \"test\", \"command\": \"make\", \"args\": [\"test\"] }\n]\n";
const HELIX: &str = "# Mine.\n[editor]\nline-number = \"relative\" # far\n\n[keys.normal.space]\nw = \":w\"\n";
const LUA: &str = "-- Mine.\nvim.o.number = true\n";

fn parts(editor: Editor) -> Vec<Part> {
    editor.parts(preset::find("claude-code").unwrap().prompted)
}

/// Every file that can be merged into, with one that a person wrote.
fn with_others() -> Vec<(Part, &'static str)> {
    let mut all = Vec::new();
    for editor in Editor::ALL {
        for part in parts(editor) {
            let text = match part.path.as_str() {
                ".vscode/tasks.json" => TASKS,
                ".vscode/settings.json" => SETTINGS,
                ".zed/tasks.json" => ZED,
                ".helix/config.toml" => HELIX,
                ".nvim.lua" => LUA,
                _ => continue,
            };
            all.push((part, text));
        }
    }
    assert_eq!(all.len(), 5);
    all
}

fn merge(part: &Part, current: Option<&str>) -> String {
    part.merge(current).unwrap().text.unwrap()
}

#[test]
fn keeps_every_line_of_what_was_there_in_its_order() {
    for (part, text) in with_others() {
        let merged = merge(&part, Some(text));
        let mut rest = merged.as_str();
        for line in text.lines().map(|line| line.trim().trim_end_matches([',', '}', ']', ' '])) {
            let at = rest.find(line).unwrap_or_else(|| panic!("`{line}` is gone from {}:\n{merged}", part.path));
            rest = &rest[at + line.len()..];
        }
        assert_ne!(merged, text);
    }
}

#[test]
fn changes_nothing_the_second_time() {
    for (part, text) in with_others() {
        let merged = merge(&part, Some(text));
        assert_eq!(merge(&part, Some(&merged)), merged, "{}", part.path);
    }
    for part in Editor::ALL.into_iter().flat_map(parts) {
        let merged = merge(&part, None);
        assert_eq!(merge(&part, Some(&merged)), merged, "{}", part.path);
    }
}

#[test]
fn takes_away_only_what_it_put_there() {
    for (part, text) in with_others() {
        let stripped = part.strip(&merge(&part, Some(text))).unwrap().text.unwrap();
        let mut rest = stripped.as_str();
        for line in text.lines().map(|line| line.trim().trim_end_matches([',', '}', ']', ' '])) {
            let at = rest.find(line).unwrap_or_else(|| panic!("`{line}` is gone from {}:\n{stripped}", part.path));
            rest = &rest[at + line.len()..];
        }
        assert!(!stripped.contains("sandbox: ") && !stripped.contains("sandbox up"), "{stripped}");
        // What it never put there, it does not take either.
        assert_eq!(part.strip(text).unwrap().text.as_deref(), Some(text));
    }
    for part in Editor::ALL.into_iter().flat_map(parts) {
        assert_eq!(part.strip(&merge(&part, None)).unwrap().text, None, "{} is left over", part.path);
    }
}

#[test]
fn leaves_alone_what_somebody_changed_and_says_so() {
    let mut seen = 0;
    for (part, text) in with_others() {
        let merged = merge(&part, Some(text));
        let changed = match part.path.as_str() {
            ".vscode/settings.json" => merged.replace("\"sandbox.yaml\"", "\"other.yaml\""),
            ".helix/config.toml" => merged.replace("sandbox diff", "sandbox diff --names"),
            ".nvim.lua" => continue,
            _ => merged.replace("\"diff\"", "\"diff\", \"--names\""),
        };
        assert_ne!(changed, merged);
        let again = part.merge(Some(&changed)).unwrap();
        assert_eq!((again.text.as_deref(), again.kept.len()), (Some(changed.as_str()), 1), "{}", part.path);
        let stripped = part.strip(&changed).unwrap();
        let left = stripped.text.unwrap();
        assert!(left.contains("--names") || left.contains("other.yaml"), "{left}");
        assert_eq!(stripped.kept, again.kept);
        seen += 1;
    }
    assert_eq!(seen, 4);
}

#[test]
fn refuses_what_it_does_not_understand_and_says_where() {
    let part = |path: &str| Editor::ALL.into_iter().flat_map(parts).find(|part| part.path == path).unwrap();
    let deep = "[".repeat(100_000);
    for (path, text, said) in [
        (".vscode/tasks.json", "{\n  \"tasks\": [,]\n}", "line 2"),
        (".vscode/tasks.json", "{ \"tasks\": {} }", "`tasks` is no list"),
        (".vscode/tasks.json", "{ \"version\": \"0.1.0\" }", "`version`"),
        (".vscode/tasks.json", "[]", "no object"),
        (".vscode/tasks.json", "{ 'tasks': [] }", "line 1"),
        (".zed/tasks.json", "{}", "no list"),
        (".zed/tasks.json", deep.as_str(), "nested"),
        (".helix/config.toml", "a = 1\nb =", "line 2"),
        (".helix/config.toml", "[keys]\nnormal = 1", "`keys.normal` is no table"),
        (".nvim.lua", "-- sandbox editor: end\n", "once each"),
        (".run/sandbox-up.run.xml", "<mine/>", "another file"),
    ] {
        let error = part(path).merge(Some(text)).unwrap_err().to_string();
        assert!(error.contains(said) && error.contains(path), "{error}");
    }
}

#[test]
fn an_agent_without_a_prompt_has_no_task_that_asks_for_one() {
    for editor in Editor::ALL {
        let all: String =
            editor.parts(preset::find("shell").unwrap().prompted).iter().map(|part| merge(part, None)).collect();
        assert!(!all.contains("input:") && !all.contains("read -r prompt") && !all.contains("prompt = true"), "{all}");
        assert!(all.contains("pull"), "{all}");
    }
}

#[test]
fn the_prompt_stays_one_word_whatever_it_holds() {
    let tasks = task::tasks(preset::find("claude-code").unwrap().prompted);
    let prompt = tasks.iter().find(|task| task.needs == task::Needs::Prompt).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let fake = folder.path().join("sandbox");
    fs::write(&fake, "#!/bin/sh\nprintf '<%s>' \"$@\"\n").unwrap();
    fs::set_permissions(&fake, fs::Permissions::from_mode(0o755)).unwrap();
    let hostile = "it's $(touch x) `touch y`; \"touch z\" \\n *";
    let mut child = std::process::Command::new("sh")
        .args(["-c", &zed::reads_prompt(prompt)])
        .env("PATH", format!("{}:/usr/bin:/bin", folder.path().display()))
        .current_dir(folder.path())
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), format!("{hostile}\n").as_bytes()).unwrap();
    let said = String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap();
    assert_eq!(said, format!("Prompt: <up><--><claude><{hostile}>"));
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    // It stands between single quotes in Zed and JetBrains.
    assert!(!zed::reads_prompt(prompt).contains('\''));
}

#[test]
fn never_reads_or_writes_through_a_link() {
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("tasks.json"), "outside").unwrap();
    let project = tempfile::tempdir().unwrap();
    let folder = ProjectFolder::open(project.path()).unwrap();
    symlink(outside.path(), project.path().join(".vscode")).unwrap();
    symlink(outside.path().join("tasks.json"), project.path().join(".nvim.lua")).unwrap();
    for path in [".vscode/tasks.json", ".vscode/deeper/tasks.json", ".nvim.lua"] {
        assert!(matches!(folder.read(path), Err(EditorError::Link(_))), "{path} was read");
        assert!(matches!(folder.write(path, None, "mine"), Err(EditorError::Link(_))), "{path} was written");
        assert!(matches!(folder.remove(path, "outside"), Err(EditorError::Link(_))), "{path} was removed");
    }
    assert_eq!(fs::read_to_string(outside.path().join("tasks.json")).unwrap(), "outside");
    assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 1);
}

#[test]
fn does_not_wait_at_a_pipe_and_reads_no_more_than_the_limit() {
    let project = tempfile::tempdir().unwrap();
    let folder = ProjectFolder::open(project.path()).unwrap();
    let made = std::process::Command::new("mkfifo").arg(project.path().join("pipe")).status().unwrap();
    assert!(made.success());
    assert!(matches!(folder.read("pipe"), Err(EditorError::Link(_))));
    fs::write(project.path().join("large"), vec![b'x'; file::LIMIT as usize + 1]).unwrap();
    assert!(matches!(folder.read("large"), Err(EditorError::Large(_))));
    fs::write(project.path().join("bytes"), [0xff]).unwrap();
    assert!(matches!(folder.read("bytes"), Err(EditorError::Format { .. })));
}

#[test]
fn writes_as_a_whole_keeps_permissions_and_overwrites_nothing_new() {
    let project = tempfile::tempdir().unwrap();
    let folder = ProjectFolder::open(project.path()).unwrap();
    folder.write("a/b/c", None, "first").unwrap();
    let path = project.path().join("a/b/c");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    folder.write("a/b/c", Some("first"), "second").unwrap();
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(matches!(folder.write("a/b/c", Some("first"), "third"), Err(EditorError::Changed(_))));
    assert!(matches!(folder.write("a/b/c", None, "third"), Err(EditorError::Changed(_))));
    assert_eq!(fs::read_to_string(&path).unwrap(), "second");
    assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
    folder.remove("a/b/c", "second").unwrap();
    assert!(!project.path().join("a").exists());
}
