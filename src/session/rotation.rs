//! The credentials of a running sandbox: issued anew in time or on request, delivered, and the old ones revoked after a
//! grace. Also what the user takes away while the agent runs.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::{Duration, Instant};

use futures_util::future::{FutureExt as _, LocalBoxFuture};
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use jiff::Timestamp;
use tokio::sync::watch;

use crate::credential::rotation::Requests;
use crate::credential::spec::{CredentialSpec, Delivery, OnExpiry};
use crate::credential::{self, CredentialError, IssueContext, Issued, Revocation};
use crate::gateway::protocol::Action;
use crate::project::CredentialName;
use crate::session::gateway_control::{GatewayControl, GatewayControlError};
use crate::session::identity::Role;
use crate::session::journal::{Journal, JournalError, JournalLease, Record, RetiringLease};
use crate::session::launch::{issued_facts, lease};
use crate::session::live_policy;
use crate::session::supervise::{SuperviseInput, note};

/// How often requests for a rotation and due dates are looked at.
const TICK: Duration = Duration::from_millis(100);
/// The first pause after a failed rotation, and no more than a twentieth of the life; it doubles up to [`RETRY_MOST`].
const RETRY_FIRST: Duration = Duration::from_secs(5);
/// The longest pause between two tries of a rotation, and no more than an eighth of the life.
const RETRY_MOST: Duration = Duration::from_secs(300);
/// The shortest, whatever the life.
const RETRY_LEAST: Duration = Duration::from_millis(250);
/// How long a value that was replaced goes on: a fetch or a query that began with it may still need it. Three quarters of
/// what is left of its life, when that is less: it ends while its issuer still knows it.
const GRACE: Duration = Duration::from_secs(300);
/// Why it ends when it was told to.
const TOLD: &str = "rotation was told to end";
/// The pause before a revocation that failed is tried again.
const RETRY_RETIRED: Duration = Duration::from_secs(30);
/// How long an issuer may take that was asked when the session ended; its answer is revoked at once.
const FINISH_LIMIT: Duration = Duration::from_secs(45);

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
#[derive(Debug, Clone, Copy)]
struct Due {
    /// By the clock on the wall, which a suspended machine's goes on with.
    at: Timestamp,
    /// By a clock that nobody sets: one that is put back does not keep a credential until it has run out.
    by: Instant,
    /// Whether the value has to be a new one, so that to renew it is not enough.
    anew: bool,
    pause: Pause,
}

impl Due {
    fn of(lease: &JournalLease, seed: &str) -> Option<Self> {
        // A stored value does not become another by being read again, so its age alone makes none due.
        let end = lease.expires_at.and(lease.ends_at())?;
        let at = credential::next_rotation(lease.begun_at(), Some(end), seed)?;
        let by = Instant::now() + between(Timestamp::now(), at);
        Some(Self { at, by, anew: false, pause: Pause::of(between(lease.begun_at(), end)) })
    }

    /// For one that was asked for.
    fn at_once() -> Self {
        Self { at: Timestamp::now(), by: Instant::now(), anew: true, pause: Pause::of(Duration::MAX) }
    }

    fn is_now(&self) -> bool {
        self.at <= Timestamp::now() || self.by <= Instant::now()
    }

    /// After a try that failed.
    fn later(self) -> Self {
        let pause = self.pause.next;
        let at = Timestamp::now().checked_add(pause).unwrap_or(Timestamp::MAX);
        Self { at, by: Instant::now() + pause, pause: self.pause.longer(), ..self }
    }
}

/// How long to wait between two tries. A short life has no time for long pauses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Pause {
    next: Duration,
    most: Duration,
}

impl Pause {
    fn of(life: Duration) -> Self {
        let most = (life / 8).clamp(RETRY_LEAST, RETRY_MOST);
        Self { next: (life / 20).clamp(RETRY_LEAST, RETRY_FIRST), most }
    }

    fn longer(self) -> Self {
        Self { next: (self.next * 2).min(self.most), ..self }
    }
}

/// From one time to another; nothing when that is earlier.
fn between(from: Timestamp, to: Timestamp) -> Duration {
    Duration::try_from(to.duration_since(from)).unwrap_or_default()
}

