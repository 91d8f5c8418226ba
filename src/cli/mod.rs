//! The command line: arguments, start, exit codes. Only this module and `commands` know clap.

use std::ffi::OsString;
use std::io::IsTerminal as _;
use std::path::Path;
use std::process::ExitCode;

use clap::{CommandFactory as _, FromArgMatches as _, Parser, Subcommand};

use tracing::Level;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::layer::{Layer as _, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::commands::{self, Context, Failure};
use crate::init;

/// The exit code of `up`, `exec` and `shell` when the launcher itself failed, as `docker run` has it.
const LAUNCHER_FAILED: u8 = 125;

mod completion;
mod examples;
mod gateway;
mod manual;
mod memory;

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
    /// Look at this repository and write a sandbox.yaml for it
    Init(commands::init::Args),
    /// Start (or join) the project's sandbox and run the agent, or CMD
    Up(commands::up::Args),
    /// Show what `up` would do: image digest, mounts, hosts, credentials; reads no secret
    Plan(commands::plan::Args),
    /// Say whether a host or a request is allowed, by which line, and with which credential
    Why(commands::why::Args),
    /// Run CMD in the running sandbox; streams, signals and exit code pass through
    Exec(commands::exec::Args),
    /// Open a shell in the running sandbox
    Shell(commands::exec::ShellArgs),
    /// Copy files that are not in git in or out of a running sandbox
    Cp(commands::copy::Args),
    /// Forward ports of the sandbox to this machine's loopback
    Port(commands::port::Args),
    /// List the sandboxes of this machine
    Ps(commands::ps::Args),
    /// Show how one sandbox is
    Status(commands::ps::StatusArgs),
    /// See and change what a running sandbox may reach
    Network(commands::network::Arguments),
    /// Show what the sandbox's main command printed
    Logs(commands::logs::Args),
    /// Show what the agent changed since the base
    Diff(commands::diff::Args),
    /// Write a page of what to look at before the agent's commits come in; nothing lands
    Review(commands::review::Args),
    /// Bring the agent's commits into this repository as refs/sandbox/PROJECT/BRANCH, after review
    Pull(commands::pull::Args),
    /// Say what a session did: credentials, hosts, denials, commits, and how it ended; also when it is gone
    Report(commands::report::Args),
    /// Revoke credentials, stop and remove the sandbox
    Down(commands::down::Args),
    /// End and remove what a crash left behind
    Gc(commands::down::GcArgs),
    /// List, remove and export the clones and homes that sandboxes keep
    Workspace(commands::workspace::Arguments),
    /// Set, list, rotate and remove the project's credentials
    Credential(commands::credential::Arguments),
    /// Find the credentials on this machine that an agent would inherit
    Scan(commands::scan::Args),
    /// Lock, build and verify agent images
    Image(commands::image::ImageArguments),
    /// Read and verify the audit log
    Audit(commands::audit::Arguments),
    /// Approve what a project's manifest asks for
    Trust(commands::trust::Arguments),
    /// Check this machine: engine, versions, folders
    Doctor(commands::doctor::Args),
    /// Write tasks for an editor, so that the verbs are a key away
    Editor(commands::editor::Args),
    /// Print the JSON Schema of sandbox.yaml
    Schema,
    /// Say more about the code of an error
    Explain(commands::explain::Args),
    /// Print the completions of a shell; they know projects, sandboxes, credentials and images
    Completions(CompletionsArguments),
    /// Print or write the manual pages
    Man(manual::Args),
    /// Supervise a running sandbox
    #[command(hide = true)]
    Supervise(commands::supervise::Args),
    /// Be PID 1 of the agent's container
    #[command(hide = true)]
    Reap,
    /// Serve one session in the agent's container
    #[command(hide = true)]
    Session,
    /// Become a command on a terminal
    #[command(hide = true)]
    TerminalChild {
        /// The program's path
        program: OsString,
        /// The name it sees and its arguments
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },
    /// Pass the agent's connections to the gateway
    #[command(hide = true)]
    Relay(gateway::RelayArguments),
    /// Decide on the agent's connections
    #[command(hide = true)]
    Gateway(gateway::GatewayArguments),
    /// Answer git's questions for credentials
    #[command(hide = true)]
    GitCredential {
        /// The file below /run/secrets
        #[arg(long)]
        file: String,
        /// What git asks for
        action: String,
    },
}

