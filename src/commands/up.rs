//! `sandbox up`: starts or joins the project's sandbox and runs the agent, or another command.

use std::fs::File;
use std::io::{IsTerminal as _, Write as _};
use std::path::Path;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use tokio::sync::watch;

use crate::audit::{AuditLog, spoken};
use crate::commands::connect::connect;
use crate::commands::credential::issue_context;
use crate::commands::load::{Loaded, Overrides, Target, actor, load, machine_key};
use crate::commands::progress::Progress;
use crate::commands::sandbox::{self, Sandbox, remove_containers};
use crate::commands::supervise::Request;
use crate::commands::supervisor::Supervisor;
use crate::commands::{Context, Failure, commits, cut_off, init, kept_home, network, proxy, trust};
use crate::engine::Engine;
use crate::image::ImageContext;
use crate::image::reference::ImageChoice;
use crate::init::frame::RunRequest;
use crate::project::preset;
use crate::session::identity::lock_file;
use crate::session::journal::{Journal, Phase, Record};
use crate::session::launch::{self, AgentImage, ExecSession, KeptClone, LaunchInput};
use crate::session::plan::WORKSPACE;
use crate::session::reconcile::{Condition, SandboxState, reconcile};
use crate::session::{ports, supervise, teardown, terminal};
use crate::workspace::tracked_secrets::TrackedSecret;
use crate::workspace::{SourceState, WorkspaceError, source, tracked_secrets};

/// How long the end of a session may take before `up` stops waiting for it.
const END_LIMIT: Duration = Duration::from_secs(30);

/// How many credentials in tracked files are named one by one.
const SHOWN: usize = 10;

/// Arguments of `up`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Which sandbox.
    #[command(flatten)]
    pub target: Target,
    /// Run in the background; `sandbox logs -f` follows
    #[arg(long)]
    pub detach: bool,
    /// Another image than the manifest's: a name in images/ or a reference with a digest
    #[arg(long, value_name = "REF")]
    pub image: Option<String>,
    /// Another confinement profile than the manifest's
    #[arg(long, value_name = "PROFILE")]
    pub profile: Option<String>,
    /// Start from a new clone and a new home; refuses while there are commits that were not pulled
    #[arg(long)]
    pub fresh: bool,
    /// Fetch nothing, and expect that no host answers
    #[arg(long)]
    pub offline: bool,
    /// Print the plan and stop
    #[arg(long)]
    pub dry_run: bool,
    /// Set by `network learn --observe`, which asks first.
    #[arg(skip)]
    pub observe: bool,
    /// The command, in place of the manifest's
    #[arg(last = true, value_name = "CMD")]
    pub command: Vec<String>,
}

impl Args {
    /// For a session that `network learn` runs.
    pub(super) fn for_learning(target: Target, command: Vec<String>, observe: bool) -> Self {
        Self {
            target,
            detach: false,
            image: None,
            profile: None,
            fresh: false,
            offline: false,
            dry_run: false,
            observe,
            command,
        }
    }
}

/// Starts or joins, runs the command, and gives its exit code.
///
/// # Errors
/// When the sandbox cannot be started; every failure has exit code 125.
pub async fn run(context: &Context, args: &Args) -> Result<u8, Failure> {
    let overrides = Overrides {
        image: args.image.as_deref().map(str::parse::<ImageChoice>).transpose()?,
        profile: args.profile.clone(),
        observe: args.observe,
    };
    let loaded = match load(context, &args.target, &overrides) {
        Err(missing) if missing.code == "manifest-missing" && args.target.project.is_none() => {
            init::offer(context, missing)?;
            load(context, &args.target, &overrides)?
        }
        loaded => loaded?,
    };
    if args.dry_run {
        context.printer.described(&loaded.plan, || super::plan::describe(&loaded.plan));
        return Ok(0);
    }
    trust::require(context, &loaded.manifest_path, &loaded.manifest)?;
    let engine = connect(context).await?;
    let journal = Journal::of(&context.folders.state, &loaded.plan.id);
    let started = start(context, args, &loaded, &engine, &journal).await?;
    let Ready { record, client, sessions, joined } = started;
    if context.printer.json() && args.detach {
        context.printer.result(&record_summary(&record), String::new);
    }
    if args.detach {
        if !context.printer.json() {
            let project = &record.id.project;
            context.printer.note(&match (joined, is_shell(args, &loaded)) {
                (true, _) => format!("{} runs already; follow it with `sandbox logs -f {project}`", record.id),
                (false, false) => {
                    format!("{} runs in the background; follow it with `sandbox logs -f {project}`", record.id)
                }
                (false, true) => format!(
                    "{} is up until `sandbox down {project}`; `sandbox shell {project}` opens a shell in it",
                    record.id
                ),
            });
        }
        return Ok(0);
    }
    let request = run_request(&record, command(args, &loaded), !joined);
    let ran = run_command(context, &journal, &record, client, request).await;
    end(context, &journal, sessions, &record).await;
    ran
}