/// Until when a value goes on that is replaced now.
fn grace(old: &JournalLease, now: Timestamp) -> Timestamp {
    let left = old.expires_at.map_or(GRACE, |end| between(now, end) * 3 / 4);
    now.checked_add(left.min(GRACE)).unwrap_or(now)
}

/// A piece of work on one issuer, which may take its time. Several go on at once: one issuer that hangs must not keep the
/// others' credentials from being replaced in time, nor the user from taking one away.
enum Work {
    /// A credential was made to last, or not.
    Turn(CredentialName, Due, Result<(), RotateError>),
    /// What the user took away is gone, or not.
    Withdrawn(CredentialName),
    /// What was replaced and is over has been looked at.
    Retired,
}

/// What is under way, each credential in one piece of work at most.
struct Works<'a> {
    futures: FuturesUnordered<LocalBoxFuture<'a, Work>>,
    busy: BTreeSet<CredentialName>,
    retiring: bool,
}

impl<'a> Works<'a> {
    fn new() -> Self {
        Self { futures: FuturesUnordered::new(), busy: BTreeSet::new(), retiring: false }
    }

    fn is_busy(&self, name: &CredentialName) -> bool {
        self.busy.contains(name)
    }

    fn begin(&mut self, name: &CredentialName, work: impl Future<Output = Work> + 'a) {
        self.busy.insert(name.clone());
        self.futures.push(work.boxed_local());
    }

    /// The next that is done; never when nothing is under way.
    async fn next(&mut self) -> Work {
        let Some(done) = self.futures.next().await else { return std::future::pending().await };
        match &done {
            Work::Turn(name, ..) | Work::Withdrawn(name) => {
                self.busy.remove(name);
            }
            Work::Retired => self.retiring = false,
        }
        done
    }
}

/// Rotates what is due and what the user asked for, until it is told to end, or a credential ran out of which the session
/// must end. Gives the reason. Dropped in the middle, it could forget a credential that an issuer has just made, so it is
/// not to be dropped.
pub(super) async fn rotate_until_the_end(input: &SuperviseInput<'_>, steering: &Steering) -> String {
    let mut works = Works::new();
    let reason = work_until_the_end(input, steering, &mut works).await;
    // What is being issued at this moment is issued, and revoked instead of delivered.
    steering.end();
    let finish = async {
        while !works.futures.is_empty() {
            works.next().await;
        }
        // What was issued too late to be delivered is due at once, and this process may be the only one to have it.
        let over = Over::default();
        end_retired(
            &input.journal,
            &input.issue,
            |retiring| over.is(retiring),
            |retired, ended| {
                note_retired(input, retired, ended);
            },
        )
        .await;
    };
    if tokio::time::timeout(FINISH_LIMIT, finish).await.is_err() {
        tracing::error!("a credential that was being issued when the session ended may live on until its own end");
    }
    reason
}

