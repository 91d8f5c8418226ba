//! The credentials of a launch: issued while the containers start, delivered when the probe has held.

use std::collections::BTreeMap;

use super::{LaunchError, LaunchInput, audit};
use crate::credential::secret::Secret;
use crate::credential::signing_key::{self, SigningKey};
use crate::credential::{self, IssueContext, Issued};
use crate::gateway::protocol::{Action, SecretFile};
use crate::project::CredentialName;
use crate::session::gateway_control::GatewayControl;
use crate::session::journal::{JournalLease, Record};

pub(super) type PartlyIssued = (BTreeMap<CredentialName, Issued>, LaunchError);

pub(super) async fn issue_all(
    input: &LaunchInput<'_>,
    issue: &IssueContext<'_>,
) -> Result<BTreeMap<CredentialName, Issued>, PartlyIssued> {
    let issues = input
        .manifest
        .credentials
        .iter()
        .map(|(name, spec)| async { (name.clone(), credential::issue(name, spec, issue).await) });
    let mut issued = BTreeMap::new();
    let mut failed = None;
    for (name, result) in futures_util::future::join_all(issues).await {
        match result {
            Ok(credential) => {
                issued.insert(name, credential);
            }
            Err(source) => failed = failed.or(Some(LaunchError::Credential { name, source })),
        }
    }
    match failed {
        None => Ok(issued),
        Some(error) => Err((issued, error)),
    }
}

pub(super) fn remember_leases(record: &mut Record, input: &LaunchInput<'_>, issued: &BTreeMap<CredentialName, Issued>) {
    for (name, credential) in issued {
        let Some(spec) = input.manifest.credentials.get(name) else { continue };
        record.leases.insert(name.clone(), lease(spec.clone(), credential));
    }
}

/// What the journal keeps of an issued credential.
pub(in crate::session) fn lease(spec: crate::credential::spec::CredentialSpec, issued: &Issued) -> JournalLease {
    JournalLease {
        spec,
        handle: issued.handle.clone(),
        fingerprint: issued.fingerprint.to_string(),
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
    for issued in issued.values() {
        let expires = issued.expires_at.map_or_else(|| "never by itself".to_owned(), |time| time.to_string());
        let fingerprint = issued.fingerprint.to_string();
        let mut facts = vec![
            ("credential", issued.name.as_str()),
            ("provider", issued.provider),
            ("fingerprint", &fingerprint),
            ("expires_at", &expires),
        ];
        let spec = input.manifest.credentials.get(&issued.name);
        // Exceptions stand where whoever reads the log looks for the grant.
        let shared = spec.and_then(|spec| spec.shared_with.as_ref());
        let others = shared.map(|shared| shared.projects.join(", "));
        if let (Some(shared), Some(others)) = (shared, &others) {
            facts.extend([("shared_with", others.as_str()), ("shared_because", &shared.reason)]);
        }
        if let Some(reason) = spec.and_then(|spec| spec.accept_personal.as_deref()) {
            facts.push(("personal_because", reason));
        }
        audit(input, record, "credential.issued", &facts)?;
    }
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
