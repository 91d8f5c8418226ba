//! Vault and OpenBao: one child token for each credential of a session, by which its value is read.
//!
//! The child's accessor, or that of the log-in it was made from, is the handle; it is no secret, and revoking it ends the
//! token with every lease under it. No token of Vault's is ever delivered or written to a file; those of a lease that can
//! be renewed stay in the memory of the supervisor.

use std::path::PathBuf;
use std::time::Duration;

use jiff::Timestamp;
use reqwest::Method;
use serde_json::{Map, Value, json};
use zeroize::Zeroizing;

use super::secret::Secret;
use super::spec::{JwtSource, SecretSource, VaultAuth, VaultFields, VaultSpec};
use super::wiped::{self, Wiped};
use super::{IssueContext, env_file, exec};
use crate::project::CredentialName;

mod client;
mod error;
mod renewal;

use client::Client;
pub use error::{CertificateFault, VaultError};
pub use renewal::renew;

/// The largest file with a token, in bytes.
const TOKEN_LIMIT: usize = 64 << 10;
/// The longest accessor, in bytes.
const ACCESSOR_LIMIT: usize = 256;

/// What the developer's environment says of Vault, in the words of its own command line ("Environment variables").
#[derive(Debug, Clone, Default)]
pub struct Environment {
    /// `BAO_ADDR` or `VAULT_ADDR`.
    pub address: Option<String>,
    /// `BAO_TOKEN` or `VAULT_TOKEN`.
    pub token: Option<Secret>,
    /// Where the command line keeps the token of a log-in: `~/.vault-token`.
    pub token_file: PathBuf,
    /// `BAO_NAMESPACE` or `VAULT_NAMESPACE`.
    pub namespace: Option<String>,
    /// `BAO_CACERT` or `VAULT_CACERT`.
    pub ca_file: Option<PathBuf>,
}

/// What was read.
#[derive(Debug)]
pub struct Read {
    /// The value.
    pub value: Secret,
    /// When it was written, where the engine says so.
    pub written_at: Option<Timestamp>,
    /// When it runs out; none for a stored value.
    pub expires_at: Option<Timestamp>,
    /// By what it is revoked; none for a stored value.
    pub handle: Option<String>,
}

/// The token that acts for the developer.
struct LogIn {
    token: Secret,
    /// Of a log-in that was made for this alone, and that ends with it.
    accessor: Option<String>,
    ends: Option<Timestamp>,
}

/// A token for one credential.
struct Child {
    token: Secret,
    accessor: String,
    ends: Timestamp,
}

/// Reads a value through a token of its own.
///
/// # Errors
/// When Vault cannot be reached or refuses, or answers what cannot be used.
pub async fn issue(name: &CredentialName, spec: &VaultSpec, context: &IssueContext<'_>) -> Result<Read, VaultError> {
    let own = &context.vault;
    let address = spec.address.as_ref().or(own.address.as_ref()).ok_or(VaultError::NoAddress)?;
    let namespace = spec.namespace.as_ref().or(own.namespace.as_ref());
    let client = client(address, namespace.map(String::as_str), name, spec, context).await?;
    let log_in = log_in(&client, name, spec, context).await?;
    let read = read_with(&client, name, spec, context, &log_in).await;
    // What is not needed any more ends now: all of it after a failure and for a stored value.
    if read.as_ref().map_or(true, |read| read.handle.is_none()) {
        end(&client, &log_in).await;
    }
    read
}

async fn read_with(
    client: &Client,
    name: &CredentialName,
    spec: &VaultSpec,
    context: &IssueContext<'_>,
    log_in: &LogIn,
) -> Result<Read, VaultError> {
    let child = child(client, name, spec, context, log_in).await?;
    let ends = log_in.ends.map_or(child.ends, |ends| ends.min(child.ends));
    let handle = log_in.accessor.as_deref().unwrap_or(&child.accessor);
    let handle = handle_of(handle, client);
    let read = read(client, spec, &child.token, ends, &handle).await;
    let read = read.map(|(read, lease)| {
        if let Some(lease) = lease.filter(|_| spec.max_ttl > spec.ttl) {
            renewal::keep(&context.held, &handle, &lease, &child.token, log_in);
        }
        read
    });
    if read.as_ref().map_or(true, |read| read.handle.is_none())
        && let Err(error) = client.call(Method::POST, "auth/token/revoke-self", Some(&child.token), None).await
    {
        tracing::warn!(credential = %name, %error, ends = %child.ends, "a child token of Vault's was not revoked");
    }
    read
}