fn record_summary(record: &Record) -> serde_json::Value {
    serde_json::json!({
        "project": record.id.project,
        "name": record.id.name,
        "session": record.session.as_str(),
        "plan_hash": record.plan_hash,
    })
}

/// The command of the command line, or the manifest's.
fn command(args: &Args, loaded: &Loaded) -> Vec<String> {
    if args.command.is_empty() { loaded.plan.command.clone() } else { args.command.clone() }
}

/// Whether there is a shell to run in the background, which nobody could type into.
fn is_shell(args: &Args, loaded: &Loaded) -> bool {
    args.command.is_empty() && loaded.plan.command == preset::SHELL
}

/// The command that runs in the background. In the place of a shell, which would end at once, something that only stays, so
/// that `shell`, `exec` and an editor's tasks find the sandbox until `down`.
fn background_command(args: &Args, loaded: &Loaded) -> Vec<String> {
    if is_shell(args, loaded) { ["sleep", "infinity"].map(str::to_owned).to_vec() } else { command(args, loaded) }
}

/// A request to run a command in a sandbox.
pub fn run_request(record: &Record, command: Vec<String>, log: bool) -> RunRequest {
    let mut environment = record.environment.clone();
    if let Ok(term) = std::env::var("TERM")
        && term.len() <= 40
        && term.bytes().all(|byte| byte.is_ascii_graphic())
    {
        environment.insert("TERM".to_owned(), term);
    }
    RunRequest {
        command,
        environment,
        secret_environment: record.secret_environment.clone(),
        links: record.links.clone(),
        directory: WORKSPACE.to_owned(),
        terminal: None,
        log,
    }
}

/// Runs a command on an open session, with this process's own streams.
///
/// # Errors
/// When the session fails; a command that fails is an exit code.
pub async fn run_command(
    context: &Context,
    journal: &Journal,
    record: &Record,
    mut client: ExecSession,
    mut request: RunRequest,
) -> Result<u8, Failure> {
    let begun = Timestamp::now();
    if std::io::stdin().is_terminal() && std::io::stdout().is_terminal() {
        request.terminal = terminal::own_size();
    }
    let audit = AuditLog::open(&context.folders.state)?;
    let actor = actor().0;
    let id = note_start(&audit, &actor, record, &request.command)?;
    let ran = terminal::run_interactive(&mut client, request).await;
    audit.append(&end_of_command(&actor, record, &id, ran.as_ref().ok().copied()))?;
    match ran {
        Err(error) => match error.exit_code() {
            Some(code) => {
                let next = "see what the image has with `sandbox exec PROJECT -- ls /usr/bin`";
                Err(Failure::told("command", &error, next).with_exit(code))
            }
            None => Err(cut_off::explain(journal, record, begun, error).await),
        },
        Ok(code) => Ok(code),
    }
}

/// Records that a command is started, and gives what its end is told by.
///
/// # Errors
/// When it cannot be recorded; then it is not started.
pub fn note_start(
    audit: &AuditLog,
    actor: &str,
    record: &Record,
    command: &[String],
) -> Result<String, crate::audit::AuditError> {
    let id = format!("{}-{}", std::process::id(), Timestamp::now().as_microsecond());
    let shown = spoken::command(command);
    audit.append(&launch::event(actor, record, "command.started", "ok", &[("command", &shown), ("id", &id)]))?;
    Ok(id)
}

