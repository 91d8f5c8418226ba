//! What a session was denied, counted for `sandbox status`. An agent can ask for any number of names: what is told apart
//! is bounded, and the rest is counted together.

use std::collections::HashMap;

use jiff::Timestamp;
use serde::Serialize;

use crate::audit::AuditLog;
use crate::audit::event::AuditEvent;
use crate::commands::{Context, Failure};
use crate::gateway::denials::OTHERS;
use crate::network::policy::AllowRule;
use crate::project::allow_entry;
use crate::session::launch::probe_host;

/// Destinations and requests that are told apart while counting.
const TOLD_APART: usize = 1024;
/// Rows that are shown: those that were asked for most often.
const SHOWN: usize = 50;

/// One destination, or one request, that was denied.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DeniedRow {
    /// The host.
    pub host: String,
    /// The port; empty where the row stands for several hosts, or for a name that was only looked up.
    pub port: String,
    /// Method and path, where the host is allowed and the request is not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request: Option<String>,
    /// How many times.
    pub count: u64,
    /// When the last time was.
    pub last: Timestamp,
    /// What to write to allow it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
}

/// Host, port, request and remedy.
type Key = (String, String, Option<String>, Option<String>);

#[derive(Debug, Default)]
struct Counts(HashMap<Key, (u64, Timestamp)>);

impl Counts {
    fn add(&mut self, event: &AuditEvent, session: &str) {
        if event.session.as_deref() != Some(session) {
            return;
        }
        let Some(mut key) = key(event, session) else { return };
        if self.0.len() >= TOLD_APART && !self.0.contains_key(&key) {
            key = (OTHERS.to_owned(), String::new(), None, None);
        }
        let times = event.facts.get("count").and_then(|count| count.parse().ok()).unwrap_or(1);
        let (count, last) = self.0.entry(key).or_insert((0, event.time));
        *count += times;
        *last = event.time.max(*last);
    }

    fn rows(self) -> Vec<DeniedRow> {
        let rows = self.0.into_iter().map(|((host, port, request, remedy), (count, last))| DeniedRow {
            host,
            port,
            request,
            count,
            last,
            remedy,
        });
        let mut rows: Vec<DeniedRow> = rows.collect();
        let order =
            |row: &DeniedRow| (std::cmp::Reverse(row.count), row.host.clone(), row.port.clone(), row.request.clone());
        rows.sort_by_cached_key(order);
        rows.truncate(SHOWN);
        rows
    }
}

fn key(event: &AuditEvent, session: &str) -> Option<Key> {
    let fact = |name: &str| event.facts.get(name).cloned().unwrap_or_default();
    let (host, port) = (fact("host"), fact("port"));
    let (request, remedy) = match (event.action.as_str(), fact("reason").as_str()) {
        // The probe asks for a name that nobody lists.
        ("network.denied", "unlisted" | "lookup") if host == probe_host(session) => return None,
        ("network.denied", _) if host == OTHERS => return Some((host, String::new(), None, None)),
        ("network.denied", "unlisted") => (None, format!("add `- {}` to network.allow", entry(&host, &port)?)),
        ("network.denied", "lookup") => {
            let remedy = looked_up(&host).map(|entry| format!("add `- {entry}` to network.allow"));
            return Some((host, String::new(), None, remedy));
        }
        ("network.denied", "address") => {
            (None, "its address is a private one; name its network with `allow_private`".to_owned())
        }
        ("network.denied" | "request.denied", "limit") => {
            let detail = fact("detail");
            let key = detail.split(':').next().unwrap_or_default();
            (None, format!("raise {key}, if so much is meant to go there"))
        }
        ("request.denied", "rule") => {
            (Some(format!("{} {}", fact("method"), fact("path"))), "add a rule for it".to_owned())
        }
        // Other reasons, such as a host that does not answer, are not for the manifest to mend.
        _ => return None,
    };
    Some((host, port, request, Some(remedy)))
}

/// The entry for a host as it was asked for, which a manifest may not be able to name.
fn entry(host: &str, port: &str) -> Option<String> {
    Some(allow_entry::text(&AllowRule::new(host.parse().ok()?, port.parse().ok()?)))
}

/// The entry for a name that was only looked up: nobody said which port it was for. A name of a network's own (a single
/// label, or of the reverse tree) is none.
fn looked_up(host: &str) -> Option<String> {
    let proper = host.contains('.') && !host.ends_with(".arpa");
    proper.then(|| entry(host, "443")).flatten()
}

/// Counts the denials of a session.
///
/// # Errors
/// When the audit log cannot be read.
pub fn denied(context: &Context, session: &str) -> Result<Vec<DeniedRow>, Failure> {
    let mut counts = Counts::default();
    AuditLog::open(&context.folders.state)?.records(|record| counts.add(&record.event, session))?;
    Ok(counts.rows())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(facts: &[(&str, &str)], second: u8) -> AuditEvent {
        AuditEvent {
            time: format!("2026-01-02T03:04:{second:02}Z").parse().unwrap(),
            action: "network.denied".to_owned(),
            actor: "ada".to_owned(),
            project: "demo".to_owned(),
            sandbox: None,
            session: Some("one".to_owned()),
            outcome: "denied".to_owned(),
            facts: facts.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
        }
    }

    #[test]
    fn counts_sums_and_the_last_time_with_the_line_to_write() {
        let mut counts = Counts::default();
        let facts = [("host", "a.example"), ("port", "22"), ("reason", "unlisted")];
        counts.add(&event(&facts, 9), "one");
        counts.add(&event(&[&facts[..], &[("count", "40")]].concat(), 7), "one");
        counts.add(&event(&facts, 10), "two");
        let rows = counts.rows();
        assert_eq!((rows.len(), rows[0].count), (1, 41));
        assert_eq!(rows[0].last.to_string(), "2026-01-02T03:04:09Z");
        assert_eq!(rows[0].remedy.as_deref(), Some("add `- { host: a.example, port: 22 }` to network.allow"));
    }

    #[test]
    fn a_name_that_was_only_looked_up_has_no_port_and_a_line_when_it_can_be_one() {
        let mut counts = Counts::default();
        for host in ["a.example", "printer", "1.0.0.10.in-addr.arpa", "odd\\u{1b}.example"] {
            counts.add(&event(&[("host", host), ("via", "dns"), ("reason", "lookup"), ("count", "3")], 0), "one");
        }
        let rows = counts.rows();
        let shown = |row: &DeniedRow| (row.host.clone(), row.port.clone(), row.count, row.remedy.clone());
        assert_eq!(rows.len(), 4);
        let named = rows.iter().find(|row| row.host == "a.example").unwrap();
        let line = "add `- a.example` to network.allow".to_owned();
        assert_eq!(shown(named), ("a.example".to_owned(), String::new(), 3, Some(line)));
        assert!(rows.iter().filter(|row| row.host != "a.example").all(|row| row.remedy.is_none()), "{rows:?}");
    }

    #[test]
    fn a_flood_of_names_takes_bounded_memory_and_shows_what_is_asked_for_most() {
        let mut counts = Counts::default();
        for number in 0..20_000 {
            let host = format!("n{number}.example");
            counts.add(&event(&[("host", &host), ("port", "443"), ("reason", "unlisted")], 0), "one");
        }
        assert!(counts.0.len() <= TOLD_APART + 1);
        let rows = counts.rows();
        assert_eq!((rows.len(), rows[0].host.as_str()), (SHOWN, OTHERS));
        assert_eq!(rows[0].count, 20_000 - TOLD_APART as u64);
    }
}
