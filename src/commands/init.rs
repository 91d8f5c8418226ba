//! `sandbox init`: looks at a repository and writes a first manifest, with the reason for each of its lines.

use std::io::{IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::commands::printer::sanitise;
use crate::commands::{Context, Failure};
use crate::image::definition;
use crate::project::preset::{self, PRESETS, Preset};
use crate::project::survey::{Survey, draft, survey};
use crate::project::{ProjectName, discovery, manifest};
use crate::workspace::source;

/// The agent when nothing in the repository names one and nobody is asked.
const USUAL_AGENT: &str = "claude-code";

/// Arguments of `init`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The repository; the one of the current folder when left out
    folder: Option<PathBuf>,
    /// The agent: claude-code, codex, opencode, gemini-cli, aider or shell
    #[arg(long, value_name = "NAME")]
    agent: Option<String>,
    /// The project's name, in place of the remote's or the folder's
    #[arg(long, value_name = "NAME")]
    project: Option<ProjectName>,
    /// Ask nothing
    #[arg(long)]
    yes: bool,
}

/// Why no manifest is written.
#[derive(Debug, thiserror::Error)]
enum Refusal {
    #[error("write {}: it is there already", .0.display())]
    Exists(PathBuf),
    #[error("write {}", .path.display())]
    Write {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("choose the agent `{}`: there is no such preset", .0.escape_debug())]
    Agent(String),
    #[error("name the project: neither its remote nor its folder has a name that could be used")]
    Name,
    #[error("ask what the manifest should say: there is no terminal to ask on")]
    NoTerminal,
    #[error("write {}: the answer was no", .0.display())]
    Declined(PathBuf),
}

#[derive(Debug, Serialize)]
struct Answer<'a> {
    path: &'a Path,
    project: &'a ProjectName,
    agent: &'static str,
    hosts: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    credential: Option<&'static str>,
}

/// Writes the manifest.
///
/// # Errors
/// When there is one already, the folder is in no repository, or the user says no.
pub fn run(context: &Context, args: &Args) -> Result<u8, Failure> {
    let current = std::env::current_dir().map_err(|error| {
        Failure::system("current-folder", "find the current folder", &error, "change to a folder that exists")
    })?;
    write(context, args, &current)?;
    Ok(0)
}

/// Offers to write a manifest where one is missing, when there is somebody to ask.
///
/// # Errors
/// As [`run`]; `missing` itself when nobody can be asked.
pub fn offer(context: &Context, missing: Failure) -> Result<(), Failure> {
    let Ok(current) = std::env::current_dir() else { return Err(missing) };
    if !terminal() || source::describe(&current).is_err() {
        return Err(missing);
    }
    context.printer.question("This repository has no sandbox.yaml yet, which says what a sandbox of it may do.");
    let wanted = dialoguer::Confirm::new().with_prompt("Write one now?").default(true).interact();
    if !wanted.unwrap_or(false) {
        return Err(missing);
    }
    write(context, &Args { folder: None, agent: None, project: None, yes: false }, &current)
}

