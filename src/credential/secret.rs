//! A value that must not leak: not printed, not compared in variable time, not serialised, wiped on drop.

use std::fmt;
use std::io::{self, Read};

use subtle::ConstantTimeEq;
use zeroize::{ZeroizeOnDrop, Zeroizing};

/// How many bytes in a row have to be the same for a text to show a part of a secret. Words that keys begin with are shorter.
const RUN: usize = 16;

/// Secret bytes. `Debug` shows no content, there is no `Display`, no `Serialize` and no `PartialEq`.
///
/// The bytes never grow in place: a buffer that grows leaves its former, shorter self behind in memory that nobody
/// wipes.
#[derive(Clone)]
pub struct Secret(Zeroizing<Vec<u8>>);

impl Secret {
    /// Takes over the bytes; the caller's buffer becomes the secret's own.
    pub fn new(bytes: Vec<u8>) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// Reads to the end, into one buffer that was large enough from the start.
    ///
    /// # Errors
    /// When reading fails, and with [`io::ErrorKind::FileTooLarge`] when there are more than `limit` bytes.
    pub fn read(reader: impl Read, limit: usize) -> io::Result<Self> {
        // One byte more than is allowed tells a long value from a full one.
        let room = limit.saturating_add(1);
        let mut bytes = Zeroizing::new(Vec::with_capacity(room));
        reader.take(room as u64).read_to_end(&mut bytes)?;
        if bytes.len() > limit {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        Ok(Self(bytes))
    }

    /// The bytes. Only `credential` and `gateway` call this.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }

    /// Without one line feed (or carriage return and line feed) at the end, which programs add and no value has.
    pub fn without_line_end(mut self) -> Self {
        if self.0.ends_with(b"\n") {
            self.0.pop();
            if self.0.ends_with(b"\r") {
                self.0.pop();
            }
        }
        self
    }

    /// Whether a text, such as an id that stands beside it in an answer, shows the secret or 16 bytes in a row of it.
    pub fn is_shown_by(&self, text: &str) -> bool {
        let run = self.0.len().min(RUN);
        run > 0 && self.0.windows(run).any(|part| text.as_bytes().windows(run).any(|shown| shown == part))
    }

    /// Length in bytes.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is no byte at all.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether two secrets are equal, in time that depends on their lengths alone.
    pub fn equals(&self, other: &Secret) -> bool {
        self.0.as_slice().ct_eq(other.0.as_slice()).into()
    }
}

// `Zeroizing` wipes the whole allocation, the part beyond the length included.
impl ZeroizeOnDrop for Secret {}

impl fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Secret(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(text: &str) -> Secret {
        Secret::new(text.as_bytes().to_vec())
    }

    #[test]
    fn tells_a_text_that_shows_a_part_of_it() {
        let key = secret("sk-0123456789abcdefghij");
        for text in ["sk-0123456789abcdefghij", "id_456789abcdefghij", "x3456789abcdefghix"] {
            assert!(key.is_shown_by(text), "{text}");
        }
        for text in ["", "sk-0123456789ab", "svc_acct_1"] {
            assert!(!key.is_shown_by(text), "{text}");
        }
        assert!(secret("short").is_shown_by("a short one") && !secret("short").is_shown_by("shor"));
        assert!(!secret("").is_shown_by("anything"));
    }

    #[test]
    fn shows_neither_content_nor_length() {
        assert_eq!(format!("{:?}", secret("hunter2")), "Secret(…)");
        assert_eq!(format!("{:#?}", Some(secret("a much longer value"))), "Some(\n    Secret(…),\n)");
    }

    #[test]
    fn reads_up_to_the_limit_without_growing() {
        let full = Secret::read(&b"12345678"[..], 8).unwrap();
        assert_eq!((full.expose(), full.0.capacity()), (&b"12345678"[..], 9));
        let error = Secret::read(&b"123456789"[..], 8).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::FileTooLarge);
        assert!(Secret::read(io::empty(), 8).unwrap().is_empty());
    }

    #[test]
    fn drops_one_line_end_alone() {
        for (given, kept) in [("a\n", "a"), ("a\r\n", "a"), ("a\n\n", "a\n"), ("a", "a"), ("a\r", "a\r"), ("\n", "")] {
            assert_eq!(secret(given).without_line_end().expose(), kept.as_bytes(), "{given:?}");
        }
    }

    #[test]
    fn compares_whole_values() {
        assert!(secret("same").equals(&secret("same").clone()));
        for other in ["", "sam", "samE", "same "] {
            assert!(!secret("same").equals(&secret(other)), "{other:?}");
        }
    }
}
