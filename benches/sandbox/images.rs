//! The image builder with all packages at hand, against mmdebstrap with the same packages at hand.

use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::measure::{Aim, Quantity, Table, in_turn, median_time, time};
use crate::succeed;

/// The image, and the definitions that it is made of.
const IMAGE: &str = "agent";
const CHAIN: [&str; 2] = ["base", "agent"];

/// What finding out that there is nothing to do may take.
const NOTHING: Quantity = Quantity::Seconds(0.05);

pub(crate) fn run(table: &Table) {
    let temporary = Path::new(env!("CARGO_TARGET_TMPDIR"));
    // It stays for the next run: it holds packages by digest.
    let cache = temporary.join("sandbox-bench-cache");
    let layers = cache.join("sandbox/layers");
    let folder = tempfile::tempdir_in(temporary).unwrap();
    let build = || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sandbox"));
        command.args(["image", "build", IMAGE]).current_dir(folder.path());
        command.env("XDG_CACHE_HOME", &cache).env("CI", "true").env_remove("SANDBOX_LOG");
        succeed(&mut command);
    };
    build();

    let repository = folder.path().join("repository");
    let names = repository_of(&cache.join("sandbox/blobs/sha256"), &repository);
    let suite = "bookworm";
    let source = format!("deb [trusted=yes] copy:{} ./", repository.display());
    let output = folder.path().join("image.tar");
    let ours = || {
        // Not even the lower layer is at hand; only the packages are.
        fs::remove_dir_all(&layers).unwrap();
        time(build)
    };
    let peer = || {
        // `extract` does what our builder does: it unpacks, runs no script and installs nothing.
        let mut command = Command::new("mmdebstrap");
        command.arg("--quiet").arg("--variant=extract").arg(format!("--include={}", names.join(",")));
        command.arg(suite).arg(&output).arg(&source);
        time(|| drop(succeed(&mut command)))
    };
    let [built, extracted] = in_turn(table.runs.min(3), ours, peer);
    let what = format!("image build {IMAGE}, {} packages at hand", names.len());
    table.compare(&what, built, "mmdebstrap, unpacking only", extracted, Aim::AtMostTimes(0.2));

    build();
    let idle: Vec<_> = (0..3 * table.runs).map(|_| time(build)).collect();
    table.single(&format!("image build {IMAGE}, nothing to do"), median_time(&idle), Aim::AtMost(NOTHING));
}

/// Makes an apt repository of the packages of the image's locks, and gives their names.
fn repository_of(blobs: &Path, repository: &Path) -> Vec<String> {
    fs::create_dir(repository).unwrap();
    let (mut names, mut index) = (Vec::new(), Vec::new());
    for definition in CHAIN {
        let path: PathBuf = [env!("CARGO_MANIFEST_DIR"), "images", definition, "image.lock"].iter().collect();
        let lock: serde_json::Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
        for package in lock["packages"].as_array().unwrap() {
            let name = package["name"].as_str().unwrap();
            let digest = package["sha256"].as_str().unwrap().trim_start_matches("sha256:");
            let file = repository.join(format!("{name}.deb"));
            fs::copy(blobs.join(digest), &file).unwrap();
            let control = succeed(Command::new("dpkg-deb").arg("--field").arg(&file));
            index.extend_from_slice(control.trim_ascii_end());
            let rest = format!("\nFilename: ./{name}.deb\nSize: {}\nSHA256: {digest}\n\n", package["size"]);
            index.extend_from_slice(rest.as_bytes());
            names.push(name.to_owned());
        }
    }
    assert!(!repository.as_os_str().as_bytes().contains(&b' '), "apt takes no folder with a space in its name");
    fs::write(repository.join("Packages"), index).unwrap();
    names
}
