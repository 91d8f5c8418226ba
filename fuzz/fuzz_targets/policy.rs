//! The policies that a gateway gets, one after the other: what goes on under the second was allowed by both.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sandbox::network::name::{Host, HostPattern};
use sandbox::network::policy::{AllowRule, Policy};

fn host_of(rule: &AllowRule) -> Option<Host> {
    match &rule.host {
        HostPattern::Exact(name) => Some(Host::Name(name.clone())),
        HostPattern::Below(name) => format!("a.{name}").parse().ok(),
        HostPattern::Address(address) => Some(Host::Address(*address)),
    }
}

fuzz_target!(|bytes: &[u8]| {
    let mut lines = bytes.splitn(2, |byte| *byte == b'\n');
    let mut next = || serde_json::from_slice::<Policy>(lines.next().unwrap_or_default()).ok();
    let (Some(first), second) = (next(), next()) else { return };
    let text = serde_json::to_vec(&first).expect("a policy can be written");
    assert_eq!(serde_json::from_slice::<Policy>(&text).expect("and read"), first);
    for rule in &first.allow {
        let Some(host) = host_of(rule) else { continue };
        let Some(found) = first.find_host(&host, rule.port) else { continue };
        assert!(found.port == rule.port && found.host.covers(&host));
        assert!(!first.denied.iter().any(|denied| denied.covers(&host, rule.port)), "what is denied is allowed");
        assert!(first.still_allows(found, &host, rule.port, None), "a policy cuts off what it allows");
        let Some(second) = &second else { continue };
        if second.still_allows(found, &host, rule.port, None) {
            let now = second.find_host(&host, rule.port).expect("an entry allows it");
            assert_eq!(now.is_inspected(), found.is_inspected());
            assert_eq!(now.broker, found.broker);
        }
    }
});
