//! Tarballs of npm's: their paths stay below the package's own folder.
#![no_main]

use std::io::{Seek as _, Write as _};
use std::os::fd::AsRawFd as _;
use std::path::PathBuf;
use std::sync::Arc;

use libfuzzer_sys::fuzz_target;
use sandbox::image::unpack;

fuzz_target!(|tarball: &[u8]| {
    let mut file = tempfile::tempfile().expect("the temporary folder can be written");
    // A gzip member of one stored block (RFC 1952, RFC 1951 section 3.2.4), so that the input is the tar archive itself.
    // The checksum at its end is wrong, and is read after the archive.
    let Ok(length) = u16::try_from(tarball.len()) else { return };
    let header = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255, 1];
    let parts = [&header[..], &length.to_le_bytes(), &(!length).to_le_bytes(), tarball, &[0; 8]];
    file.write_all(&parts.concat()).expect("the temporary folder has room");
    file.rewind().expect("a file has a beginning");
    let spill = Arc::new(tempfile::tempfile().expect("the temporary folder can be written"));
    let path = PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()));
    let prefix = "usr/local/lib/node_modules/fuzzed";
    for (path, entry) in unpack::npm(&path, prefix, "fuzzed", &spill).unwrap_or_default() {
        let rest = path.strip_prefix(prefix).and_then(|rest| rest.strip_prefix('/'));
        let inside = rest.is_some_and(|rest| rest.split('/').all(|part| !matches!(part, ".." | ".")));
        assert!(inside, "`{}` leaves its folder", path.escape_debug());
        assert_eq!((entry.uid, entry.gid), (0, 0));
    }
});