async fn work_until_the_end<'a>(
    input: &'a SuperviseInput<'_>,
    steering: &'a Steering,
    works: &mut Works<'a>,
) -> String {
    let mut due: BTreeMap<CredentialName, Due> = BTreeMap::new();
    let mut expired = BTreeSet::new();
    let over = Rc::new(RefCell::new(Over::default()));
    let mut asked = Requests::default();
    let mut unreadable = false;
    let mut ending = steering.ending.subscribe();
    loop {
        tokio::select! {
            _ = ending.wait_for(|ending| *ending) => return TOLD.to_owned(),
            done = works.next() => {
                if let Work::Turn(name, entry, Err(error)) = done && !*steering.ending.borrow() {
                    note_failure(input, &name, &error);
                    due.insert(name, entry.later());
                }
            }
            () = tokio::time::sleep(TICK) => {}
        }
        let record = match input.journal.read() {
            Ok(Some(record)) => Rc::new(record),
            Ok(None) => continue,
            Err(error) => {
                if !std::mem::replace(&mut unreadable, true) {
                    tracing::error!(%error, "credentials are not rotated while the journal cannot be read");
                }
                continue;
            }
        };
        unreadable = false;
        let now = Timestamp::now();
        let free = |works: &Works<'_>, name: &CredentialName| !works.is_busy(name);
        due.retain(|name, _| record.leases.contains_key(name));
        for (name, lease) in record.leases.iter().filter(|(name, _)| free(works, name)) {
            if !due.contains_key(name)
                && let Some(entry) = Due::of(lease, record.session.as_str())
            {
                due.insert(name.clone(), entry);
            }
        }
        over.borrow_mut().look(&record);
        if !works.retiring && record.retiring.iter().any(|retiring| over.borrow().is(retiring)) {
            works.retiring = true;
            let over = Rc::clone(&over);
            let work = async move {
                end_retired(
                    &input.journal,
                    &input.issue,
                    |retiring| over.borrow().is(retiring),
                    |retired, ended| {
                        note_retired(input, retired, ended);
                    },
                )
                .await;
                Work::Retired
            };
            works.futures.push(work.boxed_local());
        }
        if let Ok(more) = credential::rotation::take_requests(input.journal.folder()) {
            asked.rotate.extend(more.rotate);
            asked.revoke.extend(more.revoke);
        }
        asked.rotate.extend(steering.again.take());
        // What is to be taken away need not be new before.
        asked.rotate.retain(|name| record.leases.contains_key(name) && !asked.revoke.contains(name));
        end_at_once(input, &record, &mut asked.revoke, now);
        let revoked: Vec<CredentialName> = asked.revoke.iter().filter(|name| free(works, name)).cloned().collect();
        for name in revoked {
            asked.revoke.remove(&name);
            due.remove(&name);
            let (record, withdrawn) = (Rc::clone(&record), name.clone());
            works.begin(&name, async move {
                take_away(input, &record, &withdrawn).await;
                Work::Withdrawn(withdrawn)
            });
        }
        let names: Vec<CredentialName> = (record.leases.keys())
            .filter(|name| free(works, name) && !asked.revoke.contains(*name))
            .filter(|name| asked.rotate.contains(*name) || due.get(*name).is_some_and(Due::is_now))
            .cloned()
            .collect();
        for name in names {
            let asked = asked.rotate.remove(&name);
            let entry = due.remove(&name).unwrap_or_else(Due::at_once);
            let entry = Due { anew: entry.anew || asked, ..entry };
            let (record, turned) = (Rc::clone(&record), name.clone());
            works.begin(&name, async move {
                let turn = take_turn(input, &record, &turned, entry.anew, steering).await;
                Work::Turn(turned, entry, turn)
            });
        }
        // After the turns began: what ran out while the machine slept is replaced, and is no reason to end.
        let lasting = |name: &CredentialName, lease: &JournalLease| {
            works.is_busy(name) || (due.contains_key(name) && lease.failing_since.is_none())
        };
        if let Some(reason) = note_expired(input, &record, now, lasting, &mut expired) {
            return reason;
        }
    }
}

/// Has what was replaced, and has no lease any more, end without waiting for the end of its grace.
fn end_at_once(input: &SuperviseInput<'_>, record: &Record, names: &mut BTreeSet<CredentialName>, now: Timestamp) {
    let gone: BTreeSet<CredentialName> =
        names.iter().filter(|name| !record.leases.contains_key(*name)).cloned().collect();
    if gone.is_empty() {
        return;
    }
    names.retain(|name| !gone.contains(name));
    let updated = input.journal.update(|record| {
        for retiring in record.retiring.iter_mut().filter(|retiring| gone.contains(&retiring.name)) {
            retiring.end_at = now;
        }
    });
    if let Err(error) = updated {
        tracing::warn!(%error, "the journal was not updated");
    }
}

/// Takes a credential away, and records it.
async fn take_away(input: &SuperviseInput<'_>, record: &Record, name: &CredentialName) {
    let withdrawn = withdraw(input, record, name).await.map_err(|error| error.reason());
    let fingerprint = record.leases.get(name).map(|lease| lease.fingerprint.as_str()).unwrap_or_default();
    let facts = [("credential", name.as_str()), ("fingerprint", fingerprint)];
    note_end(input, record, &facts, withdrawn, "asked for");
}

