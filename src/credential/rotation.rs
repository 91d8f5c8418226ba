//! Requests to rotate or to revoke, from `sandbox credential` to the sandbox's supervisor: one empty file for each
//! credential.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::Path;

use crate::project::CredentialName;

const ROTATE: &str = "rotate";
const REVOKE: &str = "revoke";

/// Asks the supervisor of the sandbox whose journal folder this is to rotate a credential.
///
/// # Errors
/// When the request cannot be written.
pub fn request(journal_folder: &Path, name: &CredentialName) -> io::Result<()> {
    ask(&journal_folder.join(ROTATE), name)
}

/// Asks the supervisor to withdraw a credential.
///
/// # Errors
/// When the request cannot be written.
pub fn request_revocation(journal_folder: &Path, name: &CredentialName) -> io::Result<()> {
    ask(&journal_folder.join(REVOKE), name)
}

fn ask(folder: &Path, name: &CredentialName) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    fs::write(folder.join(name.as_str()), b"")
}

/// What was asked for.
#[derive(Debug, Default)]
pub struct Requests {
    /// Credentials to rotate.
    pub rotate: BTreeSet<CredentialName>,
    /// Credentials to withdraw.
    pub revoke: BTreeSet<CredentialName>,
}

/// Takes the requests that are there.
///
/// # Errors
/// When they cannot be read.
pub fn take_requests(journal_folder: &Path) -> io::Result<Requests> {
    Ok(Requests { rotate: take(&journal_folder.join(ROTATE))?, revoke: take(&journal_folder.join(REVOKE))? })
}

fn take(folder: &Path) -> io::Result<BTreeSet<CredentialName>> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(BTreeSet::new()),
        Err(error) => return Err(error),
    };
    let mut names = BTreeSet::new();
    for entry in entries {
        let entry = entry?;
        // Removed before it is served: a request that comes meanwhile is served again.
        fs::remove_file(entry.path())?;
        if let Some(name) = entry.file_name().to_str().and_then(|name| name.parse().ok()) {
            names.insert(name);
        }
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> CredentialName {
        text.parse().unwrap()
    }

    #[test]
    fn serves_each_request_once() {
        let folder = tempfile::tempdir().unwrap();
        assert!(take_requests(folder.path()).unwrap().rotate.is_empty());
        for _ in 0..2 {
            request(folder.path(), &name("github")).unwrap();
        }
        request_revocation(folder.path(), &name("npm")).unwrap();
        let taken = take_requests(folder.path()).unwrap();
        assert_eq!(taken.rotate, BTreeSet::from([name("github")]));
        assert_eq!(taken.revoke, BTreeSet::from([name("npm")]));
        let taken = take_requests(folder.path()).unwrap();
        assert!(taken.rotate.is_empty() && taken.revoke.is_empty());
    }

    #[test]
    fn takes_no_file_for_a_request_that_is_no_name() {
        let folder = tempfile::tempdir().unwrap();
        request(folder.path(), &name("github")).unwrap();
        fs::write(folder.path().join(ROTATE).join(".Swap"), b"").unwrap();
        assert_eq!(take_requests(folder.path()).unwrap().rotate, BTreeSet::from([name("github")]));
    }
}
