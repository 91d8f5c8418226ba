//! What to do when a credential cannot be used.

use crate::commands::Failure;
use crate::credential::store::StoreError;
use crate::credential::{CredentialError, env_file};

impl From<CredentialError> for Failure {
    fn from(error: CredentialError) -> Self {
        let next = match &error {
            CredentialError::Store(StoreError::Absent(name)) => format!("set it with `sandbox credential set {name}`"),
            CredentialError::Store(StoreError::IdentityLost { path }) => format!(
                "put the identity back at {}, or set SANDBOX_AGE_IDENTITY; without it the values have to be set anew",
                path.display()
            ),
            CredentialError::Store(StoreError::IdentityReadable { path, .. }) => {
                format!("run `chmod 600 {}`", path.display())
            }
            CredentialError::Store(StoreError::IdentityLocked { .. }) => {
                "unset SANDBOX_AGE_IDENTITY to have a key of its own made, or name an age identity with it".to_owned()
            }
            CredentialError::Store(StoreError::Identity { .. }) => {
                "name an age identity or an ssh ed25519 key that you can read with SANDBOX_AGE_IDENTITY".to_owned()
            }
            CredentialError::Store(StoreError::NotListed { path, public }) => format!(
                "if you had another key, put it back in place of the new one; otherwise add this line to {}: {public}",
                path.display()
            ),
            CredentialError::Store(StoreError::NotARecipient { .. }) => {
                "ask somebody in `.sandbox/recipients` to add your public key and to set the value again".to_owned()
            }
            CredentialError::Store(StoreError::Damaged { .. }) => {
                "take the file from the repository's history, or set the value anew".to_owned()
            }
            CredentialError::Store(StoreError::TooLarge(_)) => "give the value alone, not a whole file".to_owned(),
            CredentialError::Store(StoreError::Misplaced { .. }) => {
                "remove the file and set the value with `sandbox credential set`".to_owned()
            }
            CredentialError::Store(StoreError::Recipient { .. }) => {
                "write one age or ssh public key a line; comments start with #".to_owned()
            }
            CredentialError::Store(_) => "make the file readable and writable for you".to_owned(),
            CredentialError::EnvFile(env_file::EnvFileError::Readable { path, .. }) => {
                format!("run `chmod 600 {}`", path.display())
            }
            CredentialError::EnvFile(env_file::EnvFileError::Tracked { path }) => {
                format!("run `git rm --cached {0}`, add it to .gitignore, and change the values", path.display())
            }
            CredentialError::EnvFile(env_file::EnvFileError::Unasked { .. }) => {
                "make `git status` work in that folder; a file that git may track is not used".to_owned()
            }
            CredentialError::EnvFile(env_file::EnvFileError::Line { .. }) => {
                "write NAME=value, NAME='value' or NAME=\"value\" on one line".to_owned()
            }
            CredentialError::EnvFile(_) => {
                "keep agents' values in a file of their own, such as `.env.agent`, with mode 600".to_owned()
            }
            CredentialError::Exec(_) => "run the command by hand and see what it says".to_owned(),
            CredentialError::Fingerprint(_) => "make the launcher's state folder writable for you".to_owned(),
            CredentialError::Shared { .. } => {
                "issue another one for this project; or declare `shared_with: { projects: […], reason: … }`".to_owned()
            }
            CredentialError::Personal { .. } => {
                "make a key for this project alone; or write `accept_personal: REASON`, which the report shows"
                    .to_owned()
            }
            CredentialError::TooOld { .. } => "rotate it with `sandbox credential rotate`".to_owned(),
            CredentialError::Expired(_) => "log in to the issuer again, and compare this machine's clock".to_owned(),
            CredentialError::Size(_) => "look at what the provider gives".to_owned(),
            CredentialError::FileTwice(_) => "give them different names in `deliver: { file: NAME }`".to_owned(),
        };
        Failure::new("credential", &error, next)
    }
}
