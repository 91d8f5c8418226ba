//! One image for every engine: whichever of its builders runs the steps of a Dockerfile, and wherever it keeps images.
//!
//! On the engine that answers, and in `make test-full` also on Docker Engine 26 and 28, with graph driver and containerd
//! store, which scripts/engines makes of Debian's packages and starts. That needs root.
#![allow(clippy::unwrap_used, reason = "a test says by a panic what is wrong")]

mod support;

use std::path::Path;
use std::process::{Command, Output};

use support::{Home, Project, docker, text};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");
/// `DOCKER_BUILDKIT`, by which a builder is chosen.
const BUILDERS: [&str; 2] = ["0", "1"];

/// Steps in which builders and stores are known to differ, as far as a Dockerfile may have them.
const STEPS: &str = r#"
FROM agent AS tools
USER 0:0
RUN mkdir -p /made/deep && echo tool > /made/deep/tool && chmod 0700 /made/deep && hostname > /made/hostname
FROM agent
USER 0:0
RUN mkdir -m 0700 /closed /closed-too
COPY tools /closed/
COPY tools/deep/ /closed-too
COPY tools /opt/new/deeper/
COPY --chown=1000:1000 tools /opt/owned
COPY --chown=1000:1000 tools/one /opt/owned-file/one
COPY tools/* /opt/pattern/
COPY tools/link /opt/followed
COPY --from=tools /made/deep /opt/deep
ADD tools.tar /opt/unpacked/
RUN ln /opt/owned/one /opt/owned/a-second-name && chmod 4755 /opt/owned-file/one \
    && rm -r /opt/new/deeper/deep && mkdir /opt/new/deeper/deep && echo again > /opt/new/deeper/deep/other \
    && rm -r /usr/share/doc/git && rm -r /usr/share/doc/make && mkdir /usr/share/doc/make && touch /usr/share/doc/make \
    && mkdir -m 1777 /opt/sticky && date > /tmp/now && cat /proc/uptime > /run/uptime \
    && chown -R 7:8 /opt/pattern && python3 -m compileall -q /usr/lib/python3*/json && date >> /var/log/dpkg.log
WORKDIR /opt/before/user
ENV A=1 B="two words" C=$A PATH=/opt/deep:$PATH
LABEL kept=yes
USER 1000:1000
RUN mkdir -p /opt/sticky/mine && id -u > /opt/sticky/mine/id
COPY tools/one /opt/as-root
ENTRYPOINT ["/bin/sh"]
CMD ["-c", "true"]
EXPOSE 80
STOPSIGNAL SIGINT
HEALTHCHECK CMD true
"#;

/// A project with that Dockerfile and the files that it takes.
fn project() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let file = |path: &str, content: &[u8]| {
        let path = folder.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    };
    file("Dockerfile.agent", STEPS.as_bytes());
    file("tools/one", b"1\n");
    file("tools/deep/two", b"2\n");
    std::os::unix::fs::symlink("one", folder.path().join("tools/link")).unwrap();
    let mut archive = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(2);
    header.set_mode(0o640);
    header.set_uid(1234);
    header.set_gid(1234);
    header.set_mtime(1);
    archive.append_data(&mut header, "packed/file", &b"p\n"[..]).unwrap();
    file("tools.tar", &archive.into_inner().unwrap());
    folder
}

/// The launcher, with an engine and a builder.
fn sandbox(home: &Home, engine: &str, builder: &str, arguments: &[&str]) -> Output {
    let mut command = home.sandbox();
    if !engine.is_empty() {
        command.env("DOCKER_HOST", engine);
    }
    command.env("DOCKER_BUILDKIT", builder).args(arguments).output().unwrap()
}

/// The builders that the engine which answers has, by the value of the variable.
fn builders() -> Vec<&'static str> {
    let said = text(&docker(&["info", "--format", "{{.ServerVersion}} {{.DriverStatus}}"]).stdout);
    let number = |place: usize| said.split(['.', '+', ' ', '-']).nth(place).and_then(|part| part.parse::<u32>().ok());
    let version = (number(0).unwrap(), number(1).unwrap());
    // https://github.com/moby/moby/pull/49194
    let without = said.contains("io.containerd.snapshotter") && version < (27, 5);
    if without { vec!["0"] } else { BUILDERS.to_vec() }
}

/// What a lock says that was made with this engine and builder.
fn locked(home: &Home, engine: &str, builder: &str, folder: &Path) -> String {
    let arguments = ["image", "lock", "Dockerfile.agent", "--project", folder.to_str().unwrap()];
    let output = sandbox(home, engine, builder, &arguments);
    assert!(output.status.success(), "{engine} DOCKER_BUILDKIT={builder}: {}", text(&output.stderr));
    std::fs::read_to_string(folder.join("Dockerfile.agent.lock")).unwrap()
}

