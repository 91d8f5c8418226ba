//! Finds the session's own credentials in what the agent sends, and refuses requests that carry one to a place that it is
//! not for.
//!
//! It reads what the gateway can read: requests to hosts whose TLS it terminates, and plain HTTP. It finds a value as it is
//! and in the usual encodings (`pattern`), in a stream of any length with a few bytes of state (`scan`, [`body`]). It
//! is a net for accidents and simple theft: who encrypts a value gets it past.

pub mod body;
mod pattern;
pub mod scan;

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

use aho_corasick::Anchored;
use aho_corasick::automaton::{Automaton as _, StateID};
use aho_corasick::nfa::contiguous::NFA;
use http::header::HeaderMap;
use http::request::Parts;

use crate::credential::secret::Secret;
use crate::gateway::broker::is_credential_field;
use crate::gateway::protocol::{Brokered, SecretFile};
use crate::network::name::{Host, HostPattern};
use crate::network::policy::{CredentialPlace, Policy};

/// Values of one credential that are looked for: the one in force and the one before, which ends a little later.
const GENERATIONS: usize = 2;

/// From how many bytes of a pattern on the bytes of a stream are held back until it is clear that it is not the whole.
const HELD_FROM: usize = 8;

/// Why a request is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Leak {
    /// It carries a credential.
    #[error("the request carries the credential `{credential}` in its {place}, and this is no place for it")]
    Carries {
        /// The credential's name.
        credential: String,
        /// In which part.
        place: &'static str,
    },
    /// The answer to it shows a brokered credential.
    #[error("the host's answer shows the credential `{credential}` in its {place}, which the agent is not to see")]
    Shows {
        /// The credential's name.
        credential: String,
        /// In which part.
        place: &'static str,
    },
    /// Its body says that it is compressed, and is not, or holds too much.
    #[error("the compressed body of the request cannot be read: {0}")]
    Unreadable(&'static str),
}

impl Leak {
    /// The credential that the request carries.
    pub fn credential(&self) -> Option<&str> {
        match self {
            Self::Carries { credential, .. } | Self::Shows { credential, .. } => Some(credential),
            Self::Unreadable(_) => None,
        }
    }

    /// What to do about it.
    pub fn next(&self) -> String {
        match self {
            Self::Carries { credential, .. } => format!(
                "take it out; if it belongs there, ask the developer to add this host to `hosts` of `{credential}` in \
                 sandbox.yaml"
            ),
            Self::Shows { credential, .. } => format!(
                "ask for something else; the developer may narrow `rules` of the host of `{credential}` in sandbox.yaml to \
                 requests whose answers do not repeat it"
            ),
            Self::Unreadable(_) => "send the body without compression".to_owned(),
        }
    }
}

/// The values that are looked for, and the automaton that finds them.
#[derive(Debug, Default)]
pub struct Leaks(RwLock<State>);

#[derive(Debug, Default)]
struct State {
    files: BTreeMap<String, Vec<Secret>>,
    brokered: BTreeMap<String, (HostPattern, Vec<Secret>)>,
    places: BTreeMap<String, CredentialPlace>,
    watch: Option<Arc<Watch>>,
}

impl Leaks {
    /// Takes over where credentials may go.
    pub fn obey(&self, policy: &Policy) {
        self.change(|state| state.places.clone_from(&policy.credentials));
    }

    /// Looks for the content of these files from now on, and no longer for that of others when these are `all`.
    pub fn hold_files(&self, files: Vec<SecretFile>, all: bool) {
        self.change(|state| {
            if all {
                state.files.retain(|name, _| files.iter().any(|file| file.name == *name));
            }
            for file in files {
                remember(state.files.entry(file.name).or_default(), file.content);
            }
        });
    }

    /// Looks for the content of these files no longer.
    pub fn forget_files(&self, names: &[String]) {
        self.change(|state| state.files.retain(|name, _| !names.contains(name)));
    }