fn write(context: &Context, args: &Args, current: &Path) -> Result<(), Failure> {
    let folder = args.folder.as_ref().map_or_else(|| current.to_path_buf(), |folder| current.join(folder));
    let (root, remotes) = source::describe(&folder)?;
    let path = root.join(discovery::FILE_NAME);
    if path.symlink_metadata().is_ok() {
        let next = "edit it; `sandbox plan` shows what comes of it";
        return Err(Failure::new("manifest-exists", &Refusal::Exists(path), next));
    }
    if !args.yes && !terminal() {
        return Err(Failure::new(
            "init-not-asked",
            &Refusal::NoTerminal,
            "run `sandbox init --yes`, then edit the file",
        ));
    }
    let found = survey(&root, &remotes);
    let preset = agent(args, &root, &found)?;
    let project = project(args, &found)?;
    let text = draft(&project, preset, &found);
    // What is written is what every other verb will read.
    manifest::parse(&text, &path)?;
    if !args.yes {
        context.printer.question(&format!("\n{}", sanitise(&text)));
        let prompt = format!("Write this to {}?", sanitise(&path.display().to_string()));
        let wanted = dialoguer::Confirm::new().with_prompt(prompt).default(true).interact();
        if !wanted.unwrap_or(false) {
            let next = "run `sandbox init` again, with --agent and --project if you like";
            return Err(Failure::new("init-declined", &Refusal::Declined(path), next));
        }
    }
    let failed = |source| Refusal::Write { path: path.clone(), source };
    std::fs::File::create_new(&path)
        .and_then(|mut file| file.write_all(text.as_bytes()))
        .map_err(|error| Failure::new("manifest-not-written", &failed(error), "make the folder writable for you"))?;
    let credential = preset.key.map(|key| key.credential);
    // A sandbox gets a clone, and there is none of nothing.
    let empty = matches!(source::has_commit(&root), Ok(false));
    let answer = Answer {
        path: &path,
        project: &project,
        agent: preset.name,
        hosts: preset
            .hosts
            .iter()
            .map(ToString::to_string)
            .chain(found.hosts.iter().map(|(host, _)| host.to_string()))
            .collect(),
        credential,
    };
    context.printer.result(&answer, || {
        let commit = if empty { "      git add --all && git commit\n" } else { "" };
        let key = credential.map(|name| format!("      sandbox credential set {name}\n")).unwrap_or_default();
        format!(
            "wrote {}; read it and make it yours, then\n{commit}{key}      sandbox trust\n      sandbox up",
            sanitise(&path.display().to_string())
        )
    });
    Ok(())
}

fn agent(args: &Args, root: &Path, found: &Survey) -> Result<&'static Preset, Failure> {
    let known = || PRESETS.iter().map(|preset| preset.name).collect::<Vec<_>>().join(", ");
    let find = |name: &str| {
        preset::find(name).ok_or_else(|| {
            Failure::new("agent-unknown", &Refusal::Agent(name.to_owned()), format!("choose one of {}", known()))
        })
    };
    if let Some(name) = &args.agent {
        return find(name);
    }
    // An agent whose image neither the launcher nor the project has would not start.
    let has_image = |preset: &Preset| definition::chain(preset.image, Some(root)).is_ok();
    let traced = found.agent.filter(|(preset, _)| has_image(preset));
    let likely = traced.map_or(USUAL_AGENT, |(preset, _)| preset.name);
    if args.yes {
        return find(likely);
    }
    let offered: Vec<&'static Preset> = PRESETS.iter().filter(|preset| has_image(preset)).collect();
    let names: Vec<&str> = offered.iter().map(|preset| preset.name).collect();
    let prompt = match traced {
        Some((preset, trace)) => format!("Which agent? ({trace} speaks for {})", preset.name),
        None => "Which agent?".to_owned(),
    };
    let chosen = dialoguer::Select::new()
        .with_prompt(prompt)
        .items(&names)
        .default(names.iter().position(|name| *name == likely).unwrap_or_default())
        .interact();
    chosen.ok().and_then(|index| offered.get(index).copied()).ok_or_else(|| {
        Failure::new("init-not-asked", &Refusal::NoTerminal, "run `sandbox init --yes`, then edit the file")
    })
}

fn project(args: &Args, found: &Survey) -> Result<ProjectName, Failure> {
    if let Some(name) = &args.project {
        return Ok(name.clone());
    }
    let nameless = || Failure::new("project-nameless", &Refusal::Name, "name it: `sandbox init --project NAME`");
    if args.yes {
        return found.project.clone().ok_or_else(nameless);
    }
    let question = dialoguer::Input::<String>::new().with_prompt("What is the project called?");
    let question = match &found.project {
        Some(name) => question.default(name.to_string()),
        None => question,
    };
    let valid = |text: &String| text.parse::<ProjectName>().map(drop).map_err(|error| error.to_string());
    let name = question.validate_with(valid).interact_text();
    name.ok().and_then(|name| name.parse().ok()).ok_or_else(nameless)
}

fn terminal() -> bool {
    std::io::stdin().is_terminal() && std::io::stderr().is_terminal()
}
