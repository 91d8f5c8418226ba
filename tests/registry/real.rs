//! Debian's `docker-registry`, which others wrote, and the engine.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use sandbox::image::registry::{PushTarget, RegistryError, push};
use sandbox::image::{self, BuiltImage, ImageContext};
use serde_json::Value;

use crate::support::{Home, Project, docker};
use crate::{assert_same, image, login, pulled, pushed};

/// The password `canary-password`, as bcrypt.
const HTPASSWD: &str = "ada:$2b$04$rSRwlk3qwaIfnL0AMRMSQO39GUwo3t/VZLH7jc8GLbTiMGUjAFGzy\n";

struct Registry {
    process: Child,
    address: String,
    folder: tempfile::TempDir,
}

impl Registry {
    fn start() -> Self {
        Self::start_on("127.0.0.1", None)
    }

    /// One on an address of this machine; with a certificate and its key it speaks TLS.
    fn start_on(host: &str, identity: Option<(&str, &str)>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        // The port is free now; nobody else is told of it before it is taken again.
        let address = std::net::TcpListener::bind((host, 0)).unwrap().local_addr().unwrap().to_string();
        let mut tls = String::new();
        if let Some((certificate, key)) = identity {
            let place = folder.path().display();
            std::fs::write(folder.path().join("certificate.pem"), certificate).unwrap();
            std::fs::write(folder.path().join("key.pem"), key).unwrap();
            tls = format!(", tls: {{certificate: {place}/certificate.pem, key: {place}/key.pem}}");
        }
        let users = folder.path().join("htpasswd");
        std::fs::write(&users, HTPASSWD).unwrap();
        let config = folder.path().join("config.yml");
        let text = format!(
            "version: 0.1\nstorage: {{filesystem: {{rootdirectory: {0}/data}}}}\nhttp: {{addr: '{address}'{tls}}}\n\
             auth: {{htpasswd: {{realm: test, path: {0}/htpasswd}}}}\n",
            folder.path().display()
        );
        std::fs::write(&config, text).unwrap();
        let process = Command::new("docker-registry")
            .arg("serve")
            .arg(&config)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("docker-registry is installed: run `scripts/packages`");
        let registry = Self { process, address, folder };
        let begun = Instant::now();
        while std::net::TcpStream::connect(&registry.address).is_err() {
            assert!(begun.elapsed() < Duration::from_secs(20), "the registry does not listen");
            std::thread::sleep(Duration::from_millis(50));
        }
        registry
    }