/// The event of a command's end; without a code it was cut off.
pub fn end_of_command(actor: &str, record: &Record, id: &str, code: Option<u8>) -> crate::audit::event::AuditEvent {
    let outcome = if code.is_some() { "ok" } else { "failed" };
    let code = code.map(|code| code.to_string()).unwrap_or_default();
    launch::event(actor, record, "command.ended", outcome, &[("id", id), ("code", &code)])
}

struct Ready {
    record: Record,
    client: ExecSession,
    sessions: File,
    joined: bool,
}

async fn start(
    context: &Context,
    args: &Args,
    loaded: &Loaded,
    engine: &Engine,
    journal: &Journal,
) -> Result<Ready, Failure> {
    let state = &context.folders.state;
    let key = machine_key(context)?;
    let lock = take_lock(context, journal).await?;
    let found = loop {
        let mut found = reconcile(engine, state, &key, &loaded.plan.id).await?;
        // The lock is ours, so nobody else is at work.
        if found.condition == Condition::Changing {
            found.condition = sandbox::settled(&found);
        }
        sandbox::refuse_foreign(&found)?;
        let Some(record) = &found.record else { break found };
        if !matches!(found.condition, Condition::Running | Condition::Unsupervised) {
            break found;
        }
        // A supervisor that ends the session holds this lock until it has.
        let sessions = supervise::join(journal).await?;
        let now = journal.read()?;
        if !now.is_some_and(|now| now.session == record.session && now.phase == Phase::Running) {
            continue;
        }
        if record.plan_hash != loaded.plan.plan_hash {
            network::apply(context, engine, journal, record, &loaded.plan).await?;
        }
        let record = journal.read()?.unwrap_or_else(|| record.clone());
        return join(context, args, loaded, engine, &found, record, sessions, lock).await;
    };
    let source = source::inspect(&loaded.manifest.workspace.source, &loaded.manifest.workspace)?;
    let kept = clear(context, args, loaded, engine, journal, &found, &source).await?;
    let home = kept_home::find(engine, &key, loaded, &found).await?.filter(|_| kept.is_none());
    warn_of_tracked_secrets(context, loaded, &source, kept.is_some()).await?;
    let progress = Progress::start(&context.printer);
    let image = agent_image(context, args, loaded, engine, &progress).await?;
    let (actor, owner) = actor();
    let audit = AuditLog::open(state)?;
    let issue =
        issue_context(context, &loaded.manifest.project, &loaded.manifest.root, &args.target.name, &actor, "up");
    let report = |step: &'static str| progress.step(step);
    let issuing = watch::Sender::new(false);
    let input = LaunchInput {
        engine,
        state,
        plan: &loaded.plan,
        manifest: &loaded.manifest,
        manifest_path: &loaded.manifest_path,
        launcher: &loaded.launcher,
        image,
        source: &source,
        kept,
        key: &key,
        owner: &owner,
        actor: &actor,
        issue: issue.clone(),
        proxy_log_in: proxy::log_in(context, &issue).await?,
        audit: &audit,
        offline: args.offline,
        issuing: &issuing,
        progress: &report,
    };
    let mut record = launch::intend(&input)?;
    if let Some(home) = &home {
        audit.append(&launch::event(&actor, &record, "home.reused", "ok", &[("since", &home.since)]))?;
        progress.finish();
        context.printer.note(&format!("the agent's home of {} comes along; `--fresh` begins a new one", home.since));
    }
    // It gets ready while the containers start. When the launch fails, the end of its input ends it.
    let supervisor = Supervisor::spawn(context, loaded, args)?;
    let launched = tokio::select! {
        launched = launch::launch(input, &mut record) => launched.map_err(Failure::from),
        () = interrupted_between_issues(&issuing) => Err(sandbox::interrupted()),
    };
    let launched = match launched {
        Ok(launched) => launched,
        Err(failure) => {
            progress.step("taking back what was begun");
            let mut record = journal.read()?.unwrap_or(record);
            let context = teardown::EndContext { state, actor: &actor, audit: &audit, issue };
            let mut complaints = teardown::stop(engine, journal, &mut record, "the launch failed", &context).await;
            // A clone that an earlier session left stays; what this launch made goes.
            complaints.extend(remove_containers(engine, &key, &record).await);
            if record.start.is_empty() && (found.volumes.is_empty() || found.is_kept_home()) {
                let new_home = found.volumes.is_empty();
                complaints.extend(teardown::remove(engine, &key, journal, &record, new_home).await);
            }
            return Err(sandbox::with_complaints(failure, &complaints));
        }
    };
    progress.finish();
    for warning in &launched.warnings {
        context.printer.warning(&super::printer::sanitise(warning));
    }
    for weakness in &loaded.plan.weakened {
        context.printer.warning(&format!("WEAKENED: {weakness}"));
    }
    if let Some(unused) = &loaded.unused_proxy {
        context.printer.warning(&unused.warning());
    }
    crate::project::remember(state, &loaded.manifest)?;
    let sessions = supervise::join(journal).await?;
    let background = args.detach.then(|| run_request(&launched.record, background_command(args, loaded), true));
    supervisor.begin(&Request { command: background, held: issue.held.all() }).await?;
    drop(lock);
    for port in journal.read()?.map(|record| record.ports).unwrap_or_default() {
        match port.problem {
            None => context.printer.note(&format!(
                "port {} is at {}",
                port.forward.port,
                ports::url(&launched.record.id.project, port.forward)
            )),
            Some(problem) => {
                context
                    .printer
                    .warning(&format!("port {} of this machine is not forwarded: {problem}", port.forward.local));
            }
        }
    }
    Ok(Ready { record: launched.record, client: launched.client, sessions, joined: false })
}

