//! `Dockerfile.NAME.lock`: what an image from a Dockerfile is made of, and the digests that come out of it.
//!
//! It holds all of the image's configuration, so that an image whose layer is in the cache needs no engine.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::Path;

use oci_spec::image::Config;
use serde::{Deserialize, Serialize};

use super::context::BuildContext;
use super::recipe::{Base, Recipe};
use crate::beneath::{self, Links, Opened};
use crate::image::archive::{BuiltImage, BuiltLayer, Settings};
use crate::image::error::{ImageError, at};
use crate::image::lock::ResultDigests;
use crate::image::reference::{Digest, PinnedImage};
use crate::image::registry::name::TaggedImage;
use crate::image::{self, LockedImage};

/// Changes whenever the same image of an engine gives other bytes.
pub const RECIPE: u32 = 2;
/// Bytes of a lock that anybody reads.
const LIMIT: u64 = 1 << 20;

/// The content of the lock.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DockerfileLock {
    /// Format version; 1.
    pub version: u32,
    /// How an engine's image becomes ours.
    pub recipe: u32,
    /// Debian's name of the machine's architecture.
    pub architecture: String,
    /// Digest of the Dockerfile.
    pub dockerfile: Digest,
    /// Digest of the files that it takes from the project.
    pub context: Digest,
    /// Whether its steps have a network.
    pub network: bool,
    /// The images that it names, by what it writes.
    pub bases: BTreeMap<String, LockedBase>,
    /// Unix time in seconds; no file of the layer is younger.
    pub epoch: u64,
    /// The image's configuration.
    pub run: RunSettings,
    /// Size in bytes of the layer that the steps made, if they changed any file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub layer: Option<u64>,
    /// What a build must give.
    pub result: ResultDigests,
}

/// An image that a Dockerfile names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LockedBase {
    /// For an image that is named by a tag: the digest that its registry had for it, of an index or a manifest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tagged: Option<Digest>,
    /// Digest of its configuration.
    pub config: Digest,
    /// Digest of its manifest.
    pub manifest: Digest,
}

/// What a configuration says of commands.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunSettings {
    /// Environment of every command.
    pub env: BTreeMap<String, String>,
    /// The user and group.
    pub user: String,
    /// The folder.
    pub working_dir: String,
    /// The program.
    pub entrypoint: Vec<String>,
    /// Its arguments, or the command.
    pub cmd: Vec<String>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
}

impl RunSettings {
    /// The same as the configuration of an image has it.
    pub fn config(&self) -> Config {
        let full = |words: &[String]| (!words.is_empty()).then(|| words.to_vec());
        let text = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        let mut config = Config::default();
        config
            .set_env(Some(self.env.iter().map(|(key, value)| format!("{key}={value}")).collect()))
            .set_user(text(&self.user))
            .set_working_dir(text(&self.working_dir))
            .set_entrypoint(full(&self.entrypoint))
            .set_cmd(full(&self.cmd))
            .set_labels((!self.labels.is_empty()).then(|| self.labels.clone().into_iter().collect()));
        config
    }
}

/// The name of the lock of a Dockerfile.
pub fn file_name(name: &str) -> String {
    format!("{name}.lock")
}

impl DockerfileLock {
    /// Reads the lock beside a Dockerfile; `None` when there is none.
    ///
    /// # Errors
    /// When it cannot be read or understood.
    pub fn load(name: &str, root: &Path) -> Result<Option<Self>, ImageError> {
        let file = file_name(name);
        let path = root.join(&file);
        let folder = beneath::folder(root).map_err(at(root))?;
        let mut text = String::new();
        match beneath::open(&folder, Path::new(&file), Links::Refused) {
            Ok(Opened::File(file, _)) => file.take(LIMIT).read_to_string(&mut text).map_err(at(&path))?,
            Ok(_) => return Err(at(&path)(std::io::ErrorKind::InvalidInput.into())),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(at(&path)(error)),
        };
        let lock: Self =
            serde_json::from_str(&text).map_err(|source| ImageError::Lock { name: name.to_owned(), source })?;
        match (lock.version, lock.recipe) {
            (1, RECIPE) => Ok(Some(lock)),
            _ => Err(ImageError::Stale { name: name.to_owned(), what: "recipe" }),
        }
    }

