//! The programs `relay` and `gateway` together, as child processes of the built binary.

#![allow(clippy::unwrap_used)]

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hickory_proto::op::ResponseCode;
use hickory_proto::rr::RecordType;
use serde_json::json;

mod addresses;
mod adversarial;
mod harness;
mod http2;
mod inspection;
mod leaks;
mod proxies;
mod streams;

use harness::{Harness, connect, echo, http};

const LOCAL: &[&str] = &["127.0.0.1"];
const LOOPBACK: &[&str] = &["127.0.0.0/8"];

fn receive(stream: &mut impl Read, length: usize) -> String {
    let mut bytes = vec![0; length];
    stream.read_exact(&mut bytes).unwrap();
    String::from_utf8(bytes).unwrap()
}

/// What is left to read until the end, which may be a reset.
fn rest(stream: &mut impl Read) -> Vec<u8> {
    let mut bytes = Vec::new();
    let _ = stream.read_to_end(&mut bytes);
    bytes
}

fn client_hello(name: &str) -> Vec<u8> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    let mut client = rustls::ClientConnection::new(Arc::new(config), name.to_owned().try_into().unwrap()).unwrap();
    let mut bytes = Vec::new();
    client.write_tls(&mut bytes).unwrap();
    bytes
}

#[test]
fn a_tunnel_to_a_listed_host_carries_bytes_and_is_reported() {
    let port = echo("");
    let mut harness = Harness::start(&[("listed.example", LOCAL)]);
    harness.allow(&[("listed.example", port, LOOPBACK)]);
    let mut stream = harness.tunnel(&format!("Listed.Example.:{port}")).unwrap();
    stream.write_all(b"hello").unwrap();
    assert_eq!(receive(&mut stream, 5), "hello");
    drop(stream);
    let decision = harness.gateway.decision("listed.example", "listed");
    assert_eq!(decision["allowed"], true);
    assert_eq!(decision["address"], "127.0.0.1");
    assert_eq!(decision["rule"], "sandbox.yaml:1");
    assert_eq!(decision["via"], "connect");
    let closed = harness.gateway.wait_for(|event| event["event"] == "closed");
    assert_eq!((&closed["sent"], &closed["received"]), (&json!(5), &json!(5)));
    assert_eq!(closed["connection"], decision["connection"]);
}

#[test]
fn nothing_is_allowed_before_the_first_policy_nor_beside_it() {
    let port = echo("");
    let mut harness = Harness::start(&[("listed.example", LOCAL), ("other.example", LOCAL)]);
    assert!(harness.tunnel(&format!("listed.example:{port}")).unwrap_err().starts_with("HTTP/1.1 403 "));
    harness.gateway.decision("listed.example", "no_policy");
    harness.allow(&[("listed.example", port, LOOPBACK)]);
    for authority in
        [format!("other.example:{port}"), "listed.example:1".to_owned(), format!("a.listed.example:{port}")]
    {
        let answer = harness.tunnel(&authority).unwrap_err();
        assert!(answer.starts_with("HTTP/1.1 403 "), "{authority}: {answer}");
        assert!(answer.contains("\"error\":\"host not allowed\""), "{answer}");
        assert!(answer.contains("network.allow in sandbox.yaml"), "{answer}");
    }
    harness.gateway.decision("other.example", "unlisted");
    let answer = harness.ask("GET http://other.example/ HTTP/1.1\r\nHost: other.example\r\n\r\n");
    assert!(answer.starts_with("HTTP/1.1 403 "), "{answer}");
}

#[test]
fn names_that_resolve_to_a_private_address_need_allow_private() {
    let port = echo("");
    let mut harness = Harness::start(&[
        ("rebound.example", LOCAL),
        ("mixed.example", &["1.1.1.1", "127.0.0.1"]),
        ("mapped.example", &["::ffff:127.0.0.1"]),
        ("metadata.example", &["169.254.169.254"]),
        ("narrow.example", LOCAL),
    ]);
    harness.allow(&[
        ("rebound.example", port, &[]),
        ("mixed.example", port, &[]),
        ("mapped.example", port, &[]),
        ("metadata.example", port, LOOPBACK),
        ("narrow.example", port, &["127.0.0.2/32"]),
        ("unknown.example", port, LOOPBACK),
    ]);
    for name in ["rebound.example", "mixed.example", "mapped.example", "metadata.example", "narrow.example"] {
        let answer = harness.tunnel(&format!("{name}:{port}")).unwrap_err();
        assert!(answer.starts_with("HTTP/1.1 403 "), "{name}: {answer}");
        assert!(answer.contains("allow_private"), "{name}: {answer}");
        harness.gateway.decision(name, "address");
    }
    let answer = harness.tunnel(&format!("unknown.example:{port}")).unwrap_err();
    assert!(answer.starts_with("HTTP/1.1 502 "), "{answer}");
    harness.gateway.decision("unknown.example", "resolve");
}