#[derive(Debug, clap::Args)]
struct CompletionsArguments {
    /// The shell
    #[arg(value_enum)]
    shell: clap_complete::Shell,
}

/// The command line as it is parsed, shown and described, with the examples of each verb.
fn command() -> clap::Command {
    examples::teach(Arguments::command())
}

/// Parses the arguments, runs the verb, prints a failure and gives the exit code.
pub fn main() -> ExitCode {
    let words: Vec<OsString> = std::env::args_os().collect();
    if let Some(code) = completion::answer(&words) {
        return code;
    }
    let passes_codes = passes_codes(&words);
    let parsed = command().try_get_matches_from(&words);
    let arguments = match parsed.and_then(|matches| Arguments::from_arg_matches(&matches)) {
        Ok(arguments) => arguments,
        Err(error) => {
            // Printing can only fail when nobody reads.
            let _ = error.print();
            return match error.exit_code() {
                0 => ExitCode::SUCCESS,
                _ if passes_codes => ExitCode::from(LAUNCHER_FAILED),
                code => ExitCode::from(u8::try_from(code).unwrap_or(2)),
            };
        }
    };
    let verb = match inside(arguments.verb) {
        Inside::Ended(code) => return code,
        Inside::Not(verb) => verb,
    };
    let context = Context::new(arguments.global);
    match run(&context, verb) {
        Ok(code) => ExitCode::from(code),
        Err(failure) => {
            let code = context.printer.failure(&failure);
            // A command that is not found or not executable has 127 or 126, as in a shell.
            let own = passes_codes && !matches!(code, 126 | 127);
            ExitCode::from(if own { LAUNCHER_FAILED } else { code })
        }
    }
}

/// Whether the verb's exit code is that of the command in the sandbox, so that the launcher's own failures need
/// another one.
fn passes_codes(words: &[OsString]) -> bool {
    let mut options_value = false;
    for word in words.iter().skip(1) {
        match word.to_str() {
            _ if options_value => options_value = false,
            Some("--engine" | "--format") => options_value = true,
            Some(option) if option.starts_with('-') => {}
            verb => return matches!(verb, Some("up" | "exec" | "shell")),
        }
    }
    false
}

fn run(context: &Context, verb: Verb) -> Result<u8, Failure> {
    log_to_stderr();
    memory::keep_private();
    match verb {
        Verb::Init(args) => commands::init::run(context, &args),
        Verb::Plan(args) => commands::plan::run(context, &args),
        Verb::Image(args) => commands::image::run(context, &args),
        Verb::Audit(args) => commands::audit::run(context, args),
        Verb::Trust(args) => commands::trust::run(context, args),
        Verb::Editor(args) => commands::editor::run(context, &args),
        Verb::Report(args) => commands::report::run(context, &args),
        Verb::Scan(args) => commands::scan::run(context, &args),
        Verb::Schema => commands::schema::run(context),
        Verb::Explain(args) => commands::explain::run(context, &args),
        Verb::Completions(args) => {
            context.printer.line(completion::script(args.shell).trim_end());
            Ok(0)
        }
        Verb::Man(args) => manual::run(context, &args),
        verb => block_on(context, verb),
    }
}

