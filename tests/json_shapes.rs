//! Keeps `docs/reference/json.md` true: what a real project's verbs print with `--format json`, key by key.
//! `UPDATE_REFERENCE=1` writes it anew.

#![allow(clippy::unwrap_used, reason = "a test says by a panic what is wrong")]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use serde_json::Value;
use support::{Home, Project, text};

/// What is known of the documents of one verb: for each key its kinds of values, and whether it may be left out.
#[derive(Debug, Default)]
struct Shape {
    keys: BTreeMap<String, (BTreeSet<&'static str>, bool)>,
}

/// Keys of maps whose keys are data, such as names of variables, by the end of their paths.
const DATA: [&str; 10] = [
    "environment",
    "facts",
    "labels",
    "permissions",
    "tags",
    "log_limits",
    "tmpfs",
    "secret_environment",
    "containers",
    "parameters",
];

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "`true` or `false`",
        Value::Number(number) if number.is_f64() => "number",
        Value::Number(_) => "whole number",
        Value::Array(_) => "list",
        Value::Object(_) => "map",
        Value::String(text) if text.starts_with("sha256:") && text.len() == 71 => "digest",
        Value::String(text) if text.len() > 15 && text.parse::<jiff::Timestamp>().is_ok() => "time",
        Value::String(_) => "text",
    }
}

impl Shape {
    /// Adds a document, or a part of one at this path.
    fn add(&mut self, path: &str, value: &Value, first: bool) {
        match value {
            Value::Object(map) if DATA.iter().any(|data| path == *data || path.ends_with(&format!(".{data}"))) => {
                let path = format!("{path}.NAME");
                let mut first = !self.keys.keys().any(|known| known.starts_with(&path));
                for inner in map.values() {
                    self.note(&path, inner, false);
                    self.add(&path, inner, first);
                    first = false;
                }
            }
            Value::Object(map) => {
                let below = |key: &str| if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") };
                let direct = |known: &str| {
                    let rest = if path.is_empty() { Some(known) } else { known.strip_prefix(path)?.strip_prefix('.') };
                    rest.filter(|rest| !rest.contains('.') && !rest.contains("[]")).map(str::to_owned)
                };
                for (known, (_, optional)) in &mut self.keys {
                    *optional |= direct(known).is_some_and(|key| !map.contains_key(&key));
                }
                for (key, inner) in map {
                    let path = below(key);
                    let fresh = !self.keys.contains_key(&path);
                    self.note(&path, inner, fresh && !first);
                    self.add(&path, inner, first || fresh);
                }
            }
            Value::Array(items) => {
                let mut first = !self.keys.keys().any(|known| known.starts_with(&format!("{path}[]")));
                for item in items {
                    let path = format!("{path}[]");
                    if !item.is_object() {
                        self.note(&path, item, false);
                    }
                    self.add(&path, item, first);
                    first = false;
                }
            }
            _ => {}
        }
    }

    fn note(&mut self, path: &str, value: &Value, optional: bool) {
        let entry = self.keys.entry(path.to_owned()).or_default();
        entry.0.insert(kind(value));
        entry.1 |= optional;
    }

    fn rows(&self) -> Vec<String> {
        let rows = self.keys.iter().map(|(path, (kinds, optional))| {
            let kinds = kinds.iter().copied().collect::<Vec<_>>().join(" or ");
            let absent = if *optional { "; may be left out" } else { "" };
            let path = path.trim_start_matches('.');
            format!("| `{path}` | {kinds}{absent} |")
        });
        rows.collect()
    }
}

