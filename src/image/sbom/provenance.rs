//! How an image came to be: an in-toto Statement v1 with SLSA provenance v1. It is not signed here.

use serde_json::{Value, json};

use super::{Materials, Sources, sorted};
use crate::image::dockerfile::lock::RECIPE;
use crate::image::reference::Digest;

/// What the build is: the document that says how a definition and its locks become an image.
const BUILD_TYPE: &str = concat!(env!("CARGO_PKG_REPOSITORY"), "/blob/main/docs/images.md");

pub(super) fn statement(materials: &Materials<'_>, sources: &Sources) -> Value {
    let (chain, locks) = (&sources.chain, &sources.locks);
    let mut dependencies = Vec::new();
    for (loaded, lock) in chain.iter().zip(locks.iter()) {
        let definition = json!({"sha256": loaded.digest.hex()});
        dependencies.push(json!({"name": format!("images/{}/image.yaml", loaded.name), "digest": definition}));
        if let Ok(digest) = lock.digest() {
            let name = format!("images/{}/image.lock", loaded.name);
            dependencies.push(json!({"name": name, "digest": {"sha256": digest.hex()}}));
        }
        if let Some(pylock) = &lock.pylock {
            let name = format!("images/{}/pylock.toml", loaded.name);
            dependencies.push(json!({"name": name, "digest": {"sha256": pylock.hex()}}));
        }
        for source in &lock.sources {
            let name = format!("InRelease of {}", source.suite);
            dependencies.push(json!({"name": name, "digest": {"sha256": source.in_release.hex()}}));
        }
    }
    for part in &materials.parts {
        let mut digest = json!({"sha256": part.sha256.hex()});
        if let Some(sha512) = &part.sha512 {
            digest["sha512"] = json!(sha512);
        }
        dependencies.push(json!({"uri": part.purl, "digest": digest}));
    }
    let (mut architecture, mut recipe) =
        locks.last().map(|lock| (lock.architecture.as_str(), lock.recipe)).unwrap_or_default();
    if let Some(lock) = &sources.dockerfile {
        (architecture, recipe) = (&lock.architecture, RECIPE);
        let text = lock.text().unwrap_or_default();
        let own = [
            (materials.name.to_owned(), &lock.dockerfile),
            (format!("{}.lock", materials.name), &Digest::of(text.as_bytes())),
            ("the files of COPY and ADD".to_owned(), &lock.context),
        ];
        dependencies.extend(own.map(|(name, digest)| json!({"name": name, "digest": {"sha256": digest.hex()}})));
        for (name, base) in &lock.bases {
            dependencies.push(json!({"name": format!("the image {name}"), "digest": {"sha256": base.manifest.hex()}}));
        }
    }
    sorted(json!({
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"name": materials.name, "digest": {"sha256": materials.manifest.hex()}}],
        "predicateType": "https://slsa.dev/provenance/v1",
        "predicate": {
            "buildDefinition": {
                "buildType": BUILD_TYPE,
                "externalParameters": {"definition": materials.name, "architecture": architecture},
                "internalParameters": {"recipe": recipe, "epoch": materials.epoch},
                "resolvedDependencies": dependencies,
            },
            "runDetails": {
                "builder": {"id": env!("CARGO_PKG_REPOSITORY"), "version": {"sandbox": env!("CARGO_PKG_VERSION")}},
                "byproducts": [{"name": "configuration", "digest": {"sha256": materials.config.hex()}}],
            },
        },
    }))
}