#[test]
fn a_host_that_does_not_answer_is_a_bad_gateway() {
    let mut harness = Harness::start(&[("listed.example", LOCAL)]);
    harness.allow(&[("listed.example", 1, LOOPBACK)]);
    assert!(harness.tunnel("listed.example:1").unwrap_err().starts_with("HTTP/1.1 502 "));
    harness.gateway.decision("listed.example", "connect");
}

#[test]
fn addresses_are_reached_by_a_rule_that_names_them_with_allow_private() {
    let port = echo("");
    let mut harness = Harness::start(&[]);
    harness.allow(&[]);
    let authority = format!("127.0.0.1:{port}");
    assert!(harness.tunnel(&authority).unwrap_err().starts_with("HTTP/1.1 403 "));
    harness.gateway.decision("127.0.0.1", "unlisted");
    harness.allow(&[("127.0.0.1", port, &[])]);
    assert!(harness.tunnel(&authority).unwrap_err().starts_with("HTTP/1.1 403 "));
    harness.gateway.decision("127.0.0.1", "address");
    harness.allow(&[("127.0.0.1", port, LOOPBACK)]);
    let mut stream = harness.tunnel(&authority).unwrap();
    stream.write_all(b"x").unwrap();
    assert_eq!(receive(&mut stream, 1), "x");
    for spelling in ["127.1", "0x7f000001", "2130706433", "0177.0.0.1", "[::ffff:127.0.0.1]", "127.0.0.1."] {
        let answer = harness.tunnel(&format!("{spelling}:{port}")).unwrap_err();
        assert!(answer.starts_with("HTTP/1.1 40"), "{spelling}: {answer}");
    }
}

#[test]
fn tls_must_name_the_host() {
    let port = echo("");
    let mut harness = Harness::start(&[("listed.example", LOCAL)]);
    harness.allow(&[("listed.example", port, LOOPBACK)]);
    let hello = client_hello("listed.example");
    let mut stream = harness.tunnel(&format!("listed.example:{port}")).unwrap();
    stream.write_all(&hello).unwrap();
    let mut echoed = vec![0; hello.len()];
    stream.read_exact(&mut echoed).unwrap();
    assert_eq!(echoed, hello);
    for other in ["evil.example", "192.0.2.1"] {
        let mut stream = harness.tunnel(&format!("listed.example:{port}")).unwrap();
        stream.write_all(&client_hello(other)).unwrap();
        assert!(rest(&mut stream).is_empty(), "{other}");
    }
    let decision = harness.gateway.decision("listed.example", "sni");
    assert_eq!(decision["allowed"], false);
}

#[test]
fn a_server_may_speak_first() {
    let port = echo("SSH-2.0-x\r\n");
    let mut harness = Harness::start(&[("listed.example", LOCAL)]);
    harness.allow(&[("listed.example", port, LOOPBACK)]);
    let mut stream = harness.tunnel(&format!("listed.example:{port}")).unwrap();
    assert_eq!(receive(&mut stream, 11), "SSH-2.0-x\r\n");
    stream.write_all(b"hello").unwrap();
    assert_eq!(receive(&mut stream, 5), "hello");
}

