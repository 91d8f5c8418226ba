//! Configuration, manifest and archive of an image (OCI image-spec: config.md, manifest.md, image-layout.md).
//!
//! The archive is an OCI layout and has Docker's `manifest.json` too, so every engine loads it. Layers stay uncompressed:
//! their digests then do not hang on a compressor's version.

use std::collections::BTreeMap;
use std::path::PathBuf;

use futures_util::{StreamExt as _, TryStreamExt as _};
use serde_json::json;
use tokio::io::AsyncRead;
use tokio_util::io::{ReaderStream, StreamReader};

use super::reference::Digest;

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

/// A layer in the cache.
#[derive(Debug, Clone)]
pub struct BuiltLayer {
    /// Digest of the uncompressed tar.
    pub diff_id: Digest,
    /// Its size in bytes.
    pub size: u64,
    /// Where it is.
    pub path: PathBuf,
}

/// An image whose parts are all on disk or in memory.
#[derive(Debug, Clone)]
pub struct BuiltImage {
    /// The definition's name.
    pub name: String,
    /// Digest of the configuration: the image id on graph drivers.
    pub config_digest: Digest,
    /// Digest of the manifest: the image id on the containerd store.
    pub manifest_digest: Digest,
    /// Layers, lowest first.
    pub layers: Vec<BuiltLayer>,
    config: Vec<u8>,
    manifest: Vec<u8>,
}

/// What an image's configuration says apart from layers.
#[derive(Debug)]
pub struct Settings<'a> {
    /// The name of the definition.
    pub name: &'a str,
    /// Environment of every command.
    pub environment: &'a BTreeMap<String, String>,
    /// Debian's name of the architecture, which is Go's too for those supported.
    pub architecture: &'a str,
    /// Unix seconds.
    pub epoch: u64,
}

impl BuiltImage {
    /// Puts an image together; the same input gives the same bytes.
    pub fn assemble(settings: &Settings<'_>, layers: Vec<BuiltLayer>) -> Self {
        let second = i64::try_from(settings.epoch).unwrap_or_default();
        let created = jiff::Timestamp::from_second(second).unwrap_or_default().to_string();
        let environment: Vec<String> =
            settings.environment.iter().map(|(key, value)| format!("{key}={value}")).collect();
        let diff_ids: Vec<String> = layers.iter().map(|layer| layer.diff_id.to_string()).collect();
        let history: Vec<_> =
            layers.iter().map(|_| json!({"created": created, "created_by": "sandbox image build"})).collect();
        // Keys stand in bytewise order; serde_json keeps the order in which they are written.
        let config = json!({
            "architecture": settings.architecture,
            "config": {"Cmd": ["/bin/bash"], "Env": environment, "User": "1000:1000", "WorkingDir": "/workspace"},
            "created": created,
            "history": history,
            "os": "linux",
            "rootfs": {"diff_ids": diff_ids, "type": "layers"},
        });
        let config = config.to_string().into_bytes();
        let config_digest = Digest::of(&config);
        let descriptors: Vec<_> = layers
            .iter()
            .map(|layer| json!({"digest": layer.diff_id.to_string(), "mediaType": LAYER, "size": layer.size}))
            .collect();
        let manifest = json!({
            "config": {"digest": config_digest.to_string(), "mediaType": CONFIG, "size": config.len()},
            "layers": descriptors,
            "mediaType": MANIFEST,
            "schemaVersion": 2,
        });
        let manifest = manifest.to_string().into_bytes();
        let manifest_digest = Digest::of(&manifest);
        Self { name: settings.name.to_owned(), config_digest, manifest_digest, layers, config, manifest }
    }

    /// The small files of the archive, with their paths.
    pub fn documents(&self) -> Vec<(String, Vec<u8>)> {
        let blob = |digest: &Digest| format!("blobs/sha256/{}", digest.hex());
        let index = json!({
            "manifests": [{"digest": self.manifest_digest.to_string(), "mediaType": MANIFEST, "size": self.manifest.len()}],
            "mediaType": "application/vnd.oci.image.index.v1+json",
            "schemaVersion": 2,
        });
        let layers: Vec<String> = self.layers.iter().map(|layer| blob(&layer.diff_id)).collect();
        let docker = json!([{"Config": blob(&self.config_digest), "Layers": layers, "RepoTags": null}]);
        vec![
            (blob(&self.config_digest), self.config.clone()),
            (blob(&self.manifest_digest), self.manifest.clone()),
            ("index.json".into(), index.to_string().into_bytes()),
            ("manifest.json".into(), docker.to_string().into_bytes()),
            ("oci-layout".into(), br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec()),
        ]
    }

    /// The archive as a stream; layers are read from the cache as the stream is.
    pub fn archive(&self) -> impl AsyncRead + Send + Unpin + 'static {
        let mut parts = Vec::new();
        for layer in &self.layers {
            parts.push(Part::Bytes(header(&format!("blobs/sha256/{}", layer.diff_id.hex()), layer.size)));
            parts.push(Part::File(layer.path.clone()));
            parts.push(Part::Bytes(padding(layer.size)));
        }
        for (path, bytes) in self.documents() {
            let size = bytes.len() as u64;
            parts.push(Part::Bytes(header(&path, size)));
            parts.push(Part::Bytes(bytes));
            parts.push(Part::Bytes(padding(size)));
        }
        parts.push(Part::Bytes(vec![0; 1024]));
        let streams = futures_util::stream::iter(parts).then(|part| async move {
            let reader: Box<dyn AsyncRead + Send + Unpin> = match part {
                Part::Bytes(bytes) => Box::new(std::io::Cursor::new(bytes)),
                Part::File(path) => Box::new(tokio::fs::File::open(path).await?),
            };
            Ok::<_, std::io::Error>(ReaderStream::with_capacity(reader, 1 << 17))
        });
        StreamReader::new(Box::pin(streams.try_flatten()))
    }
}

enum Part {
    Bytes(Vec<u8>),
    File(PathBuf),
}

fn header(path: &str, size: u64) -> Vec<u8> {
    let mut header = tar::Header::new_gnu();
    // Paths here are fixed and short, so this cannot fail; an empty name would be refused by the engine.
    let _ = header.set_path(path);
    header.set_entry_type(tar::EntryType::Regular);
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(size);
    header.set_cksum();
    header.as_bytes().to_vec()
}

fn padding(size: u64) -> Vec<u8> {
    vec![0; usize::try_from(size.next_multiple_of(512) - size).unwrap_or_default()]
}
