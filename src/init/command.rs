//! Runs one command of a session: pipes or a pseudo-terminal, its signals, its end.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};

use bytes::Bytes;
use rustix::fs::{Access, Mode, OFlags};
use rustix::process::{Pid, Signal};
use rustix::pty::OpenptFlags;
use rustix::termios::Winsize;
use tokio::io::AsyncWriteExt;
use tokio::process::{Child, ChildStdin, Command};
use tokio::sync::{mpsc, watch};

use super::frame::{FailureKind, Frame, Reply, Request, RunRequest, TerminalSize};
use super::output::{Log, Source, Terminal, pump};
use super::processes;
use super::session::{Connection, Disconnected};

/// Where `secret_environment` may read.
const SECRETS: &str = "/run/secrets";
/// The largest secret, in bytes.
const SECRET_LIMIT: u64 = 1 << 20;
/// Standard input that the command has not read yet, in bytes; beyond it no frame is taken from the launcher.
const PENDING_LIMIT: usize = 8 << 20;
/// What a terminal's user types to end the input: ^D.
const END_OF_TRANSMISSION: u8 = 4;

/// Why a command did not start.
#[derive(Debug, thiserror::Error)]
enum StartError {
    #[error("the command is empty")]
    Empty,
    #[error("{}: command not found", .0.to_string_lossy())]
    NotFound(OsString),
    #[error("{}: not executable", .0.display())]
    NotExecutable(PathBuf),
    #[error("no working directory {}", .0.display())]
    Directory(PathBuf),
    #[error("the secret {} cannot be read: {source}", path.display())]
    Secret { path: PathBuf, source: io::Error },
    #[error("{} cannot be started: {source}", program.display())]
    Spawn { program: PathBuf, source: io::Error },
    #[error("no pseudo-terminal: {0}")]
    Terminal(io::Error),
}

impl StartError {
    fn kind(&self) -> FailureKind {
        match self {
            Self::Empty | Self::NotFound(_) => FailureKind::NotFound,
            Self::NotExecutable(_) => FailureKind::NotExecutable,
            // The file is there, so it is its interpreter that is missing, which shells call "not found" as well.
            Self::Spawn { source, .. } if source.kind() == io::ErrorKind::NotFound => FailureKind::NotFound,
            Self::Spawn { .. } => FailureKind::NotExecutable,
            Self::Directory(_) | Self::Secret { .. } | Self::Terminal(_) => FailureKind::Other,
        }
    }
}

/// The command's standard input.
enum Input {
    Pipe(ChildStdin),
    Terminal(Terminal),
}

struct Started {
    child: Child,
    leader: Pid,
    input: Input,
    terminal: Option<Terminal>,
}

/// Runs the command and answers with its end; an error means that the launcher is gone and the command was ended.
pub(super) async fn run(connection: &mut Connection, request: RunRequest) -> Result<(), Disconnected> {
    let log = Log::open(request.log);
    let mut started = match start(&request) {
        Ok(started) => started,
        Err(error) => return connection.fail(error.kind(), error.to_string()).await,
    };
    let pid = started.leader.as_raw_nonzero().get() as u32;
    let (end_output, ended) = watch::channel(false);
    let mut pumps = tokio::task::JoinSet::new();
    let to = connection.outgoing.clone();
    if connection.reply(&Reply::Started { pid }).await.is_err() {
        processes::end(started.leader, Some(Signal::HUP)).await;
        return Err(Disconnected);
    }
    if let Some(terminal) = &started.terminal {
        pumps.spawn(pump(Source::Terminal(terminal.clone()), to, log, ended));
    } else {
        if let Some(output) = started.child.stdout.take() {
            pumps.spawn(pump(Source::Output(output), to.clone(), log.clone(), ended.clone()));
        }
        if let Some(errors) = started.child.stderr.take() {
            pumps.spawn(pump(Source::Errors(errors), to, log, ended));
        }
    }
    let status = serve(connection, started.input, started.terminal.as_ref(), &mut started.child, started.leader).await;
    // What the command left behind ends with it, so that its output has an end too.
    processes::end(started.leader, Some(Signal::HUP)).await;
    let status = match status {
        Ok(status) => status,
        Err(Disconnected) => {
            let _ = started.child.wait().await;
            return Err(Disconnected);
        }
    };
    end_output.send_replace(true);
    while pumps.join_next().await.is_some() {}
    connection.reply(&Reply::Exited { code: exit_code(status) }).await
}

