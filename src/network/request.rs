//! Rules by method and path: `GET /acme/payments-api.git/**`, and the one form of a path that they are matched against.
//!
//! A path is matched and sent in the same canonical form, and whatever two servers could read differently is refused.
//! Queries are no part of a rule.

use std::fmt;
use std::str::FromStr;

use percent_encoding::percent_decode_str;
use serde::{Deserialize, Serialize};

/// The longest path that is judged, in bytes.
pub const PATH_LIMIT: usize = 8 << 10;

/// The longest rule, in bytes.
const RULE_LIMIT: usize = 1024;

/// Why a path has no one meaning.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// It does not begin with `/`, or is empty.
    #[error("the path does not begin with a slash")]
    Relative,
    /// It is longer than [`PATH_LIMIT`].
    #[error("the path has more than {PATH_LIMIT} bytes")]
    TooLong,
    /// A byte that RFC 3986 (section 3.3) does not have in a path, as itself or encoded.
    #[error("the path has a control character, a backslash or a character that has to be encoded")]
    Character,
    /// `%` without two hexadecimal digits, or an encoded `%` before two, which decoded twice would be something else, or
    /// what is not UTF-8.
    #[error("the path is encoded wrongly or twice")]
    Encoding,
    /// `.` or `..`, encoded or with a parameter behind `;`, which some servers take off first.
    #[error("the path has a segment `.` or `..`")]
    Dots,
    /// `//`, which some servers merge.
    #[error("the path has an empty segment")]
    EmptySegment,
}

/// A path in canonical form: unreserved characters as themselves, all else that was encoded in upper-case hexadecimal
/// (RFC 3986 section 6.2.2), no dot segments, no empty segments but a last one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestPath {
    text: String,
    /// The path as a server reads it that decodes `%2F` before it splits; only where there is one.
    split: Option<String>,
}

impl RequestPath {
    /// The text that is matched and sent.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl FromStr for RequestPath {
    type Err = PathError;

    fn from_str(text: &str) -> Result<Self, PathError> {
        let text = canonical(text)?;
        check_segments(&text)?;
        // A slash may be encoded, as npm does in `/@scope%2Fname`: then both readings have to be proper and allowed.
        let split = text.contains("%2F").then(|| text.replace("%2F", "/"));
        if let Some(split) = &split {
            check_segments(split)?;
        }
        Ok(Self { text, split })
    }
}

fn canonical(text: &str) -> Result<String, PathError> {
    if !text.starts_with('/') {
        return Err(PathError::Relative);
    }
    if text.len() > PATH_LIMIT {
        return Err(PathError::TooLong);
    }
    // Overlong forms (`%C0%AE` for a dot) and other broken UTF-8 are repaired by some servers and not by others.
    if percent_decode_str(text).decode_utf8().is_err() {
        return Err(PathError::Encoding);
    }
    let mut canonical = String::with_capacity(text.len());
    let bytes = text.as_bytes();
    let mut index = 0;
    while let Some(&byte) = bytes.get(index) {
        index += 1;
        if byte != b'%' {
            // RFC 3986 section 3.3: pchar and `/`.
            if !(byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@/".contains(&byte)) {
                return Err(PathError::Character);
            }
            canonical.push(char::from(byte));
            continue;
        }
        let decoded = encoded(bytes, index).ok_or(PathError::Encoding)?;
        index += 2;
        match decoded {
            0..0x20 | 0x7f | b'\\' => return Err(PathError::Character),
            _ if decoded.is_ascii_alphanumeric() || b"-._~".contains(&decoded) => canonical.push(char::from(decoded)),
            _ => canonical.push_str(&format!("%{decoded:02X}")),
        }
    }
    // Judged at the end: digits behind an encoded `%` may have been encoded too (`%25%32%65`).
    let twice =
        canonical.match_indices("%25").any(|(at, sign)| encoded(canonical.as_bytes(), at + sign.len()).is_some());
    if twice { Err(PathError::Encoding) } else { Ok(canonical) }
}

/// The byte of two hexadecimal digits at this place.
fn encoded(bytes: &[u8], index: usize) -> Option<u8> {
    let digits = bytes.get(index..index + 2)?;
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    Some(digit(digits[0])? << 4 | digit(digits[1])?)
}

fn check_segments(text: &str) -> Result<(), PathError> {
    let mut segments = text.split('/').skip(1).peekable();
    while let Some(segment) = segments.next() {
        if segment.is_empty() && segments.peek().is_some() {
            return Err(PathError::EmptySegment);
        }
        // `;` separates parameters; servers that know them compare the segment without (`/..;/`).
        let name = segment.split(';').next().unwrap_or(segment);
        let name = name.split("%3B").next().unwrap_or(name);
        if matches!(name, "." | "..") {
            return Err(PathError::Dots);
        }
    }
    Ok(())
}

/// Why a text is not a rule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RuleError {
    /// Not a method, one space and a path.
    #[error("`{}` is not a method and a path", .0.escape_debug())]
    Form(String),
    /// The method is not upper-case letters, or one that no rule can allow.
    #[error("`{}` is not a method that a rule can allow", .0.escape_debug())]
    Method(String),
    /// The path could be read in two ways.
    #[error("{0}")]
    Path(#[from] PathError),
    /// `**` beside other characters.
    #[error("`**` stands beside other characters")]
    Stars,
    /// A query or a fragment.
    #[error("the path has a `?` or a `#`, and rules are about paths alone")]
    Query,
}

