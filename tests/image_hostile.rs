//! Repositories, packages and locks that lie: each is refused with a clear error, and leaves nothing behind.
//!
//! A repository of the test's own stands for Debian: a server on this machine, indexes that a key of the test signs, and
//! packages that are put together byte by byte. Nothing else is fetched.
#![allow(clippy::unwrap_used, reason = "a test says by a panic what is wrong")]

use std::collections::HashMap;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::{Arc, Mutex};

use sandbox::image::reference::Digest;
use serde_json::Value;

/// Two keys: `good`, which the definition names, and `other`. Both are in this folder of GnuPG.
struct Keys(tempfile::TempDir);

impl Keys {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::set_permissions(folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
        for name in ["good", "other"] {
            gpg(folder.path(), &["--passphrase", "", "--quick-generate-key", name, "ed25519", "sign", "never"], b"");
        }
        Self(folder)
    }

    fn sign(&self, key: &str, text: &str) -> Vec<u8> {
        gpg(self.0.path(), &["--local-user", key, "--clearsign"], text.as_bytes())
    }
}

impl Drop for Keys {
    fn drop(&mut self) {
        // Its agent would stay a while longer.
        let _ = Command::new("gpgconf").arg("--homedir").arg(self.0.path()).args(["--kill", "all"]).status();
    }
}

fn gpg(home: &Path, arguments: &[&str], input: &[u8]) -> Vec<u8> {
    let mut command = Command::new("gpg");
    command.arg("--homedir").arg(home).args(["--batch", "--quiet", "--pinentry-mode", "loopback"]).args(arguments);
    command.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped());
    let mut child = command.stderr(std::process::Stdio::piped()).spawn().expect("gpg is installed");
    child.stdin.take().unwrap().write_all(input).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "gpg {arguments:?}: {}", text(&output.stderr));
    output.stdout
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Files by path, which a thread serves.
#[derive(Clone, Default)]
struct Files(Arc<Mutex<HashMap<String, Vec<u8>>>>);

impl Files {
    fn put(&self, path: &str, bytes: impl Into<Vec<u8>>) {
        self.0.lock().unwrap().insert(path.to_owned(), bytes.into());
    }

    fn serve(&self) -> String {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let files = self.clone();
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let mut head = Vec::new();
                let mut buffer = [0; 4096];
                while !head.ends_with(b"\r\n\r\n") {
                    match stream.read(&mut buffer) {
                        Ok(count) if count > 0 => head.extend_from_slice(&buffer[..count]),
                        _ => break,
                    }
                }
                let head = text(&head);
                let path = head.split(' ').nth(1).unwrap_or_default();
                let body = files.0.lock().unwrap().get(path).cloned();
                let (status, body) = body.map_or((404, Vec::new()), |body| (200, body));
                let head =
                    format!("HTTP/1.1 {status} x\r\nConnection: close\r\nContent-Length: {}\r\n\r\n", body.len());
                let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&body));
            }
        });
        address
    }
}

/// What a case changes of an honest repository.
struct Lies {
    /// The compressed or plain archive of the package's files, and the end of its name.
    data: (Vec<u8>, &'static str),
    package: fn(Vec<u8>) -> Vec<u8>,
    /// What is served in the place of the package that the index means.
    served: fn(Vec<u8>) -> Vec<u8>,
    index: fn(String) -> String,
    /// What is served in the place of the index that the release file means.
    served_index: fn(String) -> String,
    release: fn(String) -> String,
    signed: fn(String) -> String,
    key: &'static str,
}

impl Default for Lies {
    fn default() -> Self {
        Self {
            data: (archive(&[(b"usr/share/thing/file", tar::EntryType::Regular, b"content", 7)]), ""),
            package: |bytes| bytes,
            served: |bytes| bytes,
            index: |text| text,
            served_index: |text| text,
            release: |text| text,
            signed: |text| text,
            key: "good",
        }
    }
}

type Raw<'a> = (&'a [u8], tar::EntryType, &'a [u8], u64);

fn header(name: &[u8], kind: tar::EntryType, link: &[u8], size: u64) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    // The library would refuse such names.
    header.as_mut_bytes()[..name.len()].copy_from_slice(name);
    header.as_mut_bytes()[157..157 + link.len()].copy_from_slice(link);
    header.set_entry_type(kind);
    header.set_size(size);
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_cksum();
    header
}

