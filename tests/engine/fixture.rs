//! A connection to the engine, an image with a program of ours, and names that are cleaned up.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;

use sandbox::engine::container::{ContainerSpec, Limits, Network, Tmpfs, User};
use sandbox::engine::{Chunk, Engine, EngineEnvironment, ExecSpec, StreamOutput, discover};
use sha2::{Digest, Sha256};

/// One test's connection and names.
pub(crate) struct Fixture {
    pub(crate) engine: Engine,
    pub(crate) image: String,
    test: &'static str,
}

impl Fixture {
    /// Connects, loads the image, and removes what an earlier run of the same test left.
    pub(crate) async fn new(test: &'static str) -> Self {
        let engine = connect().await;
        let image = load(&engine, &[]).await;
        let fixture = Self { engine, image, test };
        fixture.clean().await;
        fixture
    }

    pub(crate) fn name(&self, part: &str) -> String {
        format!("engine-test-{}-{part}", self.test)
    }

    pub(crate) fn labels(&self) -> BTreeMap<String, String> {
        BTreeMap::from([("dev.sandbox.test".to_owned(), self.test.to_owned())])
    }

    pub(crate) async fn create(&self, spec: &ContainerSpec) -> String {
        self.engine.create_container(spec).await.unwrap_or_else(|error| panic!("{error:?}"))
    }

    pub(crate) async fn start(&self, spec: &ContainerSpec) -> String {
        let id = self.create(spec).await;
        self.engine.start_container(&id).await.unwrap_or_else(|error| panic!("{error:?}"));
        id
    }

    async fn clean(&self) {
        let labels = [format!("dev.sandbox.test={}", self.test)];
        for container in self.engine.containers(&labels).await.unwrap() {
            self.engine.remove_container(&container.id).await.unwrap();
        }
        for volume in self.engine.volumes(&labels).await.unwrap() {
            self.engine.remove_volume(&volume.name).await.unwrap();
        }
        self.engine.remove_network(&self.name("egress")).await.unwrap();
    }
}

impl Drop for Fixture {
    fn drop(&mut self) {
        // The runtime of the test cannot be waited for here, so the cleaning has one of its own, and a connection.
        let test = self.test;
        let cleaning = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let fixture =
                    std::mem::ManuallyDrop::new(Fixture { engine: connect().await, image: String::new(), test });
                fixture.clean().await;
            });
        });
        if cleaning.join().is_err() && !std::thread::panicking() {
            panic!("the test `{test}` left something behind");
        }
    }
}

async fn connect() -> Engine {
    let text = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
    let environment = EngineEnvironment {
        docker_host: text("DOCKER_HOST"),
        docker_context: text("DOCKER_CONTEXT"),
        docker_config: text("DOCKER_CONFIG").map(PathBuf::from),
        docker_tls_verify: false,
        xdg_runtime_dir: text("XDG_RUNTIME_DIR").map(PathBuf::from),
        home: text("HOME").map(PathBuf::from).unwrap_or_default(),
    };
    let connected = match discover(None, &environment) {
        Ok(endpoint) => Engine::connect(endpoint).await,
        Err(error) => Err(error),
    };
    connected.unwrap_or_else(|error| panic!("this test needs a Docker Engine; start one with `make engine`: {error:?}"))
}

/// A small container of the fixture's image.
pub(crate) fn spec(fixture: &Fixture, command: &[&str]) -> ContainerSpec {
    ContainerSpec {
        name: fixture.name("container"),
        image: fixture.image.clone(),
        command: command.iter().map(|&word| word.to_owned()).collect(),
        user: User { uid: 1000, gid: 1000 },
        groups: vec![65533],
        environment: BTreeMap::from([("OURS".into(), "1".into())]),
        working_directory: "/".into(),
        hostname: Some("engine-test".into()),
        labels: fixture.labels(),
        network: Network::None,
        dns: vec!["127.0.0.53".into()],
        mounts: Vec::new(),
        tmpfs: vec![Tmpfs {
            target: "/tmp".into(),
            size: 1 << 20,
            mode: 0o1777,
            exec: false,
            owner: User { uid: 0, gid: 0 },
        }],
        limits: Limits { memory: 64 << 20, millicpus: 500, pids: 16, open_files: 64, file_size: 1 << 20, shm: 1 << 20 },
        seccomp: None,
        masked_paths: vec!["/proc/kcore".into()],
        readonly_paths: vec!["/proc/sys".into()],
        open_stdin: false,
    }
}

