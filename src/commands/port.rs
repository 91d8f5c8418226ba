//! `sandbox port`: reach a server in the sandbox from this machine, until Ctrl-C or the end of the session.

use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::audit::AuditLog;
use crate::commands::connect::connect;
use crate::commands::load::{Target, actor};
use crate::commands::{Context, Failure, sandbox, up};
use crate::project::{PortForward, SandboxName};
use crate::session::identity::Role;
use crate::session::journal::{Journal, Phase, Record};
use crate::session::launch::event;
use crate::session::ports::{self, Forwarder, PortError};
use crate::session::reconcile::Condition;

/// How often the journal is asked whether the session goes on.
const LOOK: Duration = Duration::from_millis(500);

/// Arguments of `port`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// A project's name or folder
    #[arg(value_name = "PROJECT")]
    pub project: String,
    /// A port in the sandbox, and the one of this machine where it is not the same
    #[arg(value_name = "PORT[:LOCAL]", required = true)]
    pub ports: Vec<PortForward>,
    /// Which of several sandboxes of the project
    #[arg(long, value_name = "NAME", default_value = "main")]
    pub name: SandboxName,
}

/// A port as it is reported.
#[derive(Debug, Serialize)]
struct Row {
    #[serde(flatten)]
    forward: PortForward,
    url: String,
}

/// Forwards until it is interrupted or the session ends.
///
/// # Errors
/// When the sandbox does not run or a port of this machine cannot be taken.
pub async fn run(context: &Context, args: Args) -> Result<u8, Failure> {
    let engine = connect(context).await?;
    let target = Target { project: Some(args.project), name: args.name };
    let found = sandbox::find(context, &engine, &target).await?;
    let record = &found.record;
    if !matches!(found.state.condition, Condition::Running | Condition::Unsupervised) {
        return Err(sandbox::not_running(record));
    }
    let journal = Journal::of(&context.folders.state, &record.id);
    let mut listening = Vec::new();
    for forward in args.ports {
        listening.push(ports::listen(forward).await?);
    }
    let (actor, _) = actor();
    let audit = AuditLog::open(&context.folders.state)?;
    let (complaints, complained) = mpsc::channel(4);
    let forwarder = Forwarder::new(engine, record.id.object(Role::Agent), complaints);
    let mut rows = Vec::new();
    let mut serving = JoinSet::new();
    for listening in listening {
        let forward = listening.forward;
        audit.append(&opened(&actor, record, forward))?;
        rows.push(Row { forward, url: ports::url(&record.id.project, forward) });
        serving.spawn(forwarder.clone().serve(listening));
    }
    context.printer.result(&rows, || {
        let lines = rows.iter().map(|row| format!("{} is port {} of {}", row.url, row.forward.port, record.id));
        lines.collect::<Vec<_>>().join("\n")
    });
    context.printer.note("the agent serves what you see there; Ctrl-C ends it");
    tokio::select! {
        () = up::interrupted() => {}
        () = ended(&journal, record) => context.printer.note("the session ended"),
        never = tell(context, complained) => match never {},
    }
    drop(serving);
    audit.append(&closed(&actor, record, &forwarder))?;
    Ok(0)
}

/// The audit event of a port that is opened.
pub(super) fn opened(actor: &str, record: &Record, forward: PortForward) -> crate::audit::event::AuditEvent {
    let (port, local) = (forward.port.to_string(), forward.local.to_string());
    event(actor, record, "port.opened", "ok", &[("port", &port), ("local", &local)])
}

/// The audit event of a process that forwards no more.
pub(super) fn closed(actor: &str, record: &Record, forwarder: &Arc<Forwarder>) -> crate::audit::event::AuditEvent {
    let facts = forwarder.traffic().facts();
    let facts: Vec<(&str, &str)> = facts.iter().map(|(name, value)| (*name, value.as_str())).collect();
    event(actor, record, "port.closed", "ok", &facts)
}

/// Returns when the session is over.
async fn ended(journal: &Journal, record: &Record) {
    loop {
        // A journal that cannot be read now may be readable again.
        if let Ok(now) = journal.read()
            && !now.is_some_and(|now| now.session == record.session && now.phase == Phase::Running)
        {
            return;
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Prints why connections fail, the same reason once: a browser tries again and again.
async fn tell(context: &Context, mut complained: mpsc::Receiver<String>) -> std::convert::Infallible {
    let mut last = String::new();
    while let Some(complaint) = complained.recv().await {
        if complaint != last {
            context.printer.note(&super::printer::sanitise(&complaint));
            last = complaint;
        }
    }
    std::future::pending().await
}

impl From<PortError> for Failure {
    fn from(error: PortError) -> Self {
        match error {
            PortError::Taken(port) => {
                let next =
                    format!("give another one: `sandbox port PROJECT PORT:LOCAL`; `ss -ltnp` shows who has {port}");
                Failure::new("port-taken", &error, next)
            }
            PortError::Listen { .. } => {
                Failure::new("port-refused", &error, "give another one from 1024 on: `sandbox port PROJECT PORT:LOCAL`")
            }
        }
    }
}
