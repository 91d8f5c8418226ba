//! Tasks of Zed: `.zed/tasks.json`, a list of objects (<https://zed.dev/docs/tasks>).
//!
//! Zed hands command and arguments to the user's shell and has no input for a text. So fixed words stay words, and the
//! prompt is read by `sh`, which passes it on as one argument without looking into it.

use serde_json::{Value, json};

use super::jsonc::Piece;
use super::task::{Needs, Task};
use super::{Content, Part};

pub(super) fn parts(tasks: &[Task]) -> Vec<Part> {
    let values = tasks.iter().map(task).collect();
    let pieces = vec![Piece::Elements { list: None, key: "label", values }];
    vec![Part { path: ".zed/tasks.json".to_owned(), content: Content::Json(pieces) }]
}

fn task(task: &Task) -> Value {
    let (command, arguments) = match task.needs {
        // One word for the shell, whichever it is: single quotes mean the same in bash, zsh and fish.
        Needs::Prompt => (format!("sh -c '{}'", reads_prompt(task)), Vec::new()),
        _ => ("sandbox".to_owned(), task.arguments.clone()),
    };
    json!({
        "label": task.label(),
        "command": command,
        "args": arguments,
        "cwd": "$ZED_WORKTREE_ROOT",
        "use_new_terminal": task.needs != Needs::Output,
        "allow_concurrent_runs": task.needs != Needs::Output,
        "reveal": "always",
        "hide": "never",
    })
}

/// A line for `sh` that asks for a text and runs the task with it as its last argument; it holds no single quote.
pub(super) fn reads_prompt(task: &Task) -> String {
    let arguments = task.arguments.join(" ");
    format!("printf \"Prompt: \"; IFS= read -r prompt && exec sandbox {arguments} \"$prompt\"")
}