/// Hands frames to the command until it ends.
async fn serve(
    connection: &mut Connection,
    input: Input,
    terminal: Option<&Terminal>,
    child: &mut Child,
    leader: Pid,
) -> Result<ExitStatus, Disconnected> {
    let (to_input, from_launcher) = mpsc::channel::<Option<Bytes>>(1);
    let writer = tokio::spawn(feed(input, from_launcher));
    let mut pending: VecDeque<Option<Bytes>> = VecDeque::new();
    let mut pending_bytes = 0;
    let mut writable = true;
    let outgoing = connection.outgoing.clone();
    let status = loop {
        tokio::select! {
            status = child.wait() => break status.map_err(|_| Disconnected),
            permit = to_input.reserve(), if writable && !pending.is_empty() => match (permit, pending.pop_front()) {
                (Ok(permit), Some(item)) => {
                    pending_bytes -= item.as_ref().map_or(0, Bytes::len);
                    permit.send(item);
                }
                _ => {
                    // The command has closed its input: drop the rest, as a broken pipe would.
                    writable = false;
                    pending.clear();
                    pending_bytes = 0;
                }
            },
            frame = connection.next(), if pending_bytes < PENDING_LIMIT => match frame {
                Err(gone) => break Err(gone),
                Ok(Frame::Data(bytes)) if writable => {
                    pending_bytes += bytes.len();
                    pending.push_back(Some(bytes));
                }
                Ok(Frame::End) if writable => pending.push_back(None),
                Ok(Frame::Control(json)) => match serde_json::from_slice(&json) {
                    Ok(Request::Resize(size)) => {
                        if let Some(terminal) = terminal {
                            terminal.resize(window(size));
                        }
                    }
                    Ok(Request::Signal(number)) => deliver(leader, number),
                    // Requests are answered in order, and one that cannot be read is no reason to end the command.
                    _ => {}
                },
                Ok(_) => {}
            },
            () = outgoing.closed() => break Err(Disconnected),
        }
    };
    writer.abort();
    status
}

async fn feed(mut input: Input, mut from_launcher: mpsc::Receiver<Option<Bytes>>) {
    while let Some(item) = from_launcher.recv().await {
        let written = match (&mut input, item) {
            (Input::Pipe(pipe), Some(bytes)) => pipe.write_all(&bytes).await,
            (Input::Terminal(terminal), Some(bytes)) => terminal.type_in(&bytes).await,
            (Input::Terminal(terminal), None) => terminal.type_in(&[END_OF_TRANSMISSION]).await,
            (Input::Pipe(_), None) => return,
        };
        if written.is_err() {
            return;
        }
    }
}

fn deliver(leader: Pid, number: i32) {
    let Some(signal) = Signal::from_named_raw(number) else { return };
    // Before the step to the terminal has made its session there is no group yet, only the process.
    if rustix::process::kill_process_group(leader, signal).is_err() {
        let _ = rustix::process::kill_process(leader, signal);
    }
}

fn exit_code(status: ExitStatus) -> u8 {
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal));
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(u8::MAX)
}

fn window(size: TerminalSize) -> Winsize {
    Winsize { ws_row: size.rows, ws_col: size.columns, ws_xpixel: 0, ws_ypixel: 0 }
}

fn start(request: &RunRequest) -> Result<Started, StartError> {
    let (name, arguments) = request.command.split_first().ok_or(StartError::Empty)?;
    let directory = Path::new(&request.directory);
    if !directory.is_dir() {
        return Err(StartError::Directory(directory.into()));
    }
    let path = request.environment.get("PATH").map(OsString::from).or_else(|| std::env::var_os("PATH"));
    let program = find(OsStr::new(name), path.as_deref().unwrap_or(OsStr::new("/usr/bin:/bin")), directory)?;
    let mut command;
    let mut terminal = None;
    if let Some(size) = request.terminal {
        let (ours, theirs) = open_terminal(size).map_err(StartError::Terminal)?;
        // The link, not what it names: this very program, whatever has become of its file.
        command = Command::new("/proc/self/exe");
        command.arg0("sandbox").arg("terminal-child").arg("--").arg(&program).arg(name);
        let clone = || theirs.try_clone().map(Stdio::from).map_err(StartError::Terminal);
        command.stdin(clone()?).stdout(clone()?).stderr(Stdio::from(theirs));
        terminal = Some(Terminal::new(ours).map_err(StartError::Terminal)?);
    } else {
        command = Command::new(&program);
        command.arg0(name).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
    }
    command.args(arguments).current_dir(directory).envs(&request.environment).env("PWD", directory);
    let home =
        request.environment.get("HOME").map(PathBuf::from).or_else(|| std::env::var_os("HOME").map(PathBuf::from));
    if let Some(home) = home {
        for (place, file) in &request.links {
            // The program says by itself that it has no log-in.
            let _ = link(&home, Path::new(place), &Path::new(SECRETS).join(file));
        }
    }
    for (variable, file) in &request.secret_environment {
        command.env(variable, read_secret(Path::new(SECRETS), Path::new(file))?);
    }
    let mut child = command.kill_on_drop(true).spawn().map_err(|source| StartError::Spawn { program, source })?;
    let leader = child.id().and_then(|id| Pid::from_raw(id as i32)).ok_or(StartError::Empty)?;
    let input = match (&terminal, child.stdin.take()) {
        (Some(terminal), _) => Input::Terminal(terminal.clone()),
        (None, Some(pipe)) => Input::Pipe(pipe),
        (None, None) => return Err(StartError::Terminal(io::ErrorKind::BrokenPipe.into())),
    };
    Ok(Started { child, leader, input, terminal })
}

