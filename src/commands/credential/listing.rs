//! `sandbox credential ls` and `check`: one credential after the other, without values, as an auditor wants to read it.

use std::fmt::Write as _;
use std::time::Duration;

use clap::ValueEnum;
use comfy_table::{Table, presets};
use jiff::Timestamp;
use serde::Serialize;
use serde_json::{Value, json};

use super::{holders, issue_context};
use crate::commands::load::{actor, manifest};
use crate::commands::printer::sanitise;
use crate::commands::{Context, Failure, trust};
use crate::credential::spec::{CredentialSpec, Delivery, ProviderSpec};
use crate::credential::store::StoreError;
use crate::credential::{self, CredentialError, IssueContext, oauth};
use crate::project::manifest::Manifest;
use crate::project::{CredentialName, SandboxName, discovery};

/// Whether a credential can be used, as one word for programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum State {
    /// It can be used.
    Ok,
    /// It can be used, and something has to be done soon.
    Warning,
    /// No value was set.
    NotSet,
    /// A rule or the provider refuses it.
    Refused,
    /// Its command was not asked.
    OnDemand,
}

/// One row of `ls`.
#[derive(Debug, Serialize)]
struct Row {
    name: CredentialName,
    provider: &'static str,
    deliver: String,
    state: State,
    /// The state in words.
    status: String,
    usable: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    created_at: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    issued_at: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_at: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    age_seconds: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_age_seconds: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    fingerprint: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    owner: Option<String>,
    /// Running sandboxes that have it.
    sandboxes: Vec<String>,
    /// What the manifest makes an exception of, with its reason.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    exceptions: Vec<String>,
    /// The line of its declaration.
    #[serde(skip)]
    line: Option<usize>,
}

/// How `check` answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Form {
    Table,
    Sarif,
}

impl Row {
    fn with(mut self, state: State, status: impl Into<String>) -> Self {
        self.state = state;
        self.status = status.into();
        self.usable = !matches!(state, State::NotSet | State::Refused);
        self
    }
}

/// Lists the credentials. With `check`, commands are asked too, and the exit code is 1 when one cannot be used or
/// something has to be done soon.
///
/// # Errors
/// When the manifest, the trust in it or the journals fail; a credential's own failure is in its row.
pub(super) async fn list(context: &Context, project: Option<&str>, check: Option<Form>) -> Result<u8, Failure> {
    let (path, manifest) = manifest(context, project)?;
    let (sarif_wanted, check) = (check == Some(Form::Sarif), check.is_some());
    if check {
        // Commands of the manifest run for a check, so it has to be approved.
        trust::require(context, &path, &manifest)?;
    }
    let mut rows = Vec::new();
    for (name, spec) in &manifest.credentials {
        rows.push(row(context, &manifest, name, spec, check).await?);
    }
    if sarif_wanted {
        context.printer.document(&sarif(&rows));
    } else {
        context.printer.result(&rows, || text(&manifest.project.to_string(), &rows, Timestamp::now(), width()));
    }
    Ok(u8::from(check && rows.iter().any(|row| row.state != State::Ok)))
}

async fn row(
    context: &Context,
    manifest: &Manifest,
    name: &CredentialName,
    spec: &CredentialSpec,
    check: bool,
) -> Result<Row, Failure> {
    let (actor, _) = actor();
    let sandbox = SandboxName::main();
    let issue = issue_context(context, &manifest.project, &manifest.root, &sandbox, &actor, "check");
    let mut row = Row {
        name: name.clone(),
        provider: spec.provider.word(),
        deliver: match &spec.deliver {
            Delivery::File { name } => format!("file {name}"),
            Delivery::Git { host } => format!("git {host}"),
            Delivery::Environment { variable } => format!("variable {variable}"),
            Delivery::Broker { host, placement, .. } => format!("{placement} at {host}, by the gateway"),
        },
        state: State::Ok,
        status: "ok".to_owned(),
        usable: true,
        created_at: None,
        issued_at: None,
        expires_at: None,
        age_seconds: None,
        max_age_seconds: spec.max_age.map(|age| age.as_secs()),
        fingerprint: None,
        owner: None,
        sandboxes: holders(context, manifest, name)?.into_keys().collect(),
        exceptions: exceptions(spec),
        line: declared_at(&manifest.text, name),
    };
    match &spec.provider {
        // A value that is refused is still told about.
        ProviderSpec::Store { .. } => match issue.store.read(&manifest.project, name) {
            Ok(stored) => {
                row.created_at = Some(stored.created_at);
                row.issued_at = Some(stored.rotated_at);
                row.owner = Some(stored.owner);
            }
            Err(StoreError::Absent(_)) => return Ok(row.with(State::NotSet, "not set")),
            Err(error) => return Ok(row.with(State::Refused, refusal(error.into()))),
        },
        ProviderSpec::Oauth(_) if !oauth::logged_in(name, &issue) => {
            return Ok(row.with(State::NotSet, "not logged in"));
        }
        ProviderSpec::Oauth(_) if !check => return Ok(row.with(State::OnDemand, "logged in; refreshed at `up`")),
        ProviderSpec::Exec { .. }
        | ProviderSpec::Vault(_)
        | ProviderSpec::GithubApp(_)
        | ProviderSpec::AwsSts(_)
        | ProviderSpec::OpenaiProject(_)
        | ProviderSpec::Gcp(_)
        | ProviderSpec::Azure(_)
        | ProviderSpec::AnthropicWif(_)
            if !check =>
        {
            return Ok(row.with(State::OnDemand, "issued at `up`"));
        }
        ProviderSpec::EnvFile { .. }
        | ProviderSpec::Exec { .. }
        | ProviderSpec::Vault(_)
        | ProviderSpec::GithubApp(_)
        | ProviderSpec::AwsSts(_)
        | ProviderSpec::OpenaiProject(_)
        | ProviderSpec::Gcp(_)
        | ProviderSpec::Azure(_)
        | ProviderSpec::AnthropicWif(_)
        | ProviderSpec::Oauth(_) => {}
    }
    let row = filled(row, name, spec, &issue).await;
    let age = row.issued_at.map(|time| credential::age(time, Timestamp::now()).as_secs());
    Ok(Row { age_seconds: age, ..row })
}

