//! What sessions did, put together from the log: who started them, with which image and approval, which credentials they
//! had and until when, which hosts they reached and were refused, what came back, and how they ended.
//!
//! It says what the log says. An agent decides how many names it asks for, so that everything which is told apart here is
//! bounded, and the rest is counted together.

use std::collections::{BTreeMap, HashMap};

use jiff::Timestamp;
use serde::Serialize;

use crate::audit::event::AuditEvent;

/// Hosts, and destinations that were denied, that are told apart in a session.
const HOST_LIMIT: usize = 512;
/// Credentials, exchanges, changes and notices of a session that are told apart.
const ENTRY_LIMIT: usize = 256;
/// Connections that are open at once and waited for.
const OPEN_LIMIT: usize = 4096;
/// Sessions of one report.
const SESSION_LIMIT: usize = 100_000;
/// What stands for the hosts beyond the limit.
const OTHERS: &str = "(others)";

/// One session.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct SessionReport {
    /// The project.
    pub project: String,
    /// The sandbox's name.
    pub sandbox: String,
    /// The session's id.
    pub session: String,
    /// Who started it.
    pub actor: String,
    /// When it was launched.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub launched: Option<Timestamp>,
    /// When the agent could work; none when the launch failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub started: Option<Timestamp>,
    /// When it ended; none while it runs, or when nobody was there to see it end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ended: Option<Timestamp>,
    /// How it ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The digest of the agent's image.
    pub image: String,
    /// The hash of the plan.
    pub plan: String,
    /// The commit that the work began at.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub base: String,
    /// The branch.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub branch: String,
    /// How many proofs of the confinement it passed before anything was handed over.
    pub probes: u64,
    /// The approval of the manifest that was in force.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub approval: Option<Approval>,
    /// Processor time of the agent's container, in milliseconds, as far as the engine told.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub processor_ms: Option<u64>,
    /// The most memory that it had at one time, in bytes, as far as the engine told.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_peak: Option<u64>,
    /// The credentials that it had.
    pub credentials: Vec<CredentialUse>,
    /// The commands that were started in it from outside, each with what looks like a secret masked.
    pub commands: Vec<CommandRun>,
    /// Files that act without being committed, such as git's hooks and settings of shells and agents, as far as they are others
    /// at the end than at the start. The container says so.
    pub outside: Vec<Outside>,
    /// The hosts that it reached.
    pub hosts: Vec<HostUse>,
    /// What it was denied.
    pub denied: Vec<Denied>,
    /// What came back, or was held back.
    pub exchanges: Vec<Exchange>,
    /// Changes of the network while it ran, and other things worth a look.
    pub notices: Vec<Notice>,
}

/// The approval of a manifest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Approval {
    /// Who.
    pub actor: String,
    /// When.
    pub time: Timestamp,
    /// The digest over the approved files.
    pub digest: String,
}

/// One credential of a session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CredentialUse {
    /// Its name.
    pub name: String,
    /// Who issued it.
    pub provider: String,
    /// When it was first issued.
    pub issued: Timestamp,
    /// When it would run out by itself, in words.
    pub expires: String,
    /// The keyed fingerprint of the last value.
    pub fingerprint: String,
    /// How many times it was replaced.
    pub rotations: u64,
    /// How often it was made to live longer, its value being the same.
    pub renewals: u64,
    /// The last time that it was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rotated: Option<Timestamp>,
    /// The last time that its file was opened or that the gateway put it into a request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub used: Option<Timestamp>,
    /// How many times its file was opened; nothing for one that the gateway put in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reads: Option<u64>,
    /// How many requests it was put into by the gateway.
    pub injected: u64,
    /// When it was withdrawn, and what came of that.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub withdrawn: Option<Withdrawn>,
    /// What went wrong with it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<String>,
}

/// The end of a credential.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Withdrawn {
    /// When.
    pub time: Timestamp,
    /// What came of it: revoked at the issuer, or why not.
    pub result: String,
}

/// A command that was started from outside.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CommandRun {
    /// When.
    pub time: Timestamp,
    /// Who.
    pub actor: String,
    /// Its words in one line.
    pub command: String,
    /// When it ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ended: Option<Timestamp>,
    /// Its exit code; none as long as it runs, or when it was cut off.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<u8>,
    /// What tells it from others in the log.
    #[serde(skip)]
    id: String,
}

