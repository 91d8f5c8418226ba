//! The token endpoint (RFC 6749, section 3.2).

use std::time::Duration;

use bytes::Bytes;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_encode};
use reqwest::Url;
use serde_json::Value;
use zeroize::Zeroizing;

use super::agent::Account;
use super::error::OauthError;
use crate::credential::exec::said;
use crate::credential::secret::Secret;
use crate::credential::spec::OauthSpec;
use crate::credential::web;
use crate::credential::wiped::{self, Wiped};

/// The longest answer, in bytes: tokens and a few words.
const ANSWER_LIMIT: usize = 64 << 10;
/// The longest token, in bytes: two of them fit into a record with every character escaped.
const TOKEN_LIMIT: usize = 12 << 10;
/// How long an access token is taken to live whose issuer does not say it, which it should (RFC 6749, section 5.1).
const LIFE: Duration = Duration::from_secs(3600);
/// The longest life that is believed.
const LONGEST: u64 = 366 * 86_400;
/// What a form leaves as it is (application/x-www-form-urlencoded takes more; these mean the same everywhere).
pub(super) const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// What an issuer gave.
pub struct Tokens {
    pub(super) access_token: Zeroizing<String>,
    pub(super) refresh_token: Option<Zeroizing<String>>,
    pub(super) life: Duration,
    pub(super) scope: String,
    pub(super) account: Option<Account>,
}

impl std::fmt::Debug for Tokens {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Tokens").field("life", &self.life).field("scope", &self.scope).finish_non_exhaustive()
    }
}

impl Tokens {
    /// The access token, to be looked at by the rules for every value.
    pub fn access(&self) -> Secret {
        Secret::new(self.access_token.as_bytes().to_vec())
    }

    /// What it is good for.
    pub fn scope(&self) -> &str {
        &self.scope
    }
}

/// What an endpoint answered.
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) body: Wiped,
}

impl Answer {
    pub(super) fn text(&self, key: &str) -> Option<&str> {
        self.body.0.get(key).and_then(Value::as_str)
    }

    /// The word for an error (RFC 6749, section 5.2); anything that is no such word is left out.
    pub(super) fn error(&self) -> Option<&str> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
        self.text("error").filter(|word| (1..=64).contains(&word.len()) && word.bytes().all(plain))
    }

    /// Some issuers answer 200 with an error ("Authorizing OAuth apps", GitHub).
    pub(super) fn is_good(&self) -> bool {
        self.status == 200 && self.body.0.get("error").is_none()
    }

    pub(super) fn failed(&self) -> OauthError {
        OauthError::Failed { status: self.status, word: said::code(self.error().unwrap_or_default()) }
    }
}

/// A token is of visible ASCII characters (RFC 6749, appendices A.12 and A.17).
pub(super) fn word(bytes: &[u8]) -> Option<&str> {
    let fine = (1..=TOKEN_LIMIT).contains(&bytes.len()) && bytes.iter().all(u8::is_ascii_graphic);
    fine.then(|| std::str::from_utf8(bytes).ok()).flatten()
}

/// Refreshes an access token (RFC 6749, section 6).
pub(super) async fn refresh(spec: &OauthSpec, secret: Option<&Secret>, token: &str) -> Result<Tokens, OauthError> {
    let fields = [("grant_type", "refresh_token"), ("refresh_token", token), ("client_id", spec.client_id.as_str())];
    let answer = post(spec, &spec.token_url, secret, &fields).await?;
    match answer.error() {
        // `bad_refresh_token` is GitHub's word for it ("Troubleshooting OAuth app access token request errors").
        Some(word @ ("invalid_grant" | "bad_refresh_token")) => Err(OauthError::Refused { word: word.to_owned() }),
        _ if answer.is_good() => tokens(spec, &answer),
        _ => Err(answer.failed()),
    }
}

/// The tokens of a successful answer (RFC 6749, section 5.1).
pub(super) fn tokens(spec: &OauthSpec, answer: &Answer) -> Result<Tokens, OauthError> {
    let token = |key| match answer.body.0.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => {
            let text = word(text.as_bytes()).ok_or(OauthError::Answer("a token that is none"))?;
            Ok(Some(Zeroizing::new(text.to_owned())))
        }
        Some(_) => Err(OauthError::Answer("a token that is none")),
    };
    // "The client MUST NOT use an access token if it does not understand the token type" (section 7.1).
    if !answer.text("token_type").is_some_and(|kind| kind.eq_ignore_ascii_case("bearer")) {
        return Err(OauthError::Answer("a token of another type than bearer"));
    }
    let life = match answer.body.0.get("expires_in") {
        None | Some(Value::Null) => LIFE,
        Some(value) => {
            let seconds = value.as_u64().filter(|seconds| (1..=LONGEST).contains(seconds));
            Duration::from_secs(seconds.ok_or(OauthError::Answer("a life that is none"))?)
        }
    };
    Ok(Tokens {
        access_token: token("access_token")?.ok_or(OauthError::Answer("no access token"))?,
        refresh_token: token("refresh_token")?,
        life,
        scope: granted(&spec.scopes, answer.text("scope"))?,
        account: Account::of(&[answer.text("id_token"), answer.text("access_token")]),
    })
}