/// Runs a verb that waits for something.
fn block_on(context: &Context, verb: Verb) -> Result<u8, Failure> {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().map_err(|error| {
            Failure::system(
                "runtime",
                "start the event loop",
                &error,
                "free some processes or open files and try again",
            )
        })?;
    let result = runtime.block_on(async {
        match verb {
            Verb::Up(args) => commands::up::run(context, &args).await,
            Verb::Exec(args) => commands::exec::run(context, args).await,
            Verb::Shell(args) => commands::exec::shell(context, &args).await,
            Verb::Cp(args) => commands::copy::run(context, &args).await,
            Verb::Port(args) => commands::port::run(context, args).await,
            Verb::Ps(args) => commands::ps::run(context, &args).await,
            Verb::Status(args) => commands::ps::status(context, &args).await,
            Verb::Why(args) => commands::why::run(context, &args).await,
            Verb::Network(args) => commands::network::run(context, args).await,
            Verb::Logs(args) => commands::logs::run(context, &args).await,
            Verb::Diff(args) => commands::sandbox_exchange::diff(context, &args).await,
            Verb::Review(args) => commands::review::run(context, &args).await,
            Verb::Pull(args) => commands::sandbox_exchange::pull(context, &args).await,
            Verb::Down(args) => commands::down::run(context, &args).await,
            Verb::Gc(args) => commands::down::gc(context, &args).await,
            Verb::Workspace(args) => commands::workspace::run(context, args).await,
            Verb::Credential(args) => commands::credential::run(context, args).await,
            Verb::Doctor(args) => commands::doctor::run(context, &args).await,
            Verb::Supervise(args) => commands::supervise::run(context, &args).await,
            // The others were run without a runtime.
            _ => Ok(0),
        }
    });
    // A read of standard input that nobody waits for any more must not keep the process.
    runtime.shutdown_background();
    result
}

/// Whether a verb was one of the programs inside the containers.
enum Inside {
    Ended(ExitCode),
    Not(Verb),
}

/// Runs the programs inside the containers: they have no folders, no printer and exit codes of their own.
fn inside(verb: Verb) -> Inside {
    // The agent's own processes are its own affair.
    if matches!(verb, Verb::Gateway(_) | Verb::Relay(_) | Verb::GitCredential { .. }) {
        memory::keep_private();
    }
    Inside::Ended(match verb {
        Verb::Reap => init::main(),
        Verb::Session => init::session::main(),
        Verb::Relay(arguments) => crate::gateway::relay::main(&arguments.into()),
        Verb::Gateway(arguments) => crate::gateway::program::main(&arguments.into()),
        Verb::TerminalChild { program, arguments } => init::terminal_child::main(program, arguments),
        Verb::GitCredential { file, action } => {
            crate::credential::git_helper::main(Path::new("/run/secrets"), &file, &action)
        }
        other => return Inside::Not(other),
    })
}

/// Logs to standard error what `SANDBOX_LOG` asks for (such as `debug`); nothing when it is not set.
fn log_to_stderr() {
    let Ok(wanted) = std::env::var("SANDBOX_LOG") else { return };
    let ours = filter_fn(|metadata| is_harmless(metadata.target(), *metadata.level()));
    let coloured = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_ansi(coloured);
    let lines = lines.with_filter(EnvFilter::new(wanted));
    let _ = tracing_subscriber::registry().with(ours).with(lines).try_init();
}

/// Whether a line may be logged if it is asked for. Clients of HTTP and of the engine write bytes of requests at their finest
/// levels, and those carry secrets: of what is not ours, only what its authors took for worth an operator's look.
fn is_harmless(target: &str, level: Level) -> bool {
    let ours = target == "sandbox" || target.starts_with("sandbox::");
    ours || level <= Level::INFO
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_else_logs_at_a_level_that_shows_requests() {
        assert!(is_harmless("sandbox::session::launch", Level::TRACE) && is_harmless("sandbox", Level::DEBUG));
        assert!(is_harmless("hyper::client", Level::WARN));
        for other in ["engine_client::docker", "hyper::proto::h1", "sandboxed", "log", "aws_sigv4"] {
            assert!(!is_harmless(other, Level::DEBUG) && !is_harmless(other, Level::TRACE), "{other}");
        }
    }

    #[test]
    fn the_arguments_are_consistent() {
        completion::with_candidates(command(), "").debug_assert();
    }

    #[test]
    fn up_exec_and_shell_have_the_launchers_exit_code_for_their_own_failures() {
        let passes = |line: &str| passes_codes(&line.split(' ').map(OsString::from).collect::<Vec<_>>());
        assert!(passes("sandbox up demo"));
        assert!(passes("sandbox --engine unix:///x exec demo -- true"));
        assert!(passes("sandbox --format json --quiet shell"));
        assert!(!passes("sandbox plan up"));
        assert!(!passes("sandbox"));
    }
}
