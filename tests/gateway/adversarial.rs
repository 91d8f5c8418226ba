//! What an agent can try against the gateway, by the rules of which `src/gateway` is made. Further tests of a rule are
//! named here by their module.
//!
//! | rule | here | elsewhere |
//! | --- | --- | --- |
//! | one form of a name | `odd_authorities_…` | `network::name`, `gateway::request`, fuzz `host` |
//! | a rule is a host and a port | `odd_authorities_…`, `a_limit_of_connections_…` | `main::nothing_is_allowed_before_…` |
//! | every address checked, the checked one dialled | `a_name_that_changes_its_address_…` | `network::address`, `main::names_that_resolve_to_a_private_address_…` |
//! | plain HTTP rebuilt | `requests_that_are_read_in_two_ways_…`, `a_head_that_comes_slowly_…` | `gateway::request`, `main::ambiguous_requests_…`, fuzz `request_head` |
//! | TLS names the host | `an_encrypted_client_hello_…`, `a_client_hello_that_is_too_long_or_too_slow_…` | `gateway::hello`, `main::tls_must_name_the_host`, fuzz `client_hello` |
//! | hosts with rules | `framing_inside_tls_…`, `no_field_makes_a_request_another_one`, `what_belongs_to_one_connection_…`, `http2::*` | `inspection::*`, `network::request`, fuzz `request_path` |
//! | injection | `an_answer_never_shows_…`, `nothing_that_could_be_a_credential_…` | `gateway::broker`, `inspection::a_brokered_credential_…`, `leaks::*` |
//! | budgets | `a_limit_of_connections_…` | `gateway::budget`, `gateway::permit` |
//! | one event for each decision | `the_log_tells_of_each_connection_once_…` | `gateway::report`, `gateway::denials`, `gateway::floods` |
//! | DNS carries nothing out | `odd_questions_get_no_address`, `a_flood_of_questions_…` | `gateway::dns`, fuzz `dns` |
//! | parts that stop or die | `a_gateway_that_stands_still_…`, `a_relay_that_…` | `tests/resilience.rs` |

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hickory_proto::op::ResponseCode;
use http_body_util::Full;
use hyper::Response;
use serde_json::{Value, json};

use crate::harness::{Harness, PATIENCE, connect, echo, http};
use crate::inspection::{LOCAL, Seen, authority, curl, open, server, server_answering};
use crate::{LOOPBACK, client_hello, rest};

fn inspected(harness: &mut Harness, port: u16, rules: &[&str], broker: Option<&str>) {
    let entry = json!({
        "host": "rules.example", "port": port, "allow_private": LOOPBACK, "rules": rules, "broker": broker
    });
    let policy = json!({ "allow": [entry], "authorities": authority().certificate });
    assert_eq!(harness.gateway.command(json!({ "policy": policy })), None);
}

fn hold(harness: &mut Harness, placement: Value, value: &str) {
    let key =
        json!({ "name": "key", "host": "rules.example", "placement": placement, "value": STANDARD.encode(value) });
    assert_eq!(harness.gateway.command(json!({ "broker": [key] })), None);
}

/// Sends bytes on a terminated connection and gives what comes back until it ends, or until the end of an answer.
fn exchange(harness: &Harness, port: u16, sent: &[u8]) -> String {
    let mut stream = open(harness, port);
    stream.sock.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
    let _ = stream.write_all(sent);
    let _ = stream.flush();
    String::from_utf8_lossy(&rest(&mut stream)).into_owned()
}

#[test]
fn odd_authorities_are_no_way_around_the_list() {
    let port = echo("");
    let mut harness = Harness::start(&[("listed.example", LOCAL), ("evil.example", LOCAL)]);
    harness.allow(&[("listed.example", port, LOOPBACK)]);
    for authority in [
        format!("listed.example@evil.example:{port}"),
        format!("evil.example#listed.example:{port}"),
        format!("evil.example/listed.example:{port}"),
        format!("evil.example%00listed.example:{port}"),
        format!("evil.example\0.listed.example:{port}"),
        format!("evil.example\\listed.example:{port}"),
        format!("listed.example..:{port}"),
        format!("listed.exam\u{440}le:{port}"),
        format!("listed\u{3002}example:{port}"),
        format!("xn--.listed.example:{port}"),
        format!("{}.listed.example:{port}", "a".repeat(300)),
        format!("listed.example:{port}:{port}"),
        format!("[listed.example]:{port}"),
        format!("[::1%25lo]:{port}"),
        "listed.example:".to_owned(),
        format!("listed.example:{port} "),
        format!("listed.example:{}", u32::from(port) + 65_536),
        format!("*.example:{port}"),
        format!(":{port}"),
    ] {
        let answer = harness.tunnel(&authority).unwrap_err();
        assert!(answer.starts_with("HTTP/1.1 40"), "{authority:?}: {answer:?}");
    }
    assert!(harness.tunnel(&format!("LISTED.example.:{port}")).is_ok());
    harness.gateway.decision("listed.example", "listed");
    assert_eq!(harness.gateway.events().iter().filter(|event| event["allowed"] == true).count(), 1);
}

