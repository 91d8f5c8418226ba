//! Counts what was denied, so that an agent that asks for a million names fills neither the gateway's memory nor the
//! launcher's log: the first few denials of a destination are reported one by one, later ones as a sum now and then.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::gateway::protocol::{Decision, Event};
use crate::gateway::report::Reporter;

/// Destinations that are told apart. What is denied beyond them is counted together.
pub const DESTINATIONS: usize = 512;
/// Denials of one destination that are reported one by one.
pub const SINGLY: u64 = 10;
/// How often sums are reported.
const PAUSE: Duration = Duration::from_secs(2);
/// The host under which all is counted that is beyond [`DESTINATIONS`]. No host has such a name.
pub const OTHERS: &str = "(other hosts)";

/// What was denied since the gateway began.
#[derive(Debug, Default)]
pub struct Denials(Mutex<HashMap<Key, Tally>>);

/// A destination and the reason why it was denied.
type Key = (String, u16, String);

#[derive(Debug, Default)]
struct Tally {
    seen: u64,
    /// The last denial that was not reported yet, and how many there are.
    unreported: Option<(Decision, u64)>,
}

impl Denials {
    /// Takes a denial, which can stand for several. Gives it back when it is to be reported now.
    pub fn take(&self, denial: Decision) -> Option<Decision> {
        let mut table = self.lock();
        let mut denial = denial;
        let mut key = (denial.host.clone(), denial.port, denial.reason.clone());
        if table.len() >= DESTINATIONS && !table.contains_key(&key) {
            key = (OTHERS.to_owned(), 0, denial.reason.clone());
            denial = Decision { host: OTHERS.to_owned(), port: 0, detail: None, ..denial };
        }
        let tally = table.entry(key).or_default();
        tally.seen += 1;
        if tally.seen <= SINGLY {
            return Some(denial);
        }
        let more = denial.count.unwrap_or(1);
        let count = tally.unreported.take().map_or(0, |(_, count)| count).saturating_add(more);
        tally.unreported = Some((denial, count));
        None
    }

    /// The sums of what was not reported yet.
    fn sums(&self) -> Vec<Decision> {
        let mut table = self.lock();
        let unreported = table.values_mut().filter_map(|tally| tally.unreported.take());
        unreported.map(|(denial, count)| Decision { count: Some(count), ..denial }).collect()
    }

    /// Reports sums for as long as the gateway lives.
    pub async fn report(&self, reporter: &Reporter) {
        loop {
            tokio::time::sleep(PAUSE).await;
            if !self.report_now(reporter).await {
                return;
            }
        }
    }

    /// Reports the sums that there are. `false` means that nobody takes them.
    pub async fn report_now(&self, reporter: &Reporter) -> bool {
        for sum in self.sums() {
            if !reporter.send(Event::Decision(sum)).await {
                return false;
            }
        }
        true
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Key, Tally>> {
        // A count is whole also after a panic.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn denial(host: &str) -> Decision {
        Decision {
            connection: 1,
            allowed: false,
            reason: "unlisted".to_owned(),
            host: host.to_owned(),
            port: 443,
            via: "connect".to_owned(),
            address: None,
            rule: None,
            detail: Some("host not allowed".to_owned()),
            count: None,
        }
    }

    #[test]
    fn a_million_names_take_a_bounded_table_and_few_reports_and_none_is_lost() {
        let denials = Denials::default();
        let mut told = 0;
        for number in 0..100_000 {
            told += u64::from(denials.take(denial(&format!("n{number}.example"))).is_some());
        }
        assert!(denials.lock().len() <= DESTINATIONS + 1);
        let sums = denials.sums();
        let summed: u64 = sums.iter().filter_map(|sum| sum.count).sum();
        assert_eq!(told, DESTINATIONS as u64 + SINGLY);
        assert_eq!(told + summed, 100_000);
        assert_eq!((sums.len(), sums[0].host.as_str()), (1, OTHERS));
        assert!(denials.sums().is_empty(), "a sum is told once");
    }

    #[test]
    fn one_destination_is_told_a_few_times_and_then_as_a_sum() {
        let denials = Denials::default();
        let told = (0..100).filter(|_| denials.take(denial("a.example")).is_some()).count();
        assert_eq!(told as u64, SINGLY);
        assert_eq!(denials.sums()[0].count, Some(90));
        assert!(denials.take(denial("b.example")).is_some(), "another destination is told at once");
    }
}
