//! `sandbox audit report`: for a period, every session and every credential that was handed out, as a page that a lead can
//! hand to an auditor. It is made of the audit log alone, after that was verified.

use clap::ValueEnum;
use jiff::Timestamp;
use maud::{Markup, html};
use serde::Serialize;

use crate::audit::AuditLog;
use crate::audit::log::Head;
use crate::audit::report::{Approval, Scope, SessionReport};
use crate::commands::load::actor;
use crate::commands::page::{page, shown};
use crate::commands::printer::sanitise;
use crate::commands::report::{counted, sessions, usage};
use crate::commands::{Context, Failure};

/// Arguments of `audit report`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Only of this project
    #[arg(long)]
    project: Option<String>,
    /// Only sessions that were launched at this time or later (RFC 3339, such as 2026-01-31T00:00:00Z)
    #[arg(long, value_name = "TIME")]
    since: Option<Timestamp>,
    /// Only sessions that were launched before this time
    #[arg(long, value_name = "TIME")]
    until: Option<Timestamp>,
    /// The form: `table` for a terminal, or one for other programs
    #[arg(long = "as", value_enum, value_name = "FORM", default_value_t = Form::Table)]
    form: Form,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Form {
    Table,
    Markdown,
    Csv,
    Html,
}

/// What the parts of the report are evidence for: SOC 2 trust services criteria (2017, revised points of focus 2022), and
/// ISO/IEC 27001:2022, Annex A.
const CONTROLS: [(&str, &str, &str); 4] = [
    ("Who had which credential, for what, from when until when", "CC6.1, CC6.3", "A.5.15, A.5.17, A.5.18, A.8.2"),
    ("Who approved what a session may do, before it began", "CC6.2", "A.5.16, A.5.18"),
    ("Withdrawal at the end of each session", "CC6.3", "A.5.18"),
    ("What was denied, and the log that says so", "CC7.2", "A.8.15"),
];

/// The columns of a grant.
const COLUMNS: [&str; 15] = [
    "project",
    "sandbox",
    "session",
    "person",
    "credential",
    "provider",
    "fingerprint",
    "issued",
    "expires",
    "last used",
    "rotated",
    "use",
    "end",
    "approved",
    "exceptions",
];

/// One credential of one session.
#[derive(Debug, Serialize)]
struct Grant {
    #[serde(flatten)]
    session: Which,
    credential: String,
    provider: String,
    fingerprint: String,
    issued: Timestamp,
    expires: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_used: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_rotated: Option<Timestamp>,
    usage: String,
    end: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    approval: Option<Approval>,
    exceptions: Vec<String>,
}

/// A session, as it is named in the rows.
#[derive(Debug, Clone, Serialize)]
struct Which {
    project: String,
    sandbox: String,
    session: String,
    person: String,
}

/// The whole report.
#[derive(Debug, Serialize)]
struct Report {
    #[serde(skip_serializing_if = "Option::is_none")]
    since: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    until: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    project: Option<String>,
    made: Timestamp,
    by: String,
    /// The log's head when it was verified: with a copy of an earlier one, nothing can have been cut since.
    log: Head,
    grants: Vec<Grant>,
    sessions: Vec<SessionReport>,
}

/// Makes the report.
///
/// # Errors
/// When the log cannot be read, or its chain is broken.
pub fn run(context: &Context, args: &Args) -> Result<u8, Failure> {
    // A report of a log that was changed would be worth less than none.
    let log = AuditLog::open(&context.folders.state)?.verify()?;
    let scope = Scope { project: args.project.clone(), sandbox: None, since: args.since, until: args.until };
    let sessions = sessions(context, scope)?;
    let report = Report {
        since: args.since,
        until: args.until,
        project: args.project.clone(),
        made: Timestamp::now(),
        by: actor().1,
        log,
        grants: sessions.iter().flat_map(grants).collect(),
        sessions,
    };
    let text = match args.form {
        Form::Table => table(&report),
        Form::Markdown => markdown(&report),
        Form::Csv => csv(&report),
        Form::Html => page("Sandbox: credentials of coding agents", &body(&report)),
    };
    context.printer.result(&report, || text);
    Ok(0)
}

