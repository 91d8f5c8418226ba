//! `sandbox network ls`: the entries in force, and what each of them let through in this session.

use std::collections::BTreeMap;

use comfy_table::{Table, presets};
use serde::Serialize;

use crate::audit::AuditLog;
use crate::audit::event::AuditEvent;
use crate::commands::connect::connect;
use crate::commands::load::Target;
use crate::commands::printer::sanitise;
use crate::commands::{Context, Failure, sandbox};
use crate::network::name::Host;
use crate::network::policy::Policy;
use crate::project::quantity::show_size;
use crate::session::journal::Phase;

/// Connections that are open at a time and waited for; an agent can have no more than the gateway serves.
const OPEN_LIMIT: usize = 4096;

#[derive(Debug, Serialize)]
struct Report {
    project: String,
    name: String,
    session: String,
    running: bool,
    allow: Vec<Row>,
    denied: Vec<Denial>,
}

#[derive(Debug, Serialize)]
struct Row {
    host: String,
    port: u16,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    allow_private: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    rules: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    credential: Option<String>,
    /// Where it was written.
    origin: String,
    /// Whether a person added it to the running sandbox.
    added: bool,
    #[serde(flatten)]
    through: Through,
}

#[derive(Debug, Serialize)]
struct Denial {
    host: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    port: Option<u16>,
}

/// What an entry let through.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize)]
struct Through {
    connections: u64,
    requests: u64,
    sent: u64,
    received: u64,
}

/// Adds up what each entry of a policy let through.
struct Tally<'a> {
    policy: &'a Policy,
    through: Vec<Through>,
    /// Which entry an open connection belongs to.
    open: BTreeMap<String, usize>,
}

impl<'a> Tally<'a> {
    fn new(policy: &'a Policy) -> Self {
        Self { policy, through: vec![Through::default(); policy.allow.len()], open: BTreeMap::new() }
    }

    fn add(&mut self, event: &AuditEvent) {
        let fact = |name: &str| event.facts.get(name).map(String::as_str).unwrap_or_default();
        let number = |name: &str| fact(name).parse::<u64>().unwrap_or(0);
        match event.action.as_str() {
            "network.allowed" => {
                let Some(index) = self.entry(fact("host"), fact("port")) else { return };
                self.through[index].connections += number("count").max(1);
                if self.open.len() < OPEN_LIMIT {
                    self.open.insert(fact("connection").to_owned(), index);
                }
            }
            "request.allowed" => {
                if let Some(index) = self.entry(fact("host"), fact("port")) {
                    self.through[index].requests += number("count").max(1);
                }
            }
            "network.closed" => {
                if let Some(index) = self.open.remove(fact("connection")) {
                    self.through[index].sent += number("sent");
                    self.through[index].received += number("received");
                }
            }
            // A new gateway counts its connections from one again.
            "gateway.restarted" => self.open.clear(),
            _ => {}
        }
    }

    /// The first entry that covers the destination, denied or not: the counts are of the past.
    fn entry(&self, host: &str, port: &str) -> Option<usize> {
        let (host, port) = (host.parse::<Host>().ok()?, port.parse::<u16>().ok()?);
        self.policy.allow.iter().position(|rule| rule.port == port && rule.host.covers(&host))
    }
}

/// Lists the entries.
pub(super) async fn run(context: &Context, target: &Target) -> Result<u8, Failure> {
    let engine = connect(context).await?;
    let found = sandbox::find(context, &engine, target).await?;
    let record = &found.record;
    let mut tally = Tally::new(&record.policy);
    AuditLog::open(&context.folders.state)?.records(|line| {
        if line.event.session.as_deref() == Some(record.session.as_str()) {
            tally.add(&line.event);
        }
    })?;
    let rows = record.policy.allow.iter().zip(tally.through).map(|(rule, through)| Row {
        host: rule.host.to_string(),
        port: rule.port,
        allow_private: rule.allow_private.iter().map(ToString::to_string).collect(),
        rules: rule.rules.iter().map(ToString::to_string).collect(),
        credential: rule.broker.clone(),
        origin: rule.origin.clone().unwrap_or_else(|| "sandbox.yaml".to_owned()),
        added: rule.is_added(),
        through,
    });
    let denied = record.policy.denied.iter().map(|rule| Denial { host: rule.host.to_string(), port: rule.port });
    let report = Report {
        project: record.id.project.to_string(),
        name: record.id.name.to_string(),
        session: record.session.as_str().to_owned(),
        running: record.phase == Phase::Running,
        allow: rows.collect(),
        denied: denied.collect(),
    };
    context.printer.result(&report, || table(&report));
    Ok(0)
}

fn table(report: &Report) -> String {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING);
    table.set_header(["DESTINATION", "BY", "CONNECTIONS", "REQUESTS", "SENT", "RECEIVED"]);
    for row in &report.allow {
        let counts = [row.through.connections.to_string(), row.through.requests.to_string()];
        let sizes = [show_size(row.through.sent), show_size(row.through.received)];
        let first = [format!("{}:{}", row.host, row.port), sanitise(&row.origin)];
        table.add_row(first.into_iter().chain(counts).chain(sizes));
        for rule in &row.rules {
            table.add_row([format!("  {rule}")]);
        }
        if let Some(credential) = &row.credential {
            table.add_row([format!("  with the credential {credential}")]);
        }
    }
    for denial in &report.denied {
        let port = denial.port.map(|port| format!(":{port}")).unwrap_or_default();
        table.add_row([format!("denied: {}{port}", denial.host), "denied while running".to_owned()]);
    }
    if report.allow.is_empty() && report.denied.is_empty() {
        return "nothing; allow a host with `sandbox network allow`".to_owned();
    }
    table.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::policy::AllowRule;

    fn event(action: &str, facts: &[(&str, &str)]) -> AuditEvent {
        AuditEvent {
            time: "2026-01-02T03:04:05Z".parse().unwrap(),
            action: action.to_owned(),
            actor: "ada".to_owned(),
            project: "demo".to_owned(),
            sandbox: None,
            session: None,
            outcome: "ok".to_owned(),
            facts: facts.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
        }
    }

    #[test]
    fn counts_by_entry_and_forgets_the_numbers_of_a_gateway_that_died() {
        let allow = ["a.example", "*.b.example"].map(|host| AllowRule::new(host.parse().unwrap(), 443)).to_vec();
        let policy = Policy { allow, ..Policy::default() };
        let mut tally = Tally::new(&policy);
        let opened =
            |host, number| event("network.allowed", &[("host", host), ("port", "443"), ("connection", number)]);
        let closed = |number| event("network.closed", &[("connection", number), ("sent", "5"), ("received", "7")]);
        tally.add(&opened("x.b.example", "1"));
        tally.add(&closed("1"));
        tally.add(&closed("1"));
        tally.add(&opened("a.example", "2"));
        tally.add(&event("gateway.restarted", &[]));
        tally.add(&closed("2"));
        tally.add(&event("request.allowed", &[("host", "a.example"), ("port", "443")]));
        assert_eq!(tally.through[0], Through { connections: 1, requests: 1, sent: 0, received: 0 });
        assert_eq!(tally.through[1], Through { connections: 1, requests: 0, sent: 5, received: 7 });
    }
}
