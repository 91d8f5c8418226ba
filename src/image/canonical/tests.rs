//! Layers that differ in form alone become one, and those that differ in what they show do not.

use super::super::reference::Digest;
use super::*;

/// An entry of a layer: path, what it is, mode, owner, time.
type Item<'a> = (&'a str, &'a str, u32, u64, u64);

/// `/` is a folder, `->` a symbolic link, `=>` another name, `|` a pipe; all else a file and its text.
fn tar(items: &[Item<'_>]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (path, text, mode, owner, time) in items {
        let mut header = tar::Header::new_gnu();
        header.set_mode(*mode);
        header.set_uid(*owner);
        header.set_gid(*owner);
        header.set_mtime(*time);
        header.set_username("somebody").unwrap();
        header.set_size(0);
        if let Some(target) = text.strip_prefix("->") {
            header.set_entry_type(tar::EntryType::Symlink);
            builder.append_link(&mut header, path, target).unwrap();
        } else if let Some(target) = text.strip_prefix("=>") {
            header.set_entry_type(tar::EntryType::Link);
            builder.append_link(&mut header, path, target).unwrap();
        } else if *text == "/" || *text == "|" {
            let kind = if *text == "/" { tar::EntryType::Directory } else { tar::EntryType::Fifo };
            header.set_entry_type(kind);
            builder.append_data(&mut header, path, std::io::empty()).unwrap();
        } else {
            header.set_size(text.len() as u64);
            builder.append_data(&mut header, path, text.as_bytes()).unwrap();
        }
    }
    builder.into_inner().unwrap()
}

fn section(bytes: &[u8]) -> Section {
    let mut file = tempfile::tempfile().unwrap();
    std::io::Write::write_all(&mut file, bytes).unwrap();
    Section::new(Arc::new(file), 0, bytes.len() as u64)
}

const EPOCH: u64 = 1_000_000_000;
const BASE: &[Item<'_>] = &[
    ("etc/", "/", 0o755, 0, 5),
    ("etc/passwd", "root", 0o644, 0, 5),
    ("home/", "/", 0o755, 0, 5),
    ("home/agent/", "/", 0o755, 1000, 5),
    ("opt/", "/", 0o755, 0, 5),
    ("opt/a/", "/", 0o755, 0, 5),
    ("opt/a/one", "1", 0o644, 0, 5),
    ("opt/a/two", "2", 0o644, 0, 5),
    ("opt/b", "b", 0o644, 0, 5),
];

