//! `sandbox image lint`: what a Dockerfile takes in without a digest, and what makes its builds differ.

use std::collections::BTreeSet;
use std::io::Read as _;
use std::path::Path;

use annotate_snippets::Level;
use serde_json::json;

use crate::commands::manifest_failure::show;
use crate::commands::printer::sanitise;
use crate::commands::{Context, Failure};
use crate::image::dockerfile::lock::DockerfileLock;
use crate::image::dockerfile::{self, DockerfileError, Severity};
use crate::image::error::at;
use crate::image::{ImageError, definition};
use crate::project::problem::Problem;

/// Findings that are shown to a person.
const SHOWN: usize = 50;

/// Judges a Dockerfile. The exit code is 1 when something comes in unpinned, or, for those who want that, for a warning.
pub(super) fn lint(context: &Context, project: &Path, file: &Path, strict: bool) -> Result<u8, Failure> {
    let path = project.join(file);
    let mut bytes = Vec::new();
    let opened = std::fs::File::open(&path).map_err(at(&path))?;
    opened.take(dockerfile::LIMIT + 1).read_to_end(&mut bytes).map_err(at(&path))?;
    let form = |line, column, said: &str| DockerfileError::Form { line, column, said: said.to_owned() };
    if bytes.len() as u64 > dockerfile::LIMIT {
        return Err(ImageError::Dockerfile(form(1, 1, "it is larger than any Dockerfile")).into());
    }
    let text = String::from_utf8(bytes).map_err(|_| ImageError::Dockerfile(form(1, 1, "it is not UTF-8 text")))?;
    let mut images: BTreeSet<String> = definition::names(Some(project)).into_iter().collect();
    if let Some(name) = file.to_str().filter(|name| dockerfile::is_name(name)) {
        images.extend(DockerfileLock::load(name, project)?.map(|lock| lock.tags()).unwrap_or_default().into_keys());
    }
    let findings = dockerfile::findings(&text, &images).map_err(ImageError::Dockerfile)?;
    let errors = findings.iter().filter(|finding| finding.severity == Severity::Error).count();
    let warnings = findings.len() - errors;
    let result = json!({"file": file, "errors": errors, "warnings": warnings, "findings": findings});
    context.printer.result(&result, || {
        let name = sanitise(&file.display().to_string());
        let mut shown = String::new();
        for finding in findings.iter().take(SHOWN) {
            let level = match finding.severity {
                Severity::Error => Level::ERROR,
                Severity::Warning => Level::WARNING,
            };
            let length =
                text.get(finding.span.clone()).map_or(1, |part| part.lines().next().unwrap_or("").chars().count());
            let problem = Problem {
                line: finding.line,
                column: finding.column,
                length: length.max(1),
                message: format!("{} [{}]", finding.message, finding.rule),
                remedy: finding.remedy.to_owned(),
            };
            shown.push_str(&show(&name, &text, &problem, level));
        }
        if findings.len() > SHOWN {
            shown.push_str(&format!("and {} more\n", findings.len() - SHOWN));
        }
        let count = |count: usize, what: &str| format!("{count} {what}{}", if count == 1 { "" } else { "s" });
        format!("{shown}{name}: {}, {}", count(errors, "error"), count(warnings, "warning"))
    });
    Ok(u8::from(errors > 0 || (strict && warnings > 0)))
}