#[test]
fn dns_knows_listed_names_alone_and_follows_the_policy() {
    let port = echo("");
    let mut harness = Harness::start(&[("listed.example", LOCAL), ("a.wild.example", LOCAL)]);
    assert_eq!(harness.resolve("listed.example.", RecordType::A).0, ResponseCode::NXDomain);
    harness.allow(&[("listed.example", port, LOOPBACK), ("*.wild.example", port, LOOPBACK)]);
    let address = harness.wait_for_name("listed.example.", ResponseCode::NoError).unwrap();
    assert_eq!(harness.resolve("listed.example.", RecordType::AAAA), (ResponseCode::NoError, None));
    for kind in [RecordType::A, RecordType::AAAA] {
        assert_eq!(harness.resolve("Other.example.", kind), (ResponseCode::NXDomain, None));
    }
    assert_eq!(harness.resolve("wild.example.", RecordType::A), (ResponseCode::NXDomain, None));
    let wild = harness.wait_for_name("a.wild.example.", ResponseCode::NoError).unwrap();
    let told = harness.gateway.decision("other.example", "lookup");
    assert_eq!((&told["allowed"], &told["via"], &told["port"]), (&json!(false), &json!("dns"), &json!(0)));
    assert_eq!(told.get("count"), None, "both kinds of address are one look-up");
    let local: IpAddr = "127.0.0.1".parse().unwrap();
    assert_eq!(harness.resolve("localhost.", RecordType::A), (ResponseCode::NoError, Some(local)));

    let mut streams: Vec<_> =
        [address, wild].into_iter().map(|address| connect(SocketAddr::new(address, port)).unwrap()).collect();
    for stream in &mut streams {
        stream.write_all(b"hello").unwrap();
        assert_eq!(receive(stream, 5), "hello");
    }
    assert_eq!(harness.gateway.decision("a.wild.example", "listed")["via"], "tcp");

    harness.allow(&[]);
    for stream in &mut streams {
        assert!(rest(stream).is_empty(), "a connection outlived the rule that allowed it");
    }
    harness.wait_for_name("listed.example.", ResponseCode::NXDomain);
    harness.wait_for_name("b.wild.example.", ResponseCode::NXDomain);
    assert!(connect(SocketAddr::new(address, port)).is_err());
}

#[test]
fn a_flood_of_looked_up_names_is_told_as_a_few_events_and_a_sum() {
    let mut harness = Harness::start(&[]);
    harness.allow(&[]);
    let mut asked = 0;
    for number in 0..1500 {
        // The relay answers a thousand in a second and drops more: a program asks again, and so does this.
        if number % 100 == 99 {
            thread::sleep(Duration::from_millis(120));
        }
        harness.resolve(&format!("n{number}.flood.example."), RecordType::A);
        asked += 1;
    }
    let told = |events: &[serde_json::Value]| -> u64 {
        let lookups = events.iter().filter(|event| event["reason"] == "lookup");
        lookups.map(|event| event["count"].as_u64().unwrap_or(1)).sum()
    };
    let begun = std::time::Instant::now();
    while told(&harness.gateway.events()) < asked {
        assert!(begun.elapsed() < Duration::from_secs(10), "{} of {asked}", told(&harness.gateway.events()));
        thread::sleep(Duration::from_millis(50));
    }
    let events = harness.gateway.events();
    assert_eq!(told(&events), asked);
    assert!(events.len() < 700, "{} events", events.len());
    assert!(events.iter().any(|event| event["host"] == "(other hosts)" && event["reason"] == "lookup"));
}

#[test]
fn dns_answers_over_tcp() {
    let mut harness = Harness::start(&[]);
    harness.allow(&[("listed.example", 4000, &[])]);
    harness.wait_for_name("listed.example.", ResponseCode::NoError);
    let mut stream = connect(harness.dns).unwrap();
    // RFC 1035 section 4.2.2: the length before the message, here a question for `listed.example` A.
    let message = b"\x00\x09\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x06listed\x07example\x00\x00\x01\x00\x01";
    for _ in 0..2 {
        stream.write_all(&[&[0, message.len() as u8][..], message].concat()).unwrap();
        let mut length = [0; 2];
        stream.read_exact(&mut length).unwrap();
        let mut reply = vec![0; usize::from(u16::from_be_bytes(length))];
        stream.read_exact(&mut reply).unwrap();
        assert_eq!((reply[1], reply[3] & 15, reply[7]), (9, 0, 1));
    }
    stream.write_all(&[0xff, 0xff]).unwrap();
    assert!(rest(&mut stream).is_empty());
}

