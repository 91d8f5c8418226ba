//! A file of assignments, `.env.agent`.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sandbox::credential::env_file::parse;

fuzz_target!(|text: &[u8]| {
    match parse(text) {
        Ok(variables) => {
            for (name, _) in variables {
                let mut bytes = name.bytes();
                assert!(bytes.next().is_some_and(|first| first.is_ascii_alphabetic() || first == b'_'));
                assert!(bytes.all(|byte| byte.is_ascii_alphanumeric() || byte == b'_'));
            }
        }
        Err(line) => {
            let lines = text.iter().filter(|byte| **byte == b'\n').count() + 1;
            assert!((1..=lines).contains(&line), "line {line} of {lines}");
        }
    }
});
