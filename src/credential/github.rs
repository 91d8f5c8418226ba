//! GitHub Apps: a token of an installation, for named repositories and permissions, that lives for an hour.
//!
//! The app's private key signs one assertion and is forgotten; it reaches neither the sandbox nor the journal. A token is
//! opaque and is never parsed. Only the token itself can end it, so it stays in memory (`held`); its handle is no secret.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use reqwest::Method;
use serde_json::{Map, Value, json};

use super::secret::Secret;
use super::spec::{GithubAccess, GithubAppSpec, GithubRepositories};
use super::{IssueContext, Revocation, key_source};
use crate::project::CredentialName;

mod assertion;
mod client;
mod error;

use assertion::AppKey;
use client::{Answer, Client};
pub use error::GithubError;

/// How long a token lives: "the installation access token will expire after 1 hour".
pub const LIFE: Duration = Duration::from_secs(3600);
/// From this difference of the clocks on, a log-in that failed is tried once more by the server's.
const SKEW: i64 = 30;
/// How much longer than an hour the end may be away: the server's clock has whole seconds.
const SLACK: i64 = 60;
/// How often, and how far apart, it is looked whether a token ended.
const LOOKS: u32 = 5;
const PAUSE: Duration = Duration::from_millis(400);
/// The longest token, in bytes. GitHub's are of 40 or of some 520.
const TOKEN_LIMIT: usize = 4 << 10;

/// A token that was issued.
#[derive(Debug)]
pub struct Minted {
    /// The token.
    pub token: Secret,
    /// When it ends, by this machine's clock.
    pub expires_at: Timestamp,
    /// By what it is found again in memory, and when it ends.
    pub handle: String,
    /// What GitHub says it is good for.
    pub scope: String,
}

/// Has a token issued that is good for what the manifest names and for nothing else.
///
/// # Errors
/// When the key cannot be used, GitHub cannot be reached or refuses, or it grants more than was asked for.
pub async fn issue(
    name: &CredentialName,
    spec: &GithubAppSpec,
    context: &IssueContext<'_>,
) -> Result<Minted, GithubError> {
    let client = Client::new(&spec.address)?;
    let key = AppKey::read(&key_source::read(&spec.key, name, context).await?)?;
    let answer = ask(&client, &key, spec).await?;
    if answer.status != 201 {
        return Err(refusal(&client, spec, &answer));
    }
    let token = answer.body.0.get("token").and_then(Value::as_str);
    let token = token.filter(|token| (1..=TOKEN_LIMIT).contains(&token.len()));
    let token = Secret::new(token.ok_or(GithubError::Answer("an answer without a token"))?.as_bytes().to_vec());
    // From here on there is a token, so whatever is wrong with it, it is ended.
    let taken = expiry(&answer).and_then(|expires_at| {
        let handle = handle_of(expires_at, client.address())?;
        Ok((expires_at, handle, granted(spec, &answer.body.0)?))
    });
    match taken {
        Ok((expires_at, handle, scope)) => {
            context.held.keep(&handle, token.clone());
            Ok(Minted { token, expires_at, handle, scope })
        }
        Err(wrong) => {
            let ended = end(&client, &token).await;
            if let Err(error) = &ended {
                tracing::warn!(credential = %name, %error, "a token that was refused was not revoked; it lives for an hour");
            }
            Err(match wrong {
                GithubError::Wider { what, .. } if ended.is_err() => {
                    GithubError::Wider { what, fate: "could not be revoked and lives for an hour" }
                }
                wrong => wrong,
            })
        }
    }
}

/// Ends a token, and looks that it ended. Without the token itself, says when it ends.
///
/// # Errors
/// When GitHub cannot be reached or still accepts it.
pub async fn revoke(handle: &str, context: &IssueContext<'_>) -> Result<Revocation, GithubError> {
    let (expires_at, address) = split_handle(handle).ok_or(GithubError::Handle)?;
    let Some(token) = context.held.find(handle) else { return Ok(Revocation::ExpiresAt(expires_at)) };
    if expires_at > Timestamp::now() {
        end(&Client::new(address)?, &token).await?;
    }
    context.held.forget(handle);
    Ok(Revocation::Revoked)
}

/// A random word, the end and the API in one line. Nothing of it is made from the token.
fn handle_of(expires_at: Timestamp, address: &str) -> Result<String, GithubError> {
    let mut random = [0; 8];
    getrandom::fill(&mut random).map_err(|error| GithubError::Random(error.into()))?;
    Ok(format!("{}|{expires_at}|{address}", hex::encode(random)))
}

fn split_handle(handle: &str) -> Option<(Timestamp, &str)> {
    let (_, rest) = handle.split_once('|')?;
    let (expires_at, address) = rest.split_once('|')?;
    Some((expires_at.parse().ok()?, address))
}

/// "Revoke an installation access token" answers 204. Then the token is refused with 401, at the latest after a moment.
async fn end(client: &Client, token: &Secret) -> Result<(), GithubError> {
    let answer = client.call(Method::DELETE, "installation/token", token, None).await?;
    match answer.status {
        204 => {}
        // Somebody ended it before.
        401 => return Ok(()),
        status => return Err(GithubError::Failed { status, said: answer.said() }),
    }
    for look in 1..=LOOKS {
        let answer = client.call(Method::GET, "installation/repositories?per_page=1", token, None).await?;
        if answer.status == 401 {
            return Ok(());
        }
        if look < LOOKS {
            tokio::time::sleep(PAUSE).await;
        }
    }
    Err(GithubError::StillGood)
}