#[test]
fn a_name_that_changes_its_address_is_judged_each_time_and_dialled_where_it_was_judged() {
    let port = echo("");
    let mut harness = Harness::start(&[("rebind.example", &["203.0.113.7"]), ("listed.example", LOCAL)]);
    harness.allow(&[("rebind.example", port, &[]), ("listed.example", port, LOOPBACK)]);
    // The documentation's network is not on the Internet: refused as what it is, and never dialled.
    assert!(harness.tunnel(&format!("rebind.example:{port}")).unwrap_err().starts_with("HTTP/1.1 403 "));
    harness.gateway.decision("rebind.example", "address");
    harness.name("rebind.example", LOCAL);
    for _ in 0..3 {
        assert!(harness.tunnel(&format!("rebind.example:{port}")).unwrap_err().starts_with("HTTP/1.1 403 "));
    }
    let refused: Vec<_> = harness.gateway.events().into_iter().filter(|event| event["reason"] == "address").collect();
    assert!(refused.iter().any(|event| event["detail"].as_str().unwrap().contains("127.0.0.1")), "{refused:#?}");
    // With a rule for the private address, one decision names one address, and it is the one that is connected to.
    let mut stream = harness.tunnel(&format!("listed.example:{port}")).unwrap();
    harness.name("listed.example", &["203.0.113.7"]);
    stream.write_all(b"x").unwrap();
    assert_eq!(crate::receive(&mut stream, 1), "x");
    assert_eq!(harness.gateway.decision("listed.example", "listed")["address"], "127.0.0.1");
    assert!(harness.tunnel(&format!("listed.example:{port}")).is_err());
}

#[test]
fn requests_that_are_read_in_two_ways_reach_no_host() {
    let (port, requests) = http();
    let mut harness = Harness::start(&[("listed.example", LOCAL)]);
    harness.allow(&[("listed.example", port, LOOPBACK)]);
    let target = format!("http://listed.example:{port}/");
    let post = format!("POST {target} HTTP/1.1\r\n");
    for request in [
        format!("{post}Content-Length: 4\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n"),
        format!("{post}Content-Length: 4\r\nTransfer-Encoding:\x0bchunked\r\n\r\n0\r\n\r\n"),
        format!("{post}Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n"),
        format!("{post}Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n"),
        format!("{post}Transfer-Encoding: \"chunked\"\r\n\r\n0\r\n\r\n"),
        format!("{post}Transfer-Encoding: chunked;q=1\r\n\r\n0\r\n\r\n"),
        format!("{post}Content-Length: 4, 4\r\n\r\nbody"),
        format!("{post}Content-Length: 04 \r\nContent-Length: 4\r\n\r\nbody"),
        format!("{post}Content-Length: -4\r\n\r\nbody"),
        format!("{post}Content-Length: 4e0\r\n\r\nbody"),
        format!("{post}Content-Length: 99999999999999999999\r\n\r\nbody"),
        format!("{post}Content-Length:\r\n 4\r\n\r\nbody"),
        format!("{post}: nameless\r\n\r\n"),
        format!("{post}X\u{e9}: a\r\n\r\n"),
        format!("{post}X: a\0b\r\n\r\n"),
        format!("{post}X: a\x0bb\r\rY: b\r\n\r\n"),
        format!("POST  {target} HTTP/1.1\r\n\r\n"),
        format!("POST {target}  HTTP/1.1\r\n\r\n"),
        format!("POST {target} x HTTP/1.1\r\n\r\n"),
        format!("POST\t{target}\tHTTP/1.1\r\n\r\n"),
        format!("POST {target} HTTP/1.10\r\n\r\n"),
        format!("POST {target} HTTP/3.0\r\n\r\n"),
        format!("POST {target} http/1.1\r\n\r\n"),
        format!("POST {target}\r\n\r\n"),
        format!("P\0ST {target} HTTP/1.1\r\n\r\n"),
        format!("{post}\n"),
        format!("\n{post}\r\n"),
        format!("{post}X: a\r\r\n\r\n"),
        format!("POST ht\ttp://listed.example:{port}/ HTTP/1.1\r\n\r\n"),
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned(),
    ] {
        let answer = harness.ask(&request);
        assert!(answer.starts_with("HTTP/1.1 400 "), "{request:?}: {answer:?}");
    }
    assert!(requests.lock().unwrap().iter().all(String::is_empty), "{:?}", requests.lock().unwrap());
    // Chunks that are not plain end the request before its body is whole, and nothing behind it is read.
    for chunks in [
        "4;ext\r\nbody\r\n0x0\r\n\r\n",
        "+4\r\nbody\r\n0\r\n\r\n",
        "-4\r\nbody\r\n0\r\n\r\n",
        "4 4\r\nbody\r\n0\r\n\r\n",
        "4\nbody\n0\n\n",
        "4\r\nbodyXX0\r\n\r\n",
        "10000000000000004\r\nbody\r\n0\r\n\r\n",
        "\r\n4\r\nbody\r\n0\r\n\r\n",
    ] {
        let smuggled = format!("GET {target}hidden HTTP/1.1\r\nHost: x\r\n\r\n");
        let answer = harness.ask(&format!("{post}Transfer-Encoding: chunked\r\n\r\n{chunks}{smuggled}"));
        assert!(!answer.starts_with("HTTP/1.1 200"), "{chunks:?}: {answer:?}");
        let got = requests.lock().unwrap();
        assert!(got.iter().all(|request| !request.contains("hidden") && !request.contains("0\r\n\r\n")), "{got:?}");
    }
}

