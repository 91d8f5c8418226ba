use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::*;
use crate::beneath;

const LIMITS: TreeLimits = TreeLimits { bytes: 1 << 20, entries: 100, depth: 5 };

fn pieces_of(root: &Path, path: &str, limits: &TreeLimits) -> Result<(Vec<Piece>, Totals), TreeError> {
    let (sender, mut receiver) = mpsc::channel(4);
    let root = beneath::folder(root).unwrap();
    std::thread::scope(|scope| {
        let sending = scope.spawn(move || send(&root, Path::new(path), limits, Unfit::Refused, &sender));
        let mut pieces = Vec::new();
        while let Some(piece) = receiver.blocking_recv() {
            pieces.push(piece);
        }
        Ok((pieces, sending.join().unwrap()?))
    })
}

fn receiver(place: &Path, name: &str) -> Result<Receiver, TreeError> {
    Receiver::new(beneath::folder(place).unwrap(), OsStr::new(name), LIMITS, |path| {
        path.split('/').any(|name| name == ".git").then_some("is git's")
    })
}

fn received(place: &Path, pieces: Vec<Piece>) -> Result<Totals, TreeError> {
    let mut receiver = receiver(place, "it")?;
    pieces.into_iter().try_for_each(|piece| receiver.take(piece))?;
    receiver.finish(false)
}

fn file(path: &str, size: u64) -> Piece {
    Piece::Entry(Entry { path: path.to_owned(), kind: EntryKind::File { size, executable: false } })
}

fn folder(path: &str) -> Piece {
    Piece::Entry(Entry { path: path.to_owned(), kind: EntryKind::Folder })
}

fn data(text: &'static str) -> Piece {
    Piece::Data(Bytes::from_static(text.as_bytes()))
}

fn names(place: &Path) -> Vec<String> {
    let entries = fs::read_dir(place).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = entries.collect();
    names.sort();
    names
}

#[test]
fn a_tree_arrives_as_it_was_sent() {
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    fs::create_dir_all(from.path().join("top/deep/empty")).unwrap();
    fs::write(from.path().join("top/run.sh"), "#!/bin/sh\n").unwrap();
    fs::set_permissions(from.path().join("top/run.sh"), fs::Permissions::from_mode(0o6755)).unwrap();
    fs::write(from.path().join("top/deep/nothing"), "").unwrap();
    let large: Vec<u8> = (0..700_000_u32).map(|number| (number % 251) as u8).collect();
    fs::write(from.path().join("top/deep/données large"), &large).unwrap();
    let (pieces, sent) = pieces_of(from.path(), "top", &LIMITS).unwrap();
    assert_eq!(received(to.path(), pieces).unwrap(), sent);
    assert_eq!(sent, Totals { files: 3, folders: 3, bytes: 700_010 });
    assert_eq!(fs::read(to.path().join("it/deep/données large")).unwrap(), large);
    assert_eq!(fs::read(to.path().join("it/deep/nothing")).unwrap(), b"");
    assert!(to.path().join("it/deep/empty").is_dir());
    let mode = fs::metadata(to.path().join("it/run.sh")).unwrap().permissions().mode();
    assert_eq!((mode & 0o6000, mode & 0o100), (0, 0o100), "no set-user-id goes along");
    assert_eq!(names(to.path()), ["it"]);
    let (pieces, _) = pieces_of(from.path(), "top/run.sh", &LIMITS).unwrap();
    assert!(matches!(received(to.path(), pieces), Err(TreeError::Exists(_))));
}