#[test]
fn plain_http_is_rebuilt_and_carries_one_request() {
    let (port, requests) = http();
    let mut harness = Harness::start(&[("listed.example", LOCAL)]);
    harness.allow(&[("listed.example", port, LOOPBACK)]);
    let answer = harness.ask(&format!(
        "POST http://listed.example:{port}/path?q=1 HTTP/1.1\r\nHost: evil.example\r\nProxy-Authorization: Basic eA==\r\n\
         Connection: keep-alive, X-Hop\r\nX-Hop: 1\r\nX-Kept: 1\r\nContent-Length: 4\r\n\r\nbody\
         GET http://evil.example/ HTTP/1.1\r\nHost: evil.example\r\n\r\n"
    ));
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    assert!(answer.ends_with("\r\n\r\nok"), "{answer}");
    assert!(!answer.to_lowercase().contains("keep-alive"), "{answer}");
    let request = requests.lock().unwrap()[0].to_lowercase();
    assert!(request.starts_with("post /path?q=1 http/1.1\r\n"), "{request}");
    assert!(request.contains(&format!("host: listed.example:{port}\r\n")), "{request}");
    assert!(request.contains("x-kept: 1\r\n") && request.ends_with("\r\n\r\nbody"), "{request}");
    for absent in ["proxy-", "x-hop", "evil", "connection:"] {
        assert!(!request.contains(absent), "{absent} in {request}");
    }
    let chunked = harness.ask(&format!(
        "POST http://listed.example:{port}/ HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n\r\n"
    ));
    assert!(chunked.starts_with("HTTP/1.1 200 OK\r\n"), "{chunked}");
    assert!(requests.lock().unwrap()[1].ends_with("4\r\nbody\r\n0\r\n\r\n"));
}

#[test]
fn ambiguous_requests_are_refused_and_never_reach_the_host() {
    let (port, requests) = http();
    let mut harness = Harness::start(&[("listed.example", LOCAL)]);
    harness.allow(&[("listed.example", port, LOOPBACK)]);
    let get = format!("GET http://listed.example:{port}/ HTTP/1.1\r\n");
    for rest in [
        "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "Content-Length: 4\r\nContent-Length: 5\r\n\r\nbody",
        "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        "Host: a\r\nHost: b\r\n\r\n",
        "X: a\r\n folded\r\n\r\n",
        "X: a\nY: b\r\n\r\n",
        "X: a\rY: b\r\n\r\n",
        "X : a\r\n\r\n",
    ] {
        let answer = harness.ask(&format!("{get}{rest}"));
        assert!(answer.starts_with("HTTP/1.1 400 "), "{rest:?}: {answer}");
    }
    for head in [
        format!("GET / HTTP/1.1\r\nHost: listed.example:{port}\r\n\r\n"),
        format!("GET https://listed.example:{port}/ HTTP/1.1\r\n\r\n"),
        format!("CONNECT user@listed.example:{port} HTTP/1.1\r\n\r\n"),
        format!("CONNECT listed.example\0.evil.example:{port} HTTP/1.1\r\n\r\n"),
    ] {
        let answer = harness.ask(&head);
        assert!(answer.starts_with("HTTP/1.1 400 "), "{head:?}: {answer}");
    }
    harness.gateway.wait_for(|event| event["reason"] == "request");
    assert!(requests.lock().unwrap().is_empty());
}

#[test]
fn without_a_gateway_every_connection_fails_and_a_new_one_heals() {
    let port = echo("");
    let mut harness = Harness::start(&[("listed.example", LOCAL)]);
    harness.allow(&[("listed.example", port, LOOPBACK)]);
    let address = harness.wait_for_name("listed.example.", ResponseCode::NoError).unwrap();
    let mut stream = harness.tunnel(&format!("listed.example:{port}")).unwrap();
    harness.kill_gateway();
    assert!(rest(&mut stream).is_empty());
    assert!(harness.tunnel(&format!("listed.example:{port}")).unwrap_err().starts_with("HTTP/1.1 502 "));
    // The relay still listens, but nothing comes through.
    assert!(connect(SocketAddr::new(address, port)).map_or(true, |mut stream| rest(&mut stream).is_empty()));
    harness.restart_gateway();
    harness.wait_for_name("listed.example.", ResponseCode::NXDomain);
    assert!(harness.tunnel(&format!("listed.example:{port}")).unwrap_err().starts_with("HTTP/1.1 403 "));
    harness.allow(&[("listed.example", port, LOOPBACK)]);
    assert_eq!(harness.wait_for_name("listed.example.", ResponseCode::NoError), Some(address));
    let mut stream = harness.tunnel(&format!("listed.example:{port}")).unwrap();
    stream.write_all(b"x").unwrap();
    assert_eq!(receive(&mut stream, 1), "x");
}

