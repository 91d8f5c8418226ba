//! Takes what the gateway reports from the engine's log of it into the audit log: each event once, in order, and with a word
//! where some are missing.
//!
//! The engine keeps the log, so nothing is lost while no supervisor lives, as long as it fits: the engine drops the oldest
//! part of a log that grows beyond its bound. Each event has a number, so that what was dropped is counted, and the journal
//! remembers which were recorded.

use std::convert::Infallible;
use std::fs::File;
use std::io;
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;

use crate::audit::AuditLog;
use crate::engine::Engine;
use crate::engine::stream::Chunk;
use crate::gateway::protocol::{Decision, Event, NumberedEvent, RequestDecision};
use crate::session::gateway_control::LineBuffer;
use crate::session::identity::{Role, lock_file};
use crate::session::journal::{Journal, Record, RecordedEvents};
use crate::session::launch::event;

/// How many events are recorded at most before the journal remembers it, and how long nothing more comes until it does.
/// What a process recorded and did not remember before it was killed, the next one records again.
const REMEMBER_EVERY: u64 = 64;
const REMEMBER_AFTER: Duration = Duration::from_millis(100);
/// How long the end of a session waits for another process that records: a supervisor that sees the session end finishes
/// within this, and one that was stopped must not hold the end up.
const TURN_LIMIT: Duration = Duration::from_secs(5);

/// Records the events of one session's gateway. One process does so at a time.
pub(super) struct Recorder<'a> {
    engine: &'a Engine,
    journal: &'a Journal,
    audit: &'a AuditLog,
    actor: &'a str,
    record: Record,
    recorded: RecordedEvents,
    /// How many of them the journal does not know of.
    unremembered: u64,
    _turn: File,
}

/// A session's end stops whoever follows, between two events.
impl Drop for Recorder<'_> {
    fn drop(&mut self) {
        self.remember();
    }
}

impl<'a> Recorder<'a> {
    /// Waits until no other process records, and goes on where the journal says that it ended.
    ///
    /// # Errors
    /// When the lock file cannot be used.
    pub(super) async fn start(
        engine: &'a Engine,
        journal: &'a Journal,
        audit: &'a AuditLog,
        actor: &'a str,
        record: &Record,
    ) -> io::Result<Self> {
        let lock = lock_file(journal.folder(), "events.lock")?;
        let begun = Instant::now();
        while let Err(error) = lock.try_lock() {
            match error {
                std::fs::TryLockError::Error(error) => return Err(error),
                // Better an event that is recorded twice than one that is not.
                std::fs::TryLockError::WouldBlock if begun.elapsed() >= TURN_LIMIT => break,
                std::fs::TryLockError::WouldBlock => tokio::time::sleep(Duration::from_millis(10)).await,
            }
        }
        let recorded = match journal.read() {
            Ok(Some(now)) if now.session == record.session => now.recorded,
            _ => record.recorded.clone(),
        };
        Ok(Self { engine, journal, audit, actor, record: record.clone(), recorded, unremembered: 0, _turn: lock })
    }

