//! Pushing and pulling: against Debian's `docker-registry`, against a strict fake that misbehaves on demand, and through
//! `sandbox up` on a real engine.
#![allow(clippy::unwrap_used)]

use std::path::Path;

use sandbox::credential::secret::Secret;
use sandbox::image::reference::{Digest, PinnedImage};
use sandbox::image::registry::{Login, PullContext, PushTarget, Pushed, RegistryError, pull, push};
use sandbox::image::{BuiltImage, BuiltLayer, ImageError};

mod fake;
mod hostile;
mod real;
#[path = "../support/mod.rs"]
mod support;
mod transfer;

/// Go's name of the architecture that the tests run on.
fn architecture() -> &'static str {
    if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" }
}

/// A small image of two layers, whose files are in this folder.
fn image(folder: &Path) -> BuiltImage {
    let layers: Vec<BuiltLayer> = ["lower", "upper"]
        .iter()
        .map(|text| {
            let bytes = text.repeat(50_000).into_bytes();
            let diff_id = Digest::of(&bytes);
            let path = folder.join(diff_id.hex());
            std::fs::write(&path, &bytes).unwrap();
            BuiltLayer { diff_id, size: bytes.len() as u64, path }
        })
        .collect();
    BuiltImage::of_config("small", config(&layers), layers).unwrap()
}

fn config(layers: &[BuiltLayer]) -> Vec<u8> {
    let ids: Vec<String> = layers.iter().map(|layer| layer.diff_id.to_string()).collect();
    let root = serde_json::json!({"type": "layers", "diff_ids": ids});
    let config = serde_json::json!({"architecture": architecture(), "os": "linux", "rootfs": root});
    config.to_string().into_bytes()
}

fn login(user: &str, password: &str) -> Option<Login> {
    Some(Login::Password { user: user.to_owned(), password: Secret::new(password.as_bytes().to_vec()) })
}

async fn pushed(image: &BuiltImage, repository: &str, login: Option<Login>) -> Result<Pushed, RegistryError> {
    let target = PushTarget {
        repository: repository.parse().unwrap(),
        tag: Some("v1".into()),
        mount_from: None,
        authorities: None,
    };
    push(image, &target, login, false).await.map_err(registry_error)
}

async fn pulled(
    cache: &Path,
    repository: &str,
    digest: &Digest,
    login: Option<Login>,
) -> Result<BuiltImage, RegistryError> {
    let pinned = PinnedImage { repository: repository.to_owned(), digest: digest.clone() };
    let context = PullContext { cache, login, authorities: None, progress: false, offline: false };
    pull(&pinned, &context).await.map_err(registry_error)
}

fn registry_error(error: ImageError) -> RegistryError {
    match error {
        ImageError::Registry(error) => error,
        other => panic!("{other:?}"),
    }
}

/// Everything that an error says, with its causes.
fn chain(error: &RegistryError) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text.push_str(&format!(": {cause}"));
        source = cause.source();
    }
    text
}

/// Asserts that two images are the same to the byte.
fn assert_same(one: &BuiltImage, other: &BuiltImage) {
    assert_eq!((one.manifest(), one.config()), (other.manifest(), other.config()));
    for (one, other) in one.layers.iter().zip(&other.layers) {
        assert_eq!((&one.diff_id, one.size), (&other.diff_id, other.size));
        assert!(std::fs::read(&one.path).unwrap() == std::fs::read(&other.path).unwrap());
    }
}
