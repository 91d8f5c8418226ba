//! Manifests, indexes and configurations from a registry (image-spec: manifest.md, image-index.md, config.md), parsed
//! strictly: what could be read in two ways is refused.

use oci_spec::image::{Arch, Descriptor, ImageConfiguration, ImageIndex, ImageManifest, MediaType, Os};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::RegistryError;
use crate::image::reference::Digest;

/// What a manifest request accepts: OCI's types, and Docker's, which most images still have.
pub(super) const ACCEPT: &str = "application/vnd.oci.image.manifest.v1+json, application/vnd.oci.image.index.v1+json, \
     application/vnd.docker.distribution.manifest.v2+json, application/vnd.docker.distribution.manifest.list.v2+json";
/// The media type of our own manifests.
pub(super) const OURS: &str = "application/vnd.oci.image.manifest.v1+json";
/// Layers of one image; engines have about the same limit.
const LAYERS: usize = 127;
/// Bytes of all layers of one image, as they travel.
const TOTAL: u64 = 16 << 30;

/// How a layer is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Compression {
    None,
    Gzip,
    Zstd,
}

/// A part of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Part {
    pub(super) digest: Digest,
    pub(super) size: u64,
}

/// A manifest that was understood.
#[derive(Debug)]
pub(super) struct Manifest {
    pub(super) config: Part,
    pub(super) layers: Vec<(Part, Compression)>,
}

/// What a reference leads to.
#[derive(Debug)]
pub(super) enum Document {
    Manifest(Manifest),
    /// The manifest of this machine's platform.
    Index(Part),
}

/// Go's name of this machine's architecture.
pub(super) fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// Reads a manifest or an index.
pub(super) fn document(bytes: &[u8], architecture: &'static str) -> Result<Document, RegistryError> {
    let value: Value = read(bytes, "manifest")?;
    let has = |key: &str| value.get(key).is_some();
    let declared = value.get("mediaType").and_then(Value::as_str);
    let wrong = |problem| RegistryError::Document { document: "manifest", problem };
    // A document that is both would be one image to us and another to somebody else (image-spec 1.0.2, GHSA-77vh).
    match (has("manifests"), has("layers") || has("config")) {
        (true, false) => {
            if declared
                .is_some_and(|kind| !matches!(MediaType::from(kind), MediaType::ImageIndex) && kind != DOCKER_LIST)
            {
                return Err(wrong("it is an index and says that it is something else"));
            }
            index(read(bytes, "index")?, architecture).map(Document::Index)
        }
        (false, true) => {
            if declared.is_some_and(|kind| kind != OURS && kind != DOCKER_MANIFEST) {
                return Err(wrong("it is no image manifest by its own account"));
            }
            manifest(&read(bytes, "manifest")?).map(Document::Manifest)
        }
        (true, true) => Err(wrong("it is a manifest and an index at once")),
        (false, false) => Err(wrong("it is neither a manifest nor an index")),
    }
}

const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";

fn read<T: DeserializeOwned>(bytes: &[u8], document: &'static str) -> Result<T, RegistryError> {
    serde_json::from_slice(bytes).map_err(|source| RegistryError::Json { document, source })
}

fn part(descriptor: &Descriptor) -> Result<Part, RegistryError> {
    let digest = descriptor.digest().to_string().parse();
    let digest = digest
        .map_err(|_| RegistryError::Document { document: "manifest", problem: "a digest in it is not sha256" })?;
    Ok(Part { digest, size: descriptor.size() })
}

fn index(index: ImageIndex, architecture: &'static str) -> Result<Part, RegistryError> {
    let mut platforms = Vec::new();
    for entry in index.manifests() {
        let Some(platform) = entry.platform() else { continue };
        // arm64 has one variant in use; another one would be for another processor.
        let variant = platform.variant().as_deref().is_none_or(|variant| architecture == "arm64" && variant == "v8");
        if *platform.os() == Os::Linux && *platform.architecture() == Arch::from(architecture) && variant {
            return part(entry);
        }
        let name: String = format!("{}/{}", platform.os(), platform.architecture());
        platforms.push(name.chars().take(40).collect::<String>().escape_debug().to_string());
    }
    platforms.truncate(20);
    Err(RegistryError::Platform { architecture, platforms })
}

fn manifest(manifest: &ImageManifest) -> Result<Manifest, RegistryError> {
    let wrong = |problem| RegistryError::Document { document: "manifest", problem };
    let kind = manifest.config().media_type().to_string();
    if kind != "application/vnd.oci.image.config.v1+json" && kind != "application/vnd.docker.container.image.v1+json" {
        return Err(wrong("it is not of an image but of another artifact"));
    }
    if manifest.layers().is_empty() || manifest.layers().len() > LAYERS {
        return Err(wrong("it has no layers, or too many"));
    }
    let mut layers = Vec::new();
    let mut total = 0_u64;
    for layer in manifest.layers() {
        let compression = match layer.media_type().to_string().as_str() {
            "application/vnd.oci.image.layer.v1.tar" | "application/vnd.docker.image.rootfs.diff.tar" => {
                Compression::None
            }
            "application/vnd.oci.image.layer.v1.tar+gzip" | "application/vnd.docker.image.rootfs.diff.tar.gzip" => {
                Compression::Gzip
            }
            "application/vnd.oci.image.layer.v1.tar+zstd" => Compression::Zstd,
            // Layers that are elsewhere, and encrypted ones.
            _ => return Err(wrong("it has a layer of a kind that is not known")),
        };
        let part = part(layer)?;
        total = total.saturating_add(part.size);
        layers.push((part, compression));
    }
    if total > TOTAL {
        return Err(wrong("its layers are larger than any image should be"));
    }
    Ok(Manifest { config: part(manifest.config())?, layers })
}

