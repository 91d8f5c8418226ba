//! Images from a Dockerfile: the one at the root is what its lock says, the same files are the same image, what differs is
//! named, and nothing of the developer's goes into a build.
#![allow(clippy::unwrap_used, reason = "a test says by a panic what is wrong")]

mod support;

use std::path::Path;

use support::{Home, Project, docker, text};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

#[test]
fn the_lint_has_nothing_to_say_about_it() {
    let home = Home::without_engine();
    let lint = |arguments: &[&str]| {
        let output = home.sandbox().args(["image", "lint"]).args(arguments).output().unwrap();
        (output.status.code().unwrap(), text(&output.stdout))
    };
    let (code, said) = lint(&["--strict", "--project", ROOT]);
    assert_eq!((code, said.trim()), (0, "Dockerfile.agent: 0 errors, 0 warnings"));
    // The same with a tag is an error, and the line is shown.
    let project = tempfile::tempdir().unwrap();
    let file = std::fs::read_to_string(Path::new(ROOT).join("Dockerfile.agent")).unwrap();
    let lines = file.lines().take_while(|line| *line != "FROM agent").count() + 1;
    let tagged = file.replace("\nFROM agent\n", "\nFROM debian:bookworm\n") + "RUN apt-get install -y jq\n";
    std::fs::write(project.path().join("Dockerfile.agent"), tagged).unwrap();
    let folder = project.path().to_str().unwrap();
    let (code, said) = lint(&["--project", folder]);
    assert_eq!(code, 1, "{said}");
    assert!(said.contains(&format!("--> Dockerfile.agent:{lines}:6")), "{said}");
    assert!(said.contains("FROM debian:bookworm") && said.contains("1 error, 1 warning"), "{said}");
    let (code, said) = lint(&["--format", "json", "--project", folder]);
    let said: serde_json::Value = serde_json::from_str(&said).unwrap();
    assert_eq!((code, said["findings"][0]["rule"].as_str()), (1, Some("unpinned")));
    assert_eq!((said["findings"][0]["line"].as_u64(), said["errors"].as_u64()), (Some(lines as u64), Some(1)));
}

/// A project with a Dockerfile, in a folder of its own.
struct Dockerfile<'a> {
    home: &'a Home,
    folder: tempfile::TempDir,
}

impl<'a> Dockerfile<'a> {
    fn new(home: &'a Home, text: &str) -> Self {
        let project = Self { home, folder: tempfile::tempdir().unwrap() };
        project.write("Dockerfile.agent", text);
        project
    }

    fn write(&self, path: &str, content: &str) {
        let path = self.folder.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }

    /// `sandbox image` in this project: exit code, standard output and error.
    fn image(&self, arguments: &[&str]) -> (i32, String, String) {
        let mut command = self.home.sandbox();
        command.args(["--format", "json", "image"]).args(arguments).arg("--project").arg(self.folder.path());
        let output = command.env("CANARY_VARIABLE", CANARY).output().unwrap();
        (output.status.code().unwrap(), text(&output.stdout), text(&output.stderr))
    }

    fn lock(&self, more: &[&str]) -> serde_json::Value {
        let (code, _, said) = self.image(&[&["lock", "Dockerfile.agent"], more].concat());
        assert_eq!(code, 0, "{said}");
        serde_json::from_slice(&std::fs::read(self.folder.path().join("Dockerfile.agent.lock")).unwrap()).unwrap()
    }
}

const CANARY: &str = "canary-4f1c9d2e";

/// Paths of the layer that the steps made, with the text of files.
fn own_layer(project: &Dockerfile<'_>, lock: &serde_json::Value) -> Vec<(String, String)> {
    let output = project.folder.path().join("out");
    let (code, _, said) =
        project.image(&["build", "Dockerfile.agent", "--output", &format!("oci:{}", output.display())]);
    assert_eq!(code, 0, "{said}");
    let digest = lock["result"]["diff_ids"].as_array().unwrap().last().unwrap().as_str().unwrap();
    let layer = std::fs::File::open(output.join("blobs").join(digest.replace(':', "/"))).unwrap();
    let mut archive = tar::Archive::new(layer);
    let mut found = Vec::new();
    for entry in archive.entries().unwrap() {
        let mut entry = entry.unwrap();
        let mut bytes = Vec::new();
        std::io::Read::read_to_end(&mut entry, &mut bytes).unwrap();
        found.push((entry.path().unwrap().display().to_string(), text(&bytes)));
    }
    found
}

