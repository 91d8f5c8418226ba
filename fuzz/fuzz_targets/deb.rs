//! Debian packages. The input is a tar archive, which is made the data of a package; it is taken apart as well as if it
//! were a whole package.
#![no_main]

use std::fs::File;
use std::io::{Seek as _, Write as _};
use std::os::fd::AsRawFd as _;
use std::path::PathBuf;
use std::sync::Arc;

use libfuzzer_sys::fuzz_target;
use sandbox::image::unpack::{self, Unpacked};

/// The largest input, in bytes: more would be a search through archives that differ in nothing that matters.
const LIMIT: usize = 1 << 16;

fn member(name: &str, bytes: &[u8], archive: &mut Vec<u8>) {
    archive.extend_from_slice(
        format!("{name:<16}{:<12}{:<6}{:<6}{:<8}{:<10}`\n", 0, 0, 0, 100_644, bytes.len()).as_bytes(),
    );
    archive.extend_from_slice(bytes);
    archive.resize(archive.len().next_multiple_of(2), b'\n');
}

fn unpack(bytes: &[u8]) -> Option<Unpacked> {
    let mut package = tempfile::tempfile().expect("the temporary folder can be written");
    package.write_all(bytes).expect("the temporary folder has room");
    package.rewind().expect("a file has a beginning");
    let spill: Arc<File> = Arc::new(tempfile::tempfile().expect("the temporary folder can be written"));
    // A file without a name, so that a crash leaves none.
    let path = PathBuf::from(format!("/proc/self/fd/{}", package.as_raw_fd()));
    unpack::deb(&path, "fuzzed", &spill).ok()
}

fuzz_target!(|input: &[u8]| {
    if input.len() > LIMIT {
        return;
    }
    let mut package = b"!<arch>\n".to_vec();
    member("debian-binary", b"2.0\n", &mut package);
    member("control.tar", &[0; 1024], &mut package);
    member("data.tar", input, &mut package);
    for bytes in [&package[..], input] {
        for (path, _) in unpack(bytes).map(|unpacked| unpacked.entries).unwrap_or_default() {
            let climbs = path.split('/').any(|part| matches!(part, ".." | "."));
            assert!(!path.starts_with('/') && !climbs, "`{}` is not a path below the root", path.escape_debug());
        }
    }
});