#[test]
fn a_head_that_comes_slowly_costs_little_and_keeps_no_other_from_being_served() {
    let port = echo("");
    let mut harness = Harness::start(&[("listed.example", LOCAL)]);
    harness.allow(&[("listed.example", port, LOOPBACK)]);
    let before = harness.gateway.anonymous_memory();
    let slow: Vec<TcpStream> = (0..400)
        .map(|number| harness.open(&format!("GET http://listed.example/{number} HTTP/1.1\r\nX: {}", "x".repeat(8000))))
        .collect();
    let begun = Instant::now();
    assert!(harness.tunnel(&format!("listed.example:{port}")).is_ok());
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    let used = harness.gateway.anonymous_memory().saturating_sub(before);
    assert!(used < 16 << 10, "400 slow heads of 8 kB take {used} KiB");
    drop(slow);
    // Byte by byte, up to the limit: the time that the gateway computes grows with the bytes, not with their square.
    let mut stream = harness.open("GET http://listed.example/ HTTP/1.1\r\nX: ");
    let before = harness.gateway.processor_time();
    for _ in 0..60_000 {
        if stream.write_all(b"\tx").is_err() {
            break;
        }
    }
    let took = harness.gateway.processor_time() - before;
    assert!(took < Duration::from_secs(5), "{took:?} for one head of 120 kB");
    assert!(harness.tunnel(&format!("listed.example:{port}")).is_ok());
}

/// A ClientHello with one more extension (RFC 8446 section 4.2).
fn extended(hello: &[u8], kind: u16, data: &[u8]) -> Vec<u8> {
    let mut hello = hello.to_vec();
    // Record header 5, handshake header 4, version 2, random 32; then three vectors and the extensions' length.
    let mut at = 5 + 4 + 2 + 32;
    at += 1 + usize::from(hello[at]);
    at += 2 + usize::from(u16::from_be_bytes([hello[at], hello[at + 1]]));
    at += 1 + usize::from(hello[at]);
    let extension = [&kind.to_be_bytes()[..], &u16::try_from(data.len()).unwrap().to_be_bytes(), data].concat();
    // In front: a pre-shared key would have to stay the last.
    hello.splice(at + 2..at + 2, extension.iter().copied());
    let grow = |hello: &mut Vec<u8>, at: usize| {
        let length = u16::from_be_bytes([hello[at], hello[at + 1]]) + u16::try_from(extension.len()).unwrap();
        hello[at..at + 2].copy_from_slice(&length.to_be_bytes());
    };
    for place in [at, 7, 3] {
        grow(&mut hello, place);
    }
    hello
}

#[test]
fn an_encrypted_client_hello_counts_by_its_outer_name_alone() {
    let port = echo("");
    let mut harness = Harness::start(&[("listed.example", LOCAL)]);
    harness.allow(&[("listed.example", port, LOOPBACK)]);
    // `encrypted_client_hello` of the outer kind (RFC 9849): a suite, a configuration's number, a key and a payload.
    let encrypted = [&[0, 0, 1, 0, 1, 7, 0, 32][..], &[9; 32], &[0, 64], &[5; 64]].concat();
    let outer = |name: &str| extended(&client_hello(name), 0xfe0d, &encrypted);
    let ask = |hello: &[u8]| {
        let mut stream = harness.tunnel(&format!("listed.example:{port}")).unwrap();
        stream.write_all(hello).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
        let mut echoed = vec![0; hello.len()];
        stream.read_exact(&mut echoed).is_ok()
    };
    assert!(ask(&outer("listed.example")));
    for name in ["evil.example", "a.listed.example", "cloudflare-ech.com"] {
        assert!(!ask(&outer(name)), "{name}");
    }
    assert_eq!(harness.gateway.decision("listed.example", "sni")["allowed"], false);
    // A host with rules is spoken to by the gateway itself, which knows no inner name: there is none to hide behind.
    let (port, seen) = server("rules.example", &["http/1.1"]);
    let mut harness = Harness::start(&[("rules.example", LOCAL)]);
    inspected(&mut harness, port, &["GET /open"], None);
    let mut stream = harness.tunnel(&format!("rules.example:{port}")).unwrap();
    stream.write_all(&outer("inner.example")).unwrap();
    assert!(rest(&mut stream).is_empty() && seen.lock().unwrap().is_empty());
    assert!(
        exchange(&harness, port, format!("GET /open HTTP/1.1\r\nHost: rules.example:{port}\r\n\r\n").as_bytes())
            .starts_with("HTTP/1.1 200")
    );
}