/// The paths of two layers that differ, for the message of a test.
fn difference(home: &Home, folder: &Path, engine: &str) -> String {
    let mut all = Vec::new();
    for builder in BUILDERS {
        let output = folder.join(format!("out-{builder}"));
        locked(home, engine, builder, folder);
        let to = format!("oci:{}", output.display());
        let arguments = ["image", "build", "Dockerfile.agent", "--output", &to, "--project", folder.to_str().unwrap()];
        sandbox(home, engine, builder, &arguments);
        let lock = std::fs::read_to_string(folder.join("Dockerfile.agent.lock")).unwrap();
        let lock: serde_json::Value = serde_json::from_str(&lock).unwrap();
        let digest = lock["result"]["diff_ids"].as_array().unwrap().last().unwrap().as_str().unwrap().to_owned();
        let layer = std::fs::File::open(output.join("blobs").join(digest.replace(':', "/"))).unwrap();
        let mut entries = std::collections::BTreeSet::from([format!("{}", lock["run"])]);
        for entry in tar::Archive::new(layer).entries().unwrap() {
            let mut entry = entry.unwrap();
            let mut content = Vec::new();
            std::io::Read::read_to_end(&mut entry, &mut content).unwrap();
            let header = entry.header();
            entries.insert(format!(
                "{} {:?} {:o} {}:{} {} {}",
                entry.path().unwrap().display(),
                header.entry_type(),
                header.mode().unwrap(),
                header.uid().unwrap(),
                header.gid().unwrap(),
                header.mtime().unwrap(),
                text(&content).chars().take(60).collect::<String>().escape_debug()
            ));
        }
        all.push(entries);
    }
    all[0].symmetric_difference(&all[1]).cloned().collect::<Vec<_>>().join("\n")
}

#[test]
fn a_build_waits_for_somebody_elses_adding_up_of_the_disks_usage() {
    let home = Home::new();
    let folder = project();
    let builder = *builders().last().unwrap();
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !done.load(std::sync::atomic::Ordering::Relaxed) {
                    docker(&["system", "df"]);
                }
            });
        }
        let built = std::panic::catch_unwind(|| drop(locked(&home, "", builder, folder.path())));
        done.store(true, std::sync::atomic::Ordering::Relaxed);
        built.unwrap();
    });
}

#[test]
fn both_builders_of_an_engine_give_one_digest() {
    let home = Home::new();
    let folder = project();
    let mut locks = builders().into_iter().map(|builder| locked(&home, "", builder, folder.path()));
    let first = locks.next().unwrap();
    if locks.any(|lock| lock != first) {
        panic!("they differ:\n{}", difference(&home, folder.path(), ""));
    }
}

#[test]
fn the_dockerfile_of_this_repository_is_its_lock_for_both_builders() {
    let home = Home::new();
    for builder in builders() {
        let output = sandbox(&home, "", builder, &["image", "verify", "Dockerfile.agent", "--project", ROOT]);
        assert!(output.status.success(), "DOCKER_BUILDKIT={builder}: {}", text(&output.stderr));
    }
}

#[test]
fn a_builder_that_is_neither_is_refused() {
    let home = Home::new();
    let output = sandbox(&home, "", "maybe", &["image", "verify", "Dockerfile.agent", "--project", ROOT]);
    let said = text(&output.stderr);
    assert!(output.status.code() == Some(1) && said.contains("DOCKER_BUILDKIT"), "{said}");
}

