//! Keeps `docs/reference/` current: it is written from the program itself. `UPDATE_REFERENCE=1` writes it anew. And keeps
//! the book whole: every page is in its table of contents.

#![allow(clippy::unwrap_used, reason = "a test says by a panic what is wrong")]

mod support;

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use sandbox::project::{manifest, preset, schema};
use sandbox::session::identity;
use serde_json::Value;
use support::{Home, text};

fn documents() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("docs")
}

/// Compares a generated page with the one that is there, or writes it.
fn assert_page(name: &str, title: &str, source: &str, body: &str) {
    let page = format!("# {title}\n\n<!-- Written by tests/reference.rs from {source}. -->\n\n{}\n", body.trim());
    let path = documents().join("reference").join(name);
    if std::env::var_os("UPDATE_REFERENCE").is_some() {
        fs::write(&path, &page).unwrap();
    }
    let there = fs::read_to_string(&path).unwrap_or_default();
    assert!(there == page, "{} is not current: run `UPDATE_REFERENCE=1 cargo test --test reference`", path.display());
}

/// One cell of a table: a bar would end it, and a tag would be one in a browser.
fn cell(text: &str) -> String {
    let mut within_code = false;
    let mut cell = String::new();
    for character in text.chars() {
        match character {
            '`' => within_code = !within_code,
            '|' => cell.push('\\'),
            '<' if !within_code => {
                cell.push_str("&lt;");
                continue;
            }
            '\n' => {
                cell.push(' ');
                continue;
            }
            _ => {}
        }
        cell.push(character);
    }
    cell
}

/// What values a schema takes, in few words.
fn values(schema: &Value) -> String {
    if let Some(constant) = schema.get("const") {
        return format!("`{constant}`");
    }
    if let Some(words) = schema["enum"].as_array() {
        return words.iter().map(|word| format!("`{}`", word.as_str().unwrap())).collect::<Vec<_>>().join(", ");
    }
    if let Some(choices) = schema["anyOf"].as_array().or_else(|| schema["oneOf"].as_array()) {
        let words: BTreeSet<String> = choices.iter().map(values).collect();
        return words.into_iter().collect::<Vec<_>>().join(" or ");
    }
    let word = match schema["type"].as_str().unwrap_or("object") {
        "string" => "text".to_owned(),
        "integer" => "whole number".to_owned(),
        "boolean" => "`true` or `false`".to_owned(),
        "array" => format!("list of {}", values(&schema["items"])),
        "object" => "map".to_owned(),
        other => other.to_owned(),
    };
    match (schema["minimum"].as_i64(), schema["maximum"].as_i64()) {
        (Some(least), Some(most)) => format!("{word}, {least} to {most}"),
        _ => word,
    }
}

/// A row for each key of a map's schema, and of the maps in it.
fn keys(path: &str, schema: &Value, rows: &mut String) {
    for (key, value) in schema["properties"].as_object().into_iter().flatten() {
        let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
        let mut meaning = value["description"].as_str().unwrap_or_default().to_owned();
        if let Some(default) = value.get("default") {
            let _ = write!(meaning, " Default: `{}`.", default.to_string().trim_matches('"'));
        }
        let _ = writeln!(rows, "| `{path}` | {} | {} |", cell(&values(value)), cell(&meaning));
        keys(&path, value, rows);
        for choice in value["anyOf"].as_array().or_else(|| value["oneOf"].as_array()).into_iter().flatten() {
            keys(&path, choice, rows);
        }
        let items = &value["items"];
        for item in items["anyOf"].as_array().into_iter().flatten().chain([items]) {
            keys(&format!("{path}[]"), item, rows);
        }
        keys(&format!("{path}.NAME"), &value["additionalProperties"], rows);
    }
}

#[test]
fn the_page_of_the_manifest_is_current() {
    let schema = schema::manifest();
    let mut body =
        "Keys of `sandbox.yaml`. `sandbox schema` prints the JSON Schema, which editors read. `NAME` is a name of \
                    yours, `[]` an item of a list.\n\n| key | value | meaning |\n| --- | --- | --- |\n"
            .to_owned();
    keys("", &schema, &mut body);
    for key in ["`resources.memory`", "`credentials.NAME.provider`", "`network.allow[].host`", "`ports`"] {
        assert!(body.contains(&format!("| {key} |")), "{key} is not in\n{body}");
    }
    let required: Vec<_> = schema["required"].as_array().unwrap().iter().map(|key| key.as_str().unwrap()).collect();
    let _ = write!(body, "\n`{}` have to be there; all others may be left out.\n", required.join("` and `"));
    assert_page("manifest.md", "The manifest", "the JSON Schema", &body);
}

