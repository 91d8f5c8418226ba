//! AWS STS: a session of a role, narrowed by a session policy, named after project, person and session.
//!
//! The value is the JSON of a `credential_process`, beside a configuration file that points there. A session cannot be
//! ended singly, so its end is told as the time at which it runs out, and never as a revocation.

use std::time::Duration;

use bytes::Bytes;
use jiff::{SignedDuration, Timestamp};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::Url;
use serde_json::{Map, Value, json};
use zeroize::Zeroizing;

use super::exec::said;
use super::secret::Secret;
use super::spec::{AwsSource, AwsStsSpec};
use super::{IssueContext, Revocation, web, wiped};
use crate::project::CredentialName;

mod error;
pub(crate) mod signature;
pub(crate) mod source;

pub use error::StsError;
use signature::Signable;
pub use source::Environment;
use source::SourceKeys;

/// The longest answer, in bytes.
const ANSWER_LIMIT: usize = 64 << 10;
/// The longest session name: "length constraints: minimum length of 2, maximum length of 64".
const NAME_LIMIT: usize = 64;
/// From this difference of the clocks on, a refused signature is made once more by the server's.
const SKEW: i64 = 30;
/// How much longer than asked the session may live: clocks have whole seconds.
const SLACK: i64 = 60;
/// What a form escapes as clients of AWS do: all but the unreserved characters (RFC 3986, section 2.3); a space becomes `+`.
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
const FORM: &str = "application/x-www-form-urlencoded; charset=utf-8";

/// A session of a role.
#[derive(Debug)]
pub struct Assumed {
    /// The JSON of a `credential_process`.
    pub value: Secret,
    /// When it runs out, by this machine's clock.
    pub expires_at: Timestamp,
    /// When it runs out, and its name in CloudTrail.
    pub handle: String,
    /// Whose session it is.
    pub scope: String,
}

struct Answer {
    status: u16,
    body: Zeroizing<String>,
    date: Option<Timestamp>,
}

/// Assumes the role.
///
/// # Errors
/// When there are no keys, STS cannot be reached or refuses, or gives another session than was asked for.
pub async fn issue(name: &CredentialName, spec: &AwsStsSpec, context: &IssueContext<'_>) -> Result<Assumed, StsError> {
    let address = spec.address.clone().unwrap_or_else(|| endpoint(spec));
    let refused = |problem| StsError::Address { address: web::shown(&address), problem };
    let url = Url::parse(&address).map_err(|_| refused("it is not a URL"))?;
    web::check(&url).map_err(refused)?;
    let session = session_name(context);
    let keys = match &spec.source {
        AwsSource::Identity(_) => None,
        _ => Some(source::keys(name, spec, context).await?),
    };
    let body = |now| match &spec.source {
        AwsSource::Identity(audience) => signed_form(spec, &session, audience, context, now),
        _ => Ok(Zeroizing::new(form(spec, &session, context.actor))),
    };
    let now = Timestamp::now();
    let mut answer = ask(&url, spec, keys.as_ref(), body(now)?, now).await?;
    let skewed = answer.date.filter(|date| (date.as_second() - now.as_second()).abs() >= SKEW);
    if let Some(date) = skewed.filter(|_| answer.status == 400 || answer.status == 403) {
        tracing::warn!(server = %date, own = %now, "this machine's clock differs from that of AWS");
        answer = ask(&url, spec, keys.as_ref(), body(date)?, date).await?;
    }
    if answer.status != 200 {
        let word = |tag| element(&answer.body, tag).unwrap_or_default();
        return Err(StsError::Refused {
            status: answer.status,
            code: said::code(word("Code")),
            said: said::shown(word("Message").as_bytes(), b""),
        });
    }
    assumed(spec, &session, &answer)
}

/// Says when the session runs out: STS has no call that ends one.
///
/// # Errors
/// When the handle is none.
pub fn revoke(handle: &str) -> Result<Revocation, StsError> {
    let time = handle.split_once('|').and_then(|(time, _)| time.parse().ok());
    time.map(Revocation::ExpiresAt).ok_or(StsError::Handle)
}

/// The configuration file for a value below `/run/secrets` ("Process credential provider").
pub(super) fn configuration(spec: &AwsStsSpec, file: &str) -> String {
    format!("[default]\nregion = {}\ncredential_process = /bin/cat /run/secrets/{file}\n", spec.region)
}

/// The regional endpoint ("AWS STS endpoints and quotas").
fn endpoint(spec: &AwsStsSpec) -> String {
    let suffix = if spec.role.starts_with("arn:aws-cn:") { ".cn" } else { "" };
    format!("https://sts.{}.amazonaws.com{suffix}/", spec.region)
}