#[test]
fn a_client_hello_that_is_too_long_or_too_slow_is_refused() {
    let port = echo("");
    let mut harness = Harness::start(&[("listed.example", LOCAL)]);
    harness.allow(&[("listed.example", port, LOOPBACK)]);
    let authority = format!("listed.example:{port}");
    let hello = client_hello("listed.example");
    // Slow: the first bytes, and then one now and then. It goes on while the rest of the test runs.
    let mut slow = harness.tunnel(&authority).unwrap();
    slow.write_all(&hello[..20]).unwrap();
    let begun = Instant::now();
    // RFC 7685: padding.
    let padded = extended(&hello, 21, &vec![0; 12_000]);
    let mut stream = harness.tunnel(&authority).unwrap();
    stream.write_all(&padded).unwrap();
    let mut echoed = vec![0; padded.len()];
    stream.read_exact(&mut echoed).unwrap();
    for hello in [
        extended(&hello, 21, &vec![0; 16_300]),
        // A record that says it is longer than one may be.
        [&[0x16, 3, 1, 0xff, 0xff][..], &hello[5..]].concat(),
        // Not a ClientHello.
        [&[0x16, 3, 1, 0, 4][..], &[2, 0, 0, 0]].concat(),
        // Many records of one byte: it never becomes whole within the limit.
        [0x16, 3, 1, 0, 1, 1].repeat(3000),
    ] {
        let mut stream = harness.tunnel(&authority).unwrap();
        let _ = stream.write_all(&hello);
        assert!(rest(&mut stream).is_empty());
    }
    assert!(rest(&mut slow).is_empty());
    assert!(begun.elapsed() < Duration::from_secs(8), "a slow ClientHello was waited for {:?}", begun.elapsed());
    // In pieces of one byte, but in time.
    let mut stream = harness.tunnel(&authority).unwrap();
    stream.set_nodelay(true).unwrap();
    for byte in &hello {
        stream.write_all(&[*byte]).unwrap();
    }
    let mut echoed = vec![0; hello.len()];
    stream.read_exact(&mut echoed).unwrap();
    assert_eq!(echoed, hello);
}

