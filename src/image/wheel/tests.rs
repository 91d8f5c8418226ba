//! Wheels that are made here, good ones and hostile ones.

use std::io::Cursor;

use zip::ZipWriter;
use zip::write::SimpleFileOptions;

use super::*;
use crate::image::reference::Digest;

const INFO: &str = "some_tool-1.0.dist-info";

/// A wheel of these files, with a RECORD of them; a file's mode is given by a `*` before its name.
fn wheel(files: &[(&str, &str)]) -> Vec<u8> {
    let mut record = String::new();
    for (name, text) in files {
        let sum = URL_SAFE_NO_PAD.encode(sha2::Sha256::digest(text));
        record.push_str(&format!("{},sha256={sum},{}\n", quoted(name.trim_start_matches('*')), text.len()));
    }
    record.push_str(&format!("{INFO}/RECORD,,\n"));
    archive(&[files, &[(&format!("{INFO}/RECORD"), &record)]].concat())
}

/// A path as Python's writer of CSV has it.
fn quoted(path: &str) -> String {
    if path.contains([',', '"']) { format!("\"{}\"", path.replace('"', "\"\"")) } else { path.to_owned() }
}

fn archive(files: &[(&str, &str)]) -> Vec<u8> {
    let mut writer = ZipWriter::new(Cursor::new(Vec::new()));
    for (name, text) in files {
        let options = SimpleFileOptions::default().compression_method(zip::CompressionMethod::Deflated);
        let options = options.unix_permissions(if name.starts_with('*') { 0o755 } else { 0o644 });
        writer.start_file(name.trim_start_matches('*'), options).unwrap();
        writer.write_all(text.as_bytes()).unwrap();
    }
    writer.finish().unwrap().into_inner()
}

fn environment() -> Environment {
    Environment::new("tool", Interpreter { version: "3.11.2".parse().unwrap(), glibc: 36, machine: "x86_64" })
}

fn unpacked(bytes: &[u8]) -> Result<BTreeMap<String, Entry>, PackageProblem> {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), bytes).unwrap();
    let spill = Arc::new(tempfile::tempfile().unwrap());
    let wheel = PypiWheel {
        package: "some-tool".into(),
        version: "1.0".into(),
        file: "some_tool-1.0-py3-none-any.whl".into(),
        url: "https://h/some_tool-1.0-py3-none-any.whl".into(),
        sha256: Digest::of(bytes),
        size: bytes.len() as u64,
    };
    Ok(unpack(file.path(), &wheel, &environment(), &spill)?.into_iter().collect())
}

/// The files of a good wheel.
fn good() -> Vec<(&'static str, &'static str)> {
    vec![
        ("some_tool/__init__.py", "x = 1\n"),
        ("*some_tool/run.sh", "#!/bin/sh\n"),
        ("some_tool/__pycache__/__init__.cpython-311.pyc", "bytes"),
        ("some_tool-1.0.data/scripts/other", "#!python -s\nprint(1)\n"),
        ("some_tool-1.0.data/data/share/a,b.txt", "shared"),
        ("some_tool/a \"b\".txt", "quoted"),
        ("some_tool-1.0.data/purelib/pure.py", ""),
        ("some_tool-1.0.data/headers/a.h", ""),
        ("some_tool-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nGenerator: x\n"),
        ("some_tool-1.0.dist-info/METADATA", "Name: some-tool\nVersion: 1.0\n"),
        (
            "some_tool-1.0.dist-info/entry_points.txt",
            "# commands\n[console_scripts]\nsome-tool = some_tool.main:App.run [extra]\n\n[other.group]\nx = not a command\n",
        ),
    ]
}

/// The good wheel with one more file, or with another text of one.
fn with(name: &'static str, text: &'static str) -> Vec<u8> {
    let mut files = good();
    files.retain(|(known, _)| *known != name);
    files.push((name, text));
    wheel(&files)
}

fn content(entry: &Entry) -> String {
    let Kind::File(content) = &entry.kind else { panic!("{entry:?}") };
    let mut text = String::new();
    content.reader().read_to_string(&mut text).unwrap();
    text
}

#[test]
fn puts_every_file_where_its_scheme_belongs_and_writes_the_commands() {
    let entries = unpacked(&wheel(&good())).unwrap();
    let site = "usr/local/lib/pypi/tool/lib/python3.11/site-packages";
    let mut expected = Vec::new();
    for name in ["pure.py", "some_tool/__init__.py", "some_tool/a \"b\".txt", "some_tool/run.sh"] {
        expected.push(format!("{site}/{name}"));
    }
    for name in ["INSTALLER", "METADATA", "RECORD", "WHEEL", "entry_points.txt"] {
        expected.push(format!("{site}/{INFO}/{name}"));
    }
    for name in ["bin/other", "bin/some-tool", "share/a,b.txt", "include/site/python3.11/some-tool/a.h"] {
        expected.push(format!("usr/local/lib/pypi/tool/{name}"));
    }
    expected.sort();
    assert_eq!(entries.keys().cloned().collect::<Vec<_>>(), expected);
    assert_eq!(entries[&format!("{site}/some_tool/run.sh")].mode, 0o755);
    assert_eq!(entries[&format!("{site}/some_tool/__init__.py")].mode, 0o644);
    let script = content(&entries["usr/local/lib/pypi/tool/bin/some-tool"]);
    let first = "#!/usr/local/lib/pypi/tool/bin/python3\n";
    let rest =
        "import sys\n\nfrom some_tool.main import App\n\nif __name__ == \"__main__\":\n    sys.exit(App.run())\n";
    assert_eq!(script, format!("{first}{rest}"));
    assert_eq!(content(&entries["usr/local/lib/pypi/tool/bin/other"]), format!("{first}print(1)\n"));
    assert!(entries.values().all(|entry| (entry.uid, entry.gid, entry.time) == (0, 0, u64::MAX)));
    let record = content(&entries[&format!("{site}/{INFO}/RECORD")]);
    assert_eq!(record.lines().count(), entries.len(), "{record}");
    assert!(record.contains("../../../bin/some-tool,sha256=") && record.contains("\"../../../share/a,b.txt\",sha256="));
}

