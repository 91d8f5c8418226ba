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
    pull::run_with_bundle(context, &manifest, &record.start, &record.branch, bundle.path(), &rules, args).await
}

/// What the user's configuration adds to the review, and what `sandbox editor` wrote.
fn rules(context: &Context, manifest: &Manifest) -> Result<ReviewRules, Failure> {
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

fn nothing_new(context: &Context) {
    context
        .printer
        .result(&serde_json::json!({"commits": [], "files": []}), || "the agent made no commit yet".to_owned());
}

fn target(project: Option<&ProjectName>, name: Option<&SandboxName>) -> Target {
    Target { project: project.map(ToString::to_string), name: name.cloned().unwrap_or_else(SandboxName::main) }
}
