//! Run configurations of the IDEs of JetBrains: one file `.run/NAME.run.xml` a task, which is where an IDE keeps those
//! that are stored as project files (<https://www.jetbrains.com/help/idea/run-debug-configuration.html>).
//!
//! The type is that of the bundled plugin `Shell Script`, with the text of a script run in the terminal.

use super::task::{Needs, Task};
use super::{Content, Part, zed};

pub(super) fn parts(tasks: &[Task]) -> Vec<Part> {
    let part =
        |task: &Task| Part { path: format!(".run/sandbox-{}.run.xml", task.name), content: Content::Whole(file(task)) };
    tasks.iter().map(part).collect()
}

fn file(task: &Task) -> String {
    // The terminal's shell may be any; `sh` reads the prompt.
    let script = match task.needs {
        Needs::Prompt => format!("sh -c '{}'", zed::reads_prompt(task)),
        _ => format!("sandbox {}", task.arguments.join(" ")),
    };
    let options = [
        ("SCRIPT_TEXT", script.as_str()),
        ("INDEPENDENT_SCRIPT_PATH", "true"),
        ("SCRIPT_PATH", ""),
        ("SCRIPT_OPTIONS", ""),
        ("INDEPENDENT_SCRIPT_WORKING_DIRECTORY", "true"),
        ("SCRIPT_WORKING_DIRECTORY", "$PROJECT_DIR$"),
        ("INDEPENDENT_INTERPRETER_PATH", "true"),
        ("INTERPRETER_PATH", ""),
        ("INTERPRETER_OPTIONS", ""),
        ("EXECUTE_IN_TERMINAL", "true"),
        ("EXECUTE_SCRIPT_FILE", "false"),
    ];
    let lines: String = (options.iter())
        .map(|(name, value)| format!("    <option name=\"{name}\" value=\"{}\" />\n", escape(value)))
        .collect();
    format!(
        "<component name=\"ProjectRunConfigurationManager\">\n  \
         <configuration default=\"false\" name=\"{}\" type=\"ShConfigurationType\">\n\
         {lines}    <envs />\n    <method v=\"2\" />\n  </configuration>\n</component>\n",
        escape(&task.label())
    )
}

/// Text as the value of an attribute (XML 1.0, section 2.4 and 3.1).
fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