#[test]
fn framing_inside_tls_hides_no_request() {
    let (port, seen) = server("rules.example", &["http/1.1"]);
    let mut harness = Harness::start(&[("rules.example", LOCAL)]);
    inspected(&mut harness, port, &["POST /open", "GET /open"], None);
    let host = format!("rules.example:{port}");
    let hidden = format!("GET /hidden HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    let post = format!("POST /open HTTP/1.1\r\nHost: {host}\r\n");
    for (head, body) in [
        ("Content-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n", "0\r\n\r\nX"),
        ("Transfer-Encoding: chunked\r\nContent-Length: 6\r\n\r\n", "0\r\n\r\n"),
        ("Transfer-Encoding: xchunked\r\n\r\n", "0\r\n\r\n"),
        ("Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n", "0\r\n\r\n"),
        ("Transfer-Encoding: identity, chunked\r\n\r\n", "0\r\n\r\n"),
        ("Transfer-Encoding : chunked\r\n\r\n", "0\r\n\r\n"),
        ("Transfer-Encoding:\x0bchunked\r\n\r\n", "0\r\n\r\n"),
        ("Transfer-Encoding: chunked\r\n\r\n", "0;a=b\r\n\r\n"),
        ("Transfer-Encoding: chunked\r\n\r\n", "0;\n\r\n\r\n"),
        ("Transfer-Encoding: chunked\r\n\r\n", "0\n\r\n"),
        ("Transfer-Encoding: chunked\r\n\r\n", "0x0\r\n\r\n"),
        ("Transfer-Encoding: chunked\r\n\r\n", "1\r\nxx\r\n0\r\n\r\n"),
        ("Transfer-Encoding: chunked\r\n\r\n", "fffffffffffffffff\r\n"),
        ("Transfer-Encoding: chunked\r\n\r\n", "0\r\nHost: other.example\r\nContent-Length: 99\r\n\r\n"),
        ("Content-Length: 0\r\nContent-Length: 99\r\n\r\n", ""),
        ("Content-Length: 0, 99\r\n\r\n", ""),
        ("Content-Length: +0\r\n\r\n", ""),
        ("Content-Length: 18446744073709551616\r\n\r\n", ""),
        ("Content_Length: 99\r\nContent-Length: 0\r\n\r\n", ""),
        ("X: a\r\n Transfer-Encoding: chunked\r\n\r\n", ""),
        ("X: a\nTransfer-Encoding: chunked\r\n\r\n", "0\r\n\r\n"),
        ("X: a\rTransfer-Encoding: chunked\r\n\r\n", ""),
        ("X: a\0b\r\n\r\n", ""),
        ("Connection: Content-Length\r\nContent-Length: 0\r\n\r\n", ""),
        ("Connection: Host\r\nContent-Length: 0\r\n\r\n", ""),
        ("Expect: 100-continue\r\nContent-Length: 0\r\n\r\n", ""),
        ("Upgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n", ""),
        ("Upgrade: TLS/1.2\r\nConnection: Upgrade\r\nContent-Length: 0\r\n\r\n", ""),
        ("Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: x\r\nContent-Length: 0\r\n\r\n", ""),
    ] {
        exchange(&harness, port, format!("{post}{head}{body}{hidden}").as_bytes());
        let seen = seen.lock().unwrap();
        assert!(seen.iter().all(|line| line.contains(" POST /open ")), "{head:?} {body:?} gave {seen:#?}");
        for line in seen.iter() {
            let framed = line.matches(" content-length=").count() + line.matches(" transfer-encoding=").count();
            assert!(framed <= 1, "{line}");
            for absent in [" upgrade=", " http2-settings=", " expect=", "host=other", " trailer"] {
                assert!(!line.contains(absent), "{absent} in {line}");
            }
        }
    }
    for head in [
        format!("GET /open HTTP/1.1\r\nHost: {host}, other.example\r\n\r\n"),
        format!("GET /open HTTP/1.1\r\nHost: other.example@{host}\r\n\r\n"),
        format!("GET /open HTTP/1.1\r\nHost: {host}/\r\n\r\n"),
        "GET /open HTTP/1.1\r\nHost: rules.example\r\n\r\n".to_owned(),
        format!("GET /open HTTP/1.1\r\nHost: {host}\0\r\n\r\n"),
        format!("GET /open HTTP/1.1\r\nHost: {host}\r\nhost: {host}\r\n\r\n"),
        format!("GET //other.example/open HTTP/1.1\r\nHost: {host}\r\n\r\n"),
        format!("GET https://other.example/open HTTP/1.1\r\nHost: {host}\r\n\r\n"),
        format!("GET *.example HTTP/1.1\r\nHost: {host}\r\n\r\n"),
        format!("GET /open%00 HTTP/1.1\r\nHost: {host}\r\n\r\n"),
        format!("GET /open HTTP/2.0\r\nHost: {host}\r\n\r\n"),
        format!("GET\t/open HTTP/1.1\r\nHost: {host}\r\n\r\n"),
        format!("TRACE /open HTTP/1.1\r\nHost: {host}\r\n\r\n"),
        format!("get /open HTTP/1.1\r\nHost: {host}\r\n\r\n"),
        "GET /open\r\n\r\n".to_owned(),
    ] {
        let before = seen.lock().unwrap().len();
        let answer = exchange(&harness, port, head.as_bytes());
        assert!(!answer.contains("HTTP/1.1 200") && seen.lock().unwrap().len() == before, "{head:?}: {answer}");
    }
}

#[test]
fn no_field_makes_a_request_another_one() {
    let (port, seen) = server("rules.example", &["http/1.1"]);
    let mut harness = Harness::start(&[("rules.example", LOCAL)]);
    inspected(&mut harness, port, &["POST /items/*", "PATCH /items/*"], None);
    let url = |rest: &str| format!("https://rules.example:{port}/items/1{rest}");
    for field in ["X-HTTP-Method-Override: DELETE", "x-method-override: delete", "X_Http_Method: DELETE"] {
        let answer = curl(&harness, &["--data", "a", "-H", field, &url("")]);
        assert!(answer.contains("no rule allows DELETE") && answer.contains("403 HTTP/"), "{field}: {answer}");
    }
    let answer = curl(&harness, &["--data", "a", &url("?_method=DELETE")]);
    assert!(answer.contains("no rule allows DELETE"), "{answer}");
    assert!(curl(&harness, &["--data", "a", "-H", "X-HTTP-Method-Override: TRACE", &url("")]).contains("400 HTTP/"));
    assert!(curl(&harness, &["--data", "a", "-H", "X-HTTP-Method-Override: PATCH", &url("")]).starts_with("ok200"));
    let names =
        ["X-Original-URL: /admin", "X-Rewrite-URL: /admin", "X-Forwarded-Host: other.example", "X_Host: other.example"];
    let fields: Vec<&str> = names.iter().flat_map(|field| ["-H", field]).collect();
    assert!(curl(&harness, &[&["--data", "a"], &fields[..], &[&url("")]].concat()).starts_with("ok200"));
    let seen = seen.lock().unwrap();
    assert_eq!(seen.len(), 2, "{seen:#?}");
    assert!(!seen[1].contains("/admin") && !seen[1].contains("other.example"), "{seen:#?}");
}

#[test]
fn what_belongs_to_one_connection_stays_on_it() {
    let (port, seen) = server("rules.example", &["http/1.1"]);
    let mut harness = Harness::start(&[("rules.example", LOCAL)]);
    inspected(&mut harness, port, &["POST /open"], None);
    let host = format!("rules.example:{port}");
    // A body that is waited for with `Expect` is asked for by the gateway, not by the host.
    let mut stream = open(&harness, port);
    let head = format!("POST /open HTTP/1.1\r\nHost: {host}\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n");
    stream.write_all(head.as_bytes()).unwrap();
    assert_eq!(crate::receive(&mut stream, 25), "HTTP/1.1 100 Continue\r\n\r\n");
    stream.write_all(b"body").unwrap();
    assert_eq!(crate::receive(&mut stream, 12), "HTTP/1.1 200");
    // Trailers of a request are dropped: a server could take them for header fields that nobody judged.
    let chunked = format!(
        "POST /open HTTP/1.1\r\nHost: {host}\r\nTransfer-Encoding: chunked\r\nTrailer: Authorization\r\nTE: trailers\r\n\
         Connection: close\r\n\r\n4\r\nbody\r\n0\r\nAuthorization: Bearer mine\r\nX-Late: mine\r\n\r\n"
    );
    assert!(exchange(&harness, port, chunked.as_bytes()).starts_with("HTTP/1.1 200"));
    let seen = seen.lock().unwrap();
    assert_eq!(seen.len(), 2, "{seen:#?}");
    for line in seen.iter() {
        assert!(line.ends_with("body=body"), "{line}");
        assert!(!line.contains("mine") && !line.contains("expect=") && !line.contains("te="), "{line}");
    }
}

/// A server that repeats in its answer what it was asked: in the body, in a field, and as a redirect.
fn repeating(protocols: &[&str]) -> (u16, Seen) {
    server_answering("rules.example", protocols, |line| {
        let body = if line.contains("/body") { line.to_owned() } else { "ok".to_owned() };
        let answer = Response::builder().status(if line.contains("/redirect") { 302 } else { 200 });
        let value =
            |text: &str| text.split(' ').find_map(|part| part.strip_prefix("x-api-key=")).unwrap_or("-").to_owned();
        let answer = match line {
            _ if line.contains("/field") => answer.header("x-seen", value(line)),
            _ if line.contains("/redirect") => {
                answer.header("location", format!("https://other.example/{}", value(line)))
            }
            _ => answer,
        };
        answer.body(Full::from(body)).unwrap()
    })
}

#[test]
fn an_answer_never_shows_a_brokered_credential() {
    const VALUE: &str = "sk-canary-shown-5b0e7f1c93d24";
    for (protocol, option) in [("http/1.1", "--http1.1"), ("h2", "--http2")] {
        let (port, seen) = repeating(&[protocol]);
        let mut harness = Harness::start(&[("rules.example", LOCAL)]);
        inspected(&mut harness, port, &[], Some("key"));
        hold(&mut harness, json!({ "header": "x-api-key" }), VALUE);
        let url = |path: &str| format!("https://rules.example:{port}/{path}");
        assert!(curl(&harness, &[option, &url("plain")]).starts_with("ok200"));
        for path in ["field", "redirect"] {
            let answer = curl(&harness, &[option, "--include", &url(path)]);
            assert!(answer.contains("502 HTTP/") && answer.contains("shows the credential `key`"), "{answer}");
            assert!(!answer.contains("canary"), "{answer}");
        }
        let answer = curl(&harness, &[option, &url("body")]);
        assert!(!answer.contains("canary-shown-5b0e"), "{answer}");
        // Methods whose answer is the request itself.
        for method in ["TRACE", "TRACK", "trace"] {
            let answer = curl(&harness, &[option, "-X", method, &url("body")]);
            assert!(answer.contains("400 HTTP/"), "{method}: {answer}");
        }
        assert!(seen.lock().unwrap().iter().all(|line| line.contains(VALUE)));
        let told: Vec<_> = harness.gateway.events().into_iter().filter(|event| event["reason"] == "leak").collect();
        assert_eq!(told.len(), 3, "{told:#?}");
        assert!(!format!("{told:?}").contains("canary"), "{told:#?}");
    }
}

#[test]
fn nothing_that_could_be_a_credential_stands_beside_the_brokered_one() {
    let (port, seen) = server("rules.example", &["http/1.1"]);
    let mut harness = Harness::start(&[("rules.example", LOCAL)]);
    inspected(&mut harness, port, &["POST /**"], Some("key"));
    hold(&mut harness, json!({ "header": "x-api-key" }), "ours-0123456789");
    let host = format!("rules.example:{port}");
    let request = format!(
        "POST /v1?api_key=mine&x=1&%61ccess_token=mine;key=mine HTTP/1.1\r\nHost: {host}\r\nX-Api-Key: mine\r\n\
         x-api-key: mine\r\nX_Api_Key: mine\r\nX-API_KEY: mine\r\nAuthorization: Bearer mine\r\nCookie: a=mine\r\n\
         Cookie: b=mine\r\nProxy-Authorization: Basic mine\r\nConnection: close, x-api-key\r\n\
         Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nX-Api-Key: mine\r\n\r\n"
    );
    assert!(exchange(&harness, port, request.as_bytes()).starts_with("HTTP/1.1 200"));
    let seen = seen.lock().unwrap();
    assert!(seen[0].contains(" x-api-key=ours-0123456789") && seen[0].contains("/v1?x=1"), "{seen:#?}");
    assert!(!seen[0].contains("mine"), "{seen:#?}");
}

#[test]
fn a_limit_of_connections_is_told_and_heals() {
    let port = echo("");
    let mut harness = Harness::start(&[("listed.example", LOCAL)]);
    let policy = json!({
        "allow": [{ "host": "listed.example", "port": port, "allow_private": LOOPBACK }],
        "limits": { "connections": 5 },
    });
    assert_eq!(harness.gateway.command(json!({ "policy": policy })), None);
    let authority = format!("listed.example:{port}");
    let mut open: Vec<TcpStream> = (0..5).map(|_| harness.tunnel(&authority).unwrap()).collect();
    let refused = harness.tunnel(&authority).unwrap_err();
    assert!(refused.starts_with("HTTP/1.1 429 ") && refused.contains("network.limits.connections"), "{refused}");
    // Half closed is still open; closed is not.
    open[0].shutdown(std::net::Shutdown::Write).unwrap();
    drop(open.pop());
    let begun = Instant::now();
    while harness.tunnel(&authority).is_err() {
        assert!(begun.elapsed() < PATIENCE, "a closed connection makes no room");
        thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_flood_of_connections_leaves_the_gateway_small_and_answering() {
    let port = echo("");
    let mut harness = Harness::start(&[("listed.example", LOCAL)]);
    harness.allow(&[("listed.example", port, LOOPBACK)]);
    let flood: Vec<TcpStream> = (0..700).filter_map(|_| connect(harness.proxy).ok()).collect();
    assert!(harness.tunnel(&format!("listed.example:{port}")).is_ok());
    assert!(harness.gateway.anonymous_memory() < 16 << 10, "{} KiB", harness.gateway.anonymous_memory());
    drop(flood);
    for _ in 0..300 {
        drop(harness.open("CONNECT listed.example:1 HTTP/1.1\r\n\r\n"));
    }
    assert!(harness.tunnel(&format!("listed.example:{port}")).is_ok());
}

#[test]
fn the_log_tells_of_each_connection_once_and_never_what_it_carried() {
    let (port, _) = http();
    let mut harness = Harness::start(&[("listed.example", LOCAL)]);
    harness.allow(&[("listed.example", port, LOOPBACK)]);
    let host = format!("listed.example:{port}");
    let answer = harness.ask(&format!(
        "POST http://{host}/?q=canary1 HTTP/1.1\r\nHost: canary2\r\nX-Canary3: canary4\r\nContent-Length: 7\r\n\r\ncanary5"
    ));
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    for odd in [
        "CONNECT \u{1b}[31mevil.example:443 HTTP/1.1\r\n\r\n",
        "CONNECT evil\u{202e}example:443 HTTP/1.1\r\n\r\n",
        "GET http://evil.example/\u{7f} HTTP/1.1\r\n\r\n",
        "{\"event\":\"decision\"}\n{\"event\":\"ready\"}\n\r\n\r\n",
    ] {
        harness.ask(odd);
    }
    let _ = harness.tunnel("\"},{\"event\":\"ready\".example:443");
    harness.gateway.wait_for(|event| event["event"] == "closed");
    harness.gateway.wait_for(|event| event["event"] == "decision" && event["connection"] == 6);
    let events = harness.gateway.events();
    let text = format!("{events:?}");
    assert!(!text.contains("canary"), "{text}");
    assert_eq!(events.iter().filter(|event| event["event"] == "ready").count(), 1);
    let decisions: Vec<_> = events.iter().filter(|event| event["event"] == "decision").collect();
    let mut numbers: Vec<_> = decisions.iter().map(|event| event["connection"].as_u64().unwrap()).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, [1, 2, 3, 4, 5, 6], "{decisions:#?}");
    for event in &events {
        let strings = event.as_object().unwrap().values().filter_map(Value::as_str);
        for text in strings {
            assert!(text.chars().all(|c| !c.is_control() && c != '\u{202e}'), "{text:?}");
            assert!(text.len() < 1200, "{text}");
        }
    }
}

/// A question whose name is `listed.example`, with these counts and what stands behind it.
fn question(counts: [u16; 4], behind: &[u8]) -> Vec<u8> {
    let mut message = vec![0, 9, 1, 0];
    message.extend(counts.iter().flat_map(|count| count.to_be_bytes()));
    message.extend(b"\x06listed\x07example\x00\x00\x01\x00\x01");
    message.extend(behind);
    message
}

#[test]
fn odd_questions_get_no_address() {
    let mut harness = Harness::start(&[]);
    harness.allow(&[("listed.example", 4000, &[])]);
    harness.wait_for_name("listed.example.", ResponseCode::NoError);
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(250))).unwrap();
    let header = b"\x00\x09\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00";
    let named = |name: &[u8]| [&header[..], name, b"\x00\x01\x00\x01"].concat();
    let again = b"\xc0\x0c\x00\x01\x00\x01";
    let mut cases = vec![
        // Names that point at themselves, at each other, ahead and outside (RFC 1035 section 4.1.4).
        named(b"\xc0\x0c"),
        named(b"\xc0\x0e\xc0\x0c"),
        named(b"\xc0\xff"),
        named(b"\xff\xff"),
        named(b"\x06listed\xc0\x0c"),
        // Reserved kinds of labels, labels and names that are too long, a label beyond the end.
        named(b"\x40listed\x07example\x00"),
        named(b"\x80listed\x07example\x00"),
        named(
            &[
                &[63][..],
                &[b'a'; 63],
                &[63],
                &[b'a'; 63],
                &[63],
                &[b'a'; 63],
                &[63],
                &[b'a'; 63],
                &[63],
                &[b'a'; 63],
                &[0],
            ]
            .concat(),
        ),
        named(b"\x3flisted"),
        // A dot, a zero and a space inside a label are not what separates labels.
        named(b"\x0elisted.example\x00"),
        named(b"\x07listed\x00\x07example\x00"),
        named(b"\x07listed \x07example\x00"),
        named(b"\x06listed\x07example\x04evil\x00"),
        // More and fewer questions than are there.
        question([2, 0, 0, 0], again),
        question([65_535, 0, 0, 0], &again.repeat(150)),
        question([0, 0, 0, 0], b""),
        question([1, 65_535, 65_535, 65_535], b""),
        // An answer, an update, a notification, a zone transfer, another class.
        [b"\x00\x09\x81\x80", &question([1, 0, 0, 0], b"")[4..]].concat(),
        [b"\x00\x09\x29\x00", &question([1, 0, 0, 0], b"")[4..]].concat(),
        [b"\x00\x09\x21\x00", &question([1, 0, 0, 0], b"")[4..]].concat(),
        [&header[..], b"\x06listed\x07example\x00\x00\xfc\x00\x01"].concat(),
        [&header[..], b"\x06listed\x07example\x00\x00\x01\x00\x03"].concat(),
        [&header[..], b"\x06listed\x07example\x00\x00\xff\x00\x01"].concat(),
        // Too short, too long.
        header[..11].to_vec(),
        vec![0; 1],
        question([1, 0, 0, 0], &[0; 1300]),
        // EDNS twice, and with options beyond its end (RFC 6891 section 6.1.1).
        question([1, 0, 0, 2], &b"\x00\x00\x29\x10\x00\x00\x00\x00\x00\x00\x00".repeat(2)),
        question([1, 0, 0, 1], b"\x00\x00\x29\x10\x00\x00\x00\x00\x00\xff\xff"),
    ];
    cases.push(named(&[&b"\x01a".repeat(126)[..], b"\x06listed\x07example\x00"].concat()));
    let mut buffer = [0; 4096];
    for case in &cases {
        socket.send_to(case, harness.dns).unwrap();
        if let Ok(length) = socket.recv(&mut buffer) {
            let answers = u16::from_be_bytes([buffer[6], buffer[7]]);
            assert!(length >= 12 && answers == 0, "{case:?} got {:?}", &buffer[..length]);
            assert!(length <= case.len() + 16, "an answer is larger than its question: {case:?}");
        }
    }
    // One with EDNS and a large buffer is answered, and no larger for it.
    let edns = question([1, 0, 0, 1], b"\x00\x00\x29\xff\xff\x00\x00\x80\x00\x00\x00");
    socket.send_to(&edns, harness.dns).unwrap();
    let length = socket.recv(&mut buffer).unwrap();
    assert!(buffer[7] == 1 && length < 120, "{:?}", &buffer[..length]);
}

