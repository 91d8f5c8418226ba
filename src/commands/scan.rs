//! `sandbox scan`: the credentials on this machine that an agent would inherit if it ran here. It shows no value.

use std::fmt::Write as _;
use std::io;
use std::path::{Path, PathBuf};

use clap::ValueEnum;
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use serde_json::{Value, json};

use super::{Context, Failure};
use crate::credential::fingerprint::Fingerprinter;
use crate::credential::scan::{Class, Finding, Report, ScanLimits, Scanner};
use crate::credential::secret::Secret;

/// Arguments of `scan`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Files and folders to look through, in place of this machine's usual places: the home, the environment, and the
    /// settings in the current folder
    #[arg(value_name = "PATH")]
    pub paths: Vec<PathBuf>,
    /// End with exit code 1 when something is found; made for cron and CI
    #[arg(long)]
    pub check: bool,
    /// The form: `table` for a terminal, or SARIF 2.1.0 for other programs
    #[arg(long = "as", value_enum, value_name = "FORM", default_value_t = Form::Table)]
    form: Form,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Form {
    Table,
    Sarif,
}

/// A path that cannot be looked through.
#[derive(Debug, thiserror::Error)]
#[error("look through {}", super::printer::sanitise(&path.to_string_lossy()))]
struct Unreadable {
    path: PathBuf,
    #[source]
    source: io::Error,
}

/// Runs the verb.
///
/// # Errors
/// When a path is not there, or this machine's key of fingerprints cannot be used.
pub fn run(context: &Context, args: &Args) -> Result<u8, Failure> {
    let fingerprinter = Fingerprinter::open(&context.folders.state)
        .map_err(|error| Failure::new("state-folder", &error, "make the launcher's state folder writable for you"))?;
    let mut scanner = Scanner::new(&fingerprinter, ScanLimits::default());
    let mut look = |path: &Path, every_file| {
        scanner.path(path, every_file).map_err(|source| {
            let error = Unreadable { path: path.to_path_buf(), source };
            Failure::new("scan-path", &error, "give a file or a folder that is there and that you may read")
        })
    };
    if args.paths.is_empty() {
        let here = std::env::current_dir().and_then(|here| here.canonicalize());
        // The home is no project, and what contains it is more than one wants to wait for.
        let home = context.folders.home.canonicalize().unwrap_or_else(|_| context.folders.home.clone());
        if let Ok(here) = here.map_err(drop)
            && !home.starts_with(&here)
        {
            look(&here, false)?;
        }
        let path = home.clone();
        scanner.home(&home).map_err(|source| {
            Failure::new("scan-path", &Unreadable { path, source }, "set HOME to a folder that is there")
        })?;
        let variables = std::env::vars_os().filter_map(|(name, value)| {
            use std::os::unix::ffi::OsStringExt as _;
            Some((name.into_string().ok()?, Secret::new(value.into_vec())))
        });
        scanner.environment(variables);
    } else {
        for path in &args.paths {
            look(path, true)?;
        }
    }
    let report = scanner.report();
    match args.form {
        Form::Sarif => context.printer.document(&sarif(&report)),
        Form::Table => context.printer.result(&report, || describe(&report)),
    }
    if report.cut {
        context.printer.warning("the search ended at a limit: give narrower paths to see the rest");
    }
    Ok(u8::from(args.check && !report.findings.is_empty()))
}

/// The report for people: by class, the worst first.
fn describe(report: &Report) -> String {
    let mut text = String::new();
    let mut class = None;
    for finding in &report.findings {
        if class != Some(finding.class) {
            let _ = writeln!(text, "{}{}", if class.is_some() { "\n" } else { "" }, title(finding.class));
            class = Some(finding.class);
        }
        let line = finding.line.map(|line| format!(":{line}")).unwrap_or_default();
        let account = finding.account.as_ref().map(|account| format!(" of {account}")).unwrap_or_default();
        let _ = writeln!(text, "  {}{line}: {}{account} [{}]", finding.path, finding.kind, finding.fingerprint);
        if !finding.lent_to.is_empty() {
            let projects: Vec<&str> = finding.lent_to.iter().map(String::as_str).collect();
            let _ = writeln!(text, "    the same as {}", projects.join(", "));
        }
        let _ = writeln!(text, "    next: {}", finding.next);
    }
    if !report.passed_over.is_empty() {
        let _ = writeln!(text, "{}Not looked at", if report.findings.is_empty() { "" } else { "\n" });
        for passed in &report.passed_over {
            let _ = writeln!(text, "  {}: {}", passed.path, passed.reason);
        }
    }
    let count = report.findings.len();
    let gap = if text.is_empty() { "" } else { "\n" };
    let (found, files) = (plural(count, "credential"), plural(report.files, "file"));
    let _ = writeln!(text, "{gap}{found} in {files}; an agent that runs here as you can use what you can read");
    text
}

fn plural(count: usize, word: &str) -> String {
    format!("{count} {word}{}", if count == 1 { "" } else { "s" })
}