/// Says which credentials the repository itself would hand to the agent. Commits without any are remembered, and not looked
/// through again; what is not committed goes into a new clone alone.
async fn warn_of_tracked_secrets(
    context: &Context,
    loaded: &Loaded,
    state: &SourceState,
    kept: bool,
) -> Result<(), Failure> {
    let commits = state.submodules.iter().map(|submodule| format!(" and {}", submodule.commit));
    let seen = format!("{}{} by {}", state.base, commits.collect::<String>(), env!("CARGO_PKG_VERSION"));
    let clean = context.folders.cache.join("without-credentials").join(loaded.manifest.project.as_str());
    let known = std::fs::read_to_string(&clean).is_ok_and(|known| known == seen);
    let uncommitted = loaded.manifest.workspace.include_uncommitted && state.dirty && !kept;
    if known && !uncommitted {
        return Ok(());
    }
    let (source, of) = (loaded.manifest.workspace.source.clone(), state.clone());
    let looked = tokio::task::spawn_blocking(move || {
        let committed = if known { Vec::new() } else { tracked_secrets::of_commits(&source, &of)? };
        let own = if uncommitted { tracked_secrets::of_working_tree(&source)? } else { Vec::new() };
        Ok((committed, own))
    });
    let (committed, own) = match looked.await.map_err(WorkspaceError::Cancelled)? {
        Ok(found) => found,
        // A repository with files that are not here, or larger than git's memory may be, is handed over all the same; what
        // is wrong with it is said then.
        Err(WorkspaceError::Git(error)) => {
            let why = super::printer::sanitise(&error.to_string());
            context.printer.warning(&format!("tracked files were not looked through for credentials: {why}"));
            return Ok(());
        }
        Err(error) => return Err(error.into()),
    };
    if committed.is_empty() && !known {
        // Without the memory the next start looks again, which costs a moment and nothing else.
        let _ = clean.parent().map(std::fs::create_dir_all);
        let _ = std::fs::write(&clean, seen);
    }
    // A file that is changed is told of as it is now.
    let mut found = own;
    found.extend(
        committed
            .into_iter()
            .filter(|one| {
                let again = |other: &TrackedSecret| other.path == one.path && other.reason == one.reason;
                !found.iter().any(again)
            })
            .collect::<Vec<_>>(),
    );
    for secret in found.iter().take(SHOWN) {
        context.printer.warning(&format!(
            "{}:{} {}, and the agent can read it there; take it out of the repository and replace it at its issuer",
            secret.path, secret.line, secret.reason
        ));
    }
    if found.len() > SHOWN {
        context.printer.warning(&format!("{} more credentials are in tracked files", found.len() - SHOWN));
    }
    Ok(())
}

