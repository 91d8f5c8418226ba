//! A mirror's `InRelease`: everything before the signature is verified is a stranger's. Of all texts, this keyring's key
//! signed one.
#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use sandbox::image::release;

const SIGNED: &str = include_str!("../../src/image/testdata/InRelease");
const KEYRING: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../src/image/testdata/good.gpg");
/// A moment at which the signed text holds, in Unix seconds.
const NOW: u64 = 1_747_500_000;

fuzz_target!(|text: &str| {
    let verified = |text| release::verify("bookworm", text, Path::new(KEYRING), "amd64", NOW);
    if let Ok(release) = verified(text) {
        let signed = verified(SIGNED).expect("the signed text is accepted");
        let facts = |release: &release::Release| (release.date, release.packages.clone(), release.packages_size);
        assert_eq!(facts(&release), facts(&signed), "a text that was not signed is accepted");
    }
});
