//! The identity in the keyring of the desktop, by `secret-tool` of libsecret, which speaks to whatever keeps the session's
//! secrets (freedesktop.org, "Secret Service API"). It is a program of its own rather than a library: a static binary would
//! bring a whole D-Bus client for one item.

use std::io::{self, Write as _};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::identity::IDENTITY_LIMIT;
use crate::credential::secret::Secret;

/// The program, of the Debian package `libsecret-tools`.
const PROGRAM: &str = "secret-tool";
/// By what the item is found (secret-tool(1): pairs of an attribute and its value).
const ATTRIBUTES: [&str; 4] = ["application", "sandbox", "kind", "age-identity"];
/// How long it may take: a locked keyring asks its owner for a password.
const LIMIT: Duration = Duration::from_secs(60);
/// Between two looks whether it ended.
const PAUSE: Duration = Duration::from_millis(10);

/// The identity, or none when the keyring has none.
pub(super) fn read() -> io::Result<Option<Secret>> {
    let (good, text) = run(&["lookup"], None)?;
    if good && !text.is_empty() {
        return Ok(Some(text));
    }
    // It says nothing and ends with 1 when there is no item, when the item stays locked, and when there is no keyring. A
    // search fails without a keyring, and finds what is locked.
    let (good, found) = run(&["search"], None)?;
    if good && found.is_empty() { Ok(None) } else { Err(unavailable()) }
}

/// Puts an identity into the keyring.
pub(super) fn write(identity: &[u8]) -> io::Result<()> {
    let (good, _) = run(&["store", "--label=sandbox: age identity"], Some(identity))?;
    if good { Ok(()) } else { Err(unavailable()) }
}

fn unavailable() -> io::Error {
    io::Error::new(io::ErrorKind::NotConnected, "no keyring answers, or it stays locked")
}

/// Runs the program with one of its verbs. Gives whether it succeeded, and what it printed. The identity goes through its
/// standard input and output alone.
fn run(verb: &[&str], input: Option<&[u8]>) -> io::Result<(bool, Secret)> {
    let mut child = Command::new(PROGRAM)
        .args(verb)
        .args(ATTRIBUTES)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    let mut stdin = child.stdin.take();
    if let (Some(stdin), Some(input)) = (&mut stdin, input) {
        stdin.write_all(input)?;
    }
    drop(stdin);
    let begun = Instant::now();
    // What it prints fits into the pipe, so that it ends without being read.
    let status = loop {
        match child.try_wait()? {
            Some(status) => break status,
            None if begun.elapsed() > LIMIT => {
                child.kill()?;
                child.wait()?;
                return Err(io::ErrorKind::TimedOut.into());
            }
            None => std::thread::sleep(PAUSE),
        }
    };
    let output = child.stdout.take().ok_or(io::ErrorKind::BrokenPipe)?;
    let text = Secret::read(output, IDENTITY_LIMIT)?;
    Ok((status.success(), text))
}
