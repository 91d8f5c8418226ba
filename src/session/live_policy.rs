//! Changes of a running sandbox's network: the policy goes to the gateway on its standard input, which the agent has no
//! way to, and is swapped there in one step. It ends with the session.
//!
//! Whoever writes to the gateway has its lock, so that no two lines mix and a gateway that is started again gets the
//! newest policy.

use std::fs::File;
use std::io;

use crate::engine::Engine;
use crate::gateway::protocol::Action;
use crate::network::policy::{ADDED, AllowRule, DenyRule, Policy};
use crate::network::request::RequestRule;
use crate::session::gateway_control::{GatewayControl, GatewayControlError};
use crate::session::identity::{Role, lock_file};
use crate::session::journal::{Journal, JournalError, Record};

/// Why a running sandbox's policy was not changed.
#[derive(Debug, thiserror::Error)]
pub enum LivePolicyError {
    /// The gateway did not take it.
    #[error(transparent)]
    Gateway(#[from] GatewayControlError),
    /// The journal could not be written.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The lock could not be taken.
    #[error("wait for whoever talks to the gateway")]
    Lock(#[source] io::Error),
    /// The session ended meanwhile.
    #[error("change the network of a session that ended")]
    Ended,
    /// The first host with rules needs an authority that programs got no variable for.
    #[error("have requests read in a sandbox that was started without any host with rules")]
    Inspection,
}

/// Waits for the sole right to write to a gateway, until the file is dropped.
///
/// # Errors
/// When the lock file cannot be used.
pub async fn turn(journal: &Journal) -> io::Result<File> {
    let lock = lock_file(journal.folder(), "gateway.lock")?;
    tokio::task::spawn_blocking(move || lock.lock().map(|()| lock)).await.map_err(io::Error::other)?
}

/// The policy with one more destination, or one more request to a destination. A denial of exactly that is taken back.
/// Gives the entry as it is then too; nothing when all of it was allowed before.
pub fn with_allowed(policy: &Policy, entry: &AllowRule) -> Option<(Policy, AllowRule)> {
    let mut next = policy.clone();
    next.denied.retain(|denial| !(denial.host == entry.host && denial.port.is_none_or(|port| port == entry.port)));
    let own = |rule: &AllowRule| rule.host == entry.host && rule.port == entry.port;
    let whole = |rule: &AllowRule| {
        let private = entry.allow_private.iter().all(|network| rule.allow_private.contains(network));
        rule.port == entry.port && rule.host.contains(&entry.host) && rule.rules.is_empty() && private
    };
    let now = match next.allow.iter_mut().find(|rule| own(rule)) {
        None if policy.allow.iter().any(whole) => entry.clone(),
        None => {
            next.allow.push(AllowRule { origin: Some(ADDED.to_owned()), ..entry.clone() });
            entry.clone()
        }
        Some(rule) => {
            let mut rules: Vec<RequestRule> = Vec::new();
            if !rule.rules.is_empty() && !entry.rules.is_empty() {
                rules.clone_from(&rule.rules);
                rules.extend(entry.rules.iter().filter(|request| !rule.rules.contains(request)).cloned());
            }
            let private = entry.allow_private.iter().filter(|network| !rule.allow_private.contains(network));
            let private: Vec<_> = private.copied().collect();
            if rule.rules != rules || !private.is_empty() {
                rule.rules = rules;
                rule.allow_private.extend(private);
                rule.origin = Some(ADDED.to_owned());
            }
            rule.clone()
        }
    };
    // A denial of more than this still holds, and the caller says so.
    (next != *policy).then_some((next, AllowRule { origin: None, ..now }))
}

/// The policy without a destination, however many entries allow it.
pub fn with_denied(policy: &Policy, denial: &DenyRule) -> Policy {
    let mut next = policy.clone();
    let gone = |rule: &AllowRule| rule.is_added() && denial.covers_pattern(&rule.host, rule.port);
    next.allow.retain(|rule| !gone(rule));
    if !next.denied.contains(denial) {
        next.denied.push(denial.clone());
    }
    next
}

/// The policy of a changed manifest, with what a person added and denied while the sandbox runs.
pub fn with_manifest(running: &Policy, manifest: &Policy) -> Policy {
    let mut next = Policy { denied: running.denied.clone(), observe: running.observe, ..manifest.clone() };
    let listed =
        |rule: &AllowRule| manifest.allow.iter().any(|other| other.host == rule.host && other.port == rule.port);
    next.allow.extend(running.allow.iter().filter(|rule| rule.is_added() && !listed(rule)).cloned());
    next
}

/// Puts a policy in force and remembers it. When the gateway does not take it, the one before is put back.
///
/// # Errors
/// When the session has ended, or when gateway or journal fail; then the policy before is in force.
pub async fn put_in_force(
    engine: &Engine,
    journal: &Journal,
    before: &Record,
    policy: &Policy,
    plan_hash: Option<&str>,
) -> Result<(), LivePolicyError> {
    if policy.adds_authorities() && !before.policy.adds_authorities() {
        return Err(LivePolicyError::Inspection);
    }
    let _turn = turn(journal).await.map_err(LivePolicyError::Lock)?;
    let is_it = |record: &Record| record.session == before.session && record.phase == before.phase;
    if !journal.read()?.is_some_and(|record| is_it(&record)) {
        return Err(LivePolicyError::Ended);
    }
    // First the journal: a gateway that dies now comes back with the new policy.
    journal.update(|record| {
        record.policy = policy.clone();
        if let Some(hash) = plan_hash {
            record.plan_hash = hash.to_owned();
        }
    })?;
    let gateway = before.id.object(Role::Gateway);
    let Err(error) = tell(engine, &gateway, policy).await else { return Ok(()) };
    journal.update(|record| {
        record.policy = before.policy.clone();
        record.plan_hash.clone_from(&before.plan_hash);
    })?;
    // A gateway that refuses a policy allows nothing until it has one.
    tell(engine, &gateway, &before.policy).await?;
    Err(error.into())
}

async fn tell(engine: &Engine, gateway: &str, policy: &Policy) -> Result<(), GatewayControlError> {
    let mut control = GatewayControl::attach(engine, gateway).await?;
    control.carry_out(Action::Policy(policy.clone())).await
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(host: &str, rules: &[&str]) -> AllowRule {
        let rules = rules.iter().map(|rule| rule.parse().unwrap()).collect();
        AllowRule { rules, ..AllowRule::new(host.parse().unwrap(), 443) }
    }

    fn listed(host: &str, rules: &[&str]) -> AllowRule {
        AllowRule { origin: Some("sandbox.yaml:9".to_owned()), ..entry(host, rules) }
    }

    fn policy(allow: Vec<AllowRule>) -> Policy {
        Policy { allow, ..Policy::default() }
    }

    fn changed(change: Option<(Policy, AllowRule)>) -> Policy {
        change.unwrap().0
    }

    #[test]
    fn adds_an_entry_or_a_request_to_one_and_says_when_it_is_allowed_already() {
        let before = policy(vec![listed("a.example", &["GET /a"]), listed("b.example", &[])]);
        let more = changed(with_allowed(&before, &entry("a.example", &["POST /b"])));
        assert_eq!(more.allow[0].rules.len(), 2);
        assert!(more.allow[0].is_added());
        assert_eq!(with_allowed(&before, &entry("b.example", &[])), None);
        assert_eq!(with_allowed(&before, &entry("b.example", &["GET /x"])), None);
        let other = changed(with_allowed(&before, &entry("c.example", &[])));
        assert_eq!(other.allow.len(), 3);
        // The whole host is allowed from now on.
        assert!(changed(with_allowed(&before, &entry("a.example", &[]))).allow[0].rules.is_empty());
    }

    #[test]
    fn a_denial_outlives_a_change_of_the_manifest_and_is_taken_back_by_name() {
        let denial = DenyRule { host: "a.example".parse().unwrap(), port: None };
        let added = changed(with_allowed(&policy(vec![listed("a.example", &[])]), &entry("c.example", &[])));
        let denied = with_denied(&added, &denial);
        assert!(denied.find(&"a.example".parse().unwrap(), 443).is_none());
        let applied = with_manifest(&denied, &policy(vec![listed("a.example", &[]), listed("d.example", &[])]));
        assert_eq!(applied.allow.len(), 3);
        assert_eq!(applied.denied, [denial]);
        let again = changed(with_allowed(&applied, &entry("a.example", &[])));
        assert!(again.find(&"a.example".parse().unwrap(), 443).is_some());
        let none = with_denied(&applied, &DenyRule { host: "c.example".parse().unwrap(), port: Some(443) });
        assert!(!none.allow.iter().any(AllowRule::is_added));
    }
}
