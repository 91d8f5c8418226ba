//! `sandbox network presets`: the presets that a manifest in this folder can use, and their text.

use std::path::PathBuf;

use comfy_table::{Table, presets};
use serde::Serialize;

use crate::commands::printer::sanitise;
use crate::commands::{Context, Failure};
use crate::project;
use crate::project::network_preset::{self, NetworkPreset, Parameter, PresetError};

#[derive(Debug, Serialize)]
struct Row {
    name: String,
    description: String,
    /// The file of the project's own; none when it came with the launcher.
    #[serde(skip_serializing_if = "Option::is_none")]
    file: Option<String>,
    parameters: std::collections::BTreeMap<String, Parameter>,
    /// A line for `network.allow`.
    usage: String,
}

#[derive(Debug, Serialize)]
struct Shown {
    #[serde(flatten)]
    row: Row,
    text: String,
}

impl Row {
    fn new(preset: NetworkPreset) -> Self {
        Self {
            usage: preset.usage(),
            name: preset.name,
            description: preset.description,
            file: preset.file.map(|(path, _)| path),
            parameters: preset.parameters,
        }
    }
}

/// Lists the presets, or prints one.
///
/// # Errors
/// When there is none of this name, or the file of one is wrong.
pub(super) fn run(context: &Context, name: Option<&str>) -> Result<u8, Failure> {
    let root = root(context);
    if let Some(name) = name {
        let preset = network_preset::find(name, &root).map_err(|error| failure(&error, &root))?;
        let text = preset.text.clone();
        let shown = Shown { row: Row::new(preset), text };
        context.printer.result(&shown, || sanitise(&shown.text));
        return Ok(0);
    }
    let mut rows = Vec::new();
    for name in network_preset::names(&root) {
        rows.push(Row::new(network_preset::find(&name, &root).map_err(|error| failure(&error, &root))?));
    }
    context.printer.result(&rows, || table(&rows));
    Ok(0)
}

/// The folder of the manifest that is nearest; the current one when there is none.
fn root(context: &Context) -> PathBuf {
    let current = std::env::current_dir().unwrap_or_default();
    let found = project::locate(None, &current, &context.folders.state).ok();
    found.and_then(|path| path.parent().map(PathBuf::from)).unwrap_or(current)
}

fn failure(error: &PresetError, root: &std::path::Path) -> Failure {
    let next = match error {
        PresetError::Unknown(_) => format!("write one of {}", network_preset::names(root).join(", ")),
        PresetError::Read { .. } => "make it a regular file of text that you can read".to_owned(),
        PresetError::Syntax { problem, .. } => problem.remedy.clone(),
        PresetError::Entry { .. } => "compare it with `sandbox network presets github`".to_owned(),
    };
    Failure::new("network-preset", error, next)
}

fn table(rows: &[Row]) -> String {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_header(["NAME", "WHAT IT ALLOWS", "IN network.allow"]);
    for row in rows {
        let own = row.file.as_ref().map(|file| format!(" ({file})")).unwrap_or_default();
        table.add_row([row.name.clone(), sanitise(&format!("{}{own}", row.description)), sanitise(&row.usage)]);
    }
    format!("{table}\n")
}
