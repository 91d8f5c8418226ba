use proptest::prelude::*;

use super::*;

fn host(text: &str) -> Result<Host, HostNameError> {
    text.parse()
}

#[test]
fn brings_letter_case_and_one_trailing_dot_into_one_form() {
    for text in ["API.Example.COM", "api.example.com.", "api.example.com"] {
        assert_eq!(text.parse::<HostName>().unwrap().as_str(), "api.example.com");
    }
    assert!("api.example.com..".parse::<HostName>().is_err());
}

#[test]
fn refuses_characters_that_other_parsers_read_differently() {
    for text in [
        "a\0.example.com",
        "good.com\0.evil.com",
        "user@example.com",
        "a%2eexample.com",
        "a example.com",
        "a\texample.com",
        "a\r\nb",
        "exämple.com",
        "example.com#",
        "example.com/",
        "example.com\\",
        "ex\u{212a}ample.com",
        "",
        ".",
        ".example.com",
        "a..b",
        "-a.com",
        "a-.com",
    ] {
        assert!(text.parse::<HostName>().is_err(), "{text:?}");
        assert!(host(text).is_err(), "{text:?}");
    }
    assert!("a".repeat(64).parse::<HostName>().is_err());
    assert!(format!("{}com", "a.".repeat(126)).parse::<HostName>().is_err());
}

#[test]
fn refuses_every_spelling_of_an_address_as_a_name() {
    for text in [
        "127.0.0.1",
        "127.1",
        "2130706433",
        "0x7f000001",
        "0177.0.0.1",
        "0x7f.0.0.1",
        "127.0.0.1.",
        "::1",
        "[::1]",
        "::ffff:127.0.0.1",
        "1.2.3.4.5",
        "256.256.256.256",
        "example.123",
        "0x",
        "127.0.0.0x1",
    ] {
        assert!(text.parse::<HostName>().is_err(), "{text}");
    }
}

#[test]
fn takes_an_address_as_a_host_in_its_canonical_spelling_alone() {
    assert_eq!(host("10.0.0.1").unwrap(), Host::Address("10.0.0.1".parse().unwrap()));
    assert_eq!(host("[2001:DB8::1]").unwrap(), Host::Address("2001:db8::1".parse().unwrap()));
    for text in
        ["010.0.0.1", "10.1", "10.0.0.1.", "[2001:db8:0::1]", "2001:db8::1", "[::1", "[10.0.0.1]", "[fe80::1%eth0]"]
    {
        assert!(host(text).is_err(), "{text}");
        assert!(text.parse::<HostPattern>().is_err(), "{text}");
    }
}

#[test]
fn an_address_is_covered_by_a_rule_for_this_address_only() {
    let address = host("10.0.0.1").unwrap();
    assert!("10.0.0.1".parse::<HostPattern>().unwrap().covers(&address));
    assert!(!"10.0.0.2".parse::<HostPattern>().unwrap().covers(&address));
    assert!(!"*.example.com".parse::<HostPattern>().unwrap().covers(&address));
}

#[test]
fn refuses_wildcards_for_public_suffixes() {
    for text in
        ["*", "*.", "*.com", "*.co.uk", "*.github.io", "a.*.com", "**.example.com", "*example.com", "*.10.0.0.1"]
    {
        assert!(text.parse::<HostPattern>().is_err(), "{text}");
    }
}

#[test]
fn a_wildcard_covers_names_below_and_not_its_own_or_lookalikes() {
    let pattern: HostPattern = "*.example.com".parse().unwrap();
    for (name, expected) in [
        ("a.example.com", true),
        ("a.b.example.com", true),
        ("example.com", false),
        ("badexample.com", false),
        ("example.com.evil.org", false),
    ] {
        assert_eq!(pattern.matches(&name.parse().unwrap()), expected, "{name}");
    }
}

proptest! {
    #[test]
    fn never_panics_and_is_idempotent(text in "\\PC{0,300}") {
        if let Ok(name) = text.parse::<HostName>() {
            prop_assert_eq!(name.as_str().parse::<HostName>().unwrap(), name);
        }
        if let Ok(pattern) = text.parse::<HostPattern>() {
            prop_assert_eq!(pattern.to_string().parse::<HostPattern>().unwrap(), pattern);
        }
    }

    #[test]
    fn canonical_names_hold_only_plain_characters(text in "[a-zA-Z0-9._%@ -]{1,40}") {
        if let Ok(name) = text.parse::<HostName>() {
            prop_assert!(name.as_str().bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-._".contains(&b)));
            prop_assert!(name.as_str().parse::<IpAddr>().is_err());
        }
    }

    #[test]
    fn a_wildcard_matches_exactly_the_names_with_its_suffix(label in "[a-z]{1,8}", other in "[a-z]{1,8}") {
        let pattern: HostPattern = "*.example.com".parse().unwrap();
        let below: HostName = format!("{label}.{other}.example.com").parse().unwrap();
        let beside: HostName = format!("{label}.{other}.org").parse().unwrap();
        prop_assert!(pattern.matches(&below));
        prop_assert!(!pattern.matches(&beside));
    }
}
