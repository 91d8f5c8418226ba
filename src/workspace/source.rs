//! The way in: what state the developer's repository is in, and a bundle of the chosen branch.
//!
//! The bundle is made from a temporary bare repository that borrows the developer's objects, so the developer's index,
//! `HEAD`, refs and objects are only read.

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::process::Stdio;
use std::task::{Context, Poll};

use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncReadExt, ReadBuf};

use super::WorkspaceError;
use super::git::{Git, GitError, refusal};
use super::large_files::{self, LargeFile};
use super::submodule::{self, Submodule};
use crate::init::frame::CloneRequest;
use crate::project::manifest::WorkspaceSpec;
use crate::project::{ProjectName, SandboxName};

/// The longest name and the longest address of a person, in bytes.
const PERSON_LIMIT: usize = 100;

/// The subject of the commit that carries uncommitted changes.
pub const UNCOMMITTED_SUBJECT: &str = "sandbox: uncommitted changes of tracked files";

/// What the developer's repository looks like before a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceState {
    /// The branch that goes along, without `refs/heads/`.
    pub branch: String,
    /// Object id of its tip.
    pub base: String,
    /// URLs of the remotes by name, without user names and passwords (but for the user of ssh).
    pub remotes: BTreeMap<String, String>,
    /// Whether tracked files differ from `HEAD`.
    pub dirty: bool,
    /// Whether the repository's own history is cut.
    pub shallow: bool,
    /// Whether the repository is a partial clone, some of whose objects may be missing.
    pub partial: bool,
    /// Object ids at the cut of what the bundle carries; empty for a whole history. For [`CloneRequest::shallow`].
    pub cut: Vec<String>,
    /// The submodules that go along.
    pub submodules: Vec<Submodule>,
    /// The large files that go along.
    pub large_files: Vec<LargeFile>,
}

/// Where a repository keeps its parts.
#[derive(Debug, Clone)]
pub(super) struct Places {
    pub(super) git_dir: PathBuf,
    pub(super) work_tree: PathBuf,
    pub(super) objects: PathBuf,
    pub(super) index: PathBuf,
    pub(super) shallow: PathBuf,
    pub(super) object_format: String,
}

impl Places {
    pub(super) fn find(folder: &Path) -> Result<Self, WorkspaceError> {
        let ask = |questions: &[&str]| {
            Git::discover(folder, "rev-parse").arg("--path-format=absolute").args(questions).line()
        };
        let questions: [&[&str]; 6] = [
            &["--show-toplevel"],
            &["--absolute-git-dir"],
            &["--git-path", "objects"],
            &["--git-path", "index"],
            &["--git-path", "shallow"],
            &["--show-object-format"],
        ];
        // One process answers all, on a line each. A path with a line feed needs a process for every question.
        let together = ask(&questions.concat()).map_err(|error| match error {
            error @ GitError::Failed { .. } => WorkspaceError::NotARepository(folder.to_path_buf(), error),
            other => WorkspaceError::Git(other),
        })?;
        let mut answers: Vec<String> = together.lines().map(str::to_owned).collect();
        if answers.len() != questions.len() {
            answers = questions.into_iter().map(ask).collect::<Result<_, _>>()?;
        }
        let mut answers = answers.into_iter();
        let mut next = || answers.next().unwrap_or_default();
        let places = Self {
            work_tree: next().into(),
            git_dir: next().into(),
            objects: next().into(),
            index: next().into(),
            shallow: next().into(),
            object_format: next(),
        };
        Ok(places)
    }

    pub(super) fn git(&self, subcommand: &str) -> Git {
        Git::at(&self.git_dir, subcommand)
    }

    /// A bare repository in `folder` that borrows the objects of this one and has none of its configuration.
    pub(super) fn borrow(&self, folder: &Path) -> Result<(), WorkspaceError> {
        if self.objects.to_string_lossy().contains('\n') {
            return Err(WorkspaceError::ObjectFolder(self.objects.clone()));
        }
        Git::discover(Path::new("/"), "init")
            .args(["--quiet", "--bare", "--template=", "--initial-branch=none"])
            .arg(format!("--object-format={}", self.object_format))
            .arg(folder)
            .output()?;
        let info = folder.join("objects/info");
        std::fs::create_dir_all(&info)?;
        let mut line = self.objects.clone().into_os_string();
        line.push("\n");
        std::fs::write(info.join("alternates"), line.as_encoded_bytes())?;
        if self.shallow.exists() {
            std::fs::copy(&self.shallow, folder.join("shallow"))?;
        }
        Ok(())
    }
}

