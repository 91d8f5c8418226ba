//! Paths of the agent's requests, and rules of a manifest: what is allowed has one meaning, and it is the rule's.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sandbox::network::request::{RequestPath, RequestRule};

fuzz_target!(|text: &str| {
    let (rule, path) = text.split_once('\n').unwrap_or(("GET /**", text));
    let parsed = path.parse::<RequestPath>();
    if let Ok(path) = &parsed {
        let text = path.as_str();
        assert_eq!(text.parse::<RequestPath>().as_ref(), Ok(path), "the canonical form has another one");
        assert!(text.starts_with('/') && text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'\\'));
        // However often and in whatever order a server decodes, it finds no way up and no other segments.
        let once = text.replace("%2F", "/").replace("%2E", ".").replace("%3B", ";");
        let mut segments = once.split('/').skip(1).peekable();
        while let Some(segment) = segments.next() {
            let name = segment.split(';').next().unwrap_or_default();
            assert!(name != "." && name != "..", "{text} leads up");
            assert!(!segment.is_empty() || segments.peek().is_none(), "{text} has an empty segment");
        }
        let plain = format!("POST {text}").parse::<RequestRule>();
        if !text.contains('*')
            && let Ok(plain) = plain
        {
            assert!(plain.allows("POST", false, path), "a rule does not allow its own path {text}");
            assert!(!plain.allows("DELETE", false, path) && !plain.allows("POST", true, path));
        }
    }
    let Ok(rule) = rule.parse::<RequestRule>() else { return };
    assert_eq!(rule.to_string().parse::<RequestRule>().as_ref(), Ok(&rule));
    if let Ok(path) = &parsed {
        for method in ["GET", "POST", "CONNECT", "TRACE"] {
            let allowed = rule.allows(method, false, path);
            assert!(!allowed || !matches!(method, "CONNECT" | "TRACE"), "{rule} allows {method}");
        }
    }
});