/// `PROJECT-USER-SESSION` of the characters that STS takes: `[\w+=,.@-]*`. Project and user give way to the session, which
/// tells one from the other.
fn session_name(context: &IssueContext<'_>) -> String {
    let session = plain(context.session.as_deref().unwrap_or(context.sandbox.as_str()));
    let session: String = session.chars().take(NAME_LIMIT / 2).collect();
    let whose = plain(&format!("{}-{}", context.project, context.actor));
    let whose: String = whose.chars().take(NAME_LIMIT - 1 - session.len()).collect();
    format!("{whose}-{session}")
}

/// With `_` for what a session name cannot have.
fn plain(text: &str) -> String {
    let fine = |character: char| character.is_ascii_alphanumeric() || "_+=,.@-".contains(character);
    text.chars().map(|character| if fine(character) { character } else { '_' }).collect()
}

/// The form of `AssumeRoleWithWebIdentity`, which has the sandbox's identity in place of a signature. Tags and source
/// identity have no field there: they are claims of the token ("Pass session tags using AssumeRoleWithWebIdentity",
/// "Monitor and control actions taken with assumed roles").
fn signed_form(
    spec: &AwsStsSpec,
    session: &str,
    audience: &str,
    context: &IssueContext<'_>,
    now: Timestamp,
) -> Result<Zeroizing<String>, StsError> {
    let mut further = Map::new();
    if !spec.tags.is_empty() {
        let tags: Map<String, Value> = spec.tags.iter().map(|(key, value)| (key.clone(), json!([value]))).collect();
        further.insert("https://aws.amazon.com/tags".to_owned(), json!({ "principal_tags": tags }));
    }
    if spec.source_identity {
        further.insert("https://aws.amazon.com/source_identity".to_owned(), json!(source_identity(context.actor)));
    }
    let signed = context.identity.sign(context, audience, further, now)?;
    let mut fields = vec![("Action".to_owned(), "AssumeRoleWithWebIdentity".to_owned())];
    fields.extend(common(spec, session));
    // base64url and points need no escaping (RFC 7515, section 7.1).
    Ok(Zeroizing::new(format!("{}&WebIdentityToken={}", encoded(&fields), *signed.text())))
}

fn source_identity(actor: &str) -> String {
    plain(actor).chars().take(NAME_LIMIT).collect()
}

fn form(spec: &AwsStsSpec, session: &str, actor: &str) -> String {
    let mut fields = vec![("Action".to_owned(), "AssumeRole".to_owned())];
    fields.extend(common(spec, session));
    fields.extend(spec.external_id.iter().map(|id| ("ExternalId".to_owned(), id.clone())));
    if spec.source_identity {
        fields.push(("SourceIdentity".to_owned(), source_identity(actor)));
    }
    for (index, (key, value)) in spec.tags.iter().enumerate() {
        fields.push((format!("Tags.member.{}.Key", index + 1), key.clone()));
        fields.push((format!("Tags.member.{}.Value", index + 1), value.clone()));
    }
    encoded(&fields)
}

/// The fields that both calls have.
fn common(spec: &AwsStsSpec, session: &str) -> Vec<(String, String)> {
    let mut fields = vec![
        ("Version".to_owned(), "2011-06-15".to_owned()),
        ("RoleArn".to_owned(), spec.role.clone()),
        ("RoleSessionName".to_owned(), session.to_owned()),
        ("DurationSeconds".to_owned(), spec.ttl.as_secs().to_string()),
    ];
    fields.extend(spec.policy.iter().map(|policy| ("Policy".to_owned(), policy.clone())));
    for (index, arn) in spec.policy_arns.iter().enumerate() {
        fields.push((format!("PolicyArns.member.{}.arn", index + 1), arn.clone()));
    }
    fields
}

fn encoded(fields: &[(String, String)]) -> String {
    let escape = |text: &str| utf8_percent_encode(text, ESCAPED).to_string().replace("%20", "+");
    fields.iter().map(|(key, value)| format!("{}={}", escape(key), escape(value))).collect::<Vec<_>>().join("&")
}

