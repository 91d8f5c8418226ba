//! Joins `sandbox diff` and `sandbox pull` to the sandbox: takes the agent's commits out as a bundle and hands it over.

use std::path::Path;

use crate::commands::connect::connect;
use crate::commands::load::{Target, manifest};
use crate::commands::{Context, Failure, diff, pull, sandbox};
use crate::editor::memory::Memory;
use crate::project::manifest::Manifest;
use crate::project::path_patterns::{PathPattern, PathPatterns};
use crate::project::{ProjectName, SandboxName, configuration};
use crate::workspace::{ReviewRules, source};

/// Runs `sandbox diff`.
///
/// # Errors
/// When there is no sandbox, or its commits cannot be taken or reviewed.
pub async fn diff(context: &Context, args: &diff::Args) -> Result<u8, Failure> {
    let target = target(args.project.as_ref(), args.name.as_ref());
    let engine = connect(context).await?;
    let found = sandbox::find(context, &engine, &target).await?;
    let (_, manifest) = manifest(context, target.project.as_deref())?;
    let rules = rules(context, &manifest)?;
    let taken = sandbox::take_commits(context, &engine, &found, target.project.as_deref()).await?;
    let Some(bundle) = taken.bundle else {
        nothing_new(context);
        return Ok(0);
    };
    let record = &found.record;
    diff::run_with_bundle(context, &manifest, &record.start, &record.branch, bundle.path(), &rules, args).await
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
    let rules = rules(context, &manifest)?;
    let taken = sandbox::take_commits(context, &engine, &found, target.project.as_deref()).await?;
    let Some(bundle) = taken.bundle else {
        nothing_new(context);
        return Ok(0);
    };
    let record = &found.record;
    pull::run_with_bundle(context, &manifest, record, bundle.path(), &rules, args).await
}

/// What the user's configuration adds to the review, and what `sandbox editor` wrote.
///
/// # Errors
/// When a pattern of the configuration, or the memory of what was written, cannot be used.
pub fn rules(context: &Context, manifest: &Manifest) -> Result<ReviewRules, Failure> {
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
    })
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
        let rules = rules(&context, &manifest).unwrap();
        assert_eq!(rules.written.len(), 1);
        assert_eq!(rules.written[0].path, "services/payments/.vscode/tasks.json");
        // `printf '{}' | git hash-object --stdin`
        assert_eq!(rules.written[0].blobs[0], "9e26dfeeb6e641a33dae4961196235bdb965b21b");
    }
}
