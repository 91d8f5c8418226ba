//! The relay's table: which loopback address stands for which listed name, and which sockets that takes.
//!
//! A name keeps its address for as long as the relay lives, also while it is not listed, so that an address never
//! changes its meaning under a program that remembers it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::Ipv4Addr;

use crate::gateway::channel::{ListedName, Listing};
use crate::gateway::dns::Found;
use crate::network::name::{Host, HostName, HostPattern};
use crate::network::policy::DenyRule;

/// How many names can have an address, over the whole life of a relay. There is no eviction: the next one is refused.
pub const NAME_LIMIT: usize = 4096;

/// The addresses of names, and what is listed now.
#[derive(Debug)]
pub struct NameTable {
    base: Ipv4Addr,
    addresses: HashMap<HostName, Ipv4Addr>,
    listing: Vec<ListedName>,
    denied: Vec<DenyRule>,
    all: Vec<u16>,
}

impl NameTable {
    /// An empty table that hands out the addresses after `base`.
    pub fn new(base: Ipv4Addr) -> Self {
        Self { base, addresses: HashMap::new(), listing: Vec::new(), denied: Vec::new(), all: Vec::new() }
    }

    /// Takes the next listing, and gives every exact name in it an address.
    pub fn replace(&mut self, listing: Listing) {
        self.listing = listing.names;
        self.denied = listing.denied;
        self.all = listing.all;
        let exact: Vec<HostName> = self
            .listing
            .iter()
            .filter_map(|listed| match &listed.host {
                HostPattern::Exact(name) => Some(name.clone()),
                HostPattern::Below(_) | HostPattern::Address(_) => None,
            })
            .collect();
        for name in exact {
            self.allot(&name);
        }
    }

    /// The address of a name, which a name below a wildcard gets when it is first asked for.
    pub fn find(&mut self, name: &HostName) -> Found {
        if self.ports(name).is_empty() {
            return Found::Unlisted;
        }
        match self.allot(name) {
            Some(address) => Found::Address(address),
            None => Found::Exhausted,
        }
    }

    /// The ports that are listed for a name, and not denied.
    pub fn ports(&self, name: &HostName) -> BTreeSet<u16> {
        let host = Host::Name(name.clone());
        let listed = self.listing.iter().filter(|listed| listed.host.matches(name)).map(|listed| listed.port);
        listed
            .chain(self.all.iter().copied())
            .filter(|port| !self.denied.iter().any(|rule| rule.covers(&host, *port)))
            .collect()
    }

    /// Every socket that must be listened on now, and the name it stands for.
    pub fn sockets(&self) -> BTreeMap<(Ipv4Addr, u16), HostName> {
        let mut sockets = BTreeMap::new();
        for (name, address) in &self.addresses {
            for port in self.ports(name) {
                sockets.insert((*address, port), name.clone());
            }
        }
        sockets
    }

    fn allot(&mut self, name: &HostName) -> Option<Ipv4Addr> {
        if let Some(address) = self.addresses.get(name) {
            return Some(*address);
        }
        let number = self.addresses.len();
        if number >= NAME_LIMIT {
            return None;
        }
        let address = Ipv4Addr::from_bits(self.base.to_bits() + 1 + u32::try_from(number).ok()?);
        self.addresses.insert(name.clone(), address);
        Some(address)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listing(names: &[(&str, u16)]) -> Listing {
        let names = names.iter().map(|(host, port)| ListedName { host: host.parse().unwrap(), port: *port }).collect();
        Listing { names, ..Listing::default() }
    }

    fn name(text: &str) -> HostName {
        text.parse().unwrap()
    }

    fn table(names: &[(&str, u16)]) -> NameTable {
        let mut table = NameTable::new(Ipv4Addr::new(127, 100, 0, 0));
        table.replace(listing(names));
        table
    }

    #[test]
    fn gives_each_listed_name_one_address_for_all_its_ports() {
        let mut table = table(&[("a.example", 443), ("a.example", 22), ("b.example", 443)]);
        let first = Ipv4Addr::new(127, 100, 0, 1);
        assert_eq!(table.find(&name("a.example")), Found::Address(first));
        assert_eq!(table.find(&name("c.example")), Found::Unlisted);
        assert_eq!(table.sockets().len(), 3);
        assert_eq!(table.ports(&name("a.example")), BTreeSet::from([22, 443]));
    }

    #[test]
    fn a_name_that_left_the_listing_is_unlisted_and_gets_the_same_address_again() {
        let mut table = table(&[("a.example", 443)]);
        let before = table.find(&name("a.example"));
        table.replace(listing(&[("b.example", 443)]));
        assert_eq!(table.find(&name("a.example")), Found::Unlisted);
        assert!(!table.sockets().values().any(|listed| listed == &name("a.example")));
        table.replace(listing(&[("b.example", 443), ("a.example", 443)]));
        assert_eq!(table.find(&name("a.example")), before);
    }

    #[test]
    fn a_denied_name_is_unlisted_also_below_a_wildcard() {
        let mut table = NameTable::new(Ipv4Addr::new(127, 100, 0, 0));
        let denied = |host: &str, port| DenyRule { host: host.parse().unwrap(), port };
        let names = listing(&[("*.many.example", 443), ("*.many.example", 22), ("a.example", 443)]).names;
        let denied =
            vec![denied("x.many.example", None), denied("y.many.example", Some(22)), denied("a.example", None)];
        table.replace(Listing { names, denied, ..Listing::default() });
        assert_eq!(table.find(&name("x.many.example")), Found::Unlisted);
        assert_eq!(table.find(&name("a.example")), Found::Unlisted);
        assert!(matches!(table.find(&name("y.many.example")), Found::Address(_)));
        assert_eq!(table.ports(&name("y.many.example")), BTreeSet::from([443]));
        assert!(table.sockets().values().all(|listed| listed == &name("y.many.example")));
    }

    #[test]
    fn refuses_names_below_a_wildcard_beyond_the_limit() {
        let mut table = table(&[("*.many.example", 443)]);
        for number in 0..NAME_LIMIT {
            assert!(matches!(table.find(&name(&format!("n{number}.many.example"))), Found::Address(_)));
        }
        assert_eq!(table.find(&name("onemore.many.example")), Found::Exhausted);
        assert!(matches!(table.find(&name("n0.many.example")), Found::Address(_)));
    }
}
