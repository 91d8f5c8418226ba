//! `sandbox image push` and `sandbox image pull`.

use serde_json::json;

use crate::commands::connect::connect;
use crate::commands::registry_login::login;
use crate::commands::{Context, Failure};
use crate::engine::Engine;
use crate::image::reference::{ImageChoice, PinnedImage, ReferenceError};
use crate::image::registry::name::TaggedImage;
use crate::image::registry::{self, PullContext, PushTarget, RegistryError, Repository, name};
use crate::image::{self, BuiltImage, ImageContext, ImageError};
use crate::project::configuration;

/// Builds an image, or takes it from the cache, and pushes it.
pub(super) async fn push(
    context: &Context,
    surroundings: &ImageContext<'_>,
    image: &str,
    target: &str,
    mount_from: Option<&str>,
) -> Result<(), Failure> {
    let mut target = push_target(target, mount_from).map_err(ImageError::from)?;
    target.authorities = configuration::load(&context.folders.config)?.authorities;
    let login = login(context, &target.repository).await?;
    let locked = image::locked(image, surroundings.project_root)?;
    let built = super::dockerfile::ensure(context, surroundings, &locked).await?;
    let pushed = registry::push(&built, &target, login, surroundings.progress).await?;
    context.printer.result(&pushed, || {
        let counts = format!("{} sent, {} mounted, {} there", pushed.uploaded, pushed.mounted, pushed.present);
        format!("{}\n  blobs: {counts}", pushed.reference)
    });
    Ok(())
}

/// `REGISTRY/PATH` with or without `:TAG`.
fn push_target(text: &str, mount_from: Option<&str>) -> Result<PushTarget, RegistryError> {
    let wrong = |problem| RegistryError::Name { name: text.chars().take(200).collect(), problem };
    let (repository, tag) = name::split_tag(text);
    let tag = tag.map(str::to_owned);
    if tag.as_deref().is_some_and(|tag| !name::is_tag(tag)) {
        return Err(wrong("what follows the colon is no tag"));
    }
    let repository: Repository = repository.parse()?;
    let from = mount_from.map(|from| format!("{}/{from}", repository.registry).parse::<Repository>()).transpose()?;
    Ok(PushTarget { repository, tag, mount_from: from.map(|from| from.path), authorities: None })
}

/// Pulls an image by its digest and gives it to the engine.
pub(super) async fn pull(context: &Context, surroundings: &ImageContext<'_>, reference: &str) -> Result<(), Failure> {
    let pinned = match reference.parse::<ImageChoice>().map_err(ImageError::from)? {
        ImageChoice::Pinned(pinned) => pinned,
        ImageChoice::Definition(name) | ImageChoice::Dockerfile(name) => {
            return Err(ImageError::from(ReferenceError::Unpinned(name)).into());
        }
    };
    let built = fetch(context, &pinned, surroundings.offline).await?;
    let engine = connect(context).await?;
    let id = load(&engine, &built).await?;
    let result = json!({"reference": reference, "config": built.config_digest, "id": id});
    context.printer.result(&result, || format!("{reference}\n  id: {id}"));
    Ok(())
}

/// Brings a foreign image into the cache, with the login that the user's Docker configuration has.
///
/// # Errors
/// When the registry does not give it, or gives something else.
pub async fn fetch(context: &Context, pinned: &PinnedImage, offline: bool) -> Result<BuiltImage, Failure> {
    let (cache, progress) = (&context.folders.cache, context.printer.progress());
    // What is in the cache needs no login, so that no helper has to be asked.
    let known = PullContext { cache, login: None, authorities: None, progress, offline: true };
    let cached = registry::pull(pinned, &known).await;
    match cached {
        Err(ImageError::Registry(RegistryError::Offline { .. })) if !offline => {
            let repository: Repository = pinned.repository.parse().map_err(ImageError::from)?;
            let login = login(context, &repository).await?;
            let authorities = configuration::load(&context.folders.config)?.authorities;
            let authorities = authorities.as_deref();
            Ok(registry::pull(pinned, &PullContext { cache, login, authorities, progress, offline }).await?)
        }
        result => Ok(result?),
    }
}

/// The image that a tag of a registry stands for now.
///
/// # Errors
/// When the registry does not give it.
pub(super) async fn resolve(context: &Context, image: &TaggedImage, offline: bool) -> Result<PinnedImage, Failure> {
    let repository: Repository = image.repository.parse().map_err(ImageError::from)?;
    let login = if offline { None } else { login(context, &repository).await? };
    let authorities = configuration::load(&context.folders.config)?.authorities;
    let (cache, progress) = (&context.folders.cache, context.printer.progress());
    let pull = PullContext { cache, login, authorities: authorities.as_deref(), progress, offline };
    Ok(registry::resolve(image, &pull).await?)
}

pub(super) async fn load(engine: &Engine, built: &BuiltImage) -> Result<String, Failure> {
    let ids = [built.config_digest.to_string(), built.manifest_digest.to_string()];
    for last in [false, true] {
        for id in &ids {
            if let Some(found) = engine.image(id).await? {
                return Ok(found.id);
            }
        }
        if !last {
            engine.load_image(built.archive()?).await?;
        }
    }
    let [expected, _] = ids;
    Err(crate::session::launch::LaunchError::ImageLost { expected }.into())
}

impl From<&RegistryError> for Failure {
    fn from(error: &RegistryError) -> Self {
        let (code, next) = advice(error);
        Failure::new(code, error, next)
    }
}

/// The code of a registry's failure and what to do about it.
fn advice(error: &RegistryError) -> (&'static str, String) {
    use RegistryError as E;
    match error {
        E::Name { .. } => {
            ("image-reference", "write REGISTRY/PATH@sha256:… with the digest that the registry shows".into())
        }
        E::Denied { host, .. } => (
            "registry-denied",
            format!("log in with `docker login {host}`, and see whether the account may use the repository"),
        ),
        E::Challenge { .. } => ("registry-denied", "ask who runs the registry how to log in".into()),
        E::Absent { .. } => ("registry-absent", "check the repository's name and the digest".into()),
        E::Redirection { .. } => {
            ("registry-redirection", "do not use this registry before who runs it has explained where it leads".into())
        }
        E::Digest { .. } | E::Size { .. } | E::Document { .. } | E::Json { .. } => {
            ("registry-content", "do not use this image; ask who runs the registry, or pull from another one".into())
        }
        E::Platform { .. } => ("image-platform", "use an image for this machine's architecture".into()),
        E::Offline { .. } => ("image-offline", "run again without --offline".into()),
        _ => ("registry", "check the network and the registry, and run it again: what was transferred is kept".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_a_tag_from_a_port() {
        let target = |text: &str| {
            let target = push_target(text, None).unwrap();
            (target.repository.to_string(), target.tag)
        };
        assert_eq!(target("127.0.0.1:5000/a/b"), ("127.0.0.1:5000/a/b".into(), None));
        assert_eq!(target("127.0.0.1:5000/a/b:v1"), ("127.0.0.1:5000/a/b".into(), Some("v1".into())));
        assert!(push_target("registry.example.com/a:", None).is_err());
        assert!(push_target("registry.example.com/a@sha256:b", None).is_err());
        let from = push_target("registry.example.com/a", Some("team/base")).unwrap().mount_from;
        assert_eq!(from.unwrap(), "team/base");
        assert!(push_target("registry.example.com/a", Some("../b")).is_err());
    }
}
