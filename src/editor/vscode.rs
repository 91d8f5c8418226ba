//! Tasks of Visual Studio Code (`.vscode/tasks.json`, version 2.0.0) and the schema of sandbox.yaml.
//!
//! The keys are those of <https://code.visualstudio.com/docs/reference/tasks-appendix>. Tasks are of the type `process`:
//! no shell reads the prompt, so nothing in it is ever run.

use serde_json::{Value, json};

use super::jsonc::Piece;
use super::task::{Needs, PREFIX, Task};
use super::{Content, Part};
use crate::project::schema;

const PROMPT: &str = "sandboxPrompt";

pub(super) fn parts(tasks: &[Task]) -> Vec<Part> {
    let mut pieces = vec![
        Piece::Required { name: "version", value: json!("2.0.0") },
        Piece::Elements { list: Some("tasks"), key: "label", values: tasks.iter().map(task).collect() },
    ];
    if tasks.iter().any(|task| task.needs == Needs::Prompt) {
        let input = json!({ "id": PROMPT, "type": "promptString", "description": "What should the agent do?" });
        pieces.push(Piece::Elements { list: Some("inputs"), key: "id", values: vec![input] });
    }
    // The setting of the YAML extension: https://github.com/redhat-developer/vscode-yaml#associating-schemas
    let schemas = Piece::Member { object: "yaml.schemas", name: schema::ADDRESS, value: json!("sandbox.yaml") };
    vec![
        Part { path: ".vscode/tasks.json".to_owned(), content: Content::Json(pieces) },
        Part { path: ".vscode/settings.json".to_owned(), content: Content::Json(vec![schemas]) },
    ]
}

fn task(task: &Task) -> Value {
    let mut arguments: Vec<String> = task.arguments.iter().map(|&argument| argument.to_owned()).collect();
    if task.needs == Needs::Prompt {
        arguments.push(format!("${{input:{PROMPT}}}"));
    }
    // A terminal of its own for what is typed in; the others share one.
    let panel = if task.needs == Needs::Output { "shared" } else { "dedicated" };
    json!({
        "label": task.label(),
        "detail": task.detail,
        "type": "process",
        "command": "sandbox",
        "args": arguments,
        "options": { "cwd": "${workspaceFolder}" },
        "presentation": { "reveal": "always", "focus": task.needs != Needs::Output, "panel": panel },
        "problemMatcher": if task.reads_manifest { json!(matcher()) } else { json!([]) },
    })
}

/// Finds the faults of a manifest in what `sandbox` prints:
///
/// ```text
/// error: the manifest has no key `netwrk`
///  --> /home/ada/payments/sandbox.yaml:3:1
/// ```
fn matcher() -> Value {
    json!({
        "owner": PREFIX.trim_end_matches(": "),
        "source": "sandbox",
        "severity": "error",
        "fileLocation": ["autoDetect", "${workspaceFolder}"],
        "pattern": [
            { "regexp": "^error: (.+)$", "message": 1 },
            { "regexp": "^\\s*--> (.+):(\\d+):(\\d+)$", "file": 1, "line": 2, "column": 3 },
        ],
    })
}