#[test]
fn links_devices_and_pipes_are_refused_wherever_they_are() {
    let (from, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    fs::write(outside.path().join("secret"), "not yours").unwrap();
    fs::create_dir(from.path().join("top")).unwrap();
    for make in [
        &(|path: &Path| symlink(outside.path().join("secret"), path).unwrap()) as &dyn Fn(&Path),
        &|path| symlink("../top", path).unwrap(),
        &|path| symlink(outside.path(), path).unwrap(),
        &|path| assert!(std::process::Command::new("mkfifo").arg(path).status().unwrap().success()),
        &|path| drop(std::os::unix::net::UnixListener::bind(path).unwrap()),
    ] {
        make(&from.path().join("top/it"));
        for path in ["top", "top/it"] {
            assert!(pieces_of(from.path(), path, &LIMITS).is_err(), "{path}");
        }
        assert!(pieces_of(from.path(), "top/it/secret", &LIMITS).is_err());
        fs::remove_file(from.path().join("top/it")).unwrap();
    }
    assert!(pieces_of(from.path(), "top", &LIMITS).is_ok());
    for path in ["../", "..", "/etc/hostname", "top/../../x"] {
        assert!(pieces_of(from.path(), path, &LIMITS).is_err(), "{path}");
    }
    assert!(pieces_of(Path::new("/dev"), "null", &LIMITS).is_err());
}

#[test]
fn a_folder_that_is_swapped_for_a_link_in_the_middle_gives_nothing_from_outside() {
    let (from, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    for place in [from.path().join("top/a"), outside.path().to_path_buf()] {
        fs::create_dir_all(&place).unwrap();
        fs::write(place.join("x"), if place == outside.path() { "outside" } else { "insider" }).unwrap();
    }
    let ended = Arc::new(AtomicBool::new(false));
    let swapper = {
        let (ended, top, outside) = (ended.clone(), from.path().join("top"), outside.path().to_path_buf());
        std::thread::spawn(move || {
            symlink(&outside, top.join("../link")).unwrap();
            let folder = fs::File::open(&top).unwrap();
            while !ended.load(Ordering::Relaxed) {
                let parent = fs::File::open(top.join("..")).unwrap();
                let _ = rustix::fs::renameat_with(&folder, "a", &parent, "link", RenameFlags::EXCHANGE);
            }
        })
    };
    let (mut whole, mut refused) = (0, 0);
    for _ in 0..3000 {
        match pieces_of(from.path(), "top", &LIMITS) {
            Ok((pieces, _)) => {
                whole += 1;
                assert!(!pieces.contains(&data("outside")), "{pieces:?}");
            }
            Err(_) => refused += 1,
        }
    }
    ended.store(true, Ordering::Relaxed);
    swapper.join().unwrap();
    assert!(whole > 0 && refused > 0, "{whole} whole, {refused} refused: nothing was swapped");
}

#[test]
fn hostile_pieces_write_nothing_and_leave_nothing() {
    let place = tempfile::tempdir().unwrap();
    let inside = place.path().join("inside");
    fs::create_dir(&inside).unwrap();
    let long = "x".repeat(256);
    let deep = ["d"; 6].join("/");
    let cases: Vec<(&str, Vec<Piece>)> = vec![
        ("nothing", vec![]),
        ("bytes first", vec![data("x")]),
        ("no top", vec![file("a", 0)]),
        ("two tops", vec![folder(""), folder("")]),
        ("a file with children", vec![file("", 0), file("a", 0)]),
        ("parent", vec![folder(""), file("../a", 0)]),
        ("hidden parent", vec![folder(""), folder("a"), file("a/../../b", 0)]),
        ("absolute", vec![folder(""), file("/etc/cron.d/x", 0)]),
        ("this", vec![folder(""), file("./a", 0)]),
        ("empty part", vec![folder(""), file("a//b", 0)]),
        ("nul", vec![folder(""), file("a\0b", 0)]),
        ("escape", vec![folder(""), file("a\u{1b}[31mb", 0)]),
        ("line feed", vec![folder(""), file("a\nb", 0)]),
        ("reversed", vec![folder(""), file("a\u{202e}fdp.sh", 0)]),
        ("long", vec![folder(""), file(&long, 0)]),
        ("deep", vec![folder(""), folder(&deep)]),
        ("no parent", vec![folder(""), file("a/b", 0)]),
        ("twice", vec![folder(""), file("a", 0), file("a", 0)]),
        ("below a file", vec![folder(""), file("a", 0), file("a/b", 0)]),
        ("git", vec![folder(""), folder(".git")]),
        ("more than announced", vec![file("", 2), data("abc")]),
        ("less than announced", vec![file("", 4), data("abc")]),
        ("less, then another", vec![folder(""), file("a", 4), data("abc"), file("b", 0)]),
        ("bytes after the end", vec![file("", 3), data("abc"), data("d")]),
        ("announces a bomb", vec![file("", u64::MAX)]),
        ("sums to a bomb", vec![folder(""), file("a", 1), data("x"), file("b", u64::MAX)]),
        ("too many", std::iter::once(folder("")).chain((0..100).map(|number| folder(&format!("{number}")))).collect()),
    ];
    for (what, pieces) in cases {
        assert!(received(&inside, pieces).is_err(), "{what}");
        assert_eq!((names(&inside), names(place.path())), (vec![], vec!["inside".to_owned()]), "{what}");
    }
    for name in ["", ".", "..", "a/b", ".git", "a\u{1b}b"] {
        assert!(receiver(&inside, name).is_err(), "{name:?}");
    }
    // The same receiver takes what is right, so that the refusals above mean something.
    received(&inside, vec![folder(""), file("a", 3), data("abc")]).unwrap();
    assert_eq!(fs::read_to_string(inside.join("it/a")).unwrap(), "abc");
}

#[test]
fn a_repository_under_another_name_is_refused_where_it_is_asked_for() {
    let place = tempfile::tempdir().unwrap();
    for order in [["HEAD", "objects", "refs"], ["refs", "head", "OBJECTS"]] {
        for prefix in ["", "deep/"] {
            let mut pieces = vec![folder(""), folder("deep")];
            pieces.extend(order.iter().map(|name| folder(&format!("{prefix}{name}"))));
            let mut strict = receiver(place.path(), "it").unwrap().without_repositories();
            assert!(pieces.clone().into_iter().try_for_each(|piece| strict.take(piece)).is_err(), "{order:?}");
            let mut lax = receiver(place.path(), "it").unwrap();
            pieces.into_iter().try_for_each(|piece| lax.take(piece)).unwrap();
        }
    }
    let mut apart = receiver(place.path(), "it").unwrap().without_repositories();
    for piece in [folder(""), folder("refs"), folder("a"), folder("a/objects"), file("a/HEAD", 0)] {
        apart.take(piece).unwrap();
    }
    apart.finish(false).unwrap();
}

#[test]
fn what_is_sent_is_within_the_limits() {
    let from = tempfile::tempdir().unwrap();
    fs::create_dir_all(from.path().join("many")).unwrap();
    for number in 0..100 {
        fs::write(from.path().join("many").join(number.to_string()), "").unwrap();
    }
    fs::create_dir_all(from.path().join("deep/1/2/3/4/5/6")).unwrap();
    // A file of holes is as large as it says.
    fs::File::create(from.path().join("large")).unwrap().set_len(1 << 40).unwrap();
    for path in ["many", "deep", "large"] {
        assert!(matches!(pieces_of(from.path(), path, &LIMITS), Err(TreeError::Limit(_))), "{path}");
    }
}

#[test]
fn only_a_file_takes_a_files_place_and_only_by_force() {
    let place = tempfile::tempdir().unwrap();
    let put = |pieces: Vec<Piece>, force| {
        let mut receiver = receiver(place.path(), "it").unwrap();
        pieces.into_iter().try_for_each(|piece| receiver.take(piece)).unwrap();
        receiver.finish(force)
    };
    let it = place.path().join("it");
    fs::write(&it, "old").unwrap();
    assert!(matches!(put(vec![file("", 3), data("new")], false), Err(TreeError::Exists(_))));
    assert_eq!(fs::read_to_string(&it).unwrap(), "old");
    assert!(matches!(put(vec![folder("")], true), Err(TreeError::Folder(_))));
    put(vec![file("", 3), data("new")], true).unwrap();
    assert_eq!(fs::read_to_string(&it).unwrap(), "new");
    fs::remove_file(&it).unwrap();
    fs::create_dir(&it).unwrap();
    fs::write(it.join("kept"), "").unwrap();
    assert!(matches!(put(vec![file("", 3), data("new")], true), Err(TreeError::Folder(_))));
    assert!(it.join("kept").exists());
    fs::remove_dir_all(&it).unwrap();
    let outside = tempfile::NamedTempFile::new().unwrap();
    symlink(outside.path(), &it).unwrap();
    assert!(put(vec![file("", 3), data("new")], true).is_err());
    assert!(fs::symlink_metadata(&it).unwrap().is_symlink() && fs::read(outside.path()).unwrap().is_empty());
    assert_eq!(names(place.path()), ["it"]);
}
