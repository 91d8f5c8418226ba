//! Host names in one canonical form, and patterns over them.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Why a text is not a host name or pattern.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HostNameError {
    /// The text is empty.
    #[error("the host name is empty")]
    Empty,
    /// The text has more than 253 characters (RFC 1035 section 2.3.4).
    #[error("the host name has {0} characters, at most 253 are allowed")]
    TooLong(usize),
    /// A character outside letters, digits, `-`, `_` and `.`.
    #[error("the host name `{}` has the character `{}`", .0.escape_debug(), .1.escape_debug())]
    Character(String, char),
    /// An empty label, one of more than 63 characters, or one with a hyphen at its edge.
    #[error("the host name `{0}` has a label that is empty, too long or starts or ends with a hyphen")]
    Label(String),
    /// An IP address in some spelling, where a name is needed.
    #[error("`{0}` is an IP address, not a host name")]
    Address(String),
    /// A wildcard that stands for everything, or for everything below a public suffix.
    #[error("the pattern `{0}` would allow every host below a public suffix")]
    TooWide(String),
}

/// A host name in canonical form: lower case, no trailing dot, `[a-z0-9-._]` only, at most 253 characters, no IP
/// address in any spelling.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct HostName(String);

/// A destination's host: a name, or an IP address in its one canonical spelling.
///
/// A dotted quad without leading zeros, or an IPv6 address in brackets spelled as in RFC 5952. Every other spelling of
/// an address is refused.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Host {
    /// A name, to be resolved.
    Name(HostName),
    /// An address, dialled as it is. Only a rule that names this very address covers it.
    Address(IpAddr),
}

/// A host name, `*.NAME` for every name at any depth below NAME (but not NAME itself), or one IP address.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum HostPattern {
    /// This name alone.
    Exact(HostName),
    /// Every name below this one.
    Below(HostName),
    /// This address alone, asked for as a literal. It cannot be intercepted, so it is reached through the proxy only.
    Address(IpAddr),
}

impl HostName {
    /// The canonical text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl HostPattern {
    /// Whether the pattern covers the name.
    pub fn matches(&self, name: &HostName) -> bool {
        match self {
            Self::Exact(exact) => exact == name,
            Self::Below(parent) => {
                name.0.strip_suffix(parent.as_str()).is_some_and(|rest| rest.len() > 1 && rest.ends_with('.'))
            }
            Self::Address(_) => false,
        }
    }

    /// Whether the pattern covers every host that the other one covers.
    pub fn contains(&self, other: &HostPattern) -> bool {
        match other {
            Self::Exact(name) => self.matches(name),
            Self::Below(parent) => self == other || matches!(self, Self::Below(_)) && self.matches(parent),
            Self::Address(_) => self == other,
        }
    }

    /// Whether the pattern covers the host: a name as in [`HostPattern::matches`], an address only when it is this one.
    pub fn covers(&self, host: &Host) -> bool {
        match host {
            Host::Name(name) => self.matches(name),
            Host::Address(address) => matches!(self, Self::Address(allowed) if allowed == address),
        }
    }
}

/// Whether a lower-case text is an IP address in any spelling that some resolver accepts: dotted quads, the shorter and
/// the octal and hexadecimal forms of `inet_aton`, and IPv6.
fn is_address(text: &str) -> bool {
    let last = text.rsplit('.').next().unwrap_or(text);
    let hexadecimal = last.strip_prefix("0x").is_some_and(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()));
    text.contains(':') || hexadecimal || (!last.is_empty() && last.bytes().all(|byte| byte.is_ascii_digit()))
}

impl FromStr for HostName {
    type Err = HostNameError;

    fn from_str(text: &str) -> Result<Self, HostNameError> {
        if text.len() > 254 {
            return Err(HostNameError::TooLong(text.len()));
        }
        let name = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
        if name.is_empty() {
            return Err(HostNameError::Empty);
        }
        if name.len() > 253 {
            return Err(HostNameError::TooLong(name.len()));
        }
        if is_address(&name) {
            return Err(HostNameError::Address(name));
        }
        if let Some(odd) = name.chars().find(|c| !(c.is_ascii_lowercase() || c.is_ascii_digit() || "-._".contains(*c)))
        {
            return Err(HostNameError::Character(name, odd));
        }
        let bad_label =
            |label: &str| label.is_empty() || label.len() > 63 || label.starts_with('-') || label.ends_with('-');
        if name.split('.').any(bad_label) {
            return Err(HostNameError::Label(name));
        }
        Ok(Self(name))
    }
}

/// The address that a text spells canonically, if it does.
fn canonical_address(text: &str) -> Option<IpAddr> {
    if let Some(inner) = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        let address: Ipv6Addr = inner.parse().ok()?;
        return (address.to_string() == inner.to_ascii_lowercase()).then_some(IpAddr::V6(address));
    }
    let address: Ipv4Addr = text.parse().ok()?;
    (address.to_string() == text).then_some(IpAddr::V4(address))
}

impl FromStr for Host {
    type Err = HostNameError;

    fn from_str(text: &str) -> Result<Self, HostNameError> {
        match canonical_address(text) {
            Some(address) => Ok(Self::Address(address)),
            None => Ok(Self::Name(text.parse()?)),
        }
    }
}

impl FromStr for HostPattern {
    type Err = HostNameError;

    fn from_str(text: &str) -> Result<Self, HostNameError> {
        if let Some(address) = canonical_address(text) {
            return Ok(Self::Address(address));
        }
        if text == "*" {
            return Err(HostNameError::TooWide(text.to_owned()));
        }
        match text.strip_prefix("*.") {
            None => Ok(Self::Exact(text.parse()?)),
            Some(rest) => {
                let parent: HostName = rest.parse()?;
                match psl::suffix_str(parent.as_str()) {
                    Some(suffix) if suffix != parent.as_str() => Ok(Self::Below(parent)),
                    _ => Err(HostNameError::TooWide(text.to_owned())),
                }
            }
        }
    }
}

macro_rules! text_conversions {
    ($type:ident) => {
        impl TryFrom<String> for $type {
            type Error = HostNameError;

            fn try_from(text: String) -> Result<Self, HostNameError> {
                text.parse()
            }
        }

        impl From<$type> for String {
            fn from(value: $type) -> String {
                value.to_string()
            }
        }
    };
}

text_conversions!(HostName);
text_conversions!(Host);
text_conversions!(HostPattern);

impl fmt::Display for HostName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// Writes an address as it stands in an authority: IPv6 in brackets.
fn write_address(address: &IpAddr, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
    match address {
        IpAddr::V4(address) => write!(formatter, "{address}"),
        IpAddr::V6(address) => write!(formatter, "[{address}]"),
    }
}

impl fmt::Display for Host {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => write!(formatter, "{name}"),
            Self::Address(address) => write_address(address, formatter),
        }
    }
}

impl fmt::Display for HostPattern {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(name) => write!(formatter, "{name}"),
            Self::Below(name) => write!(formatter, "*.{name}"),
            Self::Address(address) => write_address(address, formatter),
        }
    }
}

#[cfg(test)]
mod tests;
