//! Configuration, manifest and archive of an image (OCI image-spec: config.md, manifest.md, image-layout.md).
//!
//! The archive is an OCI layout and has Docker's `manifest.json` too, so every engine loads it. Layers stay uncompressed:
//! their digests then do not hang on a compressor's version.

use std::path::PathBuf;

use futures_util::{StreamExt as _, TryStreamExt as _};
use oci_spec::OciSpecError;
use oci_spec::image::{
    Config, Descriptor, History, ImageConfiguration, ImageIndexBuilder, ImageManifestBuilder, MediaType, Os, RootFs,
};
use serde_json::json;
use tokio::io::AsyncRead;
use tokio_util::io::{ReaderStream, StreamReader};

use super::error::ImageError;
use super::reference::Digest;

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
    /// What it says of commands: environment, user, folder, command.
    pub run: Config,
    /// Debian's name of the architecture, which is Go's too for those supported.
    pub architecture: &'a str,
    /// Unix seconds.
    pub epoch: u64,
}

impl BuiltImage {
    /// Puts an image together; the same input gives the same bytes.
    pub fn assemble(settings: Settings<'_>, layers: Vec<BuiltLayer>) -> Result<Self, ImageError> {
        let second = i64::try_from(settings.epoch).unwrap_or_default();
        let created = jiff::Timestamp::from_second(second).unwrap_or_default().to_string();
        let mut step = History::default();
        step.set_created(Some(created.clone())).set_created_by(Some("sandbox image build".to_owned()));
        let mut root = RootFs::default();
        root.set_diff_ids(layers.iter().map(|layer| layer.diff_id.to_string()).collect());
        let mut config = ImageConfiguration::default();
        config
            .set_architecture(settings.architecture.into())
            .set_os(Os::Linux)
            .set_created(Some(created))
            .set_config(Some(settings.run))
            .set_history(Some(vec![step; layers.len()]))
            .set_rootfs(root);
        Self::of_config(settings.name, canonical(&config)?, layers)
    }

    /// Puts layers below a configuration whose bytes are given. The manifest is ours and names uncompressed layers.
    pub fn of_config(name: &str, config: Vec<u8>, layers: Vec<BuiltLayer>) -> Result<Self, ImageError> {
        let config_digest = Digest::of(&config);
        let manifest = ImageManifestBuilder::default()
            .schema_version(2_u32)
            .media_type(MediaType::ImageManifest)
            .config(descriptor(MediaType::ImageConfig, config.len() as u64, &config_digest)?)
            .layers(
                layers
                    .iter()
                    .map(|layer| descriptor(MediaType::ImageLayer, layer.size, &layer.diff_id))
                    .collect::<Result<Vec<_>, _>>()?,
            )
            .build()?;
        let manifest = canonical(&manifest)?;
        let manifest_digest = Digest::of(&manifest);
        Ok(Self { name: name.to_owned(), config_digest, manifest_digest, layers, config, manifest })
    }

    /// The bytes of the configuration.
    pub fn config(&self) -> &[u8] {
        &self.config
    }

    /// When the image was made by its own account, as Unix seconds.
    pub fn epoch(&self) -> Option<u64> {
        let config: serde_json::Value = serde_json::from_slice(&self.config).ok()?;
        let created: jiff::Timestamp = config.get("created")?.as_str()?.parse().ok()?;
        u64::try_from(created.as_second()).ok()
    }

    /// The bytes of the manifest.
    pub fn manifest(&self) -> &[u8] {
        &self.manifest
    }

    /// The small files of the archive, with their paths.
    pub fn documents(&self) -> Result<Vec<(String, Vec<u8>)>, ImageError> {
        let blob = |digest: &Digest| format!("blobs/sha256/{}", digest.hex());
        let manifest = descriptor(MediaType::ImageManifest, self.manifest.len() as u64, &self.manifest_digest)?;
        let index = ImageIndexBuilder::default()
            .schema_version(2_u32)
            .media_type(MediaType::ImageIndex)
            .manifests(vec![manifest])
            .build()?;
        let layers: Vec<String> = self.layers.iter().map(|layer| blob(&layer.diff_id)).collect();
        // Not of OCI: what `docker load` looks for (Docker image-spec v1.2, "Combined Image JSON + Filesystem Changeset").
        let docker = json!([{"Config": blob(&self.config_digest), "Layers": layers, "RepoTags": null}]);
        Ok(vec![
            (blob(&self.config_digest), self.config.clone()),
            (blob(&self.manifest_digest), self.manifest.clone()),
            ("index.json".into(), canonical(&index)?),
            ("manifest.json".into(), docker.to_string().into_bytes()),
            ("oci-layout".into(), br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec()),
        ])
    }

    /// The archive as a stream; layers are read from the cache as the stream is.
    pub fn archive(&self) -> Result<impl AsyncRead + Send + Unpin + 'static, ImageError> {
        let mut parts = Vec::new();
        for layer in &self.layers {
            parts.push(Part::Bytes(header(&format!("blobs/sha256/{}", layer.diff_id.hex()), layer.size)));
            parts.push(Part::File(layer.path.clone()));
            parts.push(Part::Bytes(padding(layer.size)));
        }
        for (path, bytes) in self.documents()? {
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
        Ok(StreamReader::new(Box::pin(streams.try_flatten())))
    }
}

fn descriptor(kind: MediaType, size: u64, digest: &Digest) -> Result<Descriptor, ImageError> {
    let digest: oci_spec::image::Digest = digest.to_string().parse()?;
    Ok(Descriptor::new(kind, size, digest))
}

/// JSON without white space and with keys in bytewise order, whatever order the crate's types have.
fn canonical(document: &impl serde::Serialize) -> Result<Vec<u8>, ImageError> {
    let mut value = serde_json::to_value(document).map_err(OciSpecError::from)?;
    value.sort_all_objects();
    Ok(value.to_string().into_bytes())
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
