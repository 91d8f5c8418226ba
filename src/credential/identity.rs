//! The identity of a sandbox: a JSON Web Token of five minutes that says project, sandbox, person and session, signed by the
//! launcher's own key. Vault, clouds and issuers of models take it in place of a secret that is shared with them.
//!
//! The private key never leaves the configuration folder. What is published are the documents of OpenID Connect Discovery
//! 1.0; who serves them under the issuer's address decides whom the issuers believe.

use std::path::PathBuf;

use jiff::{SignedDuration, Timestamp};
use serde_json::{Map, Value, json};

use super::IssueContext;
use super::secret::Secret;

mod documents;
mod keys;

pub use documents::Documents;

/// How long a token lives. It is exchanged at once, so a short life costs nothing.
const LIFE: i64 = 300;
/// How far in the past it says that it was made: clocks differ.
const DRIFT: i64 = 60;

/// Why there is no identity.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The configuration does not say who issues it.
    #[error("sign an identity: config.yaml does not say who issues it")]
    NoIssuer,
    /// A file cannot be read or written.
    #[error("use the launcher's signing key in {path}")]
    File {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// Others can read the private key.
    #[error("use the launcher's signing key in {path}, which others can read (mode {mode:o})")]
    Readable {
        /// The file.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// A file holds something else.
    #[error("understand {path}: {problem}")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: &'static str,
    },
    /// The key cannot be made, or does not sign.
    #[error("{0} the launcher's signing key")]
    Key(&'static str),
}

/// Who signs, and as whom.
#[derive(Debug, Clone, Default)]
pub struct Authority {
    /// Where the launcher's signing key is.
    pub folder: PathBuf,
    /// The address under which the team publishes the documents, as the user's configuration has it.
    pub issuer: Option<String>,
}

/// A signed identity.
#[derive(Debug)]
pub struct Signed {
    /// The token.
    pub token: Secret,
    /// Its own name, which is no secret.
    pub id: String,
    /// The name of the key.
    pub key: String,
    /// When it ends.
    pub expires_at: Timestamp,
}

impl Signed {
    /// The token as text, to show it to a user who asked for it.
    pub fn text(&self) -> zeroize::Zeroizing<String> {
        zeroize::Zeroizing::new(String::from_utf8_lossy(self.token.expose()).into_owned())
    }
}

/// The subject of a project's sandboxes. Of the claims, this is the one that every issuer can compare; for some it is the only
/// one, and they compare it whole, so nothing else is in it.
pub fn subject(project: &str) -> String {
    format!("project:{project}")
}

impl Authority {
    fn issuer(&self) -> Result<&str, IdentityError> {
        self.issuer.as_deref().ok_or(IdentityError::NoIssuer)
    }

    /// Signs an identity for one audience. `further` are claims that this audience alone knows.
    ///
    /// # Errors
    /// When there is no issuer, or the key cannot be read or made.
    pub fn sign(
        &self,
        context: &IssueContext<'_>,
        audience: &str,
        further: Map<String, Value>,
        now: Timestamp,
    ) -> Result<Signed, IdentityError> {
        let issuer = self.issuer()?;
        let key = keys::current(&self.folder)?;
        let mut random = [0; 16];
        getrandom::fill(&mut random).map_err(|_| IdentityError::Key("use"))?;
        let id = hex::encode(random);
        let made = now.as_second() - DRIFT;
        let mut claims = json!({
            "iss": issuer,
            "sub": subject(context.project.as_str()),
            "aud": audience,
            "iat": made,
            "nbf": made,
            "exp": now.as_second() + LIFE,
            "jti": id,
            "project": context.project.as_str(),
            "sandbox": context.sandbox.as_str(),
            "user": context.actor,
        });
        if let (Some(session), Value::Object(claims)) = (&context.session, &mut claims) {
            claims.insert("session".to_owned(), json!(session));
        }
        if let Value::Object(claims) = &mut claims {
            // What is said of the sandbox is not replaced by what one audience wants beside it.
            further.into_iter().for_each(|(name, value)| {
                claims.entry(name).or_insert(value);
            });
        }
        let key_id = key.id();
        let token = key.pair.sign(&claims, Some(&key_id)).ok_or(IdentityError::Key("sign with"))?;
        let expires_at = now.checked_add(SignedDuration::from_secs(LIFE)).map_err(|_| IdentityError::Key("use"))?;
        Ok(Signed { token, id, key: key_id, expires_at })
    }

    /// Makes a new key. The old one signs nothing any more, and is published until its last token has ended.
    ///
    /// # Errors
    /// As [`Self::sign`].
    pub fn rotate(&self) -> Result<(), IdentityError> {
        self.issuer()?;
        keys::rotate(&self.folder, Timestamp::now())
    }

    /// What is to be published, and what issuers are to be told about this project.
    ///
    /// # Errors
    /// As [`Self::sign`].
    pub fn documents(&self, project: &str) -> Result<Documents, IdentityError> {
        let issuer = self.issuer()?;
        Ok(Documents::new(
            issuer,
            project,
            keys::current(&self.folder)?.id(),
            keys::published(&self.folder, Timestamp::now())?,
        ))
    }
}

#[cfg(test)]
mod tests;
