//! `sandbox logs`: what the sandbox's main command printed.

use futures_util::StreamExt as _;

use crate::commands::connect::connect;
use crate::commands::load::Target;
use crate::commands::{Context, Failure, sandbox};
use crate::engine::stream::Chunk;
use crate::session::identity::Role;

/// Arguments of `logs`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Which sandbox.
    #[command(flatten)]
    pub target: Target,
    /// Go on until the sandbox ends
    #[arg(long, short)]
    pub follow: bool,
    /// Only so many of the last lines
    #[arg(long, value_name = "LINES")]
    pub tail: Option<u64>,
}

/// Prints the log, made harmless for a terminal.
///
/// # Errors
/// When there is no such sandbox, or the engine fails.
pub async fn run(context: &Context, args: &Args) -> Result<u8, Failure> {
    let engine = connect(context).await?;
    let found = sandbox::find(context, &engine, &args.target).await?;
    let log = engine.logs(&found.record.id.object(Role::Agent), args.follow, args.tail);
    tokio::pin!(log);
    while let Some(chunk) = log.next().await {
        match chunk? {
            Chunk::Out(bytes) | Chunk::Err(bytes) => context.printer.untrusted(&bytes),
        }
    }
    Ok(0)
}
