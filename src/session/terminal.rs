//! Joins this process's own streams, terminal and signals to a command in a session.

use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};

use bytes::Bytes;
use rustix::process::Signal;
use rustix::termios::{OptionalActions, Termios, isatty, tcgetattr, tcgetwinsize, tcsetattr};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use super::stream_client::{CommandInput, CommandStreams, SessionClient, SessionError};
use crate::init::frame::{RunRequest, TerminalSize};

/// Bytes read from standard input at once.
const CHUNK: usize = 64 << 10;
/// Signals passed on to a command without a terminal.
const FORWARDED: [Signal; 6] = [Signal::INT, Signal::TERM, Signal::HUP, Signal::QUIT, Signal::USR1, Signal::USR2];
/// Signals that end a command on a terminal, whose own keys go to it as bytes.
const LEAVING: [Signal; 4] = [Signal::INT, Signal::TERM, Signal::HUP, Signal::QUIT];

/// A terminal in raw mode: every key reaches the command. Dropping it, in a panic too, restores the terminal.
#[derive(Debug)]
pub struct RawTerminal {
    file: OwnedFd,
    before: Termios,
}

impl RawTerminal {
    /// Puts `terminal` into raw mode.
    pub fn enter(terminal: impl AsFd) -> std::io::Result<Self> {
        let file = terminal.as_fd().try_clone_to_owned()?;
        let before = tcgetattr(&file)?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(&file, OptionalActions::Now, &raw)?;
        Ok(Self { file, before })
    }
}

impl Drop for RawTerminal {
    fn drop(&mut self) {
        let _ = tcsetattr(&self.file, OptionalActions::Now, &self.before);
    }
}

/// The terminal's size when standard input and output are both a terminal, which is when a command should get one.
pub fn own_size() -> Option<TerminalSize> {
    let both = isatty(rustix::stdio::stdin()) && isatty(rustix::stdio::stdout());
    both.then(|| size_of(rustix::stdio::stdin())).flatten()
}

fn size_of(terminal: impl AsFd) -> Option<TerminalSize> {
    let size = tcgetwinsize(terminal).ok()?;
    Some(TerminalSize { rows: size.ws_row, columns: size.ws_col })
}

/// Runs a command with this process's streams and gives its exit code.
///
/// With a terminal in the request, standard input is put into raw mode until the command ends; a signal that ends this
/// process restores it and gives 128 plus its number. Without one, signals go to the command, and the second SIGINT
/// leaves at once with 130. After such a leave the session still runs the command: drop the client to end both.
pub async fn run_interactive<R, W>(client: &mut SessionClient<R, W>, request: RunRequest) -> Result<u8, SessionError>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let on_terminal = request.terminal.is_some();
    let (sender, input) = mpsc::channel(8);
    // Before raw mode: from here on no signal ends the process with the terminal left raw.
    let (arrived, mut leave) = mpsc::channel(8);
    let mut listeners = listen(if on_terminal { &LEAVING } else { &FORWARDED }, &arrived)?;
    if on_terminal {
        let mut resized = signal(SignalKind::window_change()).map_err(SessionError::Local)?;
        let sender = sender.clone();
        listeners.spawn(async move {
            while resized.recv().await.is_some() {
                let Some(size) = size_of(rustix::stdio::stdin()) else { continue };
                if sender.send(CommandInput::Resize(size)).await.is_err() {
                    return;
                }
            }
        });
    }
    let _raw = match on_terminal {
        true => Some(RawTerminal::enter(rustix::stdio::stdin()).map_err(SessionError::Local)?),
        false => None,
    };
    let signals = sender.clone();
    let left = async move {
        let mut interrupted = false;
        while let Some(signal) = leave.recv().await {
            if on_terminal || (signal == Signal::INT && interrupted) {
                return leaving_code(signal);
            }
            interrupted |= signal == Signal::INT;
            // Never waits: a full channel must not keep the second SIGINT from being seen.
            let _ = signals.try_send(CommandInput::Signal(signal.as_raw()));
        }
        std::future::pending().await
    };
    read_standard_input(sender).map_err(SessionError::Local)?;
    let streams = CommandStreams { input, output: tokio::io::stdout(), errors: tokio::io::stderr() };
    tokio::select! {
        code = client.run(request, streams) => code,
        code = left => Ok(code),
    }
}

/// The exit code that a shell gives for a process that this signal ended.
fn leaving_code(signal: Signal) -> u8 {
    u8::try_from(128 + signal.as_raw()).unwrap_or(u8::MAX)
}

/// Reports each arrival of these signals until the tasks are dropped.
fn listen(signals: &[Signal], to: &mpsc::Sender<Signal>) -> Result<tokio::task::JoinSet<()>, SessionError> {
    let mut tasks = tokio::task::JoinSet::new();
    for number in signals.iter().copied() {
        let mut arrivals = signal(SignalKind::from_raw(number.as_raw())).map_err(SessionError::Local)?;
        let to = to.clone();
        tasks.spawn(async move { while arrivals.recv().await.is_some() && to.send(number).await.is_ok() {} });
    }
    Ok(tasks)
}

/// Reads standard input on a thread of its own, which nobody waits for: a pending read must not keep the process alive.
fn read_standard_input(to: mpsc::Sender<CommandInput>) -> std::io::Result<()> {
    std::thread::Builder::new().name("standard input".into()).spawn(move || {
        let mut buffer = vec![0; CHUNK];
        loop {
            match std::io::stdin().read(&mut buffer) {
                Ok(count @ 1..) => {
                    let bytes = Bytes::copy_from_slice(&buffer[..count]);
                    if to.blocking_send(CommandInput::Data(bytes)).is_err() {
                        return;
                    }
                }
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                _ => {
                    let _ = to.blocking_send(CommandInput::End);
                    return;
                }
            }
        }
    })?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use rustix::fs::{Mode, OFlags};
    use rustix::pty::{OpenptFlags, openpt, ptsname, unlockpt};
    use rustix::termios::LocalModes;

    use super::*;

    fn terminal() -> (OwnedFd, OwnedFd) {
        let ours = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        unlockpt(&ours).unwrap();
        let name = ptsname(&ours, Vec::new()).unwrap();
        let theirs = rustix::fs::open(&*name, OFlags::RDWR | OFlags::NOCTTY, Mode::empty()).unwrap();
        (ours, theirs)
    }

    fn echoes(terminal: &OwnedFd) -> bool {
        tcgetattr(terminal).unwrap().local_modes.contains(LocalModes::ECHO | LocalModes::ICANON)
    }

    #[test]
    fn restores_the_terminal_at_the_end_and_in_a_panic() {
        let (_ours, theirs) = terminal();
        assert!(echoes(&theirs));
        let raw = RawTerminal::enter(&theirs).unwrap();
        assert!(!echoes(&theirs));
        drop(raw);
        assert!(echoes(&theirs));
        let panicked = std::panic::catch_unwind(|| {
            let _raw = RawTerminal::enter(&theirs).unwrap();
            assert!(echoes(&theirs), "raw");
        });
        assert!(panicked.is_err() && echoes(&theirs));
    }

    #[test]
    fn refuses_what_is_not_a_terminal() {
        assert!(RawTerminal::enter(tempfile::tempfile().unwrap()).is_err());
    }
}
