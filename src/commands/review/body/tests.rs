use std::time::Instant;

use proptest::prelude::*;

use super::*;
use crate::commands::page::page;
use crate::commands::report::tests::eventful;
use crate::workspace::review::{CommitSummary, FileChange, Review};

fn material(path: &str, subject: &str, patch: &str) -> Material {
    let file = FileChange {
        path: path.to_owned(),
        status: 'M',
        mode: "100644".to_owned(),
        size: Some(3),
        added: Some(1),
        removed: None,
    };
    let remark =
        Remark { path: path.to_owned(), reason: "runs when the folder is opened", line: Some(3), commit: None };
    Material {
        project: "demo".to_owned(),
        name: "main".to_owned(),
        branch: "main".to_owned(),
        base: "a".repeat(40),
        head: "b".repeat(40),
        review: Review {
            commits: vec![CommitSummary {
                signature: None,
                id: "c".repeat(40),
                author: subject.to_owned(),
                subject: subject.to_owned(),
                body: format!("{subject}\n\n{subject}"),
            }],
            files: vec![file],
            held_back: vec![remark.clone()],
            shown_first: vec![remark],
        },
        patch: Some(patch.to_owned()),
        session: Some(eventful()),
    }
}

const TAGS: &[&str] = &[
    "!DOCTYPE", "html", "head", "meta", "title", "style", "body", "h1", "h2", "h3", "p", "code", "span", "div",
    "table", "thead", "tbody", "tr", "th", "td", "details", "summary", "pre",
];

fn tags(page: &str) -> Vec<String> {
    let style = page.split("</style>").nth(1).unwrap_or_default();
    let names = style.split('<').skip(1).map(|rest| rest.split([' ', '>']).next().unwrap_or_default());
    names.map(|name| name.trim_start_matches('/').to_owned()).collect()
}

proptest! {
    #[test]
    fn nothing_of_an_agents_becomes_markup(
        path in "[ -~\u{202e}\u{0}\n]{0,40}",
        subject in "(<script>|</td>|\"|'|&|on|=|>|[a-z ]){0,12}",
        line in "[+-]?(</span>|</pre>|<img src=x>|&lt;|[ -~]){0,8}",
    ) {
        let patch = format!("diff --git a/{0} b/{0}\n@@ -1 +1 @@\n{line}\n", path.replace('\n', ""));
        let page = page("x", &body(&material(&path, &subject, &patch)));
        let odd: Vec<String> = tags(&page).into_iter().filter(|tag| !TAGS.contains(&tag.as_str())).collect();
        prop_assert!(odd.is_empty(), "{odd:?}");
        let hidden = page.contains(['\u{202e}', '\u{0}']);
        prop_assert!(!hidden);
    }
}

#[test]
fn the_risky_files_come_first_and_are_open() {
    let patch = "diff --git a/a.rs b/a.rs\n@@ -1 +1 @@\n-x\n+diff --git a/z b/z\ndiff --git a/.vscode/tasks.json b/.vscode/tasks.json\n+y\n";
    let material = material(".vscode/tasks.json", "x", patch);
    let text = body(&material).into_string();
    let place = |needle: &str| text.find(needle).unwrap_or(usize::MAX);
    assert!(place("<details open><summary><code>.vscode/tasks.json") < place("<details><summary><code>a.rs"), "{text}");
    assert!(text.contains("<span class=\"add\">+diff --git a/z b/z</span>"), "a line of a hunk is no file");
    assert!(text.contains("1 held back") && text.contains("--accept-risk"));
}

#[test]
fn a_large_change_is_cut_with_a_word_and_made_at_once() {
    let mut patch = String::new();
    for file in 0..10_000 {
        patch.push_str(&format!("diff --git a/f{file} b/f{file}\n@@ -1 +1,20 @@\n"));
        patch.push_str(&"+a line of some length that stands for code\n".repeat(20));
    }
    patch.push_str("diff --git a/long b/long\n");
    let mut material = material("f1", "x", &patch);
    material.review.files = vec![material.review.files[0].clone(); 12_000];
    let begun = Instant::now();
    let text = page("x", &body(&material));
    assert!(text.len() < 40 << 20 && text.contains("And 2000 more"), "{}", text.len());
    assert!(begun.elapsed().as_secs() < 20, "{:?}", begun.elapsed());
    material.patch = Some(format!("diff --git a/long b/long\n{}", "+x\n".repeat(LINE_LIMIT + 1)));
    assert!(body(&material).into_string().contains("Cut here"));
    material.patch = None;
    assert!(body(&material).into_string().contains("larger than a page can hold"));
}

#[test]
fn a_header_names_its_one_path_whatever_is_in_it() {
    for (header, expected) in [
        ("a/src/lib.rs b/src/lib.rs", Some("src/lib.rs")),
        ("a/evil b/README.md b/evil b/README.md", Some("evil b/README.md")),
        (r#""a/na<me> \"q\".txt" "b/na<me> \"q\".txt""#, Some("na<me> \"q\".txt")),
        (r#""a/caf\303\251\tx" "b/caf\303\251\tx""#, Some("caf\u{e9}\\tx")),
        ("a/x b/y", None),
        ("", None),
        (r#""a/x\\y" "b/x\\y""#, Some("x\\y")),
    ] {
        assert_eq!(path(header).as_deref(), expected, "{header}");
    }
}

#[test]
fn many_large_changes_take_no_room_from_a_risky_one() {
    let mut patch = String::new();
    for file in 0..100 {
        let lines =
            "+a line of some length that stands for code that fills a page up to its limit\n".repeat(LINE_LIMIT);
        patch.push_str(&format!("diff --git a/f{file} b/f{file}\n@@ -1 +1 @@\n{lines}"));
    }
    patch.push_str("diff --git a/z.sh b/z.sh\n@@ -1 +1 @@\n+the one to look at\n");
    let text = body(&material("z.sh", "x", &patch)).into_string();
    assert!(text.contains("+the one to look at") && text.contains("More files changed than the page has room for"));
}

#[test]
fn a_name_that_is_sanitised_and_quoted_is_found_among_the_risky() {
    let name = "two\\nlines \\u{1b}\\u{202e}.md";
    let patch = format!(
        "diff --git a/z b/z\n@@ -1 +1 @@\n+z\ndiff --git \"a/{0}\" \"b/{0}\"\n@@ -1 +1 @@\n+risky\n",
        name.replace("\\u{1b}", "\\033")
    );
    let text = body(&material(name, "x", &patch)).into_string();
    assert!(text.find("+risky").unwrap() < text.find("+z<").unwrap(), "{text}");
    assert!(text.contains("<details open><summary><code>two\\nlines \\u{1b}\\u{202e}.md"), "{text}");
}
