//! `sandbox down`: revokes, stops and removes a sandbox; `sandbox gc`: the same for what was cut off.

use std::time::{Duration, Instant};

use serde::Serialize;

use crate::audit::AuditLog;
use crate::commands::connect::connect;
use crate::commands::load::{Target, machine_key};
use crate::commands::up::take_lock;
use crate::commands::{Context, Failure, commits, kept_home, sandbox};
use crate::image::reference::Digest;
use crate::init::frame::Tip;
use crate::session::identity::SandboxId;
use crate::session::journal::{Journal, Phase};
use crate::session::reconcile::{Condition, reconcile, reconcile_all};
use crate::session::teardown;
use crate::session::{launcher_image, launcher_versions};

/// How long a look at commits that are to be lost may take.
const LOOK_LIMIT: Duration = Duration::from_secs(20);
/// The most branches that are named as lost.
const LOST: usize = 20;
/// How long the supervisor may take to leave after the session ended: it waits for an issuer that was being asked.
const SUPERVISOR_LIMIT: Duration = Duration::from_secs(50);

/// Arguments of `down`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Which sandbox.
    #[command(flatten)]
    pub target: Target,
    /// Lose commits that were not pulled
    #[arg(long)]
    pub discard: bool,
    /// Also remove the home that `workspace.home: keep` keeps
    #[arg(long)]
    pub discard_home: bool,
}

/// Arguments of `gc`.
#[derive(Debug, clap::Args)]
pub struct GcArgs {
    /// Only say what would be removed
    #[arg(long)]
    pub dry_run: bool,
}

/// What `gc` found.
#[derive(Debug, Serialize)]
struct Garbage {
    sandboxes: Vec<Collected>,
    /// Configuration digests of the images that earlier versions of the launcher loaded.
    launcher_images: Vec<Digest>,
}

fn describe(garbage: &Garbage, dry_run: bool) -> String {
    let mut lines: Vec<String> = (garbage.sandboxes.iter())
        .map(|one| {
            let verb = if one.removed { "cleaned up" } else { "would clean up" };
            format!("{verb} {} ({})\n", one.project, one.name)
        })
        .collect();
    let verb = if dry_run { "would remove" } else { "removed" };
    lines.extend(garbage.launcher_images.iter().map(|digest| {
        format!("{verb} the image and the helper volume of another version of sandbox ({})\n", digest.short())
    }));
    if lines.is_empty() { "nothing to clean up".to_owned() } else { lines.concat() }
}

/// Takes a sandbox down.
///
/// # Errors
/// When it has commits that were not pulled, or something could not be removed.
pub async fn run(context: &Context, args: &Args) -> Result<u8, Failure> {
    let engine = connect(context).await?;
    if args.discard_home && kept_home::discard(context, &engine, &args.target).await? {
        return Ok(0);
    }
    let found = sandbox::find(context, &engine, &args.target).await?;
    let journal = Journal::of(&context.folders.state, &found.record.id);
    let lock = take_lock(context, &journal).await?;
    // Only now nobody else changes it.
    let key = machine_key(context)?;
    let state = reconcile(&engine, &context.folders.state, &key, &found.record.id).await?;
    let Some(mut record) = state.record.clone() else {
        context.printer.note(&format!("{} is down already", found.record.id));
        return Ok(0);
    };
    let sandbox = sandbox::Sandbox { state, record: record.clone() };
    let project = args.target.project.as_deref();
    if args.discard {
        note_discarded(context, &engine, &sandbox, project).await?;
    } else {
        commits::refuse_unpulled(context, &engine, &sandbox, project).await?;
    }
    if record.phase != Phase::Stopped || record.owes() {
        sandbox::stop(context, &engine, &journal, &mut record, "sandbox down").await?;
    }
    wait_for_supervisor(&journal).await;
    // The supervisor may have written the journal once more while it left.
    let mut record = journal.read()?.unwrap_or(record);
    if record.owes() {
        sandbox::stop(context, &engine, &journal, &mut record, "sandbox down").await?;
    }
    let complaints = teardown::remove(&engine, &key, &journal, &record, args.discard_home).await;
    drop(lock);
    let audit = AuditLog::open(&context.folders.state)?;
    let (actor, _) = super::load::actor();
    let outcome = if complaints.is_empty() { "ok" } else { "failed" };
    audit.append(&crate::session::launch::event(&actor, &record, "session.removed", outcome, &[]))?;
    let whole = complaints.is_empty();
    if record.keep_home {
        let action = if args.discard_home { "home.removed" } else { "home.kept" };
        audit.append(&crate::session::launch::event(&actor, &record, action, outcome, &[]))?;
    }
    audit.anchor()?;
    sandbox::report(context, complaints);
    if whole {
        // What is in the log can be asked for later; a log that cannot be read must not make this a failure.
        let report = super::report::session(context, &args.target, Some(record.session.as_str())).ok();
        let home_kept = record.keep_home && !args.discard_home;
        let summary = serde_json::json!({
            "project": record.id.project, "name": record.id.name, "removed": true, "home_kept": home_kept,
            "report": report,
        });
        context.printer.result(&summary, || {
            let page = report.as_ref().map(super::report::describe).unwrap_or_default();
            let removed = if home_kept {
                "containers and clone removed; the agent's home is kept for the next `up`"
            } else {
                "containers and volumes removed"
            };
            let hint = sandbox::report_hint(&record.id);
            format!("{page}\n{} is down: credentials withdrawn, {removed}\n{hint}", record.id)
        });
    }
    Ok(u8::from(!whole))
}

