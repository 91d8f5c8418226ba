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
    /// Lock, build and check agent images
    Image(commands::image::ImageArguments),
    /// Print the JSON Schema of sandbox.yaml
    #[command(hide = true)]
    Version,
}

/// Parses the arguments, runs the verb, prints a failure and gives the exit code.
pub fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let context = Context::new(arguments.global);
    let result: Result<u8, Failure> = match arguments.verb {
        Verb::Image(arguments) => commands::image::run(&context, &arguments),
        Verb::Version => Ok(0),
    };
    match result {
        Ok(code) => ExitCode::from(code),
        Err(failure) => ExitCode::from(context.printer.failure(&failure)),
    }
}