/// The verbs that a help page lists.
fn listed(page: &str) -> Vec<String> {
    let list = page.split("\nCommands:\n").nth(1).unwrap_or_default();
    let lines = list.lines().take_while(|line| !line.is_empty()).filter(|line| !line.starts_with("    "));
    let names = lines.filter_map(|line| line.split_whitespace().next()).filter(|name| *name != "help");
    names.map(str::to_owned).collect()
}

#[test]
fn the_page_of_the_commands_is_current() {
    let home = Home::without_engine();
    let mut body = String::new();
    let mut open = vec![Vec::<String>::new()];
    let mut count = 0;
    while let Some(verb) = open.pop() {
        let output = home.sandbox().args(&verb).arg("--help").env("COLUMNS", "100").output().unwrap();
        let page = text(&output.stdout);
        count += 1;
        let name = [&["sandbox".to_owned()], &verb[..]].concat().join(" ");
        // What is the same for every verb stands once, at the program itself.
        let own = if verb.is_empty() {
            page.clone()
        } else {
            let mut parts: Vec<&str> = page.split("\n\n").collect();
            parts.retain(|part| !part.starts_with("Options of every verb:"));
            parts.join("\n\n")
        };
        let _ = write!(body, "## {name}\n\n```text\n{}\n```\n\n", own.trim_end());
        open.extend(listed(&page).into_iter().rev().map(|name| [&verb[..], &[name]].concat()));
    }
    assert!(count > 40, "only {count} verbs");
    assert_page("commands.md", "Commands", "`--help`", &body);
}

#[test]
fn the_page_of_exit_codes_and_errors_is_current() {
    let home = Home::without_engine();
    let output = home.sandbox().args(["explain", "--format", "json"]).output().unwrap();
    let all: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap();
    assert!(all.len() > 50);
    let mut body = "| exit code | meaning |\n| --- | --- |\n\
        | 0 | done; for a check: yes |\n\
        | 1 | it failed; for a check: no |\n\
        | 2 | the command line is wrong |\n\
        | 125 | `up`, `exec` and `shell`: the launcher failed, or the command line is wrong |\n\
        | 126, 127 | `up`, `exec` and `shell`: the command cannot be executed, or is not there |\n\
        | other | `up`, `exec` and `shell`: the command's own; 128 plus the number of the signal that ended it |\n\n\
        A failure begins with `error[CODE]`. `sandbox explain CODE` says the same as this table.\n\n\
        | code | what it means |\n| --- | --- |\n"
        .to_owned();
    for entry in all {
        let (code, meaning) = (entry["code"].as_str().unwrap(), entry["text"].as_str().unwrap());
        let _ = writeln!(body, "| `{code}` | {} |", cell(meaning));
    }
    assert_page("errors.md", "Exit codes and errors", "`sandbox explain`", &body);
}

#[test]
fn the_page_of_labels_is_current() {
    let labels = [
        (identity::LABEL_PROJECT, "the project"),
        (identity::LABEL_SANDBOX, "which of several sandboxes of the project"),
        (identity::LABEL_SESSION, "the session that made it"),
        (identity::LABEL_ROLE, "what it is for, such as `agent`, `gateway` or `relay`"),
        (identity::LABEL_PLAN, "the hash of the plan that it was made from"),
        (identity::LABEL_OWNER, "`USER@HOST` of who started it"),
        (identity::LABEL_PROOF, "a keyed proof that this machine's launcher made it"),
    ];
    let mut body =
        "Labels of the containers and volumes. They are for finding things: nothing is removed on the word of a \
                    label alone.\n\n| label | value |\n| --- | --- |\n"
            .to_owned();
    for (label, meaning) in labels {
        let _ = writeln!(body, "| `{label}` | {meaning} |");
    }
    // Another label would have to be told too.
    let source = fs::read_to_string(documents().join("../src/session/identity.rs")).unwrap();
    assert_eq!(source.matches("pub const LABEL_").count(), labels.len());
    assert_page("labels.md", "Labels", "src/session/identity.rs", &body);
}