/// Asks for a token; once more by the server's clock when that is why it was refused.
async fn ask(client: &Client, key: &AppKey, spec: &GithubAppSpec) -> Result<Answer, GithubError> {
    let path = format!("app/installations/{}/access_tokens", spec.installation);
    let mut body = json!({ "permissions": spec.permissions });
    match &spec.repositories {
        GithubRepositories::Names(names) => body["repositories"] = json!(names),
        GithubRepositories::Ids(ids) => body["repository_ids"] = json!(ids),
    }
    let now = Timestamp::now();
    let answer = client.call(Method::POST, &path, &key.assert(&spec.app, now)?, Some(&body)).await?;
    let server = answer.date.filter(|date| answer.status == 401 && (date.as_second() - now.as_second()).abs() >= SKEW);
    match server {
        None => Ok(answer),
        Some(date) => {
            tracing::warn!(server = %date, own = %now, "this machine's clock differs from GitHub's");
            client.call(Method::POST, &path, &key.assert(&spec.app, date)?, Some(&body)).await
        }
    }
}

/// When the token ends, by this machine's clock.
fn expiry(answer: &Answer) -> Result<Timestamp, GithubError> {
    let end = answer.body.0.get("expires_at").and_then(Value::as_str).and_then(|text| text.parse::<Timestamp>().ok());
    let end = end.ok_or(GithubError::Answer("a token without an end"))?;
    let now = Timestamp::now();
    let left = end.as_second() - answer.date.unwrap_or(now).as_second();
    if left > i64::try_from(LIFE.as_secs()).unwrap_or(i64::MAX) + SLACK {
        return Err(wider("a longer life"));
    }
    // A token that ended already is refused by the rules for all credentials.
    now.checked_add(SignedDuration::from_secs(left)).map_err(|_| GithubError::Answer("an end that is none"))
}

fn wider(what: &'static str) -> GithubError {
    GithubError::Wider { what, fate: "was revoked" }
}

/// What the token is good for, in words, when that is no more than was asked for.
fn granted(spec: &GithubAppSpec, answer: &Value) -> Result<String, GithubError> {
    let permissions = answer.get("permissions").and_then(Value::as_object).ok_or(wider("other permissions"))?;
    let permissions = permitted(spec, permissions)?;
    if answer.get("repository_selection").and_then(Value::as_str) != Some("selected") {
        return Err(wider("more repositories"));
    }
    let repositories = answer.get("repositories").and_then(Value::as_array).filter(|found| !found.is_empty());
    let repositories = repositories.ok_or(wider("other repositories"))?;
    let asked = |repository: &Value| match &spec.repositories {
        GithubRepositories::Names(names) => {
            let name = repository.get("name").and_then(Value::as_str).map(str::to_ascii_lowercase);
            name.filter(|name| names.contains(name))
        }
        GithubRepositories::Ids(ids) => {
            repository.get("id").and_then(Value::as_u64).filter(|id| ids.contains(id)).map(|id| id.to_string())
        }
    };
    let names: Option<Vec<String>> = repositories.iter().map(asked).collect();
    let names = names.ok_or(wider("more repositories"))?;
    Ok(format!("{permissions} on {}", names.join(", ")))
}

fn permitted(spec: &GithubAppSpec, permissions: &Map<String, Value>) -> Result<String, GithubError> {
    let mut words = Vec::new();
    for (name, access) in permissions {
        let access: GithubAccess =
            serde_json::from_value(access.clone()).map_err(|_| GithubError::Answer("an access that is not known"))?;
        // Every app has it: "metadata: read" cannot be left out ("Choosing permissions for a GitHub App").
        let implied = name == "metadata" && access == GithubAccess::Read;
        if !implied && spec.permissions.get(name).is_none_or(|asked| *asked < access) {
            return Err(wider("more permissions"));
        }
        words.push(format!("{name}:{}", access.word()));
    }
    Ok(words.join(" "))
}

impl GithubAccess {
    /// The word of the API.
    pub fn word(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Admin => "admin",
        }
    }
}

/// The documented statuses of "Create an installation access token for an app", as what has to be mended.
fn refusal(client: &Client, spec: &GithubAppSpec, answer: &Answer) -> GithubError {
    let said = answer.said();
    let lower = said.to_ascii_lowercase();
    match answer.status {
        _ if answer.limited => GithubError::Busy { address: client.address().to_owned(), status: answer.status },
        500..=599 => GithubError::Busy { address: client.address().to_owned(), status: answer.status },
        401 => GithubError::Unauthenticated { app: spec.app.clone(), said },
        403 if lower.contains("suspended") => GithubError::Suspended(spec.installation),
        403 => GithubError::Forbidden(said),
        404 => GithubError::NoInstallation { installation: spec.installation, app: spec.app.clone() },
        422 if lower.contains("repositor") => GithubError::Repositories(said),
        422 if lower.contains("permission") => GithubError::Permissions(said),
        status => GithubError::Failed { status, said },
    }
}

#[cfg(test)]
mod tests;
