//! The names that the agent asked the relay's DNS for in vain, on their way to the gateway, which reports them.
//!
//! A program that asks no proxy stops at a name that does not exist, so that its question is all that shows what it
//! wanted. The table is bounded: an agent that asks for a million names fills neither memory nor the launcher's log.

use std::collections::BTreeMap;

use hickory_proto::rr::RecordType;
use serde::{Deserialize, Serialize};

use crate::gateway::report::visible;

/// Names that are told apart until they are handed over.
pub const TOLD_APART: usize = 512;

/// What was asked for since the last time, as a line of the control connection from the relay to the gateway.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Asked {
    /// The names, with control characters made visible, each at most once.
    pub names: Vec<Lookup>,
    /// How often other names were asked for, beyond [`TOLD_APART`].
    #[serde(default)]
    pub others: u64,
}

/// One name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lookup {
    /// As it was asked for, in lower case.
    pub name: String,
    /// How often.
    pub count: u64,
}

/// The questions since the last time.
#[derive(Debug, Default)]
pub struct Lookups {
    names: BTreeMap<String, Questions>,
    others: u64,
}

/// Questions for one name. Programs ask for both kinds of address at once, which is one look-up.
#[derive(Debug, Default, Clone, Copy)]
struct Questions {
    sixes: u64,
    rest: u64,
}

impl Lookups {
    /// Counts a question.
    pub fn count(&mut self, name: &str, kind: RecordType) {
        let name = visible(name).to_ascii_lowercase();
        if self.names.len() >= TOLD_APART && !self.names.contains_key(&name) {
            self.others += 1;
            return;
        }
        let questions = self.names.entry(name).or_default();
        if kind == RecordType::AAAA {
            questions.sixes += 1;
        } else {
            questions.rest += 1;
        }
    }

    /// Gives what was counted, if anything was, and begins anew.
    pub fn take(&mut self) -> Option<Asked> {
        let Self { names, others } = std::mem::take(self);
        let names =
            names.into_iter().map(|(name, questions)| Lookup { name, count: questions.sixes.max(questions.rest) });
        let asked = Asked { names: names.collect(), others };
        (asked != Asked::default()).then_some(asked)
    }

    /// Takes back what could not be handed over.
    pub fn put_back(&mut self, asked: Asked) {
        self.others += asked.others;
        for Lookup { name, count } in asked.names {
            if self.names.len() < TOLD_APART || self.names.contains_key(&name) {
                self.names.entry(name).or_default().rest += count;
            } else {
                self.others += count;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_look_up_of_both_addresses_counts_once_and_a_flood_takes_a_bounded_table() {
        let mut lookups = Lookups::default();
        assert_eq!(lookups.take(), None);
        for _ in 0..3 {
            lookups.count("A.example", RecordType::A);
            lookups.count("a.example", RecordType::AAAA);
        }
        lookups.count("b.example", RecordType::AAAA);
        lookups.count("c\u{1b}[2J", RecordType::TXT);
        let told = lookups.take().unwrap();
        let names: Vec<_> = told.names.iter().map(|asked| (asked.name.as_str(), asked.count)).collect();
        assert_eq!(names, [("a.example", 3), ("b.example", 1), ("c\\u{1b}[2j", 1)]);
        for number in 0..100_000 {
            lookups.count(&format!("n{number}.example"), RecordType::A);
        }
        let told = lookups.take().unwrap();
        assert_eq!((told.names.len(), told.others), (TOLD_APART, 100_000 - TOLD_APART as u64));
        lookups.count("n0.example", RecordType::A);
        lookups.put_back(told);
        let again = lookups.take().unwrap();
        assert_eq!(again.names.iter().map(|asked| asked.count).sum::<u64>() + again.others, 100_001);
    }
}