async fn filled(mut row: Row, name: &CredentialName, spec: &CredentialSpec, issue: &IssueContext<'_>) -> Row {
    let issued = match credential::issue(name, spec, issue).await {
        Ok(issued) => issued,
        Err(error) => return row.with(State::Refused, refusal(error)),
    };
    row.issued_at = Some(issued.issued_at);
    row.expires_at = issued.expires_at;
    row.fingerprint = Some(issued.fingerprint.to_string());
    let mut warnings = issued.warnings;
    // What was issued to look at it is not needed any more.
    if let Err(error) = credential::revoke(name, spec, issued.handle.as_deref(), issue).await {
        warnings.push(format!("issued for this check and not revoked: {}", refusal(error)));
    }
    if warnings.is_empty() { row } else { row.with(State::Warning, warnings.join("; ")) }
}

fn refusal(error: CredentialError) -> String {
    let failure = Failure::from(error);
    format!("cannot {}", std::iter::once(failure.what).chain(failure.why).collect::<Vec<_>>().join(": "))
}

/// What a manifest makes an exception of.
fn exceptions(spec: &CredentialSpec) -> Vec<String> {
    let shared = (spec.shared_with.as_ref())
        .map(|shared| format!("shared with {}: {}", shared.projects.join(", "), shared.reason));
    let personal = spec.accept_personal.as_ref().map(|reason| format!("may be a person's own: {reason}"));
    shared.into_iter().chain(personal).collect()
}

/// The line on which a credential is declared, from 1: the first after `credentials:` that begins with its name.
fn declared_at(text: &str, name: &CredentialName) -> Option<usize> {
    let mut lines = text.lines().enumerate().skip_while(|(_, line)| !line.starts_with("credentials:"));
    let keys = [format!("{name}:"), format!("\"{name}\":"), format!("'{name}':")];
    let found = lines.find(|(_, line)| keys.iter().any(|key| line.trim_start().starts_with(key)));
    found.map(|(index, _)| index + 1)
}

/// The width of the terminal, or none where there is none.
fn width() -> Option<usize> {
    Table::new().width().map(usize::from)
}

/// A page: what there is, then a table, or, where that finds no room, one paragraph for each credential.
fn text(project: &str, rows: &[Row], now: Timestamp, width: Option<usize>) -> String {
    if rows.is_empty() {
        return "the manifest declares no credential".to_owned();
    }
    let good = rows.iter().filter(|row| row.usable).count();
    let look = rows.iter().filter(|row| !matches!(row.state, State::Ok | State::OnDemand)).count();
    let mut text =
        format!("Credentials of {project} on {}: {} declared, {good} usable", now.strftime("%F %H:%MZ"), rows.len());
    if look > 0 {
        let _ = write!(text, ", {look} to look at");
    }
    let mut text = wrapped(&text, width.unwrap_or(usize::MAX)).join("\n");
    text.push_str("\n\n");
    let table = table(rows, now);
    let natural = table.lines().map(|line| unicode_width::UnicodeWidthStr::width(line.trim_end())).max();
    if width.is_none_or(|width| natural.unwrap_or_default() <= width) {
        return text + &table;
    }
    let paragraphs: Vec<String> = rows.iter().map(|row| paragraph(row, now, width.unwrap_or(80))).collect();
    text + &paragraphs.join("\n")
}