    /// Records what is there and what comes, also across restarts of the gateway.
    pub(super) async fn follow(&mut self) -> Infallible {
        loop {
            self.read(true).await;
            // The gateway stopped; its log goes on in the same place when it is started again.
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    }

    /// Records what is there and not recorded yet: the last look before the gateway's container goes.
    pub(super) async fn drain(&mut self) {
        self.read(false).await;
    }

    async fn read(&mut self, follow: bool) {
        let mut lines = LineBuffer::default();
        let log = self.engine.logs(&self.record.id.object(Role::Gateway), follow, None);
        tokio::pin!(log);
        loop {
            let next = match tokio::time::timeout(REMEMBER_AFTER, log.next()).await {
                Ok(next) => next,
                Err(_) => {
                    self.remember();
                    log.next().await
                }
            };
            let Some(Ok(chunk)) = next else { break };
            let Chunk::Out(bytes) = chunk else { continue };
            for line in lines.push(&bytes) {
                let Ok(line) = serde_json::from_slice::<NumberedEvent>(&line) else { continue };
                let Some(missing) = self.recorded.note(&line.run, line.sequence) else { continue };
                if missing > 0 {
                    self.note("network.unrecorded", "failed", &[("count", &missing.to_string())]);
                }
                self.take(line.event);
                self.unremembered += 1;
                if self.unremembered == REMEMBER_EVERY {
                    self.remember();
                }
            }
        }
        self.remember();
    }

    fn remember(&mut self) {
        if std::mem::take(&mut self.unremembered) == 0 {
            return;
        }
        let session = &self.record.session;
        let updated = self.journal.update(|now| {
            if now.session == *session {
                now.recorded = self.recorded.clone();
            }
        });
        if let Err(error) = updated {
            tracing::warn!(%error, "the journal was not updated");
        }
    }

    fn take(&self, event: Event) {
        match event {
            Event::Decision(decision) => self.decision(&decision),
            Event::Request(request) => self.request(&request),
            Event::SecretRead { name, count } => {
                let count = count.to_string();
                let mut facts = vec![("file", name.as_str()), ("count", count.as_str())];
                // A file need not have the credential's name.
                let read = (self.record.leases.iter())
                    .find(|(credential, lease)| lease.spec.deliver.file(credential) == Some(&name));
                facts.extend(read.map(|(credential, _)| ("credential", credential.as_str())));
                self.note("credential.read", "ok", &facts);
            }
            Event::Closed(closed) => {
                let facts = [
                    ("connection", closed.connection.to_string()),
                    ("sent", closed.sent.to_string()),
                    ("received", closed.received.to_string()),
                ];
                self.note("network.closed", "ok", &facts.each_ref().map(|(name, value)| (*name, value.as_str())));
            }
            Event::Ready | Event::Acknowledged { .. } | Event::Proven { .. } => {}
        }
    }

    fn request(&self, request: &RequestDecision) {
        let (connection, port) = (request.connection.to_string(), request.port.to_string());
        let count = request.count.map(|count| count.to_string());
        let mut facts = vec![
            ("connection", connection.as_str()),
            ("host", &request.host),
            ("port", &port),
            ("method", &request.method),
            ("path", &request.path),
            ("reason", &request.reason),
        ];
        facts.extend(
            [
                ("rule", &request.rule),
                ("credential", &request.credential),
                ("detail", &request.detail),
                ("count", &count),
            ]
            .iter()
            .filter_map(|(name, value)| value.as_deref().map(|value| (*name, value))),
        );
        let (action, outcome) = if request.allowed { ("request.allowed", "ok") } else { ("request.denied", "denied") };
        self.note(action, outcome, &facts);
    }

    fn decision(&self, decision: &Decision) {
        let port = decision.port.to_string();
        let connection = decision.connection.to_string();
        let mut facts = vec![
            ("connection", connection.as_str()),
            ("host", &decision.host),
            ("via", &decision.via),
            ("reason", &decision.reason),
        ];
        if decision.port != 0 {
            facts.push(("port", &port));
        }
        let count = decision.count.map(|count| count.to_string());
        for (name, value) in
            [("address", &decision.address), ("rule", &decision.rule), ("detail", &decision.detail), ("count", &count)]
        {
            if let Some(value) = value {
                facts.push((name, value));
            }
        }
        let (action, outcome) = if decision.allowed { ("network.allowed", "ok") } else { ("network.denied", "denied") };
        self.note(action, outcome, &facts);
    }

    fn note(&self, action: &str, outcome: &str, facts: &[(&str, &str)]) {
        if let Err(error) = self.audit.append(&event(self.actor, &self.record, action, outcome, facts)) {
            tracing::error!(%error, action, "an audit event was not written");
        }
    }
}
