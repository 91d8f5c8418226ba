//! Questions that only who has a value can answer, and that show nothing of it: by them the gateway proves what it puts
//! into requests, long after the launcher forgot the value itself.

use std::io;

use hmac::{Hmac, Mac as _};
use serde::{Deserialize, Serialize};
use sha2::Sha256;
use zeroize::Zeroizing;

use super::secret::Secret;

/// A question of its own for one value, with its answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Challenge {
    /// The question: 32 random bytes in hexadecimal.
    pub nonce: String,
    /// HMAC-SHA-256 of the value under them, in hexadecimal.
    pub answer: String,
}

impl Challenge {
    /// A new question for a value.
    ///
    /// # Errors
    /// When the system gives no random bytes.
    pub fn of(value: &Secret) -> io::Result<Self> {
        let mut random = [0; 32];
        getrandom::fill(&mut random).map_err(io::Error::other)?;
        let nonce = hex::encode(random);
        Ok(Self { answer: answer(&nonce, value.expose()), nonce })
    }

    /// Whether somebody who has this answer has the value.
    pub fn is_answered_by(&self, said: &str) -> bool {
        self.answer == said
    }
}

/// What who has the value answers.
pub fn answer(nonce: &str, value: &[u8]) -> String {
    // An HMAC takes a key of any length, so that this cannot fail.
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(nonce.as_bytes()) else { return String::new() };
    mac.update(value);
    let tag = Zeroizing::new(mac.finalize().into_bytes().to_vec());
    hex::encode(&*tag)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_value_answers_and_each_question_is_another() {
        let value = Secret::new(b"value".to_vec());
        let (first, second) = (Challenge::of(&value).unwrap(), Challenge::of(&value).unwrap());
        assert!(first.is_answered_by(&answer(&first.nonce, b"value")));
        assert!(!first.is_answered_by(&answer(&first.nonce, b"other")) && !first.is_answered_by(""));
        assert!(!first.is_answered_by(&second.answer) && first.nonce != second.nonce);
    }
}
