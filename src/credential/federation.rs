//! Google Cloud, Microsoft Entra and Anthropic: a token of an account of theirs, for the sandbox's own identity.
//!
//! Nothing is shared with them beforehand but public keys. None of them has a call that ends such a token, so its end is told
//! as the time at which it runs out, and never as a revocation.

use jiff::{SignedDuration, Timestamp};
use serde_json::{Map, Value, json};

use super::secret::Secret;
use super::spec::{AnthropicSpec, AzureSpec, GcpSpec};
use super::wiped::Wiped;
use super::{IssueContext, Revocation};

mod client;
mod error;

use client::{Answer, Body, Issuer};
pub use error::FederationError;

/// The longest life that is taken, in seconds: Entra's tokens live for up to 28 hours ("Continuous access evaluation").
const LONGEST: u64 = 28 * 3600;
/// How much longer than asked a token may live: clocks have whole seconds.
const SLACK: i64 = 60;
/// From this difference of the clocks on, a refused identity is signed once more by the server's.
const SKEW: i64 = 30;
/// The longest token, in bytes. Entra's with many groups have several thousand.
const TOKEN_LIMIT: usize = 16 << 10;
const JWT_BEARER: &str = "urn:ietf:params:oauth:grant-type:jwt-bearer";

/// A token that was issued.
#[derive(Debug)]
pub struct Exchanged {
    /// The token.
    pub token: Secret,
    /// When it ends, by this machine's clock.
    pub expires_at: Timestamp,
    /// When it ends, and whose it is.
    pub handle: String,
    /// As whom it acts.
    pub scope: String,
}

impl Exchanged {
    fn new(token: Secret, expires_at: Timestamp, scope: String) -> Self {
        Self { handle: format!("{expires_at}|{scope}"), token, expires_at, scope }
    }
}

/// Says when a token ends.
///
/// # Errors
/// When the handle is none.
pub fn revoke(handle: &str) -> Result<Revocation, FederationError> {
    let time = handle.split_once('|').and_then(|(time, _)| time.parse().ok());
    time.map(Revocation::ExpiresAt).ok_or(FederationError::Handle)
}

/// Google Cloud: the identity becomes a federated token ("Method: token" of the Security Token Service; RFC 8693, section
/// 2.1), which becomes one of the service account ("Method: projects.serviceAccounts.generateAccessToken").
///
/// # Errors
/// When the identity is not signed, or Google cannot be reached, refuses or gives another token than was asked for.
pub async fn gcp(spec: &GcpSpec, context: &IssueContext<'_>) -> Result<Exchanged, FederationError> {
    let address = |own: &'static str| spec.address.as_deref().unwrap_or(own);
    let sts = Issuer::new("Google", address("https://sts.googleapis.com"))?;
    let answer = exchange(&sts, "v1/token", &[], &spec.audience, context, |identity| {
        Body::form(&[
            ("grant_type", "urn:ietf:params:oauth:grant-type:token-exchange"),
            ("audience", &spec.audience),
            ("scope", "https://www.googleapis.com/auth/cloud-platform"),
            ("requested_token_type", "urn:ietf:params:oauth:token-type:access_token"),
            ("subject_token_type", "urn:ietf:params:oauth:token-type:jwt"),
            ("subject_token", identity),
        ])
    })
    .await?;
    let (federated, _) = bearer(&sts, &answer)?;
    let accounts = Issuer::new("Google", address("https://iamcredentials.googleapis.com"))?;
    let path = format!("v1/projects/-/serviceAccounts/{}:generateAccessToken", spec.service_account);
    let seconds = spec.ttl.as_secs();
    let body = Body::json(&Wiped(json!({ "scope": spec.scopes, "lifetime": format!("{seconds}s") })))?;
    let answer = accounts.post(&path, &[], Some(&federated), &body).await?;
    let answer = accounts.accepted(answer, &federated)?;
    let token = token(&accounts, &answer, "accessToken")?;
    let end = answer.body.0.get("expireTime").and_then(Value::as_str).and_then(|text| text.parse::<Timestamp>().ok());
    let end = end.ok_or(FederationError::Answer { issuer: "Google", what: "a token without an end" })?;
    let now = Timestamp::now();
    let left = end.as_second() - answer.date.unwrap_or(now).as_second();
    if left > i64::try_from(seconds).unwrap_or(i64::MAX) + SLACK {
        return Err(FederationError::Wider { issuer: "Google", what: "a longer life" });
    }
    Ok(Exchanged::new(token, after(now, left, "Google")?, format!("gcp {}", spec.service_account)))
}

