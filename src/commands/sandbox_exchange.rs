//! Joins `sandbox diff` and `sandbox pull` to the sandbox: takes the agent's commits out as a bundle and hands it over.

use std::path::Path;
use std::time::Duration;

use crate::commands::commits::{self, Taken};
use crate::commands::connect::connect;
use crate::commands::load::{Target, manifest};
use crate::commands::progress::Progress;
use crate::commands::sandbox::Sandbox;
use crate::commands::{Context, Failure, diff, pull, sandbox, up};
use crate::editor::memory::Memory;
use crate::engine::Engine;
use crate::project::manifest::Manifest;
use crate::project::path_patterns::{PathPattern, PathPatterns};
use crate::project::{ProjectName, SandboxName, configuration};
use crate::session::identity::{Role, SessionId};
use crate::session::journal::{Journal, Phase, Record};
use crate::workspace::{ReviewRules, source};

/// What is said at the end.
const ENDED: &str = "the session ended; `sandbox pull` takes what it committed last";
/// How often the agent's branch is looked at.
const LOOK: Duration = Duration::from_secs(2);

/// Runs `sandbox diff`.
///
/// # Errors
/// When there is no sandbox, or its commits cannot be taken or reviewed.
pub async fn diff(context: &Context, args: &diff::Args) -> Result<u8, Failure> {
    let target = target(args.project.as_ref(), args.name.as_ref());
    let engine = connect(context).await?;
    let found = sandbox::find(context, &engine, &target).await?;
    let (_, manifest) = manifest(context, target.project.as_deref())?;
    let rules = rules(context, &manifest, &found.record)?;
    let branch = args.branch.as_deref().unwrap_or(&found.record.branch);
    let taken = commits::take(context, &engine, &found, target.project.as_deref(), branch).await?;
    tell_of_others(context, &found, &taken);
    let Some(bundle) = taken.bundle else {
        nothing_new(context);
        return Ok(0);
    };
    let starts = commits::starts(&found.record);
    diff::run_with_bundle(context, &manifest, &starts, branch, bundle.path(), &rules, args).await
}

/// Runs `sandbox pull`.
///
/// # Errors
/// As for `sandbox diff`, and when something is held back.
pub async fn pull(context: &Context, args: &pull::Args) -> Result<u8, Failure> {
    let target = target(args.project.as_ref(), args.name.as_ref());
    let engine = connect(context).await?;
    let found = sandbox::find(context, &engine, &target).await?;
    let (_, manifest) = manifest(context, target.project.as_deref())?;
    let rules = rules(context, &manifest, &found.record)?;
    if args.watch {
        return watch(context, &engine, &found, &manifest, &rules, args).await;
    }
    let branch = args.branch.as_deref().unwrap_or(&found.record.branch);
    let taken = commits::take(context, &engine, &found, target.project.as_deref(), branch).await?;
    tell_of_others(context, &found, &taken);
    let Some(bundle) = taken.bundle else {
        nothing_new(context);
        return Ok(0);
    };
    pull::run_with_bundle(context, &manifest, &found.record, bundle.path(), &rules, args).await
}

/// Pulls whenever the agent's branch has something new, until the session ends or this is interrupted. Gives the exit
/// code of the last time.
async fn watch(
    context: &Context,
    engine: &Engine,
    found: &Sandbox,
    manifest: &Manifest,
    rules: &ReviewRules,
    args: &pull::Args,
) -> Result<u8, Failure> {
    let record = &found.record;
    let branch = args.branch.as_deref().unwrap_or(&record.branch);
    let session = record.session.clone();
    let journal = Journal::of(&context.folders.state, &record.id);
    let goes_on = || Ok::<_, Failure>(goes_on(&journal.read()?, &session));
    let project = args.project.as_ref().map(ToString::to_string);
    let tell = |text: &str| {
        // In a pipe only results are of use.
        if context.printer.progress() {
            context.printer.note(text);
        }
    };
    tell(&format!("waiting for commits of {}; Ctrl-C ends it", record.id));
    let interrupted = up::interrupted();
    tokio::pin!(interrupted);
    let (mut seen, mut code) = (record.start.clone(), 0);
    loop {
        let runs = goes_on()?;
        // Its volumes may be removed at this moment, and a container that reads them would be in the way.
        if !runs && found.state.runs(Role::Agent) {
            tell(ENDED);
            return Ok(code);
        }
        let round = async {
            // Only what is new since the last time tells that there is something; the review is about all of it.
            let new =
                commits::take_since(context, engine, found, project.as_deref(), branch, &seen, &Progress::none()).await;
            if matches!(&new, Ok(taken) if taken.bundle.is_none()) {
                return Ok(None);
            }
            // A commit that was seen may be gone from the clone: then everything is asked for.
            let taken = commits::take(context, engine, found, project.as_deref(), branch).await?;
            match taken.bundle {
                Some(bundle) if taken.head != seen => {
                    let code = pull::run_with_bundle(context, manifest, record, bundle.path(), rules, args).await?;
                    Ok(Some((taken.head, code)))
                }
                _ => Ok::<_, Failure>(None),
            }
        };
        tokio::select! {
            result = round => match result {
                Ok(Some((head, last))) => (seen, code) = (head, last),
                Ok(None) => {}
                // The container may stop between two looks; what it had is there for `sandbox pull`.
                Err(_) if runs && !goes_on()? => {
                    tell(ENDED);
                    return Ok(code);
                }
                Err(failure) => return Err(failure),
            },
            () = &mut interrupted => return Ok(code),
        }
        // A stopped sandbox has no more than this.
        if !runs {
            return Ok(code);
        }
        tokio::select! {
            () = tokio::time::sleep(LOOK) => {}
            () = &mut interrupted => return Ok(code),
        }
    }
}