    /// The text of the lock.
    ///
    /// # Errors
    /// Never for what is in memory.
    pub fn text(&self) -> Result<String, ImageError> {
        let text = serde_json::to_string_pretty(self);
        Ok(text.map_err(|source| ImageError::Lock { name: String::new(), source })? + "\n")
    }

    /// The images that the lock has for those that are named by a tag.
    pub fn tags(&self) -> BTreeMap<String, PinnedImage> {
        let tagged = self.bases.iter().filter_map(|(written, base)| {
            let image: TaggedImage = written.parse().ok()?;
            Some((written.clone(), PinnedImage { repository: image.repository, digest: base.tagged.clone()? }))
        });
        tagged.collect()
    }

    /// Checks that the lock is of this Dockerfile, these files and these images of the project.
    ///
    /// # Errors
    /// When something changed since it was locked.
    pub fn check(&self, recipe: &Recipe, root: &Path) -> Result<(), ImageError> {
        let stale = |what| Err(ImageError::Stale { name: recipe.name.clone(), what });
        if self.dockerfile != recipe.digest {
            return stale("Dockerfile");
        }
        if !self.bases.keys().eq(recipe.bases.keys()) {
            return stale("base");
        }
        for (written, base) in &recipe.bases {
            if let Base::Definition(name) = base {
                let now = image::locked(name, Some(root))?;
                let locked = &self.bases[written];
                if (&locked.config, &locked.manifest) != (&now.config_digest, &now.manifest_digest) {
                    return stale("base");
                }
            }
        }
        let context = BuildContext::collect(root, &recipe.name, &recipe.sources).map_err(ImageError::Context)?;
        match context.digest().map_err(ImageError::Context)? == self.context {
            true => Ok(()),
            false => stale("files"),
        }
    }

    /// The image from the layers of its base and its own layer.
    ///
    /// # Errors
    /// When a document of it cannot be written.
    pub fn assemble(&self, name: &str, layers: Vec<BuiltLayer>) -> Result<BuiltImage, ImageError> {
        let (run, architecture) = (self.run.config(), self.architecture.as_str());
        BuiltImage::assemble(Settings { name, run, architecture, epoch: self.epoch }, layers)
    }

    /// The image from a cache of layers; `None` when its own layer is not there.
    ///
    /// # Errors
    /// When a document of it cannot be written.
    pub fn cached(&self, name: &str, below: &[BuiltLayer], layers: &Path) -> Result<Option<BuiltImage>, ImageError> {
        let mut all = below.to_vec();
        if let Some(size) = self.layer {
            let Some(diff_id) = self.result.diff_ids.last().cloned() else { return Ok(None) };
            let path = layers.join(format!("{}.tar", diff_id.hex()));
            if path.metadata().map_or(true, |metadata| metadata.len() != size) {
                return Ok(None);
            }
            all.push(BuiltLayer { diff_id, size, path });
        }
        let built = self.assemble(name, all)?;
        image::build::compare_digests(name, &built, &self.result)?;
        Ok(Some(built))
    }
}

/// Reads a Dockerfile and its lock, and checks that they belong together.
///
/// # Errors
/// When one is absent, or they do not.
pub fn locked(name: &str, root: Option<&Path>) -> Result<LockedImage, ImageError> {
    let root = root.ok_or_else(|| ImageError::UnknownImage(name.to_owned()))?;
    let lock = DockerfileLock::load(name, root)?.ok_or_else(|| ImageError::Unlocked(name.to_owned()))?;
    let recipe = Recipe::load(name, root, &lock.tags())?;
    lock.check(&recipe, root)?;
    Ok(LockedImage {
        name: name.to_owned(),
        lock_digest: Digest::of(lock.text()?.as_bytes()),
        config_digest: lock.result.config.clone(),
        manifest_digest: lock.result.manifest.clone(),
        diff_ids: lock.result.diff_ids.clone(),
        environment: lock.run.env.clone(),
        built_in: false,
    })
}
