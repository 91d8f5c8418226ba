//! Release files: their signature, their validity and the digests in them (Debian wiki, "DebianRepository/Format").

use std::path::Path;

use pgp::composed::{CleartextSignedMessage, Deserializable, SignedPublicKey};
use pgp::packet::Signature;
use pgp::types::{KeyDetails as _, Timestamp};

use super::control::paragraph;
use super::error::ImageError;
use super::reference::Digest;

/// What is used of a verified InRelease.
#[derive(Debug)]
pub struct Release {
    /// `Date`, Unix time in seconds.
    pub date: u64,
    /// Digest of `main/binary-ARCHITECTURE/Packages.xz`.
    pub packages: Digest,
    /// Its size in bytes.
    pub packages_size: u64,
}

/// Verifies an InRelease against a keyring of binary OpenPGP keys, and its dates against `now` (Unix seconds).
pub fn verify(suite: &str, text: &str, keyring: &Path, architecture: &str, now: u64) -> Result<Release, ImageError> {
    let broken = |source| ImageError::Keyring { path: keyring.to_owned(), source: Box::new(source) };
    let unsigned = |source: Option<pgp::errors::Error>| ImageError::Signature {
        suite: suite.to_owned(),
        source: source.map(Box::new),
    };
    let (message, _) = CleartextSignedMessage::from_string(text).map_err(|error| unsigned(Some(error)))?;
    let keys = SignedPublicKey::from_file_many(keyring).map_err(broken)?;
    let mut last = None;
    let mut good = false;
    for key in keys {
        let key = key.map_err(broken)?;
        let mut attempts = Vec::new();
        // Only the key itself limits its life, not those who certified its names.
        let own = key.fingerprint();
        let certifications = key.details.users.iter().flat_map(|user| &user.signatures);
        let certifications = certifications.filter(|signature| signature.issuer_fingerprint().contains(&&own));
        if lives(key.primary_key.created_at(), certifications, now) {
            attempts.push(message.verify(&key).map(drop));
        }
        // Debian signs with subkeys, which count only when the primary key vouches for them. Names on the key are not
        // looked at: that the key is in the keyring is what makes it Debian's.
        for subkey in &key.public_subkeys {
            let signs = subkey.signatures.iter().any(|binding| binding.key_flags().sign());
            if signs && lives(subkey.key.created_at(), subkey.signatures.iter(), now) {
                let bound = subkey.verify_bindings(&key.primary_key);
                attempts.push(bound.and_then(|()| message.verify(subkey).map(drop)));
            }
        }
        for attempt in attempts {
            match attempt {
                Ok(()) => good = true,
                Err(error) => last = Some(error),
            }
        }
        if good {
            break;
        }
    }
    if !good {
        return Err(unsigned(last));
    }
    read(suite, &message.signed_text(), architecture, now)
}

/// Whether a key has not expired at `now`, by the signatures that may limit its life (RFC 9580, section 5.2.3.13).
fn lives<'a>(created: Timestamp, mut signatures: impl Iterator<Item = &'a Signature>, now: u64) -> bool {
    let created = u64::from(created.as_secs());
    signatures.any(|signature| {
        let life = signature.key_expiration_time().map(|life| u64::from(life.as_secs()));
        life.is_none_or(|life| life == 0 || created + life > now)
    })
}

fn read(suite: &str, text: &str, architecture: &str, now: u64) -> Result<Release, ImageError> {
    let missing = |field| ImageError::Index { suite: suite.to_owned(), field };
    let release = paragraph(text).ok_or_else(|| missing("paragraph"))?;
    let field = |name: &str| release.line(name);
    if field("Codename") != Some(suite) {
        return Err(missing("Codename"));
    }
    let date_text = field("Date").ok_or_else(|| missing("Date"))?;
    let date = seconds(date_text).ok_or_else(|| missing("Date"))?;
    let until = field("Valid-Until");
    let end = until.map(|until| seconds(until).ok_or_else(|| missing("Valid-Until"))).transpose()?;
    // A day of grace for a clock that is behind.
    if date > now + 86_400 || end.is_some_and(|end| end < now) {
        let until = until.unwrap_or("ever").to_owned();
        return Err(ImageError::Expired { suite: suite.to_owned(), from: date_text.to_owned(), until });
    }
    let wanted = format!("main/binary-{architecture}/Packages.xz");
    let sums = release.get("SHA256").unwrap_or_default();
    let words: Vec<&str> = sums.split_whitespace().collect();
    for entry in words.chunks_exact(3) {
        if let [digest, size, path] = entry
            && *path == wanted
        {
            let packages_size = size.parse().map_err(|_| missing("size of Packages.xz"))?;
            return Ok(Release { date, packages: format!("sha256:{digest}").parse()?, packages_size });
        }
    }
    Err(missing("digest of Packages.xz"))
}

fn seconds(text: &str) -> Option<u64> {
    let zoned = jiff::fmt::rfc2822::parse(&text.replace("UTC", "+0000")).ok()?;
    zoned.timestamp().as_second().try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "Codename: bookworm\nDate: Sat, 17 May 2025 09:02:10 UTC\nValid-Until: Sat, 24 May 2025 09:02:10 UTC\n\
        SHA256:\n 0000000000000000000000000000000000000000000000000000000000000001 12 main/binary-amd64/Packages.xz\n";

    #[test]
    fn refuses_a_release_after_its_end_and_of_another_suite() {
        let date = read("bookworm", TEXT, "amd64", 1_747_500_000).unwrap().date;
        assert_eq!(date, 1_747_472_530);
        assert!(matches!(read("bookworm", TEXT, "amd64", 1_900_000_000), Err(ImageError::Expired { .. })));
        assert!(matches!(read("bookworm", TEXT, "amd64", 1_700_000_000), Err(ImageError::Expired { .. })));
        assert!(matches!(read("trixie", TEXT, "amd64", 1_747_500_000), Err(ImageError::Index { .. })));
    }

    #[test]
    fn accepts_a_subkeys_signature_and_refuses_other_keys_and_other_text() {
        let folder = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/src/image/testdata"));
        let signed = include_str!("testdata/InRelease");
        let check = |text: &str, keyring: &str| verify("bookworm", text, &folder.join(keyring), "amd64", 1_747_500_000);
        assert_eq!(check(signed, "good.gpg").unwrap().packages_size, 12);
        assert!(matches!(check(signed, "other.gpg"), Err(ImageError::Signature { .. })));
        let altered = signed.replace(" 12 main", " 13 main");
        assert!(matches!(check(&altered, "good.gpg"), Err(ImageError::Signature { .. })));
        let keyring = folder.join("good.gpg");
        // In 2050 the key has expired, which is found before the text's own dates are looked at.
        let late = verify("bookworm", signed, &keyring, "amd64", 2_524_608_000);
        assert!(matches!(late, Err(ImageError::Signature { .. })));
        assert!(matches!(check(TEXT, "good.gpg"), Err(ImageError::Signature { .. })));
    }
}
