//! The page of `sandbox review`, by risk first. Every text in it is an agent's and goes through the template's escaping.

use std::collections::BTreeSet;

use maud::{Markup, html};

use super::{Material, by_risk, next};
use crate::audit::report::SessionReport;
use crate::commands::page::shown;
use crate::commands::report::{counted, exchange, usage};
use crate::project::quantity::show_size;
use crate::workspace::review::{CommitSummary, Remark, Review, display};

/// Lines of one file's patch that the page has.
const LINE_LIMIT: usize = 2_000;
/// Bytes of one file's patch that the page has.
const FILE_LIMIT: usize = 256 << 10;
/// Bytes of all patches that the page has.
const PATCH_LIMIT: usize = 12 << 20;
/// Rows of a table.
const ROW_LIMIT: usize = 10_000;
/// Patches that are open when the page is: those to look at first.
const OPEN_LIMIT: usize = 20;

pub(super) fn body(material: &Material) -> Markup {
    let review = &material.review;
    let (command, how) = next(material);
    html! {
        h1 { "Review of " (shown(&material.project)) " (" (shown(&material.name)) ")" }
        p class="dim" {
            "Branch " code { (shown(&material.branch)) } ", from " code { (short(&material.base)) } " to " code { (short(&material.head)) }
        }
        p {
            @if review.held_back.is_empty() { span class="tag good" { "nothing is held back" } }
            @else { span class="tag bad" { (review.held_back.len()) " held back" } }
            " "
            @if !review.shown_first.is_empty() { span class="tag look" { (review.shown_first.len()) " to look at first" } " " }
            @if review.commits.is_empty() { "There is no new commit." }
            @else { (counted(review.commits.len() as u64, "commit")) ", " (counted(review.files.len() as u64, "changed file")) }
        }
        @if !review.commits.is_empty() { p class="panel" {
            "This finds what runs by itself and what hides. It does not find bugs or malice in code: that is yours to read. Bring it in with "
            code { (shown(&command)) } (how) "."
        } }
        (remarks("Held back", "bad", &review.held_back))
        (remarks("To look at first", "look", &review.shown_first))
        h2 { "Commits" }
        (signatures(review))
        (commits(&review.commits))
        @if let Some(session) = &material.session { (of_session(session)) }
        h2 { "Files" }
        (rows(&["file", "change", "added", "removed", "size", "mode"], review.files.len(), by_risk(review).into_iter().map(|file| {
            let count = |count: Option<u64>| count.map_or_else(|| "binary".to_owned(), |count| count.to_string());
            let status = match file.status { 'A' => "added", 'D' => "deleted", 'T' => "other type", _ => "changed" };
            [file.path.clone(), status.to_owned(), count(file.added), count(file.removed), file.size.map(show_size).unwrap_or_default(), file.mode.clone()]
        })))
        h2 { "Changes" }
        (patches(material))
    }
}

pub(super) fn short(id: &str) -> &str {
    id.get(..12).unwrap_or(id)
}

/// A table, cut at the limit with a word that says so.
fn rows<const N: usize>(columns: &[&str; N], count: usize, rows: impl Iterator<Item = [String; N]>) -> Markup {
    html! {
        @if count == 0 { p class="dim" { "None." } }
        @else {
            div class="scroll" {
                table {
                    thead { tr { @for column in columns { th { (column) } } } }
                    tbody { @for row in rows.take(ROW_LIMIT) { tr { @for cell in row { td { (shown(&cell)) } } } } }
                }
            }
            @if count > ROW_LIMIT { p class="dim" { "And " (count - ROW_LIMIT) " more, which `sandbox diff --names` lists." } }
        }
    }
}

/// Each commit with its whole message.
fn commits(commits: &[CommitSummary]) -> Markup {
    html! {
        @if commits.is_empty() { p class="dim" { "None." } }
        @else {
            div class="scroll" {
                table {
                    thead { tr { th { "commit" } th { "author" } th { "message" } } }
                    tbody { @for commit in commits { tr {
                        td { code { (short(&commit.id)) } }
                        td { (shown(&commit.author)) }
                        td {
                            (shown(&commit.subject))
                            @if !commit.body.is_empty() { pre class="message" { (shown(&commit.body)) } }
                        }
                    } } }
                }
            }
        }
    }
}

/// Which commits no session of the sandbox signed, when its sessions sign.
fn signatures(review: &Review) -> Markup {
    let unsigned = review.unsigned();
    html! {
        @if !unsigned.is_empty() {
            p class="panel" {
                span class="tag look" { (unsigned.len()) " not signed by this sandbox" } " "
                (unsigned.iter().map(|commit| short(&commit.id)).collect::<Vec<_>>().join(", "))
            }
        } @else if review.commits.iter().any(|commit| commit.signature.is_some()) {
            p { span class="tag good" { "all are signed by this sandbox" } }
        }
    }
}

