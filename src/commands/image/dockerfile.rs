//! Images from a Dockerfile: the engine runs the steps, and what they changed becomes one layer of ours.
//!
//! The engine gets the images that the Dockerfile is based on, the files that it names, and nothing else: no variable, no
//! login, no key, and no network unless the lock says so.

use std::collections::BTreeMap;
use std::path::Path;

use super::registry;
use crate::commands::connect::connect;
use crate::commands::printer::sanitise;
use crate::commands::progress::Progress;
use crate::commands::{Context, Failure};
use crate::engine::{Build, BuildSpec, Builder, Engine};
use crate::image::dockerfile::context::BuildContext;
use crate::image::dockerfile::lock::{self, DockerfileLock, LockedBase};
use crate::image::dockerfile::recipe::{Base, Recipe};
use crate::image::error::at;
use crate::image::lock::ResultDigests;
use crate::image::reference::{Digest, PinnedImage};
use crate::image::registry::name::TaggedImage;
use crate::image::saved::Saved;
use crate::image::{self, BuiltImage, BuiltLayer, Checked, ImageContext, ImageError, LockedImage, canonical};

/// The name of the Dockerfile among the files that are sent. Nothing of the project's has it: see [`image::dockerfile::ignore`].
const SENT_AS: &str = ".sandbox";
/// What keeps it out of `COPY . .`: the engine removes both files once it has read them.
const SENT_IGNORE: &str = ".sandbox\n.dockerignore\n";
/// The most bytes of an engine's image.
const SAVED: u64 = 32 << 30;
/// Characters of a step that are shown while it runs.
const SHOWN: usize = 100;

/// What a build gave.
struct Made {
    built: BuiltImage,
    lock: DockerfileLock,
}

/// Builds what a lock promises, or takes it from the cache: an image of a definition, or from a Dockerfile.
///
/// # Errors
/// When it cannot be built, or is something else.
pub async fn ensure(
    context: &Context,
    surroundings: &ImageContext<'_>,
    locked: &LockedImage,
) -> Result<BuiltImage, Failure> {
    if !image::dockerfile::is_name(&locked.name) {
        return Ok(image::ensure_archive(locked, surroundings).await?);
    }
    let (recipe, lock) = read(surroundings, &locked.name)?;
    let bases = bases(context, surroundings, &recipe).await?;
    let layers = layers(surroundings)?;
    if let Some(built) = lock.cached(&recipe.name, below(&recipe, &bases), &layers)? {
        return Ok(built);
    }
    promised(context, surroundings, (&recipe, &lock), &bases, &layers).await
}

/// Builds from the Dockerfile, without the cache of layers, and compares with the lock.
pub(super) async fn verify(
    context: &Context,
    surroundings: &ImageContext<'_>,
    name: &str,
) -> Result<BuiltImage, Failure> {
    image::locked(name, surroundings.project_root)?;
    let (recipe, lock) = read(surroundings, name)?;
    let bases = bases(context, surroundings, &recipe).await?;
    let folder = tempfile::tempdir_in(layers(surroundings)?).map_err(at(surroundings.cache))?;
    promised(context, surroundings, (&recipe, &lock), &bases, folder.path()).await
}

/// Builds twice, below a folder of the caller's, and compares both with each other and with the lock.
pub(super) async fn check(
    context: &Context,
    surroundings: &ImageContext<'_>,
    name: &str,
    folder: &Path,
) -> Result<Checked, Failure> {
    image::locked(name, surroundings.project_root)?;
    let (recipe, lock) = read(surroundings, name)?;
    let bases = bases(context, surroundings, &recipe).await?;
    let mut built = Vec::new();
    for part in ["one", "two"] {
        let layers = folder.join(part);
        std::fs::create_dir_all(&layers).map_err(at(&layers))?;
        built.push(make(context, surroundings, &recipe, lock.network, &bases, &layers).await?.built);
    }
    let (Some(again), Some(first)) = (built.pop(), built.pop()) else { return Err(ImageError::Worker.into()) };
    Ok(image::compared(first, &again, &lock.result, surroundings.cache)?)
}