/// Microsoft Entra: "Access token request with a federated credential" of the client credentials grant.
///
/// # Errors
/// As [`gcp`].
pub async fn azure(spec: &AzureSpec, context: &IssueContext<'_>) -> Result<Exchanged, FederationError> {
    let entra = Issuer::new("Entra", &spec.address)?;
    let path = format!("{}/oauth2/v2.0/token", spec.tenant);
    let answer = exchange(&entra, &path, &[], &spec.audience, context, |identity| {
        Body::form(&[
            ("grant_type", "client_credentials"),
            ("client_id", &spec.client),
            ("scope", &spec.scope),
            ("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"),
            ("client_assertion", identity),
        ])
    })
    .await?;
    let (token, seconds) = bearer(&entra, &answer)?;
    let scope = format!("azure {} for {}", spec.client, spec.scope);
    Ok(Exchanged::new(token, after(Timestamp::now(), seconds, "Entra")?, scope))
}

/// Anthropic: "WIF reference", token exchange request. The fields of beta are those that its own SDKs send.
///
/// # Errors
/// As [`gcp`].
pub async fn anthropic(spec: &AnthropicSpec, context: &IssueContext<'_>) -> Result<Exchanged, FederationError> {
    let anthropic = Issuer::new("Anthropic", &spec.address)?;
    let beta = [("anthropic-beta", "oauth-2025-04-20,oidc-federation-2026-04-01")];
    let answer = exchange(&anthropic, "v1/oauth/token", &beta, &spec.audience, context, |identity| {
        let mut body = Wiped(json!({
            "grant_type": JWT_BEARER,
            "assertion": identity,
            "federation_rule_id": spec.rule,
            "organization_id": spec.organization,
            "service_account_id": spec.service_account,
        }));
        if let Some(workspace) = &spec.workspace {
            body.0["workspace_id"] = json!(workspace);
        }
        Body::json(&body)
    })
    .await?;
    let (token, seconds) = bearer(&anthropic, &answer)?;
    let scope = format!("anthropic {}", spec.service_account);
    Ok(Exchanged::new(token, after(Timestamp::now(), seconds, "Anthropic")?, scope))
}

/// Sends an identity for this audience; once more by the server's clock when that may be why it was refused.
async fn exchange(
    issuer: &Issuer,
    path: &str,
    headers: &[(&'static str, &'static str)],
    audience: &str,
    context: &IssueContext<'_>,
    body: impl Fn(&str) -> Result<Body, FederationError>,
) -> Result<Answer, FederationError> {
    let now = Timestamp::now();
    let signed = context.identity.sign(context, audience, Map::new(), now)?;
    let answer = issuer.post(path, headers, None, &body(&signed.text())?).await?;
    let skewed = answer.date.filter(|date| (date.as_second() - now.as_second()).abs() >= SKEW);
    let Some(date) = skewed.filter(|_| (400..=403).contains(&answer.status)) else {
        return issuer.accepted(answer, &signed.token);
    };
    tracing::warn!(server = %date, own = %now, "this machine's clock differs from the issuer's");
    let signed = context.identity.sign(context, audience, Map::new(), date)?;
    let answer = issuer.post(path, headers, None, &body(&signed.text())?).await?;
    issuer.accepted(answer, &signed.token)
}

/// The token of a successful response and the seconds that it lives (RFC 6749, section 5.1).
fn bearer(issuer: &Issuer, answer: &Answer) -> Result<(Secret, i64), FederationError> {
    let kind = answer.body.0.get("token_type").and_then(Value::as_str);
    if kind.is_none_or(|kind| !kind.eq_ignore_ascii_case("bearer")) {
        return Err(FederationError::Answer { issuer: issuer.name, what: "a token of an unknown type" });
    }
    let seconds = answer.body.0.get("expires_in").and_then(Value::as_u64).filter(|seconds| *seconds > 0);
    let seconds = seconds.ok_or(FederationError::Answer { issuer: issuer.name, what: "a token without an end" })?;
    if seconds > LONGEST {
        return Err(FederationError::Wider { issuer: issuer.name, what: "a longer life" });
    }
    Ok((token(issuer, answer, "access_token")?, i64::try_from(seconds).unwrap_or(0)))
}

fn token(issuer: &Issuer, answer: &Answer, field: &str) -> Result<Secret, FederationError> {
    let token = answer.body.0.get(field).and_then(Value::as_str);
    let token =
        token.filter(|token| (1..=TOKEN_LIMIT).contains(&token.len()) && token.bytes().all(|b| b.is_ascii_graphic()));
    let token = token.ok_or(FederationError::Answer { issuer: issuer.name, what: "an answer without a token" })?;
    Ok(Secret::new(token.as_bytes().to_vec()))
}

fn after(now: Timestamp, seconds: i64, issuer: &'static str) -> Result<Timestamp, FederationError> {
    let end = now.checked_add(SignedDuration::from_secs(seconds));
    end.map_err(|_| FederationError::Answer { issuer, what: "an end that is none" })
}
