//! Values with a lease that are made to live longer instead of being read anew, so that a database connection of hours
//! keeps its role.
//!
//! It needs the child token, and the log-in that the child was made from. Both are in memory alone: a supervisor that was
//! started again has them no more, and the value is read anew.

use jiff::Timestamp;
use reqwest::Method;
use serde_json::{Value, json};

use super::client::Client;
use super::{LogIn, VaultError, after, client, split_handle, text_of};
use crate::credential::IssueContext;
use crate::credential::held::Held;
use crate::credential::secret::Secret;
use crate::credential::spec::VaultSpec;
use crate::credential::wiped::{self, Wiped};
use crate::project::CredentialName;

/// The longest lease id, in bytes: a path and a random part.
const LEASE_LIMIT: usize = 1024;

/// Remembers what a renewal needs.
pub(super) fn keep(held: &Held, handle: &str, lease: &str, child: &Secret, log_in: &LogIn) {
    let texts = || {
        let own = log_in.accessor.is_some().then(|| text_of(&log_in.token)).transpose()?;
        Ok::<_, VaultError>((text_of(child)?, own))
    };
    if lease.len() > LEASE_LIMIT {
        return;
    }
    let Ok((child, own)) = texts() else { return };
    // The developer's own token is not kept, nor made to live longer: its end is the value's.
    let ends = if own.is_some() { None } else { log_in.ends };
    let kept = Wiped(json!({
        "lease": lease, "child": child.as_str(), "log_in": own.as_ref().map(|own| own.as_str()), "ends": ends,
    }));
    if let Ok(text) = wiped::text(&kept.0) {
        held.keep(handle, Secret::new(text.to_vec()));
    }
}

/// Makes a value live longer. Gives its new end; none when it cannot be renewed, or nobody here remembers how.
///
/// # Errors
/// When Vault does not answer. A refusal is none: the value can still be read anew.
pub async fn renew(
    name: &CredentialName,
    spec: &VaultSpec,
    handle: &str,
    context: &IssueContext<'_>,
) -> Result<Option<Timestamp>, VaultError> {
    let Some(kept) = context.held.find(handle) else { return Ok(None) };
    let kept = Wiped(serde_json::from_slice(kept.expose()).unwrap_or(Value::Null));
    let word = |key: &str| kept.0.get(key).and_then(Value::as_str);
    let token = |key: &str| word(key).map(|text| Secret::new(text.as_bytes().to_vec()));
    let (Some(lease), Some(child)) = (word("lease"), token("child")) else { return Ok(None) };
    let (_, namespace, address) = split_handle(handle).ok_or(VaultError::Handle)?;
    let client = client(address, namespace, name, spec, context).await?;
    let mut ends: Option<Timestamp> = word("ends").and_then(|time| time.parse().ok());
    let increment = spec.ttl.as_secs();
    let own_increment = json!({ "increment": format!("{increment}s") });
    let leased = json!({ "lease_id": lease, "increment": increment });
    // The log-in first: the child ends with it, and the lease with the child.
    let log_in = token("log_in");
    let renewals = log_in
        .iter()
        .map(|log_in| (log_in, "auth/token/renew-self", own_increment.clone()))
        .chain([(&child, "auth/token/renew-self", own_increment.clone()), (&child, "sys/leases/renew", leased)]);
    for (token, path, body) in renewals {
        match seconds(&client, token, path, body).await {
            // Zero is a token without an end.
            Ok(0) if path == "auth/token/renew-self" => {}
            Ok(seconds) => {
                let end = after(seconds)?;
                ends = Some(ends.map_or(end, |ends| ends.min(end)));
            }
            Err(VaultError::Denied { .. } | VaultError::Failed { .. } | VaultError::Absent { .. }) => {
                context.held.forget(handle);
                return Ok(None);
            }
            Err(error) => return Err(error),
        }
    }
    Ok(ends)
}

/// One renewal. Gives for how many seconds it goes on from now.
async fn seconds(client: &Client, token: &Secret, path: &str, body: Value) -> Result<u64, VaultError> {
    let answer = client.call(Method::POST, path, Some(token), Some(&Wiped(body))).await?;
    let told = answer.0.pointer("/auth/lease_duration").or_else(|| answer.0.get("lease_duration"));
    told.and_then(Value::as_u64).ok_or(VaultError::Answer("a renewal without a duration"))
}