#[test]
fn a_flood_of_questions_is_dropped_and_later_ones_are_answered() {
    let mut harness = Harness::start(&[]);
    harness.allow(&[("listed.example", 4000, &[]), ("*.wild.example", 4000, &[])]);
    harness.wait_for_name("listed.example.", ResponseCode::NoError);
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    for _ in 0..6000 {
        socket.send_to(&question([1, 0, 0, 0], b""), harness.dns).unwrap();
    }
    // Connections that say nothing, or half of something, keep nobody out.
    let idle: Vec<_> = (0..100).filter_map(|_| connect(harness.dns).ok()).collect();
    thread::sleep(Duration::from_millis(1200));
    harness.wait_for_name("listed.example.", ResponseCode::NoError);
    assert!(harness.relay_memory() < 10 << 10, "{} KiB", harness.relay_memory());
    drop(idle);
}

fn works(harness: &Harness, address: SocketAddr) -> bool {
    let Ok(mut stream) = connect(address) else { return false };
    stream.write_all(b"x").is_ok()
        && stream.read(&mut [0]).is_ok_and(|length| length == 1)
        && harness.relay_memory() > 0
}

#[test]
fn a_gateway_that_stands_still_lets_nothing_through_and_goes_on_where_it_was() {
    let port = echo("");
    let mut harness = Harness::start(&[("listed.example", LOCAL)]);
    harness.allow(&[("listed.example", port, LOOPBACK)]);
    let mut before = harness.tunnel(&format!("listed.example:{port}")).unwrap();
    harness.gateway.signal("STOP");
    before.write_all(b"x").unwrap();
    before.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    assert!(before.read(&mut [0]).is_err(), "a gateway that stands still moved a byte");
    let waiting = harness.open(&format!("CONNECT listed.example:{port} HTTP/1.1\r\n\r\n"));
    waiting.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    assert!((&waiting).read(&mut [0]).is_err());
    harness.gateway.signal("CONT");
    before.set_read_timeout(Some(PATIENCE)).unwrap();
    waiting.set_read_timeout(Some(PATIENCE)).unwrap();
    assert_eq!(crate::receive(&mut before, 1), "x");
    assert_eq!(crate::receive(&mut &waiting, 12), "HTTP/1.1 200");
}