/// Records which commits go unseen. A sandbox that cannot be looked at any more is taken down all the same.
async fn note_discarded(
    context: &Context,
    engine: &crate::engine::Engine,
    sandbox: &sandbox::Sandbox,
    project: Option<&str>,
) -> Result<(), Failure> {
    let looked = tokio::time::timeout(LOOK_LIMIT, commits::unpulled(context, engine, sandbox, project)).await;
    let lost = match looked {
        Ok(Ok(tips)) if tips.is_empty() => return Ok(()),
        Ok(Ok(tips)) => tips,
        Ok(Err(_)) | Err(_) => vec![Tip { name: sandbox.record.branch.clone(), commit: "unknown".to_owned() }],
    };
    let names: Vec<&str> = lost.iter().take(LOST).map(|tip| short_name(&tip.name)).collect();
    let event = crate::session::launch::event(
        &super::load::actor().0,
        &sandbox.record,
        "commits.discarded",
        "ok",
        &[("head", &lost[0].commit), ("branch", &names.join(", "))],
    );
    AuditLog::open(&context.folders.state)?.append(&event)?;
    Ok(())
}

fn short_name(name: &str) -> &str {
    name.strip_prefix("refs/heads/").unwrap_or(name)
}

/// Waits until the supervisor of a session that ended has left, for as long as it may take.
pub async fn wait_for_supervisor(journal: &Journal) {
    let begun = Instant::now();
    while begun.elapsed() < SUPERVISOR_LIMIT && crate::session::supervise::claim(journal).is_err() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[derive(Debug, Serialize)]
struct Collected {
    project: String,
    name: String,
    condition: Condition,
    removed: bool,
}

/// Ends and removes what was cut off. A stopped sandbox with its clone is not rubbish and stays.
///
/// # Errors
/// When engine or journals cannot be read.
pub async fn gc(context: &Context, args: &GcArgs) -> Result<u8, Failure> {
    let engine = connect(context).await?;
    let key = machine_key(context)?;
    let mut collected = Vec::new();
    for state in reconcile_all(&engine, &context.folders.state, &key).await? {
        if !matches!(state.condition, Condition::Half) {
            continue;
        }
        let removed = !args.dry_run && collect(context, &engine, &state.id).await?;
        collected.push(Collected {
            project: state.id.project.to_string(),
            name: state.id.name.to_string(),
            condition: state.condition,
            removed,
        });
    }
    let own = launcher_image::describe(&context.folders.cache)?;
    let earlier = launcher_versions::remove_others(&engine, &context.folders.state, &own.config, args.dry_run).await?;
    let garbage = Garbage { sandboxes: collected, launcher_images: earlier };
    context.printer.result(&garbage, || describe(&garbage, args.dry_run));
    Ok(0)
}

async fn collect(context: &Context, engine: &crate::engine::Engine, id: &SandboxId) -> Result<bool, Failure> {
    let journal = Journal::of(&context.folders.state, id);
    let _lock = take_lock(context, &journal).await?;
    let key = machine_key(context)?;
    let mut state = reconcile(engine, &context.folders.state, &key, id).await?;
    state.condition = sandbox::settled(&state);
    if state.condition != Condition::Half {
        return Ok(false);
    }
    let Some(mut record) = state.record.clone() else {
        sandbox::remove_found(engine, &state).await?;
        return Ok(true);
    };
    sandbox::stop(context, engine, &journal, &mut record, "the session was cut off").await?;
    if record.start.is_empty() {
        sandbox::report(context, teardown::remove(engine, &key, &journal, &record, false).await);
    } else {
        // The clone may hold commits, so it stays until `down`.
        sandbox::report(context, sandbox::remove_containers(engine, &key, &record).await);
    }
    Ok(true)
}
