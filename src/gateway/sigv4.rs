//! Signs requests anew for AWS: Signature Version 4 in the field `Authorization` ("Create a signed AWS API request", IAM
//! user guide; "Signature calculations for the authorization header", Amazon S3 API reference).
//!
//! The agent signs with a stand-in, so that its programs work as they are. Whatever they signed, by header fields or in
//! the query of a URL, is taken out, and the request is signed with the session's keys as it is sent from here.

use std::collections::BTreeMap;

use http::header::{CONTENT_TYPE, HOST, HeaderMap, HeaderName, HeaderValue};
use http::request::Parts;
use jiff::Timestamp;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

use crate::credential::aws::signature::{self, Signable};
use crate::credential::aws::source::SourceKeys;
use crate::gateway::broker::{BrokerError, set_query};

/// The largest body that is held until its hash is known, in bytes. No call of AWS's services in JSON, in a query or in
/// XML takes more (DynamoDB's batches have up to 16 MiB); S3 takes bodies without a hash.
pub const BODY_LIMIT: usize = 16 << 20;

/// What is encoded in a path and a query: all but the unreserved characters (RFC 3986 section 2.3).
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
/// The same for a path of segments.
const ENCODED_PATH: &AsciiSet = &ENCODED.remove(b'/');

const DATE: HeaderName = HeaderName::from_static("x-amz-date");
const TOKEN: HeaderName = HeaderName::from_static("x-amz-security-token");
const CONTENT_HASH: HeaderName = HeaderName::from_static("x-amz-content-sha256");
const CONTENT_MD5: HeaderName = HeaderName::from_static("content-md5");

/// What stands for a body whose bytes are not signed; TLS protects them.
const UNSIGNED: &str = "UNSIGNED-PAYLOAD";
/// The same for a body in chunks with a checksum behind it.
const UNSIGNED_CHUNKS: &str = "STREAMING-UNSIGNED-PAYLOAD-TRAILER";

/// Parameters of a signature in a URL ("Authenticating requests: using query parameters").
const PRESIGNED: &[&str] = &[
    "awsaccesskeyid",
    "x-amz-algorithm",
    "x-amz-content-sha256",
    "x-amz-credential",
    "x-amz-date",
    "x-amz-expires",
    "x-amz-security-token",
    "x-amz-signature",
    "x-amz-signedheaders",
];

/// What stands for the body in a signature.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Payload {
    /// What the client said: a hash, which the service compares, or that there is none.
    Said(String),
    /// The hash of the body, which has to be read for it.
    Hash,
}

/// What is to stand for the body of a request with these header fields.
///
/// # Errors
/// When each chunk of the body has a signature of its own, which chains to the one that is taken out.
pub fn payload(service: &str, headers: &HeaderMap) -> Result<Payload, BrokerError> {
    let said = headers.get(CONTENT_HASH).and_then(|value| value.to_str().ok());
    match said {
        Some(UNSIGNED | UNSIGNED_CHUNKS) => Ok(Payload::Said(said.unwrap_or_default().to_owned())),
        Some(hash) if hash.len() == 64 && hash.bytes().all(|byte| byte.is_ascii_hexdigit()) => {
            Ok(Payload::Said(hash.to_owned()))
        }
        Some(chunks) if chunks.starts_with("STREAMING-") => Err(BrokerError::Chunks),
        // As of a signed URL, which never has a hash.
        None if is_storage(service) => Ok(Payload::Said(UNSIGNED.to_owned())),
        _ => Ok(Payload::Hash),
    }
}

/// The hash of a body.
pub fn hash(body: &[u8]) -> String {
    signature::hash(body)
}

/// Whether paths are encoded once in the signed form, and a hash of the body is wanted in a header field.
fn is_storage(service: &str) -> bool {
    service.starts_with("s3")
}