#[test]
fn its_lock_in_this_repository_is_what_the_engine_builds() {
    let home = Home::new();
    let verified = home.sandbox().args(["image", "verify", "Dockerfile.agent", "--project", ROOT]).output().unwrap();
    assert!(verified.status.success(), "{}", text(&verified.stderr));
    let lock = std::fs::read(Path::new(ROOT).join("Dockerfile.agent.lock")).unwrap();
    let lock: serde_json::Value = serde_json::from_slice(&lock).unwrap();
    assert_eq!(
        text(&verified.stdout).trim(),
        format!("Dockerfile.agent {}", lock["result"]["config"].as_str().unwrap())
    );
}

#[test]
fn the_same_files_are_the_same_image_in_another_folder_with_other_times_and_permissions() {
    let home = Home::new();
    let dockerfile = "FROM agent AS tools\nUSER 0:0\nRUN mkdir /made && echo tool > /made/tool\n\
                      FROM agent\nUSER 0:0\nCOPY tools /opt/tools\nCOPY --from=tools /made/tool /opt/made\nRUN mkdir -p /home/extra \
                      && echo \"extra:!:$(date +%s):0:99999:7:::\" >> /etc/shadow \
                      && ln /opt/made /opt/twin && rm -r /usr/share/doc/git && touch /etc/passwd && date > /tmp/now \
                      && mkdir -p /root/.cache && date > /root/.cache/now\nENV B=2 A=1\nUSER 1000:1000\n";
    let mut locks = Vec::new();
    let mut layers = Vec::new();
    for (mode, time) in [(0o644, 1_000_000), (0o600, 2_000_000_000)] {
        let project = Dockerfile::new(&home, dockerfile);
        project.write("tools/one", "1\n");
        project.write("tools/.env", CANARY);
        project.write("not-named", CANARY);
        project.write("tools/deep/two", "2\n");
        let file = project.folder.path().join("tools/one");
        let permissions: std::fs::Permissions = std::os::unix::fs::PermissionsExt::from_mode(mode);
        std::fs::set_permissions(&file, permissions).unwrap();
        let file = std::fs::File::options().write(true).open(&file).unwrap();
        file.set_modified(std::time::UNIX_EPOCH + std::time::Duration::from_secs(time)).unwrap();
        let lock = project.lock(&[]);
        layers.push(own_layer(&project, &lock));
        locks.push(lock);
    }
    assert_eq!(locks[0], locks[1]);
    assert_eq!(locks[0]["run"]["env"]["A"], "1");
    let paths: Vec<&str> = layers[0].iter().map(|(path, _)| path.as_str()).collect();
    for path in ["opt/tools/deep/two", "opt/made", "opt/twin", "home/extra/", "etc/shadow", "usr/share/doc/.wh.git"] {
        assert!(paths.contains(&path), "{path}: {paths:?}");
    }
    for path in ["tmp/now", "root/.cache/now", "opt/tools/.env", ".sandbox", ".dockerignore", "etc/passwd-"] {
        assert!(!paths.contains(&path), "{path}: {paths:?}");
    }
    assert!(layers[0].iter().all(|(_, content)| !content.contains(CANARY)));
}

#[test]
fn a_step_that_makes_two_builds_differ_is_named_with_its_file() {
    let home = Home::new();
    let project = Dockerfile::new(
        &home,
        "FROM agent\nUSER 0:0\nRUN mkdir -p /opt && head -c 8 /dev/urandom > /opt/seed && echo x > /opt/same\n",
    );
    project.lock(&[]);
    let (code, said, _) = project.image(&["build", "Dockerfile.agent", "--check"]);
    let said: serde_json::Value = serde_json::from_str(&said).unwrap();
    assert_eq!((code, &said["repeats"], &said["matches"]), (1, &false.into(), &false.into()));
    let files: Vec<&str> =
        said["difference"]["files"].as_array().unwrap().iter().map(|file| file["path"].as_str().unwrap()).collect();
    assert_eq!(files, ["/opt/seed"]);
    let (code, _, said) = project.image(&["verify", "Dockerfile.agent"]);
    assert!(code == 1 && said.contains("image-mismatch"), "{said}");
}