impl CommandRun {
    /// A command with its end, if it has one.
    pub fn new(time: Timestamp, actor: &str, command: &str, end: Option<(Timestamp, u8)>) -> Self {
        Self {
            time,
            actor: actor.to_owned(),
            command: command.to_owned(),
            ended: end.map(|(time, _)| time),
            code: end.map(|(_, code)| code),
            id: String::new(),
        }
    }
}

/// A file that acts without being committed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Outside {
    /// Its path in the container.
    pub path: String,
    /// `added`, `changed` or `removed`.
    pub change: String,
}

/// One host that was reached.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct HostUse {
    /// The host.
    pub host: String,
    /// The port.
    pub port: String,
    /// Connections.
    pub connections: u64,
    /// Requests that the gateway read, and allowed.
    pub requests: u64,
    /// Bytes that the host got.
    pub sent: u64,
    /// Bytes that came from it.
    pub received: u64,
}

/// One destination that was denied.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Denied {
    /// The host; empty where the request named none.
    pub host: String,
    /// The port; empty for a name that was only looked up in DNS.
    pub port: String,
    /// The gateway's word for why.
    pub reason: String,
    /// How many times.
    pub count: u64,
    /// When the last time was.
    pub last: Timestamp,
}

impl Denied {
    /// Host and port, as far as they were said.
    pub fn place(&self) -> String {
        let host = if self.host.is_empty() { "(no host)" } else { &self.host };
        if self.port.is_empty() { host.to_owned() } else { format!("{host}:{}", self.port) }
    }
}

/// Commits that came back or were held back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Exchange {
    /// When.
    pub time: Timestamp,
    /// Who pulled.
    pub actor: String,
    /// Whether they came in.
    pub landed: bool,
    /// Facts such as the commit, the number of commits and files, and what was accepted.
    pub facts: BTreeMap<String, String>,
}

/// Something else.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Notice {
    /// When.
    pub time: Timestamp,
    /// Who.
    pub actor: String,
    /// What.
    pub action: String,
    /// The facts of the event.
    pub facts: BTreeMap<String, String>,
}

/// Which events a report is about.
#[derive(Debug, Clone, Default)]
pub struct Scope {
    /// This project alone.
    pub project: Option<String>,
    /// This sandbox alone.
    pub sandbox: Option<String>,
    /// Sessions that were launched at this time or later.
    pub since: Option<Timestamp>,
    /// Sessions that were launched before this time.
    pub until: Option<Timestamp>,
}

/// Puts sessions together, event by event in the log's order.
#[derive(Debug, Default)]
pub struct Reporter {
    scope: Scope,
    approvals: HashMap<String, Approval>,
    sessions: BTreeMap<(Timestamp, String), Building>,
    places: HashMap<String, (Timestamp, String)>,
}

#[derive(Debug, Default)]
struct Building {
    report: SessionReport,
    hosts: HashMap<(String, String), HostUse>,
    denied: HashMap<(String, String, String), (u64, Timestamp)>,
    open: HashMap<String, (String, String)>,
    probe: String,
}

impl Reporter {
    /// A report of nothing yet. `probe_host` gives the name that a session's own proof asks for.
    pub fn new(scope: Scope) -> Self {
        Self { scope, ..Self::default() }
    }

    /// Takes the next event of the log.
    pub fn add(&mut self, event: &AuditEvent, probe_host: impl Fn(&str) -> String) {
        let fact = |name: &str| event.facts.get(name).cloned().unwrap_or_default();
        if event.action == "manifest.approved" {
            let approval = Approval { actor: event.actor.clone(), time: event.time, digest: fact("digest") };
            self.approvals.insert(event.project.clone(), approval);
            return;
        }
        let Some(session) = &event.session else { return };
        if event.action == "session.launching" && self.is_wanted(event) && self.sessions.len() < SESSION_LIMIT {
            let place = (event.time, session.clone());
            let report = SessionReport {
                project: event.project.clone(),
                sandbox: event.sandbox.clone().unwrap_or_default(),
                session: session.clone(),
                actor: event.actor.clone(),
                launched: Some(event.time),
                image: fact("image"),
                plan: fact("plan"),
                approval: self.approvals.get(&event.project).cloned(),
                ..SessionReport::default()
            };
            self.places.insert(session.clone(), place.clone());
            let building = Building { report, probe: probe_host(session), ..Building::default() };
            self.sessions.insert(place, building);
            return;
        }
        let Some(building) = self.places.get(session).and_then(|place| self.sessions.get_mut(place)) else { return };
        building.add(event);
    }

