//! Wheels of PyPI. The input is an archive; whatever is in it, what comes out is below the environment.
#![no_main]

use std::io::{Seek as _, Write as _};
use std::os::fd::AsRawFd as _;
use std::path::PathBuf;
use std::sync::Arc;

use libfuzzer_sys::fuzz_target;
use sandbox::image::lock::PypiWheel;
use sandbox::image::pylock::Interpreter;
use sandbox::image::reference::Digest;
use sandbox::image::wheel::{Environment, unpack};

fuzz_target!(|bytes: &[u8]| {
    let mut file = tempfile::tempfile().expect("the temporary folder can be written");
    file.write_all(bytes).expect("the temporary folder has room");
    file.rewind().expect("a file has a beginning");
    let wheel = PypiWheel {
        package: "some-tool".into(),
        version: "1.0".into(),
        file: "some_tool-1.0-py3-none-any.whl".into(),
        url: "https://registry.example/some_tool-1.0-py3-none-any.whl".into(),
        sha256: Digest::of(bytes),
        size: bytes.len() as u64,
    };
    let python = Interpreter { version: "3.11.2".parse().expect("this is a version"), glibc: 36, machine: "x86_64" };
    let environment = Environment::new("fuzzed", python);
    let spill = Arc::new(tempfile::tempfile().expect("the temporary folder can be written"));
    // A file without a name, so that a crash leaves none.
    let path = PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()));
    for (path, _) in unpack(&path, &wheel, &environment, &spill).unwrap_or_default() {
        let climbs = path.split('/').any(|part| matches!(part, ".." | "." | ""));
        let inside = path.strip_prefix(&environment.prefix).is_some_and(|rest| rest.starts_with('/'));
        assert!(inside && !climbs, "`{}` is not a path below the environment", path.escape_debug());
    }
});