/// One credential in lines of at most this width.
fn paragraph(row: &Row, now: Timestamp, width: usize) -> String {
    let mut text = format!("{}\n", row.name);
    let mut line = |key: &str, value: Option<String>| {
        let Some(value) = value else { return };
        let room = width.saturating_sub(KEY_WIDTH + 2).max(20);
        for (number, part) in wrapped(&value, room).into_iter().enumerate() {
            let _ = writeln!(text, "  {:KEY_WIDTH$}{part}", if number == 0 { key } else { "" });
        }
    };
    line("status", Some(sanitise(&row.status)));
    let by = row.owner.as_ref().map(|owner| format!(", set by {}", sanitise(owner))).unwrap_or_default();
    line("from", Some(format!("{}{by}", row.provider)));
    line("delivered", Some(row.deliver.clone()));
    line("age", aged(row).zip(day(row.issued_at)).map(|(age, since)| format!("{age}, since {since}")));
    line("expires", row.expires_at.map(|end| format!("in {}, at {}", until(now, end), end.strftime("%F %H:%MZ"))));
    line("in use by", Some(row.sandboxes.join(", ")).filter(|names| !names.is_empty()));
    line("fingerprint", row.fingerprint.clone());
    for exception in &row.exceptions {
        line("exception", Some(sanitise(exception)));
    }
    text
}

/// The keys of a paragraph have this width.
const KEY_WIDTH: usize = 13;

/// A text in lines of at most this width, broken at spaces where there are any.
fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        for piece in pieces(word, width) {
            let last = lines.last_mut().map(|line| (line.chars().count(), line));
            match last {
                Some((0, line)) => line.push_str(&piece),
                Some((length, line)) if length + 1 + piece.chars().count() <= width => {
                    line.push(' ');
                    line.push_str(&piece);
                }
                _ => lines.push(piece),
            }
        }
    }
    lines
}

fn pieces(word: &str, width: usize) -> Vec<String> {
    let characters: Vec<char> = word.chars().collect();
    characters.chunks(width).map(|piece| piece.iter().collect()).collect()
}

fn day(time: Option<Timestamp>) -> Option<String> {
    time.map(|time| time.strftime("%F").to_string())
}

/// The age, of what age is allowed.
fn aged(row: &Row) -> Option<String> {
    let age = row.age_seconds.map(short);
    match row.max_age_seconds {
        Some(most) => Some(format!("{} of {}", age.unwrap_or_else(|| "-".to_owned()), short(most))),
        None => age,
    }
}

fn until(now: Timestamp, end: Timestamp) -> String {
    short(credential::age(now, end).as_secs())
}

fn table(rows: &[Row], now: Timestamp) -> String {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_content_arrangement(comfy_table::ContentArrangement::Disabled);
    table.set_header([
        "NAME",
        "FROM",
        "DELIVERED AS",
        "ROTATED",
        "AGE",
        "EXPIRES",
        "FINGERPRINT",
        "SET BY",
        "IN USE BY",
        "STATUS",
    ]);
    let none = || "-".to_owned();
    for row in rows {
        let status: Vec<&str> = std::iter::once(&row.status).chain(&row.exceptions).map(String::as_str).collect();
        table.add_row([
            row.name.to_string(),
            row.provider.to_owned(),
            row.deliver.clone(),
            day(row.issued_at).unwrap_or_else(none),
            aged(row).unwrap_or_else(none),
            row.expires_at.map_or_else(none, |time| format!("in {}", until(now, time))),
            row.fingerprint.clone().unwrap_or_else(none),
            row.owner.as_deref().map_or_else(none, sanitise),
            if row.sandboxes.is_empty() { none() } else { row.sandboxes.join(", ") },
            sanitise(&status.join("; ")),
        ]);
    }
    table.to_string()
}

/// As SARIF: a result for each credential that cannot be used or is due soon, at its line of the manifest.
fn sarif(rows: &[Row]) -> Value {
    let rules = [
        ("credential-not-set", "A declared credential has no value"),
        ("credential-refused", "A declared credential cannot be used"),
        ("credential-due", "A declared credential can be used, and something has to be done soon"),
    ];
    let rules = rules.map(|(id, words)| json!({ "id": id, "shortDescription": { "text": words } }));
    let result = |row: &Row| {
        // Section 3.27.10.
        let (rule, level) = match row.state {
            State::Ok | State::OnDemand => return None,
            State::Warning => ("credential-due", "warning"),
            State::NotSet => ("credential-not-set", "error"),
            State::Refused => ("credential-refused", "error"),
        };
        let place = json!({
            "artifactLocation": { "uri": discovery::FILE_NAME, "uriBaseId": "%SRCROOT%" },
            "region": { "startLine": row.line.unwrap_or(1) },
        });
        Some(json!({
            "ruleId": rule,
            "level": level,
            "message": { "text": format!("{}: {}", row.name, sanitise(&row.status)) },
            "locations": [{ "physicalLocation": place }],
            "partialFingerprints": { "credential/v1": row.name },
            "properties": { "provider": row.provider, "fingerprint": row.fingerprint },
        }))
    };
    let results: Vec<Value> = rows.iter().filter_map(result).collect();
    crate::commands::sarif::log(&rules, &results, &[])
}