/// The documents of a whole session, by verb.
fn session() -> BTreeMap<&'static str, Shape> {
    let home = Home::new();
    let manifest = "image: agent\ncommand: [sleep, infinity]\nnetwork: { allow: [example.com] }\ncredentials:\n  \
                    key: { provider: store, max_age: 30d }\n";
    let project = Project::new(&home, "json", manifest);
    let name = project.name();
    let mut shapes: BTreeMap<&'static str, Shape> = BTreeMap::new();
    let run = |arguments: &[&str], input: &str| {
        let mut sandbox = home.sandbox();
        sandbox.args(arguments).args(["--format", "json"]).current_dir(project.path()).write_stdin(input);
        sandbox.output().unwrap()
    };
    let mut see = |verb: &'static str, arguments: &[&str]| {
        let output = run(&[&verb.split(' ').collect::<Vec<_>>()[..], arguments].concat(), "");
        let said = text(&output.stdout);
        let document: Value = serde_json::from_str(&said)
            .unwrap_or_else(|error| panic!("{verb} {arguments:?}: {error}: {said}{}", text(&output.stderr)));
        let shape = shapes.entry(verb).or_default();
        let first = shape.keys.is_empty();
        shape.add("", &document, first);
    };
    let succeed = |arguments: &[&str], input: &str| {
        let output = run(arguments, input);
        assert!(output.status.success(), "{arguments:?}: {}", text(&output.stderr));
    };
    let repository = tempfile::tempdir().unwrap();
    let git = std::process::Command::new("git").args(["init", "--quiet"]).arg(repository.path()).status();
    assert!(git.unwrap().success());
    see("init", &["--yes", "--project", "shop", repository.path().to_str().unwrap()]);
    see("plan", &[name]);
    see("trust", &[name, "--yes"]);
    see("explain", &["manifest-invalid"]);
    see("credential ls", &[name]);
    succeed(&["credential", "set", "key", name], "a-key-of-json-0a1b2c3d4e5f");
    see("credential ls", &[name]);
    see("credential check", &[name]);
    see("why", &[name, "example.com"]);
    see("why", &[name, "example.org", "GET", "/"]);
    see("image ls", &[]);
    see("network presets", &[]);
    see("editor", &["vscode"]);
    see("doctor", &[]);
    see("up", &[name, "--detach"]);
    see("ps", &[]);
    see("status", &[name]);
    let work = "git commit --quiet --allow-empty -m empty; echo more > more; git add more; git commit --quiet -m more; \
                curl -s https://example.org; true";
    succeed(&["exec", name, "--", "sh", "-c", work], "");
    see("status", &[name]);
    see("network ls", &[name]);
    see("network log", &[name]);
    see("network allow", &[name, "example.net"]);
    see("network deny", &[name, "example.net"]);
    see("network learn", &[name]);
    see("diff", &[name]);
    see("review", &[name]);
    see("pull", &[name]);
    see("report", &[name]);
    see("down", &[name]);
    see("report", &[name]);
    see("ps", &[]);
    see("gc", &["--dry-run"]);
    see("audit log", &["--project", name]);
    see("audit verify", &[]);
    see("audit report", &["--project", name]);
    fs::write(project.path().join("notes.txt"), "aws_access_key_id = AKIAZ7QHJ4N2XKP3WLM5\n").unwrap();
    see("scan", &[project.path().to_str().unwrap()]);
    shapes
}

#[test]
fn the_page_of_json_has_every_key_that_a_session_prints() {
    let shapes = session();
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/reference/json.md");
    if std::env::var_os("UPDATE_REFERENCE").is_some() {
        let mut page = "# JSON\n\n<!-- Written by tests/json_shapes.rs from what a session prints. -->\n\n\
            `--format json` has each of these verbs print one document. Keys are added and never renamed. Times are RFC 3339 in \
            UTC, sizes are bytes, digests `sha256:…`. `[]` is an item of a list, `NAME` a key that is data. Failures are told \
            on standard error and by the exit code, in words.\n"
            .to_owned();
        for (verb, shape) in &shapes {
            let _ = write!(page, "\n## sandbox {verb}\n\n| key | value |\n| --- | --- |\n");
            for row in shape.rows() {
                let _ = writeln!(page, "{row}");
            }
        }
        fs::write(&path, page).unwrap();
    }
    let page = fs::read_to_string(&path).unwrap();
    let next = "run `UPDATE_REFERENCE=1 cargo test --test json_shapes`";
    for (verb, shape) in &shapes {
        let section = page.split(&format!("\n## sandbox {verb}\n")).nth(1).unwrap_or_else(|| panic!("{verb}: {next}"));
        let section = section.split("\n## ").next().unwrap();
        let told: BTreeMap<&str, &str> = (section.lines())
            .filter_map(|line| line.strip_prefix("| `")?.strip_suffix(" |")?.split_once("` | "))
            .collect();
        for (key, (kinds, _)) in &shape.keys {
            let key = key.trim_start_matches('.');
            let words = told.get(key).unwrap_or_else(|| panic!("{verb} prints `{key}`, which the page lacks: {next}"));
            for kind in kinds {
                // A digest and a time are texts.
                let as_text = ["digest", "time"].contains(kind) && words.contains("text");
                assert!(
                    words.contains(kind) || as_text,
                    "{verb}: `{key}` is {kind}, and the page says {words}: {next}"
                );
            }
        }
        for (key, words) in told {
            let printed = shape.keys.keys().any(|known| known.trim_start_matches('.') == key);
            // What is below a list or a map that this session leaves empty is not printed.
            let certain = !words.contains("left out") && !key.contains('.') && !key.contains("[]");
            assert!(printed || !certain, "{verb} does not print `{key}`, which the page says it always does: {next}");
        }
    }
    assert!(shapes.len() > 20);
}
