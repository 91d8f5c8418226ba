//! The step between a session and a command on a terminal: makes the terminal the controlling one, then becomes the
//! command.
//!
//! A program of its own, because doing this between fork and exec of another would need unsafe code.

use std::ffi::OsString;
use std::io::{ErrorKind, Write};
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

/// Takes standard input as the controlling terminal of a new session and executes `program` with `arguments`, of which the
/// first is the name the program sees.
///
/// Returns only on failure: 127 when the program does not exist, otherwise 126.
pub fn main(program: OsString, arguments: Vec<OsString>) -> ExitCode {
    let taken = rustix::process::setsid().and_then(|_| rustix::process::ioctl_tiocsctty(rustix::stdio::stdin()));
    if let Err(error) = taken {
        let _ = writeln!(std::io::stderr(), "failed to take the terminal: {error}");
        return ExitCode::from(126);
    }
    let mut command = Command::new(&program);
    let mut arguments = arguments.into_iter();
    if let Some(name) = arguments.next() {
        command.arg0(name);
    }
    let error = command.args(arguments).exec();
    let _ = writeln!(std::io::stderr(), "failed to execute {}: {error}", program.to_string_lossy());
    ExitCode::from(if error.kind() == ErrorKind::NotFound { 127 } else { 126 })
}
