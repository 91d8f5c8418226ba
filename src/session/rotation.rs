//! The credentials of a running sandbox: issued anew in time or on request, delivered, and the old ones revoked after a
//! grace. Also what the user takes away while the agent runs.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::watch;

use crate::credential::spec::{CredentialSpec, Delivery};
use crate::credential::{self, CredentialError, IssueContext, Issued, Revocation};
use crate::gateway::protocol::Action;
use crate::project::CredentialName;
use crate::session::gateway_control::{GatewayControl, GatewayControlError};
use crate::session::identity::Role;
use crate::session::journal::{Journal, JournalError, Record, RetiringLease};
use crate::session::launch::lease;
use crate::session::live_policy;
use crate::session::supervise::{SuperviseInput, note};

/// How often requests for a rotation and due dates are looked at.
const TICK: Duration = Duration::from_millis(100);
/// The first pause after a failed rotation; it doubles up to [`RETRY_MOST`].
const RETRY_FIRST: Duration = Duration::from_secs(5);
/// The longest pause between two tries of a rotation.
const RETRY_MOST: Duration = Duration::from_secs(300);
/// How long a value that was replaced goes on: a fetch or a query that began with it may still need it.
const GRACE: Duration = Duration::from_secs(300);
/// The pause before a revocation that failed is tried again.
const RETRY_RETIRED: Duration = Duration::from_secs(30);

