//! Keys of Helix in the project's `.helix/config.toml`, which Helix merges over the user's own
//! (<https://docs.helix-editor.com/configuration.html>).
//!
//! Helix has no terminal: `:sh` runs a command in the user's shell and shows its output, so what needs a terminal or a
//! text to pass on is not offered.

use toml_edit::{DocumentMut, Item, Table, TableLike, value};

use super::task::{Needs, Task};
use super::{Content, EditorError, Merged, Part};

/// The tables on the way to the keys: normal mode, then space and X, which Helix itself does not use.
const PLACE: [&str; 4] = ["keys", "normal", "space", "X"];

/// A key and its command.
#[derive(Debug)]
pub(super) struct Binding {
    key: &'static str,
    command: String,
}

pub(super) fn parts(tasks: &[Task]) -> Vec<Part> {
    let key = |task: &Task| match task.name {
        "up" => Some("u"),
        "plan" => Some("n"),
        "status" => Some("s"),
        "diff" => Some("d"),
        "pull" => Some("p"),
        "down" => Some("q"),
        "logs" => Some("l"),
        _ => None,
    };
    let bindings = tasks.iter().filter_map(|task| {
        let arguments = match task.name {
            // What ends by itself, of what would take a terminal.
            "up" => "up --detach".to_owned(),
            "logs" => "logs --tail 50".to_owned(),
            _ if task.needs != Needs::Output => return None,
            _ => task.arguments.join(" "),
        };
        Some(Binding { key: key(task)?, command: format!(":sh sandbox {arguments}") })
    });
    vec![Part { path: ".helix/config.toml".to_owned(), content: Content::Keys(bindings.collect()) }]
}

fn parse(path: &str, text: &str) -> Result<DocumentMut, EditorError> {
    text.parse().map_err(|error: toml_edit::TomlError| {
        // Its own text repeats the line and draws below it.
        let line = error.span().map_or(1, |span| 1 + text[..span.start.min(text.len())].matches('\n').count());
        EditorError::Format { path: path.to_owned(), fault: format!("line {line}: {}", error.message()) }
    })
}

/// The table of the keys, made where it lacks.
fn table<'a>(path: &str, document: &'a mut DocumentMut) -> Result<&'a mut dyn TableLike, EditorError> {
    let mut place: &mut dyn TableLike = document.as_table_mut();
    for (depth, name) in PLACE.iter().enumerate() {
        let item = place.entry(name).or_insert_with(|| {
            let mut table = Table::new();
            table.set_implicit(depth + 1 < PLACE.len());
            Item::Table(table)
        });
        place = item.as_table_like_mut().ok_or_else(|| EditorError::Format {
            path: path.to_owned(),
            fault: format!("`{}` is no table", PLACE[..=depth].join(".")),
        })?;
    }
    Ok(place)
}

/// Adds the keys that are free.
pub(super) fn merge(path: &str, current: Option<&str>, bindings: &[Binding]) -> Result<Merged, EditorError> {
    let mut document = parse(path, current.unwrap_or_default())?;
    let table = table(path, &mut document)?;
    let mut kept = Vec::new();
    for binding in bindings {
        match table.get(binding.key) {
            None => drop(table.insert(binding.key, value(binding.command.as_str()))),
            Some(item) if item.as_str() == Some(&binding.command) => {}
            Some(_) => kept.push(format!("space X {}", binding.key)),
        }
    }
    Ok(Merged { text: Some(document.to_string()), kept })
}

/// Takes the keys away that are as they were written, and tables that are empty then.
pub(super) fn strip(path: &str, current: &str, bindings: &[Binding]) -> Result<Merged, EditorError> {
    let mut document = parse(path, current)?;
    let mut kept = Vec::new();
    if has_place(document.as_table(), &PLACE) {
        let table = table(path, &mut document)?;
        for binding in bindings {
            match table.get(binding.key) {
                None => {}
                Some(item) if item.as_str() == Some(&binding.command) => drop(table.remove(binding.key)),
                Some(_) => kept.push(format!("space X {}", binding.key)),
            }
        }
        prune(document.as_table_mut(), &PLACE);
    }
    let text = document.to_string();
    Ok(Merged { text: (!text.trim().is_empty()).then_some(text), kept })
}

fn has_place(table: &dyn TableLike, names: &[&str]) -> bool {
    let Some((name, rest)) = names.split_first() else { return true };
    table.get(name).and_then(Item::as_table_like).is_some_and(|inner| has_place(inner, rest))
}

/// Removes tables on the way that hold nothing.
fn prune(table: &mut dyn TableLike, names: &[&str]) {
    let Some((name, rest)) = names.split_first() else { return };
    let Some(inner) = table.get_mut(name).and_then(Item::as_table_like_mut) else { return };
    prune(inner, rest);
    if inner.is_empty() {
        table.remove(name);
    }
}