#[test]
fn buildkit_gets_no_network_and_no_variable_and_keeps_nothing_of_a_build() {
    let home = Home::new();
    if !builders().contains(&"1") {
        // Then that is what is said.
        let said = sandbox(&home, "", "1", &["image", "verify", "Dockerfile.agent", "--project", ROOT]);
        assert!(text(&said.stderr).contains("image-builder"), "{}", text(&said.stderr));
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    // By its words the records of this test are told from those of others.
    let word = format!("word-{}", std::process::id());
    let file = folder.path().join("Dockerfile.agent");
    let lock = |steps: &str, more: &[&str]| {
        std::fs::write(&file, format!("FROM agent\nUSER 0:0\nLABEL {word}=1\nRUN : {word}; {steps}\n")).unwrap();
        let project = folder.path().to_str().unwrap();
        let arguments = [&["image", "lock", "Dockerfile.agent", "--project", project], more].concat();
        let mut command = home.sandbox();
        let output = command.env("DOCKER_BUILDKIT", "1").env("CANARY", &word).args(arguments).output().unwrap();
        (output.status.success(), text(&output.stderr))
    };
    let nothing_stays = || {
        let cache = disk_usage();
        assert!(!cache.contains(&word), "{cache}");
        let images = docker(&["image", "ls", "--all", "--quiet", "--filter", &format!("label={word}")]);
        assert_eq!((images.status.success(), text(&images.stdout)), (true, String::new()));
    };
    let (done, said) = lock("mkdir -p /opt && test -e /sys/class/net/eth0 && echo yes > /opt/network", &[]);
    assert!(!done && said.contains("image-build") && said.contains("--with-network"), "{said}");
    nothing_stays();
    // What a step says is told when it fails.
    let (done, said) = lock("echo the-reason >&2; exit 3", &[]);
    assert!(!done && said.contains("the-reason") && said.contains("exit code: 3"), "{said}");
    nothing_stays();
    let (done, said) =
        lock("test -z \"$CANARY\" && ls /sys/class/net | grep eth0 && echo yes > /etc/network", &["--with-network"]);
    assert!(done, "{said}");
    nothing_stays();
}

/// The records of the build cache. Engine 20.10 adds up for one at a time, and another test may be that one.
fn disk_usage() -> String {
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
    loop {
        let cache = docker(&["system", "df", "--verbose", "--format", "{{json .BuildCache}}"]);
        if cache.status.success() {
            return text(&cache.stdout);
        }
        let said = text(&cache.stderr);
        let waits = said.contains("a disk usage operation is already running") && std::time::Instant::now() < deadline;
        assert!(waits, "{said}");
        std::thread::sleep(std::time::Duration::from_millis(200));
    }
}

/// An engine of scripts/engines, stopped when it goes.
struct Other(&'static str);

impl Other {
    fn script(verb: &str, name: &str) -> Output {
        let script = Path::new(ROOT).join("scripts/engines");
        Command::new(script).args([verb, name]).env_remove("DOCKER_HOST").output().unwrap()
    }

    /// Its address. Fails with what the script says when it cannot be started.
    fn start(&self) -> String {
        let started = Self::script("start", self.0);
        assert!(started.status.success(), "{}", text(&started.stderr));
        text(&started.stdout).trim().to_owned()
    }
}

impl Drop for Other {
    fn drop(&mut self) {
        Self::script("stop", self.0);
    }
}

#[test]
#[ignore = "makes and starts four engines, which needs root; `make test-full` runs it"]
fn engines_26_and_28_with_either_store_give_the_digest_of_this_one() {
    let home = Home::new();
    let folder = project();
    let here = locked(&home, "", "", folder.path());
    let mut builds = 1;
    for name in ["26", "26-containerd", "28", "28-containerd"] {
        let other = Other(name);
        let engine = other.start();
        for builder in BUILDERS {
            if name == "26-containerd" && builder == "1" {
                // It does not get the files of a build: said, instead of an engine's puzzling words.
                let arguments = ["image", "lock", "Dockerfile.agent", "--project", folder.path().to_str().unwrap()];
                let refused = sandbox(&home, &engine, builder, &arguments);
                assert!(text(&refused.stderr).contains("image-builder"), "{}", text(&refused.stderr));
                continue;
            }
            for _ in 0..2 {
                let there = locked(&home, &engine, builder, folder.path());
                builds += 1;
                assert_eq!(here, there, "{name} DOCKER_BUILDKIT={builder}");
            }
            let verified =
                sandbox(&home, &engine, builder, &["image", "verify", "Dockerfile.agent", "--project", ROOT]);
            assert!(verified.status.success(), "{name} {builder}: {}", text(&verified.stderr));
            builds += 1;
        }
        // And what was built runs there, by the id that this store gives it.
        let project = Project::new(&home, "elsewhere", "image: Dockerfile.agent\n");
        for file in ["Dockerfile.agent", "Dockerfile.agent.lock", "tools.tar"] {
            std::fs::copy(folder.path().join(file), project.path().join(file)).unwrap();
        }
        let copied =
            Command::new("cp").arg("-a").arg(folder.path().join("tools")).arg(project.path()).status().unwrap();
        assert!(copied.success());
        let path = project.path().to_str().unwrap();
        let trusted = sandbox(&home, &engine, "", &["trust", "--yes", path]);
        assert!(trusted.status.success(), "{}", text(&trusted.stderr));
        let ran = sandbox(&home, &engine, "", &["up", project.name(), "--", "sh", "-c", "cat /opt/owned/one; id -u"]);
        assert_eq!(text(&ran.stdout).replace('\r', ""), "1\n1000\n", "{name}: {}", text(&ran.stderr));
        sandbox(&home, &engine, "", &["down", "--discard", project.name()]);
    }
    assert!(builds >= 20, "{builds}");
}