pub(crate) fn exec(role: &str, stdin: bool) -> ExecSpec {
    ExecSpec {
        command: vec!["/inside".into(), role.into()],
        user: User { uid: 1000, gid: 1000 },
        environment: BTreeMap::new(),
        working_directory: "/".into(),
        stdin,
    }
}

/// All output until its end: standard output and standard error.
pub(crate) async fn read_all(output: &mut StreamOutput) -> (Vec<u8>, Vec<u8>) {
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let reading = async {
        while let Some(chunk) = output.next().await.unwrap() {
            match chunk {
                Chunk::Out(bytes) => out.extend(bytes),
                Chunk::Err(bytes) => err.extend(bytes),
            }
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(60), reading).await.expect("the stream does not end");
    (out, err)
}

/// Loads an image with the program as `/inside`, a variable that must not reach anybody, and these volumes. Gives its id.
pub(crate) async fn load(engine: &Engine, volumes: &[&str]) -> String {
    let layer = archive(&[("inside", program(), 0o755)]);
    let volumes: BTreeMap<&str, BTreeMap<&str, &str>> =
        volumes.iter().map(|&volume| (volume, BTreeMap::new())).collect();
    let config = serde_json::to_vec(&serde_json::json!({
        "architecture": if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" },
        "os": "linux",
        "config": {
            "Env": ["LD_PRELOAD=/evil.so"],
            "Labels": { "dev.sandbox.test": "image" },
            "Volumes": if volumes.is_empty() { None } else { Some(volumes) },
        },
        "rootfs": { "type": "layers", "diff_ids": [format!("sha256:{}", hex::encode(Sha256::digest(&layer)))] },
    }))
    .unwrap();
    // Both forms in one archive, as the product writes it: what docker save does, and an OCI layout, which says what the
    // digest of the manifest is.
    let digest = |bytes: &[u8]| format!("sha256:{}", hex::encode(Sha256::digest(bytes)));
    let blob = |digest: &str| format!("blobs/{}", digest.replace(':', "/"));
    let part = |kind: &str, bytes: &[u8]| {
        let media_type = format!("application/vnd.oci.image.{kind}");
        serde_json::json!({ "mediaType": media_type, "digest": digest(bytes), "size": bytes.len() })
    };
    let manifest = serde_json::to_vec(&serde_json::json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": part("config.v1+json", &config),
        "layers": [part("layer.v1.tar", &layer)],
    }))
    .unwrap();
    let index = serde_json::json!({ "schemaVersion": 2, "manifests": [part("manifest.v1+json", &manifest)] });
    let docker = serde_json::json!([
        { "Config": blob(&digest(&config)), "RepoTags": null, "Layers": [blob(&digest(&layer))] }
    ]);
    let ids = [digest(&config), digest(&manifest)];
    let files = [
        ("oci-layout".to_owned(), br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec()),
        ("index.json".to_owned(), serde_json::to_vec(&index).unwrap()),
        ("manifest.json".to_owned(), serde_json::to_vec(&docker).unwrap()),
        (blob(&ids[0]), config),
        (blob(&ids[1]), manifest),
        (blob(&digest(&layer)), layer),
    ];
    let files: Vec<(&str, &[u8], u32)> =
        files.iter().map(|(name, bytes)| (name.as_str(), bytes.as_slice(), 0o644)).collect();
    engine.load_image(std::io::Cursor::new(archive(&files))).await.unwrap();
    for id in ids {
        if let Some(image) = engine.image(&id).await.unwrap() {
            return image.id;
        }
    }
    panic!("the engine lacks the image that was loaded");
}

fn archive(files: &[(&str, &[u8], u32)]) -> Vec<u8> {
    let mut archive = tar::Builder::new(Vec::new());
    for (name, bytes, mode) in files {
        let mut header = tar::Header::new_ustar();
        header.set_size(bytes.len() as u64);
        header.set_mode(*mode);
        archive.append_data(&mut header, name, *bytes).unwrap();
    }
    archive.into_inner().unwrap()
}

/// The program inside, compiled once a run.
fn program() -> &'static [u8] {
    static PROGRAM: OnceLock<Vec<u8>> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("inside");
        let compiler = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
        let status = Command::new(compiler)
            .args(["--edition=2024", "-Ctarget-feature=+crt-static", "-Cstrip=symbols", "-Copt-level=1", "-o"])
            .arg(&target)
            .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/engine/inside.rs"))
            .status()
            .unwrap();
        assert!(status.success(), "the program of the test image does not compile");
        std::fs::read(target).unwrap()
    })
}