fn remarks(title: &str, class: &str, remarks: &[Remark]) -> Markup {
    html! {
        @if !remarks.is_empty() {
            h2 { span class={ "tag " (class) } { (title) } }
            (rows(&["path", "reason", "line", "commit"], remarks.len(), remarks.iter().map(|remark| {
                let line = remark.line.map(|line| line.to_string()).unwrap_or_default();
                let commit = remark.commit.as_deref().map(|id| format!("{}, not in the last one", short(id)));
                [remark.path.clone(), remark.reason.to_owned(), line, commit.unwrap_or_default()]
            })))
        }
    }
}

/// The page of one session.
pub(super) fn session(title: &str, session: &SessionReport) -> Markup {
    let time = |time: &jiff::Timestamp| time.strftime("%Y-%m-%d %H:%M:%SZ").to_string();
    let end = match (&session.ended, &session.reason) {
        (Some(ended), Some(reason)) => format!("Ended {}: {reason}.", time(ended)),
        (Some(ended), None) => format!("Ended {}.", time(ended)),
        (None, _) => "Not ended yet.".to_owned(),
    };
    html! {
        h1 { (shown(title)) }
        p class="dim" { "Session " code { (shown(&session.session)) } ", branch " code { (shown(&session.branch)) } ", from " code { (short(&session.base)) } }
        p {
            @if let Some(launched) = &session.launched { "Launched " (time(launched)) ". " }
            (shown(&end))
            @if let Some(used) = session.processor_ms { " It used " (used / 1000) " s of processor time" }
            @if let Some(peak) = session.memory_peak { " and at most " (show_size(peak)) " of memory." }
        }
        (of_session(session))
        h3 { "Commits that came back" }
        (rows(&["when", "who", "what"], session.exchanges.len(), session.exchanges.iter().map(|one| [
            time(&one.time),
            one.actor.clone(),
            format!("{}: {}", if one.landed { "pulled" } else { "held back" }, exchange(one)),
        ])))
        h3 { "Also" }
        (rows(&["when", "who", "what", "facts"], session.notices.len(), session.notices.iter().map(|notice| [
            time(&notice.time),
            notice.actor.clone(),
            notice.action.clone(),
            notice.facts.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(" "),
        ])))
    }
}

fn of_session(session: &SessionReport) -> Markup {
    html! {
        h2 { "Session" }
        p { "Started by " (shown(&session.actor)) ", image " code { (shown(&session.image)) } ", " (counted(session.probes, "check")) " of the confinement passed." }
        h3 { "Credentials" }
        (rows(&["name", "provider", "issued", "expires", "use", "end"], session.credentials.len(), session.credentials.iter().map(|used| [
            used.name.clone(),
            used.provider.clone(),
            used.issued.strftime("%Y-%m-%d %H:%M:%SZ").to_string(),
            used.expires.clone(),
            usage(used),
            used.state(),
        ])))
        h3 { "Commands started in it" }
        (rows(&["when", "who", "command", "exit code"], session.commands.len(), session.commands.iter().map(|run| [
            run.time.strftime("%Y-%m-%d %H:%M:%SZ").to_string(),
            run.actor.clone(),
            run.command.clone(),
            run.code.map(|code| code.to_string()).unwrap_or_default(),
        ])))
        h3 { "Changed outside of the commits, as the container says" }
        (rows(&["path", "change"], session.outside.len(), session.outside.iter().map(|file| [
            file.path.clone(),
            file.change.clone(),
        ])))
        h3 { "Hosts reached" }
        (rows(&["host", "connections", "requests", "sent", "received"], session.hosts.len(), session.hosts.iter().map(|used| [
            format!("{}:{}", used.host, used.port),
            used.connections.to_string(),
            used.requests.to_string(),
            show_size(used.sent),
            show_size(used.received),
        ])))
        h3 { "Denied" }
        (rows(&["host", "why", "times"], session.denied.len(), session.denied.iter().map(|denied| [
            denied.place(),
            denied.reason.clone(),
            denied.count.to_string(),
        ])))
    }
}

/// The patch of one file.
struct Patch<'a> {
    path: String,
    lines: Vec<&'a str>,
    /// Whether a hunk began: before it stand git's own words.
    hunk: bool,
    cut: bool,
    risky: bool,
}