/// Ends a credential with its token and all leases.
///
/// # Errors
/// As [`issue`].
pub async fn revoke(
    name: &CredentialName,
    spec: &VaultSpec,
    handle: &str,
    context: &IssueContext<'_>,
) -> Result<(), VaultError> {
    // Not the address of today's environment: another server knows no such accessor, and says that all is well.
    let (accessor, namespace, address) = split_handle(handle).ok_or(VaultError::Handle)?;
    let client = client(address, namespace, name, spec, context).await?;
    let log_in = log_in(&client, name, spec, context).await?;
    let body = json!({ "accessor": accessor });
    let path = "auth/token/revoke-accessor";
    let revoked = client.call(Method::POST, path, Some(&log_in.token), Some(&Wiped(body))).await;
    end(&client, &log_in).await;
    match revoked {
        Ok(_) => {}
        // Vault's word for a token that ended already; OpenBao answers 200 with a warning.
        Err(VaultError::Failed { status: 400 | 404, said, .. }) if said.contains("invalid accessor") => {}
        Err(error) => return Err(error),
    }
    context.held.forget(handle);
    Ok(())
}

/// The server, met with the certificate by which the launcher logs in, if it does so by one.
async fn client(
    address: &str,
    namespace: Option<&str>,
    name: &CredentialName,
    spec: &VaultSpec,
    context: &IssueContext<'_>,
) -> Result<Client, VaultError> {
    let identity = match &spec.auth {
        VaultAuth::Cert { identity, .. } => Some(secret_of(identity, name, context).await?),
        _ => None,
    };
    Client::new(address, namespace, context.vault.ca_file.as_deref(), identity.as_ref())
}

/// Accessor, namespace and address in one line. The accessor alone says nothing of the server that knows it.
fn handle_of(accessor: &str, client: &Client) -> String {
    format!("{accessor}|{}|{}", client.namespace().unwrap_or_default(), client.address())
}

fn split_handle(handle: &str) -> Option<(&str, Option<&str>, &str)> {
    let (accessor, rest) = handle.split_once('|')?;
    let (namespace, address) = rest.split_once('|')?;
    Some((accessor, Some(namespace).filter(|namespace| !namespace.is_empty()), address))
}

/// Ends a log-in that was made for one task. The developer's own token stays.
async fn end(client: &Client, log_in: &LogIn) {
    if log_in.accessor.is_some()
        && let Err(error) = client.call(Method::POST, "auth/token/revoke-self", Some(&log_in.token), None).await
    {
        tracing::warn!(%error, "a log-in at Vault was not ended; it ends by itself");
    }
}

async fn log_in(
    client: &Client,
    name: &CredentialName,
    spec: &VaultSpec,
    context: &IssueContext<'_>,
) -> Result<LogIn, VaultError> {
    let (mount, body) = match &spec.auth {
        VaultAuth::Token => return own_token(client, context).await,
        VaultAuth::Approle { mount, role_id, secret_id, wrapped } => {
            let given = secret_of(secret_id, name, context).await?;
            let secret_id = if *wrapped { unwrap(client, mount, &given).await? } else { given };
            (mount, json!({ "role_id": role_id, "secret_id": text_of(&secret_id)?.as_str() }))
        }
        // "TLS certificates auth method (API)": the handshake has shown the certificate.
        VaultAuth::Cert { mount, role, .. } => {
            (mount, role.as_ref().map_or_else(|| json!({}), |role| json!({ "name": role })))
        }
        VaultAuth::Jwt { mount, role, jwt } => {
            let token = match jwt {
                JwtSource::Given(source) => secret_of(source, name, context).await?,
                JwtSource::Identity(audience) => {
                    context.identity.sign(context, audience, Map::new(), Timestamp::now())?.token
                }
            };
            (mount, json!({ "role": role, "jwt": text_of(&token)?.as_str() }))
        }
    };
    let path = format!("auth/{mount}/login");
    let answer = client.call(Method::POST, &path, None, Some(&Wiped(body))).await?;
    let (token, accessor, seconds) = token_of(&answer)?;
    // Zero is a token without an end.
    let ends = if seconds == 0 { None } else { Some(after(seconds)?) };
    Ok(LogIn { token, accessor: Some(accessor), ends })
}

async fn own_token(client: &Client, context: &IssueContext<'_>) -> Result<LogIn, VaultError> {
    let token = match &context.vault.token {
        Some(token) => token.clone(),
        None => {
            let path = &context.vault.token_file;
            let file = std::fs::File::open(path).map_err(|source| match source.kind() {
                std::io::ErrorKind::NotFound => VaultError::NoToken,
                _ => VaultError::TokenFile { path: path.clone(), source },
            })?;
            let failed = |source| VaultError::TokenFile { path: path.clone(), source };
            Secret::read(file, TOKEN_LIMIT).map_err(failed)?.without_line_end()
        }
    };
    // A child ends with its parent, so the parent's end counts. Who may not look, is told by what follows.
    let ends = match client.call(Method::GET, "auth/token/lookup-self", Some(&token), None).await {
        Ok(answer) => match answer.0.pointer("/data/ttl").and_then(Value::as_u64) {
            Some(0) | None => None,
            Some(seconds) => Some(after(seconds)?),
        },
        Err(VaultError::Denied { .. }) => None,
        Err(error) => return Err(error),
    };
    Ok(LogIn { token, accessor: None, ends })
}

