//! The first bytes of a TLS connection of the agent's.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sandbox::gateway::hello::{ClientHello, HELLO_LIMIT, parse_client_hello};

fuzz_target!(|bytes: &[u8]| {
    let whole = parse_client_hello(bytes);
    match &whole {
        ClientHello::Complete(name) => assert!(name.as_ref().is_none_or(|name| name.len() <= 255)),
        ClientHello::Incomplete => assert!(bytes.len() < HELLO_LIMIT, "more is waited for than is read"),
        ClientHello::Invalid => {}
    }
    // Bytes come in pieces: what was decided on fewer of them cannot be decided otherwise on more.
    let half = parse_client_hello(&bytes[..bytes.len() / 2]);
    if let (ClientHello::Complete(before), ClientHello::Complete(after)) = (&half, &whole) {
        assert_eq!(before, after);
    }
    assert!(half != ClientHello::Invalid || !matches!(whole, ClientHello::Complete(_)), "a refusal was taken back");
});
