//! Keeps the rules of ARCHITECTURE.md by reading `src/`: who may name which crate, which module may know which, what is
//! absent. A rule here is cheaper to change than to break: whoever needs an exception writes it down with its reason.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// The text of every source file without comments, by path below `src/`.
fn sources() -> BTreeMap<String, String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = BTreeMap::new();
    let mut folders = vec![root.clone()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path: PathBuf = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let name = path.strip_prefix(&root).unwrap().to_str().unwrap().to_owned();
                found.insert(name, fs::read_to_string(&path).unwrap());
            }
        }
    }
    assert!(found.len() > 30, "only {} files were read", found.len());
    found
}

/// The code of a file: comment lines count for nothing.
fn code(text: &str) -> String {
    text.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
}

/// Whether the code has this word, not as a part of a longer one.
fn has_word(text: &str, word: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    let open_end = !word.ends_with(|last: char| last.is_ascii_alphanumeric());
    text.match_indices(word).any(|(start, _)| {
        let before = start.checked_sub(1).and_then(|index| text.as_bytes().get(index));
        let after = text.as_bytes().get(start + word.len());
        !before.is_some_and(|&byte| inner(byte)) && (open_end || !after.is_some_and(|&byte| inner(byte)))
    })
}

/// Whether the file is one of these, or below one of these that end with `/`.
fn is_below(name: &str, places: &[&str]) -> bool {
    places.iter().any(|place| name == *place || (place.ends_with('/') && name.starts_with(place)))
}

/// Tests may do what the program may not, and many test the very thing.
fn is_test(name: &str) -> bool {
    name.ends_with("/tests.rs") || name.contains("/tests/")
}

/// Asserts that only these places have one of these words in their code.
fn only(words: &[&str], places: &[&str]) {
    let sources = sources();
    let holders: Vec<_> = sources
        .iter()
        .filter(|(name, text)| !is_test(name) && words.iter().any(|word| has_word(&code(text), word)))
        .map(|(name, _)| name.as_str())
        .collect();
    assert!(!holders.is_empty(), "nobody names {words:?}: the rule guards nothing");
    let wrong: Vec<_> = holders.iter().filter(|name| !is_below(name, places)).collect();
    assert!(wrong.is_empty(), "{words:?} may only be in {places:?}, and is in {wrong:?}");
}

#[test]
fn words_are_found_whole_and_outside_comments() {
    assert!(has_word("use clap::Args;", "clap"));
    assert!(!has_word("use clap_complete::Shell; overclap", "clap"));
    assert!(!has_word(&code("    // bollard is elsewhere\n//! bollard"), "bollard"));
    assert!(has_word(&code("x(); // why\nbollard::Docker"), "bollard"));
}

#[test]
fn only_the_engine_names_bollard() {
    only(&["bollard::"], &["engine/"]);
}

#[test]
fn only_the_command_line_names_clap() {
    only(&["clap"], &["cli/", "commands/"]);
}

#[test]
fn only_the_readers_of_files_that_people_edit_name_the_yaml_crate() {
    // The manifest and the configuration go through `project/yaml.rs`, which keeps positions; profiles are compiled in.
    only(&["serde_yaml"], &["project/yaml.rs", "profile/mod.rs", "image/definition.rs", "image/error.rs"]);
}

#[test]
fn only_credentials_and_the_gateway_expose_a_secret() {
    // A login of a registry goes into the header of a request to that registry.
    only(&["expose"], &["credential/", "gateway/", "image/registry/login.rs"]);
}

#[test]
fn only_the_printer_prints() {
    only(&["println!", "eprintln!", "print!", "eprint!"], &["commands/printer.rs"]);
}

#[test]
fn the_environment_is_read_by_commands_and_inside_the_container_alone() {
    // `cli` reads the wish for a log before there is a context. git is looked for along PATH, since its own process gets
    // an empty environment. `init` runs in the container, where the environment is the launcher's own work.
    let places = ["cli/mod.rs", "commands/", "init/", "workspace/git.rs"];
    only(&["env::var", "env::var_os", "env::vars", "env::vars_os"], &places);
}

#[test]
fn modules_know_only_those_before_them() {
    // What each group of modules must not name. `engine::container` is data, and so is what `profile` fills in.
    let domain = ["project/", "profile/", "network/", "credential/", "image/", "workspace/", "editor/", "audit/"];
    let rules: &[(&[&str], &[&str])] = &[
        (&domain, &["session", "engine", "commands", "cli"]),
        (&["network/"], &["project", "profile", "credential", "image", "workspace", "audit", "gateway", "init"]),
        (&["gateway/"], &["session", "engine", "commands", "cli", "project", "profile", "image", "workspace", "audit"]),
        (&["init/"], &["session", "engine", "commands", "cli", "project", "profile", "image", "workspace", "audit"]),
        (&["engine/"], &["session", "commands", "cli", "project", "workspace", "credential", "gateway", "init"]),
        (&["session/"], &["commands", "cli"]),
    ];
    let data = ["crate::engine::container", "crate::commands::printer::sanitise"];
    let mut wrong = Vec::new();
    for (name, text) in sources().iter().filter(|(name, _)| !is_test(name)) {
        let text = data.iter().fold(code(text), |text, allowed| text.replace(allowed, ""));
        for (places, modules) in rules.iter().filter(|(places, _)| is_below(name, places)) {
            for module in modules.iter().filter(|module| has_word(&text, &format!("crate::{module}"))) {
                wrong.push(format!("{name} names crate::{module}, which {places:?} must not know"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn nothing_calls_the_archive_calls_of_the_engine() {
    for (name, text) in sources() {
        for call in ["upload_to_container", "download_from_container", "put_container_archive", "get_container_archive"]
        {
            assert!(!has_word(&code(&text), call), "{name} calls {call}: files go through exec and attach streams");
        }
    }
}

#[test]
fn nothing_allows_itself_unsafe_code() {
    for (name, text) in sources() {
        // The lint denies it; what it cannot deny is being switched off.
        assert!(!has_word(&code(&text), "unsafe_code"), "{name} switches the lint off");
    }
}

#[test]
fn every_module_says_what_it_is_for() {
    for (name, text) in sources().iter().filter(|(name, _)| *name != "main.rs" && !is_test(name)) {
        assert!(text.starts_with("//! "), "{name} does not begin with what it is for");
    }
}

#[test]
fn no_file_does_everything() {
    let long: Vec<_> = sources()
        .iter()
        .map(|(name, text)| (name.clone(), text.lines().count()))
        .filter(|(_, lines)| *lines > 800)
        .collect();
    assert!(long.is_empty(), "these files do too much: {long:?}");
    for name in sources().keys() {
        let stem = Path::new(name).file_stem().unwrap().to_str().unwrap();
        assert!(!["utils", "util", "helpers", "misc", "common"].contains(&stem), "{name} says nothing by its name");
    }
}

#[test]
fn main_holds_no_logic() {
    assert!(sources()["main.rs"].lines().count() <= 15);
}