/// Refuses text that is no full object id.
pub(super) fn check_object_id(text: &str) -> Result<(), WorkspaceError> {
    let hexadecimal = text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
    if hexadecimal && matches!(text.len(), 40 | 64) { Ok(()) } else { Err(WorkspaceError::ObjectId(text.to_owned())) }
}

/// Refuses text that git does not take as a branch's name.
pub(super) fn check_branch(branch: &str) -> Result<(), WorkspaceError> {
    let refused = || WorkspaceError::BranchName(branch.to_owned());
    if branch.is_empty() || branch.starts_with('-') || branch.len() > 200 || branch == "HEAD" || branch.contains('\0') {
        return Err(refused());
    }
    match Git::discover(Path::new("/"), "check-ref-format").arg(format!("refs/heads/{branch}")).output() {
        Ok(_) => Ok(()),
        Err(GitError::Failed { .. }) => Err(refused()),
        Err(other) => Err(other.into()),
    }
}

/// Reads the state of the repository that `source` is in; changes nothing.
pub fn inspect(source: &Path, spec: &WorkspaceSpec) -> Result<SourceState, WorkspaceError> {
    let places = Places::find(source)?;
    let current = match places.git("symbolic-ref").args(["--quiet", "--short", "HEAD"]).line() {
        Ok(branch) => Some(branch),
        Err(GitError::Failed { code: Some(1), .. }) => None,
        Err(other) => return Err(other.into()),
    };
    let branch = spec.branch.clone().or_else(|| current.clone()).ok_or(WorkspaceError::DetachedHead)?;
    check_branch(&branch)?;
    if spec.include_uncommitted && current.as_deref() != Some(&branch) {
        return Err(WorkspaceError::OtherBranch(branch));
    }
    let base = places
        .git("rev-parse")
        .args(["--verify", "--quiet", "--end-of-options"])
        .arg(format!("refs/heads/{branch}^{{commit}}"))
        .line()
        .map_err(|error| match error {
            GitError::Failed { .. } => WorkspaceError::NoCommit(branch.clone()),
            other => WorkspaceError::Git(other),
        })?;
    check_object_id(&base)?;
    let settings = settings(&places)?;
    let remotes = remotes(&settings);
    let partial = settings
        .iter()
        .any(|(key, _)| key == "extensions.partialclone" || (key.starts_with("remote.") && key.ends_with(".promisor")));
    let shallow = places.shallow.exists();
    let mut cut = Vec::new();
    if shallow {
        cut = std::fs::read_to_string(&places.shallow)?.lines().map(str::to_owned).collect();
    }
    if let Some(depth) = spec.depth {
        cut = cut_at(&places, &base, depth.max(1))?;
    }
    let dirty = current.is_some() && !changed_paths(&places, &settings, None)?.is_empty();
    let submodules = submodule::find(&places, &base, &spec.submodules)?;
    let large_files = large_files::find(&places, &base, &spec.lfs)?;
    Ok(SourceState { branch, base, remotes, dirty, shallow, partial, cut, submodules, large_files })
}

/// A repository's top folder and its remotes, also of one without a commit.
///
/// # Errors
/// When the folder is in no repository with a working tree.
pub fn describe(folder: &Path) -> Result<(PathBuf, BTreeMap<String, String>), WorkspaceError> {
    let places = Places::find(folder)?;
    let remotes = remotes(&settings(&places)?);
    Ok((places.work_tree, remotes))
}