    fn is_wanted(&self, event: &AuditEvent) -> bool {
        let Scope { project, sandbox, since, until } = &self.scope;
        project.as_ref().is_none_or(|project| *project == event.project)
            && sandbox.as_ref().is_none_or(|sandbox| event.sandbox.as_ref() == Some(sandbox))
            && since.is_none_or(|since| event.time >= since)
            && until.is_none_or(|until| event.time < until)
    }

    /// The sessions, by the time at which they were launched.
    pub fn finish(self) -> Vec<SessionReport> {
        self.sessions.into_values().map(Building::finish).collect()
    }
}

impl Building {
    fn add(&mut self, event: &AuditEvent) {
        let fact = |name: &str| event.facts.get(name).map(String::as_str).unwrap_or_default();
        let number = |name: &str| fact(name).parse::<u64>().unwrap_or_default();
        let report = &mut self.report;
        match event.action.as_str() {
            "session.started" => {
                report.started = Some(event.time);
                fact("base").clone_into(&mut report.base);
                fact("branch").clone_into(&mut report.branch);
            }
            "session.probed" => report.probes = number("checks"),
            "session.stopped" => {
                report.ended = Some(event.time);
                report.reason = Some(fact("reason").to_owned());
            }
            "session.used" => {
                report.processor_ms = fact("processor_ms").parse().ok();
                report.memory_peak = fact("memory_peak").parse().ok();
            }
            "command.started" if report.commands.len() < ENTRY_LIMIT => {
                let run = CommandRun::new(event.time, &event.actor, fact("command"), None);
                report.commands.push(CommandRun { id: fact("id").to_owned(), ..run });
            }
            "command.started" => {}
            "command.ended" => {
                let id = fact("id");
                if let Some(run) = report.commands.iter_mut().rfind(|run| run.id == id && run.ended.is_none()) {
                    run.ended = Some(event.time);
                    run.code = fact("code").parse().ok();
                }
            }
            "session.outside" => {
                for change in ["added", "changed", "removed"] {
                    let paths: Vec<String> = serde_json::from_str(fact(change)).unwrap_or_default();
                    let change = change.to_owned();
                    report.outside.extend(paths.into_iter().map(|path| Outside { path, change: change.clone() }));
                }
                report.outside.truncate(ENTRY_LIMIT);
            }
            "credential.issued" => self.issued(event),
            "credential.renewed" => {
                if let Some(used) = self.credential(fact("credential")) {
                    used.renewals += 1;
                }
            }
            "credential.rotated" => {
                if let Some(used) = self.credential(fact("credential")) {
                    used.rotations += 1;
                    used.rotated = Some(event.time);
                    fact("fingerprint").clone_into(&mut used.fingerprint);
                }
            }
            "credential.revoked" | "credential.left_to_expire" => self.withdrawn(event),
            "credential.rotation_failed" => {
                if let Some(used) = self.credential(fact("credential")) {
                    used.problem(format!("{}: could not be replaced: {}", event.time, fact("reason")));
                }
            }
            "credential.expired" => {
                if let Some(used) = self.credential(fact("credential")) {
                    used.problem(format!("{}: ran out at {} without a successor", event.time, fact("ended")));
                }
            }
            "credential.read" => {
                let count = number("count").max(1);
                // Earlier versions told the file alone, which mostly has the credential's name.
                let name = Some(fact("credential")).filter(|name| !name.is_empty()).unwrap_or_else(|| fact("file"));
                if let Some(used) = self.credential(name) {
                    *used.reads.get_or_insert(0) += count;
                    used.used = Some(event.time);
                }
            }
            "network.allowed" => {
                let place = self.host(fact("host"), fact("port"));
                place.0.connections += number("count").max(1);
                let key = place.1;
                if self.open.len() < OPEN_LIMIT {
                    self.open.insert(fact("connection").to_owned(), key);
                }
            }
            "network.closed" => {
                if let Some(key) = self.open.remove(fact("connection"))
                    && let Some(used) = self.hosts.get_mut(&key)
                {
                    used.sent += number("sent");
                    used.received += number("received");
                }
            }
            // Its numbers begin anew.
            "gateway.restarted" => self.open.clear(),
            "request.allowed" => {
                let count = number("count").max(1);
                self.host(fact("host"), fact("port")).0.requests += count;
                if let Some(used) = self.credential(fact("credential")) {
                    used.injected += count;
                    used.used = Some(event.time);
                }
            }
            "network.denied" if fact("host") == self.probe => {}
            "network.denied" | "request.denied" => {
                let mut key = (fact("host").to_owned(), fact("port").to_owned(), fact("reason").to_owned());
                if self.denied.len() >= HOST_LIMIT && !self.denied.contains_key(&key) {
                    key = (OTHERS.to_owned(), String::new(), fact("reason").to_owned());
                }
                let (count, last) = self.denied.entry(key).or_insert((0, event.time));
                *count += number("count").max(1);
                *last = event.time.max(*last);
            }
            "commits.pulled" | "commits.held_back" => {
                if report.exchanges.len() < ENTRY_LIMIT {
                    report.exchanges.push(Exchange {
                        time: event.time,
                        actor: event.actor.clone(),
                        landed: event.action == "commits.pulled",
                        facts: event.facts.clone(),
                    });
                }
            }
            "credential.delivered" | "session.removed" | "home.kept" | "home.removed" => {}
            _ => {
                if report.notices.len() < ENTRY_LIMIT {
                    report.notices.push(Notice {
                        time: event.time,
                        actor: event.actor.clone(),
                        action: event.action.clone(),
                        facts: event.facts.clone(),
                    });
                }
            }
        }
    }