#[test]
fn a_relay_that_stands_still_or_dies_cuts_nothing_off_and_opens_nothing() {
    let port = echo("");
    let mut harness = Harness::start(&[("listed.example", LOCAL)]);
    harness.allow(&[("listed.example", port, LOOPBACK)]);
    let address = SocketAddr::new(harness.wait_for_name("listed.example.", ResponseCode::NoError).unwrap(), port);
    let mut held = harness.tunnel(&format!("listed.example:{port}")).unwrap();
    let mut alive = |text: &str| {
        held.write_all(text.as_bytes()).unwrap();
        assert_eq!(crate::receive(&mut held, text.len()), text);
    };
    harness.signal_relay("STOP");
    alive("one");
    let waiting = harness.open(&format!("CONNECT listed.example:{port} HTTP/1.1\r\n\r\n"));
    waiting.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    assert!((&waiting).read(&mut [0]).is_err());
    harness.signal_relay("CONT");
    waiting.set_read_timeout(Some(PATIENCE)).unwrap();
    assert_eq!(crate::receive(&mut &waiting, 12), "HTTP/1.1 200");
    assert!(works(&harness, address));
    harness.signal_relay("KILL");
    alive("two");
    let begun = Instant::now();
    while connect(harness.proxy).is_ok() || connect(address).is_ok() {
        assert!(begun.elapsed() < PATIENCE, "somebody listens in place of the relay");
        thread::sleep(Duration::from_millis(20));
    }
    // What it handed over is the gateway's, and the policy still holds for it.
    harness.allow(&[]);
    assert!(rest(&mut held).is_empty());
}
