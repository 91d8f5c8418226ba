//! Presets of agents, as data: the command, the image, the hosts and the folder that keeps their state.
//!
//! A preset never adds a host to a manifest's list by itself: `init` writes the hosts out, so that the list that a
//! person approves is complete.

/// An agent that the launcher knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Preset {
    /// Its name in `agent:`.
    pub name: &'static str,
    /// The program and its arguments.
    pub command: &'static [&'static str],
    /// The command that takes a prompt as one more argument and goes to work on it, if there is one.
    pub prompted: Option<&'static [&'static str]>,
    /// The image definition that has it.
    pub image: &'static str,
    /// The hosts that it cannot work without, port 443.
    pub hosts: &'static [&'static str],
    /// Where it keeps its state, below the home folder.
    pub state_folder: &'static str,
    /// How it takes the key of its model.
    pub key: Option<AgentKey>,
    /// Whether it takes a log-in of its vendor's in place of a key.
    pub login: bool,
    /// Variables without which it asks or does what makes no sense in a sandbox; a manifest's own come first.
    pub environment: &'static [(&'static str, &'static str)],
}

/// The key of an agent's model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AgentKey {
    /// What a manifest calls it.
    pub credential: &'static str,
    /// The environment variable that the agent reads; it holds a stand-in.
    pub variable: &'static str,
    /// The host that the key is for.
    pub host: &'static str,
    /// The header field that it stands in; a bearer token when there is none.
    pub header: Option<&'static str>,
    /// What the command needs after the program's name to take the key, and to show no log-in.
    pub arguments: &'static [&'static str],
    /// The variables that it needs for that beside its own.
    pub environment: &'static [(&'static str, &'static str)],
}

impl Preset {
    /// The program and its arguments, with what it needs to take its key when the manifest has one for it.
    pub fn command(&self, keyed: bool) -> Vec<&'static str> {
        self.with_key(self.command, keyed)
    }

    /// The same for the command that takes a prompt.
    pub fn prompted(&self, keyed: bool) -> Option<Vec<&'static str>> {
        self.prompted.map(|command| self.with_key(command, keyed))
    }

    fn with_key(&self, command: &[&'static str], keyed: bool) -> Vec<&'static str> {
        let arguments = self.key.filter(|_| keyed).map_or(&[] as &[_], |key| key.arguments);
        let (program, own) = command.split_at(1.min(command.len()));
        [program, arguments, own].concat()
    }
}

/// The command when a manifest has neither `agent` nor `command`.
pub const SHELL: &[&str] = &["/bin/bash", "-l"];

/// Every preset.
pub const PRESETS: &[Preset] = &[
    Preset {
        name: "claude-code",
        command: &["claude"],
        prompted: Some(&["claude"]),
        image: "claude-code",
        hosts: &["api.anthropic.com"],
        state_folder: ".claude",
        login: true,
        // ANTHROPIC_API_KEY would have it ask at each new home whether that key may be used
        // (https://code.claude.com/docs/en/env-vars).
        key: Some(AgentKey {
            credential: "anthropic",
            variable: "ANTHROPIC_AUTH_TOKEN",
            host: "api.anthropic.com",
            header: Some("x-api-key"),
            arguments: &[],
            environment: &[],
        }),
        environment: &[("DISABLE_AUTOUPDATER", "1")],
    },
    Preset {
        name: "codex",
        command: &["codex"],
        prompted: Some(&["codex"]),
        image: "codex",
        hosts: &["api.openai.com"],
        state_folder: ".codex",
        login: true,
        key: Some(AgentKey {
            credential: "openai",
            variable: "OPENAI_API_KEY",
            host: "api.openai.com",
            header: None,
            // The provider that images/codex/image.yaml names: the built-in one shows a log-in, whatever the variable holds.
            arguments: &["-c", "model_provider=key"],
            environment: &[],
        }),
        environment: &[],
    },
    Preset {
        name: "opencode",
        command: &["opencode"],
        prompted: Some(&["opencode", "run"]),
        image: "opencode",
        hosts: &["api.anthropic.com"],
        state_folder: ".local/share/opencode",
        login: false,
        key: Some(AgentKey {
            credential: "anthropic",
            variable: "ANTHROPIC_API_KEY",
            host: "api.anthropic.com",
            header: Some("x-api-key"),
            arguments: &[],
            environment: &[],
        }),
        environment: &[],
    },
    Preset {
        name: "gemini-cli",
        command: &["gemini"],
        prompted: Some(&["gemini", "--prompt-interactive"]),
        image: "gemini-cli",
        hosts: &["generativelanguage.googleapis.com"],
        state_folder: ".gemini",
        login: true,
        key: Some(AgentKey {
            credential: "gemini",
            variable: "GEMINI_API_KEY",
            host: "generativelanguage.googleapis.com",
            header: Some("x-goog-api-key"),
            arguments: &[],
            // What it would ask at the first start; its settings of other places come before this file
            // (https://geminicli.com/docs/reference/configuration).
            environment: &[("GEMINI_CLI_SYSTEM_DEFAULTS_PATH", "/etc/gemini-cli/key.json")],
        }),
        environment: &[("GEMINI_CLI_TRUST_WORKSPACE", "true")],
    },
    Preset {
        name: "aider",
        command: &["aider"],
        prompted: Some(&["aider", "--message"]),
        image: "aider",
        hosts: &["api.anthropic.com"],
        state_folder: ".aider",
        login: false,
        key: Some(AgentKey {
            credential: "anthropic",
            variable: "ANTHROPIC_API_KEY",
            host: "api.anthropic.com",
            header: Some("x-api-key"),
            arguments: &[],
            environment: &[],
        }),
        // Its question about .gitignore, its look for newer versions, and its files in the workspace
        // (https://aider.chat/docs/config/options.html).
        environment: &[
            ("AIDER_GITIGNORE", "false"),
            ("AIDER_CHECK_UPDATE", "false"),
            ("AIDER_SHOW_RELEASE_NOTES", "false"),
            ("AIDER_ANALYTICS", "false"),
            ("AIDER_CHAT_HISTORY_FILE", "/home/agent/.aider.chat.history.md"),
            ("AIDER_INPUT_HISTORY_FILE", "/home/agent/.aider.input.history"),
        ],
    },
    Preset {
        name: "shell",
        command: SHELL,
        prompted: None,
        image: "agent",
        hosts: &[],
        state_folder: ".cache",
        login: false,
        key: None,
        environment: &[],
    },
];

/// The preset of this name.
pub fn find(name: &str) -> Option<&'static Preset> {
    PRESETS.iter().find(|preset| preset.name == name)
}