/// Which replaced values are over: by the clock on the wall, or by one that nobody sets, so that a clock that is put back
/// does not let them live on.
#[derive(Debug, Default)]
struct Over {
    seen: BTreeMap<(String, Timestamp), Instant>,
}

impl Over {
    /// Remembers what there is, and forgets what is gone.
    fn look(&mut self, record: &Record) {
        let key = |retiring: &RetiringLease| (retiring.lease.fingerprint.clone(), retiring.end_at);
        let keys: BTreeSet<_> = record.retiring.iter().map(key).collect();
        self.seen.retain(|key, _| keys.contains(key));
        for key in keys {
            self.seen.entry(key).or_insert_with(Instant::now);
        }
    }

    fn is(&self, retiring: &RetiringLease) -> bool {
        let seen = self.seen.get(&(retiring.lease.fingerprint.clone(), retiring.end_at));
        retiring.end_at <= Timestamp::now() || seen.is_some_and(|seen| seen.elapsed() >= GRACE)
    }
}

/// Records that a credential was not replaced, for the audit log and for `status`.
fn note_failure(input: &SuperviseInput<'_>, name: &CredentialName, error: &RotateError) {
    let reason = error.reason();
    let Ok(Some(record)) = input.journal.read() else {
        tracing::warn!(credential = %name, reason, "a credential was not replaced");
        return;
    };
    let until = record.leases.get(name).and_then(|lease| lease.expires_at);
    let until = until.map_or_else(|| "unlimited".to_owned(), |time| time.to_string());
    let facts = [("credential", name.as_str()), ("reason", &reason), ("valid_until", &until)];
    note(input, &record, "credential.rotation_failed", "failed", &facts);
    let now = Timestamp::now();
    let updated = input.journal.update(|record| {
        if let Some(lease) = record.leases.get_mut(name) {
            lease.failing_since.get_or_insert(now);
        }
    });
    if let Err(error) = updated {
        tracing::warn!(%error, "the journal was not updated");
    }
}

/// Records what has run out without a successor, once each, but for what may still get one. Gives the reason for which the
/// session has to end, if that is what the manifest says of one of them.
fn note_expired(
    input: &SuperviseInput<'_>,
    record: &Record,
    now: Timestamp,
    lasting: impl Fn(&CredentialName, &JournalLease) -> bool,
    known: &mut BTreeSet<String>,
) -> Option<String> {
    let mut reason = None;
    for (name, lease) in &record.leases {
        let Some(end) = lease.ends_at().filter(|end| *end <= now) else { continue };
        if lasting(name, lease) || !known.insert(lease.fingerprint.clone()) {
            continue;
        }
        let facts = [("credential", name.as_str()), ("fingerprint", &lease.fingerprint), ("ended", &end.to_string())];
        note(input, record, "credential.expired", "failed", &facts);
        if lease.spec.on_expiry == OnExpiry::Stop {
            reason.get_or_insert(format!("the credential {name} ran out, and there was no new one"));
        }
    }
    reason
}

/// Makes a credential last: renewed where its issuer does that, and issued anew otherwise, or when `anew` is asked for.
async fn take_turn(
    input: &SuperviseInput<'_>,
    record: &Record,
    name: &CredentialName,
    anew: bool,
    steering: &Steering,
) -> Result<(), RotateError> {
    if *steering.ending.borrow() {
        return Err(RotateError::Ending);
    }
    if !anew && renew(input, record, name).await? {
        return Ok(());
    }
    rotate(input, record, name, steering).await
}

