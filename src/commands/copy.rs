//! `sandbox cp`: files that are not in git, in and out of a sandbox, as they are: regular files and folders.
//!
//! It goes over the session's own stream, never writes over what is there unless asked, and takes nothing out that git or
//! this launcher would obey here.

use std::ffi::OsString;
use std::path::{Component, Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use serde::Serialize;

use crate::audit::AuditLog;
use crate::beneath;
use crate::beneath::tree::{Receiver, Totals, TreeError, TreeLimits};
use crate::commands::connect::connect;
use crate::commands::load::{Target, actor};
use crate::commands::{Context, Failure, sandbox};
use crate::init::frame::CopyRequest;
use crate::project::SandboxName;
use crate::project::quantity::{show_size, size};
use crate::session::copy::CopyError;
use crate::session::identity::Role;
use crate::session::launch::{self, event};
use crate::session::reconcile::Condition;
use crate::session::stream_client::SessionError;
use crate::workspace::hazard;

/// The most files and folders of one copy.
const ENTRIES: u64 = 10_000;
/// The deepest folder of one copy.
const DEPTH: usize = 32;
/// How long one copy may take.
const TIME: Duration = Duration::from_secs(600);
/// What is taken when `--limit` does not say otherwise, in bytes.
const BYTES: u64 = 1 << 30;
/// The folders that a path of a sandbox may be in; a relative one is in the first.
const FOLDERS: [&str; 3] = ["/workspace", "/home/agent", "/tmp"];

/// Arguments of `cp`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// What is copied: a path here, or `PROJECT:PATH` in its sandbox, relative to /workspace
    #[arg(value_name = "SOURCE")]
    pub source: End,
    /// Where it goes: the other of the two; in a folder that is there it keeps its name
    #[arg(value_name = "TARGET")]
    pub target: End,
    /// Which of several sandboxes of the project
    #[arg(long, value_name = "NAME", default_value = "main")]
    pub name: SandboxName,
    /// Let a file take the place of a file; a folder never takes the place of anything
    #[arg(long)]
    pub force: bool,
    /// The most bytes that are copied, such as 500MiB; 1GiB when left out
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    pub limit: Option<u64>,
}

fn parse_size(text: &str) -> Result<u64, String> {
    size(text).ok_or_else(|| "write a size such as 500MiB".to_owned())
}

/// One end of a copy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// A path of this machine.
    Here(PathBuf),
    /// A path in a project's sandbox.
    There {
        /// The project's name or folder.
        project: String,
        /// The path.
        path: String,
    },
}

impl FromStr for End {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            // As with scp(1): a colon behind a slash belongs to a name.
            Some((project, path)) if !project.contains('/') && !project.is_empty() => {
                Ok(Self::There { project: project.to_owned(), path: path.to_owned() })
            }
            _ if text.is_empty() => Err("write a path".to_owned()),
            _ => Ok(Self::Here(PathBuf::from(text))),
        }
    }
}

/// A refusal of this verb.
#[derive(Debug, thiserror::Error)]
enum Refusal {
    #[error("copy between two paths of which not exactly one is in a sandbox")]
    Ends,
    #[error("copy {0}, which is not below {folders}", folders = FOLDERS.join(", "))]
    Folder(String),
    #[error("copy {path}")]
    Path {
        path: String,
        #[source]
        source: std::io::Error,
    },
    #[error("copy within {} seconds", TIME.as_secs())]
    Time,
}

#[derive(Debug, Serialize)]
struct Answer<'a> {
    #[serde(flatten)]
    totals: Totals,
    source: &'a str,
    target: &'a str,
}