#[expect(clippy::too_many_arguments, reason = "joining needs all that starting has found out")]
async fn join(
    context: &Context,
    args: &Args,
    loaded: &Loaded,
    engine: &Engine,
    found: &SandboxState,
    record: Record,
    sessions: File,
    lock: File,
) -> Result<Ready, Failure> {
    let agent = record.id.object(crate::session::identity::Role::Agent);
    sandbox::verify_agent(engine, &agent, loaded).await?;
    if found.condition == Condition::Unsupervised {
        let background = args.detach.then(|| run_request(&record, background_command(args, loaded), true));
        // It reads the tokens that it needs back from the sandbox.
        let request = Request { command: background, held: Vec::new() };
        Supervisor::spawn(context, loaded, args)?.begin(&request).await?;
    }
    drop(lock);
    let client = launch::open_session(engine, &agent).await?;
    Ok(Ready { record, client, sessions, joined: true })
}

/// Takes the lock under which a sandbox is changed, and says so when somebody else has it.
///
/// # Errors
/// When the lock file cannot be used.
pub async fn take_lock(context: &Context, journal: &Journal) -> Result<File, Failure> {
    let failed = |error: std::io::Error| {
        Failure::system(
            "state-folder",
            "lock the sandbox",
            &error,
            format!("make {} writable for you", journal.folder().display()),
        )
    };
    let lock = lock_file(journal.folder(), "lock").map_err(failed)?;
    match lock.try_lock() {
        Ok(()) => return Ok(lock),
        Err(std::fs::TryLockError::WouldBlock) => {
            context.printer.note("waiting for another `sandbox` command that changes this sandbox");
        }
        Err(std::fs::TryLockError::Error(error)) => return Err(failed(error)),
    }
    tokio::task::spawn_blocking(move || lock.lock().map(|()| lock))
        .await
        .map_err(|error| failed(std::io::Error::other(error)))?
        .map_err(failed)
}

/// Takes away what an earlier session left, but for the clone that is kept.
async fn clear(
    context: &Context,
    args: &Args,
    loaded: &Loaded,
    engine: &Engine,
    journal: &Journal,
    found: &SandboxState,
    source: &source::SourceState,
) -> Result<Option<KeptClone>, Failure> {
    let discard_home = args.fresh || !loaded.manifest.workspace.keep_home;
    let Some(record) = &found.record else {
        if found.is_kept_home() {
            if discard_home {
                kept_home::remove(context, engine, &found.id).await?;
            }
        } else if !found.containers.is_empty() || !found.volumes.is_empty() {
            sandbox::remove_found(engine, found).await?;
        }
        return Ok(None);
    };
    let key = machine_key(context)?;
    let mut record = record.clone();
    if record.phase != Phase::Stopped {
        sandbox::stop(context, engine, journal, &mut record, "the earlier session was cut off").await?;
    }
    let clone_is_whole = !record.start.is_empty() && found.volumes.contains(&crate::session::identity::Role::Workspace);
    if args.fresh && clone_is_whole {
        let sandbox = Sandbox { state: found.clone(), record: record.clone() };
        commits::refuse_unpulled(context, engine, &sandbox, args.target.project.as_deref()).await?;
    }
    sandbox::report(context, remove_containers(engine, &key, &record).await);
    if args.fresh || !clone_is_whole {
        let complaints = teardown::remove(engine, &key, journal, &record, discard_home).await;
        let removed = complaints.is_empty();
        sandbox::report(context, complaints);
        if removed && record.keep_home && discard_home {
            kept_home::note_removal(context, &record.id)?;
        }
        return Ok(None);
    }
    if source.branch != record.branch {
        context.printer.note(&format!(
            "the kept clone is on branch `{}`, your repository on `{}`; `--fresh` starts from the latter",
            record.branch, source.branch
        ));
    }
    Ok(Some(KeptClone {
        branch: record.branch.clone(),
        base: record.base.clone(),
        start: record.start.clone(),
        signers: record.signers.clone(),
    }))
}

