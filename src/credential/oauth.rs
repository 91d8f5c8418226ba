//! A log-in by OAuth 2.0: the refresh token stays on the developer's side, sandboxes get access tokens.
//!
//! A refresh token may be good for one use, and its second use ends the whole log-in (RFC 9700, section 4.14.2). So there
//! is one record for each log-in, one lock around it, and whoever holds that lock is the only one that refreshes; all
//! sandboxes of the project share the access token that came of it. The record is encrypted like a value of the store, in
//! the launcher's state folder: in a repository it would be used on two machines.

use std::fs::{self, File, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use super::secret::Secret;
use super::spec::{LoginAgent, OauthSpec};
use super::store::{Store, StoreError};
use super::{IssueContext, Revocation, VALUE_LIMIT, key_source, next_rotation};
use crate::project::{CredentialName, ProjectName};

pub mod agent;
pub mod browser;
mod client;
mod device;
mod error;

pub use browser::Browser;
pub use client::Tokens;
pub use device::Device;
pub use error::OauthError;

use agent::Account;

/// How long the lock is waited for: longer than one refresh can take.
const LOCK_LIMIT: Duration = Duration::from_secs(30);
/// How often the lock is looked at.
const LOCK_PAUSE: Duration = Duration::from_millis(50);

/// An access token, for as many sandboxes as want it.
#[derive(Debug)]
pub(super) struct Lent {
    /// The token.
    pub(super) token: Secret,
    /// When it was issued.
    pub(super) issued_at: Timestamp,
    /// When it runs out.
    pub(super) expires_at: Timestamp,
    /// What it is good for, as the issuer says it.
    pub(super) scope: String,
    /// What its issuer says of the account.
    account: Option<Account>,
}

/// What is kept of a log-in.
#[derive(Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
#[serde(deny_unknown_fields)]
struct Login {
    /// Where the refresh token may go: a manifest that names another address gets nothing.
    token_url: String,
    /// Whose it is.
    client_id: String,
    refresh_token: String,
    access: Option<Access>,
    scope: String,
    /// What the issuer last said of the account.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    account: Option<Account>,
    /// Whether a refresh was begun whose answer is not known.
    interrupted: bool,
    /// Whether the issuer said that it is over.
    ended: bool,
}

#[derive(Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
#[serde(deny_unknown_fields)]
struct Access {
    token: String,
    #[zeroize(skip)]
    issued_at: Timestamp,
    #[zeroize(skip)]
    expires_at: Timestamp,
}

/// Where the record of a log-in is.
#[derive(Debug, Clone)]
struct Keeper {
    store: Store,
    project: ProjectName,
    name: CredentialName,
}

/// Gives the access token that the project's sandboxes share, refreshed when that is due.
///
/// # Errors
/// When nobody logged in, the log-in is over, or the issuer does not answer.
pub(super) async fn issue(
    name: &CredentialName,
    spec: &OauthSpec,
    context: &IssueContext<'_>,
) -> Result<Lent, OauthError> {
    let (keeper, spec) = (Keeper::new(name, context), spec.clone());
    // Before the lock, which others wait for: a command may take its time. Without it what is not due yet is lent all the same.
    let secret = client_secret(name, &spec, context).await;
    // A task of its own: who asks may stop waiting, and the new refresh token is to be kept all the same.
    tokio::spawn(async move { keeper.lend(&spec, secret).await }).await.map_err(|_| OauthError::Stopped)?
}

/// The secret of the client, when it has one.
///
/// # Errors
/// When it cannot be read.
pub async fn client_secret(
    name: &CredentialName,
    spec: &OauthSpec,
    context: &IssueContext<'_>,
) -> Result<Option<Secret>, OauthError> {
    match &spec.client_secret {
        None => Ok(None),
        Some(source) => Ok(Some(key_source::read(source, name, context).await?.without_line_end())),
    }
}

/// The file that the agent's program reads, with the access token, or with what stands for it where the gateway puts the
/// true one in.
///
/// # Errors
/// When the file cannot be made.
pub(super) fn agent_file(lent: &Lent, agent: LoginAgent, stand_in: Option<&str>) -> Result<Secret, OauthError> {
    let token = match stand_in {
        Some(word) => word,
        None => client::word(lent.token.expose()).ok_or(OauthError::NotAToken)?,
    };
    let (scope, account) = (lent.scope.as_str(), lent.account.as_ref());
    agent.file(&agent::Content { token, issued_at: lent.issued_at, expires_at: lent.expires_at, scope, account })
}

/// Takes over a refresh token that the developer has. It is used once, so that it is known to be good, and an issuer that
/// rotates refresh tokens has ended it for everybody else.
///
/// # Errors
/// When the token or the issuer's answer cannot be used.
pub async fn take_over(spec: &OauthSpec, secret: Option<&Secret>, refresh: &Secret) -> Result<Tokens, OauthError> {
    client::refresh(spec, secret, client::word(refresh.expose()).ok_or(OauthError::NotAToken)?).await
}

/// Keeps a log-in that was just made, in place of any before it.
///
/// # Errors
/// When the record cannot be written.
pub async fn keep(
    name: &CredentialName,
    spec: &OauthSpec,
    context: &IssueContext<'_>,
    tokens: &Tokens,
) -> Result<(), OauthError> {
    let keeper = Keeper::new(name, context);
    let _lock = keeper.lock().await?;
    let refresh_token = tokens.refresh_token.as_ref().ok_or(OauthError::NoRefreshToken)?;
    keeper.write(&Login {
        token_url: spec.token_url.clone(),
        client_id: spec.client_id.clone(),
        refresh_token: refresh_token.to_string(),
        access: Some(Access::of(tokens)),
        scope: tokens.scope.clone(),
        account: tokens.account.clone(),
        interrupted: false,
        ended: false,
    })
}

/// Has the next one that asks refresh the log-in, however good the access token still is.
///
/// # Errors
/// When there is no log-in, or its record cannot be written.
pub async fn expire(name: &CredentialName, context: &IssueContext<'_>) -> Result<(), OauthError> {
    let keeper = Keeper::new(name, context);
    let _lock = keeper.lock().await?;
    let mut login = keeper.read()?;
    login.access = None;
    keeper.write(&login)
}

/// Ends a log-in at its issuer, where the manifest says how. Says whether it did.
///
/// # Errors
/// When there is none, or the issuer could end it and did not.
pub async fn end(name: &CredentialName, spec: &OauthSpec, context: &IssueContext<'_>) -> Result<bool, OauthError> {
    let Some(address) = &spec.revoke_url else { return Ok(false) };
    let secret = client_secret(name, spec, context).await?;
    let keeper = Keeper::new(name, context);
    let _lock = keeper.lock().await?;
    let login = keeper.read()?;
    if login.token_url != spec.token_url || login.client_id != spec.client_id {
        return Err(OauthError::Elsewhere { name: name.clone() });
    }
    client::revoke(spec, address, secret.as_ref(), &login.refresh_token).await?;
    Ok(true)
}

/// Forgets a log-in. Says whether there was one.
///
/// # Errors
/// When the record cannot be removed.
pub async fn forget(name: &CredentialName, context: &IssueContext<'_>) -> Result<bool, OauthError> {
    let keeper = Keeper::new(name, context);
    let _lock = keeper.lock().await?;
    Ok(keeper.store.remove(&keeper.project, name)?)
}

/// Whether somebody logged in; says nothing of whether it is still good.
pub fn logged_in(name: &CredentialName, context: &IssueContext<'_>) -> bool {
    Keeper::new(name, context).store.has(context.project, name)
}

/// Says when an access token runs out. Other sandboxes of the project have the same one, so none of them may end it.
///
/// # Errors
/// When the handle is none.
pub(super) fn revoke(handle: &str) -> Result<Revocation, OauthError> {
    handle.parse().map(Revocation::ExpiresAt).map_err(|_| OauthError::Handle)
}

impl Keeper {
    fn new(name: &CredentialName, context: &IssueContext<'_>) -> Self {
        let folder = context.state.join("logins");
        let mut store = context.store.clone();
        store.recipients = folder.join("recipients");
        store.folder = folder;
        Self { store, project: context.project.clone(), name: name.clone() }
    }

    /// The lock of one log-in, held until it is dropped, also by the end of the process.
    async fn lock(&self) -> Result<File, OauthError> {
        let folder = self.store.folder.join(self.project.as_str());
        let path = folder.join(format!("{}.lock", self.name));
        let failed = |source: io::Error| OauthError::Lock { path: path.clone(), source };
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder).map_err(failed)?;
        let file = File::options().create(true).truncate(false).write(true).mode(0o600).open(&path).map_err(failed)?;
        let begun = Instant::now();
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(file),
                Err(TryLockError::Error(error)) => return Err(failed(error)),
                Err(TryLockError::WouldBlock) if begun.elapsed() > LOCK_LIMIT => {
                    return Err(OauthError::Busy { seconds: LOCK_LIMIT.as_secs() });
                }
                Err(TryLockError::WouldBlock) => tokio::time::sleep(LOCK_PAUSE).await,
            }
        }
    }

    fn read(&self) -> Result<Login, OauthError> {
        let stored = match self.store.read(&self.project, &self.name) {
            Err(StoreError::Absent(name)) => return Err(OauthError::LoggedOut(name)),
            other => other?,
        };
        serde_json::from_slice(stored.value.expose()).map_err(|_| OauthError::Damaged)
    }

    fn write(&self, login: &Login) -> Result<(), OauthError> {
        // A buffer that grows leaves copies behind; what is in the record is bounded well below this.
        let mut text = Zeroizing::new(Vec::with_capacity(VALUE_LIMIT));
        serde_json::to_writer(&mut *text, login).map_err(|_| OauthError::Damaged)?;
        self.store.write(&self.project, &self.name, &Secret::new(std::mem::take(&mut *text)))?;
        Ok(())
    }

    async fn lend(&self, spec: &OauthSpec, secret: Result<Option<Secret>, OauthError>) -> Result<Lent, OauthError> {
        let _lock = self.lock().await?;
        let mut login = self.read()?;
        if login.token_url != spec.token_url || login.client_id != spec.client_id {
            return Err(OauthError::Elsewhere { name: self.name.clone() });
        }
        if login.ended {
            return Err(OauthError::Over { name: self.name.clone(), interrupted: login.interrupted });
        }
        if let Some(lent) = login.lent() {
            return Ok(lent);
        }
        let secret = secret?;
        // Who dies between the issuer's answer and the record leaves this behind, and the next one can say what happened.
        let before = std::mem::replace(&mut login.interrupted, true);
        self.write(&login)?;
        match client::refresh(spec, secret.as_ref(), &login.refresh_token).await {
            Ok(tokens) => {
                // "The client MUST discard the old refresh token and replace it" (RFC 6749, section 6).
                if let Some(next) = &tokens.refresh_token {
                    login.refresh_token.zeroize();
                    login.refresh_token = next.to_string();
                }
                login.access = Some(Access::of(&tokens));
                login.scope.clone_from(&tokens.scope);
                if tokens.account.is_some() {
                    login.account.clone_from(&tokens.account);
                }
                login.interrupted = false;
                self.write(&login)?;
                login.lent().ok_or(OauthError::Answer("an access token that ran out already"))
            }
            Err(error) => {
                let refused = matches!(error, OauthError::Refused { .. });
                if refused {
                    login.ended = true;
                    login.access = None;
                    login.interrupted = before;
                    self.write(&login)?;
                    return Err(OauthError::Over { name: self.name.clone(), interrupted: before });
                }
                // Nothing was used up when the issuer was not reached, or said that it did nothing.
                if error.is_harmless() {
                    login.interrupted = before;
                    self.write(&login)?;
                }
                Err(error)
            }
        }
    }
}

