//! Builds of one lock give the same bytes, whatever surrounds them: folders, users, umasks, time zones, languages, threads,
//! empty and warm caches, kills, and other builds at the same time.
//!
//! Needs the packages of the image `agent`: from the cache in `SANDBOX_TEST_CACHE`, or else from Debian's mirrors.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test says by a panic what is wrong, and with which seed"
)]

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

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
        allow_expired: false,
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

/// A project with a copy of the image `base` and all files that it is made of, so that builds need no network.
struct Vendored(tempfile::TempDir);

impl Vendored {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let images = folder.path().join("project/images/base");
        std::fs::create_dir_all(&images).unwrap();
        for file in ["image.yaml", "image.lock"] {
            std::fs::copy(Path::new(env!("CARGO_MANIFEST_DIR")).join("images/base").join(file), images.join(file))
                .unwrap();
        }
        let project = Self(folder);
        let cache = Path::new(env!("CARGO_TARGET_TMPDIR")).join("sandbox-test-cache");
        let kept = project.command(&cache, "", &["vendor", "base"]).output().unwrap();
        assert!(kept.status.success(), "{}", String::from_utf8_lossy(&kept.stderr));
        // Another user reads it too, whatever umask another test of this process has set meanwhile.
        assert!(Command::new("chmod").args(["-R", "a+rX"]).arg(project.0.path()).status().unwrap().success());
        project
    }

    /// `sandbox image …`; `around` is a shell's text before the command, such as `umask 0;`.
    fn command(&self, cache: &Path, around: &str, words: &[&str]) -> Command {
        let mut command = Command::new("bash");
        command.args(["-c", &format!("{around} exec \"$0\" \"$@\"")]);
        command.arg(env!("CARGO_BIN_EXE_sandbox")).args(["--engine", "unix:///nowhere", "image", "--project"]);
        command.arg(self.0.path().join("project")).args(words);
        command.env("XDG_CACHE_HOME", cache).env("CI", "true").env_remove("SANDBOX_LOG").current_dir("/");
        command
    }

    /// Builds from nothing but the project into this cache, and gives the digest of the archive.
    fn built(&self, cache: &Path, around: &str) -> Digest {
        let output = cache.join("image.tar");
        let to = format!("docker-archive:{}", output.display());
        let done = self.command(cache, around, &["build", "base", "--offline", "--output", &to]).output().unwrap();
        assert!(done.status.success(), "{around}: {}", String::from_utf8_lossy(&done.stderr));
        Digest::of(&std::fs::read(output).unwrap())
    }

    fn cache(&self, name: &str) -> PathBuf {
        let cache = self.0.path().join(name);
        std::fs::create_dir_all(&cache).unwrap();
        std::fs::set_permissions(&cache, std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
        cache
    }
}

/// Every file of the cache that has a digest for a name has that digest.
fn assert_whole(cache: &Path) {
    for folder in ["sandbox/blobs/sha256", "sandbox/layers"] {
        for entry in std::fs::read_dir(cache.join(folder)).into_iter().flatten() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap().trim_end_matches(".tar").to_owned();
            if name.len() == 64 {
                assert_eq!(name, Digest::of(&std::fs::read(&path).unwrap()).hex(), "{}", path.display());
            }
        }
    }
}

#[test]
fn users_umasks_time_zones_languages_and_processors_leave_no_trace() {
    let project = Vendored::new();
    let first = project.built(&project.cache("first"), "");
    // Whoever is root becomes nobody, and others become nobody by a namespace of their own.
    let nobody = match rustix::process::getuid().is_root() {
        true => "exec setpriv --reuid 65534 --regid 65534 --clear-groups",
        false => "exec unshare --user",
    };
    let surroundings = [
        ("another user", format!("{nobody} env HOME=/nonexistent USER=nobody \"$0\" \"$@\";")),
        ("a umask that allows all", "umask 0;".to_owned()),
        ("a umask that allows nothing", "umask 077;".to_owned()),
        ("another time zone", "export TZ=Pacific/Kiritimati;".to_owned()),
        ("another language", "export LC_ALL=tr_TR.UTF-8 LANG=tr_TR.UTF-8;".to_owned()),
        ("one processor", "exec taskset --cpu-list 0 \"$0\" \"$@\";".to_owned()),
        ("no variables", "exec env -i XDG_CACHE_HOME=\"$XDG_CACHE_HOME\" \"$0\" \"$@\";".to_owned()),
        ("few files at once", "ulimit -n 64;".to_owned()),
    ];
    for (index, (what, around)) in surroundings.iter().enumerate() {
        let cache = project.cache(&format!("a cache with a longer name, number {index}"));
        assert_eq!(project.built(&cache, around), first, "{what}");
        // And what is in the cache now gives the same again.
        assert_eq!(project.built(&cache, ""), first, "{what}, the second time");
    }
}

#[test]
fn a_cache_survives_kills_at_any_moment() {
    let project = Vendored::new();
    let begun = Instant::now();
    let first = project.built(&project.cache("first"), "");
    let whole = begun.elapsed();
    let seed = std::env::var("SANDBOX_TEST_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed: u64 = seed.unwrap_or(u64::from(std::process::id()));
    println!("SANDBOX_TEST_SEED={seed}");
    let rounds = if std::env::var_os("SANDBOX_TEST_FULL").is_some() { 60 } else { 8 };
    let cache = project.cache("killed");
    let mut state = seed | 1;
    let mut killed = 0;
    for _ in 0..rounds {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let moment = whole.mul_f64(1.2 * (state >> 33) as f64 / f64::from(u32::MAX >> 1));
        let mut build = project.command(&cache, "", &["build", "base", "--offline"]);
        let mut build = build.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        std::thread::sleep(moment);
        build.kill().unwrap();
        killed += usize::from(build.wait().unwrap().code().is_none());
        assert_whole(&cache);
        if state & 1 << 40 == 0 {
            // The finished layer, if there is one, would leave nothing to kill.
            let _ = std::fs::remove_dir_all(cache.join("sandbox/layers"));
        }
    }
    assert!(killed > 0, "no build was killed before its end");
    assert_eq!(project.built(&cache, ""), first);
}

#[test]
fn builds_at_the_same_time_share_one_cache() {
    let project = Vendored::new();
    let first = project.built(&project.cache("first"), "");
    let cache = project.cache("shared");
    let builds: Vec<_> = (0..3)
        .map(|_| {
            let mut build = project.command(&cache, "", &["build", "base", "--offline"]);
            build.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
        })
        .collect();
    for build in builds {
        let done = build.wait_with_output().unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    }
    assert_whole(&cache);
    assert_eq!(project.built(&cache, ""), first);
}

#[test]
fn what_makes_layers_asks_no_clock_and_no_surroundings() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/image");
    for file in ["archive", "build", "control", "finish", "tree", "unpack", "wheel"] {
        let text = std::fs::read_to_string(folder.join(file).with_extension("rs")).unwrap();
        let text = text.split("#[cfg(test)]").next().unwrap();
        for word in
            ["SystemTime", "Instant", "::now(", "env::var", "temp_dir", "HashMap", "HashSet", "getuid", "random"]
        {
            assert!(!text.contains(word), "src/image/{file}.rs has {word}");
        }
    }
}
