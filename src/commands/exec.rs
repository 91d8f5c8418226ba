//! `sandbox exec` and `sandbox shell`: another command in the running sandbox, with this process's own streams.

use crate::commands::connect::connect;
use crate::commands::load::Target;
use crate::commands::up::{run_command, run_request};
use crate::commands::{Context, Failure, sandbox};
use crate::project::SandboxName;
use crate::session::identity::Role;
use crate::session::journal::{Journal, Phase};
use crate::session::reconcile::Condition;
use crate::session::{launch, supervise};

/// Arguments of `exec`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// A project's name or folder
    #[arg(value_name = "PROJECT")]
    pub project: String,
    /// Which of several sandboxes of the project
    #[arg(long, value_name = "NAME", default_value = "main")]
    pub name: SandboxName,
    /// The command and its arguments
    #[arg(last = true, required = true, value_name = "CMD")]
    pub command: Vec<String>,
}

/// Arguments of `shell`.
#[derive(Debug, clap::Args)]
pub struct ShellArgs {
    /// Which sandbox.
    #[command(flatten)]
    pub target: Target,
}

/// Runs a command in the running sandbox and gives its exit code.
///
/// # Errors
/// When the sandbox does not run; exit code 125.
pub async fn run(context: &Context, args: Args) -> Result<u8, Failure> {
    let target = Target { project: Some(args.project), name: args.name };
    run_in(context, &target, args.command).await
}

/// Runs a login shell in the running sandbox.
///
/// # Errors
/// As [`run`].
pub async fn shell(context: &Context, args: &ShellArgs) -> Result<u8, Failure> {
    run_in(context, &args.target, vec!["/bin/bash".to_owned(), "-l".to_owned()]).await
}

async fn run_in(context: &Context, target: &Target, command: Vec<String>) -> Result<u8, Failure> {
    let engine = connect(context).await?;
    let found = sandbox::find(context, &engine, target).await?;
    if !matches!(found.state.condition, Condition::Running | Condition::Unsupervised) {
        return Err(sandbox::not_running(&found.record));
    }
    let journal = Journal::of(&context.folders.state, &found.record.id);
    let _session = supervise::join(&journal).await?;
    // The session may have ended while this waited for it.
    let now = journal.read()?;
    if !now.is_some_and(|now| now.session == found.record.session && now.phase == Phase::Running) {
        return Err(sandbox::not_running(&found.record));
    }
    let agent = found.record.id.object(Role::Agent);
    let client = launch::open_session(&engine, &agent).await?;
    run_command(context, &journal, &found.record, client, run_request(&found.record, command, false)).await
}
