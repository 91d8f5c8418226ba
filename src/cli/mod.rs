//! The command line: arguments, start, exit codes. Only this module and `commands` know clap.

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::commands::{self, Context, Failure};

/// Runs coding agents in contained Docker sandboxes, with credentials that belong to one project alone.
#[derive(Debug, Parser)]
#[command(name = "sandbox", version, propagate_version = true)]
struct Arguments {
    #[command(flatten)]
    global: commands::GlobalArguments,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Print the JSON Schema of sandbox.yaml
    #[command(hide = true)]
    Version,
    /// PID 1 of the agent's container
    #[command(hide = true)]
    Init,
    /// Serve a session inside the agent's container
    #[command(hide = true)]
    Session,
    /// Become a command on a terminal
    #[command(hide = true)]
    TerminalChild {
        /// The program's path
        program: std::ffi::OsString,
        /// The name it sees and its arguments
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<std::ffi::OsString>,
    },
}

/// Parses the arguments, runs the verb, prints a failure and gives the exit code.
pub fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let context = Context::new(arguments.global);
    let result: Result<u8, Failure> = match arguments.verb {
        Verb::Version => Ok(0),
        Verb::Init => return crate::init::main(),
        Verb::Session => return crate::init::session::main(),
        Verb::TerminalChild { program, arguments } => return crate::init::terminal_child::main(program, arguments),
    };
    match result {
        Ok(code) => ExitCode::from(code),
        Err(failure) => ExitCode::from(context.printer.failure(&failure)),
    }
}
