//! What every verb says of itself at two widths, and the manual pages made of it. No engine is needed.

#![allow(clippy::unwrap_used, reason = "a test says by a panic what is wrong")]

mod support;

use std::fs;
use std::process::Command;

use support::{Home, text};

fn help(home: &Home, verb: &[String], columns: &str) -> String {
    let output = home.sandbox().args(verb).arg("--help").env("COLUMNS", columns).output().unwrap();
    assert!(output.status.success(), "{verb:?}: {}", text(&output.stderr));
    text(&output.stdout)
}

/// The verbs that a help page lists.
fn listed(page: &str) -> Vec<String> {
    let list = page.split("\nCommands:\n").nth(1).unwrap_or_default();
    let lines = list.lines().take_while(|line| !line.is_empty());
    let names = lines.filter(|line| !line.starts_with("    ")).filter_map(|line| line.split_whitespace().next());
    names.filter(|name| *name != "help").map(str::to_owned).collect()
}

/// Every verb that is not hidden, in the order of the help; the program itself is the first.
fn verbs(home: &Home) -> Vec<Vec<String>> {
    let mut found = vec![Vec::new()];
    let mut at = 0;
    while let Some(verb) = found.get(at).cloned() {
        for name in listed(&help(home, &verb, "80")) {
            found.push(verb.iter().cloned().chain([name]).collect());
        }
        at += 1;
    }
    assert!(found.len() > 40, "only {} verbs", found.len());
    found
}

#[test]
fn every_page_teaches_at_eighty_and_at_a_hundred_and_twenty_columns() {
    let home = Home::without_engine();
    let verbs = verbs(&home);
    for columns in [80, 120] {
        let mut pages = String::new();
        for verb in &verbs {
            let page = help(&home, verb, &columns.to_string());
            for line in page.lines() {
                assert!(line.chars().count() <= columns, "{verb:?} at {columns}: {line}");
            }
            let examples = page.split("\nExamples:\n").nth(1).unwrap_or_else(|| panic!("{verb:?} has no example"));
            assert!(examples.lines().all(|line| line.starts_with("  ")), "{verb:?} does not end with its examples");
            pages.push_str(&format!("==== sandbox {}\n{page}\n", verb.join(" ")));
        }
        insta::assert_snapshot!(format!("help_{columns}"), pages);
    }
}

#[test]
fn every_verb_has_a_manual_page_that_can_be_typeset() {
    let home = Home::without_engine();
    let folder = home.path().join("man/man1");
    let output = home.sandbox().args(["man", "--output"]).arg(&folder).output().unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    let verbs = verbs(&home);
    for verb in &verbs {
        let name: String = verb.iter().map(|word| format!("-{word}")).collect();
        let page = fs::read_to_string(folder.join(format!("sandbox{name}.1"))).unwrap();
        assert!(page.contains(".SH NAME") && page.contains("Examples:"), "{verb:?}");
    }
    assert_eq!(fs::read_dir(&folder).unwrap().count(), verbs.len(), "a hidden verb has a page");
    let first = home.sandbox().arg("man").output().unwrap();
    assert_eq!(first.stdout, fs::read(folder.join("sandbox.1")).unwrap());
    for entry in fs::read_dir(&folder).unwrap() {
        let page = entry.unwrap().path();
        let output = Command::new("groff").args(["-k", "-man", "-Tutf8", "-ww"]).arg(&page).output();
        let output = output.unwrap_or_else(|error| panic!("groff: {error}: run `make packages`"));
        assert!(output.status.success() && output.stderr.is_empty(), "{page:?}: {}", text(&output.stderr));
        assert!(!page.ends_with("sandbox-up.1") || text(&output.stdout).contains("--detach"));
    }
}

#[test]
fn says_where_the_manual_pages_could_not_be_written() {
    let home = Home::without_engine();
    fs::write(home.path().join("taken"), "").unwrap();
    let output = home.sandbox().args(["man", "--output"]).arg(home.path().join("taken")).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("error[man-not-written]"), "{}", text(&output.stderr));
}
