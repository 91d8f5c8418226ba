//! The hidden verb of the background process that supervises a sandbox. `up` starts it.

use std::io::{Read as _, Write as _};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::task::JoinSet;
use zeroize::Zeroizing;

use crate::audit::AuditLog;
use crate::commands::connect::connect;
use crate::commands::credential::issue_context;
use crate::commands::load::{Target, actor, manifest};
use crate::commands::{Context, Failure, port, proxy, up};
use crate::credential::IssueContext;
use crate::credential::held::Held;
use crate::engine::Engine;
use crate::gateway::protocol::SecretFile;
use crate::init::frame::RunRequest;
use crate::session::identity::{Role, SandboxId};
use crate::session::journal::Journal;
use crate::session::ports::{self, Forwarder};
use crate::session::stream_client::{CommandInput, CommandStreams};
use crate::session::{launch, supervise};

/// How long a command that was cut off waits for its container.
const RESTART_LIMIT: Duration = Duration::from_secs(60);
/// The largest request on standard input, in bytes.
pub(super) const REQUEST_LIMIT: usize = 4 << 20;

/// What `up` hands over on standard input.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Request {
    /// The background command, if there is one.
    pub(super) command: Option<RunRequest>,
    /// Tokens that only they themselves can end.
    pub(super) held: Vec<SecretFile>,
}

/// Arguments of `supervise`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Which sandbox.
    #[command(flatten)]
    pub target: Target,
}

/// Supervises until the session ends. `up` starts it while the containers start; it waits for a `Request` as JSON on
/// standard input, and ends at once when there is none. It says `supervising` on standard output once `up` may leave.
///
/// # Errors
/// When the sandbox cannot be supervised.
pub async fn run(context: &Context, args: &Args) -> Result<u8, Failure> {
    let failed = |error: std::io::Error| Failure::system("supervisor", "supervise", &error, "start it by `sandbox up`");
    // A session of its own, so that closing the terminal does not end it.
    let _ = rustix::process::setsid();
    let (_, manifest) = manifest(context, args.target.project.as_deref())?;
    let id = SandboxId { project: manifest.project.clone(), name: args.target.name.clone() };
    let journal = Journal::of(&context.folders.state, &id);
    let engine = connect(context).await?;
    // It may hold tokens, so it is wiped, and has its size from the start: growing would leave copies behind.
    let mut request = Zeroizing::new(Vec::with_capacity(REQUEST_LIMIT));
    std::io::stdin().take(REQUEST_LIMIT as u64).read_to_end(&mut request).map_err(failed)?;
    if request.is_empty() {
        // The launch failed, or `up` was killed in it.
        return Ok(0);
    }
    let request: Request = serde_json::from_slice(&request).map_err(|error| failed(error.into()))?;
    let Request { command, held } = request;
    let _claim = supervise::claim(&journal)?;
    let (actor, _) = actor();
    let audit = AuditLog::open(&context.folders.state)?;
    let launched = journal.read()?;
    let issue = issue_context(context, &manifest.project, &manifest.root, &args.target.name, &actor, "rotation");
    let issue = IssueContext {
        held: Held::of(held),
        session: launched.as_ref().map(|record| record.session.as_str().to_owned()),
        ..issue
    };
    // A supervisor that cannot have it can do all else.
    let proxy_log_in = proxy::log_in(context, &issue).await.unwrap_or_else(|failure| {
        tracing::warn!(failure = %failure.what, "a gateway that is started again will not log in at the proxy");
        None
    });
    let (restarts, restarted) = watch::channel(0);
    let background = match command {
        None => None,
        Some(command) => {
            let session = supervise::join(&journal).await?;
            let client = launch::open_session(&engine, &id.object(Role::Agent)).await?;
            let (engine, agent) = (engine.clone(), id.object(Role::Agent));
            let noted = match &launched {
                Some(record) => Some((record.clone(), up::note_start(&audit, &actor, record, &command.command)?)),
                None => None,
            };
            let (actor, state) = (actor.clone(), context.folders.state.clone());
            Some(tokio::spawn(async move {
                let code = run_detached(&engine, &agent, client, command, restarted).await;
                if let (Some((record, id)), Ok(audit)) = (noted, AuditLog::open(&state))
                    && let Err(error) = audit.append(&up::end_of_command(&actor, &record, &id, code))
                {
                    tracing::error!(%error, "the end of the background command was not recorded");
                }
                drop(session);
            }))
        }
    };
    // Before `up` is told, so that it can say where the ports are.
    let (complaints, complained) = tokio::sync::mpsc::channel(1);
    drop(complained);
    let forwarder = Forwarder::new(engine.clone(), id.object(Role::Agent), complaints);
    let mut forwarding = JoinSet::new();
    let record = journal.read()?;
    for listening in ports::listen_as_planned(&journal).await? {
        if let Some(record) = &record {
            audit.append(&port::opened(&actor, record, listening.forward))?;
        }
        forwarding.spawn(forwarder.clone().serve(listening));
    }
    let mut output = std::io::stdout();
    output.write_all(b"supervising\n").and_then(|()| output.flush()).map_err(failed)?;
    let input = supervise::SuperviseInput {
        engine: &engine,
        state: &context.folders.state,
        journal,
        actor: &actor,
        audit: &audit,
        issue,
        proxy_log_in,
    };
    let supervised = supervise::supervise(input, &restarts).await;
    if !forwarding.is_empty() {
        drop(forwarding);
        if let Some(record) = &record {
            audit.append(&port::closed(&actor, record, &forwarder))?;
        }
    }
    supervised?;
    if let Some(background) = background {
        background.abort();
    }
    Ok(0)
}

/// Runs a command that nobody looks at: its output goes to the container's log. When the agent's container is started
/// again, so is the command.
async fn run_detached(
    engine: &Engine,
    agent: &str,
    mut client: launch::ExecSession,
    command: RunRequest,
    mut restarted: watch::Receiver<u32>,
) -> Option<u8> {
    loop {
        let (sender, input) = tokio::sync::mpsc::channel(1);
        // The command sees the end of its input at once.
        let _ = sender.send(CommandInput::End).await;
        let streams = CommandStreams { input, output: tokio::io::sink(), errors: tokio::io::sink() };
        match client.run(command.clone(), streams).await {
            Ok(code) => {
                tracing::info!(code, "the background command ended");
                return Some(code);
            }
            Err(error) => tracing::info!(%error, "the background command was cut off"),
        }
        match tokio::time::timeout(RESTART_LIMIT, restarted.changed()).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) | Err(_) => return None,
        }
        match launch::open_session(engine, agent).await {
            Ok(opened) => client = opened,
            Err(error) => {
                tracing::error!(%error, "the background command was not started again");
                return None;
            }
        }
    }
}