    /// A configuration of Docker with a login for this registry.
    fn docker_config(&self) -> &Path {
        let auth = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, "ada:canary-password");
        let config = serde_json::json!({"auths": {&self.address: {"auth": auth}}});
        std::fs::write(self.folder.path().join("config.json"), config.to_string()).unwrap();
        self.folder.path()
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[tokio::test]
async fn a_real_registry_keeps_the_digest_and_gives_the_same_bytes_back() {
    let folder = tempfile::tempdir().unwrap();
    let image = image(folder.path());
    let registry = Registry::start();
    let repository = format!("{}/team/small", registry.address);
    let me = || login("ada", "canary-password");
    let first = pushed(&image, &repository, me()).await.unwrap();
    assert_eq!((first.uploaded, first.present), (3, 0));
    assert_eq!(pushed(&image, &repository, me()).await.unwrap().present, 3);
    let cache = folder.path().join("cache");
    assert_same(&image, &pulled(&cache, &repository, &image.manifest_digest, me()).await.unwrap());
    let other = PushTarget {
        repository: format!("{}/team/copy", registry.address).parse().unwrap(),
        tag: None,
        mount_from: Some("team/small".into()),
        authorities: None,
    };
    assert_eq!(push(&image, &other, me(), false).await.unwrap().mounted, 3);
    for wrong in [None, login("ada", "wrong")] {
        let error = pulled(&folder.path().join("no"), &repository, &image.manifest_digest, wrong).await.unwrap_err();
        assert!(matches!(error, RegistryError::Denied { status: 401, .. }), "{error:?}");
    }
    let absent = sandbox::image::reference::Digest::of(b"absent");
    let error = pulled(&folder.path().join("no"), &repository, &absent, me()).await.unwrap_err();
    assert!(matches!(error, RegistryError::Absent { .. }), "{error:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_registry_of_a_companys_own_authority_is_trusted_by_the_file_that_the_configuration_names() {
    // Any address but loopback's, which is spoken to in the clear; no packet goes there.
    let probe = std::net::UdpSocket::bind("0.0.0.0:0").unwrap();
    probe.connect("192.0.2.1:9").unwrap();
    let host = probe.local_addr().unwrap().ip().to_string();
    let authority_key = KeyPair::generate().unwrap();
    let mut authority = CertificateParams::default();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority_certificate = authority.self_signed(&authority_key).unwrap();
    let issuer = Issuer::new(authority, authority_key);
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(vec![host.clone()]).unwrap().signed_by(&key, &issuer).unwrap();
    let registry = Registry::start_on(&host, Some((&certificate.pem(), &key.serialize_pem())));
    let home = Home::new();
    let push = || {
        let target = format!("{}/team/base", registry.address);
        let mut command = home.sandbox();
        command.args(["--format", "json", "image", "push", "base", &target]);
        command.env("DOCKER_CONFIG", registry.docker_config()).output().unwrap()
    };
    let refused = push();
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && said.contains("certificate"), "{said}");
    let folder = home.path().join("config/sandbox");
    std::fs::create_dir_all(&folder).unwrap();
    let file = home.path().join("company.pem");
    std::fs::write(&file, authority_certificate.pem()).unwrap();
    std::fs::write(folder.join("config.yaml"), format!("network: {{ authorities: {} }}\n", file.display())).unwrap();
    let done = push();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let done: Value = serde_json::from_slice(&done.stdout).unwrap();
    let reference = done["reference"].as_str().unwrap();
    // Into a cache that has nothing, so that every byte comes by the same way back.
    let cache = home.path().join("empty-cache");
    let pull = |trusted: bool| {
        let mut command = home.sandbox();
        command.args(["image", "diff", reference, reference]).env("XDG_CACHE_HOME", &cache);
        if !trusted {
            command.env("XDG_CONFIG_HOME", home.path().join("other-config"));
        }
        command.env("DOCKER_CONFIG", registry.docker_config()).output().unwrap()
    };
    let refused = pull(false);
    assert!(
        !refused.status.success() && String::from_utf8_lossy(&refused.stderr).contains("certificate"),
        "{refused:?}"
    );
    let same = pull(true);
    assert!(same.status.success(), "{}", String::from_utf8_lossy(&same.stderr));
    assert!(String::from_utf8_lossy(&same.stdout).contains("packages that differ: 0"), "{same:?}");
}

/// The image `agent` with a configuration that no engine has seen, so that its layers are there and it is not.
async fn unseen(cache: &Path) -> BuiltImage {
    let apt_sources_root = Path::new("/etc/apt");
    let context = ImageContext {
        project_root: None,
        cache,
        apt_sources_root,
        progress: false,
        offline: false,
        allow_expired: false,
    };
    let built = image::ensure_archive(&image::locked("agent", None).unwrap(), &context).await.unwrap();
    let mut config: Value = serde_json::from_slice(built.config()).unwrap();
    let unique = format!("{:?} {}", std::time::SystemTime::now(), std::process::id());
    config["config"]["Labels"] = serde_json::json!({"test": unique});
    BuiltImage::of_config("unseen", config.to_string().into_bytes(), built.layers).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn up_pulls_a_foreign_image_that_the_engine_lacks_with_the_login_of_docker() {
    let home = Home::new();
    let cache = Path::new(env!("CARGO_TARGET_TMPDIR")).join("sandbox-test-cache/sandbox");
    let image = unseen(&cache).await;
    let registry = Registry::start();
    let repository = format!("{}/team/unseen", registry.address);
    let reference = pushed(&image, &repository, login("ada", "canary-password")).await.unwrap().reference;
    let id = image.config_digest.to_string();
    assert!(!docker(&["image", "inspect", &id]).status.success());
    let project = Project::new(&home, "foreign", &format!("image: {reference}\ncommand: [bash, -l]\n"));
    let up = |folder: &Path| {
        let words = ["up", project.name(), "--", "bash", "-c", "id -u; git --version"];
        home.sandbox().args(words).env("DOCKER_CONFIG", folder).output().unwrap()
    };
    let nobody = tempfile::tempdir().unwrap();
    let refused = up(nobody.path());
    assert_eq!(refused.status.code(), Some(125));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("registry-denied"), "{refused:?}");
    let output = up(registry.docker_config());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(String::from_utf8_lossy(&output.stdout).starts_with("1000\ngit version"), "{output:?}");
    assert!(!String::from_utf8_lossy(&output.stderr).contains("canary"));
    // The next start finds everything in the cache and the engine: the registry may be gone.
    drop(registry);
    assert!(up(nobody.path()).status.success());
    drop(project);
    docker(&["image", "rm", &id]);
    assert!(!docker(&["image", "inspect", &id]).status.success());
}

/// The password of the registry's user in a store that Docker's own helper for `pass` reads, and a configuration of Docker
/// that names the helper.
fn password_store(folder: &Path, registry: &str) {
    let run = |program: &str, words: &[&str], input: &str| {
        let mut command = Command::new(program);
        command.args(words).env("GNUPGHOME", folder.join("gnupg")).env("PASSWORD_STORE_DIR", folder.join("store"));
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{program}: {error}; run `scripts/packages`"));
        std::io::Write::write_all(&mut child.stdin.take().unwrap(), input.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
    };
    std::fs::create_dir(folder.join("gnupg")).unwrap();
    std::fs::set_permissions(folder.join("gnupg"), std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
    run(
        "gpg",
        &["--batch", "--passphrase", "", "--quick-generate-key", "test@example.invalid", "default", "default"],
        "",
    );
    run("pass", &["init", "test@example.invalid"], "");
    let entry = serde_json::json!({"ServerURL": registry, "Username": "ada", "Secret": "canary-password"});
    run("docker-credential-pass", &["store"], &entry.to_string());
    let config = serde_json::json!({"credHelpers": {registry: "pass"}});
    std::fs::write(folder.join("config.json"), config.to_string()).unwrap();
}

#[test]
fn the_login_comes_from_dockers_own_credential_helper() {
    let home = Home::new();
    let registry = Registry::start();
    let folder = tempfile::tempdir().unwrap();
    password_store(folder.path(), &registry.address);
    let push = |folder: &Path, store: &str| {
        let mut command = home.sandbox();
        command.args(["image", "push", "base", &format!("{}/team/base", registry.address)]);
        command.env("DOCKER_CONFIG", folder).env("GNUPGHOME", folder.join("gnupg"));
        command.env("PASSWORD_STORE_DIR", folder.join(store)).output().unwrap()
    };
    let done = push(folder.path(), "store");
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    // The helper has nothing for this registry: nothing is sent, and the registry refuses.
    std::fs::create_dir(folder.path().join("other")).unwrap();
    let refused = push(folder.path(), "other");
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && !said.contains("canary"), "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tag_stands_for_the_digest_that_the_lock_noted_until_it_is_locked_anew() {
    let home = Home::new();
    let cache = Path::new(env!("CARGO_TARGET_TMPDIR")).join("sandbox-test-cache/sandbox");
    let registry = Registry::start();
    let repository = format!("{}/team/tools", registry.address);
    let target = PushTarget {
        repository: repository.parse().unwrap(),
        tag: Some("stable".into()),
        mount_from: None,
        authorities: None,
    };
    let me = || login("ada", "canary-password");
    let first = unseen(&cache).await;
    push(&first, &target, me(), false).await.unwrap();
    let project = tempfile::tempdir().unwrap();
    let text = format!("FROM {repository}:stable\nUSER 0:0\nRUN echo made > /made\nUSER 1000:1000\n");
    std::fs::write(project.path().join("Dockerfile.agent"), text).unwrap();
    let image = |words: &[&str]| {
        let mut command = home.sandbox();
        command.args(["--format", "json", "image"]).args(words).arg("--project").arg(project.path());
        let output = command.env("DOCKER_CONFIG", registry.docker_config()).output().unwrap();
        (
            output.status.code().unwrap(),
            String::from_utf8(output.stdout).unwrap() + &String::from_utf8_lossy(&output.stderr),
        )
    };
    let lock = || -> Value {
        let text = std::fs::read(project.path().join("Dockerfile.agent.lock")).unwrap();
        serde_json::from_slice(&text).unwrap()
    };
    // Without a lock it is nothing that anybody could build.
    let (code, said) = image(&["lint"]);
    assert!(code == 1 && said.contains("unpinned") && said.contains("sandbox image lock"), "{said}");
    let (code, said) = image(&["build", "Dockerfile.agent"]);
    assert!(code != 0 && said.contains("sandbox image lock"), "{said}");

    let (code, said) = image(&["lock", "Dockerfile.agent"]);
    assert_eq!(code, 0, "{said}");
    let locked = lock();
    let base = |lock: &Value| lock["bases"][format!("{repository}:stable")]["tagged"].as_str().unwrap().to_owned();
    assert_eq!(base(&locked), first.manifest_digest.to_string());
    assert_eq!(image(&["lint"]).0, 0);

    // Somebody moves the tag. What is built is what was locked, and a new lock takes the new image.
    let second = unseen(&cache).await;
    assert_ne!(first.manifest_digest, second.manifest_digest);
    push(&second, &target, me(), false).await.unwrap();
    let (code, said) = image(&["build", "Dockerfile.agent", "--check"]);
    assert_eq!(code, 0, "{said}");
    assert!(said.contains(locked["result"]["manifest"].as_str().unwrap()), "{said}");
    let (code, said) = image(&["lock", "Dockerfile.agent"]);
    assert_eq!(code, 0, "{said}");
    assert_eq!(base(&lock()), second.manifest_digest.to_string());
    for image in [&first, &second] {
        docker(&["image", "rm", "--force", &image.config_digest.to_string()]);
    }
}