fn grants(session: &SessionReport) -> Vec<Grant> {
    let which = Which {
        project: session.project.clone(),
        sandbox: session.sandbox.clone(),
        session: session.session.clone(),
        person: session.actor.clone(),
    };
    let grant = |used: &crate::audit::report::CredentialUse| Grant {
        session: which.clone(),
        credential: used.name.clone(),
        provider: used.provider.clone(),
        fingerprint: used.fingerprint.clone(),
        issued: used.issued,
        expires: used.expires.clone(),
        last_used: used.used,
        last_rotated: used.rotated,
        usage: usage(used),
        end: used.state(),
        approval: session.approval.clone(),
        exceptions: used.problems.clone(),
    };
    session.credentials.iter().map(grant).collect()
}

fn time(time: &Timestamp) -> String {
    time.strftime("%Y-%m-%d %H:%M:%SZ").to_string()
}

fn optional(moment: Option<&Timestamp>) -> String {
    moment.map(time).unwrap_or_default()
}

impl Grant {
    fn cells(&self) -> [String; COLUMNS.len()] {
        let approved = self
            .approval
            .as_ref()
            .map(|approval| format!("by {} at {} ({})", approval.actor, time(&approval.time), approval.digest));
        [
            self.session.project.clone(),
            self.session.sandbox.clone(),
            self.session.session.clone(),
            self.session.person.clone(),
            self.credential.clone(),
            self.provider.clone(),
            self.fingerprint.clone(),
            time(&self.issued),
            self.expires.clone(),
            optional(self.last_used.as_ref()),
            optional(self.last_rotated.as_ref()),
            self.usage.clone(),
            self.end.clone(),
            approved.unwrap_or_else(|| "not on this machine".to_owned()),
            self.exceptions.join("; "),
        ]
        .map(|cell| sanitise(&cell.replace(['\n', '\r', '\t'], " ")))
    }
}

impl Report {
    fn period(&self) -> String {
        let since = self.since.as_ref().map_or_else(|| "the beginning of the log".to_owned(), time);
        let until = self.until.as_ref().map_or_else(|| time(&self.made), time);
        let project = self.project.as_ref().map(|project| format!(", project {project} alone")).unwrap_or_default();
        sanitise(&format!("from {since} until {until}{project}"))
    }

    fn completeness(&self) -> String {
        sanitise(&format!(
            "Made of the audit log of {} at {}: {} in one hash chain, verified, head {}. Sessions of other people and \
             machines are in their own logs.",
            self.by,
            time(&self.made),
            counted(self.log.sequence, "record"),
            self.log.hash
        ))
    }

    fn denials(&self) -> u64 {
        self.sessions.iter().flat_map(|session| &session.denied).map(|denied| denied.count).sum()
    }
}

fn table(report: &Report) -> String {
    let mut table = comfy_table::Table::new();
    table.load_preset(comfy_table::presets::NOTHING);
    table.set_header(["ISSUED", "PROJECT", "PERSON", "CREDENTIAL", "PROVIDER", "USE", "END"]);
    for grant in &report.grants {
        let [project, _, _, person, credential, provider, _, issued, _, _, _, usage, end, ..] = grant.cells();
        table.add_row([issued, project, person, credential, provider, usage, end]);
    }
    format!(
        "{}, {}, {}, {}\n\n{table}\n\n{}",
        counted(report.sessions.len() as u64, "session"),
        counted(report.grants.len() as u64, "credential"),
        counted(report.denials(), "denial"),
        report.period(),
        report.completeness()
    )
}

/// A cell of a Markdown table, in which nothing is markup.
fn cell(text: &str) -> String {
    let mut escaped = String::new();
    for character in text.chars() {
        match character {
            '\\' | '`' | '*' | '_' | '{' | '}' | '[' | ']' | '<' | '>' | '|' | '#' | '!' | '&' | '~' => {
                escaped.push('\\');
                escaped.push(character);
            }
            other => escaped.push(other),
        }
    }
    escaped
}

