//! The one place that runs `git` on the host.
//!
//! Every process gets an empty environment, no configuration but the repository's own, no hook, no file-system monitor,
//! no protocol and no attribute file; its output and its time are bounded. Output is bytes: the callers parse it.

use std::ffi::{OsStr, OsString};
use std::io::{Read, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

/// How long one process may run.
const TIME_LIMIT: Duration = Duration::from_secs(600);
/// The most bytes that one process may write, unless the caller says otherwise.
const OUTPUT_LIMIT: usize = 256 << 20;
/// The most memory that one process of a review may have for its data, in bytes. git keeps a whole difference before it
/// prints the first line, and nested trees of a few kilobytes can name more files than any memory holds.
const MEMORY_LIMIT: u64 = 1 << 30;
/// The most bytes of standard error that are kept for a message.
const MESSAGE_LIMIT: usize = 4 << 10;

/// Why a git process gave no result.
#[derive(Debug, thiserror::Error)]
pub enum GitError {
    /// There is no git in an absolute folder of `PATH`.
    #[error("git is not installed")]
    NotInstalled,
    /// The process could not be started or its pipes failed.
    #[error("git {subcommand} could not be run")]
    Run {
        /// The git subcommand.
        subcommand: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// git said no.
    #[error("git {subcommand} {}: {message}", ending(*.code))]
    Failed {
        /// The git subcommand.
        subcommand: String,
        /// The exit code; none after a signal.
        code: Option<i32>,
        /// The start of standard error; untrusted, so it is escaped already.
        message: String,
    },
    /// The repository belongs to another user.
    #[error("the repository belongs to another user, and git refuses such a one")]
    Ownership,
    /// The process took too long and was ended.
    #[error("git {0} took longer than {limit} s", limit = TIME_LIMIT.as_secs())]
    TimedOut(String),
    /// The process wrote too much and was ended.
    #[error("git {0} wrote more than {1} bytes")]
    TooMuch(String, usize),
}

fn ending(code: Option<i32>) -> String {
    code.map_or_else(|| "was ended by a signal".to_owned(), |code| format!("ended with {code}"))
}

/// One git command, before it runs.
#[derive(Debug)]
pub struct Git {
    subcommand: String,
    arguments: Vec<OsString>,
    git_dir: Option<PathBuf>,
    work_tree: Option<PathBuf>,
    directory: PathBuf,
    settings: Vec<(String, String)>,
    variables: Vec<(&'static str, OsString)>,
    input: Vec<u8>,
    file: Option<std::fs::File>,
    limit: usize,
}

impl Git {
    /// A command that finds the repository from this folder upwards.
    pub fn discover(directory: &Path, subcommand: &str) -> Self {
        Self {
            subcommand: subcommand.to_owned(),
            arguments: Vec::new(),
            git_dir: None,
            work_tree: None,
            directory: directory.to_path_buf(),
            settings: Vec::new(),
            variables: Vec::new(),
            input: Vec::new(),
            file: None,
            limit: OUTPUT_LIMIT,
        }
    }

    /// A command in this git folder.
    pub fn at(git_dir: &Path, subcommand: &str) -> Self {
        let mut git = Self::discover(git_dir, subcommand);
        git.git_dir = Some(git_dir.to_path_buf());
        git
    }

    /// With this working tree, from whose top it runs.
    pub fn work_tree(mut self, path: &Path) -> Self {
        self.work_tree = Some(path.to_path_buf());
        self.directory = path.to_path_buf();
        self
    }

    /// With one more argument.
    pub fn arg(mut self, argument: impl AsRef<OsStr>) -> Self {
        self.arguments.push(argument.as_ref().to_owned());
        self
    }

    /// With more arguments.
    pub fn args<A: AsRef<OsStr>>(mut self, arguments: impl IntoIterator<Item = A>) -> Self {
        self.arguments.extend(arguments.into_iter().map(|argument| argument.as_ref().to_owned()));
        self
    }

    /// With a setting on top of the hardened ones.
    pub fn setting(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.settings.push((key.into(), value.into()));
        self
    }

    /// With one of git's own variables, such as `GIT_INDEX_FILE`.
    pub fn variable(mut self, name: &'static str, value: impl AsRef<OsStr>) -> Self {
        self.variables.push((name, value.as_ref().to_owned()));
        self
    }

    /// With these bytes on standard input.
    pub fn input(mut self, bytes: Vec<u8>) -> Self {
        self.input = bytes;
        self
    }

    /// With standard input from where this file stands now.
    pub fn input_file(mut self, file: std::fs::File) -> Self {
        self.file = Some(file);
        self
    }

    /// With another limit of output, in bytes.
    pub fn limit(mut self, bytes: usize) -> Self {
        self.limit = bytes;
        self
    }

    /// The process, with nothing connected.
    pub fn command(&self) -> Result<Command, GitError> {
        let program = program()?;
        let mut command = Command::new(&program);
        command.env_clear().current_dir(&self.directory).process_group(0);
        let mut path = program.parent().map(|parent| parent.as_os_str().to_owned()).unwrap_or_default();
        path.push(":/usr/bin:/bin");
        command.env("PATH", path);
        // /dev/null is no folder, so nothing below it can ever be found.
        for name in ["HOME", "XDG_CONFIG_HOME"] {
            command.env(name, "/dev/null");
        }
        for (name, value) in [
            ("LC_ALL", "C"),
            ("GIT_CONFIG_GLOBAL", "/dev/null"),
            ("GIT_CONFIG_NOSYSTEM", "1"),
            ("GIT_ATTR_NOSYSTEM", "1"),
            ("GIT_TERMINAL_PROMPT", "0"),
            ("GIT_NO_LAZY_FETCH", "1"),
            // The repository's own `protocol.NAME.allow` would win over `protocol.allow` below; over this nothing does (git(1)).
            ("GIT_ALLOW_PROTOCOL", "none"),
            ("GIT_NO_REPLACE_OBJECTS", "1"),
            ("GIT_OPTIONAL_LOCKS", "0"),
            ("GIT_LITERAL_PATHSPECS", "1"),
        ] {
            command.env(name, value);
        }
        let hardened = [
            ("core.hooksPath", "/dev/null"),
            ("core.fsmonitor", "false"),
            ("core.untrackedCache", "false"),
            ("core.splitIndex", "false"),
            ("core.attributesFile", "/dev/null"),
            ("core.excludesFile", "/dev/null"),
            ("core.quotePath", "false"),
            // Above it git streams a file and compares nothing, where it would hold it whole and split it into lines.
            ("core.bigFileThreshold", "16m"),
            ("credential.helper", ""),
            ("protocol.allow", "never"),
            ("safe.bareRepository", "explicit"),
            ("submodule.recurse", "false"),
            ("gc.auto", "0"),
            ("maintenance.auto", "false"),
            ("color.ui", "false"),
            ("commit.gpgSign", "false"),
            ("log.showSignature", "false"),
        ];
        // Settings go by variables and not by `-c`, which cannot carry a key that holds `=`.
        let settings: Vec<(&str, &str)> = hardened
            .into_iter()
            .chain(self.settings.iter().map(|(key, value)| (key.as_str(), value.as_str())))
            .collect();
        command.env("GIT_CONFIG_COUNT", settings.len().to_string());
        for (index, (key, value)) in settings.into_iter().enumerate() {
            command.env(format!("GIT_CONFIG_KEY_{index}"), key).env(format!("GIT_CONFIG_VALUE_{index}"), value);
        }
        for (name, value) in &self.variables {
            command.env(name, value);
        }
        if let Some(git_dir) = &self.git_dir {
            command.env("GIT_DIR", git_dir);
        }
        if let Some(work_tree) = &self.work_tree {
            command.env("GIT_WORK_TREE", work_tree);
        }
        command.arg("--no-pager").arg(&self.subcommand).args(&self.arguments);
        Ok(command)
    }

    /// Runs to the end and gives standard output.
    pub fn output(mut self) -> Result<Vec<u8>, GitError> {
        let input = self.file.take().map_or_else(Stdio::piped, Stdio::from);
        let failed = |source| GitError::Run { subcommand: self.subcommand.clone(), source };
        let mut command = self.command()?;
        let mut child = command.stdin(input).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().map_err(failed)?;
        bound_memory(&child);
        let result = self.exchange(&mut child);
        if result.is_err() {
            end(&mut child);
        }
        let (output, message) = result?;
        let status = child.wait().map_err(failed)?;
        if status.success() { Ok(output) } else { Err(refusal(&self.subcommand, status.code(), &message)) }
    }

    /// Runs to the end and gives standard output as one line of text.
    pub fn line(self) -> Result<String, GitError> {
        let output = self.output()?;
        Ok(String::from_utf8_lossy(&output).trim_end_matches('\n').to_owned())
    }

    fn exchange(&self, child: &mut Child) -> Result<(Vec<u8>, Vec<u8>), GitError> {
        let deadline = Instant::now() + TIME_LIMIT;
        let input = self.input.clone();
        if let Some(mut pipe) = child.stdin.take() {
            // A process that closes its input early says why by its exit code.
            std::thread::spawn(move || drop(pipe.write_all(&input)));
        }
        let output = child.stdout.take().map(|pipe| collect(pipe, self.limit));
        let message = child.stderr.take().map(|pipe| collect(pipe, MESSAGE_LIMIT));
        let output = wait(output, deadline, &self.subcommand)?;
        let message = wait(message, deadline, &self.subcommand)?;
        if output.1 {
            return Err(GitError::TooMuch(self.subcommand.clone(), self.limit));
        }
        Ok((output.0, message.0))
    }
}

type Collected = std::io::Result<(Vec<u8>, bool)>;

/// Reads up to `limit` bytes in a thread; the flag says whether there were more. What is above the limit of a message is
/// drained by closing the pipe.
fn collect(pipe: impl Read + Send + 'static, limit: usize) -> mpsc::Receiver<Collected> {
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        let mut pipe = pipe;
        let read = pipe.by_ref().take(limit as u64 + 1).read_to_end(&mut bytes);
        let more = bytes.len() > limit;
        bytes.truncate(limit);
        if more && limit == MESSAGE_LIMIT {
            drop(std::io::copy(&mut pipe, &mut std::io::sink()));
        }
        drop(sender.send(read.map(|_| (bytes, more))));
    });
    receiver
}

fn wait(
    receiver: Option<mpsc::Receiver<Collected>>,
    deadline: Instant,
    subcommand: &str,
) -> Result<(Vec<u8>, bool), GitError> {
    let Some(receiver) = receiver else { return Ok((Vec::new(), false)) };
    match receiver.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
        Ok(collected) => collected.map_err(|source| GitError::Run { subcommand: subcommand.to_owned(), source }),
        Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
            Err(GitError::TimedOut(subcommand.to_owned()))
        }
    }
}

