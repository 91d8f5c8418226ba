//! OpenAI: a service account of a project for each sandbox, made and deleted by the administration API.
//!
//! The key of a service account is shown once, in the answer that makes the account, and ends with the account. The admin key
//! that makes accounts comes from a file or a command of the developer's; it reaches neither the sandbox nor the journal. The
//! account's id is no secret, so whoever has the journal and the admin key can end it, also after a crash.

use jiff::{SignedDuration, Timestamp};
use reqwest::Method;
use serde_json::{Value, json};

use super::secret::Secret;
use super::spec::OpenaiProjectSpec;
use super::wiped::Wiped;
use super::{IssueContext, Revocation, key_source};
use crate::project::CredentialName;

mod client;
mod error;

use client::{Answer, Client};
pub use error::OpenaiError;

/// How much longer than asked a key may live: clocks have whole seconds.
const SLACK: i64 = 60;
/// The longest key and the longest id, in bytes.
const KEY_LIMIT: usize = 1024;
const ID_LIMIT: usize = 128;
/// How many pages of a hundred accounts are looked through for one whose making was not answered.
const PAGES: usize = 20;

/// A key that was issued.
#[derive(Debug)]
pub struct Minted {
    /// The key.
    pub key: Secret,
    /// When it ends by itself, by this machine's clock.
    pub expires_at: Timestamp,
    /// By what its account is deleted.
    pub handle: String,
    /// Whose it is and in which project.
    pub scope: String,
}

/// Makes a service account, whose key is good for one project of the organisation ("Create project service account").
///
/// # Errors
/// When the admin key cannot be had, OpenAI cannot be reached or refuses, or it grants more than was asked for.
pub async fn issue(
    name: &CredentialName,
    spec: &OpenaiProjectSpec,
    context: &IssueContext<'_>,
) -> Result<Minted, OpenaiError> {
    let client = Client::new(&spec.address)?;
    let admin = admin_key(name, spec, context).await?;
    let account = account_name(context)?;
    let body = json!({ "name": account, "expires_in_seconds": spec.ttl.as_secs() });
    let answered = client.call(Method::POST, &accounts(&spec.project), &admin, Some(&body)).await;
    let answer = match answered {
        Ok(answer) if answer.status == 200 => answer,
        Ok(answer) if answer.status < 500 => return Err(refusal(&client, &spec.project, &answer)),
        // It may have been made, and then nobody has its id.
        unknown => {
            let error = match unknown {
                Ok(answer) => refusal(&client, &spec.project, &answer),
                Err(error) => error,
            };
            if error.may_have_happened()
                && let Err(error) = sweep(&client, &admin, spec, &account).await
            {
                tracing::warn!(credential = %name, %account, %error, "whether a service account was made is not known");
            }
            return Err(error);
        }
    };
    let Some(id) = id_of(&answer) else {
        if let Err(error) = sweep(&client, &admin, spec, &account).await {
            tracing::warn!(credential = %name, %account, %error, "a service account without an id was not found");
        }
        return Err(OpenaiError::Answer("a service account without an id"));
    };
    // From here on there is an account, so whatever is wrong with it, it is deleted.
    match taken(spec, &answer) {
        Ok((key, expires_at)) => Ok(Minted {
            key,
            expires_at,
            handle: format!("{expires_at}|{}|{}|{id}", client.address(), spec.project),
            scope: format!("openai {} as {account}", spec.project),
        }),
        Err(wrong) => {
            let ended = delete(&client, &admin, &spec.project, id).await;
            if let Err(error) = &ended {
                tracing::warn!(credential = %name, %id, %error, "a service account that was refused was not deleted");
            }
            Err(match wrong {
                OpenaiError::Wider { what, .. } if ended.is_err() => {
                    OpenaiError::Wider { what, fate: "could not be deleted" }
                }
                wrong => wrong,
            })
        }
    }
}

/// Deletes the service account, and its key with it.
///
/// # Errors
/// When the admin key cannot be had, or OpenAI cannot be reached or does not confirm it.
pub async fn revoke(
    name: &CredentialName,
    spec: &OpenaiProjectSpec,
    handle: &str,
    context: &IssueContext<'_>,
) -> Result<Revocation, OpenaiError> {
    let mut parts = handle.splitn(4, '|').skip(1);
    let (Some(address), Some(project), Some(id)) = (parts.next(), parts.next(), parts.next()) else {
        return Err(OpenaiError::Handle);
    };
    if !plain(project, ID_LIMIT) || !plain(id, ID_LIMIT) {
        return Err(OpenaiError::Handle);
    }
    let admin = admin_key(name, spec, context).await?;
    delete(&Client::new(address)?, &admin, project, id).await?;
    Ok(Revocation::Revoked)
}

async fn admin_key(
    name: &CredentialName,
    spec: &OpenaiProjectSpec,
    context: &IssueContext<'_>,
) -> Result<Secret, OpenaiError> {
    Ok(key_source::read(&spec.key, name, context).await?.without_line_end())
}