/// Whether the branch that is checked out has a commit.
///
/// # Errors
/// When there is no repository, or git cannot be run.
pub fn has_commit(folder: &Path) -> Result<bool, WorkspaceError> {
    let places = Places::find(folder)?;
    match places.git("rev-parse").args(["--verify", "--quiet", "HEAD^{commit}"]).output() {
        Ok(_) => Ok(true),
        Err(GitError::Failed { .. }) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// URLs of the remotes by name, without user names and passwords (but for the user of ssh).
fn remotes(settings: &[(String, String)]) -> BTreeMap<String, String> {
    let url = |(key, value): &(String, String)| {
        let name = key.strip_prefix("remote.")?.strip_suffix(".url")?;
        Some((name.to_owned(), without_credentials(value)))
    };
    settings.iter().filter_map(url).collect()
}

/// The repository's own settings; git gives section and last part of a key in lower case.
fn settings(places: &Places) -> Result<Vec<(String, String)>, WorkspaceError> {
    let output = places.git("config").args(["--local", "--includes", "--null", "--list"]).output()?;
    Ok(output
        .split(|byte| *byte == 0)
        .filter(|entry| !entry.is_empty())
        .map(|entry| {
            let text = String::from_utf8_lossy(entry);
            let (key, value) = text.split_once('\n').unwrap_or((&text, ""));
            (key.to_owned(), value.to_owned())
        })
        .collect())
}

/// Takes name and password out of a URL; the user of ssh stays, since it is part of the address.
pub(super) fn without_credentials(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return url.to_owned() };
    let (authority, path) = rest.find(['/', '?', '#']).map_or((rest, ""), |at| rest.split_at(at));
    let Some((user, host)) = authority.rsplit_once('@') else { return url.to_owned() };
    if scheme == "ssh" {
        let name = user.split(':').next().unwrap_or_default();
        return format!("{scheme}://{name}@{host}{path}");
    }
    format!("{scheme}://{host}{path}")
}

/// The commits at `depth` steps (the tip is the first) that have parents.
pub(super) fn cut_at(places: &Places, tip: &str, depth: u32) -> Result<Vec<String>, WorkspaceError> {
    let mut seen = HashSet::from([tip.to_owned()]);
    let mut level = vec![tip.to_owned()];
    for step in 1..=depth {
        let mut next = Vec::new();
        let mut with_parents = Vec::new();
        let output = places
            .git("rev-list")
            .args(["--no-walk=unsorted", "--parents", "--stdin"])
            .input((level.join("\n") + "\n").into_bytes())
            .output()?;
        for line in String::from_utf8_lossy(&output).lines() {
            let mut words = line.split(' ');
            let commit = words.next().unwrap_or_default();
            let parents: Vec<&str> = words.collect();
            if parents.is_empty() {
                continue;
            }
            with_parents.push(commit.to_owned());
            next.extend(parents.into_iter().filter(|parent| seen.insert((*parent).to_owned())).map(str::to_owned));
        }
        if step == depth {
            return Ok(with_parents);
        }
        if next.is_empty() {
            break;
        }
        level = next;
    }
    // The whole history is within the depth; where the repository itself is cut, the cut stays.
    if places.shallow.exists() {
        return Ok(std::fs::read_to_string(&places.shallow)?.lines().map(str::to_owned).collect());
    }
    Ok(Vec::new())
}

/// Copies the index with its time: git looks at the content of a file that is not older than the index, however its size is
/// (gitformat-index(5); Documentation/technical/racy-git.txt), and would pass over it beside a younger one.
fn copy_index(from: &Path, to: &Path) -> std::io::Result<()> {
    std::fs::copy(from, to)?;
    let written = from.metadata()?.modified()?;
    std::fs::File::options().write(true).open(to)?.set_modified(written)
}

/// Tracked paths whose content in the working tree or the index differs from `HEAD`. No filter of the repository's
/// configuration runs.
fn changed_paths(
    places: &Places,
    settings: &[(String, String)],
    index: Option<&Path>,
) -> Result<Vec<u8>, WorkspaceError> {
    let copy = tempfile::tempdir()?;
    let own = copy.path().join("index");
    let index = match index {
        Some(index) => index,
        None => {
            if places.index.exists() {
                copy_index(&places.index, &own)?;
            }
            &own
        }
    };
    let in_tree = |subcommand: &str| {
        without_filters(places.git(subcommand).work_tree(&places.work_tree), settings).variable("GIT_INDEX_FILE", index)
    };
    // Without a refresh, files that were only touched would count as changed; exit code 1 says that some are.
    match in_tree("update-index").args(["-q", "--refresh", "--ignore-submodules"]).output() {
        Ok(_) | Err(GitError::Failed { code: Some(1), .. }) => {}
        Err(other) => return Err(other.into()),
    }
    let mut paths = in_tree("diff-files").args(["-z", "--name-only", "--ignore-submodules=all"]).output()?;
    if index == own {
        match in_tree("diff-index")
            .args(["--cached", "-z", "--name-only", "--ignore-submodules=all", "HEAD", "--"])
            .output()
        {
            Ok(staged) => paths.extend(staged),
            // A chosen branch has a commit though `HEAD` may have none.
            Err(GitError::Failed { .. }) => {}
            Err(other) => return Err(other.into()),
        }
    }
    Ok(paths)
}

/// Switches off every filter that the repository's configuration defines: a clean filter is a command.
fn without_filters(mut git: Git, settings: &[(String, String)]) -> Git {
    for (key, _) in settings {
        if let Some(name) = key.strip_prefix("filter.").and_then(|rest| rest.rsplit_once('.')).map(|parts| parts.0) {
            git = git
                .setting(format!("filter.{name}.clean"), "")
                .setting(format!("filter.{name}.process"), "")
                .setting(format!("filter.{name}.required"), "false");
        }
    }
    git
}

/// One commit of the tracked changes on top of the base, its objects in the temporary repository only.
fn commit_uncommitted(places: &Places, temporary: &Path, state: &SourceState) -> Result<String, WorkspaceError> {
    let settings = settings(places)?;
    let index = temporary.join("sandbox-index");
    copy_index(&places.index, &index)?;
    let paths = changed_paths(places, &settings, Some(&index))?;
    let beside = |git: Git| {
        without_filters(git, &settings)
            .variable("GIT_INDEX_FILE", &index)
            .variable("GIT_OBJECT_DIRECTORY", temporary.join("objects"))
            .variable("GIT_ALTERNATE_OBJECT_DIRECTORIES", quoted(&places.objects))
    };
    beside(places.git("update-index").work_tree(&places.work_tree))
        .args(["-z", "--add", "--remove", "--stdin"])
        .input(paths)
        .output()?;
    let tree = beside(places.git("write-tree")).line()?;
    let before = places.git("rev-parse").args(["--verify"]).arg(format!("{}^{{tree}}", state.base)).line()?;
    if tree == before {
        return Ok(state.base.clone());
    }
    Ok(beside(places.git("commit-tree"))
        .args(["-p", &state.base, "-m", UNCOMMITTED_SUBJECT, &tree])
        .variable("GIT_AUTHOR_NAME", "sandbox")
        .variable("GIT_AUTHOR_EMAIL", "sandbox@sandbox.invalid")
        .variable("GIT_COMMITTER_NAME", "sandbox")
        .variable("GIT_COMMITTER_EMAIL", "sandbox@sandbox.invalid")
        .line()?)
}

/// A path for git's colon-separated list of object folders.
fn quoted(path: &Path) -> String {
    format!("\"{}\"", path.to_string_lossy().replace('\\', "\\\\").replace('"', "\\\""))
}

/// A running `git bundle create`, read as a stream; no copy of it lies anywhere.
#[derive(Debug)]
pub struct OutgoingBundle {
    child: tokio::process::Child,
    output: tokio::process::ChildStdout,
    message: tokio::task::JoinHandle<Vec<u8>>,
    partial: bool,
    _temporary: TempDir,
}

impl AsyncRead for OutgoingBundle {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.output).poll_read(context, buffer)
    }
}

