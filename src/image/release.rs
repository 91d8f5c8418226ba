//! Release files: their signature, their validity and the digests in them (Debian wiki, "DebianRepository/Format").

use std::path::Path;

use pgp::composed::{CleartextSignedMessage, Deserializable, SignedPublicKey};
use pgp::packet::Signature;
use pgp::types::{KeyDetails as _, Timestamp};

use super::control::paragraph;
use super::error::ImageError;
use super::reference::Digest;
use super::resolve::Priority;

/// Keys in one file.
const KEYS: usize = 64;

/// What a release file has to be.
#[derive(Debug, Clone, Copy)]
pub struct Expected<'a> {
    /// The source, for messages: the suite, with its address before it for others than Debian.
    pub name: &'a str,
    /// The suite.
    pub suite: &'a str,
    /// The parts of the archive whose indexes are wanted.
    pub components: &'a [String],
    /// Debian's name of the architecture.
    pub architecture: &'a str,
    /// Unix seconds.
    pub now: u64,
    /// Whether one that is out of date is taken all the same.
    pub allow_expired: bool,
}

/// The keys that may sign.
#[derive(Debug, Clone, Copy)]
pub enum Keyring<'a> {
    /// A file of binary OpenPGP keys.
    File(&'a Path),
    /// The content of a file of OpenPGP keys, binary or armored, and its name.
    Bytes(&'a Path, &'a [u8]),
}

/// What is used of a verified InRelease.
#[derive(Debug)]
pub struct Release {
    /// `Date`, Unix time in seconds.
    pub date: u64,
    /// How the source stands to others.
    pub priority: Priority,
    /// Whether indexes can be had by their digests (`Acquire-By-Hash`).
    pub by_hash: bool,
    /// Whether it is out of date.
    pub expired: bool,
    /// The list of packages of each component.
    pub indexes: Vec<IndexFile>,
}

/// A list of packages.
#[derive(Debug, PartialEq, Eq)]
pub struct IndexFile {
    /// Such as `main`.
    pub component: String,
    /// Path below the folder of the suite.
    pub path: String,
    /// Its digest.
    pub sha256: Digest,
    /// Its size in bytes.
    pub size: u64,
}

/// Verifies an InRelease against keys, and its dates against `now`.
///
/// # Errors
/// When no key signed it, it is of another suite, out of date, or lacks an index.
pub fn verify(expected: &Expected<'_>, text: &str, keyring: &Keyring<'_>) -> Result<Release, ImageError> {
    let unsigned = |source: Option<pgp::errors::Error>| ImageError::Signature {
        suite: expected.name.to_owned(),
        source: source.map(Box::new),
    };
    let (message, _) = CleartextSignedMessage::from_string(text).map_err(|error| unsigned(Some(error)))?;
    let (keys, now) = (keys(expected, keyring)?, expected.now);
    let mut last = None;
    let mut good = false;
    for key in keys {
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
    read(expected, &message.signed_text(), matches!(keyring, Keyring::File(_)))
}

fn keys(expected: &Expected<'_>, keyring: &Keyring<'_>) -> Result<Vec<SignedPublicKey>, ImageError> {
    let wrong = |path: &Path| ImageError::Key { suite: expected.name.to_owned(), path: path.to_owned() };
    let keys: Result<Vec<_>, _> = match keyring {
        Keyring::File(path) => {
            let broken = |source| ImageError::Keyring { path: (*path).to_owned(), source: Box::new(source) };
            return SignedPublicKey::from_file_many(path).and_then(Iterator::collect).map_err(broken);
        }
        Keyring::Bytes(path, bytes) if bytes.starts_with(b"-----BEGIN PGP") => {
            let (keys, _) = SignedPublicKey::from_armor_many(*bytes).map_err(|_| wrong(path))?;
            keys.take(KEYS).collect()
        }
        Keyring::Bytes(path, bytes) => {
            SignedPublicKey::from_bytes_many(*bytes).map_err(|_| wrong(path))?.take(KEYS).collect()
        }
    };
    let (Keyring::File(path) | Keyring::Bytes(path, _)) = keyring;
    keys.ok().filter(|keys| !keys.is_empty()).ok_or_else(|| wrong(path))
}

/// Whether a key has not expired at `now`, by the signatures that may limit its life (RFC 9580, section 5.2.3.13).
fn lives<'a>(created: Timestamp, mut signatures: impl Iterator<Item = &'a Signature>, now: u64) -> bool {
    let created = u64::from(created.as_secs());
    signatures.any(|signature| {
        let life = signature.key_expiration_time().map(|life| u64::from(life.as_secs()));
        life.is_none_or(|life| life == 0 || created + life > now)
    })
}

