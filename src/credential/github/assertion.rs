//! The signed assertion by which an app says who it is: a JSON Web Token with RS256 (RFC 7519; RFC 7518, section 3.3), as
//! "Generating a JSON Web Token (JWT) for a GitHub App" wants it.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;
use rustls::SignatureScheme;
use rustls::crypto::ring::sign::RsaSigningKey;
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::sign::SigningKey as _;
use serde_json::json;
use zeroize::Zeroize as _;

use super::error::GithubError;
use crate::credential::secret::Secret;

/// How far in the past it says that it was made: "to protect against clock drift, set this 60 seconds in the past".
const DRIFT: i64 = 60;
/// How far in the future it ends: "the time must be no more than 10 minutes into the future". A minute is left for drift.
const LIFE: i64 = 540;

/// The private key of an app.
pub(super) struct AppKey(RsaSigningKey);

impl AppKey {
    /// Reads PEM: PKCS #1, in which GitHub gives keys, or PKCS #8.
    pub(super) fn read(pem: &Secret) -> Result<Self, GithubError> {
        let mut der = PrivateKeyDer::from_pem_slice(pem.expose()).map_err(|_| GithubError::Key)?;
        let key = RsaSigningKey::new(&der).map_err(|_| GithubError::Key);
        der.zeroize();
        key.map(Self)
    }

    /// An assertion that this is the app, which the server's clock accepts when it says `now`.
    pub(super) fn assert(&self, app: &str, now: Timestamp) -> Result<Secret, GithubError> {
        let now = now.as_second();
        let claims = json!({ "iat": now - DRIFT, "exp": now + LIFE, "iss": app });
        let header = URL_SAFE_NO_PAD.encode(br#"{"alg":"RS256","typ":"JWT"}"#);
        let signed = format!("{header}.{}", URL_SAFE_NO_PAD.encode(claims.to_string()));
        let signer = self.0.choose_scheme(&[SignatureScheme::RSA_PKCS1_SHA256]).ok_or(GithubError::Key)?;
        let signature = signer.sign(signed.as_bytes()).map_err(|_| GithubError::Key)?;
        Ok(Secret::new(format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature)).into_bytes()))
    }
}