/// Whether the session is the one that runs.
fn goes_on(now: &Option<Record>, session: &SessionId) -> bool {
    now.as_ref().is_some_and(|now| now.session == *session && now.phase == Phase::Running)
}

/// What the user's configuration adds to the review, what `sandbox editor` wrote, and whose signatures count.
///
/// # Errors
/// When a pattern of the configuration, or the memory of what was written, cannot be used.
pub fn rules(context: &Context, manifest: &Manifest, record: &Record) -> Result<ReviewRules, Failure> {
    rules_of(context, manifest, &record.signers)
}

fn rules_of(context: &Context, manifest: &Manifest, signers: &[String]) -> Result<ReviewRules, Failure> {
    let configuration = configuration::load(&context.folders.config)?;
    let compile = |patterns: &[PathPattern]| {
        let next = "write fewer patterns under `review` in your config.yaml";
        PathPatterns::new(patterns).map_err(|error| Failure::new("configuration-invalid", &error, next))
    };
    let memory = Memory::load(&context.folders.state, &manifest.root)?;
    let (top, _) = source::describe(&manifest.workspace.source)?;
    let written = memory.written_files(manifest.root.strip_prefix(top).unwrap_or(Path::new("")));
    Ok(ReviewRules {
        held_back: compile(&configuration.held_back)?,
        shown_first: compile(&configuration.shown_first)?,
        written,
        signers: signers.to_vec(),
    })
}

/// Says which other branches have commits that only the sandbox holds.
pub fn tell_of_others(context: &Context, found: &Sandbox, taken: &Taken) {
    if taken.others.is_empty() {
        return;
    }
    let how = match commits::how_to_take(found, &taken.others) {
        Some(command) => format!("take them with {command}"),
        None => "a branch that the agent makes of them can be pulled".to_owned(),
    };
    context.printer.note(&format!("the sandbox also has commits on {}; {how}", commits::told(&taken.others)));
}

/// Says that there is nothing to look at.
pub fn nothing_new(context: &Context) {
    context
        .printer
        .result(&serde_json::json!({"commits": [], "files": []}), || "the agent made no commit yet".to_owned());
}

fn target(project: Option<&ProjectName>, name: Option<&SandboxName>) -> Target {
    Target { project: project.map(ToString::to_string), name: name.cloned().unwrap_or_else(SandboxName::main) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::{Folders, Format, Printer};
    use crate::editor::Editor;
    use crate::editor::memory::Written;

    #[test]
    fn what_an_editor_was_given_is_known_by_its_path_in_the_repository() {
        let home = tempfile::tempdir().unwrap();
        let top = home.path().canonicalize().unwrap();
        let made = std::process::Command::new("git").args(["init", "--quiet"]).current_dir(&top).status().unwrap();
        assert!(made.success());
        let root = top.join("services/payments");
        std::fs::create_dir_all(&root).unwrap();
        std::fs::write(root.join("sandbox.yaml"), "version: 1\nproject: payments\n").unwrap();
        let folder = |name: &str| top.join(".git").join(name);
        let folders =
            Folders { config: folder("config.d"), state: folder("state"), cache: folder("cache"), home: top.clone() };
        let mut memory = Memory::default();
        memory.files.insert(".vscode/tasks.json".to_owned(), Written::new(Editor::Vscode, "{}", None));
        memory.save(&folders.state, &root).unwrap();
        let context = Context { printer: Printer::new(Format::Text, true), folders, engine: None };
        let (_, manifest) = manifest(&context, root.to_str()).unwrap();
        let rules = rules_of(&context, &manifest, &[]).unwrap();
        assert_eq!(rules.written.len(), 1);
        assert_eq!(rules.written[0].path, "services/payments/.vscode/tasks.json");
        // `printf '{}' | git hash-object --stdin`
        assert_eq!(rules.written[0].blobs[0], "9e26dfeeb6e641a33dae4961196235bdb965b21b");
    }
}