/// The entries of the canonical layer above [`BASE`], as `path kind`, and its digest.
fn made(layers: &[&[Item<'_>]]) -> Result<(Vec<String>, Option<Digest>), ImageError> {
    let folder = tempfile::tempdir().unwrap();
    let bytes = tar(BASE);
    let path = folder.path().join("base.tar");
    std::fs::write(&path, &bytes).unwrap();
    let base = BuiltLayer { diff_id: Digest::of(&bytes), size: bytes.len() as u64, path };
    let above = layers.iter().map(|items| section(&tar(items))).collect();
    let Some(layer) = layer(&[base], above, EPOCH, folder.path())? else { return Ok((Vec::new(), None)) };
    let bytes = std::fs::read(&layer.path).unwrap();
    assert_eq!((Digest::of(&bytes), bytes.len() as u64), (layer.diff_id.clone(), layer.size));
    let mut found = Vec::new();
    for entry in tar::Archive::new(&bytes[..]).entries().unwrap() {
        let mut entry = entry.unwrap();
        let mut text = String::new();
        entry.read_to_string(&mut text).unwrap();
        let header = entry.header();
        assert!(header.mtime().unwrap() <= EPOCH && header.username().unwrap().unwrap_or_default().is_empty());
        let link = entry.link_name().unwrap().map(|target| format!("->{}", target.display())).unwrap_or_default();
        let (mode, owner) = (header.mode().unwrap(), header.uid().unwrap());
        found.push(format!("{} {mode:o} {owner} {text}{link}", entry.path().unwrap().display()));
    }
    Ok((found, Some(layer.diff_id)))
}

#[test]
fn a_second_name_is_a_file_of_its_own_whether_or_not_the_first_comes_again() {
    let copied: &[Item<'_>] = &[("opt/new/", "/", 0o755, 0, 5), ("opt/new/one", "1", 0o644, 7, 5)];
    // So a graph driver writes `ln one a; ln one b`, by the order of names or by that of the folder, and so does the other
    // store.
    let by_name: &[Item<'_>] = &[
        ("opt/new/", "/", 0o755, 0, 9),
        ("opt/new/a", "1", 0o644, 7, 5),
        ("opt/new/b", "=>opt/new/a", 0o644, 7, 5),
        ("opt/new/one", "=>opt/new/a", 0o644, 7, 5),
    ];
    let by_folder: &[Item<'_>] = &[
        ("opt/new/one", "1", 0o644, 7, 5),
        ("opt/new/a", "=>opt/new/one", 0o644, 7, 5),
        ("opt/new/b", "=>opt/new/one", 0o644, 7, 5),
    ];
    let other: &[Item<'_>] = &[("opt/new/a", "1", 0o644, 7, 5), ("opt/new/b", "=>opt/new/a", 0o644, 7, 5)];
    let (entries, digest) = made(&[copied, by_name]).unwrap();
    assert_eq!(entries, ["opt/new/ 755 0 ", "opt/new/a 644 7 1", "opt/new/one 644 7 1", "opt/new/b 644 7 ->opt/new/a"]);
    assert_eq!(made(&[copied, by_folder]).unwrap(), (entries.clone(), digest.clone()));
    assert_eq!(made(&[copied, other]).unwrap(), (entries, digest));
}

#[test]
fn two_builders_ways_to_write_the_same_files_give_one_digest() {
    // One writes parents, opaque folders, and each step by itself; the other what changed alone, in another order.
    let first: &[&[Item<'_>]] = &[
        &[
            ("opt/", "/", 0o755, 0, 2_000_000_000),
            ("opt/new/", "/", 0o755, 0, 2_000_000_000),
            ("opt/new/.wh..wh..opq", "", 0, 0, 1_999_999_999),
            ("opt/new/x", "draft", 0o644, 0, 2_000_000_000),
            ("opt/new/y", "=>opt/new/x", 0o644, 0, 2_000_000_000),
            ("tmp/", "/", 0o1777, 0, 2_000_000_000),
            ("tmp/left", "x", 0o600, 0, 2_000_000_000),
        ],
        &[
            ("opt/a/", "/", 0o755, 0, 2_000_000_001),
            ("opt/a/.wh.one", "", 0, 0, 2_000_000_001),
            ("opt/new/x", "text", 0o644, 0, 2_000_000_001),
            ("opt/new/y", "=>opt/new/x", 0o644, 0, 2_000_000_001),
            ("opt/b", "b", 0o644, 0, 2_000_000_001),
        ],
    ];
    let second: &[&[Item<'_>]] = &[&[
        ("tmp", "/", 0o1777, 0, 2_100_000_000),
        ("opt/new", "/", 0o755, 0, 2_100_000_000),
        ("opt/new/y", "text", 0o644, 0, 2_100_000_000),
        ("opt/new/x", "=>opt/new/y", 0o644, 0, 2_100_000_000),
        ("opt/a/.wh.one", "", 0o600, 0, 2_100_000_000),
    ]];
    let (entries, digest) = made(first).unwrap();
    let expected = [
        "opt/a/.wh.one 0 0 ",
        "opt/new/ 755 0 ",
        "opt/new/x 644 0 text",
        "tmp/ 1777 0 ",
        "opt/new/y 644 0 ->opt/new/x",
    ];
    assert_eq!(entries, expected);
    assert_eq!(made(second).unwrap(), (entries, digest));
}

#[test]
fn what_differs_in_what_it_shows_stays_different() {
    let with = |item: Item<'_>| made(&[&[item]]).unwrap().1.unwrap();
    let plain = with(("opt/c", "x", 0o644, 0, 7));
    let others = [
        with(("opt/c", "y", 0o644, 0, 7)),
        with(("opt/c", "x", 0o4755, 0, 7)),
        with(("opt/c", "x", 0o644, 1, 7)),
        with(("opt/c", "->x", 0o644, 0, 7)),
        with(("opt/c", "x", 0o644, 0, 8)),
        with(("opt/d", "x", 0o644, 0, 7)),
        with(("opt/b", "c", 0o644, 0, 5)),
        with(("home/agent/", "/", 0o700, 1000, 5)),
    ];
    assert!(!others.contains(&plain));
    assert_eq!(others.iter().collect::<BTreeSet<_>>().len(), others.len());
}

#[test]
fn what_a_build_leaves_behind_changes_nothing() {
    let traces: &[Item<'_>] = &[
        ("etc/hosts", "127.0.0.1 x", 0o644, 0, EPOCH),
        ("etc/resolv.conf", "nameserver 1.1.1.1", 0o644, 0, EPOCH),
        ("etc/shadow-", "old", 0o600, 0, EPOCH),
        ("etc/ssh/ssh_host_rsa_key", "key", 0o600, 0, EPOCH),
        ("home/agent/.cache/pip/x", "x", 0o644, 1000, EPOCH),
        ("root/.npm/_logs/x", "x", 0o644, 0, EPOCH),
        ("opt/a/__pycache__/", "/", 0o755, 0, EPOCH),
        ("opt/a/__pycache__/m.cpython-311.pyc", "x", 0o644, 0, EPOCH),
        ("var/cache/ldconfig/aux-cache", "x", 0o644, 0, EPOCH),
        ("var/lib/apt/lists/x", "x", 0o644, 0, EPOCH),
        ("var/log/dpkg.log", "x", 0o644, 0, EPOCH),
        ("opt/b", "b", 0o644, 0, EPOCH),
    ];
    assert_eq!(made(&[traces]).unwrap(), (Vec::new(), None));
    // A cache that is a file of the project's own is kept.
    assert_eq!(made(&[&[("opt/.cache", "x", 0o644, 0, 1)]]).unwrap().0, ["opt/.cache 644 0 x"]);
}

#[test]
fn days_and_machines_are_taken_out_of_the_files_that_name_them() {
    let files: &[Item<'_>] = &[
        ("etc/shadow", "root:*:10000:0:99999:7:::\nnew:!:29999:0:99999:7:::\nodd:!::0\n", 0o640, 0, EPOCH),
        ("etc/machine-id", "0123456789abcdef0123456789abcdef\n", 0o444, 0, EPOCH),
    ];
    let (entries, _) = made(&[files]).unwrap();
    assert_eq!(entries[0], "etc/machine-id 444 0 ");
    assert_eq!(entries[1], "etc/shadow 640 0 root:*:10000:0:99999:7:::\nnew:!:11574:0:99999:7:::\nodd:!::0\n");
}

#[test]
fn folders_that_go_come_back_or_become_files_are_told_by_the_least() {
    assert_eq!(made(&[&[("opt/.wh.a", "", 0, 0, 1)]]).unwrap().0, ["opt/.wh.a 0 0 "]);
    // The file is there again, and the other one is not.
    let again: &[&[Item<'_>]] =
        &[&[("opt/.wh.a", "", 0, 0, 1)], &[("opt/a/", "/", 0o755, 0, 9), ("opt/a/one", "1", 0o644, 0, 9)]];
    assert_eq!(made(again).unwrap().0, ["opt/a/.wh.two 0 0 "]);
    assert_eq!(made(&[&[("opt/a", "file", 0o644, 0, 1)]]).unwrap().0, ["opt/a 644 0 file"]);
    assert_eq!(
        made(&[&[("opt/b", "/", 0o755, 0, 1), ("opt/b/c", "c", 0o644, 0, 1)]]).unwrap().0,
        ["opt/b/ 755 0 ", "opt/b/c 644 0 c"]
    );
    // What a layer brings is not hidden by its own whiteouts, whichever comes first.
    for items in [
        [("opt/.wh.a", "", 0, 0, 1), ("opt/a", "new", 0o644, 0, 1)],
        [("opt/a", "new", 0o644, 0, 1), ("opt/.wh.a", "", 0, 0, 1)],
    ] {
        assert_eq!(made(&[&items]).unwrap().0, ["opt/a 644 0 new"]);
    }
}

#[test]
fn refuses_paths_that_leave_the_root_pipes_and_links_to_nothing() {
    let mut header = tar::Header::new_gnu();
    header.set_size(0);
    header.as_mut_bytes()[..9].copy_from_slice(b"../escape");
    header.set_entry_type(tar::EntryType::Regular);
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_cksum();
    let bytes = [header.as_bytes().as_slice(), &[0; 1024]].concat();
    let folder = tempfile::tempdir().unwrap();
    let refused = layer(&[], vec![section(&bytes)], EPOCH, folder.path());
    assert!(matches!(refused, Err(ImageError::Saved(SavedError::Path(_)))));
    let refused = made(&[&[("opt/pipe", "|", 0o644, 0, 1)]]);
    assert!(matches!(refused, Err(ImageError::Saved(SavedError::Special(path))) if path == "opt/pipe"));
    let refused = made(&[&[("opt/link", "=>opt/absent", 0o644, 0, 1)]]);
    assert!(matches!(refused, Err(ImageError::Saved(SavedError::Path(_)))));
}

#[test]
fn keeps_file_capabilities_and_no_other_attribute() {
    let folder = tempfile::tempdir().unwrap();
    let with = |attributes: &[(&str, &[u8])]| {
        let mut builder = tar::Builder::new(Vec::new());
        builder.append_pax_extensions(attributes.iter().copied()).unwrap();
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o755);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(1);
        header.set_size(1);
        builder.append_data(&mut header, "usr/bin/ping", &b"x"[..]).unwrap();
        let bytes = builder.into_inner().unwrap();
        let layer = layer(&[], vec![section(&bytes)], EPOCH, folder.path()).unwrap().unwrap();
        std::fs::read(layer.path).unwrap()
    };
    let capability: (&str, &[u8]) = ("SCHILY.xattr.security.capability", b"\x01\0\0\x02\0 \0\0");
    let kept = with(&[capability, ("SCHILY.xattr.user.note", b"secret")]);
    assert_eq!(kept, with(&[capability]));
    assert_ne!(kept, with(&[("SCHILY.xattr.user.note", b"secret")]));
    let mut archive = tar::Archive::new(&kept[..]);
    let mut entry = archive.entries().unwrap().next().unwrap().unwrap();
    let found: Vec<_> =
        entry.pax_extensions().unwrap().unwrap().map(|found| found.unwrap().value_bytes().to_vec()).collect();
    assert_eq!(found, [capability.1]);
}

#[test]
fn a_header_without_an_end_is_refused_before_it_is_in_memory() {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::GNULongName);
    header.set_size(crate::image::unpack::HEADER_LIMIT + 1);
    header.set_cksum();
    let mut bytes = header.as_bytes().to_vec();
    bytes.resize(bytes.len() + 2 * crate::image::unpack::HEADER_LIMIT as usize, b'a');
    let error = View::default().add(section(&bytes), false).unwrap_err();
    assert!(matches!(error, SavedError::Read(_)), "{error:?}");
}