#[test]
fn refuses_files_that_record_does_not_have_as_they_are() {
    let record = format!("{INFO}/RECORD");
    let text = {
        let file = wheel(&good());
        let mut archive = ZipArchive::new(Cursor::new(file)).unwrap();
        read(&mut archive, &record).unwrap().unwrap()
    };
    let changed = |from: &str, to: &str| {
        let changed = text.replace(from, to);
        assert_ne!(changed, text);
        unpacked(&archive(&[&good()[..], &[(&record, &changed)]].concat()))
    };
    let sum = URL_SAFE_NO_PAD.encode(sha2::Sha256::digest("x = 1\n"));
    assert!(matches!(changed(&sum, &sum.to_lowercase()), Err(PackageProblem::Record(_))));
    assert!(matches!(changed(&format!("{sum},6"), &format!("{sum},7")), Err(PackageProblem::Record(_))));
    assert!(matches!(changed(&format!("sha256={sum},6"), ","), Err(PackageProblem::Record(_))));
    assert!(matches!(changed("sha256=", "md5="), Err(PackageProblem::Record(_))));
    assert!(matches!(changed("pure.py,", "pure2.py,"), Err(PackageProblem::Record(_))));
    assert!(matches!(changed("pure.py,", "\"pure.py\"x,,"), Err(PackageProblem::Record(_))));
    let more = [&good()[..], &[("some_tool/more.py", "x"), (&record, &text)]].concat();
    assert!(matches!(unpacked(&archive(&more)), Err(PackageProblem::Record(_))));
    assert!(matches!(unpacked(&archive(&good())), Err(PackageProblem::Member("RECORD"))));
}

#[test]
fn refuses_wheels_of_another_name_or_format() {
    let rename = |from: &str, to: &str| {
        let files: Vec<(String, &str)> = good().iter().map(|(name, text)| (name.replace(from, to), *text)).collect();
        let files: Vec<(&str, &str)> = files.iter().map(|(name, text)| (name.as_str(), *text)).collect();
        unpacked(&wheel(&files))
    };
    assert!(matches!(rename("some_tool-1.0.dist", "other-1.0.dist"), Err(PackageProblem::Member(_))));
    for version in ["Wheel-Version: 2.0\n", "Wheel-Version: 10\n", "Generator: x\n"] {
        let other = with("some_tool-1.0.dist-info/WHEEL", version);
        assert!(matches!(unpacked(&other), Err(PackageProblem::Member(_))), "{version}");
    }
    for same in ["Version: 1\n", "Version:1.0.0\r\n\r\nVersion: 2"] {
        assert!(unpacked(&with("some_tool-1.0.dist-info/METADATA", same)).is_ok(), "{same}");
    }
    for version in ["Version: 1.1\n", "Name: some-tool\n", "Name: some-tool\n\nVersion: 1.0\n", ""] {
        let other = with("some_tool-1.0.dist-info/METADATA", version);
        assert!(matches!(unpacked(&other), Err(PackageProblem::Differs("version"))), "{version}");
    }
    assert!(matches!(unpacked(b"PK\x05\x06"), Err(PackageProblem::Read(_))));
    assert!(matches!(unpacked(&with("other-1.0.dist-info/x", "")), Err(PackageProblem::Member(_))));
}

#[test]
fn refuses_paths_and_commands_that_leave_the_environment_or_take_its_interpreter() {
    for name in [
        "../../../../bin/sh",
        "/etc/passwd",
        "some_tool-1.0.data/data/../../../../etc/x",
        "some_tool-1.0.data/scripts/a/b",
        "some_tool-1.0.data/scripts/python3",
        "some_tool-1.0.data/data/bin/python3",
        "some_tool-1.0.data/data/pyvenv.cfg",
        "some_tool-1.0.data/unknown/x",
        "some_tool-1.0.data/x",
    ] {
        assert!(matches!(unpacked(&with(name, "x")), Err(PackageProblem::Path(_))), "{name}");
    }
    for points in [
        "a/../../b = m:f",
        "a = m:f()",
        "a = m; import os:f",
        "a = m",
        "python3 = m:f",
        ".a = m:f",
        "a",
        "a = 1m:f",
        "a = m:f\"",
    ] {
        let text: &'static str = format!("[console_scripts]\n{points}\n").leak();
        let wheel = with("some_tool-1.0.dist-info/entry_points.txt", text);
        assert!(matches!(unpacked(&wheel), Err(PackageProblem::EntryPoint(_))), "{points}");
    }
}

#[test]
fn refuses_links() {
    let mut writer = ZipWriter::new(Cursor::new(Vec::new()));
    writer.add_symlink("some_tool/link", "/etc/shadow", SimpleFileOptions::default()).unwrap();
    for (name, text) in [("WHEEL", "Wheel-Version: 1.0\n"), ("METADATA", "Version: 1.0\n"), ("RECORD", "")] {
        writer.start_file(format!("{INFO}/{name}"), SimpleFileOptions::default()).unwrap();
        writer.write_all(text.as_bytes()).unwrap();
    }
    let wheel = writer.finish().unwrap().into_inner();
    assert!(matches!(unpacked(&wheel), Err(PackageProblem::Kind(name)) if name == "some_tool/link"));
}
