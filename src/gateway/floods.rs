//! Bounds what is told of connections and requests that are decided one by one: a burst of them, then as many as a busy
//! day has, and beyond that sums. Each event costs the developer's disk a line of the audit log, and an agent can make
//! thousands in a second.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use crate::gateway::denials::{DESTINATIONS, OTHERS};
use crate::gateway::protocol::{Closed, Decision, Event, RequestDecision};

/// Events that are told one by one before any is summed: those of a large installation of packages.
const BURST: f64 = 4000.0;

/// Events in a second that are told one by one, on and on.
const RATE: f64 = 5.0;

/// What was told of late, and what was not.
#[derive(Debug)]
pub struct Floods(Mutex<State>);

#[derive(Debug)]
struct State {
    /// How many more may be told, and when that was reckoned.
    left: f64,
    reckoned: Instant,
    connections: HashMap<(String, u16), Connections>,
    /// Connections that are part of a sum and open.
    summed: HashMap<u64, (String, u16)>,
    requests: HashMap<RequestKey, (RequestDecision, u64)>,
}

/// The allowed connections of one destination that are told as a sum.
#[derive(Debug, Default)]
struct Connections {
    /// The last one that was not told, and how many there are.
    untold: Option<(Decision, u64)>,
    /// How many are open, told or not.
    open: u64,
    /// The bytes of those that have closed.
    sent: u64,
    received: u64,
    /// The number under which the last sum was told, until its end is.
    told: Option<u64>,
}

/// What requests have in common that are told as one: all but their path and what it led to in detail.
type RequestKey = (String, u16, bool, String, Option<String>);

impl Default for Floods {
    fn default() -> Self {
        Self(Mutex::new(State {
            left: BURST,
            reckoned: Instant::now(),
            connections: HashMap::new(),
            summed: HashMap::new(),
            requests: HashMap::new(),
        }))
    }
}

impl Floods {
    /// Takes an event. Gives it back when it is to be told now. What is denied as a connection has a table of its own
    /// ([`crate::gateway::denials`]), and passes.
    pub fn take(&self, event: Event) -> Option<Event> {
        match event {
            Event::Decision(decision) if decision.allowed => self.lock().connection(decision).map(Event::Decision),
            Event::Closed(closed) => self.lock().closed(closed).map(Event::Closed),
            Event::Request(request) => self.lock().request(request).map(Event::Request),
            other => Some(other),
        }
    }

