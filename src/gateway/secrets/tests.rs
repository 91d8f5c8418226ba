use std::os::unix::fs::MetadataExt as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::*;
use crate::credential::secret::Secret;

fn secret(name: &str, content: &str) -> SecretFile {
    SecretFile { name: name.to_owned(), content: Secret::new(content.as_bytes().to_vec()) }
}

fn folder() -> (tempfile::TempDir, SecretFolder) {
    let root = tempfile::tempdir().unwrap();
    let folder = SecretFolder::open(root.path()).unwrap();
    (root, folder)
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().mode() & 0o777
}

#[test]
fn files_are_links_into_the_current_set_with_narrow_modes() {
    let (root, mut folder) = folder();
    folder.replace(&[secret("api_key", "one"), secret("gh.json", "{}")]).unwrap();
    let path = root.path().join("api_key");
    assert_eq!(fs::read_to_string(&path).unwrap(), "one");
    assert_eq!(fs::read_link(&path).unwrap(), Path::new("..data/api_key"));
    assert_eq!(mode(&path), 0o440);
    assert_eq!(mode(&folder.current().unwrap()), 0o750);
}

#[test]
fn a_new_set_replaces_all_files_and_the_one_before_last_is_gone() {
    let (root, mut folder) = folder();
    for (name, content) in [("a", "1"), ("b", "2"), ("b", "3")] {
        folder.replace(&[secret(name, content)]).unwrap();
    }
    assert!(!root.path().join("a").exists());
    assert_eq!(fs::read_to_string(root.path().join("b")).unwrap(), "3");
    let sets = list(&folder.root).unwrap().into_iter().filter(|name| name.starts_with(SET)).count();
    assert_eq!(sets, 2);
}

#[test]
fn an_empty_list_leaves_no_byte_of_any_set() {
    let (root, mut folder) = folder();
    folder.replace(&[secret("a", "1")]).unwrap();
    folder.replace(&[secret("a", "2")]).unwrap();
    folder.replace(&[]).unwrap();
    assert!(!root.path().join("a").exists());
    let sets: Vec<_> = list(&folder.root).unwrap().into_iter().filter(|name| name.starts_with(SET)).collect();
    assert_eq!(sets.len(), 1);
    assert_eq!(fs::read_dir(folder.current().unwrap()).unwrap().count(), 0);
}

#[test]
fn a_gateway_that_starts_again_goes_on_with_what_is_there() {
    let (root, mut folder) = folder();
    folder.replace(&[secret("a", "1")]).unwrap();
    let mut next = SecretFolder::open(root.path()).unwrap();
    assert_eq!(next.current(), folder.current());
    next.replace(&[secret("a", "2")]).unwrap();
    assert_eq!(fs::read_to_string(root.path().join("a")).unwrap(), "2");
}

#[test]
fn refuses_names_that_are_not_one_plain_component_and_keeps_the_set() {
    let (root, mut folder) = folder();
    folder.replace(&[secret("a", "1")]).unwrap();
    for name in ["", ".", "..", ".hidden", "..data", "a/b", "../a", "a\0b", "a b", "a\n", &"x".repeat(65)] {
        assert!(matches!(folder.replace(&[secret(name, "2")]), Err(SecretsError::Name(_))), "{name:?}");
    }
    assert!(matches!(folder.replace(&[secret("b", "2"), secret("b", "3")]), Err(SecretsError::Twice(_))));
    assert_eq!(fs::read_to_string(root.path().join("a")).unwrap(), "1");
    assert!(!root.path().join("b").exists());
}

/// 60,000 reads by path while the set is replaced 30 times: none may fail, and none may see another content than that
/// of a whole set.
#[test]
fn no_read_fails_while_the_files_are_rotated() {
    let (root, mut folder) = folder();
    folder.replace(&[secret("token", &"0".repeat(4096))]).unwrap();
    let (stop, reads, failures) =
        (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let readers: Vec<_> = (0..2)
        .map(|_| {
            let (path, stop) = (root.path().join("token"), stop.clone());
            let (reads, failures) = (reads.clone(), failures.clone());
            std::thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    let whole = fs::read(&path)
                        .is_ok_and(|content| content.len() == 4096 && content.iter().all(|byte| *byte == content[0]));
                    failures.fetch_add(u64::from(!whole), Ordering::Relaxed);
                    reads.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    for rotation in 1..=30_u64 {
        while reads.load(Ordering::Relaxed) < rotation * 2000 {
            std::thread::yield_now();
        }
        folder.replace(&[secret("token", &(rotation % 10).to_string().repeat(4096))]).unwrap();
    }
    stop.store(true, Ordering::Relaxed);
    for reader in readers {
        reader.join().unwrap();
    }
    assert!(reads.load(Ordering::Relaxed) >= 60_000);
    assert_eq!(failures.load(Ordering::Relaxed), 0);
}

#[test]
fn an_update_keeps_the_other_files_and_a_removal_leaves_no_copy() {
    let (root, mut folder) = folder();
    folder.replace(&[secret("a", "1"), secret("b", "2")]).unwrap();
    folder.update(&[secret("b", "3"), secret("c", "4")]).unwrap();
    let read = |name: &str| fs::read_to_string(root.path().join(name)).unwrap();
    assert_eq!((read("a"), read("b"), read("c")), ("1".to_owned(), "3".to_owned(), "4".to_owned()));
    folder.remove(&["b".to_owned()]).unwrap();
    assert_eq!((read("a"), read("c")), ("1".to_owned(), "4".to_owned()));
    assert!(!root.path().join("b").exists());
    let sets = fs::read_dir(root.path()).unwrap().filter(|entry| entry.as_ref().unwrap().file_type().unwrap().is_dir());
    assert_eq!(sets.count(), 1, "an older set still holds what was removed");
}
