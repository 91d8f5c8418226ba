//! A project's `pylock.toml`: what is taken of it has a digest, and comes over https.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sandbox::image::pylock::{Interpreter, normal, read};

fuzz_target!(|text: &str| {
    let python = Interpreter { version: "3.11.2".parse().expect("this is a version"), glibc: 36, machine: "x86_64" };
    let Ok(wheels) = read(text, &[], &python) else { return };
    for wheel in wheels {
        assert!(wheel.url.starts_with("https://") && wheel.file.ends_with(".whl"), "{wheel:?}");
        assert_eq!(wheel.package, normal(&wheel.package));
    }
});
