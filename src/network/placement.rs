//! Where in an HTTP request a credential stands.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The longest name of a header field, a parameter or a user, in bytes.
const NAME_LIMIT: usize = 100;

/// Header fields that belong to the connection or to the message's form, and that no credential may replace.
const STRUCTURAL: &[&str] = &[
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "expect",
    "host",
    "keep-alive",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// Where the gateway puts a brokered credential.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Placement {
    /// `Authorization: Bearer VALUE` (RFC 6750 section 2.1).
    Bearer,
    /// `Authorization: Basic` with this user and the value as password (RFC 7617).
    Basic(String),
    /// The value alone, in a header field of this name, in lower case.
    Header(String),
    /// The value as a query parameter of this name.
    Query(String),
    /// Nowhere: the value is keys of AWS, with which the request is signed (Signature Version 4).
    Sigv4 {
        /// The service, by its name in signatures, such as `dynamodb`.
        service: String,
        /// The region, such as `eu-central-1`.
        region: String,
    },
}

impl Placement {
    /// A header field; none when the name is no token (RFC 9110 section 5.6.2) or belongs to the message's form.
    pub fn header(name: &str) -> Option<Self> {
        let lower = name.to_ascii_lowercase();
        let token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
        let fits = !lower.is_empty() && lower.len() <= NAME_LIMIT && lower.bytes().all(token);
        (fits && !STRUCTURAL.contains(&lower.as_str())).then_some(Self::Header(lower))
    }

    /// A user's name for `Basic`; none when it has a colon, which would end it (RFC 7617 section 2), or other characters
    /// that need care.
    pub fn basic(user: &str) -> Option<Self> {
        let plain = |byte: u8| byte.is_ascii_graphic() && byte != b':';
        (user.len() <= NAME_LIMIT && user.bytes().all(plain)).then(|| Self::Basic(user.to_owned()))
    }

    /// A word of the scope of an AWS signature, a service or a region; none for other characters.
    pub fn scope(word: &str) -> Option<String> {
        let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        (!word.is_empty() && word.len() <= NAME_LIMIT && word.bytes().all(plain)).then(|| word.to_owned())
    }

    /// A query parameter; none when its name would have to be encoded (RFC 3986 section 2.3).
    pub fn query(name: &str) -> Option<Self> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
        let fits = !name.is_empty() && name.len() <= NAME_LIMIT && name.bytes().all(plain);
        fits.then(|| Self::Query(name.to_owned()))
    }
}

impl fmt::Display for Placement {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bearer => formatter.write_str("bearer token"),
            Self::Basic(user) => write!(formatter, "password of {user}"),
            Self::Header(name) => write!(formatter, "header {name}"),
            Self::Query(name) => write!(formatter, "query parameter {name}"),
            Self::Sigv4 { service, region } => write!(formatter, "AWS signature for {service} in {region}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_names_that_need_no_care_and_nothing_that_frames_a_message() {
        assert_eq!(Placement::header("X-Api-Key"), Some(Placement::Header("x-api-key".into())));
        for name in ["", "Host", "content-length", "a b", "x:y", "x\r\ny", "Transfer-Encoding"] {
            assert_eq!(Placement::header(name), None, "{name:?}");
        }
        assert!(Placement::basic("x-access-token").is_some() && Placement::basic("").is_some());
        assert!(Placement::basic("a:b").is_none() && Placement::basic("a\nb").is_none());
        assert!(Placement::query("key").is_some());
        assert!(Placement::scope("s3-outposts").is_some());
        for word in ["", "S3", "us/east", "a\nb"] {
            assert!(Placement::scope(word).is_none(), "{word:?}");
        }
        assert!(Placement::query("").is_none() && Placement::query("a=b&c").is_none());
    }
}