/// Builds a Dockerfile and gives the lock that promises the same.
pub(super) async fn locking(
    context: &Context,
    surroundings: &ImageContext<'_>,
    name: &str,
    network: bool,
) -> Result<DockerfileLock, Failure> {
    let root = root(surroundings, name)?;
    let tagged = Recipe::tags(name, root)?;
    // A mistake here is told before anything is fetched, whatever the tags stand for.
    let any = |image: &TaggedImage| PinnedImage { repository: image.repository.clone(), digest: Digest::of(b"") };
    let tags = tagged.iter().map(|(written, image)| (written.clone(), any(image))).collect();
    let recipe = Recipe::load(name, root, &tags)?;
    BuildContext::collect(root, name, &recipe.sources).map_err(ImageError::Context)?;
    let mut tags = BTreeMap::new();
    for (written, image) in tagged {
        tags.insert(written, registry::resolve(context, &image, surroundings.offline).await?);
    }
    let recipe = Recipe::load(name, root, &tags)?;
    let bases = bases(context, surroundings, &recipe).await?;
    Ok(make(context, surroundings, &recipe, network, &bases, &layers(surroundings)?).await?.lock)
}

fn root<'a>(surroundings: &ImageContext<'a>, name: &str) -> Result<&'a Path, ImageError> {
    surroundings.project_root.ok_or_else(|| ImageError::UnknownImage(name.to_owned()))
}

fn read(surroundings: &ImageContext<'_>, name: &str) -> Result<(Recipe, DockerfileLock), ImageError> {
    let root = root(surroundings, name)?;
    let lock = DockerfileLock::load(name, root)?.ok_or_else(|| ImageError::Unlocked(name.to_owned()))?;
    Ok((Recipe::load(name, root, &lock.tags())?, lock))
}

fn layers(surroundings: &ImageContext<'_>) -> Result<std::path::PathBuf, ImageError> {
    let layers = surroundings.cache.join("layers");
    std::fs::create_dir_all(&layers).map_err(at(&layers))?;
    Ok(layers)
}

/// All images that a Dockerfile names, by what it writes.
async fn bases(
    context: &Context,
    surroundings: &ImageContext<'_>,
    recipe: &Recipe,
) -> Result<BTreeMap<String, BuiltImage>, Failure> {
    let mut bases = BTreeMap::new();
    for (written, base) in &recipe.bases {
        let built = match base {
            Base::Definition(name) => {
                let locked = image::locked(name, surroundings.project_root)?;
                image::ensure_archive(&locked, surroundings).await?
            }
            Base::Pinned(pinned) => registry::fetch(context, pinned, surroundings.offline).await?,
        };
        bases.insert(written.clone(), built);
    }
    Ok(bases)
}

/// The layers below the last stage.
fn below<'a>(recipe: &Recipe, bases: &'a BTreeMap<String, BuiltImage>) -> &'a [BuiltLayer] {
    recipe.last.as_ref().and_then(|last| bases.get(last)).map_or(&[], |base| &base.layers)
}

async fn promised(
    context: &Context,
    surroundings: &ImageContext<'_>,
    (recipe, lock): (&Recipe, &DockerfileLock),
    bases: &BTreeMap<String, BuiltImage>,
    layers: &Path,
) -> Result<BuiltImage, Failure> {
    let made = make(context, surroundings, recipe, lock.network, bases, layers).await?;
    if made.lock.context != lock.context {
        return Err(ImageError::Stale { name: recipe.name.clone(), what: "files" }.into());
    }
    image::build::compare_digests(&recipe.name, &made.built, &lock.result)?;
    Ok(made.built)
}

