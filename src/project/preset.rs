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
    /// The image definition that has it. Aider's is the project's own to write: it does not come with the launcher.
    pub image: &'static str,
    /// The hosts that it cannot work without, port 443.
    pub hosts: &'static [&'static str],
    /// Where it keeps its state, below the home folder.
    pub state_folder: &'static str,
    /// How it takes the key of its model.
    pub key: Option<AgentKey>,
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
        key: Some(AgentKey {
            credential: "anthropic",
            variable: "ANTHROPIC_API_KEY",
            host: "api.anthropic.com",
            header: Some("x-api-key"),
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
        key: Some(AgentKey { credential: "openai", variable: "OPENAI_API_KEY", host: "api.openai.com", header: None }),
        environment: &[],
    },
    Preset {
        name: "opencode",
        command: &["opencode"],
        prompted: Some(&["opencode", "run"]),
        image: "opencode",
        hosts: &["api.anthropic.com"],
        state_folder: ".local/share/opencode",
        key: Some(AgentKey {
            credential: "anthropic",
            variable: "ANTHROPIC_API_KEY",
            host: "api.anthropic.com",
            header: Some("x-api-key"),
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
        key: Some(AgentKey {
            credential: "gemini",
            variable: "GEMINI_API_KEY",
            host: "generativelanguage.googleapis.com",
            header: Some("x-goog-api-key"),
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
        key: Some(AgentKey {
            credential: "anthropic",
            variable: "ANTHROPIC_API_KEY",
            host: "api.anthropic.com",
            header: Some("x-api-key"),
        }),
        environment: &[],
    },
    Preset {
        name: "shell",
        command: SHELL,
        prompted: None,
        image: "agent",
        hosts: &[],
        state_folder: ".cache",
        key: None,
        environment: &[],
    },
];

/// The preset of this name.
pub fn find(name: &str) -> Option<&'static Preset> {
    PRESETS.iter().find(|preset| preset.name == name)
}
