use proptest::prelude::*;

use super::*;

fn allows(rule: &str, request: &str) -> bool {
    let (method, path) = request.split_once(' ').unwrap();
    rule.parse::<RequestRule>().unwrap().allows(method, false, &path.parse().unwrap())
}

#[test]
fn a_star_stays_in_its_segment_and_two_cross_them() {
    for (rule, request, expected) in [
        ("GET /a/b", "GET /a/b", true),
        ("GET /a/b", "HEAD /a/b", true),
        ("GET /a/b", "POST /a/b", false),
        ("GET /a/b", "GET /a/b/", false),
        ("GET /a/b", "GET /A/b", false),
        ("POST /v1/messages*", "POST /v1/messages", true),
        ("POST /v1/messages*", "POST /v1/messages/batches", false),
        ("POST /v1/messages/**", "POST /v1/messages/count_tokens", true),
        ("POST /v1/messages/**", "POST /v1/messages_of_others", false),
        ("GET /acme/api.git/**", "GET /acme/api.git/info/refs", true),
        ("GET /acme/api.git/**", "GET /acme/api.git.evil/info/refs", false),
        ("GET /acme/api.git/**", "GET /other/api.git/info/refs", false),
        ("* /**", "DELETE /x/y", true),
        ("* /**", "GET /", true),
        ("* /**", "TRACE /", false),
        ("GET /**/end", "GET /a/b/c/end", true),
        ("GET /**/end", "GET /end", true),
        ("GET /**/end", "GET /a/end/b", false),
        ("GET /a*c*e/x", "GET /abcde/x", true),
        ("GET /a*c*e/x", "GET /abcdef/x", false),
    ] {
        assert_eq!(allows(rule, request), expected, "{rule} and {request}");
    }
}

#[test]
fn an_upgrade_needs_a_rule_of_its_own() {
    let path: RequestPath = "/socket".parse().unwrap();
    let rule = |text: &str| text.parse::<RequestRule>().unwrap();
    assert!(rule("WEBSOCKET /socket").allows("GET", true, &path));
    assert!(!rule("WEBSOCKET /socket").allows("GET", false, &path));
    assert!(!rule("GET /socket").allows("GET", true, &path));
    assert!(!rule("* /**").allows("GET", true, &path));
}

#[test]
fn one_path_has_one_form() {
    for (text, canonical) in [
        ("/%61%2Db%7e", "/a-b~"),
        ("/caf%c3%a9", "/caf%C3%A9"),
        ("/a%3fb", "/a%3Fb"),
        ("/a/", "/a/"),
        ("/", "/"),
        ("/a;v=1", "/a;v=1"),
        ("/100%25", "/100%25"),
    ] {
        assert_eq!(text.parse::<RequestPath>().unwrap().as_str(), canonical);
    }
}

#[test]
fn refuses_paths_that_servers_read_differently() {
    for (text, error) in [
        ("", PathError::Relative),
        ("a", PathError::Relative),
        ("http://x/", PathError::Relative),
        ("//evil/x", PathError::EmptySegment),
        ("/a//b", PathError::EmptySegment),
        ("/a%2F%2Fb", PathError::EmptySegment),
        ("/a/../b", PathError::Dots),
        ("/a/%2e%2E/b", PathError::Dots),
        ("/a/.%2e", PathError::Dots),
        ("/a/./b", PathError::Dots),
        ("/a/..;/b", PathError::Dots),
        ("/a/..%3b/b", PathError::Dots),
        ("/a%2f..%2fb", PathError::Dots),
        ("/a/%252e%252e/b", PathError::Encoding),
        ("/a%", PathError::Encoding),
        ("/a%2", PathError::Encoding),
        ("/a%zz", PathError::Encoding),
        ("/a/%c0%ae%c0%ae/b", PathError::Encoding),
        ("/a%e0%80%afb", PathError::Encoding),
        ("/a%ffb", PathError::Encoding),
        ("/a%u002e", PathError::Encoding),
        ("/a/%25%32%65%25%32%65/b", PathError::Encoding),
        ("/a/%252%65", PathError::Encoding),
        ("/a/%25%65e", PathError::Encoding),
        ("/a\\b", PathError::Character),
        ("/a%5cb", PathError::Character),
        ("/a%00", PathError::Character),
        ("/a%0d%0aHost:x", PathError::Character),
        ("/a b", PathError::Character),
        ("/a?b", PathError::Character),
        ("/caf\u{e9}", PathError::Character),
    ] {
        assert_eq!(text.parse::<RequestPath>(), Err(error), "{text}");
    }
    assert_eq!(format!("/{}", "a".repeat(PATH_LIMIT)).parse::<RequestPath>(), Err(PathError::TooLong));
}