/// Copies.
///
/// # Errors
/// When the sandbox does not run, something may not be copied, or something is there already.
pub async fn run(context: &Context, args: &Args) -> Result<u8, Failure> {
    let (project, inside, outwards) = match (&args.source, &args.target) {
        (End::There { project, path }, End::Here(_)) => (project, path, true),
        (End::Here(_), End::There { project, path }) => (project, path, false),
        _ => {
            let next = "write one of them as PROJECT:PATH, such as `sandbox cp payments:out/report.pdf .`";
            return Err(Failure::new("copy-ends", &Refusal::Ends, next).with_exit(2));
        }
    };
    let (folder, path) = within(inside)?;
    if outwards && hazard::through_git(&path) {
        let shown = format!("`{}`: it goes through a git folder", path.escape_debug());
        return Err(failure(TreeError::Name(shown)));
    }
    let engine = connect(context).await?;
    let target = Target { project: Some(project.clone()), name: args.name.clone() };
    let found = sandbox::find(context, &engine, &target).await?;
    if !matches!(found.state.condition, Condition::Running | Condition::Unsupervised) {
        return Err(sandbox::not_running(&found.record));
    }
    let limits = TreeLimits { bytes: args.limit.unwrap_or(BYTES), entries: ENTRIES, depth: DEPTH };
    let mut client = launch::open_session(&engine, &found.record.id.object(Role::Agent)).await?;
    let copied = tokio::time::timeout(TIME, async {
        let request = |name: OsString| CopyRequest {
            folder: folder.to_owned(),
            path: path.clone(),
            name: name.to_string_lossy().into_owned(),
            force: args.force,
            lenient: false,
            limits,
        };
        match (&args.source, &args.target) {
            (_, End::Here(here)) => {
                let (parent, name) = place(here, &path)?;
                let receiver = Receiver::new(parent, &name, limits, refused).map_err(failure)?;
                let mut receiver = receiver.without_repositories();
                client.copy_out(request(OsString::new()), &mut receiver).await.map_err(failed)?;
                receiver.finish(args.force).map_err(failure)
            }
            (End::Here(here), _) => {
                let unreadable = |source| unreadable(here, source);
                let full = here.canonicalize().map_err(unreadable)?;
                let (Some(parent), Some(name)) = (full.parent(), full.file_name()) else {
                    return Err(Failure::new("copy-ends", &Refusal::Ends, "name a file or a folder").with_exit(2));
                };
                let root = beneath::folder(parent).map_err(unreadable)?;
                client.copy_in(request(name.to_owned()), root, PathBuf::from(name)).await.map_err(failed)
            }
            _ => Ok(Totals::default()),
        }
    });
    let copied = copied.await.unwrap_or_else(|_| Err(Failure::new("copy-refused", &Refusal::Time, ADVICE)));
    let (totals, outcome) = match &copied {
        Ok(totals) => (*totals, "ok"),
        Err(failure) if failure.code == "copy-refused" => (Totals::default(), "denied"),
        Err(_) => (Totals::default(), "failed"),
    };
    let facts = [
        ("direction", if outwards { "out" } else { "in" }.to_owned()),
        ("path", format!("{folder}/{}", super::printer::sanitise(&path).chars().take(200).collect::<String>())),
        ("files", totals.files.to_string()),
        ("bytes", totals.bytes.to_string()),
    ];
    let facts: Vec<(&str, &str)> = facts.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let audited = event(&actor().0, &found.record, "files.copied", outcome, &facts);
    AuditLog::open(&context.folders.state)?.append(&audited)?;
    let totals = copied?;
    let ends = [&args.source, &args.target].map(|end| match end {
        End::Here(path) => super::printer::sanitise(&path.to_string_lossy()),
        End::There { project, path } => super::printer::sanitise(&format!("{project}:{path}")),
    });
    context.printer.result(&Answer { totals, source: &ends[0], target: &ends[1] }, || {
        let files = if totals.files == 1 { "1 file".to_owned() } else { format!("{} files", totals.files) };
        format!("copied {files}, {}, to {}", show_size(totals.bytes), ends[1])
    });
    Ok(0)
}

/// What to do when something is refused.
const ADVICE: &str = "copy less, or another path; what is in git comes by `sandbox pull`, which reviews it";

/// The folder of the sandbox that a path is in, and the path from there.
fn within(path: &str) -> Result<(&'static str, String), Failure> {
    let refuse = || {
        let shown = format!("`{}`", path.chars().take(200).collect::<String>().escape_debug());
        let next = "give a path below one of these; /run/secrets is never copied";
        Failure::new("copy-refused", &Refusal::Folder(shown), next)
    };
    let full = Path::new(FOLDERS[0]).join(path);
    let plain = full.components().all(|part| matches!(part, Component::RootDir | Component::Normal(_)));
    let found = FOLDERS.iter().find_map(|folder| Some((*folder, full.strip_prefix(folder).ok()?)));
    let (folder, rest) = found.filter(|_| plain).ok_or_else(refuse)?;
    Ok((folder, rest.to_str().ok_or_else(refuse)?.to_owned()))
}

