//! Shows what is wrong with a manifest on its own lines, and where a manifest was looked for in vain.

use annotate_snippets::{AnnotationKind, Level, Renderer, Snippet};

use super::failure::Failure;
use super::printer::sanitise;
use crate::project::LocateError;
use crate::project::configuration::ConfigurationError;
use crate::project::manifest::{ManifestError, Problem};

/// Problems that are shown; more would push the first ones off the screen.
const SHOWN: usize = 20;

impl From<ManifestError> for Failure {
    fn from(error: ManifestError) -> Self {
        match &error {
            ManifestError::Read { .. } => {
                Failure::new("manifest-unreadable", &error, "check the file's permissions, and that it is UTF-8 text")
            }
            ManifestError::Invalid { path, text, problems } => {
                let file = sanitise(&path.display().to_string());
                let excerpt: String =
                    problems.iter().take(SHOWN).map(|problem| show(&file, text, problem, Level::ERROR)).collect();
                let next = problems.first().map_or_else(String::new, |first| {
                    format!("edit line {} of {file}: {}", first.line, sanitise(&first.remedy))
                });
                let mut failure = Failure::new("manifest-invalid", &error, next);
                failure.excerpt = Some(excerpt);
                failure
            }
        }
    }
}

impl From<ConfigurationError> for Failure {
    fn from(error: ConfigurationError) -> Self {
        let code = match error.0 {
            ManifestError::Read { .. } => "configuration-unreadable",
            ManifestError::Invalid { .. } => "configuration-invalid",
        };
        Self { code, ..Self::from(error.0) }
    }
}

/// One problem with its line, as rustc shows its errors.
pub(super) fn show(file: &str, text: &str, problem: &Problem, level: Level<'_>) -> String {
    // Escaping would move the marks, so that a character that a terminal must not get becomes one that it may.
    let harmless = |character: char| {
        if sanitise(character.encode_utf8(&mut [0; 4])).chars().count() == 1 { character } else { '\u{fffd}' }
    };
    let line: String = text.lines().nth(problem.line - 1).unwrap_or("").chars().take(400).map(harmless).collect();
    let byte = |column: usize| line.char_indices().nth(column).map_or(line.len(), |(byte, _)| byte);
    let start = byte(problem.column - 1);
    let end = byte(problem.column - 1 + problem.length).max(start);
    let title = sanitise(&problem.message);
    let snippet = Snippet::source(line.as_str())
        .line_start(problem.line)
        .path(file)
        .annotation(AnnotationKind::Primary.span(start..end));
    let remedy = sanitise(&problem.remedy);
    let report = &[level.primary_title(title.as_str()).element(snippet).element(Level::HELP.message(remedy.as_str()))];
    format!("{}\n\n", Renderer::plain().render(report))
}

impl From<LocateError> for Failure {
    fn from(error: LocateError) -> Self {
        let (code, next) = match &error {
            LocateError::Missing(_) => {
                ("manifest-missing", "run `sandbox init`, or name the project: `sandbox VERB PROJECT`")
            }
            LocateError::NoFile(_) => ("manifest-missing", "check the path, or run `sandbox init` there"),
            LocateError::Unknown(_) => {
                ("project-unknown", "name the project by its path once: `sandbox up ./path/to/project`")
            }
            LocateError::Owner { .. } => ("manifest-owner", "use a copy of the project that belongs to you"),
            LocateError::Name(_) => ("manifest-name", "name the file sandbox.yaml, or name the folder that holds it"),
            LocateError::Access { .. } => ("project-access", "check the permissions of the file or folder"),
        };
        Failure::new(code, &error, next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::project::manifest::parse;

    #[test]
    fn shows_the_line_the_fault_and_what_to_write_instead() {
        let error = parse("version: 1\nproject: demo\nnetwrk: {}\n", std::path::Path::new("sandbox.yaml")).unwrap_err();
        let excerpt = Failure::from(error).excerpt.unwrap();
        for part in ["sandbox.yaml:3:1", "has no key `netwrk`", "did you mean `network`?", "^^^"] {
            assert!(excerpt.contains(part), "{part} is not in\n{excerpt}");
        }
    }

    #[test]
    fn lets_no_control_character_of_the_file_reach_the_terminal() {
        let error = parse("version: 1\nproject: \"\u{202e}x\"\n", std::path::Path::new("sandbox.yaml")).unwrap_err();
        let excerpt = Failure::from(error).excerpt.unwrap();
        assert!(!excerpt.contains('\u{202e}'), "{excerpt:?}");
    }
}