fn markdown(report: &Report) -> String {
    let row = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
    let mut text = format!(
        "# Credentials of coding agents\n\n{}\n\n{}\n\n## Credentials\n\n",
        cell(&report.period()),
        cell(&report.completeness())
    );
    let mut columns: Vec<String> = COLUMNS.iter().map(|column| (*column).to_owned()).collect();
    columns.push("reviewer's decision".to_owned());
    text.push_str(&row(&columns));
    text.push_str(&row(&vec!["---".to_owned(); columns.len()]));
    for grant in &report.grants {
        let mut cells: Vec<String> = grant.cells().iter().map(|text| cell(text)).collect();
        cells.push(String::new());
        text.push_str(&row(&cells));
    }
    text.push_str(
        "\n## Sessions\n\n| launched | project | person | ended | image | hosts | denied | commits came back |\n",
    );
    text.push_str("| --- | --- | --- | --- | --- | --- | --- | --- |\n");
    for session in &report.sessions {
        text.push_str(&row(&summary(session).map(|text| cell(&text))));
    }
    text.push_str("\n## What this is evidence for\n\n| part | SOC 2 | ISO/IEC 27001:2022 |\n| --- | --- | --- |\n");
    for (part, soc, iso) in CONTROLS {
        text.push_str(&format!("| {part} | {soc} | {iso} |\n"));
    }
    text
}

fn summary(session: &SessionReport) -> [String; 8] {
    let ended = match (&session.ended, &session.reason) {
        (Some(ended), reason) => format!("{}: {}", time(ended), reason.as_deref().unwrap_or_default()),
        (None, _) => "not seen".to_owned(),
    };
    let denied: u64 = session.denied.iter().map(|denied| denied.count).sum();
    let landed = session.exchanges.iter().filter(|exchange| exchange.landed).count();
    [
        optional(session.launched.as_ref()),
        format!("{} ({})", session.project, session.sandbox),
        session.actor.clone(),
        ended,
        session.image.clone(),
        session.hosts.len().to_string(),
        denied.to_string(),
        counted(landed as u64, "time"),
    ]
    .map(|cell| sanitise(&cell.replace(['\n', '\r', '\t'], " ")))
}

/// A table for spreadsheets (RFC 4180). A cell that a spreadsheet would take for a formula gets an apostrophe before it.
fn csv(report: &Report) -> String {
    let mut writer = csv::Writer::from_writer(Vec::new());
    let decision = "reviewer's decision".to_owned();
    let header = COLUMNS.iter().map(|column| (*column).to_owned()).chain([decision]);
    // All rows have as many cells, and memory takes every byte, so that writing cannot fail.
    let _ = writer.write_record(header);
    for grant in &report.grants {
        let plain = |cell: String| if cell.starts_with(['=', '+', '-', '@']) { format!("'{cell}") } else { cell };
        let _ = writer.write_record(grant.cells().into_iter().map(plain).chain([String::new()]));
    }
    String::from_utf8_lossy(&writer.into_inner().unwrap_or_default()).into_owned()
}

fn body(report: &Report) -> Markup {
    html! {
        h1 { "Credentials of coding agents" }
        p class="dim" { (report.period()) }
        p {
            (counted(report.sessions.len() as u64, "session")) ", " (counted(report.grants.len() as u64, "credential")) ", "
            (counted(report.denials(), "denial"))
        }
        p class="panel" { (report.completeness()) }
        h2 { "Credentials" }
        div class="scroll" {
            table {
                thead { tr { @for column in COLUMNS { th { (column) } } th { "reviewer's decision" } } }
                tbody {
                    @for grant in &report.grants {
                        tr { @for cell in grant.cells() { td { (shown(&cell)) } } td {} }
                    }
                }
            }
        }
        h2 { "Sessions" }
        div class="scroll" {
            table {
                thead { tr { @for column in ["launched", "project", "person", "ended", "image", "hosts", "denied", "commits came back"] { th { (column) } } }
                }
                tbody {
                    @for session in &report.sessions {
                        tr { @for cell in summary(session) { td { (shown(&cell)) } } }
                    }
                }
            }
        }
        h2 { "What this is evidence for" }
        div class="scroll" {
            table {
                thead { tr { th { "part" } th { "SOC 2" } th { "ISO/IEC 27001:2022" } } }
                tbody { @for (part, soc, iso) in CONTROLS { tr { td { (part) } td { (soc) } td { (iso) } } } }
            }
        }
    }
}

#[cfg(test)]
mod tests;