impl OutgoingBundle {
    /// Waits for git after the stream's end, and says whether the bundle was whole.
    pub async fn finish(self) -> Result<(), WorkspaceError> {
        let Self { mut child, output, message, partial, _temporary } = self;
        drop(output);
        let status = child.wait().await.map_err(|source| GitError::Run { subcommand: "bundle".to_owned(), source })?;
        let message = message.await.unwrap_or_default();
        if status.success() {
            return Ok(());
        }
        let error = refusal("bundle", status.code(), &message);
        Err(if partial { WorkspaceError::PartialClone(error) } else { error.into() })
    }
}

/// Starts the bundle of the branch.
pub async fn open_bundle(
    source: &Path,
    spec: &WorkspaceSpec,
    state: &SourceState,
) -> Result<OutgoingBundle, WorkspaceError> {
    let (source, include, state) = (source.to_path_buf(), spec.include_uncommitted, state.clone());
    let partial = state.partial;
    start(partial, move || prepare(&source, include, &state)).await
}

/// Starts the bundle that a prepared command writes; the folder with the repository that it reads goes when the bundle does.
pub(super) async fn start(
    partial: bool,
    prepare: impl FnOnce() -> Result<(TempDir, std::process::Command), WorkspaceError> + Send + 'static,
) -> Result<OutgoingBundle, WorkspaceError> {
    let (temporary, command) = tokio::task::spawn_blocking(prepare).await.map_err(WorkspaceError::Cancelled)??;
    let failed = |source| GitError::Run { subcommand: "bundle".to_owned(), source };
    let mut child = tokio::process::Command::from(command)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(failed)?;
    let (Some(output), Some(stderr)) = (child.stdout.take(), child.stderr.take()) else {
        return Err(WorkspaceError::Output("bundle"));
    };
    let message = tokio::spawn(async move {
        let mut bytes = Vec::new();
        let mut stderr = stderr;
        drop((&mut stderr).take(4096).read_to_end(&mut bytes).await);
        drop(tokio::io::copy(&mut stderr, &mut tokio::io::sink()).await);
        bytes
    });
    Ok(OutgoingBundle { child, output, message, partial, _temporary: temporary })
}

