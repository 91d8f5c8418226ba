//! Two builds of one lock, in other folders and with another umask, give the same bytes.
//!
//! Needs the packages of the image `agent`: from the cache in `SANDBOX_TEST_CACHE`, or else from Debian's mirrors.
#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};

use sandbox::image::reference::Digest;
use sandbox::image::{self, ImageContext};
use tokio::io::AsyncReadExt as _;

async fn archive(cache: &Path) -> (Vec<Digest>, Digest) {
    let context = ImageContext {
        project_root: None,
        cache,
        apt_sources_root: Path::new("/etc/apt"),
        progress: false,
        offline: false,
    };
    let locked = image::locked("agent", None).unwrap();
    let built = image::ensure_archive(&locked, &context).await.unwrap();
    assert_eq!(built.config_digest, locked.config_digest);
    assert_eq!(built.manifest_digest, locked.manifest_digest);
    let mut bytes = Vec::new();
    built.archive().unwrap().read_to_end(&mut bytes).await.unwrap();
    // What travels is what was promised: each layer in the archive has its diff_id as digest.
    let mut layers = Vec::new();
    let mut entries = tar::Archive::new(&bytes[..]);
    for entry in entries.entries().unwrap() {
        let mut entry = entry.unwrap();
        let path = entry.path().unwrap().display().to_string();
        let mut content = Vec::new();
        std::io::Read::read_to_end(&mut entry, &mut content).unwrap();
        if let Some(hex) = path.strip_prefix("blobs/sha256/") {
            assert_eq!(Digest::of(&content).hex(), hex);
            layers.push(Digest::of(&content));
        }
    }
    (layers, Digest::of(&bytes))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_lock_gives_the_same_archive_in_any_folder_and_under_any_umask() {
    let shared = std::env::var_os("SANDBOX_TEST_CACHE").map(PathBuf::from);
    let (first, second) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let second_cache = second.path().join("a longer name").join("cache");
    std::fs::create_dir_all(&second_cache).unwrap();
    if let Some(shared) = shared {
        std::os::unix::fs::symlink(shared.join("blobs"), first.path().join("blobs")).unwrap();
    }
    let one = archive(first.path()).await;
    std::os::unix::fs::symlink(first.path().join("blobs"), second_cache.join("blobs")).unwrap();
    let mask = rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    let two = archive(&second_cache).await;
    rustix::process::umask(mask);
    assert_eq!(one.0.len(), 4, "two layers, configuration and manifest");
    assert_eq!(one, two);
}