fn title(class: Class) -> &'static str {
    match class {
        Class::OrganisationWide => "Over a whole organisation",
        Class::Personal => "Personal",
        Class::Unknown => "Of whom, cannot be told",
        Class::Project => "Of one project",
        Class::Temporary => "Temporary",
    }
}

/// What RFC 3986, section 3.3, does not let stand in a path.
const OUTSIDE_PATHS: &AsciiSet = &CONTROLS
    .add(b' ')
    .add(b'"')
    .add(b'#')
    .add(b'%')
    .add(b'<')
    .add(b'>')
    .add(b'?')
    .add(b'[')
    .add(b'\\')
    .add(b']')
    .add(b'^')
    .add(b'`')
    .add(b'{')
    .add(b'|')
    .add(b'}');

/// As SARIF. Its `partialFingerprints` (section 3.27.17) let a program see what is new.
fn sarif(report: &Report) -> Value {
    let mut rules: Vec<&Finding> = report.findings.iter().collect();
    rules.sort_by(|one, other| one.rule.cmp(&other.rule));
    rules.dedup_by(|one, other| one.rule == other.rule);
    let rules: Vec<Value> = rules
        .iter()
        .map(|finding| {
            json!({
                "id": finding.rule,
                "shortDescription": {"text": format!("A credential that an agent would inherit: {}", finding.rule)},
                "help": {"text": finding.next},
            })
        })
        .collect();
    let results: Vec<Value> = report.findings.iter().map(result).collect();
    super::sarif::log(&rules, &results, &notifications(report))
}

fn result(finding: &Finding) -> Value {
    let place = match finding.line {
        Some(line) => {
            let uri = format!("file://{}", utf8_percent_encode(&finding.path, OUTSIDE_PATHS));
            json!({"physicalLocation": {"artifactLocation": {"uri": uri}, "region": {"startLine": line}}})
        }
        None => json!({"logicalLocations": [{"fullyQualifiedName": finding.path, "kind": "variable"}]}),
    };
    // Section 3.27.10: what can be used for most is an error, what ends by itself only a note.
    let level = match finding.class {
        Class::OrganisationWide | Class::Personal => "error",
        Class::Unknown => "warning",
        Class::Project | Class::Temporary => "note",
    };
    json!({
        "ruleId": finding.rule,
        "level": level,
        "message": {"text": format!("{} ({}); {}", finding.kind, finding.class.as_str(), finding.next)},
        "locations": [place],
        "partialFingerprints": {"value/v1": finding.fingerprint},
        "properties": {"class": finding.class, "account": finding.account, "lent_to": finding.lent_to},
    })
}

/// Section 3.58: what the results leave out.
fn notifications(report: &Report) -> Vec<Value> {
    let passed =
        report.passed_over.iter().map(|passed| format!("{} was not looked at: {}", passed.path, passed.reason));
    let cut = report.cut.then(|| "the search ended at a limit".to_owned());
    passed.chain(cut).map(|text| json!({"level": "warning", "message": {"text": text}})).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn finding(path: &str, line: Option<usize>, class: Class) -> Finding {
        Finding {
            class,
            path: path.to_owned(),
            line,
            rule: "named-value".to_owned(),
            kind: "the value of A_TOKEN".to_owned(),
            account: None,
            fingerprint: "0123456789abcdef".to_owned(),
            lent_to: BTreeSet::from(["pay/stripe".to_owned()]),
            next: "delete it",
        }
    }

    #[test]
    fn sarif_names_each_rule_once_and_each_place_as_a_uri_or_a_variable() {
        let findings = vec![
            finding("/home/a b/#x%.env", Some(3), Class::Personal),
            finding("environment:A_TOKEN", None, Class::Temporary),
        ];
        let log = sarif(&Report { findings, ..Report::default() });
        let run = &log["runs"][0];
        assert_eq!(run["tool"]["driver"]["rules"].as_array().unwrap().len(), 1);
        let first = &run["results"][0]["locations"][0]["physicalLocation"];
        assert_eq!(first["artifactLocation"]["uri"], "file:///home/a%20b/%23x%25.env");
        assert_eq!(
            (first["region"]["startLine"].as_u64(), run["results"][0]["level"].as_str()),
            (Some(3), Some("error"))
        );
        assert_eq!(run["results"][1]["locations"][0]["logicalLocations"][0]["kind"], "variable");
        assert_eq!(run["results"][1]["level"], "note");
    }

    #[test]
    fn the_text_says_what_where_and_what_next() {
        let findings = vec![
            finding("/home/ada/.env", Some(3), Class::Personal),
            finding("environment:A_TOKEN", None, Class::Temporary),
        ];
        let report = Report { findings, files: 1, ..Report::default() };
        insta::assert_snapshot!(describe(&report), @r"
        Personal
          /home/ada/.env:3: the value of A_TOKEN [0123456789abcdef]
            the same as pay/stripe
            next: delete it

        Temporary
          environment:A_TOKEN: the value of A_TOKEN [0123456789abcdef]
            the same as pay/stripe
            next: delete it

        2 credentials in 1 file; an agent that runs here as you can use what you can read
        ");
    }
}
