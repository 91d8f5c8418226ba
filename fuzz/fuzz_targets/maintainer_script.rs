//! Calls of `update-alternatives` in a package's script, and the links that are made of them.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sandbox::image::alternatives;
use sandbox::image::tree::{Kind, Tree};

fuzz_target!(|script: &str| {
    let Ok(calls) = alternatives::calls("fuzzed", script) else { return };
    let mut tree = Tree::default();
    // Only what is there is offered.
    for path in ["usr/bin/a", "usr/bin/b", "usr/lib/x/a"] {
        tree.write(path, "", 0o755);
    }
    alternatives::install(&mut tree, calls).expect("what was just written can be read");
    for (path, entry) in tree.below("") {
        let climbs = path.split('/').any(|part| matches!(part, ".." | "." | ""));
        assert!(!climbs, "`{}` is not a path below the root", path.escape_debug());
        if let Kind::Symlink(target) = &entry.kind {
            assert!(target.starts_with('/'), "`{}` leads to `{}`", path.escape_debug(), target.escape_debug());
        }
    }
});
