//! The credentials of a launch: issued while the containers start, delivered when the probe has held.

use std::collections::BTreeMap;

use super::{LaunchError, LaunchInput, audit};
use crate::credential::challenge::Challenge;
use crate::credential::secret::Secret;
use crate::credential::signing_key::{self, SigningKey};
use crate::credential::spec::{CredentialSpec, Delivery};
use crate::credential::{self, IssueContext, Issued};
use crate::gateway::protocol::{Action, SecretFile};
use crate::project::CredentialName;
use crate::session::gateway_control::GatewayControl;
use crate::session::journal::{Journal, JournalLease, Record};

/// Has every credential issued, all at once. Each is in the journal and in the audit log as soon as there is one: whoever
/// dies afterwards, it is known and revoked.
///
/// # Errors
/// When one of them was not issued, or could not be recorded. The others are issued all the same.
pub(super) async fn issue_all(
    input: &LaunchInput<'_>,
    record: &Record,
    journal: &Journal,
    issue: &IssueContext<'_>,
) -> Result<BTreeMap<CredentialName, Issued>, LaunchError> {
    let issues = input.manifest.credentials.iter().map(|(name, spec)| async move {
        let failed = |source| LaunchError::Credential { name: name.clone(), source };
        let credential = credential::issue(name, spec, issue).await.map_err(failed)?;
        remember(input, record, journal, issue, spec, &credential).await?;
        Ok::<_, LaunchError>((name.clone(), credential))
    });
    // All are waited for also when one fails: what was asked for must not be forgotten.
    futures_util::future::join_all(issues).await.into_iter().collect()
}

async fn remember(
    input: &LaunchInput<'_>,
    record: &Record,
    journal: &Journal,
    issue: &IssueContext<'_>,
    spec: &CredentialSpec,
    issued: &Issued,
) -> Result<(), LaunchError> {
    let lease = lease(spec.clone(), issued);
    let name = &issued.name;
    if let Err(error) = journal.update(|now| drop(now.leases.insert(name.clone(), lease))) {
        // Nobody else will ever know of it.
        if let Err(error) = credential::revoke(name, spec, issued.handle.as_deref(), issue).await {
            tracing::error!(credential = %name, %error, "a credential that was not recorded was not revoked");
        }
        return Err(error.into());
    }
    let facts = issued_facts(issued, spec);
    let facts: Vec<(&str, &str)> = facts.iter().map(|(name, value)| (*name, value.as_str())).collect();
    audit(input, record, "credential.issued", &facts)
}

/// What the audit log says of a credential that was issued. Exceptions stand where whoever reads the log looks for the grant.
pub(in crate::session) fn issued_facts(issued: &Issued, spec: &CredentialSpec) -> Vec<(&'static str, String)> {
    let expires = issued.expires_at.map_or_else(|| "never by itself".to_owned(), |time| time.to_string());
    let mut facts = vec![
        ("credential", issued.name.to_string()),
        ("provider", issued.provider.to_owned()),
        ("fingerprint", issued.fingerprint.to_string()),
        ("expires_at", expires),
    ];
    if let Some(shared) = &spec.shared_with {
        facts.extend([("shared_with", shared.projects.join(", ")), ("shared_because", shared.reason.clone())]);
    }
    facts.extend(spec.accept_personal.clone().map(|reason| ("personal_because", reason)));
    facts
}

/// What the journal keeps of an issued credential.
pub(in crate::session) fn lease(spec: CredentialSpec, issued: &Issued) -> JournalLease {
    let brokered = matches!(spec.deliver, Delivery::Broker { .. });
    JournalLease {
        spec,
        handle: issued.handle.clone(),
        fingerprint: issued.fingerprint.to_string(),
        // Without one nothing can be proved, and all else works.
        challenge: brokered.then(|| Challenge::of(&issued.value).ok()).flatten(),
        issued_at: issued.issued_at,
        renewed_at: None,
        expires_at: issued.expires_at,
        failing_since: None,
    }
}

/// The private key for this session's commits, when the manifest wants them signed. The public one is on record before
/// anything is signed.
pub(super) fn signing_key(input: &LaunchInput<'_>, record: &mut Record) -> Result<Option<Secret>, LaunchError> {
    if !input.manifest.workspace.sign {
        return Ok(None);
    }
    let key = SigningKey::generate(&format!("{}-{}", record.id, record.session.as_str()))?;
    audit(input, record, "session.signs", &[("key", &key.public), ("fingerprint", &key.fingerprint)])?;
    record.signers.push(key.public);
    Ok(Some(key.private))
}

pub(super) async fn deliver(
    input: &LaunchInput<'_>,
    record: &Record,
    issued: BTreeMap<CredentialName, Issued>,
    signing_key: Option<Secret>,
    gateway: &mut GatewayControl,
) -> Result<credential::Delivered, LaunchError> {
    let names: Vec<String> = issued.keys().map(ToString::to_string).collect();
    let pairs: Vec<_> = issued
        .into_iter()
        .filter_map(|(name, issued)| input.manifest.credentials.get(&name).map(|spec| (spec, issued)))
        .collect();
    let mut delivered = credential::deliver(pairs).map_err(LaunchError::Deliver)?;
    let mut files = std::mem::take(&mut delivered.files);
    if let Some(content) = signing_key {
        delivered.git_configuration.extend(SigningKey::git_configuration());
        files.push(SecretFile { name: signing_key::FILE.to_owned(), content });
    }
    if !files.is_empty() {
        gateway.carry_out(Action::Secrets(files)).await?;
    }
    let brokered = std::mem::take(&mut delivered.brokered);
    if !brokered.is_empty() {
        gateway.carry_out(Action::Broker(brokered)).await?;
    }
    for name in names {
        audit(input, record, "credential.delivered", &[("credential", &name)])?;
    }
    Ok(delivered)
}

/// git's settings as environment variables (git-config(1), `GIT_CONFIG_COUNT`), so that they hold in every repository
/// of the agent's container and leave no file behind.
pub(super) fn git_environment(settings: &[(String, String)]) -> BTreeMap<String, String> {
    let mut environment = BTreeMap::new();
    if settings.is_empty() {
        return environment;
    }
    environment.insert("GIT_CONFIG_COUNT".to_owned(), settings.len().to_string());
    for (index, (key, value)) in settings.iter().enumerate() {
        environment.insert(format!("GIT_CONFIG_KEY_{index}"), key.clone());
        environment.insert(format!("GIT_CONFIG_VALUE_{index}"), value.clone());
    }
    environment
}
