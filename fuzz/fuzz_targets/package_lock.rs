//! A project's `package-lock.json`: what is taken of it has a place below `node_modules`, a digest and a safe address.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sandbox::image::package_lock;

fuzz_target!(|text: &str| {
    for architecture in ["amd64", "arm64"] {
        for tarball in package_lock::read(text, &[], architecture).unwrap_or_default() {
            assert!(tarball.place.starts_with("node_modules/"), "{}", tarball.place);
            let mut parts = tarball.place.split('/');
            assert!(!parts.any(|part| matches!(part, "" | "." | "..")), "{}", tarball.place);
            assert!(tarball.url.starts_with("https://"), "{}", tarball.url);
            assert!(tarball.integrity.starts_with("sha512-"), "{}", tarball.integrity);
        }
    }
});
