//! `sandbox image build --check` and `sandbox image diff`.

use serde_json::json;

use super::{Output, dockerfile, print, registry, write};
use crate::commands::printer::sanitise;
use crate::commands::{Context, Failure};
use crate::image::definition::chain;
use crate::image::dockerfile::is_name;
use crate::image::error::at;
use crate::image::reference::ImageChoice;
use crate::image::{self, BuiltImage, ImageContext, ImageError};

/// Entries that are shown to a person.
const SHOWN: usize = 200;

/// Builds twice and compares. The image is written only when it is what the lock says.
pub(super) async fn check(
    context: &Context,
    surroundings: &ImageContext<'_>,
    name: &str,
    output: Option<&Output>,
) -> Result<u8, Failure> {
    std::fs::create_dir_all(surroundings.cache).map_err(at(surroundings.cache))?;
    let folder = tempfile::tempdir_in(surroundings.cache).map_err(at(surroundings.cache))?;
    let from_dockerfile = is_name(name);
    let checked = match from_dockerfile {
        true => dockerfile::check(context, surroundings, name, folder.path()).await?,
        false => image::check(name, surroundings, folder.path()).await?,
    };
    if checked.mismatches.is_empty() && checked.repeats {
        if let Some(output) = output {
            write(&checked.built, output).await?;
        }
        print(context, &checked.built);
        return Ok(0);
    }
    let result = json!({
        "name": name,
        "matches": checked.mismatches.is_empty(),
        "repeats": checked.repeats,
        "mismatches": checked.mismatches,
        "difference": checked.difference,
    });
    let names: Vec<String> = match from_dockerfile {
        true => Vec::new(),
        false => chain(name, surroundings.project_root)?.into_iter().map(|loaded| loaded.name).collect(),
    };
    context.printer.result(&result, || {
        let mut text = format!("{name} is not what its lock says\n");
        if !checked.repeats && from_dockerfile {
            text.push_str("two builds gave different files: a step writes what is not the same each time\n");
        } else if !checked.repeats {
            text.push_str("two builds of the same lock gave different images: this is a mistake in the builder\n");
        }
        for mismatch in &checked.mismatches {
            let which = mismatch.layer.and_then(|index| names.get(index));
            let which = which.map(|image| format!(" of `{image}`")).unwrap_or_default();
            text.push_str(&format!(
                "{}{which}\n  locked {}\n  built  {}\n",
                mismatch.what, mismatch.locked, mismatch.built
            ));
        }
        match &checked.difference {
            Some(difference) => text.push_str(&sanitise(&difference.text(SHOWN))),
            None => text
                .push_str("the layers that the lock means are not in the cache, so their entries are not compared\n"),
        }
        text
    });
    Ok(1)
}

/// Shows what differs between two images.
pub(super) async fn diff(
    context: &Context,
    surroundings: &ImageContext<'_>,
    first: &str,
    second: &str,
) -> Result<(), Failure> {
    let first = obtain(context, surroundings, first).await?;
    let second = obtain(context, surroundings, second).await?;
    let difference = image::difference(&first, &second)?;
    context.printer.result(&difference, || sanitise(&difference.text(usize::MAX)));
    Ok(())
}

async fn obtain(context: &Context, surroundings: &ImageContext<'_>, name: &str) -> Result<BuiltImage, Failure> {
    match name.parse::<ImageChoice>().map_err(ImageError::from)? {
        ImageChoice::Definition(name) | ImageChoice::Dockerfile(name) => {
            let locked = image::locked(&name, surroundings.project_root)?;
            dockerfile::ensure(context, surroundings, &locked).await
        }
        ImageChoice::Pinned(pinned) => registry::fetch(context, &pinned, surroundings.offline).await,
    }
}