/// A tar of entries: name, kind, content or target of a link, and the size that the header tells.
fn archive(entries: &[Raw<'_>]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (name, kind, content, size) in entries {
        let link = if *kind == tar::EntryType::Regular { &b""[..] } else { content };
        bytes.extend_from_slice(header(name, *kind, link, *size).as_bytes());
        if *kind == tar::EntryType::Regular {
            bytes.extend_from_slice(content);
            bytes.resize(bytes.len().next_multiple_of(512), 0);
        }
    }
    bytes.resize(bytes.len() + 1024, 0);
    bytes
}

fn xz(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = liblzma::write::XzEncoder::new(Vec::new(), 0);
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

const CONTROL: &str = "Package: thing\nVersion: 1.0\nArchitecture: all\nMaintainer: Nobody <nobody@example.com>\n";

/// A package (deb(5)), which is an archive of ar(5).
fn package(data: &[u8], end: &str) -> Vec<u8> {
    let control = archive(&[(b"control", tar::EntryType::Regular, CONTROL.as_bytes(), CONTROL.len() as u64)]);
    let mut bytes = b"!<arch>\n".to_vec();
    let name = format!("data.tar{end}");
    let members = [("debian-binary", &b"2.0\n"[..]), ("control.tar", control.as_slice()), (name.as_str(), data)];
    for (name, member) in members {
        bytes.extend(format!("{name:<16}{:<12}{:<6}{:<6}{:<8}{:<10}`\n", 0, 0, 0, 100_644, member.len()).bytes());
        bytes.extend_from_slice(member);
        bytes.resize(bytes.len().next_multiple_of(2), b'\n');
    }
    bytes
}

/// A repository, and a project with a definition that names it.
struct Scene<'a> {
    keys: &'a Keys,
    folder: tempfile::TempDir,
    files: Files,
}

impl<'a> Scene<'a> {
    fn new(keys: &'a Keys) -> Self {
        let scene = Self { keys, folder: tempfile::tempdir().unwrap(), files: Files::default() };
        let address = scene.files.serve();
        let images = scene.path("project/images/thing");
        std::fs::create_dir_all(&images).unwrap();
        let definition = format!(
            "version: 1\ndebian:\n  packages: [thing]\n  \
             sources: [{{suite: test, address: '{address}', key: key.asc}}]\n"
        );
        std::fs::write(images.join("image.yaml"), definition).unwrap();
        std::fs::write(images.join("key.asc"), gpg(keys.0.path(), &["--armor", "--export", "good"], b"")).unwrap();
        scene
    }

    fn path(&self, below: &str) -> PathBuf {
        self.folder.path().join(below)
    }

    fn publish(&self, lies: &Lies) {
        let package = (lies.package)(package(&lies.data.0, lies.data.1));
        let index = format!(
            "{CONTROL}Filename: pool/thing.deb\nSize: {}\nSHA256: {}\n\n",
            package.len(),
            Digest::of(&package).hex()
        );
        let index = (lies.index)(index);
        let architecture = sandbox::image::architecture().unwrap();
        let place = format!("main/binary-{architecture}/Packages");
        let release = format!(
            "Suite: test\nCodename: test\nDate: Sat, 17 May 2025 09:02:10 UTC\nSHA256:\n {} {} {place}\n",
            Digest::of(index.as_bytes()).hex(),
            index.len()
        );
        let signed = self.keys.sign(lies.key, &(lies.release)(release));
        self.files.put("/dists/test/InRelease", (lies.signed)(text(&signed)));
        self.files.put(&format!("/dists/test/{place}"), (lies.served_index)(index));
        self.files.put("/pool/thing.deb", (lies.served)(package));
    }