/// A name that tells people whose it is, and that no other account has.
fn account_name(context: &IssueContext<'_>) -> Result<String, OpenaiError> {
    let mut random = [0; 6];
    getrandom::fill(&mut random).map_err(|error| OpenaiError::Random(error.into()))?;
    Ok(format!("sandbox {}.{} {}", context.project, context.sandbox, hex::encode(random)))
}

fn accounts(project: &str) -> String {
    format!("v1/organization/projects/{project}/service_accounts")
}

/// Ids are put into paths and into the journal.
fn plain(text: &str, limit: usize) -> bool {
    let fine = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    (1..=limit).contains(&text.len()) && text.bytes().all(fine)
}

/// The id of the account, which is shown and stored, so it is none when the key can be read from it.
fn id_of(answer: &Answer) -> Option<&str> {
    let text = |pointer: &str| answer.body.0.pointer(pointer).and_then(Value::as_str);
    let shows_key =
        |id: &str| text("/api_key/value").is_some_and(|key| Secret::new(key.as_bytes().to_vec()).is_shown_by(id));
    text("/id").filter(|id| plain(id, ID_LIMIT) && !shows_key(id))
}

/// The key and its end, when that is what was asked for: of a member, with an end that is no later.
fn taken(spec: &OpenaiProjectSpec, answer: &Answer) -> Result<(Secret, Timestamp), OpenaiError> {
    let body = &answer.body.0;
    let text = |pointer: &str| body.pointer(pointer).and_then(Value::as_str);
    if text("/object") != Some("organization.project.service_account")
        || text("/api_key/object") != Some("organization.project.service_account.api_key")
    {
        return Err(OpenaiError::Answer("something else than a service account with a key"));
    }
    // An owner may change the project itself and whom it has.
    if text("/role") != Some("member") {
        return Err(wider("another role"));
    }
    let key = text("/api_key/value").filter(|key| key.len() <= KEY_LIMIT && key.bytes().all(|b| b.is_ascii_graphic()));
    let key = key.filter(|key| !key.is_empty()).ok_or(OpenaiError::Answer("a service account without its key"))?;
    let end = body.pointer("/api_key/expires_at").and_then(Value::as_i64).ok_or(wider("a longer life"))?;
    let now = Timestamp::now();
    let left = end.saturating_sub(answer.date.unwrap_or(now).as_second());
    if left > i64::try_from(spec.ttl.as_secs()).unwrap_or(i64::MAX).saturating_add(SLACK) {
        return Err(wider("a longer life"));
    }
    let end =
        now.checked_add(SignedDuration::from_secs(left)).map_err(|_| OpenaiError::Answer("an end that is none"))?;
    Ok((Secret::new(key.as_bytes().to_vec()), end))
}

fn wider(what: &'static str) -> OpenaiError {
    OpenaiError::Wider { what, fate: "was deleted" }
}

/// "Delete project service account". One that is not there any more is as good as deleted.
async fn delete(client: &Client, admin: &Secret, project: &str, id: &str) -> Result<(), OpenaiError> {
    let answer = client.call(Method::DELETE, &format!("{}/{id}", accounts(project)), admin, None).await?;
    match answer.status {
        200 if answer.body.0.get("deleted").and_then(Value::as_bool) == Some(true) => Ok(()),
        200 => Err(OpenaiError::StillThere),
        // The project may be gone as well, and then its accounts are.
        404 => Ok(()),
        _ => Err(refusal(client, project, &answer)),
    }
}

/// Deletes the account of this name, if there is one ("List project service accounts").
async fn sweep(client: &Client, admin: &Secret, spec: &OpenaiProjectSpec, name: &str) -> Result<(), OpenaiError> {
    let mut after: Option<String> = None;
    for _ in 0..PAGES {
        let further = after.map(|id| format!("&after={id}")).unwrap_or_default();
        let path = format!("{}?limit=100{further}", accounts(&spec.project));
        let answer = client.call(Method::GET, &path, admin, None).await?;
        if answer.status != 200 {
            return Err(refusal(client, &spec.project, &answer));
        }
        let Wiped(page) = &answer.body;
        let found = page.get("data").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        let id = |account: &Value| account.get("id").and_then(Value::as_str).map(str::to_owned);
        let ours = found.iter().filter(|account| account.get("name").and_then(Value::as_str) == Some(name));
        if let Some(id) = ours.filter_map(id).find(|id| plain(id, ID_LIMIT)) {
            return delete(client, admin, &spec.project, &id).await;
        }
        after = found.last().and_then(id).filter(|id| plain(id, ID_LIMIT));
        if page.get("has_more").and_then(Value::as_bool) != Some(true) || after.is_none() {
            return Ok(());
        }
    }
    Err(OpenaiError::Answer("more service accounts than are looked through"))
}

/// The documented statuses ("Error codes"), as what has to be mended.
fn refusal(client: &Client, project: &str, answer: &Answer) -> OpenaiError {
    let said = answer.said();
    match answer.status {
        429 | 500..=599 => OpenaiError::Busy { address: client.address().to_owned(), status: answer.status },
        401 => OpenaiError::Unauthenticated(said),
        403 => OpenaiError::Forbidden(said),
        404 => OpenaiError::NoProject(project.to_owned()),
        status => OpenaiError::Failed { status, said },
    }
}
