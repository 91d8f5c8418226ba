//! The signed assertion by which an app says who it is, as "Generating a JSON Web Token (JWT) for a GitHub App" wants it.

use jiff::Timestamp;
use serde_json::json;

use super::error::GithubError;
use crate::credential::jwt::RsaKey;
use crate::credential::secret::Secret;

/// How far in the past it says that it was made: "to protect against clock drift, set this 60 seconds in the past".
const DRIFT: i64 = 60;
/// How far in the future it ends: "the time must be no more than 10 minutes into the future". A minute is left for drift.
const LIFE: i64 = 540;

/// The private key of an app.
pub(super) struct AppKey(RsaKey);

impl AppKey {
    /// Reads PEM: PKCS #1, in which GitHub gives keys, or PKCS #8.
    pub(super) fn read(pem: &Secret) -> Result<Self, GithubError> {
        RsaKey::read(pem).map(Self).ok_or(GithubError::Key)
    }

    /// An assertion that this is the app, which the server's clock accepts when it says `now`.
    pub(super) fn assert(&self, app: &str, now: Timestamp) -> Result<Secret, GithubError> {
        let now = now.as_second();
        let claims = json!({ "iat": now - DRIFT, "exp": now + LIFE, "iss": app });
        self.0.sign(&claims, None).ok_or(GithubError::Key)
    }
}
