//! git's credential helper inside the agent's container (gitcredentials(7), git-credential(1)): answers from a file
//! below `/run/secrets` at each use, so that a rotation needs no restart.

use std::io::{self, BufRead as _, Read as _};
use std::path::Path;
use std::process::ExitCode;

use zeroize::Zeroizing;

/// The user name that goes with a token, as GitHub documents it for app tokens; other forges take any.
const TOKEN_USER: &str = "x-access-token";
/// The largest request that is read, in bytes.
const LIMIT: u64 = 64 << 10;

/// Answers git's question on standard input. `store` and `erase` change nothing, since the agent owns no credential.
pub fn main(folder: &Path, file: &str, action: &str) -> ExitCode {
    if action != "get" || file.contains('/') || file.starts_with('.') {
        return ExitCode::SUCCESS;
    }
    let answered = answer(io::stdin().lock(), io::stdout().lock(), &folder.join(file));
    // Without an answer git goes on without a credential and says so itself.
    if answered.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn answer(question: impl io::BufRead, mut output: impl io::Write, file: &Path) -> io::Result<()> {
    let mut protocol = None;
    for line in question.take(LIMIT).lines() {
        let line = line?;
        if line.is_empty() {
            break;
        }
        if let Some(value) = line.strip_prefix("protocol=") {
            protocol = Some(value.to_owned());
        }
    }
    // A credential never travels in the clear.
    if protocol.as_deref() != Some("https") {
        return Ok(());
    }
    let mut secret = Zeroizing::new(Vec::with_capacity(64 << 10));
    std::fs::File::open(file)?.take(LIMIT).read_to_end(&mut secret)?;
    let secret = secret.trim_ascii();
    if secret.is_empty() || secret.contains(&b'\n') || secret.contains(&0) {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "the file does not hold one line"));
    }
    let (user, password) = match secret.iter().position(|byte| *byte == b':') {
        Some(colon) => (&secret[..colon], &secret[colon + 1..]),
        None => (TOKEN_USER.as_bytes(), secret),
    };
    for (name, value) in [("username=", user), ("password=", password)] {
        output.write_all(name.as_bytes())?;
        output.write_all(value)?;
        output.write_all(b"\n")?;
    }
    output.flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(question: &str, secret: &str) -> Option<String> {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("github");
        std::fs::write(&file, secret).unwrap();
        let mut output = Vec::new();
        answer(question.as_bytes(), &mut output, &file).ok()?;
        Some(String::from_utf8(output).unwrap())
    }

    #[test]
    fn answers_with_the_token() {
        let answer = ask("protocol=https\nhost=github.com\n\n", "ghs_abc\n").unwrap();
        assert_eq!(answer, "username=x-access-token\npassword=ghs_abc\n");
        assert_eq!(ask("protocol=https\n\n", "me:pass").unwrap(), "username=me\npassword=pass\n");
    }

    #[test]
    fn answers_nothing_in_the_clear_and_nothing_of_two_lines() {
        assert_eq!(ask("protocol=http\nhost=github.com\n\n", "ghs_abc").unwrap(), "");
        assert_eq!(ask("protocol=https\n\n", "a\nquit=1"), None);
    }
}
