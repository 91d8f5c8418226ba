//! The head of an HTTP request of the agent's: two parsers that read it differently would be a way around the list.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sandbox::gateway::request::{Target, parse_request_head};

fuzz_target!(|bytes: &[u8]| {
    let Ok(Some(head)) = parse_request_head(bytes) else { return };
    assert!(head.length <= bytes.len());
    let text = &bytes[..head.length];
    assert!(text.ends_with(b"\r\n\r\n"));
    assert_eq!(text.windows(4).filter(|window| window == b"\r\n\r\n").count(), 1, "the head goes beyond its end");
    assert!(text.starts_with(head.method.as_bytes()));
    assert_eq!(head.method == "CONNECT", matches!(head.target, Target::Authority(..)));
    // What follows the head, and that the head comes in pieces, changes nothing.
    assert_eq!(parse_request_head(text).ok().flatten().as_ref(), Some(&head));
    assert_eq!(parse_request_head(&text[..text.len() - 1]).ok(), Some(None));
});