/// The digests of the unpacked layers, from a configuration that is for this machine.
pub(super) fn diff_ids(config: &[u8], layers: usize, architecture: &'static str) -> Result<Vec<Digest>, RegistryError> {
    let wrong = |problem| RegistryError::Document { document: "configuration", problem };
    let config: ImageConfiguration = read(config, "configuration")?;
    if *config.os() != Os::Linux || *config.architecture() != Arch::from(architecture) {
        let platforms = vec![format!("{}/{}", config.os(), config.architecture()).escape_debug().to_string()];
        return Err(RegistryError::Platform { architecture, platforms });
    }
    let ids = config.rootfs().diff_ids();
    if ids.len() != layers {
        return Err(wrong("it has another number of layers than the manifest"));
    }
    let ids: Result<_, _> = ids.iter().map(|id| id.parse()).collect();
    ids.map_err(|_| wrong("a digest in it is not sha256"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn digest(character: &str) -> String {
        format!("sha256:{}", character.repeat(64))
    }

    fn layered(kind: &str) -> Value {
        json!({
            "schemaVersion": 2,
            "config": {"mediaType": "application/vnd.docker.container.image.v1+json", "digest": digest("a"), "size": 2},
            "layers": [{"mediaType": kind, "digest": digest("b"), "size": 3}],
        })
    }

    fn parse(value: &Value) -> Result<Document, RegistryError> {
        document(value.to_string().as_bytes(), "amd64")
    }

    #[test]
    fn reads_the_manifests_of_docker_and_of_oci() {
        for (kind, wanted) in [
            ("application/vnd.oci.image.layer.v1.tar", Compression::None),
            ("application/vnd.oci.image.layer.v1.tar+zstd", Compression::Zstd),
            ("application/vnd.docker.image.rootfs.diff.tar.gzip", Compression::Gzip),
        ] {
            let Document::Manifest(found) = parse(&layered(kind)).unwrap() else { panic!("{kind}") };
            assert_eq!((found.config.size, found.layers[0].0.size, found.layers[0].1), (2, 3, wanted));
        }
    }

    #[test]
    fn takes_the_manifest_of_this_platform_out_of_an_index() {
        let entry = |os: &str, architecture: &str, variant: Option<&str>, character: &str| {
            let platform = json!({"os": os, "architecture": architecture, "variant": variant});
            json!({"mediaType": OURS, "digest": digest(character), "size": 1, "platform": platform})
        };
        let all = [
            entry("windows", "amd64", None, "1"),
            entry("linux", "arm64", Some("v8"), "2"),
            entry("linux", "amd64", Some("v3"), "3"),
            entry("linux", "amd64", None, "4"),
        ];
        let index = json!({"schemaVersion": 2, "manifests": all});
        for (architecture, character) in [("amd64", "4"), ("arm64", "2")] {
            let Document::Index(part) = document(index.to_string().as_bytes(), architecture).unwrap() else { panic!() };
            assert_eq!(part.digest.to_string(), digest(character));
        }
        let none = json!({"schemaVersion": 2, "manifests": [all[0]]});
        assert!(matches!(parse(&none), Err(RegistryError::Platform { .. })));
    }

    #[test]
    fn refuses_what_can_be_read_in_two_ways_and_what_is_no_image() {
        let mut both = layered("application/vnd.oci.image.layer.v1.tar");
        both["manifests"] = json!([]);
        let mut mislabelled = layered("application/vnd.oci.image.layer.v1.tar");
        mislabelled["mediaType"] = json!("application/vnd.oci.image.index.v1+json");
        let mut artifact = layered("application/vnd.oci.image.layer.v1.tar");
        artifact["config"]["mediaType"] = json!("application/vnd.oci.empty.v1+json");
        let foreign = layered("application/vnd.docker.image.rootfs.foreign.diff.tar.gzip");
        let mut md5 = layered("application/vnd.oci.image.layer.v1.tar");
        md5["layers"][0]["digest"] = json!(format!("sha512:{}", "a".repeat(128)));
        let mut large = layered("application/vnd.oci.image.layer.v1.tar");
        large["layers"][0]["size"] = json!(u64::MAX);
        let mut none = layered("application/vnd.oci.image.layer.v1.tar");
        none["layers"] = json!([]);
        for wrong in [both, mislabelled, artifact, foreign, md5, large, none, json!({}), json!({"schemaVersion": 2})] {
            assert!(parse(&wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn refuses_a_configuration_for_another_machine_or_with_other_layers() {
        let config = |architecture: &str| {
            let root = json!({"type": "layers", "diff_ids": [digest("b")]});
            json!({"os": "linux", "architecture": architecture, "rootfs": root, "history": []}).to_string().into_bytes()
        };
        assert_eq!(diff_ids(&config("amd64"), 1, "amd64").unwrap().len(), 1);
        assert!(matches!(diff_ids(&config("arm64"), 1, "amd64"), Err(RegistryError::Platform { .. })));
        assert!(matches!(diff_ids(&config("amd64"), 2, "amd64"), Err(RegistryError::Document { .. })));
    }
}
