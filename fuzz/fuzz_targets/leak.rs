//! Requests' bodies in which the session's credentials are looked for: a value is found however its bytes come, and nothing
//! that says it is packed stops the gateway.
#![no_main]

use std::sync::Arc;

use libfuzzer_sys::fuzz_target;
use sandbox::credential::secret::Secret;
use sandbox::gateway::leak::scan::{BodyScanner, Scanner};
use sandbox::gateway::leak::{Leaks, Watch};
use sandbox::gateway::protocol::Brokered;
use sandbox::network::placement::Placement;

const VALUE: &[u8] = b"ghs_f0/E+canary~5b0e7f1c%41\\u0041";

fn watch() -> Arc<Watch> {
    let leaks = Leaks::default();
    leaks.hold_brokered(&[Brokered {
        name: "key".to_owned(),
        host: "own.example".parse().expect("a name"),
        placement: Placement::Bearer,
        value: Secret::new(VALUE.to_vec()),
    }]);
    leaks.watch().expect("there is something to look for")
}

/// Whether the value is found in these bytes, when they come in parts of this size.
fn found(watch: &Arc<Watch>, bytes: &[u8], part: usize, encoding: &str) -> bool {
    let scanner = Scanner::new(watch.clone(), vec![false].into(), "body");
    let Ok(mut scanner) = BodyScanner::new(scanner, encoding) else { return true };
    let mut held = 0;
    for part in bytes.chunks(part) {
        if scanner.push(part).is_err() {
            return true;
        }
        held += part.len();
        let undecided = scanner.undecided(held);
        assert!(undecided <= held, "more is held back than came");
        held = undecided;
    }
    scanner.end().is_err()
}

fuzz_target!(|input: (u8, u8, Vec<u8>, Vec<u8>)| {
    let (part, encoding, before, after) = input;
    let watch = watch();
    let part = usize::from(part).max(1);
    let whole = [&before[..], VALUE, &after].concat();
    // An escape that begins before the value may take its first byte in: only one reading has to find it.
    assert!(found(&watch, &whole, part, ""), "a value was not found");
    assert_eq!(found(&watch, &before, part, ""), found(&watch, &before, before.len().max(1), ""));
    let encoding = ["gzip", "deflate", "zstd", "br"][usize::from(encoding % 4)];
    found(&watch, &before, part, encoding);
});
