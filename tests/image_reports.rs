//! What the launcher tells about images: the check against the lock, differences, bills of materials and provenance.
//!
//! Needs the packages of the images `base` and `agent`: from the cache of the tests, or else from Debian's mirrors.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use sandbox::image::reference::Digest;
use serde_json::Value;

/// A copy of the image `base` as a project's own, whose definition and lock can be changed.
struct Project(tempfile::TempDir);

impl Project {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let images = folder.path().join("images/base");
        std::fs::create_dir_all(&images).unwrap();
        for file in ["image.yaml", "image.lock"] {
            let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("images/base").join(file);
            std::fs::copy(from, images.join(file)).unwrap();
        }
        Self(folder)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.path().join("images/base").join(name)
    }

    fn lock(&self, change: impl FnOnce(&mut Value)) {
        let mut lock: Value = serde_json::from_slice(&std::fs::read(self.file("image.lock")).unwrap()).unwrap();
        change(&mut lock);
        std::fs::write(self.file("image.lock"), lock.to_string()).unwrap();
    }

    /// `sandbox image …` without any engine.
    fn image(&self, words: &[&str]) -> Output {
        let cache = Path::new(env!("CARGO_TARGET_TMPDIR")).join("sandbox-test-cache");
        Command::new(env!("CARGO_BIN_EXE_sandbox"))
            .args(["--engine", "unix:///nowhere", "image", "--project"])
            .arg(self.0.path())
            .args(words)
            .env("XDG_CACHE_HOME", cache)
            .env("CI", "true")
            .output()
            .unwrap()
    }

    fn json(&self, words: &[&str]) -> Value {
        let output = self.image(words);
        assert!(output.status.success(), "{}", text(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn a_check_that_succeeds_writes_the_layout_with_the_digests_of_the_lock() {
    let project = Project::new();
    let layout = project.0.path().join("layout");
    let output = format!("oci:{}", layout.display());
    let result = project.json(&["--format", "json", "build", "base", "--locked", "--check", "--output", &output]);
    let index: Value = serde_json::from_slice(&std::fs::read(layout.join("index.json")).unwrap()).unwrap();
    assert_eq!(index["manifests"][0]["digest"], result["manifest"]);
    let mut count = 0;
    for entry in std::fs::read_dir(layout.join("blobs/sha256")).unwrap() {
        let path = entry.unwrap().path();
        let digest = Digest::of(&std::fs::read(&path).unwrap());
        assert_eq!(digest.hex(), path.file_name().unwrap().to_str().unwrap());
        count += 1;
    }
    assert_eq!(count, 3, "a layer, a configuration and a manifest");
}

#[test]
fn a_check_that_fails_says_which_entry_differs_and_writes_nothing() {
    let project = Project::new();
    // The cache has to have the layer that the lock promises, or there is nothing to compare entries with.
    project.json(&["--format", "json", "build", "base"]);
    let definition = std::fs::read_to_string(project.file("image.yaml")).unwrap() + "files: {/etc/greeting: hello}\n";
    std::fs::write(project.file("image.yaml"), &definition).unwrap();
    project.lock(|lock| lock["definition"] = Digest::of(definition.as_bytes()).to_string().into());
    let layout = project.0.path().join("layout");
    let output = format!("oci:{}", layout.display());
    let checked = project.image(&["build", "base", "--check", "--output", &output]);
    assert_eq!(checked.status.code(), Some(1), "{}", text(&checked.stderr));
    let said = text(&checked.stdout);
    assert!(said.contains("base is not what its lock says\nlayer of `base`\n  locked sha256:"), "{said}");
    assert!(said.contains("\n+ /etc/greeting\n"), "{said}");
    assert!(said.contains("entries added: 1, removed: 0, changed: 0"), "{said}");
    assert!(!layout.exists());
    let checked = project.image(&["--format", "json", "build", "base", "--check"]);
    let document: Value = serde_json::from_slice(&checked.stdout).unwrap();
    assert_eq!((&document["repeats"], &document["matches"]), (&true.into(), &false.into()));
    assert_eq!(document["difference"]["files"][0]["path"], "/etc/greeting");
}

#[test]
fn a_difference_has_packages_and_files() {
    let project = Project::new();
    let document = project.json(&["--format", "json", "diff", "base", "agent"]);
    let packages = document["packages"].as_array().unwrap();
    assert!(packages.iter().any(|package| package["name"] == "git" && package["from"].is_null()));
    let files = document["files"].as_array().unwrap();
    let git = files.iter().find(|file| file["path"] == "/usr/bin/git").unwrap();
    assert_eq!(git["change"], "added");
    let status = files.iter().find(|file| file["path"] == "/var/lib/dpkg/status").unwrap();
    assert!(status["what"][0].as_str().unwrap().starts_with("size "));
    let same = project.json(&["--format", "json", "diff", "base", "base"]);
    assert_eq!(same, serde_json::json!({"packages": [], "files": []}));
}

/// Names and versions of the packages of the lock of `base`.
fn locked() -> BTreeSet<(String, String)> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("images/base/image.lock");
    let lock: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let packages = lock["packages"].as_array().unwrap().iter();
    packages.map(|package| (word(package, "name"), word(package, "version"))).collect()
}

fn word(value: &Value, key: &str) -> String {
    value[key].as_str().unwrap_or_else(|| panic!("no {key} in {value}")).to_owned()
}

#[test]
fn bills_of_materials_have_every_package_of_the_lock_and_every_file_and_are_always_the_same() {
    let project = Project::new();
    let spdx = project.image(&["sbom", "base"]);
    assert!(spdx.stdout == project.image(&["sbom", "base"]).stdout, "two runs differ");
    let spdx: Value = serde_json::from_slice(&spdx.stdout).unwrap();
    let packages = spdx["packages"].as_array().unwrap();
    let names: BTreeSet<_> =
        packages[1..].iter().map(|package| (word(package, "name"), word(package, "versionInfo"))).collect();
    assert_eq!(names, locked());
    let purl = &packages[1]["externalRefs"][0]["referenceLocator"];
    assert!(purl.as_str().unwrap().starts_with("pkg:deb/debian/"), "{purl}");
    let bash = spdx["files"].as_array().unwrap().iter().find(|file| file["fileName"] == "./usr/bin/bash").unwrap();
    let of_bash = |relation: &&Value| relation["relatedSpdxElement"] == bash["SPDXID"];
    let owner = spdx["relationships"].as_array().unwrap().iter().find(of_bash).unwrap()["spdxElementId"].clone();
    assert_eq!(packages.iter().find(|package| package["SPDXID"] == owner).unwrap()["name"], "bash");
    let cyclonedx = project.json(&["sbom", "base", "--as", "cyclonedx"]);
    let components = cyclonedx["components"].as_array().unwrap();
    let libraries: BTreeSet<_> = components
        .iter()
        .filter(|component| component["type"] == "library")
        .map(|component| (word(component, "name"), word(component, "version")))
        .collect();
    assert_eq!(libraries, locked());
    let file = components.iter().find(|component| component["name"] == "/usr/bin/bash").unwrap();
    assert_eq!(file["hashes"][0]["content"], bash["checksums"][1]["checksumValue"]);
}

#[test]
fn provenance_names_the_manifest_the_definition_and_everything_that_was_fetched() {
    let project = Project::new();
    let statement = project.json(&["provenance", "base"]);
    let built = project.json(&["--format", "json", "build", "base"]);
    let digest = format!("sha256:{}", word(&statement["subject"][0]["digest"], "sha256"));
    assert_eq!(digest, word(&built, "manifest"));
    let dependencies = statement["predicate"]["buildDefinition"]["resolvedDependencies"].as_array().unwrap();
    let definition = Digest::of(&std::fs::read(project.file("image.yaml")).unwrap()).hex();
    assert!(dependencies.iter().any(|dependency| dependency["digest"]["sha256"] == definition.as_str()));
    let fetched = dependencies.iter().filter(|dependency| dependency["uri"].is_string()).count();
    assert_eq!(fetched, locked().len());
}

#[test]
#[ignore = "installs validators from PyPI; `make test-full` runs it"]
fn independent_validators_accept_both_forms() {
    let project = Project::new();
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("validators");
    let python = folder.join("bin/python3");
    let run = |command: &mut Command| {
        let output = command.output().unwrap();
        assert!(output.status.success(), "{command:?}: {}{}", text(&output.stdout), text(&output.stderr));
    };
    if !folder.join("bin/pyspdxtools").exists() {
        run(Command::new("python3").args(["-m", "venv"]).arg(&folder));
        let packages = ["spdx-tools==0.8.5", "cyclonedx-python-lib[json-validation]==11.12.0"];
        run(Command::new(&python).args(["-m", "pip", "install", "--quiet"]).args(packages));
    }
    let spdx = project.0.path().join("base.spdx.json");
    std::fs::write(&spdx, project.image(&["sbom", "base"]).stdout).unwrap();
    run(Command::new(folder.join("bin/pyspdxtools")).arg("-i").arg(&spdx));
    let cyclonedx = project.0.path().join("base.cdx.json");
    std::fs::write(&cyclonedx, project.image(&["sbom", "base", "--as", "cyclonedx"]).stdout).unwrap();
    let script = "import sys\nfrom cyclonedx.validation.json import JsonStrictValidator\n\
                  from cyclonedx.schema import SchemaVersion\n\
                  sys.exit(JsonStrictValidator(SchemaVersion.V1_6).validate_str(open(sys.argv[1]).read()))";
    run(Command::new(&python).args(["-c", script]).arg(&cyclonedx));
    // The control: the validators do find mistakes.
    let mut wrong: Value = serde_json::from_slice(&std::fs::read(&cyclonedx).unwrap()).unwrap();
    wrong["components"][0]["type"] = "thing".into();
    std::fs::write(&cyclonedx, wrong.to_string()).unwrap();
    assert!(!Command::new(&python).args(["-c", script]).arg(&cyclonedx).output().unwrap().status.success());
    let mut wrong: Value = serde_json::from_slice(&std::fs::read(&spdx).unwrap()).unwrap();
    wrong["packages"][1]["SPDXID"] = "x y".into();
    std::fs::write(&spdx, wrong.to_string()).unwrap();
    assert!(!Command::new(folder.join("bin/pyspdxtools")).arg("-i").arg(&spdx).output().unwrap().status.success());
}

#[test]
fn outdated_tells_an_old_version_and_update_takes_the_new_one_and_nothing_else() {
    let project = Project::new();
    project.lock(|lock| {
        let packages = lock["packages"].as_array_mut().unwrap();
        let dash = packages.iter_mut().find(|package| package["name"] == "dash").unwrap();
        dash["version"] = "0.1".into();
    });
    let outdated = project.image(&["outdated", "base"]);
    assert_eq!(outdated.status.code(), Some(1), "{}", text(&outdated.stderr));
    let said = text(&outdated.stdout);
    assert!(said.starts_with("base:\n") && said.contains("  ~ deb dash 0.1 -> 0.5"), "{said}");
    let before = std::fs::read(project.file("image.lock")).unwrap();
    assert!(text(&project.image(&["update", "base"]).stdout).contains("~ deb dash 0.1 -> 0.5"));
    let after = std::fs::read(project.file("image.lock")).unwrap();
    assert_ne!(before, after);
    assert!(project.image(&["outdated", "base"]).status.success());
    // Nothing is newer now, so the lock stays as it is, to the byte.
    assert_eq!(project.json(&["--format", "json", "update", "base"]), serde_json::json!([]));
    assert_eq!(std::fs::read(project.file("image.lock")).unwrap(), after);
    assert!(project.image(&["build", "base", "--check"]).status.success());
}

/// `openssl`, which must succeed.
fn openssl(folder: &Path, arguments: &[&str]) {
    let output = Command::new("openssl").args(arguments).current_dir(folder).output().unwrap();
    assert!(output.status.success(), "openssl {arguments:?}: {}", text(&output.stderr));
}

#[test]
fn statements_that_are_signed_with_keys_of_openssl_are_verified_by_openssl_and_by_a_new_build() {
    use base64::Engine as _;
    let decoded = |text: &Value| base64::engine::general_purpose::STANDARD.decode(text.as_str().unwrap()).unwrap();
    let project = Project::new();
    let folder = project.0.path();
    let path = |name: &str| folder.join(name).display().to_string();
    openssl(folder, &["genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", "p256.pem"]);
    openssl(folder, &["genpkey", "-algorithm", "ED25519", "-out", "ed25519.pem"]);
    for key in ["p256", "ed25519"] {
        openssl(folder, &["pkey", "-in", &format!("{key}.pem"), "-pubout", "-out", &format!("{key}.pub")]);
    }
    for (key, what) in [("ed25519", "spdx"), ("p256", "cyclonedx"), ("p256", "provenance")] {
        let envelope = project.json(&["sign", "base", "--key", &path(&format!("{key}.pem")), "--as", what]);
        std::fs::write(folder.join("envelope.json"), envelope.to_string()).unwrap();
        // What the protocol of DSSE has signed, made here a second time, is for openssl to verify.
        let (kind, payload) = (envelope["payloadType"].as_str().unwrap(), decoded(&envelope["payload"]));
        let head = format!("DSSEv1 {} {kind} {} ", kind.len(), payload.len());
        std::fs::write(folder.join("message"), [head.as_bytes(), &payload].concat()).unwrap();
        std::fs::write(folder.join("signature"), decoded(&envelope["signatures"][0]["sig"])).unwrap();
        let public = format!("{key}.pub");
        let way = if key == "p256" { vec!["-digest", "sha256"] } else { Vec::new() };
        let verify =
            ["pkeyutl", "-verify", "-rawin", "-pubin", "-inkey", &public, "-sigfile", "signature", "-in", "message"];
        openssl(folder, &[&verify[..], &way[..]].concat());
        let verify = |key: &str| {
            let (key, envelope) = (path(key), path("envelope.json"));
            project.image(&["verify", "base", "--key", &key, "--statement", &envelope])
        };
        let good = verify(&public);
        assert!(good.status.success(), "{what}: {}", text(&good.stderr));
        let other = verify(if key == "p256" { "ed25519.pub" } else { "p256.pub" });
        assert!(text(&other.stderr).contains("image-signature"), "{what}: {}", text(&other.stderr));
    }
    // A good signature of another state of the repository is not one of this state: the last one is of the provenance.
    let definition = std::fs::read_to_string(project.file("image.yaml")).unwrap();
    std::fs::write(project.file("image.yaml"), format!("{definition}# another one\n")).unwrap();
    let digest = Digest::of(format!("{definition}# another one\n").as_bytes()).to_string();
    project.lock(|lock| lock["definition"] = digest.into());
    let envelope = path("envelope.json");
    let stale = project.image(&["verify", "base", "--key", &path("p256.pub"), "--statement", &envelope]);
    assert_eq!(stale.status.code(), Some(1));
    assert!(text(&stale.stderr).contains("image-signature"), "{}", text(&stale.stderr));
}

#[test]
fn an_image_is_built_of_what_the_project_keeps_and_of_nothing_else() {
    let project = Project::new();
    let kept = project.json(&["--format", "json", "vendor", "base"]);
    let folder = PathBuf::from(kept["folder"].as_str().unwrap());
    let files: Vec<PathBuf> = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(files.len() as u64, kept["files"].as_u64().unwrap());
    for file in &files {
        let digest = Digest::of(&std::fs::read(file).unwrap());
        assert_eq!(digest.hex(), file.file_name().unwrap().to_str().unwrap());
    }
    assert_eq!(project.json(&["--format", "json", "vendor", "base"])["copied"], 0);
    let fresh = |cache: &Path| {
        Command::new(env!("CARGO_BIN_EXE_sandbox"))
            .args([
                "--engine",
                "unix:///nowhere",
                "--format",
                "json",
                "image",
                "build",
                "base",
                "--offline",
                "--project",
            ])
            .arg(project.0.path())
            .env("XDG_CACHE_HOME", cache)
            .env("CI", "true")
            .output()
            .unwrap()
    };
    let cache = tempfile::tempdir().unwrap();
    let built = fresh(cache.path());
    assert!(built.status.success(), "{}", text(&built.stderr));
    let built: Value = serde_json::from_slice(&built.stdout).unwrap();
    let lock: Value = serde_json::from_slice(&std::fs::read(project.file("image.lock")).unwrap()).unwrap();
    assert_eq!(built["manifest"], lock["result"]["manifest"]);
    // Another content, a shorter one, and a link to the right one.
    let file = &files[0];
    let bytes = std::fs::read(file).unwrap();
    let mut other = bytes.clone();
    other[0] ^= 1;
    let aside = project.0.path().join("aside");
    std::fs::write(&aside, &bytes).unwrap();
    for change in ["other", "shorter", "link"] {
        std::fs::remove_file(file).unwrap();
        match change {
            "other" => std::fs::write(file, &other).unwrap(),
            "shorter" => std::fs::write(file, &bytes[1..]).unwrap(),
            _ => std::os::unix::fs::symlink(&aside, file).unwrap(),
        }
        let cache = tempfile::tempdir().unwrap();
        let refused = fresh(cache.path());
        assert!(text(&refused.stderr).contains("image-vendored"), "{change}: {}", text(&refused.stderr));
        let blob = cache.path().join("sandbox/blobs/sha256").join(file.file_name().unwrap());
        assert!(!blob.exists(), "{change}");
    }
    std::fs::remove_file(file).unwrap();
    let cache = tempfile::tempdir().unwrap();
    assert!(text(&fresh(cache.path()).stderr).contains("image-offline"));
}

/// The `cosign` of Debian 13, from the package that the launcher itself chooses and fetches.
fn cosign(project: &Project) -> PathBuf {
    let images = project.0.path().join("images/cosign");
    std::fs::create_dir_all(&images).unwrap();
    std::fs::write(images.join("image.yaml"), "version: 1\ndebian: {suite: trixie, packages: [cosign]}\n").unwrap();
    project.json(&["--format", "json", "lock", "cosign"]);
    project.json(&["--format", "json", "vendor", "cosign"]);
    let lock: Value = serde_json::from_slice(&std::fs::read(images.join("image.lock")).unwrap()).unwrap();
    let packages = lock["packages"].as_array().unwrap();
    let package = packages.iter().find(|package| package["name"] == "cosign").unwrap();
    let digest = word(package, "sha256");
    let file = project.0.path().join("images/vendor").join(digest.trim_start_matches("sha256:"));
    let folder = project.0.path().join("cosign");
    assert!(Command::new("dpkg-deb").arg("--extract").arg(file).arg(&folder).status().unwrap().success());
    folder.join("usr/bin/cosign")
}

#[test]
#[ignore = "fetches 20 MB and needs the package lists of Debian 13; `make test-full` runs it"]
fn cosign_verifies_a_signed_statement_against_the_manifest_and_refuses_another_key_or_manifest() {
    let project = Project::new();
    let cosign = cosign(&project);
    let folder = project.0.path().to_owned();
    for name in ["own", "other"] {
        let (key, public) = (format!("{name}.pem"), format!("{name}.pub"));
        openssl(&folder, &["genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", &key]);
        openssl(&folder, &["pkey", "-in", &key, "-pubout", "-out", &public]);
    }
    let layout = folder.join("layout");
    let output = format!("oci:{}", layout.display());
    let built = project.json(&["--format", "json", "build", "base", "--output", &output]);
    let manifest = layout.join("blobs/sha256").join(word(&built, "manifest").trim_start_matches("sha256:"));
    let envelope = project.image(&["sign", "base", "--key", folder.join("own.pem").to_str().unwrap()]).stdout;
    std::fs::write(folder.join("envelope.json"), envelope).unwrap();
    let verify = |key: &str, manifest: &Path| {
        let output = Command::new(&cosign)
            .args(["verify-blob-attestation", "--key", key, "--signature", "envelope.json"])
            .args(["--type", "slsaprovenance1", "--insecure-ignore-tlog"])
            .arg(manifest)
            .current_dir(&folder)
            .env("HOME", &folder)
            .output()
            .unwrap();
        (output.status.success(), text(&output.stderr))
    };
    let (good, said) = verify("own.pub", &manifest);
    assert!(good && said.contains("Verified OK"), "{said}");
    let (good, said) = verify("other.pub", &manifest);
    assert!(!good && said.contains("signatures"), "{said}");
    let other = folder.join("other.json");
    std::fs::write(&other, [std::fs::read(&manifest).unwrap(), b"\n".to_vec()].concat()).unwrap();
    let (good, said) = verify("own.pub", &other);
    assert!(!good && said.contains("no matching subject digest"), "{said}");
}
