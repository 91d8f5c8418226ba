//! `sandbox credential ls` and `check`: one row a credential, without values, as an auditor wants to read it.

use std::time::Duration;

use comfy_table::{Table, presets};
use jiff::Timestamp;
use serde::Serialize;

use super::{holders, issue_context};
use crate::commands::load::{actor, manifest};
use crate::commands::printer::sanitise;
use crate::commands::{Context, Failure, trust};
use crate::credential::spec::{CredentialSpec, Delivery, ProviderSpec};
use crate::credential::store::StoreError;
use crate::credential::{self, CredentialError, IssueContext, oauth};
use crate::project::manifest::Manifest;
use crate::project::{CredentialName, SandboxName};

/// Whether a credential can be used, as one word for programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum State {
    /// It can be used.
    Ok,
    /// It can be used, and something has to be done soon.
    Warning,
    /// No value was set.
    NotSet,
    /// A rule or the provider refuses it.
    Refused,
    /// Its command was not asked.
    OnDemand,
}

/// One row of `ls`.
#[derive(Debug, Serialize)]
struct Row {
    name: CredentialName,
    provider: &'static str,
    deliver: String,
    state: State,
    /// The state in words.
    status: String,
    usable: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    created_at: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    issued_at: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_at: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    age_seconds: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_age_seconds: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    fingerprint: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    owner: Option<String>,
    /// Running sandboxes that have it.
    sandboxes: Vec<String>,
}

impl Row {
    fn with(mut self, state: State, status: impl Into<String>) -> Self {
        self.state = state;
        self.status = status.into();
        self.usable = !matches!(state, State::NotSet | State::Refused);
        self
    }
}

/// Lists the credentials. With `check`, commands are asked too, and the exit code is 1 when one cannot be used or
/// something has to be done soon.
///
/// # Errors
/// When the manifest, the trust in it or the journals fail; a credential's own failure is in its row.
pub(super) async fn list(context: &Context, project: Option<&str>, check: bool) -> Result<u8, Failure> {
    let (path, manifest) = manifest(context, project)?;
    if check {
        // Commands of the manifest run for a check, so it has to be approved.
        trust::require(context, &path, &manifest)?;
    }
    let mut rows = Vec::new();
    for (name, spec) in &manifest.credentials {
        rows.push(row(context, &manifest, name, spec, check).await?);
    }
    context.printer.result(&rows, || table(&rows, Timestamp::now()));
    Ok(u8::from(check && rows.iter().any(|row| row.state != State::Ok)))
}

async fn row(
    context: &Context,
    manifest: &Manifest,
    name: &CredentialName,
    spec: &CredentialSpec,
    check: bool,
) -> Result<Row, Failure> {
    let (actor, _) = actor();
    let sandbox = SandboxName::main();
    let issue = issue_context(context, &manifest.project, &manifest.root, &sandbox, &actor, "check");
    let mut row = Row {
        name: name.clone(),
        provider: spec.provider.word(),
        deliver: match &spec.deliver {
            Delivery::File { name } => format!("file {name}"),
            Delivery::Git { host } => format!("git {host}"),
            Delivery::Environment { variable } => format!("variable {variable}"),
            Delivery::Broker { host, .. } => format!("broker {host}"),
        },
        state: State::Ok,
        status: "ok".to_owned(),
        usable: true,
        created_at: None,
        issued_at: None,
        expires_at: None,
        age_seconds: None,
        max_age_seconds: spec.max_age.map(|age| age.as_secs()),
        fingerprint: None,
        owner: None,
        sandboxes: holders(context, manifest, name)?.into_keys().collect(),
    };
    match &spec.provider {
        // A value that is refused is still told about.
        ProviderSpec::Store => match issue.store.read(&manifest.project, name) {
            Ok(stored) => {
                row.created_at = Some(stored.created_at);
                row.issued_at = Some(stored.rotated_at);
                row.owner = Some(stored.owner);
            }
            Err(StoreError::Absent(_)) => return Ok(row.with(State::NotSet, "not set")),
            Err(error) => return Ok(row.with(State::Refused, refusal(error.into()))),
        },
        ProviderSpec::Oauth(_) if !oauth::logged_in(name, &issue) => {
            return Ok(row.with(State::NotSet, "not logged in"));
        }
        ProviderSpec::Oauth(_) if !check => return Ok(row.with(State::OnDemand, "logged in; refreshed at `up`")),
        ProviderSpec::Exec { .. }
        | ProviderSpec::Vault(_)
        | ProviderSpec::GithubApp(_)
        | ProviderSpec::AwsSts(_)
        | ProviderSpec::Gcp(_)
        | ProviderSpec::Azure(_)
        | ProviderSpec::AnthropicWif(_)
            if !check =>
        {
            return Ok(row.with(State::OnDemand, "issued at `up`"));
        }
        ProviderSpec::EnvFile { .. }
        | ProviderSpec::Exec { .. }
        | ProviderSpec::Vault(_)
        | ProviderSpec::GithubApp(_)
        | ProviderSpec::AwsSts(_)
        | ProviderSpec::Gcp(_)
        | ProviderSpec::Azure(_)
        | ProviderSpec::AnthropicWif(_)
        | ProviderSpec::Oauth(_) => {}
    }
    let row = filled(row, name, spec, &issue).await;
    let age = row.issued_at.map(|time| credential::age(time, Timestamp::now()).as_secs());
    Ok(Row { age_seconds: age, ..row })
}