fn read(expected: &Expected<'_>, text: &str, debian: bool) -> Result<Release, ImageError> {
    let missing = |field| ImageError::Index { suite: expected.name.to_owned(), field };
    let release = paragraph(text).ok_or_else(|| missing("paragraph"))?;
    let field = |name: &str| release.line(name);
    // Debian's suites are named by their codenames, which stay; others use either.
    let named = |name| field(name) == Some(expected.suite);
    if !named("Codename") && (debian || !named("Suite")) {
        return Err(missing("Codename"));
    }
    let date_text = field("Date").ok_or_else(|| missing("Date"))?;
    let date = seconds(date_text).ok_or_else(|| missing("Date"))?;
    let until = field("Valid-Until");
    let end = until.map(|until| seconds(until).ok_or_else(|| missing("Valid-Until"))).transpose()?;
    // A day of grace for a clock that is behind.
    let early = date > expected.now.saturating_add(86_400);
    let expired = end.is_some_and(|end| end < expected.now);
    if early || (expired && !expected.allow_expired) {
        let (suite, until) = (expected.name.to_owned(), until.unwrap_or("ever").to_owned());
        return Err(ImageError::Expired { suite, from: date_text.to_owned(), until });
    }
    let sums = release.get("SHA256").unwrap_or_default();
    let words: Vec<&str> = sums.split_whitespace().collect();
    let entry = |wanted: &str| {
        words.chunks_exact(3).find_map(|entry| match entry {
            [digest, size, path] if *path == wanted => Some((*digest, *size)),
            _ => None,
        })
    };
    let mut indexes = Vec::new();
    for component in expected.components {
        let stem = format!("{component}/binary-{}/Packages", expected.architecture);
        let names = ["xz", "gz"].map(|end| format!("{stem}.{end}"));
        let found = names.iter().chain([&stem]).find_map(|path| Some((path, entry(path)?)));
        let (path, (digest, size)) = found.ok_or_else(|| missing("digest of a list of packages"))?;
        indexes.push(IndexFile {
            component: component.clone(),
            path: path.clone(),
            sha256: format!("sha256:{digest}").parse()?,
            size: size.parse().map_err(|_| missing("size of a list of packages"))?,
        });
    }
    let priority = if field("NotAutomatic") == Some("yes") { Priority::OnRequest } else { Priority::Normal };
    Ok(Release { date, priority, by_hash: field("Acquire-By-Hash") == Some("yes"), expired, indexes })
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

    fn expected<'a>(suite: &'a str, components: &'a [String], now: u64) -> Expected<'a> {
        Expected { name: suite, suite, components, architecture: "amd64", now, allow_expired: false }
    }

    fn of(suite: &str, now: u64) -> Result<Release, ImageError> {
        read(&expected(suite, &["main".to_owned()], now), TEXT, true)
    }

    #[test]
    fn refuses_a_release_after_its_end_and_of_another_suite() {
        assert_eq!(of("bookworm", 1_747_500_000).unwrap().date, 1_747_472_530);
        assert!(matches!(of("bookworm", 1_900_000_000), Err(ImageError::Expired { .. })));
        assert!(matches!(of("bookworm", 1_700_000_000), Err(ImageError::Expired { .. })));
        assert!(matches!(of("trixie", 1_747_500_000), Err(ImageError::Index { .. })));
    }

    #[test]
    fn takes_an_expired_release_only_when_told_to_and_says_that_it_is_one() {
        let components = ["main".to_owned()];
        let told = |now| Expected { allow_expired: true, ..expected("bookworm", &components, now) };
        assert!(read(&told(1_900_000_000), TEXT, true).unwrap().expired);
        assert!(!read(&told(1_747_500_000), TEXT, true).unwrap().expired);
        // One from the future is a matter of a clock that is wrong.
        assert!(matches!(read(&told(1_700_000_000), TEXT, true), Err(ImageError::Expired { .. })));
    }

    #[test]
    fn finds_the_index_of_each_component_in_the_form_that_there_is() {
        let digest = "1".repeat(64);
        let line = |path: &str| format!(" {digest} 12 {path}\n");
        let sums = line("main/binary-amd64/Packages.xz")
            + &line("main/binary-amd64/Packages")
            + &line("more/binary-amd64/Packages.gz")
            + &line("plain/binary-amd64/Packages");
        let text = format!("Suite: stable\nNotAutomatic: yes\nDate: Sat, 17 May 2025 09:02:10 UTC\nSHA256:\n{sums}");
        let components = ["main", "more", "plain"].map(str::to_owned);
        let of = |components: &[String], debian| read(&expected("stable", components, 1_747_500_000), &text, debian);
        let release = of(&components, false).unwrap();
        let paths: Vec<_> = release.indexes.iter().map(|file| file.path.as_str()).collect();
        assert_eq!(
            paths,
            ["main/binary-amd64/Packages.xz", "more/binary-amd64/Packages.gz", "plain/binary-amd64/Packages"]
        );
        assert_eq!((release.priority, release.by_hash), (Priority::OnRequest, false));
        assert!(of(&["absent".to_owned()], false).is_err());
        // A suite of Debian is named by its codename alone.
        assert!(of(&components, true).is_err());
    }

    #[test]
    fn accepts_a_subkeys_signature_and_refuses_other_keys_and_other_text() {
        let folder = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/src/image/testdata"));
        let signed = include_str!("testdata/InRelease");
        let components = ["main".to_owned()];
        let at = |now| expected("bookworm", &components, now);
        let check = |text: &str, keyring: &str| verify(&at(1_747_500_000), text, &Keyring::File(&folder.join(keyring)));
        assert_eq!(check(signed, "good.gpg").unwrap().indexes[0].size, 12);
        assert!(matches!(check(signed, "other.gpg"), Err(ImageError::Signature { .. })));
        let altered = signed.replace(" 12 main", " 13 main");
        assert!(matches!(check(&altered, "good.gpg"), Err(ImageError::Signature { .. })));
        let keyring = folder.join("good.gpg");
        // In 2050 the key has expired, which is found before the text's own dates are looked at.
        let late = verify(&at(2_524_608_000), signed, &Keyring::File(&keyring));
        assert!(matches!(late, Err(ImageError::Signature { .. })));
        assert!(matches!(check(TEXT, "good.gpg"), Err(ImageError::Signature { .. })));
        // The same keys as a file beside a definition.
        let bytes = std::fs::read(&keyring).unwrap();
        let beside = |bytes: &[u8]| verify(&at(1_747_500_000), signed, &Keyring::Bytes(Path::new("k"), bytes));
        assert!(beside(&bytes).is_ok());
        let armored = SignedPublicKey::from_bytes_many(&bytes[..]).unwrap().next().unwrap().unwrap();
        assert!(beside(armored.to_armored_string(Default::default()).unwrap().as_bytes()).is_ok());
        for wrong in [&b""[..], b"no key", b"-----BEGIN PGP PUBLIC KEY BLOCK-----\n"] {
            assert!(matches!(beside(wrong), Err(ImageError::Key { .. })));
        }
    }
}