    fn image(&self, words: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_sandbox"))
            .args(["--engine", "unix:///nowhere", "image", "--project"])
            .arg(self.path("project"))
            .args(words)
            .env("XDG_CACHE_HOME", self.path("cache"))
            .env("XDG_CONFIG_HOME", self.path("no-configuration"))
            .env("TMPDIR", self.folder.path())
            .envs([("CI", "true"), ("NO_PROXY", "127.0.0.1")])
            .output()
            .unwrap()
    }

    /// Locks, and gives the lock.
    fn lock(&self, more: &[&str]) -> Value {
        let locked = self.image(&[&["lock", "thing"], more].concat());
        assert!(locked.status.success(), "{}", text(&locked.stderr));
        serde_json::from_slice(&std::fs::read(self.lock_file()).unwrap()).unwrap()
    }

    fn lock_file(&self) -> PathBuf {
        self.path("project/images/thing/image.lock")
    }

    /// Nothing is left but what has its digest for a name.
    fn assert_clean(&self, what: &str) {
        let mut open = vec![self.folder.path().to_owned()];
        while let Some(folder) = open.pop() {
            for entry in std::fs::read_dir(&folder).unwrap() {
                let path = entry.unwrap().path();
                let name = path.file_name().unwrap().to_str().unwrap().to_owned();
                if path.is_dir() {
                    open.push(path);
                } else if path.starts_with(self.path("cache")) && !name.ends_with(".inputs") {
                    let digest = Digest::of(&std::fs::read(&path).unwrap());
                    assert_eq!(name.trim_end_matches(".tar"), digest.hex(), "{what}: {}", path.display());
                } else if !path.starts_with(self.path("cache")) {
                    assert!(["image.yaml", "key.asc", "image.lock"].contains(&name.as_str()), "{what}: {name}");
                }
            }
        }
    }

    /// Is refused with this code and these words.
    fn refused(&self, what: &str, words: &[&str], code: &str, said: &str) {
        let before = std::fs::read(self.lock_file()).ok();
        let output = self.image(words);
        let stderr = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{what}: {stderr}{}", text(&output.stdout));
        assert!(stderr.contains(&format!("error[{code}]")) && stderr.contains(said), "{what}: {stderr}");
        assert!(stderr.contains("next: ") && !stderr.contains("panicked"), "{what}: {stderr}");
        assert_eq!(std::fs::read(self.lock_file()).ok(), before, "{what}: the lock was touched");
        self.assert_clean(what);
    }
}

#[test]
fn the_honest_repository_is_locked_built_and_told_in_the_lock() {
    let keys = Keys::new();
    let scene = Scene::new(&keys);
    scene.publish(&Lies::default());
    let lock = scene.lock(&[]);
    let key = std::fs::read(scene.path("project/images/thing/key.asc")).unwrap();
    assert_eq!(lock["sources"][0]["key"], Digest::of(&key).to_string());
    let suite = lock["packages"][0]["suite"].as_str().unwrap();
    assert!(suite.starts_with("http://127.0.0.1:") && suite.ends_with(" test"), "{suite}");
    let layout = scene.path("project/images/layout");
    let built = scene.image(&["build", "thing", "--check", "--output", &format!("oci:{}", layout.display())]);
    assert!(built.status.success(), "{}", text(&built.stderr));
    let layer = lock["result"]["diff_ids"][0].as_str().unwrap().trim_start_matches("sha256:").to_owned();
    let layer = std::fs::read(layout.join("blobs/sha256").join(layer)).unwrap();
    let paths: Vec<String> = tar::Archive::new(&layer[..])
        .entries()
        .unwrap()
        .map(|entry| entry.unwrap().path().unwrap().display().to_string())
        .collect();
    assert!(paths.contains(&"usr/share/thing/file".to_owned()), "{paths:?}");
    let purl = text(&scene.image(&["sbom", "thing"]).stdout);
    assert!(purl.contains("pkg:deb/thing@1.0?arch=all&repository_url=http%3A%2F%2F127.0.0.1"), "{purl}");
    std::fs::remove_dir_all(layout).unwrap();
    scene.assert_clean("an honest build");
}

