//! What of a credential is looked for, and in which encodings.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use zeroize::Zeroizing;

/// The shortest text that is looked for, in bytes: shorter ones are in other texts by chance.
pub(super) const SHORTEST: usize = 12;

/// The shortest word of a file with several that is taken for a key.
const SHORTEST_WORD: usize = 20;

/// The longest text that is looked for, in bytes; of longer ones the end, since what begins alike ends differently.
const LONGEST: usize = 1024;

/// How much of one value is looked for, in bytes.
const TOTAL: usize = 8 << 10;

/// Keys of JSON objects whose values are no secret: those of AWS's `credential_process`, of a service account of Google's
/// and of a dynamic user of Vault's.
const PUBLIC: &[&str] = &[
    "accesskeyid",
    "auth_provider_x509_cert_url",
    "auth_uri",
    "client_email",
    "client_id",
    "client_x509_cert_url",
    "expiration",
    "expires_at",
    "host",
    "private_key_id",
    "project_id",
    "token_uri",
    "type",
    "universe_domain",
    "user",
    "username",
    "version",
];

/// Every text by which a value is found. The automaton ignores case, and undoes percent-encoding and JSON's escapes.
pub(super) fn patterns(value: &[u8]) -> Vec<Zeroizing<Vec<u8>>> {
    let mut found = Vec::new();
    let mut left = TOTAL;
    for piece in pieces(value) {
        let piece = &piece[piece.len().saturating_sub(LONGEST)..];
        let Some(rest) = left.checked_sub(piece.len()) else { break };
        left = rest;
        found.push(Zeroizing::new(piece.to_vec()));
        found.push(Zeroizing::new(hex::encode(piece).into_bytes()));
        for before in 0..3 {
            found.push(aligned(piece, before, &STANDARD_NO_PAD));
            found.push(aligned(piece, before, &URL_SAFE_NO_PAD));
        }
    }
    found
}

/// What base64 (RFC 4648) makes of the piece behind `before` other bytes, as far as these and what follows have no part
/// in it. So padding has none either.
fn aligned(piece: &[u8], before: usize, engine: &base64::engine::GeneralPurpose) -> Zeroizing<Vec<u8>> {
    let mut shifted = Zeroizing::new(vec![0; before]);
    shifted.reserve_exact(piece.len());
    shifted.extend_from_slice(piece);
    let text = Zeroizing::new(engine.encode(&*shifted).into_bytes());
    let first = (before * 8).div_ceil(6);
    let end = shifted.len() * 8 / 6;
    Zeroizing::new(text.get(first..end).unwrap_or_default().to_vec())
}

/// The secret texts of a value: the values of a JSON object, the words of several lines that look like keys, or all of
/// it.
fn pieces(value: &[u8]) -> Vec<Zeroizing<Vec<u8>>> {
    let value = value.trim_ascii();
    let mut found = Vec::new();
    if let Some(object) = value.starts_with(b"{").then(|| serde_json::from_slice(value).ok()).flatten() {
        leaves("", object, &mut found);
    } else if value.contains(&b'\n') {
        words(value, &mut found);
    } else {
        found.push(Zeroizing::new(value.to_vec()));
    }
    found.retain(|piece| piece.len() >= SHORTEST);
    found
}

fn leaves(key: &str, value: serde_json::Value, found: &mut Vec<Zeroizing<Vec<u8>>>) {
    match value {
        serde_json::Value::Object(entries) => {
            for (key, value) in entries {
                leaves(&key, value, found);
            }
        }
        serde_json::Value::Array(items) => items.into_iter().for_each(|item| leaves(key, item, found)),
        serde_json::Value::String(text) => {
            let text = Zeroizing::new(text.into_bytes());
            if PUBLIC.contains(&key.to_ascii_lowercase().as_str()) {
                return;
            }
            let trimmed = text.trim_ascii();
            if trimmed.contains(&b'\n') {
                words(trimmed, found);
            } else {
                found.push(Zeroizing::new(trimmed.to_vec()));
            }
        }
        _ => {}
    }
}

/// Words that look like keys: long, of the characters of keys, with letters and digits, and no host name.
fn words(text: &[u8], found: &mut Vec<Zeroizing<Vec<u8>>>) {
    for word in text.split(|byte| byte.is_ascii_whitespace() || b"\"',;:".contains(byte)) {
        // `NAME=VALUE`, and not the padding of base64.
        let word = match word.iter().position(|byte| *byte == b'=') {
            Some(sign) if word[sign..].iter().any(|byte| *byte != b'=') => &word[sign + 1..],
            _ => word,
        };
        let of_keys = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.+/=~".contains(byte);
        let host = word.contains(&b'.') && !word.iter().any(u8::is_ascii_uppercase);
        let mixed = word.iter().any(u8::is_ascii_digit) && word.iter().any(u8::is_ascii_alphabetic);
        if word.len() >= SHORTEST_WORD && word.iter().all(of_keys) && mixed && !host {
            found.push(Zeroizing::new(word.to_vec()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(value: &str) -> Vec<String> {
        pieces(value.as_bytes()).iter().map(|piece| String::from_utf8_lossy(piece).into_owned()).collect()
    }

    #[test]
    fn takes_the_secret_texts_of_files_in_the_usual_forms() {
        assert_eq!(texts("hunter2-hunter2\n"), ["hunter2-hunter2"]);
        assert!(texts("too-short").is_empty());
        let aws = r#"{"Version":1,"AccessKeyId":"AKIAIOSFODNN7EXAMPLE","SecretAccessKey":"wJalrXUtnFEMI/K7MDENG","SessionToken":"IQoJb3JpZ2lu/x","Expiration":"2026-11-23T22:00:00Z"}"#;
        assert_eq!(texts(aws), ["wJalrXUtnFEMI/K7MDENG", "IQoJb3JpZ2lu/x"]);
        let npm = "registry=https://registry.npmjs.org/\n//registry.npmjs.org/:_authToken=npm_0123456789abcdefXYZ\n";
        assert_eq!(texts(npm), ["npm_0123456789abcdefXYZ"]);
        let key = "-----BEGIN PRIVATE KEY-----\nMIIEvQIBADANBgkqhkiG9w0BAQ==\n-----END PRIVATE KEY-----\n";
        assert_eq!(texts(key), ["MIIEvQIBADANBgkqhkiG9w0BAQ=="]);
        let kubernetes = "apiVersion: v1\nkind: Config\ncurrent-context: payments-development\n";
        assert!(texts(kubernetes).is_empty());
    }

    #[test]
    fn no_value_makes_patterns_without_end() {
        let long = "0123456789abcdefghijk\n".repeat(10_000);
        let total: usize = patterns(long.as_bytes()).iter().map(|pattern| pattern.len()).sum();
        assert!(total <= 12 * TOTAL, "{total}");
        let jwt = format!("{}tail-of-the-signature", "x".repeat(5000));
        assert!(patterns(jwt.as_bytes())[0].ends_with(b"tail-of-the-signature"));
        assert_eq!(patterns(jwt.as_bytes())[0].len(), LONGEST);
    }
}