/// One allowed method and path. `*` stands for any characters within a segment; `**` for any number of segments.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RequestRule {
    method: Method,
    segments: Vec<Segment>,
    /// As a server reads the rule that decodes `%2F` before it splits; only where there is one.
    split: Option<Vec<Segment>>,
    text: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Method {
    Any,
    /// `WEBSOCKET`: a GET that asks for an upgrade to a WebSocket (RFC 6455 section 4.1).
    WebSocket,
    Named(String),
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Segment {
    /// `**`
    Many,
    /// Text with `*` in it.
    Text(String),
}

impl RequestRule {
    /// Whether the rule allows this request. `GET` allows `HEAD` too; an upgrade needs a rule of its own.
    pub fn allows(&self, method: &str, upgrades: bool, path: &RequestPath) -> bool {
        let method = match &self.method {
            Method::WebSocket => upgrades && method == "GET",
            _ if upgrades => false,
            Method::Any => !matches!(method, "CONNECT" | "TRACE"),
            Method::Named(name) => name == method || (name == "GET" && method == "HEAD"),
        };
        let split = |path: &str| {
            covers(&self.segments, path) || self.split.as_deref().is_some_and(|segments| covers(segments, path))
        };
        method && covers(&self.segments, &path.text) && path.split.as_deref().is_none_or(split)
    }
}

fn covers(segments: &[Segment], path: &str) -> bool {
    // Row by row: which of the pattern's prefixes cover the segments so far. No backtracking, so no path is slow.
    let count = segments.len();
    let mut row = vec![false; count + 1];
    row[0] = true;
    skip_many(segments, &mut row);
    for segment in path.split('/').skip(1) {
        let mut next = vec![false; count + 1];
        for (index, pattern) in segments.iter().enumerate() {
            match pattern {
                Segment::Many => next[index + 1] = row[index + 1] || row[index],
                Segment::Text(text) => next[index + 1] = row[index] && covers_segment(text, segment),
            }
        }
        skip_many(segments, &mut next);
        row = next;
    }
    row[count]
}

/// `**` also stands for no segment at all.
fn skip_many(segments: &[Segment], row: &mut [bool]) {
    for (index, pattern) in segments.iter().enumerate() {
        if *pattern == Segment::Many && row[index] {
            row[index + 1] = true;
        }
    }
}

/// Whether a pattern with `*` covers a segment, in time linear to pattern times segment at most.
fn covers_segment(pattern: &str, segment: &str) -> bool {
    let (pattern, segment) = (pattern.as_bytes(), segment.as_bytes());
    let (mut at, mut from) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while from < segment.len() {
        if pattern.get(at) == Some(&b'*') {
            star = Some((at, from));
            at += 1;
        } else if pattern.get(at) == Some(&segment[from]) {
            (at, from) = (at + 1, from + 1);
        } else if let Some((star_at, taken)) = star {
            star = Some((star_at, taken + 1));
            (at, from) = (star_at + 1, taken + 1);
        } else {
            return false;
        }
    }
    pattern[at..].iter().all(|byte| *byte == b'*')
}

impl FromStr for RequestRule {
    type Err = RuleError;

    fn from_str(text: &str) -> Result<Self, RuleError> {
        let form = || RuleError::Form(text.chars().take(80).collect());
        let (method, pattern) = text.split_once(' ').ok_or_else(form)?;
        if text.len() > RULE_LIMIT || pattern.contains(' ') {
            return Err(form());
        }
        let method = match method {
            "*" => Method::Any,
            "WEBSOCKET" => Method::WebSocket,
            "CONNECT" | "TRACE" | "PRI" => return Err(RuleError::Method(method.to_owned())),
            name if (1..=20).contains(&name.len()) && name.bytes().all(|byte| byte.is_ascii_uppercase()) => {
                Method::Named(name.to_owned())
            }
            name => return Err(RuleError::Method(name.chars().take(40).collect())),
        };
        if pattern.contains(['?', '#']) {
            return Err(RuleError::Query);
        }
        let path = canonical(pattern)?;
        check_segments(&path)?;
        let split = path.contains("%2F").then(|| path.replace("%2F", "/"));
        if let Some(split) = &split {
            check_segments(split)?;
        }
        let split = split.map(|split| segments(&split)).transpose()?;
        Ok(Self { method, segments: segments(&path)?, split, text: text.to_owned() })
    }
}

fn segments(pattern: &str) -> Result<Vec<Segment>, RuleError> {
    let segment = |segment: &str| match segment {
        "**" => Ok(Segment::Many),
        text if text.contains("**") => Err(RuleError::Stars),
        text => Ok(Segment::Text(text.to_owned())),
    };
    pattern.split('/').skip(1).map(segment).collect()
}

impl TryFrom<String> for RequestRule {
    type Error = RuleError;

    fn try_from(text: String) -> Result<Self, RuleError> {
        text.parse()
    }
}

impl From<RequestRule> for String {
    fn from(rule: RequestRule) -> String {
        rule.text
    }
}

impl fmt::Display for RequestRule {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests;