    /// Looks for these brokered values.
    pub fn hold_brokered(&self, credentials: &[Brokered]) {
        self.change(|state| {
            for credential in credentials {
                let host = HostPattern::Exact(credential.host.clone());
                let held = state.brokered.entry(credential.name.clone()).or_insert_with(|| (host.clone(), Vec::new()));
                held.0 = host;
                remember(&mut held.1, credential.value.clone());
            }
        });
    }

    /// Looks for these brokered values no longer.
    pub fn forget_brokered(&self, names: &[String]) {
        self.change(|state| state.brokered.retain(|name, _| !names.contains(name)));
    }

    /// What is looked for at this moment; none when there is nothing to look for.
    pub fn watch(&self) -> Option<Arc<Watch>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).watch.clone()
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        // A poisoned lock only says that another task panicked; what is inside is whole at every moment.
        let mut state = self.0.write().unwrap_or_else(PoisonError::into_inner);
        change(&mut state);
        state.watch = Watch::over(&state).map(Arc::new);
    }
}

fn remember(values: &mut Vec<Secret>, value: Secret) {
    if values.iter().any(|known| known.equals(&value)) {
        return;
    }
    values.push(value);
    if values.len() > GENERATIONS {
        values.remove(0);
    }
}

/// A credential, and where it may go.
#[derive(Debug)]
struct Holder {
    credential: String,
    hosts: Vec<HostPattern>,
    /// Whether the agent has it nowhere, and is not to get it from an answer.
    brokered: bool,
}

impl Holder {
    /// Whether the credential may stand there. One whose hosts nobody named may stand where requests carry
    /// credentials, over TLS.
    fn permits(&self, host: &Host, tls: bool, credential_field: bool) -> bool {
        if self.hosts.is_empty() { tls && credential_field } else { self.hosts.iter().any(|own| own.covers(host)) }
    }
}

/// One automaton over all values in all encodings. It holds them in a form that cannot be wiped, so it lives in the
/// gateway's memory alone, which ends with the session.
pub struct Watch {
    automaton: NFA,
    start: StateID,
    /// How much of a pattern has been seen in a state, from [`HELD_FROM`] bytes on.
    depths: HashMap<StateID, usize>,
    /// For each pattern the credentials that it is of.
    patterns: Vec<Vec<usize>>,
    holders: Vec<Holder>,
}

// The automaton's own debug output would show its patterns.
impl fmt::Debug for Watch {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Watch").field("holders", &self.holders).finish_non_exhaustive()
    }
}

impl Watch {
    fn over(state: &State) -> Option<Self> {
        let mut holders = Vec::new();
        let mut patterns: BTreeMap<Vec<u8>, Vec<usize>> = BTreeMap::new();
        let mut look_for = |holder: Holder, values: &[Secret]| {
            for pattern in values.iter().flat_map(|value| pattern::patterns(value.expose())) {
                let of = patterns.entry(pattern.to_ascii_lowercase()).or_default();
                if !of.contains(&holders.len()) {
                    of.push(holders.len());
                }
            }
            holders.push(holder);
        };
        for (name, values) in &state.files {
            // A file without an entry holds no secret: it only says where one is.
            let Some(place) = state.places.get(name) else { continue };
            look_for(
                Holder { credential: place.credential.clone(), hosts: place.hosts.clone(), brokered: false },
                values,
            );
        }
        for (name, (host, values)) in &state.brokered {
            look_for(Holder { credential: name.clone(), hosts: vec![host.clone()], brokered: true }, values);
        }
        let (texts, patterns): (Vec<_>, Vec<_>) = patterns.into_iter().unzip();
        if texts.is_empty() {
            return None;
        }
        // Hexadecimal and percent-encoding know both cases, and a value in another case is as good as the value.
        let automaton = NFA::builder().ascii_case_insensitive(true).prefilter(false).build(&texts).ok()?;
        let start = automaton.start_state(Anchored::No).ok()?;
        let mut depths = HashMap::new();
        for text in &texts {
            let mut state = start;
            for (index, byte) in text.iter().enumerate() {
                state = automaton.next_state(Anchored::No, state, *byte);
                if index + 1 >= HELD_FROM {
                    depths.insert(state, index + 1);
                }
            }
        }
        Some(Self { automaton, start, depths, patterns, holders })
    }

