//! A mirror's `InRelease`: everything before the signature is verified is a stranger's. Of all texts, this keyring's key
//! signed one.
#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use sandbox::image::release::{self, Expected, Keyring};

const SIGNED: &str = include_str!("../../src/image/testdata/InRelease");
const KEYRING: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../src/image/testdata/good.gpg");
/// A moment at which the signed text holds, in Unix seconds.
const NOW: u64 = 1_747_500_000;

fuzz_target!(|text: &str| {
    let components = ["main".to_owned()];
    let expected = Expected {
        name: "bookworm",
        suite: "bookworm",
        components: &components,
        architecture: "amd64",
        now: NOW,
        allow_expired: false,
    };
    let verified = |text| release::verify(&expected, text, &Keyring::File(Path::new(KEYRING)));
    if let Ok(release) = verified(text) {
        let signed = verified(SIGNED).expect("the signed text is accepted");
        let same = (release.date, &release.indexes) == (signed.date, &signed.indexes);
        assert!(same, "a text that was not signed is accepted");
    }
});
