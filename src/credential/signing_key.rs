//! The key of one session, by which its commits can be told from others.
//!
//! It proves that a commit was made in the sandbox of that session, and nothing about what is in it. It is made when the
//! session starts, lies below `/run/secrets` alone, and goes with it; its public part is in the journal and the audit log.

use ssh_key::private::Ed25519Keypair;
use ssh_key::{HashAlg, LineEnding, PrivateKey};
use zeroize::Zeroizing;

use super::secret::Secret;

/// The file's name below `/run/secrets`. The names of credentials have no dot.
pub const FILE: &str = "signing.key";

/// Why there is no key.
#[derive(Debug, thiserror::Error)]
pub enum SigningKeyError {
    /// The kernel gave no random bytes.
    #[error("get random bytes")]
    Random(#[source] std::io::Error),
    /// It cannot be written down.
    #[error("write the key in OpenSSH's format")]
    Format(#[source] ssh_key::Error),
}

/// A key pair of Ed25519.
#[derive(Debug)]
pub struct SigningKey {
    /// The private key in OpenSSH's format.
    pub private: Secret,
    /// The public key as one line of OpenSSH's.
    pub public: String,
    /// `SHA256:…` of the public key, as `ssh-keygen -l` shows it.
    pub fingerprint: String,
}

impl SigningKey {
    /// Makes one.
    ///
    /// # Errors
    /// When the kernel gives no random bytes.
    pub fn generate(comment: &str) -> Result<Self, SigningKeyError> {
        let mut seed = Zeroizing::new([0; 32]);
        getrandom::fill(seed.as_mut()).map_err(|error| SigningKeyError::Random(error.into()))?;
        let key = PrivateKey::new(Ed25519Keypair::from_seed(&seed).into(), comment).map_err(SigningKeyError::Format)?;
        let private = key.to_openssh(LineEnding::LF).map_err(SigningKeyError::Format)?;
        Ok(Self {
            private: Secret::new(private.as_bytes().to_vec()),
            public: key.public_key().to_openssh().map_err(SigningKeyError::Format)?,
            fingerprint: key.public_key().fingerprint(HashAlg::Sha256).to_string(),
        })
    }

    /// git's settings by which every commit and tag is signed with it (git-config(1), `gpg.format`).
    pub fn git_configuration() -> Vec<(String, String)> {
        let file = format!("/run/secrets/{FILE}");
        let settings =
            [("gpg.format", "ssh"), ("user.signingKey", &file), ("commit.gpgSign", "true"), ("tag.gpgSign", "true")];
        settings.map(|(key, value)| (key.to_owned(), value.to_owned())).to_vec()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn openssh_reads_it() {
        let key = SigningKey::generate("demo.main").unwrap();
        let read = PrivateKey::from_openssh(key.private.expose()).unwrap();
        assert_eq!(read.public_key().to_openssh().unwrap(), key.public);
        assert!(key.public.starts_with("ssh-ed25519 ") && key.public.ends_with(" demo.main"), "{}", key.public);
        assert!(!format!("{key:?}").contains("PRIVATE"));
        assert_ne!(SigningKey::generate("demo.main").unwrap().public, key.public);
    }
}
