//! One POST of OAuth 2.0: a form or JSON in memory that is wiped, a bounded answer, and of a refusal the code and one line.

use bytes::Bytes;
use jiff::Timestamp;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::Url;
use serde_json::Value;
use zeroize::Zeroizing;

use super::error::FederationError;
use crate::credential::exec::said;
use crate::credential::secret::Secret;
use crate::credential::web;
use crate::credential::wiped::{self, Wiped};

/// The longest answer, in bytes.
const ANSWER_LIMIT: usize = 64 << 10;
/// What a form escapes: all but the unreserved characters (RFC 3986, section 2.3).
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// What is sent.
pub(super) struct Body {
    kind: &'static str,
    bytes: Zeroizing<Vec<u8>>,
}

impl Body {
    pub(super) fn form(fields: &[(&str, &str)]) -> Result<Self, FederationError> {
        let most = fields.iter().map(|(name, value)| name.len() + 3 * value.len() + 2).sum();
        // Room for all of it from the start: growing would leave copies behind.
        let mut bytes = Zeroizing::new(Vec::with_capacity(most));
        for (name, value) in fields {
            if !bytes.is_empty() {
                bytes.push(b'&');
            }
            bytes.extend_from_slice(name.as_bytes());
            bytes.push(b'=');
            utf8_percent_encode(value, ESCAPED).for_each(|piece| bytes.extend_from_slice(piece.as_bytes()));
        }
        Ok(Self { kind: "application/x-www-form-urlencoded", bytes })
    }

    pub(super) fn json(value: &Wiped) -> Result<Self, FederationError> {
        let bytes = wiped::text(&value.0).map_err(|_| FederationError::TooLong)?;
        Ok(Self { kind: "application/json", bytes })
    }
}

/// What was answered, whatever the status.
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) body: Wiped,
    /// The server's clock.
    pub(super) date: Option<Timestamp>,
}

/// One server of an issuer.
pub(super) struct Issuer {
    pub(super) name: &'static str,
    address: Url,
    http: reqwest::Client,
}

impl Issuer {
    pub(super) fn new(name: &'static str, address: &str) -> Result<Self, FederationError> {
        let refused = |problem| FederationError::Address { issuer: name, address: web::shown(address), problem };
        let url = Url::parse(address).map_err(|_| refused("it is not a URL"))?;
        web::check(&url).map_err(refused)?;
        let http = web::builder(&url).build().map_err(FederationError::Client)?;
        Ok(Self { name, address: url, http })
    }

    fn address(&self) -> &str {
        self.address.as_str().trim_end_matches('/')
    }

    pub(super) async fn post(
        &self,
        path: &str,
        headers: &[(&'static str, &'static str)],
        bearer: Option<&Secret>,
        body: &Body,
    ) -> Result<Answer, FederationError> {
        let unusable = |what| FederationError::Answer { issuer: self.name, what };
        let url =
            Url::parse(&format!("{}/{path}", self.address())).map_err(|_| unusable("a path that makes no URL"))?;
        let bytes = Bytes::from_owner(body.bytes.clone());
        let mut request = self.http.post(url).header(http::header::CONTENT_TYPE, body.kind).body(bytes);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if let Some(token) = bearer {
            let value = web::bearer(token).ok_or_else(|| unusable("a token that is not plain text"))?;
            request = request.header(http::header::AUTHORIZATION, value);
        }
        let response = request.send().await.map_err(|error| self.failed(error))?;
        let (status, date) = (response.status().as_u16(), web::date(&response));
        let bytes = web::body(response, ANSWER_LIMIT).await.map_err(|error| self.failed(error))?;
        let bytes = bytes.ok_or_else(|| unusable("an answer that is too long"))?;
        // A proxy's page of HTML is as good as nothing: the status tells.
        let body = Wiped(serde_json::from_slice(&bytes).unwrap_or(Value::Null));
        Ok(Answer { status, body, date })
    }

    /// An answer that is a success. What else it says is kept without what was sent.
    pub(super) fn accepted(&self, answer: Answer, sent: &Secret) -> Result<Answer, FederationError> {
        match answer.status {
            200 => Ok(answer),
            429 | 500..=599 => Err(FederationError::Busy {
                issuer: self.name,
                address: self.address().to_owned(),
                status: answer.status,
            }),
            status => {
                let (code, text) = refusal(&answer.body.0);
                Err(FederationError::Refused {
                    issuer: self.name,
                    status,
                    code: said::code(code),
                    said: said::shown(text.as_bytes(), sent.expose()),
                })
            }
        }
    }

    fn failed(&self, error: reqwest::Error) -> FederationError {
        let (issuer, address) = (self.name, self.address().to_owned());
        if error.is_timeout() {
            return FederationError::Timeout { issuer, address, seconds: web::LIMIT.as_secs() };
        }
        FederationError::Unreachable { issuer, address, source: error.without_url() }
    }
}

/// Code and words of a refusal: `error` and `error_description` (RFC 6749, section 5.2), or an object, as Google
/// ("Standard error format", `status` and `message`) and Anthropic ("Errors", `type` and `message`) have it.
fn refusal(body: &Value) -> (&str, &str) {
    let word = |pointer: &str| body.pointer(pointer).and_then(Value::as_str);
    let code = word("/error").or_else(|| word("/error/status")).or_else(|| word("/error/type"));
    let text = word("/error_description").or_else(|| word("/error/message"));
    (code.unwrap_or_default(), text.unwrap_or_default())
}