/// Where a copy goes on this machine: the folder, and the name in it.
fn place(here: &Path, inside: &str) -> Result<(std::os::fd::OwnedFd, OsString), Failure> {
    let (parent, name) = if here.is_dir() {
        let name = Path::new(inside).file_name().map_or_else(|| OsString::from("workspace"), OsString::from);
        (here, name)
    } else {
        let name = here.file_name().map(OsString::from).unwrap_or_default();
        let parent = here.parent().filter(|parent| !parent.as_os_str().is_empty());
        (parent.unwrap_or(Path::new(".")), name)
    };
    // The person's own path may go through links; what is made is made in the folder that they lead to now.
    Ok((beneath::folder(parent).map_err(|source| unreadable(parent, source))?, name))
}

fn unreadable(path: &Path, source: std::io::Error) -> Failure {
    let path = super::printer::sanitise(&path.to_string_lossy());
    Failure::new("copy-failed", &Refusal::Path { path, source }, "give a path that is there and that you may use")
}

/// What is not taken from a sandbox: git and this launcher obey it wherever it is.
fn refused(path: &str) -> Option<&'static str> {
    hazard::held_back(path).or_else(|| hazard::deceptive(path))
}

fn failed(error: CopyError) -> Failure {
    match error {
        CopyError::Tree(error) => failure(error),
        CopyError::Session(error @ SessionError::Failed { .. }) => Failure::told("copy-failed", &error, ADVICE),
        CopyError::Session(error) => error.into(),
    }
}

fn failure(error: TreeError) -> Failure {
    match error {
        TreeError::Exists(_) => {
            Failure::new("copy-exists", &error, "give another name, or `--force` to replace a file")
        }
        TreeError::Folder(_) => Failure::new("copy-exists", &error, "give another name, or remove what is there"),
        TreeError::Kind(_) | TreeError::Name(_) | TreeError::Limit(_) | TreeError::Malformed(_) => {
            Failure::new("copy-refused", &error, ADVICE)
        }
        TreeError::Io { .. } | TreeError::Changed(_) | TreeError::Gone => {
            Failure::new("copy-failed", &error, "look at the cause above and try again; nothing was changed")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_colon_before_any_slash_names_a_project() {
        let there = |project: &str, path: &str| End::There { project: project.into(), path: path.into() };
        assert_eq!("payments:out/a".parse(), Ok(there("payments", "out/a")));
        assert_eq!(".:out".parse(), Ok(there(".", "out")));
        for here in ["./a:b", "/a:b", "a", ":x"] {
            assert_eq!(here.parse(), Ok(End::Here(here.into())), "{here}");
        }
        assert!("".parse::<End>().is_err());
    }

    #[test]
    fn only_the_agents_own_folders_are_reached() {
        for (path, expected) in [
            ("out/a.pdf", ("/workspace", "out/a.pdf")),
            ("/workspace/out", ("/workspace", "out")),
            ("", ("/workspace", "")),
            ("/home/agent/.config/x", ("/home/agent", ".config/x")),
            ("/tmp/x", ("/tmp", "x")),
        ] {
            let (folder, rest) = within(path).unwrap();
            assert_eq!((folder, rest.trim_end_matches('/')), expected, "{path}");
        }
        for path in [
            "/run/secrets/github",
            "/run/secrets",
            "../run/secrets/github",
            "/workspace/../run/secrets/github",
            "a/../../run/secrets",
            "/tmp/../run/secrets",
            "/proc/self/root/run/secrets",
            "/workspaces",
            "/etc/passwd",
            "/",
        ] {
            assert_eq!(within(path).unwrap_err().code, "copy-refused", "{path}");
        }
    }

    #[test]
    fn what_git_or_the_launcher_obeys_is_not_taken() {
        for path in
            [".git", "x/.git/config", "x/.GIT/hooks/pre-commit", "x/.gitattributes", "sandbox.yaml", "x/git~1/x"]
        {
            assert!(refused(path).is_some(), "{path}");
        }
        for path in ["report.pdf", "out/a b.txt", "out/données.csv"] {
            assert_eq!(refused(path), None, "{path}");
        }
    }
}