    fn issued(&mut self, event: &AuditEvent) {
        let fact = |name: &str| event.facts.get(name).cloned().unwrap_or_default();
        let because = |key: &str| event.facts.get(key).cloned();
        let shared = because("shared_with").zip(because("shared_because"));
        let shared = shared.map(|(others, reason)| format!("shared with {others}: {reason}"));
        let personal = because("personal_because").map(|reason| format!("a person's own value was accepted: {reason}"));
        // Issued again where a launch was mended; the first time counts.
        if self.credential(&fact("credential")).is_none() && self.report.credentials.len() < ENTRY_LIMIT {
            self.report.credentials.push(CredentialUse {
                name: fact("credential"),
                provider: fact("provider"),
                issued: event.time,
                expires: fact("expires_at"),
                fingerprint: fact("fingerprint"),
                rotations: 0,
                renewals: 0,
                rotated: None,
                used: None,
                reads: None,
                injected: 0,
                withdrawn: None,
                problems: shared.into_iter().chain(personal).collect(),
            });
        }
    }

    fn withdrawn(&mut self, event: &AuditEvent) {
        let fact = |name: &str| event.facts.get(name).cloned().unwrap_or_default();
        let fingerprint = fact("fingerprint");
        let Some(used) = self.credential(&fact("credential")) else { return };
        if event.outcome == "failed" {
            used.problem(format!("{}: could not be revoked: {}", event.time, fact("reason")));
        } else if used.fingerprint == fingerprint {
            // An older value's end is part of its rotation.
            used.withdrawn = Some(Withdrawn { time: event.time, result: fact("result") });
        }
    }

    fn credential(&mut self, name: &str) -> Option<&mut CredentialUse> {
        self.report.credentials.iter_mut().find(|used| used.name == name)
    }

    fn host(&mut self, host: &str, port: &str) -> (&mut HostUse, (String, String)) {
        let mut key = (host.to_owned(), port.to_owned());
        if self.hosts.len() >= HOST_LIMIT && !self.hosts.contains_key(&key) {
            key = (OTHERS.to_owned(), String::new());
        }
        let (host, port) = key.clone();
        let used = self.hosts.entry(key.clone()).or_insert_with(|| HostUse { host, port, ..HostUse::default() });
        (used, key)
    }

    fn finish(self) -> SessionReport {
        let mut report = self.report;
        report.hosts = self.hosts.into_values().collect();
        report.hosts.sort_by(|one, other| (&one.host, &one.port).cmp(&(&other.host, &other.port)));
        let denied = self.denied.into_iter();
        report.denied =
            denied.map(|((host, port, reason), (count, last))| Denied { host, port, reason, count, last }).collect();
        let order = |denied: &Denied| {
            (std::cmp::Reverse(denied.count), denied.host.clone(), denied.port.clone(), denied.reason.clone())
        };
        report.denied.sort_by_cached_key(order);
        report
    }
}

impl CredentialUse {
    fn problem(&mut self, text: String) {
        if self.problems.len() < ENTRY_LIMIT {
            self.problems.push(text);
        }
    }

    /// How it stands, in words: what an auditor wants to know first.
    pub fn state(&self) -> String {
        match &self.withdrawn {
            Some(withdrawn) => format!("{}: {}", withdrawn.time.strftime("%Y-%m-%d %H:%M:%SZ"), withdrawn.result),
            None => "not withdrawn".to_owned(),
        }
    }
}

#[cfg(test)]
mod tests;