impl Login {
    /// The access token, unless it is time for a new one: a sandbox asks again at nine tenths of the wait at the
    /// earliest, see [`next_rotation`].
    fn lent(&self) -> Option<Lent> {
        let access = self.access.as_ref()?;
        let now = Timestamp::now();
        let due = next_rotation(access.issued_at, Some(access.expires_at), "")?;
        let wait = due.as_millisecond() - access.issued_at.as_millisecond();
        let passed = now.as_millisecond() - access.issued_at.as_millisecond();
        // A clock that was set back makes a token from the future, of which nobody knows how old it is.
        (passed >= 0 && passed < wait * 9 / 10).then(|| Lent {
            token: Secret::new(access.token.clone().into_bytes()),
            issued_at: access.issued_at,
            expires_at: access.expires_at,
            scope: self.scope.clone(),
            account: self.account.clone(),
        })
    }
}

impl Access {
    fn of(tokens: &Tokens) -> Self {
        let issued_at = Timestamp::now();
        let life = SignedDuration::from_secs(i64::try_from(tokens.life.as_secs()).unwrap_or(i64::MAX));
        let expires_at = issued_at.checked_add(life).unwrap_or(Timestamp::MAX);
        Self { token: tokens.access_token.to_string(), issued_at, expires_at }
    }
}

#[cfg(test)]
mod tests;