#[test]
fn its_steps_have_no_network_and_no_variable_unless_the_lock_says_so() {
    let home = Home::new();
    // Other tests build meanwhile, and their images are not looked at.
    let label = format!("sandbox.test=network-{}", std::process::id());
    let step = "FROM agent\nLABEL LABEL_OF_THIS_TEST\nUSER 0:0\nRUN mkdir -p /opt && env > /opt/env && ls /sys/class/net > /opt/net && grep -q eth0 /opt/net\n";
    let project = Dockerfile::new(&home, &step.replace("LABEL_OF_THIS_TEST", &label));
    let (code, _, said) = project.image(&["lock", "Dockerfile.agent"]);
    assert!(code == 1 && said.contains("image-build") && said.contains("--with-network"), "{said}");
    assert!(!project.folder.path().join("Dockerfile.agent.lock").exists());
    // The very same step, so that it was the network that it lacked.
    let lock = project.lock(&["--with-network"]);
    assert_eq!(lock["network"], true);
    let environment = own_layer(&project, &lock).into_iter().find(|(path, _)| path == "opt/env").unwrap().1;
    assert!(environment.contains("PATH=") && !environment.contains(CANARY), "{environment}");
    let (name, value) = label.split_once('=').unwrap();
    assert_eq!(lock["run"]["labels"][name], value);
    // Nothing that was built on the base stays, also after a failure; the base does.
    let left = docker(&["image", "ls", "--all", "--quiet", "--filter", &format!("label={label}")]);
    assert_eq!((left.status.success(), text(&left.stdout)), (true, String::new()));
    // By the id that a graph driver gives it, or a containerd store.
    let ids = ["config", "manifest"].map(|id| lock["bases"]["agent"][id].as_str().unwrap());
    assert!(ids.iter().any(|id| docker(&["image", "inspect", id]).status.success()));
}

#[test]
fn a_lock_does_not_stand_for_other_files_than_those_it_was_made_of() {
    let home = Home::new();
    let project = Dockerfile::new(&home, "FROM agent\nCOPY a /opt/a\n");
    project.write("a", "1\n");
    project.write("b", "1\n");
    project.lock(&[]);
    let build = || {
        let (code, _, said) = project.image(&["build", "Dockerfile.agent"]);
        (code, said)
    };
    project.write("b", "2\n");
    assert_eq!(build().0, 0);
    project.write("a", "2\n");
    let (code, said) = build();
    assert!(code == 1 && said.contains("image-stale") && said.contains("files"), "{said}");
    project.write("a", "1\n");
    project.write("Dockerfile.agent", "FROM agent\nCOPY a /opt/a\nUSER 1000\n");
    let (code, said) = build();
    assert!(code == 1 && said.contains("image-stale") && said.contains("Dockerfile"), "{said}");
}

#[test]
fn a_manifest_names_it_and_up_runs_it() {
    let home = Home::new();
    let project = Project::new(&home, "dockerfile", "image: Dockerfile.agent\n");
    let dockerfile = "FROM agent\nUSER 0:0\nCOPY greeting /opt/greeting\nENV GREETED=yes\nUSER 1000:1000\n";
    let text_of = format!("hello from {}\n", project.name());
    std::fs::write(project.path().join("Dockerfile.agent"), dockerfile).unwrap();
    std::fs::write(project.path().join("greeting"), &text_of).unwrap();
    let folder = project.path().to_str().unwrap();
    let lock = home.sandbox().args(["image", "lock", "Dockerfile.agent", "--project", folder]).output().unwrap();
    assert!(lock.status.success(), "{}", text(&lock.stderr));
    let up = |home: &Home| {
        let script = "cat /opt/greeting; echo $GREETED; id -u";
        home.sandbox().args(["up", project.name(), "--", "sh", "-c", script]).output().unwrap()
    };
    // The approval was of a manifest without a Dockerfile.
    let refused = up(&home);
    assert!(refused.status.code() == Some(125) && text(&refused.stderr).contains("Dockerfile.agent"), "{refused:?}");
    let trusted = home.sandbox().args(["trust", "--yes", folder]).output().unwrap();
    assert!(trusted.status.success(), "{}", text(&trusted.stderr));
    let ran = up(&home);
    assert_eq!(text(&ran.stdout).replace('\r', ""), format!("{text_of}yes\n1000\n"), "{}", text(&ran.stderr));
    let known: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(project.path().join("Dockerfile.agent.lock")).unwrap()).unwrap();
    let id = known["result"]["config"].as_str().unwrap().to_owned();
    assert!(home.sandbox().args(["down", "--discard", project.name()]).output().unwrap().status.success());
    docker(&["image", "rm", &id]);
}
