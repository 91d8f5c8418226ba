//! The tasks, whatever the editor: which verbs, under which names, and what they need of a terminal.

/// What every label begins with, so that nobody else has the same one.
pub(super) const PREFIX: &str = "sandbox: ";

/// One task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Task {
    /// The word for it, which is unique.
    pub(super) name: &'static str,
    /// What it does, for people.
    pub(super) detail: &'static str,
    /// The arguments of `sandbox`, in words that no shell changes.
    pub(super) arguments: Vec<&'static str>,
    /// What it needs.
    pub(super) needs: Needs,
    /// Whether its messages may name lines of the manifest.
    pub(super) reads_manifest: bool,
}

/// What a task needs of the editor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Needs {
    /// A place for its output.
    Output,
    /// A terminal to type in, or output that does not end.
    Terminal,
    /// A text from the user as its last argument, and a terminal.
    Prompt,
}

impl Task {
    pub(super) fn label(&self) -> String {
        format!("{PREFIX}{}", self.name)
    }
}

/// The tasks of a project whose agent is given a prompt by this command, if it takes one.
pub(super) fn tasks(prompted: Option<&[&'static str]>) -> Vec<Task> {
    let task = |name, detail, arguments: &[&'static str], needs, reads_manifest| Task {
        name,
        detail,
        arguments: arguments.to_vec(),
        needs,
        reads_manifest,
    };
    let mut all = vec![task("up", "Start or join the sandbox and run the agent", &["up"], Needs::Terminal, true)];
    if let Some(prompted) = prompted {
        let arguments: Vec<&'static str> = ["up", "--"].iter().chain(prompted).copied().collect();
        all.push(task("prompt", "Run the agent with a prompt", &arguments, Needs::Prompt, true));
    }
    all.extend([
        task("shell", "Open a shell in the running sandbox", &["shell"], Needs::Terminal, false),
        task("plan", "Show what `up` would do, and what is wrong with sandbox.yaml", &["plan"], Needs::Output, true),
        task("status", "Show how the sandbox is", &["status"], Needs::Output, false),
        task("logs", "Follow what the agent prints", &["logs", "--follow"], Needs::Terminal, false),
        task("diff", "Show what the agent changed", &["diff", "--patch"], Needs::Output, false),
        task("pull", "Review the agent's commits and bring them in", &["pull"], Needs::Output, false),
        task("down", "Revoke credentials, stop and remove the sandbox", &["down"], Needs::Output, false),
    ]);
    all
}
