use super::*;

fn class(text: &str) -> Option<SpecialUse> {
    special_use(text.parse().unwrap())
}

#[test]
fn refuses_every_special_address_in_every_embedding() {
    use SpecialUse::*;
    let inner = [
        ("0.0.0.0", Unspecified),
        ("0.255.255.255", Unspecified),
        ("10.0.0.0", Private),
        ("10.255.255.255", Private),
        ("100.64.0.0", SharedAddressSpace),
        ("100.127.255.255", SharedAddressSpace),
        ("127.0.0.1", Loopback),
        ("127.255.255.255", Loopback),
        ("168.63.129.16", LinkLocal),
        ("169.254.169.254", LinkLocal),
        ("172.16.0.0", Private),
        ("172.31.255.255", Private),
        ("192.0.0.1", Reserved),
        ("192.0.2.1", Documentation),
        ("192.168.255.255", Private),
        ("198.18.0.0", Benchmarking),
        ("198.19.255.255", Benchmarking),
        ("198.51.100.1", Documentation),
        ("203.0.113.1", Documentation),
        ("224.0.0.1", Multicast),
        ("239.255.255.255", Multicast),
        ("240.0.0.0", Reserved),
        ("255.255.255.255", Reserved),
    ];
    for (text, expected) in inner {
        assert_eq!(class(text), Some(expected), "{text}");
        let address: Ipv4Addr = text.parse().unwrap();
        let [a, b, c, d] = address.octets();
        let (high, low) = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
        for spelling in [
            format!("::ffff:{text}"),
            format!("::ffff:0:{high:x}:{low:x}"),
            format!("64:ff9b::{text}"),
            format!("2002:{high:x}:{low:x}::1"),
            format!("2001:0:4136:e378:8000:63bf:{:x}:{:x}", !high, !low),
            format!("2606:4700::5efe:{high:x}:{low:x}"),
        ] {
            assert_eq!(class(&spelling), Some(expected), "{text} as {spelling}");
        }
        assert!(class(&format!("::{text}")).is_some(), "{text} as IPv4-compatible");
    }
}

#[test]
fn refuses_special_ipv6_addresses() {
    use SpecialUse::*;
    for (text, expected) in [
        ("::", Unspecified),
        ("::1", Loopback),
        ("fe80::1", LinkLocal),
        ("febf::1", LinkLocal),
        ("fec0::1", Private),
        ("fc00::1", UniqueLocal),
        ("fd00:ec2::254", UniqueLocal),
        ("ff02::1", Multicast),
        ("2001:2::1", Benchmarking),
        ("2001:db8::1", Documentation),
        ("3fff::1", Documentation),
        ("2001:10::1", Reserved),
        ("100::1", Reserved),
        ("5f00::1", Reserved),
        ("64:ff9b:1::a00:1", Unspecified),
        ("4000::1", Reserved),
    ] {
        assert_eq!(class(text), Some(expected), "{text}");
    }
}

#[test]
fn takes_public_addresses_also_when_embedded() {
    for text in [
        "1.1.1.1",
        "9.255.255.255",
        "11.0.0.0",
        "100.63.255.255",
        "100.128.0.0",
        "128.0.0.0",
        "172.15.255.255",
        "172.32.0.0",
        "192.167.255.255",
        "198.17.255.255",
        "198.20.0.0",
        "223.255.255.255",
        "2606:4700::1111",
        "2a00:1450:4001::1",
        "2001:4860:4860::8888",
        "::ffff:1.1.1.1",
        "64:ff9b::8.8.8.8",
        "2002:808:808::1",
    ] {
        assert_eq!(class(text), None, "{text}");
    }
}
