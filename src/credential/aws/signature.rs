//! Signature Version 4 of a request in its canonical form ("Create a signed AWS API request", IAM user guide).
//!
//! `aws-sigv4` would bring some twenty crates, among them a second `hmac`, `sha2` and clock, for these lines; they are
//! tested against AWS's own examples, and against botocore's signatures in moto.

use hmac::{Hmac, Mac as _};
use jiff::Timestamp;
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use super::source::SourceKeys;

/// What is signed.
pub(crate) struct Signable<'a> {
    pub(crate) method: &'a str,
    pub(crate) path: &'a str,
    pub(crate) query: &'a str,
    /// Header names in lower case with their values, in the order of the names.
    pub(crate) headers: &'a [(&'a str, &'a str)],
    /// What stands for the body: its [`hash`], or a word that says why there is none.
    pub(crate) payload: &'a str,
}

/// The basic format of ISO 8601 that the header `x-amz-date` has.
pub(crate) fn stamp(now: Timestamp) -> String {
    now.strftime("%Y%m%dT%H%M%SZ").to_string()
}

/// The hash of a body, in hexadecimal.
pub(crate) fn hash(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

/// The value of the header `Authorization`.
pub(crate) fn authorization(
    request: &Signable<'_>,
    keys: &SourceKeys,
    region: &str,
    service: &str,
    stamp: &str,
) -> String {
    let names = request.headers.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(";");
    let headers: String = request.headers.iter().map(|(name, value)| format!("{name}:{value}\n")).collect();
    let canonical = Zeroizing::new(format!(
        "{}\n{}\n{}\n{headers}\n{names}\n{}",
        request.method, request.path, request.query, request.payload
    ));
    let day = stamp.get(..8).unwrap_or(stamp);
    let scope = format!("{day}/{region}/{service}/aws4_request");
    let signed = format!("AWS4-HMAC-SHA256\n{stamp}\n{scope}\n{}", hash(canonical.as_bytes()));
    let first = Zeroizing::new([b"AWS4", keys.secret.expose()].concat());
    let mut key = mac(&first, day.as_bytes());
    for part in [region, service, "aws4_request"] {
        key = mac(&*key, part.as_bytes());
    }
    let signature = hex::encode(*mac(&*key, signed.as_bytes()));
    format!("AWS4-HMAC-SHA256 Credential={}/{scope}, SignedHeaders={names}, Signature={signature}", keys.id)
}

fn mac(key: &[u8], text: &[u8]) -> Zeroizing<[u8; 32]> {
    // A key of this algorithm can have any length (RFC 2104, section 2), so the other arm is never taken.
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(key) else { return Zeroizing::new([0; 32]) };
    mac.update(text);
    Zeroizing::new(mac.finalize().into_bytes().into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::credential::secret::Secret;

    /// "Signature Version 4 signing process", the example that AWS works through: `ListUsers` of IAM.
    #[test]
    fn signs_as_the_example_of_aws() {
        let keys = SourceKeys {
            id: "AKIDEXAMPLE".to_owned(),
            secret: Secret::new(b"wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY".to_vec()),
            session: None,
        };
        let now: Timestamp = "2015-08-30T12:36:00Z".parse().unwrap();
        assert_eq!(stamp(now), "20150830T123600Z");
        let request = Signable {
            method: "GET",
            path: "/",
            query: "Action=ListUsers&Version=2010-05-08",
            headers: &[
                ("content-type", "application/x-www-form-urlencoded; charset=utf-8"),
                ("host", "iam.amazonaws.com"),
                ("x-amz-date", "20150830T123600Z"),
            ],
            payload: &hash(b""),
        };
        assert_eq!(
            authorization(&request, &keys, "us-east-1", "iam", &stamp(now)),
            "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/iam/aws4_request, \
             SignedHeaders=content-type;host;x-amz-date, \
             Signature=5d672d79c15b13162d9279b0855cfba6789a8edb4c82c400e06b5924a6f2b5d7"
        );
    }
}