async fn filled(mut row: Row, name: &CredentialName, spec: &CredentialSpec, issue: &IssueContext<'_>) -> Row {
    let issued = match credential::issue(name, spec, issue).await {
        Ok(issued) => issued,
        Err(error) => return row.with(State::Refused, refusal(error)),
    };
    row.issued_at = Some(issued.issued_at);
    row.expires_at = issued.expires_at;
    row.fingerprint = Some(issued.fingerprint.to_string());
    let mut warnings = issued.warnings;
    // What was issued to look at it is not needed any more.
    if let Err(error) = credential::revoke(name, spec, issued.handle.as_deref(), issue).await {
        warnings.push(format!("issued for this check and not revoked: {}", refusal(error)));
    }
    if warnings.is_empty() { row } else { row.with(State::Warning, warnings.join("; ")) }
}

fn refusal(error: CredentialError) -> String {
    let failure = Failure::from(error);
    format!("cannot {}", std::iter::once(failure.what).chain(failure.why).collect::<Vec<_>>().join(": "))
}

fn table(rows: &[Row], now: Timestamp) -> String {
    if rows.is_empty() {
        return "the manifest declares no credential".to_owned();
    }
    let mut table = Table::new();
    table.load_preset(presets::NOTHING);
    table.set_header([
        "NAME",
        "PROVIDER",
        "DELIVERED AS",
        "LAST ROTATED",
        "AGE",
        "EXPIRES",
        "FINGERPRINT",
        "SET BY",
        "IN USE BY",
        "STATUS",
    ]);
    let none = || "-".to_owned();
    for row in rows {
        let age = row.age_seconds.map_or_else(none, short);
        table.add_row([
            row.name.to_string(),
            row.provider.to_owned(),
            row.deliver.clone(),
            row.issued_at.map_or_else(none, |time| time.strftime("%Y-%m-%d").to_string()),
            row.max_age_seconds.map_or_else(|| age.clone(), |most| format!("{age} of {}", short(most))),
            row.expires_at.map_or_else(none, |time| format!("in {}", short(credential::age(now, time).as_secs()))),
            row.fingerprint.clone().unwrap_or_else(none),
            row.owner.as_deref().map_or_else(none, sanitise),
            if row.sandboxes.is_empty() { none() } else { row.sandboxes.join(", ") },
            sanitise(&row.status),
        ]);
    }
    table.to_string()
}

/// A duration in its largest unit.
fn short(seconds: u64) -> String {
    let duration = Duration::from_secs(seconds);
    match duration.as_secs() {
        days if days >= 2 * 86_400 => format!("{}d", days / 86_400),
        hours if hours >= 2 * 3600 => format!("{}h", hours / 3600),
        minutes => format!("{}m", minutes / 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_reads_like_a_page() {
        let now: Timestamp = "2030-01-31T12:00:00Z".parse().unwrap();
        let row = |name: &str| Row {
            name: name.parse().unwrap(),
            provider: "store",
            deliver: format!("file {name}"),
            state: State::Ok,
            status: "ok".to_owned(),
            usable: true,
            created_at: None,
            issued_at: Some("2030-01-19T12:00:00Z".parse().unwrap()),
            expires_at: None,
            age_seconds: Some(12 * 86_400),
            max_age_seconds: Some(30 * 86_400),
            fingerprint: Some("0123456789abcdef".to_owned()),
            owner: Some("ada\u{1b}[2J".to_owned()),
            sandboxes: vec!["main".to_owned()],
        };
        let asked = Row {
            expires_at: Some("2030-01-31T12:42:10Z".parse().unwrap()),
            provider: "exec",
            max_age_seconds: None,
            age_seconds: Some(0),
            owner: None,
            sandboxes: Vec::new(),
            ..row("github")
        };
        let unset = Row {
            issued_at: None,
            age_seconds: None,
            fingerprint: None,
            owner: None,
            sandboxes: Vec::new(),
            ..row("npm").with(State::NotSet, "not set")
        };
        let text = table(&[row("anthropic"), asked, unset], now);
        let lines: Vec<String> =
            text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
        assert_eq!(
            lines,
            [
                "NAME PROVIDER DELIVERED AS LAST ROTATED AGE EXPIRES FINGERPRINT SET BY IN USE BY STATUS",
                "anthropic store file anthropic 2030-01-19 12d of 30d - 0123456789abcdef ada\\u{1b}[2J main ok",
                "github exec file github 2030-01-19 0m in 42m 0123456789abcdef - - ok",
                "npm store file npm - - of 30d - - - - not set",
            ]
        );
        assert_eq!(table(&[], now), "the manifest declares no credential");
    }
}