/// Why a credential was not rotated or withdrawn.
#[derive(Debug, thiserror::Error)]
enum RotateError {
    #[error("find the credential among those that are out")]
    NotOut,
    #[error("deliver it, since the session ends")]
    Ending,
    #[error(transparent)]
    Credential(#[from] CredentialError),
    #[error(transparent)]
    Gateway(#[from] GatewayControlError),
    #[error(transparent)]
    Journal(#[from] JournalError),
}

impl RotateError {
    /// The error and its causes on one line, for the audit log.
    fn reason(&self) -> String {
        let mut text = self.to_string();
        let mut source = std::error::Error::source(self);
        while let Some(cause) = source {
            text.push_str(": ");
            text.push_str(&cause.to_string());
            source = cause.source();
        }
        text
    }
}

/// What [`rotate_until_the_end`] is told while it runs.
pub(super) struct Steering {
    /// Credentials to issue anew at the next look.
    again: RefCell<BTreeSet<CredentialName>>,
    ending: watch::Sender<bool>,
}

impl Steering {
    pub(super) fn new() -> Self {
        Self { again: RefCell::default(), ending: watch::Sender::new(false) }
    }

    /// Has the rotation end. What is being issued at this moment is issued, and revoked.
    pub(super) fn end(&self) {
        self.ending.send_replace(true);
    }

    /// Gives a gateway that was started again the credentials that its memory lost, by issuing them anew.
    pub(super) fn broker_again(&self, record: &Record) {
        let brokered = record.leases.iter().filter(|(_, lease)| matches!(lease.spec.deliver, Delivery::Broker { .. }));
        self.again.borrow_mut().extend(brokered.map(|(name, _)| name.clone()));
    }
}

/// When a credential is to be renewed next.
struct Due {
    at: Timestamp,
    pause: Duration,
}

/// Rotates what is due and what the user asked for, until it is told to end. Dropped in the middle, it could forget a
/// credential that an issuer has just made, so it is not to be dropped.
pub(super) async fn rotate_until_the_end(input: &SuperviseInput<'_>, steering: &Steering) {
    let mut due: BTreeMap<CredentialName, Due> = BTreeMap::new();
    let mut ending = steering.ending.subscribe();
    loop {
        // What was issued too late to be delivered is due at once, and this process may be the only one to have it.
        let last = tokio::select! {
            _ = ending.wait_for(|ending| *ending) => true,
            () = tokio::time::sleep(TICK) => false,
        };
        let Ok(Some(record)) = input.journal.read() else {
            if last {
                return;
            }
            continue;
        };
        let now = Timestamp::now();
        for (name, lease) in &record.leases {
            let entry = credential::next_rotation(lease.issued_at, lease.expires_at, record.session.as_str());
            if let Some(at) = entry {
                due.entry(name.clone()).or_insert(Due { at, pause: RETRY_FIRST });
            }
        }
        end_retired(&input.journal, &input.issue, now, |retired, ended| {
            let facts = [("credential", retired.name.as_str()), ("fingerprint", retired.lease.fingerprint.as_str())];
            note_end(input, &record, &facts, ended, "replaced by a rotation");
        })
        .await;
        if last {
            return;
        }
        let asked = credential::rotation::take_requests(input.journal.folder()).unwrap_or_default();
        let again = steering.again.take();
        let names: Vec<CredentialName> = record
            .leases
            .keys()
            .filter(|name| {
                asked.rotate.contains(*name) || again.contains(*name) || due.get(*name).is_some_and(|due| due.at <= now)
            })
            .cloned()
            .collect();
        // One that was replaced has no lease any more, and need not wait for the end of its grace.
        if asked.revoke.iter().any(|name| !record.leases.contains_key(name)) {
            let updated = input.journal.update(|record| {
                for retiring in record.retiring.iter_mut().filter(|retiring| asked.revoke.contains(&retiring.name)) {
                    retiring.end_at = now;
                }
            });
            if let Err(error) = updated {
                tracing::warn!(%error, "the journal was not updated");
            }
        }
        for name in asked.revoke.iter().filter(|name| record.leases.contains_key(*name)) {
            due.remove(name);
            let withdrawn = withdraw(input, &record, name).await.map_err(|error| error.reason());
            let fingerprint = record.leases.get(name).map(|lease| lease.fingerprint.as_str()).unwrap_or_default();
            let facts = [("credential", name.as_str()), ("fingerprint", fingerprint)];
            note_end(input, &record, &facts, withdrawn, "asked for");
        }
        for name in names.into_iter().filter(|name| !asked.revoke.contains(name)) {
            if *steering.ending.borrow() {
                break;
            }
            match rotate(input, &record, &name, steering).await {
                Ok(()) => {
                    due.remove(&name);
                }
                Err(error) => {
                    let reason = error.reason();
                    let until = record.leases.get(&name).and_then(|lease| lease.expires_at);
                    let until = until.map_or_else(|| "unlimited".to_owned(), |time| time.to_string());
                    let facts = [("credential", name.as_str()), ("reason", &reason), ("valid_until", &until)];
                    note(input, &record, "credential.rotation_failed", "failed", &facts);
                    let pause = due.get(&name).map_or(RETRY_FIRST, |due| due.pause);
                    due.insert(name, Due { at: now + pause, pause: (pause * 2).min(RETRY_MOST) });
                }
            }
        }
    }
}

/// Records how a credential ended, or that it did not.
fn note_end(
    input: &SuperviseInput<'_>,
    record: &Record,
    facts: &[(&str, &str)],
    ended: Result<Revocation, String>,
    why: &str,
) {
    match ended {
        Ok(ending) => {
            let result = ending.result();
            let facts = [facts, &[("reason", why), ("result", &result)]].concat();
            note(input, record, ending.action(), "ok", &facts);
        }
        Err(reason) => {
            note(input, record, "credential.revoked", "failed", &[facts, &[("reason", &reason)]].concat());
        }
    }
}

/// Issues a credential anew and delivers it. The old value goes on for [`GRACE`], so that what was begun with it ends well.
///
/// The new one is in the journal before it is delivered: whatever fails afterwards, and whoever dies, it is revoked.
async fn rotate(
    input: &SuperviseInput<'_>,
    record: &Record,
    name: &CredentialName,
    steering: &Steering,
) -> Result<(), RotateError> {
    let old = record.leases.get(name).ok_or(RotateError::NotOut)?;
    let issued = credential::issue(name, &old.spec, &input.issue).await?;
    let fingerprint = issued.fingerprint.to_string();
    let renewed = lease(old.spec.clone(), &issued);
    // Not to be revoked while it is being delivered: only a delivery that failed makes it due at once.
    let undelivered = RetiringLease { name: name.clone(), lease: renewed.clone(), end_at: Timestamp::now() + GRACE };
    if renewed.handle.is_some() {
        input.journal.update(|record| record.retiring.push(undelivered.clone()))?;
    }
    let handed_out = if *steering.ending.borrow() {
        Err(RotateError::Ending)
    } else {
        hand_out(input, record, &old.spec, issued).await
    };
    if let Err(error) = handed_out {
        let due = Timestamp::now();
        input.journal.update(|record| {
            for retiring in record.retiring.iter_mut().filter(|retiring| **retiring == undelivered) {
                retiring.end_at = due;
            }
        })?;
        return Err(error);
    }
    let end_at = Timestamp::now() + GRACE;
    input.journal.update(|record| {
        record.retiring.retain(|retiring| *retiring != undelivered);
        // What is replaced is what the journal has now: another rotation may have been quicker than this one's record.
        let replaced = record.leases.insert(name.clone(), renewed);
        if let Some(lease) = replaced.filter(|lease| lease.handle.is_some()) {
            record.retiring.push(RetiringLease { name: name.clone(), lease, end_at });
        }
    })?;
    let facts = [("credential", name.as_str()), ("fingerprint", &fingerprint), ("previous", &old.fingerprint)];
    note(input, record, "credential.rotated", "ok", &facts);
    Ok(())
}

async fn hand_out(
    input: &SuperviseInput<'_>,
    record: &Record,
    spec: &CredentialSpec,
    issued: Issued,
) -> Result<(), RotateError> {
    let delivered = credential::deliver(vec![(spec, issued)])?;
    let gateway = record.id.object(Role::Gateway);
    // Two lines that mix would be none, and the gateway would take them for a broken policy.
    let _turn = live_policy::turn(&input.journal).await;
    let mut control = GatewayControl::attach(input.engine, &gateway).await?;
    if !delivered.files.is_empty() {
        control.carry_out(Action::UpdateSecrets(delivered.files)).await?;
    }
    if !delivered.brokered.is_empty() {
        control.carry_out(Action::Broker(delivered.brokered)).await?;
    }
    Ok(())
}

/// Revokes what has been replaced, or was never delivered, and whose time is over.
async fn end_retired(
    journal: &Journal,
    issue: &IssueContext<'_>,
    now: Timestamp,
    mut told: impl FnMut(&RetiringLease, Result<Revocation, String>),
) {
    let Ok(Some(record)) = journal.read() else { return };
    for retiring in record.retiring.iter().filter(|retiring| retiring.end_at <= now) {
        let lease = &retiring.lease;
        let revoked = credential::revoke(&retiring.name, &lease.spec, lease.handle.as_deref(), issue).await;
        let again = revoked.is_err().then(|| RetiringLease { end_at: now + RETRY_RETIRED, ..retiring.clone() });
        let updated = journal.update(|record| {
            record.retiring.retain(|other| other != retiring);
            record.retiring.extend(again);
        });
        if let Err(error) = updated {
            tracing::warn!(%error, "the journal was not updated");
        }
        told(retiring, revoked.map_err(|error| RotateError::from(error).reason()));
    }
}

/// Takes a credential away from the running sandbox and revokes it at its issuer.
async fn withdraw(
    input: &SuperviseInput<'_>,
    record: &Record,
    name: &CredentialName,
) -> Result<Revocation, RotateError> {
    let lease = record.leases.get(name).ok_or(RotateError::NotOut)?;
    let withdrawal = match &lease.spec.deliver {
        Delivery::File { name } => Action::RemoveSecrets(vec![name.clone()]),
        Delivery::Git { .. } | Delivery::Environment { .. } => Action::RemoveSecrets(vec![name.to_string()]),
        Delivery::Broker { .. } => Action::Unbroker(vec![name.to_string()]),
    };
    let gateway = record.id.object(Role::Gateway);
    let taken = async {
        // Two lines that mix would be none, and the gateway would take them for a broken policy.
        let _turn = live_policy::turn(&input.journal).await;
        let mut control = GatewayControl::attach(input.engine, &gateway).await?;
        control.carry_out(withdrawal).await.map_err(RotateError::from)
    };
    let taken = taken.await;
    // Whether or not the sandbox gave it back, the issuer is told. What is dead there need not be taken away here.
    let ending = credential::revoke(name, &lease.spec, lease.handle.as_deref(), &input.issue).await?;
    if !matches!(ending, Revocation::Revoked) {
        taken?;
    }
    // What it replaced ends with it, at the next look.
    let now = Timestamp::now();
    input.journal.update(|record| {
        record.leases.remove(name);
        for retiring in record.retiring.iter_mut().filter(|retiring| retiring.name == *name) {
            retiring.end_at = now;
        }
    })?;
    Ok(ending)
}

#[cfg(test)]
mod tests;
