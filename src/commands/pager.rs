//! Shows long text on a terminal page by page, with the pager of the developer's environment.
//!
//! What comes here is sanitised already. In a pipe, for JSON and for what fits on the screen there is no pager.

use std::ffi::{OsStr, OsString};
use std::io::{IsTerminal as _, Write as _};
use std::path::PathBuf;
use std::process::{Command, Stdio};

/// What shows pages when the environment names nothing else: it goes away where one screen is enough, keeps colours and leaves
/// the text on the screen.
const PAGER: &str = "less";
const LESS: &str = "FRX";

/// Shows the text by a pager. Gives it back where none is to be used, or none could be started.
pub(super) fn show(text: String) -> Option<String> {
    let output = std::io::stdout();
    let rows = rustix::termios::tcgetwinsize(&output).map_or(0, |size| usize::from(size.ws_row));
    if !output.is_terminal() || rows == 0 || text.lines().count() < rows {
        return Some(text);
    }
    let set = std::env::var_os("SANDBOX_PAGER").or_else(|| std::env::var_os("PAGER"));
    let Some(words) = chosen(set, &std::env::var_os("PATH").unwrap_or_default()) else { return Some(text) };
    let mut command = Command::new("/bin/sh");
    // As git does: the variable may hold options, and whoever sets it may run what he likes.
    command.arg("-c").arg(words).stdin(Stdio::piped());
    if std::env::var_os("LESS").is_none() {
        command.env("LESS", LESS);
    }
    // Ctrl-C is for the pager, which would be left behind with the terminal otherwise. This is the last that a verb does.
    let kept = tokio::runtime::Handle::try_current().is_ok();
    let _interrupts = kept.then(|| tokio::signal::unix::signal(tokio::signal::unix::SignalKind::interrupt()));
    let Ok(mut child) = command.spawn() else { return Some(text) };
    if let Some(mut input) = child.stdin.take() {
        // Whoever leaves the pager early has seen enough.
        drop(input.write_all(text.as_bytes()));
    }
    // 127: the shell found no such program (sh(1), "Exit status").
    let absent = child.wait().is_ok_and(|status| status.code() == Some(127));
    absent.then_some(text)
}

/// The command line of the pager; none when it is switched off, or when nothing is set and there is none.
fn chosen(set: Option<OsString>, path: &OsStr) -> Option<OsString> {
    let Some(words) = set else {
        let there = |folder: PathBuf| folder.is_absolute() && folder.join(PAGER).is_file();
        return std::env::split_paths(path).any(there).then(|| PAGER.into());
    };
    if matches!(words.to_string_lossy().trim(), "" | "cat") { None } else { Some(words) }
}

/// A patch in colours: added and removed lines, and where a hunk begins. The signs say the same without them.
pub(super) fn coloured(patch: &str) -> String {
    let coloured = anstream::AutoStream::choice(&std::io::stdout()) != anstream::ColorChoice::Never;
    if !coloured {
        return patch.to_owned();
    }
    paint(patch)
}

fn paint(patch: &str) -> String {
    use anstyle::AnsiColor::{Cyan, Green, Red};
    let mut text = String::with_capacity(patch.len() + patch.len() / 4);
    let mut hunk = false;
    for line in patch.split_inclusive('\n') {
        // No line of a hunk begins with a letter.
        hunk = line.starts_with("@@ ") || hunk && !line.starts_with("diff --git ");
        let style = match line.as_bytes().first() {
            Some(b'+') if hunk => Green.on_default(),
            Some(b'-') if hunk => Red.on_default(),
            Some(b'@') if hunk => Cyan.on_default(),
            _ if !hunk => anstyle::Style::new().bold(),
            _ => anstyle::Style::new(),
        };
        let (line, end) = line.strip_suffix('\n').map_or((line, ""), |line| (line, "\n"));
        text.push_str(&format!("{style}{line}{style:#}{end}"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_environment_chooses_the_pager() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().as_os_str();
        assert_eq!(chosen(None, path), None);
        std::fs::write(folder.path().join("less"), "").unwrap();
        assert_eq!(chosen(None, path), Some("less".into()));
        assert_eq!(chosen(Some("most -x".into()), path), Some("most -x".into()));
        for off in ["", " ", "cat"] {
            assert_eq!(chosen(Some(off.into()), path), None);
        }
    }

    #[test]
    fn only_lines_of_hunks_are_painted_as_changes() {
        let painted = paint("diff --git a/x b/x\n--- a/x\n+++ b/x\n@@ -1 +1 @@\n-one\n+two\n same\n");
        assert!(painted.contains("\u{1b}[31m-one\u{1b}[0m\n") && painted.contains("\u{1b}[32m+two\u{1b}[0m\n"));
        assert!(painted.contains("\u{1b}[1m--- a/x\u{1b}[0m\n") && painted.ends_with(" same\n"), "{painted:?}");
    }
}
