//! Finds credentials in a file's text: by the formats of their issuers, as passwords in URLs, and by what they are
//! called where people keep settings. It gives values only as [`Secret`]s.

use std::ops::Range;
use std::sync::LazyLock;

use base64::Engine as _;
use regex::bytes::Regex;

use super::places::Shape;
use super::ssh;
use crate::credential::secret::Secret;
use crate::workspace::secret_scan;

/// The most credentials that are taken from one file.
const KEYS: usize = 100;
/// Shorter words are not taken for a value, longer ones are something else.
const LENGTH: Range<usize> = 8..8193;
/// The most names of one file whose values are looked at, for each way to write them.
const CANDIDATES: usize = 2000;
/// How much of a name is shown, in characters.
const NAME: usize = 60;

/// A credential in a text.
#[derive(Debug)]
pub(super) struct Key {
    /// A stable word for the kind.
    pub(super) rule: String,
    /// The kind in words.
    pub(super) kind: String,
    /// The line, from 1.
    pub(super) line: usize,
    /// Whose it is, where the text says so.
    pub(super) account: Option<String>,
    pub(super) value: Secret,
}

/// What names of credentials end with, in lower case and without `_`, `-` and `.`.
const ENDINGS: [&str; 17] = [
    "token",
    "secret",
    "password",
    "passwd",
    "apikey",
    "accesskey",
    "secretkey",
    "privatekey",
    "passphrase",
    "signingkey",
    "encryptionkey",
    "authorization",
    "clientkey",
    "accountkey",
    "authkey",
    "credential",
    "masterkey",
];
/// Names that are telling only where an agent's, a registry's or a cloud's own program writes them.
const LOGINS: [&str; 5] = ["auth", "access", "refresh", "key", "authpassword"];
/// What stands for a value in documents and templates.
const PLACEHOLDERS: [&str; 13] = [
    "xxxx",
    "****",
    "....",
    "your",
    "example",
    "changeme",
    "change-me",
    "placeholder",
    "dummy",
    "redacted",
    "process.env",
    "os.environ",
    "password",
];

fn pattern(text: &str) -> Option<Regex> {
    Regex::new(text).ok()
}