fn prepare(
    source: &Path,
    include_uncommitted: bool,
    state: &SourceState,
) -> Result<(TempDir, std::process::Command), WorkspaceError> {
    let places = Places::find(source)?;
    let temporary = tempfile::tempdir()?;
    places.borrow(temporary.path())?;
    let tip =
        if include_uncommitted { commit_uncommitted(&places, temporary.path(), state)? } else { state.base.clone() };
    bundle_of(temporary, &state.branch, &tip, &state.cut)
}

/// The command that bundles one commit as a branch, in a repository that borrows objects.
pub(super) fn bundle_of(
    borrowed: TempDir,
    branch: &str,
    tip: &str,
    cut: &[String],
) -> Result<(TempDir, std::process::Command), WorkspaceError> {
    if !cut.is_empty() {
        std::fs::write(borrowed.path().join("shallow"), cut.join("\n") + "\n")?;
    }
    let reference = format!("refs/heads/{branch}");
    Git::at(borrowed.path(), "update-ref").args([reference.as_str(), tip]).output()?;
    let command = Git::at(borrowed.path(), "bundle").args(["create", "--quiet", "-", &reference]).command()?;
    Ok((borrowed, command))
}

/// Settings by which git asks these hosts over https where an address is one of ssh, as those of remotes and submodules
/// often are: https is what the gateway reads, and where credentials are.
pub fn https_for_ssh(hosts: &[String]) -> Vec<(String, String)> {
    let of = |host: &String| {
        let key = format!("url.https://{host}/.insteadOf");
        let addresses = [format!("ssh://git@{host}/"), format!("ssh://git@{host}:22/"), format!("git@{host}:")];
        addresses.map(|address| (key.clone(), address))
    };
    hosts.iter().flat_map(of).collect()
}

/// The person at this machine as git writes people, `NAME <ADDRESS>`, by the settings of the repository and their own. None
/// for whoever has set no name or no address, or ones that would not stand in a line of a commit's message.
pub fn person(source: &Path, home: &Path) -> Option<String> {
    let own = [home.join(".gitconfig"), home.join(".config/git/config")].into_iter().find(|path| path.is_file());
    let setting = |key: &str| {
        let mut git = Git::discover(source, "config").args(["--includes", "--get", key]);
        if let Some(own) = &own {
            git = git.variable("GIT_CONFIG_GLOBAL", own);
        }
        let text = git.line().ok()?.trim().to_owned();
        let fits = |character: char| !character.is_control() && !"<>".contains(character);
        ((1..=PERSON_LIMIT).contains(&text.len()) && text.chars().all(fits)).then_some(text)
    };
    Some(format!("{} <{}>", setting("user.name")?, setting("user.email").filter(|address| address.contains('@'))?))
}

/// What the helper in the container needs to set up the clone: work is attributed to the project's agent, and ssh
/// addresses of `https_hosts` (those with a credential helper) become https.
pub fn clone_request(
    directory: &str,
    spec: &WorkspaceSpec,
    state: &SourceState,
    project: &ProjectName,
    sandbox: &SandboxName,
    https_hosts: &[String],
) -> CloneRequest {
    let mut config = vec![
        ("user.name".to_owned(), format!("{project}-agent[bot]")),
        ("user.email".to_owned(), format!("{project}-agent@sandbox.invalid")),
        ("sandbox.name".to_owned(), sandbox.to_string()),
    ];
    config.extend(https_for_ssh(https_hosts));
    for submodule in &state.submodules {
        config.push((format!("submodule.{}.active", submodule.name), "true".to_owned()));
        config.push((format!("submodule.{}.url", submodule.name), submodule.url.clone()));
    }
    CloneRequest {
        directory: directory.to_owned(),
        branch: state.branch.clone(),
        shallow: state.cut.clone(),
        config,
        remotes: state.remotes.clone(),
        sparse: spec.sparse.clone(),
        detached: false,
    }
}
