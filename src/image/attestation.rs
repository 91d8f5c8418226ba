//! Signed statements about an image: in-toto statements in DSSE envelopes (secure-systems-lab/dsse, protocol v1.0), the form
//! of the attestations of cosign 2.
//!
//! Keys are plain PEM files, PKCS#8 for the private one: ECDSA with P-256 and SHA-256, or Ed25519. Nothing is sent anywhere
//! and no transparency log is written.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::rand::SystemRandom;
use ring::signature::{self, EcdsaKeyPair, Ed25519KeyPair, UnparsedPublicKey, VerificationAlgorithm};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::BuiltImage;

/// Bytes of an envelope that anybody reads: a bill of materials has a line for each file.
pub const LIMIT: u64 = 512 << 20;
/// Bytes of a key file.
pub const KEY_LIMIT: u64 = 64 << 10;

/// What is in the envelope (in-toto attestation, spec/v1/envelope.md).
const PAYLOAD: &str = "application/vnd.in-toto+json";

/// A public key of P-256 up to its point (RFC 5480, section 2): the algorithm, and an uncompressed point behind it.
const P256: &[u8] = &[
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce,
    0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];
/// A public key of Ed25519 up to its bytes (RFC 8410, section 4).
const ED25519: &[u8] = &[0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

/// Why a statement cannot be signed or believed.
#[derive(Debug, thiserror::Error)]
pub enum AttestationError {
    /// Not PEM, or of another kind.
    #[error("the key is no PEM block `{0}`")]
    Pem(&'static str),
    /// Encrypted, or of another algorithm.
    #[error("the key is neither ECDSA with P-256 nor Ed25519")]
    Key,
    /// The random generator of the system, or the key.
    #[error("the statement cannot be signed")]
    Sign,
    /// Not an envelope.
    #[error("the envelope is not valid")]
    Form(#[source] serde_json::Error),
    /// Not base64.
    #[error("the envelope's {0} is not base64")]
    Encoding(&'static str),
    /// Something else was signed.
    #[error("the envelope holds `{}`, and not an in-toto statement", .0.escape_debug())]
    Payload(String),
    /// Nobody with this key signed it.
    #[error("no signature in the envelope is of this key")]
    Signature,
    /// A good signature of something else.
    #[error("the signed statement is about another image, or differs from what the lock gives")]
    Differs,
    /// A statement of a kind that is not made here.
    #[error("the signed statement is of the kind `{}`, which is not known here", .0.escape_debug())]
    Kind(String),
}

#[derive(Debug, Serialize, Deserialize)]
struct Envelope {
    #[serde(rename = "payloadType")]
    payload_type: String,
    payload: String,
    signatures: Vec<Signature>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Signature {
    #[serde(default)]
    keyid: String,
    sig: String,
}

/// Wraps a document about an image as an in-toto Statement v1 of this kind.
pub fn statement(built: &BuiltImage, kind: &str, predicate: Value) -> Value {
    let mut statement = json!({
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"name": built.name, "digest": {"sha256": built.manifest_digest.hex()}}],
        "predicateType": kind,
        "predicate": predicate,
    });
    statement.sort_all_objects();
    statement
}

/// What is signed: the pre-authentication encoding (DSSE, protocol.md).
fn encoding(kind: &str, payload: &[u8]) -> Vec<u8> {
    [format!("DSSEv1 {} {kind} {} ", kind.len(), payload.len()).as_bytes(), payload].concat()
}

/// Signs a statement with a private key.
///
/// # Errors
/// When the key is not one that can sign.
pub fn sign(statement: &Value, key: &str) -> Result<Value, AttestationError> {
    let wrong = || AttestationError::Pem("PRIVATE KEY");
    let block = pem::parse(key).map_err(|_| wrong())?;
    let right = block.tag() == "PRIVATE KEY";
    let key = Zeroizing::new(block.into_contents());
    if !right {
        return Err(wrong());
    }
    let payload = statement.to_string().into_bytes();
    let message = encoding(PAYLOAD, &payload);
    let random = SystemRandom::new();
    let signature = if let Ok(key) = Ed25519KeyPair::from_pkcs8_maybe_unchecked(&key) {
        key.sign(&message).as_ref().to_vec()
    } else {
        let key = EcdsaKeyPair::from_pkcs8(&signature::ECDSA_P256_SHA256_ASN1_SIGNING, &key, &random);
        let key = key.map_err(|_| AttestationError::Key)?;
        key.sign(&random, &message).map_err(|_| AttestationError::Sign)?.as_ref().to_vec()
    };
    // cosign leaves the id of the key empty, and looks at it in no envelope.
    Ok(json!({
        "payloadType": PAYLOAD,
        "payload": STANDARD.encode(payload),
        "signatures": [{"keyid": "", "sig": STANDARD.encode(signature)}],
    }))
}

/// The statement of an envelope, if it was signed with the private half of this key.
///
/// # Errors
/// When it was not, or is no envelope.
pub fn open(envelope: &[u8], key: &str) -> Result<Value, AttestationError> {
    let wrong = || AttestationError::Pem("PUBLIC KEY");
    let block = pem::parse(key).map_err(|_| wrong())?;
    if block.tag() != "PUBLIC KEY" {
        return Err(wrong());
    }
    let der = block.contents();
    let known: [(&[u8], usize, &'static dyn VerificationAlgorithm); 2] =
        [(P256, 65, &signature::ECDSA_P256_SHA256_ASN1), (ED25519, 32, &signature::ED25519)];
    let found = known.into_iter().find_map(|(prefix, length, algorithm)| {
        let bytes = der.strip_prefix(prefix).filter(|bytes| bytes.len() == length)?;
        Some(UnparsedPublicKey::new(algorithm, bytes))
    });
    let key = found.ok_or(AttestationError::Key)?;
    let envelope: Envelope = serde_json::from_slice(envelope).map_err(AttestationError::Form)?;
    if envelope.payload_type != PAYLOAD {
        return Err(AttestationError::Payload(envelope.payload_type.chars().take(100).collect()));
    }
    let payload = STANDARD.decode(&envelope.payload).map_err(|_| AttestationError::Encoding("payload"))?;
    let message = encoding(&envelope.payload_type, &payload);
    // Others may have signed too; a few of them.
    for signature in envelope.signatures.iter().take(16) {
        let signature = STANDARD.decode(&signature.sig).map_err(|_| AttestationError::Encoding("signature"))?;
        if key.verify(&message, &signature).is_ok() {
            // Nothing of the payload is parsed before this.
            return serde_json::from_slice(&payload).map_err(AttestationError::Form);
        }
    }
    Err(AttestationError::Signature)
}

#[cfg(test)]
mod tests {
    use ring::signature::KeyPair as _;

    use super::*;

    /// Private and public key of each algorithm.
    fn keys() -> Vec<(String, String)> {
        let random = SystemRandom::new();
        let text = |tag: &str, bytes: Vec<u8>| pem::encode(&pem::Pem::new(tag, bytes));
        let ecdsa = EcdsaKeyPair::generate_pkcs8(&signature::ECDSA_P256_SHA256_ASN1_SIGNING, &random).unwrap();
        let pair =
            EcdsaKeyPair::from_pkcs8(&signature::ECDSA_P256_SHA256_ASN1_SIGNING, ecdsa.as_ref(), &random).unwrap();
        let p256 = [P256, pair.public_key().as_ref()].concat();
        let edwards = Ed25519KeyPair::generate_pkcs8(&random).unwrap();
        let pair = Ed25519KeyPair::from_pkcs8(edwards.as_ref()).unwrap();
        let ed25519 = [ED25519, pair.public_key().as_ref()].concat();
        vec![
            (text("PRIVATE KEY", ecdsa.as_ref().to_vec()), text("PUBLIC KEY", p256)),
            (text("PRIVATE KEY", edwards.as_ref().to_vec()), text("PUBLIC KEY", ed25519)),
        ]
    }

    #[test]
    fn encodes_as_the_protocol_has_it() {
        // The example of DSSE's protocol.md.
        let expected = b"DSSEv1 29 http://example.com/HelloWorld 11 hello world";
        assert_eq!(encoding("http://example.com/HelloWorld", b"hello world"), expected);
    }

    #[test]
    fn what_was_signed_opens_with_the_public_half_alone() {
        let keys = keys();
        let statement = json!({"_type": "https://in-toto.io/Statement/v1", "subject": []});
        for (index, (private, public)) in keys.iter().enumerate() {
            let envelope = sign(&statement, private).unwrap().to_string();
            assert_eq!(open(envelope.as_bytes(), public).unwrap(), statement);
            let other = &keys[1 - index].1;
            assert!(matches!(open(envelope.as_bytes(), other), Err(AttestationError::Signature)));
            assert!(matches!(open(envelope.as_bytes(), private), Err(AttestationError::Pem("PUBLIC KEY"))));
            assert!(matches!(sign(&statement, public), Err(AttestationError::Pem("PRIVATE KEY"))));
        }
    }

    #[test]
    fn refuses_an_envelope_in_which_anything_was_changed() {
        let (private, public) = keys().remove(0);
        let envelope = sign(&json!({"a": 1}), &private).unwrap();
        let changed = |change: &dyn Fn(&mut Value)| {
            let mut changed = envelope.clone();
            change(&mut changed);
            open(changed.to_string().as_bytes(), &public).unwrap_err()
        };
        let other = STANDARD.encode(r#"{"a":2}"#);
        assert!(matches!(changed(&|e| e["payload"] = json!(other)), AttestationError::Signature));
        assert!(matches!(changed(&|e| e["payload"] = json!("?")), AttestationError::Encoding("payload")));
        assert!(matches!(changed(&|e| e["payloadType"] = json!("text/plain")), AttestationError::Payload(_)));
        assert!(matches!(changed(&|e| e["signatures"] = json!([])), AttestationError::Signature));
        assert!(matches!(changed(&|e| e["signatures"][0]["sig"] = json!("AAAA")), AttestationError::Signature));
        assert!(matches!(changed(&|e| e["signatures"] = json!(1)), AttestationError::Form(_)));
        // The right signature behind sixteen others is not looked for.
        let many = |e: &mut Value| {
            let own = e["signatures"][0].clone();
            let mut all = vec![json!({"sig": "AAAA"}); 16];
            all.push(own);
            e["signatures"] = json!(all);
        };
        assert!(matches!(changed(&many), AttestationError::Signature));
    }

    #[test]
    fn refuses_keys_of_other_kinds() {
        let text = |tag: &str, bytes: &[u8]| pem::encode(&pem::Pem::new(tag, bytes));
        assert!(matches!(sign(&json!({}), &text("PRIVATE KEY", b"x")), Err(AttestationError::Key)));
        assert!(matches!(sign(&json!({}), "no key"), Err(AttestationError::Pem(_))));
        let encrypted = text("ENCRYPTED SIGSTORE PRIVATE KEY", b"x");
        assert!(matches!(sign(&json!({}), &encrypted), Err(AttestationError::Pem(_))));
        for bytes in [&b"x"[..], P256, &[P256, &[4; 64]].concat(), &[ED25519, &[0; 33]].concat()] {
            assert!(matches!(open(b"{}", &text("PUBLIC KEY", bytes)), Err(AttestationError::Key)));
        }
    }
}