/// RFC 3986, section 3.2.1: `user:password` before the `@` of an authority.
static URL: LazyLock<Option<Regex>> =
    LazyLock::new(|| pattern(r#"[A-Za-z][A-Za-z0-9+.\-]*://([^/\s:@"'<>]*):([^/\s@"'<>]+)@[^/\s"'<>]"#));
/// Up to a value: a name as shells, INI, TOML, YAML and JSON write it. Values are cut out by hand, since a pattern that
/// had them in it would read a long line again for each name.
static ASSIGNMENT: LazyLock<Option<Regex>> =
    LazyLock::new(|| pattern(r#"(?m)(?:^|[\s{,;("':/=])["']?([A-Za-z0-9_.\-]+)["']?[ \t]*[=:][ \t]*"#));
/// fish(1): `set -gx NAME VALUE`.
static FISH: LazyLock<Option<Regex>> =
    LazyLock::new(|| pattern(r"(?m)^[ \t]*set[ \t]+(?:-\S+[ \t]+)*([A-Za-z_][A-Za-z0-9_]*)[ \t]+"));
/// `--api-key VALUE` of a command line, also as two strings of a JSON list.
static OPTION: LazyLock<Option<Regex>> = LazyLock::new(|| pattern(r#"--([A-Za-z0-9\-]+)(?:[ \t]+|"\s*,\s*)"#));
/// An element whose text is the value, as Maven and JetBrains write it.
static ELEMENT: LazyLock<Option<Regex>> = LazyLock::new(|| pattern(r"<([A-Za-z0-9_.\-]+)>"));
/// netrc(5), as ftp(1) describes it.
static NETRC: LazyLock<Option<Regex>> =
    LazyLock::new(|| pattern(r"(?:\blogin\s+(\S+)\s+(?:account\s+\S+\s+)?)?\bpassword\s+(\S+)"));

/// Everything that a file of this shape holds.
pub(super) fn find(text: &Secret, shape: Shape) -> Vec<Key> {
    let mut found = Found { text: text.expose(), keys: Vec::new(), taken: Vec::new(), lines: Vec::new() };
    found.lines.extend(found.text.iter().enumerate().filter(|(_, byte)| **byte == b'\n').map(|(at, _)| at));
    found.formats();
    found.urls();
    match shape {
        Shape::Any | Shape::Keys => {}
        Shape::Settings => found.settings(false),
        Shape::Login => found.settings(true),
        Shape::Netrc => found.netrc(),
        Shape::Whole => found.whole(),
        Shape::LastField => found.last_fields(),
    }
    found.keys.sort_by_key(|key| key.line);
    found.keys
}

/// What a variable of the environment holds.
pub(super) fn variable(name: &str, value: &Secret) -> Option<Key> {
    let known = find(value, Shape::Any).into_iter().next();
    known.or_else(|| {
        (is_telling(name, false) && is_plausible(value.expose())).then(|| Key {
            rule: "named-value".to_owned(),
            kind: format!("the value of {}", shown(name)),
            line: 1,
            account: None,
            value: value.clone(),
        })
    })
}

struct Found<'a> {
    text: &'a [u8],
    keys: Vec<Key>,
    /// What is a credential already, so that nothing is told twice.
    taken: Vec<Range<usize>>,
    /// Where the line feeds are.
    lines: Vec<usize>,
}

impl Found<'_> {
    fn add(&mut self, range: Range<usize>, rule: &str, kind: &str, account: Option<String>) {
        let overlaps = self.taken.iter().any(|taken| taken.start < range.end && range.start < taken.end);
        if self.keys.len() >= KEYS || overlaps {
            return;
        }
        let Some(value) = self.text.get(range.clone()) else { return };
        let line = self.lines.partition_point(|at| *at < range.start) + 1;
        let value = Secret::new(value.to_vec());
        self.keys.push(Key { rule: rule.to_owned(), kind: kind.to_owned(), line, account, value });
        self.taken.push(range);
    }

    fn formats(&mut self) {
        for key in ssh::find(self.text) {
            // One that a passphrase protects is no finding, and must not be one as a private key in general either.
            if key.protected {
                self.taken.push(key.range);
            } else {
                self.add(key.range, "private-key", "a private key without a passphrase", None);
            }
        }
        for (range, reason) in secret_scan::locate(self.text) {
            let kind = reason.strip_prefix("holds ").unwrap_or(reason);
            let words = kind.strip_prefix("an ").or(kind.strip_prefix("a ")).unwrap_or(kind);
            self.add(range, &words.to_lowercase().replace(' ', "-"), kind, None);
        }
    }

    fn urls(&mut self) {
        let Some(pattern) = URL.as_ref() else { return };
        for found in pattern.captures_iter(self.text) {
            let (Some(user), Some(password)) = (found.get(1), found.get(2)) else { continue };
            if is_literal(password.as_bytes()) && password.len() < LENGTH.end {
                let user = String::from_utf8_lossy(user.as_bytes());
                let user = Some(shown(&user)).filter(|user| !user.is_empty());
                self.add(password.range(), "url-password", "a password in a URL", user);
            }
        }
    }

    fn settings(&mut self, login: bool) {
        for pattern in [&ASSIGNMENT, &FISH, &OPTION, &ELEMENT] {
            let Some(pattern) = pattern.as_ref() else { continue };
            let (mut at, mut candidates) = (0, 0);
            while let Some(found) = pattern.captures_at(self.text, at) {
                let (Some(whole), Some(name)) = (found.get(0), found.get(1)) else { break };
                // A value may be an assignment of its own, such as in `args: "TOKEN=…"`.
                at = (whole.end() - 1).max(at + 1);
                let name = String::from_utf8_lossy(name.as_bytes());
                if !is_telling(&name, login) {
                    continue;
                }
                candidates += 1;
                if candidates > CANDIDATES {
                    break;
                }
                let range = value_at(self.text, whole.end());
                let Some(value) = self.text.get(range.clone()) else { continue };
                let range = without_scheme(range, value);
                if self.text.get(range.clone()).is_some_and(|value| is_plausible(value) && is_login(&name, value)) {
                    self.add(range, "named-value", &format!("the value of {}", shown(&name)), None);
                }
            }
        }
    }

    fn netrc(&mut self) {
        let Some(pattern) = NETRC.as_ref() else { return };
        for found in pattern.captures_iter(self.text) {
            let user = found.get(1).map(|user| shown(&String::from_utf8_lossy(user.as_bytes())));
            if let Some(password) = found.get(2).filter(|password| is_literal(password.as_bytes())) {
                self.add(password.range(), "netrc-password", "a password for a host", user);
            }
        }
    }

    /// The whole file is one value.
    fn whole(&mut self) {
        let start = self.text.iter().take_while(|byte| byte.is_ascii_whitespace()).count();
        let end = self.text.len() - self.text.iter().rev().take_while(|byte| byte.is_ascii_whitespace()).count();
        if start < end && is_plausible(&self.text[start..end]) {
            self.add(start..end, "token-file", "a token, which is the whole file", None);
        }
    }

    /// pgpass: `host:port:database:user:password` (PostgreSQL, "The Password File").
    fn last_fields(&mut self) {
        let mut at = 0;
        for line in self.text.split(|byte| *byte == b'\n') {
            let fields: Vec<&[u8]> = line.splitn(5, |byte| *byte == b':').collect();
            if let ([_, _, _, user, password], false) = (&fields[..], line.starts_with(b"#"))
                && is_literal(password)
            {
                let end = at + line.len();
                let user = shown(&String::from_utf8_lossy(user));
                self.add(end - password.len()..end, "database-password", "a password of a database", Some(user));
            }
            at += line.len() + 1;
        }
    }
}

/// Where the value stands that begins here: within its quotes, or up to what cannot be a part of it.
fn value_at(text: &[u8], start: usize) -> Range<usize> {
    let (quote, start) = match text.get(start) {
        Some(quote @ (b'"' | b'\'')) => (Some(*quote), start + 1),
        _ => (None, start),
    };
    let ends = |byte: &u8| match quote {
        Some(quote) => *byte == quote || *byte == b'\n',
        None => byte.is_ascii_whitespace() || b"\"',;}<".contains(byte),
    };
    let rest = text.get(start..).unwrap_or_default();
    start..start + rest.iter().take(LENGTH.end).take_while(|byte| !ends(byte)).count()
}

/// RFC 9110, section 11.4: a scheme, a space, and the credential.
fn without_scheme(range: Range<usize>, value: &[u8]) -> Range<usize> {
    let scheme = ["Bearer ", "bearer ", "token ", "Token ", "Basic "];
    let skipped = scheme.iter().find(|scheme| value.starts_with(scheme.as_bytes())).map_or(0, |scheme| scheme.len());
    range.start + skipped..range.end
}

/// Whether a name says that its value is a credential.
fn is_telling(name: &str, login: bool) -> bool {
    let name: String = name.to_lowercase().chars().filter(char::is_ascii_alphanumeric).collect();
    ENDINGS.iter().any(|ending| name.ends_with(ending)) || (login && LOGINS.contains(&name.as_str()))
}

/// Docker's `auth` is `user:password` in base64; other things are called so too.
fn is_login(name: &str, value: &[u8]) -> bool {
    let decoded = || base64::engine::general_purpose::STANDARD.decode(value).map(zeroize::Zeroizing::new);
    name != "auth" || decoded().is_ok_and(|decoded| decoded.contains(&b':'))
}

/// Whether text is a value and neither a reference to one nor a place for one.
fn is_literal(value: &[u8]) -> bool {
    let reference = value.first().is_none_or(|first| b"$%<{[(!`".contains(first));
    let word = zeroize::Zeroizing::new(String::from_utf8_lossy(value).to_lowercase());
    !reference && !PLACEHOLDERS.iter().any(|placeholder| word.contains(placeholder))
}

fn is_plausible(value: &[u8]) -> bool {
    let path = [&b"/"[..], b"~/", b"./", b"../"].iter().any(|start| value.starts_with(start))
        && value.iter().all(|byte| byte.is_ascii_alphanumeric() || b"/._-~".contains(byte));
    let different: std::collections::BTreeSet<&u8> = value.iter().collect();
    LENGTH.contains(&value.len())
        && is_literal(value)
        && !path
        && !value.starts_with(b"-")
        && different.len() >= 5
        && !value.iter().any(u8::is_ascii_whitespace)
        && !value.windows(3).any(|window| window == b"://")
        // A call or an index in a script is no value.
        && !value.windows(2).any(|window| window == b"$(" || window == b"${" || window == b"()")
}

/// A name from a file, for people.
fn shown(name: &str) -> String {
    let name: String = name.chars().take(NAME).collect();
    crate::commands::printer::sanitise(&name).replace(['\n', '\t'], " ")
}
