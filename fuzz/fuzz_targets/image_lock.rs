//! A repository's `images/NAME/image.lock`.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sandbox::image::lock::Lock;

fuzz_target!(|text: &str| {
    let Ok(lock) = Lock::parse("fuzzed", text) else { return };
    let written = lock.text().expect("a lock that was read can be written");
    let again = Lock::parse("fuzzed", &written).expect("a lock that was written can be read");
    assert_eq!(lock.digest().ok(), again.digest().ok());
});