#[test]
fn the_page_of_the_agents_is_current_and_its_manifests_are_read() {
    let mut body =
        "`agent: NAME` in the manifest chooses the command and the image. The hosts are not added by themselves: \
                    write them, so that the list that you approve is complete. `sandbox init --agent NAME` does it.\n"
            .to_owned();
    for preset in preset::PRESETS {
        let mut text = format!("version: 1\nproject: my-project\nagent: {}\nnetwork:\n  allow:", preset.name);
        text.push_str(if preset.hosts.is_empty() { " []\n" } else { "\n" });
        for host in preset.hosts {
            let _ = writeln!(text, "    - {host}");
        }
        if let Some(key) = preset.key {
            let header = key.header.map(|header| format!(", header: {header}")).unwrap_or_default();
            let _ = writeln!(
                text,
                "credentials:\n  {}:\n    provider: store\n    deliver: {{ broker: {}{header}, environment: {} }}",
                key.credential, key.host, key.variable
            );
        }
        let read = manifest::parse(&text, Path::new("/nowhere/sandbox.yaml"));
        assert!(read.is_ok(), "{text}\n{:?}", read.err());
        let _ = write!(body, "\n## {}\n\n", preset.name);
        let _ = write!(
            body,
            "Runs `{}` in the image `{}`. Its own state is in `~/{}`, which `workspace: {{ home: keep }}` keeps.\n\n\
             ```yaml\n{text}```\n",
            preset.command(true).join(" "),
            preset.image,
            preset.state_folder
        );
        if !documents().join("../images").join(preset.image).exists() {
            let _ =
                writeln!(body, "\nThis image does not come with `sandbox`: write images/{}/image.yaml.", preset.image);
        }
        if let Some(key) = preset.key {
            let _ = write!(
                body,
                "\n`sandbox credential set {}` asks for the key. It stays with the gateway, which puts it into requests to \
                 `{}`; the agent sees a stand-in in `{}`.\n",
                key.credential, key.host, key.variable
            );
        }
    }
    assert_page("agents.md", "Agents", "src/project/preset.rs", &body);
}

/// The pages that a table of contents names.
fn contents() -> BTreeSet<String> {
    let summary = fs::read_to_string(documents().join("SUMMARY.md")).unwrap();
    let links = summary.split("](").skip(1).map(|rest| rest.split(')').next().unwrap().to_owned());
    links.collect()
}

#[test]
fn every_page_is_in_the_table_of_contents_and_leads_to_pages_and_headings_that_are_there() {
    let mut pages = BTreeSet::new();
    for folder in ["", "reference/", "how-to/agents/", "how-to/credentials/"] {
        for entry in fs::read_dir(documents().join(folder)).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            if name.ends_with(".md") && name != "SUMMARY.md" {
                pages.insert(format!("{folder}{name}"));
            }
        }
    }
    assert_eq!(contents(), pages);
    let heading = |line: &str| -> String {
        let plain = line.trim_start_matches('#').trim().to_lowercase();
        let kept = plain.chars().filter(|letter| letter.is_alphanumeric() || " -_".contains(*letter));
        kept.collect::<String>().replace(' ', "-")
    };
    let mut checked = 0;
    for page in &pages {
        let path = documents().join(page);
        let text = fs::read_to_string(&path).unwrap();
        for link in text.split("](").skip(1).map(|rest| rest.split(')').next().unwrap()) {
            if link.starts_with("http") {
                continue;
            }
            let (file, anchor) = link.split_once('#').unwrap_or((link, ""));
            let target = if file.is_empty() { path.clone() } else { path.parent().unwrap().join(file) };
            let there = fs::read_to_string(&target).unwrap_or_else(|_| panic!("{page} leads to {link}"));
            let found = there.lines().filter(|line| line.starts_with('#')).any(|line| heading(line) == anchor);
            assert!(anchor.is_empty() || found, "{page} leads to {link}, and there is no such heading");
            checked += 1;
        }
    }
    assert!(checked > 10, "only {checked} links");
}
