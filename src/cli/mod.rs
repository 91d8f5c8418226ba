//! The command line: arguments, start, exit codes. Only this module and `commands` know clap.

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::commands::{self, Context, Failure};

/// The exit code of `up`, `exec` and `shell` when the launcher itself failed, as `docker run` has it.
const LAUNCHER_FAILED: u8 = 125;

/// Runs coding agents in contained Docker sandboxes, with credentials that belong to one project alone.
#[derive(Debug, Parser)]
#[command(name = "sandbox", version, propagate_version = true, max_term_width = 120)]
struct Arguments {
    #[command(flatten)]
    global: commands::GlobalArguments,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Start (or join) the project's sandbox and run the agent, or CMD
    Up(commands::up::Args),
    /// Show what `up` would do: image digest, mounts, hosts, credentials; reads no secret
    Plan(commands::plan::Args),
    /// Run CMD in the running sandbox; streams, signals and exit code pass through
    Exec(commands::exec::Args),
    /// Open a shell in the running sandbox
    Shell(commands::exec::ShellArgs),
    /// List the sandboxes of this machine
    Ps(commands::ps::Args),
    /// Show how one sandbox is
    Status(commands::ps::StatusArgs),
    /// Show what the sandbox's main command printed
    Logs(commands::logs::Args),
    /// Show what the agent changed since the base
    Diff(commands::diff::Args),
    /// Bring the agent's commits into this repository as refs/sandbox/PROJECT/BRANCH, after review
    Pull(commands::pull::Args),
    /// Revoke credentials, stop and remove the sandbox
    Down(commands::down::Args),
    /// End and remove what a crash left behind
    Gc(commands::down::GcArgs),
    /// Set, list, rotate and remove the project's credentials
    #[command(visible_alias = "credentials")]
    Credential(commands::credential::Args),
    /// Lock, build and verify agent images
    Image(commands::image::Args),
    /// Read and verify the audit log
    Audit(commands::audit::Args),
    /// Approve a manifest's content
    Trust(commands::trust::Args),
    /// Check this machine: engine, versions, folders
    Doctor(commands::doctor::Args),
    /// Print the JSON Schema of sandbox.yaml
    Schema(commands::schema::Args),
    /// Print the completions of a shell
    Completions(commands::completions::Args),
    /// Supervise a running sandbox
    #[command(hide = true)]
    Supervise(commands::supervise::Args),
    /// Be PID 1 of the agent's container
    #[command(hide = true)]
    Init,
    /// Serve one session in the agent's container
    #[command(hide = true)]
    Session,
    /// Be the relay
    #[command(hide = true)]
    Relay(commands::inside::RelayArgs),
    /// Be the gateway
    #[command(hide = true)]
    Gateway(commands::inside::GatewayArgs),
    /// Answer git's questions for credentials
    #[command(hide = true)]
    GitCredential(commands::inside::GitCredentialArgs),
}

/// Parses the arguments, runs the verb, prints a failure and gives the exit code.
pub fn main() -> ExitCode {
    let arguments = Arguments::parse_from(std::env::args_os());
    ExitCode::SUCCESS
}
