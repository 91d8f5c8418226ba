//! The text of a host, as a manifest or a request names it: what is accepted has one spelling.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sandbox::network::name::{Host, HostName, HostPattern};

fuzz_target!(|text: &str| {
    if let Ok(name) = text.parse::<HostName>() {
        assert_eq!(name.as_str().parse::<HostName>().as_ref(), Ok(&name));
        assert!(name.as_str().parse::<std::net::IpAddr>().is_err(), "an address passes as a name");
        assert!(name.as_str().len() <= 253);
    }
    if let Ok(host) = text.parse::<Host>() {
        assert_eq!(host.to_string().parse::<Host>().as_ref(), Ok(&host));
    }
    if let Ok(pattern) = text.parse::<HostPattern>() {
        assert_eq!(pattern.to_string().parse::<HostPattern>().as_ref(), Ok(&pattern));
        if let HostPattern::Below(name) = &pattern {
            assert!(!pattern.matches(name), "a wildcard covers the name that it is below");
        }
    }
});