async fn secret_of(
    source: &SecretSource,
    name: &CredentialName,
    context: &IssueContext<'_>,
) -> Result<Secret, VaultError> {
    match source {
        SecretSource::File(path) => Ok(env_file::read_whole(context.project_root, path)?.without_line_end()),
        SecretSource::Command(command) => {
            Ok(exec::issue(command, &exec::Request::new(name, context, None)).await?.value)
        }
    }
}

/// Takes a secret id out of its wrapping, which can be done once. Whoever finds it opened, or made at another place than
/// the role's, has met somebody who opened it first ("Response wrapping", "Response wrapping token validation").
async fn unwrap(client: &Client, mount: &str, wrapping: &Secret) -> Result<Secret, VaultError> {
    let opened = |error| match error {
        VaultError::Failed { status: 400, .. } => VaultError::Intercepted,
        error => error,
    };
    let body = json!({ "token": text_of(wrapping)?.as_str() });
    let looked = client.call(Method::POST, "sys/wrapping/lookup", None, Some(&Wiped(body))).await.map_err(opened)?;
    let made_at = looked.0.pointer("/data/creation_path").and_then(Value::as_str).unwrap_or_default();
    let role = made_at.strip_prefix(&format!("auth/{mount}/role/")).and_then(|rest| rest.strip_suffix("/secret-id"));
    if role.is_none_or(|role| role.is_empty() || role.contains('/')) {
        return Err(VaultError::Intercepted);
    }
    let answer = client.call(Method::POST, "sys/wrapping/unwrap", Some(wrapping), None).await.map_err(opened)?;
    let secret_id = answer.0.pointer("/data/secret_id").and_then(Value::as_str);
    secret_id.map(secret).ok_or(VaultError::Answer("a wrapping without a secret id"))
}

async fn child(
    client: &Client,
    name: &CredentialName,
    spec: &VaultSpec,
    context: &IssueContext<'_>,
    log_in: &LogIn,
) -> Result<Child, VaultError> {
    let seconds = |life: Duration| format!("{}s", life.as_secs());
    let mut body = json!({
        // Left out, both would be the server's defaults: 32 days.
        "ttl": seconds(spec.ttl),
        "explicit_max_ttl": seconds(spec.ttl.max(spec.max_ttl)),
        "renewable": spec.max_ttl > spec.ttl,
        "display_name": format!("sandbox-{}-{}", context.project, context.sandbox),
        "meta": {
            "project": context.project.as_str(),
            "sandbox": context.sandbox.as_str(),
            "credential": name.as_str(),
            "actor": context.actor,
        },
    });
    if !spec.policies.is_empty() {
        body["policies"] = json!(spec.policies);
    }
    let answer = client.call(Method::POST, "auth/token/create", Some(&log_in.token), Some(&Wiped(body))).await?;
    let (token, accessor, seconds) = token_of(&answer)?;
    let wider = wider(spec, &answer, seconds);
    if let Some(what) = wider {
        client.call(Method::POST, "auth/token/revoke-self", Some(&token), None).await?;
        return Err(VaultError::Wider(what));
    }
    Ok(Child { token, accessor, ends: after(seconds)? })
}

/// What a child token has beyond what was asked for.
fn wider(spec: &VaultSpec, answer: &Wiped, seconds: u64) -> Option<&'static str> {
    if seconds == 0 || seconds > spec.ttl.as_secs() {
        return Some("a longer life");
    }
    if spec.policies.is_empty() {
        return None;
    }
    // `policies` has those of the developer's identity too, which count as much.
    let Some(granted) = answer.0.pointer("/auth/policies").and_then(Value::as_array) else { return Some("policies") };
    let asked = |policy: &str| policy == "default" || spec.policies.iter().any(|asked| asked == policy);
    (!granted.iter().all(|policy| policy.as_str().is_some_and(asked))).then_some("more policies")
}

