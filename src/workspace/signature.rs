//! Whether a commit was signed by the key of one of the sandbox's sessions.
//!
//! Only that is told: whose another signature is, git knows better (`git log --show-signature`). No program is run.

use serde::Serialize;
use ssh_key::{PublicKey, SshSig};

/// What `git` signs for (ssh-keygen(1), `-n`; git's `gpg-interface.c`).
const NAMESPACE: &str = "git";

/// By whom a commit is signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Signature {
    /// By the key of a session of this sandbox.
    Session,
    /// By another key, or in a way that does not hold.
    Other,
    /// By nobody.
    None,
}

/// Looks at a commit object. `object_id` says which of git's two hashes the repository has.
pub(super) fn of(commit: &[u8], object_id: &str, signers: &[PublicKey]) -> Signature {
    let (payload, signature) = split(commit, object_id);
    let Some(signature) = signature else { return Signature::None };
    let Ok(signature) = SshSig::from_pem(&signature) else { return Signature::Other };
    let holds = signers.iter().any(|signer| signer.verify(NAMESPACE, &payload, &signature).is_ok());
    if holds { Signature::Session } else { Signature::Other }
}

/// What was signed, and the signature. What is signed lacks the headers with signatures, of either hash ("gpgsig" in
/// gitformat-signature(5), and its transition to SHA-256).
fn split(commit: &[u8], object_id: &str) -> (Vec<u8>, Option<Vec<u8>>) {
    let own: &[u8] = if object_id.len() == 64 { b"gpgsig-sha256 " } else { b"gpgsig " };
    let mut payload = Vec::with_capacity(commit.len());
    let mut signature: Option<Vec<u8>> = None;
    let mut rest = commit;
    let (mut in_signature, mut in_own) = (false, false);
    while !rest.is_empty() {
        let end = rest.iter().position(|byte| *byte == b'\n').map_or(rest.len(), |end| end + 1);
        let (line, after) = rest.split_at(end);
        if line == b"\n" {
            payload.extend_from_slice(rest);
            break;
        }
        if !line.starts_with(b" ") {
            in_own = line.starts_with(own) && signature.is_none();
            in_signature = in_own || line.starts_with(b"gpgsig ") || line.starts_with(b"gpgsig-sha256 ");
        }
        if in_own {
            let text = line.strip_prefix(own).or_else(|| line.strip_prefix(b" ")).unwrap_or(line);
            signature.get_or_insert_with(Vec::new).extend_from_slice(text);
        }
        if !in_signature {
            payload.extend_from_slice(line);
        }
        rest = after;
    }
    (payload, signature)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use ssh_key::private::Ed25519Keypair;
    use ssh_key::{HashAlg, LineEnding, PrivateKey};

    use super::*;

    const ID: &str = "e5d1e1a7c0f5a1a0c5a1a0c5a1a0c5a1a0c5a1a0";

    fn key(seed: u8) -> PrivateKey {
        PrivateKey::new(Ed25519Keypair::from_seed(&[seed; 32]).into(), "").unwrap()
    }

    /// A commit whose signature covers everything but itself, as git makes it.
    fn signed(key: &PrivateKey, namespace: &str, message: &str) -> Vec<u8> {
        let (head, rest) = ("tree 1\nauthor a\ncommitter a\n", format!("\n{message}\n"));
        let signature = key.sign(namespace, HashAlg::Sha512, format!("{head}{rest}").as_bytes()).unwrap();
        let pem = signature.to_pem(LineEnding::LF).unwrap();
        format!("{head}gpgsig {}\n{rest}", pem.trim_end().replace('\n', "\n ")).into_bytes()
    }

    #[test]
    fn knows_the_sessions_own_commits() {
        let signers = [key(1).public_key().clone(), key(2).public_key().clone()];
        for seed in [1, 2] {
            assert_eq!(of(&signed(&key(seed), "git", "fix"), ID, &signers), Signature::Session);
        }
        assert_eq!(of(&signed(&key(3), "git", "fix"), ID, &signers), Signature::Other);
        assert_eq!(of(&signed(&key(1), "file", "fix"), ID, &signers), Signature::Other);
        assert_eq!(of(b"tree 1\n\ngpgsig in a message\n", ID, &signers), Signature::None);
        assert_eq!(of(b"tree 1\ngpgsig -----BEGIN PGP SIGNATURE-----\n x\n\nfix\n", ID, &signers), Signature::Other);
    }

    #[test]
    fn a_commit_that_was_changed_afterwards_is_not_the_sessions() {
        let commit = String::from_utf8(signed(&key(1), "git", "fix")).unwrap();
        let signers = [key(1).public_key().clone()];
        for changed in [
            commit.replace("tree 1", "tree 2"),
            commit.replace("\nfix", "\nfixed"),
            commit.replace("author a\n", "author a\nparent 3\n"),
            commit.replace("\n\nfix", "\ngpgsig second\n\nfix").replacen("gpgsig ", "gpgsig first\ngpgsig ", 1),
        ] {
            assert_ne!(of(changed.as_bytes(), ID, &signers), Signature::Session, "{changed}");
        }
        // In a repository of the other hash, this header is not what counts.
        assert_eq!(of(commit.as_bytes(), &"a".repeat(64), &signers), Signature::None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_commit_or_none(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let signature = of(&bytes, ID, &[key(1).public_key().clone()]);
            prop_assert!(signature != Signature::Session);
        }
    }
}