    /// The sums of what was not told yet, in an order that can be told.
    pub fn sums(&self) -> Vec<Event> {
        self.lock().sums()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A count is whole also after a panic.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn may_tell(&mut self) -> bool {
        let now = Instant::now();
        self.left = (self.left + now.duration_since(self.reckoned).as_secs_f64() * RATE).min(BURST);
        self.reckoned = now;
        let may = self.left >= 1.0;
        if may {
            self.left -= 1.0;
        }
        may
    }

    fn connection(&mut self, decision: Decision) -> Option<Decision> {
        if self.may_tell() {
            return Some(decision);
        }
        let mut decision = decision;
        let mut key = (decision.host.clone(), decision.port);
        if self.connections.len() >= DESTINATIONS && !self.connections.contains_key(&key) {
            key = (OTHERS.to_owned(), 0);
            decision = Decision { host: OTHERS.to_owned(), port: 0, address: None, rule: None, ..decision };
        }
        self.summed.insert(decision.connection, key.clone());
        let sum = self.connections.entry(key).or_default();
        sum.open += 1;
        let count = sum.untold.take().map_or(0, |(_, count)| count) + 1;
        sum.untold = Some((decision, count));
        None
    }

    fn closed(&mut self, closed: Closed) -> Option<Closed> {
        let Some(key) = self.summed.remove(&closed.connection) else { return Some(closed) };
        let sum = self.connections.entry(key).or_default();
        sum.open = sum.open.saturating_sub(1);
        sum.sent += closed.sent;
        sum.received += closed.received;
        None
    }

    fn request(&mut self, request: RequestDecision) -> Option<RequestDecision> {
        if self.may_tell() {
            return Some(request);
        }
        let mut request = request;
        let why = request.rule.clone().or_else(|| request.credential.clone());
        let mut key = (request.host.clone(), request.port, request.allowed, request.reason.clone(), why);
        if self.requests.len() >= DESTINATIONS && !self.requests.contains_key(&key) {
            key = (OTHERS.to_owned(), 0, request.allowed, request.reason.clone(), None);
            request = RequestDecision { host: OTHERS.to_owned(), port: 0, rule: None, credential: None, ..request };
        }
        let count = self.requests.remove(&key).map_or(0, |(_, count)| count) + 1;
        self.requests.insert(key, (request, count));
        None
    }

    fn sums(&mut self) -> Vec<Event> {
        let mut events = Vec::new();
        for sum in self.connections.values_mut() {
            // An end closes the sum before it, so that the bytes of each are told once.
            if let Some(connection) = sum.told.filter(|_| sum.open == 0 || sum.untold.is_some()) {
                let (sent, received) = (std::mem::take(&mut sum.sent), std::mem::take(&mut sum.received));
                events.push(Event::Closed(Closed { connection, sent, received }));
                sum.told = None;
            }
            if let Some((decision, count)) = sum.untold.take() {
                sum.told = Some(decision.connection);
                events.push(Event::Decision(Decision { count: Some(count), ..decision }));
                if sum.open == 0 {
                    let (sent, received) = (std::mem::take(&mut sum.sent), std::mem::take(&mut sum.received));
                    events
                        .extend(sum.told.take().map(|connection| Event::Closed(Closed { connection, sent, received })));
                }
            }
        }
        self.connections.retain(|_, sum| sum.open > 0);
        let requests = std::mem::take(&mut self.requests).into_values();
        events
            .extend(requests.map(|(request, count)| Event::Request(RequestDecision { count: Some(count), ..request })));
        events
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn decision(connection: u64, host: &str) -> Event {
        Event::Decision(Decision {
            connection,
            allowed: true,
            reason: "listed".to_owned(),
            host: host.to_owned(),
            port: 443,
            via: "connect".to_owned(),
            address: None,
            rule: None,
            detail: None,
            count: None,
        })
    }

    fn closed(connection: u64) -> Event {
        Event::Closed(Closed { connection, sent: 2, received: 3 })
    }

    fn request(path: &str) -> Event {
        Event::Request(RequestDecision {
            connection: 1,
            allowed: false,
            reason: "rule".to_owned(),
            host: "a.example".to_owned(),
            port: 443,
            method: "GET".to_owned(),
            path: path.to_owned(),
            rule: None,
            credential: None,
            detail: None,
            count: None,
        })
    }

    /// How many connections and bytes a log of events tells of, as who reads it counts them.
    fn counted(events: &[Event]) -> (u64, u64) {
        let mut open = HashSet::new();
        let (mut connections, mut bytes) = (0, 0);
        for event in events {
            match event {
                Event::Decision(decision) => {
                    connections += decision.count.unwrap_or(1);
                    assert!(open.insert(decision.connection));
                }
                Event::Closed(closed) => {
                    assert!(open.remove(&closed.connection), "an end without a beginning");
                    bytes += closed.sent + closed.received;
                }
                _ => {}
            }
        }
        assert!(open.is_empty(), "{open:?} have no end");
        (connections, bytes)
    }

    #[test]
    fn a_flood_of_connections_is_told_in_few_events_that_add_up() {
        let floods = Floods::default();
        let mut told = Vec::new();
        let (all, held) = (20_000, 30);
        for number in 1..=all {
            told.extend(floods.take(decision(number, &format!("n{}.example", number % 3))));
            if number > held {
                told.extend(floods.take(closed(number - held)));
            }
            if number % 5000 == 0 {
                told.extend(floods.sums());
            }
        }
        for number in all - held + 1..=all {
            told.extend(floods.take(closed(number)));
        }
        told.extend(floods.sums());
        assert_eq!(counted(&told), (all, all * 5));
        assert!(told.len() < 2 * (BURST as usize + 100), "{}", told.len());
        let state = floods.lock();
        assert!(state.connections.is_empty() && state.summed.is_empty());
    }

    #[test]
    fn a_flood_of_requests_is_told_as_a_sum_and_a_burst_is_told_one_by_one() {
        let floods = Floods::default();
        let told = (0..10_000).filter(|number| floods.take(request(&format!("/{number}"))).is_some()).count();
        assert!((BURST as usize..BURST as usize + 50).contains(&told), "{told}");
        let sums = floods.sums();
        let [Event::Request(sum)] = sums.as_slice() else { panic!("{sums:?}") };
        assert_eq!(sum.count, Some(10_000 - told as u64));
        assert!(floods.sums().is_empty(), "a sum is told once");
    }

    #[test]
    fn names_without_end_take_a_bounded_table() {
        let floods = Floods::default();
        for number in 0..20_000 {
            let _ = floods.take(decision(number, &format!("n{number}.example")));
            let _ = floods.take(closed(number));
        }
        assert!(floods.lock().connections.len() <= DESTINATIONS + 1);
        assert!(floods.sums().len() <= 2 * (DESTINATIONS + 1));
    }
}
