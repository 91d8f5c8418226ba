//! Certificate authorities as a trust store of Java's, whose programs read no PEM.
//!
//! The format is `JKS`, which every Java reads whatever its default is (`sun.security.provider.JavaKeyStore` in OpenJDK
//! says how it is laid out). The certificates are public, so its password is the one that everybody knows.

use sha1::{Digest as _, Sha1};

/// "changeit", as of the trust store that comes with Java.
const PASSWORD: &str = "changeit";
const MAGIC: u32 = 0xfeed_feed;
const VERSION: u32 = 2;
/// The tag of an entry that is a trusted certificate.
const TRUSTED: u32 = 2;
const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
const END: &str = "-----END CERTIFICATE-----";

/// The store with the certificates of a bundle in PEM. What is no certificate in it is left out, as other programs do.
pub(crate) fn store(bundle: &str) -> Vec<u8> {
    let blocks = bundle.split_inclusive(END).filter_map(|piece| pem::parse(&piece[piece.find(BEGIN)?..]).ok());
    let certificates: Vec<Vec<u8>> = blocks.map(pem::Pem::into_contents).collect();
    let mut store = Vec::new();
    store.extend(MAGIC.to_be_bytes());
    store.extend(VERSION.to_be_bytes());
    store.extend(number(certificates.len()));
    for (index, certificate) in certificates.iter().enumerate() {
        store.extend(TRUSTED.to_be_bytes());
        text(&mut store, &format!("ca-{index}"));
        // When it was made: nobody asks.
        store.extend(0_u64.to_be_bytes());
        text(&mut store, "X.509");
        store.extend(number(certificate.len()));
        store.extend(certificate);
    }
    let mut digest = Sha1::new();
    for unit in PASSWORD.encode_utf16() {
        digest.update(unit.to_be_bytes());
    }
    digest.update("Mighty Aphrodite");
    digest.update(&store);
    store.extend(digest.finalize());
    store
}

/// A number of things in a file that has far fewer bytes than this could count.
fn number(count: usize) -> [u8; 4] {
    u32::try_from(count).unwrap_or(u32::MAX).to_be_bytes()
}

/// Text as `DataOutput.writeUTF` writes it, for ASCII.
fn text(store: &mut Vec<u8>, text: &str) {
    store.extend(u16::try_from(text.len()).unwrap_or(u16::MAX).to_be_bytes());
    store.extend(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn has_the_certificates_of_the_bundle_and_the_digest_that_java_checks() {
        let block = |content: &[u8]| pem::encode(&pem::Pem::new("CERTIFICATE", content));
        let bundle = format!("# a comment\n{}{BEGIN}\nodd!\n{END}\n{}rest", block(b"one"), block(b"two"));
        let store = store(&bundle);
        assert_eq!(store[..12], [0xfe, 0xed, 0xfe, 0xed, 0, 0, 0, 2, 0, 0, 0, 2]);
        for part in [&b"\0\x04ca-0"[..], b"\0\x05X.509\0\0\0\x03one", b"\0\x04ca-1", b"\0\x05X.509\0\0\0\x03two"] {
            assert!(store.windows(part.len()).any(|window| window == part), "{part:?}");
        }
        let length = 12 + 2 * (4 + 6 + 8 + 7 + 4 + 3) + 20;
        assert_eq!(store.len(), length);
    }
}