/// Ends a refresh token, and with it what came of it (RFC 7009, section 2.1). One that is not known is as good as ended, and
/// answered with 200 as well (section 2.2).
pub(super) async fn revoke(
    spec: &OauthSpec,
    address: &str,
    secret: Option<&Secret>,
    token: &str,
) -> Result<(), OauthError> {
    let fields = [("token", token), ("token_type_hint", "refresh_token"), ("client_id", spec.client_id.as_str())];
    let answer = post(spec, address, secret, &fields).await?;
    if answer.status == 200 { Ok(()) } else { Err(answer.failed()) }
}

/// What is granted, when that is no more than was asked for. An issuer that says nothing granted what was asked for
/// (RFC 6749, section 5.1).
fn granted(asked: &[String], said: Option<&str>) -> Result<String, OauthError> {
    let Some(said) = said else { return Ok(asked.join(" ")) };
    // GitHub parts them by commas.
    let words: Vec<&str> = said.split([' ', ',']).filter(|word| !word.is_empty()).collect();
    if !asked.is_empty() && words.iter().any(|word| asked.iter().all(|one| one != word)) {
        return Err(OauthError::Wider);
    }
    let shown = words.join(" ");
    Ok(shown.chars().filter(char::is_ascii).filter(|one| !one.is_control()).take(500).collect())
}

/// Posts fields, with the client's secret if there is one. What has an answer is no error here.
pub(super) async fn post(
    spec: &OauthSpec,
    address: &str,
    secret: Option<&Secret>,
    fields: &[(&str, &str)],
) -> Result<Answer, OauthError> {
    let refused = |problem| OauthError::Address { address: web::shown(address), problem };
    let url = Url::parse(address).map_err(|_| refused("it is not a URL"))?;
    web::check(&url).map_err(refused)?;
    let caller = web::builder(&url).build().map_err(OauthError::Client)?;
    let secret = match secret {
        None => None,
        Some(secret) => Some(("client_secret", word(secret.expose()).ok_or(OauthError::NotASecret)?)),
    };
    let fields = || fields.iter().copied().chain(secret);
    // It holds a token, so it does not grow and is wiped.
    let (kind, body) = if spec.json_requests {
        let document: serde_json::Map<String, Value> =
            fields().map(|(key, value)| (key.to_owned(), Value::String(value.to_owned()))).collect();
        let document = Wiped(Value::Object(document));
        ("application/json", wiped::text(&document.0).map_err(|_| OauthError::Answer("a token that is too long"))?)
    } else {
        let room = fields().map(|(key, value)| key.len() + 3 * value.len() + 2).sum();
        let mut form = Zeroizing::new(Vec::with_capacity(room));
        for (key, value) in fields() {
            if !form.is_empty() {
                form.push(b'&');
            }
            form.extend_from_slice(key.as_bytes());
            form.push(b'=');
            percent_encode(value.as_bytes(), ESCAPED).for_each(|part| form.extend_from_slice(part.as_bytes()));
        }
        ("application/x-www-form-urlencoded", form)
    };
    let failed = |sent: bool, error: reqwest::Error| {
        let address = web::shown(address);
        if error.is_timeout() && !error.is_connect() {
            OauthError::Timeout { address, seconds: web::LIMIT.as_secs() }
        } else {
            OauthError::Unreachable { address, sent: sent || !error.is_connect(), source: error.without_url() }
        }
    };
    let request = caller
        .post(url)
        .header(http::header::CONTENT_TYPE, kind)
        .header(http::header::ACCEPT, "application/json")
        .body(Bytes::from_owner(body));
    let response = request.send().await.map_err(|error| failed(false, error))?;
    let status = response.status().as_u16();
    let bytes = web::body(response, ANSWER_LIMIT).await.map_err(|error| failed(true, error))?;
    let bytes = bytes.ok_or(OauthError::Answer("an answer that is too long"))?;
    match serde_json::from_slice(&bytes) {
        Ok(body) => Ok(Answer { status, body: Wiped(body) }),
        Err(_) if status == 200 => Err(OauthError::Answer("an answer that is not JSON")),
        Err(_) => Ok(Answer { status, body: Wiped(Value::Null) }),
    }
}
