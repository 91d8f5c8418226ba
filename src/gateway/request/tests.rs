use proptest::prelude::*;

use super::*;

fn parse(head: &str) -> Result<RequestHead, RequestError> {
    parse_request_head(head.as_bytes()).map(|head| head.expect("the head is complete"))
}

fn host(text: &str) -> Host {
    text.parse().unwrap()
}

#[test]
fn reads_the_three_forms_of_a_target() {
    let connect = parse("CONNECT API.example.com.:443 HTTP/1.1\r\nHost: other:443\r\n\r\n").unwrap();
    assert_eq!(connect.target, Target::Authority(host("api.example.com"), 443));
    let absolute = parse("GET http://a.example/x?y HTTP/1.1\r\nHost: a.example\r\n\r\n").unwrap();
    assert_eq!(absolute.target, Target::Absolute(host("a.example"), 80));
    let absolute = parse("GET HTTP://a.example:8080?y HTTP/1.0\r\n\r\n").unwrap();
    assert_eq!(absolute.target, Target::Absolute(host("a.example"), 8080));
    let origin = parse("GET / HTTP/1.1\r\nHost: a.example:8080\r\n\r\n").unwrap();
    assert_eq!(origin.target, Target::Origin(host("a.example"), 8080));
    let address = parse("CONNECT [2001:db8::1]:443 HTTP/1.1\r\n\r\n").unwrap();
    assert_eq!(address.target, Target::Authority(host("[2001:db8::1]"), 443));
}

#[test]
fn gives_the_length_of_the_head_without_the_body() {
    let head = "POST http://a.example/ HTTP/1.1\r\nContent-Length: 4\r\n\r\n";
    assert_eq!(parse(&format!("{head}body")).unwrap().length, head.len());
}

#[test]
fn waits_for_the_rest_of_a_head() {
    let head = b"GET http://a.example/ HTTP/1.1\r\nAccept: x\r\n\r\n";
    for end in 0..head.len() {
        assert_eq!(parse_request_head(&head[..end]), Ok(None), "{end}");
    }
}

#[test]
fn refuses_requests_that_two_parsers_may_read_differently() {
    let get = "GET http://a.example/ HTTP/1.1\r\n";
    for (rest, expected) in [
        ("Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", RequestError::Length),
        ("Transfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\n", RequestError::Length),
        ("Content-Length: 1\r\nContent-Length: 1\r\n\r\n", RequestError::Length),
        ("Content-Length: 1, 1\r\n\r\n", RequestError::Length),
        ("Content-Length: +1\r\n\r\n", RequestError::Length),
        ("Content-Length: 0x1\r\n\r\n", RequestError::Length),
        ("Content-Length: \r\n\r\n", RequestError::Length),
        ("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n", RequestError::Length),
        ("Transfer-Encoding: gzip, chunked\r\n\r\n", RequestError::Length),
        ("Transfer-Encoding: identity\r\n\r\n", RequestError::Length),
        ("Transfer-Encoding: xchunked\r\n\r\n", RequestError::Length),
        ("Host: a.example\r\nHost: a.example\r\n\r\n", RequestError::Hosts(2)),
        ("X: a\r\n b\r\n\r\n", RequestError::Folded),
        ("X: a\r\n\tb\r\n\r\n", RequestError::Folded),
        (" X: a\r\n\r\n", RequestError::Folded),
        ("X: a\nY: b\r\n\r\n", RequestError::LineEnd),
        ("X: a\rY: b\r\n\r\n", RequestError::LineEnd),
        ("X: a\r\n\n", RequestError::LineEnd),
        ("X : a\r\n\r\n", RequestError::Syntax),
        ("X: a\0b\r\n\r\n", RequestError::Syntax),
        ("X\r\n\r\n", RequestError::Syntax),
        ("Transfer-Encoding : chunked\r\n\r\n", RequestError::Syntax),
    ] {
        assert_eq!(parse(&format!("{get}{rest}")), Err(expected), "{rest:?}");
    }
    assert_eq!(
        parse("GET http://a.example/ HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n"),
        Err(RequestError::Length)
    );
}

#[test]
fn refuses_targets_that_are_not_for_a_proxy() {
    for target in [
        "CONNECT a.example",
        "CONNECT a.example:0",
        "CONNECT a.example:65536",
        "CONNECT a.example:443/",
        "CONNECT a.example:+443",
        "CONNECT a.example:0443",
        "CONNECT http://a.example:443",
        "CONNECT user@a.example:443",
        "CONNECT 127.1:443",
        "CONNECT 0x7f000001:443",
        "CONNECT 2130706433:443",
        "CONNECT [::ffff:7f00:1]:443",
        "CONNECT ::1:443",
        "CONNECT a%2eexample:443",
        "GET https://a.example/",
        "GET ftp://a.example/",
        "GET http://user:secret@a.example/",
        "GET http://good.example@evil.example/",
        "GET http://a.example\\@evil.example/",
        "GET http:///x",
        "GET a.example:80",
        "OPTIONS *",
    ] {
        assert!(parse(&format!("{target} HTTP/1.1\r\nHost: a.example\r\n\r\n")).is_err(), "{target}");
    }
}

#[test]
fn refuses_methods_and_versions_that_change_the_protocol() {
    assert_eq!(parse("PRI * HTTP/2.0\r\n\r\n"), Err(RequestError::Syntax));
    assert_eq!(parse("TRACE http://a.example/ HTTP/1.1\r\n\r\n"), Err(RequestError::Method));
    assert!(parse("GET http://a.example/\r\n\r\n").is_err());
    assert!(parse("\r\nGET http://a.example/ HTTP/1.1\r\n\r\n").is_err());
}

#[test]
fn refuses_an_origin_form_without_exactly_one_host() {
    assert_eq!(parse("GET / HTTP/1.1\r\n\r\n"), Err(RequestError::Hosts(0)));
    assert_eq!(parse("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n"), Err(RequestError::Hosts(2)));
}

#[test]
fn bounds_the_head_in_bytes_and_fields() {
    let long = format!("GET http://a.example/ HTTP/1.1\r\nX: {}", "x".repeat(HEAD_LIMIT));
    assert_eq!(parse_request_head(long.as_bytes()), Err(RequestError::TooLong));
    let many = format!("GET http://a.example/ HTTP/1.1\r\n{}\r\n", "X: 1\r\n".repeat(FIELD_LIMIT + 1));
    assert_eq!(parse_request_head(many.as_bytes()), Err(RequestError::Syntax));
}

proptest! {
    #[test]
    fn never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let _ = parse_request_head(&bytes);
    }

    #[test]
    fn what_follows_a_head_does_not_change_how_it_is_read(tail in proptest::collection::vec(any::<u8>(), 0..100)) {
        let head = b"POST http://a.example/ HTTP/1.1\r\nContent-Length: 5\r\n\r\n".to_vec();
        let alone = parse_request_head(&head).unwrap();
        prop_assert_eq!(parse_request_head(&[head, tail].concat()).unwrap(), alone);
    }
}