#[test]
fn an_invalid_policy_allows_nothing_and_an_invalid_file_changes_nothing() {
    let port = echo("");
    let mut harness = Harness::start(&[("listed.example", LOCAL)]);
    harness.allow(&[("listed.example", port, LOOPBACK)]);
    assert!(harness.gateway.command(json!({ "secrets": [{ "name": "a", "content": "no base64!" }] })).is_some());
    assert!(harness.tunnel(&format!("listed.example:{port}")).is_ok());
    assert!(harness.gateway.command(json!({ "policy": { "allow": [{ "host": "*", "port": 443 }] } })).is_some());
    assert!(harness.tunnel(&format!("listed.example:{port}")).unwrap_err().starts_with("HTTP/1.1 403 "));
    harness.allow(&[("listed.example", port, LOOPBACK)]);
    harness.gateway.line("{ not json");
    harness.gateway.wait_for(|event| event["event"] == "acknowledged" && event["id"] == 0);
    assert!(harness.tunnel(&format!("listed.example:{port}")).is_err());
}

#[test]
fn credential_files_are_written_read_reported_and_emptied() {
    let mut harness = Harness::start(&[]);
    let files = |content: &str| json!({ "secrets": [{ "name": "api_key", "content": STANDARD.encode(content) }] });
    assert_eq!(harness.gateway.command(files("s3cret-one")), None);
    let path = harness.secrets().join("api_key");
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "s3cret-one");
    let read = harness.gateway.wait_for(|event| event["event"] == "secret_read");
    assert_eq!((&read["name"], &read["count"]), (&json!("api_key"), &json!(1)));
    let update = json!({ "update_secrets": [{ "name": "other", "content": STANDARD.encode("x") }] });
    assert_eq!(harness.gateway.command(update), None);
    thread::sleep(Duration::from_millis(1500));
    let reads = harness.gateway.events().iter().filter(|event| event["event"] == "secret_read").count();
    assert_eq!(reads, 1, "the gateway took its own work for a read");
    let refused = json!({ "secrets": [{ "name": "../escape", "content": STANDARD.encode("x") }] });
    assert!(harness.gateway.command(refused).unwrap().contains("../escape"));
    assert_eq!(harness.gateway.command(files("s3cret-two")), None);
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "s3cret-two");
    assert_eq!(harness.gateway.command(json!({ "secrets": [] })), None);
    assert!(!path.exists());
    assert!(!format!("{:?}", harness.gateway.events()).contains("s3cret"));
}

#[test]
fn the_end_of_standard_input_does_not_end_the_gateway() {
    let port = echo("");
    let mut harness = Harness::start(&[("listed.example", LOCAL)]);
    harness.allow(&[("listed.example", port, LOOPBACK)]);
    harness.gateway.close_input();
    thread::sleep(Duration::from_millis(300));
    assert!(harness.gateway.is_running());
    assert!(harness.tunnel(&format!("listed.example:{port}")).is_ok());
}

#[test]
fn the_gateway_serves_its_relays_user_alone() {
    let harness = Harness::start_for_uid(&[], Some(12345));
    // The relay finds its connection closed, or notices while it sends the header.
    let answer = harness.tunnel("listed.example:443").unwrap_err();
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 502 "), "{answer}");
    assert_eq!(harness.gateway.events().len(), 1);
}

#[test]
fn both_programs_are_small_also_after_many_connections() {
    let port = echo("");
    let mut harness = Harness::start(&[("listed.example", LOCAL)]);
    harness.allow(&[("listed.example", port, LOOPBACK)]);
    for _ in 0..10 {
        let streams: Vec<_> = (0..20).map(|_| harness.tunnel(&format!("listed.example:{port}")).unwrap()).collect();
        drop(streams);
    }
    assert!(harness.gateway.anonymous_memory() < 10 << 10, "{} KiB", harness.gateway.anonymous_memory());
    assert!(harness.relay_memory() < 10 << 10, "{} KiB", harness.relay_memory());
}