#[test]
fn packages_that_reach_out_of_the_image_are_refused() {
    let keys = Keys::new();
    use tar::EntryType;
    let file = EntryType::Regular;
    let cases: [(&str, &[Raw<'_>], &str); 10] = [
        ("a way up", &[(b"../../escape", file, b"x", 1)], "`../../escape` is not allowed"),
        ("a way up in the middle", &[(b"usr/../../escape", file, b"x", 1)], "is not allowed"),
        ("an absolute name", &[(b"/tmp/escape", file, b"x", 1)], "`/tmp/escape` is not allowed"),
        ("a name that is no text", &[(b"a\xff", file, b"x", 1)], "is not allowed"),
        ("a block device", &[(b"dev/sda", EntryType::Block, b"", 0)], "neither a file, a folder nor a link"),
        ("a character device", &[(b"dev/mem", EntryType::Char, b"", 0)], "neither a file, a folder nor a link"),
        ("a pipe", &[(b"run/pipe", EntryType::Fifo, b"", 0)], "neither a file, a folder nor a link"),
        ("a hard link out", &[(b"a", EntryType::Link, b"../../etc/shadow", 0)], "is not allowed"),
        ("a file below a file", &[(b"a", file, b"x", 1), (b"a/b", file, b"x", 1)], "is not allowed"),
        ("a file in the place of a folder", &[(b"usr/bin", file, b"x", 1)], "is not allowed"),
    ];
    for (what, entries, said) in cases {
        let scene = Scene::new(&keys);
        scene.publish(&Lies { data: (archive(entries), ""), ..Lies::default() });
        scene.refused(what, &["lock", "thing"], "image-content", said);
    }
}

#[test]
fn a_link_to_a_folder_of_this_machine_leads_to_a_folder_of_the_image() {
    let keys = Keys::new();
    let scene = Scene::new(&keys);
    let outside = tempfile::tempdir().unwrap();
    let target = outside.path().to_str().unwrap().as_bytes();
    let (link, file) = (tar::EntryType::Symlink, tar::EntryType::Regular);
    let up = b"../../../../../../../../../../../../tmp";
    let entries: [Raw<'_>; 4] = [
        (b"out", link, target, 0),
        (b"out/escape", file, b"x", 1),
        (b"up", link, up, 0),
        (b"up/escape-image-hostile", file, b"x", 1),
    ];
    scene.publish(&Lies { data: (archive(&entries), ""), ..Lies::default() });
    scene.lock(&[]);
    assert_eq!(std::fs::read_dir(outside.path()).unwrap().count(), 0, "a file came out of the image");
    assert!(!Path::new("/tmp/escape-image-hostile").exists(), "a file came out of the image");
    scene.assert_clean("links out");
}

#[test]
fn packages_that_lie_about_lengths_or_never_end_are_refused() {
    let keys = Keys::new();
    let file = tar::EntryType::Regular;
    let giant = archive(&[(b"a", file, b"x", 5 << 30)]);
    let short = archive(&[(b"a", file, b"x", 1 << 20)]);
    let names = {
        let mut bytes = header(b"x", tar::EntryType::GNULongName, b"", 1 << 30).as_bytes().to_vec();
        bytes.resize(64 << 20, b'a');
        xz(&bytes)
    };
    let cut = {
        let mut bytes = xz(&Lies::default().data.0);
        bytes.truncate(bytes.len() / 2);
        bytes
    };
    let cases = [
        ("a file of 5 GiB", (giant, ""), "larger than allowed"),
        ("a file that ends early", (short, ""), "shorter than it says"),
        ("a name of 1 GiB", (names, ".xz"), "longer than allowed"),
        ("an archive that ends early", (cut, ".xz"), "cannot be read"),
        ("another compression", (Vec::new(), ".lz4"), "known compression"),
        ("no archive", (b"no tar at all, but text of some length".repeat(30), ""), "cannot be read"),
    ];
    for (what, data, said) in cases {
        let scene = Scene::new(&keys);
        scene.publish(&Lies { data, ..Lies::default() });
        scene.refused(what, &["lock", "thing"], "image-content", said);
    }
    let scene = Scene::new(&keys);
    scene.publish(&Lies { package: |_| b"#!/bin/sh\n".to_vec(), ..Lies::default() });
    scene.refused("no package", &["lock", "thing"], "image-content", "list of members");
}

#[test]
fn what_is_served_has_to_be_what_the_index_and_the_release_file_say() {
    let keys = Keys::new();
    let change: fn(Vec<u8>) -> Vec<u8> = |bytes| bytes.iter().map(|byte| byte ^ 1).collect();
    let cases = [
        ("a changed package", Lies { served: change, ..Lies::default() }),
        ("a longer package", Lies { served: |bytes| [&bytes[..], b"\n"].concat(), ..Lies::default() }),
        ("a shorter package", Lies { served: |bytes| bytes[1..].to_vec(), ..Lies::default() }),
        ("a size that is too small", Lies { index: |text| text.replace("Size: ", "Size: 1\nX: "), ..Lies::default() }),
        ("a changed index", Lies { served_index: |text| text.replace("1.0", "9.0"), ..Lies::default() }),
        ("a longer index", Lies { served_index: |text| text + "\n", ..Lies::default() }),
    ];
    for (what, lies) in cases {
        let scene = Scene::new(&keys);
        scene.publish(&lies);
        scene.refused(what, &["lock", "thing"], "image-unavailable", "does not have the expected digest or size");
    }
    let scene = Scene::new(&keys);
    let other: fn(String) -> String = |text| {
        let start = text.find("SHA256: ").unwrap() + 8;
        format!("{}{}{}", &text[..start], "0".repeat(64), &text[start + 64..])
    };
    scene.publish(&Lies { index: other, ..Lies::default() });
    scene.refused("another checksum", &["lock", "thing"], "image-unavailable", "expected digest");
    for path in ["../../etc/passwd", "pool/../../x", "/etc/passwd", "pool/x?y", "pool//x"] {
        let index = format!("{CONTROL}Filename: {path}\nSize: 1\nSHA256: {}\n\n", "0".repeat(64));
        publish_index(&scene, &index);
        scene.refused(path, &["lock", "thing"], "image", "no valid Filename");
    }
}

/// Publishes another index, which the release file means and the key signs.
fn publish_index(scene: &Scene<'_>, index: &str) {
    let architecture = sandbox::image::architecture().unwrap();
    let place = format!("main/binary-{architecture}/Packages");
    let release = format!(
        "Suite: test\nDate: Sat, 17 May 2025 09:02:10 UTC\nSHA256:\n {} {} {place}\n",
        Digest::of(index.as_bytes()).hex(),
        index.len()
    );
    let signed = scene.keys.sign("good", &release);
    scene.files.put("/dists/test/InRelease", signed);
    scene.files.put(&format!("/dists/test/{place}"), index);
}

#[test]
fn a_release_file_counts_only_with_the_right_signature_suite_and_dates() {
    let keys = Keys::new();
    let expired: fn(String) -> String =
        |text| text.replace("SHA256:", "Valid-Until: Sat, 24 May 2025 09:02:10 UTC\nSHA256:");
    let cases: [(&str, Lies, &str, &str); 6] = [
        ("another key", Lies { key: "other", ..Lies::default() }, "image-release", "no valid signature"),
        (
            "a change after signing",
            Lies { signed: |text| text.replace("2025", "2026"), ..Lies::default() },
            "image-release",
            "no valid signature",
        ),
        (
            "no signature",
            Lies { signed: |_| "Suite: test\n".to_owned(), ..Lies::default() },
            "image-release",
            "no valid signature",
        ),
        ("an old one", Lies { release: expired, ..Lies::default() }, "image-release", "valid from"),
        (
            "one of the future",
            Lies { release: |text| text.replace("Sat, 17 May 2025", "Fri, 17 May 2199"), ..Lies::default() },
            "image-release",
            "valid from",
        ),
        (
            "one of another suite",
            Lies { release: |text| text.replace(": test", ": else"), ..Lies::default() },
            "image",
            "no valid Codename",
        ),
    ];
    for (what, lies, code, said) in cases {
        let scene = Scene::new(&keys);
        scene.publish(&lies);
        scene.refused(what, &["lock", "thing"], code, said);
    }
    // An old one on purpose is taken with a loud line, and the lock says so for ever.
    let scene = Scene::new(&keys);
    scene.publish(&Lies { release: expired, ..Lies::default() });
    let lock = scene.lock(&["--allow-expired"]);
    assert_eq!(lock["sources"][0]["expired"], true);
    let said = text(&scene.image(&["lock", "thing", "--allow-expired"]).stderr);
    assert!(said.contains("out of date"), "{said}");
}

#[test]
fn a_repository_does_not_go_back_behind_the_lock() {
    let keys = Keys::new();
    let scene = Scene::new(&keys);
    scene.publish(&Lies::default());
    scene.lock(&[]);
    let older = Lies { release: |text| text.replace("17 May", "10 May"), ..Lies::default() };
    scene.publish(&older);
    let said = "is of 2025-05-10T09:02:10Z, which is before the locked one of 2025-05-17T09:02:10Z";
    for words in [&["lock", "thing"], &["update", "thing"], &["outdated", "thing"]] {
        scene.refused("an older release", words, "image-release", said);
    }
    // To go back on purpose takes the removal of the lock.
    std::fs::remove_file(scene.lock_file()).unwrap();
    scene.lock(&[]);
}

#[test]
fn a_lock_that_somebody_edited_is_refused_or_does_not_give_its_result() {
    let keys = Keys::new();
    let scene = Scene::new(&keys);
    scene.publish(&Lies::default());
    let honest = scene.lock(&[]);
    let zeros = format!("sha256:{}", "0".repeat(64));
    let cases: [(&str, Value, &str); 14] = [
        ("/packages/0/sha256", zeros.clone().into(), "image-unavailable"),
        ("/packages/0/size", 1.into(), "image-unavailable"),
        ("/packages/0/name", "other".into(), "image-content"),
        ("/packages/0/name", "../other".into(), "image-content"),
        ("/packages/0/version", "2.0".into(), "image-content"),
        ("/packages/0/architecture", "amd64".into(), "image-content"),
        ("/packages/0/suite", "file:///etc test".into(), "image"),
        ("/packages/0/path", "pool/else.deb".into(), "image-unavailable"),
        ("/epoch", 7.into(), "image-mismatch"),
        ("/architecture", "arm64".into(), "image-mismatch"),
        ("/definition", zeros.clone().into(), "image-stale"),
        ("/recipe", 1.into(), "image-stale"),
        ("/result/diff_ids/0", zeros.clone().into(), "image-mismatch"),
        ("/result/manifest", zeros.into(), "image-mismatch"),
    ];
    for (place, value, code) in cases {
        let mut lock = honest.clone();
        *lock.pointer_mut(place).unwrap() = value.clone();
        std::fs::write(scene.lock_file(), lock.to_string()).unwrap();
        // A cache in which nothing is answers for nothing.
        std::fs::remove_dir_all(scene.path("cache")).unwrap();
        std::fs::create_dir(scene.path("cache")).unwrap();
        scene.refused(&format!("{place} is {value}"), &["build", "thing"], code, "");
    }
    for broken in ["", "{", "[]", "{\"version\": 1}", &honest.to_string().replace("\"epoch\"", "\"more\":1,\"epoch\"")]
    {
        std::fs::write(scene.lock_file(), broken).unwrap();
        let code = if broken.is_empty() { "image-unlocked" } else { "image" };
        scene.refused(broken, &["build", "thing"], code, "");
    }
}
