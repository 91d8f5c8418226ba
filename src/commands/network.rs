//! `sandbox network`: what a running sandbox may reach, what it asked for, and changes without a restart.
//!
//! A change is by a person, at a terminal of the developer's: the agent has no way to it. It ends with the session.

mod change;
mod decisions;
mod learn;
mod listing;
mod observed;
mod presets;

pub use change::apply;

use crate::commands::load::Target;
use crate::commands::{Context, Failure};
use crate::network::name::{HostNameError, HostPattern};
use crate::project::SandboxName;

/// Arguments of `network`.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// List what the sandbox may reach, by which line, and what went through
    Ls(ListArgs),
    /// Show what the gateway decided in this session
    Log(LogArgs),
    /// Let the running sandbox reach a host, until its session ends
    Allow(AllowArgs),
    /// Deny the running sandbox a host, until its session ends; what is open to it is cut off
    Deny(DenyArgs),
    /// Print the narrowest list that would have allowed what a session asked for, the last one or one for CMD; changes nothing
    Learn(LearnArgs),
    /// List the presets of `network.allow`, or show one
    Presets(PresetsArgs),
}

/// Arguments of `network learn`.
#[derive(Debug, clap::Args)]
struct LearnArgs {
    /// Which sandbox.
    #[command(flatten)]
    target: Target,
    /// The session's id; the last session when left out
    #[arg(long, value_name = "ID", conflicts_with_all = ["observe", "command"])]
    session: Option<String>,
    /// Let CMD reach every public host on the ports 80 and 443, without any credential, and record its requests; asks first
    #[arg(long)]
    observe: bool,
    /// Do not ask, with --observe
    #[arg(long, requires = "observe")]
    yes: bool,
    /// Run this in a session, and learn from that; what is not listed is denied, and recorded
    #[arg(last = true, value_name = "CMD")]
    command: Vec<String>,
}

/// Arguments of `network presets`.
#[derive(Debug, clap::Args)]
struct PresetsArgs {
    /// The preset to show, as a file to copy and change
    #[arg(value_name = "PRESET")]
    preset: Option<String>,
}

/// Arguments of `network ls`.
#[derive(Debug, clap::Args)]
struct ListArgs {
    /// Which sandbox.
    #[command(flatten)]
    target: Target,
}

/// Arguments of `network log`.
#[derive(Debug, clap::Args)]
struct LogArgs {
    /// Which sandbox.
    #[command(flatten)]
    target: Target,
    /// Go on until the session ends; as JSON, one document a line
    #[arg(long, short)]
    follow: bool,
    /// Only what was denied
    #[arg(long)]
    denied: bool,
}

/// Arguments of `network allow`.
#[derive(Debug, clap::Args)]
struct AllowArgs {
    /// A project's name or folder
    #[arg(value_name = "PROJECT")]
    project: String,
    /// A host such as api.example.com or `*.example.com`, on port 443 unless one is named
    #[arg(value_name = "HOST[:PORT]")]
    destination: String,
    /// A method such as GET, to allow requests to this path alone
    #[arg(value_name = "METHOD", requires = "path")]
    method: Option<String>,
    /// A path such as `/acme/**`
    #[arg(value_name = "PATH")]
    path: Option<String>,
    /// A private network that the host may be in, such as 10.20.0.0/16; within what your configuration permits
    #[arg(long, value_name = "NETWORK")]
    allow_private: Vec<String>,
    /// Which of several sandboxes of the project
    #[arg(long, value_name = "NAME", default_value = "main")]
    name: SandboxName,
}

/// Arguments of `network deny`.
#[derive(Debug, clap::Args)]
struct DenyArgs {
    /// A project's name or folder
    #[arg(value_name = "PROJECT")]
    project: String,
    /// A host such as api.example.com or `*.example.com`; on every port unless one is named
    #[arg(value_name = "HOST[:PORT]")]
    destination: String,
    /// Which of several sandboxes of the project
    #[arg(long, value_name = "NAME", default_value = "main")]
    name: SandboxName,
}

/// Runs the verb.
///
/// # Errors
/// When there is no such sandbox, when it does not run, or when the change is refused.
pub async fn run(context: &Context, arguments: Arguments) -> Result<u8, Failure> {
    match arguments.verb {
        Verb::Ls(args) => listing::run(context, &args.target).await,
        Verb::Log(args) => decisions::run(context, &args.target, args.follow, args.denied).await,
        Verb::Allow(args) => change::allow(context, &args).await,
        Verb::Deny(args) => change::deny(context, &args).await,
        Verb::Learn(args) => learn::run(context, args).await,
        Verb::Presets(args) => presets::run(context, args.preset.as_deref()),
    }
}

/// What is not a destination.
#[derive(Debug, thiserror::Error)]
enum DestinationError {
    #[error("understand the host `{}`", .0.escape_debug())]
    Host(String, #[source] HostNameError),
    #[error("understand the port of `{}`", .0.escape_debug())]
    Port(String),
}

/// Reads `HOST[:PORT]`; the host may be a pattern.
fn destination(text: &str) -> Result<(HostPattern, Option<u16>), Failure> {
    let colon = match text.rfind(']') {
        Some(bracket) => text[bracket..].find(':').map(|offset| bracket + offset),
        None => text.rfind(':'),
    };
    let (host, port) = colon.map_or((text, None), |colon| (&text[..colon], Some(&text[colon + 1..])));
    let next = "write a host such as api.example.com, `*.example.com` or api.example.com:8443";
    let port = port.map(|port| port.parse::<u16>().ok().filter(|port| *port > 0));
    if port == Some(None) {
        return Err(Failure::new("destination", &DestinationError::Port(text.to_owned()), next));
    }
    let host = host
        .parse()
        .map_err(|error| Failure::new("destination", &DestinationError::Host(text.to_owned(), error), next))?;
    Ok((host, port.flatten()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_hosts_with_and_without_a_port() {
        let read = |text: &str| destination(text).map(|(host, port)| (host.to_string(), port)).map_err(|_| ());
        assert_eq!(read("a.example"), Ok(("a.example".to_owned(), None)));
        assert_eq!(read("*.A.example:22"), Ok(("*.a.example".to_owned(), Some(22))));
        assert_eq!(read("[2606:4700::1]:443"), Ok(("[2606:4700::1]".to_owned(), Some(443))));
        for odd in
            ["a.example:0", "a.example:x", "a.example:", ":443", "*", "https://a.example", "*.com", "a\n.example"]
        {
            assert_eq!(read(odd), Err(()), "{odd}");
        }
    }
}
