use std::sync::Arc;

use proptest::prelude::*;
use rustls::{ClientConfig, ClientConnection, RootCertStore};

use super::*;

/// The bytes that a real client sends first.
fn hello(name: &str) -> Vec<u8> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth();
    let mut client = ClientConnection::new(Arc::new(config), name.to_owned().try_into().unwrap()).unwrap();
    let mut bytes = Vec::new();
    client.write_tls(&mut bytes).unwrap();
    bytes
}

#[test]
fn reads_the_server_name_once_all_bytes_are_there() {
    let bytes = hello("api.example.com");
    for end in 0..bytes.len() {
        assert_eq!(parse_client_hello(&bytes[..end]), ClientHello::Incomplete, "{end}");
    }
    let complete = ClientHello::Complete(Some("api.example.com".to_owned()));
    assert_eq!(parse_client_hello(&bytes), complete);
    assert_eq!(parse_client_hello(&[bytes, vec![0x17, 3, 3]].concat()), complete);
}

#[test]
fn reads_a_hello_that_is_split_over_many_records() {
    let bytes = hello("api.example.com");
    // A record is type, version and length; each byte of the handshake message travels in a record of its own.
    let split: Vec<u8> = bytes[5..].iter().flat_map(|byte| [0x16, 3, 1, 0, 1, *byte]).collect();
    assert!(split.len() < HELLO_LIMIT);
    assert_eq!(parse_client_hello(&split), ClientHello::Complete(Some("api.example.com".to_owned())));
}

#[test]
fn a_client_of_an_address_sends_no_name() {
    assert_eq!(parse_client_hello(&hello("192.0.2.1")), ClientHello::Complete(None));
}

#[test]
fn refuses_what_is_not_tls_or_too_long() {
    assert_eq!(parse_client_hello(b"GET / HTTP/1.1\r\n\r\n"), ClientHello::Invalid);
    assert_eq!(parse_client_hello(b"SSH-2.0-x\r\n"), ClientHello::Invalid);
    let mut long = vec![0x16, 3, 1, 0x40, 0, 1, 0, 0xff, 0xff];
    assert_eq!(parse_client_hello(&long), ClientHello::Incomplete);
    long.resize(HELLO_LIMIT + 1, 0);
    assert_eq!(parse_client_hello(&long), ClientHello::Invalid);
}

#[test]
fn the_server_name_must_be_the_host() {
    let name: Host = "api.example.com".parse().unwrap();
    let address: Host = "192.0.2.1".parse().unwrap();
    assert!(names_host(Some("API.example.com"), &name));
    for other in [Some("example.com"), Some("evil.example"), Some("api.example.com\0.evil.example"), Some(""), None] {
        assert!(!names_host(other, &name), "{other:?}");
    }
    assert!(names_host(None, &address));
    assert!(!names_host(Some("evil.example"), &address));
}

proptest! {
    #[test]
    fn never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let _ = parse_client_hello(&bytes);
        let _ = parse_client_hello(&[vec![0x16, 3, 1, 1, 0x2c], bytes].concat());
    }

    #[test]
    fn a_changed_byte_never_panics(index in 0..200_usize, value in any::<u8>()) {
        let mut bytes = hello("api.example.com");
        let index = index % bytes.len();
        bytes[index] = value;
        let _ = parse_client_hello(&bytes);
    }
}
