//! What is shown of a command's standard error: enough to understand why it failed, and no secret.
//!
//! Command lines that fail like to print the request that failed, header and all. What looks like a secret is hidden; too
//! much hidden is a nuisance, too little a leak.

/// How much is shown, in characters.
const SHOWN: usize = 200;
/// The same of an error's code.
const CODE: usize = 60;
/// What stands for a word that is not shown.
const HIDDEN: &str = "[hidden]";
/// From this length on a word with letters and digits may be a key, and a piece of the answer is looked for.
const KEY: usize = 20;
const PIECE: usize = 6;
/// The largest answer whose pieces are looked for, in bytes. Nothing is shown beside a larger one.
const SEARCHED: usize = 64 << 10;
/// Words after which a secret follows.
const ANNOUNCING: [&str; 9] =
    ["authorization", "bearer", "basic", "password", "passphrase", "secret", "token", "key", "cookie"];

/// The beginning of what a program said, on one line, without control characters, pieces of its answer, or words that
/// look like secrets.
pub(in crate::credential) fn shown(said: &[u8], answer: &[u8]) -> String {
    if answer.len() > SEARCHED {
        return String::new();
    }
    // First of all, or a piece with an unseen character in it would not be found.
    let seen = |character: &char| character.is_whitespace() || !unseen(*character);
    let mut text: String = String::from_utf8_lossy(said).chars().filter(seen).collect();
    let answer = String::from_utf8_lossy(answer);
    let mut pieces: Vec<&str> = answer.split(|c: char| !in_key(c)).filter(|piece| piece.len() >= PIECE).collect();
    // The longest first: what is left of a hidden piece must not be a part that is shown.
    pieces.sort_unstable_by_key(|piece| std::cmp::Reverse(piece.len()));
    for piece in pieces {
        if text.contains(piece) {
            text = text.replace(piece, HIDDEN);
        }
    }
    let mut line = String::new();
    let mut announced = false;
    for word in text.split_whitespace() {
        let (word, announces) = hide(word, announced);
        announced = announces;
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(&word);
    }
    line.chars().take(SHOWN).collect()
}

/// The code of an issuer's error, such as `invalid_grant`. It is of another program's making, so it may be anything.
pub(in crate::credential) fn code(given: &str) -> String {
    let plain = |character: &char| character.is_ascii_alphanumeric() || matches!(character, '_' | '-');
    shown(given.chars().filter(plain).take(CODE).collect::<String>().as_bytes(), b"")
}

/// A word as it is shown, and whether the next one is a secret.
fn hide(word: &str, announced: bool) -> (String, bool) {
    let lower = word.to_ascii_lowercase();
    let bare = lower.trim_matches(|character: char| !character.is_ascii_alphanumeric());
    let scheme = matches!(bare, "bearer" | "basic");
    if announced && !scheme {
        return (HIDDEN.to_owned(), false);
    }
    // `password=VALUE`, `token:VALUE`, `"secret":"VALUE"`.
    if let Some(at) = word.find(['=', ':']) {
        let (name, value) = word.split_at(at);
        let name = name.to_ascii_lowercase();
        if ANNOUNCING.iter().any(|announcing| name.contains(announcing)) {
            let given = value.chars().skip(1).any(|character| character.is_ascii_alphanumeric());
            return if given { (format!("{}={HIDDEN}", &word[..at]), false) } else { (word.to_owned(), true) };
        }
    }
    let key = word.split(|character| !in_key(character)).any(|run| {
        run.len() >= KEY
            && run.bytes().any(|byte| byte.is_ascii_digit())
            && run.bytes().any(|byte| byte.is_ascii_alphabetic())
    });
    if key { (HIDDEN.to_owned(), false) } else { (word.to_owned(), scheme) }
}

/// Characters of keys and of their usual encodings.
fn in_key(character: char) -> bool {
    character.is_ascii_alphanumeric() || "_-+/=.~".contains(character)
}

/// Characters that move a terminal's cursor, turn its text round or cannot be seen.
fn unseen(character: char) -> bool {
    character.is_control()
        || matches!(character,
            '\u{ad}' | '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
            | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(said: &str, answer: &str) -> String {
        shown(said.as_bytes(), answer.as_bytes())
    }

    #[test]
    fn shows_a_code_and_no_key_in_its_place() {
        for fine in ["AccessDenied", "invalid_grant", "bad-request", ""] {
            assert_eq!(code(fine), fine);
        }
        assert_eq!(code("zK7canaryQ2wX9vB4nM6tR1yL8pD3"), HIDDEN);
        assert_eq!(code("a\u{1b}[2Jb c"), "a2Jbc");
    }

    #[test]
    fn shows_why_a_command_failed() {
        for said in [
            "vault is locked",
            "[ERROR] 2026/11/23 08:00:00 \"agents/payments\" isn't an item in the \"Dev\" vault",
            "error: Get https://vault.example.com:8200/v1/secret: connection refused",
            "You are not signed in. Run `op signin`.",
        ] {
            assert_eq!(of(&format!("{said}\n"), ""), said);
        }
    }

    #[test]
    fn hides_what_looks_like_a_secret() {
        for said in [
            "> Authorization: Bearer canary",
            "> authorization: basic canary",
            "the password: canary",
            "PASSWORD=canary",
            "{\"api_token\":\"canary\"}",
            "secret: \"canary\"",
            "bad key ghp_canary0123456789abcdef given",
            "https://user:ghp_canary0123456789abcdef@example.com",
        ] {
            assert!(!of(said, "").contains("canary"), "{said}: {}", of(said, ""));
        }
    }

    #[test]
    fn hides_every_piece_of_the_answer() {
        let answer = r#"{"value":"correct-horse","note":"short","words":"battery staple"}"#;
        let line = of("got correct-horse and battery and staple in [correct-horse]", answer);
        assert_eq!(line, "got [hidden] and [hidden] and [hidden] in [[hidden]]");
        assert_eq!(shown(b"anything", &[b'x'; SEARCHED + 1]), "");
    }

    #[test]
    fn is_one_short_line_without_control_characters() {
        let line = of(&format!("a\u{1b}[2J\nb\u{202e}c {}", "word ".repeat(100)), "");
        assert!(line.starts_with("a[2J bc word") && line.chars().count() == SHOWN, "{line}");
    }

    proptest! {
        #[test]
        fn never_shows_the_answer(secret in "[A-Za-z0-9_-]{6,60}", before in "\\PC{0,80}", after in "\\PC{0,80}") {
            prop_assume!(!HIDDEN.contains(&secret));
            let line = of(&format!("{before}{secret}{after}"), &secret);
            prop_assert!(!line.contains(&secret), "{}", line);
        }
    }
}
