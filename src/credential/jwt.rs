//! JSON Web Tokens with RS256 (RFC 7519; RFC 7518, section 3.3): as an app of GitHub's signs them, and as the launcher signs
//! what it says of itself.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::rand::SystemRandom;
use ring::rsa::{KeyPair, PublicKeyComponents};
use ring::signature::RSA_PKCS1_SHA256;
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject as _;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use zeroize::Zeroize as _;

use super::secret::Secret;

/// A private key that signs. It cannot be shown.
pub(super) struct RsaKey(KeyPair);

impl RsaKey {
    /// Reads PEM: PKCS #1 or PKCS #8. None for what is no RSA key of at least 2048 bits.
    pub(super) fn read(pem: &Secret) -> Option<Self> {
        let mut der = PrivateKeyDer::from_pem_slice(pem.expose()).ok()?;
        let key = match &der {
            PrivateKeyDer::Pkcs1(key) => KeyPair::from_der(key.secret_pkcs1_der()).ok(),
            PrivateKeyDer::Pkcs8(key) => KeyPair::from_pkcs8(key.secret_pkcs8_der()).ok(),
            _ => None,
        };
        der.zeroize();
        key.map(Self)
    }

    /// A token with these claims. The header names the key where whoever looks at it has several to choose from.
    pub(super) fn sign(&self, claims: &Value, key_id: Option<&str>) -> Option<Secret> {
        let header = match key_id {
            None => json!({ "alg": "RS256", "typ": "JWT" }),
            Some(id) => json!({ "alg": "RS256", "kid": id, "typ": "JWT" }),
        };
        let encode = |part: &Value| URL_SAFE_NO_PAD.encode(part.to_string());
        let signed = format!("{}.{}", encode(&header), encode(claims));
        let mut signature = vec![0; self.0.public().modulus_len()];
        self.0.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), signed.as_bytes(), &mut signature).ok()?;
        Some(Secret::new(format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature)).into_bytes()))
    }

    /// The public key as a JSON Web Key (RFC 7517; RFC 7518, section 6.3.1), named by its thumbprint (RFC 7638).
    pub(super) fn public(&self) -> Value {
        // Both big-endian and without leading zeros, as a JSON Web Key has them.
        let public = PublicKeyComponents::<Vec<u8>>::from(self.0.public());
        let (n, e) = (URL_SAFE_NO_PAD.encode(public.n), URL_SAFE_NO_PAD.encode(public.e));
        let id = thumbprint(&n, &e);
        json!({ "kty": "RSA", "use": "sig", "alg": "RS256", "kid": id, "n": n, "e": e })
    }
}

/// "The required members … ordered lexicographically … with no whitespace" (RFC 7638, section 3).
fn thumbprint(n: &str, e: &str) -> String {
    URL_SAFE_NO_PAD.encode(Sha256::digest(format!(r#"{{"e":"{e}","kty":"RSA","n":"{n}"}}"#)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of RFC 7638, section 3.1.
    #[test]
    fn names_a_key_as_the_example_of_the_standard() {
        let n = "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3okn\
                 jhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQ\
                 vRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKn\
                 qDKgw";
        assert_eq!(thumbprint(n, "AQAB"), "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs");
    }

    #[test]
    fn takes_no_text_for_a_key() {
        for text in ["", "canary", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"] {
            assert!(RsaKey::read(&Secret::new(text.as_bytes().to_vec())).is_none(), "{text}");
        }
    }
}
