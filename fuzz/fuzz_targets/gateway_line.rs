//! Lines between launcher and gateway, and between gateway and relay.
#![no_main]

use std::net::Ipv4Addr;

use libfuzzer_sys::fuzz_target;
use sandbox::gateway::channel::{Header, Listing};
use sandbox::gateway::names::NameTable;
use sandbox::gateway::protocol::{Command, Event};

fuzz_target!(|line: &[u8]| {
    if let Ok(event) = serde_json::from_slice::<Event>(line) {
        let again = serde_json::to_vec(&event).expect("an event can be written");
        assert!(!again.contains(&b'\n'), "an event is more than one line");
        serde_json::from_slice::<Event>(&again).expect("an event that was written can be read");
    }
    let _ = serde_json::from_slice::<Command>(line);
    let _ = serde_json::from_slice::<Header>(line);
    if let Ok(listing) = serde_json::from_slice::<Listing>(line) {
        let mut table = NameTable::new(Ipv4Addr::new(127, 100, 0, 0));
        table.replace(listing);
        assert!(table.sockets().keys().all(|(address, _)| address.is_loopback()));
    }
});