/// A duration in its largest unit.
fn short(seconds: u64) -> String {
    let duration = Duration::from_secs(seconds);
    match duration.as_secs() {
        days if days >= 2 * 86_400 => format!("{}d", days / 86_400),
        hours if hours >= 2 * 3600 => format!("{}h", hours / 3600),
        minutes => format!("{}m", minutes / 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(name: &str) -> Row {
        Row {
            name: name.parse().unwrap(),
            provider: "store",
            deliver: format!("file {name}"),
            state: State::Ok,
            status: "ok".to_owned(),
            usable: true,
            created_at: None,
            issued_at: Some("2030-01-19T12:00:00Z".parse().unwrap()),
            expires_at: None,
            age_seconds: Some(12 * 86_400),
            max_age_seconds: Some(30 * 86_400),
            fingerprint: Some("0123456789abcdef".to_owned()),
            owner: Some("ada\u{1b}[2J".to_owned()),
            sandboxes: vec!["main".to_owned(), "review".to_owned()],
            exceptions: Vec::new(),
            line: Some(7),
        }
    }

    fn rows() -> Vec<Row> {
        let github = Row {
            expires_at: Some("2030-01-31T12:42:10Z".parse().unwrap()),
            provider: "github-app",
            deliver: "git github.com".to_owned(),
            max_age_seconds: None,
            age_seconds: Some(0),
            owner: None,
            sandboxes: Vec::new(),
            ..row("github")
        };
        let old = Row {
            age_seconds: Some(27 * 86_400),
            exceptions: vec!["shared with billing: one contract, one key".to_owned()],
            ..row("stripe").with(State::Warning, "credential `stripe` has to be rotated within 72 hours")
        };
        let unset = Row {
            issued_at: None,
            age_seconds: None,
            fingerprint: None,
            owner: None,
            sandboxes: Vec::new(),
            ..row("npm").with(State::NotSet, "not set")
        };
        vec![row("anthropic"), github, old, unset]
    }

    fn now() -> Timestamp {
        "2030-01-31T12:00:00Z".parse().unwrap()
    }

    #[test]
    fn reads_like_a_page_at_every_width() {
        for width in [None, Some(200), Some(120), Some(80), Some(40)] {
            let text = text("payments", &rows(), now(), width);
            let widest = text.lines().map(|line| line.trim_end().chars().count()).max().unwrap();
            assert!(width.is_none_or(|width| widest <= width), "{width:?}: {widest}\n{text}");
        }
        insta::assert_snapshot!("ls_200", text("payments", &rows(), now(), Some(200)));
        insta::assert_snapshot!("ls_80", text("payments", &rows(), now(), Some(80)));
        assert_eq!(text("payments", &[], now(), None), "the manifest declares no credential");
    }

    #[test]
    fn sarif_has_a_result_for_each_that_needs_somebody_at_its_line() {
        let log = sarif(&rows());
        let results = log["runs"][0]["results"].as_array().unwrap();
        let told: Vec<_> = results.iter().map(|one| (one["ruleId"].as_str(), one["level"].as_str())).collect();
        let expected = [(Some("credential-due"), Some("warning")), (Some("credential-not-set"), Some("error"))];
        assert_eq!(told, expected);
        assert_eq!(results[0]["locations"][0]["physicalLocation"]["region"]["startLine"], 7);
        let ids: Vec<_> =
            log["runs"][0]["tool"]["driver"]["rules"].as_array().unwrap().iter().map(|rule| &rule["id"]).collect();
        assert!(results.iter().all(|one| ids.contains(&&one["ruleId"])));
    }

    #[test]
    fn finds_the_line_of_a_declaration() {
        let text = "version: 1\nnpm: x\ncredentials:\n  # npm: no\n  github:\n    provider: store\n  npm: { provider: store }\n";
        assert_eq!(declared_at(text, &"npm".parse().unwrap()), Some(7));
        assert_eq!(declared_at(text, &"github".parse().unwrap()), Some(5));
        assert_eq!(declared_at("credentials: { npm: { provider: store } }", &"npm".parse().unwrap()), None);
    }
}