/// A pseudo-terminal of this size: our side, non-blocking, and the command's.
fn open_terminal(size: TerminalSize) -> io::Result<(OwnedFd, OwnedFd)> {
    let ours = rustix::pty::openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
    rustix::pty::grantpt(&ours)?;
    rustix::pty::unlockpt(&ours)?;
    let name = rustix::pty::ptsname(&ours, Vec::new())?;
    let theirs = rustix::fs::open(&*name, OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC, Mode::empty())?;
    rustix::termios::tcsetwinsize(&ours, window(size))?;
    rustix::fs::fcntl_setfl(&ours, OFlags::NONBLOCK | OFlags::RDWR)?;
    Ok((ours, theirs))
}

/// Finds the program as a shell would, so that 127 and 126 are known before anything starts.
fn find(name: &OsStr, path: &OsStr, directory: &Path) -> Result<PathBuf, StartError> {
    if name.is_empty() {
        return Err(StartError::Empty);
    }
    let executable = |candidate: &Path| candidate.is_file() && rustix::fs::access(candidate, Access::EXEC_OK).is_ok();
    if name.as_bytes().contains(&b'/') {
        let candidate = directory.join(name);
        return match candidate.metadata() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(StartError::NotFound(name.into())),
            _ if executable(&candidate) => Ok(candidate),
            _ => Err(StartError::NotExecutable(candidate)),
        };
    }
    let mut refused = None;
    for folder in std::env::split_paths(path) {
        let candidate = directory.join(folder).join(name);
        if executable(&candidate) {
            return Ok(candidate);
        }
        if candidate.is_file() {
            refused.get_or_insert(candidate);
        }
    }
    Err(refused.map_or_else(|| StartError::NotFound(name.into()), StartError::NotExecutable))
}

/// Makes a link in the home folder, or turns one round that leads to the secrets. What somebody else put there stays.
fn link(home: &Path, place: &Path, target: &Path) -> io::Result<()> {
    let path = home.join(place);
    match std::fs::read_link(&path) {
        Ok(there) if there == target => return Ok(()),
        Ok(there) if there.starts_with(target.parent().unwrap_or(target)) => std::fs::remove_file(&path)?,
        Ok(_) => return Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(_) => return Ok(()),
    }
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    std::os::unix::fs::symlink(target, &path)
}

/// Reads a secret below `folder`; one line end at its end is not part of it.
fn read_secret(folder: &Path, file: &Path) -> Result<OsString, StartError> {
    let path = folder.join(file);
    let fail = |source| StartError::Secret { path: path.clone(), source };
    let plain = path
        .strip_prefix(folder)
        .is_ok_and(|rest| rest.components().all(|component| matches!(component, std::path::Component::Normal(_))));
    if !plain {
        return Err(fail(io::ErrorKind::InvalidInput.into()));
    }
    let mut bytes = Vec::new();
    let opened = std::fs::File::open(&path).map_err(fail)?;
    io::Read::read_to_end(&mut io::Read::take(opened, SECRET_LIMIT), &mut bytes).map_err(fail)?;
    if bytes.last() == Some(&b'\n') {
        bytes.pop();
    }
    if bytes.contains(&0) {
        return Err(fail(io::ErrorKind::InvalidData.into()));
    }
    Ok(OsStr::from_bytes(&bytes).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_a_secret_without_its_line_end_and_none_outside_its_folder() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("token"), "abc\n").unwrap();
        assert_eq!(read_secret(folder.path(), Path::new("token")).unwrap(), "abc");
        assert!(read_secret(folder.path(), Path::new("../etc/passwd")).is_err());
        assert!(read_secret(folder.path(), Path::new("/etc/passwd")).is_err());
    }

    #[test]
    fn links_a_file_of_an_agent_and_leaves_what_is_there() {
        let (home, secrets) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (place, target) = (Path::new(".codex/auth.json"), secrets.path().join("codex"));
        for file in ["before", "codex", "codex"] {
            link(home.path(), place, &secrets.path().join(file)).unwrap();
            assert_eq!(std::fs::read_link(home.path().join(place)).unwrap(), secrets.path().join(file));
        }
        for own in ["/elsewhere", "plain"] {
            std::fs::remove_file(home.path().join(place)).unwrap();
            if own == "plain" {
                std::fs::write(home.path().join(place), own).unwrap();
            } else {
                std::os::unix::fs::symlink(own, home.path().join(place)).unwrap();
            }
            link(home.path(), place, &target).unwrap();
            assert_ne!(std::fs::read_link(home.path().join(place)).ok(), Some(target.clone()), "{own}");
        }
    }

    #[test]
    fn tells_a_missing_program_from_one_that_is_not_executable() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("plain"), "").unwrap();
        let find = |name: &str| find(OsStr::new(name), folder.path().as_os_str(), folder.path()).unwrap_err().kind();
        assert_eq!(find("plain"), FailureKind::NotExecutable);
        assert_eq!(find("./plain"), FailureKind::NotExecutable);
        assert_eq!(find("absent"), FailureKind::NotFound);
        assert_eq!(find("./absent"), FailureKind::NotFound);
    }
}