/// The value, and its lease when that can be renewed.
async fn read(
    client: &Client,
    spec: &VaultSpec,
    token: &Secret,
    ends: Timestamp,
    handle: &str,
) -> Result<(Read, Option<String>), VaultError> {
    let asked = format!("sys/internal/ui/mounts/{}", spec.path);
    let mounted = client.call(Method::GET, &asked, Some(token), None).await.map_err(|error| match error {
        // Who may use nothing below a mount is not told what it is; it is the path that needs a policy.
        VaultError::Denied { said, .. } => VaultError::Denied { path: spec.path.clone(), said },
        error => error,
    })?;
    let (path, versioned) = api_path(&mounted.0, &spec.path);
    let answer = client.call(Method::GET, &path, Some(token), None).await?;
    let data = if versioned { answer.0.pointer("/data/data") } else { answer.0.get("data") };
    let data = data.and_then(Value::as_object).ok_or(VaultError::Answer("an answer without data"))?;
    let value = value_of(data, &spec.fields)?;
    if let Some(lease) = answer.0.get("lease_id").and_then(Value::as_str).filter(|id| !id.is_empty()) {
        let seconds = answer.0.get("lease_duration").and_then(Value::as_u64).unwrap_or(0);
        let expires_at = Some(after(seconds)?.min(ends));
        let renewable = answer.0.get("renewable").and_then(Value::as_bool) == Some(true);
        let read = Read { value, written_at: None, expires_at, handle: Some(handle.to_owned()) };
        return Ok((read, renewable.then(|| lease.to_owned())));
    }
    let written = answer.0.pointer("/data/metadata/created_time").filter(|_| versioned).and_then(Value::as_str);
    let written_at = written.and_then(|time| time.parse().ok());
    Ok((Read { value, written_at, expires_at: None, handle: None }, None))
}

/// The path of the HTTP API for a path as the command line takes it: below a versioned mount, `data/` comes between
/// ("KV secrets engine, version 2, API"). Also whether it is such a mount.
fn api_path(mounted: &Value, path: &str) -> (String, bool) {
    let word = |pointer: &str| mounted.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    let versioned = word("/data/type") == "kv" && word("/data/options/version") == "2";
    let mount = word("/data/path");
    match path.strip_prefix(mount) {
        Some(rest) if versioned && !mount.is_empty() && !rest.starts_with("data/") => {
            (format!("{mount}data/{rest}"), true)
        }
        _ => (path.to_owned(), versioned),
    }
}

fn value_of(data: &Map<String, Value>, fields: &VaultFields) -> Result<Secret, VaultError> {
    let find = |field: &String| match data.get(field) {
        None | Some(Value::Null) => Err(VaultError::Field(field.clone())),
        Some(value) => Ok(value),
    };
    match fields {
        VaultFields::One(field) => match find(field)? {
            Value::String(text) => Ok(secret(text)),
            other => json_of(other),
        },
        VaultFields::Several(fields) => {
            let mut chosen = Wiped(Value::Object(Map::new()));
            for field in fields {
                chosen.0[field] = find(field)?.clone();
            }
            json_of(&chosen.0)
        }
    }
}

fn json_of(value: &Value) -> Result<Secret, VaultError> {
    let text = wiped::text(value).map_err(|_| VaultError::Answer("a value that is too long"))?;
    Ok(Secret::new(text.to_vec()))
}

fn token_of(answer: &Wiped) -> Result<(Secret, String, u64), VaultError> {
    let auth = answer.0.get("auth").ok_or(VaultError::Answer("a log-in without `auth`"))?;
    let word = |key: &str| auth.get(key).and_then(Value::as_str).filter(|word| !word.is_empty());
    let token = word("client_token").filter(|token| token.len() <= TOKEN_LIMIT);
    let token = secret(token.ok_or(VaultError::Answer("a log-in without a token"))?);
    // A batch token has none, cannot have children and cannot be revoked ("Token types compared").
    let accessor = word("accessor").ok_or(VaultError::Answer("a batch token, which cannot be revoked"))?;
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    if accessor.len() > ACCESSOR_LIMIT || !accessor.bytes().all(plain) || token.is_shown_by(accessor) {
        return Err(VaultError::Answer("an accessor that is none"));
    }
    let seconds = auth.get("lease_duration").and_then(Value::as_u64);
    Ok((token, accessor.to_owned(), seconds.ok_or(VaultError::Answer("a token without a duration"))?))
}

fn after(seconds: u64) -> Result<Timestamp, VaultError> {
    let end = Timestamp::now().checked_add(Duration::from_secs(seconds));
    end.map_err(|_| VaultError::Answer("a duration without end"))
}

fn secret(text: &str) -> Secret {
    Secret::new(text.as_bytes().to_vec())
}

/// A secret as the text that JSON needs; the document that it goes into is wiped too.
fn text_of(secret: &Secret) -> Result<Zeroizing<String>, VaultError> {
    let text = std::str::from_utf8(secret.expose()).map_err(|_| VaultError::NotText)?;
    Ok(Zeroizing::new(text.to_owned()))
}

#[cfg(test)]
mod tests;
