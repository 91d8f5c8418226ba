//! A repository of other people's files: the sources of the crates that this program is built from, one commit for each.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Adds commits to the repository until its files have about so many bytes. Gives the number of files.
pub(crate) fn add(repository: &Path, bytes: u64) -> usize {
    let (mut total, mut files) = (0, 0);
    for (name, source) in sources() {
        let target = repository.join("crates").join(&name);
        let (size, count) = copy(&source, &target);
        total += size;
        files += count;
        // Some crates bring ignore files of their own.
        git(repository, &["add", "--force", "--", &format!("crates/{name}")]);
        let who = ["-c", "user.name=Ada", "-c", "user.email=ada@example.com", "-c", "gc.auto=0"];
        git(repository, &[&who[..], &["commit", "--quiet", "-m", &format!("Take {name} in")]].concat());
        if total >= bytes {
            return files;
        }
    }
    panic!("the crates have {total} bytes");
}

/// The dependencies by name and version, in that order, with the folders that cargo keeps.
fn sources() -> Vec<(String, PathBuf)> {
    let metadata = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--locked", "--offline", "--filter-platform"])
        .arg("x86_64-unknown-linux-gnu")
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .stderr(Stdio::inherit())
        .output()
        .unwrap();
    let metadata: serde_json::Value = serde_json::from_slice(&metadata.stdout).unwrap();
    let mut found: Vec<(String, PathBuf)> = metadata["packages"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|package| package["source"].is_string())
        .map(|package| {
            let word = |key: &str| package[key].as_str().unwrap().to_owned();
            let folder = Path::new(&word("manifest_path")).parent().unwrap().to_path_buf();
            (format!("{}-{}", word("name"), word("version")), folder)
        })
        .collect();
    found.sort();
    found
}

fn copy(source: &Path, target: &Path) -> (u64, usize) {
    fs::create_dir_all(target).unwrap();
    let (mut size, mut count) = (0, 0);
    for entry in fs::read_dir(source).unwrap() {
        let entry = entry.unwrap();
        let to = target.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            let (more, files) = copy(&entry.path(), &to);
            size += more;
            count += files;
        } else {
            size += fs::copy(entry.path(), &to).unwrap();
            count += 1;
        }
    }
    (size, count)
}

fn git(repository: &Path, arguments: &[&str]) {
    let output = Command::new("git").args(arguments).current_dir(repository).output().unwrap();
    assert!(output.status.success(), "git {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}
