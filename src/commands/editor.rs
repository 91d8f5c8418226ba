//! `sandbox editor`: shows, writes and takes away the tasks of an editor in the project's folder.

use std::fmt::Write as _;
use std::path::PathBuf;

use clap::ValueEnum;
use clap::builder::PossibleValue;
use serde::Serialize;

use crate::commands::printer::sanitise;
use crate::commands::{Context, Failure, load};
use crate::editor::file::ProjectFolder;
use crate::editor::memory::{Memory, Written};
use crate::editor::{Editor, EditorError, Part};
use crate::project::preset;

/// Arguments of `editor`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The editor
    #[arg(value_enum)]
    editor: Editor,
    /// A project's name or folder; the project of the current folder when left out
    project: Option<String>,
    /// Write the files; without it they are only shown
    #[arg(long)]
    write: bool,
    /// Take away what was written, and nothing else
    #[arg(long, conflicts_with = "write")]
    remove: bool,
}

impl ValueEnum for Editor {
    fn value_variants<'a>() -> &'a [Self] {
        &Self::ALL
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(PossibleValue::new(self.name()))
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Action {
    Create,
    Change,
    Keep,
    Remove,
}

impl Action {
    /// What becomes of a file.
    fn of(before: Option<&str>, after: Option<&str>) -> Self {
        match (before, after) {
            (None, Some(_)) => Self::Create,
            (Some(_), None) => Self::Remove,
            (before, after) if before == after => Self::Keep,
            _ => Self::Change,
        }
    }

    fn word(self, done: bool) -> &'static str {
        match (self, done) {
            (Self::Create, true) => "was created",
            (Self::Create, false) => "would be created",
            (Self::Change, true) => "was changed",
            (Self::Change, false) => "would be changed to",
            (Self::Keep, _) => "is as it should be",
            (Self::Remove, true) => "was removed",
            (Self::Remove, false) => "would be removed",
        }
    }
}

#[derive(Debug, Serialize)]
struct Answer {
    editor: &'static str,
    root: PathBuf,
    /// Whether files were changed.
    done: bool,
    files: Vec<FileAnswer>,
}

#[derive(Debug, Serialize)]
struct FileAnswer {
    path: String,
    action: Action,
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<String>,
    /// Entries that somebody changed, and that stay.
    kept: Vec<String>,
    #[serde(skip)]
    current: Option<String>,
    /// The text that `--remove` is to give back.
    #[serde(skip)]
    before: Option<String>,
}

/// Runs the verb.
///
/// # Errors
/// When there is no project, or a file is not one that can be merged into.
pub fn run(context: &Context, args: &Args) -> Result<u8, Failure> {
    let (_, manifest) = load::manifest(context, args.project.as_deref())?;
    let state = &context.folders.state;
    let folder = ProjectFolder::open(&manifest.root)?;
    let mut memory = Memory::load(state, &manifest.root)?;
    let agent = manifest.agent.as_deref().and_then(preset::find);
    let prompted = agent.and_then(|preset| preset.prompted(manifest.keyed));
    let parts = args.editor.parts(prompted.as_deref());
    // Everything is computed before anything is written: a file that cannot be merged into leaves all as it is.
    let mut files = Vec::new();
    for part in &parts {
        files.push(if args.remove { removed(&folder, &memory, part)? } else { merged(&folder, &memory, part)? });
    }
    files.extend(outdated(&folder, &memory, args.editor, &parts)?);
    let done = args.write || args.remove;
    if done {
        if args.write {
            // Before the files: what is remembered and not written only makes `pull` more careful.
            for file in &files {
                if let Some(text) = &file.text {
                    let written = Written::new(args.editor, text, file.before.clone());
                    memory.files.insert(file.path.clone(), written);
                }
            }
            memory.save(state, &manifest.root)?;
        }
        for file in &files {
            apply(&folder, file)?;
        }
        let gone = |path: &String| files.iter().any(|file| file.path == *path && (args.remove || file.text.is_none()));
        memory.files.retain(|path, _| !gone(path));
        memory.save(state, &manifest.root)?;
    }
    let answer = Answer { editor: args.editor.name(), root: manifest.root, done, files };
    context.printer.result(&answer, || describe(&answer, args));
    Ok(0)
}

fn merged(folder: &ProjectFolder, memory: &Memory, part: &Part) -> Result<FileAnswer, EditorError> {
    let current = folder.read(&part.path)?;
    // What was there before is known as long as nobody else has changed the file since.
    let base = match (&current, memory.files.get(&part.path)) {
        (Some(text), Some(written)) if written.is(text) => Some(written.before.clone()),
        _ => None,
    };
    let merged = part.merge(base.as_ref().unwrap_or(&current).as_deref())?;
    let before = match (base, &current) {
        (Some(before), _) => before,
        (None, Some(text)) => part.strip(text)?.text,
        (None, None) => None,
    };
    Ok(FileAnswer {
        path: part.path.clone(),
        action: Action::of(current.as_deref(), merged.text.as_deref()),
        text: merged.text,
        kept: merged.kept,
        current,
        before,
    })
}

fn removed(folder: &ProjectFolder, memory: &Memory, part: &Part) -> Result<FileAnswer, EditorError> {
    let current = folder.read(&part.path)?;
    let (text, kept) = match (&current, memory.files.get(&part.path)) {
        (None, _) => (None, Vec::new()),
        (Some(text), Some(written)) if written.is(text) => (written.before.clone(), Vec::new()),
        (Some(text), _) => {
            let stripped = part.strip(text)?;
            (stripped.text, stripped.kept)
        }
    };
    let action = Action::of(current.as_deref(), text.as_deref());
    Ok(FileAnswer { path: part.path.clone(), action, text, kept, current, before: None })
}

/// What was written for a task that is no more, such as the prompt of another agent.
fn outdated(
    folder: &ProjectFolder,
    memory: &Memory,
    editor: Editor,
    parts: &[Part],
) -> Result<Vec<FileAnswer>, EditorError> {
    let mut files = Vec::new();
    for (path, written) in &memory.files {
        if written.editor != editor.name() || parts.iter().any(|part| part.path == *path) {
            continue;
        }
        let current = folder.read(path)?;
        let text = match &current {
            Some(text) if written.is(text) => written.before.clone(),
            other => other.clone(),
        };
        let action = Action::of(current.as_deref(), text.as_deref());
        files.push(FileAnswer { path: path.clone(), action, text, kept: Vec::new(), current, before: None });
    }
    Ok(files)
}

fn apply(folder: &ProjectFolder, file: &FileAnswer) -> Result<(), EditorError> {
    match (&file.current, &file.text) {
        (current, Some(text)) if current.as_ref() != Some(text) => folder.write(&file.path, current.as_deref(), text),
        (Some(current), None) => folder.remove(&file.path, current),
        _ => Ok(()),
    }
}

fn describe(answer: &Answer, args: &Args) -> String {
    let mut text = String::new();
    for file in &answer.files {
        if file.current.is_none() && file.text.is_none() {
            continue;
        }
        let _ = writeln!(text, "{} {}", file.path, file.action.word(answer.done));
        if !answer.done
            && file.action != Action::Keep
            && let Some(content) = &file.text
        {
            let _ = writeln!(text, "\n{}", sanitise(content));
        }
        for entry in &file.kept {
            let _ = writeln!(text, "  kept `{}`, which somebody changed", sanitise(entry));
        }
    }
    if args.remove {
        if text.is_empty() {
            text.push_str("there is nothing to take away\n");
        }
    } else if answer.done {
        let _ = writeln!(text, "next: {}", args.editor.hint());
    } else {
        let _ = writeln!(text, "next: `sandbox editor {} --write` writes this", args.editor.name());
    }
    text
}

impl From<EditorError> for Failure {
    fn from(error: EditorError) -> Self {
        let (code, next) = match &error {
            EditorError::Format { .. } => ("editor-format", "correct the file by hand, then try again".to_owned()),
            EditorError::Taken(path) => ("editor-taken", format!("move {path} away, or delete it, then try again")),
            EditorError::Link(path) => {
                ("editor-link", format!("look at what put it there; put an ordinary file or folder in place of {path}"))
            }
            EditorError::Memory { path, .. } => (
                "editor-memory",
                format!("make {} readable and writable for you, or delete it", sanitise(&path.display().to_string())),
            ),
            EditorError::Large(_) | EditorError::Changed(_) | EditorError::Access { .. } => {
                ("editor-file", "look at the file and its permissions, then try again".to_owned())
            }
        };
        Self::new(code, &error, next)
    }
}
