//! Private keys in files, and whether a passphrase protects them.

use std::ops::Range;
use std::sync::LazyLock;

use base64::Engine as _;
use regex::bytes::Regex;
use zeroize::Zeroizing;

/// A private key in a text.
pub(super) struct PrivateKey {
    /// Where it stands, armour included.
    pub(super) range: Range<usize>,
    /// Whether it is encrypted.
    pub(super) protected: bool,
}

/// RFC 7468, section 2, and the block of OpenPGP's armour (RFC 9580, section 6.2). The body is looked at without
/// its label, and files of other programs hold such blocks too.
static BLOCK: LazyLock<Option<Regex>> = LazyLock::new(|| {
    Regex::new(r"(?s)-----BEGIN ([A-Z0-9 ]*PRIVATE KEY(?: BLOCK)?)-----(.+?)-----END [A-Z0-9 ]+-----").ok()
});

/// The private keys of a text.
pub(super) fn find(text: &[u8]) -> Vec<PrivateKey> {
    let Some(pattern) = BLOCK.as_ref() else { return Vec::new() };
    let blocks = pattern.captures_iter(text).filter_map(|found| {
        let (whole, label, body) = (found.get(0)?, found.get(1)?, found.get(2)?);
        let protected = match label.as_bytes() {
            // RFC 5958 as RFC 7468, section 11, names it.
            b"ENCRYPTED PRIVATE KEY" => true,
            b"OPENSSH PRIVATE KEY" => !is_open(body.as_bytes())?,
            // RFC 1421, section 4.6.1.1, as OpenSSL writes it.
            _ => contains(body.as_bytes(), b"ENCRYPTED"),
        };
        (body.len() >= 64).then(|| PrivateKey { range: whole.range(), protected })
    });
    blocks.collect()
}

/// Whether a key of OpenSSH has the cipher `none` (OpenSSH's PROTOCOL.key, section 1); none when it is no such key.
fn is_open(body: &[u8]) -> Option<bool> {
    let text = Zeroizing::new(body.iter().copied().filter(|byte| !byte.is_ascii_whitespace()).collect::<Vec<u8>>());
    let bytes = Zeroizing::new(base64::engine::general_purpose::STANDARD.decode(text.as_slice()).ok()?);
    let rest = bytes.strip_prefix(b"openssh-key-v1\0")?;
    let (length, rest) = rest.split_first_chunk::<4>()?;
    let cipher = rest.get(..usize::try_from(u32::from_be_bytes(*length)).ok()?)?;
    Some(cipher == b"none")
}

fn contains(text: &[u8], word: &[u8]) -> bool {
    text.windows(word.len()).any(|window| window == word)
}
