//! The image builder with all packages at hand, against mmdebstrap and `docker build` with the same packages at hand; its
//! unpacking against xz; and its memory.

use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sandbox::image::lock::{self, Package};
use sandbox::image::reference::Digest;
use sandbox::image::{build, definition};
use sha2::Digest as _;

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
    let peer = |variant: &str| {
        let mut command = Command::new("mmdebstrap");
        command.arg("--quiet").arg(format!("--variant={variant}")).arg(format!("--include={}", names.join(",")));
        command.arg("--hook-dir=/usr/share/mmdebstrap/hooks/merged-usr").arg(suite).arg(&output).arg(&source);
        time(|| drop(succeed(&mut command)))
    };
    // What is built is what an installation gives (tests/image_root.rs), so one is what it is measured by; unpacking alone
    // is a part of that.
    let [built, installed] = in_turn(table.runs.min(3), ours, || peer("custom"));
    let what = format!("image build {IMAGE}, {} packages at hand", names.len());
    table.compare(&what, built, "mmdebstrap", installed, Aim::AtMostTimes(0.2));
    let extracted: Vec<_> = (0..table.runs.min(3)).map(|_| peer("extract")).collect();
    table.compare(&what, built, "mmdebstrap, unpacking only", median_time(&extracted), Aim::None);

    unpacking(table, &cache, folder.path());
    docker_build(table, &repository, &names, built);
    memory(table, folder.path());

    build();
    let idle: Vec<_> = (0..3 * table.runs).map(|_| time(build)).collect();
    table.single(&format!("image build {IMAGE}, nothing to do"), median_time(&idle), Aim::AtMost(NOTHING));
}

/// What a chain's locks name, and where the cache keeps it.
fn packages() -> Vec<Package> {
    let chain = definition::chain(IMAGE, None).unwrap();
    lock::locks(&chain).unwrap().into_iter().flat_map(|lock| lock.packages).collect()
}

/// Taking all packages apart, on as many threads as there are processors, against `xz -d` of their contents, one after
/// the other.
fn unpacking(table: &Table, cache: &Path, folder: &Path) {
    let (packages, cache) = (packages(), cache.join("sandbox"));
    let mut archives = Vec::new();
    for package in &packages {
        let path = sandbox::image::fetch::blob(&cache, &package.sha256);
        let member = succeed(Command::new("ar").arg("t").arg(&path));
        let member = String::from_utf8(member).unwrap();
        let member = member.lines().find(|name| name.starts_with("data.tar")).unwrap().to_owned();
        assert!(member.ends_with(".xz"), "{member} is for another program than xz");
        let archive = folder.join(format!("{}.tar.xz", package.name));
        fs::write(&archive, succeed(Command::new("ar").arg("p").arg(&path).arg(&member))).unwrap();
        archives.push(archive);
    }
    let ours = || {
        time(|| {
            for unpacked in build::unpack_all(&packages, &cache, folder, &indicatif::ProgressBar::hidden()).unwrap() {
                unpacked.unwrap();
            }
        })
    };
    let peer = || {
        time(|| {
            for archive in &archives {
                let mut command = Command::new("xz");
                command.arg("--decompress").arg("--stdout").arg("--threads=1").arg(archive).stdout(Stdio::null());
                assert!(command.status().unwrap().success());
            }
        })
    };
    let [unpacked, decompressed] = in_turn(table.runs.min(3), ours, peer);
    let what = format!("unpacking {} packages", packages.len());
    table.compare(&what, unpacked, "the sum of `xz -d`, one thread", decompressed, Aim::AtMostTimes(0.6));
}