    fn next(&self, state: StateID, byte: u8) -> StateID {
        self.automaton.next_state(Anchored::No, state, byte)
    }

    /// How many bytes before this state could be the beginning of a value.
    fn depth(&self, state: StateID) -> usize {
        self.depths.get(&state).copied().unwrap_or(0)
    }

    /// The credential that ends in this state and may not.
    fn found(&self, state: StateID, permitted: &[bool]) -> Option<&str> {
        if !self.automaton.is_match(state) {
            return None;
        }
        (0..self.automaton.match_len(state)).find_map(|index| {
            let holders = self.patterns.get(self.automaton.match_pattern(state, index).as_usize())?;
            let refused = holders.iter().all(|holder| !permitted.get(*holder).copied().unwrap_or(false));
            let first = holders.first().filter(|_| refused)?;
            self.holders.get(*first).map(|holder| holder.credential.as_str())
        })
    }

    fn permitted(&self, host: &Host, tls: bool, credential_field: bool) -> Vec<bool> {
        self.holders.iter().map(|holder| holder.permits(host, tls, credential_field)).collect()
    }

    /// Which credentials an answer may show: those that the agent has as files.
    fn shown(&self) -> Vec<bool> {
        self.holders.iter().map(|holder| !holder.brokered).collect()
    }

    /// Looks at the header fields or trailers of an answer.
    ///
    /// # Errors
    /// When they show a brokered credential.
    pub fn look_at_answer(self: &Arc<Self>, headers: &HeaderMap) -> Result<(), Leak> {
        let shown: Arc<[bool]> = self.shown().into();
        for value in headers.values() {
            scan::Scanner::of_answer(self.clone(), shown.clone(), "header fields").push(value.as_bytes())?;
        }
        Ok(())
    }

    /// Looks at one text.
    fn look(self: &Arc<Self>, text: &[u8], permitted: &[bool], place: &'static str) -> Result<(), Leak> {
        let mut scanner = scan::Scanner::new(self.clone(), permitted.into(), place);
        scanner.push(text)
    }

    /// Looks at the name of a host that is asked for: below a `*.x` it could be a value.
    ///
    /// # Errors
    /// When it carries a credential.
    pub fn look_at_host(self: &Arc<Self>, host: &str) -> Result<(), Leak> {
        self.look(host.as_bytes(), &vec![false; self.holders.len()], "host name")
    }

    /// Looks at a request's method, target and header fields.
    ///
    /// # Errors
    /// When one of them carries a credential that is not for this host or not for this place.
    pub fn look_at_head(self: &Arc<Self>, host: &Host, tls: bool, parts: &Parts) -> Result<(), Leak> {
        let elsewhere = self.permitted(host, tls, false);
        self.look(parts.method.as_str().as_bytes(), &elsewhere, "method")?;
        self.look(parts.uri.to_string().as_bytes(), &elsewhere, "target")?;
        self.look_at_fields(host, tls, &parts.headers)
    }

    fn look_at_fields(self: &Arc<Self>, host: &Host, tls: bool, headers: &HeaderMap) -> Result<(), Leak> {
        let elsewhere = self.permitted(host, tls, false);
        let credential = self.permitted(host, tls, true);
        for (name, value) in headers {
            self.look(name.as_str().as_bytes(), &elsewhere, "header fields")?;
            let permitted = if is_credential_field(name) { &credential } else { &elsewhere };
            self.look(value.as_bytes(), permitted, "header fields")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
