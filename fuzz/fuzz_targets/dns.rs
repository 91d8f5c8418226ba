//! DNS questions of the agent.
#![no_main]

use std::net::Ipv4Addr;

use libfuzzer_sys::fuzz_target;
use sandbox::gateway::dns::{Found, QUESTION_LIMIT, answer};

fuzz_target!(|message: &[u8]| {
    for found in [Found::Address(Ipv4Addr::new(127, 100, 0, 1)), Found::Unlisted, Found::Exhausted] {
        let (mut asked, mut told) = (0, 0);
        let lookup = |name: &sandbox::network::name::HostName| {
            asked += 1;
            assert!(!name.as_str().ends_with('.'), "a name is not canonical");
            found
        };
        let reply = answer(message, lookup, |_, _| told += 1);
        assert!(told <= 1, "one question is told of once");
        let Some(reply) = reply else {
            assert_eq!(asked, 0, "a name was looked up and nothing said");
            continue;
        };
        assert!(message.len() <= QUESTION_LIMIT && message[2] & 0x80 == 0, "a response was answered");
        assert!(reply.len() >= 12 && reply[2] & 0x80 != 0, "an answer is not marked as one");
        assert_eq!(reply[..2], message[..2], "the identifier is another one");
        assert!(reply.len() <= 2 * QUESTION_LIMIT, "an answer is larger than any question");
        let answers = u16::from_be_bytes([reply[6], reply[7]]);
        assert!(answers <= 1);
        if asked == 1 && !matches!(found, Found::Address(_)) {
            assert_eq!(answers, 0, "a name that is not listed has an address");
        }
    }
});
