//! Digests and image references (OCI image-spec, descriptor.md; OCI distribution-spec, "Pulling manifests").

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Why a text is not a digest or a pinned reference.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReferenceError {
    /// Not `sha256:` and 64 lower-case hexadecimal digits.
    #[error("`{}` is not a sha256 digest", .0.escape_debug())]
    Digest(String),
    /// A reference without a digest.
    #[error("the image `{}` is not pinned by a digest", .0.escape_debug())]
    Unpinned(String),
    /// Neither a name in `images/`, a Dockerfile, nor a reference.
    #[error("`{}` is not an image name or reference", .0.escape_debug())]
    Syntax(String),
}

/// A SHA-256 digest, written `sha256:` and 64 lower-case hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest([u8; 32]);

impl Digest {
    /// The digest of these bytes.
    pub fn of(bytes: &[u8]) -> Self {
        let mut hasher = Hasher::default();
        hasher.update(bytes);
        hasher.digest()
    }

    /// A digest that was computed elsewhere.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The 64 hexadecimal digits.
    pub fn hex(&self) -> String {
        hex::encode(self.0)
    }

    /// The first 12 hexadecimal digits, as Docker shows them.
    pub fn short(&self) -> String {
        hex::encode(&self.0[..6])
    }
}

/// Makes the digest of content that comes in parts, and counts its bytes.
///
/// Layers and packages are hundreds of megabytes: *ring* has assembly for what processors have when they lack instructions
/// for SHA, and takes half the time of what is written in Rust there.
#[derive(Clone)]
pub struct Hasher {
    context: ring::digest::Context,
    size: u64,
}

impl Default for Hasher {
    fn default() -> Self {
        Self { context: ring::digest::Context::new(&ring::digest::SHA256), size: 0 }
    }
}

impl fmt::Debug for Hasher {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Hasher").field("size", &self.size).finish_non_exhaustive()
    }
}

impl Hasher {
    /// Adds the next part.
    pub fn update(&mut self, bytes: &[u8]) {
        self.context.update(bytes);
        self.size += bytes.len() as u64;
    }

    /// How many bytes there were up to now.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The digest of all parts.
    pub fn digest(self) -> Digest {
        let mut bytes = [0; 32];
        bytes.copy_from_slice(self.context.finish().as_ref());
        Digest(bytes)
    }
}

impl std::io::Write for Hasher {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl FromStr for Digest {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        let wrong = || ReferenceError::Digest(text.chars().take(100).collect());
        let digits = text.strip_prefix("sha256:").ok_or_else(wrong)?;
        if digits.bytes().any(|byte| byte.is_ascii_uppercase()) {
            return Err(wrong());
        }
        let mut bytes = [0; 32];
        hex::decode_to_slice(digits, &mut bytes).map_err(|_| wrong())?;
        Ok(Self(bytes))
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "sha256:{}", self.hex())
    }
}

impl TryFrom<String> for Digest {
    type Error = ReferenceError;

    fn try_from(text: String) -> Result<Self, ReferenceError> {
        text.parse()
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> String {
        digest.to_string()
    }
}

/// What a manifest says in `image:`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ImageChoice {
    /// A definition `images/NAME/image.yaml` of the project, or else a built-in one.
    Definition(String),
    /// A Dockerfile at the project's root, `Dockerfile.NAME`.
    Dockerfile(String),
    /// An image elsewhere, pinned by digest. The repository part has no tag.
    Pinned(PinnedImage),
}

/// A reference that names exactly one content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PinnedImage {
    /// Registry and repository, as written.
    pub repository: String,
    /// The manifest's (or index's) digest.
    pub digest: Digest,
}

impl FromStr for ImageChoice {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        let syntax = || ReferenceError::Syntax(text.chars().take(200).collect());
        if text.is_empty() || text.len() > 400 || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(syntax());
        }
        if let Some((repository, digest)) = text.split_once('@') {
            let name = repository.rsplit('/').next().unwrap_or(repository);
            if repository.is_empty() || name.is_empty() || name.contains(':') {
                return Err(syntax());
            }
            return Ok(Self::Pinned(PinnedImage { repository: repository.to_owned(), digest: digest.parse()? }));
        }
        if text.contains(':') || text.contains('/') {
            return Err(ReferenceError::Unpinned(text.to_owned()));
        }
        if super::dockerfile::is_name(text) {
            return Ok(Self::Dockerfile(text.to_owned()));
        }
        let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        if text.len() > 40 || !text.bytes().all(plain) || text.starts_with('-') {
            return Err(syntax());
        }
        Ok(Self::Definition(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The examples of FIPS 180-4 ("SHA256.pdf" of NIST's examples with intermediate values).
    #[test]
    fn digests_are_sha_256_however_the_content_comes() {
        let one = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(Digest::of(b"abc").to_string(), one);
        let two = "sha256:248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1";
        let mut hasher = Hasher::default();
        for part in [&b"abcdbcdecdefdefgefghfghighij"[..], b"", b"hijkijkljklmklmnlmnomnopnopq"] {
            hasher.update(part);
        }
        assert_eq!((hasher.size(), hasher.digest().to_string()), (56, two.to_owned()));
    }
}