/// The build against a Dockerfile that installs the same packages from the same files, on a root that has apt already.
fn docker_build(table: &Table, repository: &Path, names: &[String], built: Quantity) {
    if !Command::new("docker").arg("version").output().is_ok_and(|output| output.status.success()) {
        return table.remark("no engine answers, so there is no `docker build` to compare with");
    }
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("root.tar");
    succeed(Command::new("mmdebstrap").args(["--quiet", "--variant=apt", "bookworm"]).arg(&root));
    let base = String::from_utf8(succeed(Command::new("docker").args(["import", "--"]).arg(&root))).unwrap();
    let base = base.trim();
    let tag = "sandbox-bench-root:latest";
    succeed(Command::new("docker").args(["tag", base, tag]));
    fs::remove_file(&root).unwrap();
    let context = folder.path().join("repository");
    fs::create_dir(&context).unwrap();
    for entry in fs::read_dir(repository).unwrap() {
        let path = entry.unwrap().path();
        fs::copy(&path, context.join(path.file_name().unwrap())).unwrap();
    }
    let names = names.join(" ");
    let dockerfile = format!(
        "FROM {tag}\nCOPY repository /repository\nRUN rm -f /etc/apt/sources.list /etc/apt/sources.list.d/* \\\n \
         && echo 'deb [trusted=yes] file:/repository ./' > /etc/apt/sources.list && apt-get update --quiet \\\n \
         && DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends --allow-downgrades {names}\n"
    );
    fs::write(folder.path().join("Dockerfile"), dockerfile).unwrap();
    let times: Vec<_> = (0..table.runs.min(3))
        .map(|_| {
            let mut command = Command::new("docker");
            command.args(["build", "--quiet", "--no-cache", "--network=none", "--tag", "sandbox-bench-built"]);
            let taken = time(|| drop(succeed(command.arg(folder.path()))));
            // Under its name: without it nothing would find it any more.
            succeed(Command::new("docker").args(["image", "rm", "sandbox-bench-built"]));
            taken
        })
        .collect();
    let _ = Command::new("docker").args(["image", "rm", "--force", tag]).output();
    table.compare(
        "image build, packages at hand",
        built,
        "docker build of the same",
        median_time(&times),
        Aim::AtMostTimes(0.5),
    );
}

/// The most memory that a build takes whose agent is one file of 400 MB in a tarball of npm.
fn memory(table: &Table, folder: &Path) {
    let cache = folder.join("cache");
    let (size, tarball) = agent(&cache.join("sandbox/blobs/sha256"));
    let images = folder.join("images/large");
    fs::create_dir_all(&images).unwrap();
    let text = "version: 1\nnpm:\n  - {package: large, version: 1.0.0, bin: {large: large}}\n";
    fs::write(images.join("image.yaml"), text).unwrap();
    // What comes out is not known before, so that the build ends with the difference.
    let any = Digest::of(b"");
    let lock = lock::Lock {
        definition: Digest::of(text.as_bytes()),
        base: None,
        sources: Vec::new(),
        packages: Vec::new(),
        npm: vec![tarball],
        result: Some(lock::ResultDigests { diff_ids: vec![any.clone()], config: any.clone(), manifest: any }),
        ..lock::locks(&definition::chain("base", None).unwrap()).unwrap().remove(0)
    };
    fs::write(images.join("image.lock"), lock.text().unwrap()).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_sandbox"));
    command.args(["image", "build", "large"]).current_dir(folder).env("XDG_CACHE_HOME", &cache).env("CI", "true");
    let mut child = command.stdin(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut most = 0.0_f64;
    while child.try_wait().unwrap().is_none() {
        // VmHWM is the most that was in memory so far (proc_pid_status(5)); what was a moment before the end is near it.
        let status = fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kilobytes = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<f64>().ok());
        most = most.max(kilobytes.unwrap_or_default() * 1024.0);
        std::thread::sleep(Duration::from_millis(2));
    }
    let said = std::io::read_to_string(child.stderr.take().unwrap()).unwrap();
    assert!(said.contains("image-mismatch"), "{said}");
    let what = format!("memory of a build with an agent of {:.0} MB", size / 1e6);
    table.single(&what, Quantity::Bytes(most), Aim::AtMost(Quantity::Bytes(300e6)));
}

/// Puts a tarball with one program of 400 MB, which hardly can be compressed, into a store.
fn agent(blobs: &Path) -> (f64, lock::NpmTarball) {
    const SIZE: u64 = 400_000_000;
    fs::create_dir_all(blobs).unwrap();
    let mut builder = tar::Builder::new(flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast()));
    let mut header = tar::Header::new_gnu();
    header.set_size(SIZE);
    header.set_mode(0o755);
    // Numbers of a simple generator: the same in each run, and no two alike near each other.
    let mut state = 1_u64;
    let program: Vec<u8> = std::iter::repeat_with(|| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as u32
    })
    .flat_map(u32::to_le_bytes)
    .take(SIZE as usize)
    .collect();
    builder.append_data(&mut header, "package/large", &program[..]).unwrap();
    let bytes = builder.into_inner().unwrap().finish().unwrap();
    let sha256 = Digest::of(&bytes);
    fs::write(blobs.join(sha256.hex()), &bytes).unwrap();
    let integrity = format!("sha512-{}", STANDARD.encode(sha2::Sha512::digest(&bytes)));
    let (package, version, size) = ("large".to_owned(), "1.0.0".to_owned(), bytes.len() as u64);
    (SIZE as f64, lock::NpmTarball { package, version, integrity, sha256, size, place: None, url: None })
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