/// Has the engine build, and makes one layer of what it gives.
async fn make(
    context: &Context,
    surroundings: &ImageContext<'_>,
    recipe: &Recipe,
    network: bool,
    bases: &BTreeMap<String, BuiltImage>,
    layers: &Path,
) -> Result<Made, Failure> {
    let root = root(surroundings, &recipe.name)?;
    let epoch = bases.values().filter_map(BuiltImage::epoch).max().unwrap_or_default();
    let engine = connect(context).await?;
    let builder = engine.builder(wanted_builder()?).await?;
    let mut ids = Vec::new();
    let mut names = BTreeMap::new();
    for (written, base) in bases {
        let id = registry::load(&engine, base).await?;
        names.insert(written.clone(), engine.name_base(&id, &base.config_digest.to_string()).await?);
        ids.push(id);
    }
    let files = BuildContext::collect(root, &recipe.name, &recipe.sources).map_err(ImageError::Context)?;
    let io = |error| ImageError::File { path: surroundings.cache.to_owned(), source: error };
    let mut sent = tempfile::tempfile_in(surroundings.cache).map_err(io)?;
    let more: [(&str, &[u8]); 2] =
        [(".dockerignore", SENT_IGNORE.as_bytes()), (SENT_AS, &recipe.with_names(&names).into_bytes())];
    let context_digest = files.write(std::io::BufWriter::new(&sent), epoch, &more).map_err(ImageError::Context)?;
    std::io::Seek::rewind(&mut sent).map_err(io)?;
    let spec = BuildSpec {
        dockerfile: SENT_AS.to_owned(),
        network,
        arguments: BTreeMap::from([("SOURCE_DATE_EPOCH".to_owned(), epoch.to_string())]),
        bases: ids,
        builder,
    };
    let progress = Progress::start(&context.printer);
    let step = |text: &str| progress.say(sanitise(&text.chars().take(SHOWN).collect::<String>()));
    let build = engine.build_image(tokio::fs::File::from_std(sent), &spec, &step).await?;
    progress.step("taking the image over");
    let saved = save(&engine, &build, surroundings.cache).await;
    engine.discard_build(&build).await?;
    let saved = saved?;
    let (folder, cache) = (layers.to_owned(), surroundings.cache.to_owned());
    let under = below(recipe, bases).to_vec();
    let work = tokio::task::spawn_blocking(move || {
        let saved = Saved::read(saved).map_err(ImageError::Saved)?;
        let diff_ids: Vec<_> = under.iter().map(|layer| layer.diff_id.clone()).collect();
        let above = saved.above(&diff_ids, &cache).map_err(ImageError::Saved)?;
        let layer = canonical::layer(&under, above, epoch, &folder)?;
        Ok::<_, ImageError>((saved.run, layer, under))
    });
    let (run, layer, mut all) = work.await.map_err(|_| ImageError::Worker)??;
    let size = layer.as_ref().map(|layer| layer.size);
    all.extend(layer);
    let locked = |written: &String, base: &BuiltImage| LockedBase {
        tagged: recipe.tagged(written).cloned(),
        config: base.config_digest.clone(),
        manifest: base.manifest_digest.clone(),
    };
    let mut lock = DockerfileLock {
        version: 1,
        recipe: lock::RECIPE,
        architecture: image::architecture()?.to_owned(),
        dockerfile: recipe.digest.clone(),
        context: context_digest,
        network,
        bases: bases.iter().map(|(written, base)| (written.clone(), locked(written, base))).collect(),
        epoch,
        run,
        layer: size,
        result: ResultDigests {
            diff_ids: all.iter().map(|layer| layer.diff_id.clone()).collect(),
            config: recipe.digest.clone(),
            manifest: recipe.digest.clone(),
        },
    };
    let built = lock.assemble(&recipe.name, all)?;
    (lock.result.config, lock.result.manifest) = (built.config_digest.clone(), built.manifest_digest.clone());
    Ok(Made { built, lock })
}

/// The builder that Docker's own variable asks for (<https://docs.docker.com/build/building/variables/#docker_buildkit>).
fn wanted_builder() -> Result<Option<Builder>, Failure> {
    const NAME: &str = "DOCKER_BUILDKIT";
    match std::env::var(NAME).unwrap_or_default().to_ascii_lowercase().as_str() {
        "" => Ok(None),
        "0" | "f" | "false" => Ok(Some(Builder::Classic)),
        "1" | "t" | "true" => Ok(Some(Builder::BuildKit)),
        _ => {
            let said = std::io::Error::new(std::io::ErrorKind::InvalidInput, "it is neither 0 nor 1");
            Err(Failure::system(
                "image-builder",
                "read the variable DOCKER_BUILDKIT",
                &said,
                "set it to 0, to 1, or not at all",
            ))
        }
    }
}

/// The image as the engine gives it away, in a file without a name.
async fn save(engine: &Engine, build: &Build, cache: &Path) -> Result<std::fs::File, Failure> {
    let file = tempfile::tempfile_in(cache).map_err(at(cache))?;
    let mut output = tokio::fs::File::from_std(file.try_clone().map_err(at(cache))?);
    engine.save_image(&build.id, &mut output, SAVED).await?;
    Ok(file)
}