/// Signs the request. Its query is put into the form that was signed, so that nobody has to guess it.
///
/// # Errors
/// When a part of it cannot be signed.
pub(super) fn sign(
    parts: &mut Parts,
    keys: &SourceKeys,
    service: &str,
    region: &str,
    payload: &str,
    now: Timestamp,
) -> Result<(), BrokerError> {
    let stamp = signature::stamp(now);
    let said = parts.headers.remove(CONTENT_HASH).is_some();
    parts.headers.insert(DATE, HeaderValue::from_str(&stamp).map_err(|_| BrokerError::Unfit)?);
    if said || is_storage(service) {
        parts.headers.insert(CONTENT_HASH, HeaderValue::from_str(payload).map_err(|_| BrokerError::Unfit)?);
    }
    if let Some(token) = &keys.session {
        let mut token = HeaderValue::from_bytes(token.expose()).map_err(|_| BrokerError::Unfit)?;
        token.set_sensitive(true);
        parts.headers.insert(TOKEN, token);
    }
    let query = query(parts.uri.query().unwrap_or_default())?;
    set_query(parts, &joined(&query, false))?;
    let path = if is_storage(service) {
        let decoded = percent_decode_str(parts.uri.path()).collect::<Vec<u8>>();
        percent_encoding::percent_encode(&decoded, ENCODED_PATH).to_string()
    } else {
        // Encoded as it is sent, and once more.
        utf8_percent_encode(parts.uri.path(), ENCODED_PATH).to_string()
    };
    let headers = signed_fields(parts)?;
    let headers: Vec<(&str, &str)> = headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let request = Signable {
        method: parts.method.as_str(),
        path: &path,
        query: &joined(&query, true),
        headers: &headers,
        payload,
    };
    let authorization = signature::authorization(&request, keys, region, service, &stamp);
    let mut field = HeaderValue::from_str(&authorization).map_err(|_| BrokerError::Unfit)?;
    field.set_sensitive(true);
    parts.headers.insert(http::header::AUTHORIZATION, field);
    Ok(())
}

/// The parameters but those of a signature, encoded in the one way that is signed, in its order. A name without `=` has
/// no value here.
fn query(query: &str) -> Result<Vec<(String, Option<String>)>, BrokerError> {
    let one_form = |text: &str| {
        let text = text.replace('+', " ");
        let decoded = percent_decode_str(&text).collect::<Vec<u8>>();
        percent_encoding::percent_encode(&decoded, ENCODED).to_string()
    };
    let mut parameters: Vec<(String, Option<String>)> = query
        .split('&')
        .filter(|parameter| !parameter.is_empty())
        .map(|parameter| match parameter.split_once('=') {
            Some((name, value)) => (one_form(name), Some(one_form(value))),
            None => (one_form(parameter), None),
        })
        .filter(|(name, _)| !PRESIGNED.contains(&name.to_ascii_lowercase().as_str()))
        .collect();
    parameters.sort();
    Ok(parameters)
}

/// The query as it is signed, where each name has a `=`, or as it is sent.
fn joined(parameters: &[(String, Option<String>)], signed: bool) -> String {
    let one = |(name, value): &(String, Option<String>)| match value {
        Some(value) => format!("{name}={value}"),
        None if signed => format!("{name}="),
        None => name.clone(),
    };
    parameters.iter().map(one).collect::<Vec<_>>().join("&")
}

