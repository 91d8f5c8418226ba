//! A layer of a stranger's image: reading what is in it must end, and every other name of a file is one or nothing.
#![no_main]

use std::io::Write as _;

use libfuzzer_sys::fuzz_target;
use sandbox::image::inventory::{EntryKind, Inventory};
use sandbox::image::reference::Digest;
use sandbox::image::{BuiltImage, BuiltLayer};

fuzz_target!(|bytes: &[u8]| {
    let mut file = tempfile::NamedTempFile::new().expect("a temporary file");
    file.write_all(bytes).expect("room for it");
    let (diff_id, size) = (Digest::of(bytes), bytes.len() as u64);
    let layer = BuiltLayer { diff_id, size, path: file.path().to_owned() };
    // Twice, so that what hides something has something to hide.
    let image = BuiltImage::of_config("x", b"{}".to_vec(), vec![layer.clone(), layer]).expect("a manifest");
    if let Ok(inventory) = Inventory::read(&image) {
        let open = inventory.entries.values().any(|entry| matches!(entry.kind, EntryKind::HardLink(_)));
        assert!(!open, "a hard link was left as one");
        let outside = |path: &String| path.is_empty() || path.starts_with('/') || path.ends_with('/');
        assert!(!inventory.entries.keys().any(outside), "a path is not canonical");
    }
});
