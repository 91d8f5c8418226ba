//! A command as the log has it: its words as a shell would take them, without what looks like a secret, and bounded.

use std::sync::LazyLock;

use regex::Regex;

use crate::commands::printer::sanitise;
use crate::workspace::secret_scan;

/// The most characters of a command.
const LENGTH: usize = 500;
/// What stands for a secret.
const MASK: &str = "***";

/// `NAME=VALUE`, also behind `--`, with a name that says that the value is one.
static ASSIGNED: LazyLock<Option<Regex>> = LazyLock::new(|| {
    Regex::new(r"(?i)((?:token|secret|passwd|password|passphrase|api[_-]?key|credentials?|auth)[a-z0-9_-]*)[=:][^\s]+")
        .ok()
});
/// An option whose next word is one.
static OPTION: LazyLock<Option<Regex>> =
    LazyLock::new(|| Regex::new(r"(?i)^--?[a-z0-9_-]*(?:token|secret|passwd|password|passphrase|api[_-]?key)$").ok());
/// User name and password of an address.
static ADDRESS: LazyLock<Option<Regex>> = LazyLock::new(|| Regex::new(r"://[^/@\s:]*:[^/@\s]*@").ok());

/// The command in one line.
pub fn command(words: &[String]) -> String {
    let mut shown = Vec::new();
    let mut hidden = false;
    for word in words {
        if std::mem::take(&mut hidden) {
            shown.push(MASK.to_owned());
            continue;
        }
        hidden = OPTION.as_ref().is_some_and(|option| option.is_match(word));
        shown.push(quoted(&masked(word)));
    }
    let line = sanitise(&shown.join(" ")).replace('\n', "\\n").replace('\t', "\\t");
    if line.chars().count() <= LENGTH {
        return line;
    }
    let start: String = line.chars().take(LENGTH).collect();
    format!("{start}…")
}

fn masked(word: &str) -> String {
    let mut bytes = word.as_bytes().to_vec();
    let mut found = secret_scan::locate(&bytes);
    found.sort_by_key(|(range, _)| std::cmp::Reverse(range.start));
    for (range, _) in found {
        // Two formats may find the same place.
        if range.end <= bytes.len() {
            bytes.splice(range, MASK.bytes());
        }
    }
    let mut text = String::from_utf8_lossy(&bytes).into_owned();
    if let Some(assigned) = ASSIGNED.as_ref() {
        text = assigned.replace_all(&text, format!("$1={MASK}")).into_owned();
    }
    if let Some(address) = ADDRESS.as_ref() {
        text = address.replace_all(&text, format!("://{MASK}@")).into_owned();
    }
    text
}

fn quoted(word: &str) -> String {
    let plain = |letter: char| letter.is_alphanumeric() || "-_./:=,+@%*^".contains(letter);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(words: &[&str]) -> String {
        command(&words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn words_stay_words() {
        assert_eq!(shown(&["bash", "-lc", "make test && echo 'done'"]), r"bash -lc 'make test && echo '\''done'\'''");
        assert_eq!(shown(&["printf", "", "a\nb\u{1b}[2J"]), r"printf '' 'a\nb\u{1b}[2J'");
    }

    #[test]
    fn what_looks_like_a_secret_is_not_there() {
        let token = ["ghp_zQWBuTSOoRi4A9spHcVY5n", "cnsDkxkJ0mLq17"].concat();
        for (words, expected) in [
            (vec!["gh", "auth", &token], "gh auth ***"),
            (vec!["curl", "--password", "hunter2", "x"], "curl --password *** x"),
            (vec!["env", "API_KEY=hunter2", "make"], "env API_KEY=*** make"),
            (vec!["git", "clone", "https://ada:hunter2@example.com/x"], "git clone https:***@example.com/x"),
        ] {
            let line = shown(&words);
            assert!(!line.contains("hunter2") && !line.contains(&token), "{line}");
            assert_eq!(line.replace("://***", ":***").replace(r"'", ""), expected);
        }
    }

    #[test]
    fn a_long_command_is_cut() {
        assert!(shown(&["x".repeat(10_000).as_str()]).chars().count() <= LENGTH + 1);
    }
}