/// A patch of git's by file, riskiest first, so that no number of other changes takes their room: each begins with a line
/// `diff --git`, which no line of a hunk does, for those begin with a space, a sign or a backslash.
fn split<'a>(patch: &'a str, risky: &BTreeSet<&str>) -> (Vec<Patch<'a>>, bool) {
    let mut sections: Vec<(Patch<'a>, Vec<&'a str>)> = Vec::new();
    for line in patch.lines() {
        if let Some(header) = line.strip_prefix("diff --git ") {
            let path = path(header).unwrap_or_else(|| header.to_owned());
            let risky = risky.contains(path.as_str());
            sections.push((Patch { path, lines: Vec::new(), hunk: false, cut: false, risky }, Vec::new()));
        } else if let Some((_, lines)) = sections.last_mut() {
            lines.push(line);
        }
    }
    sections.sort_by_key(|(file, _)| !file.risky);
    let (mut found, mut bytes) = (Vec::new(), 0);
    for (mut file, lines) in sections {
        if bytes >= PATCH_LIMIT {
            return (found, true);
        }
        bytes += file.take(lines);
        found.push(file);
    }
    (found, false)
}

impl<'a> Patch<'a> {
    /// Takes as many lines as a file may have, and says how many bytes these are.
    fn take(&mut self, lines: Vec<&'a str>) -> usize {
        let mut own = 0;
        for line in lines {
            self.hunk |= line.starts_with("@@ ");
            if !self.hunk && ["index ", "--- ", "+++ "].iter().any(|word| line.starts_with(word)) {
                continue;
            }
            if self.lines.len() >= LINE_LIMIT || own + line.len() >= FILE_LIMIT {
                self.cut = true;
                break;
            }
            own += line.len() + 1;
            self.lines.push(line);
        }
        own
    }
}

/// The path in `a/PATH b/PATH` or `"a/PATH" "b/PATH"`. Without renames both are the same, and a path that has ` b/` in it is
/// not taken for another one.
fn path(header: &str) -> Option<String> {
    let (one, other) = (header.get(..header.len() / 2)?, header.get(header.len() / 2 + 1..)?);
    if let (Some(one), Some(other)) = (one.strip_prefix("a/"), other.strip_prefix("b/")) {
        return (one == other).then(|| one.to_owned());
    }
    let quoted =
        |text: &str, side: &str| Some(unquoted(text.strip_prefix('"')?.strip_prefix(side)?.strip_suffix('"')?));
    let (one, other) = (quoted(one, "a/")?, quoted(other, "b/")?);
    (one == other).then(|| display(&one))
}

/// What git's quoting stands for (git-config(1), `core.quotePath`): escapes as in C, with three octal digits for a byte.
fn unquoted(text: &str) -> Vec<u8> {
    let (mut bytes, mut rest) = (Vec::new(), text.as_bytes());
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        if byte != b'\\' {
            bytes.push(byte);
            continue;
        }
        let octal = rest.get(..3).and_then(|digits| std::str::from_utf8(digits).ok());
        if let Some(byte) = octal.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            bytes.push(byte);
            rest = &rest[3..];
        } else if rest.starts_with(b"u{") {
            // Not git's: what shows an invisible character since the patch was sanitised.
            bytes.push(byte);
        } else if let Some((&letter, after)) = rest.split_first() {
            let letters = [(b'a', 7), (b'b', 8), (b't', 9), (b'n', 10), (b'v', 11), (b'f', 12), (b'r', 13)];
            bytes.push(letters.iter().find(|(known, _)| *known == letter).map_or(letter, |(_, byte)| *byte));
            rest = after;
        }
    }
    bytes
}

fn patches(material: &Material) -> Markup {
    let review = &material.review;
    let risky: BTreeSet<&str> =
        review.held_back.iter().chain(&review.shown_first).map(|remark| remark.path.as_str()).collect();
    let Some(patch) = &material.patch else {
        return html! { p { "The changes are larger than a page can hold. Look at them with `git diff` after `sandbox pull`, or file by file." } };
    };
    let (files, cut) = split(patch, &risky);
    html! {
        @for (index, file) in files.iter().enumerate() {
            details open[file.risky && index < OPEN_LIMIT] {
                summary {
                    code { (shown(&file.path)) }
                    @if file.risky { " " span class="tag look" { "look" } }
                }
                pre { @for line in &file.lines { (one(line, file.hunk)) } }
                @if file.cut { p class="dim" { "Cut here: the rest is in `sandbox diff --patch`." } }
            }
        }
        @if cut { p { "More files changed than the page has room for: `sandbox diff --patch` shows them all." } }
    }
}

fn one(line: &str, hunk: bool) -> Markup {
    let class = match line.as_bytes().first().filter(|_| hunk) {
        Some(b'+') => "add",
        Some(b'-') => "del",
        Some(b'@') => "hunk",
        _ => "same",
    };
    html! { span class=(class) { (shown(line)) } }
}

#[cfg(test)]
mod tests;