/// Has a credential live longer. Whether that was enough: what is near the end of all renewals is issued anew while there
/// is time.
async fn renew(input: &SuperviseInput<'_>, record: &Record, name: &CredentialName) -> Result<bool, RotateError> {
    let lease = record.leases.get(name).ok_or(RotateError::NotOut)?;
    let (Some(handle), Some(end)) = (&lease.handle, lease.expires_at) else { return Ok(false) };
    let Some(until) = credential::renew(name, &lease.spec, handle, &input.issue).await? else { return Ok(false) };
    let now = Timestamp::now();
    let renewed = JournalLease { renewed_at: Some(now), expires_at: Some(until), failing_since: None, ..lease.clone() };
    let enough = between(lease.begun_at(), end) * 3 / 4;
    if between(now, until) < enough || renewed.ends_at() != Some(until) {
        return Ok(false);
    }
    input.journal.update(|record| {
        if let Some(now) = record.leases.get_mut(name).filter(|now| now.is_same(lease)) {
            *now = renewed;
        }
    })?;
    let until = until.to_string();
    let facts = [("credential", name.as_str()), ("fingerprint", &lease.fingerprint), ("valid_until", &until)];
    note(input, record, "credential.renewed", "ok", &facts);
    Ok(true)
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

/// Issues a credential anew and delivers it. The old value goes on for a [`grace`], so that what was begun with it ends well.
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
    let kept =
        input.journal.update(|record| record.retiring.extend(renewed.handle.as_ref().map(|_| undelivered.clone())));
    if !matches!(kept, Ok(Some(_))) {
        // Nobody else will ever know of it.
        if let Err(error) = credential::revoke(name, &old.spec, renewed.handle.as_deref(), &input.issue).await {
            tracing::error!(credential = %name, %error, "a credential that was not delivered was not revoked");
        }
        return Err(kept.err().map_or(RotateError::Ending, RotateError::from));
    }
    let facts = issued_facts(&issued, &old.spec);
    let facts: Vec<(&str, &str)> = facts.iter().map(|(name, value)| (*name, value.as_str())).collect();
    note(input, record, "credential.issued", "ok", &facts);
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
    let now = Timestamp::now();
    input.journal.update(|record| {
        record.retiring.retain(|retiring| *retiring != undelivered);
        // What is replaced is what the journal has now: another rotation may have been quicker than this one's record.
        let replaced = record.leases.insert(name.clone(), renewed);
        if let Some(lease) = replaced.filter(|lease| lease.handle.is_some()) {
            let end_at = grace(&lease, now);
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

/// Records how a value that was replaced, or never delivered, ended.
fn note_retired(input: &SuperviseInput<'_>, retired: &RetiringLease, ended: Result<Revocation, String>) {
    let facts = [("credential", retired.name.as_str()), ("fingerprint", retired.lease.fingerprint.as_str())];
    match input.journal.read() {
        Ok(Some(record)) => note_end(input, &record, &facts, ended, "replaced by a rotation"),
        _ => tracing::warn!(credential = %retired.name, ?ended, "the end of a replaced credential was not recorded"),
    }
}

/// Revokes what has been replaced, or was never delivered, and whose time is over.
async fn end_retired(
    journal: &Journal,
    issue: &IssueContext<'_>,
    is_over: impl Fn(&RetiringLease) -> bool,
    mut told: impl FnMut(&RetiringLease, Result<Revocation, String>),
) {
    let Ok(Some(record)) = journal.read() else { return };
    for retiring in record.retiring.iter().filter(|retiring| is_over(retiring)) {
        let lease = &retiring.lease;
        let revoked = credential::revoke(&retiring.name, &lease.spec, lease.handle.as_deref(), issue).await;
        let again =
            revoked.is_err().then(|| RetiringLease { end_at: Timestamp::now() + RETRY_RETIRED, ..retiring.clone() });
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
    let withdrawal = match lease.spec.deliver.file(name) {
        Some(file) => Action::RemoveSecrets(vec![file.to_owned()]),
        None => Action::Unbroker(vec![name.to_string()]),
    };
    let gateway = record.id.object(Role::Gateway);
    let taken = async {
        // Two lines that mix would be none, and the gateway would take them for a broken policy.
        let _turn = live_policy::turn(&input.journal).await;
        let mut control = GatewayControl::attach(input.engine, &gateway).await?;
        control.carry_out(withdrawal).await.map_err(RotateError::from)?;
        // The file that stands for a brokered log-in.
        if matches!(lease.spec.deliver, Delivery::Broker { .. }) && lease.spec.has_agent_file() {
            control.carry_out(Action::RemoveSecrets(vec![name.to_string()])).await?;
        }
        Ok::<(), RotateError>(())
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
mod life_cycle;
#[cfg(test)]
mod tests;