/// Limits the memory of a process that has just begun, and of all that it starts. Files that it maps, such as packs, are
/// not counted (getrlimit(2), `RLIMIT_DATA`).
fn bound_memory(child: &Child) {
    let limit = rustix::process::Rlimit { current: Some(MEMORY_LIMIT), maximum: Some(MEMORY_LIMIT) };
    // A process that has ended already has nothing to be bounded.
    let _ = rustix::process::prlimit(
        rustix::process::Pid::from_raw(child.id() as i32),
        rustix::process::Resource::Data,
        limit,
    );
}

fn end(child: &mut Child) {
    // git starts helpers; all of them are in the group that the child leads.
    if let Some(group) = rustix::process::Pid::from_raw(child.id() as i32) {
        let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
    }
    drop(child.wait());
}

/// The error for a process that ended with a failure.
pub fn refusal(subcommand: &str, code: Option<i32>, message: &[u8]) -> GitError {
    let text = String::from_utf8_lossy(message);
    if text.contains("detected dubious ownership") {
        return GitError::Ownership;
    }
    let message = text.trim().lines().map(|line| line.escape_debug().to_string()).collect::<Vec<_>>().join("; ");
    GitError::Failed { subcommand: subcommand.to_owned(), code, message }
}

/// The first git in an absolute folder of `PATH`; a relative folder could be one of the repository's own.
fn program() -> Result<PathBuf, GitError> {
    let path = std::env::var_os("PATH").unwrap_or_else(|| "/usr/local/bin:/usr/bin:/bin".into());
    std::env::split_paths(&path)
        .filter(|folder| folder.is_absolute())
        .map(|folder| folder.join("git"))
        .find(|file| file.is_file())
        .ok_or(GitError::NotInstalled)
}
