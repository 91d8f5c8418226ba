//! Names that end up in Docker object names, labels, git refs and folders.
//!
//! Every name is a DNS label (RFC 1123 section 2.1: lower-case letters, digits and inner hyphens), so that it needs no
//! quoting in any of those places.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Why a text is not a name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// The text is empty.
    #[error("a {kind} name is empty")]
    Empty {
        /// Which name was meant.
        kind: &'static str,
    },
    /// The text has more characters than allowed.
    #[error("a {kind} name has {length} characters, at most {limit} are allowed")]
    TooLong {
        /// Which name was meant.
        kind: &'static str,
        /// Characters of the text.
        length: usize,
        /// Characters that are allowed.
        limit: usize,
    },
    /// The text has a character outside `a-z`, `0-9` and inner hyphens.
    #[error("`{}` is not a {kind} name", text.escape_debug())]
    Character {
        /// Which name was meant.
        kind: &'static str,
        /// The refused text.
        text: String,
    },
}

fn check(text: &str, kind: &'static str, limit: usize, underscore: bool) -> Result<(), NameError> {
    if text.is_empty() {
        return Err(NameError::Empty { kind });
    }
    let length = text.chars().count();
    if length > limit {
        return Err(NameError::TooLong { kind, length, limit });
    }
    let inner =
        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-' || (underscore && byte == b'_');
    let edge = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = text.as_bytes();
    if !bytes.iter().copied().all(inner) || !edge(bytes[0]) || !edge(bytes[bytes.len() - 1]) {
        return Err(NameError::Character { kind, text: text.to_owned() });
    }
    Ok(())
}

macro_rules! name {
    ($(#[$meta:meta])* $type:ident, $kind:literal, $limit:literal, $underscore:literal) => {
        $(#[$meta])*
        #[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $type(String);

        impl $type {
            /// The most characters that such a name may have.
            pub const LIMIT: usize = $limit;

            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $type {
            type Err = NameError;

            fn from_str(text: &str) -> Result<Self, NameError> {
                check(text, $kind, $limit, $underscore)?;
                Ok(Self(text.to_owned()))
            }
        }

        impl TryFrom<String> for $type {
            type Error = NameError;

            fn try_from(text: String) -> Result<Self, NameError> {
                text.parse()
            }
        }

        impl From<$type> for String {
            fn from(name: $type) -> String {
                name.0
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str(&self.0)
            }
        }
    };
}

name!(
    /// The name of a project: a DNS label of 1 to 40 characters.
    ProjectName,
    "project",
    40,
    false
);
name!(
    /// The name of one of several sandboxes of a project (`--name`): a DNS label of 1 to 20 characters.
    SandboxName,
    "sandbox",
    20,
    false
);
name!(
    /// The name of a credential, which is also its file name below `/run/secrets`: 1 to 40 characters, a DNS label
    /// that may hold underscores.
    CredentialName,
    "credential",
    40,
    true
);

impl SandboxName {
    /// The sandbox that `up` starts when no `--name` is given.
    pub fn main() -> Self {
        Self("main".to_owned())
    }
}
