//! Tokens that nothing but they themselves can end, in the memory of the process that issued them.
//!
//! The journal has their handles, which are no secret. Nothing here is ever written to a file: `up` hands what it issued
//! to the supervisor through a pipe, and `down` asks the supervisor, or the gateway for what lies below `/run/secrets`.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::secret::Secret;
use crate::gateway::protocol::SecretFile;

/// Tokens by handle. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct Held(Arc<Mutex<BTreeMap<String, Secret>>>);

impl Held {
    /// Those that another process held.
    pub fn of(tokens: Vec<SecretFile>) -> Self {
        let tokens = tokens.into_iter().map(|token| (token.name, token.content)).collect();
        Self(Arc::new(Mutex::new(tokens)))
    }

    /// All of them, for the process that takes over.
    pub fn all(&self) -> Vec<SecretFile> {
        let tokens = self.lock();
        tokens.iter().map(|(name, content)| SecretFile { name: name.clone(), content: content.clone() }).collect()
    }

    /// Holds a token.
    pub fn keep(&self, handle: &str, token: Secret) {
        self.lock().insert(handle.to_owned(), token);
    }

    /// The token of a handle.
    pub fn find(&self, handle: &str) -> Option<Secret> {
        self.lock().get(handle).cloned()
    }

    /// Forgets a token that ended.
    pub fn forget(&self, handle: &str) {
        self.lock().remove(handle);
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Secret>> {
        // Nothing is half done under this lock, so a panic elsewhere does not spoil it.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_one_process_holds_another_takes_over() {
        let held = Held::default();
        held.clone().keep("h1", Secret::new(b"canary".to_vec()));
        let line = serde_json::to_vec(&held.all()).unwrap();
        let taken = Held::of(serde_json::from_slice(&line).unwrap());
        assert!(taken.find("h1").unwrap().equals(&Secret::new(b"canary".to_vec())));
        assert!(taken.find("h2").is_none());
        assert!(!format!("{taken:?}").contains("canary"));
        taken.forget("h1");
        assert!(taken.find("h1").is_none() && held.find("h1").is_some());
    }
}