/// Host, type and digest of the body and all fields of AWS's own, by their names in lower case. Nothing on the way
/// changes them.
fn signed_fields(parts: &Parts) -> Result<BTreeMap<String, String>, BrokerError> {
    let mut fields: BTreeMap<String, String> = BTreeMap::new();
    for (name, value) in &parts.headers {
        if !(name == HOST || name == CONTENT_TYPE || name == CONTENT_MD5 || name.as_str().starts_with("x-amz-")) {
            continue;
        }
        let value = std::str::from_utf8(value.as_bytes()).map_err(|_| BrokerError::Unfit)?;
        let value = value.split(' ').filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ");
        let value = value.trim();
        fields
            .entry(name.as_str().to_owned())
            .and_modify(|before| {
                before.push(',');
                before.push_str(value);
            })
            .or_insert_with(|| value.to_owned());
    }
    // In HTTP/2 the host stands in the target alone.
    if let (false, Some(authority)) = (fields.contains_key(HOST.as_str()), parts.uri.authority()) {
        fields.insert(HOST.as_str().to_owned(), authority.as_str().to_owned());
    }
    Ok(fields)
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;
    use crate::credential::secret::Secret;

    /// The keys and the time of AWS's examples ("Examples: signature calculations", Amazon S3 API reference).
    fn keys(session: Option<&str>) -> SourceKeys {
        SourceKeys {
            id: "AKIAIOSFODNN7EXAMPLE".to_owned(),
            secret: Secret::new(b"wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY".to_vec()),
            session: session.map(|token| Secret::new(token.as_bytes().to_vec())),
        }
    }

    const EMPTY: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    fn signed(request: Request<()>, service: &str, session: Option<&str>) -> Parts {
        let (mut parts, ()) = request.into_parts();
        let now = "2013-05-24T00:00:00Z".parse().unwrap();
        sign(&mut parts, &keys(session), service, "us-east-1", EMPTY, now).unwrap();
        parts
    }

    fn get(uri: &str) -> http::request::Builder {
        Request::get(uri).header("host", "examplebucket.s3.amazonaws.com").header("x-amz-content-sha256", EMPTY)
    }

    fn signature(parts: &Parts) -> String {
        let text = parts.headers["authorization"].to_str().unwrap();
        text.rsplit_once("Signature=").unwrap().1.to_owned()
    }

    #[test]
    fn signs_the_lists_of_buckets_as_the_examples_of_aws() {
        // "GET bucket lifecycle" and "GET bucket (list objects)".
        let lifecycle = signed(get("/?lifecycle").body(()).unwrap(), "s3", None);
        assert_eq!(signature(&lifecycle), "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543");
        assert_eq!(lifecycle.uri.query(), Some("lifecycle"), "what is sent is as it was");
        let list = signed(get("/?prefix=J&max-keys=2").body(()).unwrap(), "s3", None);
        assert_eq!(signature(&list), "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7");
        assert_eq!(list.uri.query(), Some("max-keys=2&prefix=J"));
    }

    #[test]
    fn what_the_client_signed_is_gone_also_from_a_url() {
        let request =
            get("/a%20b?X-Amz-Signature=aa&x-amz-credential=me%2F2013&X-Amz-Expires=60&q=1+2&AWSAccessKeyId=x")
                .header("x-amz-date", "20000101T000000Z")
                .header("x-amz-security-token", "stand-in")
                .body(())
                .unwrap();
        let parts = signed(request, "s3", Some("token"));
        assert_eq!(parts.uri.query(), Some("q=1%202"));
        assert_eq!(parts.headers["x-amz-date"], "20130524T000000Z");
        assert_eq!(parts.headers["x-amz-security-token"], "token");
        assert!(parts.headers["authorization"].is_sensitive() && parts.headers["x-amz-security-token"].is_sensitive());
        let text = parts.headers["authorization"].to_str().unwrap();
        assert!(text.contains("SignedHeaders=host;x-amz-content-sha256;x-amz-date;x-amz-security-token,"), "{text}");
    }

    #[test]
    fn a_body_is_hashed_unless_the_client_said_that_its_service_does_without() {
        let of = |service: &str, said: Option<&'static str>| {
            let mut headers = HeaderMap::new();
            headers.extend(said.map(|said| (CONTENT_HASH, HeaderValue::from_static(said))));
            payload(service, &headers)
        };
        let said = |text: &str| Ok(Payload::Said(text.to_owned()));
        assert_eq!(of("dynamodb", None), Ok(Payload::Hash));
        assert_eq!(of("s3", None), said(UNSIGNED));
        assert_eq!(of("s3", Some(EMPTY)), said(EMPTY));
        assert_eq!(of("s3", Some(UNSIGNED_CHUNKS)), said(UNSIGNED_CHUNKS));
        assert_eq!(of("s3", Some("odd")), Ok(Payload::Hash));
        assert_eq!(of("s3", Some("STREAMING-AWS4-HMAC-SHA256-PAYLOAD")), Err(BrokerError::Chunks));
        assert_eq!(hash(b""), EMPTY);
    }
}
