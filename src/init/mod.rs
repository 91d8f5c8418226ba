//! The program inside the agent's container: PID 1, and the sessions that `exec` starts beside it.
//!
//! It runs as the agent's own user and holds no authority: it clones, probes and runs commands, and it is never
//! believed in a matter of security.

use std::io::Write;
use std::process::ExitCode;
use std::time::Duration;

use rustix::process::{Pid, Signal, WaitOptions};
use tokio::signal::unix::{SignalKind, signal};

pub mod bundle;
mod certificates;
mod checks;
mod command;
mod copy;
pub mod frame;
mod large_files;
mod output;
mod processes;
mod repository;
pub mod session;
mod socket;
pub mod standing;
pub mod terminal_child;
pub(crate) mod truststore;
mod usage;

/// How long processes have between SIGTERM and SIGKILL.
const GRACE: Duration = Duration::from_secs(2);

/// Runs PID 1 until SIGTERM: it prints `ready`, reaps whatever ends, and takes every process with it.
///
/// It stays dumpable on purpose: sessions of the same user open its standard output to copy theirs into the log.
pub fn main() -> ExitCode {
    // As anything but PID 1, signalling "everyone" would reach processes that are none of our business.
    if rustix::process::getpid() != Pid::INIT {
        let _ = writeln!(std::io::stderr(), "init runs only as the first process of a container");
        return ExitCode::FAILURE;
    }
    if let Err(error) = certificates::merge_as_configured() {
        let _ = writeln!(std::io::stderr(), "failed to merge the session's certificate authority: {error}");
        return ExitCode::FAILURE;
    }
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "failed to start: {error}");
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(reap_until_terminated()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "failed to listen for signals: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn reap_until_terminated() -> std::io::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut child = signal(SignalKind::child())?;
    // Having a handler is what ignores these two; a plain `SIG_IGN` would be inherited by nobody but is not safe to set.
    let _interrupt = signal(SignalKind::interrupt())?;
    let _hangup = signal(SignalKind::hangup())?;
    writeln!(std::io::stdout(), "ready")?;
    std::io::stdout().flush()?;
    loop {
        tokio::select! {
            _ = terminate.recv() => break,
            _ = child.recv() => { reap(); }
        }
    }
    signal_everyone(Signal::TERM);
    let deadline = tokio::time::Instant::now() + GRACE;
    while tokio::time::Instant::now() < deadline && processes::others_exist() {
        let _ = tokio::time::timeout(Duration::from_millis(50), child.recv()).await;
        reap();
    }
    signal_everyone(Signal::KILL);
    reap();
    Ok(())
}

/// Collects every child that has ended, adopted ones included.
fn reap() {
    while let Ok(Some(_)) = rustix::process::wait(WaitOptions::NOHANG) {}
}

/// Signals every process but this one; `main` has made sure that this is PID 1 of a container.
fn signal_everyone(signal: Signal) {
    // A negative PID of 1 means "all that I may signal", see kill(2).
    let _ = rustix::process::kill_process_group(Pid::INIT, signal);
}