#[test]
fn an_encoded_slash_is_allowed_where_both_readings_are() {
    assert!(allows("GET /**", "GET /@scope%2fname"));
    assert!(!allows("GET /*", "GET /@scope%2fname"));
    assert!(!allows("GET /a/*", "GET /a%2fb"));
    assert!(!allows("GET /public*", "GET /public%2fprivate"));
}

#[test]
fn a_rule_with_an_encoded_slash_allows_it_and_no_other_path() {
    let rule = "GET /projects/acme%2Fapi/**";
    for (request, expected) in [
        ("GET /projects/acme%2Fapi", true),
        ("GET /projects/acme%2fapi/issues", true),
        ("GET /projects/acme/api/issues", false),
        ("GET /projects/acme%2Fapi%2F..%2Fother/issues", false),
        ("GET /projects/acme%2Fother/issues", false),
        ("GET /projects/acme%2Fapi%2Fx", false),
    ] {
        let (method, path) = request.split_once(' ').unwrap();
        let path = path.parse::<RequestPath>();
        let allowed = path.is_ok_and(|path| rule.parse::<RequestRule>().unwrap().allows(method, false, &path));
        assert_eq!(allowed, expected, "{request}");
    }
    assert!("GET /a%2F..%2Fb".parse::<RequestRule>().is_err());
}

#[test]
fn refuses_rules_that_say_something_else_than_they_seem_to() {
    for text in [
        "",
        "GET",
        "/a",
        "GET  /a",
        "get /a",
        "GET a",
        "GET /a b",
        "CONNECT /a",
        "TRACE /a",
        "GET /a?b=c",
        "GET /a#b",
        "GET /a**",
        "GET /***",
        "GET /a/../b",
        "GET //a",
        "GET /%2e%2e/a",
        "GET,POST /a",
    ] {
        assert!(text.parse::<RequestRule>().is_err(), "{text}");
    }
    assert!(format!("GET /{}", "a".repeat(2000)).parse::<RequestRule>().is_err());
}

proptest! {
    #[test]
    fn the_canonical_form_is_its_own_and_has_nothing_ambiguous(text in "/[a-z./%;2eEfF5cC0-3\\\\]{0,24}") {
        if let Ok(path) = text.parse::<RequestPath>() {
            prop_assert_eq!(path.as_str().parse::<RequestPath>().unwrap(), path.clone());
            let decoded = path.as_str().replace("%2F", "/");
            prop_assert!(!decoded.contains('\\') && !decoded.contains("//"));
            prop_assert!(decoded.split('/').all(|segment| segment != "." && segment != ".."));
        }
    }

    #[test]
    fn a_rule_of_a_plain_path_allows_that_path_alone(one in "(/[a-z]{1,4}){1,4}", other in "(/[a-z]{1,4}){1,4}") {
        let rule = format!("GET {one}");
        prop_assert!(allows(&rule, &rule));
        let another = format!("GET {other}");
        prop_assert_eq!(allows(&rule, &another), one == other);
        let (below, deeper) = (format!("GET {one}/**"), format!("GET {one}{other}"));
        prop_assert!(allows(&below, &deeper));
    }

    #[test]
    fn stars_agree_with_trying_everything(pattern in "[ab*]{0,6}", text in "[ab]{0,6}") {
        fn slow(pattern: &[u8], text: &[u8]) -> bool {
            match pattern.split_first() {
                None => text.is_empty(),
                Some((b'*', rest)) => (0..=text.len()).any(|taken| slow(rest, &text[taken..])),
                Some((byte, rest)) => text.first() == Some(byte) && slow(rest, &text[1..]),
            }
        }
        prop_assert_eq!(covers_segment(&pattern, &text), slow(pattern.as_bytes(), text.as_bytes()));
    }
}
