//! A project's Dockerfile, of which the lint names places and lines.
#![no_main]

use std::collections::BTreeSet;

use libfuzzer_sys::fuzz_target;
use sandbox::image::dockerfile::findings;

fuzz_target!(|text: &str| {
    let Ok(found) = findings(text, &BTreeSet::from(["agent".to_owned()])) else { return };
    for finding in found {
        assert!(text.get(finding.span.clone()).is_some(), "{finding:?} is not a place in the text");
        assert!(finding.line <= text.matches('\n').count() + 1 && finding.column > 0, "{finding:?}");
    }
});