async fn agent_image(
    context: &Context,
    args: &Args,
    loaded: &Loaded,
    engine: &Engine,
    progress: &Progress,
) -> Result<AgentImage, Failure> {
    let Some(locked) = &loaded.locked else {
        if let Some(image) = engine.image(&loaded.plan.image.name).await? {
            return Ok(AgentImage::Present(image.id));
        }
        let ImageChoice::Pinned(pinned) = &loaded.manifest.image else {
            return Err(launch::LaunchError::ImageAbsent { reference: loaded.plan.image.name.clone() }.into());
        };
        progress.finish();
        context.printer.note(&format!("pulling `{}`, or taking it from the cache", loaded.plan.image.name));
        let pulled = super::image::registry::fetch(context, pinned, args.offline).await?;
        return Ok(AgentImage::Built(Box::new(pulled)));
    };
    for id in [&locked.config_digest, &locked.manifest_digest] {
        if let Some(found) = engine.image(&id.to_string()).await? {
            return Ok(AgentImage::Present(found.id));
        }
    }
    progress.finish();
    context.printer.note(&format!("building the image `{}` from its lock; this happens once", locked.name));
    let image_context = ImageContext {
        project_root: Some(&loaded.manifest.root),
        cache: &context.folders.cache,
        apt_sources_root: Path::new("/etc/apt"),
        progress: context.printer.progress(),
        offline: args.offline,
        allow_expired: false,
    };
    Ok(AgentImage::Built(Box::new(super::image::dockerfile::ensure(context, &image_context, locked).await?)))
}

pub(super) async fn interrupted() {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut interrupt), Ok(mut terminate)) = (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
    else {
        return std::future::pending().await;
    };
    tokio::select! { _ = interrupt.recv() => {}, _ = terminate.recv() => {} }
}

/// Waits for an interruption and then for the answers of the issuers that are being asked, so that what they give is known
/// and can be revoked. Who interrupts once more does not wait.
async fn interrupted_between_issues(issuing: &watch::Sender<bool>) {
    interrupted().await;
    let mut issuing = issuing.subscribe();
    tokio::select! { _ = issuing.wait_for(|issuing| !issuing) => {}, () = interrupted() => {} }
}

/// Leaves the session. The last to leave waits until the supervisor has revoked the credentials and stopped the
/// containers.
async fn end(context: &Context, journal: &Journal, sessions: File, record: &Record) {
    // Turning the shared lock into an exclusive one works for the last holder alone.
    let last = sessions.try_lock().is_ok();
    drop(sessions);
    let begun = Instant::now();
    let mut limit = if last { END_LIMIT } else { Duration::from_millis(300) };
    let mut phase = Phase::Running;
    while begun.elapsed() < limit {
        match journal.read() {
            Ok(Some(now)) if now.session == record.session => phase = now.phase,
            _ => phase = Phase::Stopped,
        }
        match phase {
            Phase::Stopped => break,
            Phase::Stopping => limit = END_LIMIT,
            Phase::Launching | Phase::Running => {}
        }
        tokio::time::sleep(Duration::from_millis(15)).await;
    }
    let project = &record.id.project;
    if phase == Phase::Stopped {
        if std::io::stderr().is_terminal() {
            context.printer.note(&format!(
                "the session ended and its credentials are withdrawn\n\
                 next: `sandbox diff {project}` shows what it changed, `sandbox pull {project}` takes its commits, and \
                 `sandbox down {project}` removes it"
            ));
        }
    } else if last {
        context.printer.warning(&format!(
            "the session's end takes longer than {} s; `sandbox status {project}` tells how it is",
            END_LIMIT.as_secs()
        ));
    }
    let _ = std::io::stdout().flush();
}