async fn ask(
    url: &Url,
    spec: &AwsStsSpec,
    keys: Option<&SourceKeys>,
    body: Zeroizing<String>,
    now: Timestamp,
) -> Result<Answer, StsError> {
    let address = url.as_str().to_owned();
    let failed = |error: reqwest::Error| {
        if error.is_timeout() {
            StsError::Timeout { address: address.clone(), seconds: web::LIMIT.as_secs() }
        } else {
            StsError::Unreachable { address: address.clone(), source: error.without_url() }
        }
    };
    let unusable = StsError::Answer;
    let host = url.host_str().unwrap_or_default();
    let host = url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"));
    let stamp = signature::stamp(now);
    let token = match keys.and_then(|keys| keys.session.as_ref()) {
        None => None,
        Some(token) => {
            Some(std::str::from_utf8(token.expose()).map_err(|_| unusable("a session token that is not text"))?)
        }
    };
    let mut headers = vec![("content-type", FORM), ("host", host.as_str()), ("x-amz-date", stamp.as_str())];
    headers.extend(token.map(|token| ("x-amz-security-token", token)));
    let payload = signature::hash(body.as_bytes());
    let request = Signable { method: "POST", path: url.path(), query: "", headers: &headers, payload: &payload };
    let authorization = keys.map(|keys| signature::authorization(&request, keys, &spec.region, "sts", &stamp));
    let http = web::builder(url).build().map_err(StsError::Client)?;
    let mut request = http
        .post(url.clone())
        .header(http::header::CONTENT_TYPE, FORM)
        .header(http::header::HOST, &host)
        .header("x-amz-date", &stamp)
        .body(Bytes::from_owner(Zeroizing::new(body.as_bytes().to_vec())));
    if let Some(authorization) = authorization {
        request = request.header(http::header::AUTHORIZATION, authorization);
    }
    if let Some(token) = token {
        let value = web::header(&[token.as_bytes()]).ok_or(unusable("a session token that is not text"))?;
        request = request.header("x-amz-security-token", value);
    }
    let response = request.send().await.map_err(failed)?;
    let (status, date) = (response.status().as_u16(), web::date(&response));
    let bytes = web::body(response, ANSWER_LIMIT).await.map_err(failed)?;
    let bytes = bytes.ok_or(unusable("an answer that is too long"))?;
    let body = std::str::from_utf8(&bytes).map_err(|_| unusable("an answer that is not text"))?;
    Ok(Answer { status, body: Zeroizing::new(body.to_owned()), date })
}

/// The text of an element that stands once. What is read has no character that XML would escape.
fn element<'a>(body: &'a str, tag: &str) -> Option<&'a str> {
    let (open, close) = (format!("<{tag}>"), format!("</{tag}>"));
    let (_, rest) = body.split_once(&open)?;
    let (text, after) = rest.split_once(&close)?;
    (!after.contains(&open)).then_some(text.trim())
}

fn assumed(spec: &AwsStsSpec, session: &str, answer: &Answer) -> Result<Assumed, StsError> {
    let word = |tag: &str, further: &str| {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || further.as_bytes().contains(&byte);
        element(&answer.body, tag).filter(|text| !text.is_empty() && text.bytes().all(plain))
    };
    let (Some(id), Some(secret), Some(token)) =
        (word("AccessKeyId", "_"), word("SecretAccessKey", "/+="), word("SessionToken", "/+=_-"))
    else {
        return Err(StsError::Answer("an answer without keys"));
    };
    let end = word("Expiration", "-:.+").and_then(|text| text.parse::<Timestamp>().ok());
    let end = end.ok_or(StsError::Answer("a session without an end"))?;
    let now = Timestamp::now();
    let left = end.as_second() - answer.date.unwrap_or(now).as_second();
    if left > i64::try_from(spec.ttl.as_secs()).unwrap_or(i64::MAX) + SLACK {
        return Err(StsError::Other("a longer life"));
    }
    let expires_at = now.checked_add(SignedDuration::from_secs(left));
    let expires_at = expires_at.map_err(|_| StsError::Answer("an end that is none"))?;
    // `arn:aws:iam::ACCOUNT:role/PATH/NAME` becomes `arn:aws:sts::ACCOUNT:assumed-role/NAME/SESSION`.
    let arn = word("Arn", "_+=,.@-:/").ok_or(StsError::Answer("a session of nobody"))?;
    let role = spec.role.replacen(":iam:", ":sts:", 1);
    let expected = role.split_once(":role/").map(|(account, path)| {
        let name = path.rsplit('/').next().unwrap_or(path);
        format!("{account}:assumed-role/{name}/{session}")
    });
    if expected.as_deref() != Some(arn) {
        return Err(StsError::Other("another role or name"));
    }
    let document = wiped::Wiped(json!({
        "Version": 1,
        "AccessKeyId": id,
        "SecretAccessKey": secret,
        "SessionToken": token,
        "Expiration": end.to_string(),
    }));
    let text = wiped::text(&document.0).map_err(|_| StsError::Answer("keys that are too long"))?;
    let value = Secret::new(text.to_vec());
    Ok(Assumed { value, expires_at, handle: format!("{expires_at}|{session}"), scope: arn.to_owned() })
}

/// The shortest and the longest session: "900 seconds (15 minutes) up to the maximum session duration", which is 12 hours
/// at most.
pub const SHORTEST: Duration = Duration::from_secs(900);
/// See [`SHORTEST`].
pub const LONGEST: Duration = Duration::from_secs(12 * 3600);

#[cfg(test)]
mod tests;
